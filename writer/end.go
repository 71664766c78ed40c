package writer

import (
	"context"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
)

// halt ends the run for the first reason that reaches it.
func (w *Writer) halt(cause error) {
	w.haltWith(&HaltError{Reason: reasonOf(cause), Cause: cause})
}

// Abandon ends the run as a crash would: unsealed, left to the next boot. OnHalt is not called. It returns at once;
// Done tells when the disk has answered and the files are closed. It does nothing once a Close has come as far as to
// end the run: then that is how the run ends, and Err stays ErrClosed.
func (w *Writer) Abandon(cause error) {
	w.end(&HaltError{Reason: ReasonAbandon, Cause: cause}, nil)
}

func (w *Writer) haltWith(h *HaltError) { w.end(h, w.o.OnHalt) }

func (w *Writer) end(h *HaltError, tell func(*HaltError)) {
	w.mu.Lock()
	tooLate := w.phase == phaseSealing && h.Reason == ReasonStall || w.ended && h.Reason == ReasonAbandon
	if w.phase == phaseHalted || w.phase == phaseClosed || tooLate {
		w.mu.Unlock()
		return
	}
	w.phase = phaseHalted
	h.Time = w.o.Clock.Now()
	h.FirstSeq, h.LastSeq = w.Durable()+1, w.Accepted()
	var err error = h
	w.dead.Store(&err)
	close(w.halting)
	w.mu.Unlock()
	w.wakeAll()
	w.kick()
	if tell != nil {
		go tell(h)
	}
	if w.o.Synchronous || w.o.Manual {
		w.finish()
	}
}

// Close ends the run: what was submitted is committed, then last, then the log is sealed. It is idempotent. If ctx
// ends first, closing goes on in the background and Close returns ctx's error; a later Close waits again. On a halted
// run it waits for what can still be written, and returns the
// *HaltError; the run is left to the next boot.
func (w *Writer) Close(ctx context.Context, last *entry.Draft) error {
	w.mu.Lock()
	if w.phase == phaseOpen {
		w.phase = phaseClosing
		w.last = last
		closed := error(format.ErrClosed)
		w.dead.Store(&closed)
		for _, q := range w.queue {
			q.nudge()
		}
		w.parked = false
		w.mu.Unlock()
		w.kick()
		if w.o.Synchronous || w.o.Manual {
			w.finish()
		}
	} else {
		w.mu.Unlock()
	}
	select {
	case <-w.done:
		return w.closeErr
	default:
	}
	select {
	case <-w.done:
		return w.closeErr
	case <-ctx.Done():
		return ctx.Err()
	}
}

// finish does the last things: it commits what can be committed and seals, or writes the halt record. Only the first
// call does anything.
func (w *Writer) finish() {
	w.lead.Lock()
	defer w.lead.Unlock()
	select {
	case <-w.done:
		return
	default:
	}
	w.drain()
	if w.failed == nil && !w.halted() {
		w.failed = w.seal()
	}
	if w.failed != nil && !w.halted() {
		w.lead.Unlock()
		w.halt(w.failed) // in synchronous mode this comes back here and finishes
		w.lead.Lock()
		select {
		case <-w.done:
			return
		default:
		}
	}
	if h, ok := w.Err().(*HaltError); ok {
		if w.failed == nil && w.o.Sync != SyncNever {
			w.failed = w.sync()
		}
		if !w.sealing {
			_ = w.log.Fail(h.record()) // best effort: the reason is also in the error
		}
		w.log.Abandon()
		w.closeErr = h
	}
	w.mu.Lock()
	w.phase = phaseClosed
	w.mu.Unlock()
	close(w.done)
	w.wakeAll()
}

// drain commits all that was accepted. It is called with lead held.
func (w *Writer) drain() {
	for {
		if more, err := w.step(); err != nil || !more {
			return
		}
	}
}

func (w *Writer) halted() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.phase == phaseHalted
}

// seal ends a run that is being closed. Until everything is durable a stall can still halt it; then there is nothing
// to seal.
func (w *Writer) seal() error {
	w.mu.Lock()
	if w.ended = w.phase == phaseClosing; w.ended && w.last != nil {
		if _, err := w.put(w.last, w.log.Kinds()); err != nil {
			w.mu.Unlock()
			return err
		}
	}
	w.mu.Unlock()
	w.drain()
	if w.failed == nil && w.o.Sync == SyncInterval && w.unsynced() {
		w.commits.Add(1)
		w.failed = w.sync()
		w.commits.Add(1)
	}
	if w.failed != nil {
		return w.failed
	}
	w.mu.Lock()
	if w.phase != phaseClosing {
		w.mu.Unlock()
		return nil
	}
	w.phase = phaseSealing
	w.mu.Unlock()
	w.sealing = true
	return w.log.Seal(manifest.Ended)
}
