package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/segment"
)

// salvaged salvages dir and returns the new run's directory and the summary.
func salvaged(t testing.TB, code int, dir string) (string, salvagedJSON) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	before := tree(t, dir)
	r := do(t, "salvage", dir, out, "--json")
	if r.code != code {
		t.Fatalf("exit code %d, want %d: %.2000s %s", r.code, code, r.out, r.stderr)
	}
	if after := tree(t, dir); !slices.Equal(before, after) {
		t.Errorf("the source was changed: %v to %v", before, after)
	}
	l := r.lines()
	var s salvagedJSON
	if err := json.Unmarshal([]byte(l[len(l)-1]), &s); err != nil {
		t.Fatal(err)
	}
	do(t, "verify", s.Dir).want(t, 0)
	return s.Dir, s
}

// same compares a salvaged run with the sound one: entries that are not lost are the same, at the same seqs.
func same(t testing.TB, sound, dir string) (lost int) {
	t.Helper()
	a := do(t, "cat", sound, "--json").want(t, 0).lines()
	b := do(t, "cat", dir, "--json").want(t, 0).lines()
	if len(b) < len(a) {
		t.Fatalf("%d of %d entries", len(b), len(a))
	}
	for i := range a {
		switch {
		case strings.Contains(b[i], `"topic":"`+lostTopic+`","type":"`+lostType+`"`):
			lost++
		case a[i] != b[i] && !strings.Contains(a[i], `"topic":"run.lifecycle.`):
			t.Errorf("entry %d differs:\n%s\n%s", i+1, a[i], b[i])
		}
	}
	return lost
}

func TestSalvageOfASoundRunCopiesEverything(t *testing.T) {
	_, dir := imported(t, threeLines+many(300), "--label", "desk=a", "--build", "1.2.3")
	to, s := salvaged(t, 0, dir)
	if lost := same(t, dir, to); lost != 0 || s.Entries != 305 || s.Lost != 0 || s.LastSeq != 305 {
		t.Errorf("%d lost, %+v", lost, s)
	}
	if out := do(t, "info", to).want(t, 0).out; !strings.Contains(out, "desk=a") || !strings.Contains(out, "1.2.3") || !strings.Contains(out, "salvaged_run="+filepath.Base(dir)) {
		t.Error(out)
	}
	if n := len(do(t, "history", to, "account=a3").want(t, 0).lines()); n != 43 {
		t.Errorf("%d entries of a key", n)
	}
}

// Damage in every form loses what it hits; the rest comes along, with its seqs.
func TestSalvageLosesOnlyWhatIsDamaged(t *testing.T) {
	sound := func() (string, []byte) {
		_, dir := imported(t, many(2000))
		b, err := os.ReadFile(filepath.Join(dir, segment.FileName(1)))
		if err != nil {
			t.Fatal(err)
		}
		return dir, b
	}
	dir, b := sound()
	for name, c := range map[string]struct {
		harm        func(b []byte) []byte
		least, most int // entries lost
	}{
		"three bytes":   {func(b []byte) []byte { b[50_000] ^= 1; b[51_000] ^= 1; b[200_000] ^= 1; return b }, 3, 3},
		"a page":        {func(b []byte) []byte { clear(b[100_000:104_096]); return b }, 20, 60},
		"noise":         {func(b []byte) []byte { copy(b[150_000:], strings.Repeat("noise", 1000)); return b }, 25, 70},
		"second half":   {func(b []byte) []byte { return b[:len(b)/2] }, 900, 1100},
		"second half 0": {func(b []byte) []byte { clear(b[len(b)/2:]); return b }, 900, 1100},
		"start frame":   {func(b []byte) []byte { b[4096+50] ^= 1; return b }, 0, 0},
		"footer":        {func(b []byte) []byte { b[len(b)-9] ^= 1; return b }, 0, 0},
	} {
		bad := filepath.Join(t.TempDir(), filepath.Base(dir))
		if err := errors.Join(os.CopyFS(bad, os.DirFS(dir)), os.WriteFile(filepath.Join(bad, segment.FileName(1)), c.harm(slices.Clone(b)), 0o644)); err != nil {
			t.Fatal(err)
		}
		to, s := salvaged(t, 1, bad)
		lost := same(t, dir, to)
		if lost < c.least || lost > c.most || uint64(lost) != s.Lost || s.Entries+s.Lost < 2001 {
			t.Errorf("%s: %d lost, want %d to %d: %+v", name, lost, c.least, c.most, s)
		}
	}
}

