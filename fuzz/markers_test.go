package fuzz

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/fuzz/oracle"
	"github.com/runlog-io/runlog/internal/drive"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/markers"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
	"github.com/runlog-io/runlog/writer"
)

// watched is a run whose engine observes, and what is true about it.
type watched struct {
	*sim
	d       drive.Driver
	tasks   []func()
	run     *runlog.Run
	m       *markers.Markers
	streams int

	truth   map[string]markers.Cursor // by id, now
	at      []markedEntry             // by seq - 1
	written []entry.Note              // that the log has taken
	acked   int                       // of them, those in front of an acknowledged entry
	dropped uint64
}

// markedEntry is what was true when an entry was submitted.
type markedEntry struct {
	truth   map[string]markers.Cursor
	notes   int  // that the log had taken
	pending bool // something that was observed had found no room, and nothing had got through since
}

// tap is the run's log, and remembers what it has taken.
type tap struct {
	*runlog.Run
	w *watched
}

func (l *tap) TryNote(kind entry.NoteKind, body []byte) (uint64, bool) {
	after, ok := l.Run.TryNote(kind, body)
	if ok {
		l.w.written = append(l.w.written, entry.Note{Kind: kind, After: after, Body: bytes.Clone(body)})
	}
	return after, ok
}

func (l *tap) Note(kind entry.NoteKind, body []byte) (writer.Ticket, uint64, error) {
	t, after, err := l.Run.Note(kind, body)
	if err == nil {
		l.w.written = append(l.w.written, entry.Note{Kind: kind, After: after, Body: bytes.Clone(body)})
	}
	return t, after, err
}

// newWatched starts a run that a driver steps. Its share for records that may be lost is the smallest.
func newWatched(seed uint64) (*watched, error) {
	w := &watched{sim: newSim(seed), truth: map[string]markers.Cursor{}}
	w.tiny = true
	w.streams = 1 + w.rng.IntN(150)
	w.o.Synchronous, w.o.BatchBytes = false, 16<<10
	w.d.Background = func(task func()) { w.tasks = append(w.tasks, task) }
	var err error
	if w.run, err = runlog.Open(drive.With(context.Background(), &w.d), w.o); err != nil {
		return nil, err
	}
	w.at = append(w.at, markedEntry{})
	marked := []markers.StreamID{{Class: "quote", ID: "0"}, {Class: "quote", ID: "1"}}
	w.m, err = markers.New(&tap{w.run, w}, markers.Options{
		FlushEvery: -1, SnapshotEntries: 16 + uint64(w.rng.IntN(20)), SnapshotBytes: 4096, Marked: marked, Now: w.o.Clock.Now,
	})
	return w, err
}

// observe lets a message come.
func (w *watched) observe() error {
	id, ts := fmt.Sprint(w.rng.IntN(w.streams)), w.rng.Int64N(1000)
	c, known := w.truth[id]
	if !known {
		c.Lowest, c.Highest = math.MaxInt64, math.MinInt64
	}
	c.Count++
	c.Lowest, c.Highest = min(c.Lowest, ts), max(c.Highest, ts)
	w.truth[id] = c
	s, err := w.m.Stream("quote", id)
	if err != nil {
		return err
	}
	s.Mark(ts, ts, markers.Fingerprint{byte(ts)})
	return nil
}

func (w *watched) submit() error {
	before := w.m.Stats().Dropped
	if _, err := w.m.Submit(w.draft()); err != nil {
		return err
	}
	now := map[string]markers.Cursor{}
	for id, c := range w.truth {
		now[id] = c
	}
	w.dropped = w.m.Stats().Dropped
	w.at = append(w.at, markedEntry{truth: now, notes: len(w.written), pending: w.dropped > before})
	return nil
}

// work does one thing: some messages, an entry, a commit, a task.
func (w *watched) work() error {
	switch w.rng.IntN(10) {
	case 0, 1, 2, 3, 4:
		for range w.rng.IntN(40) {
			if err := w.observe(); err != nil {
				return err
			}
		}
	case 5, 6, 7:
		return w.submit()
	case 8:
		_, err := w.d.Step()
		w.acknowledge()
		return err
	default:
		if len(w.tasks) > 0 {
			i := w.rng.IntN(len(w.tasks))
			task := w.tasks[i]
			w.tasks = append(w.tasks[:i], w.tasks[i+1:]...)
			task()
		}
	}
	return nil
}

func (w *watched) acknowledge() {
	if n := w.run.Durable(); n > 0 && n <= uint64(len(w.at)) {
		w.acked = max(w.acked, w.at[n-1].notes)
	}
}

