package wal

import (
	"bytes"
	"errors"
	"testing"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
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

// The closing commit of a segment proves what was written before it and not synced, whatever becomes of the next segment.
func TestARotationProvesWhatItMakesDurable(t *testing.T) {
	g := newRig(t, func(o *Options) { o.Inline, o.Background = false, func(func()) {} }) // nothing is sealed
	for seq := uint64(1); g.log.active.header.Number == 1; seq++ {                       // never synced but by the rotation
		g.must(g.add(draft(seq, 5000)))
	}
	durable := g.log.Durable().Load()
	if durable < 4 {
		t.Fatalf("durable is %d", durable)
	}
	for seq := uint64(1); seq <= durable; seq++ {
		m := g.mem.Crash(vfs.LoseAll()) // and with it the batch that did not fit
		edit(t, m, segment.FileName(1), func(b []byte) []byte {
			b[bytes.Index(b, draft(seq, 5000).Payload)] ^= 1
			return b
		})
		if rec, err := Recover(m, runDir, 1); err != nil || !errors.Is(rec.Damage, format.ErrCorrupt) {
			t.Errorf("a flipped bit in durable entry %d is no damage: %s at %d, %v", seq, rec.Status, rec.LastSeq, err)
		}
	}
}
