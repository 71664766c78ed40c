package segment

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
)

// CD11: a part of a batch is never taken for a batch.
func TestTruncatedBatchesAreNeverWhole(t *testing.T) {
	s := newSample()
	for i, c := range s.batches {
		raw := s.raw(i)
		for n := range raw {
			_, err := ReadBatch(raw[:n:n], testSalt, c.BatchStart, s.before[i])
			if !IsShort(err) {
				t.Fatalf("batch %d, %d of %d bytes: %v", i, n, len(raw), err)
			}
			zeroed := make([]byte, len(raw)) // the file is full of zeros behind what was written
			copy(zeroed, raw[:n])
			if bytes.Equal(zeroed, raw) {
				continue
			}
			if _, err = ReadBatch(zeroed, testSalt, c.BatchStart, s.before[i]); err == nil {
				t.Fatalf("batch %d with zeros from byte %d of %d on was accepted", i, n, len(raw))
			}
		}
	}
}

// EH2, EH8: whatever changes in a batch is noticed.
func TestEveryFlippedBitOfABatchIsNoticed(t *testing.T) {
	s := newSample()
	for i, c := range s.batches {
		raw := s.raw(i)
		flip(raw, func(bit int) {
			_, err := ReadBatch(raw, testSalt, c.BatchStart, s.before[i])
			var stop *Stop
			if !errors.As(err, &stop) && !IsShort(err) {
				t.Errorf("batch %d, bit %d: %v", i, bit, err)
			}
			if stop != nil && (stop.Offset < c.BatchStart || stop.Offset > c.Offset || stop.Unknown || stop.Footer) {
				t.Errorf("batch %d, bit %d: stopped by %+v", i, bit, stop)
			}
		})
		if _, err := ReadBatch(raw, testSalt, c.BatchStart, s.before[i]); err != nil {
			t.Fatalf("batch %d: %v", i, err)
		}
	}
}

// frames are all frames of the sample's batches, commits included.
func (s *sample) frames(t testing.TB) (all []Frame) {
	t.Helper()
	for i, c := range s.batches {
		seq := c.FirstSeq
		for off := c.BatchStart; off < c.End(); {
			f, err := ReadFrame("f", s.file[off:], testSalt, off, seq)
			if err != nil {
				t.Fatalf("batch %d, offset %d: %v", i, off, err)
			}
			if f.IsEntry() {
				seq++
			}
			all = append(all, f)
			off += f.Size
		}
	}
	return all
}

// frameBytes is a copy of a frame, cut off behind its padding.
func (s *sample) frameBytes(f *Frame) []byte { return bytes.Clone(s.file[f.Offset : f.Offset+f.Size]) }

func TestEveryFlippedBitOfAFrameIsNoticed(t *testing.T) {
	s := newSample()
	for _, f := range s.frames(t) {
		b := s.frameBytes(&f)
		flip(b, func(bit int) {
			_, err := ReadFrame("f", b, testSalt, f.Offset, f.Seq)
			if !errors.Is(err, format.ErrCorrupt) && !IsShort(err) {
				t.Errorf("kind %#x at %d, bit %d: %v", f.Kind, f.Offset, bit, err)
			}
		})
		for n := range b {
			if _, err := ReadFrame("f", b[:n:n], testSalt, f.Offset, f.Seq); err == nil || n >= 8 && !IsShort(err) {
				t.Errorf("kind %#x at %d, %d of %d bytes: %v", f.Kind, f.Offset, n, len(b), err)
			}
		}
	}
}

// EH7, EH8: a frame validates where it was written, as what it was written, and nowhere else.
func TestMovedFramesNeverValidate(t *testing.T) {
	s := newSample()
	for _, f := range s.frames(t) {
		b := s.frameBytes(&f)
		if _, err := ReadFrame("f", b, testSalt, f.Offset, f.Seq); err != nil {
			t.Fatal(err)
		}
		refused := func(what string, salt uint64, off int64, seq uint64) {
			t.Helper()
			if _, err := ReadFrame("f", b, salt, off, seq); !errors.Is(err, format.ErrCorrupt) && !IsShort(err) {
				t.Errorf("kind %#x at %d: %s: %v", f.Kind, f.Offset, what, err)
			}
		}
		for _, by := range []int64{8, -8, 512, 4096, -4096, f.Size, -f.Size, 1 << 20} {
			refused("moved", testSalt, f.Offset+by, f.Seq)
		}
		for bit := range 64 {
			refused("in another segment", testSalt^1<<bit, f.Offset, f.Seq)
		}
		if f.IsEntry() {
			for _, seq := range []uint64{0, f.Seq - 1, f.Seq + 1, f.Seq << 32, ^f.Seq} {
				refused("with another seq", testSalt, f.Offset, seq)
			}
		}
	}
}

