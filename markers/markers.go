package markers

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/writer"
)

// Log is the run as markers need it; *runlog.Run is one.
type Log interface {
	Submit(d entry.Draft) (seq uint64, err error)
	TryNote(kind entry.NoteKind, body []byte) (after uint64, ok bool)
	Note(kind entry.NoteKind, body []byte) (t writer.Ticket, after uint64, err error)
	Accepted() uint64
}

// StreamID names a stream.
type StreamID struct{ Class, ID string }

// Options of Markers. The zero value is useful.
type Options struct {
	// Classes are the classes that are recorded; messages of others are passed over. none: all.
	Classes []string

	// Marked lists the streams of which each message gets a record of its own.
	Marked []StreamID

	// FlushEvery bounds how long what was observed waits for a record when no entry is submitted: a goroutine looks so
	// often. 0: 250 ms; negative: never, call Boundary.
	FlushEvery time.Duration

	// A snapshot of all streams is written after so many entries, or so many bytes of records (and four times the size of
	// the snapshot before). It is where reading begins. 0: 16384 entries, 1 MiB; at least 16 and 4 KiB.
	SnapshotEntries uint64
	SnapshotBytes   int

	MaxStreams int // that are taken, at about 400 bytes each; 0: 65536; at most 1<<24

	Now func() int64 // time of a record, ns since 1970 UTC; nil: the system's
}

func (o *Options) resolve() error {
	for _, c := range o.Classes {
		if err := checkText("Classes: class", c, MaxClass); err != nil {
			return err
		}
	}
	for _, s := range o.Marked {
		if err := checkName(s.Class, s.ID); err != nil {
			return fmt.Errorf("option Marked: %w", err)
		}
	}
	o.Classes, o.Marked = slices.Clone(o.Classes), slices.Clone(o.Marked)
	if o.FlushEvery == 0 {
		o.FlushEvery = 250 * time.Millisecond
	}
	if o.SnapshotEntries == 0 {
		o.SnapshotEntries = 16384
	}
	if o.SnapshotBytes == 0 {
		o.SnapshotBytes = 1 << 20
	}
	if o.MaxStreams == 0 {
		o.MaxStreams = 65536
	}
	if o.Now == nil {
		o.Now = func() int64 { return time.Now().UnixNano() }
	}
	switch {
	case o.SnapshotEntries < 16:
		return fmt.Errorf("%w: markers: option SnapshotEntries is %d, want at least 16", format.ErrInvalid, o.SnapshotEntries)
	case o.SnapshotBytes < 4096:
		return fmt.Errorf("%w: markers: option SnapshotBytes is %d, want at least 4096", format.ErrInvalid, o.SnapshotBytes)
	case o.MaxStreams < 0 || o.MaxStreams > 1<<24:
		return fmt.Errorf("%w: markers: option MaxStreams is %d, the limit is %d", format.ErrInvalid, o.MaxStreams, 1<<24)
	}
	return nil
}

func checkText(what, s string, limit int) error {
	if s == "" || len(s) > limit || !utf8.ValidString(s) {
		return fmt.Errorf("%w: markers: %s is %.300q, want 1 to %d bytes of UTF-8", format.ErrInvalid, what, s, limit)
	}
	return nil
}

func checkName(class, id string) error {
	if err := checkText("class", class, MaxClass); err != nil {
		return err
	}
	return checkText("id", id, MaxID)
}

// Markers records what a run's engine sees. It is safe for concurrent use. There is one for each run.
type Markers struct {
	o       Options
	log     Log
	classes map[string]bool // nil: all
	marked  map[StreamID]bool

	names  sync.RWMutex // taken before mu
	byName map[StreamID]*Stream

	// What Boundary looks at before it takes the lock. Written under mu.
	pending   atomic.Int64  // len(dirty)
	unwritten atomic.Bool   // a snapshot is half written
	snapAfter atomic.Uint64 // entries that were accepted when the last snapshot was begun
	closed    atomic.Bool

	mu      sync.Mutex // never held while anything waits
	streams []*Stream  // by slot
	dirty   []*Stream  // each once: those whose flag dirty is set
	again   []*Stream  // memory of clean
	seq     uint64     // of the last record, dropped or not
	gap     Gap        // not written yet; To 0: none
	dropped uint64
	behind  bool // a cursor was dropped, and no whole record of cursors was written since
	refused bool // a message of a stream that was not taken was dropped
	buf     []byte
	snap    snapshot

	stop    chan struct{} // closed to end the goroutine
	stopped chan struct{}

	closing  sync.Mutex // held by Close
	closeErr error
	finished bool
}

