package segment

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog/internal/format"
)

func TestFileNames(t *testing.T) {
	for _, n := range []uint32{1, 9, 10, 12345678, 99999999} {
		if got, ok := ParseFileName(FileName(n)); !ok || got != n || len(FileName(n)) != 12 {
			t.Errorf("%s: %d, %v", FileName(n), got, ok)
		}
	}
	if FileName(1) != "00000001.seg" {
		t.Error(FileName(1))
	}
	for _, bad := range []string{
		"", "00000000.seg", "1.seg", "000000001.seg", "0000000a.seg", "00000001.idx", "00000001.segz", "-0000001.seg", ".0000001.seg",
		"00000001.SEG", "00000001.seg.tmp",
	} {
		if n, ok := ParseFileName(bad); ok {
			t.Errorf("%q is number %d", bad, n)
		}
	}
}

func TestHeaderRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 4096 - 64, 4096 - 63, 100_000, 524288} {
		h := Header{Number: 3, Salt: 5, PlannedSize: 1 << 30, Created: -1, Identity: bytes.Repeat([]byte{'i'}, n)}
		b := EncodeHeader(h)
		h.Size = int64(len(b))
		if len(b)%BlockSize != 0 || len(b) < 64+n || len(b) >= 64+n+BlockSize {
			t.Errorf("identity of %d bytes: header of %d", n, len(b))
		}
		got, err := ReadHeader(file{b: append(b, 0xff)}, "f")
		if err != nil || !bytes.Equal(got.Identity, h.Identity) {
			t.Fatalf("identity of %d bytes: %v", n, err)
		}
		if got.Number != 3 || got.Salt != 5 || got.PlannedSize != 1<<30 || got.Created != -1 || got.Size != h.Size {
			t.Errorf("%+v", got)
		}
	}
}

// EH8, CD7: no flipped bit of a header passes, and each is damage; nothing is taken for another kind or version.
func TestEveryFlippedBitOfAHeaderIsNoticed(t *testing.T) {
	b := EncodeHeader(Header{Number: 1, Salt: testSalt, Identity: testIdentity})
	flip(b, func(bit int) {
		if _, err := ReadHeader(file{b: b}, "f"); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("bit %d: %v", bit, err)
		}
	})
}

// CD9, CD11: a header that is cut off is damage at every length.
func TestTruncatedHeaders(t *testing.T) {
	b := EncodeHeader(Header{Number: 1, Salt: testSalt, Identity: bytes.Repeat([]byte{'i'}, 5000)})
	for n := range b {
		if _, err := ReadHeader(file{b: b[:n:n]}, "f"); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// resum makes a changed header's checksum right.
func resum(b []byte) []byte {
	clear(b[24:32])
	le.PutUint64(b[24:], xxhash.Sum64(b))
	return b
}

// CD6 to CD8, CD10: other kinds, other versions and foreign files have errors of their own.
func TestHeaderErrorsAreTyped(t *testing.T) {
	edit := func(change func(b []byte)) []byte {
		b := EncodeHeader(Header{Number: 1, Salt: testSalt, Identity: testIdentity})
		change(b)
		return resum(b)
	}
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"index":                      {edit(func(b []byte) { copy(b, format.MagicIndex) }), format.ErrWrongKind},
		"filter":                     {edit(func(b []byte) { copy(b, format.MagicFilter) }), format.ErrWrongKind},
		"compressed segment":         {edit(func(b []byte) { copy(b, format.MagicCompressed) }), format.ErrWrongKind},
		"foreign file":               {bytes.Repeat([]byte("foreign "), 1000), format.ErrCorrupt},
		"spare without header":       {make([]byte, 8192), format.ErrCorrupt},
		"newer version":              {edit(func(b []byte) { b[8] = Version + 1 }), format.ErrVersion},
		"newer version, bigger":      {edit(func(b []byte) { b[9] = 0xff }), format.ErrVersion},
		"unknown flags":              {edit(func(b []byte) { b[11] = 0x80 }), format.ErrVersion},
		"number 0":                   {edit(func(b []byte) { b[hdrNumber] = 0 }), format.ErrCorrupt},
		"identity too long":          {edit(func(b []byte) { le.PutUint32(b[hdrIdentitySize:], 4096-63) }), format.ErrCorrupt},
		"identity of 2^32-1 bytes":   {edit(func(b []byte) { le.PutUint32(b[hdrIdentitySize:], 1<<32-1) }), format.ErrCorrupt},
		"header of 64 bytes":         {resum(edit(func(b []byte) { b[12], b[13] = 64, 0 })[:64]), format.ErrCorrupt},
		"header beyond the file":     {edit(func(b []byte) { le.PutUint32(b[12:], 8192) }), format.ErrCorrupt},
		"header above 1 MiB":         {edit(func(b []byte) { le.PutUint32(b[12:], 1<<20+4096) }), format.ErrCorrupt},
		"header of 4 GiB":            {edit(func(b []byte) { le.PutUint32(b[12:], 1<<32-64) }), format.ErrCorrupt},
		"header that is no multiple": {edit(func(b []byte) { le.PutUint32(b[12:], 100) }), format.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadHeader(file{b: c.b}, "some.seg")
			var at *format.Error
			if !errors.Is(err, c.want) || !errors.As(err, &at) || at.Path != "some.seg" {
				t.Errorf("error %v, want %v", err, c.want)
			}
		})
	}
}

