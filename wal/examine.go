package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/segment/compressed"
	"github.com/runlog-io/runlog/vfs"
)

// floor is where a run begins: retention may have removed what was in front.
type floor struct {
	segment uint32 // number of the first segment, 1 if nothing was removed
	seq     uint64 // its first seq
}

func floorOf(m *manifest.Manifest) floor { return floor{m.FirstSegment(), m.FirstSeq()} }

// state is what the files of a run say, without changing any of them.
type state struct {
	set   *segSet
	open  []*openSeg // segments without a footer that belong to the log, in order
	extra []string   // files that do not: spares, a detached halt record
	chain segment.Chain
	final bool // the run's last commit or footer says so
	// recovered: the last footer is recovery's own, which decides the end before it removes what is behind it.
	recovered bool
	torn      int64         // bytes behind the last whole batch; nothing proves that they were acknowledged
	dropped   int64         // what the footer that ends the run says was cut off
	tornAt    int64         // where they begin
	tornWhy   string        // what stands there
	damage    *format.Error // acknowledged data is damaged: the log ends before it
	gap       *format.Error // so it is elsewhere: where the log ends is known all the same
	gone      bool          // numbers are missing
	halt      *manifest.Halt
	sealing   bool // what is open will be sealed: its digest is made while it is read
}

// listSegments returns the segments in dir, plain or compressed, by number. Where both are there the plain one counts.
func listSegments(fsys vfs.FS, dir string) ([]*segRef, error) {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []*segRef
	for _, e := range names { // by name: the plain one comes first
		n, ok := segment.ParseFileName(e.Name())
		if !ok {
			n, ok = compressed.ParseFileName(e.Name())
			ok = ok && (len(list) == 0 || list[len(list)-1].number != n)
		}
		if ok && !e.IsDir() {
			list = append(list, &segRef{number: n, path: filepath.Join(dir, e.Name())})
		}
	}
	return list, nil
}

// examine reads a run's folder from its floor on: the footers from the end backwards, and every segment behind the last
// footer whole. A non-nil error means that it could not be read; damage to the log is reported in the state.
func examine(fsys vfs.FS, dir string, from floor, runID func(h *segment.Header) string) (*state, error) {
	st, err := survey(fsys, dir, from)
	if err != nil {
		return nil, err
	}
	return st, st.read(fsys, runID)
}

// survey lists a run's segments without looking into them.
func survey(fsys vfs.FS, dir string, from floor) (*state, error) {
	list, err := listSegments(fsys, dir)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(ref *segRef) bool { return ref.number < from.segment }) // retention had no time to remove them
	if len(list) == 0 {
		return nil, &format.Error{Path: dir, Offset: -1, Why: "no segment files", Err: format.ErrNotRun}
	}
	st := &state{set: &segSet{floor: from}}
	next := from.segment
	for _, ref := range list {
		if ref.number != next {
			st.gone = true
			st.set.segs = append(st.set.segs, &segRef{number: next, gone: true, path: filepath.Join(dir, segment.FileName(next))})
		}
		st.set.segs = append(st.set.segs, ref)
		next = ref.number + 1
	}
	return st, nil
}

// verdict is the first damage, if there is any.
func (st *state) verdict() *format.Error {
	if st.gap != nil {
		return st.gap
	}
	return st.damage
}

