package runlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
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
	DroppedBytes int64 // torn tail, never acknowledged
	Recovered    bool  // by this Open
	Parent       string
	Origin       string
	Err          error // why it is quarantined, or could not be recovered (then it is left alone)
}

// found is what the sweep over an instance's runs has found.
type found struct {
	list    []Predecessor
	newest  string // run id
	parent  string
	skipped []manifest.Skipped
}

// sweep recovers every run that its process has left unsealed. A run that cannot be recovered never stops it.
func sweep(o *Options, base string, now int64) (f found, err error) {
	names, err := o.FS.ReadDir(base)
	if err != nil {
		return f, fmt.Errorf("runlog: %w", err)
	}
	for _, e := range names {
		if !e.IsDir() || !manifest.ValidRunID(e.Name()) {
			continue
		}
		dir := filepath.Join(base, e.Name())
		f.newest = e.Name()
		before, _, merr := manifest.Read(o.FS, dir)
		if errors.Is(merr, fs.ErrNotExist) && unborn(o.FS, dir) {
			if err := removeAll(o.FS, dir); err != nil {
				o.Logger.Warn("runlog: leftover of a run that never started", "dir", dir, "error", err)
			}
			continue
		}
		rec, err := wal.Recover(o.FS, dir, now)
		if diskFull(err) {
			return f, fmt.Errorf("runlog: recover run %s: %w", e.Name(), err) // its state is whole: going on without it would be wrong
		}
		p := Predecessor{
			Run: e.Name(), Status: rec.Status, LastSeq: rec.LastSeq, DroppedBytes: rec.DroppedBytes, Parent: rec.Manifest.Parent,
			Origin: rec.Manifest.Origin, Err: rec.Damage,
		}
		if err != nil {
			p.Status, p.Err = before.Status, err
		}
		p.Recovered = err == nil && (merr != nil || !before.Status.Sealed()) && rec.Status != manifest.Quarantined
		f.list = append(f.list, p)
		if p.Err != nil {
			f.skipped = append(f.skipped, manifest.Skipped{Run: p.Run, Reason: p.Err.Error()})
			o.Logger.Error("runlog: predecessor is not usable", "run", p.Run, "status", p.Status, "error", p.Err)
		}
	}
	f.parent = chooseParent(f.list)
	return f, nil
}

func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// chooseParent returns the newest run that crashed, holds state of its own and has not been consumed: no later run
// that names it as parent has ended cleanly or gone on to hold state. A quarantined or unreadable child consumes
// nothing, since its state cannot be used. Runs are ordered by id, which a stepped clock cannot turn back.
func chooseParent(runs []Predecessor) string {
	ownState := func(p *Predecessor) bool { return p.LastSeq > 1 } // seq 1 is RunStarted
	consumed := map[string]bool{}
	for i := range runs {
		p := &runs[i]
		if p.Err == nil && p.Parent != "" && (p.Status == manifest.Ended || ownState(p)) {
			consumed[p.Parent] = true
		}
	}
	for i := len(runs) - 1; i >= 0; i-- {
		p := &runs[i]
		if p.Err == nil && p.Status == manifest.CrashedRecovered && p.Origin == manifest.OriginEngine && ownState(p) && !consumed[p.Run] {
			return p.Run
		}
	}
	return ""
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
		start = segment.BlockSize // the header itself was not finished: nothing can follow it
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
