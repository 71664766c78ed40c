// Package writer stands between an engine and its log: Submit puts a draft into the batch that is filling and
// returns; while one batch is being committed the next one fills, so batches form by themselves.
//
// Who does the work: a goroutine of the Writer commits what was submitted, CommitDelay after it at the latest. A
// caller of WaitDurable or Append whose context cannot be cancelled does not wait for it: the first one to wait
// leads, and commits on its own goroutine. With Options.Synchronous there is no goroutine and every Submit commits.
// With Options.Manual there is none either, and a driver calls Step, Mark and Sync.
//
// Durability: an entry is acknowledged when Durable is at or above its seq. Submit alone promises nothing.
//
// Slices: Submit copies; the caller may reuse everything it passed.
package writer
