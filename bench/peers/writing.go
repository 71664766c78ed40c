package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// ownBatches tells the stores that make the batches of a stream themselves: how long one of ours took says nothing then.
func ownBatches(s store) bool {
	switch s := s.(type) {
	case floorStore:
		return s.atOnce
	case runlogStore:
		return !s.waits
	}
	return false
}

// writeOptions sizes the floor's file: it is zero-filled before the clock starts. What is more than it holds goes to its start again.
func writeOptions(c *cell) options {
	size := int64(c.Seconds * (64 << 20)) // single entries
	if c.Batch > 1 {
		size = int64(c.Seconds * (2 << 30))
	}
	return options{keyed: c.Keyed, wraps: true, writes: max(size, floorMiB+2*mostInFlight)}
}

// warmUp is how much of a cell's time passes before it counts.
const warmUp = 0.1

// appendWork appends batches, each durable before the next.
func appendWork(c *cell, s store) (metrics, error) {
	l, err := s.open(c.Dir, writeOptions(c))
	if err != nil {
		return nil, err
	}
	src, seq := newSource(c.Size, c.Batch), uint64(1)
	var lat latencies
	appendFor := func(ns int64, count bool) error {
		for until := clock() + ns; ; {
			items := src.batch(seq, c.Batch, c.Keyed)
			before := clock()
			if err := l.append(items); err != nil {
				return err
			}
			now := clock()
			seq += uint64(c.Batch)
			if count {
				lat = append(lat, now-before)
			}
			if now >= until {
				return l.flush()
			}
		}
	}
	if err := appendFor(int64(c.time(warmUp)), false); err != nil {
		return nil, err
	}
	lat = make(latencies, 0, 1<<20)
	m, counted := metrics{}, seq
	err = consumed(m, func() (int, error) {
		err := appendFor(int64(c.time(1)), true)
		return int(seq - counted), err
	})
	if err != nil {
		return nil, err
	}
	if !ownBatches(s) || c.Batch == 1 {
		lat.into(m, "")
	}
	return m, finish(c, s, l, src, seq-1)
}

// consumed measures f, which returns how many entries it has appended: the rate, and what an entry has cost.
func consumed(m metrics, f func() (entries int, err error)) error {
	var mem0, mem1 runtime.MemStats
	runtime.ReadMemStats(&mem0)
	cpu0, t0 := cpu(), clock()
	n, err := f()
	t1, cpu1 := clock(), cpu()
	runtime.ReadMemStats(&mem1)
	m["rate"] = float64(n) / float64(t1-t0) * 1e9
	m["allocs"] = float64(mem1.Mallocs-mem0.Mallocs) / float64(n)
	m["cpu"] = float64(cpu1-cpu0) / float64(n)
	return err
}

// cpu is what this process has used, in ns.
func cpu() int64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// finish closes the log and checks what is in it: no figure comes from a store that has lost something, or skipped it.
func finish(c *cell, s store, l log, src *source, want uint64) error {
	if err := l.close(); err != nil {
		return err
	}
	return reopened(c, s, func(l log) error {
		if err := checkCount(l, want); err != nil {
			return err
		}
		if c.Whole {
			if err := checkAll(l, src, want); err != nil {
				return err
			}
		}
		return checkSome(l, src, want, c)
	})
}

func checkCount(l log, want uint64) error {
	got, err := l.last()
	if err == nil && got != want {
		err = fmt.Errorf("the store has %d entries, %d were appended", got, want)
	}
	return err
}

// oldest is the first entry that is still there: a floor writes over its file again.
func oldest(l log) uint64 {
	if f, ok := l.(*floorLog); ok {
		return f.first
	}
	return 1
}

func checkAll(l log, src *source, want uint64) error {
	sc, ok := l.(scanner)
	if !ok {
		return errors.New("the store cannot be scanned")
	}
	next := oldest(l)
	err := sc.scan(func(p []byte) error {
		next++
		return src.check(next-1, p)
	})
	if err == nil && next != want+1 {
		err = fmt.Errorf("a scan ends at entry %d of %d", next-1, want)
	}
	return err
}

