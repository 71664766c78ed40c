package wal

import (
	"testing"

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
