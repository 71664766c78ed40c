package main

import (
	"encoding/binary"

	"github.com/tidwall/wal"
)

// tidwallWAL is tidwall/wal with its defaults.
type tidwallWAL struct{}

func (tidwallWAL) name() string   { return "tidwall/wal" }
func (tidwallWAL) module() string { return "github.com/tidwall/wal" }

func (s tidwallWAL) write(dir string, entries [][]byte, _ int, done func() error) error {
	return s.append(dir, entries, done)
}

func (s tidwallWAL) more(dir string, entries [][]byte) error { return s.append(dir, entries, nothing) }

func (tidwallWAL) append(dir string, entries [][]byte, done func() error) error {
	l, err := wal.Open(dir, nil)
	if err != nil {
		return err
	}
	defer l.Close()
	last, err := l.LastIndex()
	if err != nil {
		return err
	}
	for i, e := range entries {
		if err := l.Write(last+uint64(i)+1, e); err != nil {
			return err
		}
	}
	return done()
}

func (tidwallWAL) read(dir string) (r reading) {
	l, err := wal.Open(dir, nil)
	if err != nil {
		return reading{err: err}
	}
	defer l.Close()
	first, err := l.FirstIndex()
	r.note(err)
	last, err := l.LastIndex()
	r.note(err)
	for i := max(first, 1); i <= last; i++ {
		b, err := l.Read(i)
		if err != nil {
			r.note(err)
			continue
		}
		r.items = append(r.items, item{int(i), b})
	}
	return r
}

// A frame is the length as a varint, and the payload.
func (tidwallWAL) head(_ *file, payload, size int) (off, n, length int, err error) {
	n = len(binary.AppendUvarint(nil, uint64(size)))
	return payload - n, n, payload - n, nil
}
