package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog"
)

func hashOf(id []byte) uint64 { return xxhash.Sum64(id) }

// runlogStore is runlog with its defaults, but for stall thresholds: a noisy machine could halt a run.
type runlogStore struct {
	waits        bool  // for each batch of a stream, as the others do; without it, runlog makes the batches
	segmentBytes int64 // 0: the default
}

func (s runlogStore) name() string {
	if s.waits {
		return "runlog, by batch"
	}
	return "runlog"
}

func (runlogStore) module() string { return "" }

func (s runlogStore) lacks(t task) (string, bool) {
	if s.waits {
		if t == stream || t == keyed {
			return can("waits for each batch, as the others do")
		}
		return cannot("the same as runlog")
	}
	if t == stream || t == keyed {
		return can("submits without waiting, and waits for all at the end; batches make themselves")
	}
	return can("")
}

// runlogLog is a run that is written, and the run before, if there is one, to read from.
type runlogLog struct {
	run    *runlog.Run
	old    *runlog.Reader
	waits  bool
	first  uint64 // seq of the first entry: RunStarted comes before it
	lastOf uint64
	buf    runlog.Buffer
}

const runlogFirst = 2

func (s runlogStore) open(dir string, o options) (log, error) {
	run, err := runlog.Open(context.Background(), runlog.Options{
		Dir: dir, Instance: "peers", WarnAfter: -1, HaltAfter: -1, FirstSegmentBytes: s.segmentBytes, SegmentBytes: s.segmentBytes,
	})
	if err != nil {
		return nil, err
	}
	l := &runlogLog{run: run, waits: s.waits, first: runlogFirst}
	if err := l.findOld(); err != nil {
		return nil, errors.Join(err, run.Close(context.Background()))
	}
	return l, nil
}

// findOld looks for the run that holds entries: an open makes a new one each time.
func (l *runlogLog) findOld() error {
	for _, p := range l.run.Predecessors() {
		if p.Err != nil {
			return p.Err
		}
		if p.LastSeq < runlogFirst {
			continue
		}
		r, err := runlog.OpenReader(filepath.Join(filepath.Dir(l.run.Dir()), p.Run), runlog.ReaderOptions{})
		if err != nil {
			return err
		}
		entries := uint64(0)
		for seq := r.LastSeq(); seq >= runlogFirst; seq-- {
			v, err := r.Get(seq, nil)
			if err != nil {
				return errors.Join(err, r.Close())
			}
			if v.Topic() == runlogTopic {
				entries = seq
				break
			}
		}
		if entries == 0 {
			if err := r.Close(); err != nil {
				return err
			}
			continue
		}
		if l.old != nil {
			return fmt.Errorf("entries in more than one run")
		}
		l.old, l.lastOf = r, entries
	}
	return nil
}

const runlogTopic = "orders.events"

func draft(it *item, keys []runlog.Key) runlog.Draft {
	if it.client != "" {
		keys = append(keys, runlog.Key{Kind: runlog.ClientOrderID, Value: it.client})
	}
	if it.venue != "" {
		keys = append(keys, runlog.Key{Kind: runlog.VenueOrderID, Value: it.venue})
	}
	return runlog.Draft{Topic: runlogTopic, Type: "OrderFilled", Payload: it.payload, Keys: keys}
}

func (l *runlogLog) append(items []item) error {
	var room [2]runlog.Key
	for i := range items {
		if _, err := l.run.Submit(draft(&items[i], room[:0])); err != nil {
			return err
		}
	}
	if l.waits || len(items) == 1 {
		return l.flush()
	}
	return nil
}

func (l *runlogLog) appendOne(payload []byte) error {
	_, err := l.run.Append(context.Background(), runlog.Draft{Topic: runlogTopic, Type: "OrderFilled", Payload: payload})
	return err
}

func (l *runlogLog) flush() error { return l.run.WaitDurable(context.Background(), l.run.Accepted()) }

func (l *runlogLog) last() (uint64, error) {
	if l.old == nil {
		return l.run.Accepted() + 1 - runlogFirst, nil
	}
	return l.lastOf + 1 - runlogFirst, nil
}

func (l *runlogLog) get(seq uint64, _ []byte) ([]byte, error) {
	v, err := l.old.Get(seq+runlogFirst-1, &l.buf)
	if err != nil {
		return nil, err
	}
	return v.Payload(), nil
}

func (l *runlogLog) find(id string) (uint64, bool, error) {
	seq, ok, err := l.old.Lookup(runlog.ClientOrderID, id)
	return seq + 1 - runlogFirst, ok, err
}

func (l *runlogLog) scan(f func(payload []byte) error) error {
	for v, err := range l.old.Scan(runlog.ScanOptions{From: runlogFirst, To: l.lastOf}) {
		if err != nil {
			return err
		}
		if err := f(v.Payload()); err != nil {
			return err
		}
	}
	return nil
}

func (l *runlogLog) close() error {
	var err error
	if l.old != nil {
		err = l.old.Close()
	}
	return errors.Join(err, l.run.Close(context.Background()))
}