// read finds the last footer, and walks on from there.
func (st *state) read(fsys vfs.FS, runID func(h *segment.Header) string) error {
	segs := st.set.segs
	next := len(segs)
	var footer *sealedInfo
	for ; next > 0; next-- {
		if segs[next-1].gone {
			continue
		}
		in, err := infoOf(fsys, segs[next-1], runID)
		if err == nil {
			footer = in
			break
		}
		if !st.isDamage(err) {
			return err
		}
	}
	wantSalt, named := uint64(0), true // the first segment needs no other to name it
	if footer != nil {
		st.chain = footer.footer.State()
		st.final = !footer.footer.Continues()
		st.recovered = footer.footer.Flags&segment.FlagRecovered != 0
		st.dropped = footer.footer.Dropped
		wantSalt, named = footer.footer.NextSalt, footer.footer.Continues()
		run := runID(&footer.header)
		for i, ref := range segs[:next] {
			if ref.gone && st.gap == nil {
				first, last := st.set.bounds(fsys, run, i)
				st.gap = lose(nil, notThere(ref.path), first, last).err
			}
		}
	}
	for i := next; i < len(segs); i++ {
		if !named {
			return st.beyond(fsys, i)
		}
		done, err := st.walk(fsys, segs[i], wantSalt, runID)
		if err == nil && st.damage != nil {
			var k int
			if k, err = st.resume(fsys, i, runID); k > 0 {
				i, named, wantSalt = k-1, true, 0
				continue
			}
		}
		if err != nil || st.damage != nil {
			st.set.segs = segs[:i+1]
			if st.damage != nil && segs[i].open.Load() == nil {
				st.set.segs = segs[:i]
			}
			return err
		}
		if done {
			return st.beyond(fsys, i+1)
		}
		last := st.open[len(st.open)-1].last
		named, wantSalt = last.Flags&segment.FlagContinues != 0, last.NextSalt
	}
	if named && len(segs) > 0 && st.damage == nil {
		st.damage = notThere(filepath.Join(filepath.Dir(segs[0].path), segment.FileName(segs[len(segs)-1].number+1)))
		st.damage.FirstSeq = st.chain.Seq + 1
	}
	return nil
}

func notThere(path string) *format.Error {
	return &format.Error{Path: path, Offset: -1, Why: "the segment is not there", Err: format.ErrMissingSegment}
}

// isDamage reports whether an error is about damaged content. A newer version is not, unless numbers are missing: then
// nothing says that the file belongs here.
func (st *state) isDamage(err error) bool {
	return errors.Is(err, format.ErrCorrupt) || errors.Is(err, format.ErrWrongKind) || st.gone && errors.Is(err, format.ErrVersion)
}

// resume looks behind segment i, which is damaged, for one that was begun: it knows where the log stood. The damage is
// then in front of the log's end. Without such a segment it is the end, and resume returns 0.
func (st *state) resume(fsys vfs.FS, i int, runID func(h *segment.Header) string) (int, error) {
	segs, ref := st.set.segs, st.set.segs[i]
	for k := i + 1; k < len(segs); k++ {
		if segs[k].gone {
			continue
		}
		f, err := compressed.OpenSegment(fsys, segs[k].path)
		if err != nil {
			return 0, missing(segs[k].path, err)
		}
		start, err := beginning(f, segs[k], runID)
		_ = f.Close()
		if err != nil && !st.isDamage(err) {
			return 0, err
		}
		if err != nil || start == nil || start.Detached || start.Prev.Seq < st.chain.Seq || start.Prev.Ordinal < st.chain.Ordinal {
			continue
		}
		o := ref.open.Load()
		ref.open.Store(nil)
		if o != nil {
			st.open = st.open[:len(st.open)-1]
		}
		lost := lose(o, st.damage, st.chain.Seq+1, start.Prev.Seq)
		ref.lost.Store(lost)
		if st.gap == nil {
			st.gap = lost.err
		}
		st.damage, st.chain = nil, start.Prev
		return k, nil
	}
	return 0, nil
}

// beginning returns the start frame of a segment of the run, nil if it has none.
func beginning(f vfs.File, ref *segRef, runID func(h *segment.Header) string) (*segment.Start, error) {
	h, err := segment.ReadHeader(f, ref.path)
	if err == nil {
		err = belongs(&h, ref, runID(&h))
	}
	if err != nil {
		return nil, err
	}
	var b [segment.StartSize]byte
	n, err := f.ReadAt(b[:], h.Size)
	if err = notEOF(err); err != nil {
		return nil, &format.Error{Path: ref.path, Offset: h.Size, Why: "read", Err: err}
	}
	if s, ok := segment.DecodeStart(b[:n], h.Salt, h.Size); ok {
		return &s, nil
	}
	return nil, nil
}

