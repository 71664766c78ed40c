package runlog

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
	"github.com/runlog-io/runlog/writer"
)

// The vocabulary of the other packages, so that a newcomer needs only this one.
type (
	// Draft is an entry before it is submitted.
	Draft = entry.Draft
	// Entry is a copy of an entry.
	Entry = entry.Entry
	// View is an entry in place; see the call that returns it for how long it is valid.
	View = entry.View
	// Key makes an entry findable.
	Key = entry.Key
	// ID is a 16-byte id, usually a UUID.
	ID = entry.ID
	// Buffer is reusable memory for Get.
	Buffer = wal.Buffer
	// Reader reads a run.
	Reader = wal.Reader
	// ScanOptions select what Scan returns.
	ScanOptions = wal.ScanOptions
	// TailOptions say how Tail follows.
	TailOptions = wal.TailOptions
	// Level says how far a reader sees.
	Level = wal.Level
	// TimeField says which time a scan's bounds are about.
	TimeField = wal.TimeField
	// Compression says whether and how sealed segments are compressed.
	Compression = wal.Compression
	// Preparation is how the space of a segment is prepared.
	Preparation = wal.Preparation
	// Codec is how blocks of a compressed segment are compressed.
	Codec = wal.Codec
	// HaltError says why a run halted.
	HaltError = writer.HaltError
	// HaltReason is why a run halted, in a word.
	HaltReason = writer.Reason
	// Warning is trouble that has not halted the run.
	Warning = writer.Warning
	// SyncPolicy says when entries are made durable.
	SyncPolicy = writer.SyncPolicy
	// Clock gives the time.
	Clock = wal.Clock
	// Manifest says who a run is and how it ended.
	Manifest = manifest.Manifest
	// Status is how a run stands.
	Status = manifest.Status
	// Component is a part of the engine, with the hash of its configuration.
	Component = manifest.Component
	// Error says where something is wrong: file, offset, seqs.
	Error = format.Error
)

// Built-in key kinds, levels, time fields, codecs, preparations, policies, reasons to halt, and states of a run.
const (
	ClientOrderID = entry.ClientOrderID
	VenueOrderID  = entry.VenueOrderID

	DefaultLevel = wal.DefaultLevel
	Durable      = wal.Durable
	Written      = wal.Written
	ByPublish    = wal.ByPublish
	ByInit       = wal.ByInit

	NoCodec = wal.NoCodec
	Zstd    = wal.Zstd
	S2      = wal.S2

	PrepareZeros    = wal.PrepareZeros
	PrepareReserved = wal.PrepareReserved
	PrepareNone     = wal.PrepareNone

	SyncEachCommit = writer.SyncEachCommit
	SyncInterval   = writer.SyncInterval
	SyncNever      = writer.SyncNever

	ReasonStall    = writer.ReasonStall
	ReasonDiskFull = writer.ReasonDiskFull
	ReasonCorrupt  = writer.ReasonCorrupt
	ReasonIO       = writer.ReasonIO
	ReasonAbandon  = writer.ReasonAbandon

	Running          = manifest.Running
	Ended            = manifest.Ended
	CrashedRecovered = manifest.CrashedRecovered
	Quarantined      = manifest.Quarantined
)

// Sentinels for errors.Is.
var (
	ErrCorrupt        = format.ErrCorrupt
	ErrTorn           = format.ErrTorn
	ErrVersion        = format.ErrVersion
	ErrWrongKind      = format.ErrWrongKind
	ErrMissingSegment = format.ErrMissingSegment
	ErrNotRun         = format.ErrNotRun
	ErrNotFound       = format.ErrNotFound
	ErrRemoved        = format.ErrRemoved
	ErrUnknownKind    = format.ErrUnknownKind
	ErrQuarantined    = format.ErrQuarantined
	ErrNotSealed      = format.ErrNotSealed
	ErrInvalid        = format.ErrInvalid
	ErrClosed         = format.ErrClosed
	ErrLocked         = format.ErrLocked
	ErrMappingLost    = format.ErrMappingLost
	ErrHalted         = writer.ErrHalted
	ErrNotDurable     = writer.ErrNotDurable
)

