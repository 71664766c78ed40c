package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/runlog-io/runlog"
)

// submitBlock entries are submitted before the writer is given, off the clock, the time to commit them: less than its queue holds.
const submitBlock = 4096

// submitWork measures a submit alone, while the writer keeps up. The floor appends to a buffer under a lock and reads the clock.
// Every row shows what reading the clock around each call costs by itself.
func submitWork(c *cell, s store) (metrics, error) {
	m := metrics{}
	var err error
	if _, ours := s.(runlogStore); ours {
		err = submitRunlog(c, m)
	} else {
		submitFloor(c, m)
	}
	lat := make(latencies, 0, 1<<20)
	for range cap(lat) {
		before := clock()
		lat = append(lat, clock()-before)
	}
	lat.into(m, "clock.")
	return m, err
}

func submitFloor(c *cell, m metrics) {
	src := newSource(c.Size, 1)
	var mu sync.Mutex
	buf, at, seq := make([]byte, 0, 4<<20), int64(0), uint64(0)
	_ = blocks(c, m, func() error {
		seq++
		p := src.payload(seq)
		mu.Lock()
		at = max(clock(), at+1)
		if len(buf)+len(p) > cap(buf) {
			buf = buf[:0]
		}
		buf = append(buf, p...)
		mu.Unlock()
		return nil
	}, func() error { return nil })
}

func submitRunlog(c *cell, m metrics) error {
	l, err := runlogStore{}.open(c.Dir, options{})
	if err != nil {
		return err
	}
	run, src := l.(*runlogLog).run, newSource(c.Size, 1)
	seq := uint64(0)
	err = blocks(c, m, func() error {
		seq++
		_, err := run.Submit(runlog.Draft{Topic: runlogTopic, Type: "OrderFilled", Payload: src.payload(seq)})
		return err
	}, func() error { return run.WaitDurable(context.Background(), run.Accepted()) })
	if err != nil {
		return err
	}
	return finish(c, runlogStore{}, l, src, seq)
}

// blocks calls op in blocks with a pause after each: first without, then with a reading of the clock around each call.
func blocks(c *cell, m metrics, op, pause func() error) error {
	run := func(each func() error) (err error) {
		for range submitBlock {
			err = errors.Join(err, each())
		}
		return errors.Join(err, pause())
	}
	for range 8 { // buffers grow
		if err := run(op); err != nil {
			return err
		}
	}
	var mem0, mem1 runtime.MemStats
	var total, n int64
	runtime.ReadMemStats(&mem0)
	for until := clock() + int64(c.time(0.5)); clock() < until; n += submitBlock {
		before := clock()
		for range submitBlock {
			if err := op(); err != nil {
				return err
			}
		}
		total += clock() - before
		if err := pause(); err != nil {
			return err
		}
	}
	runtime.ReadMemStats(&mem1)
	if n == 0 {
		return fmt.Errorf("no block in %v", c.time(0.5))
	}
	m["ns"] = float64(total) / float64(n)
	m["allocs"] = float64((mem1.Mallocs - mem0.Mallocs) / uint64(n)) // whole ones, as benchmarks count
	lat := make(latencies, 0, 1<<21)
	for until := clock() + int64(c.time(0.5)); clock() < until && len(lat)+submitBlock <= cap(lat); {
		err := run(func() error {
			before := clock()
			err := op()
			lat = append(lat, clock()-before)
			return err
		})
		if err != nil {
			return err
		}
	}
	lat.into(m, "")
	return nil
}
