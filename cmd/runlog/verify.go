package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/segment/compressed"
	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
)

// findingJSON is a finding in verify --json.
type findingJSON struct {
	Record   string      `json:"record"` // "finding"
	Dir      string      `json:"dir"`
	Kind     verify.Kind `json:"kind"`
	Path     string      `json:"path"`
	Offset   *int64      `json:"offset,omitempty"`
	FirstSeq uint64      `json:"first_seq,omitempty"`
	LastSeq  uint64      `json:"last_seq,omitempty"`
	Detail   string      `json:"detail"`
}

func newFindingJSON(dir string, f *verify.Finding) findingJSON {
	j := findingJSON{Record: "finding", Dir: dir, Kind: f.Kind, Path: f.Path, FirstSeq: f.FirstSeq, LastSeq: f.LastSeq, Detail: f.Detail}
	if f.Offset >= 0 {
		j.Offset = &f.Offset
	}
	return j
}

func (j *findingJSON) finding() verify.Finding {
	f := verify.Finding{Kind: j.Kind, Path: j.Path, Offset: -1, FirstSeq: j.FirstSeq, LastSeq: j.LastSeq, Detail: j.Detail}
	if j.Offset != nil {
		f.Offset = *j.Offset
	}
	return f
}

// outcome is how the check of a run ended.
type outcome string

const (
	outcomeOK        outcome = "ok"        // nothing found
	outcomeBad       outcome = "bad"       // findings
	outcomeUnchecked outcome = "unchecked" // something could not be checked
	outcomeTimeout   outcome = "timeout"   // it took longer than --timeout
	outcomeDied      outcome = "died"      // the worker ended before it was done
)

// verifiedJSON ends each run in verify --json.
type verifiedJSON struct {
	Record   string            `json:"record"` // "run"
	Dir      string            `json:"dir"`
	Run      string            `json:"run"`
	Status   runlog.Status     `json:"status"`
	OK       bool              `json:"ok"`
	Outcome  outcome           `json:"outcome"`
	Findings int               `json:"findings"`
	Entries  uint64            `json:"entries"`
	LastSeq  uint64            `json:"last_seq"`
	Segments int               `json:"segments"`
	Bytes    int64             `json:"bytes"`
	Digest   string            `json:"digest,omitempty"`
	Notes    []string          `json:"notes"`
	ByKind   map[string]uint64 `json:"note_counts"` // notes of the log, by kind
	Worker   string            `json:"worker_status,omitempty"`
	Error    string            `json:"error,omitempty"`
}

// verifiedTotalJSON is the last line of verify --json.
type verifiedTotalJSON struct {
	Record    string  `json:"record"` // "total"
	Runs      int     `json:"runs"`
	OK        int     `json:"ok"`
	Bad       int     `json:"bad"`
	Unchecked int     `json:"unchecked"`
	Timeout   int     `json:"timeout"`
	Died      int     `json:"died"`
	Findings  int     `json:"findings"`
	Entries   uint64  `json:"entries"`
	Bytes     int64   `json:"bytes"`
	Seconds   float64 `json:"seconds"`
}

// verifyFlags are verify's flags.
type verifyFlags struct {
	jobs      int
	timeout   time.Duration
	noIsolate bool
	quiet     bool
}

