package markers

import (
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
)

// Limits of a stream's name, in bytes of UTF-8.
const (
	MaxClass = 64
	MaxID    = 255
)

// Layout of the bodies; see docs/format/notes.md.
const (
	stSeq      = 0
	stTaken    = 8
	stSnapshot = 16
	stStreams  = 24
	stFirst    = 28
	stCount    = 32
	stFlags    = 36
	stItems    = 40

	cuSeq   = 0
	cuTaken = 8
	cuCount = 16
	cuFlags = 20
	cuItems = 24

	mkSeq         = 0
	mkEvent       = 8
	mkInit        = 16
	mkOrdinal     = 24
	mkFingerprint = 28
	mkStream      = 60

	gpFrom       = 0
	gpTo         = 8
	gpFirstAfter = 16
	gpFirstTime  = 24
	gpLastTime   = 32
	gpCursors    = 40
	gpMarkers    = 48
	gpRefused    = 56
	gpReason     = 64
	gapBody      = 68

	flagFinal   = 1 // of a streams note
	flagRefused = 2
	flagBehind  = 4

	flagWhole = 1 // of a cursor note

	bitNew    = 1 // of a stream's number: its name follows
	bitLowest = 2 // of a cursor's number: its lowest time follows
)

// recordBytes is where a cursor or streams note ends, up to one stream later. It fits into the smallest share that a
// log's options leave to notes that may be lost, and keeps the time that making one takes small.
const recordBytes = 3 << 10

// Fingerprint identifies the content of a message. The caller's function makes it.
type Fingerprint = [32]byte

// Cursor is how far a stream had come.
type Cursor struct {
	Slot      uint32 // the stream's number in the run, from 0, in the order of first sight
	Class, ID string // the stream's name
	Count     uint64 // messages since the run began; 0: none that is recorded
	Lowest    int64  // the lowest and the highest ts_init among them
	Highest   int64

	named bool // Class and ID are known
	isNew bool // in a record: the name stands in it
	low   bool // Lowest is known
}

// Marker is one message of a stream.
type Marker struct {
	Slot        uint32
	Class, ID   string
	TsEvent     int64
	TsInit      int64
	Ordinal     uint32 // among messages of the stream that follow each other with the same TsInit, from 0
	Fingerprint Fingerprint

	isNew bool
}

// Part says which streams a streams record holds: those with slots from First on, of a snapshot that has Streams of them.
type Part struct {
	Snapshot uint64 // number of the snapshot in the run, from 1
	Streams  uint32
	First    uint32
	Final    bool // the last snapshot, made when the markers were closed
	Refused  bool // messages of streams that were not taken are missing, in all records of the run
	Behind   bool // cursors were dropped, and those in this part have not caught up
}

func (p *Part) flags() (f uint32) {
	for bit, set := range map[uint32]bool{flagFinal: p.Final, flagRefused: p.Refused, flagBehind: p.Behind} {
		if set {
			f |= bit
		}
	}
	return f
}

// ends reports whether a part with n streams is the last of its snapshot.
func (p *Part) ends(n int) bool { return uint64(p.First)+uint64(n) == uint64(p.Streams) }

// Reason says why records were dropped; several may apply.
type Reason uint32

// Reasons.
const (
	Overload Reason = 1 << iota // there was no room, and nobody waits for it
	AtClose                     // they were still missing when the markers were closed
	TooMany                     // of messages of streams beyond Options.MaxStreams
)

func (r Reason) String() string {
	text := ""
	for i, name := range [...]string{"overload", "closed", "too many streams"} {
		if r&(1<<i) != 0 {
			if text != "" {
				text += ", "
			}
			text += name
		}
	}
	return text
}

// Gap stands for records that were dropped.
type Gap struct {
	From, To   uint64 // their numbers
	FirstAfter uint64 // the first of Cursors and Refused would have stood behind this entry; 0: there is none
	FirstTime  int64
	LastTime   int64
	Cursors    uint64 // how many were cursors, before an entry or at an interval; the streams' next cursors make up for them
	Markers    uint64 // how many were markers
	Refused    uint64 // messages of streams that were not taken
	Reason     Reason
}

// Record is one record of the markers.
type Record struct {
	Kind    entry.NoteKind // NoteStreams, NoteCursor, NoteMarker or NoteGap
	After   uint64         // seq of the entry that it stands behind
	Seq     uint64         // number of the record in the run, from 1; of a gap, the first that was dropped
	Taken   int64          // streams, cursor: when it was made
	Cursors []Cursor       // streams, cursor
	Whole   bool           // cursor: no other stream had advanced, so that nothing that was dropped is missing any more
	Part    Part           // streams
	Marker  Marker         // marker
	Gap     Gap            // gap
}

