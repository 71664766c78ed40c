package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// workerVerb is the hidden verb that a worker is started with.
const workerVerb = "__verify"

// killGrace is how long a worker that was killed may take to end: one that hangs in the disk cannot.
const killGrace = 3 * time.Second

// progressJSON is what only a worker prints.
type progressJSON struct {
	Record string `json:"record"` // "progress"
	Done   int64  `json:"done"`
	Total  int64  `json:"total"`
}

// work is the worker's side: it checks one run and prints records.
func (a *app) work(dir string) error {
	go func() { // whoever has started this holds the other end: without it there is nobody to work for
		_, _ = io.Copy(io.Discard, a.stdin)
		os.Exit(exitFailed)
	}()
	atEnd := testHook(a, dir)
	last := time.Time{}
	r := checkRun(a.ctx, dir,
		func(f findingJSON) {
			_ = a.printJSON(f)
			_ = a.out.Flush()
		},
		func(done, total int64) {
			if now := time.Now(); now.Sub(last) > 50*time.Millisecond {
				last = now
				_ = a.printJSON(progressJSON{Record: "progress", Done: done, Total: total})
				_ = a.out.Flush()
			}
		})
	err := a.printJSON(r)
	atEnd()
	return err
}

// checkApart checks one run in a worker. However that ends, it is told apart from damage.
func (v *verification) checkApart(dir string, seen *watcher) verifiedJSON {
	r := verifiedJSON{Record: "run", Dir: dir, Outcome: outcomeUnchecked, Notes: []string{}, ByKind: map[string]uint64{}}
	exe, err := os.Executable()
	if err != nil {
		r.Error = fmt.Sprintf("start a worker: %v (--no-isolate does without)", err)
		return r
	}
	cmd := exec.Command(exe, workerVerb, "--", dir)
	var told head
	cmd.Stderr = &told // drained by os/exec
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	if err = firstOf(err1, err2); err == nil {
		err = cmd.Start()
	}
	if err != nil {
		r.Error = fmt.Sprintf("start a worker: %v (--no-isolate does without)", err)
		return r
	}
	w := &workerRun{seen: seen, clock: stopwatch{start: time.Now()}}
	ended := make(chan error, 1)
	go func() {
		w.read(stdout)
		ended <- cmd.Wait()
	}()
	defer stdin.Close()

	var waited error
	if stop := v.wait(&w.clock, ended, &waited); stop != "" {
		_ = cmd.Process.Kill()
		select {
		case <-ended:
		case <-time.After(killGrace):
			stop += "; the worker was killed and has not ended: it hangs in the system"
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		r.Findings, r.Error = seen.found, stop
		if v.a.ctx.Err() == nil {
			r.Outcome = outcomeTimeout
		}
		return r
	}
	if w.result != nil && waited == nil && w.err == nil {
		if w.result.Findings > seen.found {
			w.err = fmt.Errorf("%d findings of %d have arrived", seen.found, w.result.Findings)
		} else {
			if w.result.Findings = seen.found; seen.found > 0 {
				w.result.OK, w.result.Outcome = false, outcomeBad
			}
			return *w.result
		}
	}
	r.Outcome, r.Findings = outcomeDied, seen.found
	switch {
	case w.err != nil && waited == nil:
		r.Worker = "garbled output: " + w.err.Error()
	case waited == nil:
		r.Worker = "ended without a result"
	default:
		r.Worker = waited.Error()
	}
	if line := told.cause(); line != "" {
		r.Worker += ": " + line
	}
	r.Error = "the worker died: " + r.Worker
	return r
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// wait returns when the worker has ended, with "", or has to be stopped, with the reason.
func (v *verification) wait(c *stopwatch, ended <-chan error, waited *error) (stop string) {
	for {
		var late <-chan time.Time
		if v.o.timeout > 0 {
			left := v.o.timeout - c.elapsed()
			if left <= 0 {
				return fmt.Sprintf("not done after %v", v.o.timeout)
			}
			late = time.After(max(left, time.Millisecond))
		}
		select {
		case *waited = <-ended:
			return ""
		case <-v.a.ctx.Done():
			return "interrupted"
		case <-late:
		}
	}
}

// workerRun reads what a worker prints.
type workerRun struct {
	seen   *watcher
	clock  stopwatch
	result *verifiedJSON
	err    error // its output is not what it must be
}

// read takes records until the worker closes its output. It goes on whatever comes, so that no pipe is ever full.
func (w *workerRun) read(r io.Reader) {
	dec := json.NewDecoder(r)
	for {
		var raw json.RawMessage
		err := dec.Decode(&raw)
		if err == nil {
			err = w.take(raw)
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			w.err = err
			_, _ = io.Copy(io.Discard, r)
			return
		}
	}
}

func (w *workerRun) take(raw []byte) error {
	w.clock.pause() // whoever reads this tool's output may be slow; that is not the worker's time
	defer w.clock.resume()
	var is struct {
		Record string `json:"record"`
	}
	if err := json.Unmarshal(raw, &is); err != nil {
		return err
	}
	switch is.Record {
	case "finding":
		var f findingJSON
		if err := json.Unmarshal(raw, &f); err != nil {
			return err
		}
		w.seen.finding(f)
	case "progress":
		var p progressJSON
		if err := json.Unmarshal(raw, &p); err != nil {
			return err
		}
		w.seen.progress(p.Done, p.Total)
	case "run":
		w.result = &verifiedJSON{}
		return json.Unmarshal(raw, w.result)
	default:
		return fmt.Errorf("record %q", is.Record)
	}
	return nil
}

// stopwatch measures time but for pauses.
type stopwatch struct {
	mu     sync.Mutex
	start  time.Time
	since  time.Time // of the pause that goes on
	paused time.Duration
}

func (c *stopwatch) pause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.since = time.Now()
}

func (c *stopwatch) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused += time.Since(c.since)
	c.since = time.Time{}
}

func (c *stopwatch) elapsed() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if !c.since.IsZero() {
		now = c.since
	}
	return now.Sub(c.start) - c.paused
}

// head keeps the first bytes that are written to it.
type head struct{ buf bytes.Buffer }

func (h *head) Write(p []byte) (int, error) {
	const most = 64 << 10
	h.buf.Write(p[:min(len(p), most-min(h.buf.Len(), most))])
	return len(p), nil
}

// cause is the line that says why a process ended.
func (h *head) cause() string {
	first := ""
	for line := range strings.Lines(h.buf.String()) {
		line = strings.TrimSpace(line)
		for _, prefix := range []string{"panic: ", "fatal error: ", "SIG", "runlog: "} {
			if strings.HasPrefix(line, prefix) {
				return line
			}
		}
		if first == "" {
			first = line
		}
	}
	return first
}
