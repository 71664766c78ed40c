package entry

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/runlog-io/runlog/internal/format"
)

// CD14, CD16: each limit can be reached and not passed, and the error names the field.
func TestDraftLimits(t *testing.T) {
	kinds := testKinds(t, "strategy")
	const maxPayload = 1000
	text := func(n int) string { return strings.Repeat("x", n) }
	keys := func(n int) []Key {
		k := make([]Key, n)
		for i := range k {
			k[i] = Key{"strategy", "v"}
		}
		return k
	}
	cases := []struct {
		name string
		set  func(d *Draft)
		bad  string // what the error names; "" is fine
	}{
		{"everything small", func(*Draft) {}, ""},
		{"topic of the limit", func(d *Draft) { d.Topic = text(MaxTopic) }, ""},
		{"topic above the limit", func(d *Draft) { d.Topic = text(MaxTopic + 1) }, "topic"},
		{"no topic", func(d *Draft) { d.Topic = "" }, "topic"},
		{"topic not UTF-8", func(d *Draft) { d.Topic = "a\xff" }, "topic"},
		{"type of the limit", func(d *Draft) { d.Type = text(MaxType) }, ""},
		{"type above the limit", func(d *Draft) { d.Type = text(MaxType + 1) }, "type"},
		{"no type", func(d *Draft) { d.Type = "" }, "type"},
		{"type not UTF-8", func(d *Draft) { d.Type = "\xc3(" }, "type"},
		{"no payload", func(d *Draft) { d.Payload = nil }, ""},
		{"payload of the limit", func(d *Draft) { d.Payload = make([]byte, maxPayload) }, ""},
		{"payload above the limit", func(d *Draft) { d.Payload = make([]byte, maxPayload+1) }, "payload"},
		{"keys of the limit", func(d *Draft) { d.Keys = keys(MaxKeys) }, ""},
		{"keys above the limit", func(d *Draft) { d.Keys = keys(MaxKeys + 1) }, "keys"},
		{"key value of the limit", func(d *Draft) { d.Keys = []Key{{"strategy", text(MaxKeyValue)}} }, ""},
		{"key value above the limit", func(d *Draft) { d.Keys = []Key{{"strategy", text(MaxKeyValue + 1)}} }, "key 0"},
		{"no key value", func(d *Draft) { d.Keys = []Key{{"strategy", "v"}, {"strategy", ""}} }, "key 1"},
		{"key value not UTF-8", func(d *Draft) { d.Keys = []Key{{"strategy", "\xfe"}} }, "key 0"},
		{"key of an undeclared kind", func(d *Draft) { d.Keys = []Key{{"desk", "v"}} }, "desk"},
		{"key of no kind", func(d *Draft) { d.Keys = []Key{{"", "v"}} }, "key 0"},
		{"key that is an id", func(d *Draft) { d.Keys = []Key{{KindID, "v"}} }, `"id"`},
		{"key that is a correlation id", func(d *Draft) { d.Keys = []Key{{KindCorrID, "v"}} }, `"correlation_id"`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d := Draft{Topic: "t", Type: "p", Payload: []byte("x")}
			c.set(&d)
			err := d.Check(kinds, maxPayload)
			if c.bad == "" {
				if err != nil {
					t.Fatal(err)
				}
				body, flags := encode(&d, kinds, 0, 0, 0)
				dict := NewDict(0)
				dict.SetKinds(kinds)
				if !hostile(t, dict, flags, body) {
					t.Error("a draft within the limits cannot be read back")
				}
				return
			}
			wantInvalid(t, err, c.bad)
		})
	}
	d := Draft{Topic: "t", Type: "p", Keys: []Key{{"desk", "v"}}}
	if err := d.Check(kinds, 0); !errors.Is(err, format.ErrUnknownKind) {
		t.Errorf("error %v, want ErrUnknownKind", err)
	}
}

func TestLargestEntryKeepsItsLimit(t *testing.T) {
	d := Draft{
		Topic: strings.Repeat("t", MaxTopic), Type: strings.Repeat("p", MaxType), Payload: make([]byte, MaxPayload),
		TsInit: math.MinInt64, ID: ID{1}, CorrelationID: ID{1}, CausationID: ID{1},
	}
	for range MaxKeys {
		d.Keys = append(d.Keys, Key{ClientOrderID, strings.Repeat("v", MaxKeyValue)})
	}
	if err := d.Check(nil, MaxPayload); err != nil {
		t.Fatal(err)
	}
	body, flags := encode(&d, nil, 0, math.MaxInt64, 0)
	if len(body) > MaxEntry {
		t.Errorf("%d bytes, MaxEntry is %d", len(body), MaxEntry)
	}
	if !hostile(t, NewDict(0), flags, body) {
		t.Error("the largest entry cannot be read back")
	}
}

