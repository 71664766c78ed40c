package wal

import (
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

// spare is the next segment, made before it is needed: zero-filled, with its header, synced, and so is its name.
type spare struct {
	path   string
	header segment.Header
	file   vfs.File
	err    error
}

// spareMaker makes one spare on its own goroutine.
type spareMaker struct {
	done   chan struct{}
	urgent atomic.Bool // somebody waits: fill without pauses
	stop   atomic.Bool // nobody needs it any more
	result spare       // valid when done is closed
}

const fillPiece = 1 << 20

// makeSpare creates segment n. It leaves no file behind when it fails.
func (l *Log) makeSpare(n uint32, m *spareMaker) (s spare) {
	s.path = filepath.Join(l.o.Dir, segment.FileName(n))
	id, err := manifest.EncodeIdentity(l.o.Manifest.Identity)
	if err != nil {
		s.err = err
		return s
	}
	s.header = segment.Header{
		Number: n, Salt: l.o.Salts(), PlannedSize: l.o.plannedSize(n), Created: l.o.Clock.Now(), Identity: id,
	}
	head := segment.EncodeHeader(s.header)
	s.header.Size = int64(len(head))
	s.file, err = l.o.FS.Create(s.path)
	if err != nil {
		s.err = &format.Error{Path: s.path, Offset: -1, Why: "create segment", Err: err}
		return s
	}
	if err := l.fill(s.file, s.header.PlannedSize, head, m); err != nil {
		_ = s.file.Close()
		_ = l.o.FS.Remove(s.path)
		s.file = nil
		s.err = &format.Error{Path: s.path, Offset: -1, Why: "prepare segment", Err: err}
	}
	return s
}

// fill reserves the space, writes zeros over it (unwritten extents would make every commit a metadata change) and the
// header, and syncs file and folder.
func (l *Log) fill(f vfs.File, size int64, head []byte, m *spareMaker) error {
	if err := f.Preallocate(size); err != nil {
		return err
	}
	zeros := make([]byte, min(fillPiece, size))
	for off := int64(0); off < size; off += int64(len(zeros)) {
		if m != nil && m.stop.Load() {
			return format.ErrClosed
		}
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-off)], off); err != nil {
			return err
		}
		if m != nil && !m.urgent.Load() {
			if err := f.Datasync(); err != nil {
				return err
			}
			time.Sleep(fillPause)
		}
	}
	if _, err := f.WriteAt(head, 0); err != nil {
		return err
	}
	if err := f.Datasync(); err != nil {
		return err
	}
	return l.o.FS.SyncDir(l.o.Dir)
}

// startSpare begins to make the spare that follows segment n.
func (l *Log) startSpare(n uint32) {
	if l.o.Inline {
		return // made when it is needed
	}
	m := &spareMaker{done: make(chan struct{})}
	l.maker = m
	go func() {
		m.result = l.makeSpare(n+1, m)
		close(m.done)
	}()
}

// takeSpare waits for the spare. If the background could not make it, one more try is made here, on a new file.
func (l *Log) takeSpare(n uint32) (spare, error) {
	m := l.maker
	l.maker = nil
	var s spare
	if m != nil {
		m.urgent.Store(true)
		<-m.done
		s = m.result
	}
	if m == nil || s.err != nil {
		s = l.makeSpare(n+1, nil)
	}
	return s, s.err
}

// dropSpare removes the spare, if there is one.
func (l *Log) dropSpare() error {
	m := l.maker
	l.maker = nil
	if m == nil {
		return nil
	}
	m.stop.Store(true)
	<-m.done
	if m.result.err != nil {
		return nil
	}
	_ = m.result.file.Close()
	return l.o.FS.Remove(m.result.path)
}
