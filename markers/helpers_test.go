package markers_test

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/markers"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
	"github.com/runlog-io/runlog/writer"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fakeLog is a log in memory, and a source of its notes. Its notes may be taken away, and its room.
type fakeLog struct {
	mu      sync.Mutex
	seq     uint64
	notes   []entry.Note
	full    bool // TryNote refuses
	room    int  // if above 0: so many notes are still taken, then it is full
	largest int  // if above 0: TryNote refuses larger bodies
	tries   [entry.NoteGap + 1]int
	during  func() // called by TryNote
	err     error
	closed  bool // Note fails
	status  manifest.Status
	first   uint64
}

func newFake() *fakeLog { return &fakeLog{seq: 1, status: manifest.Ended, first: 1} }

func (f *fakeLog) Submit(entry.Draft) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seq++
	return f.seq, nil
}

func (f *fakeLog) Accepted() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seq
}

func (f *fakeLog) TryNote(kind entry.NoteKind, body []byte) (uint64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.during != nil {
		f.during()
	}
	f.tries[kind]++
	if f.full || f.largest > 0 && len(body) > f.largest {
		return 0, false
	}
	if f.room > 0 {
		f.room--
		f.full = f.room == 0
	}
	f.notes = append(f.notes, entry.Note{Kind: kind, After: f.seq, Body: slices.Clone(body)})
	return f.seq, true
}

func (f *fakeLog) Note(kind entry.NoteKind, body []byte) (writer.Ticket, uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return 0, 0, runlog.ErrClosed
	}
	f.notes = append(f.notes, entry.Note{Kind: kind, After: f.seq, Body: slices.Clone(body)})
	return 0, f.seq, nil
}

func (f *fakeLog) setFull(full bool) {
	f.mu.Lock()
	f.full = full
	f.mu.Unlock()
}

func (f *fakeLog) Dir() string             { return "/fake" }
func (f *fakeLog) FirstSeq() uint64        { return f.first }
func (f *fakeLog) LastSeq() uint64         { return f.Accepted() }
func (f *fakeLog) Status() manifest.Status { return f.status }

func (f *fakeLog) Notes(o wal.NoteOptions) iter.Seq2[entry.Note, error] {
	f.mu.Lock()
	list := slices.Clone(f.notes)
	f.mu.Unlock()
	if o.Reverse {
		slices.Reverse(list)
	}
	return func(yield func(entry.Note, error) bool) {
		if f.err != nil {
			yield(entry.Note{}, f.err)
			return
		}
		for _, n := range list {
			wanted := n.After >= o.From && (o.To == 0 || n.After <= o.To) && (len(o.Kinds) == 0 || slices.Contains(o.Kinds, n.Kind))
			if wanted && !yield(n, nil) {
				return
			}
		}
	}
}

// start makes markers that flush only when they are told to, at times 1001, 1002, and so on.
func start(t testing.TB, log markers.Log, o markers.Options) *markers.Markers {
	t.Helper()
	if o.FlushEvery == 0 {
		o.FlushEvery = -1
	}
	if o.Now == nil {
		now := int64(1000)
		o.Now = func() int64 { now++; return now }
	}
	m, err := markers.New(log, o)
	must(t, err)
	return m
}

// submit submits an entry through the markers.
func submit(t testing.TB, m *markers.Markers) uint64 {
	t.Helper()
	seq, err := m.Submit(runlog.Draft{Topic: "t", Type: "x"})
	must(t, err)
	return seq
}

func observe(t testing.TB, m *markers.Markers, class, id string, times ...int64) {
	t.Helper()
	for _, ts := range times {
		must(t, m.Observe(class, id, ts))
	}
}

// records lists what the log holds, one line each.
func records(t testing.TB, src markers.Source) (list []string) {
	t.Helper()
	for rec, err := range markers.Open(src).Records(0, 0) {
		must(t, err)
		list = append(list, line(&rec))
	}
	return list
}

func line(rec *markers.Record) string {
	s := fmt.Sprintf("%d@%d ", rec.Seq, rec.After)
	switch rec.Kind {
	case entry.NoteStreams:
		s += fmt.Sprintf("snapshot %d, %d from %d of %d", rec.Part.Snapshot, len(rec.Cursors), rec.Part.First, rec.Part.Streams)
		if rec.Part.Final {
			s += ", final"
		}
	case entry.NoteCursor:
		s += "cursor"
		for i := range rec.Cursors {
			s += " " + cursorLine(&rec.Cursors[i])
		}
	case entry.NoteMarker:
		m := &rec.Marker
		s += fmt.Sprintf("marker %s %s %d %d #%d %x", m.Class, m.ID, m.TsEvent, m.TsInit, m.Ordinal, m.Fingerprint[:2])
	case entry.NoteGap:
		g := &rec.Gap
		s += fmt.Sprintf("gap to %d behind %d: %d cursors, %d markers, %d refused, %s", g.To, g.FirstAfter, g.Cursors, g.Markers, g.Refused, g.Reason)
	}
	return s
}

func cursorLine(c *markers.Cursor) string {
	return fmt.Sprintf("%d=%s/%s:%d[%d,%d]", c.Slot, c.Class, c.ID, c.Count, c.Lowest, c.Highest)
}

func wantRecords(t testing.TB, src markers.Source, want ...string) {
	t.Helper()
	if got := records(t, src); !slices.Equal(got, want) {
		t.Errorf("records:\n%q\nwant:\n%q", got, want)
	}
}

// seen lists the state at an entry, and the loss.
func seen(t testing.TB, src markers.Source, seq uint64) (list []string) {
	t.Helper()
	st, err := markers.Open(src).SeenAt(seq)
	if errors.Is(err, markers.ErrNoMarkers) {
		return []string{"no markers"}
	}
	must(t, err)
	for i := range st.Cursors {
		list = append(list, cursorLine(&st.Cursors[i]))
	}
	return append(list, "loss "+st.Loss.String())
}

func wantSeen(t testing.TB, src markers.Source, seq uint64, want ...string) {
	t.Helper()
	if got := seen(t, src, seq); !slices.Equal(got, want) {
		t.Errorf("at %d: %q, want %q", seq, got, want)
	}
}

// verified lists the problems that Verify finds.
func verified(t testing.TB, src markers.Source) (list []markers.Problem, sum markers.Summary) {
	t.Helper()
	sum, err := markers.Verify(t.Context(), src, func(f markers.Finding) { list = append(list, f.Problem) })
	must(t, err)
	return list, sum
}

func wantClean(t testing.TB, src markers.Source) markers.Summary {
	t.Helper()
	sum, err := markers.Verify(t.Context(), src, func(f markers.Finding) { t.Error(f) })
	must(t, err)
	return sum
}

// open starts a synchronous run in memory, with a clock of its own.
func open(t testing.TB, mem *vfs.Mem, change ...func(*runlog.Options)) *runlog.Run {
	t.Helper()
	o := runlog.Options{Dir: "/base", Instance: "demo", FS: mem, Synchronous: true, SegmentBytes: 64 << 10, FirstSegmentBytes: 64 << 10}
	for _, f := range change {
		f(&o)
	}
	run, err := runlog.Open(t.Context(), o)
	must(t, err)
	return run
}

func reader(t testing.TB, fsys vfs.FS, dir string) *runlog.Reader {
	t.Helper()
	r, err := runlog.OpenReader(dir, runlog.ReaderOptions{FS: fsys})
	must(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r
}
