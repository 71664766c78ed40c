package index

import (
	"encoding/binary"
	"fmt"

	"github.com/runlog-io/runlog/internal/format"
)

// Versions of the files that this build reads and writes.
const (
	Version       = 2
	FilterVersion = 1
)

// SampleEvery is the number of entries per sample of the seq index. A lookup by seq skips at most SampleEvery-1
// entries.
const SampleEvery = 4

// MaxRoute is the highest route number, the same bound that package segment has. It keeps hostile files from making a
// dictionary huge.
const MaxRoute = 1 << 20

// Index header layout, behind the prelude; see docs/format/index.md.
const (
	headerSize = 256

	hdrNumber       = 32
	hdrSampleEvery  = 36
	hdrChain        = 40
	hdrContentEnd   = 48
	hdrFirstSeq     = 56
	hdrEntries      = 64
	hdrMinInit      = 72
	hdrMaxInit      = 80
	hdrMinPublish   = 88
	hdrMaxPublish   = 96
	hdrBaseTime     = 104
	hdrSamplesAt    = 112
	hdrBucketsAt    = 120
	hdrBuckets      = 128
	hdrPostingsAt   = 136
	hdrPostingsSize = 144
	hdrDictAt       = 152
	hdrDictSize     = 160
	hdrFileSize     = 168
	hdrKeys         = 176
	hdrKeyPostings  = 184
	hdrNotesAt      = 192
	hdrNotesSize    = 200
	hdrEnd          = 208 // zeros from here
)

// Pieces of an index file.
const (
	align       = 64 // of sections
	lineSize    = 64 // of samples
	lineSamples = 14
	lineCheck   = 56
	trailerSize = 8

	bucketSize   = 64
	bucketSlots  = 6
	bucketValues = 4  // offset of the values
	bucketTags   = 28 // offset of the tags
	tagSize      = 6
	tagMask      = 1<<48 - 1

	valueList = 1 << 31 // set: the rest is an offset / 8 into the posting lists
	valueFree = 0xffffffff

	listHead = 8 // check and length
)

// Limits that follow from the layout.
const (
	maxEntries = 1<<31 - 1 // a seq within the segment leaves bit 31 clear
	maxOffset  = 1 << 35   // offset / 8 in 32 bits
)

// Filter layout, behind the prelude.
const (
	filterHeaderSize = 64

	fltFirst  = 32
	fltLast   = 36
	fltBlocks = 40
	fltKeys   = 48
	fltSalts  = 56

	blockSize    = 64
	blockBits    = 480
	blockHead    = 4  // the check; the bits follow
	blockProbes  = 5  // bits per key
	filterPerKey = 10 // bits of space per key: about 1.5 % false positives
)

var le = binary.LittleEndian

func alignUp(n int64) int64 { return (n + align - 1) &^ (align - 1) }

// bucketCount is the number of buckets for so many keys: 4.2 per bucket of 6, which leaves a third of them full.
func bucketCount(keys uint64) uint64 { return (keys*10 + 41) / 42 }

// home is the bucket that a search for fp begins with.
func home(fp, buckets uint64) uint64 { return (fp >> 32) * buckets >> 32 }

// sections are the places of an index file's parts. All of them follow from six sizes, so a reader accepts no others.
type sections struct {
	entries, sampleEvery, buckets     uint64
	postingsSize, dictSize, notesSize int64

	lines                                                        uint64 // of samples
	samplesAt, bucketsAt, postingsAt, dictAt, notesAt, trailerAt int64
}

func (s *sections) lay() {
	samples := (s.entries + s.sampleEvery - 1) / s.sampleEvery
	s.lines = (samples + lineSamples - 1) / lineSamples
	s.samplesAt = headerSize
	s.bucketsAt = s.samplesAt + int64(s.lines)*lineSize
	s.postingsAt = s.bucketsAt + int64(s.buckets)*bucketSize
	s.dictAt = alignUp(s.postingsAt + s.postingsSize)
	s.notesAt = alignUp(s.dictAt + s.dictSize)
	s.trailerAt = format.Align8(s.notesAt + s.notesSize)
}

// Meta ties an index to its segment.
type Meta struct {
	Number     uint32 // of the segment
	Salt       uint64 // of the segment
	Chain      uint64 // of the segment's last commit
	ContentEnd int64  // offset of the segment's footer frame
}

// Want is what Open demands of an index file: that it was written with this Meta.
type Want = Meta

// Bounds says what a segment holds. Times are ns since 1970 UTC, all 0 when there is no entry.
type Bounds struct {
	FirstSeq   uint64 // of the segment, also when it is empty
	Entries    uint64
	MinInit    int64
	MaxInit    int64
	MinPublish int64
	MaxPublish int64
}

// LastSeq is the seq of the last entry; FirstSeq - 1 when there is none.
func (b *Bounds) LastSeq() uint64 { return b.FirstSeq + b.Entries - 1 }

func corrupt(path string, offset int64, why string, args ...any) error {
	return &format.Error{Path: path, Offset: offset, Why: fmt.Sprintf(why, args...), Err: format.ErrCorrupt}
}
