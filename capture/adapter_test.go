package capture_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/runlog-io/runlog/capture"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
)

var (
	errBoom = errors.New("boom")
	errHalt = errors.New("halted: stalled for 250 ms")
)

func TestCA1RegisteredMessageIsCaptured(t *testing.T) {
	log := newLog()
	a := newAdapter(t, newRegistry(t), log, capture.Options{})
	captured(t, a, "cmd", command{clientID: "C1", text: "buy", at: 7}, 1)
	e := log.entries[0]
	if e.Type != typeCommand || e.Topic != "cmd" || string(e.Payload) != "buy" || e.TsInit != 7 ||
		!slices.Equal(e.Keys, keysOf(entry.ClientOrderID, "C1")) {
		t.Errorf("entry %+v", e)
	}
	must(t, a.Err())
}

func TestCA2UnregisteredMessageIsNotCaptured(t *testing.T) {
	log := newLog()
	a := newAdapter(t, newRegistry(t), log, capture.Options{})
	outcome(t, a, "x", notice{1}, capture.NotRegistered)
	outcome(t, a, "x", &command{}, capture.NotRegistered) // a pointer is another type
	outcome(t, a, "x", nil, capture.NotRegistered)
	if log.calls != 0 {
		t.Error("the log was touched")
	}
	must(t, a.Err())
}

func TestCA3EmptyRegistryCapturesNothing(t *testing.T) {
	log := newLog()
	a := newAdapter(t, new(capture.Registry), log, capture.Options{})
	outcome(t, a, "x", command{}, capture.NotRegistered)
	if log.calls != 0 {
		t.Error("the log was touched")
	}
}

func TestCA4BothKeysResolve(t *testing.T) {
	log := newLog()
	a := newAdapter(t, newRegistry(t), log, capture.Options{})
	captured(t, a, "x", report{}, 1)
	captured(t, a, "x", report{command{clientID: "C1", venueID: "V1"}}, 2)
	if c, v := log.lookup(entry.ClientOrderID, "C1"), log.lookup(entry.VenueOrderID, "V1"); c != 2 || v != 2 {
		t.Errorf("keys resolve to %d and %d", c, v)
	}
}

func TestCA5EncoderErrorDoesNotEndCapturing(t *testing.T) {
	log := newLog()
	var count atomic.Uint64
	a := newAdapter(t, newRegistry(t), log, capture.Options{Count: &count})
	h, err := capture.Bind[command](a, "cmd")
	must(t, err)
	for i := range 2 {
		var r capture.Result
		if i == 0 {
			r, err = h.Capture(command{err: errBoom})
		} else {
			r, err = a.CaptureAny("cmd", command{err: errBoom})
		}
		wantErr(t, err, errBoom)
		var enc *capture.EncodeError
		if !errors.As(err, &enc) || enc.Type != typeCommand || enc.Topic != "cmd" || enc.GoType.Name() != "command" ||
			!strings.Contains(err.Error(), "capture_test.command") {
			t.Errorf("error %v", err)
		}
		if r != (capture.Result{}) || r.Outcome.String() != "failed" || errors.Is(err, capture.ErrCaptureEnded) {
			t.Errorf("%v, %v", r, err)
		}
	}
	must(t, a.Err())
	if log.calls != 0 || count.Load() != 0 {
		t.Error("a draft was submitted")
	}
	captured(t, a, "cmd", command{}, 1)
}

func TestCA6OnlyRealCapturesCount(t *testing.T) {
	var count atomic.Uint64
	count.Store(1) // RunStarted, say
	log := newLog()
	a := newAdapter(t, newRegistry(t), log, capture.Options{Count: &count})
	captured(t, a, "x", event{command{id: id(1)}}, 1)
	outcome(t, a, "x", notice{}, capture.NotRegistered)
	outcome(t, a, "x", event{command{id: id(1)}}, capture.Duplicate)
	captured(t, a, "x", event{command{id: id(2)}}, 2)
	log.fail = errHalt
	if _, err := a.CaptureAny("x", command{}); err == nil {
		t.Fatal("captured into a halted log")
	}
	if n := count.Load(); n != 3 {
		t.Errorf("count is %d, want 3", n)
	}
}