func TestSalvageOfAQuarantinedRunHasAllButTheDamage(t *testing.T) {
	base, dir := crashed(t, 50) // all in the first segment, which has no footer
	sound := filepath.Join(t.TempDir(), filepath.Base(dir))
	if err := os.CopyFS(sound, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, segment.FileName(1))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tenth := 0 // payload; time has put commits and marks in between
	for range 10 {
		tenth += bytes.Index(b[tenth:], bytes.Repeat([]byte{'p'}, 200)) + 200
	}
	flip(t, path, int64(tenth-100))
	do(t, "recover", base).want(t, 1)
	to, s := salvaged(t, 1, dir)
	if lost := same(t, sound, to); lost != 1 || s.Status != runlog.Quarantined || s.Lost != 1 || s.Ranges != 1 {
		t.Errorf("%d lost, %+v", lost, s)
	}
	for _, seq := range []string{"2", "30", "51"} { // before, between and behind
		if out := do(t, "get", to, seq).want(t, 0).out; strings.Contains(out, lostTopic) {
			t.Errorf("seq %s: %s", seq, out)
		}
	}
}

func TestSalvageStandsInForAMissingSegment(t *testing.T) {
	_, dir := crashed(t, 900)
	sound := filepath.Join(t.TempDir(), filepath.Base(dir))
	if err := errors.Join(os.CopyFS(sound, os.DirFS(dir)), os.Remove(filepath.Join(dir, segment.FileName(2)))); err != nil {
		t.Fatal(err)
	}
	to, s := salvaged(t, 1, dir)
	if lost := same(t, sound, to); lost < 50 || lost > 300 || s.Ranges != 1 || s.Lost != uint64(lost) {
		t.Errorf("%d lost, %+v", lost, s)
	}
}

func TestSalvageReportsEveryLostRange(t *testing.T) {
	_, dir := imported(t, many(500))
	path := filepath.Join(dir, segment.FileName(1))
	flip(t, path, 30_000)
	flip(t, path, 60_000)
	out := filepath.Join(t.TempDir(), "out")
	r := do(t, "salvage", dir, out).want(t, 1)
	report, err := os.ReadFile(filepath.Join(out, reportName))
	if err != nil {
		t.Fatal(err)
	}
	var lost []lostJSON
	for line := range strings.Lines(string(report)) {
		var l lostJSON
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		if l.Record == "lost" {
			lost = append(lost, l)
		}
	}
	if len(lost) != 2 {
		t.Fatalf("%s", report)
	}
	for _, l := range lost {
		if l.Path != path || l.Offset == nil || l.FirstSeq == 0 || l.LastSeq != l.FirstSeq || l.Detail == "" {
			t.Errorf("%+v", l)
		}
		if want := "lost: " + path + ": offset " + itoa(int(*l.Offset)) + ": seq " + itoa(int(l.FirstSeq)); !strings.Contains(r.out, want) {
			t.Errorf("no line %q in\n%s", want, r.out)
		}
	}
	if l := r.lines(); !strings.HasPrefix(l[len(l)-1], out) {
		t.Errorf("the last line is %q", l[len(l)-1])
	}
}

func TestSalvageThatCannotBeDoneLeavesNothing(t *testing.T) {
	_, dir := imported(t, many(3000))
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	out := filepath.Join(t.TempDir(), "a", "out")
	var stdout, stderr strings.Builder
	if code := run(canceled, []string{"salvage", dir, out}, strings.NewReader(""), &stdout, &stderr); code != 2 || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("%d %s", code, &stderr)
	}
	if _, err := os.Stat(filepath.Dir(out)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", tree(t, filepath.Dir(out)))
	}
	b, err := os.ReadFile(filepath.Join(dir, segment.FileName(1)))
	if err != nil {
		t.Fatal(err)
	}
	clear(b[4096:])
	if err := os.WriteFile(filepath.Join(dir, segment.FileName(1)), b, 0o644); err != nil {
		t.Fatal(err)
	}
	do(t, "salvage", dir, out).want(t, 1, "not one entry can be read")
	if _, err := os.Stat(filepath.Dir(out)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", tree(t, filepath.Dir(out)))
	}
}
