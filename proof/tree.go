package proof

import (
	"fmt"
	"math"

	"golang.org/x/mod/sumdb/tlog"
)

// Hash is a node of the tree: SHA-256. Its text form is standard base64.
type Hash = tlog.Hash

// Tree computes the root of a tree whose leaves come one after the other, and the proofs of some leaves that were named
// before. It keeps about as many hashes as these proofs have, and no others: for a root alone some dozens, whatever the
// size. Not safe for concurrent use.
type Tree struct {
	size int64
	next int64          // leaf that comes next
	keep map[int64]Hash // hashes that the root and the proofs are made of, by tlog's index; the zero Hash before it is known
	edge [64]Hash       // newest whole subtree of each level
}

// NewTree makes the tree of a run with entries 1 to size. seqs are those that will be proven.
func NewTree(size uint64, seqs []uint64) (*Tree, error) {
	if size >= math.MaxInt64/4 {
		return nil, fmt.Errorf("a tree of %d entries", size)
	}
	t := &Tree{size: int64(size), keep: map[int64]Hash{}}
	// tlog asks for all hashes of a root or a proof at once. So asking it beforehand tells what to keep.
	want := tlog.HashReaderFunc(func(indexes []int64) ([]Hash, error) {
		for _, i := range indexes {
			t.keep[i] = Hash{}
		}
		return make([]Hash, len(indexes)), nil
	})
	if _, err := tlog.TreeHash(t.size, want); err != nil {
		return nil, err
	}
	for _, seq := range seqs {
		if seq == 0 || seq > size {
			return nil, fmt.Errorf("seq %d: the run has 1 to %d", seq, size)
		}
		if _, err := tlog.ProveRecord(t.size, int64(seq)-1, want); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// Add adds the leaf of the next entry.
func (t *Tree) Add(leaf []byte) error {
	if t.next == t.size {
		return fmt.Errorf("the run has more than its %d entries", t.size)
	}
	hashes, err := tlog.StoredHashes(t.next, leaf, tlog.HashReaderFunc(t.siblings))
	if err != nil {
		return err
	}
	first := tlog.StoredHashIndex(0, t.next)
	for level, h := range hashes {
		t.edge[level] = h
		if _, wanted := t.keep[first+int64(level)]; wanted {
			t.keep[first+int64(level)] = h
		}
	}
	t.next++
	return nil
}

// siblings gives the subtrees that a new leaf completes to larger ones. Each is the newest whole one of its level.
func (t *Tree) siblings(indexes []int64) ([]Hash, error) {
	hashes := make([]Hash, len(indexes))
	for i, index := range indexes {
		level, _ := tlog.SplitStoredHashIndex(index)
		hashes[i] = t.edge[level]
	}
	return hashes, nil
}

func (t *Tree) kept(indexes []int64) ([]Hash, error) {
	if t.next != t.size {
		return nil, fmt.Errorf("%d of %d entries were added", t.next, t.size)
	}
	hashes := make([]Hash, len(indexes))
	for i, index := range indexes {
		h, ok := t.keep[index]
		if !ok {
			return nil, fmt.Errorf("a proof that NewTree was not asked for")
		}
		hashes[i] = h
	}
	return hashes, nil
}

// Root is the root of the tree, once all leaves were added.
func (t *Tree) Root() (Hash, error) { return tlog.TreeHash(t.size, tlog.HashReaderFunc(t.kept)) }

// Path is the proof of an entry that NewTree was asked for, once all leaves were added: the hashes beside the way from
// its leaf to the root, the lowest first.
func (t *Tree) Path(seq uint64) ([]Hash, error) {
	return tlog.ProveRecord(t.size, int64(seq)-1, tlog.HashReaderFunc(t.kept))
}
