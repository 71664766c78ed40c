package fuzz

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/fuzz/oracle"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
)

// wildClock jumps back and forth, stands still, and knows times before 1970 and close to the end of time.
type wildClock struct {
	mu  sync.Mutex
	r   *rand.Rand
	now int64
}

func (c *wildClock) Now() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.r.IntN(12) {
	case 0, 1, 2, 3:
		// stands still
	case 4:
		c.now = []int64{0, -1, 1, math.MinInt64, math.MinInt64 + 1, 1_800_000_000_000_000_000}[c.r.IntN(6)]
	case 5:
		c.now = max(c.now, math.MinInt64+1<<50) - c.r.Int64N(1<<50)
	case 6:
		c.now = later(c.now, c.r.Int64N(1<<50))
	case 7:
		if c.r.IntN(20) == 0 {
			c.now = math.MaxInt64 - c.r.Int64N(1<<10)
		}
	default:
		c.now = later(c.now, c.r.Int64N(2000))
	}
	return c.now
}

// later adds, up to the end of time.
func later(now, d int64) int64 {
	if now > math.MaxInt64-d {
		return math.MaxInt64
	}
	return now + d
}

// wildTimes lets several runs follow each other under a clock that cannot be trusted. A case is a run.
func wildTimes(c *matrix.Cases) error {
	s := newSim(c.Seed)
	s.tiny = true
	s.o.Clock = &wildClock{r: rand.New(rand.NewPCG(c.Seed, 3))}
	var ids []string
	parent := ""
	for range 1 + s.rng.IntN(5) {
		if !c.Next() {
			return nil
		}
		run, err := runlog.Open(context.Background(), s.o)
		if err != nil {
			return fmt.Errorf("open: %w", err)
		}
		m := run.Manifest()
		if m.Parent != parent {
			return fmt.Errorf("run %s has parent %q, want %q", m.Run, m.Parent, parent)
		}
		if n := len(ids); n > 0 && m.Run <= ids[n-1] || !manifest.ValidRunID(m.Run) {
			return fmt.Errorf("run %s follows run %s", m.Run, ids[n-1])
		}
		ids = append(ids, m.Run)
		in := s.h.Start(run)
		for range 1 + s.rng.IntN(20) {
			d := s.draft()
			in.Add(d)
			if _, err := run.Submit(d); err != nil {
				return err
			}
		}
		s.h.Promise(m.Run, in.Want, run.Durable())
		if parent = ""; s.rng.IntN(3) == 0 {
			in.Entries = append(in.Entries, oracle.Ended)
			if err := run.Close(context.Background()); err != nil {
				return err
			}
			s.h.Promise(m.Run, in.Want, run.Durable())
		} else {
			parent = m.Run
		}
		name, cut := crashes(s.rng)
		s.mem = cut(s.mem).(*vfs.Mem)
		s.o.FS = s.mem
		if err := s.read(s.mem); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := s.judge(s.mem.Kill(), s.rng); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if got := slices.Sorted(maps.Keys(s.h.Runs)); !slices.Equal(got, ids) {
		return fmt.Errorf("the runs %v sort as %v", ids, got)
	}
	return nil
}

func TestOrderDoesNotDependOnTheClock(t *testing.T) { matrix.Run(t, "clock", wildTimes) }
