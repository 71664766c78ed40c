package manifest

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// A run id is its start time in UTC and 32 random bits: 20261123T200248.123456789Z-1a2b3c4d. All have the same length, so
// they sort as text by start time.
const (
	runIDTime = "20060102T150405.000000000Z"
	runIDLen  = len(runIDTime) + 1 + 8
)

// maxRunTime is the last start time that an id can have. maxNow is the last one that is taken from a clock: the hour behind
// it is left to successors, when a clock has gone mad.
const (
	maxRunTime = math.MaxInt64 - 1
	maxNow     = maxRunTime - int64(time.Hour)
)

// NewRunID makes the id of a run that starts now (ns since 1970 UTC). after is the newest run id of the instance, "" if
// there is none: the new id sorts behind it, even when the clock was set back in between.
func NewRunID(now int64, after string, rnd uint32) string {
	now = min(max(now, 0), maxNow)
	if last, err := ParseRunID(after); err == nil && now <= last {
		now = min(last+1, maxRunTime)
	}
	return fmt.Sprintf("%s-%08x", time.Unix(0, now).UTC().Format(runIDTime), rnd)
}

// ParseRunID returns the start time in a run id, ns since 1970 UTC. Errors wrap format.ErrInvalid.
func ParseRunID(s string) (started int64, err error) {
	bad := func() (int64, error) { return 0, invalid("%.80q is not a run id", s) }
	if len(s) != runIDLen || s[len(runIDTime)] != '-' {
		return bad()
	}
	rnd, err := strconv.ParseUint(s[len(runIDTime)+1:], 16, 32)
	if err != nil {
		return bad()
	}
	t, err := time.Parse(runIDTime, s[:len(runIDTime)])
	if err != nil || t.Year() < 1970 || t.Year() > 2262 {
		return bad()
	}
	started = t.UnixNano()
	// Only the one spelling that NewRunID writes is an id; this also refuses times that do not fit.
	if started < 0 || started > maxRunTime || s != fmt.Sprintf("%s-%08x", time.Unix(0, started).UTC().Format(runIDTime), rnd) {
		return bad()
	}
	return started, nil
}

// ValidRunID reports whether s has the form of a run id.
func ValidRunID(s string) bool {
	_, err := ParseRunID(s)
	return err == nil
}

// ValidInstance reports whether s can name an instance: 1 to MaxInstance of A-Z a-z 0-9 . _ -, the first not a dot.
func ValidInstance(s string) bool {
	if s == "" || len(s) > MaxInstance || s[0] == '.' {
		return false
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
