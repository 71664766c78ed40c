package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"
)

// output buffers the results and remembers the first error.
type output struct {
	*bufio.Writer
	sink *sink
	err  error
}

// sink tells write errors from all others.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if err != nil {
		s.err = err
	}
	return n, err
}

func newOutput(w io.Writer) *output {
	s := &sink{w: w}
	return &output{Writer: bufio.NewWriterSize(s, 256<<10), sink: s}
}

// Flush writes out what is buffered.
func (o *output) Flush() error {
	err := o.Writer.Flush()
	o.err = o.sink.err
	return err
}

// failed reports whether going on is pointless.
func (o *output) failed() bool { return o.sink.err != nil }

// closed reports whether the reader of the output has gone away.
func (o *output) closed() bool {
	return errors.Is(o.sink.err, syscall.EPIPE) || errors.Is(o.sink.err, io.ErrClosedPipe)
}

// line prints one line.
func (o *output) line(format string, args ...any) { fmt.Fprintf(o, format+"\n", args...) }

// table collects rows and prints them aligned.
type table struct {
	rows  [][]string
	right map[int]bool // columns that are aligned to the right
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) print(o *output) {
	var widths []int
	for _, r := range t.rows {
		for i, c := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	for _, r := range t.rows {
		var b strings.Builder
		for i, c := range r {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
			if i > 0 {
				b.WriteString("  ")
			}
			if t.right[i] {
				b.WriteString(pad + c)
			} else {
				b.WriteString(c + pad)
			}
		}
		o.line("%s", strings.TrimRight(b.String(), " "))
	}
}

const timeFormat = "2006-01-02T15:04:05.000000000Z"

func formatTime(ns int64) string { return time.Unix(0, ns).UTC().Format(timeFormat) }

// printable makes text safe for a terminal: control characters are escaped. Beyond limit runes it is cut; a negative
// limit is none.
func printable(s string, limit int) string {
	safe := true
	for _, r := range s {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			safe = false
			break
		}
	}
	if !safe {
		var b strings.Builder
		for i, r := range s {
			switch {
			case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
				fmt.Fprintf(&b, `\x%02x`, s[i])
			case unicode.IsPrint(r):
				b.WriteRune(r)
			case r == '\n':
				b.WriteString(`\n`)
			case r == '\t':
				b.WriteString(`\t`)
			case r == '\r':
				b.WriteString(`\r`)
			default:
				fmt.Fprintf(&b, `\u%04x`, r)
			}
		}
		s = b.String()
	}
	if limit < 0 || len(s) <= limit {
		return s
	}
	n := 0
	for i := range s {
		if n == limit {
			return s[:i] + "..."
		}
		n++
	}
	return s
}

// payloadText shows a payload as text if it is some, else as hex with its length.
func payloadText(p []byte, limit int) string {
	if isText(p) {
		s := printable(string(p), limit)
		if limit >= 0 && strings.HasSuffix(s, "...") && len(p) > limit {
			s += fmt.Sprintf(" (%d bytes)", len(p))
		}
		return s
	}
	show := p
	if limit >= 0 && len(show) > limit/2 {
		show = show[:limit/2]
	}
	s := fmt.Sprintf("0x%x", show)
	if len(show) < len(p) {
		s += "..."
	}
	return fmt.Sprintf("%s (%d bytes)", s, len(p))
}

// isText reports whether a payload is UTF-8 made of printable characters and white space.
func isText(p []byte) bool {
	if !utf8.Valid(p) {
		return false
	}
	for _, r := range string(p) {
		if !unicode.IsPrint(r) && r != '\n' && r != '\t' && r != '\r' {
			return false
		}
	}
	return true
}

// count prints a number with separators.
func count[T int | int64 | uint64](n T) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// number prints a count with its noun.
func number[T int | uint64](n T, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + many
}

func size(n int64) string {
	switch {
	case n < 10_000:
		return fmt.Sprintf("%d B", n)
	case n < 10<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 10<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// progress shows how far something is, on terminals only.
type progress struct {
	w    io.Writer // nil: silent
	last time.Time
	any  bool
}

func (a *app) newProgress() *progress {
	if a.noProgress || !isTerminal(a.stderr) {
		return &progress{}
	}
	return &progress{w: a.stderr, last: time.Now()}
}

func (p *progress) show(text func() string) {
	if p.w == nil || time.Since(p.last) < 200*time.Millisecond {
		return
	}
	p.last, p.any = time.Now(), true
	fmt.Fprintf(p.w, "\r\x1b[K%s", text())
}

func (p *progress) end() {
	if p.any {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
