package wal

import (
	"errors"
	"fmt"
	"iter"
	"runtime/debug"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/segment/compressed"
)

// TimeField says which of an entry's times a scan's bounds are about.
type TimeField uint8

const (
	// ByPublish bounds ts_publish, which increases with seq: segments and parts of them are skipped.
	ByPublish TimeField = iota
	// ByInit bounds ts_init, the messages' own time, in no particular order: segments are skipped by their bounds.
	ByInit
)

// ScanOptions select entries. The zero value selects all.
type ScanOptions struct {
	// From and To are inclusive. From 0: from the first entry that is there; To 0: to the end. A To beyond the end is cut,
	// From > To is empty. Entries that are named and that retention has removed are ErrRemoved: at once, or backwards after
	// those that are left.
	From, To     uint64
	Reverse      bool   // newest first
	Topic, Type  string // "": any
	Since, Until int64  // ns, inclusive; 0: open
	By           TimeField
	Level        Level // how far the scan sees
}

// query is a scan with its bounds resolved.
type query struct {
	ScanOptions
	limit uint64
}

func (q *query) matches(v *entry.View) bool {
	if q.Topic != "" && v.Topic() != q.Topic || q.Type != "" && v.Type() != q.Type {
		return false
	}
	if q.Since == 0 && q.Until == 0 {
		return true
	}
	ts := v.TsPublish()
	if q.By == ByInit {
		ts = v.TsInit()
	}
	return (q.Since == 0 || ts >= q.Since) && (q.Until == 0 || ts <= q.Until)
}

// past reports whether no later entry (in scan direction) can match.
func (q *query) past(v *entry.View) bool {
	if q.By != ByPublish {
		return false
	}
	if q.Reverse {
		return q.Since != 0 && v.TsPublish() < q.Since
	}
	return q.Until != 0 && v.TsPublish() > q.Until
}

// skips reports whether a segment with these bounds holds nothing that matches.
func (q *query) skips(minInit, maxInit, minPublish, maxPublish int64) bool {
	lo, hi := minPublish, maxPublish
	if q.By == ByInit {
		lo, hi = minInit, maxInit
	}
	return q.Since != 0 && hi < q.Since || q.Until != 0 && lo > q.Until
}

// Scan returns the selected entries in seq order, or backwards. Batches are verified by their commits' digests; those
// that are damaged or partly scanned, frame by frame. A view is valid until the next step. An error comes last, after
// every good entry before it.
func (r *Reader) Scan(o ScanOptions) iter.Seq2[entry.View, error] {
	return func(yield func(entry.View, error) bool) {
		stopped := false
		err := r.scan(o, func(v entry.View) bool {
			stopped = !yield(v, nil)
			return !stopped
		})
		if err != nil && !stopped {
			yield(entry.View{}, err)
		}
	}
}

func (r *Reader) scan(o ScanOptions, yield func(entry.View) bool) error {
	q := query{ScanOptions: o, limit: r.last(o.Level)}
	set := r.set() // it reaches as far as the limit
	first := max(set.floor.seq, 1)
	gone := (o.To == 0 || o.From <= o.To) && (o.From != 0 && o.From < first || o.To != 0 && o.To < first)
	if gone && (!o.Reverse || o.To != 0 && o.To < first) {
		return r.below(set.floor)
	}
	q.From = max(o.From, first)
	whole := q.To == 0 || q.To >= q.limit
	if q.To == 0 || q.To > q.limit {
		q.To = q.limit
	}
	if q.Reverse && whole {
		if err := r.damage(); err != nil { // what stands at the end is unknown: say so before anything older
			return err
		}
	}
	if q.From <= q.To {
		if done, err := r.scanSegments(set, &q, o.From == 0, yield); done || err != nil {
			return r.explain(err)
		}
	}
	switch {
	case gone:
		return r.below(set.floor)
	case whole && q.From == first:
		return r.Damage() // also if no entry is lost to it
	case whole && !q.Reverse:
		return r.damage()
	}
	return nil
}

// scanSegments scans a set's segments. whatever: the query begins at whatever is first, also if retention moves that.
func (r *Reader) scanSegments(set *segSet, q *query, whatever bool, yield func(entry.View) bool) (done bool, err error) {
	if len(set.segs) == 0 {
		return false, nil
	}
	at := q.From
	if q.Reverse {
		at = q.To
	}
	first, _ := r.find(set, at)
	step, end, begun := 1, len(set.segs), false
	if q.Reverse {
		step, end = -1, -1
	}
	for i := first; i != end; i += step {
		done, err := r.withSegment(set.segs[i], func(s segReader) (bool, error) { return s.scan(q, yield) })
		if err != nil && whatever && (q.Reverse || !begun) && r.passed(set.segs[i], err) {
			continue
		}
		if done || err != nil {
			return done, err
		}
		begun = true
	}
	return false, nil
}

