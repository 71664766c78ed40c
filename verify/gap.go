package verify

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/index"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/segment"
)

// place is where a good entry stands, or a note.
type place struct {
	off, size int64
	seq       uint64 // of the entry; of the one before the note
	note      bool
}

// gap takes what can be read between at and to, where frames are damaged: each entry's own checksum tells its seq, so
// that one bad frame hides no other, and dictionary frames are learned. Every hole is filed, with the seqs after seq
// and up to last (0: unknown) that must have stood in it.
func (s *seg) gap(b *batch, at, to int64, seq, last uint64, why string) error {
	hole, damaged := at, true
	file := func(upTo uint64) {
		f := Finding{Kind: KindFrame, Path: s.path, Offset: hole, FirstSeq: seq + 1, LastSeq: upTo, Detail: why}
		if upTo <= seq && upTo > 0 {
			f.FirstSeq, f.LastSeq = 0, 0 // no entry is affected
		}
		b.found = append(b.found, f)
	}
	bad := s.filer(b)
	floating := len(b.good) // notes from here on stand behind a hole, and before whatever comes next
	for p := at + 8; p+segment.HeadSize <= to; {
		f, ok, err := s.orphan(p, to, seq, last)
		if err != nil {
			return err
		}
		if !ok {
			if !damaged {
				hole, damaged = p, true
			}
			p += 8
			floating = len(b.good)
			continue
		}
		p += f.Size
		if !f.IsEntry() { // which tells nothing of the seqs before it
			if f.IsNote() {
				s.note(&f, seq, b, bad)
			} else {
				_ = segment.Learn(&f, s.dict)
			}
			continue
		}
		if damaged || f.Seq > seq+1 {
			file(f.Seq - 1)
		}
		for i := range b.good[floating:] {
			b.good[floating+i].seq = f.Seq - 1
		}
		damaged, seq = false, f.Seq
		s.entry(&f, b, bad)
		floating = len(b.good)
	}
	if damaged || last > seq {
		file(last)
	}
	for i := range b.good[floating:] {
		b.good[floating+i].seq = max(seq, last)
	}
	return nil
}

// orphan reads the whole frame at off, of a kind that means something by itself: an entry after seq and up to last, if
// that is known, a note, or a part of the dictionary.
func (s *seg) orphan(off, to int64, seq, last uint64) (f segment.Frame, ok bool, err error) {
	b, err := s.w.at(off, segment.HeadSize)
	if err != nil {
		return f, false, &format.Error{Path: s.path, Offset: off, Why: "read", Err: err}
	}
	size, isEntry, ok := segment.SkipFrame(b, s.h.Salt, off)
	if !ok || size < segment.HeadSize || off+size > to {
		return f, false, nil
	}
	if int64(len(b)) < size {
		if b, err = s.w.at(off, int(size)); err != nil {
			return f, false, &format.Error{Path: s.path, Offset: off, Why: "read", Err: err}
		}
		if int64(len(b)) < size {
			return f, false, nil
		}
	}
	own := uint64(0)
	if isEntry {
		own = seqOf(b[:size], s.h.Salt, off)
		if own <= seq || own > seq+maxJump || last != 0 && own > last {
			return f, false, nil
		}
	}
	f, rerr := segment.ReadFrame(s.path, b[:size], s.h.Salt, off, own)
	known := isEntry || f.IsNote() || f.Kind == segment.KindRoute || f.Kind == segment.KindKeyKind
	return f, rerr == nil && known, nil
}

// maxJump bounds how many seqs can be missing in front of an entry that is read by its own word: it keeps garbage, whose
// seq would be any number, out.
const maxJump = 1 << 32

// seqOf is the seq with which the entry's frame at off was written, if its body is whole: the checksum is undone.
func seqOf(b []byte, salt uint64, off int64) uint64 {
	word, sum := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint64(b[8:])
	m := format.Mix(salt ^ (uint64(off)/8<<32 | uint64(word)))
	return unmix(sum^xxhash.Sum64(b[segment.HeadSize:])) - m
}

// unmix is the inverse of format.Mix.
func unmix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0x9cb4b2f8129337db
	x ^= x >> 33
	x *= 0x4f74430c22a54005
	x ^= x >> 33
	return x
}

// misplaced judges an entry whose checksum does not match the seq of its place: it is another entry's, or damaged. If
// entries before it are missing, it is returned with its own seq.
func (s *seg) misplaced(f *segment.Frame, seq uint64, bad badFunc) (segment.Frame, bool) {
	const plausible = 1 << 48
	detail := "the entry's checksum does not match"
	if b, err := s.w.at(f.Offset, int(f.Size)); err == nil && int64(len(b)) >= f.Size {
		b = b[:f.Size]
		switch own := seqOf(b, s.h.Salt, f.Offset); {
		case own > seq && (s.sealed && own <= s.ft.LastSeq || !s.sealed && own-seq < 1<<20):
			bad(KindFrame, f.Offset, seq, own-1, fmt.Sprintf("the frame is that of seq %d: the entries before it are missing", own))
			g, err := segment.ReadFrame(s.path, b, s.h.Salt, f.Offset, own)
			return g, err == nil
		case own < plausible:
			detail = fmt.Sprintf("the frame is that of seq %d", own)
		}
	}
	bad(KindFrame, f.Offset, seq, seq, detail)
	return *f, false
}

