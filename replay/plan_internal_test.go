package replay

import (
	"errors"
	"testing"
)

// A run whose begin was removed can be replayed from behind its floor, and from nowhere else.
func TestARunWithoutItsBeginIsReplayedOnlyFromBehindIt(t *testing.T) {
	for _, c := range []struct {
		first, from, to uint64
		bad             bool
	}{{1, 1, 9, false}, {5, 5, 9, false}, {5, 7, 9, false}, {5, 4, 9, true}, {5, 1, 9, true}, {10, 10, 9, false}, {11, 10, 9, false}} {
		r := RunPlan{Run: "r", From: c.from, To: c.to}
		if err := r.begins(c.first); errors.Is(err, ErrIncomplete) != c.bad || (err != nil) != c.bad {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
