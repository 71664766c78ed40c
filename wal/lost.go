package wal

import (
	"errors"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/segment/compressed"
	"github.com/runlog-io/runlog/vfs"
)

// lostSeg is a segment in front of the log's end that cannot be read to its own end, or at all. It does not change once
// readers see it, so that a damaged file is looked at once.
type lostSeg struct {
	good *openSeg      // the whole batches at its beginning; nil: not one
	last uint64        // last seq that it can have held, noEnd if nothing tells
	err  *format.Error // names the seqs behind the good batches
}

const noEnd = ^uint64(0)

// reaches reports whether seq is not behind the good batches.
func (l *lostSeg) reaches(seq uint64) bool { return l.good != nil && seq <= l.good.lastSeq.Load() }

func (l *lostSeg) acquire() bool { return l.good == nil || l.good.refs.acquire() }

func (l *lostSeg) release() {
	if l.good != nil {
		l.good.refs.release()
	}
}

func (l *lostSeg) retire() {
	if l.good != nil {
		l.good.refs.retire()
	}
}

func (l *lostSeg) get(seq uint64, buf *Buffer) (entry.View, error) {
	if l.reaches(seq) {
		return l.good.get(seq, buf)
	}
	return entry.View{}, l.err
}

func (l *lostSeg) scan(q *query, yield func(entry.View) bool) (done bool, err error) {
	beyond := !l.reaches(q.To)
	if q.Reverse && beyond {
		return false, l.err
	}
	if l.good != nil {
		done, err = l.good.scan(q, yield)
	}
	if !done && err == nil && beyond {
		err = l.err
	}
	return done, err
}

func (l *lostSeg) firstWith(fp uint64, kind entry.KindNo, value string, limit uint64) (seq uint64, err error) {
	if l.good != nil {
		seq, err = l.good.firstWith(fp, kind, value, limit)
	}
	if seq == 0 && err == nil && !l.reaches(limit) {
		err = l.err
	}
	return seq, err
}

func (l *lostSeg) allWith(fp uint64, kind entry.KindNo, value string, limit uint64, buf *Buffer,
	yield func(entry.View) bool) (done bool, err error) {
	if l.good != nil {
		done, err = l.good.allWith(fp, kind, value, limit, buf, yield)
	}
	if !done && err == nil && !l.reaches(limit) {
		err = l.err
	}
	return done, err
}

// ofContent reports whether an error is about what a file holds, or that it is not there: it will be the same next time.
func ofContent(err error) bool {
	return errors.Is(err, format.ErrCorrupt) || errors.Is(err, format.ErrWrongKind) || errors.Is(err, format.ErrVersion)
}

// judge decides what is left of a finished segment that could not be used because of cause: all of it, to be read frame
// by frame, or a beginning. It returns an error if the cause may go away.
func (r *Reader) judge(ref *segRef, cause error) error {
	if !ofContent(cause) {
		return cause
	}
	if err := r.unlessRemoved(ref.number, cause); err != cause {
		return err
	}
	r.judging.Lock()
	defer r.judging.Unlock()
	r.judged.Store(true)
	if ref.open.Load() != nil || ref.lost.Load() != nil {
		return nil
	}
	o, stop, err := openPrefix(r.fsys, ref, r.files.run)
	if o != nil { // finished, so its writer has synced it
		o.durableEnd.Store(o.end.Load())
	}
	if err == nil && o.complete() {
		r.warn(&format.Error{Path: ref.path, Offset: -1, Why: "the footer is damaged; the segment is read frame by frame", Err: cause})
		ref.open.Store(o)
		return nil
	}
	at := &format.Error{}
	switch {
	case err == nil:
		at = &format.Error{Path: ref.path, Offset: stop.Offset, Why: stop.Why + ", before the segment's last commit", Err: format.ErrCorrupt}
	case !ofContent(err) || !errors.As(err, &at):
		if o != nil {
			o.refs.retire()
		}
		return err
	}
	set := r.set()
	first, last := set.bounds(r.fsys, r.files.run, set.index(ref.number))
	if o != nil {
		first = o.chain.Seq + 1
	}
	if last == noEnd {
		last = r.lastKnown()
	}
	ref.lost.Store(lose(o, at, first, last))
	return nil
}

// lose makes the verdict on a segment of which first to last are not readable.
func lose(good *openSeg, at *format.Error, first, last uint64) *lostSeg {
	err := *at
	if err.FirstSeq, err.LastSeq = first, 0; last >= first && last != noEnd {
		err.LastSeq = last
	}
	return &lostSeg{good: good, last: last, err: &err}
}

