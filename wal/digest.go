package wal

import (
	"bytes"
	"cmp"
	"hash"
	"io"
	"sync"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/segment"
)

// digest makes a segment's content digest while the segment is read for the first time: each piece on a goroutine of its own,
// while the next one is read, verified and indexed. It reads no file, so that the order of operations stays that of one goroutine.
type digest struct {
	h     hash.Hash
	end   int64  // of what is in h, or on its way
	spare []byte // the buffer that the window gets for the one that is being hashed
	busy  sync.WaitGroup
}

// newDigest begins with the header, which no batch holds and which has a checksum of its own.
func newDigest(f io.ReaderAt, path string, size int64) (*digest, error) {
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return nil, &format.Error{Path: path, Offset: 0, Why: "read the header for the digest", Err: cmp.Or(err, io.ErrUnexpectedEOF)}
	}
	if _, err := segment.ReadHeader(bytes.NewReader(b), path); err != nil { // it was whole a moment ago
		return nil, err
	}
	d := &digest{h: segment.NewContentHash(), end: size}
	d.h.Write(b)
	return d, nil
}

// take hashes what the window holds up to a place that everything before has been verified up to, and returns a buffer that the
// window can read into meanwhile.
func (d *digest) take(w *window, to int64) (buf []byte) {
	if to <= d.end || d.end < w.off || to > w.off+int64(w.n) {
		return w.buf // nothing new, or not at hand: then sum has not seen all
	}
	b := w.buf[d.end-w.off : to-w.off]
	d.busy.Wait()
	buf, d.spare = d.spare, w.buf
	d.end = to
	d.busy.Go(func() { d.h.Write(b) })
	return buf
}

// finish takes the last piece, waits for it, and lets go of the buffer that nobody reads into any more.
func (d *digest) finish(w *window, to int64) {
	d.take(w, to)
	d.busy.Wait()
	d.spare = nil
}

// sum returns the digest if it is that of all up to end, behind finish. A nil digest has seen nothing.
func (d *digest) sum(end int64) (sum [32]byte, ok bool) {
	if d == nil || d.end != end {
		return sum, false
	}
	d.h.Sum(sum[:0])
	return sum, true
}
