package slow

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// preparePacked makes runs with compressed segments: those that are sealed in the other tests, and one that was compressed
// while it was written.
var preparePacked = sync.OnceValues(func() (runs []*prepared, err error) {
	plain, err := prepare()
	if err != nil {
		return nil, err
	}
	add := func(name, dir string, fsys vfs.FS, whole *Log) error {
		files, err := readFolder(fsys, dir)
		if err != nil {
			return err
		}
		run := &prepared{name: name + ", compressed", dir: dir, files: files, end: Clean, whole: whole}
		for file := range files {
			if strings.HasSuffix(file, ".segz") {
				if run.whole == nil {
					run.whole = Read(files)
				}
				runs = append(runs, run)
				return nil
			}
		}
		return nil // nothing in it became smaller
	}
	for i, p := range plain {
		mem := vfs.NewMem(vfs.MemOptions{SectorSize: 64 << 10})
		if err := writeFolder(mem, p.dir, p.files); err != nil {
			return nil, err
		}
		how := runlog.Compression{Codec: []runlog.Codec{runlog.S2, runlog.Zstd}[i%2], BlockBytes: []int{4096, 64 << 10}[i/2%2]}
		if _, err := wal.Compress(context.Background(), mem, p.dir, wal.CompressOptions{Compression: how}); err != nil {
			continue // it is not sealed
		}
		if err := add(p.name, p.dir, mem, p.whole); err != nil {
			return nil, err
		}
	}
	for i, codec := range []runlog.Codec{runlog.S2, runlog.Zstd} {
		m := newMaker(uint64(100 + i))
		m.compress = runlog.Compression{Codec: codec, BlockBytes: 4096}
		fsys, dir, err := m.batches(60, 3000, killed)
		if err == nil {
			err = add("live", dir, fsys, nil)
		}
		if err != nil {
			return nil, err
		}
	}
	if len(runs) < 5 {
		return nil, fmt.Errorf("only %d runs have compressed segments", len(runs))
	}
	return runs, nil
})

func TestSlowAndRealReadTheSameCompressed(t *testing.T) {
	runs, err := preparePacked()
	if err != nil {
		t.Fatal(err)
	}
	for _, run := range runs {
		t.Run(run.name, func(t *testing.T) {
			if l := Read(run.files); l.End.Verdict != Clean || len(l.Findings) > 0 || len(l.packed) == 0 || len(l.Entries) != len(run.whole.Entries) {
				t.Errorf("slow: %+v %q", l.End, l.Findings)
			}
			for name, on := range map[string]struct {
				fsys vfs.FS
				dir  string
			}{
				"memory": {vfs.NewMem(vfs.MemOptions{}), run.dir},
				"disk":   {vfs.OS, filepath.Join(t.TempDir(), filepath.Base(run.dir))},
			} {
				if err := writeFolder(on.fsys, on.dir, run.files); err != nil {
					t.Fatal(err)
				}
				if err := compare(on.fsys, on.dir, run.files, run.whole); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}

func TestSlowAndRealAgreeOnDamageToCompressedSegments(t *testing.T) {
	runs, err := preparePacked()
	if err != nil {
		t.Fatal(err)
	}
	matrix.Run(t, "differ-packed", func(c *matrix.Cases) error {
		if !c.Next() {
			return nil
		}
		r := rand.New(rand.NewPCG(c.Seed, 6))
		data := make([]byte, 96)
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		return differOn(runs, data, ".segz")
	})
}
