package wal

import (
	"errors"
	"fmt"
	"testing"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/index"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/segment"
)

var allNotes = []entry.NoteKind{
	entry.NoteAnchor, entry.NoteStateHash, entry.NoteStreams, entry.NoteCursor, entry.NoteMarker, entry.NoteGap,
}

// noted is a rig whose log has, before, between and behind its entries, notes of all kinds; some batches hold nothing else.
func noted(t testing.TB, entries int) (g *rig, notes []entry.Note) {
	g = newRig(t)
	var b entry.Batch
	note := func(seq uint64) {
		kind := allNotes[len(notes)%len(allNotes)]
		body := fmt.Appendf(nil, "%s %d", kind, len(notes))
		b.AddNote(kind, body)
		notes = append(notes, entry.Note{Kind: kind, After: seq, Body: body})
	}
	commit := func(first uint64) {
		g.must(g.log.Append(&b, 0, b.Len(), first))
		g.must(g.log.Sync())
		b.Reset(1 << 20)
	}
	note(0)
	commit(1)
	for len(g.want) < entries {
		first := uint64(len(g.want) + 1)
		for range 3 {
			d, ts := draft(uint64(len(g.want)+1), 600), g.o.Clock.Now()
			b.Add(&d, g.log.Kinds(), ts)
			g.want = append(g.want, entryOf(&d, uint64(len(g.want)+1), ts))
			note(uint64(len(g.want)))
			if len(g.want)%4 == 0 {
				note(uint64(len(g.want)))
			}
		}
		commit(first)
		if len(g.want)%9 == 0 {
			note(uint64(len(g.want)))
			commit(uint64(len(g.want) + 1))
		}
	}
	return g, notes
}

// agree compares what Notes delivers with what was submitted.
func agree(r *Reader, notes []entry.Note, o NoteOptions) error {
	q := newNoteQuery(o)
	var want []entry.Note
	for i := range notes {
		n := notes[i]
		if o.Reverse {
			n = notes[len(notes)-1-i]
		}
		if q.wants(n.Kind, n.After) {
			want = append(want, n)
		}
	}
	i := 0
	for n, err := range r.Notes(o) {
		switch {
		case err != nil:
			return fmt.Errorf("after %d of %d notes: %w", i, len(want), err)
		case i == len(want):
			return fmt.Errorf("a note too many: %v", n)
		case n.Kind != want[i].Kind || n.After != want[i].After || string(n.Body) != string(want[i].Body):
			return fmt.Errorf("note %d is %v behind seq %d, want %v behind %d", i, n.Kind, n.After, want[i].Kind, want[i].After)
		}
		i++
	}
	if i != len(want) {
		return fmt.Errorf("%d of %d notes", i, len(want))
	}
	return nil
}

// noteQuestions are windows and kinds to ask for.
func noteQuestions(last uint64) (list []NoteOptions) {
	for _, kinds := range [][]entry.NoteKind{nil, {entry.NoteAnchor}, {entry.NoteAnchor, entry.NoteStateHash}, {entry.NoteCursor}, {entry.NoteGap, entry.NoteMarker}} {
		for _, w := range [][2]uint64{{0, 0}, {1, 0}, {5, 9}, {last / 2, last/2 + 40}, {last - 1, 0}, {last, last}, {0, 1}, {last + 1, 0}} {
			list = append(list, NoteOptions{From: w[0], To: w[1], Kinds: kinds}, NoteOptions{From: w[0], To: w[1], Kinds: kinds, Reverse: true})
		}
	}
	return list
}

func TestNotesComeBackInTheirPlacesAtEveryStage(t *testing.T) {
	for name, read := range map[string]func(g *rig) *Reader{
		"live":    func(g *rig) *Reader { t.Cleanup(g.log.Abandon); return g.log.Reader() },
		"beside":  func(g *rig) *Reader { t.Cleanup(g.log.Abandon); return openReader(t, g.mem) },
		"crashed": func(g *rig) *Reader { return openReader(t, g.killed()) },
		"sealed":  func(g *rig) *Reader { g.sealed(); return openReader(t, g.mem) },
		"recovered": func(g *rig) *Reader {
			mem := g.killed()
			recovered(t, mem)
			return openReader(t, mem)
		},
		"sealed, without indexes": func(g *rig) *Reader {
			g.sealed()
			for name := range contents(t, g.mem, runDir, ".idx", ".flt") {
				remove(t, g.mem, name)
			}
			return openReader(t, g.mem)
		},
	} {
		t.Run(name, func(t *testing.T) {
			g, notes := noted(t, 270)
			r := read(g)
			if n := len(r.set().segs); n < 3 {
				t.Fatalf("only %d segments", n)
			}
			whole(t, r, g.want)
			for _, o := range noteQuestions(uint64(len(g.want))) {
				if err := agree(r, notes, o); err != nil {
					t.Errorf("%+v: %v", o, err)
				}
			}
		})
	}
}

