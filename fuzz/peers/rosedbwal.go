package main

import (
	"errors"
	"io"

	"github.com/rosedblabs/wal"
)

// rosedbWAL is rosedblabs/wal with its defaults, and Sync.
type rosedbWAL struct{}

func (rosedbWAL) name() string   { return "rosedb wal" }
func (rosedbWAL) module() string { return "github.com/rosedblabs/wal" }

func (rosedbWAL) open(dir string) (*wal.WAL, error) {
	o := wal.DefaultOptions
	o.DirPath, o.Sync = dir, true
	return wal.Open(o)
}

func (s rosedbWAL) write(dir string, entries [][]byte, _ int, done func() error) error {
	return s.append(dir, entries, done)
}

func (s rosedbWAL) more(dir string, entries [][]byte) error { return s.append(dir, entries, nothing) }

func (s rosedbWAL) append(dir string, entries [][]byte, done func() error) error {
	w, err := s.open(dir)
	if err != nil {
		return err
	}
	defer w.Close()
	for _, e := range entries {
		if _, err := w.Write(e); err != nil {
			return err
		}
	}
	return done()
}

// read numbers the entries as they come: the store has no numbers of its own. It stops at an error, as there is no way
// to go on behind one.
func (s rosedbWAL) read(dir string) (r reading) {
	w, err := s.open(dir)
	if err != nil {
		return reading{err: err}
	}
	defer w.Close()
	for rd := w.NewReader(); ; {
		b, _, err := rd.Next()
		if errors.Is(err, io.EOF) {
			return r
		}
		if err != nil {
			r.note(err)
			return r
		}
		r.items = append(r.items, item{len(r.items) + 1, b})
	}
}

func (rosedbWAL) head(f *file, payload, _ int) (off, n, length int, err error) {
	return chunks(f, payload, func(kind byte) int {
		if kind > wal.ChunkTypeLast {
			return 0
		}
		return 7
	})
}
