package bench

import (
	"testing"

	"github.com/runlog-io/runlog"
)

// How fast does one read through a run, verified by commit digest? ns/op is per entry. The floor is that of
// BenchmarkFloorScan.

func BenchmarkScan(b *testing.B) {
	for _, c := range []struct {
		name string
		o    runlog.ScanOptions
	}{
		{"forward", runlog.ScanOptions{}},
		{"backward", runlog.ScanOptions{Reverse: true}},
	} {
		b.Run(c.name, func(b *testing.B) {
			f := sealed(b, 1_000_000, 0)
			b.SetBytes(payloadBytes)
			scanEntries(b, f, c.o)
		})
	}
	if *large {
		b.Run("forward/entries=4000000", func(b *testing.B) { scanEntries(b, sealed(b, 4_000_000, 0), runlog.ScanOptions{}) })
	}
}

// scanEntries scans, again and again, until b.N entries were delivered.
func scanEntries(b *testing.B, f *fixture, o runlog.ScanOptions) {
	beside(b, int(f.entries), func(n int) {
		left := n
		for v, err := range f.reader.Scan(o) {
			if err != nil || v.Seq() == 0 {
				b.Fatal(v.Seq(), err)
			}
			if left--; left == 0 {
				return
			}
		}
		b.Fatalf("%d entries are missing", left)
	}, newFloorScan(b, f).run)
	perSecond(b, b.N, "entries")
}

// BenchmarkScanTopic passes over all entries for the few of one topic; ns/op is per scan.
func BenchmarkScanTopic(b *testing.B) {
	f := sealed(b, 1_000_000, 0)
	b.Run("rare", func(b *testing.B) { scanWhole(b, f, runlog.ScanOptions{Topic: rareTopic}, int(f.entries)/hotEvery) })
	b.Run("absent", func(b *testing.B) { scanWhole(b, f, runlog.ScanOptions{Topic: "no.such.topic"}, 0) })
}

// BenchmarkScanTime scans a thousand entries in the middle, found by time; ns/op is per scan.
func BenchmarkScanTime(b *testing.B) {
	const want = 1000
	f := sealed(b, 1_000_000, 0)
	ts := func(seq uint64, init bool) int64 {
		v, err := f.reader.Get(seq, nil)
		check(b, err)
		if init {
			return v.TsInit()
		}
		return v.TsPublish()
	}
	first := f.seq(f.entries / 2)
	publish := runlog.ScanOptions{Since: ts(first, false), Until: ts(first+want-1, false)}
	b.Run("publish", func(b *testing.B) { scanWhole(b, f, publish, want) })
	publish.Reverse = true
	b.Run("publish-backward", func(b *testing.B) { scanWhole(b, f, publish, want) })
	byInit := runlog.ScanOptions{By: runlog.ByInit, Since: ts(first, true), Until: ts(first+want-1, true)}
	b.Run("init", func(b *testing.B) { scanWhole(b, f, byInit, want) })
}

func scanWhole(b *testing.B, f *fixture, o runlog.ScanOptions, want int) {
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, err := range f.reader.Scan(o) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != want {
			b.Fatalf("%d entries, want %d", n, want)
		}
	}
	b.ReportMetric(float64(want), "entries/op")
}
