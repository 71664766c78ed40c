//go:build linux

package real

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/fuzz/oracle"
	"github.com/runlog-io/runlog/writer"
	"golang.org/x/sys/unix"
)

// The system calls at which processes are killed, and those that are made to fail: the others are Go's own, too, or
// nobody looks at their errors. (newfstatat shows beginMark.)
var (
	killed = []string{
		"pwrite64", "pread64", "fdatasync", "fsync", "openat", "renameat", "ftruncate", "fallocate", "mmap", "munmap", "close",
		"unlinkat", "mkdirat", "write", "getdents64",
	}
	failed = []string{"pwrite64", "pread64", "fdatasync", "fsync", "openat", "renameat", "ftruncate", "fallocate", "unlinkat", "mkdirat"}
	// Those of them that must not fail in silence, once the run is open: the others may be of a call that reads, or tidies up.
	changing = []string{"pwrite64", "fdatasync", "fsync", "renameat", "ftruncate", "fallocate", "mkdirat"}

	errnos = map[string]syscall.Errno{"EIO": unix.EIO, "ENOSPC": unix.ENOSPC}
)

// TestRowSyscalls runs a load without goroutines, which recovers a killed run, rotates several times and closes, once to
// count its system calls, and then again and again: each time it is killed as it enters another one of them. Every
// fourth case is a load with all of its goroutines, killed as one of its threads makes its nth call of a kind. In every
// fourth case the call fails instead: then the run halts, or there is a warning and it goes on.
func TestRowSyscalls(t *testing.T) {
	needs(t, "strace")
	dir := folder(t)
	s, err := count(dir)
	if err != nil {
		t.Fatal(err)
	}
	var kills, spared, halts, absorbed, entries atomic.Int64
	matrix.Run(t, "syscalls", func(c *matrix.Cases) error {
		if !c.Next() {
			return nil
		}
		dir, err := sub(dir)
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if err := os.CopyFS(dir, os.DirFS(s.begin)); err != nil {
			return err
		}
		o, what := alone(dir), "signal=KILL"
		var call place
		var errno syscall.Errno
		switch n := c.Seed / 4; c.Seed % 4 {
		case 0:
			name := []string{"EIO", "ENOSPC"}[n%2]
			what, errno, call = "error="+name, errnos[name], pick(s.fails, n)
		case 1:
			r := rand.New(rand.NewPCG(c.Seed, 14))
			o = &order{Dir: dir, Producers: 2, Entries: 25, Big: 7000}
			call = place{name: killed[r.IntN(len(killed))], nth: 1 + r.IntN(40)}
		default:
			call = pick(s.kills, 2*n+c.Seed%2)
		}
		where := fmt.Sprintf("inject=%s:%s:when=%d", call.name, what, call.nth)
		child, err := traced(o, filepath.Join(dir, "strace"), "-e", where)
		if err != nil {
			return err
		}
		defer child.stop()
		select {
		case <-child.ended:
		case <-time.After(time.Minute):
			return fmt.Errorf("%s: it hangs", where)
		}
		child.stop()
		if err := child.failure(); err != nil {
			return err
		}
		entries.Add(int64(len(child.acks)))
		switch {
		case errno != 0:
			halted, err := told(child, errno)
			if err != nil {
				return fmt.Errorf("%s: %w", where, err)
			}
			if halted {
				halts.Add(1)
				break
			}
			absorbed.Add(1)
			if call.open && slices.Contains(changing, call.name) && child.last(recTrouble) == nil {
				return fmt.Errorf("%s: nobody has said so", where)
			}
		case child.last(recDone) == nil:
			kills.Add(1)
		default:
			spared.Add(1) // there were fewer calls this time
		}
		history := oracle.History{Unindexed: errno != 0}
		s.before.promise(&history, always)
		child.promise(&history, always)
		if err := judge(&history, dir, 1); err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		return nil
	}, matrix.Workers(3), matrix.Detail(func() string {
		return fmt.Sprintf("%d places; %d killed, %d not reached; of the failed calls %d halted, %d were absorbed; %d entries acknowledged",
			len(s.kills), kills.Load(), spared.Load(), halts.Load(), absorbed.Load(), entries.Load())
	}))
	if kills.Load() == 0 {
		t.Error("no process was killed")
	}
}

// place is the n-th call of a name.
type place struct {
	name string
	nth  int
	open bool // it is made when Open has returned
}

func pick(all []place, n uint64) place { return all[n%uint64(len(all))] }

