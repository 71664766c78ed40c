package segment

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
)

var testPrev = Chain{Ordinal: 7, Seq: 40, Value: 0xabcdef, Durable: 6}

// batchOf encodes a batch of two entries behind testPrev, with a commit that a test may spoil before it is sealed.
func batchOf(spoil func(c *Commit), prevChain uint64) []byte {
	var e Encoder
	e.Begin(testSalt, 8192)
	d := testDraft(entry.HasID, testRoutes[1])
	for seq := testPrev.Seq + 1; seq <= testPrev.Seq+2; seq++ {
		it := item(&d, baseTime)
		e.Entry(seq, baseTime, 0, &it)
	}
	c := Commit{Ordinal: testPrev.Ordinal + 1, Durable: testPrev.Ordinal, FirstSeq: testPrev.Seq + 1, LastSeq: testPrev.Seq + 2}
	if spoil != nil {
		spoil(&c)
	}
	return bytes.Clone(e.Commit(&c, prevChain))
}

// respoil changes a sealed batch's commit body and seals the commit again.
func respoil(raw []byte, change func(body []byte)) []byte {
	at := len(raw) - CommitSize
	change(raw[at+HeadSize:])
	sealFrame(raw[at:], testSalt, 8192+int64(at), KindCommit, CommitSize, 0)
	return raw
}

// Each way in which a valid commit can fail to continue the log is refused for a reason of its own.
func TestBrokenChainsAreRefused(t *testing.T) {
	good := func() []byte { return batchOf(nil, testPrev.Value) }
	batch, err := ReadBatch(good(), testSalt, 8192, testPrev)
	if err != nil {
		t.Fatal(err)
	}
	want := Chain{Ordinal: 8, Seq: 42, Value: format.Mix(testPrev.Value + batch.Commit.Digest), Durable: 7}
	if batch.Next != want || len(batch.Raw)+CommitSize != len(good()) || batch.Commit.End() != 8192+int64(len(good())) {
		t.Fatalf("%+v", batch)
	}
	if b, err := ReadBatch(good(), testSalt, 8192, Chain{7, 40, testPrev.Value, 99}); err != nil || b.Next.Durable != 99 {
		t.Errorf("what was once known to be durable is forgotten: %+v, %v", b.Next, err)
	}
	cases := []struct {
		name, why string
		raw       []byte
		at        int64 // offset of the stop; -1: the commit
	}{
		{"ordinal repeated", "ordinal", batchOf(func(c *Commit) { c.Ordinal-- }, testPrev.Value), -1},
		{"ordinal skipped", "ordinal", batchOf(func(c *Commit) { c.Ordinal++ }, testPrev.Value), -1},
		{"first seq", "seq", batchOf(func(c *Commit) { c.FirstSeq++ }, testPrev.Value), -1},
		{"last seq", "seq", batchOf(func(c *Commit) { c.LastSeq++ }, testPrev.Value), -1},
		{"seqs moved", "seq", batchOf(func(c *Commit) { c.FirstSeq++; c.LastSeq++ }, testPrev.Value), -1},
		{"another chain", "chain", batchOf(nil, testPrev.Value+1), -1},
		{"batch start", "does not belong", respoil(good(), func(b []byte) { b[cmBatchStart]++ }), -1},
		{"number of frames", "does not belong", respoil(good(), func(b []byte) { b[cmFrames]++ }), -1},
		{"digest", "digest", respoil(good(), func(b []byte) { b[cmDigest]++ }), 8192},
		{"chain value", "chain", respoil(good(), func(b []byte) { b[cmChain]++ }), -1},
		{"commit sum", "does not validate", func() []byte { b := good(); b[len(b)-1] ^= 1; return b }(), -1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := ReadBatch(c.raw, testSalt, 8192, testPrev)
			stop := wantStop(t, err)
			at := c.at
			if at < 0 {
				at = 8192 + int64(len(c.raw)) - CommitSize
			}
			if !strings.Contains(stop.Why, c.why) || stop.Offset != at || stop.Unknown || stop.Zero || stop.Footer {
				t.Errorf("%+v, want %q at %d", stop, c.why, at)
			}
			if !strings.Contains(stop.Error(), fmt.Sprint(stop.Offset)) {
				t.Errorf("%q does not say where", stop)
			}
		})
	}
}

