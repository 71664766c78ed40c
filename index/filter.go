package index

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/vfs"
)

// filterWindow is how much of a filter is built at a time. Keys hit blocks at random, so each window costs a pass
// over all keys; in return, memory does not grow with the log.
const filterWindow = 16 << 20

// ChainSalts ties a filter to its segments: it is what their salts, in order, make.
func ChainSalts(salts ...uint64) uint64 {
	h := uint64(0)
	for _, s := range salts {
		h = format.Mix(h + s)
	}
	return h
}

// BuildFilter makes the filter file over the segments first to last, in the folder dir, from their indexes. When it
// returns nil, the file is durable and complete under its name; a crash before leaves nothing, or an unfinished .tmp
// file.
func BuildFilter(fsys vfs.FS, dir string, first, last uint32, files []*File) error {
	f, err := newFilterBuild(first, last, files)
	if err != nil {
		return err
	}
	name := filepath.Join(dir, FilterName(first, last))
	tmp := name + ".tmp"
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	h, err := fsys.Create(tmp)
	if err != nil {
		return err
	}
	if err = f.write(h); err == nil {
		err = h.Datasync()
	}
	if cerr := h.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fsys.Rename(tmp, name)
	}
	if err != nil {
		_ = fsys.Remove(tmp) // it may be large; whether this works does not matter
		return err
	}
	return fsys.SyncDir(dir)
}

// filterBuild is a filter in the making.
type filterBuild struct {
	first, last         uint32
	blocks, keys, salts uint64
	window              int64 // bytes
	files               []*File
}

func newFilterBuild(first, last uint32, files []*File) (*filterBuild, error) {
	if r := (Range{First: first, Last: last}); !r.IsFilter() || uint64(len(files)) != r.size() {
		return nil, fmt.Errorf("%w: filter over segments %d to %d from %d indexes",
			format.ErrInvalid, first, last, len(files))
	}
	f := &filterBuild{first: first, last: last, window: filterWindow, files: files}
	for i, x := range files {
		if x.meta.Number != first+uint32(i) {
			return nil, fmt.Errorf("%w: filter: index %d is of segment %d, want %d",
				format.ErrInvalid, i, x.meta.Number, first+uint32(i))
		}
		f.keys += x.keys
		f.salts = format.Mix(f.salts + x.meta.Salt)
	}
	f.blocks = (f.keys*filterPerKey + blockBits - 1) / blockBits
	return f, nil
}

func (f *filterBuild) write(w vfs.File) error {
	h := make([]byte, filterHeaderSize)
	le.PutUint32(h[fltFirst:], f.first)
	le.PutUint32(h[fltLast:], f.last)
	le.PutUint64(h[fltBlocks:], f.blocks)
	le.PutUint64(h[fltKeys:], f.keys)
	le.PutUint64(h[fltSalts:], f.salts)
	format.SealHeader(h, format.MagicFilter, FilterVersion, f.salts)
	if _, err := w.WriteAt(h, 0); err != nil {
		return err
	}
	size := int64(f.blocks) * blockSize
	buf := make([]byte, min(size, f.window))
	for from := int64(0); from < size; from += f.window {
		part := buf[:min(size-from, f.window)]
		if err := f.fill(part, from); err != nil {
			return err
		}
		if _, err := w.WriteAt(part, filterHeaderSize+from); err != nil {
			return err
		}
	}
	return nil
}

// fill makes the blocks whose bytes begin at offset from, not counting the header.
func (f *filterBuild) fill(part []byte, from int64) error {
	clear(part)
	lo, n := uint64(from/blockSize), uint64(len(part)/blockSize)
	for _, x := range f.files {
		err := x.Keys(func(tag uint64) bool {
			g := format.Mix(tag)
			if b := (g>>32)*f.blocks>>32 - lo; b < n {
				block := part[b*blockSize:][:blockSize]
				for i := uint64(1); i <= blockProbes; i++ {
					bit := probe(g, i)
					block[blockHead+bit>>3] |= 1 << (bit & 7)
				}
			}
			return true
		})
		if err != nil {
			return err
		}
	}
	for at := 0; at < len(part); at += blockSize {
		block := part[at : at+blockSize]
		le.PutUint32(block, format.Check32(block[blockHead:], f.salts, filterHeaderSize+from+int64(at)))
	}
	return nil
}

// probe is the i-th bit of a key within its block.
func probe(g, i uint64) uint64 { return (format.Mix(g+i) >> 32) * blockBits >> 32 }

