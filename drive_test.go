package runlog_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/internal/drive"
	"github.com/runlog-io/runlog/vfs"
)

// script drives one run, from a seed, and returns what it did to the disk.
func script(t *testing.T, seed uint64) []vfs.Op {
	rng := rand.New(rand.NewPCG(seed, 1))
	mem := newMem()
	mem.SetTrace(true)
	o := options(mem)
	o.SegmentBytes, o.FirstSegmentBytes, o.Clock, o.Salts = 64<<10, 64<<10, clock(1e18), rand.New(rand.NewPCG(seed, 2)).Uint64
	var tasks []func()
	d := &drive.Driver{Background: func(task func()) { tasks = append(tasks, task) }}
	r, err := runlog.Open(drive.With(context.Background(), d), o)
	must(t, err)
	for range 200 {
		durable, accepted := r.Durable(), r.Accepted()
		switch n := rng.IntN(10); {
		case n < 6:
			draft := order(int(accepted))
			draft.Payload = append(draft.Payload, make([]byte, 2000)...)
			if seq, err := r.Submit(draft); err != nil || seq != accepted+1 || r.Durable() != durable {
				t.Fatalf("submit: seq %d, durable %d, %v", seq, r.Durable(), err)
			}
		case n < 8:
			if more, err := d.Step(); err != nil || more != (durable < accepted) || more != (r.Durable() > durable) {
				t.Fatalf("step: %v, %v, durable %d of %d", more, err, r.Durable(), accepted)
			}
		case n < 9 && len(tasks) > 0:
			tasks[0]()
			tasks = tasks[1:]
		case n == 9:
			must(t, d.Mark())
		}
	}
	durable, id := r.Durable(), r.ID()
	ops := mem.Trace()
	o.FS, o.Salts = mem.Crash(vfs.Random(seed)), nil
	must(t, r.Close(context.Background()))
	if p := predecessor(t, open(t, o), id); p.Err != nil || p.LastSeq < durable {
		t.Fatalf("durable was seq %d, recovered is %+v", durable, p)
	}
	return ops
}

// A run in the hands of a driver does nothing by itself, and the same thing twice.
func TestADrivenRunIsReplayedFromItsSeed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for seed := range uint64(10) {
			if a, b := script(t, seed), script(t, seed); !slices.Equal(a, b) || len(a) < 100 {
				t.Fatalf("seed %d: %d and %d operations, not the same", seed, len(a), len(b))
			}
		}
	})
}
