package format

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/cespare/xxhash/v2"
)

// Known values of MurmurHash3's finaliser.
func TestMixIsFmix64(t *testing.T) {
	for in, want := range map[uint64]uint64{
		0:                  0,
		1:                  0xb456bcfc34c2cb2c,
		2:                  0x3abf2a20650683e7,
		0xffffffffffffffff: 0x64b5720b4b825f21,
		0x0123456789abcdef: mixByPage(0x0123456789abcdef),
	} {
		if got := Mix(in); got != want {
			t.Errorf("Mix(%#x) = %#x, want %#x", in, got, want)
		}
	}
	for i := range 64 { // each input bit changes about half of the output bits
		n := 0
		for d := Mix(0x1234) ^ Mix(0x1234^1<<i); d != 0; d &= d - 1 {
			n++
		}
		if n < 16 || n > 48 {
			t.Errorf("bit %d changes %d bits", i, n)
		}
	}
}

// mixByPage is the formula of docs/format/README.md, written out.
func mixByPage(x uint64) uint64 {
	x = x ^ x>>33
	x = x * 0xff51afd7ed558ccd
	x = x ^ x>>33
	x = x * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

func TestAlign8(t *testing.T) {
	for n := range 100 {
		got := Align8(n)
		if got%8 != 0 || got < n || got >= n+8 || Align8(int64(n)) != int64(got) || Align8(uint32(n)) != uint32(got) {
			t.Errorf("Align8(%d) = %d", n, got)
		}
	}
}

func TestChecksDependOnBytesSaltAndPlace(t *testing.T) {
	b := []byte("piece")
	c := Check64(b, 1, 64)
	for name, other := range map[string]uint64{
		"bytes": Check64([]byte("piecf"), 1, 64), "salt": Check64(b, 2, 64), "place": Check64(b, 1, 128),
	} {
		if other == c {
			t.Errorf("the check does not depend on the %s", name)
		}
	}
	if c != Mix(xxhash.Sum64(b)+65) || Check32(b, 1, 64) != uint32(c) {
		t.Errorf("%#x", c)
	}
}

func sealed(size int) []byte {
	b := bytes.Repeat([]byte{0x5a}, size)
	SealHeader(b, MagicIndex, 3, 0xfeed)
	return b
}

func TestSealedHeaderOpens(t *testing.T) {
	for _, size := range []int{64, 128, 4096, MaxHeaderSize} {
		b := sealed(size)
		p, err := OpenHeader("f", append(b, 1, 2, 3), MagicIndex, 3)
		if want := (Prelude{MagicIndex, 3, uint32(size), 0xfeed}); err != nil || p != want {
			t.Errorf("%d bytes: %+v, %v", size, p, err)
		}
		for _, c := range b[PreludeSize:] {
			if c != 0x5a {
				t.Fatal("sealing changed what stands behind the prelude")
			}
		}
	}
}

// CD6 to CD8, CD10: magic and version are told apart from damage.
func TestHeaderErrorsAreTyped(t *testing.T) {
	edit := func(change func(b []byte), reseal bool) []byte {
		b := sealed(128)
		change(b)
		if reseal {
			le := b[offHeaderSum : offHeaderSum+8]
			clear(le)
			s := xxhash.Sum64(b)
			for i := range le {
				le[i] = byte(s >> (8 * i))
			}
		}
		return b
	}
	cases := []struct {
		name string
		b    []byte
		want error
	}{
		{"no bytes", nil, ErrCorrupt},
		{"three bytes", []byte("run"), ErrCorrupt},
		{"another format", edit(func(b []byte) { copy(b, "PK\x03\x04....") }, true), ErrCorrupt},
		{"another kind", edit(func(b []byte) { copy(b, MagicSegment) }, true), ErrWrongKind},
		{"filter", edit(func(b []byte) { copy(b, MagicFilter) }, true), ErrWrongKind},
		{"compressed", edit(func(b []byte) { copy(b, MagicCompressed) }, true), ErrWrongKind},
		{"newer version", edit(func(b []byte) { b[offVersion] = 4 }, true), ErrVersion},
		{"older version", edit(func(b []byte) { b[offVersion] = 2 }, true), ErrVersion},
		{"older version, by its own name", edit(func(b []byte) { b[offVersion] = 2 }, true), ErrOlder},
		{"damaged version", edit(func(b []byte) { b[offVersion] = 4 }, false), ErrCorrupt},
		{"unknown flags", edit(func(b []byte) { b[offFlags] = 1 }, true), ErrVersion},
		{"size 0", edit(func(b []byte) { b[offHeaderSize] = 0 }, true), ErrCorrupt},
		{"size 32", edit(func(b []byte) { b[offHeaderSize] = 32 }, true), ErrCorrupt},
		{"size 100", edit(func(b []byte) { b[offHeaderSize] = 100 }, true), ErrCorrupt},
		{"size beyond the file", edit(func(b []byte) { b[offHeaderSize+1] = 1 }, true), ErrCorrupt},
		{"size above the bound", edit(func(b []byte) { copy(b[offHeaderSize:], []byte{64, 0, 16, 0}) }, true), ErrCorrupt},
		{"size of 4 GiB", edit(func(b []byte) { copy(b[offHeaderSize:], []byte{0xc0, 0xff, 0xff, 0xff}) }, true), ErrCorrupt},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := OpenHeader("file", c.b, MagicIndex, 3)
			var at *Error
			if !errors.Is(err, c.want) || !errors.As(err, &at) || at.Path != "file" {
				t.Errorf("error %v, want %v", err, c.want)
			}
		})
	}
}

func TestEveryFlippedBitAndTruncationOfAHeaderIsNoticed(t *testing.T) {
	b := sealed(128)
	for i := range len(b) * 8 {
		b[i/8] ^= 1 << (i % 8)
		if _, err := OpenHeader("f", b, MagicIndex, 3); !errors.Is(err, ErrCorrupt) {
			t.Errorf("bit %d: %v", i, err)
		}
		b[i/8] ^= 1 << (i % 8)
	}
	for n := range b {
		if _, err := OpenHeader("f", b[:n:n], MagicIndex, 3); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestErrorSaysWhere(t *testing.T) {
	for _, c := range []struct {
		err  Error
		want string
	}{
		{Error{Path: "d/f", Offset: 8, FirstSeq: 3, LastSeq: 5, Why: "w", Err: ErrCorrupt}, "d/f: offset 8: seq 3 to 5: w: corrupt"},
		{Error{Path: "f", Offset: 0, FirstSeq: 3, LastSeq: 3, Err: ErrTorn}, "f: offset 0: seq 3: torn tail"},
		{Error{Path: "f", Offset: -1, FirstSeq: 3, Why: "w"}, "f: seq 3: w"},
		{Error{Path: "f", Offset: -1, LastSeq: 9, Err: fs.ErrNotExist}, "f: file does not exist"},
		{Error{Offset: 16, Why: "w", Err: ErrVersion}, "offset 16: w: unknown format version"},
		{Error{Offset: -1}, ""},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestErrorsWrap(t *testing.T) {
	inner := &Error{Path: "f", Offset: 8, Err: ErrMissingSegment}
	err := fmt.Errorf("opening: %w", inner)
	var at *Error
	if !errors.Is(err, ErrMissingSegment) || !errors.Is(err, ErrCorrupt) || errors.Is(err, ErrTorn) {
		t.Error("a missing segment is corruption, and nothing else")
	}
	if !errors.As(err, &at) || at != inner {
		t.Error("errors.As does not find the place")
	}
	if errors.Unwrap(&Error{}) != nil {
		t.Error("an error without a cause unwraps to something")
	}
}