// snapshot is how far the writing of a snapshot has come.
type snapshot struct {
	number uint64
	going  bool
	next   uint32 // slot
	end    uint32 // streams that it has
	bytes  int    // of its parts
	last   int    // bytes of the one before
	since  int    // bytes of records since it was begun
	rest   int    // calls that do not try, since there was no room
}

const (
	partsAtOnce = 4  // parts of a snapshot that one call writes
	restFor     = 64 // calls of snapshotParts, after one for which there was no room
)

// New starts the markers of a run: it writes the first record, and waits for room for it if there is none.
func New(log Log, o Options) (*Markers, error) {
	if log == nil {
		return nil, fmt.Errorf("%w: markers: no Log", format.ErrInvalid)
	}
	if err := o.resolve(); err != nil {
		return nil, err
	}
	m := &Markers{o: o, log: log, byName: map[StreamID]*Stream{}, marked: map[StreamID]bool{}, stop: make(chan struct{}), stopped: make(chan struct{})}
	for _, s := range o.Marked {
		m.marked[s] = true
	}
	if len(o.Classes) > 0 {
		m.classes = map[string]bool{}
		for _, c := range o.Classes {
			m.classes[c] = true
		}
	}
	m.snapAfter.Store(log.Accepted())
	m.snap.number = 1
	first := beginStreams(nil, 1, o.Now(), Part{Snapshot: 1})
	if _, _, err := log.Note(entry.NoteStreams, first); err != nil {
		return nil, fmt.Errorf("markers: %w", err)
	}
	m.seq = 1
	if o.FlushEvery > 0 {
		go m.run()
	} else {
		close(m.stopped)
	}
	return m, nil
}

// run writes what has been waiting for too long.
func (m *Markers) run() {
	defer close(m.stopped)
	tick := time.NewTicker(m.o.FlushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			m.Boundary()
		case <-m.stop:
			return
		}
	}
}

// Submit records what was observed since the last record, and then submits: so the record stands in front of the entry.
// With it, Markers is the Submitter that package capture wants.
func (m *Markers) Submit(d entry.Draft) (seq uint64, err error) {
	m.Boundary()
	return m.log.Submit(d)
}

// Boundary records what was observed since the last record. Call it before each entry that is submitted in another way
// than by Submit. It never waits: what there is no room for is recorded by the next one.
func (m *Markers) Boundary() {
	if m.pending.Load() == 0 && !m.unwritten.Load() && m.log.Accepted()-m.snapAfter.Load() < m.o.SnapshotEntries {
		return
	}
	m.mu.Lock()
	if !m.closed.Load() {
		m.flush(m.try)
		m.snapshotParts()
	}
	m.mu.Unlock()
}

// try is how records are written that may be dropped.
func (m *Markers) try(kind entry.NoteKind, body []byte) error {
	if _, ok := m.log.TryNote(kind, body); !ok {
		return errDropped
	}
	return nil
}

var errDropped = errors.New("no room for a record")

// put hands a record to the log: it is try, or, at the end, waits for room.
type put func(kind entry.NoteKind, body []byte) error

// settle writes the open gap. Nothing else is written before it. It is called with mu held.
func (m *Markers) settle(put put) error {
	if m.gap.To == 0 {
		return nil
	}
	m.buf = appendGap(m.buf[:0], &m.gap)
	if err := put(entry.NoteGap, m.buf); err != nil {
		return err
	}
	m.gap = Gap{}
	m.snap.since += gapBody
	return nil
}

// drop counts a record that was not written, in one of the gap's counters. It is called with mu held.
func (m *Markers) drop(reason Reason, counter *uint64) {
	m.seq++
	m.dropped++
	now := m.o.Now()
	if m.gap.To == 0 {
		m.gap.From, m.gap.FirstTime = m.seq, now
	}
	m.gap.To, m.gap.LastTime = m.seq, now
	m.gap.Reason |= reason
	*counter++
}

