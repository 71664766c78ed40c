package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/runlog-io/runlog/anchor"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/wal"
)

// HashedApplier is an Applier whose states can be compared.
type HashedApplier interface {
	Applier
	Hasher
}

// BisectOptions say where to look. The zero value looks everywhere.
type BisectOptions struct {
	Store     anchor.BlobStore // of snapshots that both can restore; nil: each pass begins with the first entry of the chain
	Equal     Cursor           // where the two states are known to be equal, such as Divergence.Equal; zero: before the first entry
	Different Cursor           // where they are known to differ; zero: the end of the chain
	Samples   int              // states that are compared in one pass; 0: 64, at least 2

	AllowUnsealed, AllowQuarantined bool
}

// Split is the entry behind which two implementations' states differ for the first time.
type Split struct {
	At     Cursor // the entry
	Before []byte // the hash that both have before it
	A, B   []byte // the hashes behind it
	Passes int    // how often the log was replayed through both
	Read   uint64 // entries, over all passes
	Hashed uint64 // states that were compared
}

// Why Bisect finds nothing.
var (
	// ErrSame: no two states differed where they were compared.
	ErrSame = errors.New("the states do not differ")
	// ErrDifferentStart: the states differ before any entry is applied: the snapshot means two things to the two.
	ErrDifferentStart = errors.New("the states differ where replay begins")
	// ErrUnsteady: an implementation gives another state for the same entries than a moment ago.
	ErrUnsteady = errors.New("the same entries have given another state than before")
)

// Bisect finds the first entry behind which the states of two implementations differ, such as a new version of an engine
// and the old one, or the engine and its model. Both are replayed side by side.
//
// A recorded hash tells only that something went wrong between two of them. To find the entry, something has to know what
// the state should be behind each entry in between: that is what the second implementation is for. Without one, finer
// recorded hashes are as near as one can get, those of this run or of another run of the same input; see CompareRecorded.
//
// The states are compared at evenly spaced places between Equal and Different, and again between the last place where they
// were equal and the first where they were not, until two neighboring entries are left. So each pass narrows the range by
// the factor Samples; n entries take log(n)/log(Samples) passes. Each reads the log from the last anchor that is not
// behind Equal (else from the first entry) up to the first difference, and hashes both states at most Samples+1 times. What
// is found is a place where the states begin to differ. If they come together again later, and differ once more, it may
// not be the only one, nor the first.
//
// The state hashes that the engine has recorded are not looked at.
func Bisect(ctx context.Context, chain []*wal.Reader, a, b HashedApplier, o BisectOptions) (*Split, error) {
	if o.Samples == 0 {
		o.Samples = 64
	}
	if o.Samples < 2 {
		return nil, fmt.Errorf("%w: option Samples is %d: want at least 2", format.ErrInvalid, o.Samples)
	}
	s := &bisection{ctx: ctx, chain: chain, a: a, b: b, o: o, found: &Split{}, line: newLine(chain)}
	if err := s.bounds(); err != nil {
		return s.found, err
	}
	for first := true; first || s.hi-s.lo > 1; first = false {
		if err := s.pass(first); err != nil {
			return s.found, err
		}
	}
	return s.found, nil
}

// line numbers the entries of a chain from 1, the oldest run first.
type line struct {
	chain []*wal.Reader
	base  []uint64 // what comes before a run, by its place in the chain
}

func newLine(chain []*wal.Reader) line {
	l := line{chain: chain, base: make([]uint64, len(chain)+1)}
	for i := len(chain) - 1; i > 0; i-- {
		l.base[i-1] = l.base[i] + chain[i].LastSeq()
	}
	return l
}

func (l *line) end() uint64 {
	if len(l.chain) == 0 {
		return 0
	}
	return l.base[0] + l.chain[0].LastSeq()
}

// number is a cursor's place.
func (l *line) number(c Cursor) (uint64, error) {
	for i, r := range l.chain {
		if r.Manifest().Run == c.Run && c.Seq <= r.LastSeq() {
			return l.base[i] + c.Seq, nil
		}
	}
	if c == (Cursor{}) {
		return 0, nil
	}
	return 0, fmt.Errorf("%w: %v", ErrCursor, c)
}

// cursor is the inverse.
func (l *line) cursor(n uint64) Cursor {
	for i, r := range l.chain {
		if n > l.base[i] {
			return Cursor{r.Manifest().Run, n - l.base[i]}
		}
	}
	return Cursor{}
}

type bisection struct {
	ctx    context.Context
	chain  []*wal.Reader
	a, b   HashedApplier
	o      BisectOptions
	line   line
	lo, hi uint64 // equal at lo, different at hi
	found  *Split
	ha, hb []byte
}

func (s *bisection) bounds() (err error) {
	if s.lo, err = s.line.number(s.o.Equal); err != nil {
		return err
	}
	if s.hi, err = s.line.number(s.o.Different); err != nil {
		return err
	}
	if s.o.Different == (Cursor{}) {
		s.hi = s.line.end()
	}
	if s.lo >= s.hi {
		return fmt.Errorf("%w: there is nothing between %v and %v", ErrCursor, s.o.Equal, s.o.Different)
	}
	return nil
}

// options of the plan of a pass.
func (s *bisection) options() Options {
	o := Options{
		Store: s.o.Store, Until: s.line.cursor(s.hi), from: s.line.cursor(s.lo),
		AllowUnsealed: s.o.AllowUnsealed, AllowQuarantined: s.o.AllowQuarantined,
	}
	if s.lo == 0 {
		o.Store = nil
	}
	return o
}

