package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/vfs"
)

// What does it cost to write zeros over a segment beforehand, and what not to? Each form of preparing does the same work; the
// numbers are in docs/decisions/2026-11-28-how-segments-are-prepared.md.

var preparations = []runlog.Preparation{runlog.PrepareZeros, runlog.PrepareReserved, runlog.PrepareNone}

// writtenFS counts the bytes that are written to the files of the real file system.
type writtenFS struct {
	vfs.FS
	bytes atomic.Int64
}

func (w *writtenFS) Create(name string) (vfs.File, error) { return w.count(w.FS.Create(name)) }

func (w *writtenFS) Open(name string) (vfs.File, error) { return w.count(w.FS.Open(name)) }

func (w *writtenFS) count(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &writtenFile{f, &w.bytes}, nil
}

type writtenFile struct {
	vfs.File
	bytes *atomic.Int64
}

func (f *writtenFile) WriteAt(b []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(b, off)
	f.bytes.Add(int64(n))
	return n, err
}

// report says how many bytes went to the files for each byte of payload.
func (w *writtenFS) report(b *testing.B, size int) {
	b.ReportMetric(float64(w.bytes.Load())/float64(b.N*size), "written/payload-B")
}

// alone appends one entry after the other, in turns with the floor.
type alone struct {
	b           *testing.B
	size        int
	work, floor histogram
	bare        *floorGroup
	v           versus
}

func newAlone(b *testing.B, size int) *alone {
	return &alone{b: b, size: size, bare: newFloorGroup(b, size)}
}

func (a *alone) run(run *runlog.Run, n int) {
	f := newFlow(a.size, false)
	a.v.turns(a.b, n, 50, func(n int) {
		together(&a.work, n, 1, func() func() error {
			return func() error { _, err := run.Append(context.Background(), f.next()); return err }
		}, a.b)
	}, func(n int) {
		together(&a.floor, n, 1, func() func() error {
			return func() error { a.bare.append(); return nil }
		}, a.b)
	})
}

func (a *alone) report() {
	a.work.report(a.b)
	a.v.report(a.b)
	for q, name := range map[float64]string{0.5: "p50_x_floor", 0.99: "p99_x_floor"} {
		a.b.ReportMetric(a.work.quantile(q)/max(a.floor.quantile(q), 1), name)
	}
}

// BenchmarkPrepareAppend appends one durable entry at a time, in segments of 4 MiB, so that the next one is prepared beside it all
// the time. Small entries share a block, which changes metadata with the first of them only.
func BenchmarkPrepareAppend(b *testing.B) {
	const segmentBytes = 4 << 20
	for _, size := range []int{payloadBytes, 4096} {
		for _, how := range preparations {
			b.Run(fmt.Sprintf("size=%d/%v", size, how), func(b *testing.B) {
				fs, a := &writtenFS{FS: vfs.OS}, newAlone(b, size)
				o := runlog.Options{FS: fs, Prepare: how, SegmentBytes: segmentBytes, FirstSegmentBytes: segmentBytes}
				inRuns(b, o, runLimit(size), a.run)
				a.report()
				fs.report(b, size)
			})
		}
	}
}

// BenchmarkPrepareStream streams as fast as the disk takes it.
func BenchmarkPrepareStream(b *testing.B) {
	for _, how := range preparations {
		b.Run(how.String(), func(b *testing.B) {
			fs := &writtenFS{FS: vfs.OS}
			stream(b, runlog.Options{FS: fs, Prepare: how}, payloadBytes, 1, false)
			fs.report(b, payloadBytes)
		})
	}
}

// BenchmarkPrepareAfterBurst appends one durable entry at a time just after a burst, which has left no time to write zeros:
// percentiles are those of the first two thousand appends.
func BenchmarkPrepareAfterBurst(b *testing.B) {
	const burst, quiet = 200_000, 2000
	for _, size := range []int{payloadBytes, 4096} {
		for _, how := range preparations {
			b.Run(fmt.Sprintf("size=%d/%v", size, how), func(b *testing.B) {
				a := newAlone(b, size)
				inRuns(b, runlog.Options{Prepare: how}, quiet, func(run *runlog.Run, n int) {
					fill(b, run, burst)
					a.run(run, n)
				})
				a.report()
			})
		}
	}
}

// BenchmarkPrepareOpen opens a run, whose first segment is prepared meanwhile.
func BenchmarkPrepareOpen(b *testing.B) {
	for _, how := range preparations {
		b.Run(how.String(), func(b *testing.B) {
			dir := b.TempDir()
			b.StopTimer()
			b.ResetTimer()
			for range b.N {
				b.StartTimer()
				run := open(b, runlog.Options{Dir: dir, Prepare: how})
				b.StopTimer()
				closeRun(b, run)
				check(b, os.RemoveAll(filepath.Dir(run.Dir())))
			}
		})
	}
}
