package bench

import (
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/runlog-io/runlog"
)

// What does a submit cost the engine's thread? Rows named Clock do the same without a log: what is left is runlog's.

// submitBlock is how many entries are submitted before the writer is given, off the clock, the time to commit them: less
// than fills the queue.
const submitBlock = 4096

func BenchmarkClockRead(b *testing.B) {
	b.ReportAllocs()
	sum := int64(0)
	for b.Loop() {
		sum += clock()
	}
	_ = sum
}

func BenchmarkClockEach(b *testing.B) {
	b.ReportAllocs()
	h := &histogram{}
	before := clock()
	for b.Loop() {
		now := clock()
		h.add(now - before)
		before = now
	}
	h.report(b)
}

// BenchmarkSubmitIdle submits while the writer keeps up; ns/op is all that a submit costs, one reading of the clock
// included. The floor is that of BenchmarkFloorBuffer.
func BenchmarkSubmitIdle(b *testing.B) {
	for _, size := range []int{16, 64, payloadBytes, 1024} {
		for _, keyed := range []bool{false, true} {
			b.Run(fmt.Sprintf("size=%d/keys=%v", size, keyed), func(b *testing.B) {
				f, floor, payload := newFlow(size, keyed), newFloorBuffer(), make([]byte, size)
				var v versus
				inRuns(b, runlog.Options{}, runLimit(size), func(run *runlog.Run, n int) {
					warm(b, run)
					v.pause = func() { waitAll(b, run) }
					v.turns(b, n, submitBlock*payloadBytes/max(size, payloadBytes), func(n int) {
						for range n {
							if _, err := run.Submit(f.next()); err != nil {
								b.Fatal(err)
							}
						}
					}, func(n int) {
						for range n {
							floor.add(payload)
						}
					})
				})
				v.report(b)
			})
		}
	}
}

// BenchmarkSubmitEach is BenchmarkSubmitIdle with each submit timed by itself. Compare with BenchmarkClockEach.
func BenchmarkSubmitEach(b *testing.B) {
	f, h := newFlow(payloadBytes, false), &histogram{}
	inRuns(b, runlog.Options{}, entryLimit(), func(run *runlog.Run, n int) {
		warm(b, run)
		for n > 0 {
			block := min(n, submitBlock)
			b.StartTimer()
			before := clock()
			for range block {
				if _, err := run.Submit(f.next()); err != nil {
					b.Fatal(err)
				}
				now := clock()
				h.add(now - before)
				before = now
			}
			b.StopTimer()
			waitAll(b, run)
			n -= block
		}
	})
	h.report(b)
}

var rates = []int{1_000, 10_000, 100_000, 1_000_000}

// paced calls op at a rate and measures from the intended start of each call: a call that comes late because the one
// before was slow counts as slow. It spins, as an engine's thread does, and lets others run meanwhile if it is to be polite.
func paced(rate, n int, polite bool, h *histogram, op func()) {
	gap := int64(1e9) / int64(rate)
	at := clock() + gap
	for range n {
		for clock() < at {
			if polite {
				runtime.Gosched()
			}
		}
		op()
		h.add(clock() - at)
		at += gap
	}
}

func BenchmarkClockPaced(b *testing.B) {
	for _, rate := range rates {
		b.Run(fmt.Sprintf("rate=%d", rate), func(b *testing.B) {
			h := &histogram{}
			paced(rate, b.N, false, h, func() {})
			h.report(b)
		})
	}
}

// BenchmarkSubmitPaced submits at a fixed rate while the writer commits beside it. Compare with BenchmarkClockPaced. With
// more producers each has its share of the rate, and they let each other run.
func BenchmarkSubmitPaced(b *testing.B) {
	for _, producers := range producerCounts {
		for _, rate := range rates {
			b.Run(fmt.Sprintf("producers=%d/rate=%d", producers, rate), func(b *testing.B) {
				pacedRuns(b, rate, producers, submitting)
			})
		}
	}
}

// producing returns what makes each producer of a run its own operation.
type producing func(run *runlog.Run) (operation func(producer int) func() error)

// submitting is the submit of an entry without keys.
func submitting(run *runlog.Run) func(int) func() error {
	return func(int) func() error {
		f := newFlow(payloadBytes, false)
		return func() error { _, err := run.Submit(f.next()); return err }
	}
}

// pacedRuns calls the producers' operations at a rate that they share, and reports how late each was done.
func pacedRuns(b *testing.B, rate, producers int, op producing) {
	produce(b, producers, op, func(n int, h *histogram, op func() error) {
		paced(max(rate/producers, 1), n, producers > 1, h, func() {
			if err := op(); err != nil {
				b.Error(err)
			}
		})
	})
}

// saturatingRuns calls the producers' operations one after the other, and reports how long each took and what all reached.
func saturatingRuns(b *testing.B, producers int, op producing) {
	produce(b, producers, op, func(n int, h *histogram, op func() error) {
		before := clock()
		for range n {
			if err := op(); err != nil {
				b.Error(err)
				return
			}
			now := clock()
			h.add(now - before)
			before = now
		}
	})
	perSecond(b, b.N, "entries")
}

// produce runs load for each producer at once, and reports what they put in their histograms.
func produce(b *testing.B, producers int, op producing, load func(n int, h *histogram, op func() error)) {
	total := &histogram{}
	inRuns(b, runlog.Options{}, entryLimit(), func(run *runlog.Run, n int) {
		warm(b, run)
		hists, ops, operation := make([]histogram, producers), make([]func() error, producers), op(run)
		for p := range ops {
			ops[p] = operation(p)
		}
		b.StartTimer()
		split(n, producers, func(p, n int) { load(n, &hists[p], ops[p]) })
		b.StopTimer()
		for i := range hists {
			total.merge(&hists[i])
		}
	})
	total.report(b)
}

// producerCounts are those that the rows about concurrency have.
var producerCounts = []int{1, 2, 8}

// BenchmarkSubmitSaturating submits as fast as the log takes it, so that submits wait for the disk.
func BenchmarkSubmitSaturating(b *testing.B) {
	for _, producers := range producerCounts {
		b.Run(fmt.Sprintf("producers=%d", producers), func(b *testing.B) { saturatingRuns(b, producers, submitting) })
	}
}

// split calls f on so many goroutines, each with its share of n, and waits for all.
func split(n, goroutines int, f func(g, n int)) {
	var wg sync.WaitGroup
	for g := range goroutines {
		share := n / goroutines
		if g < n%goroutines {
			share++
		}
		wg.Go(func() { f(g, share) })
	}
	wg.Wait()
}
