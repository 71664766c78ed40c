package replay

import (
	"bytes"
	"errors"
	"iter"

	"github.com/runlog-io/runlog/anchor"
)

// hashes hands out a run's recorded state hashes beside its entries. Both come in the order of their seqs, so one is held
// at a time.
type hashes struct {
	next func() (anchor.StateHash, error, bool)
	stop func()
	held anchor.StateHash
	err  error // of the log
	ok   bool
	bad  uint64 // malformed, or behind a later one
	last uint64
}

func newHashes(seq iter.Seq2[anchor.StateHash, error]) *hashes {
	h := &hashes{}
	h.next, h.stop = iter.Pull2(seq)
	h.advance()
	return h
}

// advance goes on to the next hash that is in order.
func (h *hashes) advance() {
	for {
		if h.held, h.err, h.ok = h.next(); !h.ok {
			return
		}
		switch {
		case h.err == nil && h.held.Seq >= h.last:
			h.last = h.held.Seq
			return
		case h.err == nil || errors.Is(h.err, anchor.ErrMalformed):
			h.bad++
		default:
			return
		}
	}
}

// hashesOf returns those that a run's part has to be compared with.
func (s *session) hashesOf(rp *RunPlan) *hashes {
	if s.hasher == nil {
		return &hashes{stop: func() {}}
	}
	return newHashes(anchor.StateHashes(rp.reader, max(rp.From-1, 1)))
}

// compare compares the state with what was recorded behind seq, if anything was. It is called for every seq, so none is left
// behind.
func (s *session) compare(h *hashes, rp *RunPlan, seq uint64) error {
	for ; h.ok && h.err == nil && h.held.Seq <= seq; h.advance() {
		if s.o.Filter != nil || s.rep.Failed > 0 {
			s.rep.HashesUnchecked++
			continue
		}
		var err error
		if s.hash, err = s.hasher.AppendStateHash(s.hash[:0]); err != nil {
			return &ChainError{rp.Run, rp.Dir, err}
		}
		at := Cursor{rp.Run, seq}
		if bytes.Equal(s.hash, h.held.Hash) {
			s.rep.HashesEqual++
			s.equal = at
			continue
		}
		if s.rep.Divergence != nil {
			continue
		}
		s.rep.Divergence = &Divergence{Equal: s.equal, Different: at, Want: h.held.Hash, Got: bytes.Clone(s.hash)}
		if !s.o.GoOn {
			return &DivergenceError{*s.rep.Divergence}
		}
	}
	s.rep.HashesUnchecked += h.bad
	h.bad = 0
	if h.ok && h.err != nil {
		return &ChainError{rp.Run, rp.Dir, h.err}
	}
	return nil
}