func infoOf(fsys vfs.FS, ref *segRef, runID func(h *segment.Header) string) (*sealedInfo, error) {
	f, err := compressed.OpenSegment(fsys, ref.path)
	if err != nil {
		return nil, missing(ref.path, err)
	}
	defer f.Close()
	in, err := readInfo(f, f.Name())
	if err == nil {
		err = belongs(&in.header, ref, runID(&in.header))
	}
	if err == nil {
		ref.info.Store(in)
	}
	return in, err
}

// walk reads one open segment that belongs to the log. done means that the log ends in it.
func (st *state) walk(fsys vfs.FS, ref *segRef, wantSalt uint64, runID func(h *segment.Header) string) (done bool, err error) {
	if ref.gone {
		return true, st.damaged(notThere(ref.path))
	}
	f, err := compressed.OpenSegment(fsys, ref.path)
	if err != nil {
		return false, missing(ref.path, err)
	}
	h, err := segment.ReadHeader(f, ref.path)
	if err == nil {
		err = belongs(&h, ref, runID(&h))
	}
	if err == nil && wantSalt != 0 && h.Salt != wantSalt {
		err = &format.Error{Path: ref.path, Offset: 16, FirstSeq: st.chain.Seq + 1, Why: "not the segment that the one before names", Err: format.ErrMissingSegment}
	}
	if err != nil {
		_ = f.Close()
		return true, st.damaged(err)
	}
	if ref.number == 1 {
		st.chain = segment.FirstChain(runID(&h))
	} else if ref.number == st.set.floor.segment { // its footer is damaged: nothing but its start frame knows what was before it
		start, err := startOf(f, ref.path, &h)
		if err == nil && (start == nil || start.Seq+1 != st.set.floor.seq) {
			err = &format.Error{Path: ref.path, Offset: h.Size, FirstSeq: st.set.floor.seq, Why: "does not begin at the run's floor", Err: format.ErrCorrupt}
		}
		if err != nil {
			_ = f.Close()
			return true, st.damaged(err)
		}
		st.chain = *start
	}
	o := newOpenSeg(f.Name(), h, f, st.chain)
	ref.open.Store(o)
	st.open = append(st.open, o)
	if st.sealing {
		if o.digest, err = newDigest(f, ref.path, h.Size); err != nil {
			return true, st.damaged(err)
		}
	}
	stop, err := o.advance(0)
	st.chain, st.halt = o.chain, o.halt
	if err != nil {
		return true, st.damaged(err)
	}
	if o.complete() {
		st.final = o.last.Flags&segment.FlagFinal != 0
		return st.final, nil
	}
	if err := st.endsAt(fsys, o, stop); err != nil || !o.complete() {
		return true, err
	}
	st.final = o.last.Flags&segment.FlagFinal != 0
	return st.final, nil
}

// damaged files an error about content as damage; other errors are returned.
func (st *state) damaged(err error) error {
	var fe *format.Error
	if errors.As(err, &fe) && st.isDamage(err) {
		if st.damage = fe; fe.FirstSeq == 0 {
			fe.FirstSeq = st.chain.Seq + 1
		}
		return nil
	}
	return err
}