// source is one segment's bytes for a scan.
type source struct {
	path     string
	salt     uint64
	dict     *entry.Dict
	first    int64 // offset of the first frame
	end      int64 // behind the last commit
	firstSeq uint64
	lastSeq  uint64
	// at returns bytes from off on; with more, more of them than before, if there are.
	at func(off int64, more bool) ([]byte, error)
	// offset returns where the entry's frame begins.
	offset func(seq uint64) (int64, error)
	// get reads one entry, for searching by time.
	get func(seq uint64) (entry.View, error)
	// lostTo returns the last seq that is lost with the content up to off, if first is the first. nil: nothing tells.
	lostTo func(first uint64, off int64) uint64
	// note, if it is set, takes notes in the place of entries; it returns false to stop.
	note func(f *segment.Frame, after uint64) bool
}

func (m *mapped) scan(q *query, yield func(entry.View) bool) (bool, error) {
	ft := &m.info.footer
	if ft.Entries == 0 || ft.LastSeq < q.From || ft.FirstSeq > q.To {
		return false, nil
	}
	if q.skips(ft.MinInit, ft.MaxInit, ft.MinPublish, ft.MaxPublish) {
		return false, nil
	}
	if (q.Topic != "" || q.Type != "") && !m.index().HasRoute(q.Topic, q.Type) {
		return false, nil
	}
	s, done := m.source(!q.Reverse)
	defer done()
	return s.run(q, yield)
}

// source is the segment's content, to be read through in order or here and there; done lets go of it.
func (m *mapped) source(through bool) (s source, done func()) {
	ft := &m.info.footer
	var buf Buffer
	s = source{
		path: m.path, salt: m.salt, dict: m.index().Dict(), first: m.info.header.Size, end: ft.ContentEnd, firstSeq: ft.FirstSeq, lastSeq: ft.LastSeq,
		at: func(off int64, more bool) ([]byte, error) {
			if more {
				return nil, nil
			}
			return m.bytes[off:], nil
		},
		offset: m.locateEntry,
		get:    func(seq uint64) (entry.View, error) { return m.view(seq, &buf) },
		lostTo: m.lostTo,
	}
	switch {
	case m.packed == nil:
	case through:
		s.at = (&blockWindow{z: m.packed}).at
	default:
		w := backWindow{c: m.cursor()}
		s.at = w.at
		return s, w.c.close
	}
	return s, func() {}
}

func (o *openSeg) scan(q *query, yield func(entry.View) bool) (bool, error) {
	last, end := o.lastSeq.Load(), int64(0)
	if end = o.end.Load(); last < o.firstSeq || last < q.From || o.firstSeq > q.To {
		return false, nil
	}
	if (q.Topic != "" || q.Type != "") && !hasRoute(o.dict, q.Topic, q.Type) {
		return false, nil
	}
	s := o.source(end)
	s.lastSeq = last
	return s.run(q, yield)
}

// source reads up to end, which lies behind a whole batch.
func (o *openSeg) source(end int64) source {
	w := window{f: o.file, limit: end}
	var buf Buffer
	return source{
		path: o.path, salt: o.header.Salt, dict: o.dict, first: o.header.Size, end: end, firstSeq: o.firstSeq, lastSeq: o.lastSeq.Load(),
		at: func(off int64, more bool) ([]byte, error) {
			if more && w.eof && w.off == off {
				return nil, nil
			}
			return w.at(off, more)
		},
		offset: func(seq uint64) (int64, error) {
			_, off, err := o.read(seq, &buf)
			return off, err
		},
		get: func(seq uint64) (entry.View, error) { return o.get(seq, &buf) },
	}
}

// run scans the part of the segment that the query is about.
func (s *source) run(q *query, yield func(entry.View) bool) (done bool, err error) {
	inside := true // in library code, where a fault in a mapping is ours to report
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if inside {
			rescue(recover(), s.path, &err)
		}
	}()
	deliver := func(v entry.View) bool {
		if !q.matches(&v) {
			return !q.past(&v)
		}
		inside = false
		more := yield(v)
		inside = true
		return more
	}
	from, to := max(q.From, s.firstSeq), min(q.To, s.lastSeq)
	if q.By == ByPublish && !q.Reverse && q.Since != 0 {
		if from, err = s.searchTime(from, to, q.Since); err != nil || from > to {
			return false, err
		}
	}
	if q.Reverse {
		return s.backward(from, to, deliver)
	}
	return s.forward(from, to, deliver)
}

