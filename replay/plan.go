package replay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/runlog-io/runlog/anchor"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// Cursor is a place in a chain: behind the entry with this seq of this run. The zero value is before everything.
type Cursor struct {
	Run string
	Seq uint64
}

func (c Cursor) String() string { return fmt.Sprintf("seq %d of run %s", c.Seq, c.Run) }

// Plan says what a replay reads.
type Plan struct {
	Anchor *anchor.Anchor // the snapshot to begin with; nil: an empty state, or a resumed one
	Start  Cursor         // the state at the begin holds everything up to here: what the anchor covers, or Options.Resume
	Passed []Passed       // newer anchors that cannot be restored, the newest first
	Runs   []RunPlan      // what is read, the oldest run first
	Total  uint64         // entries in Runs, lifecycle entries included
}

// Passed is an anchor that is not used, and why: its blob is missing or altered, or the note cannot be read.
type Passed struct {
	Run    string
	Anchor anchor.Anchor // empty if it cannot be read
	Err    error
}

// RunPlan is the part of a run that is read. To is below From if that is nothing.
type RunPlan struct {
	Run      string
	Dir      string
	From, To uint64
	reader   *wal.Reader
}

// Entries is how many there are.
func (r *RunPlan) Entries() uint64 { return r.To + 1 - min(r.From, r.To+1) }

// OpenChain opens a run and those before it whose state it continues, the newest first, for a run that is to be replayed
// although no later run continues it. The chain ends early where a folder is gone, removed by retention for instance; a
// replay that needs it says so with ErrIncomplete. Close all when done.
func OpenChain(fsys vfs.FS, dir string) (chain []*wal.Reader, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, Close(chain))
			chain = nil
		}
	}()
	for seen := map[string]bool{}; ; {
		r, err := wal.OpenReader(fsys, dir)
		if len(chain) > 0 && errors.Is(err, fs.ErrNotExist) {
			return chain, nil
		}
		if err != nil {
			return chain, err
		}
		chain = append(chain, r)
		m := r.Manifest()
		seen[m.Run] = true
		if m.Parent == "" || seen[m.Parent] {
			return chain, nil
		}
		dir = beside(dir, m.Parent)
	}
}

// Close closes all readers of a chain.
func Close(chain []*wal.Reader) (err error) {
	for _, r := range chain {
		err = errors.Join(err, r.Close())
	}
	return err
}

// Prepare makes the plan of a Restore with these options. It checks the blob of each anchor that comes into question,
// the newest first, by reading it from end to end, and reads no entry.
func Prepare(ctx context.Context, chain []*wal.Reader, o Options) (*Plan, error) {
	return (&planner{ctx: ctx, chain: chain, o: o}).plan()
}

type planner struct {
	ctx    context.Context
	chain  []*wal.Reader // newest first
	o      Options
	p      Plan
	oldest int // index of the run that replay begins in
	newest int
}

func (pl *planner) plan() (*Plan, error) {
	if err := checkChain(pl.chain); err != nil {
		return nil, err
	}
	if len(pl.chain) == 0 {
		if pl.o.Resume != (Cursor{}) || pl.o.Until != (Cursor{}) {
			return nil, ErrCursor
		}
		return &pl.p, nil
	}
	if err := pl.bounds(); err != nil {
		return nil, err
	}
	for i := pl.oldest; i >= pl.newest; i-- {
		r, last := pl.chain[i], pl.chain[i].LastSeq()
		rp := RunPlan{Run: r.Manifest().Run, Dir: r.Dir(), From: 1, To: last, reader: r}
		if i == pl.oldest && pl.p.Start.Run == rp.Run {
			rp.From = pl.p.Start.Seq + 1
		}
		if pl.o.Until.Run == rp.Run {
			rp.To = pl.o.Until.Seq
		}
		if err := rp.begins(r.FirstSeq()); err != nil {
			return nil, err
		}
		pl.p.Runs = append(pl.p.Runs, rp)
		pl.p.Total += rp.Entries()
	}
	return &pl.p, nil
}

// begins says whether a run whose first seq is this, since retention has removed what was before, has all that is needed.
func (r *RunPlan) begins(first uint64) error {
	if first > r.From && r.From <= r.To {
		return &ChainError{r.Run, r.Dir, fmt.Errorf("%w: it begins with seq %d, and seq %d is needed", ErrIncomplete, first, r.From)}
	}
	return nil
}

