//go:build !race

package markers_test

import (
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/markers"
	"github.com/runlog-io/runlog/writer"
)

// sinkLog takes everything and keeps nothing.
type sinkLog struct{ seq uint64 }

func (s *sinkLog) Submit(entry.Draft) (uint64, error)            { s.seq++; return s.seq, nil }
func (s *sinkLog) TryNote(entry.NoteKind, []byte) (uint64, bool) { return s.seq, true }
func (s *sinkLog) Accepted() uint64                              { return s.seq }
func (s *sinkLog) Note(entry.NoteKind, []byte) (writer.Ticket, uint64, error) {
	return 0, s.seq, nil
}

func TestG60ObservingAndRecordingDoNotAllocate(t *testing.T) {
	m := start(t, &sinkLog{}, markers.Options{SnapshotEntries: 16, Marked: []markers.StreamID{{Class: "quote", ID: "M"}}})
	var reg markers.Registry
	must(t, registerQuote(&reg))
	typed, err := markers.Bind[*quote](m, &reg)
	must(t, err)
	s, err := m.Stream("quote", "S")
	must(t, err)
	ts, q, marked := int64(0), &quote{Symbol: "Q"}, &quote{Symbol: "M"}
	for name, f := range map[string]func(){
		"stream":  func() { s.Observe(ts) },
		"by name": func() { _ = m.Observe("quote", "N", ts) },
		"typed":   func() { _ = typed.Observe(q) },
		"any":     func() { _, _ = m.ObserveAny(&reg, q) },
		"marked":  func() { _ = typed.Observe(marked) },
		"submit":  func() { s.Observe(ts); _, _ = m.Submit(runlog.Draft{}) },
	} {
		f()
		if n := testing.AllocsPerRun(1000, func() { ts++; f() }); n != 0 {
			t.Errorf("%s: %v allocations, want none", name, n)
		}
	}
}