func (a *app) verifyCmd() *cobra.Command {
	var o verifyFlags
	cmd := &cobra.Command{
		Use: "verify PATH...", Short: "Check every byte of runs: a run's directory, an instance's, or a base folder",
		Long: `verify reads everything and recomputes every checksum and digest: frames, commits and their chain, footers, the chained
SHA-256, the manifest against the segments, and index and filter files against the entries. It never writes, takes no lock, and works beside
the engine. A PATH is a run's directory, or an instance's or the base folder, for all runs in it. Each finding is one line on stdout, as soon
as it is known; one bad place never hides the next. A torn tail of a run that is not sealed is a note on stderr, not a finding: nothing
proves that it was acknowledged.

Each run is checked by a worker, a process of its own, so that a hanging disk or a crash costs one run and is never taken for damage.

Exit codes, the first that applies: 1 there are findings; 4 a worker died; 3 a run took longer than --timeout; 2 usage, or something could not
be checked; 0 nothing found.`,
		Example: `  runlog verify runs
  runlog verify runs/demo runs/backtest/2026* --jobs 2 --timeout 10m
  runlog verify runs/demo/2026* --json | jq -r 'select(.record == "finding") | .detail'
  runlog verify --quiet runs || mail -s "the log is damaged" ops`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("verify: want PATH..., got no arguments; see runlog verify --help")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case o.jobs < 1:
				return fmt.Errorf("--jobs %d: want at least 1", o.jobs)
			case o.timeout < 0:
				return fmt.Errorf("--timeout %v: want 0 (none) or more", o.timeout)
			case o.timeout > 0 && o.noIsolate:
				return fmt.Errorf("--timeout needs a worker, which --no-isolate does without")
			}
			return a.verifyAll(o, args)
		},
	}
	f := cmd.Flags()
	f.IntVarP(&o.jobs, "jobs", "j", runtime.NumCPU(), "runs that are checked at the same time")
	f.DurationVar(&o.timeout, "timeout", 0, "longest time that the check of one run may take, such as 90s or 2h; 0: none")
	f.BoolVar(&o.noIsolate, "no-isolate", false, "check in this process, without workers")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print nothing but findings and runs that are not ok")
	return cmd
}

// workerCmd is what verify starts for each run. It prints the records of verify --json, and progress.
func (a *app) workerCmd() *cobra.Command {
	return &cobra.Command{
		Use: workerVerb + " RUN", Hidden: true, Args: exactly("RUN"),
		RunE: func(_ *cobra.Command, args []string) error { return a.work(args[0]) },
	}
}

// target is a run to be checked.
type target struct {
	dir   string
	bytes int64 // of segments, when it was listed
}

// targets lists the runs that the paths name, each once. The error says what is wrong with the other paths.
func (a *app) targets(paths []string) (list []target, failed error) {
	seen := map[string]bool{}
	add := func(dir string) {
		abs, err := filepath.Abs(dir)
		if err != nil {
			abs = dir
		}
		if !seen[abs] {
			seen[abs] = true
			list = append(list, target{dir: dir, bytes: segmentBytes(dir)})
		}
	}
	for _, path := range paths {
		kind, err := classify(path)
		switch {
		case err != nil:
			failed = errors.Join(failed, err)
			continue
		case kind == isRun:
			add(path)
			continue
		case kind != isInst && kind != isBase:
			failed = errors.Join(failed, notRun(path, kind))
			continue
		}
		dirs, err := runsBelow(path, kind)
		failed = errors.Join(failed, err)
		for _, dir := range dirs {
			if k, err := classify(dir); err == nil && k != isRun {
				a.note("%s: no files of a run: it died before it began", dir)
				continue
			}
			add(dir)
		}
	}
	return list, failed
}

// runsBelow lists the directories of the runs in an instance's or base folder, by instance and start time: everything
// that has a run's name, so that a link that leads nowhere is not passed over.
func runsBelow(path string, kind folder) (dirs []string, failed error) {
	names, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	for _, e := range names {
		dir := filepath.Join(path, e.Name())
		switch {
		case kind == isInst && manifest.ValidRunID(e.Name()):
			dirs = append(dirs, dir)
		case kind == isBase && manifest.ValidInstance(e.Name()) && (isFolder(path, e) || e.Type()&fs.ModeSymlink != 0):
			below, err := runsBelow(dir, isInst)
			dirs, failed = append(dirs, below...), errors.Join(failed, err)
		}
	}
	return dirs, failed
}

func segmentBytes(dir string) (n int64) {
	names, _ := os.ReadDir(dir)
	for _, e := range names {
		_, plain := segment.ParseFileName(e.Name())
		_, packed := compressed.ParseFileName(e.Name())
		if plain || packed {
			if info, err := e.Info(); err == nil {
				n += info.Size()
			}
		}
	}
	return n
}

