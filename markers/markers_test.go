package markers_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/capture"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/markers"
	"github.com/runlog-io/runlog/vfs"
)

var (
	ctx  = context.Background()
	none = markers.Options{}
)

func TestDM1SlotsAreGivenInTheOrderOfFirstSightAndNamedOnce(t *testing.T) {
	log := newFake()
	m := start(t, log, none)
	observe(t, m, "quote", "B", 1)
	observe(t, m, "quote", "A", 2)
	observe(t, m, "quote", "B", 3)
	m.Boundary()
	observe(t, m, "quote", "A", 4)
	m.Boundary()
	wantRecords(t, log, "1@1 snapshot 1, 0 from 0 of 0", "2@1 cursor 0=quote/B:2[1,3] 1=quote/A:1[2,2]", "3@1 cursor 1=quote/A:2[2,4]")
	if n := strings.Count(string(log.notes[2].Body), "quote"); n != 0 {
		t.Errorf("the second record names a stream again, %d times", n)
	}
}

func TestDM2ACursorCountsAndKeepsLowestAndHighestTime(t *testing.T) {
	log := newFake()
	m := start(t, log, none)
	observe(t, m, "trade", "X", 100, 200, 150)
	m.Boundary()
	wantRecords(t, log, "1@1 snapshot 1, 0 from 0 of 0", "2@1 cursor 0=trade/X:3[100,200]")
	observe(t, m, "trade", "X", -7)
	m.Boundary()
	wantSeen(t, log, 2, "0=trade/X:4[-7,200]", "loss unknown")
}

func TestDM3OnlyStreamsThatHaveAdvancedAreRecorded(t *testing.T) {
	log := newFake()
	m := start(t, log, none)
	for i := range 3 {
		observe(t, m, "bar", fmt.Sprint(i), 10)
	}
	m.Boundary()
	observe(t, m, "bar", "0", 11)
	observe(t, m, "bar", "2", 12, 13)
	m.Boundary()
	m.Boundary() // none has advanced
	wantRecords(t, log, "1@1 snapshot 1, 0 from 0 of 0", "2@1 cursor 0=bar/0:1[10,10] 1=bar/1:1[10,10] 2=bar/2:1[10,10]",
		"3@1 cursor 0=bar/0:2[10,11] 2=bar/2:3[10,13]")
	wantSeen(t, log, 2, "0=bar/0:2[10,11]", "1=bar/1:1[10,10]", "2=bar/2:3[10,13]", "loss unknown")
}

func marks(t testing.TB, times ...int64) (list []string) {
	t.Helper()
	log := newFake()
	m := start(t, log, markers.Options{Marked: []markers.StreamID{{Class: "quote", ID: "X"}}})
	s, err := m.Stream("quote", "X")
	must(t, err)
	for _, ts := range times {
		s.Mark(ts-1, ts, markers.Fingerprint{0xab, byte(ts)})
	}
	return records(t, log)[1:]
}

