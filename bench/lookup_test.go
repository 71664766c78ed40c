package bench

import (
	"fmt"
	"testing"

	"github.com/runlog-io/runlog"
)

// What does finding an order cost, and how does it grow with the number of segments? The floor is a table in memory that
// holds nothing but hashes.

// tailRoom is about what a segment keeps free for its end.
const tailRoom = 48 << 10

// segmented returns the same entries in one segment, about ten, about a hundred and about a thousand.
func segmented(b *testing.B, run func(b *testing.B, f *fixture)) {
	entries, one := 250_000, int64(128<<20)
	if *large {
		entries, one = 4_000_000, 2<<30
	}
	for _, parts := range []int64{1, 10, 100, 1000} {
		size := one
		if parts > 1 {
			size = int64(entries)*325/parts + tailRoom
		}
		f := sealed(b, entries, size)
		b.Run(fmt.Sprintf("segments=%d", f.segments), func(b *testing.B) { run(b, f) })
	}
}

// values returns texts of random orders, made beforehand. Orders from f.orders() on do not exist.
func values(f *fixture, exist bool, text func(dst []byte, order uint64) []byte) []string {
	rng := random()
	list := make([]string, 1<<16)
	for i := range list {
		order := rng.Uint64N(f.orders())
		if !exist {
			order += 1 << 40
		}
		list[i] = string(text(nil, order))
	}
	return list
}

func BenchmarkLookup(b *testing.B) {
	segmented(b, func(b *testing.B, f *fixture) {
		b.Run("hit", func(b *testing.B) { lookup(b, f.reader, f, true) })
		b.Run("miss", func(b *testing.B) { lookup(b, f.reader, f, false) })
	})
}

// BenchmarkLookupLong looks up in a run with segments of the default size.
func BenchmarkLookupLong(b *testing.B) {
	f := sealed(b, entryLimit(), 0)
	b.Run("hit", func(b *testing.B) { lookup(b, f.reader, f, true) })
	b.Run("miss", func(b *testing.B) { lookup(b, f.reader, f, false) })
}

// BenchmarkLookupActive looks up in the segment that is being written.
func BenchmarkLookupActive(b *testing.B) {
	const entries = 9_999
	run := open(b, runlog.Options{})
	fill(b, run, entries)
	f := &fixture{entries: entries}
	b.Run("hit", func(b *testing.B) { lookup(b, run, f, true) })
	b.Run("miss", func(b *testing.B) { lookup(b, run, f, false) })
	closeRun(b, run)
}

func lookup(b *testing.B, r interface {
	Lookup(kind, value string) (uint64, bool, error)
}, f *fixture, exist bool) {
	list, floor, i := values(f, exist, appendVenueID), newFloorTable(f), 0
	beside(b, 10_000, func(n int) {
		for range n {
			_, ok, err := r.Lookup(runlog.VenueOrderID, list[i%len(list)])
			if err != nil || ok != exist {
				b.Fatal(ok, err)
			}
			i++
		}
	}, func(n int) { floor.run(list, n) })
}

func BenchmarkHistory(b *testing.B) {
	segmented(b, func(b *testing.B, f *fixture) {
		ids := values(f, true, appendVenueID)
		b.Run("first", func(b *testing.B) {
			history(b, f, 1, 1, func(i int) (string, string) { return runlog.VenueOrderID, ids[i%len(ids)] })
		})
		b.Run("order", func(b *testing.B) {
			history(b, f, 2, 2, func(i int) (string, string) { return runlog.VenueOrderID, ids[i%len(ids)] })
		})
		hot := int(f.entries) / hotEvery
		b.Run(fmt.Sprintf("whole-%d", hot), func(b *testing.B) {
			history(b, f, hot, hot, func(int) (string, string) { return hotKind, hotValue })
		})
		missing := values(f, false, appendVenueID)
		b.Run("miss", func(b *testing.B) {
			history(b, f, 0, 1, func(i int) (string, string) { return runlog.VenueOrderID, missing[i%len(missing)] })
		})
	})
}

// history reads up to limit entries of each key and expects want.
func history(b *testing.B, f *fixture, want, limit int, key func(i int) (kind, value string)) {
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		n := 0
		for _, err := range f.reader.History(key(i)) {
			if err != nil {
				b.Fatal(err)
			}
			if n++; n == limit {
				break
			}
		}
		if n != want {
			b.Fatalf("%d entries, want %d", n, want)
		}
	}
	b.ReportMetric(float64(want), "entries/op")
}
