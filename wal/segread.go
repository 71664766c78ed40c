package wal

import (
	"errors"
	"io"
	"runtime/debug"
	"sync"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/index"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/segment"
)

// segIndex is the index of a sealed segment: the file's, or one rebuilt in memory.
type segIndex interface {
	// Span returns a sampled entry at or before seq, and the place of the next one behind seq, 0 if it is not at hand.
	Span(seq uint64) (sample uint64, off, next int64, err error)
	// First returns the first candidate for a fingerprint, 0 if there is none.
	First(fp uint64) (seq uint64, err error)
	// Seqs appends all candidates, ascending.
	Seqs(fp uint64, dst []uint64) ([]uint64, error)
	Dict() *entry.Dict
	HasRoute(topic, typ string) bool
	// Notes lists the notes that are indexed; with an error, those in front of damage.
	Notes() ([]index.NoteRef, error)
	Close() error
}

var errNoSample = errors.New("the index has no sample for the seq")

// fileIndex is a mapped index file.
type fileIndex struct{ *index.File }

func (f *fileIndex) First(fp uint64) (uint64, error) {
	seq, _, err := f.File.First(fp)
	return seq, err
}

// HasRoute reports whether entries may have a route that fits; "" fits all.
func (f *fileIndex) HasRoute(topic, typ string) bool {
	switch {
	case typ == "":
		return f.HasTopic(topic)
	case topic != "":
		return f.File.HasRoute(topic, typ)
	}
	found := f.RouteCount(0) > 0
	f.Routes(func(_ uint32, r entry.Route, _ uint64) bool {
		found = found || r.Type == typ
		return !found
	})
	return found
}

// memIndex is an index that was rebuilt because the file was damaged. Where the segment is damaged too it knows only what
// is in front of that.
type memIndex struct {
	*index.Builder
	dict  *entry.Dict
	last  uint64 // seq that it knows
	rest  error  // why it does not know those behind; nil: there are none
	noted error  // the same for notes
}

func (m *memIndex) Span(seq uint64) (uint64, int64, int64, error) {
	if seq > m.last && m.rest != nil {
		return 0, 0, 0, m.rest
	}
	sample, off, ok := m.Builder.Offset(seq)
	if !ok {
		return 0, 0, 0, errNoSample
	}
	return sample, off, 0, nil
}

func (m *memIndex) First(fp uint64) (uint64, error) {
	seq, ok := m.Builder.First(fp, ^uint64(0))
	if !ok {
		return 0, m.rest
	}
	return seq, nil
}

func (m *memIndex) Seqs(fp uint64, dst []uint64) ([]uint64, error) {
	return m.Builder.Seqs(fp, ^uint64(0), dst), m.rest
}

func (m *memIndex) Notes() ([]index.NoteRef, error) { return m.Builder.Notes(), m.noted }

func (m *memIndex) Dict() *entry.Dict { return m.dict }

func (m *memIndex) HasRoute(topic, typ string) bool {
	return m.rest != nil || hasRoute(m.dict, topic, typ)
}

func (m *memIndex) Close() error { return nil }

// hasRoute reports whether a dictionary has a route that fits; "" fits all. Inline routes make it useless, so it says
// yes then.
func hasRoute(d *entry.Dict, topic, typ string) bool {
	routes := d.Routes()
	if len(routes) >= maxRoutes {
		return true
	}
	for _, r := range routes {
		if (topic == "" || r.Topic == topic) && (typ == "" || r.Type == typ) && r.Topic != "" {
			return true
		}
	}
	return false
}

// locateEntry walks from a sample to seq and returns the offset of its frame.
func (m *mapped) locateEntry(seq uint64) (int64, error) {
	c := m.cursor()
	off, err := m.locate(&c, seq)
	c.close()
	return off, err
}

