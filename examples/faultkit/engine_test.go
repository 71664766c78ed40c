package faultkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/vfs"
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(400) // thousands of small disks: this halves the time
	os.Exit(m.Run())
}

// seeds are the worlds to try: the first two, or as many as FAULTKIT_SEEDS says, or the one that is to be seen again.
func seeds(t *testing.T) (list []uint64) {
	number := func(name string, otherwise uint64) uint64 {
		text := os.Getenv(name)
		if text == "" {
			return otherwise
		}
		n, err := strconv.ParseUint(text, 10, 64)
		must(t, err)
		return n
	}
	if os.Getenv("FAULTKIT_SEED") != "" {
		return []uint64{number("FAULTKIT_SEED", 0)}
	}
	for s := range number("FAULTKIT_SEEDS", 2) {
		list = append(list, s)
	}
	return list
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rate logs how many cases a test has tried.
func rate(t *testing.T, began time.Time, cases int) {
	t.Helper()
	t.Logf("%d cases, %.0f a second", cases, float64(cases)/time.Since(began).Seconds())
}

// everywhere plays a world and has check judge it before each operation that changes the disk.
func everywhere(w *world, check func(n int) error) (err error) {
	w.fault = func(n int, op vfs.Op) error {
		if err = check(n); err != nil {
			err = fmt.Errorf("FAULTKIT_SEED=%d: before operation %d (%s %s): %w", w.seed, n, op.Kind, op.Name, err)
		}
		return err // which ends the load, too
	}
	if lerr := w.play(); err == nil && lerr != nil {
		err = fmt.Errorf("FAULTKIT_SEED=%d: load: %w", w.seed, lerr)
	}
	return err
}

// powerCut cuts the power in some ways, and checks what each leaves.
func powerCut(w *world, n int) error {
	for i, lose := range []vfs.Chooser{
		vfs.LoseAll(), vfs.KeepAll(), vfs.Scramble(), vfs.Random(w.seed<<32 | uint64(n)), vfs.Random(^(w.seed<<32 | uint64(n))),
	} {
		if err := w.check(w.mem.Crash(lose), 0); err != nil {
			return fmt.Errorf("power cut %d: %w", i, err)
		}
	}
	return nil
}

func TestPowerCutAtEveryOperation(t *testing.T) {
	t.Parallel()
	began, cases := time.Now(), 0
	for _, seed := range seeds(t) {
		w := newWorld(seed, 8, bug{})
		must(t, everywhere(w, func(n int) error { cases += 5; return powerCut(w, n) }))
	}
	rate(t, began, cases)
}

// kill ends the process; the page cache stays. All that Handle has taken is there again.
func kill(w *world, _ int) error { return w.check(w.mem.Kill(), w.handled) }

func TestKillAtEveryOperation(t *testing.T) {
	t.Parallel()
	began, cases := time.Now(), 0
	for _, seed := range seeds(t) {
		w := newWorld(seed, 8, bug{})
		must(t, everywhere(w, func(n int) error { cases++; return kill(w, n) }))
	}
	rate(t, began, cases)
}

// TestEveryStateThatAPowerCutCanLeave goes through all of them, for a load so small that there are not too many.
func TestEveryStateThatAPowerCutCanLeave(t *testing.T) {
	t.Parallel()
	const most = 1 << 5 // where there are more (a new segment is many sectors), the random cuts have to do
	began, cases, whole, points := time.Now(), 0, 0, 0
	w := newWorld(1, 6, bug{})
	must(t, everywhere(w, func(n int) error {
		outcomes := 1
		for _, c := range w.mem.Choices() {
			outcomes = min(outcomes*c.Options, most+1)
		}
		if points++; outcomes > most {
			return nil
		}
		whole++
		for path, left := range w.mem.EachCrash() {
			cases++
			if err := w.check(left, 0); err != nil {
				return fmt.Errorf("w.mem.Crash(vfs.Replay(%#v)): %w", path, err)
			}
		}
		return nil
	}))
	if whole < points/2 {
		t.Errorf("only %d of %d places were few enough states", whole, points)
	}
	t.Logf("all states at %d of %d operations", whole, points)
	rate(t, began, cases)
}

// TestTheNthOperationFails fails each operation in turn, once and for good. The engine stops and says why; after the
// crash that follows nothing that it has said is untrue.
func TestTheNthOperationFails(t *testing.T) {
	t.Parallel()
	began, cases, halts := time.Now(), 0, map[runlog.HaltReason]int{}
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EROFS} {
		fails := newWorld(3, 6, bug{})
		if errno == syscall.EIO {
			fails.kinds = vfs.OpAny // reads fail, too: a recovery must not take "not readable" for "not there"
		}
		must(t, fails.play())
		for nth, op := range fails.trace {
			for _, forever := range []bool{false, true} {
				w := newWorld(3, 6, bug{})
				w.kinds = fails.kinds
				w.fault = func(n int, _ vfs.Op) error {
					if n == nth+1 || forever && n > nth {
						return errno
					}
					return nil
				}
				err := w.play()
				where := fmt.Sprintf("%v at operation %d (%s %s), forever %v", errno, nth+1, op.Kind, op.Name, forever)
				var halt *runlog.HaltError
				switch {
				case err != nil && !errors.Is(err, errno) && op.Kind&vfs.OpChange != 0: // a read that failed may come out as damage
					t.Fatalf("%s: the engine says %v", where, err)
				case errors.As(err, &halt):
					halts[halt.Reason]++
					if (halt.Reason == runlog.ReasonDiskFull) != (errno == syscall.ENOSPC) {
						t.Fatalf("%s: the reason is %s", where, halt.Reason)
					}
				case err == nil && forever && nth < len(fails.trace)/2:
					t.Fatalf("%s: the engine has not noticed", where)
				}
				left := w.mem.Crash(vfs.Random(uint64(nth)))
				if nth%2 == 0 {
					left = w.mem.Kill()
				}
				if err := w.check(left, 0); err != nil {
					t.Fatalf("%s: %v", where, err)
				}
				cases++
			}
		}
	}
	if halts[runlog.ReasonIO] == 0 || halts[runlog.ReasonDiskFull] == 0 {
		t.Errorf("the halts were %v", halts)
	}
	t.Logf("halts by reason: %v", halts)
	rate(t, began, cases)
}

