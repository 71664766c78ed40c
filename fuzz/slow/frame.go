package slow

import (
	"bytes"
	"unicode/utf8"
)

// segment.md, "Kinds".
const (
	kindPad    = 0x01
	kindStart  = 0x02
	kindRoute  = 0x03
	kindKey    = 0x04
	kindCommit = 0x05
	kindFooter = 0x06
	kindHalt   = 0x07
)

func isEntry(kind byte) bool { return kind >= 0x80 && kind <= 0x8f }

func skippable(kind byte) bool { return isNote(kind) || kind >= 0x40 && kind <= 0x7f }

func isNote(kind byte) bool { return kind >= 0x08 && kind <= 0x0d }

func known(kind byte) bool {
	return kind >= kindPad && kind <= kindHalt || isEntry(kind) || skippable(kind)
}

// segment is a segment file whose header is good.
type segment struct {
	name       string
	data       []byte
	number     uint32
	salt       uint64
	headerSize int64
	planned    uint64
	identity   []byte
}

// openSegment reads a segment's header: segment.md, "Header fields".
func openSegment(name string, data []byte) (*segment, Verdict) {
	size, salt, verdict := prelude(data, "runlogSG")
	if verdict != Clean {
		return nil, verdict
	}
	identity := int64(u32(data, 36))
	if size%4096 != 0 || identity > size-64 || u32(data, 32) == 0 || u64(data, 56) != 0 || !allZero(data[64+identity:size]) {
		return nil, Corrupt
	}
	return &segment{name: name, data: data, number: u32(data, 32), salt: salt, headerSize: size,
		planned: u64(data, 40), identity: data[64 : 64+identity]}, Clean
}

// frame is a frame whose first 8 bytes are good: segment.md, "Frame header".
type frame struct {
	kind   byte
	off    int64
	length int64  // without padding
	end    int64  // with padding
	m      uint64 // what check and sum come from
	padded []byte // body and padding
	sum    uint64
}

// frameAt reads the frame at off. ok is false if its check does not pass, or its length is impossible. An unknown kind
// is returned with nothing but its kind.
func (s *segment) frameAt(off int64) (f frame, ok bool) {
	if off+8 > int64(len(s.data)) {
		return f, false
	}
	word := u32(s.data, off)
	m := fmix64(s.salt ^ (uint64(off/8)<<32 | uint64(word)))
	if u32(s.data, off+4) != uint32(m>>32) {
		return f, false
	}
	f = frame{kind: byte(word >> 24), off: off, length: int64(word & 0xffffff), m: m}
	if !known(f.kind) {
		return f, true
	}
	f.end = off + align(f.length, 8)
	if f.end > int64(len(s.data)) {
		return f, false
	}
	if f.kind == kindPad {
		return f, f.length >= 8 && f.length%8 == 0
	}
	if f.length < 16 {
		return f, false
	}
	f.sum, f.padded = u64(s.data, off+8), s.data[off+16:f.end]
	return f, true
}

func (f *frame) body() []byte { return f.padded[:f.length-16] }

// whole checks the sum. seq is 0 for all kinds but entries.
func (s *segment) whole(f frame, seq uint64) bool {
	if f.kind == kindPad {
		return allZero(s.data[f.off+8 : f.end])
	}
	return f.sum == xxh64(f.padded)^fmix64(f.m+seq)
}

// tableAt reads a frame that has the given kind, is whole, and has a body of exactly size bytes.
func (s *segment) tableAt(off int64, kind byte, size int) (body []byte, end int64, ok bool) {
	f, ok := s.frameAt(off)
	if !ok || f.kind != kind || !s.whole(f, 0) || len(f.body()) != size {
		return nil, 0, false
	}
	return f.body(), f.end, true
}

// start is the start body.
type start struct {
	prevOrdinal, prevSeq, prevChain uint64
	baseTime                        int64
	prevSalt                        uint64
	detached                        bool
}

func (s *segment) startAt(off int64) (start, bool) {
	b, _, ok := s.tableAt(off, kindStart, 48)
	if !ok {
		return start{}, false
	}
	return start{u64(b, 0), u64(b, 8), u64(b, 16), int64(u64(b, 24)), u64(b, 32), u64(b, 40)&1 != 0}, true
}

// commit is the commit body.
type commit struct {
	ordinal, durable, firstSeq, lastSeq, nextSalt uint64
	batchStart, frames                            uint32
	final, continues, mark, halt                  bool
	digest, chain                                 uint64
	end                                           int64 // of the frame
}

