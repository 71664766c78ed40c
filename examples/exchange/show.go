package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/runlog-io/runlog"
)

func (c *config) printf(format string, args ...any) { _, _ = fmt.Fprintf(c.stdout, format, args...) }

// status shows progress on a terminal, in one line that is written over, ten times a second; empty, it wipes the line.
func (c *config) status(format string, args ...any) {
	if now := time.Now(); c.tty && (format == "" || now.Sub(c.shown) > 100*time.Millisecond) {
		c.shown = now
		_, _ = fmt.Fprintf(c.stderr, "\r\x1b[K"+format, args...)
	}
}

// count writes a number with thousands separators.
func count(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// round keeps three digits or so.
func round(d time.Duration) time.Duration {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond)
	case d >= 10*time.Microsecond:
		return d.Round(10 * time.Nanosecond)
	}
	return d
}

func yesNo(ok bool) string {
	if ok {
		return "yes"
	}
	return "no"
}

// table aligns its columns: those named in right are numbers.
func table(rows [][]string, right ...int) string {
	var width []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], len([]rune(cell)))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-len([]rune(cell)))
			isRight := false
			for _, r := range right {
				isRight = isRight || r == i
			}
			if isRight {
				cell = pad + cell
			} else {
				cell += pad
			}
			line.WriteString("  " + cell)
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}

// step is one line of a timeline.
type step struct {
	run    int
	seq    uint64
	tsInit int64
	typ    string
	text   string
}

// history reads all entries with a key from the runs, oldest first.
func history(runs []*runlog.Reader, kind, value string) ([]step, error) {
	var steps []step
	for i, r := range runs {
		for v, err := range r.History(kind, value) {
			if err != nil {
				return steps, err
			}
			typ := v.Type()
			steps = append(steps, step{i + 1, v.Seq(), v.TsInit(), typ, describe(typ, v.Payload())})
		}
	}
	return steps, nil
}

// timeline shows steps with the time since the first one; a long middle is left out.
func timeline(steps []step, limit int) string {
	rows := [][]string{{"run", "seq", "time", "entry", ""}}
	for i, s := range steps {
		if i == limit && len(steps) > limit+1 {
			rows = append(rows, []string{"", "", "", fmt.Sprintf("... %d more", len(steps)-limit-1), ""})
		}
		if i < limit || i == len(steps)-1 {
			since := "+" + (time.Duration(s.tsInit - steps[0].tsInit)).Round(time.Microsecond).String()
			rows = append(rows, []string{strconv.Itoa(s.run), count(s.seq), since, s.typ, s.text})
		}
	}
	return table(rows, 0, 1, 2)
}
