package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/retention"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// ended makes a run of so many entries in small segments below base.
func ended(t testing.TB, base string, n int) string {
	t.Helper()
	r := opened(t, base, n)
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r.Dir()
}

func opened(t testing.TB, base string, n int) *runlog.Run {
	t.Helper()
	r, err := runlog.Open(t.Context(), runlog.Options{
		Dir: base, Instance: "demo", WarnAfter: -1, HaltAfter: -1, SegmentBytes: segment.MinSegment, FirstSegmentBytes: segment.MinSegment,
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		_, err := r.Submit(runlog.Draft{Topic: "a", Type: "b", TsInit: int64(i + 1), Payload: bytes.Repeat([]byte{'p'}, 2000),
			Keys: []runlog.Key{{Kind: runlog.ClientOrderID, Value: fmt.Sprint(i % 9)}}})
		if err != nil {
			t.Fatal(err)
		}
		if i%10 == 9 { // so that segments are not left behind by one large batch
			if err := r.WaitDurable(t.Context(), r.Accepted()); err != nil {
				t.Fatal(err)
			}
		}
	}
	return r
}

// retain runs retain in a build that knows restore points at these seqs in every run.
func retain(t testing.TB, points []uint64, args ...string) result {
	t.Helper()
	var out, stderr bytes.Buffer
	a := &app{ctx: t.Context(), stdin: strings.NewReader(""), out: newOutput(&out), stderr: &stderr}
	a.restorePoints = func(*runlog.Reader) (list []retention.RestorePoint, err error) {
		for _, seq := range points {
			list = append(list, retention.RestorePoint{Seq: seq})
		}
		return append(list, retention.RestorePoint{Seq: 5, Err: errors.New("the blob is gone")}), nil
	}
	code := a.execute(append([]string{"retain"}, args...))
	return result{code, out.String(), stderr.String()}
}

func TestRetainRemovesOnlyWhenItIsTold(t *testing.T) {
	base := t.TempDir()
	dirs := []string{ended(t, base, 100), ended(t, base, 200), ended(t, base, 300)}
	before := tree(t, base)
	for _, args := range [][]string{
		{base}, {filepath.Join(base, "demo")}, {base, "--keep-last", "1"}, {base, "--anchored"}, {base, "--older-than", "1ms", "--max-bytes", "1"},
		{base, "--keep-last", "1", "--json"},
	} {
		r := retain(t, []uint64{50, 60, 250, 260}, args...).want(t, 0)
		if after := tree(t, base); !slices.Equal(before, after) {
			t.Fatalf("%v has changed %v to %v", args, before, after)
		}
		if removes := strings.Contains(r.out, "REMOVE") || strings.Contains(r.out, `"remove":true`); removes != (len(args) > 1) {
			t.Errorf("%v prints %s", args, r.out)
		}
		if !strings.Contains(r.out, "the blob is gone") {
			t.Errorf("%v does not say why a restore point is not good: %s", args, r.out)
		}
	}
	r := retain(t, []uint64{50, 60, 250, 260}, base, "--anchored", "--apply").want(t, 0)
	if !strings.Contains(r.out, "removed: ") {
		t.Errorf("it prints %s", r.out)
	}
	left := tree(t, base)
	if slices.Contains(left, dirs[0]) || slices.Contains(left, dirs[1]) || !slices.Contains(left, dirs[2]) {
		t.Errorf("left: %v", left)
	}
	if slices.Contains(left, filepath.Join(dirs[2], segment.FileName(1))) {
		t.Error("the first segment is left")
	}
	do(t, "verify", base).want(t, 0, "retention has removed what was in front")
	var last retainedJSON
	lines := retain(t, []uint64{50, 60, 250, 260}, base, "--anchored", "--apply", "--json").want(t, 0).lines()
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || !last.Applied || last.Items != 0 || last.Removed != 0 || last.Bytes == 0 {
		t.Errorf("a second time: %+v, %v", last, err)
	}
}

func TestRetainWithoutRestorePointsRemovesNothing(t *testing.T) {
	base := t.TempDir()
	ended(t, base, 10)
	ended(t, base, 10)
	before := tree(t, base)
	r := do(t, "retain", base, "--keep-last", "0", "--apply").want(t, 0)
	if after := tree(t, base); !slices.Equal(before, after) || !strings.Contains(r.out, "no restore point is known to be good") {
		t.Errorf("%s, left %v", r.out, after)
	}
}

func TestRetainLeavesAnInstanceAloneThatIsHeld(t *testing.T) {
	base := t.TempDir()
	dir := ended(t, base, 100)
	live := opened(t, base, 10)
	retain(t, []uint64{50}, base, "--keep-last", "0").want(t, 0, "a process holds the instance")
	retain(t, []uint64{50}, base, "--keep-last", "0", "--apply").want(t, 2, "instance is locked by")
	if err := live.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := vfs.OS.Stat(dir); err != nil {
		t.Error(err)
	}
}

func TestRetainGoesOnBesideARunThatCannotBeRead(t *testing.T) { // G48
	base := t.TempDir()
	ended(t, base, 100)
	bad := ended(t, base, 100)
	ended(t, base, 100)
	for _, name := range []string{manifest.FileName, manifest.PrevName} {
		flip(t, filepath.Join(bad, name), 5)
	}
	flip(t, filepath.Join(bad, segment.FileName(1)), 5)
	r := retain(t, []uint64{50}, base, "--keep-last", "0", "--apply").want(t, 0, "stays: ", filepath.Base(bad))
	if n := strings.Count(r.out, "REMOVE"); n != 1 {
		t.Errorf("%s", r.out)
	}
}

func TestRetainRefusesWhatMakesNoSense(t *testing.T) {
	base := t.TempDir()
	dir := ended(t, base, 10)
	for _, args := range [][]string{
		{base, "--apply"}, {base, "--keep-last", "-1"}, {base, "--older-than", "0d"}, {base, "--older-than", "x"}, {base, "--max-bytes", "0"},
		{base, "--max-bytes", "9999999TiB"}, {base, "--max-bytes", "1.5GiB"}, {dir}, {t.TempDir()}, {filepath.Join(base, "none")}, {},
	} {
		do(t, append([]string{"retain"}, args...)...).want(t, 2)
	}
	for s, want := range map[string]int64{"1": 1, "1000000": 1000000, "2KiB": 2048, "3GiB": 3 << 30} {
		if n, err := parseBytes(s); n != want || err != nil {
			t.Errorf("%s: %d, %v", s, n, err)
		}
	}
	if d, err := parseAge("90d"); d.Hours() != 90*24 || err != nil {
		t.Errorf("90d: %v, %v", d, err)
	}
}

func TestEveryVerbIsRightAboutARunThatBeginsLater(t *testing.T) {
	base := t.TempDir()
	dir := ended(t, base, 300)
	if err := wal.RemoveBefore(vfs.OS, dir, 4); err != nil {
		t.Fatal(err)
	}
	r, err := runlog.OpenReader(dir, runlog.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	first, last := r.FirstSeq(), r.LastSeq()
	_ = r.Close()
	note := fmt.Sprintf("begins at seq %d", first)

	var info infoJSON
	if err := json.Unmarshal([]byte(do(t, "info", dir, "--json").want(t, 0, note).out), &info); err != nil {
		t.Fatal(err)
	}
	if info.FirstSeq != first || info.Entries != last-first+1 || info.Segments[0].Number != 4 || info.Segments[0].FirstSeq != first {
		t.Errorf("info: %+v", info)
	}
	if out := do(t, "info", dir).want(t, 0, note).out; !strings.Contains(out, "begins at") {
		t.Errorf("info: %s", out)
	}
	var listed listed
	if err := json.Unmarshal([]byte(do(t, "ls", base, "--json").want(t, 0).out), &listed); err != nil || listed.FirstSeq != first || listed.LastSeq != last {
		t.Errorf("ls: %+v, %v", listed, err)
	}
	if n := len(do(t, "cat", dir).want(t, 0, note).lines()); n != int(last-first+1) {
		t.Errorf("cat prints %d entries", n)
	}
	if n := len(do(t, "cat", dir, "--reverse").want(t, 0, note).lines()); n != int(last-first+1) {
		t.Errorf("cat --reverse prints %d entries", n)
	}
	do(t, "cat", dir, "--from", "1").want(t, 2, "removed by retention", note)
	do(t, "cat", dir, "--to", "1").want(t, 2, "removed by retention")
	do(t, "get", dir, fmt.Sprint(first-1)).want(t, 2, "removed by retention")
	do(t, "get", dir, fmt.Sprint(first)).want(t, 0, note)
	do(t, "history", dir, "client_order_id=3").want(t, 0, note)
	if n := len(do(t, "export", dir).want(t, 0, note).lines()); n != int(last-first) {
		t.Errorf("export prints %d entries", n)
	}
	do(t, "verify", dir).want(t, 0, note)
	do(t, "recover", dir).want(t, 0)
	do(t, "why", dir, fmt.Sprint(first)).want(t, 0, note)
	do(t, "statement", dir).want(t, 2, "no longer there")
	do(t, "prove", dir, fmt.Sprint(first)).want(t, 2, "no longer there")

	out := filepath.Join(t.TempDir(), "rescued")
	var sum salvagedJSON
	if err := json.Unmarshal([]byte(do(t, "salvage", dir, out, "--json").want(t, 0, note).out), &sum); err != nil {
		t.Fatal(err)
	}
	if sum.Lost != 0 || sum.Entries != last-first+1 || sum.LastSeq != last {
		t.Errorf("salvage: %+v", sum)
	}
	if got := do(t, "get", sum.Dir, fmt.Sprint(first-1)).want(t, 0).out; !strings.Contains(got, removedType) {
		t.Errorf("in the place of a removed entry: %s", got)
	}
	a, b := do(t, "get", sum.Dir, fmt.Sprint(first), "--json").want(t, 0), do(t, "get", dir, fmt.Sprint(first), "--json").want(t, 0)
	if a.out != b.out {
		t.Errorf("salvaged as %s, was %s", a.out, b.out)
	}
	do(t, "verify", sum.Dir).want(t, 0)
}
