package verify

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/runlog-io/runlog/index"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/segment/compressed"
)

// tail judges what stands at off, behind the last batch of a segment that has no footer at its end, or inside the
// content of one that has.
func (s *seg) tail(off int64) error {
	v, name := s.v, filepath.Base(s.path)
	if s.sealed {
		s.whole = false
		v.find(KindFrame, s.path, off, 0, 0, "bytes between the segment's last commit and its footer")
		return nil
	}
	if s.zeroFrom(off) {
		switch {
		case s.strict:
			s.noFooter(off)
		case s.short():
			s.cutShort()
		}
		return nil
	}
	b, err := s.w.at(off, segment.FooterSize)
	if err != nil {
		return err
	}
	if len(b) > segment.FooterSize {
		b = b[:segment.FooterSize]
	}
	ft, ok := segment.DecodeFooter(b, s.h.Salt, off)
	switch {
	case ok && (s.strict || v.indexes[s.number]):
		v.find(KindFooter, s.path, off+segment.FooterSize, 0, 0, fmt.Sprintf("%d bytes behind the footer", s.size-off-segment.FooterSize))
		s.commits++ // what the footer says holds
		s.last = segment.Commit{Flags: ft.Flags & (segment.FlagFinal | segment.FlagContinues), NextSalt: ft.NextSalt}
	case ok:
		v.note("%s: its footer is written, but the file is not cut yet", name)
	case s.short() && !s.strict:
		s.cutShort()
	case s.strict, s.ended() && v.indexes[s.number]: // an index is written only after the footer was durable
		s.noFooter(off)
	case s.ended():
		v.note("%s: its footer was not finished; it will be written again", name)
	default:
		s.torn = true
		v.note("%s: torn tail from offset %d on, %d bytes: nothing proves that they were acknowledged, or they are just being written", name, off, s.lastByte(off)-off)
	}
	return nil
}

// short reports whether the file is shorter than it was made: segments are as long as planned before their first commit,
// and are cut only behind a durable footer. Where that cannot be read, nobody knows.
func (s *seg) short() bool { return !s.sealed && s.lost == 0 && s.size < s.h.PlannedSize }

// cutShort reports a segment that ends too early, and takes with it what its tail would have told.
func (s *seg) cutShort() {
	first := uint64(0)
	if !s.ended() {
		first = s.chain.Seq + 1
		s.whole, s.known, s.value = false, false, false
	}
	s.v.find(KindFooter, s.path, s.size, first, 0, fmt.Sprintf("the file was cut short: it was made with %d bytes", s.h.PlannedSize))
}

// noFooter reports a sealed segment whose footer cannot be used.
func (s *seg) noFooter(off int64) {
	first, last := uint64(0), uint64(0)
	what := "the footer is missing or damaged; all entries are there"
	if !s.ended() && s.v.haveM && s.v.sealed && s.chain.Seq < s.v.m.LastSeq {
		first, what = s.chain.Seq+1, "the segment ends before its footer"
		if !s.v.follows(s.number) {
			last = s.v.m.LastSeq
		}
	}
	s.v.find(KindFooter, s.path, off, first, last, what)
}

// lostFrom files that nothing can be read from off on.
func (s *seg) lostFrom(_ int64, b *batch) {
	s.stats = b.stats
	s.whole = false
	if s.sealed {
		return // the footer tells what the segment would have left
	}
	s.known, s.value = false, false
}

// lastByte is the offset behind the last byte that is not zero.
func (s *seg) lastByte(from int64) int64 {
	end := from
	for off := from; off < s.limit; {
		b, err := s.w.at(off, int(min(windowSize, s.limit-off)))
		if err != nil || len(b) == 0 {
			return end
		}
		for i := len(b); i > 0; i-- {
			if b[i-1] != 0 {
				end = off + int64(i)
				break
			}
		}
		off += int64(len(b))
	}
	return end
}

// checkIndex compares the index file with one that is made of the frames.
func (s *seg) checkIndex() {
	v := s.v
	name := index.FileName(s.number)
	meta := index.Meta{Number: s.number, Salt: s.h.Salt, Chain: s.ft.Chain, ContentEnd: s.ft.ContentEnd}
	done := sealedSeg{number: s.number, salt: s.h.Salt, meta: meta}
	defer func() { v.segs = append(v.segs, done) }()
	if s.missingDerived(KindIndex, name, !v.nextSealed(s.number)) {
		return
	}
	f, err := index.Open(v.fsys, v.path(name), meta)
	if v.goneBelow(s.number, err) {
		return
	}
	if errors.Is(err, format.ErrOlder) {
		v.note("%s is of an earlier version, and was not checked: readers build it again in memory, and runlog recover RUN writes it anew", name)
		return
	}
	if err != nil {
		v.problem(KindIndex, v.path(name), err)
		return
	}
	defer f.Close()
	if err := f.VerifyAll(); err != nil {
		v.problem(KindIndex, v.path(name), err)
		return
	}
	done.keys, done.good = f.KeyCount(), true
	if !s.whole || s.ix == nil {
		return // not every key is known
	}
	want, err := index.Encode(s.ix, s.dict, meta)
	if err != nil {
		v.errs = append(v.errs, err)
		return
	}
	done.good = s.sameBytes(name, want)
}

