package wal

import (
	"testing"
)

// What is fetched ahead lies in the page that the walk needs first: of a file that was cut short, the next may be missing.
func TestNothingIsFetchedBeyondTheFirstPage(t *testing.T) {
	for _, c := range []struct {
		off, next int64
		entries   uint64
		size      int64
		from, to  int64 // 0, 0: nothing
	}{
		{off: 256, next: 1280, entries: 0, size: 1 << 20, from: 256, to: 512},
		{off: 256, next: 1280, entries: 3, size: 1 << 20, from: 256, to: 1280},
		{off: 4000, next: 5024, entries: 3, size: 1 << 20, from: 4000, to: 4096},
		{off: 8192, next: 9216, entries: 3, size: 1 << 20, from: 8192, to: 9216},
		{off: 256, next: 1280, entries: 3, size: 640, from: 256, to: 640},
		{off: 256, next: 0, entries: 3, size: 1 << 20},          // the next sample is not at hand
		{off: 256, next: 256 + 5000, entries: 3, size: 1 << 20}, // large entries come by themselves
		{off: 1280, next: 256, entries: 3, size: 1 << 20},
		{off: 4096, next: 5120, entries: 3, size: 4096},
	} {
		if from, to := ahead(c.off, c.next, c.entries, c.size); from != c.from || to != c.to {
			t.Errorf("%+v: %d to %d", c, from, to)
		}
	}
}
