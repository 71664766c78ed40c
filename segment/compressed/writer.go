package compressed

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/segment"
)

// Options say how a segment is compressed.
type Options struct {
	Codec      Codec
	Level      int // 1 (fastest) to Codec.MaxLevel; 0: 1
	BlockBytes int // content of a block; 0: 32 KiB; a power of two, 4 KiB to 1 MiB

	// Step is called about once for each MiB of content. An error ends the work and is returned. nil: not.
	Step func() error
}

// Check says whether the options can be used.
func (o Options) Check() error {
	if o.Codec != Zstd && o.Codec != S2 {
		return fmt.Errorf("%w: %v: want zstd or s2", format.ErrInvalid, o.Codec)
	}
	if o.Level < 0 || o.Level > o.Codec.MaxLevel() {
		return fmt.Errorf("%w: level %d of codec %v: want 1 to %d", format.ErrInvalid, o.Level, o.Codec, o.Codec.MaxLevel())
	}
	if n := o.blockBytes(); n < MinBlock || n > MaxBlock || n&(n-1) != 0 {
		return fmt.Errorf("%w: blocks of %d bytes: want a power of two, %d to %d", format.ErrInvalid, n, MinBlock, MaxBlock)
	}
	return nil
}

func (o Options) blockBytes() int {
	if o.BlockBytes == 0 {
		return DefaultBlock
	}
	return o.BlockBytes
}

// stepBytes is how much content is compressed, or read back, between two calls of Step.
const stepBytes = 1 << 20

// Plain is a sealed segment in its plain form: what its file must hold.
type Plain struct {
	Header segment.Header
	Footer segment.Footer
}

// ReadPlain reads header and footer of a sealed segment, plain or as a File. A file that does not end in a footer is
// not sealed, or damaged: ErrCorrupt.
func ReadPlain(f io.ReaderAt, path string, size int64) (p Plain, err error) {
	if p.Header, err = segment.ReadHeader(f, path); err != nil {
		return p, err
	}
	ok := false
	if p.Footer, ok, err = segment.ReadFooter(f, size, &p.Header); err != nil {
		return p, err
	}
	if !ok {
		err = &format.Error{Path: path, Offset: max(size-segment.FooterSize, 0), Why: "no valid footer", Err: format.ErrCorrupt}
	}
	return p, err
}

// Encode compresses the sealed segment in src, a plain file, into dst, an empty one, and returns the size of that. What it
// reads must be what the footer vouches for: a damaged segment is not compressed. Memory is bounded by a step.
func Encode(dst io.WriterAt, src io.ReaderAt, path string, p Plain, o Options) (int64, error) {
	if err := o.Check(); err != nil {
		return 0, err
	}
	e := encoder{dst: dst, src: src, path: path, o: o}
	e.h = header{
		number: p.Header.Number, salt: p.Header.Salt, codec: o.Codec, blockSize: int64(o.blockBytes()),
		start: p.Header.Size, end: p.Footer.ContentEnd,
	}
	e.h.blocks = (e.h.end - e.h.start + e.h.blockSize - 1) / e.h.blockSize
	var err error
	if e.compress, err = o.Codec.compressor(o.Level, e.h.blockSize); err != nil {
		return 0, err
	}
	return e.run(p)
}

// encoder is one segment being compressed.
type encoder struct {
	dst      io.WriterAt
	src      io.ReaderAt
	path     string
	o        Options
	h        header
	compress func(dst, b []byte) []byte

	out  []byte // blocks that are not written yet
	at   int64  // where they go
	line [lineSize]byte
}

func (e *encoder) run(p Plain) (int64, error) {
	sum := segment.NewContentHash()
	plain := make([]byte, e.h.start)
	if err := e.read(plain, 0); err != nil {
		return 0, err
	}
	_, _ = sum.Write(plain)
	if err := e.write(plain, headerSize); err != nil {
		return 0, err
	}
	e.at = e.h.blocksAt()
	content := make([]byte, e.h.blockSize)
	done := int64(0)
	for i := int64(0); i < e.h.blocks; i++ {
		b := content[:e.h.to(i)-e.h.from(i)]
		if err := e.read(b, e.h.from(i)); err != nil {
			return 0, err
		}
		_, _ = sum.Write(b)
		if err := e.block(i, b); err != nil {
			return 0, err
		}
		if done += int64(len(b)); done >= stepBytes || i == e.h.blocks-1 {
			if err := e.flush(); err != nil {
				return 0, err
			}
			done = 0
		}
	}
	if !bytes.Equal(sum.Sum(nil), p.Footer.ContentSHA[:]) {
		return 0, &format.Error{Path: e.path, Offset: e.h.end, Why: "the content's SHA-256 is not the footer's", Err: format.ErrCorrupt}
	}
	footer := make([]byte, segment.FooterSize)
	if err := e.read(footer, e.h.end); err != nil {
		return 0, err
	}
	if err := e.write(footer, e.at); err != nil {
		return 0, err
	}
	e.h.fileSize = e.at + segment.FooterSize
	return e.h.fileSize, e.write(e.h.encode(), 0)
}

