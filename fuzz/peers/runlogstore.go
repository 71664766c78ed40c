package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
)

const (
	instance = "damage"
	topic    = "damage.entry"
	ownSeqs  = 1 // seqs before the first entry: RunStarted
)

// runlogStore is runlog with its defaults, but for the limits and sizes below. Its reading is that of an engine that
// boots: Open, Predecessors, and then the whole of the predecessor.
type runlogStore struct {
	title        string
	marked       bool  // the last entry gets its sync mark before the process dies
	closed       bool  // the run is closed, so that all of it is sealed
	segmentBytes int64 // of every segment
}

func (s runlogStore) name() string { return s.title }
func (runlogStore) module() string { return "github.com/runlog-io/runlog" }

func (s runlogStore) options(dir string) runlog.Options {
	return runlog.Options{
		Dir: dir, Instance: instance, MaxPayload: 256 << 10, FirstSegmentBytes: s.segmentBytes, SegmentBytes: s.segmentBytes,
		WarnAfter: -1, HaltAfter: -1, // a slow disk is not what is tried here
	}
}

func (s runlogStore) write(dir string, entries [][]byte, unproven int, done func() error) error {
	ctx := context.Background()
	o := s.options(dir)
	if !s.marked {
		o.IdleMark = -1
	}
	r, err := runlog.Open(ctx, o)
	if err != nil {
		return err
	}
	defer r.Close(ctx)
	proven := len(entries) - unproven
	if err := appendAll(r, entries[:proven]); err != nil {
		return err
	}
	if s.closed {
		if err := r.Close(ctx); err != nil {
			return err
		}
		return done()
	}
	if err := settle(r.Dir(), s.marked, r.Durable()); err != nil {
		return err
	}
	if err := appendAll(r, entries[proven:]); err != nil {
		return err
	}
	return done()
}

func appendAll(r *runlog.Run, entries [][]byte) error {
	for _, e := range entries {
		if _, err := r.Append(context.Background(), runlog.Draft{Topic: topic, Type: "Entry", Payload: e}); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until the background work is done, and if there is to be a mark, until the files prove all up to seq durable.
func settle(dir string, marked bool, seq uint64) error {
	var before string
	for until := time.Now().Add(30 * time.Second); time.Now().Before(until); time.Sleep(200 * time.Millisecond) {
		im, err := takeImage(dir)
		if err != nil {
			continue // a file was renamed or cut under it
		}
		now := ""
		for _, n := range im.names() {
			now += fmt.Sprintln(n, im[n].size, len(im[n].data))
		}
		if now != before {
			before = now
			continue
		}
		rd, err := runlog.OpenReader(dir, runlog.ReaderOptions{})
		if err != nil {
			return err
		}
		proven := rd.Durable()
		if err := rd.Close(); err != nil {
			return err
		}
		if !marked || proven >= seq {
			return nil
		}
	}
	return fmt.Errorf("%s has not come to rest", dir)
}

// runs are the run folders below dir, oldest first.
func runs(dir string) ([]string, error) {
	list, err := runlog.List(dir, runlog.ReaderOptions{})
	var dirs []string
	for _, r := range list {
		dirs = append(dirs, r.Dir)
	}
	return dirs, err
}

func (s runlogStore) read(dir string) reading {
	before, err := runs(dir)
	if err != nil {
		return reading{err: err}
	}
	r, err := runlog.Open(context.Background(), s.bootOptions(dir))
	if err != nil {
		return reading{err: err}
	}
	var found error
	for _, p := range r.Predecessors() {
		found = errors.Join(found, p.Err)
	}
	if err := r.Close(context.Background()); err != nil {
		return reading{err: err}
	}
	rd := scan(before[0])
	rd.err = errors.Join(found, rd.err)
	return rd
}

// bootOptions make the new run a small one, to save time.
func (s runlogStore) bootOptions(dir string) runlog.Options {
	o := s.options(dir)
	o.MaxPayload, o.FirstSegmentBytes, o.SegmentBytes = 0, 64<<10, 64<<10
	return o
}

// outside reads the run as it was left, with OpenReader.
func (runlogStore) outside(dir string) reading {
	list, err := runs(dir)
	if err != nil {
		return reading{err: err}
	}
	return scan(list[0])
}

// scan reads a run's entries in order up to an error, and then asks for each of the others.
func scan(dir string) (rd reading) {
	r, err := runlog.OpenReader(dir, runlog.ReaderOptions{})
	if err != nil {
		return reading{err: err}
	}
	defer r.Close()
	next := uint64(1)
	for v, err := range r.Scan(runlog.ScanOptions{}) {
		if err != nil {
			rd.err = err
			break
		}
		if v.Topic() == topic {
			rd.items = append(rd.items, item{int(v.Seq()) - ownSeqs, slices.Clone(v.Payload())})
		}
		next = v.Seq() + 1
	}
	rd.first = int(next) - ownSeqs
	if rd.err == nil {
		return rd
	}
	for seq := next; seq <= r.LastSeq(); seq++ {
		if v, err := r.Get(seq, nil); err == nil && v.Topic() == topic {
			rd.items = append(rd.items, item{int(seq) - ownSeqs, slices.Clone(v.Payload())})
		}
	}
	return rd
}

// verify checks the run as it was left. Its findings are the error, about the entries that a reader from outside gets; if it finds
// nothing, it vouches for all up to its last seq.
func (runlogStore) verify(dir string, acknowledged [][]byte, outside reading) (rd reading) {
	list, err := runs(dir)
	if err != nil {
		return reading{err: err}
	}
	rep, err := verify.Run(context.Background(), vfs.OS, list[0], verify.Options{})
	errs := []error{err}
	for _, f := range rep.Findings {
		errs = append(errs, &runlog.Error{
			Path: f.Path, Offset: f.Offset, FirstSeq: f.FirstSeq, LastSeq: f.LastSeq, Why: string(f.Kind) + ": " + f.Detail, Err: runlog.ErrCorrupt,
		})
	}
	if rd.err = errors.Join(errs...); rd.err != nil {
		rd.items = outside.items
		return rd
	}
	for i := 0; i < min(int(rep.LastSeq)-ownSeqs, len(acknowledged)); i++ {
		rd.items = append(rd.items, item{i + 1, acknowledged[i]})
	}
	return rd
}

// more starts the next run of the instance: that is where later entries go, whatever became of the run before.
func (s runlogStore) more(dir string, entries [][]byte) error {
	r, err := runlog.Open(context.Background(), s.bootOptions(dir))
	if err != nil {
		return err
	}
	return errors.Join(appendAll(r, entries), r.Close(context.Background()))
}

// newest reads the run that more has made.
func (runlogStore) newest(dir string) reading {
	list, err := runs(dir)
	if err != nil {
		return reading{err: err}
	}
	return scan(list[len(list)-1])
}

// An entry is the rest of a frame whose word says kind and length.
func (runlogStore) head(f *file, payload, size int) (off, n, length int, err error) {
	off, err = back(f, payload, 256, 8, func(at int) bool {
		return f.data[at+3]&0xf0 == 0x80 && at+int(le.Uint32(f.data[at:])&0xffffff) == payload+size
	})
	return off, 16, off, err
}

// isSegment says whether a path in an image is that of a segment.
func isSegment(name string) bool { return strings.HasSuffix(filepath.Base(name), ".seg") }
