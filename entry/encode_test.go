package entry

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/runlog-io/runlog/internal/format"
)

// EH9, EH10, CD1: every combination of optional parts comes back as it was, with the route in the dictionary or inline.
func TestEveryCombinationOfPartsSurvives(t *testing.T) {
	kinds := testKinds(t, "strategy")
	for flags := range uint8(16) {
		for _, r := range []uint32{0, route} {
			for _, payload := range [][]byte{{1, 2, 3}, nil, bytes.Repeat([]byte{0xff}, 5000)} {
				t.Run(fmt.Sprintf("flags %04b route %d payload %d", flags, r, len(payload)), func(t *testing.T) {
					d := variant(fullDraft(t), flags)
					d.Payload = payload
					body, got := encode(&d, kinds, 1000, 2000, r)
					if got != flags {
						t.Fatalf("flags %04b", got)
					}
					v, err := ParseView(dictFor(&d, kinds, 1000), 42, flags, body)
					if err != nil {
						t.Fatal(err)
					}
					if err := exercise(&v); err != nil {
						t.Error(err)
					}
					if err := same(v.Clone(), wantEntry(&d, 42, 2000)); err != nil {
						t.Error(err)
					}
					if v.RouteNo() != r {
						t.Errorf("route %d", v.RouteNo())
					}
					e := v.Clone()
					again := e.Draft()
					if b, f := encode(&again, kinds, 1000, again.TsPublish, r); !bytes.Equal(b, body) || f != flags {
						t.Error("an entry's draft does not encode to the same bytes")
					}
				})
			}
		}
	}
}

// CD3: extreme signed numbers survive; differences wrap.
func TestExtremeTimesSurvive(t *testing.T) {
	times := []int64{math.MinInt64, math.MinInt64 + 1, -1, 0, 1, 1_700_000_000_000_000_000, math.MaxInt64 - 1, math.MaxInt64}
	d := Draft{Topic: "t", Type: "p"}
	for _, base := range times {
		for _, publish := range times {
			for _, init := range times {
				d.TsInit = init
				body, flags := encode(&d, nil, base, publish, 0)
				v, err := ParseView(NewDict(base), 1, flags, body)
				if err != nil || v.TsInit() != init || v.TsPublish() != publish {
					t.Errorf("base %d, publish %d, init %d: got %d, %d, %v", base, publish, init, v.TsPublish(), v.TsInit(), err)
				}
			}
		}
	}
}

// EH1, CD5: the same entry always gives the same bytes.
func TestEncodingIsDeterministic(t *testing.T) {
	kinds := testKinds(t, "strategy")
	d, e := fullDraft(t), fullDraft(t)
	a, _ := encode(&d, kinds, 1, 2, route)
	b, _ := encode(&e, kinds, 1, 2, route)
	if !bytes.Equal(a, b) {
		t.Errorf("%x\n%x", a, b)
	}
}

// EH3: lengths frame the strings, so that ("ab", "c") and ("a", "bc") are different entries.
func TestTopicAndTypeDoNotRunTogether(t *testing.T) {
	d, e := Draft{Topic: "ab", Type: "c"}, Draft{Topic: "a", Type: "bc"}
	a, flags := encode(&d, nil, 0, 0, 0)
	b, _ := encode(&e, nil, 0, 0, 0)
	if bytes.Equal(a, b) {
		t.Fatal("the bodies are equal")
	}
	v, err := ParseView(NewDict(0), 1, flags, b)
	if err != nil || v.Topic() != "a" || v.Type() != "bc" {
		t.Errorf("%q %q %v", v.Topic(), v.Type(), err)
	}
}