func (s *segment) commitAt(off int64) (commit, bool) {
	b, end, ok := s.tableAt(off, kindCommit, 80)
	if !ok {
		return commit{}, false
	}
	flags := u64(b, 56)
	return commit{
		ordinal: u64(b, 0), durable: u64(b, 8), firstSeq: u64(b, 16), lastSeq: u64(b, 24), nextSalt: u64(b, 32),
		batchStart: u32(b, 48), frames: u32(b, 52),
		final: flags&1 != 0, continues: flags&2 != 0, mark: flags&4 != 0, halt: flags&8 != 0,
		digest: u64(b, 64), chain: u64(b, 72), end: end,
	}, true
}

// footer is the footer body.
type footer struct {
	entries, firstSeq, lastSeq, lastOrdinal, chain, contentEnd uint64
	minInit, maxInit, minPublish, maxPublish                   int64
	nextSalt, dropped                                          uint64
	final, continues, recovered                                bool
	content, run                                               [32]byte
}

const footerFrame = 8 + 8 + 168

func (s *segment) footerAt(off int64) (footer, bool) {
	b, _, ok := s.tableAt(off, kindFooter, 168)
	if !ok || u64(b, 40) != uint64(off) {
		return footer{}, false
	}
	flags := u64(b, 96)
	return footer{
		entries: u64(b, 0), firstSeq: u64(b, 8), lastSeq: u64(b, 16), lastOrdinal: u64(b, 24), chain: u64(b, 32),
		contentEnd: u64(b, 40), minInit: int64(u64(b, 48)), maxInit: int64(u64(b, 56)), minPublish: int64(u64(b, 64)),
		maxPublish: int64(u64(b, 72)), nextSalt: u64(b, 80), dropped: u64(b, 88),
		final: flags&1 != 0, continues: flags&2 != 0, recovered: flags&4 != 0,
		content: [32]byte(b[104:136]), run: [32]byte(b[136:168]),
	}, true
}

// dict is what a segment has defined so far.
type dict struct {
	baseTime int64
	routes   map[uint64][2]string
	kinds    map[uint64]string // built-in and declared
	next     uint64            // kind to be declared
}

func newDict() *dict {
	return &dict{routes: map[uint64][2]string{}, kinds: map[uint64]string{1: "client_order_id", 2: "venue_order_id"}, next: 16}
}

func text(b []byte, most int) bool { return len(b) >= 1 && len(b) <= most && utf8.Valid(b) }

func (d *dict) route(body []byte) bool {
	p := bites{b: body}
	id, topic := p.uvarint(), p.counted()
	if p.bad || id < 1 || id > 1<<20 || !text(topic, 255) || !text(p.b, 255) {
		return false
	}
	if _, twice := d.routes[id]; twice {
		return false
	}
	d.routes[id] = [2]string{string(topic), string(p.b)}
	return true
}

func (d *dict) kind(body []byte) bool {
	p := bites{b: body}
	id := p.uvarint()
	if p.bad || id != d.next || !text(p.b, 64) {
		return false
	}
	d.kinds[id] = string(p.b)
	d.next++
	return true
}

// entry decodes an entry's body: segment.md, "Entry body".
func (d *dict) entry(kind byte, seq uint64, body []byte) (e Entry, ok bool) {
	p := bites{b: body}
	e.Seq = seq
	route := p.uvarint()
	e.route = route
	if route == 0 {
		topic, typ := p.counted(), p.counted()
		if !text(topic, 255) || !text(typ, 255) {
			return e, false
		}
		e.Topic, e.Type = string(topic), string(typ)
	} else {
		r, defined := d.routes[route]
		if !defined {
			return e, false
		}
		e.Topic, e.Type = r[0], r[1]
	}
	e.TsPublish = int64(uint64(d.baseTime) + p.uvarint())
	e.TsInit = int64(uint64(e.TsPublish) - uint64(p.zigzag()))
	for bit, id := range []*[16]byte{&e.ID, &e.Correlation, &e.Causation} {
		if kind&(1<<bit) == 0 {
			continue
		}
		if copy(id[:], p.take(16)); *id == [16]byte{} {
			return e, false // zeros are not written
		}
	}
	if kind&8 != 0 {
		keys := bites{b: p.counted()}
		if len(keys.b) == 0 {
			return e, false // an empty list is not written
		}
		for len(keys.b) > 0 {
			no, value := keys.uvarint(), keys.counted()
			name, declared := d.kinds[no]
			if !declared {
				return e, false
			}
			e.Keys = append(e.Keys, Key{Kind: name, Value: string(value), no: no})
		}
		p.bad = p.bad || keys.bad
	}
	e.Payload = bytes.Clone(p.b)
	return e, !p.bad
}
