package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	mmap "github.com/edsrzf/mmap-go"
)

// OS is the real file system; names are paths as package os takes them. It writes on linux and darwin; elsewhere
// whatever would change a file fails with ErrUnsupportedPlatform and reading works.
var OS FS = osFS{}

// maxHolderBytes bounds how much of a lock file is read: a holder is one short line.
const maxHolderBytes = 4096

type osFS struct{}

// osFile adds to *os.File what the platform files implement.
type osFile struct{ *os.File }

func (osFS) Create(name string) (File, error) {
	return openFile("create", name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func (osFS) Open(name string) (File, error) { return openFile("open", name, os.O_RDWR) }

func (osFS) OpenRead(name string) (File, error) { return openFile("open", name, os.O_RDONLY) }

func openFile(op, name string, flag int) (File, error) {
	if flag != os.O_RDONLY && !canWrite {
		return nil, &fs.PathError{Op: op, Path: name, Err: ErrUnsupportedPlatform}
	}
	f, err := os.OpenFile(name, flag, 0o644)
	if err != nil {
		return nil, err
	}
	// A folder opens for reading and fails only later, where nobody expects it.
	fi, err := f.Stat()
	if err == nil && fi.IsDir() {
		err = &fs.PathError{Op: op, Path: name, Err: syscall.EISDIR}
	}
	if err != nil {
		f.Close() // nothing was written
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Rename(oldName, newName string) error {
	if !canWrite {
		return &os.LinkError{Op: "rename", Old: oldName, New: newName, Err: ErrUnsupportedPlatform}
	}
	return os.Rename(oldName, newName)
}

func (osFS) Remove(name string) error {
	if !canWrite {
		return &fs.PathError{Op: "remove", Path: name, Err: ErrUnsupportedPlatform}
	}
	return os.Remove(name)
}

func (fsys osFS) MkdirAll(dir string) error {
	isDir, err := isFolder(dir)
	if isDir || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !canWrite {
		return &fs.PathError{Op: "mkdir", Path: dir, Err: ErrUnsupportedPlatform}
	}
	dir = filepath.Clean(dir)
	parent := filepath.Dir(dir)
	if err := fsys.MkdirAll(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		// Somebody else made it a moment ago and may not have synced it yet.
		if _, err := isFolder(dir); err != nil {
			return err
		}
	}
	return fsys.SyncDir(parent)
}

// isFolder fails when there is nothing, or something else, of that name.
func isFolder(dir string) (bool, error) {
	fi, err := os.Stat(dir)
	if err != nil {
		return false, err
	}
	if !fi.IsDir() {
		return false, &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
	}
	return true, nil
}

func (osFS) ReadDir(dir string) ([]fs.DirEntry, error) { return os.ReadDir(dir) }

func (osFS) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }

func (osFS) SyncDir(dir string) error {
	if !canWrite {
		return &fs.PathError{Op: "syncdir", Path: dir, Err: ErrUnsupportedPlatform}
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = syncFolder(d)
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return at("syncdir", dir, err)
}

func (osFS) Lock(name string, holder []byte) (io.Closer, error) {
	if !canWrite {
		return nil, &fs.PathError{Op: "lock", Path: name, Err: ErrUnsupportedPlatform}
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	taken, err := tryLock(f)
	if err != nil || !taken {
		if err = at("lock", name, err); err == nil {
			by, _ := readHolder(f) // naming the holder is a courtesy: the lock is refused either way
			err = &LockedError{Name: name, Holder: by}
		}
		f.Close()
		return nil, err
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt(holder, 0)
	}
	if err != nil {
		_ = heldLock{f}.Close()
		return nil, err
	}
	return heldLock{f}, nil
}

// heldLock is a lock that was taken. It is released before the file is closed, since a child that this process is just
// forking has the file open as well, until it starts its program.
type heldLock struct{ f *os.File }

func (l heldLock) Close() error { return errors.Join(unlock(l.f), l.f.Close()) }

func (osFS) LockHolder(name string) (holder []byte, held bool, err error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	if held, err = isLocked(f); err != nil || !held {
		return nil, false, at("lockholder", name, err)
	}
	holder, err = readHolder(f)
	return holder, true, err
}

func readHolder(f *os.File) ([]byte, error) {
	b := make([]byte, maxHolderBytes)
	n, err := f.ReadAt(b, 0)
	if err == io.EOF {
		err = nil
	}
	return b[:n], err
}

func (f osFile) Size() (int64, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

func (f osFile) Datasync() error { return at("datasync", f.Name(), datasync(f.File)) }

func (f osFile) WriteOut(off, n int64) error {
	return at("writeout", f.Name(), writeOut(f.File, off, n))
}

func (f osFile) Preallocate(size int64) error {
	if size == 0 {
		return nil
	}
	return at("preallocate", f.Name(), preallocate(f.File, size))
}

func (f osFile) Map(size int64) (Mapping, error) {
	have, err := f.Size()
	if err != nil {
		return nil, err
	}
	// Pages behind the end would fault, and the system call would not say so.
	if size <= 0 || size > have || int64(int(size)) != size {
		return nil, &fs.PathError{Op: "map", Path: f.Name(), Err: syscall.EINVAL}
	}
	m, err := mmap.MapRegion(f.File, int(size), mmap.RDONLY, 0, 0)
	if err != nil {
		return nil, at("map", f.Name(), err)
	}
	return &osMapping{m: m, name: f.Name()}, nil
}

func (f osFile) ReadAtUncached(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, &fs.PathError{Op: "readuncached", Path: f.Name(), Err: syscall.EINVAL}
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := readUncached(f.File, p, off)
	if err == io.EOF {
		return n, err
	}
	return n, at("readuncached", f.Name(), err)
}

// osMapping is owned by whoever mapped it: Close must not race with Bytes.
type osMapping struct {
	m    mmap.MMap
	name string
}

func (m *osMapping) Bytes() []byte { return m.m }

func (m *osMapping) Close() error {
	if m.m == nil {
		return nil
	}
	return at("unmap", m.name, m.m.Unmap())
}

// at adds operation and path to an error that lacks them.
func at(op, name string, err error) error {
	var pe *fs.PathError
	if err == nil || errors.As(err, &pe) {
		return err
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}