// pass replays both once and narrows the range.
func (s *bisection) pass(first bool) error {
	plan, err := Prepare(s.ctx, s.chain, s.options())
	if err != nil {
		return err
	}
	s.found.Passes++
	for _, x := range []HashedApplier{s.a, s.b} {
		if err := restore(s.ctx, x, plan, s.o.Store); err != nil {
			return err
		}
	}
	at, err := s.line.number(plan.Start)
	if err != nil {
		return err
	}
	if same, err := s.same(); err != nil || !same {
		return errors.Join(err, fmt.Errorf("%w: %v", ErrDifferentStart, plan.Start))
	}
	last, lastHash := at, bytes.Clone(s.ha) // where they were compared and equal
	step := max(1, (s.hi-s.lo+uint64(s.o.Samples)-1)/uint64(s.o.Samples))
	for c, err := range s.lockstep(plan) {
		if err != nil {
			return err
		}
		n, err := s.line.number(c)
		if err != nil {
			return err
		}
		if n < s.lo || n != s.hi && (n-s.lo)%step != 0 {
			continue
		}
		same, err := s.same()
		switch {
		case err != nil:
			return err
		case same:
			last, lastHash = n, bytes.Clone(s.ha)
			continue
		case n == s.lo && !first:
			return fmt.Errorf("%w: %v", ErrUnsteady, c)
		}
		s.lo, s.hi = last, n
		s.found.At, s.found.Before = c, lastHash
		s.found.A, s.found.B = bytes.Clone(s.ha), bytes.Clone(s.hb)
		return nil
	}
	if !first {
		return fmt.Errorf("%w: %v", ErrUnsteady, s.line.cursor(s.hi))
	}
	return ErrSame
}

// same compares the two states.
func (s *bisection) same() (bool, error) {
	var err error
	if s.ha, err = s.a.AppendStateHash(s.ha[:0]); err != nil {
		return false, err
	}
	if s.hb, err = s.b.AppendStateHash(s.hb[:0]); err != nil {
		return false, err
	}
	s.found.Hashed++
	return bytes.Equal(s.ha, s.hb), nil
}

// lockstep applies the plan's entries to both, and stops behind each.
func (s *bisection) lockstep(plan *Plan) iter.Seq2[Cursor, error] {
	return func(yield func(Cursor, error) bool) {
		for i := range plan.Runs {
			rp := &plan.Runs[i]
			for _, x := range []HashedApplier{s.a, s.b} {
				if b, ok := x.(RunBeginner); ok {
					if err := b.BeginRun(rp.Run); err != nil {
						yield(Cursor{}, &ChainError{rp.Run, rp.Dir, err})
						return
					}
				}
			}
			if rp.Entries() > 0 && !s.lockstepRun(rp, yield) {
				return
			}
		}
	}
}

func (s *bisection) lockstepRun(rp *RunPlan, yield func(Cursor, error) bool) bool {
	for v, err := range rp.reader.Scan(wal.ScanOptions{From: rp.From, To: rp.To}) {
		if err == nil && s.found.Read%1024 == 0 {
			err = s.ctx.Err()
		}
		if err != nil {
			yield(Cursor{}, &ChainError{rp.Run, rp.Dir, err})
			return false
		}
		s.found.Read++
		if !v.IsLifecycle() {
			for i, x := range []HashedApplier{s.a, s.b} {
				if _, err := x.Apply(&v); err != nil {
					err = &EntryError{Run: rp.Run, Seq: v.Seq(), Type: v.Type(), Err: err}
					yield(Cursor{}, fmt.Errorf("implementation %c: %w", "ab"[i], err))
					return false
				}
			}
		}
		if !yield(Cursor{rp.Run, v.Seq()}, nil) {
			return false
		}
	}
	return true
}

// Comparison is what the recorded state hashes of two runs say about each other.
type Comparison struct {
	Equal     uint64 // hashes that were compared and equal
	LastEqual uint64 // the last seq before the first difference at which both recorded the same; 0: none
	Different uint64 // the first seq at which they did not; 0: none
	A, B      []byte // what they recorded there
}

// CompareRecorded compares the state hashes that two runs of the same input have recorded at the same seqs, up to the first
// difference. It needs no implementation, reads no entry, and says nothing about the seqs at which only one has recorded.
// Whether the runs had the same input, with the same seqs, is the caller's to know.
func CompareRecorded(ctx context.Context, a, b *wal.Reader) (c Comparison, err error) {
	ha, hb := newHashes(anchor.StateHashes(a, 1)), newHashes(anchor.StateHashes(b, 1))
	defer ha.stop()
	defer hb.stop()
	for ha.ok && hb.ok {
		if err := errors.Join(ha.err, hb.err, ctx.Err()); err != nil {
			return c, err
		}
		switch {
		case ha.held.Seq < hb.held.Seq:
			ha.advance()
			continue
		case hb.held.Seq < ha.held.Seq:
			hb.advance()
			continue
		case !bytes.Equal(ha.held.Hash, hb.held.Hash):
			c.Different, c.A, c.B = ha.held.Seq, ha.held.Hash, hb.held.Hash
			return c, nil
		}
		c.Equal++
		c.LastEqual = ha.held.Seq
		ha.advance()
		hb.advance()
	}
	return c, errors.Join(ha.err, hb.err)
}
