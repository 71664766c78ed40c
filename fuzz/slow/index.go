package slow

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// check64 is the salted check of a piece of an index or filter at an offset.
func check64(piece []byte, salt uint64, offset int64) uint64 {
	return fmix64(xxh64(piece) + salt + uint64(offset))
}

func check32(piece []byte, salt uint64, offset int64) uint32 {
	return uint32(check64(piece, salt, offset))
}

// indexKey is a key as indexes know it: kind id and value.
type indexKey struct {
	kind  uint64
	value string
}

func (k indexKey) fingerprint() uint64 { return fmix64(xxh64([]byte(k.value)) + k.kind) }

// postings lists the keys of a segment's entries, each with its seqs in order.
func postings(entries []Entry) map[indexKey][]uint64 {
	m := map[indexKey][]uint64{}
	add := func(kind uint64, value string, seq uint64) {
		k := indexKey{kind, value}
		if s := m[k]; len(s) == 0 || s[len(s)-1] != seq {
			m[k] = append(s, seq)
		}
	}
	for _, e := range entries {
		for _, k := range e.Keys {
			add(k.no, k.Value, e.Seq)
		}
		if e.ID != ([16]byte{}) {
			add(3, string(e.ID[:]), e.Seq)
		}
		if e.Correlation != ([16]byte{}) {
			add(4, string(e.Correlation[:]), e.Seq)
		}
	}
	return m
}

// entriesOf returns the entries of the i-th segment that was read.
func (l *Log) entriesOf(i int) []Entry {
	if i+1 < len(l.startAt) {
		return l.Entries[l.startAt[i]:l.startAt[i+1]]
	}
	return l.Entries[l.startAt[i]:]
}

// checkIndexes compares the index files with their segments: every segment that has a footer has one.
func (l *Log) checkIndexes() {
	for _, i := range l.uncut {
		_, indexed := l.files[strings.TrimSuffix(l.segs[i].name, ".seg")+".idx"]
		if l.over || indexed || l.lastFooter() != i { // else a crash has come between the footer and the cut
			l.find(l.segs[i].name, "bytes behind the footer")
		}
	}
	for i, s := range l.segs {
		name := strings.TrimSuffix(s.name, ".seg") + ".idx"
		b, there := l.files[name]
		switch {
		case l.footers[i] == nil:
			if l.over {
				l.find(s.name, "the run has ended, and this segment has no footer")
			}
		case !there && !l.over && l.lastFooter() == i: // it is written behind the footer, and a crash can come between
		case !there:
			l.find(name, "index is not there")
		default:
			if why := l.index(b, s, l.footers[i], l.entriesOf(i)); why != "" {
				l.find(name, "%s", why)
			}
		}
	}
}

// lastFooter is the last segment that has a footer.
func (l *Log) lastFooter() int {
	i := len(l.footers) - 1
	for i >= 0 && l.footers[i] == nil {
		i--
	}
	return i
}

