package verify

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/index"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/segment/compressed"
	"github.com/runlog-io/runlog/vfs"
)

// seg is the check of one segment.
type seg struct {
	v      *verifier
	number uint32
	path   string
	w      window
	size   int64
	h      segment.Header
	ft     segment.Footer
	sealed bool  // ft is valid
	strict bool  // nothing in here can be a torn tail
	limit  int64 // end of the content, if sealed, else of the file

	started  bool
	timed    bool // the entries' times are known
	start    segment.Start
	chain    segment.Chain
	known    bool // chain, except for its value
	value    bool // chain.Value is known too
	last     segment.Commit
	commits  int
	end      int64 // behind the last batch
	firstSeq uint64
	whole    bool  // every byte so far was good
	torn     bool  // the log ends in bytes of which nothing proves that they were acknowledged
	lost     int64 // end of what was filed as unreadable
	untimed  *Finding

	dict  *entry.Dict
	other *entry.Dict // see standIn
	asked bool
	ix    *index.Builder // of sealed segments
	stats stats
}

// stats are what a footer says of a segment's entries.
type stats struct {
	entries                uint64
	minInit, maxInit       int64
	minPublish, maxPublish int64
	lastPublish            int64
	published              bool
	topic, typ             string // of the last entry
	notes                  [entry.NoteGap + 1]uint64
}

func (s *stats) add(tsInit, tsPublish int64) {
	if s.entries == 0 {
		s.minInit, s.maxInit, s.minPublish, s.maxPublish = tsInit, tsInit, tsPublish, tsPublish
	}
	s.entries++
	s.minInit, s.maxInit = min(s.minInit, tsInit), max(s.maxInit, tsInit)
	s.minPublish, s.maxPublish = min(s.minPublish, tsPublish), max(s.maxPublish, tsPublish)
}

// segment checks segment n and leaves in v.c what the next one must continue.
func (v *verifier) segment(n uint32) error {
	path := v.path(segment.FileName(n))
	f, err := compressed.OpenSegment(v.fsys, path)
	if errors.Is(err, fs.ErrNotExist) {
		if moved, err := v.floorMoved(n); moved || err != nil {
			return err
		}
		if v.sealed || v.c.named && !v.c.ended {
			v.missing(n, n)
		}
		return nil // a spare that a seal, going on beside this, has removed
	}
	if err != nil {
		return err
	}
	defer f.Close()
	path = f.Name()
	z, packed := f.(*compressed.File)
	size, err := f.Size()
	if err != nil && !packed { // what is wrong with a compressed one comes with its header
		return err
	}
	v.rep.Bytes += size
	v.rep.Segments++
	s := &seg{v: v, number: n, path: path, size: size, whole: true, w: window{f: f, limit: size}, dict: entry.NewDict(0)}
	if ok, err := s.header(f); !ok || err != nil {
		return err
	}
	if v.c.ended || !v.c.named {
		return s.beyond(f)
	}
	if s.ft, s.sealed, err = segment.ReadFooter(f, size, &s.h); errors.Is(err, syscall.EIO) {
		s.unreadable(max(size-segment.FooterSize, 0), min(size, segment.FooterSize), err)
	} else if err != nil {
		return err
	}
	if packed && s.h.Identity != nil { // a header that was read, not guessed
		if err := z.Check(&s.h); err != nil {
			v.problem(KindBlock, path, err)
		}
	}
	s.strict = s.sealed || v.sealed
	s.limit = size
	s.w.unreadable = s.unreadable
	if s.sealed {
		s.limit = s.ft.ContentEnd
		s.w.sum = newContentSum(s.limit)
		defer s.w.sum.stop()
	}
	s.begin()
	if err := s.walk(); err != nil {
		return err
	}
	if s.untimed != nil {
		v.report(*s.untimed)
	}
	var sum [32]byte
	if s.sealed {
		if err := s.w.catchUp(s.limit); err != nil {
			return &format.Error{Path: path, Offset: -1, Why: "read", Err: err}
		}
		sum = s.w.sum.sum()
	}
	return s.finish(sum)
}

// unreadable files bytes that the medium does not give back, once.
func (s *seg) unreadable(off, n int64, err error) {
	if off+n <= s.lost {
		return
	}
	s.lost = off + n
	if at := (*format.Error)(nil); errors.As(err, &at) && errors.Is(err, format.ErrCorrupt) { // of a compressed segment
		s.v.find(KindBlock, at.Path, at.Offset, 0, 0, at.Why)
		return
	}
	s.v.find(KindRead, s.path, off, 0, 0, fmt.Sprintf("%d bytes cannot be read: %v", n, err))
}

