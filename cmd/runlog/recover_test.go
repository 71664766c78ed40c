package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

// recovery runs recover --json and returns its only line.
func recovery(t testing.TB, code int, args ...string) (r recoveryJSON) {
	t.Helper()
	out := do(t, append([]string{"recover", "--json"}, args...)...)
	if out.code != code || len(out.lines()) != 1 {
		t.Fatalf("%v: %d, %q %q", args, out.code, out.out, out.stderr)
	}
	if err := json.Unmarshal([]byte(out.out), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDryRunForetellsWhatRecoveryDoes(t *testing.T) {
	closed := func(dir string) { // the process died between RunEnded and the manifest
		if err := os.Rename(filepath.Join(dir, manifest.PrevName), filepath.Join(dir, manifest.FileName)); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		harm     func(base, dir string)
		decision decision
		status   runlog.Status
		code     int
	}{
		"crashed": {func(_, _ string) {}, decidedCrashed, runlog.CrashedRecovered, 0},
		"torn":    {func(_, dir string) { tear(t, dir) }, decidedCrashed, runlog.CrashedRecovered, 0},
		"damaged": {func(_, dir string) { flip(t, filepath.Join(dir, segment.FileName(1)), 5000) }, decidedQuarantine, runlog.Quarantined, 1},
	} {
		base, dir := crashed(t, 20)
		c.harm(base, dir)
		before := tree(t, base)
		saw := recovery(t, c.code, dir, "--dry-run")
		if after := tree(t, base); !slices.Equal(before, after) {
			t.Errorf("%s: the dry run has changed %v to %v", name, before, after)
		}
		did := recovery(t, c.code, dir)
		if !saw.DryRun || saw.Decision != c.decision || saw.Status != c.status {
			t.Errorf("%s: foretold %+v", name, saw)
		}
		if name == "torn" && (saw.DroppedBytes == 0 || saw.File != segment.FileName(1) || saw.Offset == nil || *saw.Offset%8 != 0) {
			t.Errorf("the torn tail is not told: %+v", saw)
		}
		if name == "damaged" && (saw.FirstBad == 0 || saw.Offset == nil || saw.File != segment.FileName(1)) {
			t.Errorf("the damage is not told: %+v", saw)
		}
		if name == "damaged" {
			saw.LastSeq = did.LastSeq // which a quarantined run does not have
		}
		saw.DryRun = false
		a, _ := json.Marshal(saw)
		b, _ := json.Marshal(did)
		if string(a) != string(b) {
			t.Errorf("%s: foretold\n%s, did\n%s", name, a, b)
		}
		if again := recovery(t, c.code, dir); again.Decision != decidedNothing || again.Status != c.status {
			t.Errorf("%s: a second time: %+v", name, again)
		}
	}

	_, dir := imported(t, many(10))
	closed(dir)
	if saw, did := recovery(t, 0, dir, "--dry-run"), recovery(t, 0, dir); saw.Decision != decidedEnded || did.Decision != decidedEnded || did.LastSeq != 12 {
		t.Errorf("foretold %+v, did %+v", saw, did)
	}
	do(t, "verify", dir).want(t, 0)
}

func TestTornTailsOffsetIsWhereItWasTorn(t *testing.T) {
	_, dir := crashed(t, 900) // several segments
	file, off, ok := logEnd(dir)
	if !ok || file == segment.FileName(1) {
		t.Fatal(file, off, ok)
	}
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	copy(b[off:], "half a batch")
	if err := os.WriteFile(filepath.Join(dir, file), b, 0o644); err != nil {
		t.Fatal(err)
	}
	saw := recovery(t, 0, dir, "--dry-run")
	if saw.File != file || *saw.Offset != off || saw.DroppedBytes < 12 {
		t.Errorf("%+v, torn at %d of %s", saw, off, file)
	}
}

func TestARecoveredRunIsTheEnginesNextParent(t *testing.T) {
	base, dir := crashed(t, 20)
	tear(t, dir)
	if r := do(t, "recover", base).want(t, 0); !strings.Contains(r.out, "sealed as CrashedRecovered: its process died; last seq 21, torn tail of ") ||
		strings.Contains(r.out, "would") {
		t.Error(r.out)
	}
	do(t, "verify", base).want(t, 0)
	r, err := runlog.Open(t.Context(), runlog.Options{Dir: base, Instance: "demo", WarnAfter: -1, HaltAfter: -1})
	if err != nil {
		t.Fatal(err)
	}
	if p := r.Manifest().Parent; p != filepath.Base(dir) {
		t.Errorf("parent %q", p)
	}
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestRecoverLeavesAnInstanceThatIsHeldAlone(t *testing.T) {
	base := t.TempDir()
	r, err := runlog.Open(t.Context(), runlog.Options{Dir: base, Instance: "demo", WarnAfter: -1, HaltAfter: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(t.Context())
	if d := recovery(t, 0, base, "--dry-run"); d.Decision != decidedLive {
		t.Errorf("%+v", d)
	}
	if out := do(t, "recover", base, "--dry-run").want(t, 0).out; !strings.Contains(out, "skipped: a process holds the instance") {
		t.Error(out)
	}
	before, err := os.ReadFile(filepath.Join(r.Dir(), manifest.FileName))
	if err != nil {
		t.Fatal(err)
	}
	if out := do(t, "recover", base).want(t, 2, "left alone", "locked by"); out.out != "" {
		t.Error(out.out)
	}
	if after, err := os.ReadFile(filepath.Join(r.Dir(), manifest.FileName)); err != nil || string(after) != string(before) {
		t.Errorf("the live run was changed: %v", err)
	}
}

func TestRecoverLeavesWhatNeverBeganToTheEngine(t *testing.T) {
	base, dir := crashed(t, 20)
	inst := filepath.Dir(dir)
	fresh := filepath.Join(inst, manifest.NewRunID(time.Now().UnixNano(), filepath.Base(dir), 1))
	if err := os.Mkdir(fresh, 0o755); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(inst, manifest.NewRunID(time.Now().UnixNano(), filepath.Base(fresh), 2))
	if err := errors.Join(os.Mkdir(half, 0o755), os.WriteFile(filepath.Join(half, segment.FileName(1)), make([]byte, 70_000), 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"recover", base, "--dry-run"}, {"recover", base}} {
		if r := do(t, args...).want(t, 0); strings.Count(r.out, "died before it began") != 2 || strings.Count(r.out, "CrashedRecovered") != 1 {
			t.Errorf("%v: %s", args, r.out)
		}
	}
	r, err := runlog.Open(t.Context(), runlog.Options{Dir: base, Instance: "demo", WarnAfter: -1, HaltAfter: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{fresh, half} {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is still there: the tool has promised that the engine removes it", dir)
		}
	}
}

func TestAQuarantinedRunIsBadForRecoverToo(t *testing.T) {
	base, dir := crashed(t, 20)
	if err := manifest.WriteQuarantine(vfs.OS, dir, manifest.Quarantine{Reason: "because", Offset: -1}); err != nil {
		t.Fatal(err)
	}
	if r := do(t, "recover", dir, "--dry-run"); r.code != 1 || !strings.Contains(r.out, "nothing to do: it is quarantined: because") {
		t.Errorf("%d %s", r.code, r.out)
	}
	for _, path := range []string{base, filepath.Dir(dir), dir} { // wherever it is found
		for _, flags := range [][]string{nil, {"--dry-run"}} {
			before := tree(t, base)
			r := recovery(t, 1, append(flags, path)...)
			if r.Dir != dir || r.Decision != decidedNothing || r.Status != runlog.Quarantined || !strings.Contains(r.Detail, "because") || r.DryRun != (flags != nil) {
				t.Errorf("%s %v: %+v", path, flags, r)
			}
			if after := tree(t, base); !slices.Equal(before, after) {
				t.Errorf("%s %v: changed from %v to %v", path, flags, before, after)
			}
		}
	}
}
