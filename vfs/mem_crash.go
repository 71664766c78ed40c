package vfs

import (
	"encoding/binary"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
)

// ChoiceKind says what a Choice is about.
type ChoiceKind int

const (
	// EntryChoice: the place of a file or folder that was created, moved or removed since the last SyncDir.
	EntryChoice ChoiceKind = iota
	// SizeChoice: the size of a file that changed since the last Datasync.
	SizeChoice
	// SectorChoice: the content of a sector that was written since the last Datasync, or never (MemOptions.StaleReserved).
	SectorChoice
)

// String names the kind.
func (k ChoiceKind) String() string {
	return [...]string{EntryChoice: "entry", SizeChoice: "size", SectorChoice: "sector"}[k]
}

// Choice is one thing that a power cut leaves to chance. The outcomes are numbered from 0, the durable one, in the
// order in which they were asked for.
type Choice struct {
	Kind    ChoiceKind
	Name    string // the file, as programs saw it last; "" if it was removed
	Sector  int64  // of a SectorChoice
	Options int    // number of outcomes, at least 2
	Newest  int    // the outcome that loses nothing
	Garbage int    // the outcome that is garbage, or -1
}

func (c Choice) String() string {
	return fmt.Sprintf("%s %s[%d]: %d outcomes", c.Kind, c.Name, c.Sector, c.Options)
}

// Chooser returns the number of an outcome; anything else means 0. It is called with the Mem locked and must not use
// it.
type Chooser func(Choice) int

func (choose Chooser) pick(c Choice) int {
	if i := choose(c); i >= 0 && i < c.Options {
		return i
	}
	return 0
}

// LoseAll loses everything that was not synced.
func LoseAll() Chooser { return func(Choice) int { return 0 } }

// KeepAll loses nothing but what an earlier failure has lost already.
func KeepAll() Chooser { return func(c Choice) int { return c.Newest } }

// Scramble turns everything it can to garbage and loses the rest.
func Scramble() Chooser { return func(c Choice) int { return max(c.Garbage, 0) } }

// Random chooses by chance: the same seed, the same choices. Seeds differ in how much they tend to lose.
func Random(seed uint64) Chooser {
	r := rand.New(rand.NewPCG(seed, 0x72756e6c6f67))
	lose := []float64{0.5, 0.1, 0.9}[r.IntN(3)]
	return func(c Choice) int {
		switch x := r.Float64(); {
		case x < lose:
			if c.Garbage >= 0 && r.IntN(2) == 0 {
				return c.Garbage
			}
			return 0
		case x < lose+(1-lose)*3/4:
			return c.Newest
		default:
			return r.IntN(c.Options)
		}
	}
}

// Replay repeats choices that EachCrash reported; after them it chooses 0.
func Replay(path []int) Chooser {
	return func(Choice) int {
		if len(path) == 0 {
			return 0
		}
		i := path[0]
		path = path[1:]
		return i
	}
}

// Crash returns what a power cut at this moment leaves: names and contents are those of the disk, open files, locks,
// rules, hook and counters are gone. The old Mem and its handles live on as a world of their own in which the power
// stayed on. Choices come in a fixed order: the same history and the same answers give the same disk.
func (m *Mem) Crash(choose Chooser) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()

	// Every moved node picks a place. On its way there it took other names from whoever had them before: of several nodes
	// that were put in the same place the last one has it, even if only to leave it again (a claim of no node).
	names := map[*node]map[string]claim{} // of folders that differ from onDisk
	in := func(dir *node) map[string]claim {
		if names[dir] == nil {
			names[dir] = maps.Clone(dir.onDisk)
		}
		return names[dir]
	}
	chosen := make([]int, len(m.pending)) // 0 is home, i is moves[i-1]
	for i, n := range m.pending {
		if chosen[i] = n.choosePlace(choose); chosen[i] > 0 && n.home.dir != nil {
			in(n.home.dir)[n.home.name] = claim{seq: n.home.seq}
		}
	}
	for i, n := range m.pending {
		for j, p := range n.moves[:chosen[i]] {
			if p.dir == nil || in(p.dir)[p.name].seq > p.seq {
				continue
			}
			if j == chosen[i]-1 {
				in(p.dir)[p.name] = claim{n, p.seq}
			} else {
				in(p.dir)[p.name] = claim{nil, p.seq}
			}
		}
	}

	after := NewMem(m.opt)
	var build func(from, to *node)
	build = func(from, to *node) {
		list := from.onDisk
		if changed := names[from]; changed != nil {
			list = changed
		}
		for _, name := range slices.Sorted(maps.Keys(list)) {
			n := list[name].node
			if n == nil {
				continue
			}
			k := &node{parent: to, name: name, home: place{dir: to, name: name}}
			to.entries[name], to.onDisk[name] = k, claim{node: k}
			if n.file == nil {
				k.entries, k.onDisk = map[string]*node{}, map[string]claim{}
				build(n, k)
				continue
			}
			k.file = n.file.crash(k.path(), &m.opt, choose)
			after.used += k.file.alloc.total() * k.file.ss
		}
	}
	build(m.root, after.root)
	return after
}

