package bench

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/anchor"
	"github.com/runlog-io/runlog/retention"
	"github.com/runlog-io/runlog/vfs"
)

// Does work beside the engine show in its submits? Each case submits at the same pace, with order ids, and differs only in
// what else goes on.

const (
	cliffRate = 100_000
	// cliffSegment fills seven times a second or so at cliffRate.
	cliffSegment = 4 << 20
)

// besides is work that goes on beside the load until ctx ends. It returns how much it has done, in the case's unit.
type besides func(ctx context.Context, b *testing.B, run *runlog.Run) int

var cliffs = []struct {
	name     string
	compress runlog.Codec
	beside   besides
	unit     string // of what beside returns
}{
	{"rotation", runlog.NoCodec, begun(".seg"), "segments-begun"},
	{"compression=zstd", runlog.Zstd, begun(".segz"), "segments-compressed"},
	{"compression=s2", runlog.S2, begun(".segz"), "segments-compressed"},
	{"retention", runlog.NoCodec, retain, "segments-removed"},
	{"slow-reader", runlog.NoCodec, readSlowly, "entries-read"},
	{"follower", runlog.NoCodec, lag, "entries-behind"},
}

// BenchmarkNoCliff submits at cliffRate and measures from each entry's intended start. The row clock submits nothing: what
// it shows is the machine's and the scheduler's. In quiet, no segment fills; all other cases rotate, also those that have a
// reader, since a reader must not keep a segment from being sealed either. They report p99.9 and the maximum as multiples of
// quiet's too, if it has run before; with -count, of the last one. Payloads repeat, so compression has it easy:
// BenchmarkCompress has its real speed.
//
// The producer spins on a processor of its own. With only two, all the work beside it shares the other one with the writer
// and with whatever else the machine does: look at the row clock before believing a maximum, and run more than once.
func BenchmarkNoCliff(b *testing.B) {
	b.Run("clock", func(b *testing.B) {
		h := &histogram{}
		paced(cliffRate, b.N, false, h, func() {})
		h.report(b)
	})
	var quiet *histogram
	b.Run("quiet", func(b *testing.B) {
		quiet = noCliff(b, runlog.Options{SegmentBytes: roomFor(min(b.N, entryLimit()), payloadBytes)}, begun(".seg"), "segments-begun")
	})
	for _, c := range cliffs {
		b.Run(c.name, func(b *testing.B) {
			o := runlog.Options{SegmentBytes: cliffSegment, Compress: runlog.Compression{Codec: c.compress}}
			noCliff(b, o, c.beside, c.unit).reportOver(b, quiet)
		})
	}
}

// roomFor is the size of a segment that so many entries of the flow do not fill, with those that warm adds.
func roomFor(entries, payload int) int64 { return int64(entries+50_000) * int64(payload+128) }

// reportOver reports the tail as multiples of another one's; nil: not.
func (h *histogram) reportOver(b *testing.B, quiet *histogram) {
	if quiet == nil || quiet.max == 0 {
		return
	}
	b.ReportMetric(h.quantile(0.999)/quiet.quantile(0.999), "p99.9-x_quiet")
	b.ReportMetric(float64(h.max)/float64(quiet.max), "max-x_quiet")
}

func noCliff(b *testing.B, o runlog.Options, beside besides, unit string) *histogram {
	o.FirstSegmentBytes = o.SegmentBytes // else the first ones are smaller
	f, h := newFlow(payloadBytes, true), &histogram{}
	done := 0
	inRuns(b, o, entryLimit(), func(run *runlog.Run, n int) {
		warm(b, run)
		waitSpare(b, run)
		ctx, cancel := context.WithCancel(context.Background())
		did := make(chan int, 1)
		go func() { did <- beside(ctx, b, run) }()
		b.StartTimer()
		paced(cliffRate, n, false, h, func() {
			if _, err := run.Submit(f.next()); err != nil {
				b.Error(err)
			}
		})
		b.StopTimer()
		cancel()
		done += <-did
	})
	h.report(b)
	b.ReportMetric(float64(done), unit)
	return h
}

// segmentFiles counts the run's files with this extension.
func segmentFiles(tb testing.TB, run *runlog.Run, ext string) int {
	names, err := filepath.Glob(filepath.Join(run.Dir(), "*"+ext))
	if err != nil {
		tb.Error(err)
	}
	return len(names)
}

// waitSpare waits until two segments are there, or were: the second is made beside the first, and a load that is to be quiet
// begins behind that.
func waitSpare(tb testing.TB, run *runlog.Run) {
	for segmentFiles(tb, run, ".seg")+segmentFiles(tb, run, ".segz") < 2 {
		check(tb, run.Err())
		time.Sleep(time.Millisecond)
	}
}

// begun does nothing, and counts the segments with an extension that have come meanwhile: what the log does beside itself.
func begun(ext string) besides {
	return func(ctx context.Context, b *testing.B, run *runlog.Run) int {
		before := segmentFiles(b, run, ext)
		<-ctx.Done()
		return segmentFiles(b, run, ext) - before
	}
}

// retain takes a snapshot ten times a second, and has everything removed that the last two do not need.
func retain(ctx context.Context, b *testing.B, run *runlog.Run) (removed int) {
	instance := filepath.Dir(run.Dir())
	store, err := anchor.NewDirStore(vfs.OS, filepath.Join(filepath.Dir(instance), "blobs"), nil)
	for err == nil {
		n := 0
		n, err = retainOnce(run, instance, store)
		removed += n
		if err != nil {
			break
		}
		select {
		case <-ctx.Done():
			return removed
		case <-time.After(100 * time.Millisecond):
		}
	}
	b.Errorf("retention: %v", err)
	return removed
}

// retainOnce returns how many segments it has removed. Once begun it goes to its end.
func retainOnce(run *runlog.Run, instance string, store *anchor.DirStore) (removed int, err error) {
	ctx := context.Background()
	if _, err = run.Anchor(ctx, run.Accepted(), store, strings.NewReader("the state")); err != nil {
		return 0, err
	}
	runs, err := retention.List(instance, retention.Options{Own: run.ID(), RestorePoints: retention.Anchors(ctx, store)})
	if err != nil {
		return 0, err
	}
	plan, err := retention.Policy{Anchored: true}.Plan(runs)
	if err != nil {
		return 0, err
	}
	done, err := retention.Apply(ctx, &plan, run)
	for _, item := range plan.Items {
		if item.Remove && done > 0 {
			removed += int(item.Last-item.First) + 1
			done--
		}
	}
	return removed, err
}

// readSlowly scans from the start, again and again, and sits on one view in a hundred for a millisecond.
func readSlowly(ctx context.Context, b *testing.B, run *runlog.Run) (read int) {
	for ctx.Err() == nil {
		for _, err := range run.Scan(runlog.ScanOptions{}) {
			if err != nil {
				b.Error(err)
				return read
			}
			if read++; read%100 == 0 {
				time.Sleep(time.Millisecond)
			}
			if ctx.Err() != nil {
				break
			}
		}
	}
	return read
}

// lag follows from the start at a fraction of the pace, and returns how far it was behind at the end.
func lag(ctx context.Context, b *testing.B, run *runlog.Run) int {
	seen := uint64(0)
	for v, err := range run.Tail(ctx, runlog.TailOptions{}) {
		if err != nil {
			if ctx.Err() == nil {
				b.Error(err)
			}
			break
		}
		if seen = v.Seq(); seen%32 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	return int(run.Accepted() - seen)
}
