package wal

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/segment/compressed"
	"github.com/runlog-io/runlog/vfs"
)

// swap puts one form of a sealed segment in the place of the other: it writes the new file aside, syncs it, reads it back
// through its decoder and compares, and only then, name by name, lets the old one go. The states in between are those of
// docs/format/compressed.md. The caller holds the instance's lock, or is the run's writer.
type swap struct {
	fsys vfs.FS
	dir  string
	run  string // whose segments they are; "" while that is not known
	step func() error
	rest func() // lets others go on; nil: not
}

// outcome is what a pass has done with a segment.
type outcome uint8

const (
	unchanged outcome = iota // it is in the form that is wanted
	swapped
	finished // an earlier pass had begun it
	kept     // compressing it would not make it smaller
)

// minGain is the part of its size, one in so many, that a segment must lose by being compressed.
const minGain = 16

func (w *swap) names(n uint32) (plain, packed string) {
	plain = filepath.Join(w.dir, segment.FileName(n))
	return plain, plain + compressed.Suffix
}

func (w *swap) exists(path string) (bool, error) {
	_, err := w.fsys.Stat(path)
	if errors.Is(err, errNotExist) {
		return false, nil
	}
	return err == nil, err
}

// compress puts the compressed form of segment n in the place of the plain one.
func (w *swap) compress(n uint32, o compressed.Options) (outcome, error) {
	plain, packed := w.names(n)
	havePlain, err := w.exists(plain)
	if err != nil || !havePlain {
		return unchanged, err
	}
	havePacked, err := w.exists(packed)
	if err != nil {
		return unchanged, err
	}
	if havePacked {
		err := w.finish(packed, plain)
		if !errors.Is(err, format.ErrCorrupt) || w.whole(plain) != nil {
			return finished, err
		}
		if err := w.drop(packed); err != nil { // it is damaged, and the plain one is not, which counts
			return unchanged, err
		}
	}
	return w.replace(plain, packed, n, func(f vfs.File, src vfs.File, p compressed.Plain) (bool, error) {
		o.Step = w.pause(f)
		size, err := compressed.Encode(f, src, plain, p, o)
		return err == nil && size > p.Footer.ContentEnd-p.Footer.ContentEnd/minGain, err
	})
}

// restore puts the plain form of segment n in the place of the compressed one.
func (w *swap) restore(n uint32) (outcome, error) {
	plain, packed := w.names(n)
	havePacked, err := w.exists(packed)
	if err != nil || !havePacked {
		return unchanged, err
	}
	havePlain, err := w.exists(plain)
	if err != nil {
		return unchanged, err
	}
	if havePlain {
		return finished, w.finish(plain, packed)
	}
	return w.replace(packed, plain, n, func(f vfs.File, src vfs.File, p compressed.Plain) (bool, error) {
		return false, w.copy(f, src, p.Footer.ContentEnd+segment.FooterSize)
	})
}

// pause is called about once for each MiB that is written: what waits for the disk is written away in small pieces, so that
// nobody's commit waits behind many, and others come to run.
func (w *swap) pause(f vfs.File) func() error {
	return func() error {
		if err := f.Datasync(); err != nil {
			return err
		}
		return w.breathe()
	}
}

// breathe lets others run, and says whether to go on.
func (w *swap) breathe() error {
	if w.rest != nil {
		w.rest()
	}
	if w.step != nil {
		return w.step()
	}
	return nil
}

const copyPiece = 1 << 20

// copy writes the plain file's bytes.
func (w *swap) copy(dst io.WriterAt, src io.ReaderAt, size int64) error {
	next := w.pause(dst.(vfs.File))
	b := make([]byte, min(copyPiece, size))
	for off := int64(0); off < size; off += int64(len(b)) {
		b = b[:min(int64(len(b)), size-off)]
		if _, err := src.ReadAt(b, off); err != nil {
			return err
		}
		if _, err := dst.WriteAt(b, off); err != nil {
			return err
		}
		if err := next(); err != nil {
			return err
		}
	}
	return nil
}

