package verify_test

import (
	"runtime"
	"testing"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
)

// held is the most memory that is in use while a run is checked, beyond what was before.
func held(t testing.TB, dir string) (most int64, rep verify.Report) {
	t.Helper()
	var m runtime.MemStats
	inUse := func() int64 {
		runtime.GC() // twice, for what pools hold
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := inUse()
	rep, err := verify.Run(ctx, vfs.OS, dir, verify.Options{
		OnProgress: func(int64, int64) { most = max(most, inUse()-before) },
		OnEntry:    func(*entry.View) error { return nil },
		OnNote:     func(*verify.Note) error { return nil },
	})
	must(t, err)
	return most, rep
}

// Memory depends on a segment, not on the run: not in parallel, since it counts what all tests hold.
func TestVerifyNeedsMemoryForOneSegmentOnly(t *testing.T) {
	dirs := [2]string{}
	for i, n := range []int{1000, 8000} {
		r := open(t, t.TempDir())
		fill(t, r, n)
		must(t, r.Close(ctx))
		dirs[i] = r.Dir()
	}
	short, a := held(t, dirs[0])
	long, b := held(t, dirs[1])
	t.Logf("%d segments: %d KiB; %d segments: %d KiB", a.Segments, short>>10, b.Segments, long>>10)
	if b.Segments < 5*a.Segments || !a.Clean() || !b.Clean() {
		t.Fatalf("%d and %d segments, %d and %d findings", a.Segments, b.Segments, a.Count, b.Count)
	}
	if more := int64(b.Entries - a.Entries); long-short > 16*more {
		t.Errorf("%d entries more to check take %d bytes more memory", more, long-short)
	}
}
