package capture_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/runlog-io/runlog/capture"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
)

func encode(t testing.TB, reg *capture.Registry, m any) entry.Draft {
	t.Helper()
	d, err := reg.Encode(m)
	must(t, err)
	return d
}

// A wrong type cannot be passed to a typed encoder; what is not registered is an error. Also RG6 and RG25.
func TestRG1EncodeGivesPayloadAndKeys(t *testing.T) {
	reg := newRegistry(t)
	d := encode(t, reg, command{clientID: "C1", text: "buy", id: id(1), corr: id(2), cause: id(3), at: 4})
	want := entry.Draft{
		Type: typeCommand, Payload: []byte("buy"), TsInit: 4, Keys: keysOf(entry.ClientOrderID, "C1"),
		ID: id(1), CorrelationID: id(2), CausationID: id(3),
	}
	if !reflect.DeepEqual(d, want) {
		t.Errorf("draft %+v, want %+v", d, want)
	}
	_, err := reg.Encode(notice{})
	wantErr(t, err, capture.ErrNotRegistered)
	_, err = reg.Encode(nil)
	wantErr(t, err, capture.ErrNotRegistered)
	_, err = reg.Encode(command{err: errBoom})
	wantErr(t, err, errBoom)
	var enc *capture.EncodeError
	if !errors.As(err, &enc) || enc.Type != typeCommand || err.Error() == "" {
		t.Errorf("error %v", err)
	}
}

func TestEncodeResultIsTheCallers(t *testing.T) {
	type raw struct{ b []byte }
	reg := capture.NewRegistry()
	must(t, capture.Register(reg, "raw", func(_ []byte, m raw, k *capture.Keys) ([]byte, error) {
		k.AddBytes("k", m.b)
		return m.b, nil
	}))
	m := raw{[]byte("abc")}
	d := encode(t, reg, m)
	m.b[0] = 'X'
	if string(d.Payload) != "abc" || d.Keys[0].Value != "abc" {
		t.Errorf("draft %+v changed with the message", d)
	}
}

func TestRG2NoKeysNoOverride(t *testing.T) {
	reg := capture.NewRegistry()
	must(t, capture.Register(reg, "n", func(dst []byte, m notice, _ *capture.Keys) ([]byte, error) {
		return fmt.Append(dst, m.n), nil
	}))
	if d := encode(t, reg, notice{5}); len(d.Keys) != 0 || d.Type != "n" || string(d.Payload) != "5" {
		t.Errorf("draft %+v", d)
	}
}

func TestRG3NewRegistryIsEmpty(t *testing.T) {
	for _, reg := range []*capture.Registry{new(capture.Registry), capture.NewRegistry()} {
		_, err := reg.Encode(command{})
		if reg.Len() != 0 || reg.Contains(command{}) || len(reg.Types()) != 0 {
			t.Error("not empty")
		}
		wantErr(t, err, capture.ErrNotRegistered)
	}
}

func TestRG4OneRegistration(t *testing.T) {
	reg := new(capture.Registry)
	must(t, capture.Register(reg, typeCommand, encodeCommand))
	if d := encode(t, reg, command{text: "x"}); d.Type != typeCommand || string(d.Payload) != "x" {
		t.Errorf("draft %+v", d)
	}
	if reg.Len() != 1 || !reg.Contains(command{}) || reg.Contains(&command{}) || reg.Contains(nil) {
		t.Error("Len or Contains is wrong")
	}
}

// Also RG10: the extractors survive; and handles see the change.
func TestRG5LastRegistrationWins(t *testing.T) {
	reg := newRegistry(t)
	log := newLog()
	h, err := capture.Bind[command](newAdapter(t, reg, log, capture.Options{}), "x")
	must(t, err)
	before := reg.Len()
	must(t, capture.Register(reg, "command.v2", func(dst []byte, _ command, _ *capture.Keys) ([]byte, error) {
		return append(dst, "v2"...), nil
	}))
	m := command{id: id(1), corr: id(2), cause: id(3), at: 4, text: "v1"}
	check := func(d entry.Draft) {
		t.Helper()
		if d.Type != "command.v2" || string(d.Payload) != "v2" ||
			d.ID != id(1) || d.CorrelationID != id(2) || d.CausationID != id(3) || d.TsInit != 4 {
			t.Errorf("draft %+v", d)
		}
	}
	check(encode(t, reg, m))
	if _, err := h.Capture(m); err != nil || reg.Len() != before {
		t.Errorf("%v, %d types", err, reg.Len())
	}
	check(log.entries[0].Draft())
}

