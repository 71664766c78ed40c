package bench

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/runlog-io/runlog"
)

// How long does Close take? It commits, marks, digests and indexes the active segment, and writes the manifest, all
// durable. The floor is the SHA-256 of the segment, and three syncs: of the segment, the index and the manifest.

func BenchmarkSeal(b *testing.B) {
	for _, entries := range []int{0, 10_000, 150_000} {
		b.Run(fmt.Sprintf("entries=%d", entries), func(b *testing.B) {
			var run *runlog.Run
			content, f, off := make([]byte, entries*325), zeroed(b), int64(0)
			prepare := func() {
				run = open(b, runlog.Options{SegmentBytes: 64 << 20, FirstSegmentBytes: 64 << 20})
				fill(b, run, entries)
			}
			v := versus{pause: prepare}
			b.ReportAllocs()
			b.StopTimer()
			b.ResetTimer()
			prepare()
			v.turns(b, b.N, 1, func(int) { closeRun(b, run) }, func(int) {
				floorSum = sha256.Sum256(content)
				for range 3 {
					writeSync(b, f, content[:min(4096, len(content))], &off)
				}
			})
			closeRun(b, run)
			v.report(b)
		})
	}
}
