package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"
)

// patience is how long a store may take over one damaged folder.
const patience = 30 * time.Second

// panicked is what guard makes of a panic, or of a store that does not come back.
type panicked struct{ what, detail string }

func (p *panicked) Error() string { return p.what + ": " + p.detail }

// guard calls f and turns a panic, and no answer, into an error.
func guard(f func() reading) reading {
	done := make(chan reading, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- reading{err: &panicked{"panics", fmt.Sprint(p)}}
			}
		}()
		done <- f()
	}()
	select {
	case r := <-done:
		return r
	case <-time.After(patience):
		return reading{err: &panicked{"hangs", patience.String()}}
	}
}

// original writes a log of entries in a new folder and returns what a process that dies there leaves.
func original(s store, tmp string, entries [][]byte, unproven int) (im image, err error) {
	dir, err := os.MkdirTemp(tmp, "original")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	err = s.write(dir, entries, unproven, func() (err error) {
		im, err = takeImage(dir)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name(), err)
	}
	return im, nil
}

// in makes the damaged folder and calls f with it.
func in(tmp string, t *trial, f func(dir string)) error {
	dir, err := os.MkdirTemp(tmp, "trial")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := t.im.write(dir); err != nil {
		return err
	}
	f(dir)
	return nil
}

// boot puts a damaged folder before a store: an engine boots and reads all; then it appends, and boots again.
func boot(s store, dir string, t *trial, acknowledged [][]byte, extra []byte) verdict {
	v := judge(acknowledged, extra, t, guard(func() reading { return s.read(dir) }))
	if v.class != crashed {
		v.lost = lost(s, dir, len(acknowledged[0]))
	}
	return v
}

// lost counts the entries that cannot be read although they were appended after the damage, and acknowledged.
func lost(s store, dir string, size int) int {
	more := payloads(1<<32, later, size)
	if r := guard(func() reading { return reading{err: s.more(dir, more)} }); r.err != nil {
		return -1
	}
	read := s.read
	if n, ok := s.(interface{ newest(dir string) reading }); ok {
		read = n.newest
	}
	r := guard(func() reading { return read(dir) })
	missing := later
	for _, e := range more {
		for i := range r.items {
			if bytes.Equal(r.items[i].data, e) {
				missing--
				break
			}
		}
	}
	return missing
}

// each calls f for 0 to n-1, several at a time since most of the time goes into syncs, and returns the first error.
func each(n int, f func(i int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	next := make(chan int)
	for range 4 * runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range next {
				errs[i] = f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
