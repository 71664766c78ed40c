package index

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/vfs"
)

// Write makes the index file name in the folder dir from what Encode has returned. When it returns nil, the file is
// durable and complete under its name; a crash before leaves nothing, or name.tmp.
func Write(fsys vfs.FS, dir, name string, data []byte) error {
	return vfs.WriteFileAtomic(fsys, dir, filepath.Join(dir, name), data)
}

// Encode returns the content of the index file. The same entries, dictionary and meta give the same bytes, in
// whatever way b came to hold them; of the dictionary only routes that entries have are kept. The writer of b must be
// done.
func Encode(b *Builder, dict *entry.Dict, meta Meta) ([]byte, error) {
	if b.err != nil {
		return nil, b.err
	}
	dictBytes, err := appendDict(nil, b, dict)
	if err != nil {
		return nil, err
	}
	notes := appendNotes(nil, b)
	s := sections{
		entries: b.entries.Load(), sampleEvery: SampleEvery, buckets: bucketCount(uint64(b.keys)),
		dictSize: int64(len(dictBytes)) + trailerSize, notesSize: int64(len(notes)) + trailerSize,
	}
	s.lay()
	if s.entries > 0 {
		if _, last, _ := b.Offset(b.firstSeq + s.entries - 1); last >= meta.ContentEnd {
			return nil, fmt.Errorf("%w: index: entry at offset %d, content ends at %d", format.ErrInvalid, last, meta.ContentEnd)
		}
	}
	if n := len(b.Notes()); n > 0 && b.Notes()[n-1].Offset >= meta.ContentEnd {
		return nil, fmt.Errorf("%w: index: note at offset %d, content ends at %d", format.ErrInvalid, b.Notes()[n-1].Offset, meta.ContentEnd)
	}
	e := encoder{b: b, s: &s, salt: meta.Salt}
	order, lists := e.order()
	guess := int64(lists)*24 + int64(b.added)*3 // what it takes at most, nearly always
	e.out = make([]byte, s.postingsAt, s.postingsAt+guess+s.dictSize+s.notesSize+3*align)
	e.samples()
	if err := e.keys(order); err != nil {
		return nil, err
	}
	s.postingsSize = int64(len(e.out)) - s.postingsAt
	s.lay()
	e.section(s.dictAt, dictBytes)
	e.section(s.notesAt, notes)
	e.out = append(e.out, make([]byte, s.trailerAt-int64(len(e.out)))...)
	e.header(dict.BaseTime, meta)
	return le.AppendUint64(e.out, xxhash.Sum64(e.out)), nil
}

// section appends a section that checks itself as a whole, at its place.
func (e *encoder) section(at int64, b []byte) {
	e.out = append(e.out, make([]byte, at-int64(len(e.out)))...)
	e.out = append(e.out, b...)
	e.out = le.AppendUint64(e.out, format.Check64(b, e.salt, at))
}

type encoder struct {
	b    *Builder
	s    *sections
	salt uint64
	out  []byte
}

func (e *encoder) header(baseTime int64, meta Meta) {
	h, s, bo := e.out[:headerSize], e.s, e.b.Bounds()
	le.PutUint32(h[hdrNumber:], meta.Number)
	le.PutUint32(h[hdrSampleEvery:], uint32(s.sampleEvery))
	le.PutUint64(h[hdrChain:], meta.Chain)
	le.PutUint64(h[hdrContentEnd:], uint64(meta.ContentEnd))
	le.PutUint64(h[hdrFirstSeq:], bo.FirstSeq)
	le.PutUint64(h[hdrEntries:], bo.Entries)
	le.PutUint64(h[hdrMinInit:], uint64(bo.MinInit))
	le.PutUint64(h[hdrMaxInit:], uint64(bo.MaxInit))
	le.PutUint64(h[hdrMinPublish:], uint64(bo.MinPublish))
	le.PutUint64(h[hdrMaxPublish:], uint64(bo.MaxPublish))
	le.PutUint64(h[hdrBaseTime:], uint64(baseTime))
	le.PutUint64(h[hdrSamplesAt:], uint64(s.samplesAt))
	le.PutUint64(h[hdrBucketsAt:], uint64(s.bucketsAt))
	le.PutUint64(h[hdrBuckets:], s.buckets)
	le.PutUint64(h[hdrPostingsAt:], uint64(s.postingsAt))
	le.PutUint64(h[hdrPostingsSize:], uint64(s.postingsSize))
	le.PutUint64(h[hdrDictAt:], uint64(s.dictAt))
	le.PutUint64(h[hdrDictSize:], uint64(s.dictSize))
	le.PutUint64(h[hdrFileSize:], uint64(s.trailerAt)+trailerSize)
	le.PutUint64(h[hdrKeys:], uint64(e.b.keys))
	le.PutUint64(h[hdrKeyPostings:], e.b.postings)
	le.PutUint64(h[hdrNotesAt:], uint64(s.notesAt))
	le.PutUint64(h[hdrNotesSize:], uint64(s.notesSize))
	format.SealHeader(h, format.MagicIndex, Version, e.salt)
}

func (e *encoder) samples() {
	dir := *e.b.samples.Load()
	samples := (e.s.entries + SampleEvery - 1) / SampleEvery
	for i := range samples {
		at := e.s.samplesAt + int64(i/lineSamples)*lineSize + int64(i%lineSamples)*4
		le.PutUint32(e.out[at:], dir[i/sampleChunk][i%sampleChunk])
	}
	for at := e.s.samplesAt; at < e.s.bucketsAt; at += lineSize {
		line := e.out[at : at+lineSize]
		le.PutUint64(line[lineCheck:], format.Check64(line[:lineCheck], e.salt, at))
	}
}

