package wal

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/index"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

// firstOf is the first seq of segment n.
func firstOf(t testing.TB, fsys vfs.FS, n uint32) uint64 {
	t.Helper()
	in, err := infoOf(fsys, &segRef{number: n, path: filepath.Join(runDir, segment.FileName(n))}, func(*segment.Header) string { return runID })
	if err != nil {
		t.Fatal(err)
	}
	return in.footer.FirstSeq
}

// fromFloor fails the test unless r delivers exactly what is left of want from seq first on, in every way of reading.
func fromFloor(t testing.TB, r *Reader, want []entry.Entry, first uint64) {
	t.Helper()
	if r.FirstSeq() != first || r.LastSeq() != uint64(len(want)) || r.Damage() != nil {
		t.Fatalf("the reader has %d to %d, want %d to %d; damage %v", r.FirstSeq(), r.LastSeq(), first, len(want), r.Damage())
	}
	left := want[first-1:]
	collect := func(o ScanOptions) (got []uint64, end error) {
		for v, err := range r.Scan(o) {
			if err != nil {
				return got, err
			}
			if err := equal(&v, want, int(v.Seq()-1)); err != nil {
				t.Fatal(err)
			}
			got = append(got, v.Seq())
		}
		return got, nil
	}
	for _, c := range []struct {
		o     ScanOptions
		n     int
		fails bool
	}{
		{ScanOptions{}, len(left), false},
		{ScanOptions{Reverse: true}, len(left), false},
		{ScanOptions{From: first}, len(left), false},
		{ScanOptions{From: first - 1}, 0, true},
		{ScanOptions{From: 1}, 0, true},
		{ScanOptions{From: 1, Reverse: true}, len(left), true},
		{ScanOptions{From: 1, To: first - 1}, 0, true},
		{ScanOptions{To: first - 1}, 0, true},
		{ScanOptions{To: first - 1, Reverse: true}, 0, true},
		{ScanOptions{To: first}, 1, false},
		{ScanOptions{From: 1, To: first, Reverse: true}, 1, true},
		{ScanOptions{From: 3, To: 2}, 0, false},
		{ScanOptions{Since: 1}, len(left), false},
	} {
		got, end := collect(c.o)
		if len(got) != c.n || errors.Is(end, format.ErrRemoved) != c.fails || !c.fails && end != nil {
			t.Fatalf("%+v: %d entries, then %v; want %d", c.o, len(got), end, c.n)
		}
		if c.o.Reverse {
			slices.Reverse(got)
		}
		for i, seq := range got {
			if seq != first+uint64(i) {
				t.Fatalf("%+v: seq %d comes as number %d", c.o, seq, i)
			}
		}
	}
	for _, seq := range []uint64{1, first - 1} {
		var at *format.Error
		if _, err := r.Get(seq, nil); !errors.Is(err, format.ErrRemoved) || errors.Is(err, format.ErrCorrupt) || !errors.As(err, &at) || at.LastSeq != first-1 {
			t.Fatalf("seq %d: %v", seq, err)
		}
	}
	for seq := first; seq <= uint64(len(want)); seq += 7 {
		v, err := r.Get(seq, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := equal(&v, want, int(seq-1)); err != nil {
			t.Fatal(err)
		}
	}
	history(t, r, want, first)
}

// history fails the test unless look-ups and histories are exact for what is left.
func history(t testing.TB, r *Reader, want []entry.Entry, first uint64) {
	t.Helper()
	byKey := map[string][]uint64{}
	for _, e := range want {
		byKey[e.Keys[0].Value] = append(byKey[e.Keys[0].Value], e.Seq)
	}
	for value, seqs := range byKey {
		seqs = slices.DeleteFunc(seqs, func(seq uint64) bool { return seq < first })
		var got []uint64
		for v, err := range r.History(entry.ClientOrderID, value) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, v.Seq())
		}
		if !slices.Equal(got, seqs) {
			t.Fatalf("%s: %v, want %v", value, got, seqs)
		}
		seq, ok, err := r.Lookup(entry.ClientOrderID, value)
		if err != nil || ok != (len(seqs) > 0) || ok && seq != seqs[0] {
			t.Fatalf("%s: first at %d, %v, %v; want %v", value, seq, ok, err, seqs)
		}
	}
}

