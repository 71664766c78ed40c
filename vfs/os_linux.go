package vfs

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// directAlign suits every block size that O_DIRECT asks for in practice; a device that wants more says EINVAL.
	directAlign = 4096
	// directBufBytes bounds the aligned buffer of one ReadAtUncached call.
	directBufBytes = 1 << 20
)

func datasync(f *os.File) error { return withFD(f, unix.Fdatasync) }

// writeOut returns what a file system says when it finds no place for the bytes: the kernel need not keep that for the sync.
func writeOut(f *os.File, off, n int64) error {
	err := withFD(f, func(fd int) error { return unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE) })
	switch err {
	case unix.ENOSYS, unix.EPERM, unix.EINVAL, unix.ESPIPE, unix.EOPNOTSUPP:
		return nil // it cannot be done here, or a sandbox does not allow it
	}
	return err
}

func syncFolder(d *os.File) error { return withFD(d, unix.Fsync) }

func preallocate(f *os.File, size int64) error {
	err := withFD(f, func(fd int) error { return unix.Fallocate(fd, 0, 0, size) })
	if err == unix.EOPNOTSUPP || err == unix.ENOSYS {
		return cmp.Or(extend(f, size), ErrNotReserved)
	}
	return err
}

// wholeFile describes an exclusive lock of an open file description: unlike a process's, it also excludes a second open
// in the same process and does not vanish when an unrelated descriptor of the file is closed.
func wholeFile() unix.Flock_t { return unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart} }

func tryLock(f *os.File) (bool, error) {
	err := withFD(f, func(fd int) error {
		lk := wholeFile()
		return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &lk)
	})
	if err == unix.EAGAIN || err == unix.EACCES {
		return false, nil
	}
	return err == nil, err
}

func unlock(f *os.File) error {
	return withFD(f, func(fd int) error {
		lk := wholeFile()
		lk.Type = unix.F_UNLCK
		return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &lk)
	})
}

func isLocked(f *os.File) (bool, error) {
	lk := wholeFile()
	err := withFD(f, func(fd int) error {
		return unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &lk)
	})
	return err == nil && lk.Type != unix.F_UNLCK, err
}

// readUncached reads through a second, O_DIRECT descriptor of the same inode (its name may be gone or mean another file
// by now). The kernel may report an older failed write-back of the file here: that is not retried.
func readUncached(f *os.File, p []byte, off int64) (int, error) {
	d := -1
	err := withFD(f, func(fd int) (err error) {
		d, err = unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) { // no /proc
		return 0, ErrUncachedUnsupported
	}
	if err != nil {
		return 0, noDirect(err)
	}
	defer unix.Close(d)

	end := off + int64(len(p))
	pos := off &^ (directAlign - 1)
	buf := alignedBuf(min(roundUp(end-pos), directBufBytes))
	n := 0
	for {
		got, err := unix.Pread(d, buf[:min(roundUp(end-pos), int64(len(buf)))], pos)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return n, noDirect(err)
		}
		if skip := int(off + int64(n) - pos); got > skip {
			n += copy(p[n:], buf[skip:got])
		}
		if n == len(p) {
			return n, nil
		}
		if got == 0 || got%directAlign != 0 { // only the end of the file cuts a block
			return n, io.EOF
		}
		pos += int64(got)
	}
}

// noDirect tells "cannot do O_DIRECT" from real read errors.
func noDirect(err error) error {
	if err == unix.EINVAL || err == unix.EOPNOTSUPP || err == unix.ENOSYS {
		return ErrUncachedUnsupported
	}
	return err
}

func roundUp(n int64) int64 { return (n + directAlign - 1) &^ (directAlign - 1) }

func alignedBuf(size int64) []byte {
	b := make([]byte, size+directAlign)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (directAlign - 1)
	return b[skip:][:size:size]
}
