package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// cell is one measurement: one store, one task, in a process of its own, so that no store runs among what another has left behind in
// memory, goroutines and garbage.
type cell struct {
	Work  string
	Store string
	Dir   string // empty, or the folder of the store that is there

	Seconds float64
	Entries int // that are loaded, or there
	Size    int // bytes of a payload
	Batch   int
	Callers int
	Keyed   bool
	Whole   bool   // check every entry afterwards, not only some
	Seed    uint64 // of what is read

	SegmentBytes int64 // runlog's; 0: the default
}

func (c *cell) time(share float64) time.Duration {
	return time.Duration(c.Seconds * share * float64(time.Second))
}

// metrics are what a cell has measured. Times are in ns, rates per second.
type metrics map[string]float64

var works = map[string]func(c *cell, s store) (metrics, error){
	"append": appendWork, "group": groupWork, "load": loadWork, "open": openWork, "settle": settleWork, "read": readWork, "find": findWork,
	"submit": submitWork,
}

// cellEnv holds a cell: the process that finds it is to measure that, and nothing else.
const cellEnv = "RUNLOG_PEERS_CELL"

// patience is how long a cell may take; a store that hangs must not keep the run from ending.
const patience = 20 * time.Minute

// measure runs a cell in a process of its own and returns what it has measured.
func measure(ctx context.Context, c cell) (metrics, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	spec, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), cellEnv+"="+string(spec))
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		why := said.String()
		if len(why) > 2000 {
			why = why[:2000] + " ..."
		}
		return nil, fmt.Errorf("%s, %s: %w\n%s", c.Store, c.Work, err, why)
	}
	m := metrics{}
	if err := json.Unmarshal(out, &m); err != nil {
		return nil, fmt.Errorf("%s, %s: %w", c.Store, c.Work, err)
	}
	return m, nil
}

// asCell does the cell's work if this process was started for one, and does not return then. The process ends without closing
// what is open: so the stores that it leaves are those of a process that died.
func asCell() {
	spec, ok := os.LookupEnv(cellEnv)
	if !ok {
		return
	}
	if err := work(spec, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func work(spec string, out io.Writer) error {
	var c cell
	if err := json.Unmarshal([]byte(spec), &c); err != nil {
		return err
	}
	f := works[c.Work]
	if f == nil {
		return fmt.Errorf("no work %q", c.Work)
	}
	s, err := storeNamed(c.Store)
	if err != nil {
		return err
	}
	if r, ok := s.(runlogStore); ok {
		r.segmentBytes = c.SegmentBytes
		s = r
	}
	m, err := f(&c, s)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(m)
}

// latencies are of single calls, in ns.
type latencies []int64

func (l latencies) into(m metrics, prefix string) {
	if len(l) == 0 {
		return
	}
	slices.Sort(l)
	for name, q := range map[string]float64{"p50": 0.5, "p99": 0.99, "p999": 0.999} {
		m[prefix+name] = float64(l[min(int(q*float64(len(l))), len(l)-1)])
	}
	m[prefix+"max"] = float64(l[len(l)-1])
}

var began = time.Now()

// clock is the time since the process began, in ns: one reading of the monotonic clock.
func clock() int64 { return int64(time.Since(began)) }

// reopened opens the store again after it was closed, and calls f.
func reopened(c *cell, s store, f func(l log) error) error {
	l, err := s.open(c.Dir, options{keyed: c.Keyed, loose: true})
	if err != nil {
		return err
	}
	return errors.Join(f(l), l.close())
}