// CD22: arbitrary entries survive a round trip.
func TestArbitraryEntriesSurvive(t *testing.T) {
	names := []string{ClientOrderID, VenueOrderID, "a", "b"}
	kinds := testKinds(t, "a", "b")
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range 2000 {
		d := randomDraft(rng, names)
		if err := d.Check(kinds, len(d.Payload)); err != nil {
			t.Fatal(err)
		}
		base, publish := rng.Int64()-rng.Int64(), rng.Int64()-rng.Int64()
		r := uint32(i%2) * route
		body, flags := encode(&d, kinds, base, publish, r)
		v, err := ParseView(dictFor(&d, kinds, base), 7, flags, body)
		if err != nil {
			t.Fatal(err)
		}
		if err := same(v.Clone(), wantEntry(&d, 7, publish)); err != nil {
			t.Fatalf("draft %d: %v", i, err)
		}
	}
}

// hostile parses a body that may be anything: no panic; an error that wraps ErrCorrupt, or a view that agrees with
// itself.
func hostile(t testing.TB, dict *Dict, flags uint8, body []byte) (ok bool) {
	t.Helper()
	v, err := ParseView(dict, 9, flags, body)
	if err != nil {
		if !errors.Is(err, format.ErrCorrupt) {
			t.Fatalf("error %v, want ErrCorrupt", err)
		}
		return false
	}
	if err := exercise(&v); err != nil {
		t.Fatal(err)
	}
	return true
}

// CD9, CD11, CD13: no truncation of a body is taken for a whole one, as far as the body alone can tell.
func TestTruncatedBodies(t *testing.T) {
	kinds := testKinds(t, "strategy")
	for flags := range uint8(16) {
		for _, r := range []uint32{0, route} {
			d := variant(fullDraft(t), flags)
			body, _ := encode(&d, kinds, 1000, 2000, r)
			dict := dictFor(&d, kinds, 1000)
			for n := range body {
				if ok := hostile(t, dict, flags, body[:n:n]); ok != (n >= len(body)-len(d.Payload)) {
					t.Errorf("flags %04b, route %d: %d of %d bytes: accepted is %v", flags, r, n, len(body), ok)
				}
			}
		}
	}
}

func TestFlippedBitsOfABodyNeverPanic(t *testing.T) {
	kinds := testKinds(t, "strategy")
	d := fullDraft(t)
	d.Keys = d.Keys[:3]
	for _, r := range []uint32{0, route} {
		body, flags := encode(&d, kinds, 1000, 2000, r)
		dict := dictFor(&d, kinds, 1000)
		for i := range len(body) * 8 {
			body[i/8] ^= 1 << (i % 8)
			for f := range uint8(16) {
				hostile(t, dict, f, body)
			}
			body[i/8] ^= 1 << (i % 8)
		}
		hostile(t, dict, flags, body)
	}
}

