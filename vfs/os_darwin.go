package vfs

import (
	"cmp"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// datasync asks the drive to empty its cache too: fsync alone does not on darwin. A file system that cannot is an
// error, not a weaker promise.
func datasync(f *os.File) error {
	return withFD(f, func(fd int) error {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_FULLFSYNC, 0)
		return err
	})
}

func writeOut(*os.File, int64, int64) error { return nil }

func syncFolder(d *os.File) error { return datasync(d) }

func preallocate(f *os.File, size int64) error {
	if size < 0 {
		return unix.EINVAL
	}
	fi, err := f.Stat()
	if err != nil || fi.Size() >= size {
		return err
	}
	err = withFD(f, func(fd int) error {
		st := unix.Fstore_t{Flags: unix.F_ALLOCATEALL, Posmode: unix.F_PEOFPOSMODE, Length: size - fi.Size()}
		return unix.FcntlFstore(uintptr(fd), unix.F_PREALLOCATE, &st)
	})
	if err == unix.ENOTSUP || err == unix.EINVAL {
		return cmp.Or(extend(f, size), ErrNotReserved)
	}
	return cmp.Or(err, extend(f, size))
}

// tryLock uses flock, which like linux's OFD locks belongs to the open file, not to the process.
func tryLock(f *os.File) (bool, error) {
	err := withFD(f, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if err == unix.EWOULDBLOCK {
		return false, nil
	}
	return err == nil, err
}

func unlock(f *os.File) error {
	return withFD(f, func(fd int) error { return unix.Flock(fd, unix.LOCK_UN) })
}

// isLocked asks with F_GETLK, which sees flock's locks too and takes none.
func isLocked(f *os.File) (bool, error) {
	lk := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	err := withFD(f, func(fd int) error { return unix.FcntlFlock(uintptr(fd), unix.F_GETLK, &lk) })
	return err == nil && lk.Type != unix.F_UNLCK, err
}

// readUncached: F_NOCACHE may still serve cached pages, so it proves nothing.
func readUncached(*os.File, []byte, int64) (int, error) { return 0, ErrUncachedUnsupported }
