package wal

import (
	"errors"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/segment/compressed"
)

// blockCacheBytes bounds the decompressed blocks of compressed segments that a reader keeps, so that reads near each other
// decompress once. Those in use, and a block or a batch for each running scan, come on top.
const blockCacheBytes = 4 << 20

// blockKey names a block of a segment that is open.
type blockKey struct {
	m *mapped
	i int64
}

// block is a decompressed block. Its bytes do not change while it is pinned.
type block struct {
	key   blockKey
	pins  int    // guarded by the cache's lock, as is used
	used  uint64 // when it was last asked for
	buf   []byte
	mu    sync.Mutex  // held by who loads it
	ready atomic.Bool // publishes data and err
	data  []byte
	err   error
}

// blockCache keeps the blocks that were used last. It is safe for concurrent use.
type blockCache struct {
	limit int64

	mu    sync.Mutex
	bytes int64
	clock uint64
	byKey map[blockKey]*block
}

func newBlockCache(limit int64) *blockCache {
	return &blockCache{limit: limit, byKey: make(map[blockKey]*block)}
}

// pin returns block i of m. The caller unpins it. It does not allocate when the block is there.
func (c *blockCache) pin(m *mapped, i int64) (*block, error) {
	key := blockKey{m, i}
	c.mu.Lock()
	b := c.byKey[key]
	if b == nil {
		b = c.room(m.packed.BlockSize())
		b.key = key
		c.byKey[key] = b
	}
	b.pins++
	c.clock++
	b.used = c.clock
	c.mu.Unlock()
	if !b.ready.Load() {
		b.load()
	}
	if b.err == nil {
		return b, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b.pins--
	if c.byKey[key] == b { // errors are not remembered
		delete(c.byKey, key)
		c.bytes -= int64(cap(b.buf))
	}
	return nil, b.err
}

// room returns a block to load into: an old one that nobody uses if there are enough. The cache's lock is held.
func (c *blockCache) room(size int64) *block {
	b := (*block)(nil)
	for c.bytes+size > c.limit {
		old := (*block)(nil)
		for _, x := range c.byKey {
			if x.pins == 0 && (old == nil || x.used < old.used) {
				old = x
			}
		}
		if old == nil {
			break
		}
		delete(c.byKey, old.key)
		c.bytes -= int64(cap(old.buf))
		b = old
	}
	if b == nil || int64(cap(b.buf)) != size {
		b = &block{buf: make([]byte, size)}
	}
	c.bytes += size
	b.ready.Store(false)
	b.data, b.err = nil, nil
	return b
}

func (b *block) load() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ready.Load() {
		b.data, b.err = b.key.m.packed.Block(b.key.i, b.buf)
		b.ready.Store(true)
	}
}

func (c *blockCache) unpin(b *block) {
	c.mu.Lock()
	b.pins--
	c.mu.Unlock()
}

// forget lets go of the blocks of a segment that is being closed.
func (c *blockCache) forget(m *mapped) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, b := range c.byKey {
		if key.m == m {
			delete(c.byKey, key)
			c.bytes -= int64(cap(b.buf))
		}
	}
}

// cursor reads the content of a finished segment at changing places: in place where the file is mapped, else in blocks. The
// bytes that it returns are valid until its next use.
type cursor struct {
	m     *mapped
	plain []byte // the mapped content; nil: it is compressed
	b     *block // pinned; nil: none
	from  int64  // of b
}

func (m *mapped) cursor() cursor { return cursor{m: m, plain: m.bytes} }

// at returns the content from off on: all of it where the file is mapped, else to the end of the block.
func (c *cursor) at(off int64) ([]byte, error) {
	if c.plain != nil {
		return c.plain[off:], nil
	}
	return c.inBlock(off)
}

func (c *cursor) inBlock(off int64) ([]byte, error) {
	if c.b != nil {
		if k := off - c.from; k >= 0 && k < int64(len(c.b.data)) {
			return c.b.data[k:], nil
		}
		c.close()
	}
	if from, to := c.m.packed.Bounds(); off < from || off >= to {
		return nil, &format.Error{Path: c.m.path, Offset: off, Why: "no frame can begin here", Err: format.ErrCorrupt}
	}
	i, from := c.m.packed.BlockOf(off)
	b, err := c.m.blocks.pin(c.m, i)
	if err != nil {
		return nil, err
	}
	c.b, c.from = b, from
	return b.data[off-from:], nil
}