// judge reads what is left: the records are a prefix of those that the log has taken, at least those in front of an
// acknowledged entry, and what they say about each entry is what was true, or less, and then it shows.
func (w *watched) judge(fsys vfs.FS) error {
	r, err := runlog.OpenReader(filepath.Join(w.o.Dir, w.o.Instance, w.run.ID()), runlog.ReaderOptions{FS: fsys})
	if err != nil {
		return err
	}
	defer r.Close()
	n := 0
	for note, err := range r.Notes(wal.NoteOptions{}) {
		switch {
		case err != nil:
			return err
		case n == len(w.written):
			return oracle.False("note %d is one that nobody has written", n)
		case note.Kind != w.written[n].Kind || note.After != w.written[n].After || !bytes.Equal(note.Body, w.written[n].Body):
			return oracle.False("note %d is a %s behind %d, written was a %s behind %d", n, note.Kind, note.After, w.written[n].Kind, w.written[n].After)
		}
		n++
	}
	if n < w.acked {
		return oracle.False("%d notes, %d stand in front of an acknowledged entry", n, w.acked)
	}
	_, err = markers.Verify(context.Background(), r, func(f markers.Finding) { err = errors.Join(err, errors.New(f.String())) })
	if err != nil {
		return err
	}
	for seq := uint64(2); seq <= min(r.LastSeq(), uint64(len(w.at))); seq++ {
		if err := w.judgeAt(markers.Open(r), seq, r.Status() == manifest.Ended); err != nil {
			return fmt.Errorf("seq %d of %d: %w", seq, r.LastSeq(), err)
		}
	}
	return nil
}

func (w *watched) judgeAt(r *markers.Reader, seq uint64, ended bool) error {
	st, err := r.SeenAt(seq)
	if err != nil {
		return err
	}
	was := &w.at[seq-1]
	exact := 0
	for _, c := range st.Cursors {
		truth := was.truth[c.ID]
		switch {
		case c.Count > truth.Count || c.Count > 0 && (c.Highest > truth.Highest || c.Lowest < truth.Lowest):
			return oracle.False("%+v was never true, but %+v", c, truth)
		case c.Count == truth.Count && c.Count > 0 && (c.Highest != truth.Highest || c.Lowest != truth.Lowest):
			return oracle.False("%+v has not the times of %+v", c, truth)
		case c.Count == truth.Count && c.Count > 0:
			exact++
		}
	}
	whole := exact == len(was.truth)
	switch {
	case !whole && st.Loss == markers.None:
		return oracle.False("%d of %d streams are as they were, and nothing is said to be missing", exact, len(was.truth))
	case !whole && !was.pending:
		return oracle.False("%d of %d streams are as they were, and nothing was refused", exact, len(was.truth))
	case st.Loss == markers.Some && !was.pending:
		return oracle.False("something is said to be missing, and nothing was refused")
	case ended && st.Loss == markers.Unknown:
		return oracle.False("the run has ended, and it is not known whether something is missing")
	}
	return nil
}

// flood is one seed: a load, and crashes in it.
func flood(c *matrix.Cases) error {
	w, err := newWatched(c.Seed)
	if err != nil {
		return err
	}
	for i := w.rng.IntN(300); i >= 0; i-- {
		if err := w.work(); err != nil {
			return fmt.Errorf("load: %w", err)
		}
		if w.rng.IntN(30) > 0 {
			continue
		}
		if !c.Next() {
			return nil
		}
		name, cut := crashes(w.rng)
		left := cut(w.mem).(*vfs.Mem)
		if w.rng.IntN(2) == 0 { // recovered, or as it is
			if _, err := wal.Recover(left, w.run.Dir(), w.o.Clock.Now()); err != nil {
				return err
			}
			name += ", recovered"
		}
		if err := w.judge(left); err != nil {
			return fmt.Errorf("after %d entries, %s: %w", len(w.at), name, err)
		}
	}
	if !c.Next() {
		return nil
	}
	for more := true; more; { // make room: nobody else does
		var err error
		if more, err = w.d.Step(); err != nil {
			return err
		}
	}
	for _, err := range []error{w.m.Close(context.Background()), w.run.Close(context.Background())} {
		if err != nil {
			return err
		}
	}
	w.at, w.acked = append(w.at, markedEntry{truth: w.truth}), len(w.written) // RunEnded
	if err := w.judge(w.mem); err != nil {
		return fmt.Errorf("closed: %w", err)
	}
	dropped.Add(w.m.Stats().Dropped)
	return nil
}

var dropped atomic.Uint64 // by loads that came to their end

func TestFloodedMarkersAreAPrefixAndTellWhatIsMissing(t *testing.T) {
	matrix.Run(t, "markers", flood, matrix.Detail(func() string { return fmt.Sprintf("%d records dropped in loads that were closed", dropped.Load()) }))
}
