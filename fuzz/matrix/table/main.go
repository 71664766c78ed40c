// Command table turns the record of a run of the fault matrix into a table, and fails if a row is missing, has found
// something, or had fewer cases than it should.
package main

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/runlog-io/runlog/fuzz/matrix"
)

func main() {
	in := flag.String("in", "", "the record that the rows have written")
	out := flag.String("page", "", "write the table as a page of the documentation")
	flag.Parse()
	if *in == "" || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "usage: table -in RECORD [-page docs/crash-matrix.md]")
		os.Exit(2)
	}
	sums, err := read(*in)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	bad := text(os.Stdout, sums)
	if *out != "" {
		f, err := os.Create(*out)
		if err == nil {
			page(f, sums)
			err = f.Close()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if bad {
		os.Exit(1)
	}
}

// read sums up the results of each row. A row may have run several times.
func read(name string) (map[string]*matrix.Result, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sums := map[string]*matrix.Result{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r matrix.Result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if s := sums[r.ID]; s != nil {
			s.Cases += r.Cases
			s.Seconds += r.Seconds
			s.Findings += r.Findings
			s.Detail = r.Detail
		} else {
			sums[r.ID] = &r
		}
	}
	return sums, lines.Err()
}

// text prints the table for a terminal, and reports whether anything is wrong with it.
func text(w io.Writer, sums map[string]*matrix.Result) (bad bool) {
	fmt.Fprintf(w, "%-10s %12s %8s %9s\n", "row", "cases", "seconds", "findings")
	total, seconds := int64(0), 0.0
	for i := range matrix.Rows {
		row := &matrix.Rows[i]
		r := sums[row.ID]
		if r == nil {
			fmt.Fprintf(w, "%-10s %12s  it did not run\n", row.ID, "-")
			bad = true
			continue
		}
		note := r.Detail
		if r.Cases < row.CI && r.Mode == "ci" {
			note = fmt.Sprintf("fewer than %s. %s", number(row.CI), note)
			bad = true
		}
		bad = bad || r.Findings > 0
		total += r.Cases
		seconds += r.Seconds
		fmt.Fprintf(w, "%-10s %12s %8.1f %9d  %s\n", row.ID, number(r.Cases), r.Seconds, r.Findings, note)
	}
	fmt.Fprintf(w, "%-10s %12s %8.1f\n", "all", number(total), seconds)
	return bad
}

// found is what was written by hand about findings: the page is made anew each time, and has it at its end.
//
//go:embed found.md
var found string

func page(w io.Writer, sums map[string]*matrix.Result) {
	fmt.Fprintf(w, `# The fault matrix

What runlog is put through, and what came of it. Each case ends with the same question to one judge, [fuzz/oracle](../fuzz/oracle/oracle.go):
is every run a byte-exact prefix of what was submitted, without a gap, and does it hold all that was acknowledged? Or, where durable bytes
were damaged, does an error say which file, and where, while no byte of a segment changes? Then it recovers again, appends, crashes and
is judged again. Cases that cost more than they tell are judged by a reader only, which decides by the same code as recovery; a share
of them goes the whole way. What cannot be promised is in [guarantees.md](guarantees.md#what-runlog-cannot-promise).

The cases and times are those of the long form of the rows, which takes seeds that no run before it had, as of %s, with %s on %s
(%d processors, %s); `+"`make crash-long HOURS=n`"+` does it again and writes this page anew. `+"`make crash`"+` runs the same rows at the counts
in the column "each run" before every change of main.

| fault | promise | how | each run | cases here | time | findings |
|---|---|---|---:|---:|---:|---:|
`, time.Now().UTC().Format("2006-01-02"), runtime.Version(), kernel(), runtime.NumCPU(), cpu())
	total, seconds, findings := int64(0), 0.0, 0
	for i := range matrix.Rows {
		row := &matrix.Rows[i]
		cases, took, found := "did not run", "", ""
		if r := sums[row.ID]; r != nil {
			cases, took, found = number(r.Cases), fmt.Sprintf("%.0f s", r.Seconds), strconv.Itoa(r.Findings)
			total += r.Cases
			seconds += r.Seconds
			findings += r.Findings
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s |\n", row.Fault, row.Promise, row.How, number(row.CI), cases, took, found)
	}
	fmt.Fprintf(w, "| **all** | | | | **%s** | **%s** | **%d** |\n", number(total), (time.Duration(seconds) * time.Second).String(), findings)
	fmt.Fprint(w, "\n## What else there is to know\n\n")
	for i := range matrix.Rows {
		if r := sums[matrix.Rows[i].ID]; r != nil && r.Detail != "" {
			fmt.Fprintf(w, "- %s: %s\n", matrix.Rows[i].Fault, r.Detail)
		}
	}
	fmt.Fprint(w, "\n", found)
}

// number writes 1234567 as 1,234,567.
func number(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func kernel() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return runtime.GOOS
	}
	release, _, _ := strings.Cut(strings.TrimSpace(string(b)), "-")
	return "Linux " + release
}

func cpu() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
