package bench

import (
	"fmt"
	"testing"

	"github.com/runlog-io/runlog"
)

// What does one entry cost, by seq, verified and copied? The floor is that of BenchmarkFloorGet.

func BenchmarkGet(b *testing.B) {
	sizes := []int{100_000, 1_000_000}
	if *large {
		sizes = append(sizes, 4_000_000)
	}
	for _, entries := range sizes {
		b.Run(fmt.Sprintf("random/entries=%d", entries), func(b *testing.B) {
			f := sealed(b, entries, 0)
			rng := random()
			get(b, f.reader, newFloorGet(b, f), func(int) uint64 { return f.seq(rng.Uint64()) })
		})
	}
	b.Run(fmt.Sprintf("sequential/entries=%d", sizes[0]), func(b *testing.B) {
		f := sealed(b, sizes[0], 0)
		get(b, f.reader, newFloorGet(b, f), func(i int) uint64 { return f.seq(uint64(i)) })
	})
}

type getter interface {
	Get(seq uint64, buf *runlog.Buffer) (runlog.View, error)
}

func get(b *testing.B, r getter, floor *floorGet, seq func(i int) uint64) {
	var buf runlog.Buffer
	bytes, i := 0, 0
	beside(b, 10_000, func(n int) {
		for range n {
			v, err := r.Get(seq(i), &buf)
			if err != nil {
				b.Fatal(err)
			}
			bytes += len(v.Payload())
			i++
		}
	}, floor.run)
	if bytes == 0 {
		b.Fatal("no bytes read")
	}
}

// BenchmarkGetActive reads from the segment that is being written.
func BenchmarkGetActive(b *testing.B) {
	const entries = 10_000
	run := open(b, runlog.Options{})
	fill(b, run, entries)
	rng := random()
	get(b, run, newFloorGet(b, sealed(b, 100_000, 0)), func(int) uint64 { return 2 + rng.Uint64N(entries) })
	closeRun(b, run)
}

// BenchmarkGetParallel reads on all CPUs: readers must not stand in each other's way.
func BenchmarkGetParallel(b *testing.B) {
	f := sealed(b, 1_000_000, 0)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var buf runlog.Buffer
		rng := random()
		for pb.Next() {
			if _, err := f.reader.Get(f.seq(rng.Uint64()), &buf); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
