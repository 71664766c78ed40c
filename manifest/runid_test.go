package manifest

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/runlog-io/runlog/internal/format"
)

func TestRunID(t *testing.T) {
	now := time.Date(2026, 11, 23, 20, 2, 48, 123456789, time.UTC).UnixNano()
	id := NewRunID(now, "", 0x1a2b3c4d)
	if id != "20261123T200248.123456789Z-1a2b3c4d" {
		t.Error(id)
	}
	if got, err := ParseRunID(id); err != nil || got != now {
		t.Errorf("%d, %v", got, err)
	}
}

func TestRunIDsSortByStartTime(t *testing.T) { // G27
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		a, b := rng.Int64N(maxRunTime), rng.Int64N(maxRunTime)
		if rng.IntN(2) == 0 { // near each other, across digit widths
			b = min(a+rng.Int64N(1000), maxRunTime)
		}
		x, y := NewRunID(a, "", rng.Uint32()), NewRunID(b, "", rng.Uint32())
		if a != b && (a < b) != (x < y) {
			t.Fatalf("%d %d: %s %s", a, b, x, y)
		}
		if got, err := ParseRunID(x); err != nil || got != a || len(x) != runIDLen {
			t.Fatalf("%s: %d, %v", x, got, err)
		}
	}
}

func TestRunIDsNeverGoBack(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	last := NewRunID(now, "", math.MaxUint32)
	for _, clock := range []int64{now, now - 1, now - int64(time.Hour), 0, -1, math.MinInt64, now} {
		id := NewRunID(clock, last, 0)
		a, _ := ParseRunID(last)
		b, err := ParseRunID(id)
		if err != nil || b != a+1 || id <= last {
			t.Fatalf("clock %d: %s after %s, %v", clock, id, last, err)
		}
		last = id
	}
	atEnd := NewRunID(math.MaxInt64, last, 9)
	if next := NewRunID(math.MaxInt64, atEnd, 0); next <= atEnd {
		t.Errorf("a clock at its end: %s after %s", next, atEnd)
	}
	if id := NewRunID(now+100, last, 0); id != NewRunID(now+100, "", 0) {
		t.Errorf("a clock that went on is not believed: %s", id)
	}
	for _, foreign := range []string{"", "backup", ".import-x"} {
		if id := NewRunID(now, foreign, 5); id != NewRunID(now, "", 5) {
			t.Errorf("%q: %s", foreign, id)
		}
	}
	for _, clock := range []int64{math.MaxInt64, math.MaxInt64 - 1, math.MinInt64} {
		if id := NewRunID(clock, "", 0); !ValidRunID(id) {
			t.Errorf("clock %d: %s", clock, id)
		}
	}
}

func TestRunIDRefuses(t *testing.T) {
	good := testRun
	for _, bad := range []string{
		"", "x", good + "0", good[:len(good)-1], " " + good[1:], strings.ToUpper(good[:30]) + "A2b3c",
		strings.Replace(good, "-", "_", 1), strings.Replace(good, "1123", "1323", 1), strings.Replace(good, "1123", "1131", 1),
		strings.Replace(good, "T2002", "T2460", 1), strings.Replace(good, "Z", "+", 1), strings.Replace(good, ".", ",", 1),
		strings.Replace(good, "2026", "1969", 1), strings.Replace(good, "2026", "2263", 1), strings.Replace(good, "2026", "9999", 1),
		strings.Replace(good, "2026", "2262", 1), strings.Replace(good, "1a2b", "+a2b", 1), strings.Replace(good, "1a2b", "1A2b", 1),
		"20261123t200248.123456789z-1a2b3c4d", "../../../../../../../../../etc/pass",
	} {
		if _, err := ParseRunID(bad); !errors.Is(err, format.ErrInvalid) || ValidRunID(bad) {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestValidInstance(t *testing.T) {
	for _, good := range []string{"a", "desk-1.eu_X", "0", "-", "_", "a..b", strings.Repeat("a", MaxInstance)} {
		if !ValidInstance(good) {
			t.Errorf("%q is refused", good)
		}
	}
	for _, bad := range []string{"", ".", "..", ".a", "a/b", `a\b`, "a b", "ä", "a\x00", "a\n", strings.Repeat("a", MaxInstance+1)} {
		if ValidInstance(bad) {
			t.Errorf("%q is accepted", bad)
		}
	}
}