func TestDuplicatedOrDroppedFramesAreNoticed(t *testing.T) {
	s := newSample()
	c := s.batches[0]
	raw := s.raw(0)
	for _, f := range s.frames(t) {
		if f.Offset >= c.Offset {
			break
		}
		at := f.Offset - c.BatchStart
		twice := append(bytes.Clone(raw[:at+f.Size]), raw[at:]...)
		dropped := append(bytes.Clone(raw[:at]), raw[at+f.Size:]...)
		for what, b := range map[string][]byte{"twice": twice, "dropped": dropped} {
			if _, err := ReadBatch(b, testSalt, c.BatchStart, s.before[0]); err == nil {
				t.Errorf("frame at %d %s was accepted", f.Offset, what)
			}
		}
	}
}

// swap exchanges two entries of equal size, head and all: each is whole, but not where it was written.
func TestSwappedEntriesAreNoticed(t *testing.T) {
	var e Encoder
	e.Begin(testSalt, 4096)
	d := testDraft(0, testRoutes[1])
	it := item(&d, baseTime)
	e.Entry(1, baseTime, 0, &it)
	size := e.Next() - 4096
	e.Entry(2, baseTime, 0, &it)
	c := Commit{Ordinal: 1, FirstSeq: 1, LastSeq: 2}
	raw := bytes.Clone(e.Commit(&c, 0))
	if _, err := ReadBatch(raw, testSalt, 4096, Chain{}); err != nil {
		t.Fatal(err)
	}
	a, b := bytes.Clone(raw[:size]), raw[size:2*size]
	copy(raw, b)
	copy(raw[size:], a)
	wantStop(t, func() error { _, err := ReadBatch(raw, testSalt, 4096, Chain{}); return err }())
}

// EH1 to EH3, CD5: the digest of a batch depends on every field of every entry, seq included, and on nothing else.
func TestDigestCoversEveryField(t *testing.T) {
	type input struct {
		d       entry.Draft
		seq     uint64
		publish int64
	}
	base := func() input { return input{testDraft(15, testRoutes[1]), 42, baseTime + 1} }
	digest := func(in input) (uint64, uint64) {
		var e Encoder
		e.Begin(testSalt, 4096)
		it := item(&in.d, in.publish)
		e.Entry(in.seq, baseTime, 0, &it)
		c := Commit{Ordinal: 1, FirstSeq: in.seq, LastSeq: in.seq}
		raw := e.Commit(&c, 0)
		return c.Digest, le.Uint64(raw[8:]) // and the frame's sum
	}
	want, wantSum := digest(base())
	if again, sum := digest(base()); again != want || sum != wantSum {
		t.Error("the same entry has another digest")
	}
	seen := map[uint64]string{want: "the baseline"}
	for name, change := range map[string]func(*input){
		"seq":         func(in *input) { in.seq++ },
		"ts_init":     func(in *input) { in.d.TsInit++ },
		"ts_publish":  func(in *input) { in.publish++ },
		"both times":  func(in *input) { in.publish++; in.d.TsInit++ },
		"topic":       func(in *input) { in.d.Topic += "x" },
		"type":        func(in *input) { in.d.Type += "x" },
		"split":       func(in *input) { in.d.Topic, in.d.Type = in.d.Topic+in.d.Type[:1], in.d.Type[1:] },
		"payload":     func(in *input) { in.d.Payload[0] ^= 1 },
		"id":          func(in *input) { in.d.ID[15] ^= 1 },
		"no id":       func(in *input) { in.d.ID = entry.ID{} },
		"correlation": func(in *input) { in.d.CorrelationID[0] ^= 1 },
		"causation":   func(in *input) { in.d.CausationID[7] ^= 1 },
		"ids swapped": func(in *input) { in.d.CorrelationID, in.d.CausationID = in.d.CausationID, in.d.CorrelationID },
		"key value":   func(in *input) { in.d.Keys[0].Value = "C-2" },
		"key kind":    func(in *input) { in.d.Keys[0].Kind = entry.VenueOrderID },
		"key order":   func(in *input) { in.d.Keys[0], in.d.Keys[1] = in.d.Keys[1], in.d.Keys[0] },
		"no keys":     func(in *input) { in.d.Keys = nil },
	} {
		in := base()
		change(&in)
		got, sum := digest(in)
		if seen[got] != "" || sum == wantSum {
			t.Errorf("%s: the digest is that of %s", name, seen[got])
		}
		seen[got] = name
	}
}

