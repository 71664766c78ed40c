package index

import (
	"fmt"
	"strconv"
	"strings"
)

// FileName is the name of a segment's index file.
func FileName(number uint32) string { return fmt.Sprintf("%08d.idx", number) }

// FilterName is the name of the filter file over the segments first to last.
func FilterName(first, last uint32) string { return string(AppendFilterName(nil, first, last)) }

// AppendFilterName appends FilterName, for look-ups that must not allocate.
func AppendFilterName(dst []byte, first, last uint32) []byte {
	dst = append(appendNumber(dst, first), '-')
	return append(appendNumber(dst, last), ".flt"...)
}

// appendNumber appends n with at least eight digits.
func appendNumber(dst []byte, n uint32) []byte {
	for least := uint32(10_000_000); n < least && least > 1; least /= 10 {
		dst = append(dst, '0')
	}
	return strconv.AppendUint(dst, uint64(n), 10)
}

// ParseFileName is the inverse of FileName; it accepts nothing else.
func ParseFileName(name string) (number uint32, ok bool) {
	digits, ok := strings.CutSuffix(name, ".idx")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || n == 0 || FileName(uint32(n)) != name {
		return 0, false
	}
	return uint32(n), true
}

// ParseFilterName is the inverse of FilterName; it accepts only ranges that filters have.
func ParseFilterName(name string) (r Range, ok bool) {
	body, ok := strings.CutSuffix(name, ".flt")
	if !ok {
		return Range{}, false
	}
	a, b, ok := strings.Cut(body, "-")
	if !ok {
		return Range{}, false
	}
	first, err1 := strconv.ParseUint(a, 10, 32)
	last, err2 := strconv.ParseUint(b, 10, 32)
	r = Range{First: uint32(first), Last: uint32(last)}
	if err1 != nil || err2 != nil || FilterName(r.First, r.Last) != name || !r.IsFilter() {
		return Range{}, false
	}
	return r, true
}

// Fanout is the number of ranges of one level that make one of the next.
const Fanout = 4

// Range is a range of segments that one probe covers: a single segment, whose index file is asked, or Fanout^L of them,
// L >= 1, whose filter is asked.
type Range struct {
	First uint32
	Last  uint32
}

func (r Range) size() uint64 { return uint64(r.Last) - uint64(r.First) + 1 }

// IsFilter reports whether a filter file can cover exactly this range: 4^L segments that end at a multiple of 4^L.
func (r Range) IsFilter() bool {
	if r.First == 0 || r.Last <= r.First {
		return false
	}
	n := r.size()
	for n > 1 && n%Fanout == 0 {
		n /= Fanout
	}
	return n == 1 && uint64(r.Last)%r.size() == 0
}

// Level is the L of a range of Fanout^L segments.
func (r Range) Level() (l int) {
	for n := r.size(); n > 1; n /= Fanout {
		l++
	}
	return l
}

// Children returns the Fanout ranges that a filter's range consists of, which is where to look after a hit.
func (r Range) Children() [Fanout]Range {
	var c [Fanout]Range
	n := uint32(r.size() / Fanout)
	for i := range c {
		c[i].First = r.First + uint32(i)*n
		c[i].Last = c[i].First + n - 1
	}
	return c
}

// Due lists the filters that become possible, and so are to be built, when segment n has been sealed, smallest first.
func Due(n uint32) []Range {
	var due []Range
	for size := uint64(Fanout); size <= uint64(n) && uint64(n)%size == 0; size *= Fanout {
		due = append(due, Range{First: uint32(uint64(n) - size + 1), Last: n})
	}
	return due
}

// Covering lists all filters that exist when segments 1 to n have been sealed, level by level, in order within each.
func Covering(n uint32) []Range {
	var all []Range
	for size := uint64(Fanout); size <= uint64(n); size *= Fanout {
		for last := size; last <= uint64(n); last += size {
			all = append(all, Range{First: uint32(last - size + 1), Last: uint32(last)})
		}
	}
	return all
}

// Plan appends to dst the shortest list of ranges that make up the segments first to last, in order. From 1 on these
// are at most 3 per level: about 3 log4(n) probes tell that a key is in none of n segments; up to twice that if
// retention has removed the first segments, since filters that reach below first are not used.
func Plan(dst []Range, first, last uint32) []Range {
	for at := uint64(max(first, 1)); at <= uint64(last); {
		size := uint64(1)
		for (at-1)%(size*Fanout) == 0 && at+size*Fanout-1 <= uint64(last) {
			size *= Fanout
		}
		dst = append(dst, Range{First: uint32(at), Last: uint32(at + size - 1)})
		at += size
	}
	return dst
}
