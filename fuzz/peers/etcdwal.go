package main

import (
	"errors"
	"io"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
)

// etcdWAL is etcd's log with its defaults.
type etcdWAL struct{}

func (etcdWAL) name() string   { return "etcd wal" }
func (etcdWAL) module() string { return "go.etcd.io/etcd/server/v3" }

func (s etcdWAL) write(dir string, entries [][]byte, _ int, done func() error) error {
	w, err := wal.Create(zap.NewNop(), dir+"/wal", nil) // Create makes the folder itself
	if err != nil {
		return err
	}
	defer w.Close()
	if err := s.append(w, 0, entries); err != nil {
		return err
	}
	return done()
}

// append makes each entry what etcd calls committed: a synced Save with the state that says so.
func (etcdWAL) append(w *wal.WAL, last uint64, entries [][]byte) error {
	for i, e := range entries {
		index := last + uint64(i) + 1
		ent := &raftpb.Entry{Term: ptr(uint64(1)), Index: &index, Data: e}
		st := &raftpb.HardState{Term: ptr(uint64(1)), Vote: ptr(uint64(1)), Commit: ptr(index - 1)}
		if err := w.Save(st, []*raftpb.Entry{ent}); err != nil {
			return err
		}
	}
	return nil
}

// open does what etcd's boot does: open, read all; after an unexpected end repair once and try again.
func (etcdWAL) open(dir string) (w *wal.WAL, entries []*raftpb.Entry, err error) {
	for repaired := false; ; repaired = true {
		w, err = wal.Open(zap.NewNop(), dir+"/wal", &walpb.Snapshot{})
		if err != nil {
			return nil, nil, err
		}
		_, _, entries, err = w.ReadAll()
		if err == nil {
			return w, entries, nil
		}
		_ = w.Close()
		if repaired || !errors.Is(err, io.ErrUnexpectedEOF) || !wal.Repair(zap.NewNop(), dir+"/wal") {
			return nil, nil, err
		}
	}
}

func (s etcdWAL) read(dir string) (r reading) {
	w, entries, err := s.open(dir)
	if err != nil {
		return reading{err: err}
	}
	defer w.Close()
	for _, e := range entries {
		r.items = append(r.items, item{int(e.GetIndex()), e.Data})
	}
	return r
}

func (s etcdWAL) more(dir string, entries [][]byte) error {
	w, old, err := s.open(dir)
	if err != nil {
		return err
	}
	defer w.Close()
	var last uint64
	if len(old) > 0 {
		last = old[len(old)-1].GetIndex()
	}
	return s.append(w, last, entries)
}

// A frame is 8 bytes of length (the low 56 bits) and padding, and a record that ends in the payload.
func (etcdWAL) head(f *file, payload, size int) (off, n, length int, err error) {
	off, err = back(f, payload, 64, 8, func(at int) bool {
		return at+8+int(le.Uint64(f.data[at:])&(1<<56-1)) == payload+size
	})
	return off, 8, off, err
}

func ptr[T any](v T) *T { return &v }