// verification is one verify command. Its workers share it.
type verification struct {
	a     *app
	o     verifyFlags
	runs  int
	mu    sync.Mutex // everything below, and a's output
	bar   *progress
	start time.Time
	done  int64
	bytes int64 // of all runs
	total verifiedTotalJSON
	err   error
}

func (a *app) verifyAll(o verifyFlags, paths []string) error {
	list, failed := a.targets(paths)
	v := &verification{a: a, o: o, runs: len(list), bar: a.newProgress(), start: time.Now(), err: failed}
	if o.quiet {
		v.bar = &progress{}
	}
	for _, t := range list {
		v.bytes += t.bytes
	}
	todo := make(chan target)
	var workers sync.WaitGroup
	for range min(o.jobs, len(list)) {
		workers.Go(func() {
			for t := range todo {
				v.run(t)
			}
		})
	}
	for _, t := range list {
		if a.ctx.Err() != nil || v.pointless() {
			break
		}
		todo <- t
	}
	close(todo)
	workers.Wait()
	v.bar.end()
	if a.ctx.Err() != nil {
		v.err = errors.Join(v.err, fmt.Errorf("interrupted: %w", a.ctx.Err()))
	}
	v.printTotal()
	return v.err
}

// pointless reports whether nobody reads the output any more.
func (v *verification) pointless() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.a.out.failed()
}

