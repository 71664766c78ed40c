// Package anchor says which snapshots of an engine's state exist and which part of the log each of them covers, so that a
// restart needs a snapshot and the entries behind it, and not the whole log.
//
// The snapshot itself, the blob, lies in a BlobStore, outside the log. The anchor is a note in the log: it names the blob
// by reference, size and SHA-256, and the seq that the snapshot covers. A run keeps all its anchors, so a blob that is
// lost or damaged costs a longer replay and nothing else.
//
// An anchor is made by runlog's Run.Anchor, which has the store make the blob durable first and records the note behind
// everything that was submitted earlier. Durable means here what the store's Put promises; of DirStore it is what
// package vfs promises. List and Check read the anchors of any run. Slices that this package decodes are copies.
package anchor

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"github.com/runlog-io/runlog/internal/format"
)

// Anchor is one snapshot of the engine's whole state.
type Anchor struct {
	// Covers is the last seq whose effects the snapshot holds, those of all earlier runs of the chain included. Replay
	// goes on behind it and applies nothing up to it, so the snapshot must be of everything that replay would rebuild.
	Covers uint64
	Taken  int64             // ns since 1970 UTC
	Size   int64             // of the blob, bytes
	SHA256 [sha256.Size]byte // of the blob
	Ref    string            // names the blob in its store
}

// StateHash is what the engine's state was like behind an entry, in a hash of the engine's choice.
type StateHash struct {
	Seq  uint64
	Hash []byte
}

// Limits.
const (
	MaxRef  = 1024 // bytes of a reference
	MaxHash = 64   // bytes of a state hash
)

// Where the fields of the bodies are.
const (
	anCovers = 0
	anTaken  = 8
	anSize   = 16
	anSHA    = 24
	anRef    = anSHA + sha256.Size

	shSeq  = 0
	shHash = 8
)

// MaxHashBody bounds the body of a state hash, for callers that keep it on their stack.
const MaxHashBody = shHash + MaxHash

var le = binary.LittleEndian

// Check says whether the anchor keeps the limits.
func (a *Anchor) Check() error {
	switch {
	case a.Covers == 0:
		return fmt.Errorf("%w: an anchor that covers seq 0; seqs begin at 1", format.ErrInvalid)
	case a.Size < 0:
		return fmt.Errorf("%w: an anchor's blob of %d bytes", format.ErrInvalid, a.Size)
	case len(a.Ref) == 0 || len(a.Ref) > MaxRef || !utf8.ValidString(a.Ref):
		return fmt.Errorf("%w: an anchor's reference %.120q of %d bytes: want 1 to %d of UTF-8", format.ErrInvalid, a.Ref, len(a.Ref), MaxRef)
	}
	return nil
}

// Append appends the body of the anchor's note to dst; see docs/format/notes.md.
func (a *Anchor) Append(dst []byte) ([]byte, error) {
	if err := a.Check(); err != nil {
		return dst, err
	}
	dst = le.AppendUint64(dst, a.Covers)
	dst = le.AppendUint64(dst, uint64(a.Taken))
	dst = le.AppendUint64(dst, uint64(a.Size))
	dst = append(dst, a.SHA256[:]...)
	return append(dst, a.Ref...), nil
}

// Decode reads the body of an anchor's note. One that cannot be is ErrCorrupt.
func Decode(body []byte) (a Anchor, err error) {
	if len(body) <= anRef {
		return a, fmt.Errorf("decode snapshot anchor: %d bytes are too few: %w", len(body), format.ErrCorrupt)
	}
	a = Anchor{Covers: le.Uint64(body[anCovers:]), Taken: int64(le.Uint64(body[anTaken:])), Size: int64(le.Uint64(body[anSize:])),
		Ref: string(body[anRef:])}
	copy(a.SHA256[:], body[anSHA:])
	if err := a.Check(); err != nil {
		return Anchor{}, fmt.Errorf("decode snapshot anchor: %v: %w", err, format.ErrCorrupt)
	}
	return a, nil
}

// AppendStateHash appends the body of a state hash's note to dst.
func AppendStateHash(dst []byte, seq uint64, hash []byte) ([]byte, error) {
	switch {
	case seq == 0:
		return dst, fmt.Errorf("%w: a state hash behind seq 0; seqs begin at 1", format.ErrInvalid)
	case len(hash) == 0 || len(hash) > MaxHash:
		return dst, fmt.Errorf("%w: a state hash of %d bytes: want 1 to %d", format.ErrInvalid, len(hash), MaxHash)
	}
	return append(le.AppendUint64(dst, seq), hash...), nil
}

// DecodeStateHash reads the body of a state hash's note. One that cannot be is ErrCorrupt.
func DecodeStateHash(body []byte) (StateHash, error) {
	if len(body) <= shHash || len(body) > MaxHashBody || le.Uint64(body[shSeq:]) == 0 {
		return StateHash{}, fmt.Errorf("decode state hash: %d bytes: %w", len(body), format.ErrCorrupt)
	}
	return StateHash{Seq: le.Uint64(body[shSeq:]), Hash: append([]byte(nil), body[shHash:]...)}, nil
}

// OrderError: an anchor or a state hash is about a seq that it cannot be about. It is the caller's mistake, changes
// nothing and halts nothing.
type OrderError struct {
	What     string // "anchor" or "state hash"
	Seq      uint64
	Accepted uint64 // last seq of the run then
	Previous uint64 // what the one before was about
}

func (e *OrderError) Error() string {
	switch {
	case e.Seq == 0:
		return fmt.Sprintf("%s for seq 0, and seqs begin at 1", e.What)
	case e.Seq > e.Accepted:
		return fmt.Sprintf("%s for seq %d, and the last seq is %d", e.What, e.Seq, e.Accepted)
	}
	return fmt.Sprintf("%s for seq %d behind one for seq %d", e.What, e.Seq, e.Previous)
}

// Is makes errors.Is(err, ErrInvalid) hold.
func (e *OrderError) Is(target error) bool { return target == format.ErrInvalid }

// CheckOrder returns nil, or the *OrderError.
func CheckOrder(what string, seq, previous, accepted uint64) error {
	if seq == 0 || seq > accepted || seq < previous {
		return &OrderError{What: what, Seq: seq, Accepted: accepted, Previous: previous}
	}
	return nil
}
