package fuzz

import (
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/vfs"
)

// The rows of this file are about segments that are not filled with zeros beforehand.

// unfilled is how a case prepares its segments, by turns.
func unfilled(seed uint64) runlog.Preparation {
	return []runlog.Preparation{runlog.PrepareReserved, runlog.PrepareNone}[(seed+seed/4)%2]
}

// withoutZeros is the row "power", with segments that are reserved, or not even that.
func withoutZeros(c *matrix.Cases) error {
	s := newSim(c.Seed)
	s.o.Prepare = unfilled(c.Seed)
	return s.everywhere(c, func() {})
}

func TestPowerCutsWithoutZerosLoseNothingAcknowledged(t *testing.T) {
	matrix.Run(t, "prepared", withoutZeros)
}

func TestAFullDiskWithoutZerosHaltsTheRun(t *testing.T) {
	matrix.Run(t, "prepared-full", func(c *matrix.Cases) error { return fullDisk(c, unfilled(c.Seed)) })
}

// stale cuts the power at each operation of a load whose disk has forgotten what was never written: it leaves noise there, or
// what other sectors of the file hold. Some loads end with a halt record in the spare.
func stale(c *matrix.Cases) error {
	s := newSim(c.Seed)
	s.onDisk(vfs.MemOptions{SectorSize: []int{512, 4096}[c.Seed%2], Garbage: c.Seed%3 != 0, StaleReserved: true})
	s.o.Prepare = runlog.PrepareReserved
	s.tiny = c.Seed%4 < 2
	if c.Seed%8 == 6 {
		return s.crashing(c, s.detachedHalt, func() {})
	}
	return s.everywhere(c, func() {})
}

func TestGarbageInSpaceThatNobodyHasWrittenIsNeverAnEntry(t *testing.T) {
	matrix.Run(t, "stale", stale)
}