// below counts the files of segments below number n.
func below(t testing.TB, fsys vfs.FS, n uint32) (count int) {
	t.Helper()
	for name := range contents(t, fsys, runDir) {
		if number, ok := numberOf(name); ok && number < n {
			count++
		}
	}
	return count
}

func TestASealedRunBeginsAtItsFloor(t *testing.T) {
	g := newRig(t).fill(700, 2000).sealed()
	digest := openReader(t, g.mem).Manifest().Digest
	for _, keep := range []uint32{2, 6, 6, 5, 18} {
		g.must(RemoveBefore(g.mem, runDir, keep))
		at := max(keep, openReader(t, g.mem).Manifest().FloorSegment)
		if below(t, g.mem, at) > 0 {
			t.Errorf("files of segments below %d are left: %v", at, contents(t, g.mem, runDir))
		}
		for _, fsys := range []vfs.FS{g.mem, g.mem.Crash(vfs.LoseAll())} {
			r := openReader(t, fsys)
			fromFloor(t, r, g.want, firstOf(t, fsys, at))
			if m := r.Manifest(); m.Digest != digest || len(r.Warnings()) > 0 {
				t.Errorf("digest %s was %s; warnings %v", m.Digest, digest, r.Warnings())
			}
			if rec := recovered(t, fsys); rec.Status != manifest.Ended || rec.LastSeq != uint64(len(g.want)) {
				t.Errorf("recovered as %+v", rec)
			}
		}
	}
}

func TestEveryFileOfARemovedSegmentGoesAndNoOther(t *testing.T) {
	g := newRig(t).fill(250, 2000).sealed()
	for _, name := range []string{
		"00000001.segz", "00000001.segz.tmp", "00000002.idx.tmp", "00000001-00000004.flt.tmp", "00000002.notes", "2.seg", "00000009.segz.tmp", "x.seg",
	} {
		f, err := g.mem.Create(filepath.Join(runDir, name))
		g.must(err)
		g.must(f.Close())
	}
	g.must(RemoveBefore(g.mem, runDir, 3))
	left := contents(t, g.mem, runDir)
	for name := range left {
		if n, ok := numberOf(name); ok && n < 3 {
			t.Errorf("%s is left", name)
		}
	}
	for _, name := range []string{"00000002.notes", "2.seg", "x.seg", "00000009.segz.tmp", segment.FileName(3), index.FileName(3), index.FilterName(5, 8)} {
		if _, there := left[name]; !there {
			t.Errorf("%s is gone", name)
		}
	}
}