type haltError struct{ stalledMs int }

func (e *haltError) Error() string { return fmt.Sprintf("stalled for %d ms", e.stalledMs) }

// The log's typed reason is passed on as it is, with its numbers.
func TestCA7TheReasonOfTheLogIsKept(t *testing.T) {
	log := newLog()
	log.fail = &haltError{250}
	a := newAdapter(t, newRegistry(t), log, capture.Options{})
	for range 2 {
		_, err := a.CaptureAny("x", command{})
		var halt *haltError
		if !errors.As(err, &halt) || halt.stalledMs != 250 {
			t.Errorf("error %v", err)
		}
	}
	log = newLog()
	log.fail = fmt.Errorf("run: %w", format.ErrClosed)
	a = newAdapter(t, newRegistry(t), log, capture.Options{})
	_, err := a.CaptureAny("x", command{})
	wantErr(t, err, format.ErrClosed)
	wantErr(t, a.Err(), format.ErrClosed)
}

func TestCA8FirstSubmitErrorEndsCapturing(t *testing.T) {
	log := newLog()
	reg := newRegistry(t)
	encoded := 0
	must(t, capture.Register(reg, typeReport, func(dst []byte, _ report, _ *capture.Keys) ([]byte, error) {
		encoded++
		return dst, nil
	}))
	a := newAdapter(t, reg, log, capture.Options{})
	h, err := capture.Bind[report](a, "raw")
	must(t, err)
	log.fail = errHalt
	r, first := h.Capture(report{})
	var ended *capture.EndedError
	if !errors.As(first, &ended) || ended.Topic != "raw" || ended.Type != typeReport || r != (capture.Result{}) {
		t.Fatalf("%v, %v", r, first)
	}
	log.fail = errors.New("another reason")
	for i := range 4 {
		switch i {
		case 0:
			_, err = h.Capture(report{})
		case 1:
			_, err = h.CaptureTo("other", report{})
		case 2:
			_, err = a.CaptureAny("cmd", command{id: id(1)})
		case 3:
			_, err = a.CaptureAny("x", notice{})
		}
		wantErr(t, err, capture.ErrCaptureEnded)
		wantErr(t, err, errHalt)
		if err != first || a.Err() != first {
			t.Errorf("error %v, want the first one, %v", err, first)
		}
	}
	if log.calls != 1 || encoded != 1 {
		t.Errorf("%d submits and %d encodings after the end, want none", log.calls-1, encoded-1)
	}
	if s := first.Error(); !strings.Contains(s, "stalled") || !strings.Contains(s, `"raw"`) {
		t.Errorf("message %q", s)
	}
}

// A draft that breaks a limit is refused alone.
func TestDraftErrorDoesNotEndCapturing(t *testing.T) {
	log := newLog()
	reg := newRegistry(t)
	must(t, capture.Register(reg, "override", func(dst []byte, m []string, k *capture.Keys) ([]byte, error) {
		k.SetType(m[0])
		return dst, nil
	}))
	a := newAdapter(t, reg, log, capture.Options{})
	cases := map[string]struct {
		topic string
		m     any
	}{
		"no topic":      {"", command{id: id(1)}},
		"long topic":    {strings.Repeat("t", 256), command{id: id(1)}},
		"long key":      {"x", command{id: id(1), clientID: strings.Repeat("c", 256)}},
		"key not UTF-8": {"x", command{id: id(1), clientID: "\xff"}},
		"big payload":   {"x", command{id: id(1), text: strings.Repeat("p", entry.DefaultMaxPayload+1)}},
		"long type":     {"x", []string{strings.Repeat("t", 256)}},
	}
	for name, c := range cases {
		r, err := a.CaptureAny(c.topic, c.m)
		var de *capture.DraftError
		if !errors.As(err, &de) || de.Topic != c.topic || r != (capture.Result{}) || err.Error() == "" {
			t.Errorf("%s: %v, %v", name, r, err)
		}
		wantErr(t, err, format.ErrInvalid)
	}
	must(t, a.Err())
	captured(t, a, "x", command{id: id(1), text: strings.Repeat("p", entry.DefaultMaxPayload)}, 1)
}

