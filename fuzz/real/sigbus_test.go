//go:build linux

package real

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/fuzz/oracle"
)

// TestRowSIGBUS cuts mapped files short under a reader, in another process: before its calls, and in the middle of its
// iterators. Each call must return what is right or say that the mapping is lost, and the process must live.
func TestRowSIGBUS(t *testing.T) {
	dir := folder(t)
	run, err := sealedRun(dir)
	if err != nil {
		t.Fatal(err)
	}
	var lost, calls atomic.Int64
	matrix.Run(t, "sigbus", func(c *matrix.Cases) error {
		o := order{Dir: run, Seed: c.Seed}
		for o.N < 25 && c.Next() {
			o.N++
		}
		if o.N == 0 {
			return nil
		}
		reader, err := start("sigbus", &o)
		if err != nil {
			return err
		}
		rec, err := reader.await(recDone, time.Minute)
		reader.stop()
		if err = errors.Join(err, reader.failure()); err != nil {
			return err
		}
		lost.Add(int64(rec.A))
		calls.Add(int64(rec.B))
		return nil
	}, matrix.Detail(func() string {
		return fmt.Sprintf("%d of %d calls met the loss", lost.Load(), calls.Load())
	}))
	if lost.Load() == 0 {
		t.Error("no call has met a lost mapping")
	}
}

const sealedEntries = 100

// sealedRun makes a run of several segments whose entry with seq n is made(n-2, 0), and returns its folder.
func sealedRun(dir string) (string, error) {
	c, err := start("load", &order{Dir: dir, Synchronous: true, Entries: sealedEntries, Big: sealedBig})
	if err != nil {
		return "", err
	}
	_, err = c.await(recDone, time.Minute)
	c.stop()
	return filepath.Join(dir, instance, c.run), errors.Join(err, c.failure())
}

const sealedBig = 3000

// loseMappings is the process that reads.
func loseMappings(o *order) error {
	var lost, calls uint64
	for n := range o.N {
		l := &loser{r: rand.New(rand.NewPCG(o.Seed, uint64(n)))}
		if err := l.lose(o.Dir); err != nil {
			return fmt.Errorf("case %d, %s cut to %d bytes: %w", n, filepath.Base(l.path), l.length, err)
		}
		lost += l.lost
		calls += l.calls
	}
	send(os.Stdout, recDone, lost, calls, 0, "")
	return nil
}

// loser is one case.
type loser struct {
	r           *rand.Rand
	reader      *runlog.Reader
	path        string // of the file that is cut
	length      int64
	lost, calls uint64
}

