package wal

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/index"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/segment/compressed"
	"github.com/runlog-io/runlog/vfs"
)

// openSeg is a segment without a footer: the active one, one that waits for its seal, or one that a crash left. It is
// read with ReadAt and indexed in memory. One goroutine ingests (the writer, or a reader under its own lock); any
// number read what has been published.
type openSeg struct {
	path   string
	header segment.Header
	file   vfs.File
	refs   refs

	dict *entry.Dict
	ix   *index.Builder

	// Owned by whoever ingests.
	prev    segment.Chain  // before the segment
	chain   segment.Chain  // after the last commit
	last    segment.Commit // the last commit
	started bool
	pending []provable // commits that no later one has proven yet
	stats   stats
	halt    *manifest.Halt  // why the run halted, if a batch says so
	digest  *digest         // of what has been ingested; nil: nobody needs it yet
	keys    []index.Posting // that are not in the index yet
	encoded *encoded        // the content of the index file; nil: it has not been begun

	firstSeq   uint64        // set before the segment is published
	end        atomic.Int64  // behind the last whole batch; published after its entries are indexed
	durableEnd atomic.Int64  // behind the last batch that is known to be durable
	lastSeq    atomic.Uint64 // last seq that has been ingested
}

// provable is a commit that is not yet proven durable, with the state before it.
type provable struct {
	before segment.Chain
	from   int64 // where its batch begins
}

// stats are what a footer says of a segment's entries.
type stats struct {
	entries                uint64
	minInit, maxInit       int64
	minPublish, maxPublish int64
}

func (s *stats) add(tsInit, tsPublish int64) {
	if s.entries == 0 {
		*s = stats{1, tsInit, tsInit, tsPublish, tsPublish}
		return
	}
	s.entries++
	s.minInit, s.maxInit = min(s.minInit, tsInit), max(s.maxInit, tsInit)
	s.minPublish, s.maxPublish = min(s.minPublish, tsPublish), max(s.maxPublish, tsPublish)
}

// join adds what t has seen.
func (s *stats) join(t *stats) {
	if s.entries == 0 {
		*s = *t
		return
	}
	s.entries += t.entries
	s.minInit, s.maxInit = min(s.minInit, t.minInit), max(s.maxInit, t.maxInit)
	s.minPublish, s.maxPublish = min(s.minPublish, t.minPublish), max(s.maxPublish, t.maxPublish)
}

// refs counts who uses a file; the last one to leave closes it.
type refs struct {
	mu     sync.Mutex
	n      int
	closed bool
	done   func() error
}

func (r *refs) acquire() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.n++
	return true
}

func (r *refs) release() {
	r.mu.Lock()
	r.n--
	last := r.closed && r.n == 0
	r.mu.Unlock()
	if last {
		_ = r.done()
	}
}

// retire closes the file as soon as nobody uses it; nobody can start to.
func (r *refs) retire() {
	r.mu.Lock()
	last := !r.closed && r.n == 0
	r.closed = true
	r.mu.Unlock()
	if last {
		_ = r.done()
	}
}

func newOpenSeg(path string, h segment.Header, f vfs.File, prev segment.Chain) *openSeg {
	o := &openSeg{path: path, header: h, file: f, prev: prev, chain: prev, firstSeq: prev.Seq + 1}
	o.refs.done = f.Close
	o.dict = entry.NewDict(0)
	o.ix = index.NewBuilder(o.firstSeq)
	o.end.Store(h.Size)
	o.durableEnd.Store(h.Size)
	o.lastSeq.Store(prev.Seq)
	return o
}

