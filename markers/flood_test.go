package markers_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/markers"
	"github.com/runlog-io/runlog/vfs"
)

// threaded makes a run with its own goroutine, without thresholds, on a disk that hang stops and release lets go on.
func threaded(t *testing.T) (run *runlog.Run, mem *vfs.Mem, hang func() (release func())) {
	t.Helper()
	mem = vfs.NewMem(vfs.MemOptions{})
	run = open(t, mem, func(o *runlog.Options) {
		o.Synchronous, o.WarnAfter, o.HaltAfter = false, -1, -1
		o.SegmentBytes, o.FirstSegmentBytes = 0, 0
	})
	return run, mem, func() func() {
		gate := make(chan struct{})
		rule := mem.Inject(vfs.Rule{Kind: vfs.OpDatasync, Forever: true, Stall: gate})
		return func() { rule.Remove(); close(gate) }
	}
}

// atOnce fails if f waits for anything: in the bubble no time passes unless all wait.
func atOnce(t *testing.T, f func()) {
	t.Helper()
	before := time.Now()
	done := make(chan struct{})
	go func() { f(); close(done) }()
	synctest.Wait()
	select {
	case <-done:
	default:
		t.Fatal("it waits")
	}
	if d := time.Since(before); d != 0 {
		t.Fatalf("it took %v", d)
	}
}

func TestOnAHungDiskNoObserveAndNoSubmitWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run, mem, hang := threaded(t)
		m, err := markers.New(run, markers.Options{Marked: []markers.StreamID{{Class: "quote", ID: "0"}}})
		must(t, err)
		submit(t, m)
		must(t, run.WaitDurable(ctx, 2))
		release := hang()
		submit(t, m)
		time.Sleep(10 * time.Millisecond) // it is in the disk
		atOnce(t, func() {
			for i := range 20_000 { // of markers alone, ten times the share
				s, err := m.Stream("quote", fmt.Sprint(i%100))
				must(t, err)
				s.Mark(int64(i), int64(i), markers.Fingerprint{})
				if i%10 == 0 {
					submit(t, m)
				}
			}
		})
		time.Sleep(time.Second) // the goroutine has no better luck, and does not hold anybody
		atOnce(t, func() { observe(t, m, "quote", "5", 1); submit(t, m) })
		release()
		time.Sleep(time.Second)
		observe(t, m, "quote", "5", 2)
		last := submit(t, m)
		must(t, m.Close(ctx))
		must(t, run.Close(ctx))
		r := reader(t, mem, run.Dir())
		sum := wantClean(t, r)
		if sum.Gaps == 0 || sum.Dropped == 0 || sum.Dropped != m.Stats().Dropped || !sum.Final {
			t.Errorf("%+v, %+v", sum, m.Stats())
		}
		st, err := markers.Open(r).SeenAt(last)
		must(t, err)
		c, ok := st.Stream("quote", "5")
		if !ok || c.Count != 202 || st.Loss != markers.None {
			t.Errorf("no cursor is lost for good: %+v %v, loss %v", c, ok, st.Loss)
		}
		if st, err = markers.Open(r).SeenAt(1500); err != nil || st.Loss != markers.Some {
			t.Errorf("in the flood: loss %v, %v", st.Loss, err)
		}
	})
}

func TestDM28WhatIsObservedOnAnIdleBusIsRecordedAfterAnInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run, _, _ := threaded(t)
		m, err := markers.New(run, markers.Options{FlushEvery: 10 * time.Millisecond, Now: func() int64 { return time.Now().UnixNano() }})
		must(t, err)
		began := time.Now()
		observe(t, m, "quote", "X", 5)
		time.Sleep(9 * time.Millisecond)
		if n := m.Stats().Records; n != 1 {
			t.Errorf("%d records before the interval is over", n)
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if n := m.Stats().Records; n != 2 {
			t.Errorf("%d records after it", n)
		}
		time.Sleep(time.Second)
		if n := m.Stats().Records; n != 2 {
			t.Errorf("%d records, though nothing was observed", n)
		}
		for rec, err := range markers.Open(run.Reader()).Records(0, 0) {
			must(t, err)
			if rec.Kind == entry.NoteCursor && rec.Taken != began.Add(10*time.Millisecond).UnixNano() {
				t.Errorf("its time is %d", rec.Taken)
			}
		}
		must(t, m.Close(ctx))
		must(t, run.Close(ctx))
	})
}

func TestDM19ARecordIsDurableWithoutClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run, mem, _ := threaded(t)
		m, err := markers.New(run, none)
		must(t, err)
		observe(t, m, "quote", "X", 5)
		time.Sleep(300 * time.Millisecond)
		wantSeen(t, reader(t, mem.Crash(vfs.LoseAll()), run.Dir()), 2, "0=quote/X:1[5,5]", "loss unknown")
		must(t, m.Close(ctx))
		must(t, run.Close(ctx))
	})
}

func TestCloseWaitsForRoomNoLongerThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run, mem, hang := threaded(t)
		m, err := markers.New(run, none)
		must(t, err)
		release := hang()
		submit(t, m)
		time.Sleep(10 * time.Millisecond)
		for range 70000 { // the queue is full
			if _, err := run.Submit(runlog.Draft{Topic: "t", Type: "x"}); err != nil {
				t.Fatal(err)
			}
			if run.Accepted() > 65536 {
				break
			}
		}
		observe(t, m, "quote", "X", 1)
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if err := m.Close(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the queue is full, and Close says %v", err)
		}
		release()
		must(t, run.Close(ctx))
		list, sum := verified(t, reader(t, mem, run.Dir()))
		if len(list) > 0 && list[0] != markers.NoFinal || sum.Final != (len(list) == 0) { // the last record may still have got through
			t.Errorf("%v, %+v", list, sum)
		}
	})
}

// After the run has halted or was closed, markers do nothing, and say nothing but at their Close.
func TestMarkersOfARunThatEndsUnderThemDoNothing(t *testing.T) {
	mem := vfs.NewMem(vfs.MemOptions{})
	run := open(t, mem)
	m := start(t, run, markers.Options{Marked: []markers.StreamID{{Class: "quote", ID: "X"}}})
	observe(t, m, "quote", "X", 1)
	must(t, run.Close(ctx))
	for range 10 {
		s, err := m.Stream("quote", "X")
		must(t, err)
		s.Mark(1, 2, markers.Fingerprint{})
		m.Boundary()
	}
	if err := m.Close(ctx); !errors.Is(err, runlog.ErrClosed) {
		t.Error(err)
	}
	if list, _ := verified(t, reader(t, mem, run.Dir())); len(list) != 1 || list[0] != markers.NoFinal {
		t.Errorf("%v", list)
	}
}

// Several producers observe, mark, and submit. Each entry's own goroutine knows what it had observed before: at least that
// is seen at the entry.
func TestProducersBesideEachOtherLoseNothing(t *testing.T) {
	mem := vfs.NewMem(vfs.MemOptions{})
	run := open(t, mem, func(o *runlog.Options) { o.Synchronous, o.WarnAfter, o.HaltAfter = false, -1, -1 })
	m, err := markers.New(run, markers.Options{FlushEvery: time.Millisecond, SnapshotEntries: 16, Marked: []markers.StreamID{{Class: "own", ID: "1"}}})
	must(t, err)
	const producers, each = 4, 400
	type claim struct {
		seq      uint64
		producer int
		count    uint64
	}
	claims := make([][]claim, producers)
	var wg sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			own, err := m.Stream("own", fmt.Sprint(p))
			must(t, err)
			for i := range each {
				own.Mark(int64(i), int64(i), markers.Fingerprint{})
				observe(t, m, "shared", fmt.Sprint(i%9), int64(i))
				if i%5 == p {
					claims[p] = append(claims[p], claim{submit(t, m), p, uint64(i + 1)})
				}
			}
		})
	}
	wg.Wait()
	must(t, m.Close(ctx))
	must(t, run.Close(ctx))
	r := reader(t, mem, run.Dir())
	wantClean(t, r)
	all, err := markers.Open(r).Streams()
	must(t, err)
	total := uint64(0)
	for _, c := range all.Cursors {
		total += c.Count
	}
	if total != 2*producers*each || all.Loss != markers.None {
		t.Errorf("%d messages at the end, loss %v", total, all.Loss)
	}
	for _, list := range claims {
		for i, c := range list {
			if i%8 != 0 {
				continue
			}
			st, err := markers.Open(r).SeenAt(c.seq)
			must(t, err)
			got, _ := st.Stream("own", fmt.Sprint(c.producer))
			if st.Loss == markers.None && got.Count < c.count || got.Count > 0 && got.Highest >= int64(got.Count) {
				t.Errorf("at %d: %+v, loss %v, but %d were observed", c.seq, got, st.Loss, c.count)
			}
		}
	}
}