func TestHeadsNeverStraddleASector(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var e Encoder
	for round := range 200 {
		off := int64(BlockSize + 8*rng.IntN(1000))
		e.Begin(rng.Uint64(), off)
		var heads []int64
		note := func() { heads = append(heads, e.Next()) }
		for i := range 50 {
			note()
			switch rng.IntN(6) {
			case 0:
				e.Raw(0x40, make([]byte, rng.IntN(700)))
			case 1:
				e.Route(uint32(i+1), entry.Route{Topic: string(bytes.Repeat([]byte{'t'}, 1+rng.IntN(255))), Type: "p"})
			case 2:
				e.PadTo(e.Next() + 8*int64(1+rng.IntN(100)))
			default:
				d := testDraft(uint8(rng.IntN(16)), testRoutes[1])
				d.Payload = make([]byte, rng.IntN(700))
				it := item(&d, baseTime)
				e.Entry(uint64(i+1), baseTime, 1, &it)
			}
		}
		for _, at := range heads {
			if at%8 != 0 || at/512 != (at+wordSize-1)/512 {
				t.Fatalf("round %d: a head at %d", round, at)
			}
		}
	}
}

// Evidence behind damage: every commit is found, at whatever offset the search starts, and nothing else is.
func TestFindCommitsFindsAllAndNothingElse(t *testing.T) {
	s := newSample()
	find := func(b []byte, salt uint64, off int64) (found []Commit) {
		FindCommits(b, salt, off, func(c Commit) bool { found = append(found, c); return true })
		return found
	}
	body := s.file[BlockSize:]
	for from := 0; from < len(body); from += 8 {
		var want []Commit
		for _, c := range s.batches {
			if c.Offset >= BlockSize+int64(from) {
				want = append(want, c)
			}
		}
		got := find(body[from:], testSalt, BlockSize+int64(from))
		if len(got) != len(want) {
			t.Fatalf("from %d: %d commits, want %d", from, len(got), len(want))
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("from %d: %+v, want %+v", from, got[i], want[i])
			}
		}
	}
	if got := find(body, testSalt+1, BlockSize); len(got) != 0 {
		t.Errorf("commits of another segment: %v", got)
	}
	if got := find(body, testSalt, BlockSize+8); len(got) != 0 {
		t.Errorf("commits that were moved: %v", got)
	}
	n := 0
	FindCommits(body, testSalt, BlockSize, func(Commit) bool { n++; return false })
	if n != 1 {
		t.Errorf("the search went on: %d", n)
	}
	garbage := bytes.Clone(body) // damage in front of, between and behind commits
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range garbage {
		at := int64(i) + BlockSize
		inCommit := false
		for _, c := range s.batches {
			inCommit = inCommit || at >= c.Offset && at < c.End()
		}
		if !inCommit {
			garbage[i] = byte(rng.Uint32())
		}
	}
	if got := find(garbage, testSalt, BlockSize); len(got) != len(s.batches) {
		t.Errorf("%d commits among garbage, want %d", len(got), len(s.batches))
	}
	last := s.batches[len(s.batches)-1]
	for n := int64(1); n <= CommitSize; n++ { // a commit that is cut off is none
		cut := s.file[last.Offset : last.End()-n]
		if got := find(cut, testSalt, last.Offset); len(got) != 0 {
			t.Fatalf("a commit without its last %d bytes was found", n)
		}
	}
	frame := bytes.Clone(s.file[last.Offset:last.End()])
	flip(frame, func(bit int) {
		if got := find(frame, testSalt, last.Offset); len(got) != 0 {
			t.Errorf("bit %d: %+v", bit, got)
		}
		if _, ok := ReadCommit(frame, testSalt, last.Offset); ok {
			t.Errorf("bit %d: ReadCommit", bit)
		}
	})
	if c, ok := ReadCommit(frame, testSalt, last.Offset); !ok || c != last {
		t.Errorf("%+v, %v", c, ok)
	}
}

func TestFirstChainIsTheRunIDsHash(t *testing.T) {
	if c := FirstChain(testRun); c != (Chain{Value: xxhash.Sum64String(testRun)}) || c == FirstChain(testRun+"x") {
		t.Errorf("%+v", c)
	}
}