// endsAt decides what it means that the log ends at stop: see "Where the log ends" in docs/format/segment.md.
func (st *state) endsAt(fsys vfs.FS, o *openSeg, stop *segment.Stop) error {
	size, err := o.file.Size()
	if err != nil {
		return err
	}
	end := o.end.Load()
	var ev evidence
	nonZero := int64(0) // behind the last byte that is not zero
	err = readPieces(o.file, end, size, func(b []byte, off int64) {
		if n := len(trimZeros(b)); n > 0 {
			nonZero = off + int64(n)
			ev.search(b, o.header.Salt, off)
		}
	})
	if err != nil {
		return &format.Error{Path: o.path, Offset: end, Why: "read", Err: err}
	}
	if err := st.laterEvidence(fsys, o.header.Number, &ev); err != nil {
		return err
	}
	if ev.durable > o.chain.Ordinal { // damage, unless a writer has gone on since: then what the evidence speaks of is there now
		if stop, err = o.advance(0); err != nil {
			return st.damaged(err)
		}
		st.chain, st.halt = o.chain, o.halt
		if end = o.end.Load(); o.complete() {
			return nil
		}
	}
	if ev.durable > o.chain.Ordinal {
		st.damage = &format.Error{Path: o.path, Offset: o.misfit(stop), FirstSeq: o.chain.Seq + 1, LastSeq: ev.lastSeq(&o.chain), Err: format.ErrCorrupt,
			Why: fmt.Sprintf("%s, but commit %d of at least %d durable ones should follow", stop.Why, o.chain.Ordinal+1, ev.durable)}
		return nil
	}
	if _, ok := footerAt(o, end); !ok && size < o.header.PlannedSize {
		// Segments are as long as planned before their first commit, and are cut only behind a durable footer.
		st.damage = &format.Error{Path: o.path, Offset: size, FirstSeq: o.chain.Seq + 1, Err: format.ErrCorrupt,
			Why: fmt.Sprintf("the file was cut short: it was made with %d bytes", o.header.PlannedSize)}
		return nil
	}
	if ft, ok := footerAt(o, end); ok {
		st.torn, st.tornAt, st.tornWhy = ft.Dropped, end, "recovery was interrupted" // it had counted, and may have overwritten, the tail
		st.recovered = ft.Flags&segment.FlagRecovered != 0
		st.final = st.recovered // it had decided the end
	} else if nonZero > end {
		st.torn, st.tornAt, st.tornWhy = nonZero-end, stop.Offset, stop.Why
	}
	return nil
}

// footerAt returns the footer that stands behind the last commit, as when recovery was interrupted before it cut the
// file.
func footerAt(o *openSeg, end int64) (segment.Footer, bool) {
	b := make([]byte, segment.FooterSize)
	n, _ := o.file.ReadAt(b, end)
	return segment.DecodeFooter(b[:n], o.header.Salt, end)
}

// laterEvidence searches the segments behind number n for commits.
func (st *state) laterEvidence(fsys vfs.FS, n uint32, ev *evidence) error {
	for _, ref := range st.set.segs {
		if ref.number <= n || ref.gone {
			continue
		}
		f, err := compressed.OpenSegment(fsys, ref.path)
		if err != nil {
			return missing(ref.path, err)
		}
		h, err := segment.ReadHeader(f, ref.path)
		if err == nil {
			var size int64
			if size, err = f.Size(); err == nil {
				err = readPieces(f, h.Size, size, func(b []byte, off int64) {
					if !allZero(b) { // as a spare is
						ev.search(b, h.Salt, off)
					}
				})
			}
		} else if st.isDamage(err) {
			err = nil // a spare whose header was still being written says nothing
		}
		_ = f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// evidence is what commits behind a break say.
type evidence struct {
	durable uint64         // highest ordinal claimed to be durable
	next    segment.Commit // the one with the lowest ordinal
	footer  uint64         // the highest seq that a footer ends at
}

// search looks at every 8-byte position of b for a commit, or a footer: it is written behind a sync of all before it.
func (e *evidence) search(b []byte, salt uint64, off int64) {
	segment.FindCommits(b, salt, off, e.add)
	const word = uint32(segment.FooterSize) | segment.KindFooter<<24
	for at := 0; at+segment.FooterSize <= len(b); at += 8 {
		if binary.LittleEndian.Uint32(b[at:]) != word {
			continue
		}
		if ft, ok := segment.DecodeFooter(b[at:], salt, off+int64(at)); ok {
			e.durable, e.footer = max(e.durable, ft.LastOrdinal), max(e.footer, ft.LastSeq)
		}
	}
}

func (e *evidence) add(c segment.Commit) bool {
	e.durable = max(e.durable, c.Durable)
	if e.next.Ordinal == 0 || c.Ordinal < e.next.Ordinal {
		e.next = c
	}
	return true
}

// lastSeq is the last seq that the break is known to affect, 0 if unknown.
func (e *evidence) lastSeq(at *segment.Chain) uint64 {
	last := e.next.FirstSeq - 1
	switch e.next.Ordinal {
	case 0:
		last = e.footer
	case at.Ordinal + 1:
		last = e.next.LastSeq
	}
	if last <= at.Seq { // a mark
		return 0
	}
	return last
}

// readPieces calls visit with overlapping pieces of a file, so that no frame that is evidence is cut in two. A piece stays
// in a processor's cache while it is looked at.
func readPieces(f vfs.File, from, to int64, visit func(b []byte, off int64)) error {
	const overlap = segment.FooterSize // the largest frame that is looked for
	buf := make([]byte, min(windowSize/4, max(to-from, 0)))
	for off := from; off < to; {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), to-off)], off)
		visit(buf[:n], off)
		if behind := behindLost(err, off); behind > off { // of what is lost of a compressed segment nothing is evidence
			off = behind
			continue
		}
		if n == 0 {
			return err
		}
		if off += int64(n); off >= to {
			break
		}
		if n > 2*overlap {
			off -= overlap
		}
	}
	return nil
}

