package wal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

// patience is how long a test waits for what must come by itself: long enough for a machine that is busy with other things.
const patience = 2 * time.Minute

// follow tails from seq on and compares as it goes; it returns how many entries came before the tail ended.
func follow(ctx context.Context, r *Reader, o TailOptions, from uint64) (next uint64, err error) {
	o.From, next = from, from
	for v, err := range r.Tail(ctx, o) {
		if err != nil {
			return next, err
		}
		if v.Seq() != next {
			return next, fmt.Errorf("seq %d follows seq %d", v.Seq(), next-1)
		}
		d := draft(next, len(v.Payload()))
		e := entryOf(&d, next, v.TsPublish())
		if err := equal(&v, append(make([]entry.Entry, next-1), e), int(next-1)); err != nil {
			return next, err
		}
		next++
	}
	return next, nil
}

func TestTailsAreGapFreeAcrossRotationAndSealing(t *testing.T) { // RD15
	const entries = 1500
	g := newRig(t, func(o *Options) { o.Inline = false })
	var wg sync.WaitGroup
	ends := make(chan string, 16)
	tail := func(name string, r *Reader, o TailOptions, from uint64) {
		wg.Go(func() {
			next, err := follow(context.Background(), r, o, from)
			if err != nil || next != entries+1 {
				ends <- fmt.Sprintf("%s from %d: ended before seq %d: %v", name, from, next, err)
			}
		})
	}
	for _, level := range []Level{DefaultLevel, Durable, Written} {
		tail("in process", g.log.Reader(), TailOptions{Level: level}, 1)
	}
	tail("in process", g.log.Reader(), TailOptions{}, 700)
	for i := range 3 { // other processes, on the same files; they come while the writer is at work
		wg.Go(func() {
			for n := range 4 {
				time.Sleep(time.Duration(i*5+n) * time.Millisecond)
				r, err := OpenReader(g.mem, runDir)
				if err != nil || r.Damage() != nil {
					ends <- fmt.Sprintf("open beside the writer: %v", err)
					return
				}
				next, err := follow(context.Background(), r, TailOptions{Level: Level(i), Poll: 100 * time.Microsecond}, 1)
				if err != nil || next != entries+1 {
					ends <- fmt.Sprintf("other process, level %d: ended before seq %d: %v", i, next, err)
				}
				_ = r.Close()
			}
		})
	}
	for len(g.want) < entries {
		g.must(g.add(draft(uint64(len(g.want)+1), 700), draft(uint64(len(g.want)+2), 10)))
		switch len(g.want) % 40 {
		case 0:
			g.must(g.log.Sync())
		case 20:
			g.must(g.log.Mark())
			time.Sleep(200 * time.Microsecond)
		}
	}
	g.must(g.log.Seal(manifest.Ended))
	g.log.written.close()
	g.log.durable.close()
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("a tail hangs")
	}
	close(ends)
	for e := range ends {
		t.Error(e)
	}
	g.log.Close()
}

func TestATailSeesOnlyWhatItsLevelAllows(t *testing.T) {
	g := newRig(t).fill(4, 10)
	g.must(g.add(draft(5, 10)))
	other := openReader(t, g.mem)
	for what, c := range map[string]struct{ got, want uint64 }{
		"in process, default": {g.log.Reader().LastSeq(), 4}, "in process, written": {g.log.Reader().last(Written), 5},
		"other process, default": {other.LastSeq(), 5}, "other process, durable": {other.Durable(), 4},
	} {
		if c.got != c.want {
			t.Errorf("%s: seq %d, want %d", what, c.got, c.want)
		}
	}
	g.must(g.log.Sync())
	g.must(g.log.Mark())
	g.must(other.refresh())
	if other.Durable() != 5 {
		t.Errorf("after the mark another process believes in seq %d", other.Durable())
	}
	for name, r := range map[string]*Reader{"in process": g.log.Reader(), "other process": other} {
		ctx, cancel := context.WithCancel(context.Background())
		n := 0
		for v, err := range r.Tail(ctx, TailOptions{}) {
			if err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Errorf("%s: %d entries, then %v", name, n, err)
				}
				break
			}
			if n++; v.Seq() == 5 { // the last one that may come; a moment for one that may not
				time.AfterFunc(20*time.Millisecond, cancel)
			}
		}
		cancel()
		if n != 5 {
			t.Errorf("%s: %d entries", name, n)
		}
	}
}

func TestAnotherProcessBelievesOnlyWhatACommitProves(t *testing.T) {
	g := newRig(t).fill(4, 10)
	g.must(g.add(draft(5, 10)))
	proven := false
	g.mem.SetHook(func(op vfs.Op) error {
		if op.Kind == vfs.OpDatasync && op.Name == runDir+"/"+segment.FileName(1) && !proven {
			proven = true
			r := openReader(t, g.mem) // the closing commit is written, its sync is not done
			if r.Durable() > 4 {
				t.Errorf("seq %d is believed durable while its sync is under way", r.Durable())
			}
		}
		return nil
	})
	g.must(g.log.rotate())
	if !proven {
		t.Error("the rotation did not sync")
	}
}

