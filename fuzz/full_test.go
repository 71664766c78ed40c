package fuzz

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/writer"
)

// full fills the disk at every size, and refuses each write as too big, in whole or in part.
func full(c *matrix.Cases) error { return fullDisk(c, runlog.PrepareZeros) }

// fullDisk says how the victim's segments are prepared. Where nothing is reserved there may be no room for a halt record.
func fullDisk(c *matrix.Cases, how runlog.Preparation) error {
	sector := []int{512, 4096}[c.Seed%2]
	s, err := scene(c.Seed, vfs.MemOptions{SectorSize: sector})
	if err != nil {
		return err
	}
	s.o.Prepare = how
	begin := s.mem.Used()
	for size := begin; c.Next(); size += int64(sector) {
		v := s.victim()
		v.mem.SetCapacity(max(size, 1))
		v.live()
		v.mem.SetCapacity(0)
		if err := v.fullDisk(syscall.ENOSPC, how != runlog.PrepareNone); err != nil {
			return fmt.Errorf("%d bytes, %d of them free at first: %w", size, size-begin, err)
		}
		if v.err == nil && v.warns.Load() == 0 {
			break // there was room for all
		}
	}
	for nth := 1; ; nth++ {
		for _, cause := range []syscall.Errno{syscall.EFBIG, syscall.ENOSPC, syscall.EDQUOT} {
			if !c.Next() {
				return nil
			}
			v := s.victim()
			r := rand.New(rand.NewPCG(s.seed, uint64(nth)))
			short := []int{0, 1, r.IntN(100), r.IntN(5000)}[r.IntN(4)]
			fault := v.mem.Inject(vfs.Rule{Kind: vfs.OpWrite, Nth: nth, Err: cause, Short: short})
			v.live()
			if fault.Hits() == 0 {
				return nil
			}
			fault.Remove()
			if err := v.fullDisk(cause, false); err != nil {
				return fmt.Errorf("write %d, %v: %w", nth, cause, err)
			}
		}
	}
}

// fullDisk checks what the run has said and left, now that there is space again. If room is set, a halted run has had
// some for its halt record.
func (v *victim) fullDisk(cause error, room bool) error {
	r := rand.New(rand.NewPCG(v.seed, uint64(v.mem.Used())))
	if err := v.judged(r, cause, vfs.Op{Name: v.o.Dir}); err != nil {
		return err
	}
	id := ""
	if v.run != nil {
		id = v.run.ID()
	} else if err := v.h.Judge(v.mem, v.o, 0, nil); err != nil { // in the same process: Open has let go of everything
		return fmt.Errorf("opened again: %w", err)
	}
	if v.run == nil || v.err == nil || !room {
		return nil
	}
	left := v.mem.Kill()
	if err := v.h.Judge(left, v.o, 0, nil); err != nil {
		return fmt.Errorf("opened again: %w", err)
	}
	m, _, err := manifest.Read(left, filepath.Join(v.o.Dir, v.o.Instance, id))
	if err != nil {
		return err
	}
	if m.Halt == nil || m.Halt.Reason != string(writer.ReasonDiskFull) {
		return fmt.Errorf("the halt record says %+v", m.Halt)
	}
	return nil
}

func TestFullDiskHaltsTheRunAndIsRecorded(t *testing.T) { matrix.Run(t, "full", full) }
