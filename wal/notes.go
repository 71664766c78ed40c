package wal

import (
	"iter"
	"runtime/debug"
	"slices"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/index"
	"github.com/runlog-io/runlog/segment"
)

// NoteOptions select notes. The zero value selects all that are there.
type NoteOptions struct {
	// From and To are bounds of Note.After, inclusive; From 0: from the first that is there; To 0: to the end. Notes behind
	// entries that are named and that retention has removed are ErrRemoved, as for ScanOptions; of those behind the last such
	// entry some may be left.
	From, To uint64
	Kinds    []entry.NoteKind // none: all
	// Reverse returns the newest first. It is for kinds that the indexes list (entry.NoteKind.Indexed); others are then
	// left out.
	Reverse bool
	Level   Level // how far the reader sees
}

// noteQuery is a NoteOptions with its bounds resolved.
type noteQuery struct {
	NoteOptions
	wanted  [entry.NoteGap + 1]bool
	indexed bool // all that is wanted is in the indexes
}

func newNoteQuery(o NoteOptions) *noteQuery {
	q := &noteQuery{NoteOptions: o, indexed: true}
	if q.To == 0 {
		q.To = noEnd
	}
	for k := entry.NoteAnchor; k <= entry.NoteGap; k++ {
		q.wanted[k] = (len(o.Kinds) == 0 || slices.Contains(o.Kinds, k)) && (!o.Reverse || k.Indexed())
		q.indexed = q.indexed && (k.Indexed() || !q.wanted[k])
	}
	return q
}

func (q *noteQuery) wants(kind entry.NoteKind, after uint64) bool {
	return kind.Valid() && q.wanted[kind] && after >= q.From && after <= q.To
}

// Notes returns the selected notes in the order of the log, or backwards. A note is valid until the next step. Kinds that
// are in the indexes are found there, whatever the length of the log; for others the part of the log between From and To
// is read and verified. An error comes last, after every good note before it.
func (r *Reader) Notes(o NoteOptions) iter.Seq2[entry.Note, error] {
	return func(yield func(entry.Note, error) bool) {
		stopped := false
		err := r.notes(newNoteQuery(o), func(n entry.Note) bool {
			stopped = !yield(n, nil)
			return !stopped
		})
		if err != nil && !stopped {
			yield(entry.Note{}, err)
		}
	}
}

func (r *Reader) notes(q *noteQuery, yield func(entry.Note) bool) error {
	if q.Level == DefaultLevel && r.log != nil {
		q.Level = Durable
	}
	whole := q.To >= r.last(q.Level)
	set := r.set()
	first := max(set.floor.seq, 1) - 1 // some that stand behind the last entry which is gone may be left
	gone := q.From <= q.To && (q.From != 0 && q.From < first || q.To < first)
	if gone && (!q.Reverse || q.To < first) {
		return r.below(set.floor)
	}
	if q.Reverse && whole {
		if err := r.damage(); err != nil { // what stands at the end is unknown: say so before anything older
			return err
		}
	}
	done, err := r.noteSegments(set, q, yield)
	switch {
	case done || err != nil:
		return r.explain(err)
	case gone:
		return r.below(set.floor)
	case whole && q.From <= 1:
		return r.Damage()
	case whole && !q.Reverse:
		return r.damage()
	}
	return nil
}

func (r *Reader) noteSegments(set *segSet, q *noteQuery, yield func(entry.Note) bool) (done bool, err error) {
	if len(set.segs) == 0 {
		return false, nil
	}
	first, _ := r.find(set, q.From)
	last := len(set.segs) - 1
	if q.To < r.last(Written) {
		for last, _ = r.find(set, q.To); last+1 < len(set.segs) && r.lastOf(set, last) <= q.To; last++ {
		} // notes behind a segment's last entry stand in the next one if that was new
	}
	i, step, end, begun := first, 1, last+1, false
	if q.Reverse {
		i, step, end = last, -1, first-1
	}
	for ; i != end; i += step {
		done, err := r.withSegment(set.segs[i], func(s segReader) (bool, error) { return s.notes(q, yield) })
		if err != nil && q.From == 0 && (q.Reverse || !begun) && r.passed(set.segs[i], err) {
			continue
		}
		begun = true
		if done || err != nil {
			return done, err
		}
	}
	return false, nil
}

func (m *mapped) notes(q *noteQuery, yield func(entry.Note) bool) (bool, error) {
	s, letGo := m.source(!q.indexed)
	defer letGo()
	var refs []index.NoteRef
	var rest error
	if q.indexed {
		ix := m.index()
		if refs, rest = ix.Notes(); rest != nil {
			if again, err := m.rebuildIndex(ix, rest); err == nil {
				refs, rest = again.Notes()
			}
		}
	}
	return s.notes(q, refs, rest, yield)
}

func (o *openSeg) notes(q *noteQuery, yield func(entry.Note) bool) (bool, error) {
	end := o.end.Load()
	if q.Level == Durable {
		end = o.durableEnd.Load()
	}
	s := o.source(end)
	return s.notes(q, o.ix.Notes(), nil, yield)
}

func (l *lostSeg) notes(q *noteQuery, yield func(entry.Note) bool) (done bool, err error) {
	within := l.good != nil && q.To < l.good.lastSeq.Load() // notes behind its last entry may be among what is lost
	if q.Reverse && !within {
		return false, l.err
	}
	if l.good != nil {
		done, err = l.good.notes(q, yield)
	}
	if !done && err == nil && !within {
		err = l.err
	}
	return done, err
}

// notes delivers the segment's notes: those that refs lists, or all, by reading on from the first that can be wanted.
// rest is why refs does not list all.
func (s *source) notes(q *noteQuery, refs []index.NoteRef, rest error, yield func(entry.Note) bool) (done bool, err error) {
	inside := true // in library code, where a fault in a mapping is ours to report
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if inside {
			rescue(recover(), s.path, &err)
		}
	}()
	deliver := func(n entry.Note) bool {
		inside = false
		more := yield(n)
		inside = true
		return more
	}
	if !q.indexed {
		s.note = func(f *segment.Frame, after uint64) bool {
			return !q.wants(entry.NoteKind(f.Kind), after) || deliver(entry.Note{Kind: entry.NoteKind(f.Kind), After: after, Body: f.Body})
		}
		if s.end <= s.first || s.firstSeq > 0 && s.firstSeq-1 > q.To {
			return false, nil
		}
		from := s.firstSeq
		if q.From > from && s.lastSeq >= s.firstSeq {
			from = min(q.From, s.lastSeq)
		}
		return s.forward(from, q.To, nil)
	}
	for i := range refs {
		ref := refs[i]
		if q.Reverse {
			ref = refs[len(refs)-1-i]
		}
		if ref.Offset >= s.end || !q.wants(ref.Kind, ref.After) {
			continue
		}
		f, err := s.frame(ref.Offset, 0)
		if err == nil && f.Kind != uint8(ref.Kind) {
			err = s.corrupt(ref.Offset, 0, 0, "the index says that a note stands here")
		}
		if err != nil {
			return false, err
		}
		if !deliver(entry.Note{Kind: ref.Kind, After: ref.After, Body: f.Body}) {
			return true, nil
		}
	}
	return false, rest
}
