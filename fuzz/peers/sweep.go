package main

import (
	"bytes"
	"fmt"
	"path"
	"strings"
)

// layout is a state that runlog's folder is damaged in, file by file.
type layout struct {
	title string
	store runlogStore
	load  load
}

var layouts = func() (list []layout) {
	for _, l := range []struct {
		load
		segmentBytes int64
	}{
		{loads[0], 128 << 10},
		{load{"40 entries of 40 KB", 40, 40_000}, 256 << 10},
		{load{"20 entries of 100 KB", 20, 100_000}, 512 << 10},
	} {
		s := runlogStore{marked: true, segmentBytes: l.segmentBytes}
		list = append(list, layout{"crashed run, " + l.title, s, l.load})
		s.closed = true
		list = append(list, layout{"closed run, " + l.title, s, l.load})
	}
	return list
}()

// outcome is what came of a damaged folder: of a boot, and for runlog also of a reader from outside and of verification.
type outcome struct {
	trial              *trial
	boot, read, verify verdict
}

// way is one of the ways to look at a damaged run.
type way struct {
	name string
	v    *verdict
}

func (o *outcome) ways() []way {
	return []way{{"read", &o.read}, {"boot", &o.boot}, {"verify", &o.verify}}
}

// look judges what a store makes of one damaged folder.
func look(s store, tmp string, t *trial, acknowledged [][]byte, extra []byte) (o outcome, err error) {
	o.trial = t
	err = in(tmp, t, func(dir string) {
		if rs, ok := s.(runlogStore); ok { // these two write nothing
			outside := guard(func() reading { return rs.outside(dir) })
			o.read = judge(acknowledged, extra, t, outside)
			o.verify = judge(acknowledged, extra, t, guard(func() reading { return rs.verify(dir, acknowledged, outside) }))
		}
		o.boot = boot(s, dir, t, acknowledged, extra)
	})
	return o, err
}

// part is a place in a file of a run.
type part struct {
	name string
	at   int
}

// overwrites damage a place in any file.
var overwrites = []struct {
	name string
	do   func(f *file, at int)
}{
	{"bit flip", func(f *file, at int) { f.flip(at, 1) }},
	{"512 B sector zeroed", func(f *file, at int) { f.zero(aligned(at, sector)) }},
	{"4 KiB block zeroed", func(f *file, at int) { f.zero(aligned(at, block)) }},
	{"16 B of garbage", func(f *file, at int) { f.put(at, random(1<<41, min(16, max(1, int(f.size)-at)))) }},
	{"cut here", func(f *file, at int) { f.cut(at) }},
}

// sweep lists damages to every file of a run. Those that change nothing, as a cut at the end, are left out.
func sweep(s runlogStore, im image, entries [][]byte) ([]*trial, error) {
	where := make([]spot, len(entries))
	for i := range entries {
		var err error
		if where[i], err = locate(s, im, entries, i); err != nil || where[i].entry != i+1 {
			return nil, fmt.Errorf("entry %d cannot be found: %w", i+1, err)
		}
	}
	list := []*trial{{row: "none", harmless: true, im: im}}
	add := func(name, row, op string, do func(f *file)) {
		t := &trial{row: row, op: op, file: name}
		var f *file
		t.im, f = im.with(name)
		do(f)
		was := im[name]
		if f.size == was.size && bytes.Equal(f.data, was.data) {
			return
		}
		t.entry = hit(where, name, was, f)
		list = append(list, t)
	}
	roles := rolesOf(im)
	for _, name := range im.names() {
		role, ok := roles[name]
		if !ok {
			continue
		}
		for _, p := range parts(name, im[name], where) {
			for _, op := range overwrites {
				add(name, role+": "+p.name, op.name, func(f *file) { op.do(f, p.at) })
			}
		}
		add(name, role+": garbage appended", "", func(f *file) { f.put(int(f.size), random(1<<42, sector)) })
		add(name, role+": cut by a 4 KiB block", "", func(f *file) { f.cut(max(0, int(f.size)-block)) })
		add(name, role+": emptied", "", func(f *file) { f.cut(0) })
		t := &trial{row: role + ": missing", file: name, removed: true, im: im.without(name)}
		t.entry = hit(where, name, im[name], &file{})
		list = append(list, t)
	}
	return list, nil
}

// hit is the first entry whose frame, or the commit behind it, is not what it was.
func hit(where []spot, name string, was, is *file) int {
	for i := range where {
		w := &where[i]
		if w.file == name && is.differs(was, w.head, w.commit()+commitSize) {
			return w.entry
		}
	}
	return 0
}

// commitSize is the size of runlog's commit frame; here each entry has its own.
const commitSize = 96

