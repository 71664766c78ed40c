package writer

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
)

// ErrHalted is what every *HaltError is, by errors.Is.
var ErrHalted = errors.New("run halted")

// ErrNotDurable: under SyncNever nothing becomes durable before Close.
var ErrNotDurable = errors.New("the sync policy is SyncNever: nothing becomes durable before Close")

// Reason is why a run halted.
type Reason string

// Reasons.
const (
	ReasonStall    Reason = "stall"     // the disk fell too far behind
	ReasonDiskFull Reason = "disk_full" // no space, over quota, or over the file size limit
	ReasonCorrupt  Reason = "corrupt"   // the log's own files do not validate
	ReasonIO       Reason = "io"        // any other error from the file system
	ReasonAbandon  Reason = "abandoned" // the engine gave the run up
)

// Stage is where a stall was seen.
type Stage string

// Stages.
const (
	StageQueue  Stage = "queue"  // a submitter waits for room
	StageCommit Stage = "commit" // a commit is stuck in the disk
	StageAge    Stage = "age"    // the oldest entry is behind its sync policy
)

// HaltError says why a run halted. It is the same for every call after the halt. It wraps ErrHalted and the cause.
type HaltError struct {
	Reason     Reason
	Stage      Stage         // of a stall
	StalledFor time.Duration // of a stall
	Threshold  time.Duration // of a stall
	FirstSeq   uint64        // first seq that was accepted and not durable when the run halted; above LastSeq if there was none
	LastSeq    uint64        // last one
	Time       int64         // ns since 1970 UTC
	Cause      error         // nil for a stall
}

func (e *HaltError) Error() string {
	s := fmt.Sprintf("run halted: %s", e.Reason)
	if e.Reason == ReasonStall {
		s += fmt.Sprintf(" (%s, for %v, threshold %v)", e.Stage, e.StalledFor.Round(time.Microsecond), e.Threshold)
	}
	if e.FirstSeq <= e.LastSeq {
		s += fmt.Sprintf(": seq %d to %d were accepted but are not durable", e.FirstSeq, e.LastSeq)
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Is makes errors.Is(err, ErrHalted) hold.
func (e *HaltError) Is(target error) bool { return target == ErrHalted }

// Unwrap returns the cause.
func (e *HaltError) Unwrap() error { return e.Cause }

func (e *HaltError) record() manifest.Halt {
	h := manifest.Halt{
		Reason: string(e.Reason), Time: e.Time, Accepted: e.LastSeq, Durable: e.FirstSeq - 1,
		Stage: string(e.Stage), StalledNs: int64(e.StalledFor), ThresholdNs: int64(e.Threshold),
	}
	if e.Cause != nil {
		h.Message = e.Cause.Error()
	}
	return h
}

// reasonOf classifies an error of the log.
func reasonOf(err error) Reason {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if errors.Is(err, full) {
			return ReasonDiskFull
		}
	}
	if errors.Is(err, format.ErrCorrupt) || errors.Is(err, format.ErrVersion) {
		return ReasonCorrupt
	}
	return ReasonIO
}

// WarningKind is what a Warning is about.
type WarningKind string

// Warnings.
const (
	WarnStall     WarningKind = "stall"     // WarnAfter has passed
	WarnSuspended WarningKind = "suspended" // the whole process stood still; not counted as a stall
	WarnHousework WarningKind = "housework" // an index or filter could not be written; the log is not affected
)

// Warning is trouble that has not halted the run.
type Warning struct {
	Kind      WarningKind
	Stage     Stage
	For       time.Duration
	Threshold time.Duration
	Err       error
}

func (w Warning) String() string {
	switch w.Kind {
	case WarnStall:
		return fmt.Sprintf("log is behind: %s, for %v (warning at %v)", w.Stage, w.For.Round(time.Microsecond), w.Threshold)
	case WarnSuspended:
		return fmt.Sprintf("the process stood still for %v", w.For.Round(time.Millisecond))
	}
	return fmt.Sprintf("%s: %v", w.Kind, w.Err)
}
