package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Jobs, by the names that -jobs takes. What varies within one is its x: callers, entries of a batch, bytes, entries, segments.
const (
	jobSubmit   = "submit"
	jobAlone    = "alone"
	jobGroup    = "group"
	jobStream   = "stream"
	jobKeyed    = "keyed"
	jobSize     = "size"
	jobOpen     = "open"
	jobRead     = "read"
	jobFind     = "find"
	jobDisk     = "disk"
	jobKeyDisk  = "keydisk"
	jobSegments = "segments"
)

// point is one measurement of a store, made once in each round.
type point struct {
	job   string
	x     int
	store string
}

// book holds what was measured, by round: a metric's values of different stores in the same round were measured side by side.
type book struct {
	rounds map[point][]metrics
	failed map[point]error
}

func newBook() *book { return &book{rounds: map[point][]metrics{}, failed: map[point]error{}} }

// values are a metric's, one for each round, or none.
func (b *book) values(p point, metric string) []float64 {
	var list []float64
	for _, m := range b.rounds[p] {
		v, ok := m[metric]
		if !ok {
			return nil
		}
		list = append(list, v)
	}
	return list
}

func (b *book) median(p point, metric string) (float64, bool) {
	list := b.values(p, metric)
	if len(list) == 0 {
		return 0, false
	}
	return median(list), true
}

// ratio is a store's value over another's, paired by round.
func (b *book) ratio(p point, base, metric string) []float64 {
	mine, theirs := b.values(p, metric), b.values(point{p.job, p.x, base}, metric)
	var list []float64
	for i := range min(len(mine), len(theirs)) {
		if theirs[i] > 0 {
			list = append(list, mine[i]/theirs[i])
		}
	}
	return list
}

// xs are all x of a job for which something was measured, smallest first.
func (b *book) xs(job string) []int {
	var list []int
	for p := range b.rounds {
		if p.job == job && !slices.Contains(list, p.x) {
			list = append(list, p.x)
		}
	}
	slices.Sort(list)
	return list
}

func median(list []float64) float64 {
	s := slices.Sorted(slices.Values(list))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// A unit turns a value into the text of a cell.
type unit func(v float64) string

func figure(v float64) string {
	switch a := math.Abs(v); {
	case v == 0:
		return "0"
	case a < 10:
		return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", v), "0"), ".")
	case a < 100:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0")
	}
	return grouped(int64(math.Round(v)))
}

// grouped writes a number with commas between thousands.
func grouped(v int64) string {
	if v < 0 {
		return "-" + grouped(-v)
	}
	s := strconv.FormatInt(v, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func scaled(by float64) unit { return func(v float64) string { return figure(v / by) } }

var (
	plain  = scaled(1)
	micro  = scaled(1e3)
	milli  = scaled(1e6)
	mebi   = scaled(1 << 20)
	timesX = func(v float64) string { return fmt.Sprintf("%.2f", v) }
)

// spread is the median of some values, and their range if there are more than one.
func spread(list []float64, u unit) string {
	switch len(list) {
	case 0:
		return "–"
	case 1:
		return u(list[0])
	}
	return fmt.Sprintf("%s (%s–%s)", u(median(list)), u(slices.Min(list)), u(slices.Max(list)))
}