func TestALiveRunIsCutBesideItsReadersAndRecoveredFromItsFloor(t *testing.T) {
	g := newRig(t).fill(250, 2000)
	outside, own := openReader(t, g.mem), g.log.Reader()
	want := g.want
	var pinned []uint64
	n := 0
	for v, err := range own.Scan(ScanOptions{}) { // which is in segment 1 when that goes
		if n++; err != nil {
			if !errors.Is(err, format.ErrRemoved) {
				t.Error(err)
			}
			break
		}
		if n == 5 {
			g.must(g.log.RemoveBefore(6))
		}
		g.must(equal(&v, want, n-1))
		pinned = append(pinned, v.Seq())
	}
	if first := firstOf(t, g.mem, 6); len(pinned) < 10 || uint64(len(pinned)) >= first {
		t.Errorf("%d entries of the segment that was being read, %d are gone", len(pinned), first-1)
	}
	first := firstOf(t, g.mem, 6)
	fromFloor(t, own, g.want, first)
	if _, err := outside.Get(3, nil); !errors.Is(err, format.ErrRemoved) {
		t.Errorf("from outside: %v", err)
	}
	fromFloor(t, outside, g.want, first)
	for _, keep := range []uint32{uint32(len(g.log.set.Load().segs)) + 5, 99} { // the active one, and none
		if err := g.log.RemoveBefore(keep); !errors.Is(err, format.ErrInvalid) {
			t.Errorf("segment %d: %v", keep, err)
		}
	}
	g.fill(100, 2000)
	fromFloor(t, own, g.want, first)
	g.must(g.log.RemoveBefore(8))
	mem := g.killed()
	if err := g.log.RemoveBefore(9); !errors.Is(err, format.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
	first = firstOf(t, mem, 8)
	fromFloor(t, openReader(t, mem), g.want, first)
	if rec := recovered(t, mem); rec.Status != manifest.CrashedRecovered || rec.LastSeq != uint64(len(g.want)) || rec.Manifest.FloorSegment != 8 {
		t.Errorf("recovered as %+v", rec)
	}
	r := openReader(t, mem)
	fromFloor(t, r, g.want, first)
	ended := g.want[0].TsInit
	for _, e := range g.want {
		ended = max(ended, e.TsInit)
	}
	if m := r.Manifest(); m.Ended == nil || *m.Ended != ended || m.Segments != uint32(len(r.set().segs))+7 {
		t.Errorf("ended %v, want %d; %d segments", m.Ended, ended, m.Segments)
	}
}

// A cut run and a whole one have the same end: nothing about it may follow from what is gone.
func TestRecoveryOfACutRunGivesTheSameDigest(t *testing.T) {
	var digests []string
	for _, keep := range []uint32{0, 2, 4} {
		g := newRig(t).fill(200, 2000)
		g.must(g.log.RemoveBefore(keep))
		mem := g.killed()
		rec := recovered(t, mem)
		digests = append(digests, fmt.Sprint(rec.Manifest.Digest, *rec.Manifest.Ended, rec.Manifest.Segments))
	}
	if digests[0] != digests[1] || digests[0] != digests[2] {
		t.Errorf("%q", digests)
	}
}

func TestTheFloorSurvivesTheLossOfEitherManifest(t *testing.T) {
	for _, lost := range []string{manifest.FileName, manifest.PrevName} {
		for _, live := range []bool{false, true} {
			g := newRig(t).fill(200, 2000)
			mem := g.mem
			if live {
				g.must(g.log.RemoveBefore(4))
				mem = g.killed()
			} else {
				g.sealed()
				g.must(RemoveBefore(g.mem, runDir, 4))
			}
			remove(t, mem, lost)
			first := firstOf(t, mem, 4)
			fromFloor(t, openReader(t, mem), g.want, first)
			if rec := recovered(t, mem); rec.Damage != nil {
				t.Errorf("without %s: %v", lost, rec.Damage)
			}
			fromFloor(t, openReader(t, mem), g.want, first)
		}
	}
	g := newRig(t).fill(200, 2000).sealed()
	g.must(RemoveBefore(g.mem, runDir, 4))
	remove(t, g.mem, manifest.FileName)
	remove(t, g.mem, manifest.PrevName)
	if err := openReader(t, g.mem).Damage(); !errors.Is(err, format.ErrMissingSegment) {
		t.Errorf("without both: %v", err)
	}
}

func TestWhatIsMissingAboveTheFloorIsMissing(t *testing.T) {
	for _, n := range []uint32{4, 5} {
		for _, live := range []bool{false, true} {
			g := newRig(t).fill(250, 2000)
			mem := g.mem
			if live {
				g.must(g.log.RemoveBefore(4))
				mem = g.killed()
			} else {
				g.sealed()
				g.must(RemoveBefore(g.mem, runDir, 4))
			}
			first := firstOf(t, mem, 4)
			remove(t, mem, segment.FileName(n))
			r := openReader(t, mem)
			var at *format.Error
			if err := r.Damage(); !errors.Is(err, format.ErrMissingSegment) || !errors.As(err, &at) || filepath.Base(at.Path) != segment.FileName(n) {
				t.Errorf("segment %d: %v", n, err)
			}
			if got, end, wrong := prefixFrom(r, g.want, first); wrong != nil || !errors.Is(end, format.ErrMissingSegment) || n == 5 && got == 0 {
				t.Errorf("segment %d: %d entries, then %v, %v", n, got, end, wrong)
			}
			if live {
				if rec := recovered(t, mem); rec.Status != manifest.Quarantined {
					t.Errorf("segment %d: recovered as %s", n, rec.Status)
				}
			}
		}
	}
}

// prefixFrom is prefix for a run that begins at first.
func prefixFrom(r *Reader, want []entry.Entry, first uint64) (n int, end, wrong error) {
	for v, err := range r.Scan(ScanOptions{}) {
		if err != nil {
			return n, err, nil
		}
		if err := equal(&v, want, int(first)-1+n); err != nil {
			return n, nil, err
		}
		n++
	}
	return n, nil, nil
}

func TestADamagedFooterOfTheFloorIsWrittenAgain(t *testing.T) {
	g := newRig(t, func(o *Options) { o.FirstBytes, o.SegmentBytes = 64<<10, 64<<10 }).fill(100, 2000)
	g.must(g.log.RemoveBefore(3))
	first := firstOf(t, g.mem, 3)
	var last uint32
	for n := uint32(3); ; n++ { // leave the floor's segment the only one with a footer, as if nothing else had been sealed
		if ref := g.log.set.Load().byNumber(n); ref == nil || ref.open.Load() != nil {
			break
		}
		last = n
	}
	mem := g.killed()
	for n := uint32(3); n <= last; n++ {
		name := segment.FileName(n)
		info, err := mem.Stat(filepath.Join(runDir, name))
		g.must(err)
		poke(t, mem, name, info.Size()-segment.FooterSize+20, 1)
	}
	fromFloor(t, openReader(t, mem), g.want, first)
	if rec := recovered(t, mem); rec.Damage != nil || rec.LastSeq != uint64(len(g.want)) {
		t.Fatalf("recovered as %+v", rec)
	}
	fromFloor(t, openReader(t, mem), g.want, first)
	whole := newRig(t, func(o *Options) { o.FirstBytes, o.SegmentBytes = 64<<10, 64<<10 }).fill(100, 2000)
	mem2 := whole.killed()
	if a, b := openReader(t, mem).Manifest().Digest, recovered(t, mem2).Manifest.Digest; a != b {
		t.Errorf("digest %s, of the whole run %s", a, b)
	}
}

func TestRemovalIsRefusedWhereItCouldHideSomething(t *testing.T) {
	check := func(name string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	g := newRig(t).fill(200, 2000)
	mem := g.killed()
	check("segments of an unsealed run", RemoveBefore(mem, runDir, 3), format.ErrInvalid)
	check("an unsealed run", RemoveRun(mem, runDir), format.ErrInvalid)
	recovered(t, mem)
	before := contents(t, mem, runDir)
	check("segments beyond the end", RemoveBefore(mem, runDir, 99), format.ErrInvalid)
	poke(t, mem, segment.FileName(2), int64(len(before[segment.FileName(2)]))-20, 1)
	check("segments in front of damage", RemoveBefore(mem, runDir, 4), format.ErrCorrupt)
	poke(t, mem, segment.FileName(2), int64(len(before[segment.FileName(2)]))-20, 1)
	stray := filepath.Join(runDir, "notes.txt")
	f, err := mem.Create(stray)
	g.must(err)
	g.must(f.Close())
	check("a run with something else in its folder", RemoveRun(mem, runDir), format.ErrInvalid)
	g.must(mem.Remove(stray))
	g.must(manifest.WriteQuarantine(mem, runDir, manifest.Quarantine{Reason: "test"}))
	check("segments of a quarantined run", RemoveBefore(mem, runDir, 3), format.ErrQuarantined)
	check("a quarantined run", RemoveRun(mem, runDir), format.ErrQuarantined)
	g.must(mem.Remove(filepath.Join(runDir, manifest.QuarantineName)))
	for name, b := range before {
		if contents(t, mem, runDir)[name] != b {
			t.Errorf("%s has changed", name)
		}
	}
}

func TestATailThatRetentionOvertakesSaysSo(t *testing.T) {
	g := newRig(t).fill(250, 2000)
	for _, c := range []struct {
		name string
		r    *Reader
		keep uint32
	}{{"outside", openReader(t, g.mem), 5}, {"own", g.log.Reader(), 8}} {
		name, r, keep := c.name, c.r, c.keep
		n, first := 0, r.FirstSeq()
		var end error
		for v, err := range r.Tail(context.Background(), TailOptions{}) {
			if end = err; err != nil {
				break
			}
			g.must(equal(&v, g.want, int(first)-1+n))
			if n++; n == 3 {
				g.must(g.log.RemoveBefore(keep))
			}
		}
		if !errors.Is(end, format.ErrRemoved) || errors.Is(end, format.ErrCorrupt) {
			t.Errorf("%s: %d entries, then %v", name, n, end)
		}
		fromFloor(t, r, g.want, firstOf(t, g.mem, keep))
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r := openReader(t, g.mem)
	n := uint64(0)
	for v, err := range r.Tail(ctx, TailOptions{}) { // one that is ahead goes on
		if err != nil {
			break
		}
		if n = v.Seq(); n == 250 {
			g.must(g.log.RemoveBefore(9))
			g.fill(40, 2000)
		}
		if n == 290 {
			cancel()
		}
	}
	if n != 290 {
		t.Errorf("a tail at the end came to %d", n)
	}
	if got := r.set().floor.segment; got != 9 {
		t.Errorf("it holds segments from %d on", got)
	}
}

func TestALookUpThatRetentionOvertakesIsExactForWhatIsLeft(t *testing.T) {
	g := newRig(t).fill(250, 2000)
	outside, own := openReader(t, g.mem), g.log.Reader()
	for _, r := range []*Reader{outside, own} {
		keep := g.log.set.Load().floor.segment + 4
		var got []uint64
		for v, err := range r.History("desk", "D-1") { // all entries
			g.must(err)
			if got = append(got, v.Seq()); len(got) == 2 {
				g.must(g.log.RemoveBefore(keep))
			}
		}
		first := firstOf(t, g.mem, keep)
		i := slices.Index(got, first)
		if i < 2 || len(got)-i != len(g.want)-int(first)+1 {
			t.Errorf("%d entries, seq %d is number %d, the run has %d", len(got), first, i, len(g.want))
		}
	}
}

func TestAReaderOfARunThatWasRemovedSaysSo(t *testing.T) {
	g := newRig(t).fill(250, 2000).sealed()
	r := openReader(t, g.mem)
	if _, err := r.Get(3, nil); err != nil {
		t.Fatal(err)
	}
	g.must(RemoveRun(g.mem, runDir))
	if v, err := r.Get(4, nil); err != nil || equal(&v, g.want, 3) != nil {
		t.Errorf("of a segment that is mapped: %v", err)
	}
	if _, err := r.Get(100, nil); !errors.Is(err, format.ErrRemoved) || errors.Is(err, format.ErrCorrupt) {
		t.Errorf("of one that is not: %v", err)
	}
}

func TestNotesBeginAtTheFloorToo(t *testing.T) {
	g, notes := noted(t, 500)
	g.must(g.log.RemoveBefore(4))
	first := firstOf(t, g.mem, 4)
	for _, r := range []*Reader{g.log.Reader(), openReader(t, g.mem)} {
		for _, kinds := range [][]entry.NoteKind{nil, {entry.NoteAnchor}} {
			for _, reverse := range []bool{false, true} {
				var want, got []entry.Note
				for n, err := range r.Notes(NoteOptions{Kinds: kinds, Reverse: reverse}) {
					g.must(err)
					got = append(got, entry.Note{Kind: n.Kind, After: n.After, Body: slices.Clone(n.Body)})
				}
				q := newNoteQuery(NoteOptions{Kinds: kinds, Reverse: reverse, From: first})
				for _, n := range notes {
					if q.wants(n.Kind, n.After) {
						want = append(want, n)
					}
				}
				if reverse {
					slices.Reverse(got)
				}
				for len(got) > 0 && got[0].After < first { // behind the last entry that is gone
					got = got[1:]
				}
				if fmt.Sprint(got) != fmt.Sprint(want) || len(want) == 0 {
					t.Errorf("kinds %v, reverse %v: %d notes, want %d", kinds, reverse, len(got), len(want))
				}
			}
		}
		for _, o := range []NoteOptions{{From: 1}, {From: first - 2}, {To: first - 2}} {
			n := 0
			for _, err := range r.Notes(o) {
				if n++; !errors.Is(err, format.ErrRemoved) {
					t.Errorf("%+v: %v", o, err)
				}
			}
			if n != 1 {
				t.Errorf("%+v: %d notes", o, n)
			}
		}
	}
}

// After a power cut at every operation of a removal the run is what it was, or begins where it should, whichever copy of
// the manifest is left; and the removal goes on where it was.
func TestACrashInsideRemoveBeforeAtEveryOperationLosesNothingAboveTheFloor(t *testing.T) {
	const keep = 4
	for _, live := range []bool{false, true} {
		g := newRig(t).fill(80, 2000)
		first := firstOf(t, g.mem, keep)
		if !live {
			g.sealed()
		}
		judge := func(op vfs.Op, left *vfs.Mem) {
			t.Helper()
			for _, lost := range []string{"", manifest.FileName, manifest.PrevName} {
				if _, err := left.Stat(filepath.Join(runDir, lost)); err != nil {
					continue // a write of the manifest that a crash has cut off
				}
				fsys := left.Kill()
				if lost != "" {
					remove(t, fsys, lost)
				}
				r := openReader(t, fsys)
				if f := r.FirstSeq(); f != 1 && f != first {
					t.Fatalf("before %v, without %q: it begins at %d", op, lost, f)
				} else if f == 1 {
					whole(t, r, g.want)
				} else {
					fromFloor(t, r, g.want, f)
				}
				if lost != "" {
					continue
				}
				if rec := recovered(t, fsys); rec.Damage != nil || rec.LastSeq != uint64(len(g.want)) {
					t.Fatalf("before %v: recovered as %+v", op, rec)
				}
				g.must(FinishRemoval(fsys, runDir))
				if n := below(t, fsys, openReader(t, fsys).set().floor.segment); n > 0 {
					t.Fatalf("before %v: %d files below the floor are left", op, n)
				}
				g.must(RemoveBefore(fsys, runDir, keep))
				fromFloor(t, openReader(t, fsys), g.want, first)
				if below(t, fsys, keep) > 0 {
					t.Fatalf("before %v: files are left", op)
				}
			}
		}
		ops := 0
		g.mem.SetHook(func(op vfs.Op) error {
			if op.Kind&vfs.OpChange != 0 {
				ops++
				for _, c := range []vfs.Chooser{vfs.LoseAll(), vfs.Random(uint64(ops))} {
					judge(op, g.mem.Crash(c))
				}
			}
			return nil
		})
		if live {
			g.must(g.log.RemoveBefore(keep))
		} else {
			g.must(RemoveBefore(g.mem, runDir, keep))
		}
		g.mem.SetHook(nil)
		if ops < 20 {
			t.Errorf("%d operations", ops)
		}
	}
}

func TestACrashInsideRemoveRunAtEveryOperationLeavesItWholeOrGone(t *testing.T) {
	g := newRig(t).fill(100, 2000).sealed()
	gone := 0
	judge := func(op vfs.Op, left *vfs.Mem) {
		t.Helper()
		names, err := left.ReadDir("/base/desk")
		g.must(err)
		if len(names) > 0 && names[len(names)-1].Name() == runID {
			whole(t, openReader(t, left), g.want)
			g.must(RemoveRun(left, runDir))
		} else {
			gone++
		}
		g.must(FinishRemovals(left, "/base/desk"))
		if names, err = left.ReadDir("/base/desk"); err != nil || len(names) > 0 {
			t.Fatalf("before %v: %v is left, %v", op, names, err)
		}
	}
	g.mem.SetHook(func(op vfs.Op) error {
		if op.Kind&vfs.OpChange != 0 {
			for _, c := range []vfs.Chooser{vfs.LoseAll(), vfs.KeepAll(), vfs.Random(uint64(op.N)), vfs.Scramble()} {
				judge(op, g.mem.Crash(c))
			}
		}
		return nil
	})
	g.must(RemoveRun(g.mem, runDir))
	g.mem.SetHook(nil)
	judge(vfs.Op{}, g.mem.Crash(vfs.LoseAll()))
	if gone < 5 {
		t.Errorf("it was gone %d times", gone)
	}
}

// A process that was killed leaves what the next one sees and the disk may not have: whoever ends its removals must not
// remove a file before that is certain.
func TestEndingARemovalDoesNotTrustThePageCache(t *testing.T) {
	const keep = 4
	for name, c := range map[string]struct{ remove, finish func(fsys vfs.FS) error }{
		"segments": {
			func(fsys vfs.FS) error { return RemoveBefore(fsys, runDir, keep) },
			func(fsys vfs.FS) error { return FinishRemoval(fsys, runDir) },
		},
		"run": {
			func(fsys vfs.FS) error { return RemoveRun(fsys, runDir) },
			func(fsys vfs.FS) error { return FinishRemovals(fsys, "/base/desk") },
		},
	} {
		g := newRig(t).fill(60, 2000).sealed()
		first := firstOf(t, g.mem, keep)
		judge := func(left *vfs.Mem, lost string) {
			t.Helper()
			if _, err := left.Stat(runDir); err != nil {
				return
			}
			if lost != "" {
				remove(t, left, lost)
			}
			r := openReader(t, left)
			if err := r.Damage(); err != nil || r.FirstSeq() != 1 && r.FirstSeq() != first {
				t.Fatalf("%s, without %q: it begins at %d: %v", name, lost, r.FirstSeq(), err)
			}
			if _, err := r.Get(r.FirstSeq(), nil); err != nil {
				t.Fatalf("%s, without %q: %v", name, lost, err)
			}
		}
		n := uint64(0)
		g.mem.SetHook(func(op vfs.Op) error {
			if op.Kind&vfs.OpChange == 0 {
				return nil
			}
			next := g.mem.Kill()
			next.SetHook(func(op vfs.Op) error {
				if op.Kind&vfs.OpChange != 0 {
					for _, lost := range []string{"", manifest.FileName, manifest.PrevName} {
						n++
						judge(next.Crash(vfs.Random(n)), lost)
					}
				}
				return nil
			})
			g.must(c.finish(next))
			return nil
		})
		g.must(c.remove(g.mem))
		g.mem.SetHook(nil)
		if n < 100 {
			t.Errorf("%s: %d crashes", name, n)
		}
	}
}

func TestOpeningARunBesideItsRetentionFindsNoDamage(t *testing.T) {
	g := newRig(t).fill(250, 2000)
	keep := uint32(0)
	g.mem.SetHook(func(op vfs.Op) error { // between the reader's look at the manifest and its look at the folder
		if op.Kind == vfs.OpReadDir && strings.HasSuffix(op.Name, runID) && keep > 0 {
			n := keep
			keep = 0
			g.must(g.log.RemoveBefore(n))
		}
		return nil
	})
	for _, n := range []uint32{3, 6} {
		keep = n
		r := openReader(t, g.mem)
		fromFloor(t, r, g.want, firstOf(t, g.mem, n))
	}
}

// heldIndex is a file system that keeps whoever makes one index waiting.
type heldIndex struct {
	vfs.FS
	name          string
	begun, finish chan struct{}
}

func (h *heldIndex) Create(name string) (vfs.File, error) {
	if filepath.Base(name) == h.name {
		close(h.begun)
		<-h.finish
	}
	return h.FS.Create(name)
}

// Others see a segment's footer before the log counts it as sealed, and may ask for all in front of it to be removed.
func TestASegmentWithAFooterCanBecomeTheFirst(t *testing.T) {
	h := &heldIndex{name: index.FileName(2) + ".tmp", begun: make(chan struct{}), finish: make(chan struct{})}
	g := newRig(t, func(o *Options) { h.FS, o.FS, o.Inline = o.FS, h, false })
	for len(g.log.set.Load().segs) < 4 {
		g.fill(10, 1000)
	}
	<-h.begun
	if err := g.log.RemoveBefore(3); !errors.Is(err, format.ErrInvalid) {
		t.Errorf("a segment without a footer: %v", err)
	}
	if err := g.log.RemoveBefore(2); err != nil {
		t.Error(err)
	}
	first := firstOf(t, g.mem, 2)
	if got := g.log.Reader().FirstSeq(); got != first {
		t.Errorf("the run begins with seq %d, want %d", got, first)
	}
	close(h.finish)
	g.log.sealer.wait()
	fromFloor(t, g.log.Reader(), g.want, first)
	g.must(g.log.Seal(manifest.Ended))
	g.log.Close()
	fromFloor(t, openReader(t, g.mem), g.want, first)
}
