// Package engine is the exchange itself: it captures every command before it handles it, and every event it makes, and
// it lets a message out only when the log holds it durably.
//
// Two rules carry everything. Capture first: what changes the book is in the log before it does, so the log can rebuild
// the book. Gate last: a message leaves at or below the durable watermark, so no client ever knows more than the log.
// Between the two the engine runs ahead of the disk without waiting for it.
//
// After a crash the log ends somewhere: behind an entry, not behind a command and all its events. Package replay restores
// the last snapshot and has the Replayer apply the logged commands behind it again, oldest run first. The book is
// deterministic, so the events come out again; each is compared with the logged one. Those that the torn end has lost
// nobody has seen, because of the gate; Start captures them in the new run.
//
// An Engine belongs to one goroutine.
package engine
