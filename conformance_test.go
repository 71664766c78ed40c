package runlog_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// docs/conformance.md promises tests by name; here each of them must exist.
func TestConformanceNamesTests(t *testing.T) {
	page, err := os.ReadFile("docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	declared := map[string]bool{}
	decl := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example)\w*)\(`)
	err = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		src, err := os.ReadFile(path)
		for _, m := range decl.FindAllSubmatch(src, -1) {
			declared[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`((?:Test|Fuzz|Example)[A-Z0-9]\\w*)`").FindAllSubmatch(page, -1)
	if len(named) < 100 {
		t.Errorf("the page names %d tests only", len(named))
	}
	for _, m := range named {
		if !declared[string(m[1])] {
			t.Errorf("docs/conformance.md names %s, which does not exist", m[1])
		}
	}
	cases := regexp.MustCompile(`(?m)^\| ([A-Z]{2}\d+) \| .+ \| .+ \|$`).FindAllSubmatch(page, -1)
	if want := 15 + 22 + 27 + 4 + 25 + 14 + 12 + 19 + 26 + 5 + 6 + 4 + 16 + 17 + 14 + 50 + 4; len(cases) != want {
		t.Errorf("%d cases on the page, the groups have %d", len(cases), want)
	}
}