// survey is what the calls of a load are.
type survey struct {
	begin        string // what each case begins with: the folder of a killed run
	before       *child // who has left it
	kills, fails []place
}

// alone is a load on one thread.
func alone(dir string) *order { return &order{Dir: dir, Synchronous: true, Entries: 26, Big: 7000} }

// traced starts a load under strace.
func traced(o *order, log string, inject ...string) (*child, error) {
	wrap := []string{"strace", "-f", "-qq", "-o", log, "-e", "signal=none", "-e", "trace=newfstatat," + strings.Join(killed, ",")}
	c, err := start("load", o, append(wrap, inject...)...)
	if err != nil {
		return nil, err
	}
	_, _ = c.stdin.Write([]byte("\n")) // it need not wait if it halts; it may be dead already
	return c, nil
}

// count makes what the cases begin with, and lists the calls of one load that nobody disturbs.
func count(dir string) (*survey, error) {
	s := &survey{begin: filepath.Join(dir, "begin")}
	var err error
	if s.before, err = start("load", &order{Dir: s.begin, Synchronous: true, Big: 7000}); err != nil {
		return nil, err
	}
	err = s.before.awaitAcks(20)
	s.before.stop()
	if err = errors.Join(err, s.before.failure()); err != nil {
		return nil, err
	}
	whole, log := filepath.Join(dir, "whole"), filepath.Join(dir, "strace")
	if err := os.CopyFS(whole, os.DirFS(s.begin)); err != nil {
		return nil, err
	}
	c, err := traced(alone(whole), log)
	if err != nil {
		return nil, err
	}
	_, err = c.await(recDone, time.Minute)
	if err == nil {
		<-c.ended
	}
	c.stop()
	if err = errors.Join(err, c.failure()); err != nil {
		return nil, err
	}
	if rotations, _ := filepath.Glob(filepath.Join(whole, instance, c.run, "*.seg")); len(rotations) < 4 {
		return nil, fmt.Errorf("the load has made %d segments: too few rotations", len(rotations))
	}
	return s, s.list(log)
}

// list reads the calls from what strace has written: of the thread that has looked for beginMark, from then on.
func (s *survey) list(log string) error {
	f, err := os.Open(log)
	if err != nil {
		return err
	}
	defer f.Close()
	counts := map[string]map[string]int{} // by thread and name
	thread, open := "", false
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		pid, call, _ := strings.Cut(in.Text(), " ")
		name, _, ok := strings.Cut(strings.TrimSpace(call), "(")
		if !ok || strings.HasPrefix(name, "<") {
			continue // the second half of a line
		}
		if counts[pid] == nil {
			counts[pid] = map[string]int{}
		}
		counts[pid][name]++
		if strings.Contains(call, beginMark) {
			thread = pid
		} else if pid == thread && slices.Contains(killed, name) {
			open = open || name == "write" // the child says that it is open
			at := place{name, counts[pid][name], open}
			s.kills = append(s.kills, at)
			if slices.Contains(failed, name) {
				s.fails = append(s.fails, at)
			}
		}
	}
	if len(s.kills) < 100 || len(s.fails) < 50 {
		return fmt.Errorf("strace has shown %d calls, %d to fail", len(s.kills), len(s.fails))
	}
	r := rand.New(rand.NewPCG(1, 12)) // so that few cases see calls of all kinds
	r.Shuffle(len(s.kills), func(i, j int) { s.kills[i], s.kills[j] = s.kills[j], s.kills[i] })
	r.Shuffle(len(s.fails), func(i, j int) { s.fails[i], s.fails[j] = s.fails[j], s.fails[i] })
	return in.Err()
}

// told checks what a child has said about a call that failed: that its run halted, or Open failed, for this; or nothing.
func told(c *child, errno syscall.Errno) (halted bool, err error) {
	reason := writer.ReasonIO
	if errno == unix.ENOSPC {
		reason = writer.ReasonDiskFull
	}
	if c.last(recHalt) != nil {
		h, err := c.checkHalt(reason, errno)
		if err == nil {
			err = c.ackedUpTo(h.A)
		}
		return true, err
	}
	if rec := c.last(recFailed); rec != nil {
		if syscall.Errno(rec.A) != errno {
			return true, fmt.Errorf("want %v: %s", errno, rec.Text)
		}
		return true, nil
	}
	if c.last(recDone) == nil {
		return false, errors.New("it has neither ended well nor said why not")
	}
	return false, nil
}
