package markers_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/markers"
)

type quote struct {
	Symbol        string
	Bid, Ask      int64
	Event, Arrive int64
}

type trade struct {
	Symbol string
	Price  int64
	At     int64
}

func quoteExtractor() markers.Extractor[*quote] {
	return markers.Extractor[*quote]{
		Class: "quote",
		ID:    func(q *quote) string { return q.Symbol },
		Times: func(q *quote) (event, init int64) { return q.Event, q.Arrive },
		Fingerprint: func(q *quote) (f markers.Fingerprint) {
			f[0], f[1] = byte(q.Bid), byte(q.Ask)
			return f
		},
	}
}

func registerQuote(r *markers.Registry) error { return markers.Register(r, quoteExtractor()) }

func registerTrade(r *markers.Registry) error {
	return markers.Register(r, markers.Extractor[trade]{
		Class: "trade", ID: func(t trade) string { return t.Symbol }, Times: func(t trade) (event, init int64) { return t.At, t.At },
		Fingerprint: func(t trade) markers.Fingerprint {
			return sha256.Sum256(fmt.Append(nil, "trade", t.Symbol, t.Price, t.At))
		},
	})
}

func TestDM30UnregisteredTypesAreNotRecorded(t *testing.T) {
	log := newFake()
	m := start(t, log, none)
	var reg markers.Registry
	must(t, registerQuote(&reg))
	for _, msg := range []any{quote{}, 5, nil, &trade{}} {
		if ok, err := m.ObserveAny(&reg, msg); ok || err != nil {
			t.Errorf("%T: %v %v", msg, ok, err)
		}
	}
	if _, err := markers.Bind[quote](m, &reg); !errors.Is(err, runlog.ErrInvalid) {
		t.Error(err)
	}
	submit(t, m)
	if len(log.notes) != 1 {
		t.Error("something was recorded")
	}
}

func TestDM31AnExtractorGivesClassIDTimesAndFingerprint(t *testing.T) {
	log := newFake()
	m := start(t, log, markers.Options{Marked: []markers.StreamID{{Class: "quote", ID: "X"}, {Class: "trade", ID: "X"}}})
	var reg markers.Registry
	must(t, registerQuote(&reg))
	must(t, registerTrade(&reg))
	for _, msg := range []any{&quote{"X", 0xaa, 0xbb, 5, 6}, trade{"X", 7, 8}, trade{"X", 7, 8}, trade{"X", 9, 8}} {
		if ok, err := m.ObserveAny(&reg, msg); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	h, err := markers.Bind[*quote](m, &reg)
	must(t, err)
	must(t, h.Observe(&quote{"X", 1, 2, 7, 8}))
	must(t, h.Observe(&quote{"not marked", 1, 2, 7, 8}))
	got := records(t, log)
	if want := []string{"2@1 marker quote X 5 6 #0 aabb", "6@1 marker quote X 7 8 #0 0102"}; got[1] != want[0] || got[5] != want[1] || len(got) != 6 {
		t.Errorf("%q", got)
	}
	if same, changed := got[2][len(got[2])-4:] == got[3][len(got[3])-4:], got[3] != got[4]; !same || !changed {
		t.Errorf("the caller's fingerprints: %q", got[2:5])
	}
}

func TestDM32OnlyTheClassesOfTheOptionsAreRecorded(t *testing.T) {
	log := newFake()
	m := start(t, log, markers.Options{Classes: []string{"trade"}})
	var reg markers.Registry
	must(t, registerQuote(&reg))
	must(t, registerTrade(&reg))
	if got := reg.Classes(); !slices.Equal(got, []string{"quote", "trade"}) {
		t.Errorf("%q", got)
	}
	for _, msg := range []any{&quote{Symbol: "X"}, trade{Symbol: "X"}} {
		if ok, err := m.ObserveAny(&reg, msg); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	submit(t, m)
	wantSeen(t, log, 2, "0=trade/X:1[0,0]", "loss unknown")
}

func TestExtractorsAreChecked(t *testing.T) {
	var reg markers.Registry
	x := quoteExtractor()
	x.ID = nil
	y := quoteExtractor()
	y.Class = ""
	for _, err := range []error{
		markers.Register(&reg, x), markers.Register(&reg, y),
		markers.Register(&reg, markers.Extractor[any]{Class: "x", ID: func(any) string { return "" }, Times: func(any) (a, b int64) { return 0, 0 }}),
	} {
		if !errors.Is(err, runlog.ErrInvalid) {
			t.Error(err)
		}
	}
	// An id that is none is the caller's mistake, and said.
	m := start(t, newFake(), none)
	must(t, registerQuote(&reg))
	if _, err := m.ObserveAny(&reg, &quote{}); !errors.Is(err, runlog.ErrInvalid) {
		t.Error(err)
	}
}
