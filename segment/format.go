// Package segment is one file of frames: its header, its frames, its commits and its footer, as docs/format/segment.md
// specifies them. It encodes and decodes bytes; when they are written and synced is the business of package wal, which
// also owns the files. Slices that functions here return borrow from their arguments.
package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
)

// Version is the version of segment files that this build reads and writes.
const Version = 1

// Header layout, behind the prelude.
const (
	hdrNumber       = 32
	hdrIdentitySize = 36
	hdrPlannedSize  = 40
	hdrCreated      = 48
	hdrIdentity     = 64
)

// BlockSize is the unit that headers are padded to and that a sync mark starts afresh.
const BlockSize = 4096

// Frame kinds.
const (
	KindPad       = 0x01
	KindStart     = 0x02
	KindRoute     = 0x03
	KindKeyKind   = 0x04
	KindCommit    = 0x05
	KindFooter    = 0x06
	KindHalt      = 0x07
	KindAnchor    = uint8(entry.NoteAnchor) // notes, which have no seq
	KindStateHash = uint8(entry.NoteStateHash)
	KindStreams   = uint8(entry.NoteStreams)
	KindCursor    = uint8(entry.NoteCursor)
	KindMarker    = uint8(entry.NoteMarker)
	KindMarkerGap = uint8(entry.NoteGap)
	KindEntry     = 0x80 // the low four bits are entry.HasID and so on
)

// EntryFlags are the bits of an entry frame's kind that say which optional parts its body has.
const EntryFlags = 0x0f

// Sizes of frames and their parts, in bytes.
const (
	wordSize    = 8  // word and check
	HeadSize    = 16 // word, check and sum
	MaxFrame    = 1<<24 - 1
	startBody   = 48
	commitBody  = 80
	footerBody  = 168
	StartSize   = HeadSize + startBody
	CommitSize  = HeadSize + commitBody
	FooterSize  = HeadSize + footerBody
	MaxSegment  = 1 << 32 // bytes, the option's upper bound; offsets are kept divided by 8 in 32 bits
	MinSegment  = 64 << 10
	TailReserve = 32 << 10 // kept free for the closing commit, a halt record and the footer
)

// Start body layout.
const (
	stPrevOrdinal = 0
	stPrevSeq     = 8
	stPrevChain   = 16
	stBaseTime    = 24
	stPrevSalt    = 32
	stFlags       = 40
)

// Commit body layout.
const (
	cmOrdinal    = 0
	cmDurable    = 8
	cmFirstSeq   = 16
	cmLastSeq    = 24
	cmNextSalt   = 32
	cmTime       = 40
	cmBatchStart = 48
	cmFrames     = 52
	cmFlags      = 56
	cmDigest     = 64
	cmChain      = 72 // last, so that a commit does not end in zeros
)

// Footer body layout.
const (
	ftEntries     = 0
	ftFirstSeq    = 8
	ftLastSeq     = 16
	ftLastOrdinal = 24
	ftChain       = 32
	ftContentEnd  = 40
	ftMinInit     = 48
	ftMaxInit     = 56
	ftMinPublish  = 64
	ftMaxPublish  = 72
	ftNextSalt    = 80
	ftDropped     = 88
	ftFlags       = 96
	ftContentSHA  = 104
	ftRunSHA      = 136
)

// Flags of commits and footers.
const (
	FlagFinal     = 1 << 0 // the run ends here
	FlagContinues = 1 << 1 // the segment with salt NextSalt follows
	FlagMark      = 1 << 2 // commit: sync mark
	FlagHalt      = 1 << 3 // commit: its batch holds a halt record
	FlagRecovered = 1 << 2 // footer: written by recovery
)

// FlagDetached on a start frame: the segment holds nothing but a halt record, outside the chain.
const FlagDetached = 1 << 0

var le = binary.LittleEndian

// FileName is the name of segment number n.
func FileName(n uint32) string { return fmt.Sprintf("%08d.seg", n) }

// ParseFileName is the inverse of FileName.
func ParseFileName(name string) (n uint32, ok bool) {
	if len(name) != 12 || name[8:] != ".seg" {
		return 0, false
	}
	for _, c := range name[:8] {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint32(c-'0')
	}
	return n, n > 0
}

