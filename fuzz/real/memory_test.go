//go:build linux

package real

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/fuzz/oracle"
)

const (
	dataCap     = 64 << 20 // bytes of anonymous memory for a process that recovers and reads a long log, beyond the runtime's own
	eaterCap    = 64 << 20
	eaterCgroup = 64 << 20
)

// TestRowMemory lets processes die for want of memory while they write: killed by the kernel in a cgroup, where one can
// be made, or refused more by a limit on anonymous memory, which ends a Go program. In every fifth case a process writes
// a log that is longer than the memory that another one has to recover it and to read it from end to end.
func TestRowMemory(t *testing.T) {
	small := folder(t)
	large := t.TempDir() // on a disk
	var entries, inCgroup, atLimit, long atomic.Int64
	matrix.Run(t, "memory", func(c *matrix.Cases) (err error) {
		if !c.Next() {
			return nil
		}
		r := rand.New(rand.NewPCG(c.Seed, 13))
		if c.Seed%5 == 1 {
			dir, err := sub(large)
			if err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			size := uint64(300 << 20)
			if !thorough() {
				size = 12 << 20
			}
			n, err := longLog(dir, size)
			long.Add(int64(n))
			return err
		}
		dir, err := sub(small)
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		o := order{Dir: dir, Producers: 2, Eat: time.Duration(1 + r.Int64N(int64(150*time.Millisecond)))}
		o.MaxData = eaterCap
		if c.Seed%2 == 0 {
			if group, remove, cerr := cgroup(eaterCgroup); cerr == nil {
				defer func() { err = errors.Join(err, remove()) }()
				o.Cgroup, o.MaxData = group, 0
			}
		}
		eater, err := start("load", &o)
		if err != nil {
			return err
		}
		select {
		case <-eater.ended:
		case <-time.After(time.Minute):
			eater.stop()
			return errors.New("it lives on")
		}
		eater.stop()
		switch said := eater.stderr.String(); {
		case o.Cgroup != "" && eater.cmd.ProcessState.String() == "signal: killed" && said == "":
			inCgroup.Add(1)
		case o.Cgroup == "" && strings.Contains(said, "out of memory") || strings.Contains(said, "cannot allocate memory"):
			atLimit.Add(1)
		default:
			return fmt.Errorf("it ended as %v: %.2000s", eater.cmd.ProcessState, said)
		}
		entries.Add(int64(len(eater.acks)))
		var history oracle.History
		eater.promise(&history, always)
		return judge(&history, dir, 1)
	}, matrix.Workers(2), matrix.Detail(func() string {
		in := fmt.Sprintf("in %d MiB beyond the runtime's own", scanCap>>20)
		if scanCap == 0 {
			in = "without a cap: the race detector allows none"
		}
		return fmt.Sprintf("%d killed in a cgroup, %d ended at their limit, %d entries acknowledged; %d entries of long logs read %s",
			inCgroup.Load(), atLimit.Load(), entries.Load(), long.Load(), in)
	}))
}

// thorough reports whether this is more than a taste.
func thorough() bool {
	return os.Getenv("RUNLOG_MATRIX") == "ci" || os.Getenv("RUNLOG_MATRIX") == "long"
}

// cgroup makes a control group with a limit, of whichever version there is. Its name has this process's id, so that what a
// killed test has left can be told and removed.
func cgroup(limit int) (dir string, remove func() error, err error) {
	const name = "runlog-real-"
	for root, file := range map[string]string{"/sys/fs/cgroup/memory": "memory.limit_in_bytes", "/sys/fs/cgroup": "memory.max"} {
		if _, err = os.Stat(filepath.Join(root, "cgroup.procs")); err != nil {
			continue
		}
		old, _ := filepath.Glob(filepath.Join(root, name+"*"))
		for _, dir := range old {
			pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), name), "-")
			if _, err := os.Stat(filepath.Join("/proc", pid)); errors.Is(err, fs.ErrNotExist) {
				_ = os.Remove(dir)
			}
		}
		if dir, err = os.MkdirTemp(root, fmt.Sprintf("%s%d-", name, os.Getpid())); err != nil {
			continue
		}
		remove := func() (err error) { // the last process is dead, but the group may need a moment to know
			for until := time.Now().Add(5 * time.Second); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
				if err = os.Remove(dir); err == nil {
					return nil
				}
			}
			return err
		}
		if err = os.WriteFile(filepath.Join(dir, file), fmt.Append(nil, limit), 0o644); err == nil {
			return dir, remove, nil
		}
		_ = remove()
	}
	return "", nil, err
}

var eaten [][]byte

// eat takes memory without end.
func eat(after time.Duration) {
	time.Sleep(after)
	for {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		eaten = append(eaten, b)
	}
}

// longLog has a process write so many bytes and be killed, and another one recover and read them in little memory.
func longLog(dir string, size uint64) (n uint64, err error) {
	const payload = 4000
	w, err := start("load", &order{Dir: dir, Big: payload, Segment: 64 << 20})
	if err != nil {
		return 0, err
	}
	defer w.stop()
	for until := time.Now().Add(5 * time.Minute); uint64(w.acked())*payload < size; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			return 0, fmt.Errorf("%d entries in five minutes", w.acked())
		}
	}
	w.stop()
	if err := w.failure(); err != nil {
		return 0, err
	}
	seq, _ := w.upTo(always)
	r, err := start("scan", &order{Dir: dir, Big: payload, MaxData: scanCap})
	if err != nil {
		return 0, err
	}
	rec, err := r.await(recDone, 5*time.Minute)
	r.stop()
	if err = errors.Join(err, r.failure()); err != nil {
		return 0, fmt.Errorf("recovery and scan, cap %d MiB: %w", scanCap>>20, err)
	}
	if rec.A < seq {
		return rec.A, fmt.Errorf("%d entries were read, %d acknowledged", rec.A, seq)
	}
	return rec.A, nil
}

// scanAll is the process that recovers and reads.
func scanAll(o *order) error {
	if err := o.limits(); err != nil {
		return err
	}
	if o.MaxData > 0 { // as a process under a cap tells Go's collector, which else lets as much garbage grow as lives
		debug.SetMemoryLimit(int64(o.MaxData) * 3 / 4)
	}
	run, err := runlog.Open(context.Background(), runlog.Options{Dir: o.Dir, Instance: instance})
	if err != nil {
		return err
	}
	parents, err := run.Parents()
	if err != nil || len(parents) != 1 {
		return fmt.Errorf("%d parents: %w", len(parents), err)
	}
	n := uint64(0)
	for v, err := range parents[0].Scan(runlog.ScanOptions{}) {
		if err != nil {
			return err
		}
		if n++; v.Seq() != n {
			return oracle.False("seq %d after %d", v.Seq(), n-1)
		}
		if n == 1 {
			continue
		}
		if want := made(n-2, o.Big); string(v.Payload()) != string(want.Payload) {
			return oracle.False("seq %d is not what was submitted", n)
		}
	}
	send(os.Stdout, recDone, n, 0, 0, "")
	return run.Close(context.Background())
}
