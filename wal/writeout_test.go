package wal

import (
	"errors"
	"syscall"
	"testing"

	"github.com/runlog-io/runlog/vfs"
)

// noPlace is a file system that finds no place for what it has taken only when it is to write it out.
type noPlace struct{ vfs.FS }

type noPlaceFile struct{ vfs.File }

func (n noPlace) Open(name string) (vfs.File, error) {
	f, err := n.FS.Open(name)
	return noPlaceFile{f}, err
}

func (noPlaceFile) WriteOut(int64, int64) error { return syscall.ENOSPC }

func TestAFailedWriteOutIsAFailedWrite(t *testing.T) {
	g := newRig(t, func(o *Options) {
		o.FS = noPlace{o.FS}
		o.FirstBytes, o.SegmentBytes = 4<<20, 4<<20
	})
	g.fill(3, 100) // too small to be written out beforehand
	durable := g.log.Durable().Load()
	if err := g.add(draft(4, writeOutBytes)); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("append: %v", err)
	}
	if err := g.log.Sync(); !errors.Is(err, syscall.ENOSPC) || g.log.Written().Load() != 3 || g.log.Durable().Load() != durable {
		t.Fatalf("sync after it: %v, written %d, durable %d of %d", err, g.log.Written().Load(), g.log.Durable().Load(), durable)
	}
}