// block appends block i and its place in the index.
func (e *encoder) block(i int64, content []byte) error {
	slot := i % lineBlocks
	if slot == 0 {
		clear(e.line[:])
		le.PutUint64(e.line[lineFirst:], uint64(e.at)+uint64(len(e.out)))
	}
	begin := len(e.out)
	e.out = append(e.out, make([]byte, checkSize)...)
	e.out = e.compress(e.out, content)
	b := e.out[begin+checkSize:]
	word := uint32(len(b))
	if len(b) >= len(content) {
		e.out = append(e.out[:begin+checkSize], content...)
		b, word = e.out[begin+checkSize:], uint32(len(content))|rawBit
	}
	le.PutUint64(e.out[begin:], format.Check64(b, e.h.salt, e.h.from(i)))
	le.PutUint32(e.line[lineSizes+4*slot:], word)
	if slot < lineBlocks-1 && i < e.h.blocks-1 {
		return nil
	}
	at := e.h.indexAt() + i/lineBlocks*lineSize
	le.PutUint64(e.line[lineCheck:], format.Check64(e.line[:lineCheck], e.h.salt, at))
	return e.write(e.line[:], at)
}

// flush writes the blocks that are ready, and lets others go on.
func (e *encoder) flush() error {
	if err := e.write(e.out, e.at); err != nil {
		return err
	}
	e.at += int64(len(e.out))
	e.out = e.out[:0]
	return step(e.o.Step)
}

func step(f func() error) error {
	if f == nil {
		return nil
	}
	return f()
}

func (e *encoder) write(b []byte, off int64) error {
	_, err := e.dst.WriteAt(b, off)
	return err
}

// read reads bytes of the plain file that must be there.
func (e *encoder) read(b []byte, off int64) error {
	n, err := e.src.ReadAt(b, off)
	switch {
	case n == len(b):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return &format.Error{Path: e.path, Offset: off + int64(n), Why: "the file was cut short", Err: format.ErrCorrupt}
	}
	return located(err, e.path, off)
}

func located(err error, path string, off int64) error {
	var at *format.Error
	if errors.As(err, &at) {
		return err
	}
	return &format.Error{Path: path, Offset: off, Why: "read", Err: err}
}

// Verify reads a file of size bytes through and returns nil if it is a compressed segment that gives back p, byte for
// byte: every check in it holds, and the content has the SHA-256 of p's footer.
func Verify(r io.ReaderAt, path string, size int64, p Plain, each func() error) error {
	z := newFile(path, r, size)
	if err := z.Check(&p.Header); err != nil {
		return err
	}
	return VerifyContent(z, path, p, each)
}

// VerifyContent reads a sealed segment through, plain or as a File, and returns nil if it holds what p says.
func VerifyContent(f io.ReaderAt, path string, p Plain, each func() error) error {
	end := p.Footer.ContentEnd
	got, err := ReadPlain(f, path, end+segment.FooterSize)
	if err != nil {
		return err
	}
	if !same(&got, &p) {
		return &format.Error{Path: path, Offset: end, Why: "its header or footer is not that of the segment", Err: format.ErrCorrupt}
	}
	sum := segment.NewContentHash()
	b := make([]byte, min(stepBytes, end))
	for off := int64(0); off < end; {
		piece := b[:min(int64(len(b)), end-off)]
		n, err := f.ReadAt(piece, off)
		if n < len(piece) {
			if err == nil || errors.Is(err, io.EOF) {
				err = &format.Error{Path: path, Offset: off + int64(n), Why: "the file was cut short", Err: format.ErrCorrupt}
			}
			return located(err, path, off)
		}
		_, _ = sum.Write(piece)
		off += int64(n)
		if err := step(each); err != nil {
			return err
		}
	}
	if !bytes.Equal(sum.Sum(nil), p.Footer.ContentSHA[:]) {
		return &format.Error{Path: path, Offset: end, Why: "the content's SHA-256 is not the footer's", Err: format.ErrCorrupt}
	}
	return nil
}

// same reports whether two segments have the same header and footer.
func same(a, b *Plain) bool {
	x, y := a.Header, b.Header
	return a.Footer == b.Footer && x.Number == y.Number && x.Salt == y.Salt && x.PlannedSize == y.PlannedSize && x.Created == y.Created &&
		x.Size == y.Size && bytes.Equal(x.Identity, y.Identity)
}
