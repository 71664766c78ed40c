package wal

import (
	"errors"
	"testing"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
)

// TestAnEndOfTheLogThatIsLostWithItsEvidenceLooksTorn is what docs/guarantees.md says that runlog cannot tell: more than
// the last commit can go, if what vouches for it goes with it. What stands in front of it stays.
func TestAnEndOfTheLogThatIsLostWithItsEvidenceLooksTorn(t *testing.T) {
	g := newRig(t).fill(20, 600)
	mem := g.mem.Kill()
	end := g.log.active.end.Load()
	first := (end - 1) / segment.BlockSize * segment.BlockSize // the block in which the log ends
	edit(t, mem, segment.FileName(1), func(b []byte) []byte { clear(b[first:end]); return b })
	durable := g.log.durable.Load()
	rec := recovered(t, mem)
	whole(t, openReader(t, mem), g.want[:rec.LastSeq])
	if rec.Status != manifest.CrashedRecovered || rec.Damage != nil || rec.LastSeq+1 >= durable {
		t.Errorf("%+v, seq %d was durable", rec, durable)
	}

	// A mark in a block of its own changes that.
	g = newRig(t).fill(20, 600)
	end = g.log.active.end.Load()
	first = (end - 1) / segment.BlockSize * segment.BlockSize
	g.must(g.log.Mark())
	mem = g.mem.Kill()
	edit(t, mem, segment.FileName(1), func(b []byte) []byte { clear(b[first:end]); return b })
	if rec := recovered(t, mem); rec.Status != manifest.Quarantined {
		t.Errorf("the mark proves it: %+v", rec)
	}
}

// A run that recovery has sealed: its last commit does not say that it is the last.
func sealedByRecovery(t *testing.T) (g *rig, end int64) {
	g = newRig(t).fill(20, 600)
	end = g.log.active.end.Load()
	g.mem = g.killed()
	if rec := recovered(t, g.mem); rec.LastSeq != 20 {
		t.Fatalf("%+v", rec)
	}
	return g, end
}

func TestASealedRunWithoutItsLastFooterHasAllEntries(t *testing.T) {
	g, end := sealedByRecovery(t)
	edit(t, g.mem, segment.FileName(1), func(b []byte) []byte { return b[:end] })
	r := openReader(t, g.mem)
	whole(t, r, g.want)
	if r.Damage() != nil || len(r.Warnings()) == 0 || r.Status() != manifest.CrashedRecovered {
		t.Errorf("damage %v, warnings %v, %s", r.Damage(), r.Warnings(), r.Status())
	}
}

func TestASealedRunsLossBehindTheLastEntryIsTold(t *testing.T) {
	g := newRig(t).fill(20, 600)
	end := g.log.active.end.Load()
	g.must(g.log.Mark())
	g.mem = g.killed()
	recovered(t, g.mem)
	edit(t, g.mem, segment.FileName(1), func(b []byte) []byte { return b[:end] }) // the mark too
	r := openReader(t, g.mem)
	if n, end, wrong := prefix(r, g.want); n != 20 || !errors.Is(end, format.ErrCorrupt) || wrong != nil {
		t.Errorf("%d entries, %v, %v", n, end, wrong)
	}
}
