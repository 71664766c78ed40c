package entry

import (
	"bytes"
	"testing"
)

// FuzzParseView reads hostile bodies. What is accepted can be read in every way, and what it says survives being
// written again.
func FuzzParseView(f *testing.F) {
	kinds := testKinds(f, "strategy")
	for flags := range uint8(16) {
		d := variant(fullDraft(f), flags)
		for _, r := range []uint32{0, route} {
			body, _ := encode(&d, kinds, 1000, 2000, r)
			f.Add(flags, int64(1000), body)
		}
	}
	f.Fuzz(func(t *testing.T, flags uint8, base int64, body []byte) {
		flags &= 15
		dict := dictFor(&Draft{Topic: "t", Type: "p"}, kinds, base)
		if !hostile(t, dict, flags, body) {
			return
		}
		v, _ := ParseView(dict, 9, flags, body)
		e := v.Clone()
		d := e.Draft()
		if d.Check(kinds, len(body)) != nil {
			return // a body can say what no draft may
		}
		again, f2 := encode(&d, kinds, base, d.TsPublish, v.RouteNo())
		if f2 == flags && !bytes.Equal(again, body) {
			t.Fatalf("two bodies say the same:\n%x\n%x", body, again)
		}
		v2, err := ParseView(dict, 9, f2, again)
		if err != nil {
			t.Fatal(err)
		}
		if err := same(v2.Clone(), e); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzDraftRoundTrip writes any draft that keeps the limits and reads it back.
func FuzzDraftRoundTrip(f *testing.F) {
	kinds := testKinds(f, "strategy")
	f.Add("topic", "type", []byte("payload"), int64(1), int64(2), int64(3), []byte("0123456789abcdef"), "C-1", "märz", uint8(2))
	f.Add("t", "p", []byte{}, int64(-1), int64(1)<<62, int64(-1)<<63, []byte{1}, "", "x", uint8(0))
	f.Fuzz(func(t *testing.T, topic, typ string, payload []byte, base, init, publish int64, ids []byte, v1, v2 string, n uint8) {
		d := Draft{Topic: topic, Type: typ, Payload: payload, TsInit: init}
		d.CausationID = ID(append(ids[len(ids)/2:len(ids):len(ids)], make([]byte, 16)...)[:16])
		copy(d.ID[:], ids)
		copy(d.CorrelationID[:], ids[len(ids)/3:])
		for i := range n % 5 {
			d.Keys = append(d.Keys, []Key{{ClientOrderID, v1}, {"strategy", v2}}[i%2])
		}
		if d.Check(kinds, len(payload)) != nil {
			return
		}
		var b Batch
		b.Add(&d, kinds, publish)
		if b.Bytes() > d.Size() {
			t.Fatalf("%d bytes in the arena, Size says %d", b.Bytes(), d.Size())
		}
		dict := dictFor(&d, kinds, base)
		for _, r := range []uint32{0, route} {
			body, flags := encode(&d, kinds, base, publish, r)
			v, err := ParseView(dict, 3, flags, body)
			if err != nil {
				t.Fatal(err)
			}
			if err := exercise(&v); err != nil {
				t.Fatal(err)
			}
			if err := same(v.Clone(), wantEntry(&d, 3, publish)); err != nil {
				t.Fatal(err)
			}
		}
	})
}
