package markers

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/wal"
)

// Source is a run as the reader needs it; *runlog.Reader is one.
type Source interface {
	Notes(o wal.NoteOptions) iter.Seq2[entry.Note, error]
	FirstSeq() uint64
	LastSeq() uint64
	Status() manifest.Status
	Dir() string
}

// ErrNoMarkers: nothing in front of the entry says what the engine had seen. The run has no markers, or had none yet, or
// that part of its log is not there any more.
var ErrNoMarkers = errors.New("no markers")

// Loss says whether records are missing in front of an entry.
type Loss uint8

const (
	// Unknown: nothing behind the entry tells. The process died, or has not come further yet.
	Unknown Loss = iota
	// None: everything that was observed before the entry is counted, if the entry was submitted through Markers, or
	// Boundary was called before it.
	None
	// Some: cursors in front of the entry were dropped, and had not caught up; or there were too many streams. The streams
	// had come at least as far as said. Dropped markers are no such loss, as they change no count.
	Some
)

func (l Loss) String() string {
	switch l {
	case None:
		return "none"
	case Some:
		return "some"
	}
	return "unknown"
}

// State is what the engine had seen when it made an entry.
type State struct {
	Seq     uint64   // of the entry
	Cursors []Cursor // of all streams, by slot; those with Count 0 are known by name only
	Records uint64   // number of the last record in front of the entry, dropped ones included
	Taken   int64    // when the newest of them was made
	Loss    Loss
	Final   bool // the last snapshot is among them
}

// Stream returns the cursor of a stream. False: it had not been seen.
func (s *State) Stream(class, id string) (Cursor, bool) {
	for _, c := range s.Cursors {
		if c.Class == class && c.ID == id {
			return c, true
		}
	}
	return Cursor{}, false
}

// Reader reads the markers of a run. It keeps nothing between calls, and is safe for concurrent use.
type Reader struct{ src Source }

// Open returns a reader of a run's markers.
func Open(src Source) *Reader { return &Reader{src: src} }

var allKinds = []entry.NoteKind{entry.NoteStreams, entry.NoteCursor, entry.NoteMarker, entry.NoteGap}

// located says where a record is that cannot be believed.
func (r *Reader) located(after uint64, err error) error {
	return &format.Error{Path: r.src.Dir(), Offset: -1, FirstSeq: after, Why: "markers behind this entry", Err: err}
}

// base finds the newest whole snapshot in front of the entry: its number, and the entry that its first part stands behind.
func (r *Reader) base(seq uint64) (number, after uint64, err error) {
	var rec Record
	for n, err := range r.src.Notes(wal.NoteOptions{To: seq - 1, Kinds: []entry.NoteKind{entry.NoteStreams}, Reverse: true}) {
		if err != nil {
			return 0, 0, err
		}
		if err := decode(n, &rec); err != nil {
			return 0, 0, r.located(n.After, err)
		}
		if rec.Part.ends(len(rec.Cursors)) {
			number = rec.Part.Snapshot
		}
		if number == rec.Part.Snapshot && rec.Part.First == 0 {
			return number, n.After, nil
		}
	}
	return 0, 0, nil
}

// fold adds up the records from a snapshot on, up to those that stand behind the entry to, and hands each to visit, which
// may stop it. Number 0: from the log's first record on.
func (r *Reader) fold(number, from, to uint64, visit func(*Record) bool) (*fold, error) {
	f := newFold(number > 0 || r.src.FirstSeq() > 1)
	var rec Record
	for n, err := range r.src.Notes(wal.NoteOptions{From: from, To: to, Kinds: allKinds}) {
		if err != nil {
			return nil, err
		}
		if err := decode(n, &rec); err != nil {
			return nil, r.located(n.After, err)
		}
		if !f.begun && number > 0 && (rec.Kind != entry.NoteStreams || rec.Part.Snapshot != number || rec.Part.First != 0) {
			continue // from before the snapshot
		}
		var bad error
		f.add(&rec, func(p Problem, detail string) {
			if bad == nil {
				bad = r.located(n.After, malformed("%s: %s", p, detail))
			}
		})
		if bad != nil {
			return nil, bad
		}
		if visit != nil && !visit(&rec) {
			break
		}
	}
	return f, nil
}

