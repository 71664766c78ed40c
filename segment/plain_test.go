package segment

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// This is a second decoder, slow and simple, written from docs/format alone. It shares nothing with the package but the
// hash functions that the page names, and refuses whatever the page does not allow.

type plainFrame struct {
	kind   byte
	offset int
	length int
	seq    uint64
	body   []byte
}

type plainEntry struct {
	seq                        uint64
	topic, typ                 string
	publish, init              int64
	id, correlation, causation [16]byte
	keys                       [][2]string // kind's name, value
	payload                    []byte
}

type plainSegment struct {
	number   uint32
	salt     uint64
	planned  uint64
	created  int64
	identity []byte
	start    [6]uint64
	frames   []plainFrame
	entries  []plainEntry
	commits  [][]byte // bodies
	footer   []byte   // body
}

func le16(b []byte, at int) uint16 { return binary.LittleEndian.Uint16(b[at:]) }
func le32(b []byte, at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
func le64(b []byte, at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }

func plainMix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return x
}

// must is how the decoder refuses; plainDecode turns it into an error.
func must(ok bool, what string, args ...any) {
	if !ok {
		panic(fmt.Errorf(what, args...))
	}
}

// cutUvarint reads LEB128, shortest form.
func cutUvarint(b *[]byte) (n uint64) {
	for i := 0; ; i++ {
		must(i < 10 && len(*b) > 0, "uvarint")
		c := (*b)[0]
		*b = (*b)[1:]
		must(i < 9 || c < 2, "uvarint above 64 bits")
		must(i == 0 || c != 0, "uvarint is not shortest")
		n |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return n
		}
	}
}

func cut(b *[]byte, n uint64) []byte {
	must(n <= uint64(len(*b)), "%d bytes of %d", n, len(*b))
	p := (*b)[:n]
	*b = (*b)[n:]
	return p
}

func plainDecode(b []byte) (s plainSegment, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = r.(error)
		}
	}()
	s.prelude(b)
	topics, types := map[uint64]string{}, map[uint64]string{}
	kinds := map[uint64]string{1: "client_order_id", 2: "venue_order_id"}
	var (
		at         = int(le32(b, 12))
		batchStart = at
		inBatch    int
		ordinal    uint64
		seq        uint64
		firstSeq   uint64
		chain      uint64
	)
	for s.footer == nil {
		f := s.frame(b, at, seq+1)
		next := at + (f.length+7)/8*8
		body := f.body
		if len(s.frames) == 0 {
			must(f.kind == 2, "the first frame is not a start frame")
		}
		switch {
		case f.kind == 1:
			for _, c := range body {
				must(c == 0, "pad")
			}
		case f.kind == 2:
			must(len(s.frames) == 0 && len(body) == 48, "start frame")
			for i := range s.start {
				s.start[i] = le64(body, 8*i)
			}
			ordinal, seq, chain = s.start[0], s.start[1], s.start[2]
			firstSeq = seq + 1
		case f.kind == 3:
			id := cutUvarint(&body)
			topics[id] = string(cut(&body, cutUvarint(&body)))
			types[id] = string(body)
		case f.kind == 4:
			id := cutUvarint(&body)
			must(id >= 16, "key kind %d", id)
			kinds[id] = string(body)
		case f.kind == 5:
			must(len(body) == 80, "commit")
			ordinal++
			digest := xxhash.Sum64(b[batchStart:at])
			chain = plainMix(chain + digest)
			must(le64(body, 0) == ordinal && le64(body, 8) < ordinal, "commit's ordinals")
			must(le64(body, 16) == firstSeq && le64(body, 24) == seq, "commit's seqs")
			must(le64(body, 64) == digest && le64(body, 72) == chain, "commit's digest and chain")
			must(int(le32(body, 48))*8 == batchStart && int(le32(body, 52)) == inBatch, "commit's batch")
			s.commits = append(s.commits, body)
			batchStart, inBatch, firstSeq = next, -1, seq+1
		case f.kind == 6:
			must(inBatch == 0 && next == len(b) && len(body) == 168, "footer")
			must(le64(body, 8) == s.start[1]+1 && le64(body, 16) == seq && le64(body, 0) == uint64(len(s.entries)), "footer's seqs")
			must(le64(body, 24) == ordinal && le64(body, 32) == chain && int(le64(body, 40)) == at, "footer's chain")
			content := sha256.Sum256(b[:at])
			must(string(body[104:136]) == string(content[:]), "content_sha256")
			s.footer = body
		case f.kind >= 0x80 && f.kind <= 0x8f:
			seq++
			s.entries = append(s.entries, plainBody(f, int64(s.start[3]), topics, types, kinds))
		default:
			must(f.kind >= 7 && f.kind <= 0x0d || f.kind >= 0x40 && f.kind <= 0x7f, "kind %#x", f.kind)
		}
		s.frames = append(s.frames, f)
		inBatch++
		at = next
	}
	return s, nil
}