// header verifies the header. If it is damaged but the rest is readable with what else is known, that goes on.
func (s *seg) header(f vfs.File) (ok bool, err error) {
	v := s.v
	h, err := segment.ReadHeader(f, s.path)
	if err == nil {
		s.h = h
		v.c.headerSize = h.Size
		if h.Number != s.number {
			v.find(KindHeader, s.path, 32, 0, 0, fmt.Sprintf("the header says that this is segment %d", h.Number))
		}
		if v.identity == nil {
			v.identity = h.Identity
			if id, err := manifest.DecodeIdentity(s.path, 64, h.Identity); err == nil {
				v.runID, v.rep.Run = id.Run, id.Run
			}
		} else if !bytes.Equal(h.Identity, v.identity) {
			v.find(KindHeader, s.path, 64, 0, 0, "the identity is another run's")
		}
		if !v.c.ended && v.c.nextSalt != 0 && h.Salt != v.c.nextSalt {
			v.find(KindHeader, s.path, 16, v.nextSeq(), 0, "not the segment that the one before names: its salt is another")
			v.c.known, v.c.valueKnown = false, false
		}
		return true, nil
	}
	if !errors.Is(err, format.ErrCorrupt) && !errors.Is(err, format.ErrWrongKind) {
		v.errs = append(v.errs, err)
		v.lose()
		v.stopped = errors.Is(err, format.ErrVersion)
		return false, nil
	}
	if v.c.ended || !v.c.named {
		if v.sealed {
			v.find(KindExtra, s.path, 0, 0, 0, "a damaged segment behind the end of the run")
		}
		return false, nil // a spare whose header was still being written
	}
	v.problem(KindHeader, s.path, s.withSeqs(err))
	if s.guessHeader(f) {
		return true, nil
	}
	v.find(KindHeader, s.path, 0, v.nextSeq(), 0, "nothing in the segment can be read without its header")
	v.lose()
	return false, nil
}

// withSeqs names the seqs that a segment's damaged header takes from a reader.
func (s *seg) withSeqs(err error) error {
	var at *format.Error
	if !errors.As(err, &at) || at.FirstSeq != 0 {
		return err
	}
	named := *at
	if named.FirstSeq, named.LastSeq = s.v.nextSeq(), s.v.lastSeqOf(s.number); named.FirstSeq == 0 || named.LastSeq > 0 && named.LastSeq < named.FirstSeq {
		named.FirstSeq, named.LastSeq = 0, 0
	}
	return &named
}

// guessHeader tries the salts and sizes that the header may have had: its own damaged words, and what other segments say.
func (s *seg) guessHeader(f vfs.File) bool {
	var raw [format.PreludeSize]byte
	n, _ := f.ReadAt(raw[:], 0)
	salts, sizes := []uint64{s.v.c.nextSalt}, []int64{s.v.c.headerSize, segment.BlockSize}
	if n == len(raw) {
		salts = append(salts, binary.LittleEndian.Uint64(raw[16:]))
		sizes = append(sizes, int64(binary.LittleEndian.Uint32(raw[12:])))
	}
	if z, ok := f.(*compressed.File); ok && z.Err() == nil {
		start, _ := z.Bounds()
		salts, sizes = append(salts, z.Salt()), append(sizes, start)
	}
	var b [segment.StartSize]byte
	for _, salt := range salts {
		for _, size := range sizes {
			if size <= 0 || size > format.MaxHeaderSize {
				continue
			}
			n, _ := f.ReadAt(b[:], size)
			if _, ok := segment.DecodeStart(b[:n], salt, size); ok {
				s.h = segment.Header{Number: s.number, Salt: salt, Size: size}
				return true
			}
		}
	}
	return false
}

func (v *verifier) nextSeq() uint64 {
	if !v.c.known {
		return 0
	}
	return v.c.chain.Seq + 1
}

// lose forgets what a segment that cannot be read would have told.
func (v *verifier) lose() {
	v.c.known, v.c.valueKnown, v.c.shaKnown, v.c.allGood, v.c.published = false, false, false, false, false
	v.c.salt, v.c.nextSalt, v.c.named = 0, 0, true
}

// maxReserve bounds the room that is made for keys on the word of another segment.
const maxReserve = 1 << 20

