package replay_test

import (
	"os"
	"strings"
	"testing"
)

// TestThePageShowsThisCode: each line of Go in docs/replay.md stands in the example, and its blocks in this order.
func TestThePageShowsThisCode(t *testing.T) {
	page, err := os.ReadFile("../docs/replay.md")
	must(t, err)
	code, err := os.ReadFile("example_test.go")
	must(t, err)
	plain := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	blocks := strings.Split(string(page), "```go\n")[1:]
	if len(blocks) < 4 {
		t.Fatalf("%d blocks", len(blocks))
	}
	for _, block := range blocks {
		if block, _, _ = strings.Cut(block, "```"); !strings.Contains(plain(string(code)), plain(block)) {
			t.Errorf("docs/replay.md shows what is not in the example:\n%s", block)
		}
	}
}