func TestRG7OverrideOfThePayloadType(t *testing.T) {
	reg := capture.NewRegistry()
	must(t, capture.Register(reg, "any.command", func(dst []byte, m command, k *capture.Keys) ([]byte, error) {
		k.SetType(m.text)
		return dst, nil
	}))
	log := newLog()
	a := newAdapter(t, reg, log, capture.Options{})
	h, err := capture.Bind[command](a, "x")
	must(t, err)
	for _, text := range []string{"cancel", ""} { // none: the registered one, though the scratch memory is used again
		want := text
		if text == "" {
			want = "any.command"
		}
		if d := encode(t, reg, command{text: text}); d.Type != want {
			t.Errorf("Encode: type %q, want %q", d.Type, want)
		}
		outcome(t, a, "x", command{text: text}, capture.Captured)
		_, err := h.Capture(command{text: text})
		must(t, err)
		for _, e := range log.entries[len(log.entries)-2:] {
			if e.Type != want {
				t.Errorf("type %q, want %q", e.Type, want)
			}
		}
	}
}

// Also RG12: without extractors there are no headers and no identity.
func TestRG8NoExtractorsNoHeaders(t *testing.T) {
	d := encode(t, newRegistry(t), report{command{id: id(1), corr: id(2), cause: id(3), at: 4}})
	if d.ID != (entry.ID{}) || d.CorrelationID != (entry.ID{}) || d.CausationID != (entry.ID{}) || d.TsInit != 0 {
		t.Errorf("draft %+v", d)
	}
}

func TestRG9ExtractorsCanBeSetLater(t *testing.T) {
	reg := capture.NewRegistry()
	must(t, capture.Register(reg, typeCommand, encodeCommand))
	must(t, capture.SetHeaders(reg, commandHeaders))
	must(t, capture.SetIdentity(reg, commandID))
	must(t, capture.SetTime(reg, commandTime))
	m := command{id: id(1), corr: id(2), cause: id(3), at: 4}
	if d := encode(t, reg, m); d.ID != id(1) || d.CorrelationID != id(2) || d.CausationID != id(3) || d.TsInit != 4 {
		t.Errorf("draft %+v", d)
	}
	must(t, capture.SetHeaders[command](reg, nil))
	must(t, capture.Register(reg, typeCommand, encodeCommand, capture.Option[command]{},
		capture.WithIdentity[command](nil), capture.WithTime[command](nil)))
	if d := encode(t, reg, m); d.ID != (entry.ID{}) || d.CorrelationID != (entry.ID{}) || d.TsInit != 0 {
		t.Errorf("draft %+v", d)
	}
}

// Differs: an extractor for an unknown type would be lost, so it is an error.
func TestRG11ExtractorForAnUnknownTypeIsAnError(t *testing.T) {
	reg := capture.NewRegistry()
	wantErr(t, capture.SetHeaders(reg, commandHeaders), capture.ErrNotRegistered)
	wantErr(t, capture.SetIdentity(reg, commandID), capture.ErrNotRegistered)
	wantErr(t, capture.SetTime(reg, commandTime), capture.ErrNotRegistered)
	if reg.Len() != 0 {
		t.Error("the type was registered")
	}
}

// Also RG26: a list of what is captured, to compare with what a program says it replays.
func TestRG13TypesCanBeAudited(t *testing.T) {
	reg := newRegistry(t)
	must(t, capture.Register(reg, typeCommand, func(dst []byte, m *command, k *capture.Keys) ([]byte, error) {
		return encodeCommand(dst, *m, k)
	}))
	var got []string
	for _, typ := range reg.Types() {
		got = append(got, typ.PayloadType+" "+typ.Go.String())
	}
	want := []string{
		"command *capture_test.command", "command capture_test.command",
		"event capture_test.event", "report capture_test.report",
	}
	if !slices.Equal(got, want) || reg.Len() != len(want) {
		t.Errorf("types %q, want %q", got, want)
	}
}