func TestCA9CommandEventAndReportShareIDs(t *testing.T) {
	log := newLog()
	a := newAdapter(t, newRegistry(t), log, capture.Options{})
	captured(t, a, "cmd", command{clientID: "C1", id: id(1)}, 1)
	captured(t, a, "evt", event{command{clientID: "C1", venueID: "V1", id: id(2)}}, 2)
	captured(t, a, "raw", report{command{clientID: "C1", venueID: "V1"}}, 3)
	var got []string
	for _, e := range log.entries {
		got = append(got, e.Topic+"/"+e.Type)
	}
	if want := []string{"cmd/command", "evt/event", "raw/report"}; !slices.Equal(got, want) {
		t.Errorf("entries %v", got)
	}
	if c, v := log.lookup(entry.ClientOrderID, "C1"), log.lookup(entry.VenueOrderID, "V1"); c != 1 || v != 2 {
		t.Errorf("keys resolve to %d and %d, want the earliest mentions 1 and 2", c, v)
	}
}

// Also G3: what was not captured is not dispatched.
func TestCA10TapDispatchesOnlyWhatIsInTheLog(t *testing.T) {
	log := newLog()
	a := newAdapter(t, newRegistry(t), log, capture.Options{})
	seen := -1
	next := func() { seen = len(log.entries) }
	tap := func(m any) error { seen = -1; return a.Tap("x", m, next) }

	must(t, tap(event{command{id: id(1)}}))
	if seen != 1 {
		t.Errorf("the subscriber ran with %d entries in the log, want 1", seen)
	}
	must(t, tap(event{command{id: id(1)}})) // second hop
	if seen != 1 {
		t.Error("a duplicate was not dispatched")
	}
	must(t, tap(notice{}))
	if seen != 1 {
		t.Error("a message that is not registered was not dispatched")
	}
	wantErr(t, tap(command{err: errBoom}), errBoom)
	wantErr(t, tap(command{clientID: "\xff"}), format.ErrInvalid)
	log.fail = errHalt
	wantErr(t, tap(command{}), errHalt)
	wantErr(t, tap(command{}), capture.ErrCaptureEnded)
	if seen != -1 {
		t.Error("a message was dispatched that is not in the log")
	}

	strict := newAdapter(t, newRegistry(t), newLog(), capture.Options{Strict: true})
	err := strict.Tap("x", notice{}, func() { t.Error("dispatched") })
	wantErr(t, err, capture.ErrNotRegistered)
	must(t, strict.Err())
	must(t, strict.Tap("x", command{}, func() {}))
}

func TestCA11EachRawReportIsAnEntry(t *testing.T) {
	log := newLog()
	a := newAdapter(t, newRegistry(t), log, capture.Options{})
	for i := range 3 {
		must(t, a.Tap(fmt.Sprint("venue.", i), report{command{text: fmt.Sprint("report ", i)}}, func() {}))
	}
	for i, e := range log.entries {
		if e.Topic != fmt.Sprint("venue.", i) || e.Type != typeReport || string(e.Payload) != fmt.Sprint("report ", i) {
			t.Errorf("entry %+v", e)
		}
	}
	if len(log.entries) != 3 {
		t.Errorf("%d entries, want 3", len(log.entries))
	}
}

// Also HC1: distinct values, so that a swap is seen.
func TestCA12HeadersReachTheEntry(t *testing.T) {
	log := newLog()
	a := newAdapter(t, newRegistry(t), log, capture.Options{})
	must(t, a.Tap("cmd", command{id: id(1), corr: id(2), cause: id(3)}, func() {}))
	if e := log.entries[0]; e.ID != id(1) || e.CorrelationID != id(2) || e.CausationID != id(3) {
		t.Errorf("entry %+v", e)
	}
}

