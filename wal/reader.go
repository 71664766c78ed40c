package wal

import (
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/index"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
)

// Level says how far a reader sees.
type Level uint8

const (
	// DefaultLevel is Durable beside the writer and Written elsewhere.
	DefaultLevel Level = iota
	// Durable: what no crash can take back.
	Durable
	// Written: every whole batch in the file; a power cut can take the last ones back.
	Written
)

// Buffer is memory that calls which copy an entry use again. The zero value is ready; it is not safe for concurrent use.
type Buffer struct {
	b []byte
}

func (b *Buffer) size(n int) []byte {
	if cap(b.b) < n {
		b.b = make([]byte, max(n, 4096))
	}
	return b.b[:n]
}

// Reader reads a run: a finished one, a crashed one, or one that is being written. It is safe for concurrent use.
type Reader struct {
	fsys  vfs.FS
	dir   string
	files *files
	set   func() *segSet
	log   *Log      // beside the writer
	ext   *follower // on files alone

	judging sync.Mutex  // one segment at a time is judged
	judged  atomic.Bool // a sealed segment turned out not to be readable through its footer

	mu       sync.Mutex
	manifest manifest.Manifest
	status   manifest.Status
	warnings []error
}

// Reader returns the reader that shares the log's memory. It sees what is durable, unless a call asks for more.
func (l *Log) Reader() *Reader {
	l.kmu.Lock()
	defer l.kmu.Unlock()
	if l.reader == nil {
		l.reader = &Reader{fsys: l.o.FS, dir: l.o.Dir, files: l.files, set: l.set.Load, log: l, status: manifest.Running}
	}
	return l.reader
}

// Dir is the run's folder.
func (r *Reader) Dir() string { return r.dir }

// Manifest returns the run's manifest, rebuilt from the segments as far as possible if it was damaged (see Warnings).
func (r *Reader) Manifest() manifest.Manifest {
	if r.log != nil {
		return r.log.Manifest()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.manifest
}

// Status is the run's status. Running may also mean that the process died and nobody has recovered the run; see Live.
func (r *Reader) Status() manifest.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// Warnings lists damage to derived files (indexes, manifest) that the reader works around in memory.
func (r *Reader) Warnings() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]error(nil), r.warnings...)
}

func (r *Reader) warn(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.warnings) < 1000 {
		r.warnings = append(r.warnings, err)
	}
}

// last is the last seq that is visible at a level.
func (r *Reader) last(level Level) uint64 {
	switch {
	case r.log != nil && level == Written:
		return r.log.written.Load()
	case r.log != nil:
		return r.log.durable.Load()
	case r.ext != nil && level == Durable:
		return r.ext.durable.Load()
	case r.ext != nil:
		return r.ext.written.Load()
	}
	return ^uint64(0)
}

// FirstSeq is the first seq that can be read: 1, or more once retention has removed what was in front.
func (r *Reader) FirstSeq() uint64 { return max(r.set().floor.seq, 1) }

// LastSeq is the last seq that can be read now.
func (r *Reader) LastSeq() uint64 { return r.last(DefaultLevel) }

// Durable is the last seq that is proven durable. For a run of another process it trails the writer by one commit
// until the writer idles.
func (r *Reader) Durable() uint64 { return r.last(Durable) }

