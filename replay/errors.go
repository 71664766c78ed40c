package replay

import (
	"errors"
	"fmt"

	"github.com/runlog-io/runlog/internal/format"
)

// Why a chain cannot be replayed, by errors.Is.
var (
	// ErrNotSealed: a run of the chain has no end yet; see Options.AllowUnsealed.
	ErrNotSealed = format.ErrNotSealed
	// ErrNoAnchor: there is no anchor with a good blob, and Options.RequireAnchor asks for one.
	ErrNoAnchor = errors.New("no anchor can be restored")
	// ErrIncomplete: the log does not go back to where replay would have to begin.
	ErrIncomplete = errors.New("the log does not go back far enough")
	// ErrChain: the readers are not a chain of runs, the newest first.
	ErrChain = errors.New("not a chain of runs")
	// ErrCursor: the place to go on from is not in the chain.
	ErrCursor = errors.New("the cursor is not in the chain")
	// ErrDiverged: replay has made another state of the entries than the engine had. See *DivergenceError.
	ErrDiverged = errors.New("the replayed state differs from the recorded one")
	// ErrIgnored is for rules of a Registry: the entry is none of the engine's business, count it as ignored.
	ErrIgnored = errors.New("ignored")
)

// ChainError says which run is in the way.
type ChainError struct {
	Run string
	Dir string
	Err error
}

func (e *ChainError) Error() string { return fmt.Sprintf("%s: %v", e.Dir, e.Err) }

// Unwrap returns the cause.
func (e *ChainError) Unwrap() error { return e.Err }

// RestoreError: a snapshot could not be restored, although its blob was good when the plan was made.
type RestoreError struct {
	Run    string
	Covers uint64
	Ref    string
	Err    error
}

func (e *RestoreError) Error() string {
	return fmt.Sprintf("run %s: restore the snapshot %.120q that covers seq %d: %v", e.Run, e.Ref, e.Covers, e.Err)
}

// Unwrap returns the cause.
func (e *RestoreError) Unwrap() error { return e.Err }

// EntryError: an entry could not be applied. All entries before it are in the state.
type EntryError struct {
	Run  string
	Seq  uint64
	Type string
	Err  error // a *DecodeError if the payload is not what its type says
}

func (e *EntryError) Error() string {
	return fmt.Sprintf("run %s: seq %d: %s: %v", e.Run, e.Seq, e.Type, e.Err)
}

// Unwrap returns the cause.
func (e *EntryError) Unwrap() error { return e.Err }

// DecodeError: a payload is not what its type says.
type DecodeError struct{ Err error }

func (e *DecodeError) Error() string { return "decode: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *DecodeError) Unwrap() error { return e.Err }

// Divergence is the first difference between the state that replay has made and what the engine recorded.
type Divergence struct {
	Equal     Cursor // the last recorded hash before it that was equal; zero: none was compared before
	Different Cursor // the first that was not: the entry to blame is behind Equal and not behind this one
	Want      []byte // recorded
	Got       []byte
}

// DivergenceError ends a replay at its first divergence.
type DivergenceError struct{ Divergence }

func (e *DivergenceError) Error() string {
	from := "where replay began"
	if e.Equal != (Cursor{}) {
		from = e.Equal.String()
	}
	return fmt.Sprintf("%v: equal at %s, different at %v: want %x, got %x", ErrDiverged, from, e.Different, e.Want, e.Got)
}

// Is makes errors.Is(err, ErrDiverged) hold.
func (e *DivergenceError) Is(target error) bool { return target == ErrDiverged }

// SeqRangeError: a range of seqs that cannot be.
type SeqRangeError struct {
	From, To uint64
	Why      string
}

func (e *SeqRangeError) Error() string {
	return fmt.Sprintf("invalid seq range %d to %d: %s", e.From, e.To, e.Why)
}

// Is makes errors.Is(err, ErrInvalid) hold.
func (e *SeqRangeError) Is(target error) bool { return target == format.ErrInvalid }