// A response comes to a handler, not to a topic; the caller names the topic and its handler runs.
func TestCA13ResponseIsCapturedBeforeItsHandler(t *testing.T) {
	type response struct{ corr entry.ID }
	log := newLog()
	reg := newRegistry(t)
	must(t, capture.Register(reg, "response",
		func(dst []byte, _ response, _ *capture.Keys) ([]byte, error) { return dst, nil },
		capture.WithHeaders(func(m response) capture.Headers { return capture.Headers{CorrelationID: m.corr} })))
	handled := false
	must(t, newAdapter(t, reg, log, capture.Options{}).Tap("responses", response{id(9)}, func() { handled = true }))
	e := log.entries[0]
	if !handled || e.Topic != "responses" || e.CorrelationID != id(9) || !e.CausationID.IsZero() {
		t.Errorf("handled %v, entry %+v", handled, e)
	}
}

// Also CA15: whatever the way of dispatch, the caller says what the topic is.
func TestCA14EndpointIsTheTopic(t *testing.T) {
	log := newLog()
	a := newAdapter(t, newRegistry(t), log, capture.Options{})
	h, err := capture.Bind[report](a, "")
	must(t, err)
	for i, endpoint := range []string{"risk.execute", "timers"} {
		r, err := h.CaptureTo(endpoint, report{command{clientID: "C1"}})
		if err != nil || r.Seq != uint64(i+1) || log.entries[i].Topic != endpoint {
			t.Errorf("%v, %v, %+v", r, err, log.entries)
		}
	}
	if log.lookup(entry.ClientOrderID, "C1") != 1 || h.Topic() != "" {
		t.Error("key does not resolve")
	}
	if _, err = h.Capture(report{}); !errors.Is(err, format.ErrInvalid) {
		t.Errorf("captured without a topic: %v", err)
	}
}

func TestCA16NothingIsCapturedIntoAClosedLog(t *testing.T) {
	log := newLog()
	a := newAdapter(t, newRegistry(t), log, capture.Options{})
	captured(t, a, "x", command{}, 1)
	log.fail = format.ErrClosed
	for range 3 {
		_, err := a.CaptureAny("x", command{})
		wantErr(t, err, format.ErrClosed)
	}
	if len(log.entries) != 1 || log.calls != 2 {
		t.Errorf("%d entries, %d submits", len(log.entries), log.calls)
	}
}

func TestG7TimeIsTheMessagesOwn(t *testing.T) {
	log := newLog()
	now := int64(100)
	a := newAdapter(t, newRegistry(t), log, capture.Options{Now: func() int64 { now++; return now }})
	captured(t, a, "x", command{at: 42}, 1)
	captured(t, a, "x", report{command{at: 42}}, 2) // no extractor: the time of capture
	captured(t, a, "x", command{at: 43}, 3)
	for i, want := range []int64{42, 101, 43} {
		if got := log.entries[i].TsInit; got != want {
			t.Errorf("ts_init of entry %d is %d, want %d", i+1, got, want)
		}
	}
	a, err := capture.New(newRegistry(t), log, capture.Options{})
	must(t, err)
	captured(t, a, "x", report{}, 4)
	if got := log.entries[3].TsInit; got < 1_700_000_000e9 {
		t.Errorf("system time %d", got)
	}
}

func TestDD1OneEntryForTwoHops(t *testing.T) {
	log := newLog()
	a := newAdapter(t, newRegistry(t), log, capture.Options{})
	m := event{command{id: id(1), text: "filled"}}
	captured(t, a, "first", m, 1)
	outcome(t, a, "second", m, capture.Duplicate)
	h, err := capture.Bind[event](a, "third")
	must(t, err)
	if r, err := h.Capture(m); err != nil || r != (capture.Result{Outcome: capture.Duplicate}) {
		t.Errorf("%v, %v", r, err)
	}
	if len(log.entries) != 1 || log.entries[0].Topic != "first" || log.entries[0].ID != id(1) {
		t.Errorf("entries %+v", log.entries)
	}
}

func TestDD2AnotherIdentityIsCaptured(t *testing.T) {
	a := newAdapter(t, newRegistry(t), newLog(), capture.Options{})
	captured(t, a, "x", event{command{id: id(1)}}, 1)
	captured(t, a, "x", event{command{id: id(2)}}, 2)
	captured(t, a, "x", command{id: id(1)}, 3) // G44: identity is (type, id)
	outcome(t, a, "x", command{id: id(1)}, capture.Duplicate)
}

