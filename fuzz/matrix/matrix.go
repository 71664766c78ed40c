// Package matrix runs the rows of the fault matrix: each as many cases as asked for, from seeds, in parallel, with
// progress, and with a record from which the table is made.
//
// A row's test calls Run. What it does is set by the environment:
//
//	RUNLOG_MATRIX=short|ci|long  how much: a taste (default), the counts that guard main, or its share of RUNLOG_MATRIX_HOURS
//	RUNLOG_MATRIX_OUT=FILE       append one line of JSON for each row
//	RUNLOG_MATRIX_PROGRESS=1     a line on standard error every few seconds
//	RUNLOG_SEED=N                only this seed, to its end
package matrix

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Cases counts the cases of one seed.
type Cases struct {
	Seed  uint64
	row   *running
	begun uint64
}

// Next reports whether another case is wanted, and counts it.
func (c *Cases) Next() bool {
	if !c.row.more() {
		return false
	}
	c.row.cases.Add(1)
	c.begun++
	return true
}

// N is the number of the current case of this seed, from 1 on.
func (c *Cases) N() uint64 { return c.begun }

// Result is what a row's run has given.
type Result struct {
	ID       string
	Module   string // where its test is
	Mode     string
	Cases    int64
	Seeds    uint64
	Seconds  float64
	Findings int
	Detail   string // what else there is to know, such as the share of each outcome
}

// running is a row at work.
type running struct {
	row      *Row
	t        testing.TB
	all      bool  // findings do not end it
	want     int64 // cases; 0: until the deadline
	deadline time.Time
	began    time.Time
	cases    atomic.Int64
	findings atomic.Int64
	seeds    atomic.Uint64 // handed out
}

func (r *running) more() bool {
	if r.findings.Load() > 0 && !r.all {
		return false
	}
	if r.want > 0 {
		return r.cases.Load() < r.want
	}
	return time.Now().Before(r.deadline)
}

// Option changes how a row runs.
type Option func(*options)

type options struct {
	workers int
	all     bool
	detail  func() string
}

// Workers sets how many seeds run at the same time; without it, one for each processor.
func Workers(n int) Option { return func(o *options) { o.workers = n } }

// KeepGoing lets the row go on after a finding.
func KeepGoing() Option { return func(o *options) { o.all = true } }

// Detail has f tell, at the end, what else there is to know.
func Detail(f func() string) Option { return func(o *options) { o.detail = f } }

// Run runs the row: it calls cases with one seed after the other, on several goroutines, until there are enough cases
// or the time is over. An error is a finding: a promise is broken. The row ends with its first one. Seeds that once
// failed come first.
func Run(t *testing.T, id string, cases func(c *Cases) error, opts ...Option) {
	t.Helper()
	row := Find(id)
	if row == nil {
		t.Fatalf("there is no row %q", id)
	}
	o := options{workers: runtime.GOMAXPROCS(0)}
	for _, opt := range opts {
		opt(&o)
	}
	r := &running{row: row, t: t, all: o.all, began: time.Now(), deadline: time.Now().Add(24 * 365 * time.Hour)}
	if env := os.Getenv("RUNLOG_SEED"); env != "" {
		seed, err := strconv.ParseUint(env, 0, 64)
		if err != nil {
			t.Fatalf("RUNLOG_SEED: %v", err)
		}
		r.one(seed, cases)
		t.Logf("seed %d: %d cases", seed, r.cases.Load())
		return
	}
	for _, seed := range onceFailed(id) {
		r.one(seed, cases)
	}
	first := uint64(1)
	switch m := mode(); {
	case m == "ci", m == "long" && row.Fixed:
		r.want = r.cases.Load() + row.CI
	case m == "long":
		first = uint64(time.Now().Unix()) << 24 // other seeds than in every other run
		r.deadline = r.began.Add(longTime(t))
	default:
		r.want = r.cases.Load() + row.taste()
	}
	stop := r.progress()
	var wg sync.WaitGroup
	for range o.workers {
		wg.Go(func() {
			for r.more() {
				r.one(first+r.seeds.Add(1)-1, cases)
			}
		})
	}
	wg.Wait()
	stop()
	res := Result{
		ID: id, Mode: mode(), Module: module(), Cases: r.cases.Load(), Seeds: r.seeds.Load(),
		Seconds: time.Since(r.began).Seconds(), Findings: int(r.findings.Load()),
	}
	if o.detail != nil {
		res.Detail = o.detail()
	}
	t.Logf("%s: %d cases of %d seeds in %.1f s, %d findings %s", id, res.Cases, res.Seeds, res.Seconds, res.Findings, res.Detail)
	record(t, &res)
}

// one runs a seed.
func (r *running) one(seed uint64, cases func(*Cases) error) {
	if err := cases(&Cases{Seed: seed, row: r}); err != nil {
		r.findings.Add(1)
		r.t.Errorf("%s: seed %d: %v\nreplay: RUNLOG_SEED=%d go test -run '^%s$' .   (in %s)", r.row.ID, seed, err, seed, r.t.Name(), module())
	}
}

// progress shows a line every few seconds.
func (r *running) progress() (stop func()) {
	if os.Getenv("RUNLOG_MATRIX_PROGRESS") == "" {
		return func() {}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(5 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			of := "until " + r.deadline.Format("15:04:05")
			if r.want > 0 {
				of = fmt.Sprintf("of %d", r.want)
			}
			fmt.Fprintf(os.Stderr, "%s: %d cases %s, %.0f s, %d findings\n", r.row.ID, r.cases.Load(), of, time.Since(r.began).Seconds(), r.findings.Load())
		}
	})
	return func() { close(done); wg.Wait() }
}

func mode() string {
	switch m := os.Getenv("RUNLOG_MATRIX"); m {
	case "ci", "long":
		return m
	}
	return "short"
}

// longTime is how long a row runs in the long form: all rows together take RUNLOG_MATRIX_HOURS.
func longTime(t *testing.T) time.Duration {
	hours, err := strconv.ParseFloat(os.Getenv("RUNLOG_MATRIX_HOURS"), 64)
	if err != nil || hours <= 0 {
		t.Fatalf("RUNLOG_MATRIX=long needs RUNLOG_MATRIX_HOURS: %v", err)
	}
	n := 0
	for i := range Rows {
		if !Rows[i].Fixed {
			n++
		}
	}
	return time.Duration(hours * float64(time.Hour) / float64(n))
}

// record appends a result to the file that the table is made from.
func record(t *testing.T, res *Result) {
	name := os.Getenv("RUNLOG_MATRIX_OUT")
	if name == "" {
		return
	}
	line, err := json.Marshal(res)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = f.Write(append(line, '\n'))
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// module names the folder that the test runs in.
func module() string {
	dir, err := os.Getwd()
	if err != nil {
		return "?"
	}
	if i := strings.LastIndex(dir, "/fuzz"); i >= 0 {
		return dir[i+1:]
	}
	return dir[strings.LastIndex(dir, "/")+1:]
}

//go:embed seeds.txt
var seeds []byte

// onceFailed returns the seeds of a row that have found a bug.
func onceFailed(id string) (list []uint64) {
	in := bufio.NewScanner(bytes.NewReader(seeds))
	for in.Scan() {
		f := strings.Fields(in.Text())
		if len(f) < 2 || f[0] != id {
			continue
		}
		if n, err := strconv.ParseUint(f[1], 0, 64); err == nil {
			list = append(list, n)
		}
	}
	return list
}