func TestDM4OrdinalsCountEqualTimesAndAnyChangeResetsThem(t *testing.T) {
	for _, c := range []struct {
		times []int64
		want  []int
	}{{[]int64{100, 100, 100, 200, 200}, []int{0, 1, 2, 0, 1}}, {[]int64{100, 200, 100}, []int{0, 0, 0}}} {
		var want []string
		for i, ts := range c.times {
			want = append(want, fmt.Sprintf("%d@1 marker quote X %d %d #%d ab%02x", i+2, ts-1, ts, c.want[i], ts))
		}
		if got := marks(t, c.times...); !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestDM7NamesHaveLimitsAndErrorsShowThem(t *testing.T) {
	m := start(t, newFake(), markers.Options{Classes: []string{"quote"}})
	for _, s := range [][2]string{{"", "x"}, {"quote", ""}, {"quote", strings.Repeat("x", 256)}, {"quote", "a\xff"}, {strings.Repeat("c", 65), "x"}, {"Quote", "x"}, {"quot", "x"}} {
		_, err := m.Stream(s[0], s[1])
		if !errors.Is(err, runlog.ErrInvalid) {
			t.Errorf("%q: %v", s, err)
		}
		if bad := fmt.Sprintf("%q", s[0]); s[1] == "x" && !strings.Contains(err.Error(), bad) {
			t.Errorf("%q: the error does not show it: %v", s, err)
		}
	}
	if _, err := m.Stream("quote", strings.Repeat("é", 127)+"x"); err != nil {
		t.Error(err)
	}
	for _, o := range []markers.Options{
		{Classes: []string{""}}, {Marked: []markers.StreamID{{Class: "x"}}}, {SnapshotEntries: 15}, {SnapshotBytes: 1}, {MaxStreams: 1<<24 + 1}, {MaxStreams: -1},
	} {
		if _, err := markers.New(newFake(), o); !errors.Is(err, runlog.ErrInvalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := markers.New(nil, none); !errors.Is(err, runlog.ErrInvalid) {
		t.Error(err)
	}
}

func TestDM18RecordsAreStoredInOrder(t *testing.T) {
	mem := vfs.NewMem(vfs.MemOptions{})
	run := open(t, mem)
	m := start(t, run, none)
	for i := range 20 {
		observe(t, m, "quote", fmt.Sprint(i%3), int64(i))
		submit(t, m)
	}
	must(t, m.Close(ctx))
	must(t, run.Close(ctx))
	last := uint64(0)
	for rec, err := range markers.Open(reader(t, mem, run.Dir())).Records(0, 0) {
		must(t, err)
		if rec.Seq != last+1 {
			t.Errorf("record %d follows %d", rec.Seq, last)
		}
		last = rec.Seq
	}
	if last != 22 {
		t.Errorf("%d records, want a snapshot, 20 cursors and a snapshot", last)
	}
	if sum := wantClean(t, reader(t, mem, run.Dir())); sum.Cursors != 20 || sum.Snapshots != 2 || sum.Streams != 3 || !sum.Final {
		t.Errorf("%+v", sum)
	}
}

// The case of the Rust system: three are dropped, and the next one that gets through is preceded by one gap.
func TestDM20ThreeDroppedRecordsAreOneGapInFrontOfTheNext(t *testing.T) {
	for _, next := range []string{"cursor", "marker"} {
		log := newFake()
		m := start(t, log, markers.Options{Marked: []markers.StreamID{{Class: "quote", ID: "X"}}})
		s, err := m.Stream("quote", "X")
		must(t, err)
		observe(t, m, "quote", "Y", 1)
		m.Boundary()
		log.setFull(true)
		s.Mark(10, 10, markers.Fingerprint{})
		m.Boundary()
		s.Mark(11, 11, markers.Fingerprint{})
		log.setFull(false)
		want := []string{"1@1 snapshot 1, 0 from 0 of 0", "2@1 cursor 1=quote/Y:1[1,1]", "3@1 gap to 5 behind 1: 1 cursors, 2 markers, 0 refused, overload"}
		if next == "cursor" {
			m.Boundary()
			want = append(want, "6@1 cursor 0=quote/X:2[10,11]")
		} else {
			s.Mark(12, 12, markers.Fingerprint{})
			want = append(want, "6@1 marker quote X 12 12 #0 0000")
		}
		wantRecords(t, log, want...)
		if list, sum := verified(t, log); len(list) != 1 || list[0] != markers.NoFinal || sum.Dropped != 3 {
			t.Errorf("%v, %+v", list, sum)
		}
	}
}

func TestDM21AGapThatIsOpenAtTheEndIsWrittenByClose(t *testing.T) {
	log := newFake()
	m := start(t, log, none)
	observe(t, m, "quote", "X", 1)
	log.setFull(true)
	m.Boundary()
	must(t, m.Close(ctx))
	must(t, m.Close(ctx)) // again
	wantRecords(t, log, "1@1 snapshot 1, 0 from 0 of 0", "2@1 gap to 2 behind 1: 1 cursors, 0 markers, 0 refused, overload, closed",
		"3@1 cursor 0=quote/X:1[1,1]", "4@1 snapshot 2, 1 from 0 of 1, final")
	wantClean(t, log)
	observe(t, m, "quote", "X", 2)
	observe(t, m, "quote", "Z", 2)
	submit(t, m)
	if len(log.notes) != 4 {
		t.Error("a record behind the last snapshot")
	}
}

func TestDM22NamesAreNeverDroppedWithoutBeingWrittenLater(t *testing.T) {
	log := newFake()
	m := start(t, log, none)
	log.setFull(true)
	observe(t, m, "quote", "X", 1)
	m.Boundary()
	log.setFull(false)
	submit(t, m)
	wantRecords(t, log, "1@1 snapshot 1, 0 from 0 of 0", "2@1 gap to 2 behind 1: 1 cursors, 0 markers, 0 refused, overload", "3@1 cursor 0=quote/X:1[1,1]")
}

func TestDM23MarkersOfARunThatHasEndedAreRefused(t *testing.T) {
	mem := vfs.NewMem(vfs.MemOptions{})
	run := open(t, mem)
	must(t, run.Close(ctx))
	if _, err := markers.New(run, none); !errors.Is(err, runlog.ErrClosed) {
		t.Error(err)
	}
}

func TestDM26EveryKindOfRecordStandsBehindTheLastEntryBeforeIt(t *testing.T) {
	log := newFake()
	log.seq = 5
	m := start(t, log, markers.Options{Marked: []markers.StreamID{{Class: "quote", ID: "X"}}})
	s, err := m.Stream("quote", "X")
	must(t, err)
	s.Mark(1, 1, markers.Fingerprint{})
	submit(t, m) // 6
	s.Mark(2, 2, markers.Fingerprint{})
	submit(t, m) // 7
	wantRecords(t, log, "1@5 snapshot 1, 0 from 0 of 0", "2@5 marker quote X 1 1 #0 0000", "3@5 cursor 0=quote/X:1[1,1]",
		"4@6 marker quote X 2 2 #0 0000", "5@6 cursor 0=quote/X:2[1,2]")
	wantSeen(t, log, 6, "0=quote/X:1[1,1]", "loss none")
	wantSeen(t, log, 7, "0=quote/X:2[1,2]", "loss unknown")
}

func TestDM27DataAndThenAnEntryMakeOneRecord(t *testing.T) {
	log := newFake()
	m := start(t, log, none)
	observe(t, m, "quote", "X", 1, 2, 3)
	submit(t, m)
	submit(t, m)
	wantRecords(t, log, "1@1 snapshot 1, 0 from 0 of 0", "2@1 cursor 0=quote/X:3[1,3]")
}

func TestDM29OnlyChosenStreamsAreMarked(t *testing.T) {
	log := newFake()
	m := start(t, log, markers.Options{Marked: []markers.StreamID{{Class: "quote", ID: "X"}}})
	for _, id := range []string{"X", "Y", "X"} {
		s, err := m.Stream("quote", id)
		must(t, err)
		if s.Marked() != (id == "X") {
			t.Errorf("%s: marked is %v", id, s.Marked())
		}
		s.Mark(7, 8, markers.Fingerprint{1, 2})
	}
	wantRecords(t, log, "1@1 snapshot 1, 0 from 0 of 0", "2@1 marker quote X 7 8 #0 0102", "3@1 marker quote X 7 8 #1 0102")
	m.Boundary()
	wantSeen(t, log, 2, "0=quote/X:2[8,8]", "1=quote/Y:1[8,8]", "loss unknown")
}

func TestTooManyStreamsAreRefusedAndTheirMessagesCounted(t *testing.T) {
	log := newFake()
	m := start(t, log, markers.Options{MaxStreams: 1, SnapshotEntries: 16})
	observe(t, m, "quote", "X", 1)
	for range 2 {
		if err := m.Observe("quote", "Y", 1); !errors.Is(err, runlog.ErrInvalid) {
			t.Error(err)
		}
	}
	submit(t, m)
	wantRecords(t, log, "1@1 snapshot 1, 0 from 0 of 0", "2@1 gap to 3 behind 1: 0 cursors, 0 markers, 2 refused, too many streams", "4@1 cursor 0=quote/X:1[1,1]")
	for range 20 {
		submit(t, m)
	}
	must(t, m.Close(ctx))
	wantSeen(t, log, 2, "0=quote/X:1[1,1]", "loss some")
	wantSeen(t, log, 22, "0=quote/X:1[1,1]", "loss some") // for good: nothing makes up for them
	wantClean(t, log)
	if st := m.Stats(); st != (markers.Stats{Streams: 1, Records: 4, Dropped: 2}) {
		t.Errorf("%+v", st)
	}
}

// Slots are a stream's: DM46 of the Rust system, with the same stream on two topics.
func TestDM46EntryDataDataEntry(t *testing.T) {
	mem := vfs.NewMem(vfs.MemOptions{})
	run := open(t, mem)
	m := start(t, run, none)
	submit(t, m) // 2
	observe(t, m, "trade", "A", 10)
	observe(t, m, "quote", "B", 20)
	submit(t, m) // 3
	must(t, m.Close(ctx))
	must(t, run.Close(ctx))
	r := reader(t, mem, run.Dir())
	wantRecords(t, r, "1@1 snapshot 1, 0 from 0 of 0", "2@2 cursor 0=trade/A:1[10,10] 1=quote/B:1[20,20]", "3@3 snapshot 2, 2 from 0 of 2, final")
	wantSeen(t, r, 1, "no markers")
	wantSeen(t, r, 2, "loss none")
	wantSeen(t, r, 3, "0=trade/A:1[10,10]", "1=quote/B:1[20,20]", "loss none")
	wantSeen(t, r, 99, "0=trade/A:1[10,10]", "1=quote/B:1[20,20]", "loss none")
	wantClean(t, r)
}

func TestDM47ARunWithoutMarkersHasNone(t *testing.T) {
	mem := vfs.NewMem(vfs.MemOptions{})
	run := open(t, mem)
	must(t, run.Close(ctx))
	r := reader(t, mem, run.Dir())
	if _, err := markers.Open(r).Streams(); !errors.Is(err, markers.ErrNoMarkers) {
		t.Error(err)
	}
	if sum := wantClean(t, r); sum.Any() {
		t.Errorf("%+v", sum)
	}
}

func TestDM48MarkersThatCannotStartLeaveTheRunAlone(t *testing.T) {
	mem := vfs.NewMem(vfs.MemOptions{})
	run := open(t, mem)
	if _, err := markers.New(run, markers.Options{MaxStreams: -1}); err == nil {
		t.Fatal("no error")
	}
	if _, err := run.Append(ctx, runlog.Draft{Topic: "t", Type: "x"}); err != nil {
		t.Error(err)
	}
	must(t, run.Close(ctx))
}

func TestDM49RecoveryTakesMarkersForWhatTheyAre(t *testing.T) {
	mem := vfs.NewMem(vfs.MemOptions{})
	run := open(t, mem)
	m := start(t, run, none)
	observe(t, m, "trade", "A", 10)
	submit(t, m)
	mem = mem.Kill()
	next := open(t, mem)
	defer next.Close(ctx)
	if p := next.Predecessors(); len(p) != 1 || p[0].Status != runlog.CrashedRecovered || p[0].LastSeq != 2 || next.Manifest().Parent != run.ID() {
		t.Fatalf("%+v", p)
	}
	r := reader(t, mem, run.Dir())
	wantSeen(t, r, 2, "0=trade/A:1[10,10]", "loss unknown")
	if sum := wantClean(t, r); sum.Final || sum.Cursors != 1 { // a crashed run has no last snapshot, and need not have one
		t.Errorf("%+v", sum)
	}
}

func TestCaptureSubmitsThroughMarkers(t *testing.T) {
	log := newFake()
	m := start(t, log, none)
	reg := capture.NewRegistry()
	must(t, capture.Register(reg, "S", func(dst []byte, s string, _ *capture.Keys) ([]byte, error) { return append(dst, s...), nil }))
	a, err := capture.New(reg, m, capture.Options{})
	must(t, err)
	observe(t, m, "quote", "X", 1)
	if r, err := a.CaptureAny("topic", "hello"); err != nil || r.Seq != 2 {
		t.Fatal(r, err)
	}
	wantSeen(t, log, 2, "0=quote/X:1[1,1]", "loss unknown")
}

func TestASnapshotComesAfterSoManyEntriesOrBytesAndInParts(t *testing.T) {
	log := newFake()
	m := start(t, log, markers.Options{SnapshotEntries: 50, SnapshotBytes: 1 << 20})
	for i := range 1000 {
		observe(t, m, "quote", fmt.Sprintf("instrument-%04d", i), int64(i))
	}
	for range 60 {
		submit(t, m)
	}
	parts, streams := 0, 0
	for rec, err := range markers.Open(log).Records(2, 0) {
		must(t, err)
		if rec.Kind == entry.NoteStreams && rec.Part.Snapshot == 2 {
			if parts++; int(rec.Part.First) != streams || rec.Part.Streams != 1000 {
				t.Errorf("part %d: %+v", parts, rec.Part)
			}
			streams += len(rec.Cursors)
		}
	}
	if streams != 1000 || parts < 5 {
		t.Errorf("%d streams in %d parts", streams, parts)
	}
	for _, n := range log.notes {
		if len(n.Body) > 3500 { // so that it fits into the smallest share: 4096 bytes
			t.Errorf("%s of %d bytes", n.Kind, len(n.Body))
		}
	}
	for seq := uint64(2); seq <= 61; seq++ { // also between the parts
		st, err := markers.Open(log).SeenAt(seq)
		if err != nil || len(st.Cursors) != 1000 || st.Loss == markers.Some {
			t.Errorf("at %d: %d cursors, %v, %v", seq, len(st.Cursors), st.Loss, err)
		}
	}
	must(t, m.Close(ctx))
	wantClean(t, log)

	log = newFake()
	m = start(t, log, markers.Options{SnapshotBytes: 4096})
	for i := range 2000 {
		observe(t, m, "quote", "X", int64(i))
		m.Boundary()
	}
	snapshots, size := 0, 0
	for _, n := range log.notes {
		if n.Kind == entry.NoteStreams {
			snapshots++
		}
		size += len(n.Body)
	}
	if want := size / 4096; snapshots < want || snapshots > want+2 {
		t.Errorf("%d snapshots in %d bytes", snapshots, size)
	}
}

func TestSnapshotsTakeAQuarterOfTheRecordsAtMost(t *testing.T) {
	log := newFake()
	m := start(t, log, markers.Options{SnapshotBytes: 4096})
	for round := range 200 {
		for i := range 300 {
			observe(t, m, "quote", fmt.Sprintf("instrument-%04d", i), int64(round))
		}
		submit(t, m)
	}
	snapshots, all := 0, 0
	for _, n := range log.notes {
		if all += len(n.Body); n.Kind == entry.NoteStreams {
			snapshots += len(n.Body)
		}
	}
	if snapshots < all/10 || snapshots > all/4+10_000 {
		t.Errorf("%d of %d bytes are snapshots", snapshots, all)
	}
}

func TestASnapshotForWhichThereIsNoRoomIsNotTriedEachTime(t *testing.T) {
	log := newFake()
	m := start(t, log, markers.Options{SnapshotEntries: 16})
	log.setFull(true)
	for range 1000 {
		submit(t, m)
	}
	if n := log.tries[entry.NoteStreams]; n < 10 || n > 20 {
		t.Errorf("%d tries for 1000 entries", n)
	}
	if st := m.Stats(); st.Dropped != 0 {
		t.Errorf("a snapshot that waits is no loss: %+v", st)
	}
}

// Found by the fault matrix: what is introduced between the first try at a snapshot and its first part must be in it.
func TestASnapshotHasTheStreamsOfTheTimeWhenItsFirstPartIsWritten(t *testing.T) {
	log := newFake()
	m := start(t, log, markers.Options{SnapshotEntries: 16})
	observe(t, m, "quote", "X", 1)
	log.setFull(true)
	for range 20 {
		submit(t, m) // a snapshot is due, and there is no room for it
	}
	log.setFull(false)
	observe(t, m, "quote", "Y", 2)
	for i := range 100 {
		observe(t, m, "quote", "Y", 3)
		wantSeen(t, log, submit(t, m), "0=quote/X:1[1,1]", fmt.Sprintf("1=quote/Y:%d[2,3]", i+2), "loss unknown")
	}
	must(t, m.Close(ctx))
	wantClean(t, log)
}

// A retained suffix of a run can be read from its first whole snapshot on.
func TestASuffixOfTheLogCanBeRead(t *testing.T) {
	log := newFake()
	m := start(t, log, markers.Options{SnapshotEntries: 16, Marked: []markers.StreamID{{Class: "quote", ID: "5"}}})
	var whole []string
	for i := range 200 {
		id := fmt.Sprint(i % 150)
		s, err := m.Stream("quote", id)
		must(t, err)
		s.Mark(int64(i), int64(i), markers.Fingerprint{})
		submit(t, m)
	}
	must(t, m.Close(ctx))
	whole = seen(t, log, 200)
	for cut := 2; cut < len(log.notes)-20; cut++ {
		suffix := newFake()
		suffix.seq, suffix.first, suffix.notes = log.seq, log.notes[cut].After+1, log.notes[cut:]
		if got := seen(t, suffix, 200); !slices.Equal(got, whole) {
			t.Fatalf("cut at %d: %q, want %q", cut, got, whole)
		}
		wantClean(t, suffix)
		n := 0
		for _, err := range markers.Open(suffix).Records(0, 0) {
			must(t, err)
			n++
		}
		if n != len(suffix.notes) {
			t.Fatalf("cut at %d: %d of %d records", cut, n, len(suffix.notes))
		}
	}
}
