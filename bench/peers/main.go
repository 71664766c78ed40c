// Command peers measures runlog, other stores and a bare loop at the same work, side by side in one run, and writes docs/benchmarks.md with its plots.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

//go:embed page.md
var page string

func main() {
	asCell()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run() error {
	p := plan{size: 256, entries: 1_000_000}
	out := flag.String("out", "", "file for the page, plots go into a folder of that name without .md; empty: the page goes to standard output")
	flag.StringVar(&p.dir, "dir", os.Getenv("BENCH_DIR"), "folder on the disk to measure; empty: BENCH_DIR, or the system's temporary folder")
	flag.IntVar(&p.rounds, "rounds", 5, "how often each store does each job")
	flag.IntVar(&p.growth, "growth", 2, "the same for what only the plots show; 0: no plots")
	flag.Float64Var(&p.seconds, "seconds", 0.5, "how long a store does a job in one round")
	jobs := flag.String("jobs", "", "only these, with commas between: submit, alone, group, stream, keyed, size, open, read, find, disk, segments")
	names := flag.String("stores", "", "only these peers, with commas between; the floor and runlog are always there")
	large := flag.Bool("large", false, "4 M entries in the stores that are read, and 40 M in runlog: needs 30 GB")
	more := flag.String("runlog", "", "further numbers of entries for runlog alone, with commas between")
	short := flag.Bool("short", false, "a smoke run: tiny counts, one round; its figures say nothing")
	flag.Parse()
	var err error
	if p.jobs, err = chooseJobs(*jobs); err != nil {
		return err
	}
	if p.stores, err = choose(*names); err != nil {
		return err
	}
	p.lengths = []int{10_000, 100_000}
	if *large {
		p.entries, p.lengths, p.runlog = 4_000_000, append(p.lengths, 1_000_000), []int{40_000_000}
	}
	further, err := counts(*more)
	if err != nil {
		return err
	}
	p.runlog = append(p.runlog, further...)
	if *short {
		p.rounds, p.growth, p.seconds, p.entries, p.lengths = 1, 1, 0.02, 3000, []int{300}
	}
	if p.dir == "" {
		p.dir = os.TempDir()
	}
	if flag.NArg() > 0 || p.rounds < 1 || p.growth < 0 || p.seconds <= 0 {
		return errors.New("no arguments, at least one round, and more than no seconds; see -help")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	say, done := progress(os.Stderr)
	defer done()
	return publish(ctx, p, *out, say)
}

// publish carries out the plan and writes the page.
func publish(ctx context.Context, p plan, out string, say func(string, ...any)) error {
	start := time.Now()
	p.commit = commit() // before plots change the tree
	b, err := carryOut(ctx, p, say)
	if err != nil {
		return err
	}
	charts, plots := p.charts(b), ""
	if out != "" {
		dir := strings.TrimSuffix(out, ".md")
		if err := writeCharts(dir, charts); err != nil {
			return err
		}
		plots = links(filepath.Base(dir), charts)
	}
	text := p.text(b, plots, time.Since(start))
	if out == "" {
		_, err = os.Stdout.WriteString(text)
	} else {
		err = os.WriteFile(out, []byte(text), 0o644)
	}
	return errors.Join(err, failures(b))
}

func carryOut(ctx context.Context, p plan, say func(string, ...any)) (*book, error) {
	tmp, err := os.MkdirTemp(p.dir, "runlog-peers")
	if err != nil {
		return nil, err
	}
	r := runner{plan: p, ctx: ctx, tmp: tmp, book: newBook(), say: say}
	err = r.all()
	return r.book, errors.Join(err, os.RemoveAll(tmp))
}

func (p *plan) text(b *book, plots string, took time.Duration) string {
	var tables strings.Builder
	for _, t := range p.tables(b) {
		t.write(&tables, b, p.stores)
	}
	command := strings.Join(append([]string{"cd bench/peers && go run ."}, os.Args[1:]...), " ")
	if p.commit != "" {
		command += "`, at commit `" + p.commit
	}
	text := strings.NewReplacer(
		"{{environment}}", environment(p, command, took), "{{rounds}}", fmt.Sprint(p.rounds),
		"{{goals}}", p.goalTable(b), "{{gaps}}", p.gapList(b), "{{plots}}", plots, "{{tables}}", tables.String(),
	).Replace(page)
	return strings.TrimRight(text, "\n") + "\n"
}

func links(dir string, charts []chart) string {
	var w strings.Builder
	for _, c := range charts {
		fmt.Fprintf(&w, "![%s: %s by %s](%s/%s.svg)\n\n", c.title, c.y, c.x, dir, c.file)
	}
	return strings.TrimRight(w.String(), "\n") + "\n"
}

// failures makes what peers could not do the command's result: the page is written, but nobody shall overlook it.
func failures(b *book) error {
	var errs []error
	for p, err := range b.failed {
		errs = append(errs, fmt.Errorf("%s %d: %w", p.job, p.x, err))
	}
	return errors.Join(errs...)
}
