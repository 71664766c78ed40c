package wal

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/segment/compressed"
	"github.com/runlog-io/runlog/vfs"
)

// Recovery says what Recover found and did.
type Recovery struct {
	Status       manifest.Status
	LastSeq      uint64
	DroppedBytes int64 // torn tail: nothing proves that it was acknowledged
	Manifest     manifest.Manifest
	Damage       error // why the run is quarantined
}

// Recover brings a run whose process died to its end: it decides from the durable tail how the run ended, and seals
// it, or quarantines it without changing a byte of its segments. The caller holds the instance's lock. Recovering a
// run that needs nothing is cheap and changes nothing. An error means that it could not be finished; the entries are
// all there, and the next attempt begins anew.
func Recover(fsys vfs.FS, dir string, now int64) (Recovery, error) {
	for try := 0; ; try++ {
		rec, err := recoverOnce(fsys, dir, now)
		if !errors.Is(err, errChanged) || try == 3 {
			return rec, err
		}
	}
}

func recoverOnce(fsys vfs.FS, dir string, now int64) (Recovery, error) {
	if q, quarantined, qerr := manifest.ReadQuarantine(fsys, dir); quarantined {
		if _, err := fsys.Stat(filepath.Join(dir, manifest.QuarantineName)); err != nil {
			return Recovery{}, errors.Join(qerr, err) // nobody knows whether there is such a file
		}
		m, _, _ := manifest.Read(fsys, dir)
		return Recovery{Status: manifest.Quarantined, Manifest: m, LastSeq: m.LastSeq, Damage: fmt.Errorf("%w: %s", format.ErrQuarantined, q.Reason)}, nil
	}
	m, standIn, merr := manifest.Read(fsys, dir)
	if merr == nil && m.Status.Sealed() {
		if standIn != nil { // a crash came between the two copies
			if err := manifest.Write(fsys, dir, m); err != nil {
				return Recovery{}, err
			}
		}
		return Recovery{Status: m.Status, LastSeq: m.LastSeq, DroppedBytes: m.DroppedBytes, Manifest: m}, nil
	}
	if errors.Is(merr, format.ErrVersion) || passing(merr) {
		return Recovery{}, merr
	}
	st, err := survey(fsys, dir, floorOf(&m))
	if err != nil {
		return Recovery{}, err
	}
	defer st.close()
	st.sealing = true
	err = st.read(fsys, func(h *segment.Header) string {
		if merr != nil && m.Run == "" { // the first that is read speaks for all
			if id, err := manifest.DecodeIdentity("", 0, h.Identity); err == nil {
				m.Identity = id
			}
		}
		return m.Run
	})
	if err != nil {
		return Recovery{}, err
	}
	if merr != nil && m.Run == "" {
		if m.Identity, err = anyIdentity(fsys, st.set); err != nil {
			return Recovery{}, err
		}
	}
	st.damage = st.verdict()
	if st.damage != nil {
		return quarantine(fsys, dir, m, st.damage, now)
	}
	return st.seal(fsys, dir, m, now)
}

// passing reports whether a file could not be looked at for a reason that lies in the system, such as too many open
// files. An EIO may be the medium's last word, so it counts as damage to what has a stand-in.
func passing(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && errno != syscall.ENOENT && errno != syscall.EIO
}

// anyIdentity reads the run's identity out of a segment header.
func anyIdentity(fsys vfs.FS, set *segSet) (manifest.Identity, error) {
	var last error
	for _, ref := range set.segs {
		f, err := compressed.OpenSegment(fsys, ref.path)
		if err != nil {
			if last = missing(ref.path, err); ofContent(last) {
				continue
			}
			return manifest.Identity{}, last
		}
		h, err := segment.ReadHeader(f, ref.path)
		_ = f.Close()
		if err == nil {
			return manifest.DecodeIdentity(ref.path, 64, h.Identity)
		}
		last = err
	}
	return manifest.Identity{}, last
}

