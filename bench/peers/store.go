package main

import (
	"errors"
	"fmt"
	"slices"
)

// What a store is asked to do. Every store does every one of them, or says why not.
type task int

const (
	alone  task = iota // one caller, each entry durable before the next
	group              // many callers, each waiting for its own entry
	stream             // one caller, batches, each durable before the next
	keyed              // the same with order ids
	get                // one entry by its number
	find               // the first entry with an order id
	scan               // all entries, in order
	reopen             // after a process that died
	disk               // what the entries take
)

// store is one way to keep a log.
type store interface {
	name() string
	module() string // whose version the page names; empty: it is in this tree
	// lacks says what the store leaves out when it does a task, or with can false, why it cannot do it.
	lacks(t task) (what string, can bool)
	// open makes a log in an empty folder, or opens the one that is there the way a process that boots does.
	open(dir string, o options) (log, error)
}

type options struct {
	keyed  bool
	loose  bool  // a store that syncs each entry singly may leave that out: it is only filled, and would take minutes
	writes int64 // bytes that are going to be written, about; 0: none
	wraps  bool  // a floor may begin again at the start of its file
}

// log is an open store. Entries are numbered from 1. A log is used by one goroutine, but for appendOne and get.
type log interface {
	append(items []item) error // durable when it returns, if flush does nothing
	flush() error              // waits until all is durable
	last() (uint64, error)
	close() error
}

// What not every log can do.
type (
	caller interface{ appendOne(payload []byte) error }
	getter interface {
		// get returns the payload, in buf if that is large enough, or wherever the store has it.
		get(seq uint64, buf []byte) ([]byte, error)
	}
	finder interface {
		find(id string) (seq uint64, ok bool, err error)
	}
	scanner interface {
		scan(f func(payload []byte) error) error
	}
)

// stores are all of them, in the order of the tables.
func stores() []store {
	return []store{
		floorStore{}, floorStore{atOnce: true}, runlogStore{}, runlogStore{waits: true},
		etcdStore{}, raftStore{}, tidwallStore{}, bboltStore{}, pebbleStore{}, badgerStore{}, sqliteStore{}, natsStore{},
	}
}

// isPeer tells other people's stores from ours.
func isPeer(s store) bool { return s.module() != "" }

func storeNamed(name string) (store, error) {
	all := stores()
	if i := slices.IndexFunc(all, func(s store) bool { return s.name() == name }); i >= 0 {
		return all[i], nil
	}
	return nil, fmt.Errorf("no store %q", name)
}

var errOrder = errors.New("entries are not numbered from 1 without gaps")

// can and cannot are the two answers of lacks.
func can(what string) (string, bool)    { return what, true }
func cannot(what string) (string, bool) { return what, false }