// TestFullDisk gives the engine less and less room. Once there is room again it goes on.
func TestFullDisk(t *testing.T) {
	const seed = 4
	sound := newWorld(seed, 1200, bug{})
	must(t, sound.play())
	full := 0
	for room := int64(0); room < sound.mem.Used(); room += 20 << 10 {
		w := newWorld(seed, 1200, bug{})
		w.mem.SetCapacity(max(room, 1))
		err := w.play()
		if err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("room for %d bytes: %v", room, err)
		}
		if err != nil {
			full++
		}
		left := w.mem.Crash(vfs.LoseAll())
		if _, err := Start(t.Context(), w.config(left, func(Reply) {})); err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("room for %d bytes: start on the full disk: %v", room, err)
		}
		left = left.Kill()
		left.SetCapacity(0) // the operator has made room
		if err := w.check(left, 0); err != nil {
			t.Fatalf("room for %d bytes: %v", room, err)
		}
	}
	if full == 0 {
		t.Error("the disk was never full")
	}
}

// TestStallWarnsThenHalts hangs the disk for a time that nobody waits: in the bubble the clock is simulated.
func TestStallWarnsThenHalts(t *testing.T) {
	for stall, want := range map[time.Duration]struct{ warned, halted bool }{
		20 * time.Millisecond:  {},
		100 * time.Millisecond: {warned: true},
		time.Second:            {warned: true, halted: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(5, 10, bug{})
			w.mem.SetHook(nil)
			var mu sync.Mutex
			var warnings []runlog.Warning
			config := w.config(w.mem, func(r Reply) { w.released = append(w.released, r) })
			config.Log.Synchronous, config.Log.Clock, config.Log.Sync = false, nil, runlog.SyncEachCommit // as in production
			config.Log.OnWarn = func(x runlog.Warning) { mu.Lock(); warnings = append(warnings, x); mu.Unlock() }
			e, err := Start(t.Context(), config)
			must(t, err)
			must(t, e.Handle(w.commands[0]))
			must(t, e.Flush(t.Context()))

			thaw := make(chan struct{})
			w.mem.Inject(vfs.Rule{Kind: vfs.OpDatasync, Name: "*.seg", Stall: thaw})
			time.AfterFunc(stall, func() { close(thaw) })
			must(t, e.Handle(w.commands[1])) // the engine's thread does not wait
			began := time.Now()
			err = e.Flush(t.Context())
			var halt *runlog.HaltError
			mu.Lock()
			warned := len(warnings) > 0
			mu.Unlock()
			if errors.As(err, &halt) != want.halted || warned != want.warned {
				t.Fatalf("%v: warnings %v, error %v", stall, warnings, err)
			}
			if want.halted && (halt.Reason != runlog.ReasonStall || time.Since(began) > 300*time.Millisecond || len(w.released) != 1) {
				t.Errorf("%v: %v after %v, released %v", stall, halt, time.Since(began), w.released)
			}
			time.Sleep(time.Minute) // the disk has answered
			if err := e.Close(t.Context()); (err != nil) != want.halted {
				t.Error(err)
			}
			time.Sleep(time.Minute)
			must(t, w.check(w.mem.Crash(vfs.LoseAll()), len(w.released)))
		})
	}
}

