package main

import (
	"bytes"
	"encoding/binary"
	"path/filepath"

	"go.etcd.io/bbolt"
)

// bboltStore keeps entries in one bucket by number, and ids in another: id and number, no value.
type bboltStore struct{}

func (bboltStore) name() string   { return "bbolt" }
func (bboltStore) module() string { return "go.etcd.io/bbolt" }

func (bboltStore) lacks(t task) (string, bool) {
	switch t {
	case group:
		return can("db.Batch, which waits up to 10 ms for company")
	case reopen:
		return can("checks a checksum of its meta pages only; reads the free list from all pages")
	default:
		return can("has no checksum of entries")
	}
}

var (
	bucketLog = []byte("log")
	bucketIDs = []byte("ids")
)

type bboltLog struct {
	db  *bbolt.DB
	seq uint64
}

func (bboltStore) open(dir string, _ options) (log, error) {
	db, err := bbolt.Open(filepath.Join(dir, "bolt.db"), 0o644, &bbolt.Options{
		NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, NoStatistics: true,
	})
	if err != nil {
		return nil, err
	}
	l := &bboltLog{db: db}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketLog, bucketIDs} {
			if tx.Bucket(name) == nil {
				if _, err := tx.CreateBucket(name); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err == nil {
		l.seq, err = l.last()
	}
	return l, err
}

func (l *bboltLog) append(items []item) error {
	return l.db.Update(func(tx *bbolt.Tx) error {
		entries, ids := tx.Bucket(bucketLog), tx.Bucket(bucketIDs)
		entries.FillPercent = 1
		for i := range items {
			l.seq++
			if err := entries.Put(key(l.seq), items[i].payload); err != nil {
				return err
			}
			for _, id := range [...]string{items[i].client, items[i].venue} {
				if id == "" {
					continue
				}
				if err := ids.Put(idKey(id, l.seq), nil); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// idKey is an id and the number of an entry that carries it.
func idKey(id string, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, len(id)+9), id+"\x00"...), seq)
}

// idOf returns the number in a key of idKey, if it is one of this id.
func idOf(k []byte, id string) (uint64, bool) {
	if len(k) != len(id)+9 || text(k[:len(id)]) != id {
		return 0, false
	}
	return binary.BigEndian.Uint64(k[len(id)+1:]), true
}

func (l *bboltLog) appendOne(payload []byte) error {
	return l.db.Batch(func(tx *bbolt.Tx) error {
		entries := tx.Bucket(bucketLog)
		seq, err := entries.NextSequence()
		if err != nil {
			return err
		}
		entries.FillPercent = 1
		return entries.Put(key(seq), payload)
	})
}

func (l *bboltLog) flush() error { return nil }
func (l *bboltLog) close() error { return l.db.Close() }

func (l *bboltLog) last() (seq uint64, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error {
		if k, _ := tx.Bucket(bucketLog).Cursor().Last(); k != nil {
			seq = binary.BigEndian.Uint64(k)
		}
		return nil
	})
	return seq, err
}

func (l *bboltLog) get(seq uint64, buf []byte) (p []byte, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error {
		p = append(buf[:0], tx.Bucket(bucketLog).Get(key(seq))...)
		return nil
	})
	return p, err
}

func (l *bboltLog) find(id string) (seq uint64, ok bool, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error {
		k, _ := tx.Bucket(bucketIDs).Cursor().Seek(idKey(id, 0))
		seq, ok = idOf(k, id)
		return nil
	})
	return seq, ok, err
}

func (l *bboltLog) scan(f func(payload []byte) error) error {
	return l.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketLog).Cursor()
		var want []byte
		for k, v := c.First(); k != nil; k, v = c.Next() {
			if want != nil && bytes.Compare(want, k) >= 0 {
				return errOrder
			}
			want = k
			if err := f(v); err != nil {
				return err
			}
		}
		return nil
	})
}
