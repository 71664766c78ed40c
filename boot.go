package runlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// Predecessor is an earlier run of the instance, as Open found and left it.
type Predecessor struct {
	Run          string
	Status       Status
	LastSeq      uint64
	DroppedBytes int64 // torn tail: nothing proves that it was acknowledged
	Recovered    bool  // by this Open
	Parent       string
	Origin       string
	Err          error // why it is quarantined, or could not be recovered (then it is left alone)

	undecided bool // Err does not say that it is damaged
}

// ErrUndecided is what every *UndecidedError is, by errors.Is.
var ErrUndecided = errors.New("the newest run is undecided")

// UndecidedError: Open has refused to start a run, since an earlier one that may hold the newest state could be neither
// recovered nor judged damaged: the disk is full, a read failed, no file could be opened, a later version wrote it, or
// its folder is a link that leads nowhere.
// A run that started now would continue an older state for good. Nothing is lost; the next Open tries again.
// Options.GoWithout starts nevertheless.
type UndecidedError struct {
	Run string // its id
	Dir string // its folder
	Err error  // what kept it from being decided
}

func (e *UndecidedError) Error() string {
	return fmt.Sprintf("runlog: %s: run %s may hold the newest state and could not be recovered: %v", e.Dir, e.Run, e.Err)
}

// Is makes errors.Is(err, ErrUndecided) hold.
func (e *UndecidedError) Is(target error) bool { return target == ErrUndecided }

// Unwrap returns the cause.
func (e *UndecidedError) Unwrap() error { return e.Err }

// found is what the sweep over an instance's runs has found.
type found struct {
	list    []Predecessor
	newest  string // run id
	parent  string
	skipped []manifest.Skipped
}

// sweep recovers every run that its process has left unsealed. A damaged run never stops it; one that cannot be
// decided does if it may be the one to continue.
func sweep(o *Options, base string, now int64) (f found, err error) {
	if err := wal.FinishRemovals(o.FS, base); err != nil {
		o.Logger.Warn("runlog: leftovers of runs that were removed", "dir", base, "error", err)
	}
	names, err := o.FS.ReadDir(base)
	if err != nil {
		return f, fmt.Errorf("runlog: %w", err)
	}
	for _, e := range names {
		if !manifest.ValidRunID(e.Name()) {
			continue
		}
		dir := filepath.Join(base, e.Name())
		f.newest = e.Name()
		link, lerr := followed(o.FS, base, e)
		before, _, merr := manifest.Read(o.FS, dir)
		if lerr == nil && errors.Is(merr, fs.ErrNotExist) && unborn(o.FS, dir) {
			if !link {
				if err := removeAll(o.FS, dir); err != nil {
					o.Logger.Warn("runlog: leftover of a run that never started", "dir", dir, "error", err)
				}
				continue
			}
			lerr = errNothingBehind
		}
		rec, err := wal.Recovery{}, lerr
		if err == nil {
			rec, err = wal.Recover(o.FS, dir, now)
		}
		p := Predecessor{
			Run: e.Name(), Status: rec.Status, LastSeq: rec.LastSeq, DroppedBytes: rec.DroppedBytes, Parent: rec.Manifest.Parent,
			Origin: rec.Manifest.Origin, Err: rec.Damage,
		}
		if err != nil {
			p.Status, p.Parent, p.Origin, p.Err = before.Status, before.Parent, before.Origin, err
			p.undecided = !damaged(err)
		}
		if before.FloorSegment > 0 {
			if err := wal.FinishRemoval(o.FS, dir); err != nil {
				o.Logger.Warn("runlog: leftovers of segments that were removed", "dir", dir, "error", err)
			}
		}
		p.Recovered = err == nil && (merr != nil || !before.Status.Sealed()) && rec.Status != manifest.Quarantined
		f.list = append(f.list, p)
		if p.Err != nil {
			f.skipped = append(f.skipped, manifest.Skipped{Run: p.Run, Reason: p.Err.Error()})
			o.Logger.Error("runlog: predecessor is not usable", "run", p.Run, "status", p.Status, "error", p.Err)
		}
	}
	if o.ContinueFrom != "" {
		return f, f.continueFrom(o, base)
	}
	parent := chooseParent(f.list, o.GoWithout)
	switch {
	case parent == nil:
	case parent.undecided:
		return f, &UndecidedError{Run: parent.Run, Dir: filepath.Join(base, parent.Run), Err: parent.Err}
	default:
		f.parent = parent.Run
	}
	return f, nil
}

// damaged reports whether recovery failed for what a run's files hold, so that trying again changes nothing, and not
// because of the system under it. Then the run is as unusable as a quarantined one.
func damaged(err error) bool {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return false
	}
	return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrWrongKind) || errors.Is(err, ErrNotRun)
}

// chooseParent returns the newest run that holds state of its own, if it crashed; nil if it has ended cleanly, since then the
// engine starts afresh. Nothing older is ever brought back: an engine has gone on since, from that run or without it. Runs
// without state, quarantined ones and imports neither are the parent nor stand before it. Runs are ordered by id, which a
// stepped clock cannot turn back.
//
// A run that is undecided is returned if it could be the one, unless it is in without.
func chooseParent(runs []Predecessor, without []string) *Predecessor {
	for i := range slices.Backward(runs) {
		switch p := &runs[i]; {
		case p.undecided && !slices.Contains(without, p.Run):
			return p
		case p.Err != nil || p.Origin != manifest.OriginEngine:
		case p.Status == manifest.Ended:
			return nil
		case p.Status == manifest.CrashedRecovered && p.LastSeq > 1: // seq 1 is RunStarted
			return p
		}
	}
	return nil
}

// unborn reports whether the folder is the leftover of an Open that died before its run had a manifest, and so any entry.
func unborn(fsys vfs.FS, dir string) bool {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range names {
		n, isSegment := segment.ParseFileName(e.Name())
		if e.IsDir() || !isSegment && !strings.HasSuffix(e.Name(), ".tmp") || isSegment && n > 1 {
			return false // nothing that such an Open makes
		}
		if isSegment && used(fsys, filepath.Join(dir, e.Name())) {
			return false
		}
	}
	return true
}

// used reports whether a segment may hold frames. What cannot be read may.
func used(fsys vfs.FS, path string) bool {
	f, err := fsys.OpenRead(path)
	if err != nil {
		return true
	}
	defer f.Close()
	h, err := segment.ReadHeader(f, path)
	start := h.Size
	if err != nil {
		if !errors.Is(err, ErrCorrupt) {
			return true
		}
		start = segment.BlockSize // a header that says nothing: what matters is whether anything follows it
	}
	b := make([]byte, 1<<20)
	for {
		n, err := f.ReadAt(b, start)
		for _, c := range b[:n] {
			if c != 0 {
				return true
			}
		}
		if err != nil {
			return !errors.Is(err, io.EOF)
		}
		start += int64(n)
	}
}

// removeAll removes a folder of plain files.
func removeAll(fsys vfs.FS, dir string) error {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range names {
		if err := fsys.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	if err := fsys.Remove(dir); err != nil {
		return err
	}
	return fsys.SyncDir(filepath.Dir(dir))
}
