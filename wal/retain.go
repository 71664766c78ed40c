package wal

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/runlog-io/runlog/index"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

// RemovedPrefix begins the name of a run's folder whose removal has been decided; its run id follows.
const RemovedPrefix = ".removed-"

// RemoveBefore removes the segments in front of number keep from a sealed run, for good. The caller holds the
// instance's lock. Segment keep must have an entry. Headers and footers of what goes, and that of keep, are checked
// first, and whether each continues the one before: nothing goes in front of such damage. Seqs stay as they are: the run then begins at the first seq of segment keep, and
// everything before is ErrRemoved to its readers. After a crash the segments are all there, or the run's manifest says
// where it begins and what is left of them is no part of it; see FinishRemoval. With keep at or below the run's first
// segment it only does what FinishRemoval does.
func RemoveBefore(fsys vfs.FS, dir string, keep uint32) error {
	m, err := removable(fsys, dir)
	if err != nil {
		return err
	}
	if keep > m.FirstSegment() {
		fs := newFiles(fsys, dir, 0, func(error) {})
		fs.run = m.Run
		err := raiseFloor(&m, keep, func(n uint32) (*sealedInfo, error) {
			return fs.loadInfo(&segRef{number: n, path: filepath.Join(dir, segment.FileName(n))})
		})
		if err != nil {
			return err
		}
		if err := writeFloor(fsys, dir, m, func() {}); err != nil {
			return err
		}
		return removeBelow(fsys, dir, keep)
	}
	return finishBelow(fsys, dir, m)
}

// RemoveBefore is the function of the same name for the run that is being written. Segment keep must have its footer; its
// index may still be missing. It is safe for concurrent use with everything; Seal and Close wait for it.
func (l *Log) RemoveBefore(keep uint32) error {
	l.retaining.Lock()
	defer l.retaining.Unlock()
	if l.over {
		return format.ErrClosed
	}
	set := l.set.Load()
	l.kmu.Lock()
	m := l.o.Manifest
	l.kmu.Unlock()
	if keep > m.FirstSegment() {
		err := raiseFloor(&m, keep, func(n uint32) (*sealedInfo, error) {
			ref := set.byNumber(n)
			if ref == nil {
				return nil, fmt.Errorf("%w: run %s has no segment %d", format.ErrInvalid, m.Run, n)
			}
			unsealed := ref.open.Load() != nil // for a moment yet, if there is a footer
			in, err := l.files.loadInfo(ref)
			if err != nil && unsealed {
				return nil, fmt.Errorf("%w: segment %d of run %s is not sealed", format.ErrInvalid, n, m.Run)
			}
			return in, err
		})
		if err != nil {
			return err
		}
		err = writeFloor(l.o.FS, l.o.Dir, m, func() {
			l.kmu.Lock()
			takeFloor(&l.o.Manifest, &m)
			l.kmu.Unlock()
		})
		if err != nil {
			return err
		}
		trim(&l.set, floorOf(&m)) // readers know, before the first file goes
		l.files.forgetBelow(keep)
		return removeBelow(l.o.FS, l.o.Dir, keep)
	}
	return finishBelow(l.o.FS, l.o.Dir, m)
}

// raiseFloor makes segment keep the first of the run that m speaks of. Every segment up to it must be sealed, whole as
// far as header and footer tell, and follow the one before.
func raiseFloor(m *manifest.Manifest, keep uint32, info func(n uint32) (*sealedInfo, error)) error {
	if m.Status.Sealed() && keep > m.Segments {
		return fmt.Errorf("%w: run %s has no segment %d", format.ErrInvalid, m.Run, keep)
	}
	var prev *sealedInfo
	for n := m.FirstSegment(); ; n++ {
		in, err := info(n)
		if err != nil {
			return err
		}
		if prev == nil && in.footer.FirstSeq != m.FirstSeq() ||
			prev != nil && (!prev.footer.Continues() || prev.footer.NextSalt != in.header.Salt || prev.footer.LastSeq+1 != in.footer.FirstSeq) {
			return fmt.Errorf("run %s: segment %d does not continue what is in front of it: %w", m.Run, n, format.ErrCorrupt)
		}
		if n == keep {
			if in.footer.Entries == 0 {
				return fmt.Errorf("%w: segment %d of run %s has no entry, so nothing can begin there", format.ErrInvalid, n, m.Run)
			}
			m.FloorSegment, m.Floor = keep, in.footer.FirstSeq
			m.BaseDigest = hex.EncodeToString(prev.footer.RunSHA[:])
			return nil
		}
		if in.footer.Entries > 0 && (m.BaseEnded == nil || in.footer.MaxInit > *m.BaseEnded) {
			ended := in.footer.MaxInit
			m.BaseEnded = &ended
		}
		prev = in
	}
}