func uv(n uint64) []byte { return binary.AppendUvarint(nil, n) }

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// CD12 to CD14: lengths and numbers that a body only claims are refused, without allocating what they claim.
func TestMalformedBodies(t *testing.T) {
	dict := NewDict(0)
	dict.SetRoute(1, Route{"t", "p"})
	head := []byte{1, 0, 0}
	huge := uv(math.MaxUint64)
	tooLong := append(bytes.Repeat([]byte{0x80}, 10), 1)
	text := func(n int) []byte { return join(uv(uint64(n)), bytes.Repeat([]byte{'x'}, n)) }
	cases := map[string]struct {
		flags uint8
		body  []byte
	}{
		"empty":                      {0, nil},
		"route without times":        {0, []byte{1}},
		"route that is not defined":  {0, []byte{2, 0, 0}},
		"route number too big":       {0, join(uv(1<<31+1), []byte{0, 0})},
		"route number of 2^64-1":     {0, join(huge, []byte{0, 0})},
		"route longer than shortest": {0, []byte{0x81, 0, 0, 0}},
		"route of 11 bytes":          {0, join(tooLong, []byte{0, 0})},
		"publish not shortest":       {0, []byte{1, 0x80, 0, 0}},
		"init not shortest":          {0, []byte{1, 0, 0x80, 0}},
		"init missing":               {0, []byte{1, 0}},
		"inline topic empty":         {0, join([]byte{0}, text(0), text(1), []byte{0, 0})},
		"inline type empty":          {0, join([]byte{0}, text(1), text(0), []byte{0, 0})},
		"inline topic too long":      {0, join([]byte{0}, text(MaxTopic+1), text(1), []byte{0, 0})},
		"inline type too long":       {0, join([]byte{0}, text(1), text(MaxType+1), []byte{0, 0})},
		"inline topic of 2^64-1":     {0, join([]byte{0}, huge, []byte("topic"))},
		"inline type of 2^64-1":      {0, join([]byte{0}, text(1), huge, []byte("type"))},
		"inline type missing":        {0, join([]byte{0}, text(1))},
		"inline length not shortest": {0, join([]byte{0, 0x81, 0}, []byte("x"), text(1), []byte{0, 0})},
		"id cut off":                 {HasID, join(head, make([]byte, 15))},
		"three ids, room for two":    {HasID | HasCorrelation | HasCausation, join(head, make([]byte, 32))},
		"keys missing":               {HasKeys, head},
		"keys of 2^64-1 bytes":       {HasKeys, join(head, huge)},
		"keys beyond the body":       {HasKeys, join(head, uv(4), []byte{1, 1, 'x'})},
		"key beyond the keys":        {HasKeys, join(head, uv(3), []byte{1, 2, 'x', 'y'})},
		"key value of 2^64-1 bytes":  {HasKeys, join(head, uv(11), []byte{1}, huge)},
		"key without value":          {HasKeys, join(head, uv(1), []byte{1})},
		"key kind too big":           {HasKeys, join(head, uv(6), uv(1<<20+1), []byte{1, 'x', 0})},
		"key kind not shortest":      {HasKeys, join(head, uv(4), []byte{0x81, 0, 1, 'x'})},
		"key length not shortest":    {HasKeys, join(head, uv(4), []byte{1, 0x81, 0, 'x'})},
		"keys length not shortest":   {HasKeys, join(head, []byte{0x83, 0}, []byte{1, 1, 'x'})},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if hostile(t, dict, c.flags, c.body) {
				t.Errorf("%x was accepted", c.body)
			}
		})
	}
	if hostile(t, dict, 0, join(head, make([]byte, 1<<24))) {
		t.Error("a body above 16 MiB was accepted")
	}
}

func TestViewFindsItsKeys(t *testing.T) {
	kinds := testKinds(t, "strategy")
	d := fullDraft(t)
	d.Keys = append(d.Keys, Key{ClientOrderID, "C-2"}, Key{ClientOrderID, "C-1"})
	body, flags := encode(&d, kinds, 0, 0, 0)
	dict := NewDict(0)
	dict.SetKinds(kinds)
	v, err := ParseView(dict, 1, flags, body)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		kind  KindNo
		value string
		want  bool
	}{
		{NoClientOrderID, "C-1", true}, {NoClientOrderID, "C-2", true}, {NoClientOrderID, "C-", false},
		{NoVenueOrderID, "V-1", true}, {NoVenueOrderID, "C-1", false},
		{FirstUserKind, "märz", true}, {FirstUserKind + 1, "märz", false},
		{NoID, string(d.ID[:]), true}, {NoCorrelationID, string(d.CorrelationID[:]), true},
		{NoID, string(d.CorrelationID[:]), false}, {NoCorrelationID, string(d.CausationID[:]), false},
	} {
		if got := v.HasKey(c.kind, c.value); got != c.want {
			t.Errorf("HasKey(%d, %q) is %v", c.kind, c.value, got)
		}
	}
	var all []KindNo
	v.IndexKeys(func(k KindNo, _ []byte) bool { all = append(all, k); return true })
	want := []KindNo{NoID, NoCorrelationID, 1, 2, 16, 16, 1, 1}
	if fmt.Sprint(all) != fmt.Sprint(want) {
		t.Errorf("IndexKeys: %v, want %v", all, want)
	}
	for stop := range len(all) {
		n := 0
		v.IndexKeys(func(KindNo, []byte) bool { n++; return n <= stop })
		if n != stop+1 {
			t.Errorf("IndexKeys went on after it was stopped: %d calls, want %d", n, stop+1)
		}
	}
	n := 0
	v.Keys(func(kind string, _ []byte) bool { n++; return kind != VenueOrderID })
	if n != 2 {
		t.Errorf("Keys went on after it was stopped: %d calls", n)
	}
}

