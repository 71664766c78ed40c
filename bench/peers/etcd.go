package main

import (
	"errors"
	"io"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
)

// etcdStore is etcd's log with its defaults.
type etcdStore struct{}

func (etcdStore) name() string   { return "etcd wal" }
func (etcdStore) module() string { return "go.etcd.io/etcd/server/v3" }

func (etcdStore) lacks(t task) (string, bool) {
	switch t {
	case group:
		return cannot("commits one Save at a time, so callers do not share a sync")
	case keyed, find:
		return cannot("has no order ids")
	case get:
		return cannot("has no read by number: opening reads everything into memory")
	case scan:
		return can("opening reads everything into memory; CRC-32C over all records")
	case reopen:
		return can("reads everything into memory")
	default:
		return can("no order ids, no read by number")
	}
}

type etcdLog struct {
	w       *wal.WAL
	dir     string
	entries []*raftpb.Entry // what was there when the log was opened
	batch   []*raftpb.Entry
	seq     uint64
}

var term = uint64(1)

func (etcdStore) open(dir string, _ options) (log, error) {
	dir = filepath.Join(dir, "wal") // Create makes it itself
	if !wal.Exist(dir) {
		w, err := wal.Create(zap.NewNop(), dir, nil)
		if err != nil {
			return nil, err
		}
		return &etcdLog{w: w, dir: dir}, nil
	}
	w, entries, err := openEtcd(dir)
	if err != nil {
		return nil, err
	}
	l := &etcdLog{w: w, dir: dir, entries: entries}
	if len(entries) > 0 {
		l.seq = entries[len(entries)-1].GetIndex()
	}
	return l, nil
}

// openEtcd does what etcd's boot does: open, read all; after an unexpected end repair once and try again.
func openEtcd(dir string) (w *wal.WAL, entries []*raftpb.Entry, err error) {
	for repaired := false; ; repaired = true {
		w, err = wal.Open(zap.NewNop(), dir, &walpb.Snapshot{})
		if err != nil {
			return nil, nil, err
		}
		if _, _, entries, err = w.ReadAll(); err == nil {
			return w, entries, nil
		}
		_ = w.Close()
		if repaired || !errors.Is(err, io.ErrUnexpectedEOF) || !wal.Repair(zap.NewNop(), dir) {
			return nil, nil, err
		}
	}
}

// append is a synced Save with the state that says that all is committed.
func (l *etcdLog) append(items []item) error {
	for len(l.batch) < len(items) {
		l.batch = append(l.batch, &raftpb.Entry{Term: &term, Index: new(uint64)})
	}
	for i := range items {
		l.seq++
		*l.batch[i].Index = l.seq
		l.batch[i].Data = items[i].payload
	}
	return l.w.Save(&raftpb.HardState{Term: &term, Vote: &term, Commit: &l.seq}, l.batch[:len(items)])
}

func (l *etcdLog) flush() error          { return nil }
func (l *etcdLog) last() (uint64, error) { return l.seq, nil }
func (l *etcdLog) close() error          { return l.w.Close() }

// scan reads the files again, since that is how the log is read.
func (l *etcdLog) scan(f func(payload []byte) error) (err error) {
	if err := l.w.Close(); err != nil {
		return err
	}
	l.entries = nil
	if l.w, l.entries, err = openEtcd(l.dir); err != nil {
		return err
	}
	for _, e := range l.entries {
		if err := f(e.Data); err != nil {
			return err
		}
	}
	return nil
}
