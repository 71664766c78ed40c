package compressed

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

// LostError: a part of the content cannot be had, since the piece of the file that holds it is damaged or cannot be read.
type LostError struct {
	From, To int64         // of the content
	Err      *format.Error // where in the file, and why
}

func (e *LostError) Error() string { return e.Err.Error() }

func (e *LostError) Unwrap() error { return e.Err }

// File is an open compressed segment. As a vfs.File it has the plain segment's bytes and size, read-only. A header that is
// damaged is reported by whatever is asked of it. It is safe for concurrent use.
type File struct {
	path string
	r    io.ReaderAt
	c    io.Closer
	disk int64
	h    header
	err  error // why there is no header

	mu   sync.Mutex
	line [lineSize]byte // of the index, the one that was read last
	at   int64          // where it is; 0: there is none
}

var _ vfs.File = (*File)(nil)

// Open opens the compressed segment of that name.
func Open(fsys vfs.FS, path string) (*File, error) {
	f, err := fsys.OpenRead(path)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	z := newFile(path, f, size)
	z.c = f
	return z, nil
}

func newFile(path string, r io.ReaderAt, size int64) *File {
	z := &File{path: path, r: r, disk: size}
	var b []byte
	for want := headerSize; len(b) < want; { // that of a later version may be longer
		b = make([]byte, min(int64(want), size))
		if n, err := r.ReadAt(b, 0); n < len(b) {
			if err != nil && !errors.Is(err, io.EOF) {
				z.err = &format.Error{Path: path, Offset: 0, Why: "reading the header", Err: err}
				return z
			}
			b = b[:n]
		}
		n, err := format.HeaderSize(path, b, format.MagicCompressed)
		if err != nil || len(b) < want {
			break // decodeHeader says what is wrong
		}
		want = max(n, want)
	}
	z.h, z.err = decodeHeader(path, b, size)
	return z
}

// OpenSegment opens a segment by the name of either file: the plain one if it is there, else the compressed one. The
// result has the name of the file that it is.
func OpenSegment(fsys vfs.FS, path string) (vfs.File, error) {
	path = strings.TrimSuffix(path, Suffix)
	for try := 0; ; try++ {
		f, err := fsys.OpenRead(path)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
		z, zerr := Open(fsys, path+Suffix)
		switch {
		case zerr == nil:
			return z, nil
		case !errors.Is(zerr, fs.ErrNotExist):
			return nil, zerr
		case try == 2: // it may have been made plain again between the two looks
			return nil, err
		}
	}
}

// Err is why the header cannot be used, or nil.
func (z *File) Err() error { return z.err }

// Codec is how the blocks are compressed.
func (z *File) Codec() Codec { return z.h.codec }

// Salt is the segment's, as the compressed file's header says.
func (z *File) Salt() uint64 { return z.h.salt }

// DiskSize is the size of the compressed file.
func (z *File) DiskSize() int64 { return z.disk }

// BlockSize is the content of each block but the last, in bytes.
func (z *File) BlockSize() int64 { return z.h.blockSize }

// Bounds are the offsets between which the content is in blocks.
func (z *File) Bounds() (from, to int64) { return z.h.start, z.h.end }

// BlockOf returns the block that holds the content at off, and where its content begins. off is within Bounds.
func (z *File) BlockOf(off int64) (i, from int64) {
	i = (off - z.h.start) / z.h.blockSize
	return i, z.h.from(i)
}

// stored is memory for the stored bytes of blocks, and for those of which only a part is wanted.
var stored = sync.Pool{New: func() any { b := make([]byte, 0, DefaultBlock+checkSize); return &b }}

// scratch returns n bytes of pooled memory.
func scratch(n int64) (*[]byte, []byte) {
	p := stored.Get().(*[]byte)
	if int64(cap(*p)) < n {
		*p = make([]byte, 0, n)
	}
	return p, (*p)[:n]
}

// Block decompresses block i into dst, which has room for BlockSize bytes, and returns its content.
func (z *File) Block(i int64, dst []byte) ([]byte, error) {
	if z.err != nil {
		return nil, z.err
	}
	if i < 0 || i >= z.h.blocks {
		return nil, fmt.Errorf("%w: block %d of %d", format.ErrInvalid, i, z.h.blocks)
	}
	dst = dst[:z.h.to(i)-z.h.from(i)]
	p, err := z.place(i)
	if err != nil { // all blocks of the line are lost
		first := i - i%lineBlocks
		return nil, z.lost(first, min(first+lineBlocks, z.h.blocks)-1, err)
	}
	if err := z.block(i, p, dst); err != nil {
		return nil, z.lost(i, i, err)
	}
	return dst, nil
}

// lost says that the content of blocks first to last is lost.
func (z *File) lost(first, last int64, err *format.Error) *LostError {
	from, to := z.h.from(first), z.h.to(last)
	err.Why = fmt.Sprintf("%s: content %d to %d", err.Why, from, to-1)
	return &LostError{From: from, To: to, Err: err}
}

// place reads where block i is stored.
func (z *File) place(i int64) (place, *format.Error) {
	at := z.h.indexAt() + i/lineBlocks*lineSize
	z.mu.Lock()
	line, known := z.line, z.at == at
	z.mu.Unlock()
	if !known {
		if err := z.read(line[:], at); err != nil {
			return place{}, err
		}
	}
	p, err := z.h.locate(z.path, line[:], i)
	if err == nil && !known {
		z.mu.Lock()
		z.line, z.at = line, at
		z.mu.Unlock()
	}
	return p, err
}