func zigzag(d int64) uint64   { return uint64(d)<<1 ^ uint64(d>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendName(b []byte, class, id string) []byte { return appendText(appendText(b, class), id) }

// beginStreams appends a part without its streams; their number is set when they are there.
func beginStreams(b []byte, seq uint64, taken int64, p Part) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, seq)
	b = le.AppendUint64(b, uint64(taken))
	b = le.AppendUint64(b, p.Snapshot)
	b = le.AppendUint32(b, p.Streams)
	b = le.AppendUint32(b, p.First)
	b = le.AppendUint32(b, 0)
	return le.AppendUint32(b, p.flags())
}

func appendStream(b []byte, c *Cursor, taken int64) []byte {
	b = binary.AppendUvarint(b, c.Count)
	if c.Count > 0 {
		b = binary.AppendUvarint(b, zigzag(c.Highest-taken))
		b = binary.AppendUvarint(b, uint64(c.Highest-c.Lowest))
	}
	return appendName(b, c.Class, c.ID)
}

// beginCursors appends a cursor record without its cursors; countCursors sets how many there are.
func beginCursors(b []byte, seq uint64, taken int64) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, seq)
	b = le.AppendUint64(b, uint64(taken))
	return le.AppendUint64(b, 0)
}

func countCursors(b []byte, n int, whole bool) {
	binary.LittleEndian.PutUint32(b[cuCount:], uint32(n))
	if whole {
		binary.LittleEndian.PutUint32(b[cuFlags:], flagWhole)
	}
}

// appendCursor appends a cursor, its lowest time if c.low says so, and its name if c.isNew does.
func appendCursor(b []byte, c *Cursor, taken int64) []byte {
	head := uint64(c.Slot) << 2
	if c.isNew {
		head |= bitNew
	}
	if c.low {
		head |= bitLowest
	}
	b = binary.AppendUvarint(b, head)
	b = binary.AppendUvarint(b, c.Count)
	b = binary.AppendUvarint(b, zigzag(c.Highest-taken))
	if c.low {
		b = binary.AppendUvarint(b, uint64(c.Highest-c.Lowest))
	}
	if c.isNew {
		b = appendName(b, c.Class, c.ID)
	}
	return b
}

func appendMarker(b []byte, seq uint64, m *Marker) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, seq)
	b = le.AppendUint64(b, uint64(m.TsEvent))
	b = le.AppendUint64(b, uint64(m.TsInit))
	b = le.AppendUint32(b, m.Ordinal)
	b = append(b, m.Fingerprint[:]...)
	head := uint64(m.Slot) << 1
	if !m.isNew {
		return binary.AppendUvarint(b, head)
	}
	return appendName(binary.AppendUvarint(b, head|bitNew), m.Class, m.ID)
}

func appendGap(b []byte, g *Gap) []byte {
	le := binary.LittleEndian
	for _, v := range [...]uint64{g.From, g.To, g.FirstAfter, uint64(g.FirstTime), uint64(g.LastTime), g.Cursors, g.Markers, g.Refused} {
		b = le.AppendUint64(b, v)
	}
	return le.AppendUint32(b, uint32(g.Reason))
}

// body reads a note's body. After the first error it gives zeros.
type body struct {
	b   []byte
	err error
}

func malformed(why string, args ...any) error {
	return fmt.Errorf("%w: %s", format.ErrCorrupt, fmt.Sprintf(why, args...))
}

func (r *body) fail(why string, args ...any) {
	if r.err == nil {
		r.err = malformed(why, args...)
	}
	r.b = nil
}

func (r *body) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || n > 1 && r.b[n-1] == 0 {
		r.fail("a number does not end, or is longer than need be")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *body) text(limit int, what string) string {
	n := r.uvarint()
	if r.err == nil && (n == 0 || n > uint64(limit) || n > uint64(len(r.b)) || !utf8.Valid(r.b[:n])) {
		r.fail("a stream's %s is not 1 to %d bytes of UTF-8", what, limit)
	}
	if r.err != nil {
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *body) name(class, id *string) {
	*class, *id = r.text(MaxClass, "class"), r.text(MaxID, "id")
}

func (r *body) highest(taken int64) int64 { return taken + unzigzag(r.uvarint()) }

func (r *body) lowest(highest int64) int64 {
	d := r.uvarint()
	if d > uint64(highest)^1<<63 { // what lies below it
		r.fail("the lowest time of a cursor is none")
	}
	return highest - int64(d)
}

// slot checks a slot, which the low bits of its number have been taken from.
func (r *body) slot(n uint64) uint32 {
	if n > math.MaxUint32 {
		r.fail("slot %d", n)
	}
	return uint32(n)
}

// decode reads a note into rec, whose memory it uses again. What a checksum vouches for and does not fit is ErrCorrupt;
// flags that it does not know are ErrVersion.
func decode(n entry.Note, rec *Record) error {
	*rec = Record{Kind: n.Kind, After: n.After, Cursors: rec.Cursors[:0]}
	r := body{b: n.Body}
	switch n.Kind {
	case entry.NoteStreams:
		r.streams(rec)
	case entry.NoteCursor:
		r.cursors(rec)
	case entry.NoteMarker:
		r.marker(rec)
	case entry.NoteGap:
		r.gap(rec)
	default:
		return malformed("%s is no record of the markers", n.Kind)
	}
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes too many", len(r.b))
	}
	if r.err == nil && rec.Seq == 0 {
		r.fail("records are numbered from 1")
	}
	return r.err
}