// find returns the segment that holds seq, as far as anybody can tell: of segments that cannot be read, the neighbors do.
func (r *Reader) find(set *segSet, seq uint64) (i int, ok bool) {
	if seq <= max(set.floor.seq, 1) { // without a look at any other
		return 0, len(set.segs) > 0
	}
	lo, hi := 0, len(set.segs)-1 // the first segment whose last seq is at or above seq
	for lo < hi {
		mid := (lo + hi) / 2
		if r.lastOf(set, mid) >= seq {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo, hi >= 0
}

func (r *Reader) lastOf(set *segSet, i int) uint64 {
	ref := set.segs[i]
	for {
		if o := ref.open.Load(); o != nil {
			return o.lastSeq.Load()
		}
		if l := ref.lost.Load(); l != nil {
			return l.last
		}
		in, err := r.files.loadInfo(ref)
		if err == nil {
			return in.footer.LastSeq
		}
		if r.judge(ref, err) != nil { // it may be readable the next time; whoever wants entries of it is told why not
			_, last := set.bounds(r.fsys, r.files.run, i)
			return last
		}
	}
}

// Get copies the entry with this seq into buf and returns a view of the copy, valid until buf is used again. A nil
// buf allocates. Beside the writer it sees durable entries only. ErrNotFound: seq is 0 or beyond the end. ErrRemoved:
// it is below FirstSeq. Entries in
// front of and behind damage can be read; one that is lost to it is an error that names file, offset and seqs.
func (r *Reader) Get(seq uint64, buf *Buffer) (entry.View, error) {
	if buf == nil {
		buf = &Buffer{}
	}
	if seq == 0 || seq > r.last(DefaultLevel) {
		if err := r.damage(); err != nil && seq > 0 { // it may have been there
			return entry.View{}, err
		}
		return entry.View{}, r.notFound(seq)
	}
	v, err := r.get(seq, buf)
	return v, r.explain(err)
}

func (r *Reader) notFound(seq uint64) error {
	return fmt.Errorf("%s: seq %d: %w (the run has %d to %d)", r.dir, seq, format.ErrNotFound, r.FirstSeq(), r.last(DefaultLevel))
}

func (r *Reader) get(seq uint64, buf *Buffer) (entry.View, error) {
	set := r.set()
	if seq < set.floor.seq {
		return entry.View{}, r.below(set.floor)
	}
	i, ok := r.find(set, seq)
	if !ok {
		return entry.View{}, format.ErrNotFound
	}
	ref := set.segs[i]
	for {
		if o := ref.open.Load(); o != nil {
			if !o.refs.acquire() {
				if ref.open.Load() == o {
					return entry.View{}, format.ErrClosed
				}
				continue // sealed meanwhile
			}
			v, err := o.get(seq, buf)
			o.refs.release()
			return v, err
		}
		if l := ref.lost.Load(); l != nil {
			if !l.acquire() {
				return entry.View{}, format.ErrClosed
			}
			v, err := l.get(seq, buf)
			l.release()
			return v, err
		}
		m, err := r.files.pinSegment(ref)
		if err == nil {
			v, err := m.get(seq, buf)
			r.files.unpin(m)
			return v, err
		}
		if err := r.judge(ref, err); err != nil {
			return entry.View{}, err
		}
	}
}

// Lookup returns the first seq that carries the key; an error, if one in a damaged place may come before it, or may be
// the only one. Where retention has removed entries it is the first of those that are left. Besides declared kinds, kind may be "id" or "correlation_id" with the value as UUID text.
func (r *Reader) Lookup(kind, value string) (seq uint64, ok bool, err error) {
	no, value, err := r.key(kind, value)
	if err != nil {
		return 0, false, err
	}
	limit := r.last(DefaultLevel)
	fp := entry.FingerprintString(no, value)
	err = r.candidates(fp, func(ref *segRef) (bool, error) {
		done, err := r.withSegment(ref, func(s segReader) (bool, error) {
			found, err := s.firstWith(fp, no, value, limit)
			seq = found
			return found != 0, err
		})
		return done, err
	})
	if err == nil && seq == 0 {
		err = r.Damage() // it may have been in what is lost
	}
	if err != nil {
		return 0, false, err
	}
	return seq, seq != 0, nil
}

// key resolves a kind's name, and turns an id's text into its bytes.
func (r *Reader) key(kind, value string) (entry.KindNo, string, error) {
	switch kind {
	case entry.KindID, entry.KindCorrID:
		id, err := entry.ParseID(value)
		if err != nil {
			return 0, "", err
		}
		no, _ := (*entry.Kinds)(nil).No(kind)
		return no, string(id[:]), nil
	}
	kinds, err := r.kinds()
	if err != nil {
		return 0, "", err
	}
	no, ok := kinds.No(kind)
	if !ok {
		return 0, "", fmt.Errorf("%s: %w: %q", r.dir, format.ErrUnknownKind, kind)
	}
	return no, value, nil
}

// kinds are the run's declared kinds.
func (r *Reader) kinds() (*entry.Kinds, error) {
	if r.log != nil {
		return r.log.Kinds(), nil
	}
	if r.ext == nil {
		return &entry.Kinds{}, nil
	}
	return r.ext.kinds.Load(), nil
}

// kindsOf is the inverse of kindList; a list that cannot be is cut where it goes wrong.
func kindsOf(list []manifest.KeyKind) *entry.Kinds {
	kinds := &entry.Kinds{}
	for _, k := range list {
		more, _, err := kinds.With(k.Name)
		if err != nil {
			break
		}
		kinds = more
	}
	return kinds
}

// segReader is one segment, open or sealed, while it is pinned.
type segReader interface {
	// firstWith returns the first seq up to limit that carries the key, or 0.
	firstWith(fp uint64, kind entry.KindNo, value string, limit uint64) (uint64, error)
	// allWith calls yield for every entry up to limit that carries the key, ascending, until it returns false.
	allWith(fp uint64, kind entry.KindNo, value string, limit uint64, buf *Buffer, yield func(entry.View) bool) (bool, error)
	scan(q *query, yield func(entry.View) bool) (bool, error)
	notes(q *noteQuery, yield func(entry.Note) bool) (bool, error)
}

// withSegment pins a segment and calls use.
func (r *Reader) withSegment(ref *segRef, use func(segReader) (bool, error)) (done bool, err error) {
	for {
		if o := ref.open.Load(); o != nil {
			if !o.refs.acquire() {
				if ref.open.Load() == o {
					return false, format.ErrClosed
				}
				continue
			}
			return useThenLetGo(o, use, o.refs.release)
		}
		if l := ref.lost.Load(); l != nil {
			if !l.acquire() {
				return false, format.ErrClosed
			}
			return useThenLetGo(l, use, l.release)
		}
		m, err := r.files.pinSegment(ref)
		if err == nil {
			return useThenLetGo(m, use, func() { r.files.unpin(m) })
		}
		if err := r.judge(ref, err); err != nil {
			return false, err
		}
	}
}

// useThenLetGo is apart because a deferred call inside a loop is an expensive one.
func useThenLetGo(s segReader, use func(segReader) (bool, error), letGo func()) (bool, error) {
	defer letGo()
	return use(s)
}

// candidates calls visit for the segments that may hold a key with this fingerprint, in order, until it returns true.
// Segments that are still open are always visited; for sealed ones, filters are asked first.
func (r *Reader) candidates(fp uint64, visit func(*segRef) (bool, error)) error {
	set := r.set()
	sealed := len(set.segs)
	for sealed > 0 && set.segs[sealed-1].open.Load() != nil {
		sealed--
	}
	if sealed > 0 {
		var room [24]index.Range // for the plan of 65,000 segments, so that it is not allocated
		for _, rg := range index.Plan(room[:0], set.first(), set.segs[sealed-1].number) {
			if done, err := r.descend(set, rg, fp, visit); done || err != nil {
				return err
			}
		}
	}
	for _, ref := range set.segs[sealed:] {
		done, err := visit(ref)
		if done || err != nil && !r.passed(ref, err) {
			return err
		}
	}
	return nil
}

// passed reports whether a segment could not be asked because retention has removed it meanwhile: what is left is to be
// searched then.
func (r *Reader) passed(ref *segRef, err error) bool {
	return errors.Is(err, format.ErrRemoved) && ref.number < r.set().floor.segment
}

// descend asks the filter of a range, and if it cannot say no, those of its parts.
func (r *Reader) descend(set *segSet, rg index.Range, fp uint64, visit func(*segRef) (bool, error)) (bool, error) {
	if rg.First == rg.Last {
		ref := set.byNumber(rg.First)
		done, err := visit(ref)
		if err != nil && r.passed(ref, err) {
			err = nil
		}
		return done, err
	}
	may, err := r.mayContain(set, rg, fp)
	if err != nil || !may {
		return false, err
	}
	for _, part := range rg.Children() {
		if done, err := r.descend(set, part, fp, visit); done || err != nil {
			return done, err
		}
	}
	return false, nil
}

// mayContain asks a filter; a missing or damaged one says "maybe".
func (r *Reader) mayContain(set *segSet, rg index.Range, fp uint64) (may bool, err error) {
	end := set.byNumber(rg.Last)
	if end == nil || end.gone {
		return true, nil
	}
	if r.judged.Load() && !set.allSealed(rg) {
		return true, nil
	}
	at := end.filterPlace(rg)
	m := r.files.held(&at.held)
	if m == nil {
		if !set.allSealed(rg) {
			return true, nil // without its footer nothing says that the filter is about this segment
		}
		if m, err = r.loadFilter(set, rg, at); err != nil {
			if !errors.Is(err, errNotExist) && !errors.Is(err, format.ErrMissingSegment) { // whoever looks into that segment is told
				path := filepath.Join(r.dir, index.FilterName(rg.First, rg.Last))
				r.warn(&format.Error{Path: path, Offset: -1, Why: "filter is not used", Err: err})
			}
			return true, nil
		}
	}
	defer r.files.unpin(m)
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		rescue(recover(), m.path, &err)
		if err != nil {
			r.warn(err)
			may, err = true, nil
		}
	}()
	return m.filter.MayContain(fp)
}

// allSealed reports whether all segments of a range are read through their footers.
func (s *segSet) allSealed(rg index.Range) bool {
	for _, ref := range s.segs[s.index(rg.First) : s.index(rg.Last)+1] {
		if ref.open.Load() != nil || ref.lost.Load() != nil {
			return false
		}
	}
	return true
}

// loadFilter maps and pins a filter.
func (r *Reader) loadFilter(set *segSet, rg index.Range, at *filterPlace) (*mapped, error) {
	name := index.FilterName(rg.First, rg.Last)
	return r.files.pin(name, &at.held, func(m *mapped) error {
		salts := at.salts.Load()
		if salts == 0 {
			var list []uint64
			for i := rg.First; i <= rg.Last; i++ {
				in, err := r.files.loadInfo(set.byNumber(i))
				if err != nil {
					return err
				}
				list = append(list, in.header.Salt)
			}
			salts = index.ChainSalts(list...)
		}
		var err error
		m.path = filepath.Join(r.dir, name)
		m.filter, err = index.OpenFilter(r.fsys, m.path, index.FilterWant{First: rg.First, Last: rg.Last, Salts: salts})
		if err == nil {
			at.salts.Store(salts)
		}
		return err
	})
}

// History returns every entry that carries the key, in seq order, as far as retention has left it. A view is valid until the
// next step. See Lookup for kinds.
func (r *Reader) History(kind, value string) iter.Seq2[entry.View, error] {
	return func(yield func(entry.View, error) bool) {
		no, value, err := r.key(kind, value)
		if err != nil {
			yield(entry.View{}, err)
			return
		}
		limit := r.last(DefaultLevel)
		fp := entry.FingerprintString(no, value)
		var buf Buffer
		stopped := false
		err = r.candidates(fp, func(ref *segRef) (bool, error) {
			return r.withSegment(ref, func(s segReader) (bool, error) {
				return s.allWith(fp, no, value, limit, &buf, func(v entry.View) bool {
					stopped = !yield(v, nil)
					return !stopped
				})
			})
		})
		if err == nil && !stopped {
			err = r.Damage()
		}
		if err != nil && !stopped {
			yield(entry.View{}, err)
		}
	}
}

// damage is what ends a damaged run's log, if anything does.
func (r *Reader) damage() error {
	if r.ext != nil {
		if d := r.ext.damage.Load(); d != nil {
			return d
		}
	}
	return nil
}

// Damage says why the run's log is not whole, as far as opening it has told, or nil: segments that were finished are
// looked at when they are read. Scans deliver what is good before it and then this error.
func (r *Reader) Damage() error {
	if r.ext != nil && r.ext.gap != nil {
		return r.ext.gap
	}
	return r.damage()
}