func quarantine(fsys vfs.FS, dir string, m manifest.Manifest, damage *format.Error, now int64) (Recovery, error) {
	q := manifest.Quarantine{
		Time: now, Reason: damage.Error(), File: filepath.Base(damage.Path), Offset: damage.Offset,
		FirstSeq: damage.FirstSeq, LastSeq: damage.LastSeq,
	}
	if err := manifest.WriteQuarantine(fsys, dir, q); err != nil {
		return Recovery{}, err
	}
	return Recovery{Status: manifest.Quarantined, Manifest: m, Damage: damage}, nil
}

// seal gives every open segment its footer and index, and the run its final manifest.
func (st *state) seal(fsys vfs.FS, dir string, m manifest.Manifest, now int64) (Recovery, error) {
	fs := newFiles(fsys, dir, maxOpenFiles, func(error) {})
	fs.run = m.Run
	defer fs.closeAll()
	if err := st.checkSealed(fs); err != nil {
		if err := st.damaged(err); err != nil {
			return Recovery{}, err
		}
		return quarantine(fsys, dir, m, st.damage, now)
	}
	if err := st.compressedOpen(); err != nil {
		return quarantine(fsys, dir, m, err, now)
	}
	if err := st.trustDisk(fsys); err != nil {
		return Recovery{}, err
	}
	if st.damage != nil {
		return quarantine(fsys, dir, m, st.damage, now)
	}
	if st.halt != nil && m.Halt == nil { // first, since what follows removes the evidence
		m.Status, m.Halt = manifest.Running, st.halt
		if err := manifest.Write(fsys, dir, m); err != nil {
			return Recovery{}, err
		}
	}
	sha, err := baseSHA(&m)
	if err != nil {
		return Recovery{}, err
	}
	if i := len(st.set.segs) - len(st.open); i > 0 {
		in, err := fs.loadInfo(st.set.segs[i-1])
		if err != nil {
			return Recovery{}, err
		}
		sha = in.footer.RunSHA
		if err := settle(fsys, st.set.segs[i-1], in); err != nil {
			return Recovery{}, err
		}
	}
	fresh := uint32(0) // the first segment of those, up to the last, whose indexes have just been written
	for i, o := range st.open {
		flags, dropped := uint64(0), int64(0)
		if i == len(st.open)-1 {
			flags, dropped = segment.FlagRecovered, st.torn
		}
		w, err := reopen(fsys, o)
		if err != nil {
			return Recovery{}, err
		}
		w.encodeIndex()
		ft, err := sealSegment(w, sha, flags, dropped)
		if err != nil {
			return Recovery{}, err
		}
		sha = ft.RunSHA
		ref := st.set.byNumber(o.header.Number)
		if err := publishSealed(fsys, dir, ref, w, ft); err != nil {
			fresh = 0 // without its index the segment is whole; readers build it in memory
		} else if fresh == 0 {
			fresh = ref.number
		}
		buildFilters(fsys, dir, fs, st.set, o.header.Number, func(error) {})
	}
	d := newDerived(fsys, dir, m.Run, st.set, checkedWhole)
	d.fresh = fresh
	_, _ = d.mend(true) // they only save time
	if err := st.removeExtras(fsys, dir); err != nil {
		return Recovery{}, err
	}
	status, err := st.howEnded(fs)
	if err != nil {
		return Recovery{}, err
	}
	m.DroppedBytes, m.Ended = 0, nil
	if m, err = sealedManifest(fs, st.set, m, status); err != nil {
		return Recovery{}, err
	}
	if kinds := st.kinds(fs); len(kinds) > len(m.Kinds) {
		m.Kinds = kinds
	}
	if err := manifest.Write(fsys, dir, m); err != nil {
		return Recovery{}, err
	}
	return Recovery{Status: status, LastSeq: m.LastSeq, DroppedBytes: m.DroppedBytes, Manifest: m}, nil
}

// reopen opens for writing what examine has read.
func reopen(fsys vfs.FS, o *openSeg) (*openSeg, error) {
	f, err := fsys.Open(o.path)
	if err != nil {
		return nil, &format.Error{Path: o.path, Offset: -1, Why: "open to seal", Err: err}
	}
	old := o.file
	o.file = f
	o.refs.done = f.Close
	_ = old.Close()
	return o, nil
}

