package writer

import (
	"context"
	"fmt"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
)

// lossy counts what does not count against the queue, since nobody may wait for it.
type lossy struct {
	notes int
	bytes int // of their bodies
}

// Ticket is a note's number, for WaitNote.
type Ticket uint64

// Note accepts a note behind the entries that were accepted so far; after is the seq of the last of them. Like Submit it
// copies, returns before the note is durable, and waits its turn when there is no room.
func (w *Writer) Note(kind entry.NoteKind, body []byte) (t Ticket, after uint64, err error) {
	if e := w.dead.Load(); e != nil {
		return 0, 0, *e
	}
	if err := entry.CheckNote(kind, body); err != nil {
		return 0, 0, err
	}
	w.mu.Lock()
	if w.phase != phaseOpen || len(w.queue) > 0 || w.full(len(body), true) {
		me, err := w.waitTurn(len(body), true)
		if err != nil {
			return 0, 0, err
		}
		defer w.waiters.Put(me)
		t, after = w.putNote(kind, body)
		w.leaveQueue(me)
	} else {
		t, after = w.putNote(kind, body)
	}
	wake := w.parked
	w.parked = false
	w.mu.Unlock()
	if wake {
		w.kick()
	}
	if w.o.Synchronous {
		return t, after, w.commitNow()
	}
	return t, after, nil
}

// TryNote accepts a note that may be lost, and so never waits: it reports false when the notes that were accepted this way
// already take their share of the commit that is filling, an eighth of QueueBytes and of BatchBytes, or the run has ended.
// Submitters have all of the queue beside it.
func (w *Writer) TryNote(kind entry.NoteKind, body []byte) (after uint64, ok bool) {
	if w.dead.Load() != nil || entry.CheckNote(kind, body) != nil {
		return 0, false
	}
	w.mu.Lock()
	quota := max(min(w.o.QueueBytes, w.o.BatchBytes)/8, 4096)
	if w.phase != phaseOpen || w.lossy.bytes+len(body)+(w.lossy.notes+1)*noteOverhead > quota {
		w.mu.Unlock()
		return 0, false
	}
	w.lossy.notes++
	w.lossy.bytes += len(body)
	_, after = w.putNote(kind, body)
	wake := w.parked
	w.parked = false
	w.mu.Unlock()
	if wake {
		w.kick()
	}
	if w.o.Synchronous {
		return after, w.commitNow() == nil
	}
	return after, true
}

// noteOverhead is what a note counts for beside its body, so that empty ones are bounded, too.
const noteOverhead = 32

// putNote is called with mu held.
func (w *Writer) putNote(kind entry.NoteKind, body []byte) (Ticket, uint64) {
	w.fill.AddNote(kind, body)
	w.trail += len(body)
	return Ticket(w.noted.Add(1)), w.accepted.Load()
}

// WaitNote returns nil when a note is durable, and everything accepted before it. See WaitDurable.
func (w *Writer) WaitNote(ctx context.Context, t Ticket) error {
	g := goal{note: uint64(t)}
	switch {
	case w.reached(g):
		return nil
	case g.note > w.noted.Load():
		return fmt.Errorf("%w: note %d has not been accepted, the last one is %d", format.ErrInvalid, t, w.noted.Load())
	case w.o.Sync == SyncNever:
		return ErrNotDurable
	}
	return w.wait(ctx, g)
}
