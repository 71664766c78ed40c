package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// plan says what is measured, and how long.
type plan struct {
	dir     string
	commit  string // of what is measured; "" where git does not know
	rounds  int
	growth  int     // rounds of what only the plots show
	seconds float64 // that a cell measures; a growth cell half of that
	size    int     // bytes of a payload
	entries int     // in the stores that are read
	lengths []int   // other numbers of entries, for growth
	runlog  []int   // more of them, for runlog and the floor of an open alone
	jobs    []string
	stores  []store
}

// experiment is a cell that every store runs once in each round.
type experiment struct {
	job    string
	task   task
	x      int
	rounds int
	cell   cell
}

var (
	sizes    = []int{16, 64, 1024, 4096, 16384, 65536} // 256 is everywhere else
	batches  = []int{10, 10_000}                       // 1, 100 and 1000 have tables
	crowds   = []int{1, 4, 64}                         // 16 and 128 have tables
	segments = []int{1, 10, 100, 1000}
)

const (
	mainBatch    = 1000
	mostInFlight = 4 << 20 // bytes of a batch
)

func (p *plan) wants(job string) bool { return len(p.jobs) == 0 || slices.Contains(p.jobs, job) }

// writing lists the experiments that begin with an empty folder.
func (p *plan) writing() (list []experiment) {
	add := func(job string, t task, x int, growth bool, c cell) {
		if !p.wants(job) || growth && p.growth == 0 {
			return
		}
		e := experiment{job, t, x, p.rounds, c}
		e.cell.Seconds = p.seconds
		if growth {
			e.rounds, e.cell.Seconds = p.growth, p.seconds/2
		}
		list = append(list, e)
	}
	add(jobSubmit, alone, 0, false, cell{Work: "submit", Size: p.size, Batch: 1})
	add(jobAlone, alone, 1, false, cell{Work: "append", Size: p.size, Batch: 1})
	crowd := func(callers int, growth bool) {
		add(jobGroup, group, callers, growth, cell{Work: "group", Size: p.size, Batch: 1, Callers: callers})
	}
	batch := func(n int, growth bool) {
		add(jobStream, stream, n, growth, cell{Work: "append", Size: p.size, Batch: n})
	}
	crowd(16, false)
	crowd(128, false)
	batch(100, false)
	batch(mainBatch, false)
	add(jobKeyed, keyed, mainBatch, false, cell{Work: "append", Size: p.size, Batch: mainBatch, Keyed: true})
	for _, n := range crowds {
		crowd(n, true)
	}
	for _, n := range batches {
		batch(n, true)
	}
	for _, n := range sizes {
		add(jobSize, stream, n, true, cell{Work: "append", Size: n, Batch: min(mainBatch, mostInFlight/n)})
	}
	return list
}

// reads says whether stores have to be filled.
func (p *plan) reads() bool {
	return p.wants(jobOpen) || p.wants(jobRead) || p.wants(jobDisk)
}

// choose keeps the named stores, or all; the floor and runlog, which all others are compared with, always stay.
func choose(names string) ([]store, error) {
	all := stores()
	if names == "" {
		return all, nil
	}
	var list []store
	want := strings.Split(names, ",")
	for _, name := range want {
		if _, err := storeNamed(name); err != nil {
			return nil, err
		}
	}
	for _, s := range all {
		if !isPeer(s) || slices.Contains(want, s.name()) {
			list = append(list, s)
		}
	}
	return list, nil
}

func chooseJobs(names string) ([]string, error) {
	if names == "" {
		return nil, nil
	}
	all := []string{jobSubmit, jobAlone, jobGroup, jobStream, jobKeyed, jobSize, jobOpen, jobRead, jobFind, jobDisk, jobSegments}
	list := strings.Split(names, ",")
	for _, name := range list {
		if !slices.Contains(all, name) {
			return nil, fmt.Errorf("no job %q; there are %s", name, strings.Join(all, ", "))
		}
	}
	return list, nil
}

func counts(list string) (ns []int, err error) {
	for _, s := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' }) {
		n, err := strconv.Atoi(s)
		if err != nil || n < 3 {
			return nil, fmt.Errorf("%q is no number of entries", s)
		}
		ns = append(ns, n)
	}
	return ns, nil
}
