package bench

import (
	"context"
	"fmt"
	"testing"

	"github.com/runlog-io/runlog"
)

// How long until an entry is durable, alone and in company? The floor is the least group commit, with as many callers;
// BenchmarkFloorAppend writes as many entries at once, and nobody waits for anybody.

func BenchmarkAppend(b *testing.B) {
	for _, goroutines := range []int{1, 16, 128} {
		b.Run(fmt.Sprintf("goroutines=%d", goroutines), func(b *testing.B) {
			appendAll(b, context.Background(), goroutines, payloadBytes)
		})
	}
}

// BenchmarkAppendCancellable waits with a context that can end: the writer's goroutine commits, since a caller in the
// disk could not be stopped.
func BenchmarkAppendCancellable(b *testing.B) {
	for _, goroutines := range []int{1, 128} {
		b.Run(fmt.Sprintf("goroutines=%d", goroutines), func(b *testing.B) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			appendAll(b, ctx, goroutines, payloadBytes)
		})
	}
}

func BenchmarkAppendSize(b *testing.B) {
	for _, size := range []int{16, 4096, 65536} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) { appendAll(b, context.Background(), 1, size) })
	}
}

func appendAll(b *testing.B, ctx context.Context, goroutines, size int) {
	total, floorTotal, floor := &histogram{}, &histogram{}, newFloorGroup(b, size)
	var v versus
	inRuns(b, runlog.Options{}, runLimit(size), func(run *runlog.Run, n int) {
		warm(b, run)
		v.turns(b, n, 50*goroutines, func(n int) {
			together(total, n, goroutines, func() func() error {
				f := newFlow(size, false)
				return func() error { _, err := run.Append(ctx, f.next()); return err }
			}, b)
		}, func(n int) {
			together(floorTotal, n, goroutines, func() func() error {
				return func() error { floor.append(); return nil }
			}, b)
		})
	})
	total.report(b)
	v.report(b)
	if goroutines == 1 {
		b.ReportMetric(total.quantile(0.5)/max(floorTotal.quantile(0.5), 1), "p50_x_floor")
	}
	perSecond(b, b.N, "entries")
}

// together calls an operation n times, on so many goroutines, each with an op of its own, and adds how long each call took.
func together(total *histogram, n, goroutines int, op func() func() error, b *testing.B) {
	hists := make([]histogram, goroutines)
	split(n, goroutines, func(g, n int) {
		do, h := op(), &hists[g]
		for range n {
			before := clock()
			if err := do(); err != nil {
				b.Error(err)
				return
			}
			h.add(clock() - before)
		}
	})
	for i := range hists {
		total.merge(&hists[i])
	}
}
