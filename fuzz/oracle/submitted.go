package oracle

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/segment/compressed"
	"github.com/runlog-io/runlog/vfs"
)

// Lifecycle entries, as far as the oracle compares them.
var (
	Started = runlog.Entry{Topic: entry.TopicStarted, Type: entry.TypeStarted}
	Ended   = runlog.Entry{Topic: entry.TopicEnded, Type: entry.TypeEnded}
)

// After is what the oracle appends to a run.
func After(run string) runlog.Draft {
	return runlog.Draft{Topic: "after", Type: "crash", Payload: []byte(run)}
}

// EntryOf is the entry that a draft becomes, without seq and time of publishing.
func EntryOf(d runlog.Draft) runlog.Entry {
	return runlog.Entry{
		Topic: d.Topic, Type: d.Type, Payload: bytes.Clone(d.Payload), TsInit: d.TsInit, ID: d.ID,
		CorrelationID: d.CorrelationID, CausationID: d.CausationID, Keys: slices.Clone(d.Keys),
	}
}

// Submitted lists what was submitted to a run in this order, from seq 1 on, and the notes in between.
type Submitted struct {
	Entries []runlog.Entry
	Notes   []entry.Note
}

// Add notes a draft, before it is submitted.
func (s *Submitted) Add(d runlog.Draft) { s.Entries = append(s.Entries, EntryOf(d)) }

// AddNote notes a note behind the entries so far, before it is submitted.
func (s *Submitted) AddNote(kind entry.NoteKind, body []byte) {
	s.Notes = append(s.Notes, entry.Note{Kind: kind, After: uint64(len(s.Entries)), Body: body})
}

// Want is Run.Want for this list.
func (s *Submitted) Want(got *runlog.Entry) (runlog.Entry, error) {
	if got.Seq > uint64(len(s.Entries)) {
		return runlog.Entry{}, fmt.Errorf("only %d entries were submitted", len(s.Entries))
	}
	return s.Entries[got.Seq-1], nil
}

// Ordered is Run.Want for these entries.
func Ordered(entries ...runlog.Entry) func(*runlog.Entry) (runlog.Entry, error) {
	return (&Submitted{Entries: entries}).Want
}

// Start notes a run that Open has returned, and returns the list of what is submitted to it.
func (h *History) Start(run *runlog.Run) *Submitted {
	s := &Submitted{Entries: []runlog.Entry{Started}}
	h.Promise(run.ID(), s.Want, run.Durable())
	return s
}

// Promise notes that a run's entries up to acked are acknowledged.
func (h *History) Promise(run string, want func(*runlog.Entry) (runlog.Entry, error), acked uint64) {
	if h.Runs == nil {
		h.Runs = map[string]Run{}
	}
	h.Runs[run] = Run{Want: want, Acked: acked}
}

// PromiseNotes notes that the first acked of these notes of a run are acknowledged.
func (h *History) PromiseNotes(run string, s *Submitted, acked int) {
	r := h.Runs[run]
	r.Notes, r.Noted = func() []entry.Note { return s.Notes }, acked
	h.Runs[run] = r
}

// segmentBytes reads all segments of an instance's runs.
func segmentBytes(fsys vfs.FS, instance string) map[string][]byte {
	all := map[string][]byte{}
	runs, _ := fsys.ReadDir(instance)
	for _, run := range runs {
		files, _ := fsys.ReadDir(filepath.Join(instance, run.Name()))
		for _, f := range files {
			name := filepath.Join(instance, run.Name(), f.Name())
			_, plain := segment.ParseFileName(f.Name())
			if _, packed := compressed.ParseFileName(f.Name()); !plain && !packed {
				continue
			}
			if b, err := vfs.ReadFile(fsys, name, 1<<32); err == nil {
				all[name] = b
			}
		}
	}
	return all
}

// unchanged compares the segments of a run with what they were.
func unchanged(fsys vfs.FS, dir string, before map[string][]byte) error {
	for name, was := range before {
		if filepath.Dir(name) != dir {
			continue
		}
		is, err := vfs.ReadFile(fsys, name, 1<<32)
		if err != nil || !bytes.Equal(is, was) {
			return fmt.Errorf("recovery of a damaged run has changed %s: %w", name, err)
		}
	}
	return nil
}
