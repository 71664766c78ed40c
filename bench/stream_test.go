package bench

import (
	"fmt"
	"testing"

	"github.com/runlog-io/runlog"
)

// How fast does a durable stream go, until the last entry is durable? The floor is BenchmarkFloorStream with batches of a
// thousand entries, or 4 MiB of large ones.

var streamSizes = []int{16, 64, payloadBytes, 1024, 4096, 16384, 65536}

func BenchmarkStream(b *testing.B) {
	for _, size := range streamSizes {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) { stream(b, runlog.Options{}, size, 1, false) })
	}
}

// BenchmarkStreamKeys streams the order flow, with four order ids in three entries; bytes of indexes are per key.
func BenchmarkStreamKeys(b *testing.B) {
	for _, size := range streamSizes {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) { stream(b, runlog.Options{}, size, 1, true) })
	}
}

func BenchmarkStreamProducers(b *testing.B) {
	for _, producers := range []int{2, 8} {
		b.Run(fmt.Sprintf("producers=%d", producers), func(b *testing.B) {
			stream(b, runlog.Options{}, payloadBytes, producers, false)
		})
	}
}

// BenchmarkStreamSync compares the policies; with "never" the clock stops when all is written at the latest, with the
// others when all is durable.
func BenchmarkStreamSync(b *testing.B) {
	for _, p := range []struct {
		name   string
		policy runlog.SyncPolicy
	}{{"interval", runlog.SyncInterval}, {"never", runlog.SyncNever}} {
		b.Run(p.name, func(b *testing.B) { stream(b, runlog.Options{Sync: p.policy}, payloadBytes, 1, false) })
	}
}

func stream(b *testing.B, o runlog.Options, size, producers int, keyed bool) {
	var use, start diskUse
	var v versus
	floor := newFloorStream(b, size, floorBatchBytes(size))
	keys := 0
	b.ReportAllocs()
	b.SetBytes(int64(size))
	b.StopTimer()
	b.ResetTimer()
	for left := b.N; left > 0; {
		n := min(left, runLimit(size))
		left -= n
		o.Dir = b.TempDir()
		run := open(b, o)
		flows := make([]*flow, producers)
		for i := range flows {
			flows[i] = newFlow(size, keyed)
		}
		v.turns(b, n, max(n/4, 1), func(n int) { submitAll(b, run, n, flows, o.Sync) }, floor.run)
		closeRun(b, run)
		use.add(b, run.Dir())
		if keyed {
			keys += n * 4 / 3
		}
	}
	empty := open(b, runlog.Options{})
	closeRun(b, empty)
	start.add(b, empty.Dir()) // what a run without entries takes
	v.report(b)
	perSecond(b, b.N, "entries")
	b.ReportMetric(float64(max(use.segments-start.segments, 0))/float64(b.N), "disk-B/entry")
	if keys > 0 {
		b.ReportMetric(float64(max(use.indexes-start.indexes, 0))/float64(keys), "index-B/key")
	}
}

// submitAll submits n entries, one producer for each flow, and waits until all are as durable as the policy makes them.
func submitAll(b *testing.B, run *runlog.Run, n int, flows []*flow, policy runlog.SyncPolicy) {
	split(n, len(flows), func(p, n int) {
		for range n {
			if _, err := run.Submit(flows[p].next()); err != nil {
				b.Error(err)
				return
			}
		}
	})
	if policy == runlog.SyncNever {
		awaitWritten(run)
	} else {
		waitAll(b, run)
	}
}

// awaitWritten waits until everything submitted is in the file.
func awaitWritten(run *runlog.Run) {
	for run.Written() < run.Accepted() {
		run.Flush()
		spin(20_000)
	}
}

// spin waits for so many ns.
func spin(ns int64) {
	for until := clock() + ns; clock() < until; {
	}
}
