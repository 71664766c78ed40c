package main

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// item is an entry that a store gave back; seq says which one, from 1, according to the store.
type item struct {
	seq  int
	data []byte
}

// reading is what came of opening a damaged store and reading all of it.
type reading struct {
	items []item
	err   error // any error on the way: at opening, while reading
	// first is the first entry that did not come in order, if the store says; 0: judge by the items.
	first int
}

// store is one of the logs that are put to the test.
type store interface {
	// name heads the store's column.
	name() string
	// module is the path whose version go.mod pins.
	module() string
	// write makes a log in dir, appends the entries, each synced before the next, and calls done while the store is
	// still open: its folder is then what a killed process leaves behind. The last unproven ones of the entries are
	// those that a store must not have had the time to vouch for by anything else.
	write(dir string, entries [][]byte, unproven int, done func() error) error
	// read opens the log the way an engine that boots does and reads everything; it goes on behind an entry that
	// cannot be read, if the store lets it.
	read(dir string) reading
	// more opens the log, appends the entries behind those that are there, and closes it.
	more(dir string, entries [][]byte) error
	// head returns offset and size of the frame header in front of a payload, and the offset of the low byte of its length.
	head(f *file, payload, size int) (off, n, length int, err error)
}

// chunks finds the header of the chunk that holds an offset, in a file of 32 KiB blocks full of chunks, each with a header
// that has its 2-byte length at byte 4 and its kind at byte 6.
func chunks(f *file, payload int, headerSize func(kind byte) int) (off, n, length int, err error) {
	const block = 32 << 10
	for at := 0; at+7 <= len(f.data); {
		if left := block - at%block; left < 7 {
			at += left
			continue
		}
		h := headerSize(f.data[at+6])
		size := int(binary.LittleEndian.Uint16(f.data[at+4:]))
		if h == 0 || block-at%block < h || h+size > block-at%block {
			at += block - at%block // the rest of the block is padding
			continue
		}
		if payload < at+h+size {
			if payload < at+h {
				return 0, 0, 0, errNotWhole
			}
			return at, h, at + 4, nil
		}
		at += h + size
	}
	return 0, 0, 0, errNotWhole
}

var (
	le          = binary.LittleEndian
	errNotWhole = errors.New("the entry does not stand in one piece")
)

func nothing() error { return nil }

// note keeps an error among what the reading met.
func (r *reading) note(err error) {
	if err != nil && r.err == nil {
		r.err = err
	}
}

// back searches backwards from the payload, at most reach bytes, for a header at a multiple of align.
func back(f *file, payload, reach, align int, is func(at int) bool) (int, error) {
	for at := payload &^ (align - 1); at >= 0 && at > payload-reach; at -= align {
		if at < payload && at+8 <= len(f.data) && is(at) {
			return at, nil
		}
	}
	return 0, fmt.Errorf("no frame header in front of offset %d", payload)
}