func (m *mapped) locate(c *cursor, seq uint64) (int64, error) {
	ix := m.index()
	at, off, next, err := ix.Span(seq)
	if err != nil {
		if ix, err = m.rebuildIndex(ix, err); err == nil {
			at, off, next, err = ix.Span(seq)
		}
		if err != nil {
			return 0, err
		}
	}
	end := m.info.footer.ContentEnd
	if c.plain != nil {
		from, to := ahead(off, next, seq-at, int64(len(c.plain)))
		segment.Touch(c.plain[from:to])
	}
	for {
		if off < 0 || off >= end {
			return 0, &format.Error{Path: m.path, Offset: off, FirstSeq: seq, Why: "the segment ends before the entry", Err: format.ErrCorrupt}
		}
		b, err := c.plain, error(nil)
		if b != nil { // as c.at does, which is a call
			b = b[off:]
		} else {
			b, err = c.inBlock(off)
		}
		size, isEntry, ok := segment.SkipFrame(b, m.salt, off)
		if !ok {
			if found, ok := m.search(c, ix, behindLost(err, off), seq); ok {
				return found, nil
			}
			if err != nil {
				return 0, named(err, seq, 0)
			}
			return 0, &format.Error{Path: m.path, Offset: off, FirstSeq: at, LastSeq: seq, Why: "frame head does not validate", Err: format.ErrCorrupt}
		}
		if isEntry {
			if at == seq {
				return off, nil
			}
			at++
		}
		off += size
	}
}

// ahead returns which bytes of a content a walk of so many entries from off is going to need, as far as the place of the
// next sample tells. They are read before the walk, so that they come from memory at once and not head by head: the place
// of each head is known only when the one before it is there. It stays in the page of off, which is needed anyway: of a
// mapped file that was cut short, the next one may not be there.
func ahead(off, next int64, entries uint64, size int64) (from, to int64) {
	span := next - off
	if span <= 0 || span > maxAhead {
		return 0, 0
	}
	to = min(off+span*int64(entries+1)/index.SampleEvery, off|(pageBytes-1)+1, size)
	if off >= to {
		return 0, 0
	}
	return off, to
}

const (
	maxAhead  = 4096 // between samples: larger entries are few lines of heads among many that nobody needs
	pageBytes = 4096 // the smallest page that there is
)

// search looks for an entry behind a damaged frame, whose length nobody knows, up to the next sample: its checksum holds
// for no other seq and no other place.
func (m *mapped) search(c *cursor, ix segIndex, off int64, seq uint64) (int64, bool) {
	end := m.info.footer.ContentEnd
	if seq+index.SampleEvery <= m.info.footer.LastSeq {
		if _, next, _, err := ix.Span(seq + index.SampleEvery); err == nil {
			end = min(end, next)
		}
	}
	var buf Buffer
	for off = format.Align8(off); off+segment.HeadSize <= end; off += 8 {
		b, err := c.at(off)
		if err != nil {
			if next := behindLost(err, off); next > off {
				off = next - 8
				continue
			}
			return 0, false
		}
		size, isEntry, ok := segment.SkipFrame(b, m.salt, off)
		if !ok || !isEntry || off+size > m.info.footer.ContentEnd {
			continue
		}
		if b, err = c.bytes(off, size, &buf); err != nil {
			continue
		}
		if _, err := segment.ReadFrame(m.path, b, m.salt, off, seq); err == nil {
			return off, true
		}
	}
	return 0, false
}

// view returns the verified entry: in place where the file is mapped, else in buf.
func (m *mapped) view(seq uint64, buf *Buffer) (v entry.View, err error) {
	if m.packed != nil {
		c := m.cursor()
		v, err = m.read(&c, seq, buf)
		c.close()
		return v, err
	}
	off, err := m.locateEntry(seq)
	if err != nil {
		return v, err
	}
	f, err := segment.ReadFrame(m.path, m.bytes[off:], m.salt, off, seq)
	if err != nil {
		return v, short(err, m.path, off, seq)
	}
	v, err = entry.ParseView(m.index().Dict(), seq, f.Flags(), f.Body)
	if err != nil {
		err = &format.Error{Path: m.path, Offset: off, FirstSeq: seq, Err: err}
	}
	return v, err
}

