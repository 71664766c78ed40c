package fuzz

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
)

// shuffle is something that happens to whole files of a specimen. Content is nil for a file that goes.
type shuffle struct {
	specimen int
	what     string
	files    map[string][]byte
	several  bool // verify may name one thing for another
	stale    bool // as it once was
	other    bool // a segment is another run's
	gone     bool // both manifests are gone
	foreign  bool // a manifest of another run: it and the segments contradict each other, and an error may name either
}

// shuffles lists what can happen to the files of runs of several segments: all pairs of segments, all pairs of indexes
// and filters, each file missing, each as it was some time before, each from another run that did the same, and
// manifests of another run.
func shuffles(list, others []*specimen) (all []shuffle) {
	for i, s := range list {
		add := func(what string, files map[string][]byte) *shuffle {
			all = append(all, shuffle{specimen: i, what: s.name + ", " + what, files: files})
			return &all[len(all)-1]
		}
		other := others[i]
		var segs []string
		for _, f := range s.files {
			add(f.name+" missing", map[string][]byte{f.name: nil})
			if f.segment() {
				segs = append(segs, f.name)
			}
			if b := s.older[filepath.Join(s.dir, f.name)]; b != nil && string(b) != string(f.b) && s.early == nil { // the damaged one would be whole again
				add(f.name+" as it once was", map[string][]byte{f.name: b}).stale = true
			}
			if o := other.file(f.name); o != nil && f.name != manifest.QuarantineName {
				sh := add(f.name+" of another run", map[string][]byte{f.name: o.b})
				sh.foreign, sh.other = strings.HasPrefix(f.name, manifest.FileName), f.segment()
			}
		}
		if o, p := other.file(manifest.FileName), other.file(manifest.PrevName); o != nil && p != nil {
			add("both manifests of another run", map[string][]byte{manifest.FileName: o.b, manifest.PrevName: p.b}).foreign = true
		}
		add("both manifests missing", map[string][]byte{manifest.FileName: nil, manifest.PrevName: nil}).gone = true
		beyond := segment.FileName(uint32(len(segs) + 1))
		for x, a := range segs {
			fa, ia := s.file(a), index(a)
			for _, b := range append(slices.Clone(segs), beyond, segment.FileName(uint32(len(segs)+7))) {
				if a == b {
					continue
				}
				add(a+" renamed to "+b, map[string][]byte{a: nil, b: fa.b})
				add(a+" duplicated as "+b, map[string][]byte{b: fa.b})
				if f := s.file(ia); f != nil {
					add(ia+" duplicated as "+index(b), map[string][]byte{index(b): f.b})
					add(a+" duplicated as "+b+", with index", map[string][]byte{b: fa.b, index(b): f.b})
				}
				if y := slices.Index(segs, b); y > x {
					fb := s.file(b)
					add(a+" swapped with "+b, map[string][]byte{a: fb.b, b: fa.b})
					if i, j := s.file(ia), s.file(index(b)); i != nil && j != nil {
						add(ia+" swapped with "+index(b), map[string][]byte{ia: j.b, index(b): i.b})
						add(a+" swapped with "+b+", with indexes", map[string][]byte{a: fb.b, b: fa.b, ia: j.b, index(b): i.b})
					}
				}
				if o := other.file(a); o != nil {
					add(b+" replaced by "+a+" of another run", map[string][]byte{b: o.b}).other = true
				}
			}
			for y := x + 1; y <= len(segs); y++ { // several, the newest included
				files := map[string][]byte{}
				for _, a := range segs[x:y] {
					files[a] = nil
				}
				add(fmt.Sprintf("segments %d to %d missing", x+1, y), files).several = y-x == len(segs)
			}
		}
	}
	return all
}

func index(name string) string { return strings.TrimSuffix(name, ".seg") + ".idx" }

// TestRowShuffledFiles does to whole files what can happen to them, and then two such things by chance. Each case is
// read from end to end and asked, one in four is verified, and one in four is booted on.
func TestRowShuffledFiles(t *testing.T) {
	lists := prepared(t)
	all := shuffles(lists[0], lists[1])
	var count tally
	matrix.Run(t, "shuffle", func(c *matrix.Cases) error {
		r := rand.New(rand.NewPCG(c.Seed, 13))
		const size = 50
		first, step, ordered := part(c.Seed, len(all), size)
		for i := first; i < len(all) || !ordered && i < first+size*step; i += step {
			if !c.Next() {
				return nil
			}
			sh := all[r.IntN(len(all))]
			if ordered {
				sh = all[i]
			} else {
				more := all[r.IntN(len(all))]
				for more.specimen != sh.specimen {
					more = all[r.IntN(len(all))]
				}
				if sh.other && (more.foreign || more.gone) || more.other && (sh.foreign || sh.gone) {
					continue // together they could make it the other run, from which nothing can tell it
				}
				sh = sh.with(more)
			}
			if err := sh.judge(lists[0][sh.specimen], r, &count); err != nil {
				return fmt.Errorf("%s: %w", sh.what, err)
			}
		}
		return nil
	}, matrix.Detail(func() string { return fmt.Sprintf("%d one by one %v", len(all), &count) }))
}

// with does another thing too.
func (a shuffle) with(b shuffle) shuffle {
	files := maps.Clone(b.files)
	for name, content := range a.files {
		if _, again := files[name]; !again {
			files[name] = content
		}
	}
	if len(files) == len(b.files) {
		return b // nothing is left of the first
	}
	return shuffle{a.specimen, a.what + "; " + b.what, files, true, a.stale || b.stale, a.other || b.other, a.gone || b.gone, a.foreign || b.foreign}
}

func (a *shuffle) judge(s *specimen, r *rand.Rand, t *tally) error {
	m := s.copy()
	h := harm{stale: a.stale, several: a.several || len(a.files) > 1}
	for _, name := range slices.Sorted(maps.Keys(a.files)) {
		content := a.files[name]
		h.files = append(h.files, name, index(name)) // the index of another segment is not believed
		path := filepath.Join(s.dir, name)
		var err error
		if content != nil {
			err = overwrite(m, path, content)
		} else if _, serr := m.Stat(path); serr == nil {
			err = errors.Join(m.Remove(path), m.SyncDir(s.dir))
		}
		if err != nil {
			return err
		}
	}
	if !slices.ContainsFunc([]string{manifest.FileName, manifest.PrevName, segment.FileName(1)}, func(name string) bool {
		_, err := m.Stat(filepath.Join(s.dir, name))
		return err == nil
	}) {
		h.files = append(h.files, s.run) // nothing says any more that the folder is a run's
	}
	if h.doubt, h.less = a.foreign, a.foreign; a.foreign {
		for _, f := range s.files {
			h.files = append(h.files, f.name)
		}
	}
	names, err := m.ReadDir(s.dir)
	if err != nil {
		return err
	}
	next := uint32(1)
	for _, e := range names { // the first one that is missing may be named for a gap
		if n, ok := segment.ParseFileName(e.Name()); ok && n == next {
			next++
		} else if ok {
			h.files = append(h.files, segment.FileName(next))
			break
		}
	}
	if h.damage, err = s.differs(m); err != nil {
		return err
	}
	return s.judge(m, h, shares{ask: 1, verify: 4, boot: 4}, r, t)
}
