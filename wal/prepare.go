package wal

import (
	"errors"
	"fmt"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/vfs"
)

// Preparation is how the space of a segment is prepared before the first commit in it. In every form the file has its planned
// length from the start: one that is shorter has been cut.
type Preparation int

const (
	// PrepareZeros reserves the space and writes zeros over it, so that a commit changes no metadata: the least time for
	// each durable write, and each byte is written twice. In the background it leaves to reserved space what a log that is
	// behind has no time for.
	PrepareZeros Preparation = iota
	// PrepareReserved only reserves the space. Each byte is written once, and a commit also changes the file's metadata. Where
	// the file system cannot reserve, zeros are written all the same, so that a full disk shows before it is too late.
	PrepareReserved
	// PrepareNone reserves nothing: the file system finds the space as it is written. A full disk can fail any commit,
	// and leaves no room for the halt record.
	PrepareNone
)

// Check refuses values that are none of these.
func (p Preparation) Check() error {
	if p < PrepareZeros || p > PrepareNone {
		return fmt.Errorf("%w: %d is no preparation: want %d to %d", format.ErrInvalid, int(p), int(PrepareZeros), int(PrepareNone))
	}
	return nil
}

// String names it.
func (p Preparation) String() string {
	switch p {
	case PrepareZeros:
		return "zeros"
	case PrepareReserved:
		return "reserved"
	case PrepareNone:
		return "none"
	}
	return fmt.Sprintf("preparation %d", int(p))
}

// makeRoom gives the file its planned length, and says whether its space is reserved.
func (p Preparation) makeRoom(f vfs.File, size int64) (reserved bool, err error) {
	if p == PrepareNone {
		return false, f.Truncate(size)
	}
	err = f.Preallocate(size)
	if errors.Is(err, vfs.ErrNotReserved) {
		return false, nil
	}
	return err == nil, err
}

// fills reports whether zeros are written over the whole of it.
func (p Preparation) fills(reserved bool) bool {
	return p == PrepareZeros || p == PrepareReserved && !reserved
}
