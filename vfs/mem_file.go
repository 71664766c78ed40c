package vfs

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"syscall"
)

// memFile is an open file of a Mem.
type memFile struct {
	m        *Mem
	n        *node
	name     string
	writable bool
	closed   bool // guarded by m.mu
}

// enter lets faults happen, then takes m.mu and checks the handle. Unless err is non-nil the caller unlocks; ft is a
// fault that the caller acts out itself.
func (f *memFile) enter(op string, o Op, write bool) (ft *fault, err error) {
	o.Name = f.name
	ft = f.m.begin(o)
	f.m.mu.Lock()
	switch {
	case f.closed:
		err = fs.ErrClosed
	case write && !f.writable:
		err = syscall.EBADF
	case o.Off < 0:
		err = syscall.EINVAL
	case ft != nil && !ft.partial:
		err = ft.err
	}
	if err != nil {
		f.m.mu.Unlock()
		return nil, at(op, f.name, err)
	}
	return ft, nil
}

func (f *memFile) Name() string { return f.name }

func (f *memFile) Size() (int64, error) {
	if _, err := f.enter("stat", Op{Kind: OpStat}, false); err != nil {
		return 0, err
	}
	defer f.m.mu.Unlock()
	return f.n.file.size, nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	return f.readAt("read", OpRead, p, off, inCache)
}

func (f *memFile) ReadAtUncached(p []byte, off int64) (int, error) {
	return f.readAt("readuncached", OpReadUncached, p, off, uncached)
}

func (f *memFile) readAt(op string, kind OpKind, p []byte, off int64, v view) (int, error) {
	if _, err := f.enter(op, Op{Kind: kind, Off: off, Len: int64(len(p))}, false); err != nil {
		return 0, err
	}
	defer f.m.mu.Unlock()
	n := f.n.file
	if len(p) == 0 {
		return 0, nil
	}
	short := int64(len(p)) > n.size-off
	if short {
		p = p[:max(0, n.size-off)]
	}
	if v == uncached && f.m.opt.WriteThrough {
		n.flush(n.span(off, int64(len(p))))
	}
	n.read(p, off, v)
	if short {
		return len(p), io.EOF
	}
	return len(p), nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	ft, err := f.enter("write", Op{Kind: OpWrite, Off: off, Len: int64(len(p))}, true)
	if err != nil {
		return 0, err
	}
	defer f.m.mu.Unlock()
	if off > math.MaxInt64/2-int64(len(p)) {
		return 0, at("write", f.name, syscall.EFBIG)
	}
	whole := p
	if ft != nil {
		p = p[:min(max(ft.short, 0), len(p))]
		if errors.Is(ft.err, syscall.EIO) {
			p = whole // reaches the cache, and only that
		}
	}
	k := int(f.m.allocate(f.n, off, int64(len(p))))
	f.n.file.write(p[:k], off)
	switch {
	case ft != nil && errors.Is(ft.err, syscall.EIO):
		first, end := f.n.file.span(off, int64(k))
		f.n.file.lose(first, end, f.name, ft.landed)
		return min(max(ft.short, 0), k), at("write", f.name, ft.err)
	case k < len(p):
		return k, at("write", f.name, syscall.ENOSPC)
	case ft != nil:
		return k, at("write", f.name, ft.err)
	}
	return k, nil
}

func (f *memFile) Truncate(size int64) error {
	if _, err := f.enter("truncate", Op{Kind: OpTruncate, Off: size}, true); err != nil {
		return err
	}
	defer f.m.mu.Unlock()
	f.m.truncate(f.n, size)
	return nil
}

func (f *memFile) Datasync() error {
	ft, err := f.enter("datasync", Op{Kind: OpDatasync}, false)
	if err != nil {
		return err
	}
	defer f.m.mu.Unlock()
	if ft != nil {
		f.n.file.lose(0, math.MaxInt64, f.name, ft.landed)
		return at("datasync", f.name, ft.err)
	}
	f.n.file.sync()
	return nil
}

// WriteOut does nothing: what is not synced may be on the disk at any time anyway.
func (f *memFile) WriteOut(int64, int64) error { return nil }

func (f *memFile) Preallocate(size int64) error {
	if _, err := f.enter("preallocate", Op{Kind: OpPreallocate, Off: size}, true); err != nil {
		return err
	}
	defer f.m.mu.Unlock()
	_, end := f.n.file.span(0, size)
	if f.m.room(f.n, 0, end) < end {
		return at("preallocate", f.name, syscall.ENOSPC)
	}
	f.n.file.reserve(end)
	f.m.allocate(f.n, 0, size)
	if size > f.n.file.size {
		f.n.file.setSize(size)
	}
	return nil
}

// Map copies: only finished files are mapped, and those do not change.
func (f *memFile) Map(size int64) (Mapping, error) {
	if _, err := f.enter("map", Op{Kind: OpMap, Len: size}, false); err != nil {
		return nil, err
	}
	defer f.m.mu.Unlock()
	if size <= 0 || size > f.n.file.size {
		return nil, at("map", f.name, syscall.EINVAL)
	}
	b := make([]byte, size)
	f.n.file.read(b, 0, inCache)
	return &memMapping{b}, nil
}

func (f *memFile) Close() error {
	ft := f.m.begin(Op{Kind: OpClose, Name: f.name})
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return at("close", f.name, fs.ErrClosed)
	}
	f.closed = true
	f.n.opens--
	f.m.release(f.n)
	if ft != nil {
		return at("close", f.name, ft.err) // the handle is gone all the same, as after close(2)
	}
	return nil
}

type memMapping struct{ b []byte }

func (m *memMapping) Bytes() []byte { return m.b }

func (m *memMapping) Close() error {
	m.b = nil
	return nil
}

// room returns the first sector in [first, end) that the disk has no space for, or end; m.mu is held.
func (m *Mem) room(n *node, first, end int64) int64 {
	if m.opt.Capacity <= 0 {
		return end
	}
	free := (m.opt.Capacity - m.used) / n.file.ss
	for s := first; s < end; {
		if have := n.file.alloc.has(s); have > s {
			s = have
			continue
		}
		if free <= 0 {
			return s
		}
		free--
		s++
	}
	return end
}

// allocate takes space for [off, off+length) and returns for how many of these bytes there was some; m.mu is held.
func (m *Mem) allocate(n *node, off, length int64) int64 {
	first, end := n.file.span(off, length)
	end = m.room(n, first, end)
	m.used += n.file.alloc.add(first, end) * n.file.ss
	return max(0, min(length, end*n.file.ss-off))
}

// truncate is Truncate; m.mu is held.
func (m *Mem) truncate(n *node, size int64) {
	n.file.truncate(size)
	_, end := n.file.span(0, size)
	m.used -= n.file.alloc.cut(end) * n.file.ss
}