// order lists the table's used slots by fingerprint, and so by home bucket, whatever the table's size is. It also
// counts the keys that need a posting list.
func (e *encoder) order() (order []uint32, lists int) {
	t := *e.b.table.Load()
	from := make([]uint32, e.s.buckets+1) // where each home bucket's keys begin
	for i := range t {
		if word := t[i].word.Load(); word != 0 {
			from[home(t[i].fp, e.s.buckets)+1]++
			if uint32(word) != 0 {
				lists++
			}
		}
	}
	for i := 1; i < len(from); i++ {
		from[i] += from[i-1]
	}
	order = make([]uint32, e.b.keys)
	for i := range t {
		if t[i].word.Load() != 0 {
			h := home(t[i].fp, e.s.buckets)
			order[from[h]] = uint32(i)
			from[h]++
		}
	}
	begin := uint32(0) // each from[h] is now where the keys of h end
	for _, end := range from[:e.s.buckets] {
		slices.SortFunc(order[begin:end], func(a, b uint32) int {
			if t[a].fp < t[b].fp {
				return -1
			}
			return 1
		})
		begin = end
	}
	return order, lists
}

// keys fills the buckets and appends the posting lists.
func (e *encoder) keys(order []uint32) error {
	t := *e.b.table.Load()
	used := make([]uint8, e.s.buckets)
	for at := e.s.bucketsAt; at < e.s.postingsAt; at += bucketSize {
		for i := range int64(bucketSlots) {
			le.PutUint32(e.out[at+bucketValues+i*4:], valueFree)
		}
	}
	var deltas []uint32
	for _, i := range order {
		word := t[i].word.Load()
		value := uint32(word>>32) - 1
		if uint32(word) != 0 {
			at := int64(len(e.out)) - e.s.postingsAt
			if at>>3 >= valueFree&^valueList {
				return fmt.Errorf("%w: index: posting lists of more than %d bytes", format.ErrInvalid, at)
			}
			value = valueList | uint32(at>>3)
			deltas = e.deltas(deltas[:0], word)
			e.list(deltas)
		}
		h := home(t[i].fp, e.s.buckets)
		for used[h] == bucketSlots {
			if h++; h == e.s.buckets {
				h = 0
			}
		}
		bucket := e.out[e.s.bucketsAt+int64(h)*bucketSize:][:bucketSize]
		le.PutUint32(bucket[bucketValues+int(used[h])*4:], value)
		tag := bucket[bucketTags+int(used[h])*tagSize:]
		le.PutUint32(tag, uint32(t[i].fp))
		le.PutUint16(tag[4:], uint16(t[i].fp>>32))
		used[h]++
	}
	for at := e.s.bucketsAt; at < e.s.postingsAt; at += bucketSize {
		bucket := e.out[at : at+bucketSize]
		le.PutUint32(bucket, format.Check32(bucket[bucketValues:], e.salt, at))
	}
	return nil
}

// deltas appends a key's entries, relative to the first seq, in ascending order.
func (e *encoder) deltas(dst []uint32, word uint64) []uint32 {
	dir := *e.b.nodes.Load()
	for n := uint32(word); n != 0; {
		nd := &dir[(n-1)/nodeChunk][(n-1)%nodeChunk]
		dst = append(dst, nd.delta)
		n = nd.prev
	}
	dst = append(dst, uint32(word>>32)-1)
	slices.Reverse(dst)
	return dst
}

func (e *encoder) list(deltas []uint32) {
	at := len(e.out)
	e.out = append(e.out, make([]byte, listHead)...)
	prev := uint32(0)
	for _, d := range deltas {
		e.out = binary.AppendUvarint(e.out, uint64(d-prev))
		prev = d
	}
	le.PutUint32(e.out[at+4:], uint32(len(e.out)-at-listHead))
	le.PutUint32(e.out[at:], format.Check32(e.out[at+4:], e.salt, int64(at)))
	for len(e.out)%8 != 0 {
		e.out = append(e.out, 0)
	}
}

// appendDict appends the dictionary without its check.
func appendDict(dst []byte, b *Builder, dict *entry.Dict) ([]byte, error) {
	routes := dict.Routes()
	var used, counted uint64
	for no := range routes {
		if n := b.RouteCount(uint32(no)); n > 0 && no > 0 {
			used++
			counted += n
			if routes[no].Topic == "" {
				return nil, fmt.Errorf("%w: index: route %d is used but not in the dictionary", format.ErrInvalid, no)
			}
		}
	}
	inline := b.RouteCount(0)
	// Otherwise a search by topic could miss entries.
	if entries := b.entries.Load(); counted+inline != entries {
		return nil, fmt.Errorf("%w: index: known routes of %d entries, want %d", format.ErrInvalid, counted+inline, entries)
	}
	dst = binary.AppendUvarint(dst, used)
	for no, r := range routes {
		n := b.RouteCount(uint32(no))
		if no == 0 || n == 0 {
			continue
		}
		dst = binary.AppendUvarint(dst, uint64(no))
		dst = appendString(dst, r.Topic)
		dst = appendString(dst, r.Type)
		dst = binary.AppendUvarint(dst, n)
	}
	kinds := dict.Kinds().Declared()
	dst = binary.AppendUvarint(dst, uint64(len(kinds)))
	for i, name := range kinds {
		dst = binary.AppendUvarint(dst, uint64(entry.FirstUserKind)+uint64(i))
		dst = appendString(dst, name)
	}
	return binary.AppendUvarint(dst, inline), nil
}

func appendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}
