package fuzz

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/fuzz/oracle"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/writer"
)

// stalled is a run on a disk that stands still for a while, in fake time.
type stalled struct {
	*sim
	run  *runlog.Run
	in   *oracle.Submitted
	r    *rand.Rand
	tick time.Duration // how often the watchdog looks
	wait time.Duration // what the options let an entry wait

	mu     sync.Mutex
	begin  time.Time // of the stall
	until  time.Time
	waits  time.Time   // since when an entry certainly waits for the disk
	closes time.Time   // when Close was called
	warned []time.Time // of stalls
	halted []time.Time
	halt   *runlog.HaltError
}

// stall lets the disk stand still at some operation of a load, for a time between a part of HaltAfter and several times
// that: every operation that begins meanwhile waits.
func stall(c *matrix.Cases) error {
	s, err := scene(c.Seed, vfs.MemOptions{SectorSize: []int{512, 4096}[c.Seed%2]})
	if err != nil {
		return err
	}
	for i := uint64(0); i < 8 && c.Next(); i++ {
		if err := s.stallAt(rand.New(rand.NewPCG(c.Seed, i))); err != nil {
			return fmt.Errorf("stall %d: %w", i, err)
		}
	}
	return nil
}

func (s *sim) stallAt(r *rand.Rand) error {
	w := newSim(s.seed)
	w.tiny, w.mem, w.h.Runs = true, s.mem.Kill(), maps.Clone(s.h.Runs)
	v := &stalled{sim: w, r: r}
	ms := func(lo, n int) time.Duration { return time.Duration(lo+r.IntN(n)) * time.Millisecond }
	w.o.FS, w.o.Synchronous, w.o.Clock = w.mem, false, nil
	w.o.WarnAfter = ms(5, 100)
	w.o.HaltAfter = w.o.WarnAfter*6/5 + ms(1, 300) // at least a look of the watchdog later
	w.o.CommitDelay = ms(1, 4)
	w.o.IdleMark = ms(1, 50)
	w.o.QueueEntries = 4 + r.IntN(20)
	v.tick = min(max(w.o.WarnAfter/10, time.Millisecond), 50*time.Millisecond)
	v.wait = w.o.CommitDelay
	if r.IntN(3) == 0 {
		w.o.Sync, w.o.SyncEvery = runlog.SyncInterval, ms(1, 20)
		v.wait += w.o.SyncEvery
	}
	w.o.OnWarn = func(warn runlog.Warning) {
		v.mu.Lock()
		defer v.mu.Unlock()
		if warn.Kind == writer.WarnStall {
			v.warned = append(v.warned, time.Now())
		}
	}
	w.o.OnHalt = func(h *runlog.HaltError) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.halted, v.halt = append(v.halted, time.Now()), h
	}
	length := w.o.HaltAfter * time.Duration(1+r.IntN(40)) / 10
	at := 1 + r.IntN(200)
	if r.IntN(8) == 0 {
		at = 1 + r.IntN(40) // while it boots
	}
	n := 0
	w.mem.SetHook(func(op vfs.Op) error {
		v.mu.Lock()
		if op.Kind&vfs.OpChange != 0 {
			if n++; n == at {
				v.begin, v.until = time.Now(), time.Now().Add(length)
			}
		}
		left := time.Until(v.until)
		v.mu.Unlock()
		if left > 0 {
			time.Sleep(left)
		}
		return nil
	})
	if err := v.live(); err != nil {
		return fmt.Errorf("operation %d stands still for %v (warning after %v, halt after %v, allowed %v): %w",
			at, length, w.o.WarnAfter, w.o.HaltAfter, v.wait, err)
	}
	return nil
}

// live runs the load and checks what becomes of it.
func (v *stalled) live() error {
	if err := v.open(); err != nil || v.run == nil {
		return err
	}
	defer func() { // whatever has gone wrong, nothing may stay behind in the bubble
		_ = v.run.Abandon(context.Background(), errors.New("over"))
	}()
	for i := 0; i < 60 && v.run.Err() == nil; i++ {
		d := v.draft()
		v.in.Add(d)
		if _, err := v.run.Submit(d); err != nil {
			break
		}
		v.mu.Lock()
		if v.waits.IsZero() && time.Now().Before(v.until) { // nothing that is submitted now becomes durable before
			v.waits = time.Now()
		}
		v.mu.Unlock()
		if v.r.IntN(3) == 0 {
			time.Sleep(time.Duration(v.r.IntN(20)) * time.Millisecond)
		}
		if v.r.IntN(16) == 0 {
			if err := v.unplug(); err != nil {
				return fmt.Errorf("power cut beside the load: %w", err)
			}
		}
		if v.r.IntN(4) == 0 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(v.r.IntN(400))*time.Millisecond)
			_ = v.run.WaitDurable(ctx, v.run.Accepted())
			cancel()
		}
	}
	if err := v.unplug(); err != nil {
		return fmt.Errorf("power cut: %w", err)
	}
	if v.r.IntN(2) == 0 { // give the watchdog its time
		time.Sleep(3 * v.o.HaltAfter)
	}
	if err := v.close(); err != nil {
		return err
	}
	v.mem.SetHook(nil)
	if err := v.bounds(); err != nil {
		return err
	}
	v.promise()
	v.o.Synchronous, v.o.Sync, v.o.OnHalt, v.o.OnWarn = true, runlog.SyncEachCommit, nil, nil
	return v.judge(v.mem.Kill(), v.r)
}

