package wal

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/vfs"
)

// cutFS is the real file system, on which files with one suffix are cut to nothing as soon as they have been mapped. To who
// reads the mapping that is what a sector is that the medium does not give.
type cutFS struct {
	vfs.FS
	ext string
}

type cutFile struct {
	vfs.File
	path string
	ext  string
}

func (c cutFS) OpenRead(name string) (vfs.File, error) {
	f, err := c.FS.OpenRead(name)
	if err != nil {
		return nil, err
	}
	return cutFile{f, name, c.ext}, nil
}

func (f cutFile) Map(n int64) (vfs.Mapping, error) {
	m, err := f.File.Map(n)
	if err == nil && filepath.Ext(f.path) == f.ext {
		err = os.Truncate(f.path, 0)
	}
	return m, err
}

// onDisk is a rig with enough small segments for a filter.
func onDisk(t *testing.T) (g *rig, dir string) {
	dir = filepath.Join(t.TempDir(), runID)
	g = newRig(t, func(o *Options) { o.FS, o.Dir = realFS{vfs.OS}, dir }).fill(130, 2500)
	if n := len(g.log.set.Load().segs); n < 5 {
		t.Fatalf("only %d segments", n)
	}
	return g, dir
}

func TestAnIndexOrFilterThatFaultsAtItsFirstUseIsBuiltAgainInMemory(t *testing.T) {
	for _, ext := range []string{".idx", ".flt"} {
		g, dir := onDisk(t)
		g.sealed()
		r, err := OpenReader(cutFS{vfs.OS, ext}, dir)
		if err != nil {
			t.Fatal(err)
		}
		for seq := uint64(1); seq <= uint64(len(g.want)); seq++ {
			v, err := r.Get(seq, nil)
			if err == nil {
				err = equal(&v, g.want, int(seq-1))
			}
			if err != nil {
				t.Fatalf("%s: seq %d: %v", ext, seq, err)
			}
		}
		if seq, ok, err := r.Lookup(entry.ClientOrderID, "O-20"); seq != 80 || !ok || err != nil {
			t.Errorf("%s: look-up: %d %v %v", ext, seq, ok, err)
		}
		whole(t, r, g.want)
		if len(r.Warnings()) == 0 {
			t.Errorf("%s: no warning", ext)
		}
		_ = r.Close()
	}
}

func TestRecoveryLivesThroughAnIndexThatFaults(t *testing.T) {
	g, dir := onDisk(t)
	g.log.Abandon()
	for _, e := range []string{"*.flt", "00000001.seg.tmp"} {
		names, _ := filepath.Glob(filepath.Join(dir, e))
		for _, name := range names {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	rec, err := Recover(cutFS{realFS{vfs.OS}, ".idx"}, dir, 1)
	if err != nil || rec.Damage != nil || rec.LastSeq != uint64(len(g.want)) {
		t.Fatalf("%+v, %v", rec, err)
	}
	r := openReaderOn(t, realFS{vfs.OS}, dir)
	whole(t, r, g.want)
}

func openReaderOn(t *testing.T, fsys vfs.FS, dir string) *Reader {
	r, err := OpenReader(fsys, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}
