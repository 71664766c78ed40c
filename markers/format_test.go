package markers

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
)

var update = flag.Bool("update", false, "rewrite the golden file")

const t0 = 1_700_000_000_000_000_000

func part(p Part, seq uint64, taken int64, streams ...Cursor) entry.Note {
	b := beginStreams(nil, seq, taken, p)
	for i := range streams {
		b = appendStream(b, &streams[i], taken)
	}
	binary.LittleEndian.PutUint32(b[stCount:], uint32(len(streams)))
	return entry.Note{Kind: entry.NoteStreams, After: 42, Body: b}
}

func cursors(seq uint64, taken int64, list ...Cursor) entry.Note {
	b := beginCursors(nil, seq, taken)
	for i := range list {
		b = appendCursor(b, &list[i], taken)
	}
	countCursors(b, len(list), seq%2 == 0)
	return entry.Note{Kind: entry.NoteCursor, After: 42, Body: b}
}

func marker(seq uint64, m Marker) entry.Note {
	return entry.Note{Kind: entry.NoteMarker, After: 42, Body: appendMarker(nil, seq, &m)}
}

func gap(g Gap) entry.Note {
	return entry.Note{Kind: entry.NoteGap, After: 42, Body: appendGap(nil, &g)}
}

// samples has notes of all kinds and shapes, and what they mean.
func samples() (notes []entry.Note, want []Record) {
	add := func(n entry.Note, r Record) {
		r.Kind, r.After = n.Kind, n.After
		notes, want = append(notes, n), append(want, r)
	}
	ab := Fingerprint(bytes.Repeat([]byte{0xab}, 32))
	one := []Cursor{{Slot: 0, Class: "Quote", ID: "ETHUSDT.BINANCE", Count: 7, Lowest: t0 + 1, Highest: t0 + 2, named: true, low: true},
		{Slot: 1, Class: "Trade", ID: "é", named: true}}
	add(part(Part{Snapshot: 1}, 1, t0), Record{Seq: 1, Taken: t0, Part: Part{Snapshot: 1}})
	p := Part{Snapshot: 9, Streams: 2, Final: true, Behind: true}
	add(part(p, 2, t0, one...), Record{Seq: 2, Taken: t0, Part: p, Cursors: one})
	p = Part{Snapshot: 9, Streams: 5, First: 3, Refused: true}
	late := []Cursor{{Slot: 3, Class: "c", ID: "i", Count: 1, Lowest: math.MinInt64, Highest: math.MaxInt64, named: true, low: true}}
	add(part(p, 3, t0, late...), Record{Seq: 3, Taken: t0, Part: p, Cursors: late})
	list := []Cursor{
		{Slot: 0, Count: 3, Highest: t0 + 1},
		{Slot: 1, Count: 7, Lowest: t0 - 5, Highest: t0 + 2, low: true},
		{Slot: math.MaxUint32, Class: "Quote", ID: "X", Count: math.MaxUint64, Lowest: math.MinInt64, Highest: math.MinInt64, low: true, named: true, isNew: true},
	}
	add(cursors(4, t0, list...), Record{Seq: 4, Taken: t0, Cursors: list, Whole: true})
	m := Marker{Slot: 0, TsEvent: t0, TsInit: t0 + 1, Fingerprint: ab}
	add(marker(1, m), Record{Seq: 1, Marker: m})
	m = Marker{Slot: 300, Class: "Quote", ID: "X", TsEvent: -1, TsInit: math.MinInt64, Ordinal: math.MaxUint32, isNew: true}
	add(marker(math.MaxUint64, m), Record{Seq: math.MaxUint64, Marker: m})
	for _, g := range []Gap{
		{From: 5, To: 9, FirstAfter: 40, FirstTime: t0, LastTime: t0 + 1, Cursors: 2, Markers: 3, Reason: Overload},
		{From: 5, To: 5, Refused: 1, Reason: TooMany | AtClose},
	} {
		add(gap(g), Record{Seq: g.From, Gap: g})
	}
	return notes, want
}

func TestEveryShapeOfRecordSurvives(t *testing.T) {
	notes, want := samples()
	var rec Record
	for i, n := range notes {
		if err := decode(n, &rec); err != nil {
			t.Errorf("%d: %v", i, err)
			continue
		}
		if len(rec.Cursors) == 0 {
			rec.Cursors = nil
		}
		if !reflect.DeepEqual(rec, want[i]) {
			t.Errorf("%d:\n%+v\nwant\n%+v", i, rec, want[i])
		}
	}
}

func TestBodiesArePinned(t *testing.T) {
	notes, _ := samples()
	var got strings.Builder
	for _, n := range notes {
		fmt.Fprintf(&got, "%s %s\n", strings.ReplaceAll(n.Kind.String(), " ", "-"), hex.EncodeToString(n.Body))
	}
	name := filepath.Join("testdata", "golden-v1.txt")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("the bytes have changed:\n%swant:\n%s", got.String(), want)
	}
}