// open boots within a bound, or says that the disk has not answered.
func (v *stalled) open() error {
	const patience = 100 * time.Millisecond
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	began := time.Now()
	run, err := runlog.Open(ctx, v.o)
	if took := time.Since(began); took > patience {
		return fmt.Errorf("Open took %v, its context allowed %v", took, patience)
	}
	if err == nil {
		v.run, v.in = run, v.h.Start(run)
		return nil
	}
	v.mu.Lock()
	begin := v.begin
	v.mu.Unlock()
	if begin.IsZero() {
		return fmt.Errorf("Open: %w", err)
	}
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, runlog.ErrHalted) {
		return fmt.Errorf("Open on a disk that stands still: %w", err)
	}
	time.Sleep(time.Minute) // now the disk is back, and the abandoned run gone
	v.mem.SetHook(nil)
	v.o.Synchronous, v.o.OnHalt, v.o.OnWarn = true, nil, nil
	if again := v.h.Judge(v.mem, v.o, 1, func(m vfs.FS) vfs.FS { return m.(*vfs.Mem).Crash(vfs.LoseAll()) }); again != nil {
		return fmt.Errorf("Open again, after %w: %w", err, again)
	}
	return nil
}

func (v *stalled) promise() { v.h.Promise(v.run.ID(), v.in.Want, v.run.Durable()) }

// unplug judges what a power cut leaves right now.
func (v *stalled) unplug() error {
	v.promise()
	return v.sim.read(v.mem.Crash(vfs.LoseAll()))
}

// close ends the run: it returns in time, and the second time it tells how it went.
func (v *stalled) close() error {
	patience := time.Duration(1+v.r.IntN(500)) * time.Millisecond
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	v.in.Entries = append(v.in.Entries, oracle.Ended)
	began := time.Now()
	v.mu.Lock()
	v.closes = began
	v.mu.Unlock()
	err := v.run.Close(ctx)
	if took := time.Since(began); took > patience {
		return fmt.Errorf("Close took %v, its context allowed %v", took, patience)
	}
	if uerr := v.unplug(); uerr != nil {
		return fmt.Errorf("power cut after Close: %w", uerr)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		time.Sleep(time.Minute)
		err = v.run.Close(context.Background())
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	var h *runlog.HaltError
	if !errors.As(err, &h) {
		if err != nil || len(v.halted) > 0 {
			return fmt.Errorf("Close says %v, OnHalt was called %d times", err, len(v.halted))
		}
		return nil
	}
	if h.Reason != writer.ReasonStall || v.halt != h && v.halt != nil {
		return fmt.Errorf("Close says %w, OnHalt was told %v", h, v.halt)
	}
	return nil
}

// bounds checks when the run has warned and halted.
func (v *stalled) bounds() error {
	synctest.Wait()
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.halted) > 1 {
		return fmt.Errorf("OnHalt was called %d times", len(v.halted))
	}
	length := v.until.Sub(v.begin)
	by := func(after time.Duration) time.Time { return v.waits.Add(after + v.wait + 3*v.tick) }
	due := func(at time.Time) bool { return !v.waits.IsZero() && at.Before(v.until) && at.Before(v.closes) }
	if at := by(v.o.WarnAfter); due(at) && (len(v.warned) == 0 || v.warned[0].After(at)) {
		return fmt.Errorf("no warning in time: an entry waits since %v, warned %v", v.waits, v.warned)
	}
	if at := by(v.o.HaltAfter); due(at) && (len(v.halted) == 0 || v.halted[0].After(at)) {
		return fmt.Errorf("no halt in time: an entry waits since %v, halted %v", v.waits, v.halted)
	}
	if len(v.halted) == 0 {
		return nil
	}
	haltsTotal.Add(1)
	after := v.halted[0].Sub(v.begin)
	switch {
	case v.begin.IsZero():
		return errors.New("halted without a stall")
	case length < v.o.HaltAfter:
		return fmt.Errorf("halted after %v, but the stall lasted only %v: %w", after, length, v.halt)
	case len(v.warned) == 0 || v.warned[0].After(v.halted[0]):
		return errors.New("halted without a warning")
	case v.halt.StalledFor < v.o.HaltAfter || v.halt.StalledFor > v.o.HaltAfter+3*v.tick:
		return fmt.Errorf("halted late, or early: %w", v.halt)
	}
	return nil
}

var haltsTotal atomic.Int64

func TestStalledDiskHaltsTheRunInTime(t *testing.T) {
	matrix.Run(t, "stall", func(c *matrix.Cases) (err error) {
		synctest.Test(t, func(*testing.T) { err = stall(c) })
		return err
	}, matrix.Detail(func() string { return fmt.Sprintf("%d halts", haltsTotal.Load()) }))
}
