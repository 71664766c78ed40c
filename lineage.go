package runlog

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// Sentinels of this file, for errors.Is.
var (
	// ErrParent is what every *ParentError is.
	ErrParent = errors.New("a parent run cannot be used")
	// ErrCannotContinue is what every *ContinueError is.
	ErrCannotContinue = errors.New("the run cannot be continued")
)

// ParentError: a chain of parents ends before its beginning, since one of its runs is gone, quarantined, cannot be opened,
// or is not the run that its child names. What the child continued is then not known in full.
type ParentError struct {
	Run string // id of the parent that cannot be used
	Of  string // id of the run that names it
	Dir string // where it is, or should be
	Err error  // why: fs.ErrNotExist, ErrQuarantined, ErrCorrupt, or what opening it gave
}

func (e *ParentError) Error() string {
	return fmt.Sprintf("runlog: %s: run %s, the parent of %s, cannot be used: %v", e.Dir, e.Run, e.Of, e.Err)
}

// Is makes errors.Is(err, ErrParent) hold.
func (e *ParentError) Is(target error) bool { return target == ErrParent }

// Unwrap returns the cause.
func (e *ParentError) Unwrap() error { return e.Err }

// ContinueError: Open has refused to start a run, since the run that Options.ContinueFrom names does not exist, is not sealed,
// is quarantined, or cannot be read. Nothing was changed.
type ContinueError struct {
	Run string // its id
	Dir string // its folder
	Err error  // why: fs.ErrNotExist, ErrNotRun, ErrNotSealed, ErrQuarantined, or what opening it gave
}

func (e *ContinueError) Error() string {
	return fmt.Sprintf("runlog: option ContinueFrom: %s: run %s cannot be continued: %v", e.Dir, e.Run, e.Err)
}

// Is makes errors.Is(err, ErrCannotContinue) hold.
func (e *ContinueError) Is(target error) bool { return target == ErrCannotContinue }

// Unwrap returns the cause.
func (e *ContinueError) Unwrap() error { return e.Err }

// OpenParents opens the runs whose state the run in dir continues, its parent first, then the parent's parent, and so on.
// The caller closes them. With a *ParentError come those that stand in front of the one that cannot be used.
func OpenParents(dir string, o ReaderOptions) ([]*Reader, error) {
	m, _, err := manifest.Read(o.fs(), dir)
	if err != nil { // the segments tell, too
		r, rerr := wal.OpenReader(o.fs(), dir)
		if rerr != nil {
			return nil, rerr
		}
		m = r.Manifest()
		_ = r.Close()
	}
	return openParents(o.fs(), filepath.Dir(filepath.Clean(dir)), m.Identity)
}

// openParents opens the ancestors of a run of the instance in base.
func openParents(fsys vfs.FS, base string, of manifest.Identity) (chain []*Reader, err error) {
	seen := map[string]bool{of.Run: true}
	for child := of; child.Parent != ""; {
		p, err := openParent(fsys, filepath.Join(base, child.Parent), child.Parent, seen)
		if err != nil {
			return chain, &ParentError{Run: child.Parent, Of: child.Run, Dir: filepath.Join(base, child.Parent), Err: err}
		}
		seen[child.Parent] = true
		chain = append(chain, p)
		child = p.Manifest().Identity
	}
	return chain, nil
}

func openParent(fsys vfs.FS, dir, run string, seen map[string]bool) (*Reader, error) {
	if seen[run] {
		return nil, fmt.Errorf("%w: the chain goes in a circle", ErrCorrupt)
	}
	p, err := wal.OpenReader(fsys, dir)
	if err != nil {
		return nil, err
	}
	if err := usable(fsys, p, dir, run); err != nil {
		_ = p.Close()
		return nil, err
	}
	return p, nil
}

// usable says what keeps a run from being continued by another, beside that it may not be sealed.
func usable(fsys vfs.FS, r *Reader, dir, run string) error {
	switch got := r.Manifest().Run; {
	case r.Status() == manifest.Quarantined:
		q, known, err := manifest.ReadQuarantine(fsys, dir)
		if known && err == nil {
			return fmt.Errorf("%w: %s", ErrQuarantined, q.Reason)
		}
		return errors.Join(append(r.Warnings(), ErrQuarantined)...) // its file counts, though nobody can read what it says
	case got != run:
		return &format.Error{Path: dir, Offset: -1, Why: fmt.Sprintf("the folder holds run %s", got), Err: ErrCorrupt}
	}
	return nil
}

// checkContinue says why the run that ContinueFrom names cannot be the parent. It changes nothing.
func (o *Options) checkContinue(base string) error {
	if o.ContinueFrom == "" {
		return nil
	}
	dir := filepath.Join(base, o.ContinueFrom)
	refuse := func(err error) error { return &ContinueError{Run: o.ContinueFrom, Dir: dir, Err: err} }
	r, err := wal.OpenReader(o.FS, dir)
	if err != nil {
		return refuse(err)
	}
	defer r.Close()
	if err := usable(o.FS, r, dir, o.ContinueFrom); err != nil {
		return refuse(err)
	}
	if !r.Status().Sealed() {
		return refuse(ErrNotSealed)
	}
	if err := r.Damage(); err != nil {
		return refuse(err)
	}
	return nil
}

// continueFrom makes the run that ContinueFrom names the parent. What would have been continued without it is listed as
// skipped. The run was looked at before the sweep; only what the sweep has made of it can be news.
func (f *found) continueFrom(o *Options, base string) error {
	at := func(err error) error {
		return &ContinueError{Run: o.ContinueFrom, Dir: filepath.Join(base, o.ContinueFrom), Err: err}
	}
	p := f.find(o.ContinueFrom)
	switch {
	case p == nil:
		return at(fs.ErrNotExist)
	case p.Err != nil:
		return at(p.Err)
	}
	if left := chooseParent(f.list, o.GoWithout); left != nil && left.Run != p.Run && left.Err == nil {
		f.skipped = append(f.skipped, manifest.Skipped{Run: left.Run, Reason: "passed over: the option ContinueFrom names " + p.Run})
	}
	f.parent = p.Run
	return nil
}

// find returns the predecessor with this id, nil if there is none.
func (f *found) find(run string) *Predecessor {
	for i := range f.list {
		if f.list[i].Run == run {
			return &f.list[i]
		}
	}
	return nil
}
