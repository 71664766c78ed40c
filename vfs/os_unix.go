//go:build linux || darwin

package vfs

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

const canWrite = true

// withFD calls do with the file's descriptor, which cannot be closed meanwhile. An interrupted call (EINTR) is made
// again: the kernel has done nothing yet. No other error is retried.
func withFD(f *os.File, do func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := conn.Control(func(fd uintptr) {
		for {
			if err = do(int(fd)); err != unix.EINTR {
				return
			}
		}
	})
	if cerr != nil {
		return fs.ErrClosed // the only way Control fails
	}
	return err
}

// extend is Preallocate where space cannot be reserved.
func extend(f *os.File, size int64) error {
	fi, err := f.Stat()
	if err != nil || fi.Size() >= size {
		return err
	}
	return f.Truncate(size)
}
