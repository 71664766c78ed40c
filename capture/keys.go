package capture

import (
	"strconv"
	"unsafe"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog/entry"
)

// Keys collects what an encoder has to say beside the payload: the keys that the entry is found by, in order, and,
// rarely, another payload type. The log refuses an entry with an empty or overlong value, or of a kind that is not
// declared.
//
// An encoder must not keep its Keys. The zero value is ready to use, which helps to test an encoder by itself.
type Keys struct {
	list  []entry.Key
	arena []byte // values made by AddBytes, AddUint and AddInt; never overwritten before reset
	typ   string
	table []uint32 // of Dedup
}

// Add adds a key.
func (k *Keys) Add(kind, value string) { k.list = append(k.list, entry.Key{Kind: kind, Value: value}) }

// AddIfSet adds a key unless the value is empty: for messages with optional ids.
func (k *Keys) AddIfSet(kind, value string) {
	if value != "" {
		k.Add(kind, value)
	}
}

// AddUnique adds a key unless it was added before. Its cost grows with the number of keys; for many, see Dedup.
func (k *Keys) AddUnique(kind, value string) {
	key := entry.Key{Kind: kind, Value: value}
	for i := range k.list {
		if k.list[i] == key {
			return
		}
	}
	k.list = append(k.list, key)
}

// AddBytes adds a key with a copy of value.
func (k *Keys) AddBytes(kind string, value []byte) {
	start := len(k.arena)
	k.arena = append(k.arena, value...)
	k.addArena(kind, start)
}

// AddUint adds a key with n in decimal.
func (k *Keys) AddUint(kind string, n uint64) {
	start := len(k.arena)
	k.arena = strconv.AppendUint(k.arena, n, 10)
	k.addArena(kind, start)
}

// AddInt adds a key with n in decimal.
func (k *Keys) AddInt(kind string, n int64) {
	start := len(k.arena)
	k.arena = strconv.AppendInt(k.arena, n, 10)
	k.addArena(kind, start)
}

// addArena adds the key whose value is arena[start:]. The string shares the arena's memory, which stays as it is
// until reset: when the arena grows, earlier strings keep the old array.
func (k *Keys) addArena(kind string, start int) {
	v := k.arena[start:]
	k.Add(kind, unsafe.String(unsafe.SliceData(v), len(v)))
}

// dedupLinear is the number of keys up to which comparing each with each beats a hash table.
const dedupLinear = 16

// Dedup removes repeated keys; the first of each stays where it is. A composite whose parts share ids calls it last.
func (k *Keys) Dedup() {
	if len(k.list) <= dedupLinear {
		all := k.list
		k.list = k.list[:0]
		for i := range all {
			k.AddUnique(all[i].Kind, all[i].Value)
		}
		clear(all[len(k.list):])
		return
	}
	size := 1
	for size < 2*len(k.list) {
		size *= 2
	}
	if cap(k.table) < size {
		k.table = make([]uint32, size)
	}
	table := k.table[:size]
	clear(table)
	n := 0 // kept
next:
	for i := range k.list {
		at := xxhash.Sum64String(k.list[i].Value) & uint64(size-1)
		for ; table[at] != 0; at = (at + 1) & uint64(size-1) {
			if k.list[table[at]-1] == k.list[i] {
				continue next
			}
		}
		k.list[n] = k.list[i]
		n++
		table[at] = uint32(n)
	}
	clear(k.list[n:])
	k.list = k.list[:n]
}

// SetType makes the entry's payload type another one than the registered: for a wrapper that shall be stored under
// the name of what it wraps. Empty means the registered one.
func (k *Keys) SetType(payloadType string) { k.typ = payloadType }

// Type returns what SetType has set.
func (k *Keys) Type() string { return k.typ }

// Len returns the number of keys.
func (k *Keys) Len() int { return len(k.list) }

// List returns the keys, in place.
func (k *Keys) List() []entry.Key { return k.list }

// reset empties k and keeps its memory, but not what the keys refer to.
func (k *Keys) reset() {
	clear(k.list)
	k.list, k.typ = k.list[:0], ""
	if cap(k.arena) > keepBytes {
		k.arena = nil
	}
	k.arena = k.arena[:0]
}