// Header is what a segment file starts with.
type Header struct {
	Number      uint32
	Salt        uint64
	PlannedSize int64
	Created     int64
	Identity    []byte
	Size        int64 // of the header; the first frame starts there
}

// EncodeHeader returns the header's bytes.
func EncodeHeader(h Header) []byte {
	size := (hdrIdentity + len(h.Identity) + BlockSize - 1) / BlockSize * BlockSize
	b := make([]byte, size)
	le.PutUint32(b[hdrNumber:], h.Number)
	le.PutUint32(b[hdrIdentitySize:], uint32(len(h.Identity)))
	le.PutUint64(b[hdrPlannedSize:], uint64(h.PlannedSize))
	le.PutUint64(b[hdrCreated:], uint64(h.Created))
	copy(b[hdrIdentity:], h.Identity)
	format.SealHeader(b, format.MagicSegment, Version, h.Salt)
	return b
}

// ReaderAt is what ReadHeader and ReadFooter read from.
type ReaderAt interface {
	ReadAt(p []byte, off int64) (int, error)
}

// ReadHeader reads and verifies a segment's header. An error that wraps format.ErrCorrupt is about the bytes; a read that
// failed is returned as it is, since it says nothing about them.
func ReadHeader(f ReaderAt, path string) (Header, error) {
	b := make([]byte, BlockSize)
	n, err := f.ReadAt(b, 0)
	if n < len(b) && err != nil && !errors.Is(err, io.EOF) {
		return Header{}, readError(path, 0, "reading the header", err)
	}
	size, err := format.HeaderSize(path, b[:n], format.MagicSegment)
	if err != nil {
		return Header{}, err
	}
	if size > n {
		b = make([]byte, size)
		if n, err = f.ReadAt(b, 0); n < size && err != nil && !errors.Is(err, io.EOF) {
			return Header{}, readError(path, 0, "reading the header", err)
		}
	}
	p, err := format.OpenHeader(path, b[:n], format.MagicSegment, Version)
	if err != nil {
		return Header{}, err
	}
	h := Header{
		Number: le.Uint32(b[hdrNumber:]), Salt: p.Salt, Size: int64(p.HeaderSize),
		PlannedSize: int64(le.Uint64(b[hdrPlannedSize:])), Created: int64(le.Uint64(b[hdrCreated:])),
	}
	idn := le.Uint32(b[hdrIdentitySize:])
	if p.HeaderSize%BlockSize != 0 || uint64(hdrIdentity)+uint64(idn) > uint64(p.HeaderSize) || h.Number == 0 {
		return h, &format.Error{Path: path, Offset: hdrNumber, Why: "header fields do not fit", Err: format.ErrCorrupt}
	}
	h.Identity = bytes.Clone(b[hdrIdentity : hdrIdentity+idn]) // who keeps it need not keep the block
	return h, nil
}

// readError locates an error of a read, unless the reader has done so: a compressed segment knows better what is damaged.
func readError(path string, off int64, why string, err error) error {
	if at := (*format.Error)(nil); errors.As(err, &at) {
		return err
	}
	return &format.Error{Path: path, Offset: off, Why: why, Err: err}
}

// mixHead is the value that a frame's check and sum derive from.
func mixHead(salt uint64, off int64, word uint32) uint64 {
	return format.Mix(salt ^ (uint64(off)/8<<32 | uint64(word)))
}

// putHead writes word and check.
func putHead(b []byte, salt uint64, off int64, kind uint8, length int) (m uint64) {
	word := uint32(length) | uint32(kind)<<24
	m = mixHead(salt, off, word)
	le.PutUint32(b, word)
	le.PutUint32(b[4:], uint32(m>>32))
	return m
}

// sealFrame writes head and sum of the frame b, which is padded to a multiple of 8 and whose length without padding
// is length.
func sealFrame(b []byte, salt uint64, off int64, kind uint8, length int, seq uint64) {
	m := putHead(b, salt, off, kind, length)
	le.PutUint64(b[8:], xxhash.Sum64(b[HeadSize:])^format.Mix(m+seq))
}