// A disk that cannot be read says nothing about the bytes: that is neither damage nor a missing footer.
func TestFailedReadsAreNotDamage(t *testing.T) {
	eio := errors.New("input/output error")
	s := newSample()
	for name, f := range map[string]ReaderAt{
		"at once":                 file{b: s.file, err: eio},
		"behind the first block":  failing{file{b: EncodeHeader(Header{Number: 1, Identity: make([]byte, 9000)})}, eio},
		"inside of a short block": failing{file{b: make([]byte, 10)}, eio},
	} {
		if _, err := ReadHeader(f, "f"); !errors.Is(err, eio) || errors.Is(err, format.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	h := s.header
	if _, ok, err := ReadFooter(file{err: eio}, int64(len(s.file)), &h); ok || !errors.Is(err, eio) {
		t.Errorf("footer: %v, %v", ok, err)
	}
}

// failing fails reads of more than a block, and those that go beyond the end.
type failing struct {
	file
	err error
}

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.file.ReadAt(p, off)
	if errors.Is(err, io.EOF) || len(p) > BlockSize {
		return 0, f.err
	}
	return n, err
}

func TestFooterRoundTrip(t *testing.T) {
	f := Footer{
		Entries: 1, FirstSeq: 2, LastSeq: 3, LastOrdinal: 4, Chain: 5, ContentEnd: 8192, MinInit: -6, MaxInit: 7, MinPublish: -8,
		MaxPublish: 9, NextSalt: 10, Dropped: 11, Flags: FlagFinal | FlagRecovered, ContentSHA: [32]byte{12}, RunSHA: [32]byte{31: 13},
	}
	b := EncodeFooter(&f, testSalt)
	if len(b) != FooterSize {
		t.Fatalf("%d bytes", len(b))
	}
	if got, ok := DecodeFooter(b, testSalt, 8192); !ok || got != f {
		t.Errorf("%+v", got)
	}
	if f.Continues() {
		t.Error("a final footer continues")
	}
	if _, ok := DecodeFooter(b, testSalt+1, 8192); ok {
		t.Error("the footer of another segment")
	}
	if _, ok := DecodeFooter(b, testSalt, 8200); ok {
		t.Error("a footer that was moved")
	}
	flip(b, func(bit int) {
		if _, ok := DecodeFooter(b, testSalt, 8192); ok {
			t.Errorf("bit %d was not noticed", bit)
		}
	})
	for n := range b {
		if _, ok := DecodeFooter(b[:n:n], testSalt, 8192); ok {
			t.Errorf("%d bytes were accepted", n)
		}
	}
	f.ContentEnd = 4096 // a footer that speaks of another place, sealed for this one
	b = EncodeFooter(&f, testSalt)
	sealFrame(b, testSalt, 8192, KindFooter, FooterSize, 0)
	if _, ok := DecodeFooter(b, testSalt, 8192); ok {
		t.Error("a footer with another content_end")
	}
}

func TestReadFooterTellsSealedFromOpen(t *testing.T) {
	s := newSample()
	size := int64(len(s.file))
	h := s.header
	if ft, ok, err := ReadFooter(file{b: s.file}, size, &h); !ok || err != nil || ft != s.footer {
		t.Fatalf("%v, %v", ok, err)
	}
	open := append(bytes.Clone(s.file), make([]byte, 4096)...)
	for name, c := range map[string]struct {
		b    []byte
		size int64
	}{
		"not cut yet":                 {open, int64(len(open))},
		"no footer":                   {s.file[:s.footer.ContentEnd], s.footer.ContentEnd},
		"cut inside":                  {s.file[:size-8], size - 8},
		"odd size":                    {append(bytes.Clone(s.file), 0), size + 1},
		"header only":                 {s.file[:h.Size], h.Size},
		"empty":                       {nil, 0},
		"cut since its size was read": {s.file, size + 4096},
	} {
		if _, ok, err := ReadFooter(file{b: c.b}, c.size, &h); ok || err != nil {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
	}
}

// EH4, EH6: the chain of SHA-256 is pinned, and its text is lowercase hex.
func TestRunSHAIsPinned(t *testing.T) {
	first := RunSHA([32]byte{}, 1, sha256.Sum256([]byte("content of segment 1")))
	second := RunSHA(first, 2, sha256.Sum256([]byte("content of segment 2")))
	for i, c := range []struct {
		got  [32]byte
		want string
	}{
		{first, "0c99b9b6f71de996973003eabb33cdd97590e85f730049fdf928992b18e13782"},
		{second, "b5000dd827073fbc8ab2963885bd8a3e242355303faf6046b36122bc358707ed"},
	} {
		if got := hex.EncodeToString(c.got[:]); got != c.want {
			t.Errorf("segment %d: %s, want %s", i+1, got, c.want)
		}
	}
	content := sha256.Sum256([]byte("content of segment 2"))
	other := content
	other[0] ^= 1
	for name, sum := range map[string][32]byte{
		"previous": RunSHA([32]byte{}, 2, content), "number": RunSHA(first, 3, content), "content": RunSHA(first, 2, other),
	} {
		if sum == second {
			t.Errorf("the digest does not depend on the %s", name)
		}
	}
	h := NewContentHash()
	h.Write([]byte("content of segment 2"))
	if !bytes.Equal(h.Sum(nil), content[:]) {
		t.Error("the content's hash is not SHA-256")
	}
}
