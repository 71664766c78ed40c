package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
)

// activeBytes is the most that runlog's active segment holds by default, and so the most that its recovery reads.
const activeBytes = 64 << 20

// openWork opens what a dead process has left, until the store can append, and knows the number of its last entry.
func openWork(c *cell, s store) (metrics, error) {
	before, err := anonymous()
	if err != nil {
		return nil, err
	}
	t0 := clock()
	l, err := s.open(c.Dir, options{keyed: c.Keyed, loose: true})
	if err != nil {
		return nil, err
	}
	if f, ok := l.(*floorLog); ok { // which has read everything
		t0 = clock()
		if err := f.verifyEnd(activeBytes); err != nil {
			return nil, err
		}
	}
	if err := checkCount(l, uint64(c.Entries)); err != nil {
		return nil, err
	}
	m := metrics{"open": float64(clock() - t0)}
	after, err := anonymous()
	if err != nil {
		return nil, err
	}
	m["anon"] = max(after-before, 0)
	if c.Whole {
		err = checkAll(l, newSource(c.Size, 1), uint64(c.Entries))
	}
	runtime.KeepAlive(l)
	return m, err
}

// anonymous is this process's anonymous memory after a collection, in bytes.
func anonymous() (float64, error) {
	debug.FreeOSMemory()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "RssAnon:" {
			kib, err := strconv.ParseFloat(fields[1], 64)
			return kib * 1024, err
		}
	}
	return 0, errors.New("/proc/self/status does not tell RssAnon")
}

// settleWork lets the store recover, and close.
func settleWork(c *cell, s store) (metrics, error) {
	if err := reopened(c, s, func(l log) error { return checkCount(l, uint64(c.Entries)) }); err != nil {
		return nil, err
	}
	m := metrics{}
	err := filepath.WalkDir(c.Dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		blocks := float64(info.Sys().(*syscall.Stat_t).Blocks) * 512
		m["disk"] += blocks
		switch filepath.Ext(path) {
		case ".idx", ".flt":
			m["index"] += float64(info.Size())
		case ".seg":
			m["segments"]++
		}
		return nil
	})
	return m, err
}

// fewer calls make a block of a slow store's reads: the clock is read once for each block.
const blockNs, mostInBlock = 200_000, 1024

// timed calls op for a while without reading the clock for each call, and then, as long, with; op gets a random number.
func timed(c *cell, m metrics, prefix string, op func(random uint64) error) error {
	rng := rand.NewPCG(c.Seed, 1)
	var mem0, mem1 runtime.MemStats
	for range 16 { // what the first calls open, and allocate
		if err := op(rng.Uint64()); err != nil {
			return err
		}
	}
	n, block := 0, 1
	runtime.ReadMemStats(&mem0)
	t0 := clock()
	for until, now := t0+int64(c.time(0.5)), t0; now < until; {
		for range block {
			if err := op(rng.Uint64()); err != nil {
				return err
			}
		}
		n += block
		was := now
		if now = clock(); now-was < blockNs && block < mostInBlock {
			block *= 2
		}
	}
	m[prefix+"ns"] = float64(clock()-t0) / float64(n)
	runtime.ReadMemStats(&mem1)
	m[prefix+"allocs"] = float64((mem1.Mallocs - mem0.Mallocs) / uint64(n)) // whole ones, as benchmarks count
	lat := make(latencies, 0, 1<<20)
	for until, now := clock()+int64(c.time(0.5)), clock(); now < until && len(lat) < cap(lat); {
		if err := op(rng.Uint64()); err != nil {
			return err
		}
		done := clock()
		lat = append(lat, done-now)
		now = done
	}
	lat.into(m, prefix)
	return nil
}

var errEnough = errors.New("enough")

// readWork reads by number and scans, in a store that was closed.
func readWork(c *cell, s store) (metrics, error) {
	l, err := s.open(c.Dir, options{loose: true})
	if err != nil {
		return nil, err
	}
	m := metrics{}
	entries := uint64(c.Entries)
	if err := checkCount(l, entries); err != nil {
		return nil, err
	}
	if _, can := s.lacks(get); can {
		g := l.(getter)
		buf := make([]byte, 0, c.Size)
		err := timed(c, m, "get.", func(random uint64) error {
			seq := 1 + random%entries
			p, err := g.get(seq, buf)
			if err == nil && binary.LittleEndian.Uint64(p) != seq {
				err = fmt.Errorf("entry %d: %w", seq, errOrder)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		if err := checkSome(l, newSource(c.Size, 1), entries, c); err != nil {
			return nil, err
		}
	}
	return m, errors.Join(scanFor(c, m, l.(scanner)), l.close())
}

// scanFor scans for a while; unless all is to be checked, a slow store need not come to the end. That while begins with the first entry:
// who loads everything before it has done that for all of them.
func scanFor(c *cell, m metrics, sc scanner) error {
	span := int64(c.time(1))
	total, t0 := 0, clock()
	for clock() < t0+span || total == 0 {
		next, until := uint64(0), int64(0)
		err := sc.scan(func(p []byte) error {
			if next == 0 {
				until = clock() + span
			}
			if next++; binary.LittleEndian.Uint64(p) != next {
				return fmt.Errorf("entry %d: %w", next, errOrder)
			}
			if next%4096 == 0 && !c.Whole && clock() > until {
				return errEnough
			}
			return nil
		})
		total += int(next)
		if errors.Is(err, errEnough) {
			break
		}
		if err == nil && next != uint64(c.Entries) {
			err = fmt.Errorf("a scan ends at entry %d of %d", next, c.Entries)
		}
		if err != nil {
			return err
		}
	}
	m["scan.rate"] = float64(total) / float64(clock()-t0) * 1e9
	return nil
}

// findWork looks up client ids: some that are there, and some that are not.
func findWork(c *cell, s store) (metrics, error) {
	l, err := s.open(c.Dir, options{keyed: true, loose: true})
	if err != nil {
		return nil, err
	}
	if err := checkCount(l, uint64(c.Entries)); err != nil {
		return nil, err
	}
	const distinct = 1 << 16
	orders := uint64(c.Entries) / 3
	rng := rand.New(rand.NewPCG(c.Seed, 2))
	present, absent, want := make([]string, distinct), make([]string, distinct), make([]uint64, distinct)
	for i := range present {
		order := rng.Uint64N(orders)
		want[i] = firstSeq(order)
		present[i] = clientID(make([]byte, idBytes), order)
		absent[i] = clientID(make([]byte, idBytes), order+1<<40)
	}
	f, ok := l.(finder)
	if !ok {
		return nil, fmt.Errorf("%s has no order ids", s.name())
	}
	m := metrics{}
	err = timed(c, m, "hit.", func(random uint64) error {
		i := random % distinct
		seq, ok, err := f.find(present[i])
		if err == nil && (!ok || seq != want[i]) {
			err = fmt.Errorf("an id leads to entry %d (%v), want %d", seq, ok, want[i])
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	err = timed(c, m, "miss.", func(random uint64) error {
		seq, ok, err := f.find(absent[random%distinct])
		if err == nil && ok {
			err = fmt.Errorf("an id that no entry has leads to entry %d", seq)
		}
		return err
	})
	return m, errors.Join(err, l.close())
}
