package wal

import (
	"bytes"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/index"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

// counted counts the bytes that are written to a file, and can refuse to reserve space.
type counted struct {
	vfs.File
	refuse  bool
	written int
	waiting int // bytes that a sync would write now
	most    int // that any had to
}

func (f *counted) WriteAt(b []byte, off int64) (int, error) {
	f.written += len(b)
	f.waiting += len(b)
	return f.File.WriteAt(b, off)
}

func (f *counted) Datasync() error {
	f.most, f.waiting = max(f.most, f.waiting), 0
	return f.File.Datasync()
}

func (f *counted) Preallocate(size int64) error {
	if f.refuse {
		if err := f.Truncate(size); err != nil {
			return err
		}
		return vfs.ErrNotReserved
	}
	return f.File.Preallocate(size)
}

func TestASpareThatSomebodyWaitsForIsReservedAndNotFilled(t *testing.T) {
	const size = 4 << 20
	head := bytes.Repeat([]byte{1}, segment.BlockSize)
	for _, c := range []struct {
		name           string
		urgent, refuse bool
		filled         bool
	}{
		{name: "in time", filled: true},
		{name: "awaited", urgent: true},
		{name: "awaited, where space cannot be reserved", urgent: true, refuse: true, filled: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			file, err := vfs.NewMem(vfs.MemOptions{}).Create("/spare")
			if err != nil {
				t.Fatal(err)
			}
			f := &counted{File: file, refuse: c.refuse}
			m := &spareMaker{pace: &pace{}}
			m.urgent.Store(c.urgent)
			if err := fill(f, size, head, PrepareZeros, m); err != nil {
				t.Fatal(err)
			}
			if (f.written == size+len(head)) != c.filled || !c.filled && f.written != len(head) {
				t.Errorf("%d bytes were written", f.written)
			}
			got := make([]byte, size)
			if n, err := f.ReadAt(got, 0); n != size || !bytes.Equal(got[:len(head)], head) || !allZero(got[len(head):]) {
				t.Errorf("%d bytes (%v), not the header and zeros", n, err)
			}
		})
	}
}

// The disk writes one thing after the other: a commit waits for what the filler has just handed to it.
func TestTheFillerKeepsNoCommitWaitingForMoreThanAPiece(t *testing.T) {
	const size, atMost = 2 << 20, 256 << 10
	head := make([]byte, segment.BlockSize)
	file, err := vfs.NewMem(vfs.MemOptions{}).Create("/spare")
	if err != nil {
		t.Fatal(err)
	}
	f := &counted{File: file}
	if err := fill(f, size, head, PrepareZeros, &spareMaker{pace: &pace{}}); err != nil {
		t.Fatal(err)
	}
	if f.written != size+len(head) || f.most > atMost+len(head) {
		t.Errorf("%d bytes were written, up to %d of them at a time, want at most %d", f.written, f.most, atMost+len(head))
	}
}

func TestTheFillerGivesWayWhileTheLogIsBehind(t *testing.T) {
	begin := func(m *spareMaker) (done *atomic.Bool) {
		done = new(atomic.Bool)
		go func() {
			m.giveWay()
			done.Store(true)
		}()
		synctest.Wait()
		return done
	}
	settle := func() {
		time.Sleep(2 * quietLooks * fillPause)
		synctest.Wait()
	}
	synctest.Test(t, func(t *testing.T) {
		m := &spareMaker{pace: &pace{}}
		m.pace.note(behindBytes - 1)
		if done := begin(m); !done.Load() {
			t.Error("a small commit holds it up")
			settle()
		}
		m.pace.note(behindBytes)
		done := begin(m)
		for range 1000 {
			time.Sleep(quietLooks / 2 * fillPause)
			m.pace.note(behindBytes)
		}
		if done.Load() {
			t.Error("it goes on beside large commits")
		}
		if settle(); !done.Load() {
			t.Error("it still waits when no commit comes any more")
		}
		for name, end := range map[string]func(){
			"a small commit": func() { m.pace.note(1) },
			"somebody waits": func() { m.urgent.Store(true) },
			"not needed":     func() { m.stop.Store(true) },
		} {
			m.pace.note(behindBytes)
			done := begin(m)
			end()
			time.Sleep(2 * fillPause)
			if synctest.Wait(); !done.Load() {
				t.Errorf("%s: it still waits", name)
			}
			settle()
			m.urgent.Store(false)
			m.stop.Store(false)
		}
	})
}