// Frame is one frame in place.
type Frame struct {
	Kind   uint8
	Offset int64  // in the file
	Size   int64  // with padding
	Seq    uint64 // of an entry, else 0
	Body   []byte // without padding; nil for pads
	mix    uint64
	raw    []byte // everything behind word, check and sum, padding included
	sum    uint64
}

// IsEntry reports whether the frame is an entry's.
func (f *Frame) IsEntry() bool { return f.Kind&0xf0 == KindEntry }

// IsNote reports whether the frame is a note's.
func (f *Frame) IsNote() bool { return entry.NoteKind(f.Kind).Valid() }

// Flags are the entry flags in the kind.
func (f *Frame) Flags() uint8 { return f.Kind &^ KindEntry }

// Verify checks the sum, for the seq in f.Seq.
func (f *Frame) Verify() bool {
	if f.Kind == KindPad {
		for _, c := range f.raw {
			if c != 0 {
				return false
			}
		}
		return true
	}
	return xxhash.Sum64(f.raw)^format.Mix(f.mix+f.Seq) == f.sum
}

// headState says what Head found.
type headState uint8

const (
	headValid   headState = iota
	headZero              // eight zero bytes: maybe the end of the log
	headInvalid           // the check fails
	headShort             // valid, but the frame goes beyond the given bytes
)

// parseHead reads and verifies the head of the frame at b[0:], which lies at off, and that b holds all of the frame.
func parseHead(b []byte, salt uint64, off int64) (word uint32, mix uint64, st headState) {
	if len(b) < wordSize {
		return 0, 0, headShort
	}
	word = le.Uint32(b)
	check := le.Uint32(b[4:])
	mix = mixHead(salt, off, word)
	if uint32(mix>>32) != check {
		if word == 0 && check == 0 {
			return word, mix, headZero
		}
		return word, mix, headInvalid
	}
	if length := word & MaxFrame; length < HeadSize && (word>>24 != KindPad || length < wordSize) {
		return word, mix, headInvalid
	}
	if len(b) < sizeOf(word) {
		return word, mix, headShort
	}
	return word, mix, headValid
}

// sizeOf is the size, padding included, of a frame with this word.
func sizeOf(word uint32) int { return format.Align8(int(word & MaxFrame)) }

// parseFrame reads the frame at b[0:], which lies at off. Only the head is verified.
func parseFrame(b []byte, salt uint64, off int64) (f Frame, st headState) {
	word, m, st := parseHead(b, salt, off)
	if st != headValid && st != headShort {
		return f, st
	}
	length := int(word & MaxFrame)
	f = Frame{Kind: uint8(word >> 24), Offset: off, Size: int64(sizeOf(word)), mix: m}
	if st == headShort {
		return f, st
	}
	if f.Kind == KindPad {
		f.raw = b[wordSize:f.Size]
		return f, headValid
	}
	f.sum = le.Uint64(b[8:])
	f.raw = b[HeadSize:f.Size]
	f.Body = b[HeadSize:length]
	return f, headValid
}

// ReadFrame reads and verifies one frame, for an entry with its seq. It is what point reads use.
func ReadFrame(path string, b []byte, salt uint64, off int64, seq uint64) (Frame, error) {
	f, st := parseFrame(b, salt, off)
	if st == headValid {
		if f.IsEntry() {
			f.Seq = seq
		}
		if f.Verify() {
			return f, nil
		}
		st = headInvalid
	}
	if st == headShort && len(b) >= wordSize {
		return f, ErrShort
	}
	return f, &format.Error{Path: path, Offset: off, FirstSeq: seq, Why: "frame does not validate", Err: format.ErrCorrupt}
}

// SkipFrame returns the size and kind of the frame at off, after its head check, for walking to a seq.
func SkipFrame(b []byte, salt uint64, off int64) (size int64, isEntry, ok bool) {
	if len(b) < wordSize {
		return 0, false, false
	}
	word := le.Uint32(b)
	if uint32(mixHead(salt, off, word)>>32) != le.Uint32(b[4:]) {
		return 0, false, false
	}
	n := int64(format.Align8(int(word & MaxFrame)))
	return n, word>>28 == KindEntry>>4, n >= wordSize
}
