//go:build !linux && !darwin

package vfs

import "os"

// canWrite is false where nobody has checked that a sync reaches the disk, folders included.
const canWrite = false

func datasync(*os.File) error { return ErrUnsupportedPlatform }

func writeOut(*os.File, int64, int64) error { return nil }

func syncFolder(*os.File) error { return ErrUnsupportedPlatform }

func preallocate(*os.File, int64) error { return ErrUnsupportedPlatform }

func tryLock(*os.File) (bool, error) { return false, ErrUnsupportedPlatform }

func unlock(*os.File) error { return nil }

// isLocked: no writer can run on this platform, so nobody holds the lock.
func isLocked(*os.File) (bool, error) { return false, nil }

func readUncached(*os.File, []byte, int64) (int, error) { return 0, ErrUncachedUnsupported }