func (s *plainSegment) prelude(b []byte) {
	must(len(b) >= 64 && string(b[:8]) == "runlogSG", "magic")
	size := int(le32(b, 12))
	must(size%4096 == 0 && size > 0 && size <= 1<<20 && size <= len(b), "header size")
	header := append([]byte(nil), b[:size]...)
	clear(header[24:32])
	must(xxhash.Sum64(header) == le64(b, 24), "header sum")
	must(le16(b, 8) == 1 && le16(b, 10) == 0, "version")
	s.salt, s.number, s.planned, s.created = le64(b, 16), le32(b, 32), le64(b, 40), int64(le64(b, 48))
	must(le64(b, 56) == 0 && s.number >= 1, "number")
	s.identity = header[64 : 64+le32(b, 36)]
	for _, c := range header[64+len(s.identity):] {
		must(c == 0, "zeros behind the identity")
	}
}

// frame reads the frame at b[p:], for an entry with the seq that it must have.
func (s *plainSegment) frame(b []byte, p int, seq uint64) (f plainFrame) {
	must(p%8 == 0 && p+8 <= len(b), "frame at %d", p)
	word := le32(b, p)
	m := plainMix(s.salt ^ (uint64(p/8)<<32 | uint64(word)))
	must(uint32(m>>32) == le32(b, p+4), "check at %d", p)
	f = plainFrame{kind: byte(word >> 24), offset: p, length: int(word & 0xffffff)}
	end := p + (f.length+7)/8*8
	must(f.length >= 8 && end <= len(b), "length at %d", p)
	if f.kind == 1 {
		f.body = b[p+8 : end]
		return f
	}
	must(f.length >= 16, "length at %d", p)
	if f.kind >= 0x80 {
		f.seq = seq
	}
	f.body = b[p+16 : p+f.length]
	must(xxhash.Sum64(b[p+16:end])^plainMix(m+f.seq) == le64(b, p+8), "sum at %d", p)
	for _, c := range b[p+f.length : end] {
		must(c == 0, "padding at %d", p)
	}
	return f
}

func plainBody(f plainFrame, base int64, topics, types, kinds map[uint64]string) (e plainEntry) {
	b := f.body
	e.seq = f.seq
	route := cutUvarint(&b)
	if route == 0 {
		e.topic = string(cut(&b, cutUvarint(&b)))
		e.typ = string(cut(&b, cutUvarint(&b)))
	} else {
		must(topics[route] != "", "route %d", route)
		e.topic, e.typ = topics[route], types[route]
	}
	e.publish = base + int64(cutUvarint(&b))
	zz := cutUvarint(&b)
	diff := int64(zz / 2)
	if zz%2 == 1 {
		diff = -diff - 1
	}
	e.init = e.publish - diff
	for i, id := range []*[16]byte{&e.id, &e.correlation, &e.causation} {
		if f.kind>>i&1 == 1 {
			*id = [16]byte(cut(&b, 16))
		}
	}
	if f.kind>>3&1 == 1 {
		keys := cut(&b, cutUvarint(&b))
		for len(keys) > 0 {
			kind := cutUvarint(&keys)
			must(kinds[kind] != "", "key kind %d", kind)
			e.keys = append(e.keys, [2]string{kinds[kind], string(cut(&keys, cutUvarint(&keys)))})
		}
	}
	e.payload = b
	return e
}
