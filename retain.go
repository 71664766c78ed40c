package runlog

import (
	"fmt"
	"path/filepath"

	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/wal"
)

// The methods of this file remove entries for good. They do what they are told: package retention decides what may go,
// and calls them. Only the process that holds the instance can, since nobody else knows what is in use.

// RemoveRun removes an earlier run of the instance. It must be sealed; a quarantined one is evidence and stays
// (ErrQuarantined). A crash leaves it whole, or gone. Close waits for it.
func (r *Run) RemoveRun(id string) error {
	return r.holding(func() error {
		dir, err := r.earlier(id)
		if err != nil {
			return err
		}
		return wal.RemoveRun(r.o.FS, dir)
	})
}

// RemoveBefore removes the segments in front of number segment, from this run or from an earlier one that is sealed.
// That segment must be sealed and hold an entry; the run then begins with it, under the same seqs. What was in front is
// ErrRemoved to readers; what they have open or mapped stays valid. Close waits for it.
func (r *Run) RemoveBefore(id string, segment uint32) error {
	return r.holding(func() error {
		if id == r.id {
			if err := r.Err(); err != nil {
				return err
			}
			return r.log.RemoveBefore(segment)
		}
		dir, err := r.earlier(id)
		if err != nil {
			return err
		}
		return wal.RemoveBefore(r.o.FS, dir, segment)
	})
}

// FinishRemovals removes what a crash has left of runs and segments whose removal had been decided. Open does it too.
func (r *Run) FinishRemovals() error {
	return r.holding(func() error { return wal.FinishAll(r.o.FS, filepath.Join(r.o.Dir, r.o.Instance)) })
}

// holding calls remove while the instance is certainly held.
func (r *Run) holding(remove func() error) error {
	r.retaining.Lock()
	defer r.retaining.Unlock()
	if r.released {
		return ErrClosed
	}
	return remove()
}

// earlier is the folder of another run of the instance.
func (r *Run) earlier(id string) (string, error) {
	if !manifest.ValidRunID(id) || id == r.id {
		return "", fmt.Errorf("%w: %.80q is not an earlier run of the instance", ErrInvalid, id)
	}
	return filepath.Join(r.o.Dir, r.o.Instance, id), nil
}
