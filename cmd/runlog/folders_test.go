package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestARunBehindALinkIsListedAndVerified(t *testing.T) {
	base, dir := imported(t, threeLines)
	away := filepath.Join(t.TempDir(), "away")
	if err := os.Rename(dir, away); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(away, dir); err != nil {
		t.Fatal(err)
	}
	run := filepath.Base(dir)
	inst := filepath.Dir(dir)
	if r := do(t, "ls", base).want(t, 0); !strings.Contains(r.out, run) {
		t.Errorf("ls: %s", r.out)
	}
	for _, path := range []string{base, inst, dir} {
		if r := do(t, "verify", "--no-isolate", path).want(t, 0); !strings.Contains(r.out, run+": ok") {
			t.Errorf("verify %s: %s", path, r.out)
		}
	}

	if err := os.Rename(away, away+".elsewhere"); err != nil {
		t.Fatal(err)
	}
	if r := do(t, "ls", base).want(t, 2, "no such file"); !strings.Contains(r.out, run) || !strings.Contains(r.out, "Unreadable") {
		t.Errorf("ls: %s", r.out)
	}
	for _, path := range []string{base, inst} {
		if r := do(t, "verify", "--no-isolate", path).want(t, 2, "no such file"); !strings.Contains(r.out, run+": NOT CHECKED") {
			t.Errorf("verify %s: %s", path, r.out)
		}
	}
	do(t, "recover", "--dry-run", base).want(t, 2, "no such file")
	do(t, "recover", base).want(t, 2, "no such file")

	// The same with the instance.
	if err := os.Rename(inst, inst+".elsewhere"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(inst+".gone", inst); err != nil {
		t.Fatal(err)
	}
	imports := do(t, "import", base, "--instance", "other", os.DevNull).want(t, 0)
	if r := do(t, "ls", base).want(t, 2, "no such file"); !strings.Contains(r.out, "demo") || len(r.lines()) != 4 {
		t.Errorf("ls: %s", r.out)
	}
	if r := do(t, "verify", "--no-isolate", base).want(t, 2, "no such file"); !strings.Contains(r.out, imports.lines()[0]+": ok") {
		t.Errorf("verify: %s", r.out)
	}
}

func TestImportWritesIntoNoRunAndNoInstance(t *testing.T) {
	base, dir := imported(t, threeLines)
	before := tree(t, base)
	for path, hint := range map[string]string{
		dir:                                    "it is a run's directory",
		filepath.Dir(dir):                      "it is an instance's folder: the base is " + base,
		filepath.Join(dir, "00000001.seg"):     "it is a file",
		filepath.Join(filepath.Dir(dir), "./"): "it is an instance's folder",
	} {
		if r := runlogWith(t, empty, "import", path, "--instance", "demo", "-").want(t, 2, hint); r.out != "" {
			t.Errorf("%s: %s", path, r.out)
		}
		if after := tree(t, base); !slices.Equal(before, after) {
			t.Errorf("%s: changed from %v to %v", path, before, after)
		}
	}
	for _, path := range []string{base, t.TempDir(), filepath.Join(t.TempDir(), "new")} {
		runlogWith(t, empty, "import", path, "--instance", "demo", "-").want(t, 0)
	}
}