// copy fills dst with the content from off on.
func (c *cursor) copy(dst []byte, off int64) error {
	for len(dst) > 0 {
		b, err := c.at(off)
		if err != nil {
			return err
		}
		n := copy(dst, b)
		dst, off = dst[n:], off+int64(n)
	}
	return nil
}

// bytes returns n bytes from off on, in place or in buf. They must be there.
func (c *cursor) bytes(off, n int64, buf *Buffer) ([]byte, error) {
	b, err := c.at(off)
	if err != nil || int64(len(b)) >= n {
		return b, err
	}
	b = buf.size(int(n))
	return b, c.copy(b, off)
}

// close lets go of the block.
func (c *cursor) close() {
	if c.b != nil {
		c.m.blocks.unpin(c.b)
		c.b = nil
	}
}

// blockWindow hands out the content of a compressed segment to a scan forward, which decompresses each block once, into memory
// of its own: it would push all others out of the cache.
type blockWindow struct {
	z   *compressed.File
	buf []byte // whole blocks
	off int64  // of buf[0]
}

// at returns the content from off on; with more, more of it than before, or nothing if there is no more. In front of
// what is lost it returns what there is, and then the error.
func (w *blockWindow) at(off int64, more bool) ([]byte, error) {
	size, end := w.z.BlockSize(), w.off+int64(len(w.buf))
	inside := off >= w.off && off < end
	if inside && !more {
		return w.buf[off-w.off:], nil
	}
	_, from := w.z.BlockOf(off)
	want := int64(1)
	if inside {
		want = max((end-off)/size, 1)
		w.buf = append(w.buf[:0], w.buf[from-w.off:]...)
		w.off = from
	} else {
		w.buf, w.off, end = w.buf[:0], from, from
	}
	limit := end
	for _, to := w.z.Bounds(); want > 0 && end < to; want-- {
		i, _ := w.z.BlockOf(end)
		w.buf = slices.Grow(w.buf, int(size))
		b, err := w.z.Block(i, w.buf[len(w.buf):len(w.buf)+int(size)])
		if err != nil {
			if end > limit {
				break
			}
			return nil, err
		}
		w.buf = w.buf[:len(w.buf)+len(b)]
		end += int64(len(b))
	}
	if end == limit {
		return nil, nil
	}
	return w.buf[off-w.off:], nil
}

// backWindow hands out the content of a compressed segment to a scan backward, whose steps overlap: block by block, through the
// cache.
type backWindow struct {
	c   cursor
	buf Buffer // of frames that go beyond a block
	n   int64  // bytes that were handed out last
}

// at is that of blockWindow.
func (w *backWindow) at(off int64, more bool) ([]byte, error) {
	if !more {
		b, err := w.c.at(off)
		w.n = int64(len(b))
		return b, err
	}
	end := w.c.m.info.footer.ContentEnd
	want := min(2*w.n, end-off)
	if want <= w.n {
		return nil, nil
	}
	b := w.buf.size(int(want))
	if err := w.c.copy(b, off); err != nil {
		var lost *compressed.LostError
		if !errors.As(err, &lost) || lost.From <= off+w.n {
			return nil, err
		}
		b = b[:lost.From-off]
	}
	w.n = int64(len(b))
	return b, nil
}

// lostTo returns the last seq that is lost with the content up to off, if first is the first: what the index leaves open is
// tried.
func (m *mapped) lostTo(first uint64, off int64) uint64 {
	last := m.info.footer.LastSeq
	if first > last {
		return 0
	}
	n := sort.Search(int(last-first), func(i int) bool {
		_, at, _, err := m.index().Span(first + 1 + uint64(i))
		return err == nil && at >= off
	})
	last = first + uint64(n)
	var buf Buffer
	for last > first {
		if _, err := m.view(last, &buf); err != nil {
			break
		}
		last--
	}
	return last
}

// named puts the seqs into an error of a read, which cannot know them.
func named(err error, first, last uint64) error {
	var at *format.Error
	if !errors.As(err, &at) {
		return err
	}
	with := *at
	if with.FirstSeq, with.LastSeq = first, 0; last >= first {
		with.LastSeq = last
	}
	if lost := (*compressed.LostError)(nil); errors.As(err, &lost) {
		return &compressed.LostError{From: lost.From, To: lost.To, Err: &with}
	}
	return &with
}

// behindLost returns where to go on when the content at off cannot be read: behind what is lost, or at off.
func behindLost(err error, off int64) int64 {
	var lost *compressed.LostError
	if errors.As(err, &lost) {
		return max(off, lost.To)
	}
	return off
}
