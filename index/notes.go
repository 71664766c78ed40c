package index

import (
	"encoding/binary"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
)

// NoteRef says where a note stands in its segment.
type NoteRef struct {
	Kind   entry.NoteKind
	After  uint64 // seq of the last entry before it
	Offset int64  // of its frame
}

// maxNotes bounds what a section of notes may say, and so what reading it takes.
const maxNotes = maxEntries

// AddNote takes the next note whose kind is indexed. It comes behind the entries that were added so far; offsets grow and
// are multiples of 8.
func (b *Builder) AddNote(kind entry.NoteKind, offset int64) {
	notes := *b.notes.Load()
	last := int64(-1)
	if n := len(notes); n > 0 {
		last = notes[n-1].Offset
	}
	if !kind.Indexed() || offset <= last || offset >= maxOffset || offset&7 != 0 || len(notes) >= maxNotes {
		b.fail("%s at offset %d, after %d notes", kind, offset, len(notes))
		return
	}
	// Readers keep the header that they have loaded; the array only grows behind its end.
	more := append(notes, NoteRef{Kind: kind, After: b.firstSeq + b.entries.Load() - 1, Offset: offset})
	b.notes.Store(&more)
}

// Notes returns the notes that were added, in order. The slice must not be changed.
func (b *Builder) Notes() []NoteRef { return *b.notes.Load() }

// appendNotes appends the section without its check.
func appendNotes(dst []byte, b *Builder) []byte {
	notes := b.Notes()
	dst = binary.AppendUvarint(dst, uint64(len(notes)))
	after, offset := b.firstSeq-1, int64(0)
	for _, n := range notes {
		dst = append(dst, byte(n.Kind))
		dst = binary.AppendUvarint(dst, n.After-after)
		dst = binary.AppendUvarint(dst, uint64(n.Offset-offset)>>3)
		after, offset = n.After, n.Offset
	}
	return dst
}

// Notes verifies and decodes the section of notes.
func (f *File) Notes() (notes []NoteRef, err error) {
	if f.data == nil {
		return nil, format.ErrClosed
	}
	err = format.Guarded(f.path, func() error {
		notes, err = f.readNotes()
		return err
	})
	return notes, err
}

func (f *File) readNotes() ([]NoteRef, error) {
	at, end := f.s.notesAt, f.s.notesAt+f.s.notesSize-trailerSize
	b := f.data[at:end]
	if format.Check64(b, f.meta.Salt, at) != le.Uint64(f.data[end:]) {
		return nil, corrupt(f.path, at, "check of the notes does not match")
	}
	r := dictReader{b: b}
	count := r.uvarint()
	if count > uint64(len(r.b))/3 { // each takes three bytes at least
		return nil, corrupt(f.path, at, "%d notes in %d bytes", count, len(b))
	}
	notes := make([]NoteRef, 0, count)
	after, offset := f.bounds.FirstSeq-1, int64(0)
	for ; count > 0 && !r.bad; count-- {
		kind := entry.NoteKind(r.byte())
		skip, step := r.uvarint(), r.uvarint()
		if r.bad || !kind.Indexed() || skip > f.bounds.LastSeq()-after || step == 0 || step > uint64(f.meta.ContentEnd-offset)>>3 {
			return nil, corrupt(f.path, at, "malformed note")
		}
		after += skip
		offset += int64(step) << 3
		notes = append(notes, NoteRef{Kind: kind, After: after, Offset: offset})
	}
	if r.bad || len(r.b) != 0 {
		return nil, corrupt(f.path, at, "malformed notes")
	}
	return notes, nil
}
