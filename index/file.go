package index

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/vfs"
)

// File is the mapped index of a sealed segment. Every piece that a lookup touches is verified when it is touched. Any
// number of goroutines may use it, until Close. Lookups do not allocate, except for results and errors.
type File struct {
	path    string
	mapping vfs.Mapping
	data    []byte // the whole file; nil after Close

	meta     Meta
	bounds   Bounds
	s        sections
	keys     uint64
	postings uint64

	dict   *entry.Dict
	routes []routeCount // ascending by number
	inline uint64       // entries with inline routes
}

type routeCount struct {
	no      uint32
	entries uint64
}

// Open maps an index file and verifies that it is whole, written with want, and what its dictionary says. An error
// about its content wraps format.ErrCorrupt, ErrWrongKind or ErrVersion; in any of these cases the index can be built
// again.
func Open(fsys vfs.FS, path string, want Want) (*File, error) {
	m, err := mapFile(fsys, path)
	if err != nil {
		return nil, err
	}
	f := &File{path: path, mapping: m, data: m.Bytes()}
	err = format.Guarded(path, func() error {
		if err := f.readHeader(want); err != nil {
			return err
		}
		return f.readDict()
	})
	if err != nil {
		_ = m.Close()
		return nil, err
	}
	return f, nil
}

// mapFile maps a whole file that is not empty.
func mapFile(fsys vfs.FS, path string) (vfs.Mapping, error) {
	h, err := fsys.OpenRead(path)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	size, err := h.Size()
	if err != nil {
		return nil, err
	}
	if size < format.PreludeSize {
		return nil, corrupt(path, size, "file ends inside its header")
	}
	m, err := h.Map(size)
	if err != nil {
		return nil, &format.Error{Path: path, Offset: -1, Why: "map", Err: err}
	}
	return m, nil
}

func (f *File) readHeader(want Want) error {
	h := f.data
	p, err := format.OpenHeader(f.path, h, format.MagicIndex, Version)
	if err != nil {
		return err
	}
	if p.HeaderSize != headerSize {
		return corrupt(f.path, 12, "header size is %d, want %d", p.HeaderSize, headerSize)
	}
	f.meta = Meta{
		Number: le.Uint32(h[hdrNumber:]), Salt: p.Salt, Chain: le.Uint64(h[hdrChain:]),
		ContentEnd: int64(le.Uint64(h[hdrContentEnd:])),
	}
	switch got := f.meta; {
	case got.Salt != want.Salt:
		return corrupt(f.path, 16, "salt is %#x, the segment's %#x", got.Salt, want.Salt)
	case got.Number != want.Number:
		return corrupt(f.path, hdrNumber, "index of segment %d, want %d", got.Number, want.Number)
	case got.Chain != want.Chain:
		return corrupt(f.path, hdrChain, "chain is %#x, the segment's %#x", got.Chain, want.Chain)
	case got.ContentEnd != want.ContentEnd:
		return corrupt(f.path, hdrContentEnd, "content end is %d, the segment's %d", got.ContentEnd, want.ContentEnd)
	}
	f.bounds = Bounds{
		FirstSeq: le.Uint64(h[hdrFirstSeq:]), Entries: le.Uint64(h[hdrEntries:]),
		MinInit: int64(le.Uint64(h[hdrMinInit:])), MaxInit: int64(le.Uint64(h[hdrMaxInit:])),
		MinPublish: int64(le.Uint64(h[hdrMinPublish:])), MaxPublish: int64(le.Uint64(h[hdrMaxPublish:])),
	}
	f.keys, f.postings = le.Uint64(h[hdrKeys:]), le.Uint64(h[hdrKeyPostings:])
	return f.readSections()
}

// readSections checks all places against each other and the file's size, so that lookups need not.
func (f *File) readSections() error {
	h, size := f.data, uint64(len(f.data))
	f.s = sections{
		entries: f.bounds.Entries, sampleEvery: uint64(le.Uint32(h[hdrSampleEvery:])), buckets: le.Uint64(h[hdrBuckets:]),
		postingsSize: int64(le.Uint64(h[hdrPostingsSize:])), dictSize: int64(le.Uint64(h[hdrDictSize:])),
		notesSize: int64(le.Uint64(h[hdrNotesSize:])),
	}
	s := &f.s
	if got := le.Uint64(h[hdrFileSize:]); got != size {
		return corrupt(f.path, int64(min(got, size)), "file has %d bytes, want %d", size, got)
	}
	if s.sampleEvery == 0 || s.entries > maxEntries || f.bounds.FirstSeq+s.entries < f.bounds.FirstSeq {
		return corrupt(f.path, hdrEntries, "%d entries from seq %d on, %d per sample",
			s.entries, f.bounds.FirstSeq, s.sampleEvery)
	}
	// Bounded by the file's size, no sum below can overflow.
	if s.buckets > size/bucketSize || uint64(s.postingsSize) > size ||
		uint64(s.dictSize) > size || s.dictSize < trailerSize || uint64(s.notesSize) > size || s.notesSize < trailerSize {
		return corrupt(f.path, hdrBuckets, "sections do not fit into %d bytes", size)
	}
	if f.keys > s.buckets*bucketSlots || f.postings < f.keys {
		return corrupt(f.path, hdrKeys, "%d keys with %d postings in %d buckets", f.keys, f.postings, s.buckets)
	}
	s.lay()
	for _, p := range [...]struct {
		field, want int64
		name        string
	}{
		{hdrSamplesAt, s.samplesAt, "samples"}, {hdrBucketsAt, s.bucketsAt, "buckets"},
		{hdrPostingsAt, s.postingsAt, "posting lists"}, {hdrDictAt, s.dictAt, "dictionary"},
		{hdrNotesAt, s.notesAt, "notes"}, {hdrFileSize, s.trailerAt + trailerSize, "end"},
	} {
		if got := le.Uint64(h[p.field:]); got != uint64(p.want) {
			return corrupt(f.path, p.field, "%s at %d, want %d", p.name, got, p.want)
		}
	}
	return nil
}

