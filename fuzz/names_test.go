package fuzz

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

// names tries, at every operation that changes a folder or a file's size, all combinations of old and new names and
// sizes, and recovers each. The load opens, rotates, seals, closes, recovers and quarantines.
func names(c *matrix.Cases) (err error) {
	s := newSim(c.Seed)
	s.tiny = true
	visit := func() {
		r := rand.New(rand.NewPCG(s.seed, uint64(s.op.N)))
		sectors := []vfs.Chooser{vfs.KeepAll(), vfs.LoseAll(), vfs.Random(r.Uint64())}[r.IntN(3)]
		s.note()
		for left := range eachName(s.mem, sectors) {
			if err != nil || !c.Next() {
				return
			}
			if !s.h.Damaged {
				err = s.read(left)
			}
			if err == nil {
				err = s.judge(left, r)
			}
			if err != nil {
				err = fmt.Errorf("before %v: %w", s.op, err)
			}
		}
	}
	s.fault = func(int64) {
		const names = vfs.OpCreate | vfs.OpRename | vfs.OpRemove | vfs.OpMkdir | vfs.OpSyncDir | vfs.OpTruncate
		if s.op.Kind&(names|vfs.OpDatasync) != 0 && err == nil {
			visit()
		}
	}
	lerr := s.run()
	if err == nil && lerr == nil && c.Seed%2 == 0 {
		lerr = s.quarantine()
	}
	if err == nil && lerr == nil {
		visit()
	}
	return cmp.Or(err, lerr)
}

// eachName yields every combination of names and sizes that a power cut can leave; sectors chooses the contents.
func eachName(m *vfs.Mem, sectors vfs.Chooser) func(func(*vfs.Mem) bool) {
	return func(yield func(*vfs.Mem) bool) {
		var path []int
		for {
			var options []int
			left := m.Crash(func(c vfs.Choice) int {
				if c.Kind == vfs.SectorChoice {
					return sectors(c)
				}
				options = append(options, c.Options)
				if n := len(options); n > len(path) {
					path = append(path, 0)
				}
				return path[len(options)-1]
			})
			path = path[:len(options)]
			last := len(path) - 1
			for last >= 0 && path[last]+1 == options[last] {
				last--
			}
			if !yield(left) || last < 0 {
				return
			}
			path = append(path[:last:last], path[last]+1)
		}
	}
}

// quarantine kills the process, damages durable bytes of the newest run that has some, and boots.
func (s *sim) quarantine() error {
	instance := filepath.Join(s.o.Dir, s.o.Instance)
	for _, id := range slices.Backward(slices.Sorted(maps.Keys(s.h.Runs))) {
		if s.h.Runs[id].Acked < 4 {
			continue
		}
		if err := s.reopenAfterKill(); err != nil {
			return err
		}
		s.h.Damaged = true
		if err := flip(s.mem, filepath.Join(instance, id, segment.FileName(1))); err != nil {
			return err
		}
		run, err := runlog.Open(context.Background(), s.o)
		if err == nil && slices.ContainsFunc(run.Predecessors(), func(p runlog.Predecessor) bool { return p.Err != nil }) {
			quarantines.Add(1)
		}
		return err
	}
	return nil
}

var quarantines atomic.Int64

// flip turns a bit of a segment's first batch.
func flip(fsys vfs.FS, name string) error {
	f, err := fsys.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	var b [1]byte
	const at = segment.BlockSize + segment.StartSize - 1 // behind a header of one block
	if _, err := f.ReadAt(b[:], at); err != nil {
		return err
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], at); err != nil {
		return err
	}
	return f.Datasync()
}

func TestNamesAreOldOrNewAfterPowerCut(t *testing.T) {
	matrix.Run(t, "names", names, matrix.Detail(func() string {
		return fmt.Sprintf("%d of the loads end with a quarantine", quarantines.Load())
	}))
}