// writeFloor makes both copies of the manifest carry the floor. It calls written as soon as one does.
func writeFloor(fsys vfs.FS, dir string, m manifest.Manifest, written func()) error {
	if err := manifest.Write(fsys, dir, m); err != nil {
		return err
	}
	written()
	return manifest.Write(fsys, dir, m)
}

// takeFloor gives a manifest the floor of another one, and leaves the rest of it to those who read it meanwhile.
func takeFloor(to, from *manifest.Manifest) {
	to.FloorSegment, to.Floor, to.BaseDigest, to.BaseEnded = from.FloorSegment, from.Floor, from.BaseDigest, from.BaseEnded
}

// baseSHA is the run_sha256 that the first segment's is made from.
func baseSHA(m *manifest.Manifest) (sha [32]byte, err error) {
	if m.BaseDigest != "" {
		_, err = hex.Decode(sha[:], []byte(m.BaseDigest))
	}
	return sha, err
}

// trim lets go of the segments below a floor.
func trim(at *atomic.Pointer[segSet], from floor) {
	for {
		set := at.Load()
		i := set.index(from.segment)
		if i < 0 || set.segs[i].number != from.segment || set.floor.segment >= from.segment {
			return
		}
		if at.CompareAndSwap(set, &segSet{segs: set.segs[i:], floor: from}) {
			return
		}
	}
}

// removable reads the manifest of a run of which something is to be removed: it must be sealed, and not be evidence.
func removable(fsys vfs.FS, dir string) (manifest.Manifest, error) {
	if _, quarantined, err := manifest.ReadQuarantine(fsys, dir); quarantined {
		return manifest.Manifest{}, &format.Error{Path: dir, Offset: -1, Why: "nothing is removed from it", Err: errors.Join(format.ErrQuarantined, err)}
	}
	m, standIn, err := manifest.Read(fsys, dir)
	switch {
	case err != nil:
		return m, err
	case standIn != nil: // the engine's next start puts it back
		return m, fmt.Errorf("%s: nothing is removed from a run whose manifest is damaged: %w", dir, standIn)
	case !m.Status.Sealed():
		return m, fmt.Errorf("%w: run %s: %w", format.ErrInvalid, m.Run, format.ErrNotSealed)
	}
	return m, nil
}

// removeBelow removes the files that belong to segments below number n, whatever form they have. Both copies of the
// manifest say so, and are on the disk.
func removeBelow(fsys vfs.FS, dir string, n uint32) error {
	paths, err := filesBelow(fsys, dir, n)
	if err != nil || len(paths) == 0 {
		return err
	}
	for _, path := range paths {
		if err := fsys.Remove(path); err != nil && !errors.Is(err, errNotExist) {
			return &format.Error{Path: path, Offset: -1, Why: "remove what is below the run's floor", Err: err}
		}
	}
	return fsys.SyncDir(dir)
}

