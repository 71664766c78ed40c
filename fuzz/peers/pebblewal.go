package main

import (
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// pebbleWAL is a pebble database of the newest format whose entries are all in its log: the memtable is large enough.
type pebbleWAL struct{}

func (pebbleWAL) name() string   { return "pebble wal" }
func (pebbleWAL) module() string { return "github.com/cockroachdb/pebble/v2" }

func (pebbleWAL) open(dir string) (*pebble.DB, error) {
	return pebble.Open(dir, &pebble.Options{
		FormatMajorVersion: pebble.FormatNewest, MemTableSize: 64 << 20, Logger: pebbleLogger{}, DisableAutomaticCompactions: true,
	})
}

// pebbleLogger is silent; what would end the process is a panic that the trial sees.
type pebbleLogger struct{}

func (pebbleLogger) Infof(string, ...any)              {}
func (pebbleLogger) Errorf(string, ...any)             {}
func (pebbleLogger) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (s pebbleWAL) write(dir string, entries [][]byte, _ int, done func() error) error {
	return s.append(dir, entries, done)
}

func (s pebbleWAL) more(dir string, entries [][]byte) error { return s.append(dir, entries, nothing) }

func (s pebbleWAL) append(dir string, entries [][]byte, done func() error) (err error) {
	db, err := s.open(dir)
	if err != nil {
		return err
	}
	defer db.Close()
	last, err := s.last(db)
	if err != nil {
		return err
	}
	for i, e := range entries {
		if err := db.Set(binary.BigEndian.AppendUint64(nil, last+uint64(i)+1), e, pebble.Sync); err != nil {
			return err
		}
	}
	return done()
}

func (pebbleWAL) last(db *pebble.DB) (uint64, error) {
	it, err := db.NewIter(nil)
	if err != nil {
		return 0, err
	}
	defer it.Close()
	if !it.Last() {
		return 0, it.Error()
	}
	return binary.BigEndian.Uint64(it.Key()), nil
}

func (s pebbleWAL) read(dir string) (r reading) {
	db, err := s.open(dir)
	if err != nil {
		return reading{err: err}
	}
	defer db.Close()
	it, err := db.NewIter(nil)
	if err != nil {
		return reading{err: err}
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		r.items = append(r.items, item{int(binary.BigEndian.Uint64(it.Key())), append([]byte(nil), it.Value()...)})
	}
	r.note(it.Error())
	return r
}

func (pebbleWAL) head(f *file, payload, _ int) (off, n, length int, err error) {
	return chunks(f, payload, func(kind byte) int {
		switch {
		case kind >= 1 && kind <= 4:
			return 7
		case kind >= 5 && kind <= 8:
			return 11
		case kind >= 9 && kind <= 12:
			return 19
		}
		return 0
	})
}
