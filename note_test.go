package runlog_test

import (
	"errors"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/wal"
)

func TestNotesStandBetweenTheEntriesOfARun(t *testing.T) {
	run, err := runlog.Open(t.Context(), runlog.Options{Dir: t.TempDir(), Instance: "demo", WarnAfter: -1, HaltAfter: -1})
	if err != nil {
		t.Fatal(err)
	}
	ticket, after, err := run.Note(entry.NoteStateHash, []byte("a"))
	if err != nil || after != 1 {
		t.Fatal(after, err)
	}
	if _, err := run.Submit(runlog.Draft{Topic: "t", Type: "x"}); err != nil {
		t.Fatal(err)
	}
	if after, ok := run.TryNote(entry.NoteMarker, []byte("b")); !ok || after != 2 {
		t.Fatal(after, ok)
	}
	if err := run.WaitNote(t.Context(), ticket); err != nil {
		t.Fatal(err)
	}
	if err := run.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok := run.TryNote(entry.NoteMarker, nil); ok {
		t.Error("a note was accepted after Close")
	}
	if _, _, err := run.Note(entry.NoteAnchor, nil); !errors.Is(err, runlog.ErrClosed) {
		t.Error(err)
	}
	r, err := runlog.OpenReader(run.Dir(), runlog.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got string
	for n, err := range r.Notes(wal.NoteOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		got += string(n.Body) + string(rune('0'+n.After))
	}
	if got != "a1b2" {
		t.Errorf("notes %q", got)
	}
}