// Close unmaps the file. No other call may be in progress; later lookups return format.ErrClosed. It is idempotent.
func (f *File) Close() error {
	if f.data == nil {
		return nil
	}
	f.data = nil
	return f.mapping.Close()
}

// Meta returns what the index was written with.
func (f *File) Meta() Meta { return f.meta }

// Bounds says what the segment holds.
func (f *File) Bounds() Bounds { return f.bounds }

// KeyCount is the number of distinct keys.
func (f *File) KeyCount() uint64 { return f.keys }

// Size is the file's size in bytes.
func (f *File) Size() int64 { return f.s.trailerAt + trailerSize }

// Offset returns the nearest sample at or below seq: where a search for that entry begins. A seq that the segment
// does not hold is format.ErrNotFound.
func (f *File) Offset(seq uint64) (sampleSeq uint64, offset int64, err error) {
	sampleSeq, offset, _, err = f.Span(seq)
	return sampleSeq, offset, err
}

// Span is Offset with the place of the next sample, which lies beside the first: the entry begins in front of it. It is
// 0 where the next sample is in another piece of the index, or there is none.
func (f *File) Span(seq uint64) (sampleSeq uint64, offset, next int64, err error) {
	delta := seq - f.bounds.FirstSeq
	if delta >= f.bounds.Entries {
		return 0, 0, 0, format.ErrNotFound
	}
	if f.data == nil {
		return 0, 0, 0, format.ErrClosed
	}
	i := delta / f.s.sampleEvery
	at := f.s.samplesAt + int64(i/lineSamples)*lineSize
	line := f.data[at : at+lineSize]
	if format.Check64(line[:lineCheck], f.meta.Salt, at) != le.Uint64(line[lineCheck:]) {
		return 0, 0, 0, corrupt(f.path, at, "check of the samples does not match")
	}
	j := i % lineSamples * 4
	offset = int64(le.Uint32(line[j:])) << 3
	if offset >= f.meta.ContentEnd {
		return 0, 0, 0, corrupt(f.path, at, "sample %d is behind the content", i)
	}
	if j += 4; j < lineCheck {
		next = int64(le.Uint32(line[j:])) << 3
	}
	return f.bounds.FirstSeq + i*f.s.sampleEvery, offset, next, nil
}

// bucket returns the verified bucket i.
func (f *File) bucket(i uint64) ([]byte, error) {
	at := f.s.bucketsAt + int64(i)*bucketSize
	b := f.data[at : at+bucketSize : at+bucketSize]
	if format.Check32(b[bucketValues:], f.meta.Salt, at) != le.Uint32(b) {
		return nil, corrupt(f.path, at, "check of key bucket %d does not match", i)
	}
	return b, nil
}

// slotTag returns the tag of slot i of a bucket.
func slotTag(b []byte, i int) uint64 { return le.Uint64(b[bucketTags-2+i*tagSize:]) >> 16 }

// matches returns a bit for each slot of a bucket that has the tag, and whether the bucket has a free slot. Slots
// fill from 0, so tags behind the first free slot do not count.
func matches(b []byte, tag uint64) (hits uint32, free bool) {
	_ = b[bucketSize-1]
	for i := range bucketSlots {
		if slotTag(b, i) == tag {
			hits |= 1 << i
		}
	}
	if le.Uint32(b[bucketValues+4*(bucketSlots-1):]) != valueFree {
		return hits, false
	}
	used := 0
	for le.Uint32(b[bucketValues+4*used:]) != valueFree {
		used++
	}
	return hits & (1<<used - 1), true
}

