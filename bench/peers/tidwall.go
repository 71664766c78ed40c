package main

import "github.com/tidwall/wal"

// tidwallStore is tidwall/wal with its defaults.
type tidwallStore struct{}

func (tidwallStore) name() string   { return "tidwall/wal" }
func (tidwallStore) module() string { return "github.com/tidwall/wal" }

func (tidwallStore) lacks(t task) (string, bool) {
	switch t {
	case group:
		return cannot("commits one WriteBatch at a time, so callers do not share a sync")
	case keyed, find:
		return cannot("has no order ids")
	case get:
		return can("has no checksums; loads a whole segment for a read")
	case reopen:
		return can("has no checksums: nothing is checked")
	default:
		return can("has no checksums, no order ids")
	}
}

type tidwallLog struct {
	l     *wal.Log
	seq   uint64
	batch wal.Batch
}

func (tidwallStore) open(dir string, _ options) (log, error) {
	l, err := wal.Open(dir, nil)
	if err != nil {
		return nil, err
	}
	last, err := l.LastIndex()
	if err != nil {
		return nil, err
	}
	return &tidwallLog{l: l, seq: last}, nil
}

func (l *tidwallLog) append(items []item) error {
	if len(items) == 1 {
		l.seq++
		return l.l.Write(l.seq, items[0].payload)
	}
	l.batch.Clear()
	for i := range items {
		l.seq++
		l.batch.Write(l.seq, items[i].payload)
	}
	return l.l.WriteBatch(&l.batch)
}

func (l *tidwallLog) flush() error                             { return nil }
func (l *tidwallLog) last() (uint64, error)                    { return l.l.LastIndex() }
func (l *tidwallLog) close() error                             { return l.l.Close() }
func (l *tidwallLog) get(seq uint64, _ []byte) ([]byte, error) { return l.l.Read(seq) }

func (l *tidwallLog) scan(f func(payload []byte) error) error {
	for seq := uint64(1); seq <= l.seq; seq++ {
		p, err := l.l.Read(seq)
		if err != nil {
			return err
		}
		if err := f(p); err != nil {
			return err
		}
	}
	return nil
}
