package bench

import (
	"context"
	"fmt"
	"testing"

	"github.com/runlog-io/runlog"
)

// How long until an entry is durable, alone and in company? Compare with BenchmarkFloorAppend.

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
	total := &histogram{}
	inRuns(b, runlog.Options{}, runLimit(size), func(run *runlog.Run, n int) {
		warm(b, run)
		hists := make([]histogram, goroutines)
		b.StartTimer()
		split(n, goroutines, func(g, n int) {
			f, h := newFlow(size, false), &hists[g]
			for range n {
				before := clock()
				if _, err := run.Append(ctx, f.next()); err != nil {
					b.Error(err)
					return
				}
				h.add(clock() - before)
			}
		})
		b.StopTimer()
		for i := range hists {
			total.merge(&hists[i])
		}
	})
	total.report(b)
	perSecond(b, b.N, "entries")
}
