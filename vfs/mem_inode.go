package vfs

import (
	"bytes"
	"slices"
	"sort"
)

// inode is the content of a file of a Mem, whose lock guards it. Contents are slices of one sector each that are never
// changed once stored, so that crashes and clones share them; nil stands for zeros, so that a zero-filled file costs
// nothing.
type inode struct {
	ss       int64 // sector size
	size     int64 // as programs see it
	diskSize int64

	sectors map[int64]*sector
	dirty   []int64     // sectors that changed since the last sync, each once
	sizes   []sizeState // since the last sync, oldest first
	cuts    []int64     // sizes of Truncates since the last sync that cut off something
	zeroed  ranges      // sectors that zeros were written to since the last sync where zeros were
	alloc   ranges      // sectors that take space
	// fresh are sectors that were reserved, and that no sync has covered a write to.
	fresh ranges
}

type sector struct {
	cache    []byte
	disk     []byte
	versions []version // written since the last sync, oldest first; a failed sync or write forgets them
	dirty    bool      // listed in inode.dirty
}

// version is a content a sector had; cuts tells how many of the inode's cuts came before it.
type version struct {
	data []byte
	cuts int
}

// sizeState is a size the file had, with the cuts made until then.
type sizeState struct {
	size int64
	cuts int
}

// view selects what inode.read returns.
type view int

const (
	inCache view = iota
	// uncached is what a direct read sees: unwritten versions are written first, failed ones are not there.
	uncached
)

func newInode(ss int64) *inode { return &inode{ss: ss, sectors: map[int64]*sector{}} }

// span returns the sectors that hold [off, off+length).
func (n *inode) span(off, length int64) (first, end int64) {
	return off / n.ss, (off + length + n.ss - 1) / n.ss
}

func (n *inode) read(p []byte, off int64, v view) {
	clear(p)
	if len(n.sectors) == 0 {
		return
	}
	first, end := n.span(off, int64(len(p)))
	for s := first; s < end; s++ {
		sec := n.sectors[s]
		if sec == nil {
			continue
		}
		b := sec.cache
		if v == uncached && len(sec.versions) == 0 {
			b = n.afterCuts(sec.disk, s, 0, len(n.cuts))
		}
		if b != nil {
			lo := max(off, s*n.ss)
			copy(p[lo-off:], b[lo-s*n.ss:])
		}
	}
}

// write puts p into the cache.
func (n *inode) write(p []byte, off int64) {
	if len(p) == 0 {
		return
	}
	if end := off + int64(len(p)); end > n.size {
		n.setSize(end)
	}
	first, end := n.span(off, int64(len(p)))
	if len(n.sectors) == 0 && isZero(p) {
		n.zeroed.add(first, end)
		return
	}
	var backing []byte
	for s := first; s < end; s++ {
		lo, hi := max(off, s*n.ss), min(off+int64(len(p)), (s+1)*n.ss)
		part := p[lo-off : hi-off]
		zero := isZero(part)
		sec := n.sectors[s]
		if sec == nil {
			if zero {
				n.zeroed.add(s, s+1)
				continue
			}
			sec = n.add(s)
		}
		var data []byte // a sector of zeros stays nil
		if !zero || int64(len(part)) < n.ss && sec.cache != nil {
			if backing == nil {
				backing = make([]byte, (end-s)*n.ss)
			}
			data, backing = backing[:n.ss:n.ss], backing[n.ss:]
			if int64(len(part)) < n.ss {
				copy(data, sec.cache)
			}
			copy(data[lo-s*n.ss:], part)
		}
		sec.cache = data
		sec.versions = append(sec.versions, version{data, len(n.cuts)})
		n.markDirty(s, sec)
	}
}

func (n *inode) add(s int64) *sector {
	sec := new(sector)
	n.sectors[s] = sec
	return sec
}

func (n *inode) markDirty(s int64, sec *sector) {
	if !sec.dirty {
		sec.dirty = true
		n.dirty = append(n.dirty, s)
	}
}

