package markers_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/markers"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

func TestDM39TheStateAtAnEntryIsThatOfTheRecordsInFrontOfIt(t *testing.T) {
	log := newFake()
	m := start(t, log, none)
	for seq := uint64(2); seq <= 20; seq++ {
		if seq%5 == 0 {
			observe(t, m, "quote", "X", int64(seq))
		}
		submit(t, m)
	}
	r := markers.Open(log)
	for seq := uint64(5); seq <= 20; seq++ {
		st, err := r.SeenAt(seq)
		must(t, err)
		c, ok := st.Stream("quote", "X")
		if want := int64(seq - seq%5); !ok || c.Highest != want || c.Count != uint64(want)/5 || st.Seq != seq {
			t.Errorf("at %d: %+v %v", seq, c, ok)
		}
	}
	if _, err := r.SeenAt(0); !errors.Is(err, runlog.ErrInvalid) {
		t.Error(err)
	}
	st, err := r.SeenAt(4)
	must(t, err)
	if _, ok := st.Stream("quote", "X"); ok || len(st.Cursors) != 0 {
		t.Errorf("seen before it was: %+v", st)
	}
}

func TestLossTellsWhetherAnythingWasDroppedInFrontOfAnEntry(t *testing.T) {
	log := newFake()
	m := start(t, log, none)
	observe(t, m, "quote", "X", 1)
	submit(t, m) // 2: recorded
	observe(t, m, "quote", "X", 2)
	log.setFull(true)
	submit(t, m)                                            // 3: dropped
	submit(t, m)                                            // 4: still missing
	wantSeen(t, log, 4, "0=quote/X:1[1,1]", "loss unknown") // as after a crash here
	log.setFull(false)
	submit(t, m) // 5
	observe(t, m, "quote", "X", 3)
	submit(t, m) // 6
	wantSeen(t, log, 2, "0=quote/X:1[1,1]", "loss none")
	wantSeen(t, log, 3, "0=quote/X:1[1,1]", "loss some")
	wantSeen(t, log, 4, "0=quote/X:1[1,1]", "loss some")
	wantSeen(t, log, 5, "0=quote/X:2[1,2]", "loss none")
	wantSeen(t, log, 6, "0=quote/X:3[1,3]", "loss unknown")
	must(t, m.Close(ctx))
	wantSeen(t, log, 6, "0=quote/X:3[1,3]", "loss none")
	wantClean(t, log)
}

// A record that is too large for one note is several; a part of them may be dropped.
func TestALargeBoundaryThatIsDroppedInPartShowsAsLoss(t *testing.T) {
	log := newFake()
	m := start(t, log, none)
	for i := range 1000 {
		observe(t, m, "quote", fmt.Sprintf("instrument-%04d", i), 1)
	}
	log.room = 2
	submit(t, m) // 2
	log.setFull(false)
	submit(t, m) // 3
	for seq, want := range map[uint64]string{2: "loss some", 3: "loss unknown"} {
		got := seen(t, log, seq)
		if got[len(got)-1] != want || seq == 3 && len(got) != 1001 || seq == 2 && len(got) >= 1000 {
			t.Errorf("at %d: %d streams, %s", seq, len(got)-1, got[len(got)-1])
		}
	}
	must(t, m.Close(ctx))
	wantClean(t, log)
}

// Found by the fault matrix: a gap is small and gets through in front of the entry, the cursors behind it do not.
func TestAGapInFrontOfAnEntryDoesNotHideThatItsCursorsAreMissing(t *testing.T) {
	log := newFake()
	m := start(t, log, markers.Options{SnapshotEntries: 16})
	for i := range 200 {
		observe(t, m, "quote", fmt.Sprint(i), 1)
	}
	submit(t, m) // 2
	for i := range 200 {
		observe(t, m, "quote", fmt.Sprint(i), 2)
	}
	log.largest = 100
	for range 16 {
		submit(t, m) // up to 18: behind 17 a snapshot is due, and its try lets the gap through
	}
	log.largest = 0
	submit(t, m) // 19
	last := log.notes[len(log.notes)-1]
	for _, n := range log.notes {
		if n.Kind == entry.NoteGap && n.After == 17 {
			last = n
		}
	}
	if last.Kind != entry.NoteGap {
		t.Fatal("no gap stands in front of 18")
	}
	must(t, m.Close(ctx))
	for seq := uint64(2); seq <= 19; seq++ {
		want := "loss some"
		if seq == 2 || seq == 19 {
			want = "loss none"
		}
		if got := seen(t, log, seq); got[len(got)-1] != want || len(got) != 201 {
			t.Errorf("at %d: %d streams, %s", seq, len(got)-1, got[len(got)-1])
		}
	}
	wantClean(t, log)
}

