package markers

import (
	"context"
	"iter"
	"slices"
	"testing"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/wal"
)

// list is a source of crafted notes.
type list struct {
	notes  []entry.Note
	status manifest.Status
	first  uint64
}

func (l *list) Dir() string             { return "/list" }
func (l *list) FirstSeq() uint64        { return max(l.first, 1) }
func (l *list) LastSeq() uint64         { return 100 }
func (l *list) Status() manifest.Status { return l.status }
func (l *list) Notes(wal.NoteOptions) iter.Seq2[entry.Note, error] {
	return func(yield func(entry.Note, error) bool) {
		for _, n := range l.notes {
			if !yield(n, nil) {
				return
			}
		}
	}
}

func problems(t *testing.T, l *list) (found []Problem) {
	t.Helper()
	if l.status == "" {
		l.status = manifest.CrashedRecovered
	}
	sum, err := Verify(context.Background(), l, func(f Finding) {
		found = append(found, f.Problem)
		if f.Detail == "" || f.String() == "" {
			t.Errorf("%+v says nothing", f)
		}
	})
	if err != nil || sum.Findings != uint64(len(found)) {
		t.Errorf("%+v, %v", sum, err)
	}
	return found
}

// x is a cursor of stream 0.
func x(count uint64, lowest, highest int64, isNew bool) Cursor {
	c := Cursor{Count: count, Lowest: lowest, Highest: highest, isNew: isNew, low: true}
	if isNew {
		c.Class, c.ID = "quote", "X"
	}
	return c
}

func snap(seq, number uint64, final bool, streams ...Cursor) entry.Note {
	return part(Part{Snapshot: number, Streams: uint32(len(streams)), Final: final}, seq, 1, streams...)
}

var (
	begin = snap(1, 1, false)
	isX   = func(count uint64, lowest, highest int64) Cursor {
		c := x(count, lowest, highest, true)
		c.isNew = false
		return c
	}
)

func TestDM33GoodRecordsHaveNothingToReport(t *testing.T) {
	if got := problems(t, &list{notes: []entry.Note{
		begin, cursors(2, 1, x(1, 5, 5, true)), marker(3, Marker{TsInit: 5}), gap(Gap{From: 4, To: 7, Cursors: 1, Markers: 3, Reason: Overload}),
		cursors(8, 1, x(2, 4, 6, false)), marker(9, Marker{Slot: 1, Class: "c", ID: "i", isNew: true}),
		snap(10, 2, true, isX(2, 4, 6), Cursor{Slot: 1, Class: "c", ID: "i"}),
	}, status: manifest.Ended}); len(got) != 0 {
		t.Error(got)
	}
}

