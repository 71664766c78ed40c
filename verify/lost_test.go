package verify_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/runlog-io/runlog/index"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
)

// withoutFiles returns a copy of a sealed run that lacks some.
func withoutFiles(t *testing.T, dir string, names ...string) string {
	t.Helper()
	lossy := filepath.Join(t.TempDir(), filepath.Base(dir))
	copyDir(t, dir, lossy)
	for _, name := range names {
		if err := os.Remove(filepath.Join(lossy, name)); err != nil {
			t.Fatal(err)
		}
	}
	return lossy
}

func TestAMissingIndexIsAFindingAlsoWhenTheManifestIsLost(t *testing.T) {
	dir := sealed(t)
	m, _, err := manifest.Read(vfs.OS, dir)
	if err != nil {
		t.Fatal(err)
	}
	ix := index.FileName(m.Segments)
	for _, lost := range [][]string{
		{ix}, {ix, manifest.FileName}, {ix, manifest.PrevName}, {ix, manifest.FileName, manifest.PrevName},
	} {
		rep := check(t, withoutFiles(t, dir, lost...))
		for _, name := range lost {
			if !blames(&rep, name) {
				t.Errorf("%v are missing, %s is not blamed: %v %v", lost, name, rep.Findings, rep.Notes)
			}
		}
	}
}

func TestAMissingSegmentsEntriesAreNamed(t *testing.T) {
	dir := sealed(t)
	m, _, err := manifest.Read(vfs.OS, dir)
	if err != nil || m.Segments < 3 {
		t.Fatal(m, err)
	}
	for n := uint32(1); n <= m.Segments; n++ {
		rep := check(t, withoutFiles(t, dir, segment.FileName(n)))
		f := rep.Findings[0]
		if f.Kind != verify.KindMissing || f.FirstSeq == 0 || f.LastSeq < f.FirstSeq || n == m.Segments && f.LastSeq != m.LastSeq {
			t.Errorf("segment %d: %v", n, f)
		}
	}
}