// The payload type of an identity is the entry's: a wrapper is the same message as what it wraps.
func TestIdentityGoesByTheTypeInTheLog(t *testing.T) {
	type wrapper struct{ inner event }
	reg := newRegistry(t)
	must(t, capture.Register(reg, "wrapper", func(dst []byte, m wrapper, k *capture.Keys) ([]byte, error) {
		k.SetType(typeEvent)
		return encodeCommand(dst, m.inner.command, k)
	}, capture.WithIdentity(func(m wrapper) (entry.ID, bool) { return m.inner.id, true })))
	a := newAdapter(t, reg, newLog(), capture.Options{})
	captured(t, a, "x", wrapper{event{command{id: id(1)}}}, 1)
	outcome(t, a, "x", event{command{id: id(1)}}, capture.Duplicate)
}

func TestDD3WithoutIdentityEachDispatchIsAnEntry(t *testing.T) {
	log := newLog()
	a := newAdapter(t, newRegistry(t), log, capture.Options{})
	m := report{command{id: id(1)}}
	captured(t, a, "raw", m, 1)
	captured(t, a, "engine", m, 2)
	captured(t, a, "x", event{}, 3) // an extractor that says: none
	captured(t, a, "x", event{}, 4)
	for _, e := range log.entries {
		if !e.ID.IsZero() {
			t.Errorf("made-up id %v", e.ID)
		}
	}
	must(t, capture.SetIdentity(a.Registry(), func(report) (entry.ID, bool) { return entry.ID{}, true }))
	captured(t, a, "x", m, 5) // the zero id is none
	captured(t, a, "x", m, 6)
}

func TestDD4WindowIsBoundedAndOldestGoesFirst(t *testing.T) {
	a := newAdapter(t, newRegistry(t), newLog(), capture.Options{Window: 3})
	for i := 1; i <= 3; i++ {
		captured(t, a, "x", event{command{id: id(i)}}, uint64(i))
	}
	outcome(t, a, "x", event{command{id: id(1)}}, capture.Duplicate) // does not become younger by that
	captured(t, a, "x", command{id: id(4)}, 4)
	outcome(t, a, "x", event{command{id: id(2)}}, capture.Duplicate)
	outcome(t, a, "x", event{command{id: id(3)}}, capture.Duplicate)
	captured(t, a, "x", event{command{id: id(1)}}, 5)

	off := newAdapter(t, newRegistry(t), newLog(), capture.Options{Window: -1})
	captured(t, off, "x", event{command{id: id(1)}}, 1)
	captured(t, off, "x", event{command{id: id(1)}}, 2)
	if n, err := off.SeedFrom(newLog().views(t)); n != 0 || err != nil || off.Seed(typeEvent, id(1)) {
		t.Error("seeded without a window")
	}
}

// Also CA2 and G44: the default window holds many more than lie between two hops.
func TestDD5OutcomesCanBeToldApart(t *testing.T) {
	a := newAdapter(t, newRegistry(t), newLog(), capture.Options{})
	for i := 1; i <= 1000; i++ {
		captured(t, a, "x", event{command{id: id(i)}}, uint64(i))
	}
	outcome(t, a, "x", event{command{id: id(1)}}, capture.Duplicate)
	outcome(t, a, "x", notice{}, capture.NotRegistered)
	for o, want := range []string{"failed", "captured", "not registered", "duplicate", "Outcome(4)"} {
		if got := capture.Outcome(o).String(); got != want {
			t.Errorf("outcome %d is %q, want %q", o, got, want)
		}
	}
}

func TestG43FailedMessageCanBeTriedAgain(t *testing.T) {
	log := newLog()
	a := newAdapter(t, newRegistry(t), log, capture.Options{})
	_, err := a.CaptureAny("x", event{command{id: id(1), err: errBoom}})
	wantErr(t, err, errBoom)
	_, err = a.CaptureAny("x", event{command{id: id(1), clientID: "\xff"}})
	wantErr(t, err, format.ErrInvalid)
	captured(t, a, "x", event{command{id: id(1)}}, 1)
	outcome(t, a, "x", event{command{id: id(1)}}, capture.Duplicate)
}

