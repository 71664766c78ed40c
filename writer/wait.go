package writer

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/runlog-io/runlog/internal/format"
)

// goal is what somebody waits for: an entry and a note, by its number, to be durable.
type goal struct {
	seq  uint64
	note uint64
}

// waiter is a caller that is blocked.
type waiter struct {
	goal
	ch     chan struct{} // cap 1
	listed atomic.Bool   // in waiting; changed with wmu held, or by its caller while nobody else knows it
}

func (w *Writer) newWaiter(g goal) *waiter {
	me, ok := w.waiters.Get().(*waiter)
	if !ok {
		return &waiter{goal: g, ch: make(chan struct{}, 1)}
	}
	me.goal = g
	select {
	case <-me.ch:
	default:
	}
	return me
}

// WaitDurable returns nil when seq is durable. A halt ends the wait with its error. If ctx cannot be cancelled, the
// caller may commit on its own goroutine, and then a hung disk holds it until the disk answers.
func (w *Writer) WaitDurable(ctx context.Context, seq uint64) error {
	if w.Durable() >= seq {
		return nil
	}
	if seq > w.Accepted() {
		return fmt.Errorf("%w: seq %d has not been submitted, the last one is %d", format.ErrInvalid, seq, w.Accepted())
	}
	if w.o.Sync == SyncNever {
		return ErrNotDurable
	}
	return w.wait(ctx, goal{seq: seq})
}

// reached reports whether a goal is durable.
func (w *Writer) reached(g goal) bool { return w.Durable() >= g.seq && w.kept.Load() >= g.note }

// wait is WaitDurable for what was accepted, under a policy that syncs.
func (w *Writer) wait(ctx context.Context, g goal) error {
	mayLead := ctx.Done() == nil && w.o.Sync == SyncEachCommit && !w.o.Manual || w.o.Synchronous
	if !mayLead && w.o.Sync == SyncEachCommit {
		defer w.handOver()
	}
	for !w.reached(g) {
		if err := w.Err(); err != nil && err != format.ErrClosed {
			return err
		}
		if mayLead && w.lead.TryLock() {
			w.commitAsLeader(g)
			continue
		}
		me := w.newWaiter(g)
		w.wmu.Lock()
		w.waiting = append(w.waiting, me)
		me.listed.Store(true)
		w.wmu.Unlock()
		if mayLead && w.lead.TryLock() { // whoever led may have finished before it could see us
			w.leaveWaiting(me)
			w.commitAsLeader(g)
			continue
		}
		if !mayLead && w.o.Sync == SyncEachCommit {
			w.kick()
		}
		if w.reached(g) {
			w.leaveWaiting(me)
			return nil
		}
		err := w.park(ctx, me)
		w.leaveWaiting(me)
		switch {
		case err != nil:
			if mayLead {
				w.handOver() // it may have been this one's turn
			}
			return err
		case isClosed(w.done) && !w.reached(g):
			return w.Err()
		}
	}
	return nil
}

// park blocks until me has been woken, or ctx ends. Whoever ends the run wakes everybody in the list, after halting or done was
// closed; me is in it, and looks at these first. So there is one channel to wait at, which makes a wake-up cheap.
func (w *Writer) park(ctx context.Context, me *waiter) error {
	if isClosed(w.halting) || isClosed(w.done) {
		return nil
	}
	if ctx.Done() == nil {
		<-me.ch
		return nil
	}
	select {
	case <-me.ch:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func isClosed(ch chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// wakeAll wakes everybody who waits, to see that the run has ended.
func (w *Writer) wakeAll() {
	w.wmu.Lock()
	defer w.wmu.Unlock()
	for _, x := range w.waiting {
		x.nudge()
	}
}

// nudge wakes a waiter, unless it has been woken already.
func (x *waiter) nudge() {
	select {
	case x.ch <- struct{}{}:
	default:
	}
}

// wakeDurable wakes those whose seq is durable, and returns how many these are.
func (w *Writer) wakeDurable() int {
	w.wmu.Lock()
	defer w.wmu.Unlock()
	return w.release()
}

// release is wakeDurable with wmu held.
func (w *Writer) release() int {
	rest := w.waiting[:0]
	for _, x := range w.waiting {
		if w.reached(x.goal) {
			x.listed.Store(false) // so that its caller need not look for it here
			x.nudge()             // which may be somebody else's by now: whoever is woken looks for himself
		} else {
			rest = append(rest, x)
		}
	}
	n := len(w.waiting) - len(rest)
	w.waiting = rest
	return n
}

// leaveWaiting takes me out of the list, if nobody has, and out of use.
func (w *Writer) leaveWaiting(me *waiter) {
	if me.listed.Load() {
		w.wmu.Lock()
		if i := slices.Index(w.waiting, me); i >= 0 {
			w.waiting = slices.Delete(w.waiting, i, i+1)
		}
		me.listed.Store(false)
		w.wmu.Unlock()
	}
	w.waiters.Put(me)
}
