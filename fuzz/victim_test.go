package fuzz

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/fuzz/oracle"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/writer"
)

// The rows that let operations fail share what this file has. A case is one run that meets one fault: it boots on what
// others have left, appends, rotates, reads and closes.

// victim is a run that meets a fault.
type victim struct {
	*sim
	run   *runlog.Run
	in    *oracle.Submitted
	halts chan *runlog.HaltError // what OnHalt was told
	warns atomic.Int64
	err   error // that ended it: of Open, or of the first call after
	read  error // of a call that reads
	at    int   // see refuseUncached
	then  func()
}

// scene is what all cases of a seed begin with: a disk that one or two runs have left, killed or closed, and the history
// so far.
func scene(seed uint64, disk vfs.MemOptions) (*sim, error) {
	s := newSim(seed)
	s.tiny = true
	s.onDisk(disk)
	s.fault = func(int64) {}
	for range 1 + s.rng.IntN(2) {
		if err := s.engine(); err != nil {
			return nil, err
		}
	}
	s.mem.SetHook(nil)
	s.mem = s.mem.Kill()
	return s, nil
}

// victim returns a world of its own that begins like all others of the scene.
func (s *sim) victim() *victim {
	w := newSim(s.seed)
	w.tiny, w.mem, w.h.Runs, w.h.Unindexed = true, s.mem.Kill(), maps.Clone(s.h.Runs), true
	v := &victim{sim: w, halts: make(chan *runlog.HaltError, 8)}
	w.o.FS, w.o.Prepare = w.mem, s.o.Prepare
	w.o.OnHalt = func(h *runlog.HaltError) { v.halts <- h }
	w.o.OnWarn = func(runlog.Warning) { v.warns.Add(1) }
	return v
}

// live runs the load until its end or the first error.
func (v *victim) live() {
	ctx := context.Background()
	if v.run, v.err = runlog.Open(ctx, v.o); v.err != nil {
		return
	}
	v.in = v.h.Start(v.run)
	sizes := []int{30, 12 << 10, 12 << 10, 9 << 10, 30} // the fourth one rotates
	for i, size := range sizes {
		d := v.draft()
		d.Payload = make([]byte, size)
		if i == 2 {
			if v.err = v.run.DeclareKind("later"); v.err != nil {
				return
			}
			d.Keys = append(d.Keys, runlog.Key{Kind: "later", Value: "key"})
		}
		v.in.Add(d)
		_, v.err = v.run.Append(ctx, d)
		v.promise()
		if v.err != nil {
			return
		}
	}
	v.look()
	v.in.Entries = append(v.in.Entries, oracle.Ended)
	v.err = v.run.Close(ctx)
	v.promise()
}

func (v *victim) promise() { v.h.Promise(v.run.ID(), v.in.Want, v.run.Durable()) }

// look reads as an engine does. What it gets must be true, whatever fails.
func (v *victim) look() {
	_, get := v.run.Get(1, nil)
	seq, ok, look := v.run.Lookup("later", "key")
	if look == nil && (!ok || seq != 4) {
		look = oracle.False("lookup says %d, %v", seq, ok)
	}
	_, parents := v.run.Parents()
	v.read = errors.Join(get, look, parents)
	n := uint64(0)
	for got, err := range v.run.Scan(runlog.ScanOptions{}) {
		if err != nil {
			v.read = errors.Join(v.read, err)
			break
		}
		if n++; got.Seq() != n {
			v.read = oracle.False("scan: seq %d after %d", got.Seq(), n-1)
		}
	}
}

// judged checks what the run has said about the fault, and then what is on the disk after a power cut; one case in four
// recovers it, now that the fault is gone.
func (v *victim) judged(r *rand.Rand, cause error, op vfs.Op) error {
	v.mem.SetHook(nil)
	if v.err != nil {
		if err := v.told(cause, op); err != nil {
			return err
		}
	}
	if v.read != nil && (errors.Is(v.read, oracle.ErrFalse) || !errors.Is(v.read, cause)) {
		return fmt.Errorf("reading: %w", v.read)
	}
	if err := v.sim.read(v.mem.Crash(vfs.Random(r.Uint64()))); err != nil {
		return fmt.Errorf("power cut after it: %w", err)
	}
	if r.IntN(4) > 0 {
		return nil
	}
	left, name := v.mem.Kill(), "killed"
	if r.IntN(2) == 0 {
		how, cut := crashes(r)
		left, name = cut(v.mem).(*vfs.Mem), "power cut, "+how
	}
	if err := v.judge(left, r); err != nil {
		return fmt.Errorf("%s, reopened: %w", name, err)
	}
	return nil
}

// told checks that the error is of the promised type, says what and where, is everybody's from now on, and was reported
// once.
func (v *victim) told(cause error, op vfs.Op) error {
	if !errors.Is(v.err, cause) {
		return fmt.Errorf("the error hides its cause: %w", v.err)
	}
	if name := filepath.Base(strings.TrimSuffix(op.Name, ".tmp")); !strings.Contains(v.err.Error(), name) {
		return fmt.Errorf("the error does not name the file: %w", v.err)
	}
	if v.run == nil {
		return nil
	}
	var h *runlog.HaltError
	if !errors.As(v.err, &h) || !errors.Is(v.err, runlog.ErrHalted) {
		return fmt.Errorf("not a halt: %w", v.err)
	}
	want := writer.ReasonIO
	if errors.Is(cause, syscall.ENOSPC) || errors.Is(cause, syscall.EDQUOT) || errors.Is(cause, syscall.EFBIG) {
		want = writer.ReasonDiskFull
	}
	if h.Reason != want {
		return fmt.Errorf("the reason is %s, want %s: %w", h.Reason, want, h)
	}
	durable := v.run.Durable()
	for i := range 2 { // before and after Close
		_, submit := v.run.Submit(runlog.Draft{Topic: "t", Type: "t"})
		_, apnd := v.run.Append(context.Background(), runlog.Draft{Topic: "t", Type: "t"})
		later := map[string]error{
			"Submit": submit, "Append": apnd, "DeclareKind": v.run.DeclareKind("k"), "Err": v.run.Err(),
			"Close": v.run.Close(context.Background()),
		}
		if accepted := v.run.Accepted(); accepted > durable {
			later["WaitDurable"] = v.run.WaitDurable(context.Background(), accepted)
		}
		for call, err := range later {
			var same *runlog.HaltError
			if !errors.As(err, &same) || same != h {
				return fmt.Errorf("%s says %v (time %d), the halt was %w", call, err, i, h)
			}
		}
	}
	if now := v.run.Durable(); now != durable {
		return fmt.Errorf("the durable watermark has gone from %d to %d after the halt", durable, now)
	}
	select {
	case told := <-v.halts:
		if told != h {
			return fmt.Errorf("OnHalt was told another error: %w", told)
		}
	case <-time.After(time.Minute):
		return fmt.Errorf("OnHalt was not called: %w", h)
	}
	if len(v.halts) > 0 {
		return fmt.Errorf("OnHalt was called again: %w", h)
	}
	return nil
}