// beyond looks at the files from index i on, which no commit names: a spare, or a halt record beside the chain.
// Anything else is evidence of a lost commit.
func (st *state) beyond(fsys vfs.FS, i int) error {
	segs := st.set.segs
	for _, ref := range segs[i:] {
		if ref.gone {
			at := notThere(ref.path)
			at.FirstSeq = st.chain.Seq + 1
			if st.final && st.gap == nil { // where the log ends is known
				st.gap = at
			} else if !st.final && st.damage == nil {
				st.damage = at
			}
			continue
		}
		st.extra = append(st.extra, ref.path)
		f, err := compressed.OpenSegment(fsys, ref.path)
		if err != nil {
			return missing(ref.path, err)
		}
		err = st.inspectExtra(f, ref)
		_ = f.Close()
		if err != nil {
			return err
		}
	}
	st.set.segs = segs[:i]
	return nil
}

func (st *state) inspectExtra(f vfs.File, ref *segRef) error {
	h, err := segment.ReadHeader(f, ref.path)
	if errors.Is(err, format.ErrCorrupt) {
		return nil // a spare whose header was still being written
	}
	if err != nil && st.isDamage(err) {
		if st.damage == nil {
			_ = st.damaged(err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	b := make([]byte, 64<<10)
	n, err := f.ReadAt(b, h.Size)
	if err = notEOF(err); err != nil {
		return &format.Error{Path: ref.path, Offset: h.Size, Why: "read", Err: err}
	}
	s, ok := segment.DecodeStart(b[:n], h.Salt, h.Size)
	if !ok {
		return nil // never used; endsAt has searched it for commits
	}
	if !s.Detached {
		if st.verdict() == nil && st.final && !st.recovered {
			st.gap = &format.Error{Path: ref.path, Offset: h.Size, FirstSeq: st.chain.Seq + 1,
				Why: "a used segment behind the end of the run", Err: format.ErrCorrupt}
		}
		return nil
	}
	if s.Prev.Ordinal > st.chain.Ordinal && st.damage == nil {
		st.damage = &format.Error{Path: ref.path, Offset: h.Size, FirstSeq: st.chain.Seq + 1, LastSeq: s.Prev.Seq, Err: format.ErrCorrupt,
			Why: fmt.Sprintf("the halt record says that commit %d was durable, the log ends at %d", s.Prev.Ordinal, st.chain.Ordinal)}
	}
	frame, err := segment.ReadFrame(ref.path, b[segment.StartSize:n], h.Salt, h.Size+segment.StartSize, 0)
	if err == nil && frame.Kind == segment.KindHalt {
		if halt, err := manifest.DecodeHalt(ref.path, frame.Offset, frame.Body); err == nil {
			st.halt = &halt
		}
	}
	return nil
}

// close lets go of the open segments' files.
func (st *state) close() {
	for _, o := range st.open {
		o.settle()
		o.refs.retire()
	}
	for _, ref := range st.set.segs {
		if l := ref.lost.Load(); l != nil {
			l.retire()
		}
	}
}
