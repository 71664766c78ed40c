package verify

import (
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/segment/compressed"
)

// frameState says what stands at an offset.
type frameState uint8

const (
	frameGood   frameState = iota
	frameBad               // its head is good, its content is not
	frameNone              // nothing that validates
	frameZero              // nothing, and eight zero bytes
	frameCut               // the file ends inside it
	frameBeyond            // a head that is good claims more than there is
)

// frame reads and verifies one frame.
func (s *seg) frame(off int64, seq uint64) (segment.Frame, frameState, error) {
	b, err := s.w.at(off, segment.HeadSize)
	if err != nil {
		return segment.Frame{}, frameNone, &format.Error{Path: s.path, Offset: off, Why: "read", Err: err}
	}
	if len(b) < 8 {
		return segment.Frame{}, frameCut, nil
	}
	size, _, ok := segment.SkipFrame(b, s.h.Salt, off)
	if !ok {
		if allZero(b[:8]) {
			return segment.Frame{}, frameZero, nil
		}
		return segment.Frame{}, frameNone, nil
	}
	if int64(len(b)) < size {
		if b, err = s.w.at(off, int(size)); err != nil {
			return segment.Frame{}, frameNone, &format.Error{Path: s.path, Offset: off, Why: "read", Err: err}
		}
		if int64(len(b)) < size {
			return segment.Frame{}, frameBeyond, nil
		}
	}
	f, err := segment.ReadFrame(s.path, b[:size], s.h.Salt, off, seq)
	if err != nil {
		f.Size = size
		return f, frameBad, nil
	}
	return f, frameGood, nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// batch is what was found where a batch could begin.
type batch struct {
	next   int64 // where to go on
	commit *segment.Commit
	chain  segment.Chain // after it
	value  bool          // chain.Value is known
	found  []Finding     // what is wrong with it; reported once it is certain that it is no torn tail
	stats  stats
	good   []place // entries and notes that can be read, if somebody wants them
	end    endKind

	untimed *Finding // its entries have no times; reported once for the segment
}

// badFunc files a finding about the batch.
type badFunc func(kind Kind, at int64, first, last uint64, detail string)

// filer files findings about b.
func (s *seg) filer(b *batch) badFunc {
	return func(kind Kind, at int64, first, last uint64, detail string) {
		b.found = append(b.found, Finding{Kind: kind, Path: s.path, Offset: at, FirstSeq: first, LastSeq: last, Detail: detail})
	}
}

type endKind uint8

const (
	endNone   endKind = iota
	endZero           // zeros where the batch would begin
	endFooter         // a footer stands there
	endLost           // nothing can be read from here on
)

// walk checks the frames up to the limit.
func (s *seg) walk() error {
	reported := int64(0)
	defer func() { s.v.progress(s.size - reported) }()
	for off := s.h.Size; off < s.limit; {
		if err := s.v.ctx.Err(); err != nil {
			return err
		}
		if s.ended() {
			return s.tail(off)
		}
		b, err := s.batch(off)
		if err != nil {
			return err
		}
		if !s.strict && (b.end != endNone || len(b.found) > 0) {
			corrupt, err := s.provenDamage(off)
			if err != nil {
				return err
			}
			if corrupt {
				s.strict, s.w.n = true, 0
				b, err = s.batch(off) // read again: beside a writer, it may have become whole meanwhile
				s.strict = false
				if err != nil {
					return err
				}
			} else {
				return s.tail(off)
			}
		}
		if b.end == endFooter {
			return s.tail(off)
		}
		for _, f := range b.found {
			s.v.report(f)
		}
		if s.untimed == nil {
			s.untimed = b.untimed
		} else if b.untimed != nil {
			s.untimed.LastSeq = b.untimed.LastSeq
		}
		if err := s.deliver(&b); err != nil {
			return err
		}
		s.whole = s.whole && len(b.found) == 0
		if b.end != endNone {
			s.lostFrom(off, &b)
			return nil
		}
		s.take(&b)
		if b.next-reported >= windowSize {
			s.v.progress(b.next - reported)
			reported = b.next
		}
		off = b.next
	}
	switch {
	case s.strict && !s.sealed:
		s.noFooter(s.limit)
	case s.short():
		s.cutShort()
	}
	return nil
}

// ended reports whether the last commit says that nothing follows it in this segment.
func (s *seg) ended() bool {
	return s.commits > 0 && s.last.Flags&(segment.FlagFinal|segment.FlagContinues) != 0
}

// take accepts a batch.
func (s *seg) take(b *batch) {
	s.chain, s.known, s.value = b.chain, true, b.value
	s.stats = b.stats
	s.end = b.next
	if b.commit != nil {
		s.last = *b.commit
		s.commits++
	}
}

// batch reads the batch at off, to its commit or to the damage that hides it.
func (s *seg) batch(off int64) (batch, error) {
	b := batch{stats: s.stats}
	seq := s.chain.Seq
	var sum xxhash.Digest
	sum.Reset()
	frames := uint32(0)
	bad := s.filer(&b)
	for at := off; ; frames++ {
		f, st, err := s.frame(at, seq+1)
		if err != nil {
			return b, err
		}
		switch {
		case st == frameZero && at == off:
			b.end = endZero
			if !s.strict {
				return b, nil
			}
			return s.skip(&b, off, at, seq, "zeros where a batch should begin")
		case st == frameBad && f.Kind == segment.KindFooter && at == off, st == frameGood && f.Kind == segment.KindFooter:
			if at == off && !s.sealed {
				b.end = endFooter
				return b, nil
			}
			return s.skip(&b, off, at, seq, "a footer inside the content")
		case st == frameCut || st == frameBeyond:
			return s.skip(&b, off, at, seq, "the segment ends inside a batch")
		case st == frameNone || st == frameZero:
			return s.skip(&b, off, at, seq, "no frame begins here: its head does not validate")
		case st == frameBad && f.IsEntry():
			if own, ok := s.misplaced(&f, seq+1, bad); ok {
				seq = own.Seq
				s.entry(&own, &b, bad)
			} else {
				seq++
			}
		case st == frameBad && f.Kind == segment.KindCommit:
			bad(KindCommit, at, s.chain.Seq+1, seq, "the commit's checksum does not match")
			value := len(b.found) == 1 && s.value
			b.chain = segment.Chain{Ordinal: s.chain.Ordinal + 1, Seq: seq, Value: format.Mix(s.chain.Value + sum.Sum64()), Durable: s.chain.Durable}
			b.value, b.next = value, at+f.Size
			return b, nil
		case st == frameBad && f.IsNote():
			bad(KindNote, at, 0, 0, fmt.Sprintf("%s behind seq %d: its checksum does not match", entry.NoteKind(f.Kind), seq))
		case st == frameBad:
			bad(KindFrame, at, 0, 0, fmt.Sprintf("checksum of a frame of kind %#x does not match", f.Kind))
		case f.IsEntry():
			seq++
			f.Seq = seq
			s.entry(&f, &b, bad)
		case f.Kind == segment.KindCommit:
			s.commit(&f, &b, off, seq, frames, sum.Sum64(), bad)
			return b, nil
		case f.Kind == segment.KindStart && at != s.h.Size, f.Kind != segment.KindStart && at == s.h.Size:
			bad(KindFrame, at, 0, 0, "the start frame is not the segment's first")
		case f.Kind > uint8(entry.NoteGap) && (f.Kind < 0x40 || f.Kind >= segment.KindEntry):
			return b, &format.Error{Path: s.path, Offset: at, Why: fmt.Sprintf("frame kind %#x", f.Kind), Err: format.ErrVersion}
		case f.IsNote():
			s.note(&f, seq, &b, bad)
		default:
			if err := segment.Learn(&f, s.dict); err != nil {
				bad(KindFrame, at, 0, 0, "dictionary: "+detail(err))
			}
		}
		raw, err := s.w.at(at, int(f.Size))
		if err != nil {
			return b, err
		}
		_, _ = sum.Write(raw[:f.Size])
		at += f.Size
	}
}

// detail is what an error says beside its place.
func detail(err error) string {
	var fe *format.Error
	if !errors.As(err, &fe) {
		return err.Error()
	}
	if fe.Why == "" && fe.Err != nil {
		return fe.Err.Error()
	}
	return fe.Why
}

// entry decodes a whole entry and takes it into index and bounds.
func (s *seg) entry(f *segment.Frame, b *batch, bad badFunc) {
	st := &b.stats
	e, err := s.parse(f, b)
	if err != nil {
		bad(KindFrame, f.Offset, f.Seq, f.Seq, detail(err))
		return
	}
	if !s.timed {
		if b.untimed == nil {
			b.untimed = &Finding{Kind: KindFrame, Path: s.path, Offset: f.Offset, FirstSeq: f.Seq,
				Detail: "the entries' times are unknown: they count from the segment's start frame, which is lost"}
		}
		b.untimed.LastSeq = f.Seq
		return
	}
	if s.v.o.OnEntry != nil {
		b.good = append(b.good, place{off: f.Offset, size: f.Size, seq: f.Seq})
	}
	if st.published && e.TsPublish() <= st.lastPublish {
		bad(KindFrame, f.Offset, f.Seq, f.Seq, fmt.Sprintf("ts_publish %d does not come after %d", e.TsPublish(), st.lastPublish))
	}
	st.add(e.TsInit(), e.TsPublish())
	st.lastPublish, st.published = e.TsPublish(), true
	if e.IsLifecycle() {
		st.topic, st.typ = e.Topic(), e.Type()
	} else {
		st.topic, st.typ = "", ""
	}
	if s.ix == nil {
		return
	}
	s.ix.AddEntry(f.Seq, f.Offset)
	kinds := s.dict.Kinds()
	e.IndexKeys(func(kind entry.KindNo, value []byte) bool {
		if kinds.Name(kind) == "" {
			bad(KindFrame, f.Offset, f.Seq, f.Seq, fmt.Sprintf("key of kind %d, which is not declared", kind))
		}
		s.ix.AddKey(entry.Fingerprint(kind, value), f.Seq)
		return true
	})
	s.ix.AddRoute(e.RouteNo())
	s.ix.AddTimes(e.TsInit(), e.TsPublish())
}

// commit checks a commit against its batch and the one before.
func (s *seg) commit(f *segment.Frame, b *batch, off int64, seq uint64, frames uint32, sum uint64, bad badFunc) {
	c, ok := segment.DecodeCommit(f)
	b.next = f.Offset + f.Size
	if !ok {
		bad(KindCommit, f.Offset, s.chain.Seq+1, seq, "the commit is malformed")
		b.chain = segment.Chain{Ordinal: s.chain.Ordinal + 1, Seq: seq}
		return
	}
	clean := len(b.found) == 0
	differs := func(field string, got, want any) {
		bad(KindCommit, f.Offset, s.chain.Seq+1, seq, fmt.Sprintf("commit: %s is %v, want %v", field, got, want))
	}
	if c.Ordinal != s.chain.Ordinal+1 {
		differs("ordinal", c.Ordinal, s.chain.Ordinal+1)
	}
	if c.FirstSeq != s.chain.Seq+1 || c.LastSeq != seq {
		differs("seq range", [2]uint64{c.FirstSeq, c.LastSeq}, [2]uint64{s.chain.Seq + 1, seq})
	}
	if c.BatchStart != off || c.Frames != frames {
		differs("start and number of frames", [2]int64{c.BatchStart, int64(c.Frames)}, [2]int64{off, int64(frames)})
	}
	if c.Durable >= c.Ordinal {
		differs("durable", c.Durable, "less than its own ordinal")
	}
	if c.Digest != sum && clean {
		differs("digest", fmt.Sprintf("%#x", c.Digest), fmt.Sprintf("%#x", sum))
	}
	if s.value && c.Chain != format.Mix(s.chain.Value+c.Digest) {
		bad(KindCommit, f.Offset, s.chain.Seq+1, seq, "the commit does not continue the chain of the one before")
	}
	b.commit = &c
	b.chain = segment.Chain{Ordinal: c.Ordinal, Seq: c.LastSeq, Value: c.Chain, Durable: max(s.chain.Durable, c.Durable)}
	b.value = true
}

// skip finds the next valid commit behind damage at at, and goes on with its batch, or behind it if it is the damaged
// one. What can be read on the way counts.
func (s *seg) skip(b *batch, off, at int64, seq uint64, why string) (batch, error) {
	var next *segment.Commit
	err := s.findCommits(at, s.limit, func(c segment.Commit) bool {
		if c.Ordinal > s.chain.Ordinal && c.BatchStart >= off {
			next = &c
		}
		return next == nil
	})
	if err != nil {
		return *b, err
	}
	to, last := s.limit, uint64(0)
	switch {
	case next == nil:
		if b.end == endNone {
			b.end = endLost
		}
		if last = s.ft.LastSeq; !s.sealed {
			last = s.v.lastSeqOf(s.number)
		}
	case next.BatchStart == off:
		to, last = next.Offset, next.LastSeq
		b.end, b.commit, b.next = endNone, next, next.End()
		b.value = true
		b.chain = segment.Chain{Ordinal: next.Ordinal, Seq: next.LastSeq, Value: next.Chain, Durable: max(s.chain.Durable, next.Durable)}
	default:
		to, last = next.BatchStart, next.FirstSeq-1
		b.end, b.next = endNone, next.BatchStart
		b.chain = segment.Chain{Ordinal: next.Ordinal - 1, Seq: next.FirstSeq - 1, Durable: s.chain.Durable}
	}
	if !s.strict {
		to = at // it may be a torn tail: nothing in it counts
	}
	filed := len(b.found)
	if err := s.gap(b, at, to, seq, last, why); err != nil || b.commit != nil || len(b.found) == filed {
		return *b, err
	}
	// The batch's commit is lost, so nothing vouches for any of its entries, though each may be readable by itself.
	if f, first := &b.found[filed], s.chain.Seq+1; last == 0 || first <= last {
		f.FirstSeq = first
		if first <= seq {
			f.Detail += fmt.Sprintf("; seq %d to %d, before it in the same batch, can be read one by one", first, seq)
		}
		if f.LastSeq == 0 {
			f.LastSeq = last
		}
	}
	return *b, nil
}

// lastSeqOf is the last seq of segment n, as far as the next one, or the manifest, tells; 0 if neither does.
func (v *verifier) lastSeqOf(n uint32) uint64 {
	path := v.path(segment.FileName(n + 1))
	if f, err := compressed.OpenSegment(v.fsys, path); err == nil {
		defer f.Close()
		if h, err := segment.ReadHeader(f, path); err == nil {
			b := make([]byte, segment.StartSize)
			k, _ := f.ReadAt(b, h.Size)
			if s, ok := segment.DecodeStart(b[:k], h.Salt, h.Size); ok && !s.Detached {
				return s.Prev.Seq
			}
		}
	}
	if v.sealed && !v.follows(n) {
		return v.m.LastSeq
	}
	return 0
}

// findCommits searches from..to for valid commits.
func (s *seg) findCommits(from, to int64, found func(segment.Commit) bool) error {
	more := true
	for off := from; off < to && more; {
		b, err := s.w.at(off, int(min(windowSize, to-off)))
		if err != nil {
			return &format.Error{Path: s.path, Offset: off, Why: "read", Err: err}
		}
		segment.FindCommits(b, s.h.Salt, off, func(c segment.Commit) bool {
			more = found(c)
			return more
		})
		if int64(len(b)) >= to-off || len(b) <= 2*segment.CommitSize {
			return nil
		}
		off += int64(len(b)-segment.CommitSize) &^ 7
	}
	return nil
}

// provenDamage reports whether a commit behind off proves that what should stand there was durable.
func (s *seg) provenDamage(off int64) (bool, error) {
	durable := uint64(0)
	see := func(c segment.Commit) bool {
		durable = max(durable, c.Durable)
		return true
	}
	if err := s.findCommits(off, s.limit, see); err != nil {
		return false, err
	}
	for n := s.number + 1; s.v.names[segment.FileName(n)] && durable <= s.chain.Ordinal; n++ {
		path := s.v.path(segment.FileName(n))
		f, err := compressed.OpenSegment(s.v.fsys, path)
		if err != nil {
			return false, err
		}
		h, herr := segment.ReadHeader(f, path)
		size := int64(0)
		if herr == nil {
			size, err = f.Size()
		}
		if herr == nil && err == nil {
			unreadable := func(int64, int64, error) {} // filed when the segment's turn comes
			later := seg{v: s.v, path: path, h: h, w: window{f: f, limit: size, unreadable: unreadable}}
			err = later.findCommits(h.Size, size, see)
		}
		_ = f.Close()
		if err != nil {
			return false, err
		}
	}
	return durable > s.chain.Ordinal, nil
}

// zeroFrom reports whether all bytes from off on are zero.
func (s *seg) zeroFrom(off int64) bool {
	for off < s.limit {
		b, err := s.w.at(off, int(min(windowSize, s.limit-off)))
		if err != nil || !allZero(b) {
			return false
		}
		if len(b) == 0 {
			return true
		}
		off += int64(len(b))
	}
	return true
}