// short turns "the frame goes beyond the bytes" into damage, where no more bytes can come.
func short(err error, path string, off int64, seq uint64) error {
	if segment.IsShort(err) {
		return &format.Error{Path: path, Offset: off, FirstSeq: seq, Why: "frame goes beyond the segment", Err: format.ErrCorrupt}
	}
	return err
}

// get copies the entry into buf and verifies the copy, so that a file that changes underneath cannot matter.
func (m *mapped) get(seq uint64, buf *Buffer) (v entry.View, err error) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		rescue(recover(), m.path, &err)
	}()
	c := m.cursor()
	v, err = m.read(&c, seq, buf)
	c.close()
	return v, err
}

// read copies the entry into buf, and verifies the copy.
func (m *mapped) read(c *cursor, seq uint64, buf *Buffer) (v entry.View, err error) {
	off, err := m.locate(c, seq)
	if err != nil {
		return v, err
	}
	head, err := c.at(off)
	if err != nil {
		return v, named(err, seq, 0)
	}
	size, _, _ := segment.SkipFrame(head, m.salt, off)
	if size > m.info.footer.ContentEnd-off {
		return v, short(segment.ErrShort, m.path, off, seq)
	}
	b := buf.size(int(size))
	if copy(b, head) < len(b) { // it goes beyond the block
		if err := c.copy(b, off); err != nil {
			return v, named(err, seq, 0)
		}
	}
	f, err := segment.ReadFrame(m.path, b, m.salt, off, seq)
	if err != nil {
		return v, short(err, m.path, off, seq)
	}
	v, err = entry.ParseView(m.index().Dict(), seq, f.Flags(), f.Body)
	if err != nil {
		err = &format.Error{Path: m.path, Offset: off, FirstSeq: seq, Err: err}
	}
	return v, err
}

func (m *mapped) firstWith(fp uint64, kind entry.KindNo, value string, limit uint64) (seq uint64, err error) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		rescue(recover(), m.path, &err)
	}()
	ix := m.index()
	if seq, err = ix.First(fp); err != nil {
		if ix, err = m.rebuildIndex(ix, err); err == nil {
			seq, err = ix.First(fp)
		}
		if err != nil {
			return 0, err
		}
	}
	if seq == 0 || seq > limit {
		return 0, nil
	}
	var buf *Buffer // what is not compressed is looked at in its place
	if m.packed != nil {
		buf = buffers.Get().(*Buffer)
		defer buffers.Put(buf)
	}
	v, err := m.view(seq, buf)
	if err != nil {
		return 0, err
	}
	if v.HasKey(kind, value) {
		return seq, nil
	}
	return m.firstMatch(fp, kind, value, limit, buf)
}

// seqs returns the candidates, and with an error those in front of the damage.
func (m *mapped) seqs(fp uint64) ([]uint64, error) {
	ix := m.index()
	seqs, err := ix.Seqs(fp, nil)
	if err != nil {
		if ix, err = m.rebuildIndex(ix, err); err == nil {
			seqs, err = ix.Seqs(fp, nil)
		}
	}
	return seqs, err
}

// firstMatch is for the rare case that two keys share a fingerprint.
func (m *mapped) firstMatch(fp uint64, kind entry.KindNo, value string, limit uint64, buf *Buffer) (uint64, error) {
	seqs, err := m.seqs(fp)
	for _, seq := range seqs {
		if seq > limit {
			return 0, nil
		}
		v, err := m.view(seq, buf)
		if err != nil {
			return 0, err
		}
		if v.HasKey(kind, value) {
			return seq, nil
		}
	}
	return 0, err
}

func (m *mapped) allWith(fp uint64, kind entry.KindNo, value string, limit uint64, buf *Buffer, yield func(entry.View) bool) (done bool, err error) {
	inside := true
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if inside {
			rescue(recover(), m.path, &err)
		}
	}()
	seqs, err := m.seqs(fp)
	for _, seq := range seqs {
		if seq > limit {
			return true, nil
		}
		v, err := m.view(seq, buf)
		if err != nil {
			return false, err
		}
		if !v.HasKey(kind, value) {
			continue
		}
		inside = false
		if !yield(v) {
			return true, nil
		}
		inside = true
	}
	return false, err
}

