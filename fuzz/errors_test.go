package fuzz

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/vfs"
)

var errnos = []syscall.Errno{
	syscall.EIO, syscall.ENOSPC, syscall.EACCES, syscall.EROFS, syscall.EMFILE, syscall.ENFILE,
	syscall.EDQUOT, syscall.EINTR, syscall.EAGAIN, syscall.ENOMEM, syscall.ESTALE, syscall.ENXIO,
}

// errno lets each operation of a load fail: once, or it and all later ones of its kind, or it and all later ones. Which
// errno goes with which operation changes with the seed.
func errno(c *matrix.Cases) error {
	s, err := scene(c.Seed, vfs.MemOptions{SectorSize: []int{512, 4096}[c.Seed%2]})
	if err != nil {
		return err
	}
	for at := int64(1); ; at++ {
		for i := range int64(3) {
			if !c.Next() {
				return nil
			}
			cause := errnos[(c.Seed+uint64(at*3+i))%uint64(len(errnos))]
			met, err := s.failAt(at, []vfs.OpKind{0, 1, vfs.OpAny}[i], cause)
			if err != nil {
				return fmt.Errorf("operation %d, %v, %s: %w", at, cause, []string{"once", "its kind for ever", "all for ever"}[i], err)
			}
			if !met {
				return nil
			}
		}
	}
}

// failAt runs the load with a fault at one of its operations, and at later ones of the kinds in also (1: of its own).
func (s *sim) failAt(at int64, also vfs.OpKind, cause error) (met bool, err error) {
	v := s.victim()
	n := int64(0)
	var hit vfs.Op
	v.mem.SetHook(func(op vfs.Op) error {
		switch n++; {
		case n == at:
			hit = op
			if also == 1 {
				also = op.Kind
			}
			return cause
		case n > at && op.Kind&also != 0:
			return cause
		}
		return nil
	})
	v.live()
	r := rand.New(rand.NewPCG(s.seed, uint64(at)))
	if also != 0 {
		hit.Name = s.o.Dir // the error may be that of a later operation
	}
	if err := v.judged(r, cause, hit); err != nil {
		return true, fmt.Errorf("%v: %w", hit, err)
	}
	if hit.Kind != 0 && v.err == nil && v.read == nil {
		absorbed.Add(1)
		if v.warns.Load() == 0 && hit.Kind&vfs.OpChange != 0 && strings.Contains(hit.Name, v.run.ID()) {
			return true, fmt.Errorf("%v has failed, and nobody has said so", hit)
		}
	}
	return hit.Kind != 0, nil
}

var absorbed atomic.Int64

func TestFailedOperationHaltsTheRunOrIsAbsorbed(t *testing.T) {
	matrix.Run(t, "errno", errno, matrix.Detail(func() string {
		return fmt.Sprintf("%d cases absorbed the fault", absorbed.Load())
	}))
}

// syncOnce lets each sync of a load fail, once; all or some of what it was to write is not on the disk, and no later sync
// will write it. The process is killed, and the next one boots on the same page cache; then the power goes. What
// recovery has counted must be there.
func syncOnce(c *matrix.Cases) error {
	s, err := scene(c.Seed, vfs.MemOptions{
		SectorSize: []int{512, 4096}[c.Seed%2], Garbage: c.Seed%3 == 0, WriteThrough: c.Seed%5 == 0,
	})
	if err != nil {
		return err
	}
	for nth := 1; c.Next(); nth++ {
		v := s.victim()
		r := rand.New(rand.NewPCG(s.seed, uint64(nth)))
		if r.IntN(2) == 0 {
			v.o.Sync = runlog.SyncInterval // so that several commits wait for a sync
		}
		var landed vfs.Chooser
		if r.IntN(2) == 0 {
			landed = vfs.Random(r.Uint64())
		}
		fault := v.mem.Inject(vfs.Rule{Kind: vfs.OpDatasync, Nth: nth, Err: syscall.EIO, Landed: landed})
		noDirect := r.IntN(2) == 0
		v.refuseUncached(noDirect)
		v.live()
		if fault.Hits() == 0 {
			return nil
		}
		fault.Remove()
		if v.err != nil {
			if err := v.told(syscall.EIO, vfs.Op{Name: v.o.Dir}); err != nil {
				return fmt.Errorf("sync %d: %w", nth, err)
			}
		}
		cut := func(m vfs.FS) vfs.FS { return m.(*vfs.Mem).Crash(vfs.LoseAll()) }
		if r.IntN(4) == 0 {
			cut = func(m vfs.FS) vfs.FS { return m.(*vfs.Mem).Kill() }
		}
		v.mem = v.mem.Kill()
		v.refuseUncached(noDirect)
		var inside vfs.FS // a power cut inside the recovery
		v.at, v.then = r.IntN(60), func() { inside = v.mem.Crash(vfs.Random(r.Uint64())) }
		if err := v.h.Judge(v.mem, v.o, 2, cut); err != nil {
			return fmt.Errorf("sync %d, uncached reads refused: %v: %w", nth, noDirect, err)
		}
		if inside == nil {
			continue
		}
		if err := v.h.Judge(inside, v.o, 1, cut); err != nil {
			return fmt.Errorf("sync %d, uncached reads refused: %v, power cut inside the recovery: %w", nth, noDirect, err)
		}
	}
	return nil
}

// refuseUncached makes the file system one that cannot read past its cache, if refuse is set. It also begins to count
// changes: before number v.at of them v.then is called.
func (v *victim) refuseUncached(refuse bool) {
	v.o.FS, v.at = v.mem, -1
	n := 0
	v.mem.SetHook(func(op vfs.Op) error {
		if op.Kind&vfs.OpChange != 0 {
			if n++; n == v.at {
				v.then()
			}
		}
		if refuse && op.Kind == vfs.OpReadUncached {
			return vfs.ErrUncachedUnsupported
		}
		return nil
	})
}

func TestFailedSyncIsFinal(t *testing.T) { matrix.Run(t, "sync-once", syncOnce) }