// CD4: repeated keys stay as many as they were.
func TestEqualKeysKeepTheirNumber(t *testing.T) {
	d := Draft{Topic: "t", Type: "p"}
	for range 10 {
		d.Keys = append(d.Keys, Key{ClientOrderID, "C"})
	}
	body, flags := encode(&d, nil, 0, 0, 0)
	v, err := ParseView(NewDict(0), 1, flags, body)
	if err != nil {
		t.Fatal(err)
	}
	if e := v.Clone(); len(e.Keys) != 10 {
		t.Errorf("%d keys", len(e.Keys))
	}
}

func TestBatchKeepsOrderAndContent(t *testing.T) {
	names := []string{ClientOrderID, VenueOrderID, "a", "b"}
	kinds := testKinds(t, "a", "b")
	rng := rand.New(rand.NewPCG(seed, 2))
	var b Batch
	for round := range 5 {
		var drafts []Draft
		for i := range 100 {
			d := randomDraft(rng, names)
			drafts = append(drafts, d)
			scratch := d
			scratch.Payload = bytes.Clone(d.Payload)
			before := b.Bytes()
			b.Add(&scratch, kinds, int64(i))
			if got := b.Bytes() - before; got > d.Size() {
				t.Fatalf("a draft took %d bytes of the arena, Size said %d", got, d.Size())
			}
			clear(scratch.Payload) // the batch has a copy
		}
		if b.Len() != len(drafts) {
			t.Fatalf("round %d: %d drafts", round, b.Len())
		}
		dict := NewDict(0)
		dict.SetKinds(kinds)
		for i := range drafts {
			it := b.At(i)
			body := AppendHead(nil, 0, 0, Route{string(it.Name[:it.TopicLen]), string(it.Name[it.TopicLen:])}, it.TsInit, it.TsPublish)
			v, err := ParseView(dict, 1, it.Flags, append(body, it.Tail...))
			if err != nil {
				t.Fatal(err)
			}
			if err := same(v.Clone(), wantEntry(&drafts[i], 1, int64(i))); err != nil {
				t.Fatalf("round %d, draft %d: %v", round, i, err)
			}
			if c := b.Cost(i); c < len(it.Name)+len(it.Tail) {
				t.Errorf("draft %d costs %d", i, c)
			}
		}
		b.Reset(1 << 30)
		if b.Len() != 0 || b.Bytes() != 0 {
			t.Fatal("a reset batch is not empty")
		}
	}
}

func TestResetGivesBackLargeMemory(t *testing.T) {
	var b Batch
	d := Draft{Topic: "t", Type: "p", Payload: make([]byte, 1000)}
	b.Add(&d, nil, 1)
	b.Reset(10_000)
	if cap(b.buf) == 0 {
		t.Error("a small arena was given back")
	}
	b.Reset(100)
	if cap(b.buf) != 0 {
		t.Error("a large arena was kept")
	}
	b.Add(&d, nil, 1)
	if b.Len() != 1 || len(b.At(0).Tail) != 1000 {
		t.Error("the batch cannot be used again")
	}
}

func TestAddingDoesNotAllocate(t *testing.T) {
	names := []string{ClientOrderID}
	for i := range mapFrom {
		names = append(names, fmt.Sprintf("kind %d", i))
	}
	kinds := testKinds(t, names[1:]...)
	d := fullDraft(t)
	d.Keys = []Key{{ClientOrderID, "C"}, {"kind 3", "v"}, {"kind 7", "w"}}
	var b Batch
	fill := func() {
		b.Reset(1 << 20)
		for range 50 {
			b.Add(&d, kinds, 1)
		}
	}
	fill()
	if n := testing.AllocsPerRun(20, fill); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if n := testing.AllocsPerRun(20, func() {
		if d.Check(kinds, 100) != nil || d.Size() == 0 {
			t.Fatal("wrong draft")
		}
	}); n != 0 {
		t.Errorf("checking: %v allocations", n)
	}
}

// What is being written is indexed by its item, what is read by its view: both must find the same.
func TestAnItemHasTheKeysOfItsView(t *testing.T) {
	kinds := testKinds(t, "strategy")
	for flags := range uint8(16) {
		d := variant(fullDraft(t), flags)
		var b Batch
		b.Add(&d, kinds, 7)
		it := b.At(0)
		if it.Flags != flags {
			t.Fatalf("flags are %#x, want %#x", it.Flags, flags)
		}
		body, _ := encode(&d, kinds, 0, 7, 0)
		v, err := ParseView(dictFor(&d, kinds, 0), 1, flags, body)
		if err != nil {
			t.Fatal(err)
		}
		list := func(keys func(func(KindNo, []byte) bool)) (all []string) {
			keys(func(kind KindNo, value []byte) bool { all = append(all, fmt.Sprint(kind, value)); return true })
			return all
		}
		got, want := list(it.IndexKeys), list(v.IndexKeys)
		if !slices.Equal(got, want) {
			t.Errorf("flags %#x: the item has %v, the view %v", flags, got, want)
		}
		for stop := range want {
			n := 0
			it.IndexKeys(func(KindNo, []byte) bool { n++; return n <= stop })
			if n != stop+1 {
				t.Errorf("flags %#x: IndexKeys went on after it was stopped: %d calls, want %d", flags, n, stop+1)
			}
		}
	}
}
