package main

import (
	"encoding/binary"
	"errors"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
)

// badgerStore keeps entries under 'e' and their number, ids under 'i', id and number.
type badgerStore struct{}

func (badgerStore) name() string   { return "badger" }
func (badgerStore) module() string { return "github.com/dgraph-io/badger/v4" }

func (badgerStore) lacks(t task) (string, bool) {
	switch t {
	case get, find, scan:
		return can("checks no checksum on reads, by default")
	case disk:
		return can("compresses (snappy)")
	default:
		return can("")
	}
}

type badgerLog struct {
	db  *badger.DB
	seq atomic.Uint64
}

func (badgerStore) open(dir string, _ options) (log, error) {
	db, err := badger.Open(badger.DefaultOptions(dir).WithSyncWrites(true).WithDetectConflicts(false).WithLogger(nil))
	if err != nil {
		return nil, err
	}
	l := &badgerLog{db: db}
	seq, err := l.last()
	l.seq.Store(seq)
	return l, err
}

// append uses one transaction, or as many as the store's limit on their size makes of it.
func (l *badgerLog) append(items []item) error {
	tx := l.db.NewTransaction(true)
	defer func() { tx.Discard() }()
	set := func(k, v []byte) error {
		err := tx.Set(k, v)
		if !errors.Is(err, badger.ErrTxnTooBig) {
			return err
		}
		if err := tx.Commit(); err != nil {
			return err
		}
		tx = l.db.NewTransaction(true)
		return tx.Set(k, v)
	}
	for i := range items {
		seq := l.seq.Add(1)
		if err := set(prefixed('e', key(seq)), items[i].payload); err != nil {
			return err
		}
		for _, id := range [...]string{items[i].client, items[i].venue} {
			if id == "" {
				continue
			}
			if err := set(prefixed('i', idKey(id, seq)), nil); err != nil {
				return err
			}
		}
	}
	return tx.Commit()
}

func (l *badgerLog) appendOne(payload []byte) error {
	return l.db.Update(func(tx *badger.Txn) error { return tx.Set(prefixed('e', key(l.seq.Add(1))), payload) })
}

func (l *badgerLog) flush() error { return nil }
func (l *badgerLog) close() error { return l.db.Close() }

func (l *badgerLog) last() (seq uint64, err error) {
	err = l.db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(badger.IteratorOptions{Reverse: true})
		defer it.Close()
		if it.Seek([]byte{'f'}); it.Valid() && it.Item().Key()[0] == 'e' {
			seq = binary.BigEndian.Uint64(it.Item().Key()[1:])
		}
		return nil
	})
	return seq, err
}

func (l *badgerLog) get(seq uint64, buf []byte) (p []byte, err error) {
	err = l.db.View(func(tx *badger.Txn) error {
		it, err := tx.Get(prefixed('e', key(seq)))
		if err != nil {
			return err
		}
		p, err = it.ValueCopy(buf[:0])
		return err
	})
	return p, err
}

func (l *badgerLog) find(id string) (seq uint64, ok bool, err error) {
	err = l.db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(badger.IteratorOptions{})
		defer it.Close()
		if it.Seek(prefixed('i', idKey(id, 0))); it.Valid() {
			seq, ok = idOf(it.Item().Key()[1:], id)
		}
		return nil
	})
	return seq, ok, err
}

func (l *badgerLog) scan(f func(payload []byte) error) error {
	return l.db.View(func(tx *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.Prefix = []byte{'e'}
		it := tx.NewIterator(o)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			if err := it.Item().Value(f); err != nil {
				return err
			}
		}
		return nil
	})
}
