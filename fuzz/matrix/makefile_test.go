package matrix

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMakeFailsWithAnyPackageOfRows: the table knows only of rows that came as far as to a record.
func TestMakeFailsWithAnyPackageOfRows(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	// In the place of go: tests pass, except in the folder that is named bad; the table is always content.
	const fake = "#!/bin/sh\nif [ \"$1\" = test ] && [ \"$(basename \"$PWD\")\" = bad ]; then exit 1; fi\necho \"$@\"\n"
	for name, text := range map[string]string{"Makefile": string(makefile), "go": fake} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"good", "bad", "last"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, target := range []string{"crash", "crash-long"} {
		for rows, fails := range map[string]bool{"./good ./bad ./last": true, "./good ./last": false} {
			cmd := exec.Command("make", "-C", dir, target, "GO="+filepath.Join(dir, "go"), "ROWS="+rows)
			cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MFLAGS=")
			out, err := cmd.CombinedOutput()
			if (err != nil) != fails {
				t.Errorf("make %s with rows %s: %v\n%s", target, rows, err, out)
			}
			if text := string(out); strings.Count(text, "test -v") != strings.Count(strings.ReplaceAll(rows, "./bad", ""), "./") || !strings.Contains(text, "run ./fuzz/matrix/table") {
				t.Errorf("make %s with rows %s: not all packages ran, or there is no table\n%s", target, rows, text)
			}
		}
	}
}
