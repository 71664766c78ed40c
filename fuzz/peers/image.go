package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// image is a store's folder in memory, by path within it: what a process that dies leaves behind.
type image map[string]*file

// file is a file's content. Behind data it has zeros up to size, so that preallocated files cost no memory.
type file struct {
	data []byte
	size int64
}

// takeImage reads a folder.
func takeImage(dir string) (image, error) {
	im := image{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		im[filepath.ToSlash(rel)] = &file{data: bytes.Clone(bytes.TrimRight(b, "\x00")), size: int64(len(b))}
		return err
	})
	return im, err
}

// write makes the folder again.
func (im image) write(dir string) error {
	for name, f := range im {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.data, 0o644); err != nil {
			return err
		}
		if err := os.Truncate(path, f.size); err != nil {
			return err
		}
	}
	return nil
}

// names are the files' paths in order.
func (im image) names() []string { return slices.Sorted(maps.Keys(im)) }

// with is a copy of the image in which one file can be changed.
func (im image) with(name string) (image, *file) {
	c := maps.Clone(im)
	f := im[name]
	c[name] = &file{data: bytes.Clone(f.data), size: f.size}
	return c, c[name]
}

// without is a copy of the image in which one file is missing.
func (im image) without(name string) image {
	c := maps.Clone(im)
	delete(c, name)
	return c
}

// find returns where b stands, which must be in one file only.
func (im image) find(b []byte) (name string, off int, err error) {
	for _, n := range im.names() {
		at := bytes.Index(im[n].data, b)
		switch {
		case at < 0:
		case name != "":
			return "", 0, fmt.Errorf("an entry stands in %s and in %s", name, n)
		default:
			name, off = n, at
		}
	}
	if name == "" {
		return "", 0, errNotWhole
	}
	return name, off, nil
}

// put writes b at off; the file grows if it must.
func (f *file) put(off int, b []byte) {
	if end := off + len(b); end > len(f.data) {
		f.data = append(f.data, make([]byte, end-len(f.data))...)
	}
	copy(f.data[off:], b)
	f.size = max(f.size, int64(len(f.data)))
}

// zero clears from off to end, at most to the end of the file.
func (f *file) zero(off, end int) {
	off, end = min(off, len(f.data)), min(end, len(f.data))
	clear(f.data[off:end])
}

// flip turns one bit round.
func (f *file) flip(off int, bit uint) {
	f.put(off, []byte{f.at(off) ^ 1<<bit})
}

func (f *file) at(off int) byte {
	if off < len(f.data) {
		return f.data[off]
	}
	return 0
}

// cut ends the file at off.
func (f *file) cut(off int) {
	f.size = min(f.size, int64(off))
	f.data = f.data[:min(len(f.data), off)]
}

// differs says whether a file has other bytes than another from off to end, or ends before.
func (f *file) differs(g *file, off, end int) bool {
	for i := off; i < end; i++ {
		if f.at(i) != g.at(i) {
			return true
		}
	}
	return f.size < int64(end)
}
