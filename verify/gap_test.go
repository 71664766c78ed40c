package verify

import (
	"math/rand/v2"
	"testing"

	"github.com/runlog-io/runlog/internal/format"
)

func TestUnmixUndoesMix(t *testing.T) {
	for range 10_000 {
		if x := rand.Uint64(); unmix(format.Mix(x)) != x || format.Mix(unmix(x)) != x {
			t.Fatalf("%#x", x)
		}
	}
}