// get reads an entry of an open segment into buf.
func (o *openSeg) get(seq uint64, buf *Buffer) (entry.View, error) {
	v, _, err := o.read(seq, buf)
	return v, err
}

// read reads the entry and returns its frame's offset too.
func (o *openSeg) read(seq uint64, buf *Buffer) (v entry.View, at int64, err error) {
	cur, off, ok := o.ix.Offset(seq)
	if !ok {
		return v, 0, &format.Error{Path: o.path, Offset: -1, FirstSeq: seq, Why: errNoSample.Error(), Err: format.ErrCorrupt}
	}
	end := o.end.Load()
	want := int64(4096)
	for {
		n := min(want, end-off)
		if n <= 0 {
			return v, 0, &format.Error{Path: o.path, Offset: off, FirstSeq: seq, Why: "the segment ends before the entry", Err: format.ErrCorrupt}
		}
		b := buf.size(int(n))
		got, rerr := o.file.ReadAt(b, off)
		if got < int(n) {
			return v, 0, &format.Error{Path: o.path, Offset: off, FirstSeq: seq, Why: "read", Err: errors.Join(format.ErrCorrupt, notEOF(rerr))}
		}
		b, cur, off = o.skipTo(b, cur, off, seq)
		if b == nil {
			return v, 0, &format.Error{Path: o.path, Offset: off, FirstSeq: cur, LastSeq: seq, Why: "frame head does not validate", Err: format.ErrCorrupt}
		}
		if cur == seq && len(b) > 0 {
			f, err := segment.ReadFrame(o.path, b, o.header.Salt, off, seq)
			if err == nil {
				v, err = entry.ParseView(o.dict, seq, f.Flags(), f.Body)
				if err != nil {
					err = &format.Error{Path: o.path, Offset: off, FirstSeq: seq, Err: err}
				}
				return v, off, err
			}
			if !segment.IsShort(err) {
				return v, 0, err
			}
			if n == end-off && int64(len(b)) == n {
				return v, 0, short(err, o.path, off, seq)
			}
			want = max(2*want, int64(segment.FrameLen(b))) // the frame goes beyond the window
		}
	}
}

// skipTo walks over b, which lies at off with the next entry being cur, to the frame of seq. It returns the rest of b
// from there, or an empty rest when it is not inside, or nil when a head is damaged.
func (o *openSeg) skipTo(b []byte, cur uint64, off int64, seq uint64) ([]byte, uint64, int64) {
	for len(b) >= 8 {
		size, isEntry, ok := segment.SkipFrame(b, o.header.Salt, off)
		if !ok {
			return nil, cur, off
		}
		if isEntry {
			if cur == seq {
				return b, cur, off
			}
			cur++
		}
		off += size
		if size > int64(len(b)) {
			return b[:0], cur, off
		}
		b = b[size:]
	}
	return b[:0], cur, off
}

func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// buffers are for reading entries of open segments that nobody keeps.
var buffers = sync.Pool{New: func() any { return new(Buffer) }}

func (o *openSeg) firstWith(fp uint64, kind entry.KindNo, value string, limit uint64) (uint64, error) {
	seq, ok := o.ix.First(fp, limit)
	if !ok {
		return 0, nil
	}
	buf := buffers.Get().(*Buffer)
	defer buffers.Put(buf)
	v, err := o.get(seq, buf)
	if err != nil {
		return 0, err
	}
	if v.HasKey(kind, value) {
		return seq, nil
	}
	found := uint64(0) // two keys share a fingerprint
	_, err = o.allWith(fp, kind, value, limit, buf, func(v entry.View) bool {
		found = v.Seq()
		return false
	})
	return found, err
}

func (o *openSeg) allWith(fp uint64, kind entry.KindNo, value string, limit uint64, buf *Buffer, yield func(entry.View) bool) (bool, error) {
	for _, seq := range o.ix.Seqs(fp, limit, nil) {
		v, err := o.get(seq, buf)
		if err != nil {
			return false, err
		}
		if v.HasKey(kind, value) && !yield(v) {
			return true, nil
		}
	}
	return false, nil
}