// First returns the first candidate for a key.
func (f *File) First(fp uint64) (seq uint64, ok bool, err error) {
	if f.data == nil {
		return 0, false, format.ErrClosed
	}
	i := home(fp, f.s.buckets)
	for range f.s.buckets {
		b, err := f.bucket(i)
		if err != nil {
			return 0, false, err
		}
		hits, free := matches(b, fp&tagMask)
		for ; hits != 0; hits &= hits - 1 {
			s, err := f.firstOf(le.Uint32(b[bucketValues+4*bits.TrailingZeros32(hits):]))
			if err != nil {
				return 0, false, err
			}
			if !ok || s < seq { // two keys may share a tag
				seq, ok = s, true
			}
		}
		if free {
			break
		}
		if i++; i == f.s.buckets {
			i = 0
		}
	}
	return seq, ok, nil
}

// Seqs appends all candidates for a key to dst, in ascending order. On an error dst is returned as it came.
func (f *File) Seqs(fp uint64, dst []uint64) ([]uint64, error) {
	if f.data == nil {
		return dst, format.ErrClosed
	}
	found, lists := dst, 0
	i := home(fp, f.s.buckets)
	for range f.s.buckets {
		b, err := f.bucket(i)
		if err != nil {
			return dst, err
		}
		hits, free := matches(b, fp&tagMask)
		for ; hits != 0; hits &= hits - 1 {
			if found, err = f.appendAll(found, le.Uint32(b[bucketValues+4*bits.TrailingZeros32(hits):])); err != nil {
				return dst, err
			}
			lists++
		}
		if free {
			break
		}
		if i++; i == f.s.buckets {
			i = 0
		}
	}
	if lists > 1 { // keys that share a tag
		added := found[len(dst):]
		slices.Sort(added)
		found = found[:len(dst)+len(slices.Compact(added))]
	}
	return found, nil
}

// firstOf returns the first seq that a slot's value stands for.
func (f *File) firstOf(value uint32) (uint64, error) {
	if value&valueList == 0 {
		return f.seq(uint64(value), f.s.bucketsAt)
	}
	list, at, err := f.list(value)
	if err != nil {
		return 0, err
	}
	delta, n := binary.Uvarint(list)
	if n <= 0 {
		return 0, corrupt(f.path, at, "malformed posting list")
	}
	return f.seq(delta, at)
}

// appendAll appends all seqs that a slot's value stands for.
func (f *File) appendAll(dst []uint64, value uint32) ([]uint64, error) {
	if value&valueList == 0 {
		seq, err := f.seq(uint64(value), f.s.bucketsAt)
		if err != nil {
			return dst, err
		}
		return append(dst, seq), nil
	}
	list, at, err := f.list(value)
	if err != nil {
		return dst, err
	}
	delta := uint64(0)
	for first := true; len(list) > 0; first = false {
		d, n := uint64(list[0]), 1
		if d >= 0x80 {
			d, n = binary.Uvarint(list)
		}
		if n <= 0 || d == 0 && !first || d > maxEntries {
			return dst, corrupt(f.path, at, "malformed posting list")
		}
		delta += d
		seq, err := f.seq(delta, at)
		if err != nil {
			return dst, err
		}
		dst = append(dst, seq)
		list = list[n:]
	}
	return dst, nil
}

func (f *File) seq(delta uint64, at int64) (uint64, error) {
	if delta >= f.bounds.Entries {
		return 0, corrupt(f.path, at, "a key names entry %d of %d", delta, f.bounds.Entries)
	}
	return f.bounds.FirstSeq + delta, nil
}

// list returns the verified bytes of a posting list, at least one, and its place in the file.
func (f *File) list(value uint32) (list []byte, at int64, err error) {
	rel := int64(value&^valueList) << 3
	at = f.s.postingsAt + rel
	if rel > f.s.postingsSize-listHead {
		return nil, at, corrupt(f.path, at, "posting list lies outside of its section")
	}
	n := int64(le.Uint32(f.data[at+4:]))
	if n == 0 || n > f.s.postingsSize-listHead-rel {
		return nil, at, corrupt(f.path, at, "posting list of %d bytes", n)
	}
	b := f.data[at : at+listHead+n]
	if format.Check32(b[4:], f.meta.Salt, at) != le.Uint32(b) {
		return nil, at, corrupt(f.path, at, "check of the posting list does not match")
	}
	return b[listHead:], at, nil
}

// Keys calls yield with the tag (the low 48 bits of the fingerprint) of each key, until it returns false.
func (f *File) Keys(yield func(tag uint64) bool) error {
	if f.data == nil {
		return format.ErrClosed
	}
	return format.Guarded(f.path, func() error { return f.eachKey(yield) })
}

func (f *File) eachKey(yield func(tag uint64) bool) error {
	for i := range f.s.buckets {
		b, err := f.bucket(i)
		if err != nil {
			return err
		}
		for j := 0; j < bucketSlots && le.Uint32(b[bucketValues+4*j:]) != valueFree; j++ {
			if !yield(slotTag(b, j)) {
				return nil
			}
		}
	}
	return nil
}
