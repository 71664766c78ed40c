package writer

import "runtime"

// leadLock is a mutex that is held for as long as a disk takes. It is a channel so that synctest sees who waits for
// it as blocked.
type leadLock chan struct{}

func (l leadLock) Lock()   { l <- struct{}{} }
func (l leadLock) Unlock() { <-l }

func (l leadLock) TryLock() bool {
	select {
	case l <- struct{}{}:
		return true
	default:
		return false
	}
}

// commitAsLeader commits until the goal is durable or the log has failed, with lead held, and then hands over.
func (w *Writer) commitAsLeader(g goal) {
	for !w.reached(g) {
		if more, err := w.step(); err != nil || !more {
			break
		}
	}
	if w.o.Synchronous && w.failed == nil && !w.reached(g) { // no goroutine will come round to it
		w.failed = w.sync()
	}
	err := w.failed
	w.lead.Unlock()
	if err != nil {
		w.halt(err)
	}
	w.handOver()
}

// handOver wakes one waiter whose seq is not durable yet, so that it can lead.
func (w *Writer) handOver() {
	w.wmu.Lock()
	defer w.wmu.Unlock()
	w.release()
	if len(w.waiting) > 0 {
		w.waiting[0].nudge()
	}
}

// Bounds of gather, in yields: about 10 us when nobody comes, and no more than a few times what those who come take.
const (
	gatherIdle = 64
	gatherEach = 4
)

// gather waits, with lead held, for those whom the last commit has released to submit again, so that all callers who append
// one entry after the other share a commit. Without it they part into two halves that take turns: one is in the disk while
// the other fills. It goes on while somebody comes, until as many are there as were released.
func (w *Writer) gather() {
	if w.company == 0 || w.o.Synchronous || w.o.Manual {
		return
	}
	left, idle := gatherIdle+gatherEach*w.company, 0
	for last := w.Accepted(); last < w.expected && idle < gatherIdle && left > 0; left-- {
		runtime.Gosched()
		if now := w.Accepted(); now != last {
			last, idle = now, 0
		} else {
			idle++
		}
	}
	w.company = 0
}
