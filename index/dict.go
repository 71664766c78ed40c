package index

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
)

// Dict returns the segment's dictionary: the routes that its entries have, the key kinds and the base time. It does not
// borrow from the mapping, and must not be changed.
func (f *File) Dict() *entry.Dict { return f.dict }

// RouteCount is the number of entries with a route, 0 for those whose topic and type are inline.
func (f *File) RouteCount(no uint32) uint64 {
	if no == 0 {
		return f.inline
	}
	for i := range f.routes {
		if f.routes[i].no == no {
			return f.routes[i].entries
		}
	}
	return 0
}

// Routes calls yield for each route that entries have, with their number, until it returns false. Inline routes are not
// among them: see RouteCount(0).
func (f *File) Routes(yield func(no uint32, r entry.Route, entries uint64) bool) {
	for i := range f.routes {
		r, _ := f.dict.Route(f.routes[i].no)
		if !yield(f.routes[i].no, r, f.routes[i].entries) {
			return
		}
	}
}

// HasTopic reports whether the segment may hold an entry with this topic: false is certain; true is certain too unless
// there are entries with inline routes.
func (f *File) HasTopic(topic string) bool {
	found := f.inline > 0
	f.Routes(func(_ uint32, r entry.Route, _ uint64) bool {
		found = found || r.Topic == topic
		return !found
	})
	return found
}

// HasRoute is HasTopic for a pair of topic and payload type.
func (f *File) HasRoute(topic, typ string) bool {
	found := f.inline > 0
	f.Routes(func(_ uint32, r entry.Route, _ uint64) bool {
		found = found || r.Topic == topic && r.Type == typ
		return !found
	})
	return found
}

// dictReader decodes the dictionary and the notes; bad is set for good by whatever does not fit.
type dictReader struct {
	b   []byte
	bad bool
}

func (r *dictReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || n > 1 && r.b[n-1] == 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *dictReader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *dictReader) text(limit int) string {
	n := r.uvarint()
	if n == 0 || n > uint64(limit) || n > uint64(len(r.b)) || !utf8.Valid(r.b[:n]) {
		r.b, r.bad = nil, true
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

// readDict verifies and decodes the dictionary. Nothing is allocated on the word of a count: each item takes bytes.
func (f *File) readDict() error {
	at, end := f.s.dictAt, f.s.dictAt+f.s.dictSize-trailerSize
	b := f.data[at:end]
	if format.Check64(b, f.meta.Salt, at) != le.Uint64(f.data[end:]) {
		return corrupt(f.path, at, "check of the dictionary does not match")
	}
	dict := entry.NewDict(int64(le.Uint64(f.data[hdrBaseTime:])))
	r := dictReader{b: b}
	last, counted := uint64(0), uint64(0)
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		no := r.uvarint()
		route := entry.Route{Topic: r.text(entry.MaxTopic), Type: r.text(entry.MaxType)}
		entries := r.uvarint()
		if r.bad || no <= last || no > MaxRoute || entries == 0 || entries > f.bounds.Entries-counted {
			return corrupt(f.path, at, "malformed route in the dictionary")
		}
		last = no
		counted += entries
		dict.SetRoute(uint32(no), route)
		f.routes = append(f.routes, routeCount{no: uint32(no), entries: entries})
	}
	kinds := dict.Kinds()
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		no := r.uvarint()
		with, got, err := kinds.With(r.text(entry.MaxKindName))
		if r.bad || err != nil || uint64(got) != no || with == kinds {
			return corrupt(f.path, at, "malformed key kind in the dictionary")
		}
		kinds = with
	}
	f.inline = r.uvarint()
	if r.bad || len(r.b) != 0 || f.inline != f.bounds.Entries-counted {
		return corrupt(f.path, at, "malformed dictionary")
	}
	dict.SetKinds(kinds)
	f.dict = dict
	return nil
}