// CD18: a frame of a fixed size is not taken for one with a byte more or less.
func TestBodiesOfAnotherSizeAreRefused(t *testing.T) {
	for _, n := range []int{0, commitBody - 8, commitBody - 1, commitBody + 1, commitBody + 8} {
		var e Encoder
		e.Begin(testSalt, 8192)
		e.Raw(KindCommit, make([]byte, n))
		_, err := ReadBatch(e.buf, testSalt, 8192, Chain{})
		wantStop(t, err)
		e.Begin(testSalt, 8192)
		e.Raw(KindStart, make([]byte, n))
		if _, ok := DecodeStart(e.buf, testSalt, 8192); ok {
			t.Errorf("start frame with %d bytes", n)
		}
		e.Begin(testSalt, 8192)
		e.Raw(KindFooter, make([]byte, n))
		if _, ok := DecodeFooter(e.buf, testSalt, 8192); ok {
			t.Errorf("footer with %d bytes", n)
		}
	}
}

// CD15, CD17: frames of kinds that this version does not know are skipped if they may be, and reported if not.
func TestUnknownKinds(t *testing.T) {
	for kind := range 256 {
		var e Encoder
		e.Begin(testSalt, 8192)
		e.Raw(0x40, []byte("before"))
		at := e.Next()
		switch f := (Frame{Kind: uint8(kind)}); {
		case kind == KindCommit || f.IsEntry():
			continue
		case kind == KindPad:
			e.PadTo(e.Next() + 64)
		default:
			e.Raw(uint8(kind), make([]byte, 24))
		}
		c := Commit{Ordinal: 1, FirstSeq: 1}
		raw := e.Commit(&c, 0)
		batch, err := ReadBatch(raw, testSalt, 8192, Chain{})
		switch {
		case kind == KindFooter:
			if stop := wantStop(t, err); stop.Offset != at || stop.Footer || stop.Unknown {
				t.Errorf("a footer inside a batch: %+v", stop)
			}
		case kind >= 1 && kind <= 0x0d || kind >= 0x40 && kind < 0x80:
			n := 0
			if err == nil {
				err = Frames(batch.Raw, testSalt, 8192, 1, func(f *Frame) error {
					n++
					return Learn(&Frame{Kind: f.Kind &^ 0x0f, Body: f.Body}, nil) // no dictionary frame: nothing is learned
				})
			}
			if err != nil || n != 2 {
				t.Errorf("kind %#x: %d frames, %v", kind, n, err)
			}
		default:
			if stop := wantStop(t, err); !stop.Unknown || stop.Offset != at {
				t.Errorf("kind %#x: %+v", kind, stop)
			}
		}
	}
}

func TestWhereABatchCouldBegin(t *testing.T) {
	s := newSample()
	if _, err := ReadBatch(make([]byte, 4096), testSalt, 8192, Chain{}); !wantStop(t, err).Zero {
		t.Errorf("zeros: %v", err)
	}
	if _, err := ReadBatch(bytes.Repeat([]byte{0xa5}, 64), testSalt, 8192, Chain{}); wantStop(t, err).Zero {
		t.Errorf("garbage: %v", err)
	}
	if _, err := ReadBatch(nil, testSalt, 8192, Chain{}); !IsShort(err) {
		t.Errorf("nothing: %v", err)
	}
	end := s.footer.ContentEnd
	if _, err := ReadBatch(s.file[end:], testSalt, end, s.end()); !wantStop(t, err).Footer {
		t.Errorf("footer: %v", err)
	}
	var short [HeadSize]byte // a valid head of an entry that claims to be smaller than its own header
	for length := range HeadSize {
		putHead(short[:], testSalt, 8192, KindEntry, length)
		_, err := ReadBatch(short[:], testSalt, 8192, Chain{})
		wantStop(t, err)
	}
	putHead(short[:], testSalt, 8192, KindEntry, MaxFrame) // no allocation, no panic: more bytes are asked for
	if _, err := ReadBatch(short[:], testSalt, 8192, Chain{}); !IsShort(err) || FrameLen(short[:]) != MaxFrame+1 {
		t.Errorf("longest frame: %v, %d", err, FrameLen(short[:]))
	}
}