// trustDisk makes sure that what was read of the in-doubt commits is on the disk and not only in the page cache:
// after a failed sync the two differ, and a further sync says nothing. It syncs and reads past the cache. Where that
// is impossible, or fails (the kernel may report an old write-back error only now), it copies the segment to a file
// whose every byte it writes and syncs itself.
func (st *state) trustDisk(fsys vfs.FS) error {
	for i, o := range st.open {
		if len(o.pending) == 0 {
			continue
		}
		good, last, err := verifyOnDisk(fsys, o)
		if err != nil {
			if cerr := copySynced(fsys, o); cerr != nil {
				return &format.Error{Path: o.path, Offset: -1, Why: "copy the segment in doubt", Err: errors.Join(err, cerr)}
			}
			continue
		}
		if good >= o.end.Load() {
			continue
		}
		if st.chain.Durable > last.Ordinal { // a later segment vouches for what the disk does not hold
			st.damage = &format.Error{Path: o.path, Offset: good, FirstSeq: last.Seq + 1, LastSeq: o.chain.Seq, Err: format.ErrCorrupt,
				Why: fmt.Sprintf("commit %d was durable and is not on the disk", last.Ordinal+1)}
			return nil
		}
		return st.shorten(fsys, i, good)
	}
	return nil
}

func verifyOnDisk(fsys vfs.FS, o *openSeg) (good int64, last segment.Chain, err error) {
	f, err := fsys.Open(o.path)
	if err != nil {
		return 0, last, err
	}
	err = f.Datasync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return 0, last, err
	}
	return uncachedEnd(o)
}

// uncached reads a file past the page cache.
type uncached struct{ vfs.File }

func (f uncached) ReadAt(b []byte, off int64) (int, error) { return f.ReadAtUncached(b, off) }

// uncachedEnd verifies the unproven commits against the disk, piece by piece, and returns the end of those that are
// there, and the state that they leave.
func uncachedEnd(o *openSeg) (int64, segment.Chain, error) {
	w := window{f: uncached{o.file}, limit: o.end.Load()}
	at, chain := o.pending[0].from, o.pending[0].before
	for at < w.limit {
		batch, err := w.nextBatch(o.header.Salt, at, chain)
		if stopOf(err) != nil {
			break
		}
		if err != nil {
			return 0, chain, err
		}
		at, chain = batch.Commit.End(), batch.Next
	}
	return at, chain, nil
}

// shorten reads segment i again up to where the disk agrees; everything behind was never durable.
func (st *state) shorten(fsys vfs.FS, i int, good int64) error {
	o := st.open[i]
	f, err := fsys.OpenRead(o.path)
	if err != nil {
		return &format.Error{Path: o.path, Offset: -1, Why: "open", Err: err}
	}
	n := newOpenSeg(o.path, o.header, f, o.prev)
	if _, err := n.advance(good); err != nil {
		return err
	}
	ref := st.set.byNumber(o.header.Number)
	ref.open.Store(n)
	for _, later := range st.open[i+1:] {
		st.extra = append(st.extra, later.path)
		later.refs.retire()
	}
	o.refs.retire()
	st.torn += o.end.Load() - good
	st.open = append(st.open[:i:i], n)
	st.set.segs = st.set.segs[:st.set.index(o.header.Number)+1]
	st.chain = n.chain
	return nil
}

// copySynced replaces a segment by a copy whose bytes this process has written and synced itself.
func copySynced(fsys vfs.FS, o *openSeg) error {
	end := o.end.Load()
	tmp := o.path + ".tmp"
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, errNotExist) {
		return err
	}
	f, err := fsys.Create(tmp)
	if err != nil {
		return err
	}
	buf := make([]byte, min(windowSize, end))
	for off := int64(0); off < end && err == nil; {
		n := int(min(int64(len(buf)), end-off))
		if _, err = o.file.ReadAt(buf[:n], off); err == nil {
			_, err = f.WriteAt(buf[:n], off)
		}
		off += int64(n)
	}
	if err == nil {
		err = sameContent(f, tmp, o, end)
	}
	if err == nil {
		err = f.Truncate(max(end, o.header.PlannedSize)) // a segment that is shorter than planned counts as damaged
	}
	if err == nil {
		err = f.Datasync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	o.digest = nil // it is that of what was read before: the copy is read for its own
	if err == nil {
		err = fsys.Rename(tmp, o.path)
	}
	if err == nil {
		err = fsys.SyncDir(filepath.Dir(o.path))
	}
	return err
}

