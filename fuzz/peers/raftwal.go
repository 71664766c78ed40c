package main

import (
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// raftWAL is hashicorp/raft-wal with its defaults.
type raftWAL struct{}

func (raftWAL) name() string   { return "raft-wal" }
func (raftWAL) module() string { return "github.com/hashicorp/raft-wal" }

func (s raftWAL) write(dir string, entries [][]byte, _ int, done func() error) error {
	return s.append(dir, entries, done)
}

func (s raftWAL) more(dir string, entries [][]byte) error { return s.append(dir, entries, nothing) }

func (raftWAL) append(dir string, entries [][]byte, done func() error) error {
	w, err := wal.Open(dir)
	if err != nil {
		return err
	}
	defer w.Close()
	last, err := w.LastIndex()
	if err != nil {
		return err
	}
	for i, e := range entries {
		if err := w.StoreLog(&raft.Log{Index: last + uint64(i) + 1, Term: 1, Data: e}); err != nil {
			return err
		}
	}
	return done()
}

func (raftWAL) read(dir string) (r reading) {
	w, err := wal.Open(dir)
	if err != nil {
		return reading{err: err}
	}
	defer w.Close()
	first, err := w.FirstIndex()
	r.note(err)
	last, err := w.LastIndex()
	r.note(err)
	for i := max(first, 1); i <= last; i++ {
		var l raft.Log
		if err := w.GetLog(i, &l); err != nil {
			r.note(err)
			continue
		}
		r.items = append(r.items, item{int(l.Index), l.Data})
	}
	return r
}

// A frame is kind, 3 zeros, length (4); the entry is index, term, kind (1 byte each below 128), length of the payload.
func (raftWAL) head(f *file, payload, size int) (off, n, length int, err error) {
	off, err = back(f, payload, 64, 8, func(at int) bool {
		body := int(le.Uint32(f.data[at+4:]))
		return f.data[at] == 1 && f.data[at+1] == 0 && at+8+body >= payload+size && at+8+body < payload+size+32
	})
	return off, 8, off + 4, err
}