// ingest takes a verified batch into dictionary and index and publishes it. b borrows.
func (o *openSeg) ingest(b *segment.Batch) error {
	off := b.Commit.BatchStart
	seq := b.Commit.FirstSeq
	for at := int64(0); at < int64(len(b.Raw)); {
		f, err := segment.Next(b.Raw, o.header.Salt, off, at)
		if err != nil {
			return o.located(err)
		}
		switch {
		case f.IsEntry():
			if err := o.ingestEntry(&f, seq); err != nil {
				return o.located(err)
			}
			seq++
		case f.Kind == segment.KindStart:
			s, ok := segment.DecodeStart(b.Raw[at:], o.header.Salt, off+at)
			if !ok || o.started || s.Prev.Ordinal != o.prev.Ordinal || s.Prev.Seq != o.prev.Seq || s.Prev.Value != o.prev.Value {
				return &format.Error{Path: o.path, Offset: off + at, Why: "start frame does not continue the run", Err: format.ErrCorrupt}
			}
			o.started = true
			o.dict.BaseTime = s.BaseTime // before the first entry is published
		case f.Kind == segment.KindHalt:
			if h, err := manifest.DecodeHalt(o.path, f.Offset, f.Body); err == nil {
				o.halt = &h
			}
		case f.IsNote():
			if kind := entry.NoteKind(f.Kind); kind.Indexed() {
				o.ix.AddNote(kind, f.Offset)
			}
		default:
			if err := segment.Learn(&f, o.dict); err != nil {
				return o.located(err)
			}
		}
		at += f.Size
	}
	if !o.started {
		return &format.Error{Path: o.path, Offset: off, Why: "first batch has no start frame", Err: format.ErrCorrupt}
	}
	o.publish(b)
	return nil
}

// keysAtOnce is how many keys are put into the index together.
const keysAtOnce = 64

// addKey takes a key of an entry into the index, at the latest when its batch is published.
func (o *openSeg) addKey(kind entry.KindNo, value []byte, seq uint64) {
	if o.keys = append(o.keys, index.Posting{Fingerprint: entry.Fingerprint(kind, value), Seq: seq}); len(o.keys) >= keysAtOnce {
		o.flushKeys()
	}
}

func (o *openSeg) flushKeys() {
	o.ix.AddKeys(o.keys)
	o.keys = o.keys[:0]
}

// publish makes a batch that is indexed the last one.
func (o *openSeg) publish(b *segment.Batch) {
	o.flushKeys()
	o.pending = append(o.pending, provable{before: o.chain, from: b.Commit.BatchStart})
	o.chain, o.last = b.Next, b.Commit
	for len(o.pending) > 0 && o.pending[0].before.Ordinal < o.chain.Durable {
		o.pending = o.pending[1:]
	}
	o.lastSeq.Store(o.chain.Seq)
	o.end.Store(b.Commit.End())
}

// ingestItems is ingest for a batch that has just been encoded and holds nothing but entries: what they are need not be read
// from its bytes again. offsets and routes are theirs, in order.
func (o *openSeg) ingestItems(b *segment.Batch, items *entry.Batch, from int, offsets []int64, routes []uint32) {
	o.ix.AddEntries(b.Commit.FirstSeq, offsets)
	times, same := stats{}, uint64(0)
	for i := range offsets {
		it := items.At(from + i)
		seq := b.Commit.FirstSeq + uint64(i)
		it.IndexKeys(func(kind entry.KindNo, value []byte) bool {
			o.addKey(kind, value, seq)
			return true
		})
		times.add(it.TsInit, it.TsPublish)
		if same++; i+1 == len(routes) || routes[i+1] != routes[i] {
			o.ix.AddRoutes(routes[i], same)
			same = 0
		}
	}
	o.ix.AddBounds(times.minInit, times.maxInit, times.minPublish, times.maxPublish)
	o.stats.join(&times)
	o.publish(b)
}

func (o *openSeg) ingestEntry(f *segment.Frame, seq uint64) error {
	v, err := entry.ParseView(o.dict, seq, f.Flags(), f.Body)
	if err != nil {
		return &format.Error{Offset: f.Offset, FirstSeq: seq, Err: err}
	}
	o.ix.AddEntry(seq, f.Offset)
	v.IndexKeys(func(kind entry.KindNo, value []byte) bool {
		o.addKey(kind, value, seq)
		return true
	})
	o.ix.AddRoute(v.RouteNo())
	o.ix.AddTimes(v.TsInit(), v.TsPublish())
	o.stats.add(v.TsInit(), v.TsPublish())
	return nil
}

// located puts the path into an error that knows only the offset.
func (o *openSeg) located(err error) error { return locate(err, o.path) }

func locate(err error, path string) error {
	var fe *format.Error
	if errors.As(err, &fe) && fe.Path == "" {
		fe.Path = path
	}
	return err
}

