package main

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/runlog-io/runlog"
)

// class is what a store made of a damage, best first.
type class int

const (
	whole   class = iota // every acknowledged entry, byte for byte, and no error
	refused              // an error, with or without a place
	silent               // entries are missing and nothing says so
	wrong                // something is returned that was never appended there
	crashed              // the library panicked, or did not come back
)

// place is what an error names.
type place struct {
	file, offset, seqs bool
	noOffset, noSeqs   bool // there is none to name: the file is missing, no entry is affected
}

// verdict is the outcome of one trial in one store.
type verdict struct {
	class    class
	readable int // acknowledged entries that were returned right
	of       int
	place    place
	needless bool // an error, and not one entry, although no acknowledged byte was damaged
	lost     int  // later appends that cannot be read; -1: the store does not take any more
	err      error
}

// ok is runlog's bar: all entries, or an error that names file, offset and, when entries are affected, their seqs.
func (v *verdict) ok() bool {
	return v.lost == 0 && (v.class == whole || v.class == refused && v.place.file && (v.place.offset || v.place.noOffset) && (v.place.seqs || v.place.noSeqs))
}

// judge compares a reading with what was acknowledged. extra is an entry that was written but not acknowledged: a store may
// return it or not.
func judge(acknowledged [][]byte, extra []byte, d *trial, r reading) verdict {
	v := verdict{of: len(acknowledged), err: r.err}
	seen := make([]bool, len(acknowledged))
	bad := false
	for _, it := range r.items {
		switch n := it.seq - 1; {
		case n >= 0 && n < len(seen) && !seen[n] && bytes.Equal(it.data, acknowledged[n]):
			seen[n] = true
			v.readable++
		case n == len(seen) && extra != nil && bytes.Equal(it.data, extra):
		default:
			bad = true
		}
	}
	var p *panicked
	switch {
	case errors.As(r.err, &p):
		v.class = crashed
	case bad:
		v.class = wrong
	case r.err != nil:
		v.class = refused
		v.place = named(r.err, d, firstMissing(seen, &r))
		v.needless = d.harmless && v.readable == 0
	case v.readable < v.of:
		v.class = silent
	}
	return v
}

// firstMissing is the number of the first entry that the reading did not deliver in order, or 0 for none.
func firstMissing(seen []bool, r *reading) int {
	if r.first > 0 {
		if r.first > len(seen) {
			return 0
		}
		return r.first
	}
	for i, ok := range seen {
		if !ok {
			return i + 1
		}
	}
	return 0
}

// named says what an error names. A runlog error has fields for it; of the others the text counts: the damaged file's name,
// a number behind the word offset (or pos), a number behind the word seq, index, entry or log.
func named(err error, d *trial, missing int) (best place) {
	located := false
	walk(err, func(e *runlog.Error) {
		located = true
		p := place{
			file: path.Base(e.Path) == path.Base(d.file), noOffset: d.removed, noSeqs: missing == 0,
			offset: e.Offset >= 0, seqs: covers(e, missing+ownSeqs, d),
		}
		if score(p) > score(best) {
			best = p
		}
	})
	if located {
		return best
	}
	text := err.Error()
	return place{
		file:   strings.Contains(text, path.Base(d.file)),
		offset: number(text, `(?i)\b(?:offset|pos(?:ition)?)\W{0,3}(\d+)`),
		seqs:   number(text, `(?i)\b(?:seq|index|entry|log)\W{0,3}(\d+)`),
	}
}

// covers says whether the error's seqs contain one that is affected: the first that was not delivered, or the one that
// the damage hit.
func covers(e *runlog.Error, missing int, d *trial) bool {
	if e.FirstSeq == 0 {
		return false
	}
	in := func(seq int) bool {
		return uint64(seq) >= e.FirstSeq && (e.LastSeq == 0 || uint64(seq) <= e.LastSeq)
	}
	return in(missing) || d.entry > 0 && in(d.entry+ownSeqs)
}

func score(p place) (n int) {
	for _, b := range []bool{p.file, p.offset || p.noOffset, p.seqs || p.noSeqs} {
		if b {
			n++
		}
	}
	return n
}

func number(text, pattern string) bool {
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		return false
	}
	_, err := strconv.Atoi(m[1])
	return err == nil
}

// walk visits every located error in a tree of wrapped ones, from the outside.
func walk(err error, visit func(*runlog.Error)) {
	switch e := err.(type) {
	case *runlog.Error:
		visit(e)
		walk(e.Err, visit)
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			walk(err, visit)
		}
	case interface{ Unwrap() error }:
		walk(e.Unwrap(), visit)
	}
}

// String is the table's cell.
func (v verdict) String() string {
	var s string
	switch v.class {
	case whole:
		s = fmt.Sprintf("all %d", v.of)
	case refused:
		switch {
		case v.needless:
			s = "**does not open**, nothing acknowledged was damaged"
		default:
			s = "error" + v.place.String() + v.count()
		}
	case silent:
		s = fmt.Sprintf("**%d of %d, no error**", v.readable, v.of)
	case wrong:
		s = "**wrong bytes**"
		if v.err == nil {
			s += ", no error"
		}
	case crashed:
		var p *panicked
		errors.As(v.err, &p)
		s = "**" + p.what + "**"
	}
	switch {
	case v.lost > 0:
		s += fmt.Sprintf("; **%d of %d later appends lost**", v.lost, later)
	case v.lost < 0 && v.class != refused && v.class != crashed:
		s += "; **takes no later appends**"
	}
	return s
}

// count is how many entries came beside the error.
func (v verdict) count() string {
	if v.readable == v.of {
		return fmt.Sprintf("; all %d readable", v.of)
	}
	return fmt.Sprintf("; %d readable", v.readable)
}

func (p place) String() string {
	var parts []string
	for _, n := range []struct {
		has  bool
		what string
	}{{p.file, "file"}, {p.offset, "offset"}, {p.seqs, "seq"}} {
		if n.has {
			parts = append(parts, n.what)
		}
	}
	if parts == nil {
		return " without a place"
	}
	return ": " + strings.Join(parts, ", ")
}