func TestG44RedeliveryAfterRestartIsADuplicate(t *testing.T) {
	older, newer := newLog(), newLog()
	a := newAdapter(t, newRegistry(t), older, capture.Options{})
	captured(t, a, "x", event{command{id: id(1)}}, 1)
	captured(t, a, "x", event{command{id: id(2)}}, 2)
	a = newAdapter(t, newRegistry(t), newer, capture.Options{})
	captured(t, a, "x", report{}, 1)
	captured(t, a, "x", event{command{id: id(2)}}, 2) // captured by both
	captured(t, a, "x", event{command{id: id(3)}}, 3)
	captured(t, a, "x", command{id: id(4)}, 4)

	a = newAdapter(t, newRegistry(t), newLog(), capture.Options{})
	for i, log := range []*memLog{newer, older} {
		if n, err := a.SeedFrom(log.views(t)); err != nil || n != []int{3, 1}[i] {
			t.Errorf("log %d: %d identities, %v", i, n, err)
		}
	}
	for i := 1; i <= 3; i++ {
		outcome(t, a, "x", event{command{id: id(i)}}, capture.Duplicate)
	}
	outcome(t, a, "x", command{id: id(4)}, capture.Duplicate)
	captured(t, a, "x", event{command{id: id(4)}}, 1)

	// A window of two keeps the newest two, and seeded identities go before captured ones.
	a = newAdapter(t, newRegistry(t), newLog(), capture.Options{Window: 2})
	n, err := a.SeedFrom(newer.views(t))
	if n != 2 || err != nil {
		t.Errorf("%d identities, %v", n, err)
	}
	n, err = a.SeedFrom(func(func(entry.View, error) bool) { t.Error("read on though the window is full") })
	if n != 0 || err != nil || a.Seed(typeEvent, entry.ID{}) {
		t.Errorf("%d identities, %v", n, err)
	}
	outcome(t, a, "x", event{command{id: id(3)}}, capture.Duplicate)
	captured(t, a, "x", event{command{id: id(5)}}, 1) // pushes out 3
	outcome(t, a, "x", command{id: id(4)}, capture.Duplicate)
	captured(t, a, "x", event{command{id: id(3)}}, 2)
}

func TestSeedTakesTheNewestFirst(t *testing.T) {
	a := newAdapter(t, newRegistry(t), newLog(), capture.Options{Window: 2})
	if !a.Seed(typeEvent, entry.ID{}) || !a.Seed(typeEvent, id(1)) || !a.Seed(typeEvent, id(1)) ||
		a.Seed(typeEvent, id(2)) || a.Seed(typeEvent, id(3)) {
		t.Error("Seed told wrongly whether there is room")
	}
	captured(t, a, "x", event{command{id: id(3)}}, 1) // pushes out 2, the oldest
	outcome(t, a, "x", event{command{id: id(1)}}, capture.Duplicate)
	captured(t, a, "x", event{command{id: id(2)}}, 2)
}

func TestSeedFromPassesAnErrorOn(t *testing.T) {
	log := newLog()
	captured(t, newAdapter(t, newRegistry(t), log, capture.Options{}), "x", event{command{id: id(1)}}, 1)
	a := newAdapter(t, newRegistry(t), newLog(), capture.Options{})
	n, err := a.SeedFrom(func(yield func(entry.View, error) bool) {
		for v := range log.views(t) {
			yield(v, nil)
		}
		yield(entry.View{}, format.ErrCorrupt)
	})
	if n != 1 {
		t.Errorf("%d identities", n)
	}
	wantErr(t, err, format.ErrCorrupt)
	outcome(t, a, "x", event{command{id: id(1)}}, capture.Duplicate)
}

