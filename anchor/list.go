package anchor

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/wal"
)

// ErrMalformed: the body of a note is not what its kind says. The notes around it can be read. It is ErrCorrupt, too.
var ErrMalformed = fmt.Errorf("malformed note: %w", format.ErrCorrupt)

// List returns a run's anchors, the newest first. They are found in the indexes, whatever the length of the log. One that
// is malformed is an ErrMalformed that names the place, and the older ones follow; any other error comes last.
func List(r *wal.Reader) iter.Seq2[Anchor, error] { return listAt(r, wal.DefaultLevel) }

func listAt(r *wal.Reader, level wal.Level) iter.Seq2[Anchor, error] {
	return func(yield func(Anchor, error) bool) {
		for n, err := range r.Notes(wal.NoteOptions{Kinds: []entry.NoteKind{entry.NoteAnchor}, Reverse: true, Level: level}) {
			var a Anchor
			if err == nil {
				if a, err = Decode(n.Body); err == nil && a.Covers > n.After {
					err = fmt.Errorf("it covers seq %d: %w", a.Covers, format.ErrCorrupt)
				}
				err = malformed(r, n, err)
			}
			if !yield(a, err) {
				return
			}
		}
	}
}

// StateHashes returns the state hashes that were recorded behind seq from-1 or later, in the order in which they were
// recorded, which is that of their seqs. Errors are as in List.
func StateHashes(r *wal.Reader, from uint64) iter.Seq2[StateHash, error] {
	return func(yield func(StateHash, error) bool) {
		for n, err := range r.Notes(wal.NoteOptions{Kinds: []entry.NoteKind{entry.NoteStateHash}, From: from}) {
			var h StateHash
			if err == nil {
				if h, err = DecodeStateHash(n.Body); err == nil && h.Seq > n.After {
					err = fmt.Errorf("it is about seq %d: %w", h.Seq, format.ErrCorrupt)
				}
				err = malformed(r, n, err)
			}
			if err == nil && h.Seq < from {
				continue
			}
			if !yield(h, err) {
				return
			}
		}
	}
}

func malformed(r *wal.Reader, n entry.Note, err error) error {
	if err == nil {
		return nil
	}
	return &format.Error{Path: r.Dir(), Offset: -1, FirstSeq: n.After, Why: fmt.Sprintf("the %s behind it: %v", n.Kind, err), Err: ErrMalformed}
}

// Point is a place from which a run's state can be restored, if Err is nil.
type Point struct {
	Anchor Anchor
	Err    error // why not: the blob is missing, or is something else, or the note is malformed (then there is no Anchor)
}

// Points checks the blobs of a run's anchors, the newest first: each is read from end to end when it is the iteration's
// turn. An error of the log ends it, as the second value; so does the end of ctx.
func Points(ctx context.Context, r *wal.Reader, store BlobStore) iter.Seq2[Point, error] {
	return points(ctx, listAt(r, wal.DefaultLevel), store)
}

// DurablePoints is Points for those anchors alone that are proven durable: what a power cut can take back lets nothing be removed.
func DurablePoints(ctx context.Context, r *wal.Reader, store BlobStore) iter.Seq2[Point, error] {
	return points(ctx, listAt(r, wal.Durable), store)
}

func points(ctx context.Context, anchors iter.Seq2[Anchor, error], store BlobStore) iter.Seq2[Point, error] {
	return func(yield func(Point, error) bool) {
		for a, err := range anchors {
			if ctx.Err() != nil {
				yield(Point{}, ctx.Err())
				return
			}
			p := Point{Anchor: a, Err: err}
			switch {
			case errors.Is(err, ErrMalformed):
				err = nil
			case err != nil:
				p.Err = nil
			default:
				if p.Err = Check(ctx, store, a); ctx.Err() != nil {
					p, err = Point{}, ctx.Err()
				}
			}
			if !yield(p, err) || err != nil {
				return
			}
		}
	}
}
