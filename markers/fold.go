package markers

import (
	"fmt"

	"github.com/runlog-io/runlog/entry"
)

// Problem is what can be wrong with the records of a run although every checksum is right.
type Problem string

// Problems.
const (
	BadRecord      Problem = "record"       // a body that cannot be decoded
	SeqGap         Problem = "sequence gap" // numbers are missing, and no gap record stands for them
	SeqOverlap     Problem = "overlap"      // a number comes twice
	BadGap         Problem = "gap"          // a gap record that contradicts itself
	CountRegressed Problem = "count"        // a stream's count goes down
	TimeRegressed  Problem = "time"         // a stream's highest time goes down, or its lowest up
	UnknownSlot    Problem = "slot"         // a slot that no stream has been given
	Renamed        Problem = "name"         // a slot is given to another stream
	BadSnapshot    Problem = "snapshot"     // a snapshot says something else than the records before it, or its parts do not fit
	AfterFinal     Problem = "after final"  // a record behind the last snapshot
	NoFinal        Problem = "no final"     // the run has ended, and its markers were not closed
)

// fold adds records up. It is what the log's markers mean: the reader takes its state, the verifier its problems.
type fold struct {
	begun   bool // a record was added
	suffix  bool // records in front of the first one are not known
	seq     uint64
	taken   int64 // of the newest record that tells
	cursors map[uint32]*Cursor
	slots   uint64 // that are known: one more than the greatest
	snap    foldSnapshot
	final   bool // the last snapshot is whole
	behind  bool // cursors were dropped, and have not caught up
	refused bool // messages of streams that were not taken were dropped
}

// foldSnapshot is the snapshot whose parts are coming.
type foldSnapshot struct {
	number  uint64
	next    uint32
	streams uint32
	going   bool
	whole   uint64 // number of the newest that is whole; 0: none
}

func newFold(suffix bool) *fold { return &fold{suffix: suffix, cursors: map[uint32]*Cursor{}} }

// add adds a record, and reports what is wrong with it; as far as it can, it believes the record. It fills in the names of
// streams in rec.
func (f *fold) add(rec *Record, report func(Problem, string)) {
	f.number(rec, report)
	if f.final {
		report(AfterFinal, fmt.Sprintf("a %s record behind the last snapshot", rec.Kind))
	}
	switch rec.Kind {
	case entry.NoteStreams:
		f.part(rec, report)
	case entry.NoteCursor:
		for i := range rec.Cursors {
			f.cursor(&rec.Cursors[i], report)
		}
		f.behind = f.behind && !rec.Whole
	case entry.NoteMarker:
		mk := &rec.Marker
		c := f.stream(mk.Slot, mk.isNew, mk.Class, mk.ID, report)
		mk.Class, mk.ID = c.Class, c.ID
	case entry.NoteGap:
		f.behind, f.refused = f.behind || rec.Gap.Cursors > 0, f.refused || rec.Gap.Refused > 0
	}
	if rec.Kind == entry.NoteStreams || rec.Kind == entry.NoteCursor {
		f.taken = rec.Taken
	}
	f.begun = true
}

// number checks that the records' numbers rise by one, but for gaps.
func (f *fold) number(rec *Record, report func(Problem, string)) {
	last := rec.Seq
	if rec.Kind == entry.NoteGap {
		if why := contradiction(&rec.Gap, rec.After); why != "" {
			report(BadGap, fmt.Sprintf("records %d to %d: %s", rec.Gap.From, rec.Gap.To, why))
		}
		last = max(last, rec.Gap.To)
	}
	switch {
	case !f.begun && f.suffix:
	case rec.Seq > f.seq+1:
		report(SeqGap, fmt.Sprintf("record %d follows record %d", rec.Seq, f.seq))
	case rec.Seq <= f.seq:
		report(SeqOverlap, fmt.Sprintf("record %d follows record %d", rec.Seq, f.seq))
	}
	f.seq = max(f.seq, last)
}

func contradiction(g *Gap, after uint64) string {
	switch n := g.To - g.From + 1; {
	case g.From > g.To:
		return "it ends before it begins"
	case g.Cursors > n || g.Markers > n || g.Refused > n || g.Cursors+g.Markers+g.Refused != n:
		return fmt.Sprintf("%d cursors, %d markers and %d messages that were refused are not %d", g.Cursors, g.Markers, g.Refused, n)
	case g.FirstAfter > after || g.FirstAfter > 0 && g.Markers == n:
		return fmt.Sprintf("it begins behind seq %d and stands behind seq %d, with %d markers", g.FirstAfter, after, g.Markers)
	case g.Reason == 0 || (g.Refused > 0) != (g.Reason&TooMany != 0):
		return fmt.Sprintf("the reason is %q, and %d messages were refused", g.Reason, g.Refused)
	}
	return ""
}