// fallBehind is drop for what changes counts. after is the last entry that was accepted before it was tried.
func (m *Markers) fallBehind(after uint64, reason Reason, counter *uint64) {
	if m.gap.Cursors+m.gap.Refused == 0 {
		m.gap.FirstAfter = after
	}
	m.drop(reason, counter)
	m.behind = m.behind || reason == Overload
	m.refused = m.refused || reason == TooMany
}

// wrote counts a record that was written. It is called with mu held.
func (m *Markers) wrote() {
	m.seq++
	m.snap.since += len(m.buf)
}

// flush writes the cursors of all streams that have advanced by now. Those for which there is no room stay dirty, and one
// record counts as dropped. It is called with mu held.
func (m *Markers) flush(put put) {
	for left := len(m.dirty); left > 0; {
		after := m.log.Accepted()
		err := m.settle(put)
		if err == nil {
			n := m.encodeDirty(left)
			if err = put(entry.NoteCursor, m.buf); err == nil {
				left -= n
				m.behind = m.behind && left > 0
				m.wrote()
				m.clean(n)
			}
		}
		if err != nil {
			m.fallBehind(after, Overload, &m.gap.Cursors)
			return
		}
	}
}

// encodeDirty makes a record of the first dirty streams, of which left are still to be written, and returns how many it has.
func (m *Markers) encodeDirty(left int) (n int) {
	taken := m.o.Now()
	m.buf = beginCursors(m.buf[:0], m.seq+1, taken)
	for _, s := range m.dirty[:left] {
		if len(m.buf) > recordBytes {
			break
		}
		s.next = s.cursor()
		s.next.isNew = !s.introduced
		s.next.low = s.next.isNew || s.recorded.Count == 0 || s.next.Lowest < s.recorded.Lowest
		m.buf = appendCursor(m.buf, &s.next, taken)
		n++
	}
	countCursors(m.buf, n, n == left)
	return n
}

// clean takes the first n streams, which have been recorded, off the list. Those that have advanced meanwhile go to its end.
func (m *Markers) clean(n int) {
	again := m.again[:0]
	for _, s := range m.dirty[:n] {
		s.recorded, s.introduced = s.next, true
		s.dirty.Store(false)
		if m.closed.Load() || s.count.Load() == s.recorded.Count || !s.dirty.CompareAndSwap(false, true) {
			continue // whoever observes it next, or has just done so, puts it on the list
		}
		again = append(again, s)
	}
	m.again = again
	rest := append(m.dirty[:0], m.dirty[n:]...)
	rest = append(rest, again...)
	clear(m.dirty[len(rest):])
	m.dirty = rest
	m.pending.Store(int64(len(rest)))
}

// snapshotParts writes the next parts of a snapshot, if one is due. When there is no room, nothing is lost: it is tried again
// later. It is called with mu held.
func (m *Markers) snapshotParts() {
	s := &m.snap
	if s.rest > 0 {
		s.rest--
		return
	}
	due := s.going || s.since >= max(m.o.SnapshotBytes, 4*s.last) || m.log.Accepted()-m.snapAfter.Load() >= m.o.SnapshotEntries
	if !due {
		return
	}
	if !s.going || s.bytes == 0 { // its streams are those that there are when its first part is written
		m.beginSnapshot()
	}
	err := m.settle(m.try)
	for i := 0; i < partsAtOnce && s.going && err == nil; i++ {
		err = m.writePart(m.try, false)
	}
	if err != nil {
		s.rest = restFor
	}
	m.unwritten.Store(s.going)
}

func (m *Markers) beginSnapshot() {
	s := &m.snap
	if !s.going || s.bytes > 0 { // else none of its parts has got through
		s.number++
	}
	s.going, s.next, s.end = true, 0, uint32(len(m.streams))
	s.bytes, s.since = 0, 0
	m.snapAfter.Store(m.log.Accepted())
}

