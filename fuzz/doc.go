// Package fuzz tries to make the log break its promises: the rows of the fault matrix that need no special rights. It
// has tests only. Around it:
//
//	oracle/  the one judge of what a fault has left
//	matrix/  the rows, how many cases, progress, the record
//	slow/    a second decoder, made from docs/format alone, to compare with
//	real/    the rows that need a kernel: file systems on failing disks, strace, memory caps (a module of its own)
//	mutants/ breaks the engine on purpose and sees whether the rows notice
//	peers/   the same damage done to other stores (a module of its own)
//
// CONTRIBUTING.md says how to run all this longer and how to replay a seed.
package fuzz
