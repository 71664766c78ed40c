package wal

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io/fs"
	"time"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

var errNotExist = fs.ErrNotExist

// Clock gives the time. Implementations are safe for concurrent use.
type Clock interface {
	Now() int64 // ns since 1970 UTC
}

// Options of a Log. The zero value of each field is useful except where noted.
type Options struct {
	FS           vfs.FS // required
	Dir          string // required: the run's folder, which Create makes; its parent exists
	Manifest     manifest.Manifest
	SegmentBytes int64 // planned size of a segment; 0: 64 MiB; between 64 KiB and 4 GiB
	FirstBytes   int64 // of the first segment; sizes grow fourfold up to SegmentBytes; 0: 4 MiB or SegmentBytes if that is less
	Clock        Clock // required
	Salts        func() uint64
	// Prepare is how the space of a segment is prepared; the zero value writes zeros over it beforehand.
	Prepare Preparation
	// NoSync leaves out the syncs that rotation needs for its order: with it a power cut can take any part of the log.
	NoSync bool
	// Inline does everything on the caller's goroutine, for determinism.
	Inline bool
	// Background runs a task beside the writer: the making of a spare, the sealing of finished segments. It must not run
	// it on the spot. Whoever needs what a task makes before it was begun does it himself, and the task, if it comes at
	// all, finds nothing to do; so a driver may begin tasks late, in any order, or never. nil: a goroutine each.
	Background func(task func())
	// Compress says whether and how sealed segments are compressed in the background. The zero value: they are not, since
	// the processors are the engine's.
	Compress Compression
	// Warn receives trouble that does not endanger the log, such as an index that could not be written. It must not
	// block.
	Warn func(error)

	rests bool // background work takes pauses: nobody drives it
}

// Default sizes.
const (
	DefaultSegmentBytes = 64 << 20
	DefaultFirstBytes   = 4 << 20
	maxRoutes           = 16384 // beyond it, topics and types are written inline
	maxOpenFiles        = 512   // finished files that a reader keeps mapped whatever others do, and compressed ones that it keeps open
)

func (o *Options) resolve() error {
	if o.FS == nil || o.Dir == "" || o.Clock == nil {
		return fmt.Errorf("%w: FS, Dir and Clock are required", format.ErrInvalid)
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = DefaultSegmentBytes
	}
	if o.FirstBytes == 0 {
		o.FirstBytes = min(DefaultFirstBytes, o.SegmentBytes)
	}
	if o.SegmentBytes < segment.MinSegment || o.SegmentBytes > segment.MaxSegment {
		return fmt.Errorf("%w: SegmentBytes %d: want %d to %d", format.ErrInvalid, o.SegmentBytes, segment.MinSegment, int64(segment.MaxSegment))
	}
	if o.FirstBytes < segment.MinSegment || o.FirstBytes > o.SegmentBytes {
		return fmt.Errorf("%w: FirstSegmentBytes %d: want %d to SegmentBytes", format.ErrInvalid, o.FirstBytes, segment.MinSegment)
	}
	if o.Salts == nil {
		o.Salts = randomSalt
	}
	if err := o.Compress.Check(); err != nil {
		return fmt.Errorf("option Compress: %w", err)
	}
	if err := o.Prepare.Check(); err != nil {
		return fmt.Errorf("option Prepare: %w", err)
	}
	if o.Background == nil {
		o.rests = !o.Inline
		o.Background = func(task func()) { go task() }
	}
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	return nil
}

func randomSalt() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}

// plannedSize is the size of segment n.
func (o *Options) plannedSize(n uint32) int64 {
	size := o.FirstBytes
	for i := uint32(1); i < n && size < o.SegmentBytes; i++ {
		size *= 4
	}
	return min(size, o.SegmentBytes)
}

// MaxBatchBytes bounds the arena bytes of one batch so that it fits into the smallest segment with room to spare.
func (l *Log) MaxBatchBytes() int { return int(l.o.FirstBytes / 4) }

// fillPause is how long the spare's zero-filler rests between pieces, so that commits find the disk free.
const fillPause = 500 * time.Microsecond
