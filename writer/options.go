package writer

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/wal"
)

// SyncPolicy says when written entries are made durable.
type SyncPolicy uint8

const (
	// SyncEachCommit: what waits is written, in one batch or more, and then synced. Nothing acknowledged is ever lost.
	SyncEachCommit SyncPolicy = iota
	// SyncInterval: a sync every SyncEvery. A power cut can take what was submitted since the last one; all of it is
	// above the durable watermark. A killed process loses nothing that was written.
	SyncInterval
	// SyncNever: syncs only at close. A power cut can take any part of the log, and nothing is proven: the durable
	// watermark stays at 0 and WaitDurable refuses.
	SyncNever
)

// Options of a Writer. The zero value is useful.
type Options struct {
	MaxPayload   int // bytes; 0: 1 MiB
	QueueBytes   int // of drafts that wait for the next sync, at least one draft; 0: 4 MiB. Twice that may be in memory.
	QueueEntries int // the same in entries; 0: 65536
	BatchBytes   int // of drafts in one batch; 0: 1 MiB; what Log.MaxBatchBytes allows at most
	BatchEntries int // the same in entries; 0: 16384

	// CommitDelay is the longest time from Submit to the start of its commit while the disk is free; 0: 1 ms. The
	// operating system's timers can add to it. WaitDurable and Flush do not wait for it.
	CommitDelay time.Duration
	// IdleMark is the time without entries after which a sync mark proves the last commit; 0: 250 ms; negative:
	// only at close. The first Submit after that has to wake the writer's goroutine, which costs it a few microseconds.
	IdleMark time.Duration

	Sync      SyncPolicy
	SyncEvery time.Duration // for SyncInterval; 0: 10 ms

	// WarnAfter and HaltAfter bound how long a submitter may wait for room, a commit may be stuck in the disk, and
	// the oldest entry may be behind CommitDelay and its sync policy. 0: 50 ms and 250 ms; negative: off. They are
	// not watched in synchronous mode.
	WarnAfter time.Duration
	HaltAfter time.Duration

	OnHalt func(*HaltError) // called once, on its own goroutine, with no lock held; it may call Close
	OnWarn func(Warning)    // called by the writer's goroutines; it must not block

	Clock       wal.Clock // nil: the system's
	Synchronous bool      // every Submit commits, on the caller's goroutine; same input, same bytes
	Manual      bool      // nothing happens by itself: a driver calls Step; for deterministic tests
	KeepPublish bool      // take a draft's TsPublish if it is set; for imports
}

// Check says whether New would accept the options; the error names the option.
func (o Options) Check() error { return o.resolve(o.BatchBytes) }

func (o *Options) resolve(maxBatch int) error {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.MaxPayload, entry.DefaultMaxPayload)
	def(&o.QueueBytes, 4<<20)
	def(&o.QueueEntries, 65536)
	def(&o.BatchBytes, 1<<20)
	def(&o.BatchEntries, 16384)
	durations := []struct {
		v *time.Duration
		d time.Duration
	}{
		{&o.CommitDelay, time.Millisecond}, {&o.IdleMark, 250 * time.Millisecond}, {&o.SyncEvery, 10 * time.Millisecond},
		{&o.WarnAfter, 50 * time.Millisecond}, {&o.HaltAfter, 250 * time.Millisecond},
	}
	for _, p := range durations {
		if *p.v == 0 {
			*p.v = p.d
		}
	}
	for _, c := range []struct {
		name     string
		v, lo, n int64
	}{
		{"MaxPayload", int64(o.MaxPayload), 1, entry.MaxPayload},
		{"QueueBytes", int64(o.QueueBytes), 1, 1 << 30},
		{"QueueEntries", int64(o.QueueEntries), 1, 1 << 28},
		{"BatchBytes", int64(o.BatchBytes), 1, 1 << 30},
		{"BatchEntries", int64(o.BatchEntries), 1, 1 << 28},
		{"CommitDelay", int64(o.CommitDelay), 1, int64(time.Hour)},
		{"SyncEvery", int64(o.SyncEvery), 1, int64(time.Hour)},
		{"Sync", int64(o.Sync), 0, int64(SyncNever)},
	} {
		if c.v < c.lo || c.v > c.n {
			return fmt.Errorf("%w: option %s is %d, want %d to %d", format.ErrInvalid, c.name, c.v, c.lo, c.n)
		}
	}
	if o.WarnAfter > 0 && o.HaltAfter > 0 && o.WarnAfter > o.HaltAfter {
		return fmt.Errorf("%w: option WarnAfter (%v) is above HaltAfter (%v)", format.ErrInvalid, o.WarnAfter, o.HaltAfter)
	}
	o.BatchBytes = min(o.BatchBytes, maxBatch)
	if o.Clock == nil {
		o.Clock = NewSystemClock()
	}
	if o.OnWarn == nil {
		o.OnWarn = func(Warning) {}
	}
	return nil
}

// Log is what a Writer writes to; *wal.Log is one. Only one goroutine at a time calls it, except for Kinds and the
// watermarks.
type Log interface {
	Append(b *entry.Batch, from, to int, firstSeq uint64) error
	Sync() error
	Mark() error
	Fail(h manifest.Halt) error
	Seal(status manifest.Status) error
	Abandon()
	Kinds() *entry.Kinds
	Written() *wal.Watermark
	Durable() *wal.Watermark
}

// SystemClock tells the time with one reading of the monotonic clock, and follows steps of the wall clock within a
// second.
type SystemClock struct {
	base atomic.Pointer[clockBase]
}

type clockBase struct {
	mono time.Time
	wall int64
}

// NewSystemClock returns a clock that agrees with the system's.
func NewSystemClock() *SystemClock {
	c := &SystemClock{}
	c.Adjust()
	return c
}

// Now returns ns since 1970 UTC.
func (c *SystemClock) Now() int64 {
	b := c.base.Load()
	return b.wall + int64(time.Since(b.mono))
}

// Adjust follows the wall clock. The writer's goroutine calls it now and then.
func (c *SystemClock) Adjust() {
	now := time.Now()
	c.base.Store(&clockBase{mono: now, wall: now.UnixNano()})
}
