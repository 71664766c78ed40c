package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/runlog-io/runlog/anchor"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/wal"
)

// Applier is the engine's part. Its methods are called from one goroutine. None of them may publish anything: whatever
// leaves an engine because of an entry has left it already, or is the engine's to make again after the replay.
type Applier interface {
	// Reset makes the state that of an engine that has seen nothing.
	Reset(ctx context.Context) error
	// Restore makes the state that of the snapshot, whatever it was. The snapshot's bytes have been checked once; its
	// last Read checks them again and returns an error in the place of io.EOF if they have changed.
	Restore(ctx context.Context, a anchor.Anchor, snapshot io.Reader) error
	// Apply carries an entry into the state; lifecycle entries are not given to it. Applied is for entries that the engine
	// has a rule for, even if they happen to change nothing; not applied, without an error, for those that it has none for,
	// or whose rule says that they do not concern it. An entry that it has a rule for and that does not fit the state is an
	// error. The view lives until Apply returns.
	Apply(v *entry.View) (applied bool, err error)
}

// Hasher is an Applier that can hash its state as the engine did when it called Run.StateHash.
type Hasher interface {
	AppendStateHash(dst []byte) ([]byte, error)
}

// RunBeginner is an Applier that wants to know from which run the next entries are.
type RunBeginner interface {
	BeginRun(run string) error
}

// Checker is an Applier that can judge an entry without applying it, for dry runs. Registry is one.
type Checker interface {
	Check(v *entry.View) (known bool, err error)
}

// Options say how to replay. The zero value replays everything from the first entry of the chain's oldest run: give a
// Store, so that anchors can be used.
type Options struct {
	Store         anchor.BlobStore // where the snapshots are; nil: anchors are passed over
	RequireAnchor bool             // fail with ErrNoAnchor rather than replay everything
	Resume        Cursor           // the state holds everything up to here already: nothing is reset or restored
	Until         Cursor           // stop behind this entry; zero: at the end of the chain

	AllowUnsealed    bool // take runs that have no end yet, as far as they can be read
	AllowQuarantined bool // take quarantined runs, up to the first damage, which is the error

	Filter    func(v *entry.View) bool // entries that it refuses are counted and not applied, and state hashes are not compared; nil: none
	OnError   func(*EntryError) bool   // called for an entry that cannot be applied; true: count it and go on. nil: stop
	GoOn      bool                     // a divergence is reported and does not stop the replay
	NoCompare bool                     // recorded state hashes are not compared
	DryRun    bool                     // read and count, but leave the Applier alone, except for Check; it may be nil

	Progress      func(Progress) // called on the replaying goroutine; nil: never
	ProgressEvery uint64         // entries; 0: 65536

	from Cursor // Bisect: begin at an anchor that is not behind this
}

// Progress says how far a replay is.
type Progress struct {
	Cursor Cursor
	Done   uint64 // entries
	Total  uint64
}

// Report says what a replay has done. Entries is the sum of Applied, Lifecycle, Filtered, Failed and all of Ignored.
type Report struct {
	Plan      Plan
	Entries   uint64            // read
	Applied   uint64            // in a dry run: that could have been
	Lifecycle uint64            // runlog's own: RunStarted, RunEnded
	Filtered  uint64            // refused by Options.Filter
	Ignored   map[string]uint64 // by payload type
	Failed    uint64            // could not be applied
	FirstErr  *EntryError       // the first of those

	HashesEqual     uint64      // recorded state hashes that were compared
	HashesUnchecked uint64      // that could not be: malformed, or the state is not the engine's since entries were left out
	Divergence      *Divergence // the first difference

	Cursor           Cursor // the state holds everything up to here: the place to resume from
	MinInit, MaxInit int64  // over the entries' ts_init; 0 when there was none

	RestoreTook time.Duration // the snapshot, its check in the plan included
	ReplayTook  time.Duration // the entries
}

// Restore rebuilds the state: it makes a plan, restores its snapshot (or resets), and applies the entries behind it. The
// report is never nil; beside an error it says how far the state has come.
func Restore(ctx context.Context, chain []*wal.Reader, a Applier, o Options) (*Report, error) {
	s := &session{ctx: ctx, a: a, o: o, rep: &Report{Ignored: map[string]uint64{}}}
	if o.ProgressEvery == 0 {
		s.o.ProgressEvery = 1 << 16
	}
	begun := time.Now()
	plan, err := Prepare(ctx, chain, o)
	if err == nil {
		s.rep.Plan, s.rep.Cursor = *plan, plan.Start
		err = s.begin()
	}
	s.rep.RestoreTook = time.Since(begun)
	if err != nil {
		return s.rep, err
	}
	begun = time.Now()
	for i := range plan.Runs {
		if err = s.run(&plan.Runs[i]); err != nil {
			break
		}
	}
	s.rep.ReplayTook = time.Since(begun)
	return s.rep, err
}

