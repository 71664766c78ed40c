package fuzz

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/fuzz/oracle"
	"github.com/runlog-io/runlog/vfs"
)

// The rows of this file cut the power of a simulated load. A case is one state of the disk. Each is judged by reading
// it, which decides with the code that recovery uses, and a seeded share of them by recovering, appending and crashing
// again.

// share is the part of the cases that is recovered: one of so many.
const share = 64

// onDisk prepares a world whose disk has sectors of this size, and loses them or turns them to garbage.
func (s *sim) onDisk(o vfs.MemOptions) {
	s.mem = vfs.NewMem(o)
	s.o.FS = s.mem
}

// spot is a moment of a load whose possible outcomes are judged one after the other. They differ only in the runs that
// hold one of the files; the others are read once.
type spot struct {
	files []string
	once  bool
}

func (p *spot) skips(dir string) bool {
	return p != nil && p.once && !slices.ContainsFunc(p.files, func(name string) bool {
		return strings.HasPrefix(name, dir) || strings.HasPrefix(dir, name) // in it, or a folder above
	})
}

// unsynced is the spot of what a power cut can change now.
func unsynced(m *vfs.Mem) *spot {
	p := &spot{}
	for _, c := range m.Choices() {
		p.files = append(p.files, "/"+c.Name) // a removed one has no name: it can have been anywhere
	}
	return p
}

// state judges one state of the disk, which it may change.
func (s *sim) state(c *matrix.Cases, left *vfs.Mem) error {
	if err := s.read(left); err != nil {
		return fmt.Errorf("before %v: %w", s.op, err)
	}
	if s.spot != nil {
		s.spot.once = true
	}
	if r := rand.New(rand.NewPCG(s.seed, c.N())); r.IntN(share) == 0 {
		if err := s.judge(left.Kill(), r); err != nil {
			return fmt.Errorf("before %v: recovered: %w", s.op, err)
		}
	}
	return nil
}

// read judges a disk without changing it.
func (s *sim) read(left vfs.FS) error {
	instance := filepath.Join(s.o.Dir, s.o.Instance)
	for _, id := range slices.Sorted(maps.Keys(s.h.Runs)) {
		was, dir := s.h.Runs[id], filepath.Join(instance, id)
		if s.spot.skips(dir) {
			continue
		}
		_, err := was.Read(left, dir)
		if err != nil && (was.Acked > 0 || errors.Is(err, oracle.ErrFalse)) && !oracle.Unindexed(err) {
			return fmt.Errorf("run %s, of which seq %d was acknowledged: %w", id, was.Acked, err)
		}
	}
	return nil
}

// atSyncs calls visit before each sync of a load and at its end. What a power cut can leave between two syncs, it can
// leave before the second one, too.
func (s *sim) atSyncs(visit func() error) (err error) {
	s.fault = func(int64) {
		if s.op.Kind&(vfs.OpDatasync|vfs.OpSyncDir) != 0 && err == nil {
			s.note()
			s.spot = unsynced(s.mem)
			err = visit()
		}
	}
	lerr := s.run()
	if err == nil && lerr == nil {
		s.spot = unsynced(s.mem)
		err = visit()
	}
	return cmp.Or(err, lerr)
}

// exhaustive is the number of outcomes up to which all are tried: twelve blocks that are there or not.
const exhaustive = 1 << 12

// subsets loses any subset of what was not synced: blocks, sizes and names. While a file is made that has no name yet that
// anybody looks for, a few by chance.
func subsets(c *matrix.Cases) error {
	s := newSim(c.Seed)
	s.onDisk(vfs.MemOptions{SectorSize: []int{512, 4096}[c.Seed%2]})
	s.tiny = c.Seed%8 < 5
	return s.atSyncs(func() error {
		random := 64
		if strings.HasSuffix(s.op.Name, ".tmp") {
			random = 8
		} else if outcomes(s.mem) <= exhaustive {
			for path, left := range s.mem.EachCrash() {
				if !c.Next() {
					return nil
				}
				if err := s.state(c, left); err != nil {
					return fmt.Errorf("choices %v: %w", path, err)
				}
			}
			return nil
		}
		r := rand.New(rand.NewPCG(s.seed, uint64(s.op.N)))
		for range random {
			if !c.Next() {
				return nil
			}
			if err := s.state(c, s.mem.Crash(vfs.Random(r.Uint64()))); err != nil {
				return err
			}
		}
		return nil
	})
}

// outcomes is how many states a power cut can leave.
func outcomes(m *vfs.Mem) int {
	n := 1
	for _, c := range m.Choices() {
		if n *= c.Options; n > exhaustive {
			break
		}
	}
	return n
}

func TestAnySubsetOfUnsyncedBlocksMayBeLost(t *testing.T) { matrix.Run(t, "subsets", subsets) }

// garbage leaves older versions of some blocks beside newer ones of others, and noise or stale bytes where nothing
// durable was.
func garbage(c *matrix.Cases) error {
	s := newSim(c.Seed)
	s.onDisk(vfs.MemOptions{SectorSize: []int{512, 4096}[c.Seed%2], Garbage: true})
	s.tiny = c.Seed%4 < 2
	return s.atSyncs(func() error {
		r := rand.New(rand.NewPCG(s.seed, uint64(s.op.N)))
		for _, choose := range []vfs.Chooser{
			vfs.Scramble(),
			func(c vfs.Choice) int { return r.IntN(c.Options) }, // any version, or garbage
			func(c vfs.Choice) int { // reordered: none in its place, the newest ones included
				if c.Kind == vfs.SectorChoice {
					return r.IntN(c.Newest + 1)
				}
				return c.Newest
			},
			func(c vfs.Choice) int { // garbage among what has arrived
				if c.Garbage >= 0 && r.IntN(3) == 0 {
					return c.Garbage
				}
				return c.Newest
			},
			vfs.Random(r.Uint64()),
		} {
			if !c.Next() {
				return nil
			}
			if err := s.state(c, s.mem.Crash(choose)); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestGarbageInUnsyncedBlocksIsNeverAnEntry(t *testing.T) { matrix.Run(t, "garbage", garbage) }