func TestATailInAnotherProcessEndsWhenALaterBootRecoversTheRun(t *testing.T) {
	g := newRig(t).fill(40, 2000)
	g.must(g.add(draft(41, 6000)))
	g.log.Abandon()
	r := openReader(t, g.mem)
	got := make(chan uint64, 1)
	go func() {
		next, err := follow(context.Background(), r, TailOptions{Level: Durable}, 1)
		if err != nil {
			next = 0
		}
		got <- next
	}()
	time.Sleep(2 * time.Millisecond)
	rec := recovered(t, g.mem)
	select {
	case next := <-got:
		if next != rec.LastSeq+1 {
			t.Errorf("the tail ended before seq %d, recovery says the last is %d", next, rec.LastSeq)
		}
	case <-time.After(patience):
		t.Error("the tail hangs")
	}
	if r.Live() {
		t.Error("the reader still takes the run for live")
	}
}

// What a reader has seen in the page cache, and a failed sync has kept off the disk, is gone when recovery is through.
func TestATailWhoseLastBatchesRecoveryCutsOffSaysSo(t *testing.T) {
	for name, c := range map[string]struct {
		payload int
		poll    time.Duration
	}{
		"less than a footer": {1, time.Millisecond},
		"many":               {9000, time.Millisecond},
		"patient reader":     {9000, 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t).fill(20, 100)
			g.must(g.log.Mark())
			g.mem.Inject(vfs.Rule{Kind: vfs.OpDatasync, Name: segment.FileName(1), Err: syscall.EIO, Landed: vfs.LoseAll()})
			g.must(g.add(entry.Draft{Topic: "t", Type: "x", Payload: make([]byte, c.payload)}))
			if err := g.log.Sync(); !errors.Is(err, syscall.EIO) {
				t.Fatalf("sync: %v", err)
			}
			mem := g.killed()
			type end struct {
				next uint64
				err  error
			}
			readers := map[Level]*Reader{}
			ends := map[Level]chan end{}
			seen := make(chan struct{}, 2)
			for _, level := range []Level{Durable, Written} {
				r, done := openReader(t, mem), make(chan end, 1)
				readers[level], ends[level] = r, done
				go func() {
					var e end
					for v, err := range r.Tail(context.Background(), TailOptions{Level: level, Poll: c.poll}) {
						if e.err = err; err == nil {
							e.next = v.Seq() + 1
						}
						if e.next == r.last(level)+1 {
							select {
							case seen <- struct{}{}:
							default:
							}
						}
					}
					done <- e
				}()
			}
			<-seen
			<-seen
			if rec := recovered(t, mem); rec.LastSeq != 20 {
				t.Fatalf("recovered %+v", rec)
			}
			for level, want := range map[Level]uint64{Durable: 21, Written: 22} {
				select {
				case e := <-ends[level]:
					var at *format.Error
					if e.next != want || errors.Is(e.err, format.ErrTorn) != (level == Written) || level == Durable && e.err != nil {
						t.Errorf("level %d: next is seq %d, %v", level, e.next, e.err)
					} else if errors.As(e.err, &at) && (at.FirstSeq != 21 || at.LastSeq != 21 || at.Offset <= 0 || at.Path != runDir+"/"+segment.FileName(1)) {
						t.Errorf("level %d: %v", level, e.err)
					}
				case <-time.After(patience):
					t.Fatalf("level %d: the tail hangs", level)
				}
				r := readers[level]
				if n, err, wrong := prefix(r, g.want); n != 20 || err != nil || wrong != nil || r.Live() || r.LastSeq() != 20 {
					t.Errorf("level %d: afterwards %d entries, %v, %v; last %d", level, n, err, wrong, r.LastSeq())
				}
			}
		})
	}
}

// The writer may go on, and end the run, between a reader's last read and its question whether somebody has ended it.
func TestARunThatEndsWellWhileAReaderLooksIsReadToItsEnd(t *testing.T) {
	g := newRig(t).fill(20, 100)
	r := openReader(t, g.mem)
	g.must(g.add(draft(21, 100)))
	g.sealed()
	r.ext.mu.Lock()
	r.recovered(true)
	r.ext.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if next, err := follow(ctx, r, TailOptions{}, 1); next != 22 || err != nil {
		t.Errorf("the tail ended before seq %d: %v", next, err)
	}
}

