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

const (
	seed  = 20261123
	route = 3 // of drafts whose topic and type are in the dictionary
)

func testKinds(t testing.TB, names ...string) *Kinds {
	t.Helper()
	k := &Kinds{}
	for _, name := range names {
		var err error
		if k, _, err = k.With(name); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func textID(t testing.TB, text string) ID {
	t.Helper()
	id, err := ParseID(text)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// fullDraft has every part.
func fullDraft(t testing.TB) Draft {
	return Draft{
		Topic: "exec.command", Type: "SubmitOrder", Payload: []byte{1, 2, 3}, TsInit: 1_700_000_000_000_000_000,
		ID:            textID(t, "00112233-4455-4677-8899-aabbccddeeff"),
		CorrelationID: textID(t, "01020304-0506-4708-890a-0b0c0d0e0f10"),
		CausationID:   textID(t, "11121314-1516-4718-991a-1b1c1d1e1f20"),
		Keys: []Key{
			{ClientOrderID, "C-1"}, {VenueOrderID, "V-1"}, {"strategy", "märz"}, {"strategy", strings.Repeat("x", MaxKeyValue)},
		},
	}
}

// variant keeps those optional parts of a draft that flags name.
func variant(d Draft, flags uint8) Draft {
	if flags&HasID == 0 {
		d.ID = ID{}
	}
	if flags&HasCorrelation == 0 {
		d.CorrelationID = ID{}
	}
	if flags&HasCausation == 0 {
		d.CausationID = ID{}
	}
	if flags&HasKeys == 0 {
		d.Keys = nil
	}
	return d
}

// encode gives a draft's body and flags, by the way that the log takes.
func encode(d *Draft, kinds *Kinds, base, tsPublish int64, route uint32) (body []byte, flags uint8) {
	var b Batch
	b.Add(d, kinds, tsPublish)
	it := b.At(0)
	inline := Route{Topic: string(it.Name[:it.TopicLen]), Type: string(it.Name[it.TopicLen:])}
	body = AppendHead(nil, base, route, inline, it.TsInit, it.TsPublish)
	return append(body, it.Tail...), it.Flags
}

// dictFor knows the draft's route under the number route.
func dictFor(d *Draft, kinds *Kinds, base int64) *Dict {
	dict := NewDict(base)
	dict.SetRoute(route, Route{Topic: d.Topic, Type: d.Type})
	dict.SetKinds(kinds)
	return dict
}

// wantEntry is the entry that a draft becomes.
func wantEntry(d *Draft, seq uint64, tsPublish int64) Entry {
	return Entry{
		Seq: seq, TsInit: d.TsInit, TsPublish: tsPublish, Topic: d.Topic, Type: d.Type, Payload: d.Payload,
		ID: d.ID, CorrelationID: d.CorrelationID, CausationID: d.CausationID, Keys: d.Keys,
	}
}

// same compares what two entries say.
func same(a, b Entry) error {
	switch {
	case a.Seq != b.Seq || a.TsInit != b.TsInit || a.TsPublish != b.TsPublish:
		return fmt.Errorf("seq and times: %d %d %d and %d %d %d", a.Seq, a.TsInit, a.TsPublish, b.Seq, b.TsInit, b.TsPublish)
	case a.Topic != b.Topic || a.Type != b.Type:
		return fmt.Errorf("route: %q %q and %q %q", a.Topic, a.Type, b.Topic, b.Type)
	case a.ID != b.ID || a.CorrelationID != b.CorrelationID || a.CausationID != b.CausationID:
		return fmt.Errorf("ids: %v %v %v and %v %v %v", a.ID, a.CorrelationID, a.CausationID, b.ID, b.CorrelationID, b.CausationID)
	case !bytes.Equal(a.Payload, b.Payload):
		return fmt.Errorf("payload: %x and %x", a.Payload, b.Payload)
	case !slices.Equal(a.Keys, b.Keys):
		return fmt.Errorf("keys: %q and %q", a.Keys, b.Keys)
	}
	return nil
}

// exercise calls everything that a view offers and checks that it agrees with itself.
func exercise(v *View) error {
	e := v.Clone()
	err := same(e, Entry{
		Seq: v.Seq(), TsInit: v.TsInit(), TsPublish: v.TsPublish(), Topic: v.Topic(), Type: v.Type(), Payload: v.Payload(),
		ID: v.ID(), CorrelationID: v.CorrelationID(), CausationID: v.CausationID(), Keys: e.Keys,
	})
	if err != nil {
		return err
	}
	var nos, index int
	v.KeyNos(func(KindNo, []byte) bool { nos++; return true })
	v.IndexKeys(func(kind KindNo, value []byte) bool {
		index++
		if !v.HasKey(kind, string(value)) {
			err = fmt.Errorf("HasKey does not find key (%d, %x) that IndexKeys has", kind, value)
		}
		return true
	})
	if nos != len(e.Keys) || index < nos || index > nos+2 {
		return fmt.Errorf("%d keys, %d numbers, %d to index", len(e.Keys), nos, index)
	}
	if v.IsLifecycle() != e.IsLifecycle() {
		return errors.New("lifecycle")
	}
	return err
}

func wantInvalid(t testing.TB, err error, name string) {
	t.Helper()
	if !errors.Is(err, format.ErrInvalid) {
		t.Errorf("error %v, want ErrInvalid", err)
	} else if !strings.Contains(err.Error(), name) {
		t.Errorf("error %q does not name %q", err, name)
	}
}

// randomDraft keeps all limits.
func randomDraft(rng *rand.Rand, kindNames []string) Draft {
	text := func(limit int) string {
		n := 1 + rng.IntN(limit)
		if rng.IntN(3) > 0 {
			n = 1 + rng.IntN(min(limit, 20))
		}
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.IntN(128))
		}
		return string(b)
	}
	id := func() (id ID) {
		if rng.IntN(2) == 0 {
			for i := range id {
				id[i] = byte(rng.Uint32())
			}
		}
		return id
	}
	times := []int64{0, 1, -1, math.MinInt64, math.MaxInt64, rng.Int64(), -rng.Int64()}
	d := Draft{
		Topic: text(MaxTopic), Type: text(MaxType), TsInit: times[rng.IntN(len(times))],
		ID: id(), CorrelationID: id(), CausationID: id(), Payload: make([]byte, rng.IntN(300)),
	}
	for i := range d.Payload {
		d.Payload[i] = byte(rng.Uint32())
	}
	for range rng.IntN(4) * rng.IntN(4) {
		d.Keys = append(d.Keys, Key{kindNames[rng.IntN(len(kindNames))], text(MaxKeyValue)})
	}
	return d
}