// sameBytes compares an index file with what it should be.
func (s *seg) sameBytes(name string, want []byte) bool {
	v, path := s.v, s.v.path(name)
	f, err := v.fsys.OpenRead(path)
	if v.goneBelow(s.number, err) {
		return false
	}
	if err != nil {
		v.errs = append(v.errs, err)
		return false
	}
	defer f.Close()
	buf := make([]byte, min(windowSize, len(want)))
	for off := 0; off < len(want); off += len(buf) {
		n, _ := f.ReadAt(buf[:min(len(buf), len(want)-off)], int64(off))
		for i := range buf[:min(len(buf), len(want)-off)] {
			if i >= n || buf[i] != want[off+i] {
				v.find(KindIndex, path, int64(off+i), 0, 0, "the index is whole, but not what the segment's entries give")
				return false
			}
		}
	}
	return true
}

// missingDerived reports whether a derived file is missing. It is a note while its segment may just have been sealed.
func (s *seg) missingDerived(kind Kind, name string, fresh bool) bool {
	v := s.v
	if _, err := v.fsys.Stat(v.path(name)); err == nil {
		return false
	}
	switch f := (Finding{Kind: kind, Path: v.path(name), Offset: -1, Detail: "the file is not there"}); {
	case v.isBelow(s.number): // removed while the run is checked
	case v.sealed || v.over:
		v.report(f)
	case fresh:
		v.note("%s is not there yet", name)
	default:
		v.absent = append(v.absent, f)
	}
	return true
}

// checkAbsent reports derived files that are missing from a run that is not sealed. While a process holds the
// instance, it may be recovering the run and about to write them, so they get a moment.
func (v *verifier) checkAbsent() {
	lock := filepath.Join(v.dir, "..", manifest.LockName)
	for range 40 {
		v.absent = slices.DeleteFunc(v.absent, func(f Finding) bool {
			_, err := v.fsys.Stat(f.Path)
			return err == nil
		})
		if len(v.absent) == 0 {
			return
		}
		if _, held, err := v.fsys.LockHolder(lock); err != nil || !held || v.ctx.Err() != nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, f := range v.absent {
		v.report(f)
	}
}

// checkFilters checks that the filters are those of the sealed segments, and let every key through.
func (v *verifier) checkFilters() error {
	bySeg := make(map[uint32]*sealedSeg, len(v.segs))
	for i := range v.segs {
		bySeg[v.segs[i].number] = &v.segs[i]
	}
	for _, r := range v.filtersDue() {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		if err := v.checkFilter(r, bySeg); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) checkFilter(r index.Range, bySeg map[uint32]*sealedSeg) error {
	name := index.FilterName(r.First, r.Last)
	probe := seg{v: v, number: r.First}
	if probe.missingDerived(KindFilter, name, r.Last == v.lastSealed) {
		return nil
	}
	var salts []uint64
	keys, good := uint64(0), true
	for n := r.First; n <= r.Last; n++ {
		in := bySeg[n]
		if in == nil {
			v.note("%s cannot be checked: segment %d is damaged or missing", name, n)
			return nil
		}
		salts = append(salts, in.salt)
		keys += in.keys
		good = good && in.good
	}
	path := v.path(name)
	f, err := index.OpenFilter(v.fsys, path, index.FilterWant{First: r.First, Last: r.Last, Salts: index.ChainSalts(salts...)})
	if err == nil {
		defer f.Close()
		err = f.VerifyAll()
	}
	if v.goneBelow(r.First, err) {
		return nil
	}
	if err != nil {
		v.problem(KindFilter, path, err)
		return nil
	}
	if !good {
		return nil // the keys are not known for sure
	}
	if f.KeyCount() != keys {
		v.find(KindFilter, path, -1, 0, 0, fmt.Sprintf("%d keys, the indexes have %d", f.KeyCount(), keys))
		return nil
	}
	for n := r.First; n <= r.Last; n++ {
		if err := v.checkKeys(f, path, bySeg[n]); err != nil && !v.goneBelow(n, err) {
			return err
		}
	}
	return nil
}

// checkKeys asks the filter for every key of one index.
func (v *verifier) checkKeys(f *index.Filter, path string, in *sealedSeg) error {
	ix, err := index.Open(v.fsys, v.path(index.FileName(in.number)), in.meta)
	if err != nil {
		return err // it was good a moment ago
	}
	defer ix.Close()
	lost := 0
	err = ix.Keys(func(tag uint64) bool {
		if may, err := f.MayContain(tag); err == nil && !may {
			lost++
		}
		return true
	})
	if lost > 0 {
		v.find(KindFilter, path, -1, 0, 0, fmt.Sprintf("%d keys of segment %d are denied", lost, in.number))
	}
	return err
}

// nextSealed reports whether the segment behind number n has its footer: segments are sealed in order, each with its
// index.
func (v *verifier) nextSealed(n uint32) bool {
	path := v.path(segment.FileName(n + 1))
	f, err := compressed.OpenSegment(v.fsys, path)
	if err != nil {
		return false
	}
	defer f.Close()
	h, err := segment.ReadHeader(f, path)
	size, serr := f.Size()
	if err != nil || serr != nil {
		return false
	}
	_, ok, _ := segment.ReadFooter(f, size, &h)
	return ok
}

// checkExtras reports derived files that belong to no segment.
func (v *verifier) checkExtras() {
	for _, n := range slices.Sorted(maps.Keys(v.indexes)) {
		if !v.names[segment.FileName(n)] {
			v.find(KindExtra, v.path(index.FileName(n)), -1, 0, 0, "an index without its segment")
		}
	}
	for _, r := range v.filters {
		if !v.names[segment.FileName(r.Last)] {
			v.find(KindExtra, v.path(index.FilterName(r.First, r.Last)), -1, 0, 0, "a filter over segments that are not there")
		}
	}
}
