// Package slow reads a whole run folder the slow way: a second opinion on what its bytes mean.
//
// It is written from docs/format alone, reads like those pages, shares no code with the engine and imports nothing of
// it. Nothing is mapped, cached or skipped: every frame is checked by its own sum and again by its batch's digest, every
// derived file against what the segments say. The tests beside it hold the engine's readers against it, on whole runs
// and on damaged ones. Who finds the two in disagreement has found a bug in the engine, in this package or in the pages.
package slow