// commit is where the entry's commit stands.
func (s *spot) commit() int { return (s.payload + s.size + 7) &^ 7 }

// rolesOf says what the files of a run are. Of segments and indexes the one in the middle and the last are tried; of
// a crashed run also the spare.
func rolesOf(im image) map[string]string {
	roles := map[string]string{}
	var segments, indexes []string
	filtered := false
	for _, name := range im.names() {
		switch base := path.Base(name); {
		case isSegment(name):
			segments = append(segments, name)
		case strings.HasSuffix(base, ".idx"):
			indexes = append(indexes, name)
		case strings.HasSuffix(base, ".flt") && !filtered:
			roles[name], filtered = "filter", true
		case base == "manifest", base == "manifest.prev":
			roles[name] = "`" + base + "`"
		}
	}
	if unused := segments[len(segments)-1]; len(im[unused].data) <= block { // a header and nothing else
		roles[unused] = "spare"
		segments = segments[:len(segments)-1]
	}
	some := func(list []string, last string) {
		if len(list) == 0 {
			return
		}
		kind := "sealed segment"
		if strings.HasSuffix(list[0], ".idx") {
			kind = "index"
		}
		roles[list[(len(list)-1)/2]] = "middle " + kind
		roles[list[len(list)-1]] = last
	}
	if len(indexes) == len(segments) {
		some(segments, "last sealed segment")
	} else {
		active := len(segments) - 1
		some(segments[:active], "last sealed segment")
		roles[segments[active]] = "active segment"
	}
	some(indexes, "last index")
	return roles
}

// parts are the places in a file that are damaged.
func parts(name string, f *file, where []spot) []part {
	end := len(f.data)
	u64 := func(at int) int { return int(le.Uint64(f.data[at:])) }
	switch base := path.Base(name); {
	case strings.HasSuffix(base, ".idx"):
		return []part{
			{"header", 0}, {"header fields", 64}, {"samples", u64(112)}, {"key buckets", u64(120)}, {"posting lists", u64(136)},
			{"dictionary", u64(152)}, {"sum at the end", int(f.size) - 8},
		}
	case strings.HasSuffix(base, ".flt"):
		return []part{{"header", 0}, {"first block", 64}, {"block in the middle", (64 + int(f.size)) / 2 &^ 63}, {"last block", int(f.size) - 64}}
	case !isSegment(name):
		return []part{{"first line", 3}, {"checksum", 20}, {"middle", end / 2}, {"end", end - 4}}
	}
	list := []part{{"header", 0}, {"header fields", 36}}
	if end <= block {
		return append(list, part{"behind the header", block})
	}
	list = append(list, part{"start frame", block})
	var in []spot
	for _, w := range where {
		if w.file == name {
			in = append(in, w)
		}
	}
	for i, w := range []spot{in[len(in)/2], in[len(in)-1]} {
		which := []string{"middle", "last"}[i]
		list = append(list,
			part{which + " entry's frame header", w.head}, part{which + " entry's payload", w.middle()},
			part{which + " entry's commit: header", w.commit()}, part{which + " entry's commit: body", w.commit() + 48})
	}
	const footer = 184
	if int(f.size) == end || end > int(f.size)-footer {
		list = append(list, part{"footer: header", int(f.size) - footer}, part{"footer: body", int(f.size) - 100})
	} else {
		list = append(list, part{"sync mark: header", end / block * block}, part{"sync mark: body", end/block*block + 32}, part{"zeros behind the end", (end/block + 1) * block})
	}
	return list
}

// sweepAll damages every file of a layout in every way, or in each every'th way from the first'th on.
func sweepAll(l layout, tmp string, first, every int) ([]outcome, error) {
	entries := payloads(0, l.load.n, l.load.size)
	im, err := original(l.store, tmp, entries, 0)
	if err != nil {
		return nil, err
	}
	trials, err := sweep(l.store, im, entries)
	if err != nil {
		return nil, err
	}
	n := 0
	for i := first % every; i < len(trials); i += every {
		trials[n] = trials[i]
		n++
	}
	trials = trials[:n]
	list := make([]outcome, len(trials))
	err = each(len(trials), func(i int) (err error) {
		list[i], err = look(l.store, tmp, trials[i], entries, nil)
		return err
	})
	return list, err
}

// below lists the ways in which the outcome is below runlog's bar.
func (o *outcome) below() (list []string) {
	for _, w := range o.ways() {
		if !w.v.ok() {
			list = append(list, fmt.Sprintf("%s, %s (%s): %s: %s: %.300v", o.trial.row, o.trial.op, path.Base(o.trial.file), w.name, *w.v, w.v.err))
		}
	}
	return list
}