// windowSize is how much advance and scans of open segments read at a time.
const (
	windowSize  = 1 << 20
	firstWindow = 8 << 10
)

// window reads a file piece by piece and hands out bytes at increasing offsets.
type window struct {
	f     io.ReaderAt
	limit int64 // nothing at or behind it is read; 0: no limit
	buf   []byte
	off   int64 // of buf[0]
	n     int   // valid bytes
	eof   bool
	seen  *digest // takes what was handed out and passed; nil: nobody needs it
}

// at returns the bytes from off on, at least one more than before if more is set and there are any.
func (w *window) at(off int64, more bool) ([]byte, error) {
	if !more && off >= w.off && off < w.off+int64(w.n) {
		return w.buf[off-w.off : w.n], nil
	}
	size := min(max(firstWindow, 8*cap(w.buf)), windowSize) // little, for who only looks whether there is more
	if have := int(w.off + int64(w.n) - off); more && off >= w.off && have > size/2 {
		size = 2 * have
	}
	if w.limit > 0 && int64(size) > w.limit-off {
		size = int(max(w.limit-off, 0))
	}
	known := int64(0) // bytes from off on that were there before
	if off >= w.off {
		known = w.off + int64(w.n) - off
	}
	if w.seen != nil {
		w.buf = w.seen.take(w, off)
	}
	if cap(w.buf) < size {
		w.buf = make([]byte, size)
	}
	n, err := w.f.ReadAt(w.buf[:size], off)
	w.off, w.n = off, n
	w.eof = errors.Is(err, io.EOF) || w.limit > 0 && off+int64(n) >= w.limit
	if err != nil && !errors.Is(err, io.EOF) && int64(n) <= max(known, 0) { // else there is something to go on with first
		return nil, err
	}
	return w.buf[:n], nil
}

// nextBatch reads the batch at off.
func (w *window) nextBatch(salt uint64, off int64, prev segment.Chain) (segment.Batch, error) {
	b, err := w.at(off, false)
	for {
		if err != nil {
			return segment.Batch{}, err
		}
		batch, berr := segment.ReadBatch(b, salt, off, prev)
		if !segment.IsShort(berr) {
			return batch, berr
		}
		if w.eof && w.off == off {
			return segment.Batch{}, &segment.Stop{Offset: off, Why: "the file ends inside a batch", Zero: len(b) == 0}
		}
		b, err = w.at(off, true)
	}
}

// stopOf returns the *segment.Stop in an error, nil if there is none.
func stopOf(err error) *segment.Stop {
	if err == nil {
		return nil
	}
	var stop *segment.Stop
	errors.As(err, &stop)
	return stop
}

// lostOf returns the *compressed.LostError in an error, nil if there is none.
func lostOf(err error) *compressed.LostError {
	if err == nil {
		return nil
	}
	var lost *compressed.LostError
	errors.As(err, &lost)
	return lost
}

// advance ingests all whole batches up to limit (0: the file's end) and says what stands behind the last one.
func (o *openSeg) advance(limit int64) (*segment.Stop, error) {
	w := window{f: o.file, limit: limit, seen: o.digest}
	if w.seen != nil {
		defer func() { w.seen.finish(&w, o.end.Load()) }()
	}
	for {
		end := o.end.Load()
		batch, err := w.nextBatch(o.header.Salt, end, o.chain)
		if stop := stopOf(err); stop != nil {
			if stop.Unknown {
				return stop, &format.Error{Path: o.path, Offset: stop.Offset, FirstSeq: o.chain.Seq + 1, Why: stop.Why, Err: format.ErrVersion}
			}
			return stop, nil
		}
		if err != nil {
			return nil, named(readFailed(err, o.path, end), o.chain.Seq+1, 0)
		}
		if err := o.ingest(&batch); err != nil {
			return nil, err
		}
		if batch.Commit.Flags&(segment.FlagFinal|segment.FlagContinues) != 0 {
			return &segment.Stop{Offset: o.end.Load(), Why: "last commit"}, nil
		}
	}
}

// closed reports whether the segment's last commit ends it.
func (o *openSeg) complete() bool {
	return o.started && o.last.Flags&(segment.FlagFinal|segment.FlagContinues) != 0
}
