package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

func TestUnsealedRunIsFine(t *testing.T) {
	base, dir := crashed(t, 100)
	if out := do(t, "ls", base).want(t, 0).out; !strings.Contains(out, "Crashed") {
		t.Error(out)
	}
	if out := do(t, "info", dir).want(t, 0).out; !strings.Contains(out, "next start recovers it") || !strings.Contains(out, "account") {
		t.Error(out)
	}
	if n := len(do(t, "history", dir, "account=A").want(t, 0).lines()); n != 100 { // declared after the manifest was written
		t.Errorf("%d lines", n)
	}
	do(t, "verify", base).want(t, 0)
}

func TestLiveRunIsSaidToBe(t *testing.T) {
	base := t.TempDir()
	r, err := runlog.Open(t.Context(), runlog.Options{Dir: base, Instance: "demo", WarnAfter: -1, HaltAfter: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(t.Context())
	if out := do(t, "ls", base).want(t, 0).out; !strings.Contains(out, "Live") {
		t.Error(out)
	}
	if out := do(t, "info", r.Dir()).want(t, 0).out; !strings.Contains(out, "a process is writing it") {
		t.Error(out)
	}
	if out := do(t, "verify", base).want(t, 0).out; !strings.Contains(out, "Live") {
		t.Error(out)
	}
}

// tear leaves half a batch behind the last one of a crashed run's first segment, and returns its offset.
func tear(t testing.TB, dir string) int {
	t.Helper()
	path := filepath.Join(dir, segment.FileName(1))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	end := len(b)
	for b[end-1] == 0 {
		end--
	}
	end = (end + 7) &^ 7
	copy(b[end:], "half a batch")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return end
}

func TestTornTailIsANoteAndFine(t *testing.T) {
	_, dir := crashed(t, 20)
	tear(t, dir)
	for _, args := range [][]string{{"cat", dir}, {"export", dir}, {"info", dir}, {"get", dir, "5"}, {"verify", dir}} {
		if r := do(t, args...).want(t, 0, "note", "torn tail"); r.out == "" {
			t.Errorf("%v prints nothing", args)
		}
	}
	if n := len(do(t, "cat", dir).lines()); n != 21 {
		t.Errorf("%d entries", n)
	}
}

func TestDamagedLogIsDeliveredUpToTheDamage(t *testing.T) {
	_, dir := imported(t, many(2000))
	flip(t, filepath.Join(dir, segment.FileName(1)), 200_000)
	good := do(t, "export", dir).want(t, 1, "corrupt", "00000001.seg", "offset")
	if n := len(good.lines()); n < 100 || n >= 2000 {
		t.Errorf("%d lines before the damage", n)
	}
	bad := len(good.lines()) + 2
	do(t, "get", dir, "5").want(t, 0)
	found := 0
	for seq := bad; seq < bad+3; seq++ {
		if r := do(t, "get", dir, itoa(seq)); r.code == 1 {
			found++
		}
	}
	if found != 1 {
		t.Errorf("%d entries around seq %d are damaged", found, bad)
	}
	do(t, "get", dir, "1999").want(t, 0)
	do(t, "cat", dir, "--reverse").want(t, 1)
	r := do(t, "verify", dir).want(t, 1)
	if !strings.Contains(r.out, "seq "+itoa(bad)) || !strings.Contains(r.out, "BAD") {
		t.Error(r.out)
	}
}

func itoa(n int) string { return count(n)[:0] + strings.ReplaceAll(count(n), ",", "") }

func TestMissingSegmentIsBadData(t *testing.T) {
	_, dir := crashed(t, 900)
	if err := os.Remove(filepath.Join(dir, segment.FileName(2))); err != nil {
		t.Fatal(err)
	}
	do(t, "cat", dir).want(t, 1)
	do(t, "info", dir).want(t, 1)
	do(t, "get", dir, "890").want(t, 0) // what lies behind it can be read
	out := do(t, "verify", dir).want(t, 1).out
	lost := regexp.MustCompile(`missing: ` + regexp.QuoteMeta(filepath.Join(dir, segment.FileName(2))) + `: seq (\d+)`).FindStringSubmatch(out)
	if lost == nil {
		t.Fatal(out)
	}
	do(t, "get", dir, lost[1]).want(t, 1, segment.FileName(2))
}

func TestReadingWorksAroundDerivedFiles(t *testing.T) {
	_, dir := imported(t, many(500))
	want := do(t, "export", dir).want(t, 0).out
	idx := filepath.Join(dir, "00000001.idx")
	sound, err := os.ReadFile(idx)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(){
		"index damaged":           func() { flip(t, idx, 100) },
		"index's buckets damaged": func() { flip(t, idx, int64(len(sound)/2)) },
		"index missing":           func() { _ = os.Remove(idx) },
		"index of a sort":         func() { _ = os.WriteFile(idx, sound[:10], 0o644) },
		"manifest damaged":        func() { flip(t, filepath.Join(dir, "manifest"), 50) },
		"manifest missing":        func() { _ = os.Remove(filepath.Join(dir, "manifest")) },
		"both manifests missing": func() {
			_ = os.Remove(filepath.Join(dir, "manifest"))
			_ = os.Remove(filepath.Join(dir, "manifest.prev"))
		},
		"both manifests are lists": func() {
			_ = os.WriteFile(filepath.Join(dir, "manifest"), []byte("x"), 0o644)
			flip(t, filepath.Join(dir, "manifest.prev"), 1)
		},
	} {
		backup := filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(backup, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		change()
		before := tree(t, dir)
		h := do(t, "history", dir, "account=a3", "--json").want(t, 0)
		if n := len(h.lines()); n != 71 || !strings.Contains(h.stderr, "warning") && strings.HasPrefix(name, "manifest") {
			t.Errorf("%s: %d lines, stderr %s", name, n, h.stderr)
		}
		if r := do(t, "export", dir).want(t, 0); r.out != want || !strings.Contains(h.stderr+r.stderr, "warning") && name != "index's buckets damaged" {
			t.Errorf("%s: export differs or does not warn: %q", name, r.stderr)
		}
		if out := do(t, "info", dir).want(t, 0).out; !strings.Contains(out, "Ended") || !strings.Contains(out, "account") {
			t.Errorf("%s: info\n%s", name, out)
		}
		if out := do(t, "ls", filepath.Dir(filepath.Dir(dir)), "--json").want(t, 0).out; !strings.Contains(out, `"status":"Ended"`) {
			t.Errorf("%s: ls %s", name, out)
		}
		do(t, "verify", dir).want(t, 1)
		if after := tree(t, dir); !slices.Equal(before, after) {
			t.Errorf("%s: reading has changed the folder: %v to %v", name, before, after)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(backup, dir); err != nil {
			t.Fatal(err)
		}
	}
}

func TestQuarantinedRunWarnsAndIsAFinding(t *testing.T) {
	base, dir := imported(t, many(10))
	if err := manifest.WriteQuarantine(vfs.OS, dir, manifest.Quarantine{Reason: "because", Offset: -1}); err != nil {
		t.Fatal(err)
	}
	do(t, "cat", dir).want(t, 0, "quarantined: because")
	if out := do(t, "ls", base).want(t, 0).out; !strings.Contains(out, "Quarantined") {
		t.Error(out)
	}
	if out := do(t, "verify", base, "--json").want(t, 1).out; !strings.Contains(out, `"kind":"quarantine"`) || !strings.Contains(out, `"ok":false`) {
		t.Error(out)
	}
}

func TestNewerVersionCannotBeRead(t *testing.T) {
	_, dir := imported(t, many(10))
	path := filepath.Join(dir, segment.FileName(1))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	format.SealHeader(b[:segment.BlockSize], format.MagicSegment, segment.Version+1, 7)
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	do(t, "cat", dir).want(t, 2, "version")
	do(t, "verify", dir).want(t, 2, "version")
}

func TestVerifyOfABaseChecksEveryRun(t *testing.T) {
	base, one := imported(t, many(10))
	runlogWith(t, many(10), "import", base, "--instance", "demo", "-").want(t, 0)
	if err := os.Mkdir(filepath.Join(base, "demo", "20251123T200248.123456789Z-1a2b3c4d"), 0o755); err != nil { // an Open that died at once
		t.Fatal(err)
	}
	r := do(t, "verify", base).want(t, 0, "died before it began")
	if strings.Count(r.out, ": ok: Ended") != 2 {
		t.Error(r.out)
	}
	flip(t, filepath.Join(one, "00000001.seg"), -20)
	r = do(t, "verify", base).want(t, 1)
	if strings.Count(r.out, ": ok: ") != 1 || strings.Count(r.out, "BAD") != 1 {
		t.Error(r.out)
	}
	if r := do(t, "ls", base); r.code == 0 {
		t.Log(r.out, r.stderr)
	}
}
