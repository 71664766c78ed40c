package engine

import (
	"context"
	"errors"
	"iter"
	"reflect"
	"strings"
	"testing"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/examples/exchange/book"
	"github.com/runlog-io/runlog/examples/exchange/flow"
)

// memLog is a Log in memory whose tail can be cut off.
type memLog struct {
	entries []entry.Entry
	durable uint64 // unless everything is
	lag     bool   // durable follows WaitDurable only
	fail    error
}

func (l *memLog) Submit(d entry.Draft) (uint64, error) {
	if l.fail != nil {
		return 0, l.fail
	}
	e := entry.Entry{
		Seq: uint64(len(l.entries) + 1), TsInit: d.TsInit, Topic: d.Topic, Type: d.Type,
		Payload: append([]byte{}, d.Payload...), ID: d.ID, CorrelationID: d.CorrelationID, CausationID: d.CausationID,
	}
	for _, k := range d.Keys {
		e.Keys = append(e.Keys, entry.Key{Kind: k.Kind, Value: strings.Clone(k.Value)})
	}
	l.entries = append(l.entries, e)
	return e.Seq, nil
}

func (l *memLog) Durable() uint64 {
	if l.lag {
		return l.durable
	}
	return uint64(len(l.entries))
}

func (l *memLog) WaitDurable(_ context.Context, seq uint64) error {
	l.durable = max(l.durable, seq)
	return nil
}

// scan gives the entries as views, through their binary form.
func (l *memLog) scan(yield func(entry.View, error) bool) {
	dict := entry.NewDict(0)
	for i := range l.entries {
		e := &l.entries[i]
		var b entry.Batch
		d := e.Draft()
		b.Add(&d, dict.Kinds(), int64(e.Seq))
		item := b.At(0)
		body := entry.AppendHead(nil, 0, 0, entry.Route{Topic: d.Topic, Type: d.Type}, d.TsInit, int64(e.Seq))
		v, err := entry.ParseView(dict, e.Seq, item.Flags, append(body, item.Tail...))
		if !yield(v, err) || err != nil {
			return
		}
	}
}

var _ iter.Seq2[entry.View, error] = (&memLog{}).scan

const testSeed, testOrders = 5, 60

