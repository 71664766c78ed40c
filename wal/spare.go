package wal

import (
	"cmp"
	"errors"
	"io/fs"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

// spare is the next segment, made before it is needed: its space prepared, with its header, synced, and so is its name.
type spare struct {
	path   string
	header segment.Header
	file   vfs.File
	err    error
}

// spareMaker makes one spare: in the background, or for who cannot wait until that has begun.
type spareMaker struct {
	begun  atomic.Bool
	done   chan struct{}
	pace   *pace
	urgent atomic.Bool // somebody waits, or will soon: leave what is not filled as it is
	stop   atomic.Bool // nobody needs it any more
	result spare       // valid when done is closed
}

// pace tells the spare's filler how the log is doing. The writer stores, fillers load.
type pace struct {
	commits atomic.Uint64
	last    atomic.Int64 // bytes of the last commit
}

func (p *pace) note(bytes int) {
	p.last.Store(int64(bytes))
	p.commits.Add(1)
}

const (
	// behindBytes is the size of a commit that says that the log is behind: its entries had to wait for others to be committed.
	behindBytes = 256 << 10
	// quietLooks is how many pauses without a commit end that.
	quietLooks = 32
)

// giveWay waits while the log is behind and commits: what is filled now would cost it the disk's time.
func (m *spareMaker) giveWay() {
	seen := m.pace.commits.Load()
	for quiet := 0; m.pace.last.Load() >= behindBytes && quiet < quietLooks && !m.urgent.Load() && !m.stop.Load(); quiet++ {
		time.Sleep(fillPause)
		if now := m.pace.commits.Load(); now != seen {
			seen, quiet = now, 0
		}
	}
}

// run makes the spare, unless somebody has begun to.
func (m *spareMaker) run(makeSpare func() spare) {
	if m.begun.CompareAndSwap(false, true) {
		m.result = makeSpare()
		close(m.done)
	}
}

// cancel ends the making as soon as possible and returns when it has ended.
func (m *spareMaker) cancel() {
	m.stop.Store(true)
	m.run(func() spare { return spare{err: format.ErrClosed} })
	<-m.done
}

// fillPiece is what the filler writes and syncs at a time. A commit that comes meanwhile waits for it.
const fillPiece = 256 << 10

// makeSpare creates segment n under a name that nobody takes for a segment's, and renames it when it is on the disk: so
// whatever has a segment's name holds a whole header and nothing that was never written. It leaves no file behind when
// it fails.
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
	s.file, s.err = l.prepare(s.path, s.header.PlannedSize, head, m)
	return s
}

// prepare makes the file of a segment, named and durable, and opens it.
func (l *Log) prepare(path string, size int64, head []byte, m *spareMaker) (vfs.File, error) {
	fsys, tmp := l.o.FS, path+".tmp"
	if _, err := fsys.Stat(path); !errors.Is(err, errNotExist) { // a rename would replace it
		return nil, &format.Error{Path: path, Offset: -1, Why: "create segment", Err: cmp.Or(err, fs.ErrExist)}
	}
	f, err := fsys.Create(tmp)
	if err != nil {
		return nil, &format.Error{Path: path, Offset: -1, Why: "create segment", Err: err}
	}
	err = fill(f, size, head, l.o.Prepare, m)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fsys.Rename(tmp, path)
	}
	if err == nil {
		err = fsys.SyncDir(l.o.Dir)
	}
	if err == nil {
		if f, err = fsys.Open(path); err == nil {
			return f, nil
		}
	}
	_, _ = fsys.Remove(tmp), fsys.Remove(path)
	return nil, &format.Error{Path: path, Offset: -1, Why: "prepare segment", Err: err}
}

// fill prepares the space, writes the header, and syncs.
func fill(f vfs.File, size int64, head []byte, how Preparation, m *spareMaker) error {
	reserved, err := how.makeRoom(f, size)
	if err != nil {
		return err
	}
	if how.fills(reserved) {
		if err := writeZeros(f, size, reserved, m); err != nil {
			return err
		}
	}
	if _, err := f.WriteAt(head, 0); err != nil {
		return err
	}
	return f.Datasync()
}

// writeZeros writes zeros over the whole file: unwritten extents would make every commit a metadata change. In the background
// it gives way to a log that is behind, and to one that waits for the spare it leaves what it has not come to: reserved, and
// read as zeros all the same. It does not sync the last of them.
func writeZeros(f vfs.File, size int64, reserved bool, m *spareMaker) error {
	zeros := make([]byte, min(fillPiece, size))
	for off := int64(0); off < size; {
		if m != nil && reserved {
			m.giveWay()
		}
		if m != nil && m.stop.Load() {
			return format.ErrClosed
		}
		if m != nil && reserved && m.urgent.Load() {
			break
		}
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-off)], off); err != nil {
			return err
		}
		if off += int64(len(zeros)); off < size && m != nil && !m.urgent.Load() {
			if err := f.Datasync(); err != nil {
				return err
			}
			time.Sleep(fillPause)
		}
	}
	return nil
}

// startSpare begins to make the spare that follows segment n.
func (l *Log) startSpare(n uint32) {
	if l.o.Inline {
		return // made when it is needed
	}
	m := &spareMaker{done: make(chan struct{}), pace: &l.pace}
	l.maker = m
	l.o.Background(func() { m.run(func() spare { return l.makeSpare(n+1, m) }) })
}

// hurrySpare tells the filler about a commit. If the log is behind with three quarters of the segment used up, the spare is
// finished as it is, so that the rotation finds it ready.
func (l *Log) hurrySpare(commitBytes int, end int64) {
	l.pace.note(commitBytes)
	if l.maker != nil && commitBytes >= behindBytes && end > l.limit/4*3 {
		l.maker.urgent.Store(true)
	}
}

// takeSpare waits for the spare, or makes it. If the background could not, one more try is made here, on a new file.
func (l *Log) takeSpare(n uint32) (spare, error) {
	m := l.maker
	l.maker = nil
	var s spare
	if m != nil {
		m.urgent.Store(true)
		m.run(func() spare { return l.makeSpare(n+1, m) })
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
	m.cancel()
	if m.result.err != nil {
		return nil
	}
	_ = m.result.file.Close()
	return l.o.FS.Remove(m.result.path)
}
