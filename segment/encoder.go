package segment

import (
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
)

// Chain is the state of a log after a commit: what the next one must continue.
type Chain struct {
	Ordinal uint64
	Seq     uint64
	Value   uint64
	Durable uint64 // highest ordinal that any commit so far has claimed to be durable
}

// FirstChain is the state before a run's first commit.
func FirstChain(runID string) Chain { return Chain{Value: xxhash.Sum64String(runID)} }

// Start is the first frame of a segment in use.
type Start struct {
	Prev     Chain // Durable is not stored
	BaseTime int64
	PrevSalt uint64
	Detached bool
}

// Commit ends a batch.
type Commit struct {
	Ordinal    uint64
	Durable    uint64
	FirstSeq   uint64
	LastSeq    uint64
	Digest     uint64
	Chain      uint64
	NextSalt   uint64
	Time       int64
	BatchStart int64
	Frames     uint32
	Flags      uint64
	Offset     int64 // of the commit frame
}

// End is the offset behind the commit.
func (c *Commit) End() int64 { return c.Offset + CommitSize }

// Encoder builds one batch at a known place in a segment. Its buffer is kept between batches.
type Encoder struct {
	buf    []byte
	salt   uint64
	off    int64 // of buf[0] in the file
	frames uint32
}

// Begin starts a batch at offset off of the segment with this salt.
func (e *Encoder) Begin(salt uint64, off int64) {
	e.buf, e.salt, e.off, e.frames = e.buf[:0], salt, off, 0
}

// Next is the offset of the next frame.
func (e *Encoder) Next() int64 { return e.off + int64(len(e.buf)) }

// open appends room for a frame's head and returns where the frame begins in the buffer.
func (e *Encoder) open() int {
	at := len(e.buf)
	e.buf = append(e.buf, make([]byte, HeadSize)...)
	return at
}

// close pads the frame that begins at buf[at] and writes its head and sum.
func (e *Encoder) close(at int, kind uint8, seq uint64) {
	length := len(e.buf) - at
	for len(e.buf)%8 != 0 {
		e.buf = append(e.buf, 0)
	}
	sealFrame(e.buf[at:], e.salt, e.off+int64(at), kind, length, seq)
	e.frames++
}

// Start appends the start frame.
func (e *Encoder) Start(s Start) {
	at := e.open()
	var b [startBody]byte
	le.PutUint64(b[stPrevOrdinal:], s.Prev.Ordinal)
	le.PutUint64(b[stPrevSeq:], s.Prev.Seq)
	le.PutUint64(b[stPrevChain:], s.Prev.Value)
	le.PutUint64(b[stBaseTime:], uint64(s.BaseTime))
	le.PutUint64(b[stPrevSalt:], s.PrevSalt)
	if s.Detached {
		le.PutUint64(b[stFlags:], FlagDetached)
	}
	e.buf = append(e.buf, b[:]...)
	e.close(at, KindStart, 0)
}

// Route appends a route definition.
func (e *Encoder) Route(no uint32, r entry.Route) {
	at := e.open()
	e.buf = binary.AppendUvarint(e.buf, uint64(no))
	e.buf = binary.AppendUvarint(e.buf, uint64(len(r.Topic)))
	e.buf = append(e.buf, r.Topic...)
	e.buf = append(e.buf, r.Type...)
	e.close(at, KindRoute, 0)
}

// KeyKind appends the definition of a declared key kind.
func (e *Encoder) KeyKind(no entry.KindNo, name string) {
	at := e.open()
	e.buf = binary.AppendUvarint(e.buf, uint64(no))
	e.buf = append(e.buf, name...)
	e.close(at, KindKeyKind, 0)
}

// Entry appends an entry. Route 0 writes topic and type inline.
func (e *Encoder) Entry(seq uint64, baseTime int64, route uint32, it *entry.Item) {
	at := e.open()
	var inline entry.Route
	if route == 0 {
		inline = entry.Route{Topic: string(it.Name[:it.TopicLen]), Type: string(it.Name[it.TopicLen:])}
	}
	e.buf = entry.AppendHead(e.buf, baseTime, route, inline, it.TsInit, it.TsPublish)
	e.buf = append(e.buf, it.Tail...)
	e.close(at, KindEntry|it.Flags, seq)
}

// Raw appends a frame of another kind without a seq.
func (e *Encoder) Raw(kind uint8, body []byte) {
	at := e.open()
	e.buf = append(e.buf, body...)
	e.close(at, kind, 0)
}

// PadTo fills with a pad up to offset to, if that is ahead.
func (e *Encoder) PadTo(to int64) {
	n := to - e.Next()
	if n < wordSize {
		return
	}
	at := len(e.buf)
	e.buf = slices.Grow(e.buf, int(n))[:at+int(n)]
	clear(e.buf[at:])
	putHead(e.buf[at:], e.salt, e.off+int64(at), KindPad, int(n))
	e.frames++
}

// Commit appends the commit frame and returns the batch's bytes, valid until the next Begin. The caller has set
// Ordinal, Durable, FirstSeq, LastSeq, NextSalt, Time and Flags; the rest is filled in.
func (e *Encoder) Commit(c *Commit, prevChain uint64) []byte {
	c.Digest = xxhash.Sum64(e.buf)
	c.Chain = format.Mix(prevChain + c.Digest)
	c.BatchStart = e.off
	c.Frames = e.frames
	c.Offset = e.Next()
	at := e.open()
	var b [commitBody]byte
	le.PutUint64(b[cmOrdinal:], c.Ordinal)
	le.PutUint64(b[cmDurable:], c.Durable)
	le.PutUint64(b[cmFirstSeq:], c.FirstSeq)
	le.PutUint64(b[cmLastSeq:], c.LastSeq)
	le.PutUint64(b[cmDigest:], c.Digest)
	le.PutUint64(b[cmChain:], c.Chain)
	le.PutUint64(b[cmNextSalt:], c.NextSalt)
	le.PutUint64(b[cmTime:], uint64(c.Time))
	le.PutUint32(b[cmBatchStart:], uint32(c.BatchStart/8))
	le.PutUint32(b[cmFrames:], c.Frames)
	le.PutUint64(b[cmFlags:], c.Flags)
	e.buf = append(e.buf, b[:]...)
	e.close(at, KindCommit, 0)
	return e.buf
}

// Release frees the buffer if it has grown beyond keep bytes.
func (e *Encoder) Release(keep int) {
	if cap(e.buf) > keep {
		e.buf = nil
	}
}
