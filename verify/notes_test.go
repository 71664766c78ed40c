package verify_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// notedRun is the run that noted makes.
var notedRun = manifest.NewRunID(1_700_000_000_000_000_000, "", 7)

var notedDir = "/runs/demo/" + notedRun

type ticks struct{ now int64 }

func (c *ticks) Now() int64 { c.now += 1000; return c.now }

// noted makes a run of several segments with n batches, each of two entries with a note behind the first one and two behind the
// second one. Those that are not sealed are as a killed
// process leaves them.
func noted(t testing.TB, n int, sealed bool) (mem *vfs.Mem, notes []entry.Note) {
	t.Helper()
	mem = vfs.NewMem(vfs.MemOptions{})
	must(t, mem.MkdirAll("/runs/demo"))
	c := &ticks{now: 1_700_000_000_000_000_000}
	log, err := wal.Create(wal.Options{
		FS: mem, Dir: notedDir, SegmentBytes: segment.MinSegment, FirstBytes: segment.MinSegment, Clock: c, Inline: true,
		Manifest: manifest.Manifest{Status: manifest.Running, Identity: manifest.Identity{
			Run: notedRun, Instance: "demo", Started: c.now, Origin: manifest.OriginEngine,
		}},
	})
	must(t, err)
	var b entry.Batch
	seq := uint64(0)
	note := func() {
		kind := entry.NoteAnchor + entry.NoteKind(len(notes)%6)
		body := []byte(strings.Repeat(fmt.Sprintf("%s %d. ", kind, len(notes)), 20))
		b.AddNote(kind, body)
		notes = append(notes, entry.Note{Kind: kind, After: seq, Body: body})
	}
	for i := range n {
		first := seq + 1
		for j := range 2 {
			d := entry.Draft{Topic: "a", Type: "b", TsInit: int64(i), Payload: []byte(strings.Repeat("payload ", 30))}
			b.Add(&d, log.Kinds(), c.Now())
			seq++
			note()
			if j == 1 {
				note()
			}
		}
		must(t, log.Append(&b, 0, b.Len(), first))
		must(t, log.Sync())
		b.Reset(1 << 20)
	}
	must(t, log.Mark())
	if !sealed {
		log.Abandon()
		return mem.Kill(), notes
	}
	must(t, log.Seal(manifest.CrashedRecovered))
	log.Close()
	return mem, notes
}

// told is what one check tells, in its order: "2" is entry 2, "n2 body" a note behind it.
func told(t testing.TB, mem vfs.FS) (list []string, rep verify.Report) {
	t.Helper()
	rep, err := verify.Run(ctx, mem, notedDir, verify.Options{
		OnEntry: func(v *entry.View) error { list = append(list, fmt.Sprint(v.Seq())); return nil },
		OnNote: func(n *verify.Note) error {
			list = append(list, fmt.Sprintf("n%d %s %s", n.After, n.Kind, n.Body))
			return nil
		},
	})
	must(t, err)
	return list, rep
}

// all is what a sound run tells.
func all(notes []entry.Note) (list []string) {
	seq := uint64(0)
	for _, n := range notes {
		for ; seq < n.After; seq++ {
			list = append(list, fmt.Sprint(seq+1))
		}
		list = append(list, fmt.Sprintf("n%d %s %s", n.After, n.Kind, n.Body))
	}
	return list
}

func TestNotesComeInTheOrderOfTheLogAndAreCounted(t *testing.T) {
	for _, sealed := range []bool{true, false} {
		mem, notes := noted(t, 100, sealed)
		got, rep := told(t, mem)
		if !rep.Clean() || rep.Segments < 3 {
			t.Fatalf("%d segments, findings %v", rep.Segments, rep.Findings)
		}
		if !slices.Equal(got, all(notes)) {
			t.Errorf("sealed %v: %d entries and notes, want %d", sealed, len(got), len(all(notes)))
		}
		n := uint64(0)
		for kind, count := range rep.ByKind {
			if n += count; count != 50 {
				t.Errorf("%d of kind %s", count, kind)
			}
		}
		if n != uint64(len(notes)) {
			t.Errorf("%d notes, want %d", n, len(notes))
		}
	}
}

func TestWhoKnowsAKindFilesAFinding(t *testing.T) {
	mem, _ := noted(t, 10, true)
	var offset int64
	rep, err := verify.Run(ctx, mem, notedDir, verify.Options{OnNote: func(n *verify.Note) error {
		if n.Kind == entry.NoteMarker && n.After == 4 {
			offset = n.Offset
			n.Bad("the stream is not in the dictionary")
		}
		return nil
	}})
	must(t, err)
	if len(rep.Findings) != 1 || rep.Findings[0].Kind != verify.KindNote || rep.Findings[0].Offset != offset || offset == 0 {
		t.Fatalf("findings %v", rep.Findings)
	}
	says(t, &rep, verify.KindNote, "marker behind seq 4", "the stream is not in the dictionary")
	stop := errors.New("enough")
	if _, err := verify.Run(ctx, mem, notedDir, verify.Options{OnNote: func(*verify.Note) error { return stop }}); !errors.Is(err, stop) {
		t.Error(err)
	}
}

