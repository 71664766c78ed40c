package verify

import (
	"errors"
	"hash"
	"io"
	"syscall"

	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/segment/compressed"
)

// windowSize is how much is read at a time.
const windowSize = 1 << 20

// window reads a file piece by piece. Only a single frame that is longer makes it grow.
type window struct {
	f     io.ReaderAt
	buf   []byte
	off   int64
	n     int
	limit int64 // nothing behind it is returned

	sum   *contentSum // gets what is read; nil: nobody does
	spare []byte      // the other buffer, which sum may be reading
	given bool        // sum has got buf

	// unreadable hears of bytes that the medium does not give back, which are zeros then. nil: that ends the reading.
	unreadable func(off, n int64, err error)
}

// at returns the bytes from off on: at least want, unless file or limit end before.
func (w *window) at(off int64, want int) ([]byte, error) {
	if off < w.off || off+int64(want) > w.off+int64(w.n) {
		if err := w.fill(off, int(min(max(int64(want), windowSize), max(w.limit-off, 0)))); err != nil {
			return nil, err
		}
	}
	b := w.buf[off-w.off : w.n]
	return b[:min(int64(len(b)), max(w.limit-off, 0))], nil
}

func (w *window) fill(off int64, size int) error {
	if w.given {
		w.buf, w.spare, w.given = w.spare, w.buf, false
	}
	if cap(w.buf) < size {
		w.buf = make([]byte, size)
	}
	w.buf = w.buf[:size]
	n, err := w.read(w.buf, off)
	w.off, w.n = off, n
	if err != nil {
		w.n = 0
		return err
	}
	if w.sum != nil {
		if err := w.catchUp(off); err != nil {
			return err
		}
		w.given = w.sum.give(w.buf[:n], off)
	}
	return nil
}

// catchUp gives sum what lies before off and was jumped over.
func (w *window) catchUp(off int64) error {
	for w.sum.next < off {
		b := make([]byte, min(off-w.sum.next, windowSize))
		n, err := w.read(b, w.sum.next)
		if err == nil && n < len(b) {
			err = io.ErrUnexpectedEOF // the file was cut short meanwhile
		}
		if err != nil {
			return err
		}
		w.sum.give(b, w.sum.next)
	}
	return nil
}

// mediumBlock is how much is given up when the medium does not return a byte of it.
const mediumBlock = 4096

// read is ReadAt, without io.EOF, and with zeros in place of what the medium does not give back.
func (w *window) read(b []byte, off int64) (int, error) {
	n, err := w.f.ReadAt(b, off)
	var lost *compressed.LostError
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return n, nil
	case w.unreadable != nil && errors.As(err, &lost):
		return w.around(b, off)
	case w.unreadable == nil || !errors.Is(err, syscall.EIO):
		return 0, err
	}
	for at := 0; at < len(b); {
		end := min(at+mediumBlock-int((off+int64(at))%mediumBlock), len(b))
		n, err := w.f.ReadAt(b[at:end], off+int64(at))
		switch {
		case errors.Is(err, io.EOF):
			return at + n, nil
		case errors.Is(err, syscall.EIO):
			clear(b[at:end])
			w.unreadable(off+int64(at), int64(end-at), err)
		case err != nil:
			return 0, err
		}
		at = end
	}
	return len(b), nil
}

// around reads a compressed segment with zeros in place of what is lost of it.
func (w *window) around(b []byte, off int64) (int, error) {
	for at := 0; at < len(b); {
		n, err := w.f.ReadAt(b[at:], off+int64(at))
		at += n
		var lost *compressed.LostError
		switch {
		case errors.Is(err, io.EOF):
			return at, nil
		case errors.As(err, &lost):
			end := int(min(lost.To-off, int64(len(b))))
			clear(b[at:end])
			w.unreadable(lost.From, lost.To-lost.From, err)
			at = end
		case err != nil:
			return 0, err
		}
	}
	return len(b), nil
}

// contentSum computes a segment's SHA-256 of what the walk reads, beside it, so that nothing is read twice.
type contentSum struct {
	h      hash.Hash
	next   int64 // offset of the first byte that it was not given
	end    int64 // of the content
	pieces chan []byte
	free   chan struct{} // one token: the piece before is done with
}

func newContentSum(end int64) *contentSum {
	c := &contentSum{h: segment.NewContentHash(), end: end, pieces: make(chan []byte), free: make(chan struct{}, 1)}
	c.free <- struct{}{}
	go func() {
		for b := range c.pieces {
			_, _ = c.h.Write(b)
			c.free <- struct{}{}
		}
	}()
	return c
}

// give hands over the bytes at off, as far as they are new, and reports whether it has: then they must not be changed
// until the next piece was given.
func (c *contentSum) give(b []byte, off int64) bool {
	from, to := c.next, min(off+int64(len(b)), c.end)
	if off > from || to <= from {
		return false
	}
	<-c.free
	c.pieces <- b[from-off : to-off]
	c.next = to
	return true
}

// sum returns the digest of everything that was given.
func (c *contentSum) sum() (sum [32]byte) {
	<-c.free
	c.h.Sum(sum[:0])
	c.free <- struct{}{}
	return sum
}

// stop ends the work beside.
func (c *contentSum) stop() { close(c.pieces) }