// checkSome reads the last entries and some others, and looks up some of the ids.
func checkSome(l log, src *source, want uint64, c *cell) error {
	const some = 16
	first := oldest(l)
	rng := rand.New(rand.NewPCG(c.Seed, want))
	if g, ok := l.(getter); ok && want >= first {
		for i := range uint64(some) {
			seq := max(first, want-min(i, want-1))
			if i%2 == 1 {
				seq = first + rng.Uint64N(want+1-first)
			}
			p, err := g.get(seq, nil)
			if err == nil {
				err = src.check(seq, p)
			}
			if err != nil {
				return err
			}
		}
	}
	f, ok := l.(finder)
	if !ok || !c.Keyed || want < 3 {
		return nil
	}
	var buf [idBytes]byte
	for range some {
		order := rng.Uint64N(want / 3)
		if firstSeq(order) < first {
			continue
		}
		if seq, ok, err := f.find(clientID(buf[:], order)); err != nil || !ok || seq != firstSeq(order) {
			return fmt.Errorf("the id of entry %d leads to %d (%v): %w", firstSeq(order), seq, ok, errors.Join(err, errOrder))
		}
	}
	return nil
}

// groupWork lets many callers append one entry each, wait for it, and append the next.
func groupWork(c *cell, s store) (metrics, error) {
	if f, ok := s.(floorStore); ok && f.atOnce { // no callers: one goroutine writes as many entries at once
		c.Batch = c.Callers
		return appendWork(c, floorStore{})
	}
	l, err := s.open(c.Dir, writeOptions(c))
	if err != nil {
		return nil, err
	}
	one, ok := l.(caller)
	if !ok {
		return nil, fmt.Errorf("%s cannot", s.name())
	}
	g := newGroup(c, one)
	if err := g.run(int64(c.time(warmUp))); err != nil {
		return nil, err
	}
	for i := range g.lat {
		g.lat[i] = g.lat[i][:0]
	}
	m := metrics{}
	before := g.total()
	if err := consumed(m, func() (int, error) {
		err := g.run(int64(c.time(1)))
		return int(g.total() - before), err
	}); err != nil {
		return nil, err
	}
	var all latencies
	for _, lat := range g.lat {
		all = append(all, lat...)
	}
	all.into(m, "")
	if err := l.close(); err != nil {
		return nil, err
	}
	return m, reopened(c, s, func(l log) error {
		if err := checkCount(l, g.total()); err != nil {
			return err
		}
		if !c.Whole {
			return nil
		}
		return g.check(l)
	})
}

// crew is the callers of a group. Entry n is the one of caller n % callers.
type crew struct {
	log  caller
	src  *source
	made []uint64 // by each caller
	lat  []latencies
}

func newGroup(c *cell, l caller) *crew {
	return &crew{log: l, src: newSource(c.Size, 1), made: make([]uint64, c.Callers), lat: make([]latencies, c.Callers)}
}

func (g *crew) number(who int, nth uint64) uint64 { return nth*uint64(len(g.made)) + uint64(who) + 1 }

func (g *crew) run(ns int64) error {
	var wg sync.WaitGroup
	errs := make([]error, len(g.made))
	until := clock() + ns
	for who := range g.made {
		wg.Go(func() {
			buf := make([]byte, g.src.size)
			for now := clock(); now < until; {
				g.src.copyInto(buf, g.number(who, g.made[who]))
				if errs[who] = g.log.appendOne(buf); errs[who] != nil {
					return
				}
				g.made[who]++
				done := clock()
				g.lat[who] = append(g.lat[who], done-now)
				now = done
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (g *crew) total() (n uint64) {
	for _, m := range g.made {
		n += m
	}
	return n
}

// check expects every entry of every caller once, each caller's in order.
func (g *crew) check(l log) error {
	sc, ok := l.(scanner)
	if !ok || oldest(l) != 1 {
		return nil
	}
	seen := make([]uint64, len(g.made))
	err := sc.scan(func(p []byte) error {
		n := binary.LittleEndian.Uint64(p)
		who := int((n - 1) % uint64(len(seen)))
		if n != g.number(who, seen[who]) {
			return fmt.Errorf("caller %d: entry %d comes after its %d others", who, n, seen[who])
		}
		seen[who]++
		return g.src.check(n, p)
	})
	for who := range seen {
		if err == nil && seen[who] != g.made[who] {
			err = fmt.Errorf("caller %d: %d entries of %d", who, seen[who], g.made[who])
		}
	}
	return err
}

// loadWork fills a store and leaves it as a process that dies does.
func loadWork(c *cell, s store) (metrics, error) {
	l, err := s.open(c.Dir, options{keyed: c.Keyed, loose: true})
	if err != nil {
		return nil, err
	}
	src := newSource(c.Size, c.Batch)
	m := metrics{}
	err = consumed(m, func() (int, error) {
		for seq := 1; seq <= c.Entries; seq += c.Batch {
			if err := l.append(src.batch(uint64(seq), min(c.Batch, c.Entries+1-seq), c.Keyed)); err != nil {
				return 0, err
			}
		}
		return c.Entries, l.flush()
	})
	return m, err
}
