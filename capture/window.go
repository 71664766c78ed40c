package capture

import (
	"strings"
	"sync"

	"github.com/runlog-io/runlog/entry"
)

// window remembers the last identities, first in, first out: a ring in order of age, and a hash table over it with
// linear probing. All operations are O(1) and do not allocate, except for the first use of a payload type. It holds
// no pointers but the names of the types, so that a big window costs the garbage collector nothing. It is safe for
// concurrent use.
type window struct {
	mu    sync.Mutex        // guards all below
	types map[string]uint32 // numbers of the payload types seen, from 1; never shrinks, as payload types are few
	ring  []identity        // a ring: n identities from oldest on
	table []uint32          // position in the ring plus 1; 0 is empty; at least twice as many as the ring has
	first int               // position of the oldest
	n     int
}

type identity struct {
	id   entry.ID
	typ  uint32
	hash uint32 // where the table is probed from, modulo its size
}

// maxWindow bounds the memory of a window to about 2 GiB, and its table to what 32-bit hashes fill.
const maxWindow = 1 << 26

// newWindow returns an empty window. The memory is zero pages that cost nothing before they are used.
func newWindow(size int) *window {
	slots := 4
	for slots < 2*size {
		slots *= 2
	}
	return &window{types: make(map[string]uint32), ring: make([]identity, size), table: make([]uint32, slots)}
}

func newIdentity(typ uint32, id entry.ID, hash uint64) identity {
	return identity{id: id, typ: typ, hash: uint32(hash) + typ*0x9e3779b1}
}

// has reports whether an identity is remembered. hash is any good hash of the id, always the same.
func (w *window) has(typ string, id entry.ID, hash uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	no, ok := w.types[typ]
	if !ok {
		return false
	}
	_, found := w.find(newIdentity(no, id, hash))
	return found
}

// add remembers an identity as the newest and forgets the oldest if there is no room.
func (w *window) add(typ string, id entry.ID, hash uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	x := newIdentity(w.typeNo(typ), id, hash)
	if _, found := w.find(x); found {
		return
	}
	if w.n == len(w.ring) {
		w.forgetOldest()
	}
	w.put(w.at(w.n), x)
}

// addOldest remembers an identity as older than all others, if there is room; added says whether it was news.
func (w *window) addOldest(typ string, id entry.ID, hash uint64) (added, full bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n == len(w.ring) {
		return false, true
	}
	x := newIdentity(w.typeNo(typ), id, hash)
	if _, found := w.find(x); found {
		return false, false
	}
	w.first = w.at(len(w.ring) - 1)
	w.put(w.first, x)
	return true, w.n == len(w.ring)
}

func (w *window) full() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n == len(w.ring)
}

func (w *window) typeNo(typ string) uint32 {
	no, ok := w.types[typ]
	if !ok {
		no = uint32(len(w.types) + 1)
		w.types[strings.Clone(typ)] = no // an encoder's SetType may have passed a slice of its message
	}
	return no
}

// at is the position of the i-th oldest, i < 2*len(ring).
func (w *window) at(i int) int {
	if i += w.first; i >= len(w.ring) {
		i -= len(w.ring)
	}
	return i
}

// find returns the table's slot of x, or the empty slot where it belongs.
func (w *window) find(x identity) (slot uint32, found bool) {
	mask := uint32(len(w.table) - 1)
	for slot = x.hash & mask; w.table[slot] != 0; slot = (slot + 1) & mask {
		if w.ring[w.table[slot]-1] == x {
			return slot, true
		}
	}
	return slot, false
}

func (w *window) put(pos int, x identity) {
	slot, _ := w.find(x)
	w.ring[pos] = x
	w.table[slot] = uint32(pos + 1)
	w.n++
}

func (w *window) forgetOldest() {
	mask := uint32(len(w.table) - 1)
	hole, _ := w.find(w.ring[w.first])
	// Close the hole, so that no probe ends at it too early: move back what was probed past it.
	for slot := (hole + 1) & mask; w.table[slot] != 0; slot = (slot + 1) & mask {
		home := w.ring[w.table[slot]-1].hash & mask
		if (slot-home)&mask >= (slot-hole)&mask {
			w.table[hole] = w.table[slot]
			hole = slot
		}
	}
	w.table[hole] = 0
	w.first = w.at(1)
	w.n--
}