// session is one Restore at work.
type session struct {
	ctx    context.Context
	a      Applier
	o      Options
	rep    *Report
	hasher Hasher
	equal  Cursor // the last hash that was equal
	hash   []byte
	view   entry.View // the entry at hand; here, so that none is moved to the heap
}

// begin makes the state that the plan begins with.
func (s *session) begin() error {
	if s.o.DryRun {
		return nil
	}
	s.hasher, _ = s.a.(Hasher)
	if s.o.NoCompare {
		s.hasher = nil
	}
	if s.o.Resume != (Cursor{}) {
		return nil
	}
	return restore(s.ctx, s.a, &s.rep.Plan, s.o.Store)
}

// restore brings an applier to where a plan starts.
func restore(ctx context.Context, a Applier, p *Plan, store anchor.BlobStore) (err error) {
	if p.Anchor == nil {
		return a.Reset(ctx)
	}
	fail := func(err error) error {
		return &RestoreError{Run: p.Start.Run, Covers: p.Anchor.Covers, Ref: p.Anchor.Ref, Err: err}
	}
	r, err := anchor.Open(ctx, store, *p.Anchor)
	if err != nil {
		return fail(err)
	}
	err = a.Restore(ctx, *p.Anchor, r)
	if err == nil { // what the engine has not read may be what has changed
		_, err = io.Copy(io.Discard, r)
	}
	if err = errors.Join(err, r.Close()); err != nil {
		return fail(err)
	}
	return nil
}

// run replays the part of one run.
func (s *session) run(rp *RunPlan) (err error) {
	if b, ok := s.a.(RunBeginner); ok && !s.o.DryRun {
		if err := b.BeginRun(rp.Run); err != nil {
			return &ChainError{rp.Run, rp.Dir, err}
		}
	}
	h := s.hashesOf(rp)
	defer h.stop()
	if err := s.compare(h, rp, rp.From-1); err != nil {
		return err
	}
	if rp.Entries() == 0 {
		return nil
	}
	for v, err := range rp.reader.Scan(wal.ScanOptions{From: rp.From, To: rp.To}) {
		if err != nil {
			return &ChainError{rp.Run, rp.Dir, fmt.Errorf("behind seq %d: %w", s.seqIn(rp), err)}
		}
		if s.rep.Entries%1024 == 0 && s.ctx.Err() != nil {
			return s.ctx.Err()
		}
		s.view = v
		if err := s.entry(rp, &s.view); err != nil {
			return err
		}
		if err := s.compare(h, rp, s.view.Seq()); err != nil {
			return err
		}
	}
	if got := s.seqIn(rp); got != rp.To {
		return &ChainError{rp.Run, rp.Dir, fmt.Errorf("%w: the log ends with seq %d, and seq %d was promised", ErrIncomplete, got, rp.To)}
	}
	return nil
}

// seqIn is the last seq of the run that is in the state.
func (s *session) seqIn(rp *RunPlan) uint64 {
	if s.rep.Cursor.Run == rp.Run {
		return s.rep.Cursor.Seq
	}
	return rp.From - 1
}

// entry takes one entry.
func (s *session) entry(rp *RunPlan, v *entry.View) error {
	rep := s.rep
	applied, err := true, error(nil)
	switch {
	case v.IsLifecycle():
		rep.Lifecycle++
	case s.o.Filter != nil && !s.o.Filter(v):
		rep.Filtered++
	default:
		if applied, err = s.apply(v); err == nil && applied {
			rep.Applied++
		}
	}
	switch {
	case err != nil:
		e := &EntryError{Run: rp.Run, Seq: v.Seq(), Type: v.Type(), Err: err}
		if rep.FirstErr == nil {
			rep.FirstErr = e
		}
		if s.o.OnError == nil || !s.o.OnError(e) {
			return e
		}
		rep.Failed++
	case !applied:
		rep.Ignored[v.Type()]++
	}
	if rep.Entries == 0 {
		rep.MinInit, rep.MaxInit = v.TsInit(), v.TsInit()
	}
	rep.MinInit, rep.MaxInit = min(rep.MinInit, v.TsInit()), max(rep.MaxInit, v.TsInit())
	rep.Entries++
	rep.Cursor = Cursor{rp.Run, v.Seq()}
	if s.o.Progress != nil && (rep.Entries%s.o.ProgressEvery == 0 || rep.Entries == rep.Plan.Total) {
		s.o.Progress(Progress{Cursor: rep.Cursor, Done: rep.Entries, Total: rep.Plan.Total})
	}
	return nil
}

func (s *session) apply(v *entry.View) (bool, error) {
	if !s.o.DryRun {
		return s.a.Apply(v)
	}
	if c, ok := s.a.(Checker); ok {
		return c.Check(v)
	}
	return true, nil
}

// beside is the folder of another run of the same instance.
func beside(dir, run string) string { return filepath.Join(filepath.Dir(filepath.Clean(dir)), run) }