// lastKnown is the last seq of the run if that is known, else noEnd.
func (r *Reader) lastKnown() uint64 {
	if r.log == nil && r.ext == nil {
		return noEnd
	}
	last := r.last(Written)
	if m := r.Manifest(); m.Status.Sealed() {
		last = max(last, m.LastSeq)
	}
	return last
}

// bounds tells the first and the last seq that segment i can hold, from what it says itself, else from its neighbors.
// last is noEnd if nothing behind it tells.
func (s *segSet) bounds(fsys vfs.FS, run string, i int) (first, last uint64) {
	first, last = s.segs[i].edges(fsys, run)
	for j := i - 1; first == 0; j-- {
		if j < 0 {
			first = max(s.floor.seq, 1)
		} else if _, before := s.segs[j].edges(fsys, run); before != noEnd {
			first = before + 1
		}
	}
	for j := i + 1; last == noEnd && j < len(s.segs); j++ {
		if behind, _ := s.segs[j].edges(fsys, run); behind != 0 {
			last = behind - 1
		}
	}
	return first, last
}

// edges are the seqs between which a segment says that its entries lie: the first is 0, the last noEnd where it does
// not. They are remembered, since many may ask for them.
func (ref *segRef) edges(fsys vfs.FS, run string) (first, last uint64) {
	if o := ref.open.Load(); o != nil {
		return o.firstSeq, o.lastSeq.Load()
	}
	if in := ref.info.Load(); in != nil {
		return in.footer.FirstSeq, in.footer.LastSeq
	}
	if known := ref.edge.Load(); known != nil {
		return known[0], known[1]
	}
	last = noEnd
	f, err := compressed.OpenSegment(fsys, ref.path)
	if err != nil && !errors.Is(err, errNotExist) {
		return 0, noEnd
	}
	if err == nil {
		if h, err := segment.ReadHeader(f, ref.path); err == nil && belongs(&h, ref, run) == nil {
			if prev, err := startOf(f, ref.path, &h); err == nil && prev != nil {
				first = prev.Seq + 1
			}
			if in, err := readInfo(f, ref.path); err == nil {
				first, last = in.footer.FirstSeq, in.footer.LastSeq
			}
		}
		_ = f.Close()
	}
	ref.edge.Store(&[2]uint64{first, last})
	return first, last
}

// openPrefix reads a segment without using its footer: the whole batches up to the first that is not, and what stops
// it. With an error there may be such a prefix too.
func openPrefix(fsys vfs.FS, ref *segRef, run string) (*openSeg, *segment.Stop, error) {
	f, err := compressed.OpenSegment(fsys, ref.path)
	if err != nil {
		return nil, nil, missing(ref.path, err)
	}
	h, err := segment.ReadHeader(f, ref.path)
	if err == nil {
		err = belongs(&h, ref, run)
	}
	var prev *segment.Chain
	if err == nil {
		prev, err = startOf(f, ref.path, &h)
	}
	if err == nil && prev == nil {
		err = &format.Error{Path: ref.path, Offset: h.Size, Why: "start frame is missing", Err: format.ErrCorrupt}
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	o := newOpenSeg(f.Name(), h, f, *prev)
	stop, err := o.advance(0)
	if err == nil {
		stop.Offset = o.misfit(stop)
	}
	return o, stop, err
}

// misfit returns the offset of the first frame behind the last whole batch that does not fit: a batch may be refused for
// its digest, which does not tell where.
func (o *openSeg) misfit(stop *segment.Stop) int64 {
	if stop.Zero && stop.Offset == o.end.Load() {
		return stop.Offset
	}
	w := window{f: o.file}
	return misfit(w.bytes, o.header.Salt, o.end.Load(), o.chain.Seq, stop)
}

// bytes is at, with nothing when there is no more.
func (w *window) bytes(off int64, more bool) ([]byte, error) {
	if more && w.eof && w.off == off {
		return nil, nil
	}
	return w.at(off, more)
}

// misfit finds the first frame that does not validate, from off on, where the log stands at seq; the commit is the one
// when all frames before it do.
func misfit(at func(off int64, more bool) ([]byte, error), salt uint64, off int64, seq uint64, stop *segment.Stop) int64 {
	for {
		b, err := at(off, false)
		var f segment.Frame
		for {
			if err != nil || len(b) == 0 {
				return off
			}
			if f, err = segment.ReadFrame("", b, salt, off, seq+1); !segment.IsShort(err) {
				break
			}
			b, err = at(off, true)
		}
		if err != nil || f.Kind == segment.KindCommit || f.Kind == segment.KindFooter || stop.Unknown && off >= stop.Offset {
			return off
		}
		if f.IsEntry() {
			seq++
		}
		off += f.Size
	}
}