// reserve notes which of the first sectors take space only from now on.
func (n *inode) reserve(end int64) {
	for _, e := range n.alloc.without(0, end) {
		n.fresh.add(e.lo, e.hi)
	}
}

func (n *inode) setSize(size int64) {
	n.size = size
	n.sizes = append(n.sizes, sizeState{size, len(n.cuts)})
}

func (n *inode) truncate(size int64) {
	if size == n.size {
		return
	}
	if size < n.size {
		n.cuts = append(n.cuts, size)
		for s, sec := range n.sectors {
			if (s+1)*n.ss > size {
				sec.cache = cutTail(sec.cache, size-s*n.ss)
				n.markDirty(s, sec)
			}
		}
		n.zeroed.cut((size + n.ss - 1) / n.ss)
		n.fresh.cut((size + n.ss - 1) / n.ss)
	}
	n.setSize(size)
}

// sync makes the disk hold what was written since the last one.
func (n *inode) sync() {
	for _, s := range n.dirty {
		n.syncSector(s)
	}
	for _, e := range n.zeroed {
		n.fresh.remove(e.lo, e.hi)
	}
	n.dirty = n.dirty[:0]
	n.diskSize, n.sizes, n.cuts, n.zeroed = n.size, nil, nil, nil
}

func (n *inode) syncSector(s int64) {
	sec := n.sectors[s]
	if len(sec.versions) > 0 {
		n.fresh.remove(s, s+1)
	}
	sec.disk = n.written(sec, s)
	sec.dirty, sec.versions = false, nil
	if isZero(sec.disk) {
		sec.disk = nil
		if isZero(sec.cache) {
			delete(n.sectors, s)
		}
	}
}

// flush makes the dirty sectors in [first, end) durable and nothing else.
func (n *inode) flush(first, end int64) {
	n.dirty = slices.DeleteFunc(n.dirty, func(s int64) bool {
		if s < first || s >= end || len(n.sectors[s].versions) == 0 {
			return false
		}
		n.syncSector(s)
		return true
	})
}

// written is what the disk holds when all that is not lost has been written.
func (n *inode) written(sec *sector, s int64) []byte {
	if len(sec.versions) > 0 {
		return sec.cache
	}
	return n.afterCuts(sec.disk, s, 0, len(n.cuts))
}

// lose is a failed write-back: the dirty sectors in [first, end) become clean without being written, except for the
// versions that landed picks (nil: none). The size still waits for the next sync.
func (n *inode) lose(first, end int64, name string, landed Chooser) {
	slices.Sort(n.dirty)
	for _, s := range n.dirty {
		if sec := n.sectors[s]; s >= first && s < end && len(sec.versions) > 0 {
			if all := n.candidates(s, len(n.cuts)); landed != nil && len(all) > 1 {
				sec.disk = all[landed.pick(Choice{Kind: SectorChoice, Name: name, Sector: s,
					Options: len(all), Newest: len(all) - 1, Garbage: -1})]
			}
			sec.versions = nil
		}
	}
}

// candidates returns what sector s may hold after a power cut that leaves the first `kept` cuts done; what the disk
// holds now comes first, the newest last.
func (n *inode) candidates(s int64, kept int) [][]byte {
	sec := n.sectors[s]
	all := [][]byte{n.afterCuts(sec.disk, s, 0, kept)}
	for _, v := range sec.versions {
		if n.cutBetween(s, kept, v.cuts) {
			break // written to space that the file has got only after a cut that is lost
		}
		if data := n.afterCuts(v.data, s, v.cuts, kept); !sameContent(data, all[len(all)-1]) {
			all = append(all, data)
		}
	}
	return all
}

// afterCuts applies the cuts [from, to) to a content of sector s.
func (n *inode) afterCuts(b []byte, s int64, from, to int) []byte {
	for ; from < to; from++ {
		b = cutTail(b, n.cuts[from]-s*n.ss)
	}
	return b
}

// cutBetween says whether one of the cuts [from, to) touches sector s.
func (n *inode) cutBetween(s int64, from, to int) bool {
	for ; from < to; from++ {
		if n.cuts[from] < (s+1)*n.ss {
			return true
		}
	}
	return false
}

