package faultkit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestThePageShowsThisCode: each block of Go in docs/fault-kit.md stands in these files, line by line.
func TestThePageShowsThisCode(t *testing.T) {
	page, err := os.ReadFile("../../docs/fault-kit.md")
	must(t, err)
	files, err := filepath.Glob("*.go")
	must(t, err)
	src := ""
	for _, f := range files {
		b, err := os.ReadFile(f)
		must(t, err)
		src += "\n" + string(b)
	}
	blocks := strings.Split(string(page), "```go\n")[1:]
	if len(blocks) == 0 {
		t.Fatal("the page shows no code")
	}
	for _, block := range blocks {
		block, _, closed := strings.Cut(block, "```")
		found := false
		for depth := range 5 {
			lines := strings.SplitAfter("\n"+block, "\n")
			for i, line := range lines {
				if i > 0 && strings.TrimSpace(line) != "" {
					lines[i] = strings.Repeat("\t", depth) + line
				}
			}
			found = found || strings.Contains(src, strings.Join(lines, ""))
		}
		if !found || !closed {
			t.Errorf("docs/fault-kit.md shows what is not in the example:\n%s", block)
		}
	}
}
