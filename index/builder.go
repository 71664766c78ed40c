package index

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"sync/atomic"

	"github.com/runlog-io/runlog/internal/format"
)

// Sizes of the Builder's parts. Chunks are never moved, so readers keep what they have while the writer goes on.
const (
	minTable    = 1 << 10 // slots
	nodeChunk   = 1 << 12 // nodes, 32 KiB
	sampleChunk = 1 << 12 // samples, 16 KiB
	routeChunk  = 1 << 6  // counters, 512 B
)

// slot is a key in the table. Its fingerprint is written once, before the first store to word publishes it.
type slot struct {
	fp   uint64
	word atomic.Uint64 // seq - firstSeq + 1 of the first entry << 32 | node number + 1 of the newest; 0: free
}

// node is a further entry of a key. It is written once, before the slot's word that leads to it is stored.
type node struct {
	delta uint32 // seq - firstSeq
	prev  uint32 // node number + 1 of the one before; 0: the slot holds the first
}

// Builder is the index of the segment that is being written. One goroutine adds; any number look up at the same time,
// without locks. Memory is a few large arrays, nearly free of pointers: the garbage collector has nothing to scan.
//
// Wrong use (a gap in the seqs, an offset out of range) is remembered, reported by Err and makes Write fail.
type Builder struct {
	firstSeq uint64

	table   atomic.Pointer[[]slot]                 // stored by the writer; replaced by a bigger copy
	nodes   atomic.Pointer[[]*[nodeChunk]node]     // stored by the writer, only grows
	samples atomic.Pointer[[]*[sampleChunk]uint32] // stored by the writer, only grows
	routes  atomic.Pointer[[]*[routeChunk]atomic.Uint64]
	entries atomic.Uint64             // stored by the writer after the entry's sample
	notes   atomic.Pointer[[]NoteRef] // stored by the writer, only grows

	timed                                    atomic.Bool // stored by the writer after the first times
	minInit, maxInit, minPublish, maxPublish atomic.Int64

	// Only the writer uses the rest.
	err      error
	keys     int    // slots in use
	growAt   int    // keys from which the table grows: 60 % of its slots
	shift    uint   // 64 - log2 of the table's length
	added    uint32 // nodes in use
	postings uint64
}

// NewBuilder returns the index of a segment that begins with firstSeq.
func NewBuilder(firstSeq uint64) *Builder {
	b := &Builder{firstSeq: firstSeq}
	b.nodes.Store(&[]*[nodeChunk]node{})
	b.samples.Store(&[]*[sampleChunk]uint32{})
	b.routes.Store(&[]*[routeChunk]atomic.Uint64{})
	b.notes.Store(&[]NoteRef{})
	b.setTable(make([]slot, minTable))
	return b
}

// Reserve makes room for so many distinct keys at once, so that the table need not be copied until then. The count of
// the segment before is a good guess; it is no limit.
func (b *Builder) Reserve(keys int) {
	size := len(*b.table.Load())
	for size*3/5 < keys && size < 1<<30 {
		size *= 2
	}
	b.grow(size)
}

func (b *Builder) setTable(t []slot) {
	b.growAt = len(t) * 3 / 5
	b.shift = uint(65 - bits.Len(uint(len(t))))
	b.table.Store(&t)
}

// grow copies the table. Home slots are the fingerprint's high bits, so old and new table are walked side by side, and
// Encode finds the keys almost in the order of their buckets.
func (b *Builder) grow(size int) {
	old := *b.table.Load()
	if size <= len(old) {
		return
	}
	t := make([]slot, size)
	shift := uint(65 - bits.Len(uint(size)))
	for i := range old {
		word := old[i].word.Load()
		if word == 0 {
			continue
		}
		j := old[i].fp >> shift
		for t[j].word.Load() != 0 {
			j = (j + 1) & uint64(size-1)
		}
		t[j].fp = old[i].fp
		t[j].word.Store(word)
	}
	b.setTable(t)
}

// grown publishes a directory with one chunk more. Readers keep the old header; the array only grows behind its end.
func grown[T any](at *atomic.Pointer[[]*T], dir []*T) []*T {
	more := append(dir, new(T))
	at.Store(&more)
	return more
}

func (b *Builder) fail(why string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf("%w: index: %s", format.ErrInvalid, fmt.Sprintf(why, args...))
	}
}

// Err returns the first misuse. Only the writer may call it.
func (b *Builder) Err() error { return b.err }

