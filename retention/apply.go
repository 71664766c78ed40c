package retention

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// Remover removes from an instance that its process holds. A *runlog.Run is one, and so is Folder.
type Remover interface {
	// RemoveRun removes a sealed run.
	RemoveRun(run string) error
	// RemoveBefore removes the segments in front of number segment from a run.
	RemoveBefore(run string, segment uint32) error
	// FinishRemovals ends removals that a crash has interrupted.
	FinishRemovals() error
}

// Apply removes what a plan says, oldest first, and returns how many of the plan's removals it has done. It stops at
// the first error, and when ctx ends. Whatever is gone by then, no run that stays by the plan misses it, and no start of
// the engine continues another run than before. Another plan goes on from there. Removals that a crash has interrupted are ended first.
func Apply(ctx context.Context, p *Plan, r Remover) (done int, err error) {
	if err := r.FinishRemovals(); err != nil {
		return 0, fmt.Errorf("end removals that were interrupted: %w", err)
	}
	for i := range p.Items {
		it := &p.Items[i]
		if !it.Remove {
			continue
		}
		if err := ctx.Err(); err != nil {
			return done, err
		}
		if it.First == 0 {
			err = r.RemoveRun(it.Run)
		} else {
			err = r.RemoveBefore(it.Run, it.Last+1)
		}
		if err != nil {
			return done, fmt.Errorf("remove from run %s: %w", it.Run, err)
		}
		done++
	}
	return done, nil
}

// Folder removes from an instance's folder on behalf of somebody who holds its lock and writes no run.
type Folder struct {
	FS  vfs.FS // nil: the real one
	Dir string // the instance's folder
}

func (f Folder) fs() vfs.FS {
	if f.FS == nil {
		return vfs.OS
	}
	return f.FS
}

// RemoveRun implements Remover.
func (f Folder) RemoveRun(run string) error { return wal.RemoveRun(f.fs(), filepath.Join(f.Dir, run)) }

// RemoveBefore implements Remover.
func (f Folder) RemoveBefore(run string, segment uint32) error {
	return wal.RemoveBefore(f.fs(), filepath.Join(f.Dir, run), segment)
}

// FinishRemovals implements Remover.
func (f Folder) FinishRemovals() error { return wal.FinishAll(f.fs(), f.Dir) }