// index compares an index with its segment: index.md, piece by piece.
func (l *Log) index(b []byte, s *segment, f *footer, entries []Entry) string {
	size, salt, verdict := prelude(b, "runlogIX")
	if verdict != Clean || size != 256 || salt != s.salt {
		return "header"
	}
	st := statsOf(entries)
	keys := postings(entries)
	pairs := 0
	for _, seqs := range keys {
		pairs += len(seqs)
	}
	for _, h := range []struct {
		at   int64
		want uint64
		name string
	}{
		{40, f.chain, "chain"}, {48, f.contentEnd, "content_end"}, {56, f.firstSeq, "first_seq"}, {64, uint64(len(entries)), "entries"},
		{72, uint64(st.minInit), "min_init"}, {80, uint64(st.maxInit), "max_init"}, {88, uint64(st.minPublish), "min_publish"},
		{96, uint64(st.maxPublish), "max_publish"}, {104, uint64(l.dicts[s.name].baseTime), "base_time"},
		{168, uint64(len(b)), "file_size"}, {176, uint64(len(keys)), "keys"}, {184, uint64(pairs), "key_postings"},
	} {
		if got := u64(b, h.at); got != h.want {
			return fmt.Sprintf("%s is %d, the segment says %d", h.name, got, h.want)
		}
	}
	every := uint64(u32(b, 36))
	samplesAt, bucketsAt, buckets := int64(u64(b, 112)), int64(u64(b, 120)), u64(b, 128)
	postingsAt, postingsSize, dictAt, dictSize := int64(u64(b, 136)), int64(u64(b, 144)), int64(u64(b, 152)), int64(u64(b, 160))
	notesAt, notesSize := int64(u64(b, 192)), int64(u64(b, 200))
	if u32(b, 32) != s.number || every == 0 || len(b) < 8+256 || u64(b, int64(len(b))-8) != xxh64(b[:len(b)-8]) {
		return "number, sample_every or sum of the file"
	}
	n := (uint64(len(entries)) + every - 1) / every
	lines := int64((n + 13) / 14)
	if samplesAt != 256 || bucketsAt != align(samplesAt+64*lines, 64) || postingsAt != align(bucketsAt+64*int64(buckets), 64) ||
		dictAt != align(postingsAt+postingsSize, 64) || notesAt != align(dictAt+dictSize, 64) || int64(len(b)) != align(notesAt+notesSize, 8)+8 {
		return "pieces do not follow each other"
	}
	for i := range uint64(lines) * 14 {
		line := samplesAt + int64(i/14)*64
		if u64(b, line+56) != check64(b[line:line+56], salt, line) {
			return fmt.Sprintf("check of the samples at %d", line)
		}
		want := uint32(0)
		if i < n {
			want = uint32(entries[i*every].offset / 8)
		}
		if u32(b, line+4*int64(i%14)) != want {
			return fmt.Sprintf("sample %d", i)
		}
	}
	slots := 0
	for i := range buckets {
		at := bucketsAt + int64(i)*64
		if u32(b, at) != check32(b[at+4:at+64], salt, at) {
			return fmt.Sprintf("check of bucket %d", i)
		}
		for j := range int64(6) {
			if u32(b, at+4+4*j) != math.MaxUint32 {
				slots++
			} else if !allZero(b[at+28+6*j : at+34+6*j]) {
				return fmt.Sprintf("a free slot of bucket %d has a tag", i)
			}
		}
	}
	if slots != len(keys) {
		return fmt.Sprintf("%d slots for %d keys", slots, len(keys))
	}
	for k, want := range keys {
		if got := probe(b, k.fingerprint(), salt, bucketsAt, buckets, postingsAt, postingsSize, f.firstSeq, want); got != "" {
			return fmt.Sprintf("key %d %q: %s", k.kind, k.value, got)
		}
	}
	if why := l.notes(b[notesAt:notesAt+notesSize], salt, notesAt, s.name, f.firstSeq-1); why != "" {
		return why
	}
	return l.dictionary(b[dictAt:dictAt+dictSize], salt, dictAt, l.dicts[s.name], entries)
}

// notes compares the section of notes with the segment's: index.md, "Notes".
func (l *Log) notes(b []byte, salt uint64, at int64, file string, after uint64) string {
	if len(b) < 8 || u64(b, int64(len(b))-8) != check64(b[:len(b)-8], salt, at) {
		return "check of the notes"
	}
	var want []Note
	for _, n := range l.Notes {
		if n.file == file && n.Kind != 0x0b && n.Kind != 0x0c {
			want = append(want, n)
		}
	}
	p := bites{b: b[:len(b)-8]}
	if n := p.uvarint(); n != uint64(len(want)) {
		return fmt.Sprintf("%d notes, the segment has %d", n, len(want))
	}
	offset := int64(0)
	for i, n := range want {
		kind := p.take(1)
		after += p.uvarint()
		offset += 8 * int64(p.uvarint())
		if p.bad || kind[0] != n.Kind || after != n.After || offset != n.offset {
			return fmt.Sprintf("note %d", i)
		}
	}
	if p.bad || len(p.b) > 0 {
		return "more behind the notes"
	}
	return ""
}

// probe looks a key up and returns "" if a slot that it meets holds just these seqs.
func probe(b []byte, fp, salt uint64, bucketsAt int64, buckets uint64, postingsAt, postingsSize int64, first uint64, want []uint64) string {
	home := (fp >> 32) * buckets >> 32
	for i := range buckets {
		at := bucketsAt + int64((home+i)%buckets)*64
		for j := range int64(6) {
			value := u32(b, at+4+4*j)
			if value == math.MaxUint32 {
				return "not found"
			}
			tag := uint64(u32(b, at+28+6*j)) | uint64(u16(b, at+32+6*j))<<32
			if tag != fp&(1<<48-1) {
				continue
			}
			if value>>31 == 0 {
				if len(want) == 1 && first+uint64(value) == want[0] {
					return ""
				}
				continue
			}
			list := postingsAt + int64(value&math.MaxInt32)*8
			if list+8 > postingsAt+postingsSize || list+8+int64(u32(b, list+4)) > postingsAt+postingsSize {
				return "its posting list is not there"
			}
			end := list + 8 + int64(u32(b, list+4))
			if u32(b, list) != check32(b[list+4:end], salt, list) {
				return "check of its posting list"
			}
			p := bites{b: b[list+8 : end]}
			seq, got := first, []uint64(nil)
			for len(p.b) > 0 {
				seq += p.uvarint()
				got = append(got, seq)
			}
			if !p.bad && slices.Equal(got, want) {
				return ""
			}
		}
	}
	return "not found in a full table"
}

