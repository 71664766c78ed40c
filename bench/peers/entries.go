package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"
	"unsafe"
)

// item is one entry as a store is given it. A client id stands in the first two of an order's three entries, a venue id in the
// last two: four order ids in three entries.
type item struct {
	payload       []byte
	client, venue string // empty: none
}

// keysPer is the number of ids in so many entries.
func keysPer(entries int) int { return entries / 3 * 4 }

const (
	tableBytes = 16 << 20 // of payloads that are all different: more than a cache holds
	mostKinds  = 1 << 16
)

// source makes entries: a binary event of 64 bytes and its text as JSON, cut to size. The first 8 bytes are the entry's number,
// so each entry is different and tells where it belongs. All memory is used again: items are good until the next ones.
type source struct {
	size  int
	table []byte
	kinds uint64
	items []item
	text  []byte // of the ids in items
}

const idBytes = 16

// newSource makes entries of so many bytes, at most batch of them at a time.
func newSource(size, batch int) *source {
	s := &source{size: size, kinds: uint64(min(mostKinds, tableBytes/size))}
	s.table = make([]byte, 0, int(s.kinds)*size+1024)
	rng := rand.New(rand.NewPCG(20261128, uint64(size)))
	for i := range s.kinds {
		end := len(s.table) + size
		for len(s.table) < end {
			s.table = appendEvent(s.table, rng, i)
		}
		s.table = s.table[:end]
	}
	s.items = make([]item, batch)
	s.text = make([]byte, 2*idBytes*batch)
	return s
}

func appendEvent(dst []byte, rng *rand.Rand, i uint64) []byte {
	var binaryEvent [64]byte
	price, quantity := 10_000+rng.Int64N(500), 100*(1+rng.Int64N(50))
	for j, v := range []uint64{i, uint64(1_700_000_000_000_000_000 + i*200), uint64(price), uint64(quantity), rng.Uint64(), rng.Uint64N(8), i, i} {
		binary.LittleEndian.PutUint64(binaryEvent[8*j:], v)
	}
	dst = append(dst, binaryEvent[:]...)
	return fmt.Appendf(dst, `{"event":"OrderFilled","instrument":"ESZ6","side":"BUY","price":"%d.%02d","quantity":%d,"order":"%016x","trade":%d,"account":"A-%03d"}`,
		price/100, price%100, quantity, rng.Uint64(), i, rng.Uint64N(1000))
}

// payload returns that of the entry with this number, counted from 1.
func (s *source) payload(seq uint64) []byte {
	at := int(seq%s.kinds) * s.size
	p := s.table[at : at+s.size : at+s.size]
	binary.LittleEndian.PutUint64(p, seq)
	return p
}

// copyInto does the same in memory of the caller's, for callers that share a source.
func (s *source) copyInto(buf []byte, seq uint64) {
	at := int(seq%s.kinds) * s.size
	copy(buf[8:], s.table[at+8:at+s.size])
	binary.LittleEndian.PutUint64(buf, seq)
}

// batch returns n entries from a number on, with their ids if they are to have any.
func (s *source) batch(first uint64, n int, keyed bool) []item {
	text := s.text
	for i := range n {
		seq := first + uint64(i)
		it := item{payload: s.payload(seq)}
		if keyed {
			order, part := (seq-1)/3, (seq-1)%3
			if part != 2 {
				it.client, text = clientID(text, order), text[idBytes:]
			}
			if part != 0 {
				it.venue, text = venueID(text, order), text[idBytes:]
			}
		}
		s.items[i] = it
	}
	return s.items[:n]
}

// check says whether a payload is that of the entry with this number.
func (s *source) check(seq uint64, payload []byte) error {
	at := int(seq%s.kinds) * s.size
	if len(payload) != s.size || binary.LittleEndian.Uint64(payload) != seq || !bytes.Equal(payload[8:], s.table[at+8:at+s.size]) {
		return fmt.Errorf("what came back as entry %d is not what was appended as that", seq)
	}
	return nil
}

// clientID writes the id that a client gives an order: 16 digits without order among them, as random ids have none.
func clientID(buf []byte, order uint64) string {
	const digits = "0123456789abcdef"
	v := mix(order)
	for i := range idBytes {
		buf[i] = digits[v>>(60-4*i)&15]
	}
	return text(buf[:idBytes])
}

// venueID writes the id that a venue gives an order: a number that rises.
func venueID(buf []byte, order uint64) string {
	return text(strconv.AppendUint(buf[:0], 6_412_000_000_000+order, 10))
}

// firstSeq is the number of the first entry that carries an order's client id.
func firstSeq(order uint64) uint64 { return 3*order + 1 }

// mix turns numbers into others that look random; no two become the same.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func key(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }
