package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/index"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/segment/compressed"
	"github.com/runlog-io/runlog/vfs"
)

// folder says what a folder is.
type folder uint8

const (
	foreign  folder = iota
	isRun           // holds a run's files
	isInst          // holds runs
	isBase          // holds instances that hold runs
	isEmpty         // holds nothing
	maxNames = 1000 // folders that are looked into, to tell what a foreign one is
)

// classify looks at names only.
func classify(dir string) (folder, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return foreign, err
	}
	if !info.IsDir() {
		return foreign, fmt.Errorf("%s: %w: it is a file, not a folder", dir, runlog.ErrNotRun)
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return foreign, err
	}
	kind := foreign
	for i, e := range names {
		_, isSegment := segment.ParseFileName(e.Name())
		_, isCompressed := compressed.ParseFileName(e.Name())
		switch {
		case isSegment, isCompressed, e.Name() == manifest.FileName, e.Name() == manifest.PrevName:
			return isRun, nil
		case manifest.ValidRunID(e.Name()):
			kind = isInst
		case kind == foreign && isFolder(dir, e) && manifest.ValidInstance(e.Name()) && i < maxNames && holdsRuns(filepath.Join(dir, e.Name())):
			kind = isBase
		}
	}
	if len(names) == 0 {
		kind = isEmpty
	}
	return kind, nil
}

// isFolder follows links.
func isFolder(dir string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.IsDir()
	}
	info, err := os.Stat(filepath.Join(dir, e.Name()))
	return err == nil && info.IsDir()
}

func holdsRuns(dir string) bool {
	names, _ := os.ReadDir(dir)
	for _, e := range names {
		if manifest.ValidRunID(e.Name()) {
			return true
		}
	}
	return false
}

// notRun says what a folder is that should be a run.
func notRun(dir string, kind folder) error {
	hint := "it holds none of a run's files"
	switch kind {
	case isEmpty:
		hint = "the folder is empty"
	case isInst:
		hint = "it is an instance's folder: name one of the runs in it"
	case isBase:
		hint = fmt.Sprintf("it is a base folder: name a run's directory (runlog ls %s lists them)", dir)
	}
	return fmt.Errorf("%s: %w: %s", dir, runlog.ErrNotRun, hint)
}

// notBase says what a folder is that should be a base.
func notBase(dir string, kind folder) error {
	hint := "there is no run below it"
	switch kind {
	case isEmpty:
		hint = "the folder is empty"
	case isRun:
		hint = fmt.Sprintf("it is a run's directory: see runlog info %s", dir)
	case isInst:
		hint = fmt.Sprintf("it is an instance's folder: the base is %s", filepath.Dir(filepath.Clean(dir)))
	}
	return fmt.Errorf("%s: not a base folder: %s", dir, hint)
}

// withRun opens a run for a reading verb, and afterwards says what it had to work around.
func (a *app) withRun(dir string, use func(r *runlog.Reader) error) error {
	kind, err := classify(dir)
	if err != nil {
		return err
	}
	if kind != isRun {
		return notRun(dir, kind)
	}
	r, err := runlog.OpenReader(dir, runlog.ReaderOptions{})
	if err != nil {
		return err
	}
	defer r.Close()
	err = use(r)
	a.afterReading(r)
	return err
}

const maxWarnings = 20

func (a *app) afterReading(r *runlog.Reader) {
	seen := map[string]bool{}
	for _, w := range r.Warnings() {
		if s := w.Error(); !seen[s] {
			if seen[s] = true; len(seen) <= maxWarnings {
				a.warn(w)
			}
		}
	}
	if n := len(seen) - maxWarnings; n > 0 {
		a.warn(fmt.Errorf("%d more warnings", n))
	}
	if first := r.FirstSeq(); first > 1 {
		a.note("%s: the run begins at seq %d: retention has removed what was in front", r.Dir(), first)
	}
	if n := r.DroppedBytes(); n > 0 && !r.Status().Sealed() && r.Damage() == nil {
		what := "torn tail of %d bytes behind seq %d: nothing proves that it was acknowledged; the next start of the engine drops it"
		if live(r.Dir(), r.Manifest()) {
			what = "%d bytes behind seq %d are no whole batch yet: the engine is writing it"
		}
		a.note("%s: "+what, r.Dir(), n, r.LastSeq())
	}
	if r.Status() == runlog.Quarantined {
		reason := "its quarantine file cannot be read"
		if q, _, err := manifest.ReadQuarantine(vfs.OS, r.Dir()); err == nil {
			reason = q.Reason
		}
		a.warn(fmt.Errorf("%s: the run is quarantined: %s", r.Dir(), reason))
	}
}