// parse decodes an entry. Where the segment is damaged, what its own dictionary does not know may be known from
// elsewhere.
func (s *seg) parse(f *segment.Frame, b *batch) (entry.View, error) {
	e, err := entry.ParseView(s.dict, f.Seq, f.Flags(), f.Body)
	if s.whole && len(b.found) == 0 && s.timed || err == nil && s.named(&e) {
		return e, err
	}
	if d := s.standIn(); d != nil {
		if other, oerr := entry.ParseView(d, f.Seq, f.Flags(), f.Body); oerr == nil {
			return other, nil
		}
	}
	return e, err
}

// named reports whether all kinds of the entry's keys are known.
func (s *seg) named(e *entry.View) bool {
	good, kinds := true, s.dict.Kinds()
	e.KeyNos(func(kind entry.KindNo, _ []byte) bool {
		good = kinds.Name(kind) != ""
		return good
	})
	return good
}

// standIn is the dictionary as far as the index, the segments before and the manifest know it. nil: there is none.
func (s *seg) standIn() *entry.Dict {
	if s.asked {
		return s.other
	}
	s.asked = true
	d := entry.NewDict(s.dict.BaseTime)
	kinds := s.v.c.kinds
	for no, r := range s.v.routes {
		d.SetRoute(no, r)
	}
	if s.sealed {
		meta := index.Meta{Number: s.number, Salt: s.h.Salt, Chain: s.ft.Chain, ContentEnd: s.ft.ContentEnd}
		if f, err := index.Open(s.v.fsys, s.v.path(index.FileName(s.number)), meta); err == nil {
			if f.VerifyAll() == nil {
				for no, r := range f.Dict().Routes() {
					if r.Topic != "" {
						d.SetRoute(uint32(no), r)
					}
				}
				kinds = longer(kinds, f.Dict().Kinds().Declared())
				if !s.timed {
					d.BaseTime, s.dict.BaseTime, s.timed = f.Dict().BaseTime, f.Dict().BaseTime, true
				}
			}
			_ = f.Close()
		}
	}
	if s.v.haveM {
		var names []string
		for _, k := range s.v.m.Kinds {
			names = append(names, k.Name)
		}
		kinds = longer(kinds, names)
	}
	list := &entry.Kinds{}
	for _, name := range kinds {
		var err error
		if list, _, err = list.With(name); err != nil {
			break
		}
	}
	d.SetKinds(list)
	s.other = d
	return d
}

func longer(a, b []string) []string {
	if len(b) > len(a) {
		return b
	}
	return a
}

// remember keeps the segment's routes, whose numbers hold for the whole run.
func (v *verifier) remember(d *entry.Dict) {
	if v.o.OnEntry == nil {
		return
	}
	if v.routes == nil {
		v.routes = map[uint32]entry.Route{}
	}
	for no, r := range d.Routes() {
		if r.Topic != "" {
			v.routes[uint32(no)] = r
		}
	}
}

// note takes a whole note that stands behind the entry with seq after.
func (s *seg) note(f *segment.Frame, after uint64, b *batch, bad badFunc) {
	kind := entry.NoteKind(f.Kind)
	if err := entry.CheckNote(kind, f.Body); err != nil {
		bad(KindNote, f.Offset, 0, 0, fmt.Sprintf("behind seq %d: %v", after, err))
		return
	}
	b.stats.notes[kind]++
	if s.ix != nil && kind.Indexed() {
		s.ix.AddNote(kind, f.Offset)
	}
	if s.v.o.OnNote != nil {
		b.good = append(b.good, place{off: f.Offset, size: f.Size, seq: after, note: true})
	}
}

// deliver hands the batch's good entries and notes to whoever wants them. They are read again, since the window has moved on.
func (s *seg) deliver(b *batch) error {
	for _, p := range b.good {
		raw, err := s.w.at(p.off, int(p.size))
		if err != nil || int64(len(raw)) < p.size {
			return &format.Error{Path: s.path, Offset: p.off, FirstSeq: p.seq, Why: "read", Err: err}
		}
		own := p.seq
		if p.note {
			own = 0 // its checksum is over itself only
		}
		f, err := segment.ReadFrame(s.path, raw[:p.size], s.h.Salt, p.off, own)
		if err != nil {
			return err // it was good a moment ago
		}
		if p.note {
			n := Note{Note: entry.Note{Kind: entry.NoteKind(f.Kind), After: p.seq, Body: f.Body}, Path: s.path, Offset: p.off, v: s.v}
			if err := s.v.o.OnNote(&n); err != nil {
				return err
			}
			continue
		}
		e, err := s.parse(&f, b)
		if err != nil {
			return err
		}
		if err := s.v.o.OnEntry(&e); err != nil {
			return err
		}
	}
	return nil
}
