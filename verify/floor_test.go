package verify_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// floored is a sealed run of which retention has removed the segments in front of number keep.
func floored(t testing.TB, keep uint32) string {
	t.Helper()
	dir := sealed(t)
	must(t, wal.RemoveBefore(vfs.OS, dir, keep))
	return dir
}

func hasNote(rep *verify.Report, part string) bool {
	return slices.ContainsFunc(rep.Notes, func(n string) bool { return strings.Contains(n, part) })
}

func TestARunIsCleanFromItsFloorOn(t *testing.T) {
	for keep := uint32(2); keep <= 6; keep++ {
		dir := floored(t, keep)
		m, _, err := manifest.Read(vfs.OS, dir)
		must(t, err)
		seqs := []uint64{}
		rep, err := verify.Run(ctx, vfs.OS, dir, verify.Options{OnEntry: func(v *runlog.View) error {
			seqs = append(seqs, v.Seq())
			return nil
		}})
		must(t, err)
		if !rep.Clean() || rep.Digest != m.Digest || rep.FirstSeq != m.Floor || rep.LastSeq != m.LastSeq || rep.Entries != m.LastSeq-m.Floor+1 {
			t.Errorf("from segment %d on: %+v", keep, rep)
		}
		if !hasNote(&rep, fmt.Sprintf("begins at seq %d", m.Floor)) {
			t.Errorf("notes: %q", rep.Notes)
		}
		if len(seqs) != int(rep.Entries) || seqs[0] != m.Floor {
			t.Errorf("%d entries were handed out, the first is %d", len(seqs), seqs[0])
		}
	}
}

func TestDamageAboveTheFloorIsFound(t *testing.T) {
	dir := floored(t, 3)
	clean := names(t, dir)
	for _, name := range clean {
		t.Run(name, func(t *testing.T) {
			broken := filepath.Join(t.TempDir(), filepath.Base(dir))
			copyDir(t, dir, broken)
			must(t, os.Remove(filepath.Join(broken, name)))
			if rep := check(t, broken); !blames(&rep, name) {
				t.Errorf("without it: %+v", rep.Findings)
			}
		})
	}
	info, err := os.Stat(filepath.Join(dir, segment.FileName(3)))
	must(t, err)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		off := rng.IntN(int(info.Size()))
		damage(t, dir, segment.FileName(3), func(b []byte) []byte { b[off] ^= 4; return b })
	}
}

func TestAFloorThatContradictsTheSegmentsIsAFinding(t *testing.T) {
	for name, change := range map[string]func(m *manifest.Manifest){
		"floor":       func(m *manifest.Manifest) { m.Floor++ },
		"base digest": func(m *manifest.Manifest) { m.BaseDigest = strings.Repeat("a", 64) },
		"base ended":  func(m *manifest.Manifest) { ended := *m.Ended + 5; m.BaseEnded = &ended },
	} {
		dir := floored(t, 3)
		m, _, err := manifest.Read(vfs.OS, dir)
		must(t, err)
		change(&m)
		must(t, manifest.Write(vfs.OS, dir, m))
		must(t, manifest.Write(vfs.OS, dir, m))
		if rep := check(t, dir); rep.Clean() {
			t.Errorf("%s: nothing is found", name)
		}
	}
}

func TestAPreviousManifestThatCouldNotStandInIsAFinding(t *testing.T) {
	dir := sealed(t)
	old, err := os.ReadFile(filepath.Join(dir, manifest.FileName))
	must(t, err)
	must(t, wal.RemoveBefore(vfs.OS, dir, 3))
	must(t, os.WriteFile(filepath.Join(dir, manifest.PrevName), old, 0o644))
	if rep := check(t, dir); rep.Count != 1 || !blames(&rep, manifest.PrevName) {
		t.Errorf("%+v", rep.Findings)
	}
}

func TestLeftoversBelowTheFloorAreANote(t *testing.T) {
	whole := sealed(t)
	dir := filepath.Join(t.TempDir(), filepath.Base(whole))
	copyDir(t, whole, dir)
	must(t, wal.RemoveBefore(vfs.OS, dir, 5))
	for _, name := range []string{"00000001.seg", "00000002.idx", "00000001-00000004.flt"} { // as if a crash had come
		b, err := os.ReadFile(filepath.Join(whole, name))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, name), b, 0o644))
	}
	if rep := check(t, dir); !rep.Clean() || !hasNote(&rep, "3 files below segment 5") {
		t.Errorf("%+v, %q", rep.Findings, rep.Notes)
	}
}

// retaining removes segments of a run while it is checked: when the check opens a file of segment at.
type retaining struct {
	vfs.FS
	at     string
	remove func()
}

func (r *retaining) OpenRead(name string) (vfs.File, error) {
	if filepath.Base(name) == r.at && r.remove != nil {
		remove := r.remove
		r.remove = nil
		remove()
	}
	return r.FS.OpenRead(name)
}

func TestWhatRetentionRemovesDuringTheCheckIsNoDamage(t *testing.T) {
	for _, c := range []struct {
		at   string
		keep uint32
	}{
		{segment.FileName(1), 2}, {segment.FileName(1), 5}, {segment.FileName(2), 4}, {segment.FileName(3), 4}, {segment.FileName(3), 3},
		{"00000001.idx", 3}, {"00000003.idx", 6}, {"00000001-00000004.flt", 3},
	} {
		dir := sealed(t)
		fsys := &retaining{FS: vfs.OS, at: c.at, remove: func() { must(t, wal.RemoveBefore(vfs.OS, dir, c.keep)) }}
		rep, err := verify.Run(ctx, fsys, dir, verify.Options{})
		m, _, _ := manifest.Read(vfs.OS, dir)
		if err != nil || !rep.Clean() || rep.LastSeq != m.LastSeq {
			t.Errorf("at %s from %d on: %v, %+v", c.at, c.keep, err, rep.Findings)
		}

		live := open(t, t.TempDir())
		fill(t, live, 1500) // enough that segment 6 is followed by another, however batches fall
		must(t, live.WaitDurable(ctx, live.Accepted()))
		fsys = &retaining{FS: vfs.OS, at: c.at, remove: func() { waitSealed(t, live, c.keep); must(t, live.RemoveBefore(live.ID(), c.keep)) }}
		if rep, err = verify.Run(ctx, fsys, live.Dir(), verify.Options{}); err != nil || !rep.Clean() {
			t.Errorf("live, at %s from %d on: %v, %+v", c.at, c.keep, err, rep.Findings)
		}
		must(t, live.Close(ctx))
		if rep := check(t, live.Dir()); !rep.Clean() {
			t.Errorf("closed, from %d on: %+v", c.keep, rep.Findings)
		}
	}
	dir := sealed(t)
	fsys := &retaining{FS: vfs.OS, at: segment.FileName(2), remove: func() { must(t, wal.RemoveRun(vfs.OS, dir)) }}
	if rep, err := verify.Run(ctx, fsys, dir, verify.Options{}); !errors.Is(err, runlog.ErrRemoved) || rep.Count > 0 {
		t.Errorf("a run that was removed: %v, %+v", err, rep.Findings)
	}
}

// waitSealed returns when segment n of a live run is sealed.
func waitSealed(t testing.TB, r *runlog.Run, n uint32) {
	t.Helper()
	for {
		segs, err := r.Reader().Segments()
		must(t, err)
		for _, s := range segs {
			if s.Number == n && s.Sealed {
				return
			}
		}
	}
}