// FilterWant is what OpenFilter demands of a filter file.
type FilterWant struct {
	First uint32
	Last  uint32
	Salts uint64 // ChainSalts of the covered segments
}

// Filter tells, for a range of segments, that a key is in none of them. Each block is verified when it is touched. Any
// number of goroutines may use it, until Close.
type Filter struct {
	path    string
	mapping vfs.Mapping
	data    []byte // the whole file; nil after Close
	want    FilterWant
	blocks  uint64
	keys    uint64
}

// OpenFilter maps a filter file and verifies its header. An error about its content wraps format.ErrCorrupt,
// ErrWrongKind or ErrVersion; in any of these cases the filter can be built again, or its Children asked.
func OpenFilter(fsys vfs.FS, path string, want FilterWant) (*Filter, error) {
	m, err := mapFile(fsys, path)
	if err != nil {
		return nil, err
	}
	f := &Filter{path: path, mapping: m, data: m.Bytes(), want: want}
	if err := format.Guarded(path, f.readHeader); err != nil {
		_ = m.Close()
		return nil, err
	}
	return f, nil
}

func (f *Filter) readHeader() error {
	h := f.data
	p, err := format.OpenHeader(f.path, h, format.MagicFilter, FilterVersion)
	if err != nil {
		return err
	}
	if p.HeaderSize != filterHeaderSize {
		return corrupt(f.path, 12, "header size is %d, want %d", p.HeaderSize, filterHeaderSize)
	}
	f.blocks, f.keys = le.Uint64(h[fltBlocks:]), le.Uint64(h[fltKeys:])
	first, last, salts := le.Uint32(h[fltFirst:]), le.Uint32(h[fltLast:]), le.Uint64(h[fltSalts:])
	switch size := uint64(len(h)); {
	case first != f.want.First || last != f.want.Last:
		return corrupt(f.path, fltFirst, "filter of segments %d to %d, want %d to %d", first, last, f.want.First, f.want.Last)
	case salts != f.want.Salts || p.Salt != salts:
		return corrupt(f.path, fltSalts, "salts are %#x, the segments' %#x", salts, f.want.Salts)
	case f.blocks > size/blockSize || size != filterHeaderSize+f.blocks*blockSize:
		return corrupt(f.path, int64(size), "file has %d bytes, want %d blocks", size, f.blocks)
	case (f.keys == 0) != (f.blocks == 0):
		return corrupt(f.path, fltKeys, "%d keys in %d blocks", f.keys, f.blocks)
	}
	return nil
}

// Close unmaps the file. No other call may be in progress; later ones return format.ErrClosed. It is idempotent.
func (f *Filter) Close() error {
	if f.data == nil {
		return nil
	}
	f.data = nil
	return f.mapping.Close()
}

// Range returns the segments that the filter covers.
func (f *Filter) Range() Range { return Range{First: f.want.First, Last: f.want.Last} }

// KeyCount is the number of keys that were inserted; a key of two segments counts twice.
func (f *Filter) KeyCount() uint64 { return f.keys }

// MayContain reports whether a key may be in one of the segments; false is certain.
func (f *Filter) MayContain(fp uint64) (bool, error) {
	if f.data == nil {
		return false, format.ErrClosed
	}
	if f.blocks == 0 {
		return false, nil
	}
	g := format.Mix(fp & tagMask)
	block, err := f.block((g >> 32) * f.blocks >> 32)
	if err != nil {
		return false, err
	}
	for i := uint64(1); i <= blockProbes; i++ {
		bit := probe(g, i)
		if block[blockHead+bit>>3]&(1<<(bit&7)) == 0 {
			return false, nil
		}
	}
	return true, nil
}

// block returns the verified block i.
func (f *Filter) block(i uint64) ([]byte, error) {
	at := filterHeaderSize + int64(i)*blockSize
	b := f.data[at : at+blockSize : at+blockSize]
	if format.Check32(b[blockHead:], f.want.Salts, at) != le.Uint32(b) {
		return nil, corrupt(f.path, at, "check of filter block %d does not match", i)
	}
	return b, nil
}

// VerifyAll verifies the header and every block.
func (f *Filter) VerifyAll() error {
	if f.data == nil {
		return format.ErrClosed
	}
	return format.Guarded(f.path, func() error {
		if err := f.readHeader(); err != nil {
			return err
		}
		for i := range f.blocks {
			if _, err := f.block(i); err != nil {
				return err
			}
		}
		return nil
	})
}