// AddEntry takes the next entry: seqs have no gaps, offsets grow and are multiples of 8.
func (b *Builder) AddEntry(seq uint64, offset int64) {
	n := b.entries.Load()
	if seq != b.firstSeq+n || n >= maxEntries || offset < 0 || offset >= maxOffset || offset&7 != 0 {
		b.fail("entry %d at offset %d, after %d entries from seq %d on", seq, offset, n, b.firstSeq)
		return
	}
	if n%SampleEvery == 0 {
		b.sample(n, offset)
	}
	b.entries.Store(n + 1)
}

// AddEntries is AddEntry for entries without gaps from seq on.
func (b *Builder) AddEntries(seq uint64, offsets []int64) {
	n := b.entries.Load()
	if seq != b.firstSeq+n || n+uint64(len(offsets)) > maxEntries {
		b.fail("%d entries from %d on, after %d entries from seq %d on", len(offsets), seq, n, b.firstSeq)
		return
	}
	for i := int((SampleEvery - n%SampleEvery) % SampleEvery); i < len(offsets); i += SampleEvery {
		if !b.sample(n+uint64(i), offsets[i]) {
			return
		}
	}
	b.entries.Store(n + uint64(len(offsets)))
}

// sample keeps the offset of entry n.
func (b *Builder) sample(n uint64, offset int64) bool {
	if offset < 0 || offset >= maxOffset || offset&7 != 0 {
		b.fail("entry %d at offset %d", b.firstSeq+n, offset)
		return false
	}
	i := n / SampleEvery
	dir := *b.samples.Load()
	if i/sampleChunk == uint64(len(dir)) {
		dir = grown(&b.samples, dir)
	}
	dir[i/sampleChunk][i%sampleChunk] = uint32(offset >> 3)
	return true
}

// AddKey makes an entry that was added findable. Of each key, seqs come in ascending order; a repeated pair counts
// once.
func (b *Builder) AddKey(fp uint64, seq uint64) {
	delta := seq - b.firstSeq
	if delta >= b.entries.Load() {
		b.fail("key of seq %d, which is not one of the %d entries from seq %d on", seq, b.entries.Load(), b.firstSeq)
		return
	}
	t := *b.table.Load()
	mask := uint64(len(t) - 1)
	for i := fp >> b.shift & mask; ; i = (i + 1) & mask {
		s := &t[i]
		word := s.word.Load()
		if word == 0 {
			s.fp = fp
			s.word.Store((delta + 1) << 32)
			b.postings++
			if b.keys++; b.keys >= b.growAt {
				b.grow(2 * len(t))
			}
			return
		}
		if s.fp == fp {
			b.addPosting(s, word, uint32(delta))
			return
		}
	}
}

// Posting is a key of an entry.
type Posting struct {
	Fingerprint uint64
	Seq         uint64
}

// AddKeys is AddKey for several postings. In a large table each slot lies in memory that no cache holds, and since each store to one
// is atomic, the next would wait for it: so all slots are read first, which happens at once.
func (b *Builder) AddKeys(postings []Posting) {
	b.touch(postings)
	for i := range postings {
		b.AddKey(postings[i].Fingerprint, postings[i].Seq)
	}
}

// touch reads the slots that keys begin at.
//
//go:noinline
func (b *Builder) touch(postings []Posting) (all uint64) {
	t := *b.table.Load()
	mask := uint64(len(t) - 1)
	for i := range postings {
		all |= t[postings[i].Fingerprint>>b.shift&mask].fp
	}
	return all
}

// Keys is the number of distinct keys. Only the writer may call it.
func (b *Builder) Keys() int { return b.keys }

func (b *Builder) addPosting(s *slot, word uint64, delta uint32) {
	prev := uint32(word)
	last := uint32(word>>32) - 1
	dir := *b.nodes.Load()
	if prev != 0 {
		last = dir[(prev-1)/nodeChunk][(prev-1)%nodeChunk].delta
	}
	if delta == last {
		return
	}
	if delta < last || b.added == math.MaxUint32 {
		b.fail("key of seq %d after one of seq %d, or too many keys", b.firstSeq+uint64(delta), b.firstSeq+uint64(last))
		return
	}
	n := b.added
	if int(n/nodeChunk) == len(dir) {
		dir = grown(&b.nodes, dir)
	}
	dir[n/nodeChunk][n%nodeChunk] = node{delta: delta, prev: prev}
	b.added++
	b.postings++
	s.word.Store(word&^math.MaxUint32 | uint64(b.added))
}

// AddTimes takes an entry's times into the bounds.
func (b *Builder) AddTimes(tsInit, tsPublish int64) {
	b.AddBounds(tsInit, tsInit, tsPublish, tsPublish)
}

