package book

import (
	"encoding/binary"
	"errors"
	"io"
)

var errSnapshot = errors.New("malformed book")

// Append appends everything that Hash covers, in binary form; Read reads it.
func (b *Book) Append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, b.lastVenue)
	dst = binary.AppendUvarint(dst, b.lastMatch)
	dst = binary.AppendUvarint(dst, uint64(b.openOrders))
	for o := range b.Walk {
		dst = binary.AppendUvarint(dst, o.ID)
		dst = binary.AppendUvarint(dst, o.Venue)
		dst = binary.AppendVarint(dst, o.Price)
		dst = binary.AppendUvarint(dst, uint64(o.Leaves))
		dst = append(dst, byte(o.Side))
	}
	return dst
}

// Read returns the book that Append has written. Orders come in the order of Walk, so each goes behind all others at its
// price and has its old priority.
func Read(r io.ByteReader) (*Book, error) {
	var err error
	next := func() (v uint64) {
		if err == nil {
			v, err = binary.ReadUvarint(r)
		}
		return v
	}
	venue, match, n := next(), next(), next()
	b := New(int(min(n, 1<<20)))
	b.lastVenue, b.lastMatch = venue, match
	for ; n > 0 && err == nil; n-- {
		o := node{id: next(), venue: next()}
		price, leaves := next(), next()
		side, rerr := r.ReadByte()
		if err == nil {
			err = rerr
		}
		o.price, o.leaves, o.side = int64(price>>1)^-int64(price&1), uint32(leaves), Side(side)
		if _, twice := b.byID[o.id]; err == nil && (twice || !o.side.valid() || o.leaves == 0 || uint64(o.leaves) != leaves) {
			err = errSnapshot
		}
		if err == nil {
			b.insert(o)
		}
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}
