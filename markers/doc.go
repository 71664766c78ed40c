// Package markers keeps a lossy record, in a run's own log, of what market data the engine had seen when it made each entry.
//
// Data itself is not logged: there is too much of it, and it can be had elsewhere. What cannot be had elsewhere is how much
// of it had arrived when the engine decided. So each message is counted on its stream (Stream.Observe: no lock, no
// allocation, no system call), and when the next entry is submitted, the streams that have advanced are written in front
// of it: count, lowest and highest ts_init. Of chosen streams each message is written, with a fingerprint. Reader.SeenAt
// adds that up for an entry, and JoinAt finds the rows in a catalog.
//
// Records are notes of the log (docs/format/notes.md): they stand in it where they were observed, are made durable by its
// syncs, and survive a crash exactly as far as the entries around them do. A record is behind entry N and in front of
// entry N+1 if it was made after N was submitted and before N+1 was; that is the one meaning of its place, whatever kind it
// is.
//
// Nothing here ever waits, except New and Close, and nothing delays a submit: when the log is too busy for a record, it is
// dropped, and the next one that gets through is preceded by the gap. No cursor is lost for good, since counts are those
// since the run began: the next record has them. A reader is told whether something was missing at its entry (Loss).
//
// Who owns what: Markers belongs to the run's engine, one for each run, and is closed before the run. Arguments are copied.
// What a Reader returns belongs to the caller, but for what Records yields, which is valid until the next step.
package markers