func TestWhatIsObservedWhileARecordIsWrittenIsInTheNext(t *testing.T) {
	log := newFake()
	m := start(t, log, none)
	s, err := m.Stream("quote", "X")
	must(t, err)
	s.Observe(1)
	log.during = func() { log.during = nil; s.Observe(2) }
	submit(t, m)
	submit(t, m)
	wantRecords(t, log, "1@1 snapshot 1, 0 from 0 of 0", "2@1 cursor 0=quote/X:1[1,1]", "3@2 cursor 0=quote/X:2[1,2]")
}

func TestErrorsAreNotHidden(t *testing.T) {
	log := newFake()
	m := start(t, log, none)
	observe(t, m, "quote", "X", 1)
	submit(t, m)
	broken := errors.New("the disk")
	log.err = broken
	if _, err := markers.Open(log).SeenAt(2); !errors.Is(err, broken) {
		t.Error(err)
	}
	for _, err := range markers.Open(log).Records(2, 0) {
		if !errors.Is(err, broken) {
			t.Error(err)
		}
	}
	if _, err := markers.JoinAt(ctx, markers.Open(log), 2, &catalog{}); !errors.Is(err, broken) {
		t.Error(err)
	}
	log.err = nil
	log.notes = append(log.notes, entry.Note{Kind: entry.NoteCursor, After: 2, Body: []byte("x")})
	var at *runlog.Error
	if _, err := markers.Open(log).SeenAt(3); !errors.Is(err, runlog.ErrCorrupt) || !errors.As(err, &at) || at.FirstSeq != 2 {
		t.Error(err)
	}
	// A cursor of a slot that nobody has introduced is an error, not an unknown stream.
	other := newFake()
	om := start(t, other, none)
	observe(t, om, "quote", "X", 1)
	submit(t, om)
	observe(t, om, "quote", "X", 2)
	submit(t, om)
	other.notes = slices.Delete(other.notes, 1, 2)
	if _, err := markers.Open(other).SeenAt(3); !errors.Is(err, runlog.ErrCorrupt) {
		t.Error(err)
	}
}

// Reading what an entry had seen does not read the log in front of the last snapshot but one: here everything before it is
// damaged.
func TestReadingBeginsAtTheLastSnapshots(t *testing.T) {
	mem := vfs.NewMem(vfs.MemOptions{})
	run := open(t, mem)
	m := start(t, run, markers.Options{SnapshotEntries: 50})
	payload := make([]byte, 4000)
	for i := range 200 {
		observe(t, m, "quote", fmt.Sprint(i%7), int64(i))
		_, err := m.Submit(runlog.Draft{Topic: "t", Type: "x", Payload: payload})
		must(t, err)
	}
	must(t, m.Close(ctx))
	must(t, run.Close(ctx))
	want := seen(t, reader(t, mem, run.Dir()), 190)
	for n := range 3 { // of about 13 segments
		name := run.Dir() + "/" + segment.FileName(uint32(n+1))
		f, err := mem.Open(name)
		must(t, err)
		_, err = f.WriteAt(make([]byte, 20000), 8192)
		must(t, err)
		must(t, f.Close())
	}
	r := reader(t, mem, run.Dir())
	if got := seen(t, r, 190); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	failed := false
	for _, err := range r.Scan(runlog.ScanOptions{}) {
		failed = failed || err != nil
	}
	if !failed {
		t.Error("the damage is none")
	}
}

type row struct {
	ts int64
	n  int
}

// catalog has rows, and records what it was asked.
type catalog struct {
	rows    map[string][]row
	asked   []string
	covers  error
	load    error
	missing bool
}

func (c *catalog) Replayable(class string) bool { return class != "depth" }

func (c *catalog) Covers(_ context.Context, q markers.Query) (bool, error) {
	c.asked = append(c.asked, fmt.Sprintf("covers %s %s %d %d", q.Class, q.ID, q.From, q.To))
	return !c.missing, c.covers
}

func (c *catalog) Load(_ context.Context, q markers.Query) (list []row, err error) {
	c.asked = append(c.asked, "load")
	for _, r := range c.rows[q.ID] {
		if r.ts >= q.From && r.ts <= q.To {
			list = append(list, r)
		}
	}
	return list, c.load
}

func joined(t *testing.T, c *catalog, observed ...int64) (markers.JoinedStream[row], markers.Joined[row]) {
	t.Helper()
	log := newFake()
	m := start(t, log, none)
	observe(t, m, "quote", "X", observed...)
	submit(t, m)
	must(t, m.Close(ctx))
	j, err := markers.JoinAt(ctx, markers.Open(log), 2, c)
	must(t, err)
	if len(j.Streams) != 1 {
		t.Fatalf("%+v", j)
	}
	return j.Streams[0], j
}

func rows(times ...int64) (list []row) {
	for i, ts := range times {
		list = append(list, row{ts, i})
	}
	return list
}