// begin takes the state before the segment from the segments before, or else from its own start frame.
func (s *seg) begin() {
	v := s.v
	if s.sealed {
		s.ix = index.NewBuilder(0)
	}
	s.chain, s.known, s.value = v.c.chain, v.c.known, v.c.valueKnown
	if s.number == 1 {
		s.chain = segment.FirstChain(v.runID)
		s.known, s.value = true, v.runID != ""
	}
	if b, err := s.w.at(s.h.Size, segment.StartSize); err == nil {
		var ok bool
		if s.start, ok = segment.DecodeStart(b, s.h.Salt, s.h.Size); ok {
			s.started = true
			s.checkFloor()
			s.checkStart()
			s.dict.BaseTime, s.timed = s.start.BaseTime, true
		}
	}
	if !s.started {
		s.standIn()
	}
	s.end = s.h.Size
	s.firstSeq = s.chain.Seq + 1
	if s.ix != nil {
		s.ix = index.NewBuilder(s.firstSeq)
		if n := len(v.segs); n > 0 {
			s.ix.Reserve(int(min(v.segs[n-1].keys, maxReserve)))
		}
	}
	s.stats.lastPublish, s.stats.published = v.c.lastPublish, v.c.published
}

func (s *seg) checkStart() {
	v, p := s.v, s.start.Prev
	differs := func(what string, got, want any) {
		v.find(KindFrame, s.path, s.h.Size, 0, 0, fmt.Sprintf("start frame: %s is %v, the segments before say %v", what, got, want))
	}
	if s.known && (p.Ordinal != s.chain.Ordinal || p.Seq != s.chain.Seq) {
		differs("commit and seq before", [2]uint64{p.Ordinal, p.Seq}, [2]uint64{s.chain.Ordinal, s.chain.Seq})
	} else if s.value && p.Value != s.chain.Value {
		differs("chain value", p.Value, s.chain.Value)
	}
	if v.c.salt != 0 && s.start.PrevSalt != v.c.salt || s.number == 1 && s.start.PrevSalt != 0 {
		differs("salt", s.start.PrevSalt, v.c.salt)
	}
	if s.start.Detached {
		v.find(KindFrame, s.path, s.h.Size, 0, 0, "start frame: a halt record beside the chain stands in its midst")
	}
	s.chain = segment.Chain{Ordinal: p.Ordinal, Seq: p.Seq, Value: p.Value, Durable: s.chain.Durable}
	s.known, s.value = true, true
}

// finish compares the footer and the index with what was read, and hands on.
func (s *seg) finish(sum [32]byte) error {
	v, c := s.v, &s.v.c
	v.rep.Entries += s.stats.entries
	for kind, n := range s.stats.notes {
		if n > 0 {
			v.rep.ByKind[entry.NoteKind(kind)] += n
		}
	}
	if s.sealed {
		v.lastSealed = s.number
		s.checkFooter(sum)
		v.over = !v.haveM && !s.ft.Continues()
		s.checkIndex()
		c.dropped += s.ft.Dropped
	} else if s.strict {
		c.shaKnown = false
		v.rep.Digest = ""
	}
	c.chain, c.known, c.valueKnown = s.chain, s.known, s.value
	c.allGood = c.allGood && s.whole
	c.salt = s.h.Salt
	c.lastPublish, c.published = s.stats.lastPublish, s.stats.published
	if s.stats.entries > 0 {
		if c.entries == 0 || s.stats.maxInit > c.maxInit {
			c.maxInit = s.stats.maxInit
		}
		c.entries += s.stats.entries
		c.lastTopic, c.lastType = s.stats.topic, s.stats.typ
	}
	if k := s.dict.Kinds().Declared(); len(k) > 0 {
		c.kinds = k
	}
	v.remember(s.dict)
	v.rep.LastSeq = max(v.rep.LastSeq, s.chain.Seq)
	switch {
	case s.sealed:
		c.named, c.nextSalt = s.ft.Continues(), s.ft.NextSalt
	case s.torn:
		c.named, c.nextSalt = false, 0
	case s.whole && s.ended():
		c.named, c.nextSalt = s.last.Flags&segment.FlagContinues != 0, s.last.NextSalt
	case s.whole && !s.strict:
		c.named, c.nextSalt = false, 0 // the log ends here, for now
	default:
		c.named, c.nextSalt = v.follows(s.number), 0 // damaged: the next one tells by its start frame
	}
	c.ended = !c.named
	return nil
}

// follows reports whether there is a segment behind number n.
func (v *verifier) follows(n uint32) bool { return v.names[segment.FileName(n+1)] }

