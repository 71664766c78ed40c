package main

import (
	"bytes"
	"fmt"
)

const (
	sector = 512
	block  = 4096
)

// trial is one damaged folder.
type trial struct {
	row      string // what was damaged, and where
	op       string // how, when a row has several ways
	file     string // path in the image
	entry    int    // first entry that the damage hits, from 1; 0: none, or not known
	harmless bool   // no acknowledged byte is damaged
	removed  bool   // the file is missing
	unacked  bool   // there is one more entry than acknowledged ones
	toEnd    bool   // what stands from the last entry on is damaged
	im       image
}

// spot is where an entry stands.
type spot struct {
	file    string
	head, n int // offset and size of its frame header
	length  int // offset of the low byte of its length
	payload int
	size    int // bytes of the payload that stand in one piece
	entry   int // from 1
}

// locate finds an entry, or the next one before it that stands in one piece far enough to be found.
func locate(s store, im image, entries [][]byte, i int) (spot, error) {
	for ; i >= 0; i-- {
		e := entries[i]
		name, off, err := im.find(e[:min(len(e), 64)])
		if err != nil {
			continue
		}
		sp := spot{file: name, payload: off, entry: i + 1}
		for sp.size < len(e) && im[name].at(off+sp.size) == e[sp.size] {
			sp.size++
		}
		if sp.head, sp.n, sp.length, err = s.head(im[name], off, len(e)); err == nil {
			return sp, nil
		}
	}
	return spot{}, fmt.Errorf("%s: %w", s.name(), errNotWhole)
}

// ops damage the middle of an entry, or its frame header.
var ops = []struct {
	name string
	do   func(f *file, s spot)
}{
	{"bit flip in the payload", func(f *file, s spot) { f.flip(s.middle(), 3) }},
	{"bit flip in the length of the frame", func(f *file, s spot) { f.flip(s.length, 1) }},
	{"frame header zeroed", func(f *file, s spot) { f.zero(s.head, s.head+s.n) }},
	{"512 B sector zeroed", func(f *file, s spot) { f.zero(aligned(s.middle(), sector)) }},
	{"4 KiB block zeroed", func(f *file, s spot) { f.zero(aligned(s.middle(), block)) }},
}

func (s spot) middle() int { return s.payload + s.size/2 }

func aligned(off, to int) (from, end int) { return off / to * to, off/to*to + to }

// comparison lists the damages that every store is put through. torn is a folder with one entry more than im, which was not
// acknowledged when its process died.
func comparison(s store, im, torn image, entries [][]byte) ([]*trial, error) {
	n := len(entries) - 1
	near := max(n-6, 0)
	if len(entries[0]) > block {
		near = n - 2
	}
	var list []*trial
	places := []struct {
		name string
		i    int
	}{{"in the middle", n / 2}, {"near the end", near}, {"in the last entry", n - 1}}
	spots := make([]spot, len(places))
	for i, p := range places {
		var err error
		if spots[i], err = locate(s, im, entries[:n], p.i); err != nil {
			return nil, err
		}
	}
	add := func(row string, from image, sp spot, do func(f *file)) *trial {
		t := &trial{row: row, file: sp.file, entry: sp.entry}
		var f *file
		t.im, f = from.with(sp.file)
		do(f)
		list = append(list, t)
		return t
	}
	for _, op := range ops {
		for i, p := range places {
			add(op.name+", "+p.name, im, spots[i], func(f *file) { op.do(f, spots[i]) })
		}
	}
	last := spots[len(spots)-1]
	add("file cut in the middle", im, spots[0], func(f *file) { f.cut(spots[0].payload / block * block) })
	add("file cut at the block before the last entry", im, last, func(f *file) { f.cut((last.payload - 1) / block * block) })
	add("file cut in the last entry", im, last, func(f *file) { f.cut(last.middle()) })
	add("second half of the last entry zeroed, to the end of its 4 KiB block", im, last, func(f *file) {
		_, end := aligned(last.payload+len(entries[0])-1, block)
		f.zero(last.middle(), end)
	})
	g := add("512 B of garbage behind the end", im, last, func(f *file) {
		at := len(f.data)
		if f.size > int64(at) {
			at = (at + 7) &^ 7 // where the next frame of a preallocated file begins
		}
		f.put(at, random(1<<40, sector))
	})
	g.harmless, g.entry = true, 0

	extra, err := locate(s, torn, entries, n)
	if err != nil {
		return nil, err
	}
	if extra.entry != n+1 {
		return nil, fmt.Errorf("%s: the entry that is not acknowledged cannot be found", s.name())
	}
	for _, t := range []*trial{
		add("torn write: half of one entry more, then zeros", torn, extra, func(f *file) { f.zero((extra.middle()+sector-1)/sector*sector, len(f.data)) }),
		add("torn write: half of one entry more, then the file ends", torn, extra, func(f *file) { f.cut((extra.middle() + sector - 1) / sector * sector) }),
	} {
		t.unacked, t.harmless, t.entry = true, true, 0
	}
	for _, t := range list {
		t.toEnd = !t.harmless && t.im[last.file].differs(im[last.file], last.head, len(im[last.file].data))
		if f, was := t.im[t.file], im[t.file]; was != nil && !t.unacked && f.size == was.size && bytes.Equal(f.data, was.data) {
			return nil, fmt.Errorf("%s: %q changed nothing", s.name(), t.row)
		}
	}
	return list, nil
}