// SeenAt returns what the engine had seen when it made the entry with this seq: all records in front of it, added up. A seq
// behind the last entry gives the newest state. It reads the part of the log between a snapshot and the entry, see
// Options, and looks at what follows the entry to say whether anything was lost. ErrNoMarkers: nothing is known.
func (r *Reader) SeenAt(seq uint64) (State, error) {
	if seq == 0 {
		return State{}, fmt.Errorf("%w: markers: seq 0", format.ErrInvalid)
	}
	if last := r.src.LastSeq(); seq > last+1 {
		seq = last + 1
	}
	if seq == 1 { // RunStarted, which is made before there can be markers
		return State{}, r.none(seq)
	}
	number, after, err := r.base(seq)
	if err != nil {
		return State{}, err
	}
	if number == 0 {
		return State{}, r.none(seq)
	}
	f, err := r.fold(number, after, seq-1, nil)
	if err != nil {
		return State{}, err
	}
	if f.snap.whole == 0 {
		return State{}, r.none(seq)
	}
	st := State{Seq: seq, Records: f.seq, Taken: f.taken, Final: f.final}
	for _, slot := range slices.Sorted(maps.Keys(f.cursors)) {
		st.Cursors = append(st.Cursors, *f.cursors[slot])
	}
	switch {
	case f.behind || f.refused:
		st.Loss = Some
	case f.final:
		st.Loss = None
	default:
		st.Loss, err = r.loss(seq)
	}
	return st, err
}

func (r *Reader) none(seq uint64) error {
	return fmt.Errorf("%s: seq %d: %w", r.src.Dir(), seq, ErrNoMarkers)
}

// loss looks for the first record behind the entry. If cursors were dropped in front of the entry, and nothing was written
// between them and the entry, it is their gap.
func (r *Reader) loss(seq uint64) (Loss, error) {
	var rec Record
	for _, kinds := range [][]entry.NoteKind{{entry.NoteStreams, entry.NoteGap}, allKinds} { // first what the indexes know
		for n, err := range r.src.Notes(wal.NoteOptions{From: seq, Kinds: kinds}) {
			switch {
			case errors.Is(err, format.ErrCorrupt) || errors.Is(err, format.ErrTorn):
				return Unknown, nil // the damage is behind the entry: whoever reads on is told
			case err != nil:
				return Unknown, err
			}
			if err := decode(n, &rec); err != nil {
				return Unknown, r.located(n.After, err)
			}
			if g := &rec.Gap; rec.Kind == entry.NoteGap && g.Cursors+g.Refused > 0 && g.FirstAfter < seq {
				return Some, nil
			}
			return None, nil
		}
	}
	return Unknown, nil
}

// Streams returns the newest state of all streams.
func (r *Reader) Streams() (State, error) { return r.SeenAt(r.src.LastSeq() + 1) }

// Records returns the records that stand behind the entries from to to (0: the last one), in the order of the log. The
// names of streams are filled in; they are empty only where the part of the log that has them is not there any more. A
// record is valid until the next step. An error comes last.
func (r *Reader) Records(from, to uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		number, at := uint64(0), uint64(0)
		if from > 0 {
			var err error
			if number, at, err = r.base(from); err != nil {
				yield(Record{}, err)
				return
			}
		}
		stopped := false
		_, err := r.fold(number, at, to, func(rec *Record) bool {
			if rec.After < from {
				return true
			}
			stopped = !yield(*rec, nil)
			return !stopped
		})
		if err != nil && !stopped {
			yield(Record{}, err)
		}
	}
}