// encode is the inverse of decode.
func encode(rec *Record) (n entry.Note) {
	switch rec.Kind {
	case entry.NoteStreams:
		n = part(rec.Part, rec.Seq, rec.Taken, rec.Cursors...)
	case entry.NoteCursor:
		n = cursors(rec.Seq, rec.Taken, rec.Cursors...)
		countCursors(n.Body, len(rec.Cursors), rec.Whole)
		if !rec.Whole {
			n.Body[cuFlags] = 0
		}
	case entry.NoteMarker:
		n = marker(rec.Seq, rec.Marker)
	default:
		n = gap(rec.Gap)
	}
	n.After = rec.After
	return n
}

func TestEveryByteOfABodyMatters(t *testing.T) {
	notes, _ := samples()
	var was, is Record
	for i, n := range notes {
		if err := decode(n, &was); err != nil {
			t.Fatal(err)
		}
		for at := range n.Body {
			for bit := range 8 {
				b := bytes.Clone(n.Body)
				b[at] ^= 1 << bit
				err := decode(entry.Note{Kind: n.Kind, After: n.After, Body: b}, &is)
				switch {
				case err != nil && !errors.Is(err, format.ErrCorrupt) && !errors.Is(err, format.ErrVersion):
					t.Errorf("%d, byte %d: %v", i, at, err)
				case err == nil && reflect.DeepEqual(was, is):
					t.Errorf("%d, byte %d, bit %d: means the same", i, at, bit)
				}
			}
		}
		for n2 := range n.Body {
			if err := decode(entry.Note{Kind: n.Kind, Body: n.Body[:n2]}, &is); !errors.Is(err, format.ErrCorrupt) {
				t.Errorf("%d, cut to %d: %v", i, n2, err)
			}
		}
		if err := decode(entry.Note{Kind: n.Kind, Body: append(bytes.Clone(n.Body), 0)}, &is); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("%d, a byte too many: %v", i, err)
		}
	}
	if err := decode(entry.Note{Kind: entry.NoteAnchor, Body: make([]byte, 100)}, &is); !errors.Is(err, format.ErrCorrupt) {
		t.Errorf("an anchor: %v", err)
	}
}

func TestUnknownFlagsAreAnotherVersion(t *testing.T) {
	p, c, g := part(Part{Snapshot: 1}, 1, t0), cursors(1, t0, Cursor{Count: 1}), gap(Gap{From: 1, To: 1})
	p.Body[stFlags] = 8
	c.Body[cuFlags] = 2
	g.Body[gpReason] = 8
	var rec Record
	for _, n := range []entry.Note{p, c, g} {
		if err := decode(n, &rec); !errors.Is(err, format.ErrVersion) {
			t.Errorf("%s: %v", n.Kind, err)
		}
	}
}

func TestHostileCountsAllocateNothing(t *testing.T) {
	p, c := part(Part{Snapshot: 1, Streams: math.MaxUint32}, 1, t0), cursors(1, t0)
	binary.LittleEndian.PutUint32(p.Body[stCount:], math.MaxUint32)
	binary.LittleEndian.PutUint32(c.Body[cuCount:], math.MaxUint32)
	for _, n := range []entry.Note{p, c} {
		var rec Record
		if err := decode(n, &rec); !errors.Is(err, format.ErrCorrupt) || cap(rec.Cursors) > 4 {
			t.Errorf("%s: %v, room for %d", n.Kind, err, cap(rec.Cursors))
		}
	}
}

func TestArbitraryCursorsAndMarkersSurvive(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	text := func(limit int) string { return strings.Repeat("x", 1+r.IntN(limit)) }
	for range 500 {
		taken, list := int64(r.Uint64()), []Cursor(nil)
		for slot := range uint32(1 + r.IntN(7)) {
			a, b := int64(r.Uint64()), int64(r.Uint64())
			c := Cursor{Slot: slot, Class: text(MaxClass), ID: text(MaxID), Count: 1 + r.Uint64()/2, Lowest: min(a, b), Highest: max(a, b), named: true, low: true}
			c.isNew = r.IntN(2) == 0
			if c.named = c.isNew; !c.isNew {
				c.Class, c.ID = "", ""
			}
			list = append(list, c)
		}
		m := Marker{Slot: r.Uint32(), TsEvent: int64(r.Uint64()), TsInit: int64(r.Uint64()), Ordinal: r.Uint32()}
		for i := range m.Fingerprint {
			m.Fingerprint[i] = byte(r.Uint32())
		}
		var rec Record
		if err := decode(cursors(7, taken, list...), &rec); err != nil || !reflect.DeepEqual(rec.Cursors, list) || rec.Taken != taken {
			t.Fatalf("%v\n%+v\n%+v", err, rec.Cursors, list)
		}
		if err := decode(marker(8, m), &rec); err != nil || rec.Marker != m {
			t.Fatalf("%v\n%+v\n%+v", err, rec.Marker, m)
		}
	}
}

