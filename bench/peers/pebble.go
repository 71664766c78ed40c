package main

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// pebbleStore keeps entries under 'e' and their number, ids under 'i', id and number.
type pebbleStore struct{}

func (pebbleStore) name() string   { return "pebble" }
func (pebbleStore) module() string { return "github.com/cockroachdb/pebble/v2" }

func (pebbleStore) lacks(t task) (string, bool) {
	switch t {
	case get, find, scan:
		return can("checks a block when it is read from its file, not again in its cache")
	case disk:
		return can("compresses (snappy)")
	default:
		return can("")
	}
}

// pebbleLogger is silent. What would end the process is a panic.
type pebbleLogger struct{}

func (pebbleLogger) Infof(string, ...any)              {}
func (pebbleLogger) Errorf(string, ...any)             {}
func (pebbleLogger) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

type pebbleLog struct {
	db    *pebble.DB
	cache *pebble.Cache
	seq   atomic.Uint64
}

func (pebbleStore) open(dir string, _ options) (log, error) {
	cache := pebble.NewCache(256 << 20)
	db, err := pebble.Open(dir, &pebble.Options{
		FormatMajorVersion: pebble.FormatNewest, MemTableSize: 64 << 20, Cache: cache, Logger: pebbleLogger{},
	})
	if err != nil {
		cache.Unref()
		return nil, err
	}
	l := &pebbleLog{db: db, cache: cache}
	seq, err := l.last()
	l.seq.Store(seq)
	return l, err
}

func prefixed(kind byte, k []byte) []byte { return append([]byte{kind}, k...) }

func (l *pebbleLog) append(items []item) error {
	b := l.db.NewBatch()
	defer b.Close()
	for i := range items {
		seq := l.seq.Add(1)
		if err := b.Set(prefixed('e', key(seq)), items[i].payload, nil); err != nil {
			return err
		}
		for _, id := range [...]string{items[i].client, items[i].venue} {
			if id == "" {
				continue
			}
			if err := b.Set(prefixed('i', idKey(id, seq)), nil, nil); err != nil {
				return err
			}
		}
	}
	return b.Commit(pebble.Sync)
}

func (l *pebbleLog) appendOne(payload []byte) error {
	return l.db.Set(prefixed('e', key(l.seq.Add(1))), payload, pebble.Sync)
}

func (l *pebbleLog) flush() error { return nil }

func (l *pebbleLog) close() error {
	err := l.db.Close()
	l.cache.Unref()
	return err
}

var pebbleEntries = &pebble.IterOptions{LowerBound: []byte{'e'}, UpperBound: []byte{'f'}}

func (l *pebbleLog) last() (seq uint64, err error) {
	it, err := l.db.NewIter(pebbleEntries)
	if err != nil {
		return 0, err
	}
	if it.Last() {
		seq = binary.BigEndian.Uint64(it.Key()[1:])
	}
	return seq, it.Close()
}

func (l *pebbleLog) get(seq uint64, buf []byte) ([]byte, error) {
	v, c, err := l.db.Get(prefixed('e', key(seq)))
	if err != nil {
		return nil, err
	}
	buf = append(buf[:0], v...)
	return buf, c.Close()
}

func (l *pebbleLog) find(id string) (seq uint64, ok bool, err error) {
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: prefixed('i', idKey(id, 0)), UpperBound: []byte{'j'}})
	if err != nil {
		return 0, false, err
	}
	if it.First() {
		seq, ok = idOf(it.Key()[1:], id)
	}
	return seq, ok, it.Close()
}

func (l *pebbleLog) scan(f func(payload []byte) error) error {
	it, err := l.db.NewIter(pebbleEntries)
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		if err := f(it.Value()); err != nil {
			_ = it.Close()
			return err
		}
	}
	return it.Close()
}
