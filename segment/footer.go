package segment

import (
	"crypto/sha256"
	"errors"
	"hash"
	"io"
)

// Footer ends a sealed segment.
type Footer struct {
	Entries     uint64
	FirstSeq    uint64 // greater than LastSeq when there is no entry
	LastSeq     uint64
	LastOrdinal uint64
	Chain       uint64
	ContentEnd  int64
	MinInit     int64
	MaxInit     int64
	MinPublish  int64
	MaxPublish  int64
	NextSalt    uint64
	Dropped     int64
	Flags       uint64
	ContentSHA  [32]byte
	RunSHA      [32]byte
}

// Continues reports whether another segment follows.
func (f *Footer) Continues() bool { return f.Flags&FlagContinues != 0 }

// State is the chain after the segment. Everything up to a footer is durable.
func (f *Footer) State() Chain {
	return Chain{Ordinal: f.LastOrdinal, Seq: f.LastSeq, Value: f.Chain, Durable: f.LastOrdinal}
}

const shaDomain = "runlog segment chain v1\n"

// RunSHA links a segment's content digest to the one before.
func RunSHA(prev [32]byte, number uint32, content [32]byte) (sum [32]byte) {
	h := sha256.New()
	h.Write([]byte(shaDomain))
	h.Write(prev[:])
	var n [8]byte
	le.PutUint64(n[:], uint64(number))
	h.Write(n[:])
	h.Write(content[:])
	h.Sum(sum[:0])
	return sum
}

// NewContentHash is the hash for Footer.ContentSHA.
func NewContentHash() hash.Hash { return sha256.New() }

// EncodeFooter returns the footer frame for its place, ContentEnd.
func EncodeFooter(f *Footer, salt uint64) []byte {
	buf := make([]byte, FooterSize)
	b := buf[HeadSize:]
	le.PutUint64(b[ftEntries:], f.Entries)
	le.PutUint64(b[ftFirstSeq:], f.FirstSeq)
	le.PutUint64(b[ftLastSeq:], f.LastSeq)
	le.PutUint64(b[ftLastOrdinal:], f.LastOrdinal)
	le.PutUint64(b[ftChain:], f.Chain)
	le.PutUint64(b[ftContentEnd:], uint64(f.ContentEnd))
	le.PutUint64(b[ftMinInit:], uint64(f.MinInit))
	le.PutUint64(b[ftMaxInit:], uint64(f.MaxInit))
	le.PutUint64(b[ftMinPublish:], uint64(f.MinPublish))
	le.PutUint64(b[ftMaxPublish:], uint64(f.MaxPublish))
	le.PutUint64(b[ftNextSalt:], f.NextSalt)
	le.PutUint64(b[ftDropped:], uint64(f.Dropped))
	le.PutUint64(b[ftFlags:], f.Flags)
	copy(b[ftContentSHA:], f.ContentSHA[:])
	copy(b[ftRunSHA:], f.RunSHA[:])
	sealFrame(buf, salt, f.ContentEnd, KindFooter, FooterSize, 0)
	return buf
}

// DecodeFooter verifies and decodes the footer frame at b[0:], which lies at off.
func DecodeFooter(b []byte, salt uint64, off int64) (f Footer, ok bool) {
	fr, st := parseFrame(b, salt, off)
	if st != headValid || fr.Kind != KindFooter || len(fr.Body) != footerBody || !fr.Verify() {
		return f, false
	}
	d := fr.Body
	f = Footer{
		Entries: le.Uint64(d[ftEntries:]), FirstSeq: le.Uint64(d[ftFirstSeq:]), LastSeq: le.Uint64(d[ftLastSeq:]),
		LastOrdinal: le.Uint64(d[ftLastOrdinal:]), Chain: le.Uint64(d[ftChain:]), ContentEnd: int64(le.Uint64(d[ftContentEnd:])),
		MinInit: int64(le.Uint64(d[ftMinInit:])), MaxInit: int64(le.Uint64(d[ftMaxInit:])),
		MinPublish: int64(le.Uint64(d[ftMinPublish:])), MaxPublish: int64(le.Uint64(d[ftMaxPublish:])),
		NextSalt: le.Uint64(d[ftNextSalt:]), Dropped: int64(le.Uint64(d[ftDropped:])), Flags: le.Uint64(d[ftFlags:]),
	}
	copy(f.ContentSHA[:], d[ftContentSHA:])
	copy(f.RunSHA[:], d[ftRunSHA:])
	return f, f.ContentEnd == off
}

// ReadFooter reads the footer at the end of a file of the given size. ok is false if the file does not end in one,
// which for a segment that is still being written is no error; neither is a file that was cut since its size was
// asked.
func ReadFooter(f ReaderAt, size int64, h *Header) (ft Footer, ok bool, err error) {
	off := size - FooterSize
	if off < h.Size || off%8 != 0 {
		return ft, false, nil
	}
	var b [FooterSize]byte
	if n, err := f.ReadAt(b[:], off); n < FooterSize {
		if errors.Is(err, io.EOF) {
			return ft, false, nil
		}
		return ft, false, readError("", off, "reading the footer", err)
	}
	ft, ok = DecodeFooter(b[:], h.Salt, off)
	return ft, ok, nil
}
