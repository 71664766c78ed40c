package runlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/runlog-io/runlog/anchor"
	"github.com/runlog-io/runlog/entry"
)

// Vocabulary of package anchor.
type (
	// Anchor is one snapshot of the engine's whole state.
	Anchor = anchor.Anchor
	// BlobStore keeps snapshots.
	BlobStore = anchor.BlobStore
)

// recorded is the last seq that notes of one kind are about. mu is held from the check to the note, so that the order of
// the notes in the log is that of their seqs.
type recorded struct {
	mu   sync.Mutex
	last uint64
}

// Anchor stores a snapshot of the engine's state and records in the log that it covers everything up to seq covers: all
// effects of the entries up to there, those of earlier runs included, and nothing of later ones. covers is at most
// Accepted and at least that of the anchor before (*anchor.OrderError, which is ErrInvalid). The snapshot is read to its
// end and durable in the store before the log names it; when Anchor returns without error, the anchor is durable, and so is
// everything submitted before it.
//
// It waits for two disks, so it is not for the engine's thread: copy the state there, and call this on another goroutine.
// No error of it halts the run. If ctx ends while the note is on its way, or under SyncNever (ErrNotDurable), the anchor
// is returned beside the error: it may yet be in the log, and its blob stays.
func (r *Run) Anchor(ctx context.Context, covers uint64, store BlobStore, snapshot io.Reader) (Anchor, error) {
	if store == nil || snapshot == nil {
		return Anchor{}, fmt.Errorf("%w: an anchor needs a store and a snapshot", ErrInvalid)
	}
	if err := r.checkAnchor(covers); err != nil {
		return Anchor{}, err
	}
	taken := r.o.Clock.Now()
	b, err := store.Put(ctx, snapshot)
	if err != nil {
		return Anchor{}, fmt.Errorf("runlog: store the snapshot that covers seq %d: %w", covers, err)
	}
	a := Anchor{Covers: covers, Taken: taken, Size: b.Size, SHA256: b.SHA256, Ref: b.Ref}
	accepted, err := r.recordAnchor(ctx, a)
	if err != nil && !accepted {
		return Anchor{}, errors.Join(err, store.Delete(context.WithoutCancel(ctx), b.Ref)) // nobody will ever name it
	}
	return a, err
}

// RecordAnchor records an anchor whose blob the caller has made durable already, and waits as Anchor does. A Taken of 0
// is now.
func (r *Run) RecordAnchor(ctx context.Context, a Anchor) error {
	if a.Taken == 0 {
		a.Taken = r.o.Clock.Now()
	}
	_, err := r.recordAnchor(ctx, a)
	return err
}

func (r *Run) checkAnchor(covers uint64) error {
	if err := r.Err(); err != nil {
		return err
	}
	r.anchors.mu.Lock()
	defer r.anchors.mu.Unlock()
	return anchor.CheckOrder("anchor", covers, r.anchors.last, r.Accepted())
}

// recordAnchor puts the note behind everything that was submitted before and waits until it is durable.
func (r *Run) recordAnchor(ctx context.Context, a Anchor) (accepted bool, err error) {
	body, err := a.Append(nil)
	if err != nil {
		return false, err
	}
	r.anchors.mu.Lock()
	err = anchor.CheckOrder("anchor", a.Covers, r.anchors.last, r.Accepted())
	if err != nil {
		r.anchors.mu.Unlock()
		return false, err
	}
	ticket, _, err := r.w.Note(entry.NoteAnchor, body)
	if ticket != 0 {
		r.anchors.last = a.Covers
	}
	r.anchors.mu.Unlock()
	if err != nil {
		return ticket != 0, err
	}
	return true, r.w.WaitNote(ctx, ticket)
}

// StateHash records the hash of the engine's state behind the entry with this seq: 1 to 64 bytes, of the engine's
// choice. seq is at most Accepted and at least that of the hash before (*anchor.OrderError, which halts nothing). It
// returns at once, like Submit, and does not allocate: how often is a question of what the hash itself costs. Replay
// compares it with what it makes of the same entries; see package replay.
func (r *Run) StateHash(seq uint64, hash []byte) error {
	var buf [anchor.MaxHashBody]byte
	body, err := anchor.AppendStateHash(buf[:0], seq, hash)
	if err != nil {
		return err
	}
	r.hashes.mu.Lock()
	defer r.hashes.mu.Unlock()
	if err := anchor.CheckOrder("state hash", seq, r.hashes.last, r.Accepted()); err != nil {
		if closed := r.Err(); closed != nil {
			return closed
		}
		return err
	}
	ticket, _, err := r.w.Note(entry.NoteStateHash, body)
	if ticket != 0 {
		r.hashes.last = seq
	}
	return err
}
