// Package compressed reads and writes compressed segments, as docs/format/compressed.md specifies them: the content of a
// sealed segment in blocks that are compressed one by one.
//
// A File gives back the plain file's bytes at the plain file's offsets, so that whatever reads a segment reads either kind.
// It owns its descriptor, decompresses on demand into the caller's memory, and keeps no content: caches are the caller's
// business. Encode writes a file; when it is synced, verified and put in the plain one's place is the business of package
// wal. No size that a file claims makes it allocate more than a block, whatever the bytes are.
package compressed

import (
	"encoding/binary"
	"fmt"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/segment"
)

// Version is the version of compressed segments that this build reads and writes.
const Version = 1

// Header layout, behind the prelude.
const (
	hdrNumber       = 32
	hdrCodec        = 36
	hdrBlockSize    = 40
	hdrBlocks       = 44
	hdrContentStart = 48
	hdrContentEnd   = 56
	hdrFileSize     = 64
	hdrReserved     = 72
	headerSize      = 128
)

// Layout of a line of the block index.
const (
	lineFirst  = 0
	lineSizes  = 8
	lineCheck  = 56
	lineSize   = 64
	lineBlocks = 12
	rawBit     = 1 << 31
)

// checkSize is the check in front of a block's stored bytes.
const checkSize = 8

// Bounds of a block's content, in bytes.
const (
	MinBlock     = 4 << 10
	MaxBlock     = 1 << 20
	DefaultBlock = 32 << 10
)

var le = binary.LittleEndian

// Suffix turns the name of a plain segment into that of the compressed one.
const Suffix = "z"

// FileName is the name of compressed segment number n.
func FileName(n uint32) string { return segment.FileName(n) + Suffix }

// ParseFileName is the inverse of FileName.
func ParseFileName(name string) (n uint32, ok bool) {
	if len(name) == 0 || name[len(name)-1:] != Suffix {
		return 0, false
	}
	return segment.ParseFileName(name[:len(name)-1])
}

// header says how a file is laid out.
type header struct {
	number    uint32
	salt      uint64
	codec     Codec
	blockSize int64
	blocks    int64
	start     int64 // of the content in blocks: the size of the plain header
	end       int64 // of the content: the footer's offset
	fileSize  int64
}

func (h *header) indexAt() int64 { return headerSize + h.start }

func (h *header) blocksAt() int64 { return h.indexAt() + lines(h.blocks)*lineSize }

func (h *header) footerAt() int64 { return h.fileSize - segment.FooterSize }

func lines(blocks int64) int64 { return (blocks + lineBlocks - 1) / lineBlocks }

// from and to bound the content of block i.
func (h *header) from(i int64) int64 { return h.start + i*h.blockSize }

func (h *header) to(i int64) int64 { return min(h.from(i)+h.blockSize, h.end) }

// encode returns the header's bytes.
func (h *header) encode() []byte {
	b := make([]byte, headerSize)
	le.PutUint32(b[hdrNumber:], h.number)
	le.PutUint32(b[hdrCodec:], uint32(h.codec))
	le.PutUint32(b[hdrBlockSize:], uint32(h.blockSize))
	le.PutUint32(b[hdrBlocks:], uint32(h.blocks))
	le.PutUint64(b[hdrContentStart:], uint64(h.start))
	le.PutUint64(b[hdrContentEnd:], uint64(h.end))
	le.PutUint64(b[hdrFileSize:], uint64(h.fileSize))
	format.SealHeader(b, format.MagicCompressed, Version, h.salt)
	return b
}

