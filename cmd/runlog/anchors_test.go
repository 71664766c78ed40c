package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/anchor"
	"github.com/runlog-io/runlog/vfs"
)

// anchored makes a sealed run with three anchors, that cover seqs 1, 2 and 2.
func anchored(t *testing.T) (dir, blobs string, as []runlog.Anchor) {
	t.Helper()
	base := t.TempDir()
	r, err := runlog.Open(t.Context(), runlog.Options{Dir: base, Instance: "demo", WarnAfter: -1, HaltAfter: -1})
	if err != nil {
		t.Fatal(err)
	}
	blobs = filepath.Join(base, "demo", "snapshots")
	store, err := anchor.NewDirStore(vfs.OS, blobs, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Append(t.Context(), runlog.Draft{Topic: "t", Type: "T"}); err != nil {
		t.Fatal(err)
	}
	for _, covers := range []uint64{1, 2, 2} {
		a, err := r.Anchor(t.Context(), covers, store, strings.NewReader("state"))
		if err != nil {
			t.Fatal(err)
		}
		as = append([]runlog.Anchor{a}, as...)
	}
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r.Dir(), blobs, as
}

func TestAnchorsAreListedNewestFirstAndTheirBlobsChecked(t *testing.T) {
	dir, blobs, as := anchored(t)
	lines := do(t, "anchors", dir).want(t, 0).lines()
	if len(lines) != 4 || !strings.HasPrefix(lines[0], "COVERS") {
		t.Fatalf("%q", lines)
	}
	for i, a := range as {
		if f := strings.Fields(lines[i+1]); f[0] != count(a.Covers) || f[1] != formatTime(a.Taken) || f[4] != "-" || f[5] != a.Ref {
			t.Errorf("%q, want %+v", lines[i+1], a)
		}
	}
	do(t, "anchors", dir, "--blobs", blobs).want(t, 0)
	if err := os.Remove(filepath.Join(blobs, as[0].Ref)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(blobs, as[1].Ref), []byte("stale"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := do(t, "anchors", dir, "--blobs", blobs, "--json").want(t, 1, "warning", as[0].Ref, "SHA-256")
	for i, want := range []string{blobMissing, blobBad, blobGood} {
		var j anchorJSON
		if err := json.Unmarshal([]byte(r.lines()[i]), &j); err != nil || j.Blob != want || j.Ref != as[i].Ref || (j.Error == "") != (want == blobGood) {
			t.Errorf("%s, want %s: %v", r.lines()[i], want, err)
		}
	}
	page, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal([]byte(r.lines()[0]), &fields); err != nil || len(fields) != 7 {
		t.Errorf("%v, %v", fields, err)
	}
	for name := range fields {
		if !strings.Contains(string(page), "| `"+name+"` |") {
			t.Errorf("field %q is not in docs/cli.md", name)
		}
	}
	do(t, "anchors", dir, "--blobs", filepath.Join(blobs, "none")).want(t, 2, "none")
	do(t, "anchors", dir, "--blobs", filepath.Join(blobs, as[2].Ref)).want(t, 2, "not a folder")
	do(t, "anchors", filepath.Dir(dir)).want(t, 2, "not a run")
}

func TestInfoTellsTheAnchors(t *testing.T) {
	dir, _, as := anchored(t)
	var in infoJSON
	if err := json.Unmarshal([]byte(do(t, "info", dir, "--json").want(t, 0).out), &in); err != nil {
		t.Fatal(err)
	}
	if in.Anchors != 3 || in.LastAnchor == nil || in.LastAnchor.Covers != 2 || in.LastAnchor.Taken != as[0].Taken {
		t.Errorf("%+v, %+v", in.Anchors, in.LastAnchor)
	}
	if out := do(t, "info", dir).want(t, 0).out; !strings.Contains(out, "anchors    3, the last covers seq 2") {
		t.Errorf("info says:\n%s", out)
	}
	_, plain := imported(t, threeLines)
	if r := do(t, "info", plain).want(t, 0); strings.Contains(r.out, "anchors") {
		t.Errorf("a run without anchors:\n%s", r.out)
	}
}