// choosePlace returns 0 for home or i for moves[i-1].
func (n *node) choosePlace(choose Chooser) int {
	options := []int{0}
	newest, took := 0, false
	for i, p := range n.moves {
		took = took || p.took
		if p.dir == nil && n.home.dir == nil && !took {
			newest = 0 // created and removed again: as if it had never been
			continue
		}
		newest = len(options)
		options = append(options, i+1)
	}
	if len(options) == 1 {
		return 0
	}
	return options[choose.pick(Choice{Kind: EntryChoice, Name: n.path(), Options: len(options), Newest: newest,
		Garbage: -1})]
}

func (n *node) path() string {
	if n.parent == nil {
		return ""
	}
	return path.Join(n.parent.path(), n.name)
}

// crash returns the file that a power cut leaves.
func (n *inode) crash(name string, opt *MemOptions, choose Chooser) *inode {
	at := sizeState{size: n.diskSize}
	if k := len(n.sizes); k > 0 {
		if i := choose.pick(Choice{Kind: SizeChoice, Name: name, Options: k + 1, Newest: k, Garbage: -1}); i > 0 {
			at = n.sizes[i-1]
		}
	}
	c := newInode(n.ss)
	c.size, c.diskSize = at.size, at.size
	_, end := n.span(0, at.size)
	c.alloc = slices.Clone(n.alloc)
	c.alloc.cut(end)
	for s, sec := range n.sectors {
		if s < end && !sec.dirty {
			c.settle(s, sec.disk)
		}
	}
	for _, run := range n.spoilable(opt) {
		if run.lo < end && choose.pick(Choice{Kind: SectorChoice, Name: name, Sector: run.lo, Options: 2,
			Garbage: 1}) == 1 {
			n.spoil(c, run, end)
		}
	}
	slices.Sort(n.dirty)
	for _, s := range n.dirty {
		if s >= end {
			continue
		}
		all := n.candidates(s, at.cuts)
		ch := Choice{Kind: SectorChoice, Name: name, Sector: s, Options: len(all), Newest: len(all) - 1, Garbage: -1}
		garbage := opt.Garbage || opt.StaleReserved && n.fresh.has(s) > s
		if garbage && len(all) > 1 && (isZero(all[0]) || s*n.ss >= n.diskSize) {
			ch.Garbage = ch.Options
			ch.Options++
		}
		k := 0
		if ch.Options > 1 {
			k = choose.pick(ch)
		}
		if k == ch.Garbage {
			c.settle(s, n.garbage(s))
		} else {
			c.settle(s, all[k])
		}
	}
	return c
}

// settle sets a sector's content, in cache and on disk; what is behind the end of the file is zeros.
func (n *inode) settle(s int64, b []byte) {
	if b = cutTail(b, n.size-s*n.ss); !isZero(b) {
		n.sectors[s] = &sector{cache: b, disk: b}
	}
}

// maxSpoiled bounds the garbage that one run of zeros becomes at each of its ends: more would only cost time.
const maxSpoiled = 32

