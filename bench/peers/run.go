package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// runner carries a plan out.
type runner struct {
	plan
	ctx  context.Context
	tmp  string
	book *book
	say  func(format string, args ...any) // how far it has come
}

func (r *runner) all() error {
	if err := r.write(); err != nil {
		return err
	}
	lengths := append([]int{r.entries}, r.lengths...)
	for _, n := range lengths {
		if err := r.length(n, r.stores, n == r.entries); err != nil {
			return err
		}
	}
	for _, n := range r.runlog {
		ours := []store{runlogStore{}}
		if err := r.length(n, ours, false); err != nil {
			return err
		}
	}
	return r.segmented()
}

// write carries out what begins with empty folders: in each round every experiment, in each of these every store, in an
// order that turns from round to round.
func (r *runner) write() error {
	list := r.writing()
	for round := range max(r.rounds, r.growth) {
		for _, e := range list {
			if round >= e.rounds {
				continue
			}
			err := r.inTurn(round, r.stores, func(s store) error {
				if _, can := s.lacks(e.task); !can || e.job == jobSubmit && s.name() != "floor" && s.name() != "runlog" {
					return nil
				}
				return r.inFolder(func(dir string) error {
					c := e.cell
					c.Dir = dir
					return r.cell(point{e.job, e.x, s.name()}, round, e.rounds, c)
				})
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// inTurn calls f with every store, in an order that depends on the round.
func (r *runner) inTurn(round int, list []store, f func(s store) error) error {
	for i := range list {
		if err := f(list[(i+round)%len(list)]); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) inFolder(f func(dir string) error) error {
	dir, err := os.MkdirTemp(r.tmp, "cell")
	if err != nil {
		return err
	}
	return errors.Join(f(dir), os.RemoveAll(dir))
}

// cell measures and books. What a peer cannot do after all is noted; the floor and runlog have to.
func (r *runner) cell(p point, round, rounds int, c cell) error {
	if r.book.failed[p] != nil {
		return nil
	}
	c.Store, c.Whole, c.Seed = p.store, round == 0, uint64(round)+1
	what := p.job
	if p.x > 1 {
		what = fmt.Sprintf("%s %d", p.job, p.x)
	}
	r.say("round %d of %d: %s: %s", round+1, rounds, what, p.store)
	m, err := measure(r.ctx, c)
	if r.ctx.Err() != nil {
		return r.ctx.Err()
	}
	if err == nil {
		r.book.rounds[p] = append(r.book.rounds[p], m)
		return nil
	}
	s, _ := storeNamed(p.store)
	if s == nil || !isPeer(s) {
		return err
	}
	r.book.failed[p] = err
	delete(r.book.rounds, p)
	return nil
}

// length fills stores with so many entries and measures everything that needs them.
func (r *runner) length(n int, list []store, table bool) error {
	rounds, seconds := r.rounds, r.seconds
	if !table {
		rounds, seconds = min(r.growth, r.rounds), r.seconds/2
	}
	if rounds == 0 {
		return nil
	}
	c := cell{Seconds: seconds, Entries: n, Size: r.size, Batch: mainBatch}
	if r.reads() {
		err := r.filled(c, list, reopen, func(dirs map[string]string, list []store) error {
			if err := r.openings(c, rounds, dirs, list); err != nil {
				return err
			}
			return r.settled(c, jobDisk, rounds, dirs, list, jobRead, scan, "read")
		})
		if err != nil {
			return err
		}
	}
	if !r.wants(jobFind) {
		return nil
	}
	c.Keyed = true
	return r.filled(c, list, find, func(dirs map[string]string, list []store) error {
		return r.settled(c, jobKeyDisk, rounds, dirs, list, jobFind, find, "find")
	})
}

// filled fills the stores that can do the task, and leaves each as a process that died.
func (r *runner) filled(c cell, list []store, t task, f func(dirs map[string]string, list []store) error) error {
	return r.inFolder(func(base string) error {
		dirs := map[string]string{}
		var ready []store
		for i, s := range list {
			if _, can := s.lacks(t); !can {
				continue
			}
			load := c
			load.Work, load.Dir = "load", filepath.Join(base, fmt.Sprint(i))
			if err := os.Mkdir(load.Dir, 0o755); err != nil {
				return err
			}
			p := point{"load", c.Entries, s.name()}
			delete(r.book.failed, p)
			if err := r.cell(p, 0, 1, load); err != nil {
				return err
			}
			if r.book.failed[p] == nil {
				dirs[s.name()] = load.Dir
				ready = append(ready, s)
			}
		}
		return f(dirs, ready)
	})
}

// openings opens copies of what the dead processes have left.
func (r *runner) openings(c cell, rounds int, dirs map[string]string, list []store) error {
	if !r.wants(jobOpen) {
		return nil
	}
	for round := range rounds {
		err := r.inTurn(round, list, func(s store) error {
			return r.inFolder(func(dir string) error {
				if err := clone(dirs[s.name()], dir); err != nil {
					return err
				}
				c := c
				c.Work, c.Dir = "open", dir
				return r.cell(point{jobOpen, c.Entries, s.name()}, round, rounds, c)
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// settled lets each store recover and close, and then reads in it, round by round.
func (r *runner) settled(c cell, diskJob string, rounds int, dirs map[string]string, list []store, job string, t task, work string) error {
	for _, s := range list {
		settle := c
		settle.Work, settle.Dir = "settle", dirs[s.name()]
		if err := r.cell(point{diskJob, c.Entries, s.name()}, 0, 1, settle); err != nil {
			return err
		}
	}
	if !r.wants(job) {
		return nil
	}
	for round := range rounds {
		err := r.inTurn(round, list, func(s store) error {
			if _, can := s.lacks(t); !can {
				return nil
			}
			read := c
			read.Work, read.Dir = work, dirs[s.name()]
			return r.cell(point{job, c.Entries, s.name()}, round, rounds, read)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// tailRoom is about what a segment of runlog's keeps free for its end.
const tailRoom = 48 << 10

// segmented reads the same entries in one segment, and in more and more.
func (r *runner) segmented() error {
	if !r.wants(jobSegments) || r.growth == 0 {
		return nil
	}
	entries := min(250_000, r.entries)
	for _, want := range segments {
		c := cell{Entries: entries, Size: r.size, Batch: mainBatch, Keyed: true, Seconds: r.seconds / 2}
		c.SegmentBytes = max(64<<10, int64(entries)*int64(r.size+70)/int64(want)+tailRoom)
		if err := r.inFolder(func(dir string) error { return r.segment(c, dir, want) }); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) segment(c cell, dir string, want int) error {
	c.Dir = dir
	run := func(work, job string, x, round, rounds int) error {
		c.Work = work
		return r.cell(point{job, x, "runlog"}, round, rounds, c)
	}
	settled := jobSegments + " settle"
	if err := errors.Join(run("load", jobSegments+" load", want, 0, 1), run("settle", settled, want, 0, 1)); err != nil {
		return err
	}
	got, _ := r.book.median(point{settled, want, "runlog"}, "segments")
	for round := range r.growth {
		for _, work := range []string{"read", "find"} {
			if err := run(work, jobSegments+" "+work, int(got)-1, round, r.growth); err != nil { // one is that of the run that settled it
				return err
			}
		}
	}
	return nil
}

// clone copies a folder and syncs the copy. What runlog never writes to again is linked.
func clone(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		if e.IsDir() {
			return os.MkdirAll(dst, 0o755)
		}
		if body, is := strings.CutSuffix(path, ".seg"); is {
			if _, err := os.Stat(body + ".idx"); err == nil {
				return os.Link(path, dst)
			}
		}
		return copyFile(path, dst)
	})
}

func copyFile(from, to string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	return dst.Sync()
}

// progress shows the latest of what is said on one line of a terminal, with the time that has passed; elsewhere nothing.
func progress(w *os.File) (say func(format string, args ...any), done func()) {
	info, err := w.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return func(string, ...any) {}, func() {}
	}
	start := time.Now()
	say = func(format string, args ...any) {
		fmt.Fprintf(w, "\r\x1b[K%5s  %s", time.Since(start).Round(time.Second), fmt.Sprintf(format, args...))
	}
	return say, func() { fmt.Fprint(w, "\r\x1b[K") }
}