// checkFooter compares the footer with what was read.
func (s *seg) checkFooter(sum [32]byte) {
	v, ft := s.v, &s.ft
	differs := func(field string, got, want any) {
		v.find(KindFooter, s.path, ft.ContentEnd, 0, 0, fmt.Sprintf("footer: %s is %v, the content says %v", field, got, want))
	}
	if s.known {
		if ft.LastSeq != s.chain.Seq || ft.LastOrdinal != s.chain.Ordinal {
			differs("last seq and commit", [2]uint64{ft.LastSeq, ft.LastOrdinal}, [2]uint64{s.chain.Seq, s.chain.Ordinal})
		}
		if s.value && ft.Chain != s.chain.Value {
			differs("chain value", ft.Chain, s.chain.Value)
		}
	}
	if s.whole {
		st := &s.stats
		if ft.Entries != st.entries || s.known && ft.FirstSeq != s.firstSeq {
			differs("entries and first seq", [2]uint64{ft.Entries, ft.FirstSeq}, [2]uint64{st.entries, s.firstSeq})
		}
		got := [4]int64{ft.MinInit, ft.MaxInit, ft.MinPublish, ft.MaxPublish}
		want := [4]int64{st.minInit, st.maxInit, st.minPublish, st.maxPublish}
		if got != want {
			differs("times (least and greatest ts_init, ts_publish)", got, want)
		}
		s.checkEnd(differs)
	}
	if ft.Flags&^(segment.FlagFinal|segment.FlagContinues|segment.FlagRecovered) != 0 || ft.Dropped < 0 {
		differs("flags and dropped bytes", [2]int64{int64(ft.Flags), ft.Dropped}, "else")
	}
	s.checkDigest(sum)
	s.value, s.known = true, true // the footer is valid: what it says holds for the next segment
	s.chain = ft.State()
}

// checkEnd compares how footer and last commit say that it goes on.
func (s *seg) checkEnd(differs func(field string, got, want any)) {
	ft := &s.ft
	continues, final := s.last.Flags&segment.FlagContinues != 0, s.last.Flags&segment.FlagFinal != 0
	switch {
	case ft.Continues() != continues || (ft.Flags&segment.FlagFinal != 0) == continues:
		differs("flags", ft.Flags, s.last.Flags&(segment.FlagContinues|segment.FlagFinal))
	case continues && ft.NextSalt != s.last.NextSalt:
		differs("next salt", ft.NextSalt, s.last.NextSalt)
	case !continues && ft.NextSalt != 0:
		differs("next salt", ft.NextSalt, 0)
	case !continues && !final && ft.Flags&segment.FlagRecovered == 0:
		differs("flags", ft.Flags, "no closing commit, so recovery must have sealed it")
	}
}

func (s *seg) checkDigest(sum [32]byte) {
	v, ft := s.v, &s.ft
	good := sum == ft.ContentSHA && s.lost == 0
	if !good && s.lost == 0 {
		v.find(KindDigest, s.path, ft.ContentEnd, 0, 0, "the content's SHA-256 is not the footer's")
	}
	if v.c.shaKnown {
		if want := segment.RunSHA(v.c.sha, s.number, ft.ContentSHA); want != ft.RunSHA {
			v.find(KindDigest, s.path, ft.ContentEnd, 0, 0, "the run's SHA-256 does not continue the segment before")
			good = false
		}
	}
	v.rep.Digest = ""
	if good && v.c.shaKnown {
		v.rep.Digest = fmt.Sprintf("%x", ft.RunSHA)
	}
	v.c.sha, v.c.shaKnown = ft.RunSHA, true
}

// beyond checks a segment that no other names: a spare, or a halt record beside the chain. Anything else is evidence
// of a lost commit.
func (s *seg) beyond(f vfs.File) error {
	v := s.v
	v.progress(s.size)
	if v.sealed {
		v.find(KindExtra, s.path, -1, 0, 0, "a segment behind the end of the run")
		return nil
	}
	b := make([]byte, segment.StartSize)
	n, _ := f.ReadAt(b, s.h.Size)
	st, ok := segment.DecodeStart(b[:n], s.h.Salt, s.h.Size)
	switch {
	case !ok:
	case st.Detached && v.c.known && st.Prev.Ordinal > v.c.chain.Ordinal:
		v.find(KindCommit, s.path, s.h.Size, v.c.chain.Seq+1, st.Prev.Seq,
			fmt.Sprintf("the halt record says that commit %d was durable, the log ends at %d", st.Prev.Ordinal, v.c.chain.Ordinal))
	case st.Detached:
		v.note("%s holds a halt record", filepath.Base(s.path))
	case v.c.known && v.c.nextSalt == 0 && s.v.rep.Segments > 0:
		v.note("%s was used, but nothing proves that anything in it was acknowledged", filepath.Base(s.path))
	}
	return nil
}
