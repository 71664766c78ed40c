// Package format holds what all files of a run share: the sentinel errors, the located error, the mixing functions and
// the file prelude. The layout is specified in docs/format.
package format

import (
	"errors"
	"fmt"
	"strings"
)

// Sentinels. Every error about a file's content wraps one of them; the public packages re-export them.
var (
	// ErrCorrupt: bytes that were durable are damaged, missing or not where they belong.
	ErrCorrupt = errors.New("corrupt")
	// ErrTorn: the log ends in bytes of which nothing proves that they were acknowledged.
	ErrTorn = errors.New("torn tail")
	// ErrVersion: a valid file of a version that this build does not read.
	ErrVersion = errors.New("unknown format version")
	// ErrWrongKind: a runlog file, but of another kind than its name says.
	ErrWrongKind = errors.New("file of another kind")
	// ErrMissingSegment: a segment that another one names is not there. It is corruption too.
	ErrMissingSegment = fmt.Errorf("missing segment: %w", ErrCorrupt)
	// ErrNotRun: the folder holds no run.
	ErrNotRun = errors.New("not a run")
	// ErrNotFound: no entry with that seq.
	ErrNotFound = errors.New("no such entry")
	// ErrRemoved: entries, or a run, that retention has removed. What is left is whole.
	ErrRemoved = errors.New("removed by retention")
	// ErrUnknownKind: a key kind that the run does not declare.
	ErrUnknownKind = errors.New("undeclared key kind")
	// ErrQuarantined: the run is quarantined.
	ErrQuarantined = errors.New("run is quarantined")
	// ErrNotSealed: the run has not ended, or its process has died and no boot has recovered it yet.
	ErrNotSealed = errors.New("run is not sealed")
	// ErrInvalid: an argument, option or draft that breaks a documented limit.
	ErrInvalid = errors.New("invalid")
	// ErrClosed: the run or reader was closed. Not a halt.
	ErrClosed = errors.New("closed")
	// ErrLocked: another process (or this one) holds the instance.
	ErrLocked = errors.New("instance is locked")
	// ErrMappingLost: a mapped file was cut short under a reader.
	ErrMappingLost = errors.New("mapped file was cut short")
)

// Error says where something is wrong. It wraps a sentinel; use errors.Is and errors.As.
type Error struct {
	Path     string // file
	Offset   int64  // in the file, -1 when it does not apply
	FirstSeq uint64 // first seq that is affected, 0 when unknown
	LastSeq  uint64 // last seq that is affected, 0 when unknown
	Why      string // what was expected
	Err      error  // sentinel or cause
}

func (e *Error) Error() string {
	parts := make([]string, 0, 5)
	if e.Path != "" {
		parts = append(parts, e.Path)
	}
	if e.Offset >= 0 {
		parts = append(parts, fmt.Sprintf("offset %d", e.Offset))
	}
	switch {
	case e.FirstSeq != 0 && e.LastSeq > e.FirstSeq:
		parts = append(parts, fmt.Sprintf("seq %d to %d", e.FirstSeq, e.LastSeq))
	case e.FirstSeq != 0:
		parts = append(parts, fmt.Sprintf("seq %d", e.FirstSeq))
	}
	if e.Why != "" {
		parts = append(parts, e.Why)
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	return strings.Join(parts, ": ")
}

func (e *Error) Unwrap() error { return e.Err }

// ErrOlder is ErrVersion for a file of an earlier version. One that is derived can be written anew: nobody who wrote it
// knew more than this build.
var ErrOlder error = older{}

type older struct{}

func (older) Error() string { return ErrVersion.Error() }

// Is makes errors.Is(err, ErrVersion) hold.
func (older) Is(target error) bool { return target == ErrVersion }