// searchTime returns the first seq in from..to whose publish time is at or after ts, or to+1.
func (s *source) searchTime(from, to uint64, ts int64) (uint64, error) {
	lo, hi := from, to+1
	for lo < hi {
		mid := lo + (hi-lo)/2
		v, err := s.get(mid)
		if err != nil {
			return 0, err
		}
		if v.TsPublish() >= ts {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo, nil
}

// forward scans from..to: frame by frame up to the end of the first batch if it begins inside it, then batch by batch.
func (s *source) forward(from, to uint64, deliver func(entry.View) bool) (bool, error) {
	off := s.first
	var chain segment.Chain
	if from == s.firstSeq {
		b, err := s.at(off, false)
		if err != nil {
			return false, s.readError(off, from, err)
		}
		start, ok := segment.DecodeStart(b, s.salt, off)
		if !ok {
			return false, s.broken(off, &segment.Chain{Seq: from - 1}, &segment.Stop{Offset: off, Why: "start frame does not validate"})
		}
		chain = start.Prev
	} else {
		var err error
		if off, err = s.offset(from); err != nil {
			return false, err
		}
		var done bool
		if off, chain, done, err = s.frames(off, from, to, deliver); done || err != nil {
			return done, err
		}
	}
	for off < s.end && (chain.Seq < to || s.note != nil && chain.Seq == to) {
		b, err := s.at(off, false)
		var batch segment.Batch
		for err == nil {
			if batch, err = segment.ReadBatch(b, s.salt, off, chain); !segment.IsShort(err) {
				break
			}
			var more []byte
			if more, err = s.at(off, true); len(more) == 0 && err == nil {
				err = &segment.Stop{Offset: off, Why: "batch goes beyond the segment"}
				break
			}
			b = more
		}
		stop, lost := stopOf(err), lostOf(err)
		if stop != nil || lost != nil {
			// Deliver what is good in front of the damage, then name it.
			next := chain.Seq + 1
			_, _, done, ferr := s.frames(off, next, to, func(v entry.View) bool {
				next = v.Seq() + 1
				return deliver(v)
			})
			if done || ferr != nil && !errors.Is(ferr, format.ErrCorrupt) {
				return done, ferr
			}
			if lost != nil {
				return false, s.readError(off, next, err)
			}
			err := s.broken(off, &chain, stop)
			if next <= err.LastSeq {
				err.FirstSeq = next
			}
			return false, err
		}
		if err != nil {
			return false, s.readError(off, chain.Seq+1, err)
		}
		if done, err := s.batch(&batch, to, deliver); done || err != nil {
			return done, err
		}
		chain, off = batch.Next, batch.Commit.End()
	}
	return false, nil
}

// broken is the error about the batch at off, which is not whole. It names the batch's seqs, or more if its commit cannot
// be read.
func (s *source) broken(off int64, before *segment.Chain, stop *segment.Stop) *format.Error {
	err := &format.Error{Path: s.path, Offset: misfit(s.at, s.salt, off, before.Seq, stop), FirstSeq: before.Seq + 1, LastSeq: s.lastSeq,
		Why: stop.Why, Err: format.ErrCorrupt}
	if stop.Unknown {
		err.Err = format.ErrVersion
	}
	var ev evidence
	if b, berr := s.at(off, false); berr == nil {
		segment.FindCommits(b, s.salt, off, ev.add)
	}
	switch {
	case ev.next.Ordinal == 0:
	case ev.next.FirstSeq == err.FirstSeq:
		err.LastSeq = max(ev.next.LastSeq, err.FirstSeq)
	case ev.next.FirstSeq > err.FirstSeq:
		err.LastSeq = ev.next.FirstSeq - 1
	}
	return err
}

// batch delivers the entries of a verified batch.
func (s *source) batch(b *segment.Batch, to uint64, deliver func(entry.View) bool) (bool, error) {
	seq := b.Commit.FirstSeq
	for at := int64(0); at < int64(len(b.Raw)) && (seq <= to || s.note != nil); {
		kind, size, body, ok := segment.Inside(b.Raw, at)
		if !ok {
			return false, s.corrupt(b.Commit.BatchStart+at, seq, 0, "the batch changed while it was read")
		}
		switch {
		case kind&^segment.EntryFlags == segment.KindEntry && s.note == nil:
			v, err := entry.ParseView(s.dict, seq, kind&segment.EntryFlags, body)
			if err != nil {
				return false, &format.Error{Path: s.path, Offset: b.Commit.BatchStart + at, FirstSeq: seq, Err: err}
			}
			if !deliver(v) {
				return true, nil
			}
			seq++
		case kind&^segment.EntryFlags == segment.KindEntry:
			seq++
		case s.note != nil && entry.NoteKind(kind).Valid():
			if !s.note(&segment.Frame{Kind: kind, Offset: b.Commit.BatchStart + at, Size: size, Body: body}, seq-1) {
				return true, nil
			}
		}
		at += size
	}
	return false, nil
}

// frames delivers entries from off on, verifying each frame by itself, up to the next commit, and returns where and
// in which state that leaves the log.
func (s *source) frames(off int64, seq, to uint64, deliver func(entry.View) bool) (int64, segment.Chain, bool, error) {
	for off < s.end {
		f, err := s.frame(off, seq)
		if err != nil {
			return off, segment.Chain{}, false, err
		}
		if f.IsEntry() {
			if seq > to {
				return off, segment.Chain{}, true, nil
			}
			if s.note != nil {
				seq, off = seq+1, off+f.Size
				continue
			}
			v, err := entry.ParseView(s.dict, seq, f.Flags(), f.Body)
			if err != nil {
				return off, segment.Chain{}, false, &format.Error{Path: s.path, Offset: off, FirstSeq: seq, Err: err}
			}
			if !deliver(v) {
				return off, segment.Chain{}, true, nil
			}
			seq++
		}
		if s.note != nil && f.IsNote() {
			note := f
			if !s.note(&note, seq-1) {
				return off, segment.Chain{}, true, nil
			}
		}
		if f.Kind == segment.KindCommit {
			c, ok := segment.DecodeCommit(&f)
			if !ok {
				return off, segment.Chain{}, false, s.corrupt(off, seq, 0, "commit does not validate")
			}
			if c.LastSeq != seq-1 {
				return off, segment.Chain{}, false, s.corrupt(off, seq, 0, fmt.Sprintf("commit ends at seq %d", c.LastSeq))
			}
			return c.End(), segment.Chain{Ordinal: c.Ordinal, Seq: c.LastSeq, Value: c.Chain, Durable: c.Durable}, false, nil
		}
		off += f.Size
	}
	return off, segment.Chain{Seq: seq - 1}, false, nil
}

// frame reads and verifies one frame.
func (s *source) frame(off int64, seq uint64) (segment.Frame, error) {
	b, err := s.at(off, false)
	for {
		if err != nil {
			return segment.Frame{}, s.readError(off, seq, err)
		}
		f, ferr := segment.ReadFrame(s.path, b, s.salt, off, seq)
		if !segment.IsShort(ferr) {
			return f, ferr
		}
		if b, err = s.at(off, true); len(b) == 0 && err == nil {
			return f, s.corrupt(off, seq, 0, "frame goes beyond the segment")
		}
	}
}

// backStep is how many entries a backward scan finds its way through at a time.
const backStep = 64

// backward scans to..from, newest first, verifying each frame by itself.
func (s *source) backward(from, to uint64, deliver func(entry.View) bool) (bool, error) {
	var offs [backStep]int64
	for to >= from {
		lo := from
		if to-from >= backStep {
			lo = to - backStep + 1
		}
		off, err := s.offset(lo)
		if err != nil {
			return s.oneByOne(lo, to, deliver, err)
		}
		n := 0
		for seq := lo; seq <= to; {
			f, err := s.frame(off, seq)
			if err != nil {
				return s.oneByOne(lo, to, deliver, err)
			}
			if f.IsEntry() {
				offs[n] = off
				n++
				seq++
			}
			off += f.Size
		}
		for i := n - 1; i >= 0; i-- {
			seq := lo + uint64(i)
			f, err := s.frame(offs[i], seq)
			if err != nil {
				return false, err
			}
			v, err := entry.ParseView(s.dict, seq, f.Flags(), f.Body)
			if err != nil {
				return false, &format.Error{Path: s.path, Offset: offs[i], FirstSeq: seq, Err: err}
			}
			if !deliver(v) {
				return true, nil
			}
		}
		if lo == from {
			break
		}
		to = lo - 1
	}
	return false, nil
}

// oneByOne delivers what can be read of lo..to, newest first, when something in there is damaged, and then the error.
func (s *source) oneByOne(lo, to uint64, deliver func(entry.View) bool, damage error) (bool, error) {
	for seq := to; seq >= lo; seq-- {
		v, err := s.get(seq)
		if err != nil {
			return false, err
		}
		if !deliver(v) {
			return true, nil
		}
	}
	return false, damage
}

func (s *source) corrupt(off int64, first, last uint64, why string) error {
	return &format.Error{Path: s.path, Offset: off, FirstSeq: first, LastSeq: last, Why: why, Err: format.ErrCorrupt}
}

func (s *source) readError(off int64, seq uint64, err error) error {
	if lost := (*compressed.LostError)(nil); errors.As(err, &lost) && lost.Err.FirstSeq == 0 {
		last := uint64(0)
		if s.lostTo != nil {
			last = s.lostTo(seq, lost.To)
		}
		return named(err, seq, last)
	}
	var fe *format.Error
	if errors.As(err, &fe) {
		return err
	}
	return &format.Error{Path: s.path, Offset: off, FirstSeq: seq, Why: "read", Err: err}
}