// stream finds the stream with a slot, or makes it.
func (f *fold) stream(slot uint32, isNew bool, class, id string, report func(Problem, string)) *Cursor {
	c := f.cursors[slot]
	if c == nil {
		c = &Cursor{Slot: slot}
		f.cursors[slot] = c
		f.slots = max(f.slots, uint64(slot)+1)
		if !isNew && !f.partial() {
			report(UnknownSlot, fmt.Sprintf("no record says which stream slot %d is", slot))
		}
	}
	switch {
	case !isNew:
	case c.named && (c.Class != class || c.ID != id):
		report(Renamed, fmt.Sprintf("slot %d is %s %s, and was %s %s", slot, class, id, c.Class, c.ID))
		fallthrough
	default:
		c.Class, c.ID, c.named = class, id, true
	}
	return c
}

// partial reports whether slots may be unknown, since what is being added begins in the middle and no snapshot is whole yet.
func (f *fold) partial() bool { return f.suffix && f.snap.whole == 0 }

func (f *fold) cursor(in *Cursor, report func(Problem, string)) {
	c := f.stream(in.Slot, in.isNew, in.Class, in.ID, report)
	if in.Count < c.Count {
		report(CountRegressed, fmt.Sprintf("slot %d: the count is %d, and was %d", in.Slot, in.Count, c.Count))
	}
	if c.Count > 0 && in.Highest < c.Highest {
		report(TimeRegressed, fmt.Sprintf("slot %d: the highest time is %d, and was %d", in.Slot, in.Highest, c.Highest))
	}
	if in.low {
		if c.low && in.Lowest > c.Lowest {
			report(TimeRegressed, fmt.Sprintf("slot %d: the lowest time is %d, and was %d", in.Slot, in.Lowest, c.Lowest))
		}
		c.Lowest, c.low = in.Lowest, true
	}
	c.Count, c.Highest = in.Count, in.Highest
	in.Class, in.ID, in.Lowest = c.Class, c.ID, c.Lowest
}

// part adds a part of a snapshot. It has to say what the records before it say.
func (f *fold) part(rec *Record, report func(Problem, string)) {
	s, p := &f.snap, &rec.Part
	switch {
	case p.First == 0 && p.Snapshot > s.number && (p.Snapshot == s.number+1 || !f.begun && f.suffix):
		*s = foldSnapshot{number: p.Snapshot, streams: p.Streams, going: true, whole: s.whole}
		if uint64(p.Streams) < f.slots {
			report(BadSnapshot, fmt.Sprintf("snapshot %d has %d streams, and %d were known before it", p.Snapshot, p.Streams, f.slots))
		}
	case p.Snapshot != s.number || p.First != s.next || p.Streams != s.streams || !s.going:
		if s.going = false; f.partial() { // its first part is not there
			s.number = max(s.number, p.Snapshot)
		} else {
			report(BadSnapshot, fmt.Sprintf("streams %d to %d of %d, of snapshot %d, follow up to %d of %d, of snapshot %d",
				p.First, int(p.First)+len(rec.Cursors)-1, p.Streams, p.Snapshot, int(s.next)-1, s.streams, s.number))
		}
	}
	if (p.Behind != f.behind || p.Refused != f.refused) && !f.partial() {
		report(BadSnapshot, fmt.Sprintf("behind is %v and refused is %v, and the records before it say %v and %v", p.Behind, p.Refused, f.behind, f.refused))
	}
	f.behind, f.refused = p.Behind, p.Refused
	for i := range rec.Cursors {
		f.compare(&rec.Cursors[i], report)
	}
	s.next = p.First + uint32(len(rec.Cursors))
	if s.going && p.ends(len(rec.Cursors)) {
		s.going, s.whole = false, s.number
		f.final = p.Final
	}
}

// compare holds a stream in a snapshot against what is known of it, which may be nothing: then it is from before the first
// record that was added, or has not been recorded yet.
func (f *fold) compare(in *Cursor, report func(Problem, string)) {
	c := f.cursors[in.Slot]
	switch {
	case c == nil:
		if in.Count > 0 && !f.partial() {
			report(BadSnapshot, fmt.Sprintf("slot %d has a count of %d, and no record says so", in.Slot, in.Count))
		}
		known := *in
		f.cursors[in.Slot] = &known
		f.slots = max(f.slots, uint64(in.Slot)+1)
		return
	case c.named && (c.Class != in.Class || c.ID != in.ID):
		report(Renamed, fmt.Sprintf("slot %d is %s %s, and was %s %s", in.Slot, in.Class, in.ID, c.Class, c.ID))
	case in.Count != c.Count || in.Count > 0 && (in.Highest != c.Highest || c.low && in.Lowest != c.Lowest):
		if !f.partial() || c.Count > 0 { // a marker has named it, and its cursor is from before
			report(BadSnapshot, fmt.Sprintf("slot %d: %d messages at %d to %d, and the records before it say %d at %d to %d",
				in.Slot, in.Count, in.Lowest, in.Highest, c.Count, c.Lowest, c.Highest))
		}
	}
	*c = *in
}
