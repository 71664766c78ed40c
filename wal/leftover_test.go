package wal

import (
	"path/filepath"
	"testing"

	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

// Without syncs a power cut can take the end of one segment and leave the next one. Recovery writes the final footer
// before it removes that one, and may die in between.
func TestASegmentThatRecoveryHadNoTimeToRemoveIsNoDamage(t *testing.T) {
	g := newRig(t, func(o *Options) {
		o.NoSync, o.Inline = true, false
		o.Background = func(func()) {} // nothing is sealed before the cut
	}).fill(60, 2000)
	if len(g.log.set.Load().segs) < 2 {
		t.Fatal("there is one segment only")
	}
	left := g.mem.Crash(func(c vfs.Choice) int {
		if filepath.Base(c.Name) == segment.FileName(1) && c.Kind == vfs.SectorChoice && c.Sector >= 40 {
			return 0
		}
		return c.Newest
	})
	var inside *vfs.Mem
	left.SetHook(func(op vfs.Op) error {
		if op.Kind == vfs.OpRemove && inside == nil && filepath.Ext(op.Name) == ".seg" {
			inside = left.Crash(vfs.KeepAll())
		}
		return nil
	})
	undisturbed := recovered(t, left)
	if inside == nil {
		t.Fatal("nothing was to be removed")
	}
	again := recovered(t, inside)
	if undisturbed.Status != manifest.CrashedRecovered || brief(again) != brief(undisturbed) {
		t.Errorf("undisturbed: %s; after a crash before the removal: %s", brief(undisturbed), brief(again))
	}
	r := openReader(t, inside)
	if n, end, wrong := prefix(r, g.want); wrong != nil || end != nil || uint64(n) != again.LastSeq {
		t.Errorf("%d entries of %d: %v %v", n, again.LastSeq, end, wrong)
	}
}