// checkChain reports whether each run is the parent of the one before.
func checkChain(chain []*wal.Reader) error {
	for i := 1; i < len(chain); i++ {
		if child, parent := chain[i-1].Manifest(), chain[i].Manifest(); child.Parent != parent.Run {
			return &ChainError{child.Run, chain[i-1].Dir(), fmt.Errorf("%w: its parent is %q, and %q comes before it", ErrChain, child.Parent, parent.Run)}
		}
	}
	return nil
}

// find returns a cursor's run.
func (pl *planner) find(what string, c Cursor) (int, error) {
	i := slices.IndexFunc(pl.chain, func(r *wal.Reader) bool { return r.Manifest().Run == c.Run })
	if i < 0 || c.Seq > pl.chain[i].LastSeq() {
		return 0, fmt.Errorf("%w: %s is %v", ErrCursor, what, c)
	}
	return i, nil
}

// bounds finds the newest and the oldest run that are read, and the place to begin.
func (pl *planner) bounds() (err error) {
	if pl.o.Until != (Cursor{}) {
		if pl.newest, err = pl.find("the end", pl.o.Until); err != nil {
			return err
		}
	}
	if pl.o.Resume != (Cursor{}) {
		if pl.oldest, err = pl.find("the begin", pl.o.Resume); err != nil {
			return err
		}
		pl.p.Start = pl.o.Resume
		if pl.oldest < pl.newest || pl.o.Until.Run == pl.o.Resume.Run && pl.o.Until.Seq < pl.o.Resume.Seq {
			return fmt.Errorf("%w: %v comes before %v", ErrCursor, pl.o.Until, pl.o.Resume)
		}
		for _, r := range pl.chain[pl.newest : pl.oldest+1] {
			if err := pl.usable(r); err != nil {
				return err
			}
		}
		return nil
	}
	for i := pl.newest; i < len(pl.chain); i++ {
		pl.oldest = i
		if err := pl.usable(pl.chain[i]); err != nil {
			return err
		}
		if found, err := pl.anchorIn(pl.chain[i]); found || err != nil {
			return err
		}
	}
	if pl.o.RequireAnchor {
		return fmt.Errorf("%w: %d were tried%s", ErrNoAnchor, len(pl.p.Passed), pl.because())
	}
	r := pl.chain[pl.oldest]
	if m := r.Manifest(); m.Parent != "" {
		return &ChainError{m.Run, r.Dir(), fmt.Errorf("%w: it continues run %s, which is not here%s", ErrIncomplete, m.Parent, pl.because())}
	}
	return nil
}

// because gives the reason against the newest anchor.
func (pl *planner) because() string {
	if len(pl.p.Passed) == 0 {
		return ""
	}
	return fmt.Sprintf("; the newest anchor: %v", pl.p.Passed[0].Err)
}

// usable reports whether state may be rebuilt from a run.
func (pl *planner) usable(r *wal.Reader) error {
	var why error
	switch s := r.Status(); {
	case s == manifest.Quarantined && !pl.o.AllowQuarantined:
		why = format.ErrQuarantined
	case s == manifest.Running && !pl.o.AllowUnsealed:
		why = ErrNotSealed
	default:
		return nil
	}
	return &ChainError{r.Manifest().Run, r.Dir(), why}
}

// anchorIn looks for the newest anchor of a run whose blob is good.
func (pl *planner) anchorIn(r *wal.Reader) (bool, error) {
	run, last := r.Manifest().Run, r.LastSeq()
	if pl.o.Until.Run == run {
		last = pl.o.Until.Seq
	}
	if pl.o.from.Run == run {
		last = min(last, pl.o.from.Seq)
	} else if pl.o.from != (Cursor{}) && !pl.reached(run) {
		return false, nil
	}
	for a, err := range anchor.List(r) {
		if err == nil && a.Covers > last {
			continue
		}
		switch {
		case err != nil:
		case pl.o.Store == nil:
			err = errNoStore
		default:
			err = anchor.Check(pl.ctx, pl.o.Store, a)
		}
		if cerr := pl.ctx.Err(); cerr != nil {
			return false, cerr
		}
		if err == nil {
			pl.p.Anchor, pl.p.Start = &a, Cursor{run, a.Covers}
			return true, nil
		}
		pl.p.Passed = append(pl.p.Passed, Passed{Run: run, Anchor: a, Err: err})
	}
	return false, nil
}

var errNoStore = errors.New("no store of snapshots was given")

// reached reports whether a run is not newer than the one that the restore point may be in.
func (pl *planner) reached(run string) bool {
	for _, r := range pl.chain {
		switch r.Manifest().Run {
		case pl.o.from.Run:
			return true
		case run:
			return false
		}
	}
	return false
}