// live reports whether a process holds the run's instance, and the run is the one that it writes.
func live(dir string, m runlog.Manifest) bool {
	abs, err := filepath.Abs(dir)
	if err != nil || m.Status.Sealed() || m.Origin == manifest.OriginImport {
		return false
	}
	inst := filepath.Dir(abs)
	_, held, err := vfs.OS.LockHolder(filepath.Join(inst, manifest.LockName))
	if err != nil || !held {
		return false
	}
	names, err := os.ReadDir(inst)
	if err != nil {
		return false
	}
	newest := ""
	for _, e := range names {
		if manifest.ValidRunID(e.Name()) {
			newest = e.Name()
		}
	}
	return newest == filepath.Base(abs)
}

// state is a run's status in one word that also tells whether its process lives.
func state(status runlog.Status, alive bool) string {
	if status == "" {
		return "status unknown"
	}
	if status != runlog.Running {
		return string(status)
	}
	if alive {
		return "Live"
	}
	return "Crashed"
}

// segmentInfo is one segment as info shows it.
type segmentInfo struct {
	Number   uint32 `json:"number"`
	Sealed   bool   `json:"sealed"`
	Entries  uint64 `json:"entries"`
	FirstSeq uint64 `json:"first_seq"`
	LastSeq  uint64 `json:"last_seq"`
	Bytes    int64  `json:"bytes"`
	Plain    int64  `json:"plain_bytes,omitempty"` // of a compressed one: what it would be
	Codec    string `json:"codec,omitempty"`
	Index    int64  `json:"index_bytes"`
	Problem  string `json:"problem,omitempty"`
}

const noIndex = "index is missing"

// beingIndexed takes back what was said of a live run's newest sealed segment: its index follows its footer.
func beingIndexed(list []segmentInfo) {
	for i := range slices.Backward(list) {
		if s := &list[i]; s.Sealed {
			if s.Problem == noIndex {
				s.Problem = ""
			}
			return
		}
	}
}

// segments describes the segment files from number first on. Those without a footer get their numbers from the run's end.
func segments(dir string, first uint32, lastSeq uint64) ([]segmentInfo, error) {
	names, err := vfs.OS.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []segmentInfo
	seq := uint64(0)
	for _, e := range names {
		n, ok := segment.ParseFileName(e.Name())
		if !ok {
			n, ok = compressed.ParseFileName(e.Name())
			ok = ok && (len(list) == 0 || list[len(list)-1].Number != n) // where both are there the plain one counts
		}
		if !ok || e.IsDir() || n < first {
			continue
		}
		s := segmentInfo{Number: n}
		if err := s.read(filepath.Join(dir, e.Name())); err != nil {
			s.Problem = err.Error()
		}
		if info, err := os.Stat(filepath.Join(dir, index.FileName(n))); err == nil {
			s.Index = info.Size()
		} else if s.Sealed && errors.Is(err, fs.ErrNotExist) && s.Problem == "" {
			s.Problem = noIndex
		}
		if s.Sealed {
			seq = max(seq, s.LastSeq)
		}
		list = append(list, s)
	}
	// What no footer tells: the entries of the first open segment go to the end of the run or to the next start frame.
	for i := range list {
		s := &list[i]
		if s.Sealed || s.Problem != "" || s.FirstSeq == 0 {
			continue
		}
		s.LastSeq = lastSeq
		if i+1 < len(list) && list[i+1].FirstSeq > 0 {
			s.LastSeq = list[i+1].FirstSeq - 1
		}
		if s.LastSeq >= s.FirstSeq {
			s.Entries = s.LastSeq - s.FirstSeq + 1
		} else {
			s.FirstSeq, s.LastSeq = 0, 0
		}
	}
	return list, nil
}

func (s *segmentInfo) read(path string) error {
	f, err := compressed.OpenSegment(vfs.OS, path)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Size()
	if s.Bytes = size; err != nil {
		return err
	}
	if z, ok := f.(*compressed.File); ok {
		s.Bytes, s.Plain, s.Codec = z.DiskSize(), size, z.Codec().String()
	}
	h, err := segment.ReadHeader(f, path)
	if err != nil {
		return err
	}
	ft, ok, err := segment.ReadFooter(f, size, &h)
	if err != nil {
		return err
	}
	if ok {
		s.Sealed, s.Entries = true, ft.Entries
		if ft.Entries > 0 {
			s.FirstSeq, s.LastSeq = ft.FirstSeq, ft.LastSeq
		}
		return nil
	}
	var b [segment.StartSize]byte
	n, _ := f.ReadAt(b[:], h.Size)
	if st, ok := segment.DecodeStart(b[:n], h.Salt, h.Size); ok && !st.Detached {
		s.FirstSeq = st.Prev.Seq + 1
	}
	return nil
}
