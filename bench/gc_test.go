package bench

import (
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"

	"github.com/runlog-io/runlog"
)

// What do the collector and the log do to each other, in a program that has a large heap of its own?

const (
	gcHeap    = 256 << 20 // bytes of small objects that live as long as the program
	gcGarbage = 2560      // bytes that the program drops with each message: in a second, as many as live
	gcIDs     = 1_000_000 // distinct order ids in the run whose part of the heap is measured
)

// object is what the program's heap is made of: the collector follows two pointers for each objectBytes.
type object struct {
	next, other *object
	_           [objectBytes/8 - 2]uint64
}

const objectBytes = 128

// heldObjects makes so many bytes of objects, in short lists, as in a table of orders, and each knows the one made before: workers can
// share them, and jump about in memory as they do.
func heldObjects(bytes int) []*object {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the collector need not see it grow
	heads := make([]*object, max(bytes/objectBytes/16, 1))
	rng, last := rand.New(rand.NewPCG(1, 2)), (*object)(nil)
	for range bytes / objectBytes {
		at := &heads[rng.IntN(len(heads))]
		last = &object{next: *at, other: last}
		*at = last
	}
	return heads
}

var garbage []byte // keeps what the program allocates from being optimized away

// BenchmarkGC runs the load of BenchmarkNoCliff in a program with a large heap that allocates with every message, so that
// the collector runs about once a second and has time to end in between: a program that gives it none has a backlog of its
// own, which hides everything else. Row host does that without a log; what is more in row runlog comes with it. The
// collector takes the processor from the producer for milliseconds in both, the more the fewer processors there are.
// Row runlog also reports what an open run with gcIDs ids adds to the heap (live-B), all of them in the segment that is
// being written, and how much of that the collector has to look through (scanned-B). Few iterations make do with a small heap.
func BenchmarkGC(b *testing.B) {
	b.Run("host", func(b *testing.B) {
		b.ReportAllocs()
		besideHeap(b, func(h *histogram, cycles func()) {
			b.ResetTimer()
			paced(cliffRate, b.N, false, h, func() { garbage = make([]byte, gcGarbage) })
			b.StopTimer()
			cycles()
		})
	})
	b.Run("runlog", func(b *testing.B) {
		f := newFlow(payloadBytes, true)
		besideHeap(b, func(h *histogram, cycles func()) {
			inRuns(b, runlog.Options{}, entryLimit(), func(run *runlog.Run, n int) {
				warm(b, run)
				b.StartTimer()
				paced(cliffRate, n, false, h, func() {
					garbage = make([]byte, gcGarbage)
					if _, err := run.Submit(f.next()); err != nil {
						b.Error(err)
					}
				})
				b.StopTimer()
				cycles()
			})
		})
		reportHeap(b)
	})
}

// few reports whether the benchmark runs less than a second: only to see that it works, or how long it takes.
func few(b *testing.B) bool { return b.N < cliffRate }

// besideHeap calls load in a program with a large heap, and reports what load puts in the histogram, and how often the
// collector ran from the beginning to the last call of cycles.
func besideHeap(b *testing.B, load func(h *histogram, cycles func())) {
	size := gcHeap
	if few(b) {
		size /= 64
	}
	held := heldObjects(size)
	defer debug.SetGCPercent(debug.SetGCPercent(100)) // the default, whatever GOGC says
	runtime.GC()
	h, first, ran := &histogram{}, read("/gc/cycles/total:gc-cycles"), uint64(0)
	load(h, func() { ran = read("/gc/cycles/total:gc-cycles") - first })
	runtime.KeepAlive(held)
	h.report(b)
	b.ReportMetric(float64(ran), "collections")
}

// reportHeap reports what an open run with many ids adds to the heap.
func reportHeap(b *testing.B) {
	ids := gcIDs
	if few(b) {
		ids /= 64
	}
	const size = 16
	entries := ids / 2 * 3 // two ids and three entries an order
	garbage = nil
	liveBefore, scannedBefore := heapNow()
	room := roomFor(entries, size)
	run := open(b, runlog.Options{SegmentBytes: room, FirstSegmentBytes: room})
	f := newFlow(size, true)
	for range entries {
		_, err := run.Submit(f.next())
		check(b, err)
	}
	waitAll(b, run)
	live, scanned := heapNow()
	closeRun(b, run)
	b.ReportMetric(float64(live)-float64(liveBefore), "live-B")
	b.ReportMetric(float64(scanned)-float64(scannedBefore), "scanned-B")
}

// heapNow collects twice, since pools let go of what they hold only the second time, and returns what is left.
func heapNow() (live, scanned uint64) {
	runtime.GC()
	runtime.GC()
	return read("/gc/heap/live:bytes"), read("/gc/scan/heap:bytes")
}

// read returns a metric of the runtime.
func read(name string) uint64 {
	s := []metrics.Sample{{Name: name}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
