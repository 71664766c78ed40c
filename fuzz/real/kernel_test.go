//go:build linux

package real

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/fuzz/oracle"
	"github.com/runlog-io/runlog/vfs"
)

// Of what one disk has written down, passes times so many power cuts are made, each time from its begin to its end.
// Every wholeEvery-th is judged with recovery, appending and recovery again, the others by reading alone, which decides
// by the same code.
const (
	passes      = 8
	cutsPerPass = 8
	wholeEvery  = 4
)

// TestRowKernel lets two processes, one after the other, write to a real file system and be killed; the second one
// recovers what the first has left. Then it cuts the power at many moments of that: the disk is as of the last flush
// before, with any subset of the blocks written since. The kernel mounts it, replaying its journal, and the oracle judges.
func TestRowKernel(t *testing.T) {
	needs(t, needRoot, needFUSE, needLoop, "mkfs.ext4", "mkfs.xfs")
	dir := folder(t)
	var whole, lost, entries atomic.Int64
	matrix.Run(t, "kernel", func(c *matrix.Cases) error {
		dir, err := sub(dir)
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		r := rand.New(rand.NewPCG(c.Seed, 7))
		kind := fileSystems[c.Seed%2]
		k, err := killedOnDisk(filepath.Join(dir, "disk"), kind, r)
		if err != nil {
			return err
		}
		s, err := newStage(dir, kind)
		if err != nil {
			return err
		}
		for n, place := range k.places(r) {
			if !c.Next() {
				return nil
			}
			unsynced := k.player.to(place)
			for _, w := range unsynced {
				lost.Add(int64(len(w.data)))
			}
			m := k.player.synced.with(survivors(r, unsynced))
			err := s.with(m, func(dir string) error {
				h := k.history(uint64(place))
				for id, run := range h.Runs {
					entries.Add(int64(run.Acked))
					if run.Acked == 0 {
						continue
					}
					if _, err := run.Read(vfs.OS, filepath.Join(dir, instance, id)); err != nil && !oracle.Unindexed(err) {
						return fmt.Errorf("read: run %s: %w", id, err)
					}
				}
				if n%wholeEvery > 0 {
					return nil
				}
				whole.Add(1)
				return judge(h, dir, 1)
			})
			if err != nil {
				return errors.Join(fmt.Errorf("%s, cut at request %d of %d: %w", kind.name, place, len(k.player.log), err), keep(m, kind, c.Seed))
			}
		}
		return nil
	}, matrix.Workers(4), matrix.Detail(func() string {
		return fmt.Sprintf("%d through recovery, %d acknowledged entries, %d KiB unsynced", whole.Load(), entries.Load(), lost.Load()>>10)
	}))
	if entries.Load() == 0 || lost.Load() == 0 {
		t.Errorf("%d entries were acknowledged, %d bytes were not synced: nothing was tried", entries.Load(), lost.Load())
	}
}

// keep keeps what a finding was found on; its error says where.
func keep(m medium, kind *fileSystem, seed uint64) error {
	name := filepath.Join(os.TempDir(), fmt.Sprintf("runlog-real-%s-%d.img", kind.name, seed))
	if err := m.write(name, kind.bytes); err != nil {
		return err
	}
	return fmt.Errorf("what the power cut has left is in %s", name)
}

// killings is what a disk has written down while processes wrote to it and were killed.
type killings struct {
	children []*child
	from     int
	player   player
}

// killedOnDisk has two processes write to a new disk.
func killedOnDisk(dir string, kind *fileSystem, r *rand.Rand) (k *killings, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	d, err := newDisk(dir, kind)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	k = &killings{from: int(d.page.now()), player: player{base: d.base}}
	for _, lasts := range []time.Duration{200 * time.Millisecond, 100 * time.Millisecond} {
		c, err := start("load", &order{
			Dir: d.mount, Page: d.pageAt, Producers: uint64(r.IntN(6)), Pace: time.Duration(r.IntN(3)) * time.Millisecond,
			Interval: r.IntN(2) == 0, Big: r.IntN(2) * r.IntN(4<<10),
		})
		if err != nil {
			return nil, err
		}
		_, err = c.await(recOpened, time.Minute)
		time.Sleep(lasts/2 + time.Duration(r.Int64N(int64(lasts))))
		c.stop()
		if err = errors.Join(err, c.failure()); err != nil {
			return nil, err
		}
		k.children = append(k.children, c)
	}
	k.player.log, err = readLog(d.log, d.page.now())
	return k, err
}

// places chooses the moments of each pass: any, just before a flush, or just after something was acknowledged.
func (k *killings) places(r *rand.Rand) (list []int) {
	var flushes, acks []int
	for i, w := range k.player.log[k.from:] {
		if w.off == flush {
			flushes = append(flushes, k.from+i)
		}
	}
	for _, c := range k.children {
		for _, a := range c.acks {
			acks = append(acks, int(a.place))
		}
	}
	for range passes {
		var pass []int
		for range cutsPerPass {
			at := k.from + r.IntN(len(k.player.log)-k.from)
			switch r.IntN(3) {
			case 0:
				at = flushes[r.IntN(len(flushes))]
			case 1:
				if len(acks) > 0 {
					at = min(acks[r.IntN(len(acks))], len(k.player.log))
				}
			}
			pass = append(pass, at)
		}
		slices.Sort(pass)
		list = append(list, pass...)
	}
	return list
}

// history is what was promised by then.
func (k *killings) history(place uint64) *oracle.History {
	h := &oracle.History{}
	for _, c := range k.children {
		c.promise(h, place)
	}
	return h
}