// errChanged: a segment read differently the second time, as when the kernel drops pages that it could not write back.
var errChanged = errors.New("the segment changed while it was copied")

// sameContent checks that a copy holds every batch that was counted.
func sameContent(f vfs.File, path string, o *openSeg, end int64) error {
	c := newOpenSeg(path, o.header, f, o.prev)
	if _, err := c.advance(end); err != nil && !errors.Is(err, format.ErrCorrupt) {
		return err
	}
	if c.chain.Value != o.chain.Value {
		return errChanged
	}
	return nil
}

// removeExtras removes what does not belong to a sealed run: spares, the detached halt record (its content is kept in
// the manifest), and unfinished files.
func (st *state) removeExtras(fsys vfs.FS, dir string) error {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range names {
		if strings.HasSuffix(e.Name(), ".tmp") {
			st.extra = append(st.extra, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(st.extra)
	for _, path := range slices.Backward(st.extra) { // the highest number first, and each for good, so that no crash leaves a gap
		if err := fsys.Remove(path); err != nil && !errors.Is(err, errNotExist) {
			return &format.Error{Path: path, Offset: -1, Why: "remove what is not part of the run", Err: err}
		}
		if err := fsys.SyncDir(dir); err != nil {
			return err
		}
	}
	if len(st.extra) > 0 {
		return nil // the last removal was synced
	}
	return fsys.SyncDir(dir) // an earlier attempt may have removed, and not synced
}

// howEnded is Ended if the run's last entry is RunEnded, else CrashedRecovered.
func (st *state) howEnded(fs *files) (manifest.Status, error) {
	if st.chain.Seq == 0 {
		return manifest.CrashedRecovered, nil
	}
	r := &Reader{fsys: fs.fsys, dir: fs.dir, files: fs, set: func() *segSet { return st.set }}
	v, err := r.get(st.chain.Seq, &Buffer{})
	if err != nil {
		return "", err
	}
	if v.Topic() == entry.TopicEnded && v.Type() == entry.TypeEnded {
		return manifest.Ended, nil
	}
	return manifest.CrashedRecovered, nil
}

// kinds are the declared kinds as the last segment that was started knows them: each repeats all that were declared
// before.
func (st *state) kinds(fs *files) []manifest.KeyKind {
	for i := len(st.set.segs) - 1; i >= 0; i-- {
		ref := st.set.segs[i]
		if ref.open.Load() != nil {
			continue
		}
		m, err := fs.pinSegment(ref)
		if err != nil {
			return nil
		}
		list := kindList(m.index().Dict().Kinds())
		started := m.info.footer.ContentEnd > m.info.header.Size
		fs.unpin(m)
		if started {
			return list
		}
	}
	return nil
}

// checkSealed checks that the sealed segments are the run's, all of them and in order, as far as their headers and
// footers tell.
func (st *state) checkSealed(fs *files) error {
	var prev *sealedInfo
	for _, ref := range st.set.segs[:len(st.set.segs)-len(st.open)] {
		in, err := fs.loadInfo(ref)
		if err != nil {
			return err
		}
		if prev != nil && (!prev.footer.Continues() || prev.footer.NextSalt != in.header.Salt) {
			return &format.Error{Path: ref.path, Offset: 16, FirstSeq: prev.footer.LastSeq + 1, Why: "not the segment that the one before names",
				Err: format.ErrMissingSegment}
		}
		prev = in
	}
	return nil
}

// settle makes a footer durable that its writer may have been killed over, or whose sync may have failed: it is
// written again.
func settle(fsys vfs.FS, ref *segRef, in *sealedInfo) error {
	f, err := fsys.Open(strings.TrimSuffix(ref.path, compressed.Suffix))
	if errors.Is(err, errNotExist) && ref.isCompressed(fsys) {
		return nil // it got its name behind a sync of all of it
	}
	if err == nil {
		if err = writeFooter(f, &in.footer, in.header.Salt); err == nil {
			return f.Close()
		}
		_ = f.Close()
	}
	return &format.Error{Path: ref.path, Offset: in.footer.ContentEnd, Why: "make the footer durable", Err: err}
}