// Damage to a note takes that note, and no entry nor any other note.
func TestEveryDamagedNoteIsFoundAndHidesNothingElse(t *testing.T) {
	for _, sealed := range []bool{true, false} {
		mem, notes := noted(t, 10, sealed)
		want := all(notes)
		file := notedDir + "/" + segment.FileName(1)
		raw, err := vfs.ReadFile(mem, file, 1<<30)
		must(t, err)
		for i, n := range notes {
			body := strings.Index(string(raw), string(n.Body))
			if body < 0 {
				t.Fatalf("note %d is not in the first segment", i)
			}
			for _, at := range []int{body + 7, body - 3, body - 13} { // body, checksum, head
				flipMem(t, mem, file, int64(at))
				got, rep := told(t, mem)
				flipMem(t, mem, file, int64(at))
				left := slices.DeleteFunc(slices.Clone(want), func(s string) bool {
					return s == fmt.Sprintf("n%d %s %s", n.After, n.Kind, n.Body)
				})
				if rep.Clean() || !slices.Equal(got, left) {
					t.Fatalf("note %d, byte %d: %d findings; told %d of %d\n%v", i, at-body, rep.Count, len(got), len(left), rep.Findings)
				}
				if at != body-13 {
					says(t, &rep, verify.KindNote, n.Kind.String(), fmt.Sprintf("behind seq %d:", n.After))
				}
			}
		}
	}
}

func flipMem(t testing.TB, mem *vfs.Mem, name string, at int64) {
	t.Helper()
	f, err := mem.Open(name)
	must(t, err)
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	must(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b[:], at)
	must(t, err)
	must(t, f.Close())
}

func TestAnIndexThatListsOtherNotesIsAFinding(t *testing.T) {
	for name, c := range map[string]crafted{
		"one too many": {seqs: []uint64{1, 2, 3}, strayRef: entry.NoteAnchor}, "beside others": {seqs: []uint64{1, 2}, notes: []int{8, 9}, strayRef: entry.NoteGap},
	} {
		rep := check(t, c.make(t))
		if len(rep.Findings) != 1 {
			t.Errorf("%s: findings %v", name, rep.Findings)
		}
		only(t, &rep, verify.KindIndex)
	}
	if rep := check(t, (&crafted{seqs: []uint64{1, 2}, notes: []int{8, 9}}).make(t)); !rep.Clean() || rep.ByKind[entry.NoteStateHash] != 2 {
		t.Errorf("a sound one: %+v", rep)
	}
}

func TestANoteBeyondItsLimitIsAFinding(t *testing.T) {
	rep := check(t, (&crafted{seqs: []uint64{1, 2}, notes: []int{entry.MaxNote, entry.MaxNote + 1}}).make(t))
	only(t, &rep, verify.KindNote, verify.KindIndex)
	says(t, &rep, verify.KindNote, "behind seq 2", "65537 bytes")
	if rep.ByKind[entry.NoteStateHash] != 1 {
		t.Errorf("counted %v", rep.ByKind)
	}
}

// Behind an entry that is lost, the notes are told with the seq that they stand behind.
func TestADamagedEntryTakesNoNoteWithIt(t *testing.T) {
	for _, sealed := range []bool{true, false} {
		mem, notes := noted(t, 10, sealed)
		want := all(notes)
		file := notedDir + "/" + segment.FileName(1)
		raw, err := vfs.ReadFile(mem, file, 1<<30)
		must(t, err)
		for seq, from := uint64(1), 0; seq <= 20; seq++ {
			payload := from + strings.Index(string(raw[from:]), "payload")
			from = payload + 240
			head := payload &^ 7
			for ok := false; !ok; head -= 8 { // the frame begins a few words in front of the payload
				h, err := segment.ReadHeader(strings.NewReader(string(raw)), file)
				must(t, err)
				if _, _, ok = segment.SkipFrame(raw[head:], h.Salt, int64(head)); ok {
					break
				}
			}
			for _, at := range []int{payload, head} {
				flipMem(t, mem, file, int64(at))
				got, rep := told(t, mem)
				flipMem(t, mem, file, int64(at))
				left := slices.DeleteFunc(slices.Clone(want), func(s string) bool { return s == fmt.Sprint(seq) })
				if rep.Clean() || !slices.Equal(got, left) {
					t.Fatalf("sealed %v, seq %d, byte %d: told\n%q, want\n%q\n%v", sealed, seq, at-payload, got, left, rep.Findings)
				}
			}
		}
	}
}

// A finding is told when it is known: that of the first segment before the last one is read.
func TestFindingsComeAsTheyAreFound(t *testing.T) {
	mem, notes := noted(t, 100, true)
	file := notedDir + "/" + segment.FileName(1)
	raw, err := vfs.ReadFile(mem, file, 1<<30)
	must(t, err)
	flipMem(t, mem, file, int64(strings.Index(string(raw), string(notes[0].Body))))
	var read, whole int64
	at := int64(-1)
	rep, err := verify.Run(ctx, mem, notedDir, verify.Options{
		OnProgress: func(done, total int64) { read, whole = done, total },
		OnFinding: func(f verify.Finding) {
			if at < 0 {
				at = read
			}
		},
	})
	must(t, err)
	if rep.Segments < 3 || at < 0 || at > whole/2 {
		t.Errorf("%d segments; the first finding came after %d of %d bytes", rep.Segments, at, whole)
	}
}
