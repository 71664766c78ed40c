package entry

import (
	"fmt"

	"github.com/runlog-io/runlog/internal/format"
)

// NoteKind says what a note is about. The values are those of the frames' kinds.
type NoteKind uint8

// Kinds of notes.
const (
	NoteAnchor    NoteKind = 0x08 // a snapshot of the engine's state was taken
	NoteStateHash NoteKind = 0x09 // the hash of the engine's state
	NoteStreams   NoteKind = 0x0a // all streams that the engine has seen, with their cursors
	NoteCursor    NoteKind = 0x0b // cursors of streams that have advanced
	NoteMarker    NoteKind = 0x0c // one item of a stream
	NoteGap       NoteKind = 0x0d // markers were dropped
)

// MaxNote is the greatest size of a note's body, in bytes.
const MaxNote = 64 << 10

// Valid reports whether k is one of the kinds above.
func (k NoteKind) Valid() bool { return k >= NoteAnchor && k <= NoteGap }

// Indexed reports whether notes of the kind are few and sought, so that the indexes list them. The others are found by
// reading the part of the log in which they lie.
func (k NoteKind) Indexed() bool { return k.Valid() && k != NoteCursor && k != NoteMarker }

func (k NoteKind) String() string {
	switch k {
	case NoteAnchor:
		return "anchor"
	case NoteStateHash:
		return "state hash"
	case NoteStreams:
		return "streams"
	case NoteCursor:
		return "cursor"
	case NoteMarker:
		return "marker"
	case NoteGap:
		return "marker gap"
	}
	return fmt.Sprintf("note kind %#x", uint8(k))
}

// Note is a record of the log that has no seq: it stands behind the entry with seq After (0: before the first one) and
// before the next.
type Note struct {
	Kind  NoteKind
	After uint64
	Body  []byte
}

// CheckNote says whether a note keeps the limits.
func CheckNote(kind NoteKind, body []byte) error {
	if !kind.Valid() {
		return fmt.Errorf("%w: %s", format.ErrInvalid, kind)
	}
	if len(body) > MaxNote {
		return fmt.Errorf("%w: %s of %d bytes, the limit is %d", format.ErrInvalid, kind, len(body), MaxNote)
	}
	return nil
}

// noteRecord is one note in the arena.
type noteRecord struct {
	before int // drafts that were added before it
	start  uint32
	end    uint32
	kind   NoteKind
}

// noteCost bounds what a frame takes beside its body.
const noteCost = 24

// AddNote appends a checked note, behind the drafts that were added so far. It copies body.
func (b *Batch) AddNote(kind NoteKind, body []byte) {
	start := len(b.buf)
	b.buf = append(b.buf, body...)
	b.notes = append(b.notes, noteRecord{before: len(b.recs), start: uint32(start), end: uint32(len(b.buf)), kind: kind})
}

// Notes is the number of notes.
func (b *Batch) Notes() int { return len(b.notes) }

// NoteAt returns note i and the number of drafts before it; the body is valid until the batch changes.
func (b *Batch) NoteAt(i int) (before int, kind NoteKind, body []byte) {
	n := &b.notes[i]
	return n.before, n.kind, b.buf[n.start:n.end:n.end]
}

// NoteCost bounds the bytes that note i takes in a segment.
func (b *Batch) NoteCost(i int) int {
	n := &b.notes[i]
	return int(n.end-n.start) + noteCost
}

// NotesBetween returns the numbers of the notes, from i to before j, that belong to the drafts from to before to: those
// behind one of them, and those before the very first draft.
func (b *Batch) NotesBetween(from, to int) (i, j int) {
	for i < len(b.notes) && from > 0 && b.notes[i].before <= from {
		i++
	}
	for j = i; j < len(b.notes) && b.notes[j].before <= to; j++ {
	}
	return i, j
}