// fixed cuts off the part of a body that has fixed places.
func (r *body) fixed(size int) []byte {
	if len(r.b) < size {
		r.fail("%d bytes are too few", len(r.b))
		return make([]byte, size)
	}
	b := r.b[:size]
	r.b = r.b[size:]
	return b
}

func (r *body) streams(rec *Record) {
	le := binary.LittleEndian
	b := r.fixed(stItems)
	rec.Seq, rec.Taken = le.Uint64(b[stSeq:]), int64(le.Uint64(b[stTaken:]))
	rec.Part = Part{Snapshot: le.Uint64(b[stSnapshot:]), Streams: le.Uint32(b[stStreams:]), First: le.Uint32(b[stFirst:])}
	count, flags := le.Uint32(b[stCount:]), le.Uint32(b[stFlags:])
	p := &rec.Part
	p.Final, p.Refused, p.Behind = flags&flagFinal != 0, flags&flagRefused != 0, flags&flagBehind != 0
	switch {
	case r.err != nil:
		return
	case flags&^(flagFinal|flagRefused|flagBehind) != 0:
		r.err = fmt.Errorf("%w: flags %#x", format.ErrVersion, flags)
		return
	case p.Snapshot == 0 || uint64(p.First)+uint64(count) > uint64(p.Streams) || count == 0 && p.Streams > 0:
		r.fail("part of snapshot %d: %d streams from %d on, of %d", p.Snapshot, count, p.First, p.Streams)
	}
	for i := uint32(0); i < count && r.err == nil; i++ {
		c := Cursor{Slot: p.First + i, Count: r.uvarint(), named: true}
		if c.Count > 0 {
			c.Highest = r.highest(rec.Taken)
			c.Lowest, c.low = r.lowest(c.Highest), true
		}
		r.name(&c.Class, &c.ID)
		rec.Cursors = append(rec.Cursors, c)
	}
}

func (r *body) cursors(rec *Record) {
	le := binary.LittleEndian
	b := r.fixed(cuItems)
	rec.Seq, rec.Taken = le.Uint64(b[cuSeq:]), int64(le.Uint64(b[cuTaken:]))
	count, flags := le.Uint32(b[cuCount:]), le.Uint32(b[cuFlags:])
	rec.Whole = flags&flagWhole != 0
	switch {
	case r.err != nil:
		return
	case flags&^flagWhole != 0:
		r.err = fmt.Errorf("%w: flags %#x", format.ErrVersion, flags)
		return
	case count == 0:
		r.fail("no cursor")
	}
	for i := uint32(0); i < count && r.err == nil; i++ {
		head := r.uvarint()
		c := Cursor{Slot: r.slot(head >> 2), isNew: head&bitNew != 0, low: head&bitLowest != 0}
		c.named = c.isNew
		if c.Count = r.uvarint(); c.Count == 0 || c.isNew && !c.low {
			r.fail("the cursor of slot %d has no message, or a new one no lowest time", c.Slot)
		}
		c.Highest = r.highest(rec.Taken)
		if c.low {
			c.Lowest = r.lowest(c.Highest)
		}
		if c.isNew {
			r.name(&c.Class, &c.ID)
		}
		rec.Cursors = append(rec.Cursors, c)
	}
}

func (r *body) marker(rec *Record) {
	le := binary.LittleEndian
	b := r.fixed(mkStream)
	m := &rec.Marker
	rec.Seq = le.Uint64(b[mkSeq:])
	m.TsEvent, m.TsInit = int64(le.Uint64(b[mkEvent:])), int64(le.Uint64(b[mkInit:]))
	m.Ordinal = le.Uint32(b[mkOrdinal:])
	copy(m.Fingerprint[:], b[mkFingerprint:])
	head := r.uvarint()
	m.Slot, m.isNew = r.slot(head>>1), head&bitNew != 0
	if m.isNew && r.err == nil {
		r.name(&m.Class, &m.ID)
	}
}

func (r *body) gap(rec *Record) {
	le := binary.LittleEndian
	b := r.fixed(gapBody)
	u := func(at int) uint64 { return le.Uint64(b[at:]) }
	rec.Gap = Gap{
		From: u(gpFrom), To: u(gpTo), FirstAfter: u(gpFirstAfter), FirstTime: int64(u(gpFirstTime)), LastTime: int64(u(gpLastTime)),
		Cursors: u(gpCursors), Markers: u(gpMarkers), Refused: u(gpRefused), Reason: Reason(le.Uint32(b[gpReason:])),
	}
	rec.Seq = rec.Gap.From
	if all := Overload | AtClose | TooMany; r.err == nil && rec.Gap.Reason&^all != 0 {
		r.err = fmt.Errorf("%w: reason %#x", format.ErrVersion, uint32(rec.Gap.Reason))
	}
}