// TestADamagedRunIsNotForgotten: bits of durable data flip. The engine must not start without the run that held them.
func TestADamagedRunIsNotForgotten(t *testing.T) {
	w := newWorld(9, 16, bug{})
	e, err := Start(t.Context(), w.config(w.mem, func(Reply) {}))
	must(t, err)
	for _, c := range w.commands {
		must(t, e.Handle(c))
		must(t, e.Flush(t.Context()))
	}
	left := w.mem.Kill()
	f, err := left.Open(path.Join(e.run.Dir(), "00000001.seg"))
	must(t, err)
	b := make([]byte, 64<<10)
	_, err = f.ReadAt(b, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("0rder"), int64(bytes.Index(b, []byte("order"))))
	must(t, errors.Join(err, f.Datasync(), f.Close()))
	for range 2 {
		_, err := Start(t.Context(), w.config(left, func(Reply) {}))
		if !errors.Is(err, runlog.ErrCorrupt) && !errors.Is(err, runlog.ErrQuarantined) {
			t.Fatalf("start says %v", err)
		}
		left = left.Crash(vfs.LoseAll())
	}
}

// jumpy is a clock that somebody sets, mostly back.
type jumpy struct {
	ticks
	n int64
}

func (c *jumpy) Now() int64 {
	c.n++
	return c.ticks.Now() + c.n%7*int64(time.Hour) - c.n*int64(time.Minute)
}

func TestTheClockJumps(t *testing.T) {
	w := newWorld(6, 16, bug{})
	w.clock = func() runlog.Clock {
		c := &jumpy{}
		c.Store(1_800_000_000_000_000_000 - int64(len(w.trace))*int64(time.Hour)) // a later run starts earlier
		return c
	}
	must(t, everywhere(w, func(n int) error {
		if n%4 > 0 {
			return nil
		}
		return powerCut(w, n)
	}))
}

// TestASeedIsReplayedByteForByte: what a failing test prints is enough to see it again.
func TestASeedIsReplayedByteForByte(t *testing.T) {
	record := func(seed uint64) (ops []vfs.Op, disk string) {
		w := newWorld(seed, 16, bug{})
		must(t, everywhere(w, func(n int) error {
			if n%10 == 0 {
				disk += contents(t, w.mem.Crash(vfs.Random(seed+uint64(n))), "/")
			}
			return nil
		}))
		return w.trace, disk
	}
	ops, disk := record(7)
	again, diskAgain := record(7)
	if !slices.Equal(ops, again) || disk != diskAgain || len(ops) == 0 {
		t.Error("the same seed gives another history")
	}
	if _, other := record(8); other == disk {
		t.Error("another seed gives the same disk")
	}
}

// contents is everything on a disk.
func contents(t *testing.T, disk *vfs.Mem, dir string) (all string) {
	list, err := disk.ReadDir(dir)
	must(t, err)
	for _, f := range list {
		name := dir + "/" + f.Name()
		if f.IsDir() {
			all += contents(t, disk, name)
			continue
		}
		b, err := vfs.ReadFile(disk, name, 1<<30)
		must(t, err)
		all += fmt.Sprintf("%s %x\n", name, b)
	}
	return all
}

// hasty is a log that calls durable what it has only accepted.
type hasty struct{ *runlog.Run }

func (l hasty) Durable() uint64 { return l.Accepted() }

// impatient is a log whose engine does not wait for the disk before it saves a snapshot.
type impatient struct{ Log }

func (impatient) WaitDurable(context.Context, uint64) error { return nil }

// TestPlantedBugsAreFound: what is the harness worth? It has to find each bug that is known to be there.
func TestPlantedBugsAreFound(t *testing.T) {
	for name, b := range map[string]bug{
		"a reply leaves before its command is durable": {log: func(l Log) Log { return hasty{l.(*runlog.Run)} }},
		"a snapshot knows more than the log":           {log: func(l Log) Log { return impatient{l} }},
		"a type of command is not replayed": {replay: func(all entries) entries {
			return func(yield func(runlog.View, error) bool) {
				for v, err := range all {
					if (err != nil || v.Type() != string(Release)) && !yield(v, err) {
						return
					}
				}
			}
		}},
		"an entry is applied twice": {replay: func(all entries) entries {
			return func(yield func(runlog.View, error) bool) {
				for v, err := range all {
					if !yield(v, err) || v.Seq() == 3 && !yield(v, err) {
						return
					}
				}
			}
		}},
	} {
		var err error
		for seed := range uint64(2) {
			w := newWorld(seed, 16, b)
			if err = everywhere(w, func(n int) error { return powerCut(w, n) }); err != nil {
				break
			}
		}
		if err == nil {
			t.Errorf("%s: not found", name)
		}
		t.Logf("%s: %v", name, err)
	}
}