func TestCloneSharesNoMemory(t *testing.T) {
	kinds := testKinds(t, "strategy")
	d := fullDraft(t)
	body, flags := encode(&d, kinds, 0, 5, 0)
	dict := NewDict(0)
	dict.SetKinds(kinds)
	v, err := ParseView(dict, 1, flags, body)
	if err != nil {
		t.Fatal(err)
	}
	e := v.Clone()
	if &v.Payload()[0] != &body[len(body)-len(d.Payload)] {
		t.Error("a view's payload is not in place")
	}
	clear(body)
	if err := same(e, wantEntry(&d, 1, 5)); err != nil {
		t.Error(err)
	}
}

func TestLifecycleEntriesAreKnownByTheirTopic(t *testing.T) {
	for topic, want := range map[string]bool{
		TopicStarted: true, TopicEnded: true, LifecyclePrefix: true, "run.lifecycle": false, "x" + TopicEnded: false, "r": false,
	} {
		if e := (Entry{Topic: topic}); e.IsLifecycle() != want {
			t.Errorf("%q: %v", topic, !want)
		}
	}
}

func TestParsingDoesNotAllocate(t *testing.T) {
	kinds := testKinds(t, "strategy")
	d := fullDraft(t)
	body, flags := encode(&d, kinds, 0, 5, route)
	dict := dictFor(&d, kinds, 0)
	sum := 0
	if n := testing.AllocsPerRun(100, func() {
		v, err := ParseView(dict, 1, flags, body)
		if err != nil {
			t.Fatal(err)
		}
		sum += len(v.Topic()) + len(v.Type()) + len(v.Payload()) + int(v.ID()[0])
		v.Keys(func(kind string, value []byte) bool { sum += len(kind) + len(value); return true })
		if !v.HasKey(NoVenueOrderID, "V-1") || v.IsLifecycle() {
			t.Fatal("wrong view")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAppendHeadKeepsItsBound(t *testing.T) {
	long := string(bytes.Repeat([]byte{'x'}, 255))
	head := AppendHead(nil, math.MaxInt64, 0, Route{long, long}, math.MinInt64, math.MinInt64)
	if len(head) > MaxHead {
		t.Errorf("%d bytes, MaxHead is %d", len(head), MaxHead)
	}
	for _, n := range []uint64{0, 1, 127, 128, 1<<14 - 1, 1 << 14, 1 << 62, 1 << 63, math.MaxUint64} {
		if uvarintLen(n) != len(uv(n)) {
			t.Errorf("uvarintLen(%d) = %d", n, uvarintLen(n))
		}
	}
}

// Numbers of all lengths, with more bytes behind them and without, are what the standard library makes of them; longer than
// shortest forms are refused.
func TestNumbersAreReadAsTheStandardLibraryDoes(t *testing.T) {
	rng := rand.New(rand.NewPCG(28, 11))
	for range 100_000 {
		want := rng.Uint64() >> rng.IntN(64)
		b := binary.AppendUvarint([]byte{0xff}, want)
		end := len(b)
		for range rng.IntN(10) {
			b = append(b, byte(rng.Uint32()))
		}
		if got, next, ok := uvarint(b, 1); got != want || next != end || !ok {
			t.Fatalf("% x: %d up to %d, %v; want %d up to %d", b, got, next, ok, want, end)
		}
		for cut := 1; cut < end; cut++ {
			if got, _, ok := uvarint(b[:cut], 1); ok {
				t.Fatalf("% x: %d", b[:cut], got)
			}
		}
		if end == 11 { // ten bytes: no longer form exists
			continue
		}
		b[end-1] |= 0x80
		long := append(slices.Clone(b[:end]), 0)
		if got, _, ok := uvarint(append(long, b[end:]...), 1); ok {
			t.Fatalf("% x: %d", long, got)
		}
	}
}
