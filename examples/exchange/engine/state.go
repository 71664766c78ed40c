package engine

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog/examples/exchange/book"
	"github.com/runlog-io/runlog/examples/exchange/flow"
)

// Counts is how far the engine has come.
type Counts struct {
	Commands uint64 // handled
	Events   uint64 // made, captured, and let out one by one
	Reports  uint64 // mirrored
	Strays   uint64 // reports that did not fit the mirrored book
	Open     int    // orders in the book or books
}

// Counts returns how far the engine has come.
func (e *Engine) Counts() Counts {
	c := Counts{Commands: e.commands, Events: e.events, Reports: e.reports, Strays: e.strays, Open: e.book.Len()}
	for _, b := range e.mirrors {
		c.Open += b.Len()
	}
	return c
}

// Last returns the last command; zero before the first one.
func (e *Engine) Last() flow.Command { return e.last }

// Missing is how many events of the last command are not in the log. It is not 0 only between Recover and Start.
func (e *Engine) Missing() int { return len(e.made) - e.logged }

// Book returns the exchange's book.
func (e *Engine) Book() *book.Book { return e.book }

// Hash is the hash of the whole state: the counters, the book, and the mirrors in the order of their instruments.
func (e *Engine) Hash() uint64 {
	h := xxhash.New()
	add := func(v uint64) {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], v)
		_, _ = h.Write(b[:]) // never fails
	}
	add(e.commands)
	add(e.events + uint64(e.Missing()))
	add(e.reports)
	add(e.book.Hash())
	for _, instrument := range slices.Sorted(maps.Keys(e.mirrors)) {
		add(uint64(instrument))
		add(e.mirrors[instrument].Hash())
	}
	return h.Sum64()
}