// finish runs the flow from where the engine stands to its end.
func finish(t *testing.T, e *Engine) {
	t.Helper()
	g := flow.NewGenerator(testSeed, testOrders)
	last, ok := g.Skip(e.Counts().Commands)
	if !ok || last != e.Last() {
		t.Fatalf("the flow's last command is %+v, the engine's %+v", last, e.Last())
	}
	for c, ok := g.Next(); ok; c, ok = g.Next() {
		if err := e.Handle(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestResumeFromEveryTornPointGivesTheSameEvents(t *testing.T) {
	whole := &memLog{}
	ref := New(testSeed)
	if err := ref.Start(whole, 0, func(Message) {}, nil); err != nil {
		t.Fatal(err)
	}
	finish(t, ref)
	kinds := map[string]int{}
	for _, e := range whole.entries {
		kinds[e.Type]++
	}
	if len(kinds) != 8 {
		t.Fatalf("the flow is too small to show everything: %v", kinds)
	}
	// Two crashes: the first run keeps k entries, the second a few more, the third goes to the end.
	for k := range len(whole.entries) + 1 {
		for _, more := range []int{0, 1, 7} {
			if more > 0 && k%6 != 0 {
				continue // one crash everywhere, two in some places
			}
			logs := []*memLog{{}, {}, {}}
			logs[0].entries = whole.entries[:k]
			var e *Engine
			for run := 1; run < len(logs); run++ {
				e = New(testSeed)
				for _, l := range logs[:run] {
					if err := e.Recover("r", l.scan, nil); err != nil {
						t.Fatalf("k=%d more=%d run %d: %v", k, more, run, err)
					}
				}
				if err := e.Start(logs[run], run, func(Message) {}, nil); err != nil {
					t.Fatal(err)
				}
				finish(t, e)
				if run == 1 {
					logs[run].entries = logs[run].entries[:min(more, len(logs[run].entries))]
				}
			}
			if e.Hash() != ref.Hash() || e.Counts() != ref.Counts() {
				t.Fatalf("k=%d more=%d: state %x %+v, want %x %+v", k, more, e.Hash(), e.Counts(), ref.Hash(), ref.Counts())
			}
			var all []entry.Entry
			for _, l := range logs {
				all = append(all, l.entries...)
			}
			if len(all) != len(whole.entries) {
				t.Fatalf("k=%d more=%d: %d entries, want %d", k, more, len(all), len(whole.entries))
			}
			for i := range all {
				all[i].Seq = uint64(i + 1)
				if !reflect.DeepEqual(all[i], whole.entries[i]) {
					t.Fatalf("k=%d more=%d: entry %d:\n got %+v\nwant %+v", k, more, i+1, all[i], whole.entries[i])
				}
			}
		}
	}
}

func TestEntriesCarryKeysAndIDs(t *testing.T) {
	l := &memLog{}
	e := New(testSeed)
	if err := e.Start(l, 0, func(Message) {}, nil); err != nil {
		t.Fatal(err)
	}
	for i, c := range []book.Command{
		{Order: 41, Price: -3, Qty: 2, Action: book.Submit, Side: book.Sell},
		{Order: 42, Price: 7, Qty: 1, Action: book.Submit, Side: book.Buy},
		{Order: 43, Action: book.Cancel},
	} {
		if err := e.Handle(t.Context(), flow.Command{Command: c, N: uint64(i + 1), At: 99}); err != nil {
			t.Fatal(err)
		}
	}
	type line struct {
		typ, client, venue string
		causedBy           int // index of the entry
	}
	want := []line{
		{"SubmitOrder", "41", "", -1}, {"OrderAccepted", "41", "1", 0},
		{"SubmitOrder", "42", "", -1}, {"OrderAccepted", "42", "2", 2},
		{"OrderFilled", "41", "1", 2}, {"OrderFilled", "42", "2", 2},
		{"CancelOrder", "43", "", -1}, {"OrderRejected", "43", "", 6},
	}
	corr := map[string]entry.ID{}
	for i, got := range l.entries {
		g := line{typ: got.Type, causedBy: -1}
		for _, k := range got.Keys {
			switch k.Kind {
			case entry.ClientOrderID:
				g.client = k.Value
			case entry.VenueOrderID:
				g.venue = k.Value
			}
		}
		for j := range l.entries[:i] {
			if l.entries[j].ID == got.CausationID {
				g.causedBy = j
			}
		}
		if g != want[i] || got.ID.IsZero() || got.CorrelationID.IsZero() || got.TsInit != 99 {
			t.Errorf("entry %d: %+v, want %+v (%+v)", i+1, g, want[i], got)
		}
		if c, ok := corr[g.client]; ok && c != got.CorrelationID {
			t.Errorf("entry %d: order %s has two correlation ids", i+1, g.client)
		}
		corr[g.client] = got.CorrelationID
	}
	if len(l.entries) != len(want) || len(corr) != 3 {
		t.Fatalf("%d entries, %d orders", len(l.entries), len(corr))
	}
}

func TestNothingLeavesBeforeItIsDurable(t *testing.T) {
	l := &memLog{lag: true}
	e := New(testSeed)
	var out []Message
	if err := e.Start(l, 3, func(m Message) { out = append(out, m) }, nil); err != nil {
		t.Fatal(err)
	}
	g := flow.NewGenerator(testSeed, 40)
	for c, ok := g.Next(); ok; c, ok = g.Next() {
		if err := e.Handle(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if e.Release(); len(out) != 0 {
		t.Fatalf("%d messages left, nothing is durable", len(out))
	}
	for d := range uint64(len(l.entries)) {
		l.durable = d
		e.Release()
		if n := len(out); n > 0 && out[n-1].Seq > d {
			t.Fatalf("message of seq %d left at durable %d", out[n-1].Seq, d)
		}
	}
	if err := e.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, m := range out {
		stored := l.entries[m.Seq-1]
		if m.N != uint64(i+1) || m.Run != 3 || string(AppendEvent(nil, &m.Event)) != string(stored.Payload) {
			t.Fatalf("message %d: %+v, the log has %+v", i+1, m, stored)
		}
	}
	if uint64(len(out)) != e.Counts().Events {
		t.Fatalf("%d messages, %d events", len(out), e.Counts().Events)
	}
}

func TestAHaltedLogStopsTheEngineBeforeItActs(t *testing.T) {
	l := &memLog{}
	e := New(testSeed)
	if err := e.Start(l, 0, func(Message) {}, nil); err != nil {
		t.Fatal(err)
	}
	l.fail = errors.New("halted")
	c := flow.Command{N: 1, Command: book.Command{Order: 1, Price: 1, Qty: 1, Action: book.Submit, Side: book.Buy}}
	if err := e.Handle(t.Context(), c); !errors.Is(err, l.fail) {
		t.Fatal(err)
	}
	if e.Book().Len() != 0 || e.Counts().Commands != 0 {
		t.Fatal("the engine acted on a command that is not in the log")
	}
}

func TestRecoverNamesTheEntryThatDiffers(t *testing.T) {
	whole := &memLog{}
	e := New(testSeed)
	if err := e.Start(whole, 0, func(Message) {}, nil); err != nil {
		t.Fatal(err)
	}
	finish(t, e)
	firstEvent := 0
	for whole.entries[firstEvent].Topic != TopicEvents {
		firstEvent++
	}
	cases := []struct {
		name   string
		at     int // index of the entry that is named
		change func(l *memLog, at int)
	}{
		{"another quantity", firstEvent, func(l *memLog, at int) {
			var v Event
			if err := DecodeEvent(l.entries[at].Payload, &v); err != nil {
				t.Fatal(err)
			}
			v.Qty++
			l.entries[at].Payload = AppendEvent(nil, &v)
		}},
		{"another type", firstEvent, func(l *memLog, at int) { l.entries[at].Type = "OrderRejected" }},
		{"another cause", firstEvent, func(l *memLog, at int) { l.entries[at].CausationID[15]++ }},
		{"a cut payload", firstEvent, func(l *memLog, at int) { l.entries[at].Payload = l.entries[at].Payload[:3] }},
		{"a missing event", firstEvent, func(l *memLog, at int) {
			l.entries = append(l.entries[:at], l.entries[at+1:]...)
		}},
		{"an event twice", firstEvent + 1, func(l *memLog, at int) { l.entries[at] = l.entries[at-1] }},
		{"a foreign command", 0, func(l *memLog, at int) { l.entries[at].ID[0]++ }},
		{"a missing command", 0, func(l *memLog, _ int) { l.entries = l.entries[firstEvent+1:] }},
		{"a foreign topic", 2, func(l *memLog, at int) { l.entries[at].Topic = "x" }},
		{"a cut command", 0, func(l *memLog, at int) { l.entries[at].Payload = nil }},
	}
	for _, c := range cases {
		l := &memLog{entries: append([]entry.Entry{}, whole.entries...)}
		l.entries[c.at].Payload = append([]byte{}, l.entries[c.at].Payload...)
		c.change(l, c.at)
		want := l.entries[c.at].Seq
		var at *RecoverError
		if err := New(testSeed).Recover("r", l.scan, nil); !errors.As(err, &at) || at.Seq != want || at.Run != "r" {
			t.Errorf("%s: %v, want seq %d", c.name, err, want)
		}
	}
}

func TestReportsAreMirrored(t *testing.T) {
	reports := []flow.Report{
		{OrderID: 1, Action: flow.ActionAdd, Side: 'B', Price: 10, Size: 5, Instrument: 1},
		{OrderID: 1, Action: flow.ActionAdd, Side: 'B', Price: 10, Size: 5, Instrument: 2},
		{OrderID: 2, Action: flow.ActionAdd, Side: 'A', Price: 11, Size: 3, Instrument: 1},
		{OrderID: 9, Action: flow.ActionTrade, Side: 'A', Price: 10, Size: 2, Instrument: 1},
		{OrderID: 1, Action: flow.ActionFill, Side: 'B', Price: 10, Size: 2, Instrument: 1},
		{OrderID: 1, Action: flow.ActionModify, Side: 'B', Price: 10, Size: 3, Instrument: 1},
		{OrderID: 2, Action: flow.ActionCancel, Side: 'A', Price: 11, Size: 3, Instrument: 1},
		{OrderID: 7, Action: flow.ActionCancel, Side: 'A', Price: 11, Size: 3, Instrument: 1},
		{Action: flow.ActionClear, Side: 'N', Instrument: 2},
	}
	l := &memLog{}
	e := New(0)
	if err := e.Start(l, 0, func(Message) {}, nil); err != nil {
		t.Fatal(err)
	}
	for _, r := range reports {
		if err := e.Report(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	want := Counts{Reports: 9, Strays: 1, Open: 1}
	if got := e.Counts(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for i, v := range l.entries {
		var r flow.Report
		if err := r.UnmarshalBinary(v.Payload); err != nil || r != reports[i] || v.Type != ReportType(r.Action) {
			t.Errorf("entry %d: %+v, %v", i+1, v, err)
		}
		if (r.OrderID == 0) != (len(v.Keys) == 0) {
			t.Errorf("entry %d: keys %v", i+1, v.Keys)
		}
	}
	again := New(0)
	if err := again.Recover("r", l.scan, nil); err != nil || again.Hash() != e.Hash() || again.Counts() != want {
		t.Errorf("recovered: %v, %x, want %x", err, again.Hash(), e.Hash())
	}
}

func TestPayloadsRoundTripAndRefuseDamage(t *testing.T) {
	v := Event{Event: book.Event{Order: 1 << 60, Venue: 3, Match: 300, Price: -5, Qty: 1 << 31, Leaves: 7,
		Kind: book.Filled, Reason: book.Duplicate, Side: book.Sell}, N: 1 << 40, Command: 12}
	b := AppendEvent(nil, &v)
	var got Event
	if err := DecodeEvent(b, &got); err != nil || got != v {
		t.Fatalf("%+v, %v", got, err)
	}
	for n := range b {
		if DecodeEvent(b[:n], &got) == nil {
			t.Errorf("an event of %d bytes was read from %d", len(b), n)
		}
	}
	if DecodeEvent(append(b, 0), &got) == nil {
		t.Error("a byte too many was not noticed")
	}
	c := flow.Command{N: 9, Command: book.Command{Order: 8, Price: -7, Qty: 6, Action: book.Modify, Side: book.Buy}}
	b = appendCommand(nil, &c)
	var back flow.Command
	if err := decodeCommand(b, &back); err != nil || back != c {
		t.Fatalf("%+v, %v", back, err)
	}
}