func (m *Markers) writePart(put put, final bool) error {
	s := &m.snap
	taken := m.o.Now()
	m.buf = beginStreams(m.buf[:0], m.seq+1, taken, Part{
		Snapshot: s.number, Streams: s.end, First: s.next, Final: final, Refused: m.refused, Behind: m.behind,
	})
	n := uint32(0)
	for ; s.next+n < s.end && len(m.buf) <= recordBytes; n++ {
		st := m.streams[s.next+n]
		c := st.recorded // what the records before it say, so that both can be compared
		c.Class, c.ID = st.class, st.id
		m.buf = appendStream(m.buf, &c, taken)
	}
	binary.LittleEndian.PutUint32(m.buf[stCount:], n)
	if err := put(entry.NoteStreams, m.buf); err != nil {
		return err
	}
	m.wrote()
	for _, st := range m.streams[s.next : s.next+n] {
		st.introduced = true
	}
	s.next += n
	s.bytes += len(m.buf)
	if s.next == s.end {
		s.going, s.last = false, s.bytes
	}
	return nil
}

// Stats counts what the markers have done.
type Stats struct {
	Streams int
	Records uint64 // that were written, gaps not included
	Dropped uint64
}

// Stats returns the counts so far.
func (m *Markers) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Stats{Streams: len(m.streams), Records: m.seq - m.dropped, Dropped: m.dropped}
}

// Close records what was observed and not yet recorded, and a last snapshot. Call it before the run's Close, and when
// nothing more will be observed: what is observed after it has begun is not recorded. Unlike all others it waits for room,
// as long as ctx lets it. Without it, as after a crash, what is missing at the end shows as such. It is idempotent.
func (m *Markers) Close(ctx context.Context) error {
	m.closing.Lock()
	defer m.closing.Unlock()
	if m.finished {
		return m.closeErr
	}
	m.finished = true
	close(m.stop)
	<-m.stopped
	m.mu.Lock()
	m.closed.Store(true) // from here on nobody else changes anything
	m.mu.Unlock()
	if err := m.finish(ctx); err != nil {
		m.closeErr = fmt.Errorf("markers: the last records: %w", err)
	}
	return m.closeErr
}

func (m *Markers) finish(ctx context.Context) (err error) {
	wait := func(kind entry.NoteKind, body []byte) error {
		if err == nil { // the first one stays
			err = m.wait(ctx, kind, body)
		}
		return err
	}
	if m.gap.To != 0 {
		m.gap.Reason |= AtClose
	}
	if m.flush(wait); err != nil {
		return err
	}
	if err := m.settle(wait); err != nil {
		return err
	}
	for m.beginSnapshot(); m.snap.going; {
		if err := m.writePart(wait, true); err != nil {
			return err
		}
	}
	return nil
}

// wait writes a record and waits for room.
func (m *Markers) wait(ctx context.Context, kind entry.NoteKind, body []byte) error {
	if ctx.Done() == nil {
		_, _, err := m.log.Note(kind, body)
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	body = slices.Clone(body)
	done := make(chan error, 1)
	go func() {
		_, _, err := m.log.Note(kind, body)
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stream returns the stream with this name, which is a new one when it is first asked for. ErrInvalid: the name breaks a
// limit, its class is not recorded, or there are too many streams.
func (m *Markers) Stream(class, id string) (*Stream, error) {
	m.names.RLock()
	s := m.byName[StreamID{class, id}]
	m.names.RUnlock()
	if s != nil {
		return s, nil
	}
	if err := checkName(class, id); err != nil {
		return nil, err
	}
	if !m.records(class) {
		return nil, fmt.Errorf("%w: markers: class %q is not recorded", format.ErrInvalid, class)
	}
	m.names.Lock()
	defer m.names.Unlock()
	if s := m.byName[StreamID{class, id}]; s != nil {
		return s, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.streams) >= m.o.MaxStreams {
		return nil, fmt.Errorf("%w: markers: %s %s: there are %d streams already", errTooMany, class, id, len(m.streams))
	}
	s = newStream(m, strings.Clone(class), strings.Clone(id), uint32(len(m.streams)))
	m.byName[StreamID{s.class, s.id}] = s
	m.streams = append(m.streams, s)
	return s, nil
}

var errTooMany = fmt.Errorf("%w: too many streams", format.ErrInvalid)

func (m *Markers) records(class string) bool { return m.classes == nil || m.classes[class] }

// refuse counts a message of a stream that is not taken.
func (m *Markers) refuse() {
	after := m.log.Accepted()
	m.mu.Lock()
	if !m.closed.Load() {
		m.fallBehind(after, TooMany, &m.gap.Refused)
	}
	m.mu.Unlock()
}
