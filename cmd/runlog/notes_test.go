package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/anchor"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
)

// noted makes a run with n entries, seq 2 on, and a note in front of the first one and behind each.
func noted(t testing.TB, n int) (base, dir string) {
	t.Helper()
	base = t.TempDir()
	im, err := runlog.NewImport(runlog.Options{Dir: base, Instance: "demo"})
	for i := range n + 1 {
		if err == nil {
			err = im.Note(entry.NoteAnchor+entry.NoteKind(i%6), fmt.Appendf(nil, "note %d", i))
		}
		if err == nil && i < n {
			err = im.Add(runlog.Draft{Topic: "t", Type: "T", TsInit: 1, TsPublish: 1e18 + int64(100*i), Payload: fmt.Appendf(nil, "entry %d", i+2)})
		}
	}
	if err == nil {
		dir, err = im.Finish(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return base, dir
}

// short prints cat --notes --json as seqs and notes.
func short(t testing.TB, r result) (list []string) {
	t.Helper()
	for _, line := range r.lines() {
		var is struct {
			noteJSON
			Seq uint64
		}
		if err := json.Unmarshal([]byte(line), &is); err != nil {
			t.Fatal(err)
		}
		if is.Note != "" {
			list = append(list, fmt.Sprintf("%s %d %s", is.Note, is.After, is.Body))
		} else {
			list = append(list, fmt.Sprint(is.Seq))
		}
	}
	return list
}

func TestCatShowsNotesBetweenTheEntries(t *testing.T) {
	_, dir := noted(t, 3)
	want := []string{"1", "anchor 1 note 0", "2", "state_hash 2 note 1", "3", "streams 3 note 2", "4", "cursor 4 note 3", "5"}
	if got := short(t, do(t, "cat", dir, "--notes", "--json").want(t, 0)); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := short(t, do(t, "cat", dir, "--notes", "--json", "--from", "3", "--to", "4").want(t, 0)); !slices.Equal(got, want[4:8]) {
		t.Errorf("got %q, want %q", got, want[4:8])
	}
	if got := short(t, do(t, "cat", dir, "--notes", "--json", "--limit", "2").want(t, 0)); !slices.Equal(got, want[:3]) {
		t.Errorf("got %q, want %q", got, want[:3])
	}
	out := do(t, "cat", dir, "--notes").want(t, 0).lines()
	if len(out) != len(want) || out[3] != "  note  state hash  note 1" {
		t.Errorf("got %q", out)
	}
	if got := do(t, "cat", dir).want(t, 0).lines(); len(got) != 5 {
		t.Errorf("without --notes: %q", got)
	}
	do(t, "cat", dir, "--notes", "--reverse").want(t, exitFailed, "--reverse")
	if got := do(t, "export", dir).want(t, 0).lines(); len(got) != 3 {
		t.Errorf("export prints %q", got)
	}
}

func TestVerifyCountsNotesByKind(t *testing.T) {
	base, dir := noted(t, 7)
	if out := do(t, "verify", dir).out; !strings.Contains(out, "9 entries and 8 notes in 1 segment") {
		t.Error(out)
	}
	_, runs, _ := records(t, do(t, "verify", base, "--json").out)
	want := map[string]uint64{"anchor": 2, "state_hash": 2, "streams": 1, "cursor": 1, "marker": 1, "marker_gap": 1}
	if len(runs) != 1 || fmt.Sprint(runs[0].ByKind) != fmt.Sprint(want) {
		t.Errorf("%+v", runs)
	}
	file := filepath.Join(dir, "00000001.seg")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, file, int64(strings.Index(string(b), "note 3")))
	do(t, "cat", dir, "--notes").want(t, exitBad)
	found, _, _ := records(t, do(t, "verify", dir, "--json").want(t, exitBad).out)
	if !slices.ContainsFunc(found, func(f findingJSON) bool { return f.Kind == "note" && strings.Contains(f.Detail, "cursor behind seq 4") }) {
		t.Errorf("findings %+v", found)
	}
}

func TestSalvageKeepsNotesWhereTheyStood(t *testing.T) {
	_, dir := noted(t, 7)
	file := filepath.Join(dir, "00000001.seg")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sound := short(t, do(t, "cat", dir, "--notes", "--json"))
	for lost, want := range map[string]func(string) bool{
		"":        func(string) bool { return false },
		"entry 4": func(string) bool { return false }, // something stands in its place
		"entry 2": func(string) bool { return false },
		"entry 8": func(string) bool { return false },
		"note 3":  func(s string) bool { return strings.HasSuffix(s, "note 3") },
		"note 7":  func(s string) bool { return strings.HasSuffix(s, "note 7") },
	} {
		at := int64(strings.Index(string(b), lost))
		code := exitFine
		if lost != "" {
			code = exitBad
			flip(t, file, at)
		}
		out := filepath.Join(t.TempDir(), "out")
		r := do(t, "salvage", dir, out, "--json")
		if r.code != code {
			t.Errorf("without %q: exit code %d, want %d; %s", lost, r.code, code, r.stderr)
		}
		if lost != "" {
			flip(t, file, at)
		}
		var sum salvagedJSON
		if err := json.Unmarshal([]byte(lastLine(r).out), &sum); err != nil {
			t.Fatal(err)
		}
		wanted := slices.DeleteFunc(slices.Clone(sound), want)
		if got := short(t, do(t, "cat", sum.Dir, "--notes", "--json").want(t, 0)); !slices.Equal(got, wanted) {
			t.Errorf("without %q: got %q, want %q", lost, got, wanted)
		}
		if n := uint64(len(wanted) - 9); sum.Notes != n {
			t.Errorf("without %q: %d notes, want %d", lost, sum.Notes, n)
		}
		if rep, err := verify.Run(t.Context(), vfs.OS, sum.Dir, verify.Options{}); err != nil || !rep.Clean() {
			t.Errorf("without %q: %v, %v", lost, rep.Findings, err)
		}
	}
}

// The bodies here are no records of any stream.
func TestVerifyJudgesWhatMarkersSay(t *testing.T) {
	_, dir := noted(t, 7)
	for _, more := range []string{"--jobs=1", "--no-isolate"} {
		found, runs, _ := records(t, do(t, "verify", dir, "--json", more).out)
		if !slices.ContainsFunc(found, func(f findingJSON) bool {
			return f.Kind == "note" && f.Offset != nil && strings.HasPrefix(f.Detail, "marker behind seq 5: ")
		}) || runs[0].Outcome != outcomeBad || runs[0].Findings != len(found) {
			t.Errorf("%s: findings %+v", more, found)
		}
	}
	do(t, "verify", observed(t, true)).want(t, 0)
	if out := do(t, "verify", observed(t, false)).out; !strings.Contains(out, "no final") { // it has ended, and its markers have not
		t.Error(out)
	}
}

func TestVerifyJudgesWhatAnchorsAndStateHashesSay(t *testing.T) {
	im, err := runlog.NewImport(runlog.Options{Dir: t.TempDir(), Instance: "demo"})
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	must(err)
	note := func(kind entry.NoteKind, seq uint64) {
		body, err := (&anchor.Anchor{Covers: seq, Ref: "a"}).Append(nil)
		if kind == entry.NoteStateHash {
			body, err = anchor.AppendStateHash(nil, seq, []byte("hash"))
		}
		must(err)
		must(im.Note(kind, body))
	}
	add := func() { must(im.Add(runlog.Draft{Topic: "t", Type: "T", TsInit: 1})) }
	add()
	add()
	for _, kind := range []entry.NoteKind{entry.NoteAnchor, entry.NoteStateHash} {
		note(kind, 3)
		note(kind, 3)
		note(kind, 2)
		note(kind, 4)
		must(im.Note(kind, []byte("short")))
	}
	dir, err := im.Finish(t.Context())
	must(err)
	found, _, _ := records(t, do(t, "verify", dir, "--json").out)
	var got []string
	for _, f := range found {
		got = append(got, f.Detail)
	}
	var want []string
	for kind, short := range map[string]string{
		"anchor": "decode snapshot anchor: 5 bytes are too few: corrupt", "state hash": "decode state hash: 5 bytes: corrupt",
	} {
		for _, s := range []string{kind + " for seq 2 behind one for seq 3", kind + " for seq 4, and the last seq is 3", short} {
			want = append(want, kind+" behind seq 3: "+s)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