func TestHC5NothingIsMadeUp(t *testing.T) {
	log := newLog()
	a := newAdapter(t, newRegistry(t), log, capture.Options{})
	captured(t, a, "x", report{command{id: id(1), corr: id(2), cause: id(3)}}, 1)
	captured(t, a, "x", command{}, 2) // an extractor that finds none
	for _, e := range log.entries {
		if !e.ID.IsZero() || !e.CorrelationID.IsZero() || !e.CausationID.IsZero() || len(e.Keys) != 0 {
			t.Errorf("made-up headers: %+v", e)
		}
	}
}

func TestBadOptionsAreErrors(t *testing.T) {
	reg, log := newRegistry(t), newLog()
	_, err := capture.New(nil, log, capture.Options{})
	wantErr(t, err, format.ErrInvalid)
	_, err = capture.New(reg, nil, capture.Options{})
	wantErr(t, err, format.ErrInvalid)
	_, err = capture.New(reg, log, capture.Options{Window: 1<<26 + 1})
	wantErr(t, err, format.ErrInvalid)
	_, err = capture.Bind[notice](newAdapter(t, reg, log, capture.Options{}), "x")
	wantErr(t, err, capture.ErrNotRegistered)
}

func TestPanickingEncoderLeavesTheAdapterUsable(t *testing.T) {
	log := newLog()
	reg := newRegistry(t)
	must(t, capture.Register(reg, "pointer",
		func(dst []byte, m *command, k *capture.Keys) ([]byte, error) { return encodeCommand(dst, *m, k) },
		capture.WithIdentity(func(m *command) (entry.ID, bool) { return m.id, true })))
	a := newAdapter(t, reg, log, capture.Options{})
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_, _ = a.CaptureAny("x", (*command)(nil))
	}()
	must(t, a.Err())
	captured(t, a, "x", &command{id: id(1)}, 1)
}

// An encoder may return the message's own bytes; they must not become scratch memory.
func TestBytesOfTheMessageAreNotWrittenTo(t *testing.T) {
	type raw struct{ b []byte }
	reg := newRegistry(t)
	must(t, capture.Register(reg, "raw",
		func(_ []byte, m raw, _ *capture.Keys) ([]byte, error) { return m.b, nil }))
	log := newLog()
	a := newAdapter(t, reg, log, capture.Options{})
	m := raw{bytes.Repeat([]byte("x"), 5000)}
	for i := range uint64(20) {
		captured(t, a, "x", m, 2*i+1)
		captured(t, a, "x", report{command{text: "overwritten?"}}, 2*i+2)
	}
	if bytes.Contains(m.b, []byte("o")) || !bytes.Equal(log.entries[0].Payload, m.b) {
		t.Error("the message was changed")
	}
}

// Each capture has its own scratch memory, whatever the sizes.
func TestScratchIsNeverShared(t *testing.T) {
	log := newLog(kindTrader)
	reg := newRegistry(t)
	must(t, capture.Register(reg, "ints", func(dst []byte, m []int, k *capture.Keys) ([]byte, error) {
		for _, n := range m {
			dst = fmt.Append(dst, n, " ")
			k.AddUint(kindTrader, uint64(n))
			k.AddInt(kindTrader, int64(-n))
		}
		return dst, nil
	}))
	a := newAdapter(t, reg, log, capture.Options{})
	h, err := capture.Bind[[]int](a, "x")
	must(t, err)
	var wg sync.WaitGroup
	for p := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(p)))
			for range 100 {
				if _, err := h.Capture(rnd.Perm(rnd.IntN(200))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, e := range log.entries {
		var payload strings.Builder
		for i := 0; i < len(e.Keys); i += 2 {
			fmt.Fprint(&payload, e.Keys[i].Value, " ")
			if want := "-" + e.Keys[i].Value; e.Keys[i+1].Value != want && e.Keys[i].Value != "0" {
				t.Fatalf("keys %v", e.Keys)
			}
		}
		if payload.String() != string(e.Payload) {
			t.Fatalf("payload %q, keys %q", e.Payload, payload.String())
		}
	}
}

// Many producers dispatch the same messages at once, some fail at first: one entry each.
func TestConcurrentDuplicatesMakeOneEntry(t *testing.T) {
	const producers, messages = 8, 500
	log := newLog()
	var count atomic.Uint64
	a := newAdapter(t, newRegistry(t), log, capture.Options{Count: &count})
	h, err := capture.Bind[event](a, "x")
	must(t, err)
	var got [capture.Duplicate + 1]atomic.Int64
	var wg sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(2, uint64(p)))
			for _, i := range rnd.Perm(messages) {
				m := event{command{id: id(i + 1), clientID: fmt.Sprint(i + 1)}}
				if rnd.IntN(4) == 0 {
					bad := m
					bad.clientID = "\xff"
					if r, err := h.Capture(bad); err == nil {
						got[r.Outcome].Add(1)
					}
				}
				var r capture.Result
				var err error
				if rnd.IntN(2) == 0 {
					r, err = h.Capture(m)
				} else {
					r, err = a.CaptureAny("y", m)
				}
				if err != nil {
					t.Error(err)
				}
				got[r.Outcome].Add(1)
			}
		})
	}
	wg.Wait()
	if len(log.entries) != messages || got[capture.Captured].Load() != messages || count.Load() != messages {
		t.Errorf("%d entries, %d captured, count %d; want %d", len(log.entries), got[capture.Captured].Load(),
			count.Load(), messages)
	}
	seen := make(map[entry.ID]bool)
	for _, e := range log.entries {
		if n, _ := strconv.Atoi(e.Keys[0].Value); seen[e.ID] || id(n) != e.ID {
			t.Fatalf("entry %+v", e)
		}
		seen[e.ID] = true
	}
}