func (n *inode) clone() *inode {
	c := *n
	c.dirty = slices.Clone(n.dirty)
	c.sizes, c.cuts = slices.Clone(n.sizes), slices.Clone(n.cuts)
	c.zeroed, c.alloc, c.fresh = slices.Clone(n.zeroed), slices.Clone(n.alloc), slices.Clone(n.fresh)
	c.sectors = make(map[int64]*sector, len(n.sectors))
	all := make([]sector, 0, len(n.sectors))
	for s, sec := range n.sectors {
		all = append(all, *sec)
		k := &all[len(all)-1]
		k.versions = slices.Clone(k.versions)
		c.sectors[s] = k
	}
	return &c
}

// cutTail returns a sector's content with zeros from keep on.
func cutTail(b []byte, keep int64) []byte {
	if b == nil || keep <= 0 {
		return nil
	}
	if keep >= int64(len(b)) {
		return b
	}
	c := make([]byte, len(b))
	copy(c, b[:keep])
	return c
}

var zeros [4096]byte

func isZero(b []byte) bool {
	for len(b) > len(zeros) {
		if !bytes.Equal(b[:len(zeros)], zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return bytes.Equal(b, zeros[:len(b)])
}

func sameContent(a, b []byte) bool {
	if a == nil || b == nil {
		return isZero(a) && isZero(b)
	}
	return bytes.Equal(a, b)
}

// ranges is a set of sectors as sorted, disjoint, non-adjacent ranges.
type ranges []extent

type extent struct{ lo, hi int64 }

// add returns how many of [lo, hi) were not in the set.
func (r *ranges) add(lo, hi int64) int64 {
	if lo >= hi {
		return 0
	}
	i := sort.Search(len(*r), func(i int) bool { return (*r)[i].hi >= lo })
	j, added, all := i, hi-lo, extent{lo, hi}
	for ; j < len(*r) && (*r)[j].lo <= hi; j++ {
		e := (*r)[j]
		added -= min(hi, e.hi) - max(lo, e.lo)
		all = extent{min(all.lo, e.lo), max(all.hi, e.hi)}
	}
	*r = slices.Replace(*r, i, j, all)
	return added
}

// has returns the end of the range that s is in, or s.
func (r ranges) has(s int64) int64 {
	i := sort.Search(len(r), func(i int) bool { return r[i].hi > s })
	if i < len(r) && r[i].lo <= s {
		return r[i].hi
	}
	return s
}

// without returns what of [lo, hi) is not in the set.
func (r ranges) without(lo, hi int64) (gaps []extent) {
	for _, e := range r {
		if e.hi <= lo {
			continue
		}
		if e.lo >= hi {
			break
		}
		if e.lo > lo {
			gaps = append(gaps, extent{lo, e.lo})
		}
		lo = e.hi
	}
	if lo < hi {
		gaps = append(gaps, extent{lo, hi})
	}
	return gaps
}

// remove takes [lo, hi) out of the set.
func (r *ranges) remove(lo, hi int64) {
	i := sort.Search(len(*r), func(i int) bool { return (*r)[i].hi > lo })
	j := i
	var left []extent
	for ; j < len(*r) && (*r)[j].lo < hi; j++ {
		e := (*r)[j]
		if e.lo < lo {
			left = append(left, extent{e.lo, lo})
		}
		if e.hi > hi {
			left = append(left, extent{hi, e.hi})
		}
	}
	*r = slices.Replace(*r, i, j, left...)
}

// cut removes everything from at on and returns how much that was.
func (r *ranges) cut(at int64) (removed int64) {
	for len(*r) > 0 {
		e := &(*r)[len(*r)-1]
		if e.hi <= at {
			break
		}
		removed += e.hi - max(at, e.lo)
		if e.lo < at {
			e.hi = at
			break
		}
		*r = (*r)[:len(*r)-1]
	}
	return removed
}

func (r ranges) total() (n int64) {
	for _, e := range r {
		n += e.hi - e.lo
	}
	return n
}
