package bench

import (
	"context"
	"runtime"
	"runtime/metrics"
	"sync"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog"
)

// Does a submit get slower when something else goes on in the log? A paced load, measured from the intended start of each
// submit, alone and beside all that happens in a log. Compare p99.9 and max with those of "quiet", and of "clock": the same
// loop that submits nothing, beside a neighbor that only keeps processors busy.

const (
	cliffRate    = 100_000
	cliffSegment = 4 << 20 // at this rate and 310 B an entry, one every 130 ms
)

// cliff is something that goes on beside the load, until stop is closed. nil: nothing.
type cliff struct {
	name    string
	options runlog.Options
	beside  func(b *testing.B, run *runlog.Run, stop <-chan struct{})
}

func cliffs() []cliff {
	rotating := runlog.Options{SegmentBytes: cliffSegment, FirstSegmentBytes: cliffSegment}
	with := func(c runlog.Codec) runlog.Options {
		o := rotating
		o.Compress.Codec = c
		return o
	}
	return []cliff{
		{name: "quiet", options: runlog.Options{SegmentBytes: 512 << 20, FirstSegmentBytes: 512 << 20}},
		{name: "rotation", options: rotating},
		{name: "compression=zstd", options: with(runlog.Zstd)},
		{name: "compression=s2", options: with(runlog.S2)},
		{name: "retention", options: rotating, beside: removeOld},
		{name: "scan", options: rotating, beside: scanAgain},
		{name: "slow-reader", options: rotating, beside: readSlowly},
		{name: "follower", options: rotating, beside: followBehind},
	}
}

func BenchmarkNoCliff(b *testing.B) {
	for _, c := range cliffs() {
		b.Run(c.name, func(b *testing.B) {
			total := &histogram{}
			inRuns(b, c.options, entryLimit(), func(run *runlog.Run, n int) {
				warm(b, run)
				if n > 10_000 {
					time.Sleep(3 * time.Second) // until the next segment, which Open has begun to prepare, is full of zeros
				}
				halt := begin(func(stop <-chan struct{}) {
					if c.beside != nil {
						c.beside(b, run, stop)
					}
				})
				f := newFlow(payloadBytes, true)
				b.StartTimer()
				paced(cliffRate, n, false, total, func() {
					if _, err := run.Submit(f.next()); err != nil {
						b.Fatal(err)
					}
				})
				b.StopTimer()
				halt()
			})
			total.report(b)
		})
	}
}

// BenchmarkNoCliffClock is the load that submits nothing: what the machine and the scheduler do to any loop.
func BenchmarkNoCliffClock(b *testing.B) {
	for _, neighbors := range []int{0, 1, 2} {
		b.Run(map[int]string{0: "alone", 1: "neighbors=1", 2: "neighbors=2"}[neighbors], func(b *testing.B) {
			total := &histogram{}
			var halts []func()
			for range neighbors {
				halts = append(halts, begin(keepBusy))
			}
			b.ResetTimer()
			paced(cliffRate, b.N, false, total, func() {})
			b.StopTimer()
			for _, halt := range halts {
				halt()
			}
			total.report(b)
		})
	}
}

// begin runs f beside, and returns what ends it.
func begin(f func(stop <-chan struct{})) (halt func()) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { f(stop) })
	return func() {
		close(stop)
		wg.Wait()
	}
}

func stopped(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	default:
		return false
	}
}

func keepBusy(stop <-chan struct{}) {
	buf := make([]byte, 64<<10)
	for sum := uint64(0); !stopped(stop); {
		sum += xxhash.Sum64(buf)
		buf[0] = byte(sum)
	}
}

// removeOld keeps the newest ten segments or so.
func removeOld(b *testing.B, run *runlog.Run, stop <-chan struct{}) {
	for before := uint32(2); !stopped(stop); time.Sleep(20 * time.Millisecond) {
		if run.Accepted() > uint64(before+10)*cliffSegment/300 && run.RemoveBefore(run.ID(), before) == nil { // else not sealed yet
			before++
		}
	}
}

// scanAgain reads the whole run as fast as it can, again and again.
func scanAgain(b *testing.B, run *runlog.Run, stop <-chan struct{}) {
	for !stopped(stop) {
		read(b, run, stop, func(uint64) {})
	}
}

// readSlowly holds each entry for a while, and so the segment that it lies in.
func readSlowly(b *testing.B, run *runlog.Run, stop <-chan struct{}) {
	for !stopped(stop) {
		read(b, run, stop, func(seq uint64) {
			if seq%1000 == 0 {
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
}

func read(b *testing.B, run *runlog.Run, stop <-chan struct{}, each func(seq uint64)) {
	for v, err := range run.Reader().Scan(runlog.ScanOptions{}) {
		if err != nil {
			b.Error(err)
			return
		}
		if each(v.Seq()); stopped(stop) {
			return
		}
	}
}

// followBehind follows, but takes a rest so often that it lags.
func followBehind(b *testing.B, run *runlog.Run, stop <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-stop
		cancel()
	}()
	for v, err := range run.Reader().Tail(ctx, runlog.TailOptions{}) {
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			b.Error(err)
			return
		}
		if v.Seq()%5000 == 0 {
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// What does the host's garbage collector do to a submit, and a log to the collector? The same load in a program with many
// live objects, which makes garbage.

// liveObjects is about 200 MB in objects that point to each other.
const liveObjects = 4_000_000

type object struct {
	next *object
	fill [4]uint64
}

func liveHeap(n int) *object {
	var list *object
	for range n {
		list = &object{next: list}
	}
	return list
}

var garbage *object // what is assigned here escapes

func BenchmarkGC(b *testing.B) {
	for _, host := range []struct {
		name   string
		live   int
		submit bool
	}{{"host", liveObjects, false}, {"runlog", 0, true}, {"both", liveObjects, true}} {
		b.Run(host.name, func(b *testing.B) {
			live := liveHeap(min(host.live, 40*b.N)) // a short run need not wait for all of it
			total := &histogram{}
			cycles, scanned := collections(), scannedBytes()
			more := uint64(0)
			inRuns(b, runlog.Options{}, entryLimit(), func(run *runlog.Run, n int) {
				warm(b, run)
				f := newFlow(payloadBytes, true)
				b.StartTimer()
				paced(cliffRate, n, false, total, func() {
					garbage = &object{}
					garbage.next = &object{}
					if !host.submit {
						return
					}
					if _, err := run.Submit(f.next()); err != nil {
						b.Fatal(err)
					}
				})
				b.StopTimer()
				more = max(more, scannedBytes()-scanned)
			})
			total.report(b)
			b.ReportMetric(float64(collections()-cycles), "collections")
			b.ReportMetric(float64(more), "scanned-B") // what the run adds to the heap that each collection goes through
			runtime.KeepAlive(live)
		})
	}
}

func metric(name string) uint64 {
	list := []metrics.Sample{{Name: name}}
	metrics.Read(list)
	return list[0].Value.Uint64()
}

func collections() uint64 { return metric("/gc/cycles/total:gc-cycles") }

// scannedBytes is the part of the heap that the collector goes through, since it may hold pointers.
func scannedBytes() uint64 {
	runtime.GC()
	return metric("/gc/scan/heap:bytes")
}
