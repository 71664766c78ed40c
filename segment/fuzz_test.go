package segment

import (
	"bytes"
	"errors"
	"testing"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
)

// resealFrames makes the heads and sums of all frames of b right, as far as their lengths lead, so that hostile
// bodies get past them.
func resealFrames(b []byte, salt uint64, off int64, seq uint64) {
	for at := 0; at+HeadSize <= len(b); {
		word := le.Uint32(b[at:])
		length, kind := int(word&MaxFrame), uint8(word>>24)
		size := format.Align8(length)
		if length < HeadSize || at+size > len(b) {
			return
		}
		var n uint64
		if kind&0xf0 == KindEntry {
			seq++
			n = seq
		}
		if kind == KindPad {
			putHead(b[at:], salt, off+int64(at), kind, length)
		} else {
			sealFrame(b[at:at+size], salt, off+int64(at), kind, length, n)
		}
		at += size
	}
}

// FuzzReadBatch reads hostile bytes as a log, as they are and with all heads and sums made right. What is accepted is
// consistent.
func FuzzReadBatch(f *testing.F) {
	s := newSample()
	for i := range s.batches {
		f.Add(s.raw(i), s.batches[i].BatchStart, uint64(testSalt), s.before[i].Ordinal, s.before[i].Seq, s.before[i].Value, false)
	}
	f.Add(s.file[BlockSize:], int64(BlockSize), uint64(testSalt), uint64(0), uint64(0), s.before[0].Value, true)
	f.Add(make([]byte, 64), int64(8192), uint64(1), uint64(0), uint64(0), uint64(0), false)
	f.Fuzz(func(t *testing.T, b []byte, off int64, salt, ordinal, seq, value uint64, reseal bool) {
		off = off & (MaxSegment - 1) &^ 7
		b = bytes.Clone(b)
		if reseal {
			resealFrames(b, salt, off, seq)
		}
		prev := Chain{Ordinal: ordinal, Seq: seq, Value: value}
		dict := entry.NewDict(0)
		for at := int64(0); ; {
			batch, err := ReadBatch(b[at:], salt, off+at, prev)
			if err != nil {
				var stop *Stop
				if !IsShort(err) && (!errors.As(err, &stop) || stop.Offset < off+at || stop.Offset > off+int64(len(b))) {
					t.Fatal(err)
				}
				break
			}
			c := &batch.Commit
			if c.Ordinal != prev.Ordinal+1 || c.FirstSeq != prev.Seq+1 || c.BatchStart != off+at || c.End() > off+int64(len(b)) {
				t.Fatalf("%+v after %+v", c, prev)
			}
			last := prev.Seq
			err = Frames(batch.Raw, salt, c.BatchStart, c.FirstSeq, func(f *Frame) error {
				if f.IsEntry() {
					last++
					if v, err := entry.ParseView(dict, f.Seq, f.Flags(), f.Body); err == nil {
						_ = v.Clone()
					}
				}
				if err := Learn(f, dict); err != nil && !errors.Is(err, format.ErrCorrupt) {
					t.Fatal(err)
				}
				return nil
			})
			if err != nil || last != c.LastSeq {
				t.Fatalf("last seq %d, commit says %d: %v", last, c.LastSeq, err)
			}
			prev, at = batch.Next, c.End()-off
		}
		FindCommits(b, salt, off, func(c Commit) bool {
			if got, ok := ReadCommit(b[c.Offset-off:], salt, c.Offset); !ok || got != c {
				t.Fatalf("%+v", c)
			}
			return true
		})
		_, _ = DecodeStart(b, salt, off)
		_, _ = DecodeFooter(b, salt, off)
		if f, err := ReadFrame("f", b, salt, off, seq); err == nil && f.Size > int64(len(b)) {
			t.Fatal("a frame goes beyond its bytes")
		}
		if size, _, ok := SkipFrame(b, salt, off); ok && size < 8 {
			t.Fatalf("size %d", size)
		}
	})
}

// FuzzReadHeader reads hostile headers, as they are and with the checksum made right. What is accepted can be written
// again.
func FuzzReadHeader(f *testing.F) {
	s := newSample()
	f.Add(s.file[:BlockSize], false)
	f.Add(EncodeHeader(Header{Number: 9, Identity: make([]byte, 5000)}), true)
	f.Add([]byte(format.MagicIndex), false)
	f.Fuzz(func(t *testing.T, b []byte, fix bool) {
		b = bytes.Clone(b)
		if fix && len(b) >= format.PreludeSize {
			if n := int(le.Uint32(b[12:])); n <= len(b) && n >= format.PreludeSize {
				resum(b[:n:n])
			}
		}
		h, err := ReadHeader(file{b: b}, "f")
		if err != nil {
			if !errors.Is(err, format.ErrCorrupt) && !errors.Is(err, format.ErrVersion) && !errors.Is(err, format.ErrWrongKind) {
				t.Fatal(err)
			}
			return
		}
		if h.Size < BlockSize || h.Size > int64(len(b)) || h.Number == 0 {
			t.Fatalf("%+v", h)
		}
		again, err := ReadHeader(file{b: EncodeHeader(h)}, "f")
		if err != nil || again.Number != h.Number || again.Salt != h.Salt || !bytes.Equal(again.Identity, h.Identity) {
			t.Fatalf("%+v, %v", again, err)
		}
		if ft, ok, err := ReadFooter(file{b: b}, int64(len(b)), &h); err != nil || ok && ft.ContentEnd != int64(len(b))-FooterSize {
			t.Fatalf("%+v, %v", ft, err)
		}
	})
}
