package bench

import (
	"fmt"
	"testing"

	"github.com/runlog-io/runlog"
)

// How long does Close take? It commits, marks, digests and indexes the active segment, and writes the manifest, all
// durable.

func BenchmarkSeal(b *testing.B) {
	for _, entries := range []int{0, 10_000, 150_000} {
		b.Run(fmt.Sprintf("entries=%d", entries), func(b *testing.B) {
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				b.StopTimer()
				run := open(b, runlog.Options{SegmentBytes: 64 << 20, FirstSegmentBytes: 64 << 20})
				fill(b, run, entries)
				b.StartTimer()
				closeRun(b, run)
			}
		})
	}
}