func TestNotesAreSeenWhenTheyAreDurable(t *testing.T) {
	g := newRig(t).fill(3, 10)
	defer g.log.Abandon()
	var b entry.Batch
	b.AddNote(entry.NoteAnchor, []byte("x"))
	g.must(g.log.Append(&b, 0, 0, 4))
	count := func(r *Reader, level Level) (n int) {
		for _, err := range r.Notes(NoteOptions{Level: level}) {
			if n++; err != nil {
				t.Fatal(err)
			}
		}
		return n
	}
	outside := openReader(t, g.mem)
	if d, w := count(g.log.Reader(), DefaultLevel), count(g.log.Reader(), Written); d != 0 || w != 1 {
		t.Errorf("before the sync: %d durable, %d written", d, w)
	}
	if d, w := count(outside, Durable), count(outside, DefaultLevel); d != 0 || w != 1 {
		t.Errorf("before the sync, from outside: %d durable, %d written", d, w)
	}
	g.must(g.log.Sync())
	if d := count(g.log.Reader(), DefaultLevel); d != 1 {
		t.Errorf("after the sync: %d durable", d)
	}
	g.must(g.log.Mark()) // which proves it
	if d := count(openReader(t, g.mem), Durable); d != 1 {
		t.Errorf("after the mark, from outside: %d durable", d)
	}
}

// Whatever bit is flipped in a sealed run: the notes that are delivered are the right ones, and what is missing is an error.
func TestNoFlippedByteOfASealedRunChangesANote(t *testing.T) {
	g, notes := noted(t, 100)
	g.sealed()
	for _, file := range []string{segment.FileName(1), index.FileName(1)} {
		size := len(contents(t, g.mem, runDir, file)[file])
		for off := 0; off < size; off += 1 + size/700 {
			mem := g.mem.Kill()
			poke(t, mem, file, int64(off), 0x10)
			r, err := OpenReader(mem, runDir)
			if err != nil {
				if !located(err) {
					t.Fatalf("%s, byte %d: %v", file, off, err)
				}
				continue
			}
			for _, o := range []NoteOptions{{}, {Kinds: []entry.NoteKind{entry.NoteAnchor}}, {Kinds: []entry.NoteKind{entry.NoteAnchor}, Reverse: true}} {
				if err := agree(r, notes, o); err != nil && !located(err) && !errors.Is(err, format.ErrCorrupt) {
					t.Fatalf("%s, byte %d, %+v: %v", file, off, o, err)
				}
			}
			_ = r.Close()
		}
	}
}

func TestADamagedNoteHidesNoEarlierOne(t *testing.T) {
	g, notes := noted(t, 30)
	g.sealed()
	r := openReader(t, g.mem)
	var refs []index.NoteRef
	ref := r.set().segs[0]
	m, err := r.files.pinSegment(ref)
	if err != nil {
		t.Fatal(err)
	}
	refs, err = m.index().Notes()
	r.files.unpin(m)
	if err != nil || len(refs) < 8 {
		t.Fatal(len(refs), err)
	}
	poke(t, g.mem, segment.FileName(1), refs[5].Offset+16, 1)
	good, last := 0, error(nil)
	for _, err := range openReader(t, g.mem).Notes(NoteOptions{Reverse: true}) {
		if last = err; err == nil {
			good++
		}
	}
	if !located(last) || good == 0 || good >= len(notes) {
		t.Errorf("backwards: %d notes, then %v", good, last)
	}
	n := 0
	for _, err := range openReader(t, g.mem).Notes(NoteOptions{Kinds: []entry.NoteKind{entry.NoteAnchor, entry.NoteStateHash, entry.NoteStreams, entry.NoteGap}}) {
		if last = err; err == nil {
			n++
		}
	}
	if n != 5 || !located(last) {
		t.Errorf("%d notes in front of the damaged one, want 5, then %v", n, last)
	}
}

// The segment's footer is damaged, and so is a batch that holds nothing but an anchor: whoever asks for notes up to the last
// entry in front of it is told.
func TestANoteThatIsLostIsAnErrorAlsoAtTheEdge(t *testing.T) {
	g := newRig(t).fill(10, 600)
	at := g.log.active.end.Load()
	var b entry.Batch
	b.AddNote(entry.NoteAnchor, []byte("an anchor"))
	g.must(g.log.Append(&b, 0, 0, 11))
	g.must(g.log.Sync())
	g.fill(300, 600).sealed()
	poke(t, g.mem, segment.FileName(1), at+20, 0x10)
	size := len(contents(t, g.mem, runDir, segment.FileName(1))[segment.FileName(1)])
	poke(t, g.mem, segment.FileName(1), int64(size-60), 0x10)
	for _, o := range []NoteOptions{{To: 10}, {To: 11}, {To: 10, Reverse: true}, {To: 10, Kinds: []entry.NoteKind{entry.NoteAnchor}}, {}} {
		n, last := 0, error(nil)
		for _, err := range openReader(t, g.mem).Notes(o) {
			if last = err; err == nil {
				n++
			}
		}
		if n != 0 || !located(last) {
			t.Errorf("%+v: %d notes, then %v", o, n, last)
		}
	}
	for _, err := range openReader(t, g.mem).Notes(NoteOptions{To: 9}) { // all in front of it is good
		t.Error(err)
	}
}