// filesBelow lists the files of segments below number n, of each what is derived first.
func filesBelow(fsys vfs.FS, dir string, n uint32) (paths []string, err error) {
	names, err := fsys.ReadDir(dir)
	for _, e := range names {
		if number, ok := numberOf(e.Name()); ok && number < n && !e.IsDir() {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, err
}

// finishBelow removes what is below the floor that a manifest has. Whoever wrote that may have been killed before it was
// on the disk, or between its two copies, so it is written once more first.
func finishBelow(fsys vfs.FS, dir string, m manifest.Manifest) error {
	paths, err := filesBelow(fsys, dir, m.FirstSegment())
	if err != nil || len(paths) == 0 {
		return err
	}
	if err := manifest.Write(fsys, dir, m); err != nil {
		return err
	}
	return removeBelow(fsys, dir, m.FirstSegment())
}

// numberOf is the number of the first segment that a file of a run's folder belongs to: a segment, plain or compressed, an
// index, a filter, or one of these that is unfinished.
func numberOf(name string) (uint32, bool) {
	body, _ := strings.CutSuffix(name, ".tmp")
	if n, ok := segment.ParseFileName(body); ok {
		return n, true
	}
	if n, ok := index.ParseFileName(body); ok {
		return n, true
	}
	if r, ok := index.ParseFilterName(body); ok {
		return r.First, true
	}
	if digits, ok := strings.CutSuffix(body, ".segz"); ok {
		n, err := strconv.ParseUint(digits, 10, 32)
		return uint32(n), err == nil && segment.FileName(uint32(n)) == digits+".seg"
	}
	return 0, false
}

// FinishRemoval removes what a crash has left of the segments that RemoveBefore was removing from the run in dir. The
// caller holds the instance's lock.
func FinishRemoval(fsys vfs.FS, dir string) error {
	if _, quarantined, _ := manifest.ReadQuarantine(fsys, dir); quarantined {
		return nil
	}
	m, standIn, err := manifest.Read(fsys, dir)
	if err != nil || standIn != nil {
		return nil // what is not known for sure can wait
	}
	return finishBelow(fsys, dir, m)
}

// RemoveRun removes the folder of a sealed run, for good. The caller holds the instance's lock. A folder that holds
// anything that is not a run's is left alone. After a crash the run is whole, or it is not there: what is left of it
// then has a name that nobody takes for a run's, and FinishRemovals removes it.
func RemoveRun(fsys vfs.FS, dir string) error {
	if _, err := removable(fsys, dir); err != nil {
		return err
	}
	strangers, err := Strangers(fsys, dir)
	if err != nil {
		return err
	}
	if len(strangers) > 0 {
		return fmt.Errorf("%w: %s holds %s, which is not part of a run", format.ErrInvalid, dir, strangers[0])
	}
	base, run := filepath.Split(filepath.Clean(dir))
	aside := filepath.Join(base, RemovedPrefix+run)
	if err := fsys.Rename(dir, aside); err != nil {
		return err
	}
	if err := fsys.SyncDir(filepath.Clean(base)); err != nil {
		return err
	}
	return removeFolder(fsys, aside)
}

// Strangers lists what a run's folder holds that is not part of a run.
func Strangers(fsys vfs.FS, dir string) ([]string, error) {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, e := range names {
		body, _ := strings.CutSuffix(e.Name(), ".tmp")
		_, numbered := numberOf(e.Name())
		switch {
		case e.IsDir():
		case numbered, body == manifest.FileName, body == manifest.PrevName, body == manifest.QuarantineName:
			continue
		}
		list = append(list, e.Name())
	}
	return list, nil
}

// FinishRemovals removes what a crash has left of runs that RemoveRun was removing from an instance's folder. The
// caller holds the instance's lock.
func FinishRemovals(fsys vfs.FS, instance string) error {
	names, err := fsys.ReadDir(instance)
	if err != nil {
		return err
	}
	var left []string
	for _, e := range names {
		if run, ok := strings.CutPrefix(e.Name(), RemovedPrefix); ok && e.IsDir() && manifest.ValidRunID(run) {
			left = append(left, filepath.Join(instance, e.Name()))
		}
	}
	if len(left) == 0 {
		return nil
	}
	if err := fsys.SyncDir(instance); err != nil { // whoever renamed them may have been killed before that was on the disk
		return err
	}
	for _, dir := range left {
		err = errors.Join(err, removeFolder(fsys, dir))
	}
	return err
}

// FinishAll is FinishRemovals for the instance's folder and FinishRemoval for each of its runs.
func FinishAll(fsys vfs.FS, instance string) error {
	errs := []error{FinishRemovals(fsys, instance)}
	names, err := fsys.ReadDir(instance)
	for _, e := range names {
		if e.IsDir() && manifest.ValidRunID(e.Name()) {
			errs = append(errs, FinishRemoval(fsys, filepath.Join(instance, e.Name())))
		}
	}
	return errors.Join(append(errs, err)...)
}

// removeFolder removes a folder of plain files.
func removeFolder(fsys vfs.FS, dir string) error {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range names {
		if err := fsys.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := fsys.Remove(dir); err != nil {
		return err
	}
	return fsys.SyncDir(filepath.Dir(dir))
}

// SegmentInfo is what a segment's header and footer say, and how much room it takes.
type SegmentInfo struct {
	Number     uint32
	Sealed     bool
	FirstSeq   uint64
	LastSeq    uint64 // below FirstSeq if there is no entry
	MaxPublish int64  // greatest ts_publish, 0 if there is no entry or the segment is not sealed
	Bytes      int64  // of all its files, and of the filters that begin with it
}

// Segments describes the run's segments, from the first that is still there. An error names one of which nothing is
// known.
func (r *Reader) Segments() ([]SegmentInfo, error) {
	sizes, err := r.sizes()
	if err != nil {
		return nil, err
	}
	var list []SegmentInfo
	for _, ref := range r.set().segs {
		s := SegmentInfo{Number: ref.number, Bytes: sizes[ref.number]}
		if o := ref.open.Load(); o != nil {
			s.FirstSeq, s.LastSeq = o.firstSeq, o.lastSeq.Load()
		} else if in, err := r.files.loadInfo(ref); err != nil {
			return nil, err
		} else {
			s.Sealed, s.FirstSeq, s.LastSeq, s.MaxPublish = true, in.footer.FirstSeq, in.footer.LastSeq, in.footer.MaxPublish
		}
		list = append(list, s)
	}
	return list, nil
}

// sizes are the bytes of the files of each segment.
func (r *Reader) sizes() (map[uint32]int64, error) {
	names, err := r.fsys.ReadDir(r.dir)
	if err != nil {
		return nil, err
	}
	sizes := map[uint32]int64{}
	for _, e := range names {
		if n, ok := numberOf(e.Name()); ok {
			if info, err := r.fsys.Stat(filepath.Join(r.dir, e.Name())); err == nil {
				sizes[n] += info.Size()
			}
		}
	}
	return sizes, nil
}

// below is the error about what is in front of a floor.
func (r *Reader) below(from floor) error {
	return &format.Error{Path: r.dir, Offset: -1, FirstSeq: 1, LastSeq: from.seq - 1,
		Why: fmt.Sprintf("the run begins at seq %d", from.seq), Err: format.ErrRemoved}
}

// removed tells whether the file of segment n is gone because retention has removed it since this reader has looked, or
// the whole run: then it returns the error that says so.
func (r *Reader) removed(n uint32) error {
	if from := r.set().floor; n < from.segment {
		return r.below(from)
	}
	if r.ext == nil {
		return nil
	}
	m, _, err := manifest.Read(r.fsys, r.dir)
	if err == nil && n < m.FirstSegment() {
		from := floorOf(&m)
		r.raise(&m)
		return r.below(from)
	}
	if errors.Is(err, errNotExist) {
		if _, err := r.fsys.Stat(r.dir); errors.Is(err, errNotExist) {
			return &format.Error{Path: r.dir, Offset: -1, Why: "the run is no longer there", Err: format.ErrRemoved}
		}
	}
	return nil
}

// unlessRemoved is the error about segment n that is not there, or the one that says that retention has removed it.
func (r *Reader) unlessRemoved(n uint32, missing error) error {
	if errors.Is(missing, format.ErrMissingSegment) {
		if err := r.removed(n); err != nil {
			return err
		}
	}
	return missing
}

// raise takes over the floor of a manifest that was read anew.
func (r *Reader) raise(m *manifest.Manifest) {
	r.mu.Lock()
	if m.FloorSegment > r.manifest.FloorSegment {
		takeFloor(&r.manifest, m)
	}
	r.mu.Unlock()
	trim(&r.ext.set, floorOf(m))
	r.files.forgetBelow(m.FirstSegment())
}

// floorMoved reports whether retention has moved the floor since the manifest was read.
func (r *Reader) floorMoved() bool {
	m, _, err := manifest.Read(r.fsys, r.dir)
	return err == nil && m.FirstSegment() > r.manifest.FirstSegment()
}

// forgetBelow lets go of what is mapped of segments below number n, so that their room is free once nobody has them pinned.
func (fs *files) forgetBelow(n uint32) {
	fs.letGo(func(m *mapped) bool {
		number, ok := numberOf(filepath.Base(m.key))
		return ok && number < n
	})
}
