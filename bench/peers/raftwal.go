package main

import (
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// raftStore is hashicorp/raft-wal with its defaults.
type raftStore struct{}

func (raftStore) name() string   { return "raft-wal" }
func (raftStore) module() string { return "github.com/hashicorp/raft-wal" }

func (raftStore) lacks(t task) (string, bool) {
	switch t {
	case group:
		return cannot("commits one StoreLogs at a time, so callers do not share a sync")
	case keyed, find:
		return cannot("has no order ids")
	case get, scan:
		return can("checks no checksum on reads; scans by reading one number after the other")
	case reopen:
		return can("checks the checksum of the last segment's batches only")
	default:
		return can("no order ids")
	}
}

type raftLog struct {
	w     *wal.WAL
	seq   uint64
	batch []*raft.Log
	read  raft.Log
}

func (raftStore) open(dir string, _ options) (log, error) {
	w, err := wal.Open(dir)
	if err != nil {
		return nil, err
	}
	last, err := w.LastIndex()
	if err != nil {
		return nil, err
	}
	return &raftLog{w: w, seq: last}, nil
}

func (l *raftLog) append(items []item) error {
	for len(l.batch) < len(items) {
		l.batch = append(l.batch, &raft.Log{Term: 1})
	}
	for i := range items {
		l.seq++
		l.batch[i].Index, l.batch[i].Data = l.seq, items[i].payload
	}
	return l.w.StoreLogs(l.batch[:len(items)])
}

func (l *raftLog) flush() error          { return nil }
func (l *raftLog) last() (uint64, error) { return l.w.LastIndex() }
func (l *raftLog) close() error          { return l.w.Close() }

func (l *raftLog) get(seq uint64, _ []byte) ([]byte, error) {
	err := l.w.GetLog(seq, &l.read)
	return l.read.Data, err
}

func (l *raftLog) scan(f func(payload []byte) error) error {
	for seq := uint64(1); seq <= l.seq; seq++ {
		if err := l.w.GetLog(seq, &l.read); err != nil {
			return err
		}
		if err := f(l.read.Data); err != nil {
			return err
		}
	}
	return nil
}