func (l *Log) dictionary(b []byte, salt uint64, at int64, d *dict, entries []Entry) string {
	if len(b) < 8 || u64(b, int64(len(b))-8) != check64(b[:len(b)-8], salt, at) {
		return "check of the dictionary"
	}
	used := map[uint64]uint64{}
	for _, e := range entries {
		used[e.route]++
	}
	p := bites{b: b[:len(b)-8]}
	last, n := uint64(0), p.uvarint()
	for range n {
		id, topic, typ, count := p.uvarint(), string(p.counted()), string(p.counted()), p.uvarint()
		if p.bad || id <= last || count == 0 || used[id] != count || d.routes[id] != [2]string{topic, typ} {
			return fmt.Sprintf("route %d", id)
		}
		last = id
		delete(used, id)
	}
	if n := p.uvarint(); n != d.next-16 {
		return fmt.Sprintf("%d declared kinds, the segment has %d", n, d.next-16)
	}
	for id := uint64(16); id < d.next; id++ {
		if no, name := p.uvarint(), string(p.counted()); no != id || name != d.kinds[id] {
			return fmt.Sprintf("key kind %d", id)
		}
	}
	inline := p.uvarint()
	if inline != used[0] {
		return fmt.Sprintf("%d entries with inline routes, the segment has %d", inline, used[0])
	}
	if delete(used, 0); p.bad || len(p.b) > 0 || len(used) > 0 {
		return "dictionary has other routes than the segment"
	}
	return ""
}

// checkFilters compares the filters with the segments that they cover: index.md, "Filters".
func (l *Log) checkFilters() {
	end := l.first - 1 + uint32(len(l.segs))
	for span := uint32(4); span <= end; span *= 4 {
		for last := span; last <= end; last += span {
			first := last - span + 1
			if first < l.first {
				continue // "filters that reach below the first segment are not used"
			}
			name := fmt.Sprintf("%08d-%08d.flt", first, last)
			sealed := !slices.Contains(l.footers[first-l.first:last-l.first+1], nil)
			b, there := l.files[name]
			switch {
			case !sealed:
			case !there && !l.over && l.lastFooter() == int(last-l.first): // as for the index
			case !there:
				l.find(name, "filter is not there")
			default:
				if why := l.filter(b, first, last); why != "" {
					l.find(name, "%s", why)
				}
			}
		}
	}
}

func (l *Log) filter(b []byte, first, last uint32) string {
	size, salt, verdict := prelude(b, "runlogFL")
	if verdict != Clean || size != 64 {
		return "header"
	}
	salts, inserted := uint64(0), uint64(0)
	var keys []indexKey
	for i := first - l.first; i <= last-l.first; i++ {
		salts = fmix64(salts + l.segs[i].salt)
		for k := range postings(l.entriesOf(int(i))) {
			keys = append(keys, k)
			inserted++
		}
	}
	blocks := u64(b, 40)
	if u32(b, 32) != first || u32(b, 36) != last || u64(b, 56) != salts || salt != salts || blocks != uint64(len(b)-64)/64 || len(b)%64 != 0 {
		return "header fields"
	}
	if u64(b, 48) != inserted {
		return fmt.Sprintf("%d keys inserted, the segments have %d", u64(b, 48), inserted)
	}
	for i := range blocks {
		at := 64 + int64(i)*64
		if u32(b, at) != check32(b[at+4:at+64], salt, at) {
			return fmt.Sprintf("check of block %d", i)
		}
	}
	for _, k := range keys {
		g := fmix64(k.fingerprint() & (1<<48 - 1))
		block := 64 + int64((g>>32)*blocks>>32)*64
		for i := uint64(1); i <= 5; i++ {
			bit := (fmix64(g+i) >> 32) * 480 >> 32
			if b[block+4+int64(bit/8)]>>(bit%8)&1 == 0 {
				return fmt.Sprintf("key %d %q is not in it", k.kind, k.value)
			}
		}
	}
	return ""
}