func TestDM40AnExactMatchIsNoCandidate(t *testing.T) {
	c := &catalog{rows: map[string][]row{"X": rows(5, 10, 11, 12, 20)}}
	s, j := joined(t, c, 10, 12, 11)
	if s.Candidate || !s.Covered || s.OrderOnly || !slices.Equal(s.Rows, []row{{10, 1}, {11, 2}, {12, 3}}) || j.State.Loss != markers.None {
		t.Errorf("%+v", s)
	}
	// Not from time 0: from the lowest time that the stream has shown.
	if want := []string{"covers quote X 10 12", "load"}; !slices.Equal(c.asked, want) {
		t.Errorf("asked %q", c.asked)
	}
}

func TestDM41FewerOrMoreRowsAreCandidates(t *testing.T) {
	s, _ := joined(t, &catalog{rows: map[string][]row{"X": rows(10, 12)}}, 10, 11, 12)
	if !s.Candidate || !slices.Equal(s.Rows, []row{{10, 0}, {12, 1}}) {
		t.Errorf("fewer: %+v", s)
	}
	s, _ = joined(t, &catalog{rows: map[string][]row{"X": rows(10, 10, 11, 12)}}, 10, 12)
	if !s.Candidate || !slices.Equal(s.Rows, []row{{11, 2}, {12, 3}}) {
		t.Errorf("more: %+v", s)
	}
}

func TestDM42OrderOnlyClassesAskNothing(t *testing.T) {
	log, c := newFake(), &catalog{}
	m := start(t, log, none)
	observe(t, m, "depth", "X", 1)
	submit(t, m)
	j, err := markers.JoinAt(ctx, markers.Open(log), 2, c)
	must(t, err)
	if s := j.Streams[0]; !s.OrderOnly || s.Rows != nil || s.Candidate || s.Count != 1 || len(c.asked) != 0 {
		t.Errorf("%+v, asked %q", s, c.asked)
	}
}

func TestDM43WhatTheCatalogDoesNotCoverIsACandidateAndNotLoaded(t *testing.T) {
	c := &catalog{missing: true}
	s, _ := joined(t, c, 1)
	if !s.Candidate || s.Covered || s.Rows != nil || len(c.asked) != 1 {
		t.Errorf("%+v, asked %q", s, c.asked)
	}
}

func TestDM44ErrorsOfTheCatalogNameTheStreamAndTheCall(t *testing.T) {
	broken := errors.New("no parquet")
	for op, c := range map[string]*catalog{"Covers": {covers: broken}, "Load": {load: broken}} {
		log := newFake()
		m := start(t, log, none)
		observe(t, m, "quote", "X", 1)
		submit(t, m)
		_, err := markers.JoinAt(ctx, markers.Open(log), 2, c)
		var je *markers.JoinError
		if !errors.Is(err, broken) || !errors.As(err, &je) || je.Op != op || je.Query.ID != "X" {
			t.Errorf("%s: %v", op, err)
		}
	}
}

func TestJoiningBehindALossIsACandidate(t *testing.T) {
	log := newFake()
	m := start(t, log, none)
	observe(t, m, "quote", "X", 1)
	submit(t, m) // 2
	log.setFull(true)
	observe(t, m, "quote", "X", 2)
	submit(t, m) // 3
	log.setFull(false)
	submit(t, m)
	c := &catalog{rows: map[string][]row{"X": rows(1, 2)}}
	for seq, want := range map[uint64]bool{2: false, 3: true, 4: false} {
		j, err := markers.JoinAt(ctx, markers.Open(log), seq, c)
		must(t, err)
		if j.Streams[0].Candidate != want {
			t.Errorf("at %d: %+v", seq, j)
		}
	}
}

// DM45 end to end, on a real run: two data points and then the entry.
func TestDM45TwoMessagesAndThenAnEntryJoinToTheseTwoRows(t *testing.T) {
	mem := vfs.NewMem(vfs.MemOptions{})
	run := open(t, mem)
	m := start(t, run, none)
	for run.Accepted() < 6 {
		submit(t, m)
	}
	observe(t, m, "trade", "X", 1000, 1001)
	if seq := submit(t, m); seq != 7 {
		t.Fatal(seq)
	}
	observe(t, m, "trade", "X", 1002)
	must(t, m.Close(ctx))
	must(t, run.Close(ctx))
	c := &catalog{rows: map[string][]row{"X": rows(math.MinInt64, 999, 1000, 1001, 1002)}}
	j, err := markers.JoinAt(ctx, markers.Open(reader(t, mem, run.Dir())), 7, c)
	must(t, err)
	if s := j.Streams[0]; s.Candidate || !slices.Equal(s.Rows, []row{{1000, 2}, {1001, 3}}) || j.State.Loss != markers.None {
		t.Errorf("%+v", j)
	}
	wantSeen(t, reader(t, mem, run.Dir()), 8, "0=trade/X:3[1000,1002]", "loss none")
}
