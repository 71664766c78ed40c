//go:build !race

// The race detector makes sync.Pool drop values on purpose, so allocations are counted without it.

package capture_test

import (
	"strings"
	"testing"

	"github.com/runlog-io/runlog/entry"
)

func TestTypedCaptureDoesNotAllocate(t *testing.T) {
	h := hotHandle(t)
	m := command{clientID: "C1", text: strings.Repeat("x", 256), corr: id(1)}
	n := 0
	for name, f := range map[string]func(){
		"without identity": func() { m.id = entry.ID{} },
		"with identity":    func() { n++; m.id = id(n) },
		"duplicate":        func() { m.id = id(1 << 30) },
	} {
		got := testing.AllocsPerRun(5000, func() {
			f()
			m.at++
			if _, err := h.Capture(m); err != nil {
				t.Error(err)
			}
		})
		if got != 0 {
			t.Errorf("%s: %v allocs per capture, want 0", name, got)
		}
	}
}