// ParseID reads the UUID text form.
func ParseID(s string) (ID, error) { return entry.ParseID(s) }

// Options of a run. Only Dir and Instance are required; zero means the default in all others. Open copies and checks
// them once; an error names the option.
type Options struct {
	Dir      string // base folder; the run goes to <Dir>/<Instance>/<run-id>/
	Instance string // name of the engine: 1 to 64 of A-Z a-z 0-9 . _ -; only one process at a time can hold it

	// Who the run is. Stored in the manifest and in each segment, never interpreted.
	Build         string
	SchemaVersion string
	ConfigHash    string
	Components    []Component
	Labels        map[string]string
	Seed          *uint64

	// GoWithout lists ids of earlier runs that Open may leave behind although it cannot decide how they ended: see
	// UndecidedError. For an operator who has seen the error; naming the run keeps the permission from outliving it.
	GoWithout []string

	// ContinueFrom is the id of the run of this instance that the new one continues, whatever Open would choose: to replay an
	// older run, or one that ended cleanly, was imported or salvaged. Runs whose process died are recovered all the same. It
	// must be sealed and not quarantined, else Open returns a *ContinueError and changes nothing. "": Open chooses. It is for
	// one start: left in the configuration, every start begins from the same state again.
	ContinueFrom string

	Kinds []string // key kinds beside the built-in ones; more can be declared later

	MaxPayload        int   // bytes; 0: 1 MiB; at most 8 MiB
	SegmentBytes      int64 // planned size of a segment; 0: 64 MiB; 64 KiB to 4 GiB
	FirstSegmentBytes int64 // of the first one, made while Open waits; 0: 4 MiB, or SegmentBytes if less; later ones grow fourfold up to SegmentBytes

	// Prepare is how the space of a segment is prepared before it is used. PrepareZeros, the default, writes zeros over it in the
	// background: the least time for each durable write, and up to twice the bytes on the disk. PrepareReserved only reserves
	// it: each byte is written once, and a commit that begins a new 4 KiB block takes some 90 us longer (ext4). With both, a full
	// disk shows when a segment is prepared. PrepareNone does not even reserve it: no disk space is taken before it is used, a
	// durable write takes as long as in reserved space or longer, and a full disk can fail any commit and leave no room for the
	// halt record. Measured: docs/decisions/2026-11-28-how-segments-are-prepared.md.
	Prepare Preparation

	// Compress has sealed segments compressed in the background while the run is open: zero, the default, does not, since that
	// takes up to half of a processor, and costs whoever reads there later. Commits and seals do not wait for it, nor does Close:
	// what is left, and the last segment, stay plain until a later pass (runlog compress).
	Compress Compression

	QueueBytes   int // of drafts waiting for the next commit; 0: 4 MiB; up to twice that is in memory
	QueueEntries int // the same in entries; 0: 65536
	BatchBytes   int // of one batch; one sync covers all that wait; 0: 1 MiB; cut to a quarter of FirstSegmentBytes
	BatchEntries int // the same in entries; 0: 16384

	CommitDelay time.Duration // longest time from Submit to the start of its commit on a free disk; 0: 1 ms
	IdleMark    time.Duration // time without entries after which a sync mark proves the last commit; 0: 250 ms; negative: only at close
	Sync        SyncPolicy    // 0: SyncEachCommit
	SyncEvery   time.Duration // for SyncInterval; 0: 10 ms
	WarnAfter   time.Duration // a stall is reported; 0: 50 ms; negative: off; not above HaltAfter
	HaltAfter   time.Duration // a stall halts the run; 0: 250 ms; negative: off

	OnHalt func(*HaltError) // called once, on its own goroutine, with no lock held; may call Close
	OnWarn func(Warning)    // must not block

	Synchronous bool          // no goroutines: each Submit commits on the caller's; same input, same bytes. For simulation and tests
	Clock       Clock         // nil: the system's
	FS          vfs.FS        // nil: the real one
	Salts       func() uint64 // nil: random
	Logger      *slog.Logger  // nil: silent
}

