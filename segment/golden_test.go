package segment

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog/entry"
)

var update = flag.Bool("update", false, "write the golden files again")

// EH4, EH5: the bytes are pinned; every part of the format is in this file.
func TestGoldenSegment(t *testing.T) {
	got := newSample().file
	path := filepath.Join("testdata", "golden-v1.seg")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s has changed: the format's version must be raised, or the change undone", path)
	}
}

func golden(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "golden-v1.seg"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReaderReadsTheGoldenSegment(t *testing.T) {
	s, b := newSample(), golden(t)
	h, err := ReadHeader(file{b: b}, "golden")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(h.Identity, testIdentity) || h.Number != 1 || h.Salt != testSalt || h.PlannedSize != MinSegment ||
		h.Created != testStart || h.Size != BlockSize {
		t.Errorf("header: %+v", h)
	}
	start, ok := DecodeStart(b[h.Size:], h.Salt, h.Size)
	if !ok || start.Prev != FirstChain(testRun) || start.BaseTime != baseTime || start.PrevSalt != 0 || start.Detached {
		t.Errorf("start: %+v", start)
	}
	entries, chain, err := readAll(b, h.Salt, h.Size, start.Prev)
	if stop := wantStop(t, err); !stop.Footer || stop.Offset != s.footer.ContentEnd || stop.Unknown || stop.Zero {
		t.Errorf("stopped by %+v", stop)
	}
	if chain != s.end() {
		t.Errorf("state %+v, want %+v", chain, s.end())
	}
	if len(entries) != len(s.drafts) {
		t.Fatalf("%d entries, want %d", len(entries), len(s.drafts))
	}
	for i := range entries {
		if want := wantEntry(&s.drafts[i], uint64(i+1), s.times[i]); !sameEntry(entries[i], want) {
			t.Errorf("entry %+v, want %+v", entries[i], want)
		}
	}
	ft, ok, err := ReadFooter(file{b: b}, int64(len(b)), &h)
	if !ok || err != nil || ft != s.footer {
		t.Errorf("footer %+v, %v, want %+v", ft, err, s.footer)
	}
	if !ft.Continues() || ft.State() != (Chain{chain.Ordinal, chain.Seq, chain.Value, chain.Ordinal}) {
		t.Errorf("the footer's state is %+v", ft.State())
	}
}

// The page alone is enough to read a segment.
func TestPlainDecoderReadsTheGoldenSegment(t *testing.T) {
	s, b := newSample(), golden(t)
	p, err := plainDecode(b)
	if err != nil {
		t.Fatal(err)
	}
	if p.number != 1 || p.salt != testSalt || p.planned != MinSegment || p.created != testStart ||
		!bytes.Equal(p.identity, testIdentity) {
		t.Errorf("header: %+v", p)
	}
	if base := int64(baseTime); p.start != [6]uint64{0, 0, xxhash.Sum64String(testRun), uint64(base), 0, 0} {
		t.Errorf("start: %v", p.start)
	}
	for i, d := range s.drafts {
		e := p.entries[i]
		got := entry.Entry{
			Seq: e.seq, TsInit: e.init, TsPublish: e.publish, Topic: e.topic, Type: e.typ, Payload: e.payload,
			ID: e.id, CorrelationID: e.correlation, CausationID: e.causation,
		}
		for _, k := range e.keys {
			got.Keys = append(got.Keys, entry.Key{Kind: k[0], Value: k[1]})
		}
		if want := wantEntry(&d, uint64(i+1), s.times[i]); !sameEntry(got, want) {
			t.Errorf("entry %+v, want %+v", got, want)
		}
	}
	for i, c := range s.batches {
		body := p.commits[i]
		if le64(body, 56) != c.Flags || le64(body, 32) != c.NextSalt || int64(le64(body, 40)) != c.Time || le64(body, 8) != c.Durable {
			t.Errorf("commit %d: %x, want %+v", i, body, c)
		}
	}
	content := b[:s.footer.ContentEnd]
	contentSHA := sha256.Sum256(content)
	link := append([]byte("runlog segment chain v1\n"), make([]byte, 32)...)
	link = append(link, 1, 0, 0, 0, 0, 0, 0, 0)
	runSHA := sha256.Sum256(append(link, contentSHA[:]...))
	if f := p.footer; !bytes.Equal(f[136:168], runSHA[:]) || le64(f, 80) != nextSalt || le64(f, 88) != 0 || le64(f, 96) != 2 {
		t.Errorf("footer: %x", f)
	}
	for i, want := range []int64{s.footer.MinInit, s.footer.MaxInit, s.footer.MinPublish, s.footer.MaxPublish} {
		if got := int64(le64(p.footer, 48+8*i)); got != want {
			t.Errorf("footer's time %d is %d, want %d", i, got, want)
		}
	}
	marks := 0
	for i, f := range p.frames {
		if f.kind == KindCommit && le64(f.body, 56)&FlagMark != 0 {
			marks++
			if f.offset%4096 != 0 || p.frames[i-1].kind != KindPad {
				t.Errorf("the mark at %d is not the first in a fresh block behind a pad", f.offset)
			}
		}
	}
	if marks != 1 {
		t.Errorf("%d marks", marks)
	}
}

// Both decoders agree on damage too: what the page's decoder refuses, the package's does not take for whole.
func TestPlainDecoderRefusesFlippedBits(t *testing.T) {
	s := newSample()
	for i := 0; i < len(s.file)*8; i += 61 { // every byte is near one of them
		s.file[i/8] ^= 1 << (i % 8)
		if _, err := plainDecode(s.file); err == nil {
			t.Errorf("bit %d was not noticed", i)
		}
		s.file[i/8] ^= 1 << (i % 8)
	}
}