// decodeHeader verifies the first bytes of a file that is size bytes long.
func decodeHeader(path string, b []byte, size int64) (h header, err error) {
	p, err := format.OpenHeader(path, b, format.MagicCompressed, Version)
	if err != nil {
		return h, err
	}
	bad := func(off int64, why string, args ...any) (header, error) {
		return h, &format.Error{Path: path, Offset: off, Why: fmt.Sprintf(why, args...), Err: format.ErrCorrupt}
	}
	if p.HeaderSize != headerSize {
		return bad(12, "header size %d", p.HeaderSize)
	}
	h = header{
		number: le.Uint32(b[hdrNumber:]), salt: p.Salt, codec: Codec(le.Uint32(b[hdrCodec:])),
		blockSize: int64(le.Uint32(b[hdrBlockSize:])), blocks: int64(le.Uint32(b[hdrBlocks:])),
		start: int64(le.Uint64(b[hdrContentStart:])), end: int64(le.Uint64(b[hdrContentEnd:])), fileSize: int64(le.Uint64(b[hdrFileSize:])),
	}
	switch {
	case h.codec != Zstd && h.codec != S2:
		return h, &format.Error{Path: path, Offset: hdrCodec, Why: fmt.Sprintf("codec %d", h.codec), Err: format.ErrVersion}
	case h.number == 0:
		return bad(hdrNumber, "segment number 0")
	case h.blockSize < MinBlock || h.blockSize > MaxBlock || h.blockSize&(h.blockSize-1) != 0:
		return bad(hdrBlockSize, "blocks of %d bytes", h.blockSize)
	case h.start < segment.BlockSize || h.start > format.MaxHeaderSize || h.start%segment.BlockSize != 0:
		return bad(hdrContentStart, "a plain header of %d bytes", h.start)
	case h.end < h.start || h.end%8 != 0 || h.end > maxContent:
		return bad(hdrContentEnd, "content from %d to %d", h.start, h.end)
	case h.blocks != (h.end-h.start+h.blockSize-1)/h.blockSize:
		return bad(hdrBlocks, "%d blocks of %d bytes for content from %d to %d", h.blocks, h.blockSize, h.start, h.end)
	case h.fileSize < h.blocksAt()+h.blocks*checkSize+segment.FooterSize:
		return bad(hdrFileSize, "a file of %d bytes is too short for %d blocks", h.fileSize, h.blocks)
	case h.fileSize != size:
		return bad(min(size, h.fileSize), "the file has %d bytes, its header says %d", size, h.fileSize)
	}
	return h, nil
}

// maxContent bounds the content that a header can claim: offsets divided by 8 have 32 bits in commits and indexes.
const maxContent = 8 << 32

// place is where a block is stored.
type place struct {
	off  int64 // of its check
	size int64 // of its stored bytes
	raw  bool
}

// locate finds block i in its line of the index.
func (h *header) locate(path string, line []byte, i int64) (p place, err *format.Error) {
	at := h.indexAt() + i/lineBlocks*lineSize
	bad := func(why string) (place, *format.Error) {
		return p, &format.Error{Path: path, Offset: at, Why: why, Err: format.ErrCorrupt}
	}
	if le.Uint64(line[lineCheck:]) != format.Check64(line[:lineCheck], h.salt, at) {
		return bad("a line of the block index does not validate")
	}
	first := i - i%lineBlocks
	off := int64(le.Uint64(line[lineFirst:]))
	for k := first; k < first+lineBlocks; k++ {
		word := le.Uint32(line[lineSizes+4*(k-first):])
		if k >= h.blocks {
			if word != 0 {
				return bad(fmt.Sprintf("the block index has a block %d of %d", k+1, h.blocks))
			}
			continue
		}
		p = place{off: off, size: int64(word &^ rawBit), raw: word&rawBit != 0}
		want := h.to(k) - h.from(k)
		if off < h.blocksAt() || p.size == 0 || p.size > want || p.raw && p.size != want || off > h.footerAt()-checkSize-p.size {
			return bad(fmt.Sprintf("the block index places block %d at %d, %d bytes", k, off, p.size))
		}
		if k == i {
			return p, nil
		}
		off += checkSize + p.size
	}
	return bad(fmt.Sprintf("the block index has no block %d", i))
}
