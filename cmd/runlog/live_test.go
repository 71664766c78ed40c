package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
)

func TestWhatALiveRunIsJustDoingIsNoProblem(t *testing.T) {
	base, dir := crashed(t, 700)
	name, off, ok := logEnd(dir)
	if !ok {
		t.Fatal("where the log ends is not known")
	}
	flip(t, filepath.Join(dir, name), off+9) // the first bytes of a batch
	sealed := []string{}
	for _, name := range tree(t, dir) {
		if name = filepath.Base(name); strings.HasSuffix(name, ".idx") {
			sealed = append(sealed, name)
		}
	}
	if len(sealed) < 2 {
		t.Fatalf("only %d sealed segments", len(sealed))
	}
	newest := sealed[len(sealed)-1]
	if err := os.Remove(filepath.Join(dir, newest)); err != nil { // it is not written yet
		t.Fatal(err)
	}
	info := func() (in infoJSON) {
		if err := json.Unmarshal([]byte(do(t, "info", "--json", dir).want(t, 0).out), &in); err != nil {
			t.Fatal(err)
		}
		return in
	}
	problems := func(in infoJSON) (n int) {
		for _, s := range in.Segments {
			if s.Problem != "" {
				n++
			}
		}
		return n
	}
	if in := info(); in.Live || in.TornBytes == 0 || problems(in) != 1 {
		t.Errorf("crashed: %+v", in)
	}
	lock, err := vfs.OS.Lock(filepath.Join(base, "demo", manifest.LockName), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if in := info(); !in.Live || in.TornBytes != 0 || problems(in) != 0 {
		t.Errorf("live: %+v", in)
	}
	if r := do(t, "info", dir).want(t, 0, "the engine is writing it"); strings.Contains(r.out+r.stderr, "torn") || strings.Contains(r.out, noIndex) {
		t.Errorf("live: %s%s", r.out, r.stderr)
	}
	if err := os.Remove(filepath.Join(dir, sealed[0])); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if in := info(); problems(in) != 1 {
		t.Errorf("an older index is missing: %+v", in)
	}
}

func TestErrorsNameTheToolOnce(t *testing.T) {
	base := t.TempDir()
	if err := os.WriteFile(filepath.Join(base, "demo"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := runlogWith(t, empty, "import", base, "--instance", "demo", "-").want(t, 2, "runlog: option Dir"); strings.Count(r.stderr, "runlog: ") != 1 {
		t.Error(r.stderr)
	}
}