func TestFramesStopAtTheFirstError(t *testing.T) {
	s := newSample()
	c := s.batches[0]
	raw := bytes.Clone(s.raw(0)[:c.Offset-c.BatchStart])
	stop := errors.New("enough")
	n := 0
	if err := Frames(raw, testSalt, c.BatchStart, 1, func(*Frame) error { n++; return stop }); err != stop || n != 1 {
		t.Errorf("%d frames, %v", n, err)
	}
	raw[StartSize] ^= 1
	err := Frames(raw, testSalt, c.BatchStart, 1, func(*Frame) error { return nil })
	var at *format.Error
	if !errors.Is(err, format.ErrCorrupt) || !errors.As(err, &at) || at.Offset != c.BatchStart+StartSize {
		t.Errorf("%v", err)
	}
}

func TestSkipFrameWalksLikeReadFrame(t *testing.T) {
	s := newSample()
	for _, f := range s.frames(t) {
		size, isEntry, ok := SkipFrame(s.file[f.Offset:], testSalt, f.Offset)
		if !ok || size != f.Size || isEntry != f.IsEntry() || FrameLen(s.file[f.Offset:]) != int(f.Size) {
			t.Errorf("kind %#x: %d bytes, entry %v, %v", f.Kind, size, isEntry, ok)
		}
		if _, _, ok := SkipFrame(s.file[f.Offset:], testSalt, f.Offset+8); ok {
			t.Error("a moved frame was skipped")
		}
		if _, _, ok := SkipFrame(s.file[f.Offset:f.Offset+7], testSalt, f.Offset); ok {
			t.Error("seven bytes were skipped")
		}
	}
	var b [8]byte // a head that would not lead on
	putHead(b[:], testSalt, 4096, KindEntry, 0)
	if _, _, ok := SkipFrame(b[:], testSalt, 4096); ok {
		t.Error("a frame of no bytes was skipped")
	}
}

func learn(kind uint8, body []byte, dict *entry.Dict) error {
	return Learn(&Frame{Kind: kind, Body: body, Offset: 640}, dict)
}

// CD12, CD16: a dictionary frame that is malformed is damage, located, and teaches nothing.
func TestMalformedDictionaryFrames(t *testing.T) {
	text := strings.Repeat
	for name, c := range map[string]struct {
		kind uint8
		body string
	}{
		"route empty":                 {KindRoute, ""},
		"route number 0":              {KindRoute, "\x00\x01tp"},
		"route number cut off":        {KindRoute, "\x80"},
		"route number too big":        {KindRoute, "\x81\x80\x40\x01tp"},
		"route number of 2^64-1":      {KindRoute, text("\xff", 9) + "\x01\x01tp"},
		"route number not shortest":   {KindRoute, "\x81\x00\x01tp"},
		"route without topic":         {KindRoute, "\x01\x00p"},
		"route without lengths":       {KindRoute, "\x01"},
		"route without type":          {KindRoute, "\x01\x01t"},
		"route topic beyond body":     {KindRoute, "\x01\x05tp"},
		"route topic of 2^64-1 bytes": {KindRoute, "\x01" + text("\xff", 9) + "\x01tp"},
		"route topic too long":        {KindRoute, "\x01\x80\x02" + text("t", 256) + "p"},
		"route type too long":         {KindRoute, "\x01\x01t" + text("p", 256)},
		"route length not shortest":   {KindRoute, "\x01\x81\x00tp"},
		"route topic not UTF-8":       {KindRoute, "\x01\x01\xffp"},
		"route type not UTF-8":        {KindRoute, "\x01\x01t\xff"},
		"key kind empty":              {KindKeyKind, ""},
		"key kind without name":       {KindKeyKind, "\x10"},
		"key kind out of order":       {KindKeyKind, "\x11strategy"},
		"key kind below the first":    {KindKeyKind, "\x05strategy"},
		"key kind that is built in":   {KindKeyKind, "\x01" + entry.ClientOrderID},
		"key kind of a built-in name": {KindKeyKind, "\x10" + entry.ClientOrderID},
		"key kind not shortest":       {KindKeyKind, "\x90\x00strategy"},
		"key kind not UTF-8":          {KindKeyKind, "\x10\xff"},
		"key kind too long":           {KindKeyKind, "\x10" + text("k", 65)},
	} {
		t.Run(name, func(t *testing.T) {
			dict := entry.NewDict(0)
			err := learn(c.kind, []byte(c.body), dict)
			var at *format.Error
			if !errors.Is(err, format.ErrCorrupt) || !errors.As(err, &at) || at.Offset != 640 {
				t.Errorf("error %v, want ErrCorrupt at 640", err)
			}
			if len(dict.Routes()) != 1 || len(dict.Kinds().Declared()) != 0 {
				t.Error("something was learned")
			}
		})
	}
}