// AddBounds is AddTimes for entries whose times lie within these bounds and reach them.
func (b *Builder) AddBounds(minInit, maxInit, minPublish, maxPublish int64) {
	if !b.timed.Load() {
		b.minInit.Store(minInit)
		b.maxInit.Store(maxInit)
		b.minPublish.Store(minPublish)
		b.maxPublish.Store(maxPublish)
		b.timed.Store(true)
		return
	}
	if minInit < b.minInit.Load() {
		b.minInit.Store(minInit)
	}
	if maxInit > b.maxInit.Load() {
		b.maxInit.Store(maxInit)
	}
	if minPublish < b.minPublish.Load() {
		b.minPublish.Store(minPublish)
	}
	if maxPublish > b.maxPublish.Load() {
		b.maxPublish.Store(maxPublish)
	}
}

// AddRoute counts an entry with this route, 0 for one whose topic and type are inline. It is called once per entry.
func (b *Builder) AddRoute(no uint32) { b.AddRoutes(no, 1) }

// AddRoutes is AddRoute for n entries.
func (b *Builder) AddRoutes(no uint32, n uint64) {
	if no > MaxRoute {
		b.fail("route number %d, the limit is %d", no, MaxRoute)
		return
	}
	dir := *b.routes.Load()
	i := int(no / routeChunk)
	if i >= len(dir) || dir[i] == nil { // readers may be looking at dir, so it is not changed in place
		more := make([]*[routeChunk]atomic.Uint64, max(i+1, len(dir)))
		copy(more, dir)
		more[i] = new([routeChunk]atomic.Uint64)
		b.routes.Store(&more)
		dir = more
	}
	dir[i][no%routeChunk].Add(n)
}

// RouteCount is the number of entries with this route, 0 for inline ones.
func (b *Builder) RouteCount(no uint32) uint64 {
	dir := *b.routes.Load()
	if i := int(no / routeChunk); i < len(dir) && dir[i] != nil {
		return dir[i][no%routeChunk].Load()
	}
	return 0
}

// Bounds says what was added so far. Beside a writer, each field is right but they may not all be of the same moment.
func (b *Builder) Bounds() Bounds {
	bo := Bounds{FirstSeq: b.firstSeq, Entries: b.entries.Load()}
	if b.timed.Load() {
		bo.MinInit, bo.MaxInit = b.minInit.Load(), b.maxInit.Load()
		bo.MinPublish, bo.MaxPublish = b.minPublish.Load(), b.maxPublish.Load()
	}
	return bo
}

// Bytes is the memory in use, a close estimate.
func (b *Builder) Bytes() int64 {
	n := len(*b.table.Load())*16 + len(*b.nodes.Load())*nodeChunk*8 + len(*b.samples.Load())*sampleChunk*4 + cap(*b.notes.Load())*24
	return int64(n)
}

// Offset returns the nearest sample at or below seq: where a search for that entry begins.
func (b *Builder) Offset(seq uint64) (sampleSeq uint64, offset int64, ok bool) {
	n := b.entries.Load()
	if n == 0 || seq < b.firstSeq {
		return 0, 0, false
	}
	i := min(seq-b.firstSeq, n-1) / SampleEvery
	v := (*b.samples.Load())[i/sampleChunk][i%sampleChunk]
	return b.firstSeq + i*SampleEvery, int64(v) << 3, true
}

// find returns the word of a key's slot, 0 if there is none.
func (b *Builder) find(fp uint64) uint64 {
	t := *b.table.Load()
	mask := uint64(len(t) - 1)
	for i := fp >> uint(65-bits.Len(uint(len(t)))) & mask; ; i = (i + 1) & mask {
		word := t[i].word.Load()
		if word == 0 || t[i].fp == fp {
			return word
		}
	}
}

// First returns the first entry with a key, if it is at or below maxSeq.
func (b *Builder) First(fp, maxSeq uint64) (seq uint64, ok bool) {
	word := b.find(fp)
	if word == 0 {
		return 0, false
	}
	seq = b.firstSeq + word>>32 - 1
	return seq, seq <= maxSeq
}

// Seqs appends the entries with a key, up to maxSeq, to dst, in ascending order.
func (b *Builder) Seqs(fp, maxSeq uint64, dst []uint64) []uint64 {
	word := b.find(fp)
	if word == 0 {
		return dst
	}
	dir := *b.nodes.Load() // after the word: the node that it names is in there
	first := len(dst)
	for n := uint32(word); n != 0; {
		nd := &dir[(n-1)/nodeChunk][(n-1)%nodeChunk]
		if seq := b.firstSeq + uint64(nd.delta); seq <= maxSeq {
			dst = append(dst, seq)
		}
		n = nd.prev
	}
	if seq := b.firstSeq + word>>32 - 1; seq <= maxSeq {
		dst = append(dst, seq)
	}
	slices.Reverse(dst[first:])
	return dst
}