func (o *Options) resolve() error {
	if o.Dir == "" {
		return fmt.Errorf("%w: option Dir is empty", ErrInvalid)
	}
	if !manifest.ValidInstance(o.Instance) {
		return fmt.Errorf("%w: option Instance is %.80q: want 1 to 64 of A-Z a-z 0-9 . _ - and no dot first", ErrInvalid, o.Instance)
	}
	if o.ContinueFrom != "" && !manifest.ValidRunID(o.ContinueFrom) {
		return fmt.Errorf("%w: option ContinueFrom is %.80q: want a run's id", ErrInvalid, o.ContinueFrom)
	}
	if o.FS == nil {
		o.FS = vfs.OS
	}
	if o.Clock == nil {
		o.Clock = writer.NewSystemClock()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	kinds := &entry.Kinds{}
	for _, name := range o.Kinds {
		if name == entry.KindID || name == entry.KindCorrID {
			return fmt.Errorf("%w: option Kinds: %q is built in and comes from the entry's own field", ErrInvalid, name)
		}
		var err error
		if kinds, _, err = kinds.With(name); err != nil {
			return fmt.Errorf("option Kinds: %w", err)
		}
	}
	if err := o.Compress.Check(); err != nil {
		return fmt.Errorf("option Compress: %w", err)
	}
	if err := o.Prepare.Check(); err != nil {
		return fmt.Errorf("option Prepare: %w", err)
	}
	id := o.identity(manifest.NewRunID(0, "", 0), "", manifest.OriginEngine, 0)
	if _, err := manifest.EncodeIdentity(id); err != nil {
		return err
	}
	return o.writer().Check()
}

func (o *Options) identity(run, parent, origin string, now int64) manifest.Identity {
	return manifest.Identity{
		Run: run, Parent: parent, Instance: o.Instance, Build: o.Build, SchemaVersion: o.SchemaVersion, ConfigHash: o.ConfigHash,
		Components: o.Components, Labels: o.Labels, Seed: o.Seed, Started: now, Origin: origin,
	}
}

func (o *Options) kinds() []manifest.KeyKind {
	var list []manifest.KeyKind
	for i, k := range o.Kinds {
		list = append(list, manifest.KeyKind{ID: uint32(entry.FirstUserKind) + uint32(i), Name: k})
	}
	return list
}

func (o *Options) wal(dir string, m manifest.Manifest) wal.Options {
	return wal.Options{
		FS: o.FS, Dir: dir, Manifest: m, SegmentBytes: o.SegmentBytes, FirstBytes: o.FirstSegmentBytes,
		Clock: o.Clock, Salts: o.Salts, NoSync: o.Sync == SyncNever, Inline: o.Synchronous, Compress: o.Compress, Prepare: o.Prepare,
		Warn: func(err error) {
			o.Logger.Warn("runlog: housework", "error", err)
			if o.OnWarn != nil {
				o.OnWarn(Warning{Kind: writer.WarnHousework, Err: err})
			}
		},
	}
}

func (o *Options) writer() writer.Options {
	return writer.Options{
		MaxPayload: o.MaxPayload, QueueBytes: o.QueueBytes, QueueEntries: o.QueueEntries, BatchBytes: o.BatchBytes, BatchEntries: o.BatchEntries,
		CommitDelay: o.CommitDelay, IdleMark: o.IdleMark, Sync: o.Sync, SyncEvery: o.SyncEvery, WarnAfter: o.WarnAfter, HaltAfter: o.HaltAfter,
		OnHalt: func(h *HaltError) {
			o.Logger.Error("runlog: halted", "error", h)
			if o.OnHalt != nil {
				o.OnHalt(h)
			}
		},
		OnWarn: func(w Warning) {
			o.Logger.Warn("runlog: " + w.String())
			if o.OnWarn != nil {
				o.OnWarn(w)
			}
		},
		Clock: o.Clock, Synchronous: o.Synchronous,
	}
}