// gatedLog blocks in Submit until it may fail.
type gatedLog struct {
	entered, gate chan struct{}
	calls         atomic.Int64
}

func (l *gatedLog) Submit(entry.Draft) (uint64, error) {
	l.calls.Add(1)
	l.entered <- struct{}{}
	<-l.gate
	return 0, errHalt
}

// Who waits for the same identity while the log fails does not ask the log again.
func TestCA8WaitersDoNotTouchAHaltedLog(t *testing.T) {
	log := &gatedLog{entered: make(chan struct{}, 8), gate: make(chan struct{})}
	encoded := make(chan struct{}, 8)
	reg := capture.NewRegistry()
	must(t, capture.Register(reg, "event", func(dst []byte, _ event, _ *capture.Keys) ([]byte, error) {
		encoded <- struct{}{}
		return dst, nil
	}, capture.WithIdentity(func(m event) (entry.ID, bool) { return m.id, true })))
	a := newAdapter(t, reg, log, capture.Options{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			_, err := a.CaptureAny("x", event{command{id: id(1)}})
			if !errors.Is(err, errHalt) || !errors.Is(err, capture.ErrCaptureEnded) || err != a.Err() {
				t.Errorf("error %v", err)
			}
		})
	}
	for range 4 {
		<-encoded // outside the lock: all four get this far
	}
	<-log.entered
	close(log.gate)
	wg.Wait()
	if n := log.calls.Load(); n != 1 {
		t.Errorf("%d submits, want 1", n)
	}
}

// nullLog takes everything.
type nullLog struct{ seq atomic.Uint64 }

func (l *nullLog) Submit(entry.Draft) (uint64, error) { return l.seq.Add(1), nil }

func hotHandle(t testing.TB) *capture.Handle[command] {
	reg := newRegistry(t)
	must(t, capture.Register(reg, typeCommand, func(dst []byte, m command, k *capture.Keys) ([]byte, error) {
		k.Add(entry.ClientOrderID, m.clientID)
		k.AddUint(entry.VenueOrderID, uint64(m.at))
		k.AddBytes(kindTrader, m.id[:])
		return append(dst, m.text...), nil
	}))
	h, err := capture.Bind[command](newAdapter(t, reg, new(nullLog), capture.Options{Window: 1024}), "cmd")
	must(t, err)
	return h
}

func BenchmarkHandleCapture(b *testing.B) {
	for _, withID := range []bool{false, true} {
		b.Run(fmt.Sprint("identity=", withID), func(b *testing.B) {
			h := hotHandle(b)
			m := command{clientID: "C1", text: strings.Repeat("x", 256)}
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				if withID {
					m.id = id(n + 1)
				}
				if _, err := h.Capture(m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