func TestDM34ToDM37EachProblemIsFoundAndNamed(t *testing.T) {
	new0 := cursors(2, 1, x(5, 10, 20, true))
	for name, c := range map[string]struct {
		notes []entry.Note
		want  []Problem
	}{
		"a hole":              {[]entry.Note{begin, cursors(3, 1, x(1, 5, 5, true))}, []Problem{SeqGap}},
		"a hole at the front": {[]entry.Note{snap(2, 1, false)}, []Problem{SeqGap}},
		"a hole before a gap": {[]entry.Note{begin, gap(Gap{From: 3, To: 3, Cursors: 1, Reason: Overload})}, []Problem{SeqGap}},
		"twice the same":      {[]entry.Note{begin, new0, cursors(2, 1, x(6, 10, 20, false))}, []Problem{SeqOverlap}},
		"a gap over a record": {[]entry.Note{begin, new0, gap(Gap{From: 2, To: 3, Cursors: 2, Reason: Overload})}, []Problem{SeqOverlap}},
		"a record in a gap": {[]entry.Note{begin, gap(Gap{From: 2, To: 3, Cursors: 2, Reason: Overload}), cursors(3, 1, x(1, 5, 5, true))},
			[]Problem{SeqOverlap}},
		"a gap that ends before it begins": {[]entry.Note{begin, gap(Gap{From: 2, To: 1, Reason: Overload})}, []Problem{BadGap}},
		"a gap that does not add up":       {[]entry.Note{begin, gap(Gap{From: 2, To: 4, Cursors: 1, Markers: 1, Reason: Overload})}, []Problem{BadGap}},
		"a gap from later":                 {[]entry.Note{begin, gap(Gap{From: 2, To: 2, Cursors: 1, FirstAfter: 43, Reason: Overload})}, []Problem{BadGap}},
		"a gap without a reason":           {[]entry.Note{begin, gap(Gap{From: 2, To: 2, Cursors: 1})}, []Problem{BadGap}},
		"a gap with another reason":        {[]entry.Note{begin, gap(Gap{From: 2, To: 2, Cursors: 1, Reason: TooMany})}, []Problem{BadGap}},
		"a count that goes down":           {[]entry.Note{begin, new0, cursors(3, 1, x(4, 10, 20, false))}, []Problem{CountRegressed}},
		"a highest time that goes down":    {[]entry.Note{begin, new0, cursors(3, 1, x(6, 10, 19, false))}, []Problem{TimeRegressed}},
		"a lowest time that goes up":       {[]entry.Note{begin, new0, cursors(3, 1, x(6, 11, 20, false))}, []Problem{TimeRegressed}},
		"a cursor of no stream":            {[]entry.Note{begin, cursors(2, 1, x(1, 5, 5, false))}, []Problem{UnknownSlot}},
		"a marker of no stream":            {[]entry.Note{begin, marker(2, Marker{Slot: 7})}, []Problem{UnknownSlot}},
		"a slot with another name":         {[]entry.Note{begin, new0, marker(3, Marker{Class: "quote", ID: "Y", isNew: true})}, []Problem{Renamed}},
		"a snapshot with another name": {[]entry.Note{begin, new0, snap(3, 2, false, Cursor{Class: "quote", ID: "Y", Count: 5, Lowest: 10, Highest: 20})},
			[]Problem{Renamed}},
		"a snapshot with another count": {[]entry.Note{begin, new0, snap(3, 2, false, isX(6, 10, 20))}, []Problem{BadSnapshot}},
		"a snapshot with another time":  {[]entry.Note{begin, new0, snap(3, 2, false, isX(5, 10, 21))}, []Problem{BadSnapshot}},
		"a snapshot of what nobody saw": {[]entry.Note{begin, snap(2, 2, false, isX(5, 10, 20))}, []Problem{BadSnapshot}},
		"a part that is missing": {[]entry.Note{begin, part(Part{Snapshot: 2, Streams: 3}, 2, 1, Cursor{Class: "c", ID: "0"}),
			part(Part{Snapshot: 2, Streams: 3, First: 2}, 3, 1, Cursor{Slot: 2, Class: "c", ID: "2"})}, []Problem{BadSnapshot}},
		"a snapshot number that is missing": {[]entry.Note{begin, snap(2, 3, false)}, []Problem{BadSnapshot}},
		"a second beginning":                {[]entry.Note{begin, snap(2, 1, false)}, []Problem{BadSnapshot}},
		"a snapshot that has not caught up": {[]entry.Note{begin, gap(Gap{From: 2, To: 2, Cursors: 1, Reason: Overload}), snap(3, 2, false)}, []Problem{BadSnapshot}},
		"a cursor that is not whole, and a snapshot that claims so": {[]entry.Note{begin, gap(Gap{From: 2, To: 2, Cursors: 1, Reason: Overload}),
			cursors(3, 1, x(1, 5, 5, true)), snap(4, 2, false, isX(1, 5, 5))}, []Problem{BadSnapshot}},
		"a gap of markers behind an entry":    {[]entry.Note{begin, gap(Gap{From: 2, To: 2, Markers: 1, FirstAfter: 5, Reason: Overload})}, []Problem{BadGap}},
		"a snapshot that has too few streams": {[]entry.Note{begin, new0, snap(3, 2, false)}, []Problem{BadSnapshot}},
		"a record behind the last snapshot":   {[]entry.Note{begin, snap(2, 2, true), cursors(3, 1, x(1, 5, 5, true))}, []Problem{AfterFinal}},
		"a record that is none":               {[]entry.Note{begin, {Kind: entry.NoteCursor, Body: []byte("x")}, new0}, []Problem{BadRecord}},
		"two problems": {[]entry.Note{begin, new0, cursors(3, 1, x(4, 10, 20, false)), cursors(5, 1, x(5, 10, 20, false))},
			[]Problem{CountRegressed, SeqGap}},
	} {
		if got := problems(t, &list{notes: c.notes}); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestARunThatEndedWithoutItsLastSnapshotIsAFinding(t *testing.T) {
	notes := []entry.Note{begin, cursors(2, 1, x(1, 5, 5, true))}
	for status, want := range map[manifest.Status][]Problem{manifest.Ended: {NoFinal}, manifest.CrashedRecovered: nil, manifest.Running: nil} {
		if got := problems(t, &list{notes: notes, status: status}); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", status, got, want)
		}
	}
}

// In a log whose front is gone, slots need not be known before the first whole snapshot; behind it they must.
func TestASuffixIsVerifiedFromItsFirstSnapshotOn(t *testing.T) {
	two := part(Part{Snapshot: 7, Streams: 2}, 11, 1, isX(5, 10, 20))
	rest := part(Part{Snapshot: 7, Streams: 2, First: 1}, 13, 1, Cursor{Slot: 1, Class: "c", ID: "1", Count: 9, Lowest: 1, Highest: 9})
	y := Cursor{Slot: 1, Count: 9, Highest: 9}
	notes := []entry.Note{part(Part{Snapshot: 6, Streams: 2, First: 1}, 10, 1, Cursor{Slot: 1, Class: "c", ID: "1", Count: 8, Lowest: 1, Highest: 8}), two,
		cursors(12, 1, y), rest}
	if got := problems(t, &list{notes: notes, first: 50}); len(got) != 0 {
		t.Error(got)
	}
	if got := problems(t, &list{notes: append(notes, marker(14, Marker{Slot: 3})), first: 50}); !slices.Equal(got, []Problem{UnknownSlot}) {
		t.Error(got)
	}
	if got := problems(t, &list{notes: notes}); !slices.Contains(got, SeqGap) || !slices.Contains(got, BadSnapshot) {
		t.Errorf("with its front, it is %v", got)
	}
}
