package bench

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/segment"
)

// How long until an engine is ready again? It must depend on the active segment, not on the length of the log.

// BenchmarkOpenClean opens a run behind one that ended cleanly: a new folder, a zero-filled first segment, RunStarted
// durable.
func BenchmarkOpenClean(b *testing.B) {
	sizes := []int{1000, 100_000, 1_000_000}
	if *large {
		sizes = append(sizes, 4_000_000, 40_000_000)
	}
	for _, entries := range sizes {
		b.Run(fmt.Sprintf("entries=%d", entries), func(b *testing.B) {
			dir := b.TempDir()
			before := open(b, runlog.Options{Dir: dir})
			fill(b, before, entries)
			closeRun(b, before)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				b.StartTimer()
				run := open(b, runlog.Options{Dir: dir})
				b.StopTimer()
				closeRun(b, run)
				check(b, os.RemoveAll(run.Dir()))
			}
		})
	}
}

// BenchmarkOpenAfterCrash opens a run behind one whose process died: recovery, the seal of its active segment, and all of
// BenchmarkOpenClean. active-MB is what recovery has to read; held-MB is the memory that stays. The floor reads that from a
// file and hashes it.
func BenchmarkOpenAfterCrash(b *testing.B) {
	sizes := []int{1000, 100_000, 1_000_000}
	if *large {
		sizes = append(sizes, 4_000_000, 40_000_000)
	}
	for _, entries := range sizes {
		b.Run(fmt.Sprintf("entries=%d", entries), func(b *testing.B) { openCrashed(b, runlog.Options{}, entries) })
	}
}

// BenchmarkOpenSegments opens behind a crash with more and more segments, as small as they can be.
func BenchmarkOpenSegments(b *testing.B) {
	sizes := []int{10, 100}
	if *large {
		sizes = append(sizes, 1000, 10_000)
	}
	for _, n := range sizes {
		b.Run(fmt.Sprintf("segments=%d", n), func(b *testing.B) {
			const perSegment = 115 // of 256 B: the least segment has 64 KiB, half of them for its end
			openCrashed(b, runlog.Options{SegmentBytes: segment.MinSegment, FirstSegmentBytes: segment.MinSegment}, n*perSegment)
		})
	}
}

func openCrashed(b *testing.B, o runlog.Options, entries int) {
	image, active := crashed(b, o, entries)
	segments, err := filepath.Glob(filepath.Join(image, "*", "*", "*.seg"))
	check(b, err)
	var v versus
	floor, buf, held := zeroed(b), make([]byte, active), int64(0)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		dir := b.TempDir()
		clone(b, image, dir)
		before := heap()
		var run *runlog.Run
		v.turns(b, 1, 1, func(int) { run = open(b, runlog.Options{Dir: dir}) }, func(int) {
			_, err := floor.ReadAt(buf, 0)
			check(b, err)
			floorHash = xxhash.Sum64(buf)
		})
		held = max(held, heap()-before)
		p := run.Predecessors()
		if len(p) != 1 || p[0].Status != runlog.CrashedRecovered || p[0].LastSeq != uint64(entries)+1 {
			b.Fatalf("recovered %+v", p)
		}
		closeRun(b, run)
		check(b, os.RemoveAll(dir))
	}
	v.report(b)
	b.ReportMetric(float64(len(segments)), "segments")
	b.ReportMetric(float64(active)/1e6, "active-MB")
	b.ReportMetric(float64(held)/1e6, "held-MB")
}

var floorHash uint64 // keeps the compiler from leaving the floor out

// BenchmarkOpenReader opens finished runs of different lengths for reading.
func BenchmarkOpenReader(b *testing.B) {
	for _, entries := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprintf("entries=%d", entries), func(b *testing.B) {
			f := sealed(b, entries, 0)
			b.ReportAllocs()
			b.ResetTimer()
			for b.Loop() {
				r, err := runlog.OpenReader(f.dir, runlog.ReaderOptions{})
				if err != nil || r.LastSeq() != f.entries+2 {
					b.Fatal(r.LastSeq(), err)
				}
				check(b, r.Close())
			}
		})
	}
}

// heap is what is in use after a collection, in bytes.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// crashed returns a base folder as a killed process leaves it, with the entries durable, and the bytes in the active
// segment.
func crashed(b *testing.B, o runlog.Options, entries int) (image string, active int64) {
	dir := b.TempDir()
	o.Dir, o.IdleMark = dir, -1
	run := open(b, o)
	fill(b, run, entries)
	segments := awaitSeals(b, run.Dir())
	image = b.TempDir()
	clone(b, dir, image)
	closeRun(b, run)
	info, err := os.Stat(filepath.Join(run.Dir(), fmt.Sprintf("%08d.seg", segments))) // sealed by now, so cut to its content
	check(b, err)
	return image, info.Size()
}

// awaitSeals waits until all segments but the active one and its spare have their indexes, and returns the active
// one's number.
func awaitSeals(b *testing.B, dir string) int {
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		segments, err := filepath.Glob(filepath.Join(dir, "*.seg"))
		check(b, err)
		indexes, err := filepath.Glob(filepath.Join(dir, "*.idx"))
		check(b, err)
		if len(segments) == len(indexes)+2 && isSpare(b, segments[len(segments)-1]) { // else the spare is still to come
			return len(segments) - 1
		}
	}
	b.Fatal("segments are not sealed in the background")
	return 0
}

// isSpare reports whether a segment holds nothing but its header.
func isSpare(b *testing.B, path string) bool {
	f, err := os.Open(path)
	check(b, err)
	defer f.Close()
	h, err := segment.ReadHeader(f, path)
	check(b, err)
	var first [8]byte
	_, err = f.ReadAt(first[:], h.Size)
	check(b, err)
	return first == [8]byte{}
}

// clone copies a base folder. What nobody will write to again is linked.
func clone(b *testing.B, from, to string) {
	b.Helper()
	runs, err := filepath.Glob(filepath.Join(from, "*", "*"))
	check(b, err)
	for _, run := range runs {
		rel, err := filepath.Rel(from, run)
		check(b, err)
		info, err := os.Stat(run)
		check(b, err)
		if !info.IsDir() {
			continue // the lock
		}
		check(b, os.MkdirAll(filepath.Join(to, rel), 0o755))
		names, err := os.ReadDir(run)
		check(b, err)
		for _, e := range names {
			if filepath.Ext(e.Name()) == ".tmp" {
				continue // a filter that is being written
			}
			src, dst := filepath.Join(run, e.Name()), filepath.Join(to, rel, e.Name())
			index := strings.TrimSuffix(src, ".seg") + ".idx"
			if _, err := os.Stat(index); err == nil && os.Link(src, dst) == nil {
				continue
			}
			check(b, copyFile(src, dst))
		}
	}
}

func copyFile(src, dst string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(dst)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Sync()
}

// BenchmarkOpenLocked is a second Open of an instance, which must fail at once.
func BenchmarkOpenLocked(b *testing.B) {
	dir := b.TempDir()
	run := open(b, runlog.Options{Dir: dir})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := runlog.Open(context.Background(), runlog.Options{Dir: dir, Instance: "bench"}); err == nil {
			b.Fatal("opened twice")
		}
	}
	closeRun(b, run)
}
