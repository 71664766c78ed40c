package slow

import (
	"bytes"
	"io"
	"strings"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// compressed.md. The codecs themselves are other people's standards, and are not written again here.

// packed is a compressed segment, decompressed: what cannot be had of the plain file is filled with bytes that are nothing
// in a log.
type packed struct {
	verdict Verdict // of the header
	plain   []byte
	lost    []lost
}

// lost is a part of the plain file that a damaged piece at offset at of the compressed file takes.
type lost struct{ from, to, at int64 }

// expand puts plain files in the place of the compressed ones that have none beside them.
func (l *Log) expand() {
	files := map[string][]byte{}
	for name, b := range l.files {
		files[name] = b
	}
	l.packed = map[string]*packed{}
	for _, n := range l.numbers(".segz") {
		name := SegmentName(n)
		if _, there := l.files[name]; there {
			continue // the plain one counts, alone
		}
		p := l.unpack(name + "z")
		l.packed[name], files[name] = p, p.plain
	}
	l.files = files
}

// fileOf is the name of the file that a segment is in.
func (l *Log) fileOf(name string) string {
	if l.packed[name] != nil {
		return name + "z"
	}
	return name
}

// unpack decompresses a file, and files what is wrong with it.
func (l *Log) unpack(name string) *packed {
	b := l.files[name]
	p := &packed{}
	_, salt, verdict := prelude(b, "runlogSZ")
	if p.verdict = verdict; verdict != Clean {
		return p
	}
	size := u32(b, 12)
	number, codec, blockSize, blocks := u32(b, 32), u32(b, 36), int64(u32(b, 40)), int64(u32(b, 44))
	start, end, fileSize := int64(u64(b, 48)), int64(u64(b, 56)), int64(u64(b, 64))
	if size == 128 && codec != 1 && codec != 2 {
		p.verdict = Version
		return p
	}
	indexAt := 128 + start
	blocksAt := indexAt + (blocks+11)/12*64
	footerAt := int64(len(b)) - footerFrame
	if size != 128 || number == 0 || blockSize < 4096 || blockSize > 1<<20 || blockSize&(blockSize-1) != 0 || start < 4096 || start > 1<<20 || start%4096 != 0 ||
		end < start || end%8 != 0 || end > 8<<32 || blocks != (end-start+blockSize-1)/blockSize || fileSize != int64(len(b)) || blocksAt+8*blocks > footerAt {
		p.verdict = Corrupt
		return p
	}
	p.plain = bytes.Repeat([]byte{0xa5}, int(end+footerFrame))
	copy(p.plain, b[128:indexAt])
	copy(p.plain[end:], b[footerAt:])
	if s, ok := openSegment(name, p.plain); ok == Clean && (s.number != number || s.salt != salt || s.headerSize != start) {
		l.find(name, "the plain header is another segment's")
	}
	next := blocksAt // where the next block must be; -1: nobody knows
	for first := int64(0); first < blocks; first += 12 {
		at := indexAt + first/12*64
		last := min(first+12, blocks)
		places, ok := line(b, at, salt, last-first, func(i int64) int64 { return min(blockSize, end-start-(first+i)*blockSize) }, blocksAt, footerAt)
		if !ok {
			l.find(name, "offset %d: a line of the index", at)
			p.lost = append(p.lost, lost{start + first*blockSize, min(start+last*blockSize, end), at})
			next = -1
			continue
		}
		if next >= 0 && places[0].at != next {
			l.find(name, "offset %d: a block is not where the one before ends", at)
		}
		for i, pl := range places {
			from := start + (first+int64(i))*blockSize
			content := p.plain[from:min(from+blockSize, end)]
			if !unblock(b[pl.at:pl.at+8+pl.size], pl.raw, codec, salt, from, content) {
				l.find(name, "offset %d: a block", pl.at)
				p.lost = append(p.lost, lost{from, from + int64(len(content)), pl.at})
			}
			next = pl.at + 8 + pl.size
		}
	}
	if next >= 0 && next != footerAt {
		l.find(name, "offset %d: bytes behind the last block", next)
	}
	return p
}

// placed is where a block is, its check included.
type placed struct {
	at, size int64
	raw      bool
}

// line reads a line of the index that has count blocks; content says how much each holds.
func line(b []byte, at int64, salt uint64, count int64, content func(i int64) int64, low, high int64) (list []placed, ok bool) {
	if u64(b, at+56) != fmix64(xxh64(b[at:at+56])+salt+uint64(at)) {
		return nil, false
	}
	off := int64(u64(b, at))
	for i := range int64(12) {
		word := u32(b, at+8+4*i)
		if i >= count {
			if word != 0 {
				return nil, false
			}
			continue
		}
		p := placed{at: off, size: int64(word & 0x7fffffff), raw: word>>31 == 1}
		if p.size == 0 || p.size > content(i) || p.raw && p.size != content(i) || off < low || off+8+p.size > high {
			return nil, false
		}
		list = append(list, p)
		off += 8 + p.size
	}
	return list, true
}

// unblock checks a block and decompresses it into content, which stays as it is if that fails.
func unblock(b []byte, raw bool, codec uint32, salt uint64, from int64, content []byte) bool {
	stored := b[8:]
	if u64(b, 0) != fmix64(xxh64(stored)+salt+uint64(from)) {
		return false
	}
	got := stored
	if !raw {
		var err error
		if codec == 2 {
			var n int
			if n, err = s2.DecodedLen(stored); err == nil && n == len(content) {
				got, err = s2.Decode(nil, stored)
			}
		} else {
			var r *zstd.Decoder
			if r, err = zstd.NewReader(bytes.NewReader(stored), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(8<<20)); err == nil {
				got, err = io.ReadAll(io.LimitReader(r, int64(len(content))+1))
				r.Close()
			}
		}
		if err != nil {
			return false
		}
	}
	return len(got) == len(content) && copy(content, got) == len(content)
}

// says reports whether an error at this offset of a segment's file can be the one that slow means with an offset of the
// plain file: it is the same, or that of the piece of the compressed file which takes what stands there.
func (l *Log) says(name string, plain, off int64) bool {
	p := l.packed[strings.TrimSuffix(name, "z")]
	if p == nil || off == plain {
		return off == plain
	}
	if p.verdict != Clean {
		return off >= 0 // somewhere in its header, or where it ends
	}
	for _, g := range p.lost {
		if g.at == off && (g.to > plain || plain == int64(len(p.plain))) { // where the footer is gone too, the whole file is too short
			return true
		}
	}
	return false
}
