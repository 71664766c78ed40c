// Package wal is one run on disk: it appends batches to segment files, reads them by seq, key, time and topic,
// follows them, seals them, and recovers them after a crash.
//
// Ownership: a Log belongs to one writer at a time (package writer); its methods that change something must not be called
// concurrently, except where they say so. Readers, any number, may run beside it in the same process (Log.Reader) or elsewhere (OpenReader).
//
// Durability: Append has only written when it returns; bytes are durable when a later Sync has returned nil. Any
// error from Append, Sync or Mark is final: the Log refuses everything but Fail and Abandon after it.
//
// Retention: RemoveBefore removes segments from the front of a run, Log.RemoveBefore from the one that is being written,
// beside the writer and all readers; RemoveRun removes a run. What may go is decided elsewhere (package retention).
//
// Slices: a View borrows from a mapping that stays pinned, or from a Buffer; each method says for how long.
package wal
