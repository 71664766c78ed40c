package format

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// Mix is fmix64, the 64-bit finaliser of MurmurHash3 (Austin Appleby, public domain): a bijection in which every input
// bit affects every output bit.
func Mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return x
}

// Align8 rounds n up to a multiple of 8.
func Align8[T int | int64 | uint32](n T) T { return (n + 7) &^ 7 }

// Check64 is the salted check of a piece of an index or filter file that lies at offset.
func Check64(b []byte, salt uint64, offset int64) uint64 {
	return Mix(xxhash.Sum64(b) + salt + uint64(offset))
}

// Check32 is the low half of Check64.
func Check32(b []byte, salt uint64, offset int64) uint32 { return uint32(Check64(b, salt, offset)) }

// File magics.
const (
	MagicSegment    = "runlogSG"
	MagicIndex      = "runlogIX"
	MagicFilter     = "runlogFL"
	MagicCompressed = "runlogSZ"
)

// Prelude layout; see docs/format/README.md.
const (
	PreludeSize   = 32
	MaxHeaderSize = 1 << 20

	offMagic      = 0
	offVersion    = 8
	offFlags      = 10
	offHeaderSize = 12
	offSalt       = 16
	offHeaderSum  = 24
)

// Prelude is the part that all binary files start with.
type Prelude struct {
	Magic      string
	Version    uint16
	HeaderSize uint32
	Salt       uint64
}

// SealHeader writes the prelude into header, whose length is the header size, and then the header's checksum.
func SealHeader(header []byte, magic string, version uint16, salt uint64) {
	copy(header[offMagic:], magic)
	binary.LittleEndian.PutUint16(header[offVersion:], version)
	binary.LittleEndian.PutUint16(header[offFlags:], 0)
	binary.LittleEndian.PutUint32(header[offHeaderSize:], uint32(len(header)))
	binary.LittleEndian.PutUint64(header[offSalt:], salt)
	binary.LittleEndian.PutUint64(header[offHeaderSum:], 0)
	binary.LittleEndian.PutUint64(header[offHeaderSum:], xxhash.Sum64(header))
}

// HeaderSize reads the header size out of the first bytes of a file, after the magic was checked. The size is bounded but
// not yet verified; OpenHeader does that.
func HeaderSize(path string, b []byte, magic string) (int, error) {
	if len(b) < PreludeSize {
		return 0, &Error{Path: path, Offset: int64(len(b)), Why: "file ends inside its header", Err: ErrCorrupt}
	}
	if got := string(b[:8]); got != magic {
		switch got {
		case MagicSegment, MagicIndex, MagicFilter, MagicCompressed:
			return 0, &Error{Path: path, Offset: 0, Why: fmt.Sprintf("magic is %q, want %q", got, magic), Err: ErrWrongKind}
		}
		return 0, &Error{Path: path, Offset: 0, Why: fmt.Sprintf("magic is %q, want %q", got, magic), Err: ErrCorrupt}
	}
	n := binary.LittleEndian.Uint32(b[offHeaderSize:])
	if n < PreludeSize || n > MaxHeaderSize || n%64 != 0 {
		return 0, &Error{Path: path, Offset: offHeaderSize, Why: fmt.Sprintf("header size %d", n), Err: ErrCorrupt}
	}
	return int(n), nil
}

// OpenHeader verifies a whole header: magic, size, sum and version, in that order.
func OpenHeader(path string, b []byte, magic string, version uint16) (Prelude, error) {
	n, err := HeaderSize(path, b, magic)
	if err != nil {
		return Prelude{}, err
	}
	if len(b) < n {
		return Prelude{}, &Error{Path: path, Offset: int64(len(b)), Why: "file ends inside its header", Err: ErrCorrupt}
	}
	var d xxhash.Digest
	d.Reset()
	var zero [8]byte
	_, _ = d.Write(b[:offHeaderSum])
	_, _ = d.Write(zero[:])
	_, _ = d.Write(b[offHeaderSum+8 : n])
	if d.Sum64() != binary.LittleEndian.Uint64(b[offHeaderSum:]) {
		return Prelude{}, &Error{Path: path, Offset: 0, Why: "header checksum does not match", Err: ErrCorrupt}
	}
	p := Prelude{
		Magic:      magic,
		Version:    binary.LittleEndian.Uint16(b[offVersion:]),
		HeaderSize: uint32(n),
		Salt:       binary.LittleEndian.Uint64(b[offSalt:]),
	}
	if p.Version != version || binary.LittleEndian.Uint16(b[offFlags:]) != 0 {
		why := fmt.Sprintf("version %d, this build reads %d", p.Version, version)
		err := ErrVersion
		if p.Version < version {
			err = ErrOlder
		}
		return p, &Error{Path: path, Offset: offVersion, Why: why, Err: err}
	}
	return p, nil
}
