package wal

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

var preparations = []Preparation{PrepareZeros, PrepareReserved, PrepareNone}

func TestAPreparationWritesAndReservesWhatItSays(t *testing.T) {
	const size = 3 << 20
	head := bytes.Repeat([]byte{1}, segment.BlockSize)
	for _, c := range []struct {
		how      Preparation
		refuse   bool // to reserve space
		filled   bool
		reserved int64
	}{
		{PrepareZeros, false, true, size},
		{PrepareZeros, true, true, size}, // by writing
		{PrepareReserved, false, false, size},
		{PrepareReserved, true, true, size},
		{PrepareNone, false, false, int64(len(head))},
		{PrepareNone, true, false, int64(len(head))},
	} {
		mem := vfs.NewMem(vfs.MemOptions{})
		file, err := mem.Create("/spare")
		if err != nil {
			t.Fatal(err)
		}
		f := &counted{File: file, refuse: c.refuse}
		if err := fill(f, size, head, c.how, nil); err != nil {
			t.Fatal(err)
		}
		if want := len(head); f.written != want && !c.filled || c.filled && f.written != size+want {
			t.Errorf("%v, refused: %v: %d bytes were written", c.how, c.refuse, f.written)
		}
		if used := mem.Used(); used != c.reserved {
			t.Errorf("%v, refused: %v: the file takes %d bytes on the disk, want %d", c.how, c.refuse, used, c.reserved)
		}
		got := make([]byte, size)
		if n, err := f.ReadAt(got, 0); n != size || !bytes.Equal(got[:len(head)], head) || !allZero(got[len(head):]) {
			t.Errorf("%v, refused: %v: %d bytes (%v), not the header and zeros", c.how, c.refuse, n, err)
		}
	}
}

// What a full disk refuses is a new segment where space is reserved, and a commit where it is not.
func TestOnAFullDiskCommitsFailOnlyWhereNothingIsReserved(t *testing.T) {
	for _, how := range preparations {
		g := newRig(t, func(o *Options) { o.Prepare = how })
		g.mem.SetCapacity(g.mem.Used())
		var err error
		for err == nil {
			if err = g.add(draft(uint64(len(g.want)+1), 500)); err == nil {
				g.must(g.log.Sync())
			}
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("%v: %v", how, err)
		}
		full := g.log.active.end.Load() > g.log.limit-1000
		if want := how != PrepareNone; full != want || g.log.ioFault == want {
			t.Errorf("%v: the log ends at %d of %d, a write has failed: %v (%v)", how, g.log.active.end.Load(), g.log.limit, g.log.ioFault, err)
		}
		mem := g.killed()
		mem.SetCapacity(0)
		if rec := recovered(t, mem); rec.LastSeq != uint64(len(g.want)-1) {
			t.Errorf("%v: %d entries were acknowledged, %d are recovered", how, len(g.want)-1, rec.LastSeq)
		}
	}
}

func TestAnUnknownPreparationIsRefused(t *testing.T) {
	for _, how := range []Preparation{-1, PrepareNone + 1} {
		o := newRig(t).o
		o.Prepare = how
		if _, err := Create(o); !errors.Is(err, format.ErrInvalid) {
			t.Errorf("%v: %v", how, err)
		}
	}
}

// A sealed run is the same, byte for byte, however its segments were prepared.
func TestASealedRunDoesNotShowHowItWasPrepared(t *testing.T) {
	var want map[string]string
	for _, how := range preparations {
		g := newRig(t, func(o *Options) { o.Prepare = how }).fill(200, 900).sealed()
		got := contents(t, g.mem, runDir)
		if want == nil {
			want = got
		}
		if len(got) != len(want) {
			t.Fatalf("%v: %d files, not %d", how, len(got), len(want))
		}
		for name, b := range want {
			if got[name] != b {
				t.Errorf("%v: %s is another", how, name)
			}
		}
	}
}
