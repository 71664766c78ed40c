package runlog

import (
	"context"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/writer"
)

// NoteKind says what a note is about.
type NoteKind = entry.NoteKind

// NoteTicket is a note's number, for WaitNote.
type NoteTicket = writer.Ticket

// Note accepts a note, a record without a seq, behind the entries that were submitted so far; after is the seq of the
// last of them. Like Submit it copies, returns before the note is durable, and waits its turn when there is no room.
func (r *Run) Note(kind NoteKind, body []byte) (t NoteTicket, after uint64, err error) {
	return r.w.Note(kind, body)
}

// TryNote accepts a note that may be lost. It never waits, and reports false when there is no room in the share that such
// notes have, or when the run has ended.
func (r *Run) TryNote(kind NoteKind, body []byte) (after uint64, ok bool) {
	return r.w.TryNote(kind, body)
}

// WaitNote returns nil when a note is durable, and everything accepted before it. See WaitDurable.
func (r *Run) WaitNote(ctx context.Context, t NoteTicket) error { return r.w.WaitNote(ctx, t) }