func (l *loser) lose(from string) error {
	dir, err := os.MkdirTemp(filepath.Dir(filepath.Dir(from)), "copy-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	dir = filepath.Join(dir, filepath.Base(from))
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		return err
	}
	if l.reader, err = runlog.OpenReader(dir, runlog.ReaderOptions{}); err != nil {
		return err
	}
	defer l.reader.Close()
	kind := []string{"*.seg", "*.seg", "*.seg", "*.idx", "*.flt"}[l.r.IntN(5)]
	files, err := filepath.Glob(filepath.Join(dir, kind))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no %s: %w", kind, err)
	}
	l.path = files[l.r.IntN(len(files))]
	for seq := uint64(1); seq <= sealedEntries+2; seq++ { // maps all segments
		if err := l.get(seq); err != nil {
			return err
		}
	}
	if err := l.lookup(sealedEntries / 2); err != nil { // and the filters
		return err
	}
	first, last := uint64(1), uint64(sealedEntries+2)
	middle := 2 + l.r.Uint64N(sealedEntries)
	key := fmt.Sprintf("O-%d", middle-2)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	iterators := map[string]*iterator{
		"scan":                 {all: l.reader.Scan(runlog.ScanOptions{}), from: first, to: last},
		"scan backwards":       {all: l.reader.Scan(runlog.ScanOptions{Reverse: true}), from: last, to: first},
		"scan from the middle": {all: l.reader.Scan(runlog.ScanOptions{From: middle}), from: middle, to: last},
		"scan by time":         {all: l.reader.Scan(runlog.ScanOptions{Since: 1}), from: first, to: last},
		"history":              {all: l.reader.History(runlog.ClientOrderID, key), from: middle, to: middle},
		"tail":                 {all: l.reader.Tail(ctx, runlog.TailOptions{}), from: first, to: last},
	}
	var names []string
	for name := range iterators {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names { // some are in the middle when it happens
		it := iterators[name]
		it.begin(l.r.IntN(2) * l.r.IntN(2*sealedEntries))
		defer it.stop()
		if it.err != nil {
			return fmt.Errorf("%s, before: %w", name, it.err)
		}
	}
	fi, err := os.Stat(l.path)
	if err != nil {
		return err
	}
	l.length = l.r.Int64N(fi.Size())
	if l.r.IntN(4) > 0 {
		l.length &^= int64(os.Getpagesize()) - 1
	}
	if err := os.Truncate(l.path, l.length); err != nil {
		return err
	}
	for seq := range uint64(sealedEntries + 3) {
		if seq == 0 {
			continue
		}
		if err := l.verdict(l.get(seq)); err != nil {
			return fmt.Errorf("get %d: %w", seq, err)
		}
		if seq >= 2 && seq < 2+sealedEntries {
			if err := l.verdict(l.lookup(seq - 2)); err != nil {
				return fmt.Errorf("lookup of seq %d: %w", seq, err)
			}
		}
	}
	for _, name := range names {
		if err := l.verdict(iterators[name].end()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// verdict accepts success, and an error that names the file: that the mapping is lost; or, of a page that was cut in its
// middle and reads as zeros from there on, damage.
func (l *loser) verdict(err error) error {
	l.calls++
	var at *runlog.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errRawView):
		return nil
	case !errors.As(err, &at) || at.Path != l.path && at.Path != strings.TrimSuffix(l.path, ".idx")+".seg": // its segment will do
		return fmt.Errorf("the error does not name the file: %w", err)
	case errors.Is(err, runlog.ErrMappingLost):
		l.lost++
		return nil
	case errors.Is(err, runlog.ErrCorrupt) && l.length%int64(os.Getpagesize()) != 0:
		return nil
	}
	return fmt.Errorf("not %w: %w", runlog.ErrMappingLost, err)
}

func (l *loser) get(seq uint64) error {
	v, err := l.reader.Get(seq, nil)
	if err != nil {
		return err
	}
	return right(v.Clone(), seq)
}

func (l *loser) lookup(id uint64) error {
	seq, ok, err := l.reader.Lookup(runlog.ClientOrderID, fmt.Sprintf("O-%d", id))
	if err == nil && (!ok || seq != id+2) {
		err = oracle.False("seq %d, %v", seq, ok)
	}
	return err
}

// right checks an entry of the sealed run.
func right(got runlog.Entry, seq uint64) error {
	want := func(*runlog.Entry) (runlog.Entry, error) { return oracle.EntryOf(made(seq-2, sealedBig)), nil }
	switch seq {
	case 1:
		want = func(*runlog.Entry) (runlog.Entry, error) { return oracle.Started, nil }
	case sealedEntries + 2:
		want = func(*runlog.Entry) (runlog.Entry, error) { return oracle.Ended, nil }
	}
	w, _ := want(&got)
	if got.Seq != seq || got.Topic != w.Topic || !got.IsLifecycle() && string(got.Payload) != string(w.Payload) {
		return oracle.False("seq %d is %d: %s, %d bytes", seq, got.Seq, got.Topic, len(got.Payload))
	}
	return nil
}

// iterator is one that can be left alone for a while.
type iterator struct {
	all      iter.Seq2[runlog.View, error]
	from, to uint64 // what it is to deliver; to may be below from
	next     func() (runlog.View, error, bool)
	stop     func()
	over     bool
	err      error
}

// begin takes up to n entries.
func (it *iterator) begin(n int) {
	it.next, it.stop = iter.Pull2(it.all)
	for range n {
		if it.over || it.err != nil {
			return
		}
		it.step()
	}
}

// end takes the rest.
func (it *iterator) end() error {
	for !it.over && it.err == nil {
		it.step()
	}
	return it.err
}

func (it *iterator) step() {
	v, err, ok := it.next()
	if !ok {
		it.over, it.err = true, oracle.False("it ends before seq %d", it.from)
		return
	}
	if err != nil {
		it.err = err
		return
	}
	got, err := clone(v)
	if err == nil {
		err = right(got, it.from)
	}
	if it.err = err; err != nil {
		return
	}
	switch {
	case it.from == it.to:
		it.over = true
	case it.from < it.to:
		it.from++
	default:
		it.from--
	}
}

// errRawView: the caller itself has read a view whose file is gone. No library can prevent that.
var errRawView = errors.New("a raw view was lost")

// clone copies a view, and survives if its file was cut short.
func clone(v runlog.View) (got runlog.Entry, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			fault, ok := r.(runtime.Error)
			if _, is := r.(interface{ Addr() uintptr }); !ok || !is {
				panic(r)
			}
			err = fmt.Errorf("%w: %w", errRawView, fault)
		}
	}()
	return v.Clone(), nil
}