// spoilable are the runs of zeros that can become garbage: those that were written and not synced, and those that were never
// written.
func (n *inode) spoilable(opt *MemOptions) (runs ranges) {
	if opt.Garbage {
		runs = slices.Clone(n.zeroed)
	}
	if !opt.StaleReserved {
		return runs
	}
	for _, e := range n.fresh {
		for e.lo < e.hi && n.sectors[e.lo] != nil { // these have a choice of their own
			e.lo++
		}
		runs.add(e.lo, e.hi)
	}
	return runs
}

// spoil turns a run of zeros to garbage in c.
func (n *inode) spoil(c *inode, run extent, end int64) {
	for s := run.lo; s < min(run.hi, end); s++ {
		if s >= run.lo+maxSpoiled && s < run.hi-maxSpoiled {
			s = run.hi - maxSpoiled
		}
		if s < end && n.sectors[s] == nil {
			c.settle(s, n.garbage(s))
		}
	}
}

// garbage returns what a sector holds that was allocated but not written: noise, or, at every other place, what another
// sector of the file holds on disk.
func (n *inode) garbage(s int64) []byte {
	r := rand.NewPCG(uint64(s), uint64(n.ss))
	if x := r.Uint64(); x%2 == 0 && s > 0 {
		if stale := n.sectors[int64(x>>1)%s]; stale != nil && stale.disk != nil {
			return stale.disk
		}
	}
	b := make([]byte, n.ss)
	var word [8]byte
	for i := 0; i < len(b); i += copy(b[i:], word[:]) {
		binary.LittleEndian.PutUint64(word[:], r.Uint64()|1)
	}
	return b
}

// EachCrash yields every state that a power cut at this moment can leave, each with the choices that lead to it: their
// number is the product of the choices' outcomes, so keep it small (see Choices). Replay(path) leads there again.
func (m *Mem) EachCrash() iter.Seq2[[]int, *Mem] {
	return func(yield func([]int, *Mem) bool) {
		var prefix []int
		for {
			var taken, options []int
			state := m.Crash(func(c Choice) int {
				i := 0
				if len(taken) < len(prefix) {
					i = prefix[len(taken)]
				}
				taken, options = append(taken, i), append(options, c.Options)
				return i
			})
			next := len(taken) - 1
			for next >= 0 && taken[next]+1 == options[next] {
				next--
			}
			if next >= 0 {
				prefix = append(slices.Clone(taken[:next]), taken[next]+1)
			}
			if !yield(taken, state) || next < 0 {
				return
			}
		}
	}
}

// Choices lists what a power cut at this moment leaves to chance if it loses nothing. What is lost with something else
// (the content of a lost file, sectors behind a lost size) is no choice then, and cutting less short opens others.
func (m *Mem) Choices() []Choice {
	var all []Choice
	m.Crash(func(c Choice) int {
		all = append(all, c)
		return c.Newest
	})
	return all
}

// Kill returns what a process finds that starts after this one was killed while the machine stayed on: the page cache
// with all that was not synced or could not be written, so that a power cut can still take it. Open files, locks,
// rules, hook and counters are gone. The old Mem lives on as a world of its own.
func (m *Mem) Kill() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	after := &Mem{opt: m.opt, lastMove: m.lastMove}
	twins := map[*node]*node{}
	var twin func(n *node) *node
	twinPlace := func(p place) place {
		p.dir, p.left = twin(p.dir), twin(p.left)
		return p
	}
	twin = func(n *node) *node {
		if n == nil || twins[n] != nil {
			return twins[n]
		}
		t := &node{name: n.name}
		twins[n] = t
		t.parent = twin(n.parent)
		t.home = twinPlace(n.home)
		for _, p := range n.moves {
			t.moves = append(t.moves, twinPlace(p))
		}
		if n.file != nil {
			t.file = n.file.clone()
			if t.parent == nil {
				t.file.alloc = nil // only a handle kept it
			}
			after.used += t.file.alloc.total() * t.file.ss
			return t
		}
		t.entries, t.onDisk = map[string]*node{}, map[string]claim{}
		for name, e := range n.entries {
			t.entries[name] = twin(e)
		}
		for name, c := range n.onDisk {
			t.onDisk[name] = claim{twin(c.node), c.seq}
		}
		return t
	}
	after.root = twin(m.root)
	for _, n := range m.pending {
		after.pending = append(after.pending, twin(n))
	}
	return after
}
