package capture_test

import (
	"encoding/binary"
	"errors"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/runlog-io/runlog/capture"
	"github.com/runlog-io/runlog/entry"
)

// memLog is a log in memory: it checks drafts like the writer, copies them, and fails on request.
type memLog struct {
	mu      sync.Mutex
	kinds   *entry.Kinds
	entries []entry.Entry
	fail    error // of every Submit
	calls   int   // of Submit, refused ones included
}

func newLog(kinds ...string) *memLog {
	l := &memLog{kinds: &entry.Kinds{}}
	for _, k := range kinds {
		l.kinds, _, _ = l.kinds.With(k)
	}
	return l
}

func (l *memLog) Submit(d entry.Draft) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	if l.fail != nil {
		return 0, l.fail
	}
	if err := d.Check(l.kinds, entry.DefaultMaxPayload); err != nil {
		return 0, err
	}
	e := entry.Entry{
		Seq: uint64(len(l.entries) + 1), TsInit: d.TsInit, Topic: strings.Clone(d.Topic), Type: strings.Clone(d.Type),
		Payload: append([]byte{}, d.Payload...),
		ID:      d.ID, CorrelationID: d.CorrelationID, CausationID: d.CausationID,
	}
	for _, k := range d.Keys {
		e.Keys = append(e.Keys, entry.Key{Kind: strings.Clone(k.Kind), Value: strings.Clone(k.Value)})
	}
	l.entries = append(l.entries, e)
	return e.Seq, nil
}

// lookup returns the first seq with a key.
func (l *memLog) lookup(kind, value string) uint64 {
	for _, e := range l.entries {
		if slices.Contains(e.Keys, entry.Key{Kind: kind, Value: value}) {
			return e.Seq
		}
	}
	return 0
}

// views yields the entries newest first, as a reverse scan of a real log does: in place, in memory that is used again.
func (l *memLog) views(t *testing.T) iter.Seq2[entry.View, error] {
	return func(yield func(entry.View, error) bool) {
		var body []byte
		for _, e := range slices.Backward(l.entries) {
			var b entry.Batch
			d := e.Draft()
			b.Add(&d, l.kinds, 1)
			it := b.At(0)
			clear(body)
			body = entry.AppendHead(body[:0], 0, 0, entry.Route{Topic: e.Topic, Type: e.Type}, e.TsInit, 1)
			body = append(body, it.Tail...)
			dict := entry.NewDict(0)
			dict.SetKinds(l.kinds)
			v, err := entry.ParseView(dict, e.Seq, it.Flags, body)
			if err != nil {
				t.Fatal(err)
			}
			if !yield(v, nil) {
				return
			}
		}
	}
}

// The messages of a small engine.
type (
	command struct {
		clientID, venueID string
		text              string
		id, corr, cause   entry.ID
		at                int64
		err               error // of the encoder
	}
	event  struct{ command }
	report struct{ command } // raw, from outside: without identity, headers and time
	notice struct{ n int }   // never registered
)

const (
	typeCommand = "command"
	typeEvent   = "event"
	typeReport  = "report"
	kindTrader  = "trader"
)

func encodeCommand(dst []byte, m command, k *capture.Keys) ([]byte, error) {
	if m.err != nil {
		return nil, m.err
	}
	k.AddIfSet(entry.ClientOrderID, m.clientID)
	k.AddIfSet(entry.VenueOrderID, m.venueID)
	return append(dst, m.text...), nil
}

func commandHeaders(m command) capture.Headers {
	return capture.Headers{CorrelationID: m.corr, CausationID: m.cause}
}

func commandID(m command) (entry.ID, bool) { return m.id, !m.id.IsZero() }

func commandTime(m command) int64 { return m.at }

// newRegistry lists commands with all extractors, events with identity, and reports with nothing.
func newRegistry(t testing.TB) *capture.Registry {
	t.Helper()
	reg := capture.NewRegistry()
	must(t, capture.Register(reg, typeCommand, encodeCommand,
		capture.WithHeaders(commandHeaders), capture.WithIdentity(commandID), capture.WithTime(commandTime)))
	must(t, capture.Register(reg, typeEvent,
		func(dst []byte, m event, k *capture.Keys) ([]byte, error) { return encodeCommand(dst, m.command, k) },
		capture.WithIdentity(func(m event) (entry.ID, bool) { return commandID(m.command) })))
	must(t, capture.Register(reg, typeReport,
		func(dst []byte, m report, k *capture.Keys) ([]byte, error) { return encodeCommand(dst, m.command, k) }))
	return reg
}

func newAdapter(t testing.TB, reg *capture.Registry, sub capture.Submitter, o capture.Options) *capture.Adapter {
	t.Helper()
	if o.Now == nil {
		o.Now = func() int64 { return 1000 }
	}
	a, err := capture.New(reg, sub, o)
	must(t, err)
	return a
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func captured(t testing.TB, a *capture.Adapter, topic string, m any, seq uint64) {
	t.Helper()
	r, err := a.CaptureAny(topic, m)
	if want := (capture.Result{Outcome: capture.Captured, Seq: seq}); err != nil || r != want {
		t.Fatalf("capture %v: %v seq %d, %v; want captured, seq %d", m, r.Outcome, r.Seq, err, seq)
	}
}

func outcome(t testing.TB, a *capture.Adapter, topic string, m any, want capture.Outcome) {
	t.Helper()
	r, err := a.CaptureAny(topic, m)
	if err != nil || r.Outcome != want || (want != capture.Captured && r.Seq != 0) {
		t.Fatalf("capture %v: %v seq %d, %v; want %v", m, r.Outcome, r.Seq, err, want)
	}
}

func wantErr(t testing.TB, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("error %v, want %v", err, target)
	}
}

func keysOf(kv ...string) (keys []entry.Key) {
	for i := 0; i < len(kv); i += 2 {
		keys = append(keys, entry.Key{Kind: kv[i], Value: kv[i+1]})
	}
	return keys
}

func id(n int) (id entry.ID) {
	binary.BigEndian.PutUint64(id[8:], uint64(n))
	return id
}