// block fills dst with block i, which is stored at p.
func (z *File) block(i int64, p place, dst []byte) *format.Error {
	pool, b := scratch(checkSize + p.size)
	defer stored.Put(pool)
	if err := z.read(b, p.off); err != nil {
		return err
	}
	b, check := b[checkSize:], le.Uint64(b)
	why := ""
	switch {
	case check != format.Check64(b, z.h.salt, z.h.from(i)):
		why = "a block does not validate"
	case p.raw:
		copy(dst, b)
	case !z.h.codec.decompress(dst, b):
		why = "a block does not decompress to its content's size"
	}
	if why != "" {
		return &format.Error{Path: z.path, Offset: p.off, Why: why, Err: format.ErrCorrupt}
	}
	return nil
}

// read reads bytes of the file that must be there.
func (z *File) read(b []byte, off int64) *format.Error {
	n, err := z.r.ReadAt(b, off)
	switch {
	case n == len(b):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return &format.Error{Path: z.path, Offset: off + int64(n), Why: "the file was cut short", Err: format.ErrCorrupt}
	}
	return &format.Error{Path: z.path, Offset: off, Why: "read", Err: err}
}

// ReadAt reads the plain file's bytes. In front of what is lost it returns what there is, and a *LostError.
func (z *File) ReadAt(p []byte, off int64) (n int, err error) {
	if z.err != nil {
		return 0, z.err
	}
	size := z.h.end + segment.FooterSize
	for n < len(p) {
		at := off + int64(n)
		if at >= size {
			return n, io.EOF
		}
		k, err := z.piece(p[n:], at)
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// piece reads what is stored in one piece.
func (z *File) piece(p []byte, at int64) (int, error) {
	from, to, off := int64(0), z.h.start, int64(headerSize)
	if at >= z.h.end {
		from, to, off = z.h.end, z.h.end+segment.FooterSize, z.h.footerAt()
	}
	if at < z.h.start || at >= z.h.end {
		p = p[:min(int64(len(p)), to-at)]
		if err := z.read(p, off+at-from); err != nil {
			return 0, &LostError{From: from, To: to, Err: err}
		}
		return len(p), nil
	}
	i, from := z.BlockOf(at)
	to = z.h.to(i)
	if at == from && int64(len(p)) >= to-from {
		b, err := z.Block(i, p[:to-from])
		return len(b), err
	}
	pool, b := scratch(to - from)
	defer stored.Put(pool)
	b, err := z.Block(i, b)
	if err != nil {
		return 0, err
	}
	return copy(p, b[at-from:]), nil
}

// Check checks what reading does not: that the plain file's header, which is h, is that of this segment, and that the index
// leaves no gaps and ends where the footer begins. Damaged lines are left to whoever reads their blocks.
func (z *File) Check(h *segment.Header) error {
	if z.err != nil {
		return z.err
	}
	bad := func(off int64, why string) error {
		return &format.Error{Path: z.path, Offset: off, Why: why, Err: format.ErrCorrupt}
	}
	if h.Number != z.h.number || h.Salt != z.h.salt || h.Size != z.h.start {
		return bad(headerSize, "the plain header is another segment's")
	}
	next, known := z.h.blocksAt(), true
	for i := int64(0); i < z.h.blocks; i++ {
		p, err := z.place(i)
		if err != nil {
			known = false
			continue
		}
		if i%lineBlocks == 0 && known && p.off != next {
			return bad(z.h.indexAt()+i/lineBlocks*lineSize, fmt.Sprintf("the block index places block %d at %d, the one before ends at %d", i, p.off, next))
		}
		next, known = p.off+checkSize+p.size, true
	}
	if known && next != z.h.footerAt() {
		return bad(next, "bytes between the last block and the footer")
	}
	return nil
}

// Name is the compressed file's.
func (z *File) Name() string { return z.path }

// Size is the plain file's.
func (z *File) Size() (int64, error) {
	if z.err != nil {
		return 0, z.err
	}
	return z.h.end + segment.FooterSize, nil
}

// Close closes the file.
func (z *File) Close() error {
	if z.c == nil {
		return nil
	}
	return z.c.Close()
}

func (z *File) refuse(op string) error {
	return &fs.PathError{Op: op, Path: z.path, Err: fs.ErrPermission}
}

// WriteAt, Truncate, Datasync, Preallocate and Map are refused; WriteOut does nothing; ReadAtUncached is not supported.

func (z *File) WriteAt([]byte, int64) (int, error) { return 0, z.refuse("write") }
func (z *File) Truncate(int64) error               { return z.refuse("truncate") }
func (z *File) Datasync() error                    { return z.refuse("datasync") }
func (z *File) WriteOut(int64, int64) error        { return nil }
func (z *File) Preallocate(int64) error            { return z.refuse("preallocate") }
func (z *File) Map(int64) (vfs.Mapping, error)     { return nil, z.refuse("map") }
func (z *File) ReadAtUncached([]byte, int64) (int, error) {
	return 0, vfs.ErrUncachedUnsupported
}