// Also CA17, CA18 and RG15: the wrapper's own name never leaks, and bytes and keys are those of the inner message.
func TestRG14WrappersAreStoredAsWhatTheyWrap(t *testing.T) {
	type wrapper struct{ inner any }
	reg := newRegistry(t)
	must(t, capture.Register(reg, "wrapper", func(dst []byte, w wrapper, k *capture.Keys) ([]byte, error) {
		switch m := w.inner.(type) {
		case command:
			k.SetType(typeCommand)
			return encodeCommand(dst, m, k)
		case event:
			k.SetType(typeEvent)
			return encodeCommand(dst, m.command, k)
		case report:
			k.SetType(typeReport)
			return encodeCommand(dst, m.command, k)
		}
		return nil, fmt.Errorf("wrapper of %T: %w", w.inner, errors.ErrUnsupported)
	}))
	c := command{clientID: "C1", venueID: "V1", text: "inner"}
	for _, m := range []any{c, event{c}, report{c}} {
		bare, wrapped := encode(t, reg, m), encode(t, reg, wrapper{m})
		if !reflect.DeepEqual(bare, wrapped) || wrapped.Type == "wrapper" {
			t.Errorf("wrapped %+v, bare %+v", wrapped, bare)
		}
	}
	_, err := reg.Encode(wrapper{notice{}})
	wantErr(t, err, errors.ErrUnsupported)
}

// Also RG22: only what the encoder names is a key.
func TestRG16OptionalKeysAreOmitted(t *testing.T) {
	reg := newRegistry(t)
	for _, c := range []struct {
		m    command
		want []entry.Key
	}{
		{command{clientID: "C", venueID: "V"}, keysOf(entry.ClientOrderID, "C", entry.VenueOrderID, "V")},
		{command{clientID: "C"}, keysOf(entry.ClientOrderID, "C")},
		{command{venueID: "V"}, keysOf(entry.VenueOrderID, "V")},
		{command{id: id(1), corr: id(2)}, nil},
	} {
		if d := encode(t, reg, c.m); !slices.Equal(d.Keys, c.want) {
			t.Errorf("keys %v, want %v", d.Keys, c.want)
		}
	}
	// An empty value that was not left out is refused, not stored.
	var k capture.Keys
	k.Add(entry.ClientOrderID, "")
	k.AddBytes(entry.ClientOrderID, nil)
	if k.Len() != 2 {
		t.Error("an empty value was skipped silently")
	}
	must(t, capture.Register(reg, "n", func(dst []byte, _ notice, k *capture.Keys) ([]byte, error) {
		k.Add(entry.ClientOrderID, "")
		return dst, nil
	}))
	_, err := newAdapter(t, reg, newLog(), capture.Options{}).CaptureAny("x", notice{})
	wantErr(t, err, format.ErrInvalid)
}

func TestRG17KeysKeepTheEncodersOrder(t *testing.T) {
	var k capture.Keys
	k.Add(entry.VenueOrderID, "V1")
	k.AddIfSet(entry.ClientOrderID, "")
	k.AddIfSet(entry.ClientOrderID, "C1")
	k.AddBytes(kindTrader, []byte("t"))
	k.AddUint(kindTrader, 18446744073709551615)
	k.AddInt(kindTrader, -9223372036854775808)
	want := keysOf(entry.VenueOrderID, "V1", entry.ClientOrderID, "C1", kindTrader, "t",
		kindTrader, "18446744073709551615", kindTrader, "-9223372036854775808")
	if !slices.Equal(k.List(), want) || k.Len() != len(want) {
		t.Errorf("keys %v, want %v", k.List(), want)
	}
	k.SetType("t")
	if k.Type() != "t" {
		t.Errorf("type %q", k.Type())
	}
}

// A batch: one key per child, in the children's order. Also RG19.
func TestRG18BatchHasTheKeysOfItsChildren(t *testing.T) {
	reg := capture.NewRegistry()
	must(t, capture.Register(reg, "batch", func(dst []byte, m []command, k *capture.Keys) ([]byte, error) {
		var err error
		for i := range m {
			if dst, err = encodeCommand(dst, m[i], k); err != nil {
				return nil, err
			}
		}
		return dst, nil
	}))
	d := encode(t, reg, []command{{clientID: "C1", venueID: "V1"}, {clientID: "C2"}})
	if !slices.Equal(d.Keys, keysOf(entry.ClientOrderID, "C1", entry.VenueOrderID, "V1", entry.ClientOrderID, "C2")) {
		t.Errorf("keys %v", d.Keys)
	}
}

// Also RG21: open and close ids that differ, are absent, or are equal.
func TestRG20RepeatedKeysCanBeDropped(t *testing.T) {
	for _, c := range []struct {
		open, shut string
		want       int
	}{{"1", "2", 2}, {"1", "", 1}, {"1", "1", 1}} {
		var unique, dedup capture.Keys
		unique.AddUnique(entry.ClientOrderID, c.open)
		if c.shut != "" {
			unique.AddUnique(entry.ClientOrderID, c.shut)
		}
		dedup.Add(entry.ClientOrderID, c.open)
		dedup.AddIfSet(entry.ClientOrderID, c.shut)
		dedup.Dedup()
		if unique.Len() != c.want || !slices.Equal(unique.List(), dedup.List()) {
			t.Errorf("%v: keys %v and %v", c, unique.List(), dedup.List())
		}
	}
}

