package bench

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/runlog-io/runlog/vfs"
)

// Would commits in flight pay? The least group commit of BenchmarkAppend's floor, with room for several commits in the disk at
// once. docs/decisions/2026-11-28-one-commit-in-flight.md says what came of it.

// lanes is a group commit with as many commits in flight as it has files: a sync of its own for each, since an error is
// told to each open file once. A batch that begins beside others in flight begins a block of its own.
type lanes struct {
	b    *testing.B
	free chan vfs.File

	mu      sync.Mutex // what callers add to
	pending *floorBatch

	place sync.Mutex // where the next batch goes
	off   int64
	busy  int
}

func newLanes(b *testing.B, n int) *lanes {
	zeroed(b)
	l := &lanes{b: b, free: make(chan vfs.File, n)}
	for range n {
		f, err := vfs.OS.Open(filepath.Join(fixtures.dir, "floor"))
		check(b, err)
		b.Cleanup(func() { check(b, f.Close()) })
		l.free <- f
	}
	return l
}

// append adds a frame to the batch that waits, and whoever comes first commits it.
func (l *lanes) append(frame []byte) {
	l.mu.Lock()
	batch := l.pending
	leads := batch == nil
	if leads {
		batch = &floorBatch{done: make(chan struct{})}
		l.pending = batch
	}
	batch.buf = append(batch.buf, frame...)
	l.mu.Unlock()
	if !leads {
		<-batch.done
		return
	}
	f := <-l.free
	l.write(f, batch)
	if err := f.Datasync(); err != nil {
		l.b.Error(err)
	}
	l.place.Lock()
	l.busy--
	l.place.Unlock()
	l.free <- f
	close(batch.done)
}

func (l *lanes) write(f vfs.File, batch *floorBatch) {
	const block = 4096
	l.place.Lock()
	defer l.place.Unlock()
	l.mu.Lock()
	l.pending = nil
	l.mu.Unlock()
	if l.busy > 0 {
		l.off = (l.off + block - 1) / block * block
	}
	if l.off+int64(len(batch.buf)) > floorFileBytes {
		l.off = 0
	}
	if _, err := f.WriteAt(batch.buf, l.off); err != nil {
		l.b.Error(err)
	}
	l.off += int64(len(batch.buf))
	l.busy++
}

// BenchmarkInFlight: callers who wait for their own append, one after the other.
func BenchmarkInFlight(b *testing.B) {
	for _, callers := range []int{1, 2, 16, 128, 1024} {
		for _, n := range []int{1, 2, 4, 8} {
			if n > callers {
				break
			}
			b.Run(fmt.Sprintf("callers=%d/commits=%d", callers, n), func(b *testing.B) {
				l, frame := newLanes(b, n), make([]byte, payloadBytes+frameBytes)
				b.ResetTimer()
				split(b.N, callers, func(_, n int) {
					for range n {
						l.append(frame)
					}
				})
				b.StopTimer()
				perSecond(b, b.N, "entries")
			})
		}
	}
}
