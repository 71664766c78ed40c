package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
)

// family writes runs of one instance, one after the other: each with so many orders, left to the next one unless it is to end.
func family(t testing.TB, base string, continueFrom string, n int, ends bool) string {
	t.Helper()
	r, err := runlog.Open(t.Context(), runlog.Options{Dir: base, Instance: "demo", WarnAfter: -1, HaltAfter: -1, ContinueFrom: continueFrom})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, err := r.Append(t.Context(), runlog.Draft{Topic: "t", Type: "T", TsInit: int64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if ends {
		err = r.Close(t.Context())
	} else {
		err = r.Abandon(t.Context(), errors.New("given up"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return r.ID()
}

// relatives decodes lineage --json.
func relatives(t testing.TB, path string) (list []lineageJSON) {
	t.Helper()
	for _, line := range do(t, "lineage", path, "--json").want(t, 0).lines() {
		var l lineageJSON
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		list = append(list, l)
	}
	return list
}

func TestLineageShowsWhoContinuesWhom(t *testing.T) {
	base := filepath.Join(t.TempDir(), "runs")
	a := family(t, base, "", 3, false)
	b := family(t, base, "", 0, false) // nothing came of it
	c := family(t, base, "", 2, false)
	q := family(t, base, "", 2, false)
	verdict := manifest.Quarantine{Reason: "seen on the medium", Offset: -1}
	if err := manifest.WriteQuarantine(vfs.OS, filepath.Join(base, "demo", q), verdict); err != nil {
		t.Fatal(err)
	}
	d := family(t, base, "", 1, true)
	e := family(t, base, a, 1, true)
	f := family(t, base, "", 1, false)

	var got []string
	for _, l := range relatives(t, filepath.Join(base, "demo")) {
		got = append(got, fmt.Sprint(l.Depth, l.Run, l.Status, l.LastSeq, l.ContinuedBy, len(l.SkippedBy), l.Reason))
	}
	want := []string{
		fmt.Sprint(0, a, "CrashedRecovered", 4, []string{c, e}, 0, ""),
		fmt.Sprint(1, b, "CrashedRecovered", 1, []string{}, 0, ""),
		fmt.Sprint(1, c, "CrashedRecovered", 3, []string{d}, 0, ""),
		fmt.Sprint(2, q, "Quarantined", 3, []string{}, 3, verdict.Reason),
		fmt.Sprint(2, d, "Ended", 3, []string{}, 0, ""),
		fmt.Sprint(1, e, "Ended", 3, []string{}, 0, ""),
		fmt.Sprint(0, f, "Running", 2, []string{}, 0, ""),
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	text := do(t, "lineage", base).want(t, 0).out
	for _, s := range []string{
		"demo      " + a, "demo        " + c, "demo          " + d, q + ": quarantined: " + verdict.Reason, q + ": " + d + ", and 2 runs after it, began without it\n", "Crashed",
	} {
		if !strings.Contains(text, s) {
			t.Errorf("%q is not in\n%s", s, text)
		}
	}

	// One run: its parents, and what is below it.
	var chain []string
	for _, l := range relatives(t, filepath.Join(base, "demo", c)) {
		chain = append(chain, l.Run)
	}
	if want := []string{a, c, q, d}; !slices.Equal(chain, want) {
		t.Errorf("got %q, want %q", chain, want)
	}
	if err := os.RemoveAll(filepath.Join(base, "demo", a)); err != nil {
		t.Fatal(err)
	}
	for _, l := range relatives(t, base) {
		if lost := l.Parent == a; lost != (l.NoParent == "it is not there") || lost != (l.Depth == 0 && l.Run != f) {
			t.Errorf("%+v", l)
		}
	}
	do(t, "lineage", t.TempDir()).want(t, exitFailed, "empty")
}

func TestAQuarantineIsShownWithItsReason(t *testing.T) {
	base, dir := imported(t, many(10))
	verdict := manifest.Quarantine{Reason: "because", Time: 1e18, File: "00000001.seg", Offset: 7, FirstSeq: 3, LastSeq: 4}
	if err := manifest.WriteQuarantine(vfs.OS, dir, verdict); err != nil {
		t.Fatal(err)
	}
	if out := do(t, "ls", base).want(t, 0).out; !strings.Contains(out, "\nquarantined: "+dir+": because\n") {
		t.Error(out)
	}
	var l listed
	if err := json.Unmarshal([]byte(do(t, "ls", base, "--json").want(t, 0).out), &l); err != nil || l.Reason != "because" {
		t.Error(l, err)
	}
	if out := do(t, "info", dir).want(t, 0).out; !strings.Contains(out, "quarantined  2001-09-09T01:46:40.000000000Z: because\n") {
		t.Error(out)
	}
	var in infoJSON
	if err := json.Unmarshal([]byte(do(t, "info", dir, "--json").want(t, 0).out), &in); err != nil || in.Why == nil || *in.Why != quarantineJSON(verdict) {
		t.Error(in.Why, err)
	}
	if err := os.WriteFile(filepath.Join(dir, manifest.QuarantineName), []byte("?"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := do(t, "ls", base).want(t, 0).out; !strings.Contains(out, "Quarantined") || !strings.Contains(out, "cannot be read") {
		t.Error(out)
	}
}
