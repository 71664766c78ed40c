package segment

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/runlog-io/runlog/entry"
)

const (
	testSalt  = 0x0123456789abcdef
	nextSalt  = 0xfedcba9876543210
	testRun   = "20261123T200248.123456789Z-1a2b3c4d"
	baseTime  = 1_795_464_168_123_456_789
	testStart = baseTime - 1_000_000
)

var testIdentity = []byte(`{"run":"` + testRun + `","parent":"","instance":"desk-1",` +
	`"started":1795464168122456789,"origin":"engine"}`)

// sample is a whole segment with everything in it, always the same.
type sample struct {
	header  Header
	drafts  []entry.Draft // of seq 1, 2, ...
	times   []int64       // ts_publish of each
	batches []Commit
	before  []Chain // the state before each batch
	footer  Footer
	file    []byte
}

func (s *sample) end() Chain {
	c := s.batches[len(s.batches)-1]
	return Chain{Ordinal: c.Ordinal, Seq: c.LastSeq, Value: c.Chain, Durable: c.Durable}
}

// raw is batch i with its commit.
func (s *sample) raw(i int) []byte {
	c := s.batches[i]
	return s.file[c.BatchStart:c.End()]
}

var testRoutes = []entry.Route{{}, {Topic: "exec.command", Type: "SubmitOrder"}, {Topic: "märkte.xetra", Type: "Tick"}}

var testKinds = func() *entry.Kinds {
	k, _, err := (&entry.Kinds{}).With("strategy")
	if err != nil {
		panic(err)
	}
	k, _, err = k.With("desk")
	if err != nil {
		panic(err)
	}
	return k
}()

// testDraft has the optional parts that flags name.
func testDraft(flags uint8, r entry.Route) entry.Draft {
	d := entry.Draft{Topic: r.Topic, Type: r.Type, TsInit: baseTime - int64(flags)*1000}
	d.Payload = fmt.Appendf(nil, `{"flags":%d}`, flags)
	for i := range 16 {
		if flags&entry.HasID != 0 {
			d.ID[i] = byte(0x10 + i)
		}
		if flags&entry.HasCorrelation != 0 {
			d.CorrelationID[i] = byte(0x20 + i)
		}
		if flags&entry.HasCausation != 0 {
			d.CausationID[i] = byte(0x30 + i)
		}
	}
	if flags&entry.HasKeys != 0 {
		d.Keys = []entry.Key{{Kind: entry.ClientOrderID, Value: "C-1"}, {Kind: "strategy", Value: "märz"}, {Kind: "desk", Value: "7"}}
	}
	return d
}

func item(d *entry.Draft, tsPublish int64) entry.Item {
	var b entry.Batch
	b.Add(d, testKinds, tsPublish)
	return b.At(0)
}

// writer appends batches to a sample.
type writer struct {
	sample
	enc   Encoder
	chain Chain
	off   int64
	seq   uint64
}

func (w *writer) begin() { w.enc.Begin(w.header.Salt, w.off) }

func (w *writer) entry(route uint32, d entry.Draft) {
	w.seq++
	ts := int64(baseTime) + int64(w.seq)*1000
	it := item(&d, ts)
	w.enc.Entry(w.seq, baseTime, route, &it)
	w.drafts = append(w.drafts, d)
	w.times = append(w.times, ts)
}

func (w *writer) commit(flags, next uint64) {
	c := Commit{
		Ordinal: w.chain.Ordinal + 1, Durable: w.chain.Ordinal, FirstSeq: w.chain.Seq + 1, LastSeq: w.seq, Flags: flags,
		NextSalt: next, Time: baseTime + int64(w.seq)*1000 + 500,
	}
	raw := w.enc.Commit(&c, w.chain.Value)
	w.file = append(w.file, raw...)
	w.before = append(w.before, w.chain)
	w.batches = append(w.batches, c)
	w.chain = Chain{Ordinal: c.Ordinal, Seq: c.LastSeq, Value: c.Chain, Durable: c.Durable}
	w.off = c.End()
}

