package writer

import (
	"errors"
	"time"
)

var errQueueFull = errors.New("the queue is full; a driver has to call Step")

// run is the writer's goroutine. While there is traffic it looks every CommitDelay whether something waits, so that
// Submit never has to wake anybody; after IdleMark without traffic it writes a sync mark and sleeps until it is
// woken.
func (w *Writer) run() {
	timer := time.NewTimer(w.o.CommitDelay)
	defer timer.Stop()
	idle := w.o.IdleMark
	if idle < 0 {
		idle = 250 * time.Millisecond
	}
	accepted := func() uint64 { return w.Accepted() + w.noted.Load() }
	seen, since := accepted(), time.Now() // last time that something new was there
	adjusted := since
	for {
		select {
		case w.watching <- struct{}{}:
		default:
		}
		w.lead.Lock()
		w.drain()
		w.syncDue()
		err := w.failed
		w.lead.Unlock()
		if err != nil {
			w.halt(err)
		}
		w.handOver()
		if w.ending() {
			w.finish()
			return
		}
		now := time.Now()
		if a, ok := w.o.Clock.(interface{ Adjust() }); ok && now.Sub(adjusted) > time.Second {
			a.Adjust()
			adjusted = now
		}
		if n := accepted(); n != seen {
			seen, since = n, now
		} else if now.Sub(since) >= idle && w.settled() {
			if w.rest() {
				<-w.wake
				since = time.Now()
			}
			continue
		}
		timer.Reset(w.o.CommitDelay)
		select {
		case <-timer.C:
		case <-w.wake:
		}
	}
}

// ending reports whether the run is being closed or has halted.
func (w *Writer) ending() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.phase != phaseOpen
}

// settled reports whether nothing waits for a sync.
func (w *Writer) settled() bool {
	return w.o.Sync == SyncNever || w.Durable() == w.Accepted() && w.kept.Load() == w.noted.Load()
}

// syncDue syncs when the interval has passed. It is called with lead held. Without a goroutine no time passes: a driver
// says when, and the end of the run syncs.
func (w *Writer) syncDue() {
	if w.o.Sync != SyncInterval || w.o.Synchronous || w.o.Manual || w.failed != nil || !w.unsynced() {
		return
	}
	if now := time.Now(); now.Sub(w.lastSync) >= w.o.SyncEvery {
		w.commits.Add(1)
		w.failed = w.sync()
		w.commits.Add(1)
		w.lastSync = now
		w.wakeDurable()
	}
}

// unsynced reports whether something is written that is not durable. It is called with lead held.
func (w *Writer) unsynced() bool { return w.Durable() < w.Written() || w.kept.Load() < w.written }

// rest writes the sync mark and parks the goroutine, unless there is work.
func (w *Writer) rest() bool {
	if w.o.Sync != SyncNever && w.o.IdleMark > 0 && w.Mark() != nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.phase != phaseOpen || w.fill.Len()+w.fill.Notes() > 0 || len(w.queue) > 0 {
		return false
	}
	w.parked = true
	return true
}

// Mark writes the sync mark that proves the last commit. The writer's goroutine does it when nothing has come for IdleMark;
// a driver of a Manual writer, whenever it likes.
func (w *Writer) Mark() error { return w.work(w.log.Mark) }

// Sync syncs what is written, as the writer's goroutine does under SyncInterval, for a driver of a Manual writer.
func (w *Writer) Sync() error { return w.work(w.sync) }

// work does something with the log that is neither a batch nor the end.
func (w *Writer) work(do func() error) error {
	w.lead.Lock()
	if w.failed == nil {
		w.commits.Add(1)
		w.failed = do()
		w.commits.Add(1)
	}
	err := w.failed
	w.lead.Unlock()
	if err != nil {
		w.halt(err)
		return w.Err()
	}
	w.wakeDurable()
	return nil
}

// watch is the watchdog: it sees what the writer's own goroutine, stuck in the disk, cannot.
func (w *Writer) watch() {
	warn, halt := w.o.WarnAfter, w.o.HaltAfter
	shortest := halt
	if halt <= 0 || warn > 0 && warn < halt {
		shortest = warn
	}
	tick := min(max(shortest/10, time.Millisecond), 50*time.Millisecond)
	timer := time.NewTicker(tick)
	defer timer.Stop()
	stages := [3]stall{{stage: StageQueue}, {stage: StageCommit}, {stage: StageAge}}
	allowed := w.o.CommitDelay // what the options let an entry wait
	if w.o.Sync == SyncInterval {
		allowed += w.o.SyncEvery
	}
	last := time.Now()
	for {
		select {
		case <-timer.C:
		case <-w.halting:
			return
		case <-w.done:
			return
		}
		now := time.Now()
		if gap := now.Sub(last); gap > 4*tick+50*time.Millisecond {
			w.o.OnWarn(Warning{Kind: WarnSuspended, For: gap})
			for i := range stages {
				stages[i].since = stages[i].since.Add(gap)
			}
		}
		last = now
		for i, id := range w.outstanding(stages[2].id) {
			s := &stages[i]
			d := s.observe(id, now)
			if s.stage == StageAge {
				d -= allowed
			}
			if warn > 0 && d >= warn && !s.warned {
				s.warned = true
				w.o.OnWarn(Warning{Kind: WarnStall, Stage: s.stage, For: d, Threshold: warn})
			}
			if halt > 0 && d >= halt {
				w.haltWith(&HaltError{Reason: ReasonStall, Stage: s.stage, StalledFor: d, Threshold: halt})
				return
			}
		}
		if w.asleep() {
			timer.Stop()
			select {
			case <-w.watching:
			case <-w.halting:
				return
			case <-w.done:
				return
			}
			timer.Reset(tick)
			last = time.Now()
		}
	}
}

// asleep reports whether there is nothing to watch.
func (w *Writer) asleep() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.parked && len(w.queue) == 0
}

// outstanding identifies what is being waited for at each stage, 0 for nothing; aged is what it said last for the
// age. The numbers change whenever there is progress.
func (w *Writer) outstanding(aged uint64) (ids [3]uint64) {
	w.mu.Lock()
	if len(w.queue) > 0 {
		ids[0] = w.Accepted() + 1 // the next one to be accepted is the first in the queue
	}
	w.mu.Unlock()
	if c := w.commits.Load(); c%2 == 1 {
		ids[1] = c
	}
	done := w.Durable()
	if w.o.Sync == SyncNever {
		done = w.Written()
	}
	switch accepted := w.Accepted(); {
	case accepted <= done:
	case aged > done:
		ids[2] = aged // the entry that is being watched is still not done
	default:
		ids[2] = accepted
	}
	return ids
}

// stall watches one stage.
type stall struct {
	stage  Stage
	id     uint64
	since  time.Time
	warned bool
}

// observe returns how long the stage has been waiting for the same thing, as far as the watchdog has seen.
func (s *stall) observe(id uint64, now time.Time) time.Duration {
	if id == 0 || id != s.id {
		s.id, s.since, s.warned = id, now, false
	}
	if id == 0 {
		return 0
	}
	return now.Sub(s.since)
}
