package slow

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// README.md, "Rules that all binary files share".

func u16(b []byte, at int64) uint16 { return binary.LittleEndian.Uint16(b[at:]) }
func u32(b []byte, at int64) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
func u64(b []byte, at int64) uint64 { return binary.LittleEndian.Uint64(b[at:]) }

func xxh64(b []byte) uint64 { return xxhash.Sum64(b) }

func fmix64(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return x
}

func align(n, to int64) int64 { return (n + to - 1) / to * to }

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// bites takes values off the front of a piece of bytes. After one that is not there or not in shortest form all are zero.
type bites struct {
	b   []byte
	bad bool
}

func (p *bites) uvarint() uint64 {
	var x uint64
	for i, c := range p.b {
		if i == 9 && c > 1 || i > 9 {
			break // more than 64 bits
		}
		x |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			if i > 0 && c == 0 {
				break // not the shortest form
			}
			p.b = p.b[i+1:]
			return x
		}
	}
	p.fail()
	return 0
}

func (p *bites) zigzag() int64 {
	x := p.uvarint()
	return int64(x>>1) ^ -int64(x&1)
}

func (p *bites) take(n uint64) []byte {
	if n > uint64(len(p.b)) {
		p.fail()
		return nil
	}
	v := p.b[:n]
	p.b = p.b[n:]
	return v
}

func (p *bites) counted() []byte { return p.take(p.uvarint()) }

func (p *bites) fail() { p.b, p.bad = nil, true }

// misfit is where a header that is not good goes wrong: where the file ends too early, at a size that cannot be, else at 0.
func misfit(b []byte) int64 {
	switch {
	case len(b) < 32:
		return int64(len(b))
	case string(b[:8]) != "runlogSG":
		return 0
	}
	switch size := u32(b, 12); {
	case size < 64 || size%64 != 0 || size > 1<<20:
		return 12
	case int64(size) > int64(len(b)):
		return int64(len(b))
	}
	return 0
}

// prelude checks what every binary file starts with, in the order of README.md, and returns the header's size.
func prelude(b []byte, magic string) (headerSize int64, salt uint64, verdict Verdict) {
	if len(b) < 32 {
		return 0, 0, Corrupt
	}
	if got := string(b[:8]); got != magic {
		switch got {
		case "runlogSG", "runlogIX", "runlogFL", "runlogSZ":
			return 0, 0, WrongKind
		}
		return 0, 0, Corrupt
	}
	headerSize = int64(u32(b, 12))
	if headerSize < 64 || headerSize%64 != 0 || headerSize > 1<<20 || headerSize > int64(len(b)) {
		return 0, 0, Corrupt
	}
	header := append([]byte(nil), b[:headerSize]...)
	copy(header[24:32], make([]byte, 8))
	if xxh64(header) != u64(b, 24) {
		return 0, 0, Corrupt
	}
	version := uint16(1)
	if magic == "runlogIX" {
		version = 2
	}
	if u16(b, 8) != version || u16(b, 10) != 0 {
		return 0, 0, Version
	}
	return headerSize, u64(b, 16), Clean
}