// FuzzDecode: whatever a body holds, it is refused, or it is what the encoder makes of what it means. No fold of it panics.
func FuzzDecode(f *testing.F) {
	notes, _ := samples()
	for _, n := range notes {
		f.Add(uint8(n.Kind), n.Body, n.Body)
	}
	f.Fuzz(func(t *testing.T, kind uint8, a, b []byte) {
		fo := newFold(kind%2 == 0)
		var rec Record
		for i, raw := range [][]byte{a, b} {
			n := entry.Note{Kind: entry.NoteKind(kind) - entry.NoteKind(i%2), After: 42, Body: raw}
			if err := decode(n, &rec); err != nil {
				if !errors.Is(err, format.ErrCorrupt) && !errors.Is(err, format.ErrVersion) {
					t.Fatal(err)
				}
				continue
			}
			if again := encode(&rec); !bytes.Equal(again.Body, raw) {
				t.Fatalf("%s: %x became %x", n.Kind, raw, again.Body)
			}
			if len(rec.Cursors) > len(raw) {
				t.Fatalf("%d cursors in %d bytes", len(rec.Cursors), len(raw))
			}
			fo.add(&rec, func(Problem, string) {})
		}
	})
}

// pageTable returns the cells of the table under a heading of the page.
func pageTable(t *testing.T, heading string) (rows [][]string) {
	t.Helper()
	b, err := os.ReadFile("../docs/format/notes.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(b), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("the page has no heading %q", heading)
	}
	for line := range strings.Lines(section) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") || line == "" && len(rows) > 2 {
			break
		}
		if !strings.HasPrefix(line, "|") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	return rows[2:]
}

func TestLayoutAgreesWithThePage(t *testing.T) {
	type field struct {
		name   string
		offset int
	}
	for heading, fields := range map[string][]field{
		"### Streams body": {{"marker_seq", stSeq}, {"taken", stTaken}, {"snapshot", stSnapshot}, {"streams", stStreams}, {"first", stFirst},
			{"count", stCount}, {"flags", stFlags}, {"items", stItems}},
		"### Cursor body": {{"marker_seq", cuSeq}, {"taken", cuTaken}, {"count", cuCount}, {"flags", cuFlags}, {"items", cuItems}},
		"### Marker body": {{"marker_seq", mkSeq}, {"ts_event", mkEvent}, {"ts_init", mkInit}, {"ordinal", mkOrdinal}, {"fingerprint", mkFingerprint},
			{"stream", mkStream}},
		"### Marker gap body": {{"from", gpFrom}, {"to", gpTo}, {"first_after", gpFirstAfter}, {"first_time", gpFirstTime}, {"last_time", gpLastTime},
			{"cursors", gpCursors}, {"markers", gpMarkers}, {"refused", gpRefused}, {"reason", gpReason}, {"", gapBody}},
	} {
		rows := pageTable(t, heading)
		for i, row := range rows {
			want := []string{strconv.Itoa(fields[i].offset), "...", fields[i].name}
			if i+1 < len(fields) {
				want[1] = strconv.Itoa(fields[i+1].offset - fields[i].offset)
			}
			if fmt.Sprint(row[:3]) != fmt.Sprint(want) {
				t.Errorf("%s: %s on the page, %s in the code", heading, row[:3], want)
			}
		}
		if want := len(fields); len(rows) != want && heading != "### Marker gap body" {
			t.Errorf("%s: %d fields on the page, %d in the code", heading, len(rows), want)
		}
	}
	b, err := os.ReadFile("../docs/format/notes.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, claim := range []string{
		fmt.Sprintf("of 1 to %d and 1 to %d bytes of UTF-8", MaxClass, MaxID), "slot * 4 + bits", "slot * 2 + bit", "bit 0 final; bit 1 refused", "bit 2 behind", "bit 0 whole",
		"bit 0 no room; bit 1 they were still missing when the markers were closed; bit 2 too many streams",
	} {
		if !strings.Contains(strings.Join(strings.Fields(string(b)), " "), claim) {
			t.Errorf("the page does not say %q", claim)
		}
	}
	if bitNew != 1 || bitLowest != 2 || flagFinal != 1 || flagRefused != 2 || flagBehind != 4 || flagWhole != 1 || Overload != 1 || AtClose != 2 || TooMany != 4 {
		t.Error("bits are not those of the page")
	}
}
