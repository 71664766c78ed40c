package bench

import (
	"context"
	"testing"

	"github.com/runlog-io/runlog"
)

// How soon does a follower see an entry, and does it keep up?

// BenchmarkTailWake appends one entry and waits until a follower in the same process has it.
func BenchmarkTailWake(b *testing.B) { tailWake(b, false) }

// BenchmarkTailWakeFiles is the same with a reader that knows nothing but the files, as in another process; it polls
// every millisecond.
func BenchmarkTailWakeFiles(b *testing.B) { tailWake(b, true) }

func tailWake(b *testing.B, files bool) {
	f, h := newFlow(payloadBytes, false), &histogram{}
	inRuns(b, runlog.Options{}, entryLimit(), func(run *runlog.Run, n int) {
		warm(b, run)
		seen, stop := follow(b, run, files, run.Accepted()+1)
		b.StartTimer()
		for range n {
			before := clock()
			seq, err := run.Append(context.Background(), f.next())
			if err != nil {
				b.Fatal(err)
			}
			for got := range seen {
				if got == seq {
					break
				}
			}
			h.add(clock() - before)
		}
		b.StopTimer()
		stop()
	})
	h.report(b)
}

// BenchmarkTailStream streams while a follower in the same process reads along, until it has the last entry.
func BenchmarkTailStream(b *testing.B) { tailStream(b, false) }

// BenchmarkTailStreamFiles is the same with a reader of the files alone.
func BenchmarkTailStreamFiles(b *testing.B) { tailStream(b, true) }

func tailStream(b *testing.B, files bool) {
	f := newFlow(payloadBytes, false)
	inRuns(b, runlog.Options{}, entryLimit(), func(run *runlog.Run, n int) {
		warm(b, run)
		last := run.Accepted() + uint64(n)
		seen, stop := follow(b, run, files, run.Accepted()+1)
		b.StartTimer()
		go func() {
			for range n {
				if _, err := run.Submit(f.next()); err != nil {
					b.Error(err)
					return
				}
			}
			run.Flush()
		}()
		for got := range seen {
			if got == last {
				break
			}
		}
		b.StopTimer()
		stop()
	})
	perSecond(b, b.N, "entries")
}

// follow tails the run from seq on, on its own goroutine, and sends the seqs. stop ends it.
func follow(b *testing.B, run *runlog.Run, files bool, from uint64) (seen <-chan uint64, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	tail := run.Tail
	reader := run.Reader()
	if files {
		var err error
		reader, err = runlog.OpenReader(run.Dir(), runlog.ReaderOptions{})
		check(b, err)
		tail = reader.Tail
	}
	ch, done := make(chan uint64, 4096), make(chan struct{})
	go func() {
		defer close(done)
		defer close(ch)
		for v, err := range tail(ctx, runlog.TailOptions{From: from}) {
			if err != nil {
				if ctx.Err() == nil {
					b.Error(err)
				}
				return
			}
			select {
			case ch <- v.Seq():
			case <-ctx.Done():
				return
			}
		}
	}()
	return ch, func() {
		cancel()
		for range ch { // lets a blocked sender go
		}
		<-done
		if files {
			check(b, reader.Close())
		}
	}
}