func TestTheSpareIsFinishedInTimeForALogThatIsBehind(t *testing.T) {
	for _, perBatch := range []int{1, 3} { // of 100 KiB, so that one is no large commit and three are
		g := newRig(t, func(o *Options) {
			o.SegmentBytes, o.FirstBytes, o.Inline = 4<<20, 4<<20, false
			o.Background = func(func()) {} // never begun
		})
		m := g.log.maker
		for g.log.active.end.Load() < g.log.limit-(1<<20)/2 {
			var batch []entry.Draft
			for i := range perBatch {
				batch = append(batch, draft(uint64(len(g.want)+i+1), 100<<10))
			}
			g.must(g.add(batch...))
			late := g.log.active.end.Load() > g.log.limit/4*3
			if m.urgent.Load() != (late && perBatch > 1) {
				t.Fatalf("%d a commit: at %d of %d the spare is urgent: %v", perBatch, g.log.active.end.Load(), g.log.limit, m.urgent.Load())
			}
		}
		g.log.Abandon()
	}
}

// A segment's table begins as large as the one before says, as far as that is no more than a segment like it could ever need.
func TestRoomForKeysIsMadeAsTheSegmentBeforeNeededIt(t *testing.T) {
	filled := func(keys int, bytes int64) *openSeg {
		o := &openSeg{ix: index.NewBuilder(1)}
		for i := range keys {
			o.ix.AddEntry(uint64(i+1), int64(i)*8)
			o.ix.AddKey(uint64(i+1)<<40, uint64(i+1))
		}
		o.end.Store(bytes)
		return o
	}
	for _, c := range []struct {
		keys        int
		bytes, size int64
		want        int
	}{
		{0, 1 << 20, 64 << 20, 0},
		{100, 1 << 20, 1 << 20, 100},
		{100, 1 << 20, 64 << 20, 6400},
		{5000, 1 << 20, 64 << 20, 131_072}, // 512 bytes a key
		{1000, 4096, 64 << 20, 131_072},    // one that was cut short says little
		{2000, 1 << 20, 4 << 30, 1 << 20},  // 8 million, were they all reserved at once
		{1, 0, 4 << 30, 1 << 20},           // nothing to go by
	} {
		if got := filled(c.keys, c.bytes).keysIn(c.size); got != c.want {
			t.Errorf("%d keys in %d bytes: room for %d in %d, want %d", c.keys, c.bytes, got, c.size, c.want)
		}
	}
}

// The first batch of a segment names the one before, also in the moment in which the sealer is done with that.
func TestASegmentBeginsWhileTheOneBeforeIsBeingSealed(t *testing.T) {
	g := newRig(t)
	for len(g.log.set.Load().segs) < 2 {
		g.fill(1, 1000)
	}
	before := g.log.set.Load().segs[0]
	info := before.info.Load()
	open := &openSeg{header: info.header}
	var stop atomic.Bool
	var sealer sync.WaitGroup
	sealer.Go(func() {
		for !stop.Load() {
			before.open.Store(open)
			before.open.Store(nil)
		}
	})
	for range 200_000 {
		g.log.enc.Begin(1, 4096)
		g.log.encodeStart(1)
		s, ok := segment.DecodeStart(g.log.enc.Commit(&segment.Commit{}, 0), 1, 4096)
		if !ok || s.PrevSalt != info.header.Salt {
			t.Errorf("the segment before has salt %#x, want %#x", s.PrevSalt, info.header.Salt)
			break
		}
	}
	stop.Store(true)
	sealer.Wait()
}