// run checks one run and prints how that ended.
func (v *verification) run(t target) {
	seen := watcher{v: v, t: t}
	var r verifiedJSON
	if v.o.noIsolate {
		r = checkRun(v.a.ctx, t.dir, seen.finding, seen.progress)
	} else {
		r = v.checkApart(t.dir, &seen)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	seen.closed = true
	v.done += seen.t.bytes - seen.done // whatever was not read
	v.bar.end()
	v.print(&r)
	v.show()
}

// watcher takes what the check of one run tells.
type watcher struct {
	v      *verification
	t      target
	done   int64
	found  int
	closed bool // nothing counts any more
}

func (w *watcher) finding(f findingJSON) {
	v := w.v
	v.mu.Lock()
	defer v.mu.Unlock()
	if w.closed {
		return
	}
	w.found++
	v.bar.end()
	v.a.found = true
	if v.a.json {
		_ = v.a.printJSON(f)
	} else {
		found := f.finding()
		v.a.out.line("%s", printable(found.String(), -1))
	}
	_ = v.a.out.Flush() // findings are shown as they come
}

func (w *watcher) progress(done, total int64) {
	v := w.v
	v.mu.Lock()
	defer v.mu.Unlock()
	if w.closed {
		return
	}
	v.done += done - w.done
	v.bytes += total - w.t.bytes // a live run grows
	w.done, w.t.bytes = done, total
	v.show()
}

// show draws the progress of the whole command.
func (v *verification) show() {
	v.bar.show(func() string {
		passed := time.Since(v.start).Seconds()
		rate := float64(v.done) / passed
		s := fmt.Sprintf("%d of %s, %s of %s", v.total.Runs, number(v.runs, "run", "runs"), size(v.done), size(v.bytes))
		if v.done > 0 {
			s += fmt.Sprintf(", %s/s, %v left", size(int64(rate)),
				time.Duration(float64(v.bytes-v.done)/rate*float64(time.Second)).Round(time.Second))
		}
		return s + ", " + number(v.total.Findings, "finding", "findings")
	})
}

// print prints how the check of one run ended, and counts it.
func (v *verification) print(r *verifiedJSON) {
	a, n := v.a, &v.total
	n.Runs, n.Findings, n.Entries, n.Bytes = n.Runs+1, n.Findings+r.Findings, n.Entries+r.Entries, n.Bytes+r.Bytes
	if !v.o.quiet {
		for _, note := range r.Notes {
			a.note("%s: %s", r.Dir, note)
		}
	}
	verdict, so := "ok", ""
	if r.Findings > 0 {
		so = "; " + number(r.Findings, "finding", "findings") + " so far"
	}
	switch r.Outcome {
	case outcomeOK:
		n.OK++
	case outcomeBad:
		n.Bad++
		verdict = "BAD, " + number(r.Findings, "finding", "findings")
	case outcomeUnchecked:
		n.Unchecked++
		verdict = "NOT CHECKED"
	case outcomeTimeout:
		n.Timeout++
		a.timedOut = true
		verdict = "TIMEOUT, " + r.Error + so
	case outcomeDied:
		n.Died++
		a.died = true
		verdict = "WORKER DIED: " + r.Worker + so
	}
	if r.Error != "" {
		v.err = errors.Join(v.err, fmt.Errorf("%s: %s", r.Dir, r.Error))
	}
	switch {
	case a.json:
		_ = a.printJSON(r)
	case r.Outcome == outcomeTimeout || r.Outcome == outcomeDied:
		a.out.line("%s: %s", r.Dir, printable(verdict, -1))
	case r.Outcome == outcomeOK && v.o.quiet:
	default:
		a.out.line("%s: %s: %s, %s in %s, %s", r.Dir, verdict, state(r.Status, live(r.Dir, runlog.Manifest{Status: r.Status})),
			number(r.Entries, "entry", "entries")+andNotes(r.notes()), number(r.Segments, "segment", "segments"), size(r.Bytes))
	}
	_ = a.out.Flush()
}

func (v *verification) printTotal() {
	n := &v.total
	n.Record, n.Seconds = "total", time.Since(v.start).Seconds()
	switch {
	case v.a.json:
		_ = v.a.printJSON(n)
	case v.runs > 1 && !v.o.quiet:
		s := fmt.Sprintf("%s: %s ok", number(n.Runs, "run", "runs"), count(n.OK))
		for _, c := range []struct {
			n    int
			what string
		}{{n.Bad, "bad"}, {n.Unchecked, "not checked"}, {n.Timeout, "timeout"}, {n.Died, "worker died"}} {
			if c.n > 0 {
				s += ", " + count(c.n) + " " + c.what
			}
		}
		v.a.out.line("%s; %s; %s, %s in %.1f s, %s/s", s, number(n.Findings, "finding", "findings"), number(n.Entries, "entry", "entries"),
			size(n.Bytes), n.Seconds, size(int64(float64(n.Bytes)/max(n.Seconds, 1e-3))))
	}
}

// notes is the number of notes of all kinds.
func (r *verifiedJSON) notes() (n uint64) {
	for _, k := range r.ByKind {
		n += k
	}
	return n
}

// checkRun checks one run in this process.
func checkRun(ctx context.Context, dir string, finding func(findingJSON), progress func(done, total int64)) verifiedJSON {
	said := newBodies(dir)
	rep, err := verify.Run(ctx, vfs.OS, dir, verify.Options{
		OnFinding:  func(f verify.Finding) { finding(newFindingJSON(dir, &f)) },
		OnProgress: progress,
		OnNote:     said.note,
	})
	if err == nil {
		for _, detail := range said.end(&rep) {
			rep.Count++
			finding(newFindingJSON(dir, &verify.Finding{Kind: verify.KindNote, Path: dir, Offset: -1, Detail: detail}))
		}
	}
	r := verifiedJSON{
		Record: "run", Dir: dir, Run: rep.Run, Status: rep.Status, OK: rep.Clean() && err == nil, Outcome: outcomeOK, Findings: rep.Count,
		Entries: rep.Entries, LastSeq: rep.LastSeq, Segments: rep.Segments, Bytes: rep.Bytes, Digest: rep.Digest, Notes: append([]string{}, rep.Notes...),
		ByKind: map[string]uint64{},
	}
	for kind, n := range rep.ByKind {
		r.ByKind[noteName(kind)] = n
	}
	switch {
	case rep.Count > 0:
		r.Outcome = outcomeBad
	case err != nil:
		r.Outcome = outcomeUnchecked
	}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}