// replace makes to out of from. make fills the new file, and reports whether it is not worth it.
func (w *swap) replace(from, to string, n uint32, make func(f, src vfs.File, p compressed.Plain) (bool, error)) (outcome, error) {
	src, p, err := w.open(from)
	if err != nil {
		return unchanged, err
	}
	defer src.Close()
	if err := belongs(&p.Header, &segRef{number: n, path: from}, w.run); err != nil {
		return unchanged, err
	}
	tmp := to + ".tmp"
	if err := w.fsys.Remove(tmp); err != nil && !errors.Is(err, errNotExist) {
		return unchanged, err
	}
	f, err := w.fsys.Create(tmp)
	if err != nil {
		return unchanged, err
	}
	waste, err := make(f, src, p)
	if err == nil && !waste {
		if err = f.Datasync(); err == nil {
			err = w.verify(&uncachedIf{File: f}, tmp, p)
		}
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil && !waste {
		err = w.fsys.Rename(tmp, to)
	}
	if err != nil || waste {
		return kept, errors.Join(err, w.fsys.Remove(tmp))
	}
	if err := w.fsys.SyncDir(w.dir); err != nil {
		return unchanged, err
	}
	return swapped, w.drop(from)
}

// drop removes the file that has been replaced. Its replacement's name is durable.
func (w *swap) drop(path string) error {
	// Its name goes first, for good: a file that a power cut brings back may have lost its blocks to another one.
	aside := path + ".tmp"
	err := w.fsys.Rename(path, aside)
	if err == nil {
		err = w.fsys.SyncDir(w.dir)
	}
	if err == nil {
		err = w.fsys.Remove(aside)
	}
	if err != nil {
		return &format.Error{Path: path, Offset: -1, Why: "remove what has been replaced", Err: err}
	}
	return w.fsys.SyncDir(w.dir)
}

// open opens a sealed segment in either form by the name of its file.
func (w *swap) open(path string) (vfs.File, compressed.Plain, error) {
	var f vfs.File
	var err error
	if strings.HasSuffix(path, compressed.Suffix) {
		f, err = compressed.Open(w.fsys, path)
	} else {
		f, err = w.fsys.OpenRead(path)
	}
	if err != nil {
		return nil, compressed.Plain{}, err
	}
	size, err := f.Size()
	var p compressed.Plain
	if err == nil {
		p, err = compressed.ReadPlain(f, path, size)
	}
	if err == nil && size != p.Footer.ContentEnd+segment.FooterSize {
		err = &format.Error{Path: path, Offset: p.Footer.ContentEnd, Why: "not a sealed segment", Err: format.ErrCorrupt}
	}
	if err != nil {
		_ = f.Close()
		return nil, p, err
	}
	return f, p, nil
}

// verify reads a file that was written, of the form that its name says, against what it must hold.
func (w *swap) verify(f vfs.File, path string, p compressed.Plain) error {
	size, err := f.Size()
	switch {
	case err != nil:
		return err
	case strings.HasSuffix(strings.TrimSuffix(path, ".tmp"), compressed.Suffix):
		return compressed.Verify(f, path, size, p, w.breathe)
	case size != p.Footer.ContentEnd+segment.FooterSize:
		return &format.Error{Path: path, Offset: size, Why: "not as long as the segment", Err: format.ErrCorrupt}
	}
	return compressed.VerifyContent(f, path, p, w.breathe)
}

// whole reads a file through against its own footer.
func (w *swap) whole(path string) error {
	f, p, err := w.open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return w.verify(f, path, p)
}

// finish ends a swap that was begun: both files are there. The one that is to stay is read through; the other goes only
// if nothing says that they are not the same segment.
func (w *swap) finish(stay, goes string) error {
	old, was, err := w.open(goes)
	if err != nil {
		return fmt.Errorf("both forms are there, and both stay: %w", err)
	}
	_ = old.Close()
	f, err := w.fsys.Open(stay)
	if err != nil {
		return err
	}
	defer f.Close()
	if err = f.Datasync(); err == nil { // whoever wrote it may have died before its name was durable
		err = w.verify(&uncachedIf{File: f}, stay, was)
	}
	if err != nil {
		return fmt.Errorf("both forms are there, and both stay: %w", err)
	}
	if err := w.fsys.SyncDir(w.dir); err != nil {
		return err
	}
	return w.drop(goes)
}

// uncachedIf reads past the page cache where that is possible: what is compared is what the disk holds.
type uncachedIf struct {
	vfs.File
	cached bool
	buf    []byte // read ahead: each read past the cache is one of the disk
	off    int64
}

// Reads below and above these bounds are not read ahead for: the first lie elsewhere, the second are large enough.
const (
	aheadFrom  = 4 << 10
	aheadBytes = 1 << 20
)

func (f *uncachedIf) ReadAt(b []byte, off int64) (int, error) {
	if len(b) < aheadFrom || len(b) >= aheadBytes {
		return f.direct(b, off)
	}
	if off < f.off || off+int64(len(b)) > f.off+int64(len(f.buf)) {
		if cap(f.buf) == 0 {
			f.buf = make([]byte, aheadBytes)
		}
		n, err := f.direct(f.buf[:aheadBytes], off)
		f.buf, f.off = f.buf[:n], off
		if notEOF(err) != nil {
			f.buf = f.buf[:0]
			return f.direct(b, off)
		}
	}
	n := copy(b, f.buf[off-f.off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *uncachedIf) direct(b []byte, off int64) (int, error) {
	if !f.cached {
		n, err := f.ReadAtUncached(b, off)
		if !errors.Is(err, vfs.ErrUncachedUnsupported) {
			return n, err
		}
		f.cached = true
	}
	return f.File.ReadAt(b, off)
}

// isCompressed reports whether the segment has a file of that form.
func (ref *segRef) isCompressed(fsys vfs.FS) bool {
	_, err := fsys.Stat(strings.TrimSuffix(ref.path, compressed.Suffix) + compressed.Suffix)
	return err == nil
}

// compressedOpen is the damage that a compressed segment without a good footer is: all others of its kind have one, and
// none can be given to it in place.
func (st *state) compressedOpen() *format.Error {
	for _, o := range st.open {
		if strings.HasSuffix(o.path, compressed.Suffix) {
			return &format.Error{Path: o.path, Offset: o.end.Load(), Why: "the footer is damaged; all entries are there", Err: format.ErrCorrupt}
		}
	}
	return nil
}

// sizes are those of a segment's files: of the plain form, and of what is on the disk.
func (w *swap) sizes(n uint32) (plainBytes, diskBytes int64, codec compressed.Codec, err error) {
	plain, _ := w.names(n)
	f, err := compressed.OpenSegment(w.fsys, plain)
	if err != nil {
		return 0, 0, 0, err
	}
	defer f.Close()
	if plainBytes, err = f.Size(); err != nil {
		return 0, 0, 0, err
	}
	if z, ok := f.(*compressed.File); ok {
		return plainBytes, z.DiskSize(), z.Codec(), nil
	}
	return plainBytes, plainBytes, compressed.None, nil
}
