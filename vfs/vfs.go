// Package vfs is the seam between runlog and the file system: the real one (OS), and one in memory (Mem) that remembers
// what was synced, can lose power and fails on request.
//
// Durability contract: bytes written with WriteAt are durable when a later Datasync of the same file has returned nil.
// A name (created, renamed, removed) is durable when a later SyncDir of its folder has returned nil. After a WriteAt or
// Datasync that returned an error the state of the unsynced bytes is unknown, a retry proves nothing, and reads may
// return bytes that never reached the disk; ReadAtUncached tells what the disk holds.
package vfs

import (
	"errors"
	"io"
	"io/fs"
)

// ErrUncachedUnsupported: the file system cannot read past its cache; copy the data to a new file and sync that
// instead.
var ErrUncachedUnsupported = errors.New("uncached reads are not supported here")

// ErrUnsupportedPlatform: the platform cannot keep the durability contract, so runlog refuses to write there.
var ErrUnsupportedPlatform = errors.New("runlog does not support writing on this platform")

// ErrNotReserved: the file system cannot reserve space; the file was only extended.
var ErrNotReserved = errors.New("space cannot be reserved here")

// FS is a file system. Names are slash- or OS-separated paths as the implementation documents; all methods are safe for
// concurrent use. Errors satisfy errors.Is for fs.ErrNotExist, fs.ErrExist and syscall.Errno as package os's do.
type FS interface {
	// Create makes a new file for reading and writing; it fails with fs.ErrExist when the name is taken.
	Create(name string) (File, error)
	// Open opens an existing file for reading and writing.
	Open(name string) (File, error)
	// OpenRead opens an existing file for reading only; it works on read-only media.
	OpenRead(name string) (File, error)
	// Rename moves a file or folder; an existing file of the new name is replaced atomically.
	Rename(oldName, newName string) error
	// Remove removes a file or an empty folder.
	Remove(name string) error
	// MkdirAll makes a folder and its missing parents and syncs the parent of each folder it made. It does not sync the
	// parents of folders that are there already: a process that died may have made them without.
	MkdirAll(dir string) error
	// ReadDir lists a folder, sorted by name.
	ReadDir(dir string) ([]fs.DirEntry, error)
	// Stat describes a name.
	Stat(name string) (fs.FileInfo, error)
	// SyncDir makes the names in a folder durable.
	SyncDir(dir string) error
	// Lock takes an exclusive advisory lock on name, creating the file if need be, or fails at once with a
	// *LockedError. On success the file's content is replaced with holder. Closing releases the lock, as does the
	// process's death. The file stays.
	Lock(name string, holder []byte) (io.Closer, error)
	// LockHolder returns the content of a lock file if somebody holds the lock, else (the file may be missing) held is
	// false. It takes no lock and changes nothing.
	LockHolder(name string) (holder []byte, held bool, err error)
}

// File is an open file. ReadAt and WriteAt may be called concurrently; neither moves a position.
type File interface {
	io.ReaderAt // a read past the end returns io.EOF with the bytes there are
	io.WriterAt // a write past the end extends the file
	io.Closer
	Name() string
	Size() (int64, error)
	Truncate(size int64) error
	// Datasync makes the content and the size durable (fdatasync; F_FULLFSYNC on darwin).
	Datasync() error
	// WriteOut asks for the bytes at [off, off+n) to be written to the device from now on, and does not wait for the device,
	// unless its queue is full. It makes nothing durable: that is Datasync's. An error is one of a write, and may not come
	// again out of Datasync. Where it cannot be done it does nothing.
	WriteOut(off, n int64) error
	// Preallocate reserves disk space for [0, size) and extends the file to size if it is shorter; the new bytes read as
	// zeros. Where the file system cannot reserve, it only extends, and says so with ErrNotReserved.
	Preallocate(size int64) error
	// Map maps the first size bytes read-only; asking for none, or for more than there are, fails with EINVAL. The file
	// may be closed while the mapping lives.
	Map(size int64) (Mapping, error)
	// ReadAtUncached reads from the disk, not from the page cache, or fails with ErrUncachedUnsupported. Any offset
	// and length will do; alignment is its own business. Bytes that were only waiting to be written are written first,
	// which does not make them durable: the device may hold them in a volatile cache until a Datasync.
	ReadAtUncached(p []byte, off int64) (int, error)
}

// Mapping is a read-only view of a file's bytes. Access after Close, or to pages behind the end of a file that was cut
// short, faults.
type Mapping interface {
	Bytes() []byte
	io.Closer
}

// LockedError: somebody holds the lock. It wraps nothing; use errors.As.
type LockedError struct {
	Name   string
	Holder []byte // content of the lock file, as far as it could be read
}

func (e *LockedError) Error() string {
	return e.Name + ": locked by " + string(e.Holder)
}

// ReadFile returns the whole content of a file that is at most limit bytes long.
func ReadFile(fsys FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.OpenRead(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("file is larger than its kind can be")}
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); err != nil && (err != io.EOF || int64(n) != size) {
		return nil, err
	}
	return b, nil
}

// WriteFileAtomic replaces name with data so that after a crash it is the old or the new content: write to
// name + ".tmp", sync, rename, sync the folder dir.
func WriteFileAtomic(fsys FS, dir, name string, data []byte) error {
	tmp := name + ".tmp"
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Create(tmp)
	if err != nil {
		return err
	}
	const piece = 1 << 20 // so that a large file does not keep other files' syncs waiting
	for off := 0; err == nil && (off == 0 || off < len(data)); off += piece {
		if _, err = f.WriteAt(data[off:min(off+piece, len(data))], int64(off)); err == nil {
			err = f.Datasync()
		}
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fsys.Rename(tmp, name)
	}
	if err == nil {
		err = fsys.SyncDir(dir)
	}
	return err
}