// A reader that has not looked since recovery must not take for damage what was cut off under it.
func TestReadingWhatRecoveryHasCutOffIsNoDamage(t *testing.T) {
	for name, read := range map[string]func(r *Reader) error{
		"scan": func(r *Reader) error {
			var last error
			for _, err := range r.Scan(ScanOptions{From: 20}) {
				last = err
			}
			return last
		},
		"get":  func(r *Reader) error { _, err := r.Get(21, nil); return err },
		"tail": func(r *Reader) error { _, err := follow(context.Background(), r, TailOptions{}, 20); return err },
	} {
		g := newRig(t).fill(20, 100)
		g.must(g.log.Mark())
		g.mem.Inject(vfs.Rule{Kind: vfs.OpDatasync, Name: segment.FileName(1), Err: syscall.EIO, Landed: vfs.LoseAll()})
		g.must(g.add(draft(21, 3000)))
		_ = g.log.Sync()
		mem := g.killed()
		r := openReader(t, mem)
		if r.LastSeq() != 21 {
			t.Fatalf("the reader sees seq %d", r.LastSeq())
		}
		recovered(t, mem)
		if err := read(r); !errors.Is(err, format.ErrTorn) || errors.Is(err, format.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		poke(t, mem, segment.FileName(1), 4096+300, 1)
		if _, err := r.Get(2, nil); errors.Is(err, format.ErrTorn) {
			t.Errorf("%s: real damage is passed off as a cut: %v", name, err)
		}
	}
}

func TestReadersOfCrashedRunsShowTheTornTail(t *testing.T) { // DB7 DB17 DB23
	g := newRig(t).fill(40, 2000)
	g.must(g.add(draft(41, 6000)))
	g.log.Abandon()
	for seed := range uint64(40) {
		mem := g.mem.Crash(vfs.Random(seed))
		before := mem.Ops(vfs.OpChange)
		r := openReader(t, mem)
		n, end, wrong := prefix(r, g.want)
		if n < 40 || end != nil || wrong != nil || r.Status() != manifest.Running || n == 40 && r.Durable() < 38 {
			t.Fatalf("%d entries, durable %d, %v, %v, %s", n, r.Durable(), end, wrong, r.Status())
		}
		if mem.Ops(vfs.OpChange) != before {
			t.Fatal("the reader wrote something")
		}
		rec := recovered(t, mem)
		if rec.LastSeq != uint64(n) || rec.DroppedBytes != r.DroppedBytes() || rec.Manifest.LastSeq != uint64(n) {
			t.Fatalf("the reader saw %d entries and %d torn bytes, recovery says %s", n, r.DroppedBytes(), brief(rec))
		}
		if again := openReader(t, mem); again.DroppedBytes() != rec.DroppedBytes || again.Status() != manifest.CrashedRecovered {
			t.Fatalf("afterwards: %d bytes, %s", again.DroppedBytes(), again.Status())
		}
	}
}

func TestClosedLogsAndReadersSaySo(t *testing.T) { // BK1 BK2
	g := newRig(t).fill(60, 3000)
	r := g.log.Reader()
	other := openReader(t, g.mem.Kill())
	g.log.Abandon()
	_ = other.Close()
	for what, r := range map[string]*Reader{"in process": r, "other process": other} {
		if _, err := r.Get(1, nil); !errors.Is(err, format.ErrClosed) {
			t.Errorf("%s: get: %v", what, err)
		}
		if _, err := r.Get(60, nil); !errors.Is(err, format.ErrClosed) {
			t.Errorf("%s: get in the open segment: %v", what, err)
		}
		if _, end, _ := prefix(r, g.want); !errors.Is(end, format.ErrClosed) {
			t.Errorf("%s: scan: %v", what, end)
		}
	}
}

// A tail that is behind when the run is closed still comes to its end; whoever comes later is told.
func TestATailComesToTheEndOfALogThatIsClosedMeanwhile(t *testing.T) {
	for _, sealed := range []bool{true, false} {
		g := newRig(t).fill(300, 700)
		r, seen := g.log.Reader(), 0
		for v, err := range r.Tail(t.Context(), TailOptions{Level: Written}) {
			g.must(err)
			if seen++; v.Seq() != uint64(seen) {
				t.Fatalf("entry %d is seq %d", seen, v.Seq())
			}
			if seen == 1 {
				if sealed {
					g.must(g.log.Seal(manifest.Ended))
					g.log.Close()
				} else {
					g.log.Abandon()
				}
				for _, err := range r.Tail(t.Context(), TailOptions{}) {
					if !errors.Is(err, format.ErrClosed) {
						t.Errorf("a tail that begins after the end: %v", err)
					}
				}
			}
		}
		if seen != len(g.want) {
			t.Errorf("the tail came to %d of %d", seen, len(g.want))
		}
		if _, err := r.Get(1, nil); !errors.Is(err, format.ErrClosed) {
			t.Errorf("a read after the last tail: %v", err)
		}
	}
}