func newSample() *sample {
	w := &writer{chain: FirstChain(testRun)}
	w.header = Header{
		Number: 1, Salt: testSalt, PlannedSize: MinSegment, Created: testStart, Identity: testIdentity, Size: BlockSize,
	}
	w.file = EncodeHeader(w.header)
	w.off = w.header.Size

	w.begin() // everything that a dictionary holds, and every combination of optional parts
	w.enc.Start(Start{Prev: w.chain, BaseTime: baseTime})
	w.enc.KeyKind(entry.FirstUserKind, "strategy")
	w.enc.KeyKind(entry.FirstUserKind+1, "desk")
	w.enc.Route(1, testRoutes[1])
	for flags := range uint8(16) {
		w.entry(1, testDraft(flags, testRoutes[1]))
	}
	w.commit(0, 0)

	w.begin() // a route in the middle, frames of kinds that a reader may skip, an inline route, an empty payload
	w.entry(1, testDraft(0, testRoutes[1]))
	w.enc.Raw(0x41, []byte("from the future"))
	w.enc.Route(2, testRoutes[2])
	w.enc.Raw(KindStateHash, bytes.Repeat([]byte{7}, 40))
	w.entry(2, testDraft(entry.HasKeys, testRoutes[2]))
	w.entry(0, testDraft(entry.HasID|entry.HasKeys, entry.Route{Topic: "seldom", Type: "Note"}))
	d := testDraft(0, testRoutes[2])
	d.Payload = nil
	w.entry(2, d)
	w.commit(0, 0)

	w.begin() // a sync mark
	w.enc.PadTo((w.off + BlockSize - 1) / BlockSize * BlockSize)
	w.commit(FlagMark, 0)

	w.begin() // a halt record
	w.enc.Raw(KindHalt, []byte(`{"reason":"disk_full","message":"no space left","time":1795464168123456999,`+
		`"accepted":20,"durable":20}`))
	w.commit(FlagHalt, 0)

	w.begin() // the end of the segment
	w.commit(FlagContinues, nextSalt)

	w.footer = Footer{
		Entries: w.seq, FirstSeq: 1, LastSeq: w.seq, LastOrdinal: w.chain.Ordinal, Chain: w.chain.Value, ContentEnd: w.off,
		MinInit: baseTime - 15_000, MaxInit: baseTime, MinPublish: w.times[0], MaxPublish: w.times[w.seq-1],
		NextSalt: nextSalt, Flags: FlagContinues,
	}
	h := NewContentHash()
	h.Write(w.file)
	h.Sum(w.footer.ContentSHA[:0])
	w.footer.RunSHA = RunSHA([32]byte{}, 1, w.footer.ContentSHA)
	w.file = append(w.file, EncodeFooter(&w.footer, testSalt)...)
	return &w.sample
}

func wantEntry(d *entry.Draft, seq uint64, tsPublish int64) entry.Entry {
	return entry.Entry{
		Seq: seq, TsInit: d.TsInit, TsPublish: tsPublish, Topic: d.Topic, Type: d.Type, Payload: d.Payload,
		ID: d.ID, CorrelationID: d.CorrelationID, CausationID: d.CausationID, Keys: d.Keys,
	}
}

func sameEntry(a, b entry.Entry) bool {
	return a.Seq == b.Seq && a.TsInit == b.TsInit && a.TsPublish == b.TsPublish && a.Topic == b.Topic && a.Type == b.Type &&
		bytes.Equal(a.Payload, b.Payload) && a.ID == b.ID && a.CorrelationID == b.CorrelationID && a.CausationID == b.CausationID &&
		slices.Equal(a.Keys, b.Keys)
}

// readAll reads a segment's batches like a reader does, and returns its entries, its state and what stopped it.
func readAll(b []byte, salt uint64, off int64, prev Chain) (entries []entry.Entry, chain Chain, err error) {
	dict := entry.NewDict(0)
	chain = prev
	for {
		batch, err := ReadBatch(b[off:], salt, off, chain)
		if err != nil {
			return entries, chain, err
		}
		err = Frames(batch.Raw, salt, batch.Commit.BatchStart, batch.Commit.FirstSeq, func(f *Frame) error {
			if s, ok := DecodeStart(b[f.Offset:], salt, f.Offset); ok {
				dict.BaseTime = s.BaseTime
			}
			if !f.IsEntry() {
				return Learn(f, dict)
			}
			v, err := entry.ParseView(dict, f.Seq, f.Flags(), f.Body)
			if err == nil {
				entries = append(entries, v.Clone())
			}
			return err
		})
		if err != nil {
			return entries, chain, err
		}
		chain, off = batch.Next, batch.Commit.End()
	}
}

// wantStop checks that a batch was refused, and with which claim.
func wantStop(t testing.TB, err error) *Stop {
	t.Helper()
	var stop *Stop
	if !errors.As(err, &stop) {
		t.Fatalf("error %v, want a Stop", err)
	}
	return stop
}

// flip calls visit with every single bit of b flipped in turn.
func flip(b []byte, visit func(bit int)) {
	for bit := range len(b) * 8 {
		b[bit/8] ^= 1 << (bit % 8)
		visit(bit)
		b[bit/8] ^= 1 << (bit % 8)
	}
}

// file is bytes as a file whose reads can fail.
type file struct {
	b   []byte
	err error
}

func (f file) ReadAt(p []byte, off int64) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	if off >= int64(len(f.b)) {
		return 0, io.EOF
	}
	n := copy(p, f.b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
