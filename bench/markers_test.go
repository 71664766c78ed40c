package bench

import (
	"fmt"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/markers"
)

// What does it cost to count a message of market data, and what does a submit cost more with the record in front of it?

// tick is a message of market data.
type tick struct {
	Symbol string
	At     int64
}

func observer(tb testing.TB, run *runlog.Run, o markers.Options) (*markers.Markers, []*markers.Stream) {
	tb.Helper()
	m, err := markers.New(run, o)
	check(tb, err)
	var streams []*markers.Stream
	for i := range 1000 {
		s, err := m.Stream("quote", fmt.Sprintf("SYM%04d.XNAS", i))
		check(tb, err)
		streams = append(streams, s)
	}
	return m, streams
}

// observing is the loop of the benchmarks of a single message.
func observing(b *testing.B, o markers.Options, bind func(m *markers.Markers, streams []*markers.Stream) func(i int)) {
	run := open(b, runlog.Options{})
	m, streams := observer(b, run, o)
	op := bind(m, streams)
	for i := range streams {
		op(i)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		op(i % len(streams))
		i++
	}
	b.StopTimer()
	check(b, m.Close(b.Context()))
	closeRun(b, run)
}

// BenchmarkObserveStream counts through a stream that is kept.
func BenchmarkObserveStream(b *testing.B) {
	observing(b, markers.Options{}, func(_ *markers.Markers, streams []*markers.Stream) func(int) {
		return func(i int) { streams[i].Observe(int64(i)) }
	})
}

// BenchmarkObserveName looks the stream up by class and id.
func BenchmarkObserveName(b *testing.B) {
	observing(b, markers.Options{}, func(m *markers.Markers, streams []*markers.Stream) func(int) {
		return func(i int) { _ = m.Observe("quote", streams[i].ID(), int64(i)) }
	})
}

// BenchmarkObserveAny is what a bus that carries any pays.
func BenchmarkObserveAny(b *testing.B) {
	var reg markers.Registry
	check(b, markers.Register(&reg, markers.Extractor[*tick]{
		Class: "quote", ID: func(t *tick) string { return t.Symbol }, Times: func(t *tick) (event, init int64) { return t.At, t.At },
	}))
	observing(b, markers.Options{}, func(m *markers.Markers, streams []*markers.Stream) func(int) {
		t := &tick{}
		return func(i int) {
			t.Symbol, t.At = streams[i].ID(), int64(i)
			_, _ = m.ObserveAny(&reg, t)
		}
	})
}

// BenchmarkMark writes a record of each message; those for which there is no room are dropped.
func BenchmarkMark(b *testing.B) {
	var all []markers.StreamID
	for i := range 1000 {
		all = append(all, markers.StreamID{Class: "quote", ID: fmt.Sprintf("SYM%04d.XNAS", i)})
	}
	observing(b, markers.Options{Marked: all}, func(_ *markers.Markers, streams []*markers.Stream) func(int) {
		return func(i int) { streams[i].Mark(int64(i), int64(i), markers.Fingerprint{}) }
	})
}

// BenchmarkSubmitMarkers is BenchmarkSubmitIdle with markers: so many messages, of as many streams, come before each entry.
// The row markers=off is the same run without them.
func BenchmarkSubmitMarkers(b *testing.B) {
	for _, seen := range []int{-1, 0, 1, 10} {
		name := fmt.Sprintf("messages=%d", seen)
		if seen < 0 {
			name = "markers=off"
		}
		b.Run(name, func(b *testing.B) {
			f := newFlow(payloadBytes, false)
			inRuns(b, runlog.Options{}, entryLimit(), func(run *runlog.Run, n int) {
				submit := run.Submit
				var streams []*markers.Stream
				if seen >= 0 {
					var m *markers.Markers
					m, streams = observer(b, run, markers.Options{})
					defer func() { b.StopTimer(); check(b, m.Close(b.Context())) }()
					submit = m.Submit
				}
				warm(b, run)
				at := 0
				for n > 0 {
					block := min(n, submitBlock)
					b.StartTimer()
					for range block {
						for range max(seen, 0) {
							streams[at%len(streams)].Observe(int64(at))
							at++
						}
						if _, err := submit(f.next()); err != nil {
							b.Fatal(err)
						}
					}
					b.StopTimer()
					waitAll(b, run)
					n -= block
				}
			})
		})
	}
}