func TestDictionaryFramesAtTheirLimits(t *testing.T) {
	dict := entry.NewDict(0)
	long := strings.Repeat("x", entry.MaxTopic)
	var e Encoder
	e.Begin(testSalt, 4096)
	e.Route(1, entry.Route{Topic: long, Type: long})
	e.Route(300, entry.Route{Topic: "t", Type: "p"})
	e.KeyKind(16, long[:entry.MaxKindName])
	e.KeyKind(16, long[:entry.MaxKindName]) // again is no harm
	e.KeyKind(17, "é")
	if err := Frames(e.buf, testSalt, 4096, 1, func(f *Frame) error { return Learn(f, dict) }); err != nil {
		t.Fatal(err)
	}
	if r, ok := dict.Route(1); !ok || r.Topic != long || r.Type != long {
		t.Errorf("route 1: %v", r)
	}
	if r, ok := dict.Route(300); !ok || r.Topic != "t" || r.Type != "p" {
		t.Errorf("route 300: %v", r)
	}
	if k := dict.Kinds().Declared(); len(k) != 2 || k[1] != "é" {
		t.Errorf("kinds %q", k)
	}
}

// Cost is what the writer counts with: an entry and the dictionary frame that it needs never take more.
func TestCostBoundsWhatAnEntryTakes(t *testing.T) {
	long := strings.Repeat("x", 255)
	for flags := range uint8(16) {
		for _, r := range []entry.Route{{Topic: "t", Type: "p"}, {Topic: long, Type: long}} {
			for payload := range 17 {
				for _, no := range []uint32{0, 1, 16383, 1 << 20} {
					d := testDraft(flags, r)
					d.Payload, d.TsInit = make([]byte, payload), math.MinInt64
					var b entry.Batch
					b.Add(&d, testKinds, math.MaxInt64)
					it := b.At(0)
					var e Encoder
					e.Begin(testSalt, 4096)
					if no != 0 {
						e.Route(no, r)
					}
					e.Entry(1, -1, no, &it)
					if took := e.Next() - 4096; took > int64(b.Cost(0)) {
						t.Fatalf("flags %04b, route %d, %d bytes of payload: took %d, Cost says %d", flags, no, payload, took, b.Cost(0))
					}
				}
			}
		}
	}
}

func TestEncodingDoesNotAllocate(t *testing.T) {
	d := testDraft(15, testRoutes[1])
	it := item(&d, baseTime)
	var e Encoder
	var c Commit
	fill := func() {
		e.Begin(testSalt, 4096)
		e.Start(Start{BaseTime: baseTime})
		e.Route(1, testRoutes[1])
		e.KeyKind(16, "strategy")
		for seq := range uint64(100) {
			e.Entry(seq+1, baseTime, 1, &it)
		}
		e.PadTo(e.Next() + 4096)
		c = Commit{Ordinal: 1, FirstSeq: 1, LastSeq: 100}
		if raw := e.Commit(&c, 1); int64(len(raw)) != c.End()-4096 {
			t.Fatal("wrong length")
		}
	}
	fill()
	if n := testing.AllocsPerRun(20, fill); n != 0 {
		t.Errorf("encoding: %v allocations", n)
	}
	raw, prev := e.buf, Chain{Value: 1}
	if n := testing.AllocsPerRun(20, func() {
		if _, err := ReadBatch(raw, testSalt, 4096, prev); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("reading: %v allocations", n)
	}
}

func TestEncoderGivesBackLargeMemory(t *testing.T) {
	var e Encoder
	e.Begin(testSalt, 4096)
	e.Raw(0x40, make([]byte, 1000))
	e.Release(10_000)
	if cap(e.buf) == 0 {
		t.Error("a small buffer was given back")
	}
	e.Release(100)
	if cap(e.buf) != 0 {
		t.Error("a large buffer was kept")
	}
	e.Begin(testSalt, 4096)
	e.PadTo(4096) // nothing to pad
	e.PadTo(0)
	if e.Next() != 4096 || e.frames != 0 {
		t.Errorf("an empty pad took %d bytes", e.Next()-4096)
	}
}