// Dedup of any number of keys equals the obvious loop.
func TestRG20DedupKeepsTheFirstOfEach(t *testing.T) {
	for n := range 200 {
		for _, distinct := range []int{1, 7, 100, 1000} {
			var got, want capture.Keys
			for i := range n {
				v := i * 31 % distinct
				kind := []string{"a", "b"}[i%2]
				got.AddUint(kind, uint64(v))
				want.AddUnique(kind, fmt.Sprint(v))
			}
			got.Dedup()
			got.Dedup()
			if !slices.Equal(got.List(), want.List()) {
				t.Fatalf("%d keys, %d distinct: %v, want %v", n, distinct, got.List(), want.List())
			}
		}
	}
}

// Any codec will do: what it wrote comes back.
func TestRG23PayloadsDecodeToEqualMessages(t *testing.T) {
	type quote struct {
		Bid, Ask float64
		Venue    string
	}
	reg := capture.NewRegistry()
	must(t, capture.Register(reg, "quote", func(dst []byte, m quote, _ *capture.Keys) ([]byte, error) {
		b, err := json.Marshal(m)
		return append(dst, b...), err
	}))
	log := newLog()
	a := newAdapter(t, reg, log, capture.Options{})
	want := []quote{{1, 2, "A"}, {3, 4.5, strings.Repeat("B", 3000)}, {}}
	for i, m := range want {
		captured(t, a, "q", m, uint64(i+1))
		var got quote
		if err := json.Unmarshal(log.entries[i].Payload, &got); err != nil || got != m {
			t.Errorf("%v, %+v", err, got)
		}
	}
}

// A payload that cannot be serialised: the encoder writes what it can, even nothing.
func TestRG24MetadataOnly(t *testing.T) {
	type stream struct {
		name string
		r    io.Reader
	}
	reg := capture.NewRegistry()
	must(t, capture.Register(reg, "stream", func(dst []byte, m stream, _ *capture.Keys) ([]byte, error) {
		return append(dst, m.name...), nil
	}))
	log := newLog()
	a := newAdapter(t, reg, log, capture.Options{})
	captured(t, a, "x", stream{"s", strings.NewReader("not stored")}, 1)
	captured(t, a, "x", stream{}, 2)
	if e := log.entries; e[0].Type != "stream" || string(e[0].Payload) != "s" || len(e[1].Payload) != 0 {
		t.Errorf("entries %+v", e)
	}
}

func TestBadRegistrationsAreErrors(t *testing.T) {
	reg := newRegistry(t)
	before := reg.Types()
	for _, typ := range []string{"", "\xff", strings.Repeat("t", 256)} {
		wantErr(t, capture.Register(reg, typ, encodeCommand), format.ErrInvalid)
	}
	wantErr(t, capture.Register[command](reg, "x", nil), format.ErrInvalid)
	wantErr(t, capture.Register(reg, "x", func(dst []byte, _ fmt.Stringer, _ *capture.Keys) ([]byte, error) {
		return dst, nil
	}), format.ErrInvalid)
	if !slices.Equal(reg.Types(), before) {
		t.Error("a failed registration changed the registry")
	}
	must(t, capture.Register(reg, strings.Repeat("t", 255), encodeCommand))
}

func TestRegistryIsSafeForConcurrentUse(t *testing.T) {
	reg := capture.NewRegistry()
	must(t, capture.Register(reg, typeReport, func(dst []byte, m report, k *capture.Keys) ([]byte, error) {
		return encodeCommand(dst, m.command, k)
	}))
	a := newAdapter(t, reg, newLog(), capture.Options{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 200 {
				switch i {
				case 0:
					if err := capture.Register(reg, typeCommand, encodeCommand); err != nil {
						t.Error(err)
					}
				case 1:
					_ = capture.SetIdentity(reg, commandID)
					_ = reg.Types()
				default:
					if _, err := a.CaptureAny("x", command{}); err != nil {
						t.Error(err)
					}
					if r, err := a.CaptureAny("x", report{}); err != nil || r.Outcome != capture.Captured {
						t.Error(r, err)
					}
				}
			}
		})
	}
	wg.Wait()
	if reg.Len() != 2 {
		t.Errorf("%d types", reg.Len())
	}
}
