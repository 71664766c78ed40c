package markers

import (
	"errors"
	"math"
	"sync/atomic"

	"github.com/runlog-io/runlog/entry"
)

// Stream is one stream of data that the engine sees, on however many topics. It is safe for concurrent use.
type Stream struct {
	m         *Markers
	class, id string
	slot      uint32
	marked    bool

	// Written by whoever observes, in this order, and read in the opposite one: so the times cover at least the messages
	// that are counted.
	highest atomic.Int64
	lowest  atomic.Int64
	count   atomic.Uint64
	dirty   atomic.Bool // it is on the list m.dirty, or about to be put there; cleared under m.mu, before count is read again

	// Guarded by m.mu:
	recorded   Cursor // what the last record says
	next       Cursor // what the record that is being made says
	introduced bool   // a record has its name
	lastTs     int64  // of the last marker
	ordinal    uint32 // of the next one with the same time
}

func newStream(m *Markers, class, id string, slot uint32) *Stream {
	s := &Stream{m: m, class: class, id: id, slot: slot, marked: m.marked[StreamID{class, id}]}
	s.highest.Store(math.MinInt64)
	s.lowest.Store(math.MaxInt64)
	return s
}

// Class is the stream's class.
func (s *Stream) Class() string { return s.class }

// ID tells the stream from others of its class.
func (s *Stream) ID() string { return s.id }

// Slot is the stream's number in the run.
func (s *Stream) Slot() uint32 { return s.slot }

// Marked reports whether each of its messages gets a record of its own: then call Mark.
func (s *Stream) Marked() bool { return s.marked }

// Observe counts a message that the engine has seen, with its ts_init. It takes no lock unless the stream has just been
// recorded, and does not allocate.
func (s *Stream) Observe(tsInit int64) {
	for h := s.highest.Load(); tsInit > h; h = s.highest.Load() {
		if s.highest.CompareAndSwap(h, tsInit) {
			break
		}
	}
	for l := s.lowest.Load(); tsInit < l; l = s.lowest.Load() {
		if s.lowest.CompareAndSwap(l, tsInit) {
			break
		}
	}
	s.count.Add(1)
	if !s.dirty.Load() && s.dirty.CompareAndSwap(false, true) {
		s.m.soil(s)
	}
}

// soil puts a stream on the list of those that have advanced.
func (m *Markers) soil(s *Stream) {
	m.mu.Lock()
	if !m.closed.Load() {
		m.dirty = append(m.dirty, s)
		m.pending.Store(int64(len(m.dirty)))
	}
	m.mu.Unlock()
}

// Mark counts a message as Observe does; if the stream is marked, it also writes a record of it. There may be no room for
// that; then the gap is recorded.
func (s *Stream) Mark(tsEvent, tsInit int64, fingerprint Fingerprint) {
	s.Observe(tsInit)
	if !s.marked {
		return
	}
	m := s.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed.Load() {
		return
	}
	if s.ordinal > 0 && s.lastTs != tsInit {
		s.ordinal = 0
	}
	err := m.settle(m.try)
	if err == nil {
		mk := Marker{
			Slot: s.slot, Class: s.class, ID: s.id, TsEvent: tsEvent, TsInit: tsInit, Ordinal: s.ordinal, Fingerprint: fingerprint,
			isNew: !s.introduced,
		}
		m.buf = appendMarker(m.buf[:0], m.seq+1, &mk)
		if err = m.try(entry.NoteMarker, m.buf); err == nil {
			s.introduced = true
			m.wrote()
		}
	}
	if err != nil {
		m.drop(Overload, &m.gap.Markers)
	}
	s.lastTs = tsInit
	s.ordinal++
	m.snapshotParts()
}

// cursor reads how far the stream has come.
func (s *Stream) cursor() Cursor {
	c := Cursor{Slot: s.slot, Class: s.class, ID: s.id, Count: s.count.Load(), named: true, low: true}
	c.Lowest, c.Highest = s.lowest.Load(), s.highest.Load()
	return c
}

// Observe counts a message of the stream with this name. A Stream that is kept is faster. Like Stream it returns
// ErrInvalid; messages of classes that are not recorded are passed over.
func (m *Markers) Observe(class, id string, tsInit int64) error {
	s, err := m.stream(class, id)
	if s != nil {
		s.Observe(tsInit)
	}
	return err
}

// stream is Stream for a message that is there: nil and no error if its class is not recorded.
func (m *Markers) stream(class, id string) (*Stream, error) {
	if !m.records(class) {
		return nil, nil
	}
	s, err := m.Stream(class, id)
	if errors.Is(err, errTooMany) {
		m.refuse()
	}
	return s, err
}
