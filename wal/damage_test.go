package wal

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/segment/compressed"
	"github.com/runlog-io/runlog/vfs"
)

// small is a run of two segments whose frames are few, so that each of their bits can be flipped. It ends with a sync
// mark and one more batch, which nothing vouches for.
func small(t *testing.T) (g *rig, proven int) {
	g = newRig(t)
	g.fill(3, 9)
	g.must(g.log.rotate())
	g.fill(2, 20)
	g.must(g.log.Mark())
	proven = len(g.want)
	return g.fill(2, 0), proven
}

// survives is what recovery may do with a damaged unsealed run: return a prefix that holds all that was proven, twice
// the same, or quarantine it with file and offset and without having touched a segment.
func survives(t *testing.T, mem *vfs.Mem, want []entry.Entry, proven int) (quarantined bool, err error) {
	before := contents(t, mem, runDir, ".seg")
	rec, err := Recover(mem, runDir, 1)
	if err != nil {
		if !located(err) {
			return false, fmt.Errorf("recovery failed without saying where: %w", err)
		}
		if !maps.Equal(before, contents(t, mem, runDir, ".seg")) {
			return false, fmt.Errorf("recovery failed and has changed a segment: %w", err)
		}
		return true, nil
	}
	r, err := OpenReader(mem, runDir)
	if err != nil {
		return false, err
	}
	defer r.Close()
	n, end, wrong := prefix(r, want)
	if wrong != nil {
		return false, wrong
	}
	if rec.Status == manifest.Quarantined {
		q, _, qerr := manifest.ReadQuarantine(mem, runDir)
		switch {
		case !located(rec.Damage) || qerr != nil || q.File == "" || q.Offset < 0 && !errors.Is(rec.Damage, format.ErrMissingSegment):
			return true, fmt.Errorf("quarantined without saying where: %w (%+v)", rec.Damage, q)
		case !maps.Equal(before, contents(t, mem, runDir, ".seg")):
			return true, fmt.Errorf("quarantined, but a segment was changed: %w", rec.Damage)
		case end == nil && n < proven:
			return true, fmt.Errorf("a quarantined run reads as if it ended at seq %d", n)
		}
		return true, nil
	}
	if located(end) && rec.Status.Sealed() {
		return true, nil // in a segment that was sealed long ago: boot does not read it, whoever does is told
	}
	if end != nil || n < proven || uint64(n) != rec.LastSeq {
		return false, fmt.Errorf("%d entries, %d were proven, recovery said %d: %w", n, proven, rec.LastSeq, end)
	}
	again, err := Recover(mem, runDir, 2)
	if err != nil || again.Status != rec.Status || again.LastSeq != rec.LastSeq || again.DroppedBytes != rec.DroppedBytes {
		return false, fmt.Errorf("recovered again: %+v, %w; the first time %+v", again, err, rec)
	}
	return false, nil
}

// parallel calls f for 0 to n-1 on all processors until one returns an error.
func parallel(t *testing.T, n int, f func(i int) error) {
	t.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := int(next.Add(1) - 1); i < n && !t.Failed(); i = int(next.Add(1) - 1) {
				if err := f(i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// flip is a bit of a file.
type flip struct {
	off  int
	mask byte
}

// flipsOf lists every bit of a file's bytes that say something, one bit of each zero that stands among zeros near
// them, and a sample of the zeros behind the log.
func flipsOf(b string) (list []flip) {
	last := len(strings.TrimRight(b, "\x00"))
	zeros := string(make([]byte, 9))
	for i := range b {
		quiet := i > 4 && i+5 < len(b) && b[i-4:i+5] == zeros
		switch {
		case quiet && (i > last+16 || i > 700 && i < 4000) && i%509 > 0 || raceEnabled && i%50 > 0:
		case quiet || raceEnabled:
			list = append(list, flip{i, 1 << (i % 8)})
		default:
			for bit := range 8 {
				list = append(list, flip{i, 1 << bit})
			}
		}
	}
	return list
}

func TestEveryFlippedBitOfAnUnsealedRunIsSurvivedOrFound(t *testing.T) {
	g, proven := small(t)
	mem := g.killed()
	var tried, found atomic.Int64
	for name, b := range contents(t, mem, runDir, ".seg") {
		list := flipsOf(b)
		parallel(t, len(list), func(i int) error {
			m, f := mem.Kill(), list[i]
			poke(t, m, name, int64(f.off), f.mask)
			quarantined, err := survives(t, m, g.want, proven)
			if tried.Add(1); quarantined {
				found.Add(1)
			}
			if err != nil {
				return fmt.Errorf("%s, byte %d, mask %#x: %w", name, f.off, f.mask, err)
			}
			return nil
		})
	}
	t.Logf("%d flips, %d of them quarantined", tried.Load(), found.Load())
	if found.Load() < tried.Load()/4 {
		t.Error("too few were found")
	}
}

func TestEveryTruncationOfAnUnsealedRunIsSurvivedOrFound(t *testing.T) {
	g, proven := small(t)
	mem := g.killed()
	for name, b := range contents(t, mem, runDir, ".seg") {
		last := len(strings.TrimRight(b, "\x00"))
		var lengths []int
		for n := range len(b) + 1 {
			if raceEnabled && n%50 > 0 && n < len(b) {
				continue
			}
			if n >= 4000 && n <= last+100 || n%509 == 0 || n == len(b) {
				lengths = append(lengths, n)
			}
		}
		for _, zeroed := range []bool{false, true} { // cut, or the tail zeroed
			parallel(t, len(lengths), func(i int) error {
				m, n := mem.Kill(), lengths[i]
				cut(t, m, name, n)
				if zeroed {
					cut(t, m, name, len(b))
				}
				need := proven
				if n < last { // what vouched for the batches may be cut off too, if nothing follows
					need = 0
				}
				quarantined, err := survives(t, m, g.want, need)
				footer := len(b) < 64<<10 && n >= len(b)-segment.FooterSize // of a sealed segment; it is written again
				if err == nil && !quarantined && !zeroed && n < len(b) && !footer {
					err = errors.New("the cut was not noticed")
				}
				if err != nil {
					return fmt.Errorf("%s, %d bytes (zeroed: %v): %w", name, n, zeroed, err)
				}
				return nil
			})
		}
	}
}

func TestAHoleOfZerosIsNotTheEndOfTheLog(t *testing.T) {
	g, proven := small(t)
	mem := g.killed()
	name := segment.FileName(2)
	last := len(strings.TrimRight(contents(t, mem, runDir, name)[name], "\x00"))
	for _, size := range []int{8, 64, 512} {
		parallel(t, (last-segment.BlockSize)/8, func(i int) error {
			if raceEnabled && i%20 > 0 {
				return nil
			}
			m, off := mem.Kill(), segment.BlockSize+8*i
			f, err := m.Open(filepath.Join(runDir, name))
			if err == nil {
				_, err = f.WriteAt(make([]byte, size), int64(off))
			}
			if err == nil {
				_, err = survives(t, m, g.want, proven)
			}
			if err != nil {
				return fmt.Errorf("%d zeros at %d: %w", size, off, err)
			}
			return nil
		})
	}
}

func TestDamageAtTheEndOfARotatedSegmentIsProvenByTheNextOne(t *testing.T) {
	g := newRig(t)
	g.log.sealer.stop() // as when the process dies before the segment has its footer
	g.fill(6, 50)
	lastBatch := g.log.active.pending[len(g.log.active.pending)-1].from
	g.must(g.log.rotate())
	g.fill(2, 50)
	mem := g.killed()
	whole(t, openReader(t, mem.Kill()), g.want)
	for _, size := range []int64{8, 100, 1 << 10} {
		m := mem.Kill()
		f, err := m.Open(filepath.Join(runDir, segment.FileName(1)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(make([]byte, size), lastBatch); err != nil {
			t.Fatal(err)
		}
		if quarantined, err := survives(t, m, g.want, 6); err != nil || !quarantined {
			t.Errorf("%d zeros over the last batch of segment 1: quarantined: %v, %v", size, quarantined, err)
		}
	}
	if rec := recovered(t, mem); rec.LastSeq != 8 {
		t.Error(brief(rec))
	}
}

// neverWrong reads a damaged sealed run in every way: each entry that is delivered is right, and what is not
// delivered has a located error.
func neverWrong(mem *vfs.Mem, want []entry.Entry) error {
	r, err := OpenReader(mem, runDir)
	if err != nil {
		if !located(err) {
			return fmt.Errorf("no place: %w", err)
		}
		return nil
	}
	defer r.Close()
	n, end, wrong := prefix(r, want)
	if wrong != nil || end == nil && n != len(want) || end != nil && !located(end) {
		return fmt.Errorf("scan: %d of %d entries, then %w, %w", n, len(want), end, wrong)
	}
	i := len(want)
	for v, err := range r.Scan(ScanOptions{Reverse: true}) {
		if i--; err != nil {
			if !located(err) {
				return fmt.Errorf("backwards: %w", err)
			}
			break
		}
		if err := equal(&v, want, i); err != nil {
			return fmt.Errorf("backwards: %w", err)
		}
	}
	for i := range want {
		v, err := r.Get(uint64(i+1), nil)
		if err == nil {
			err = equal(&v, want, i)
		} else if located(err) || errors.Is(err, format.ErrNotFound) && r.Damage() != nil {
			err = nil
		}
		if err != nil {
			return fmt.Errorf("get %d: %w", i+1, err)
		}
		key := want[i].Keys[0]
		first := uint64(0)
		for j := range want {
			if want[j].Keys[0] == key {
				first = want[j].Seq
				break
			}
		}
		switch seq, ok, err := r.Lookup(key.Kind, key.Value); {
		case err != nil && !located(err):
			return fmt.Errorf("lookup %v: %w", key, err)
		case err == nil && (!ok || seq != first) && r.Damage() == nil:
			return fmt.Errorf("lookup %v: seq %d, %v, want %d", key, seq, ok, first)
		}
	}
	return nil
}

func TestEveryFlippedByteOfASealedRunIsNeverDelivered(t *testing.T) { // BK22 MB3 DB11 DB13 RD13
	g, _ := small(t)
	g.sealed()
	tried := 0
	for name, b := range contents(t, g.mem, runDir) {
		list := flipsOf(b)
		tried += len(list)
		parallel(t, len(list), func(i int) error {
			if i%5 > 0 && !strings.HasSuffix(name, ".seg") {
				return nil
			}
			m := g.mem.Kill()
			poke(t, m, name, int64(list[i].off), list[i].mask)
			if err := neverWrong(m, g.want); err != nil {
				return fmt.Errorf("%s, byte %d, mask %#x: %w", name, list[i].off, list[i].mask, err)
			}
			return nil
		})
	}
	t.Logf("%d flips", tried)
}

func TestEveryTruncationOfASealedRunIsFound(t *testing.T) {
	g, _ := small(t)
	g.sealed()
	for name, b := range contents(t, g.mem, runDir) {
		parallel(t, len(b), func(n int) error {
			if raceEnabled && n%101 > 0 || n < 4000 && n%13 > 0 || n%3 > 0 && !strings.HasSuffix(name, ".seg") {
				return nil
			}
			m := g.mem.Kill()
			cut(t, m, name, n)
			if n%5 == 0 {
				if err := neverWrong(m, g.want); err != nil {
					return fmt.Errorf("%s, cut to %d of %d bytes: %w", name, n, len(b), err)
				}
			}
			r, err := OpenReader(m, runDir)
			if err == nil && strings.HasSuffix(name, ".seg") {
				defer r.Close()
				got, end, _ := prefix(r, g.want)
				whole := n >= len(b)-segment.FooterSize // only the footer is cut: all entries are there
				if whole != (got == len(g.want) && end == nil) || end == nil && len(r.Warnings()) == 0 {
					return fmt.Errorf("%s, cut to %d of %d bytes: %d entries, then %w, warnings %v", name, n, len(b), got, end, r.Warnings())
				}
			}
			return nil
		})
	}
}

// shuffles are what can happen to whole segment files. n is the number of segments.
var shuffles = map[string]func(t *testing.T, m *vfs.Mem, i, j int){
	"missing": func(t *testing.T, m *vfs.Mem, i, _ int) { remove(t, m, segment.FileName(uint32(i))) },
	"renamed": func(t *testing.T, m *vfs.Mem, i, j int) { move(t, m, i, j) },
	"swapped": func(t *testing.T, m *vfs.Mem, i, j int) {
		move(t, m, i, 99)
		move(t, m, j, i)
		move(t, m, 99, j)
	},
	"duplicated": func(t *testing.T, m *vfs.Mem, i, j int) {
		b := contents(t, m, runDir, segment.FileName(uint32(i)))[segment.FileName(uint32(i))]
		f, err := m.Create(filepath.Join(runDir, segment.FileName(uint32(j))))
		if err != nil {
			f, err = m.Open(filepath.Join(runDir, segment.FileName(uint32(j))))
		}
		if err == nil {
			err = f.Truncate(0)
		}
		if err == nil {
			_, err = f.WriteAt([]byte(b), 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	},
}

func move(t *testing.T, m *vfs.Mem, i, j int) {
	t.Helper()
	from, to := segment.FileName(uint32(i)), segment.FileName(uint32(j))
	if err := m.Rename(filepath.Join(runDir, from), filepath.Join(runDir, to)); err != nil {
		t.Fatal(err)
	}
}

func TestMissingRenamedSwappedAndDuplicatedSegmentsAreFound(t *testing.T) { // DB9 DB10
	g := newRig(t).fill(120, 1000)
	crashed := g.mem.Kill()
	g.fill(1, 1)
	sealed := g.sealed().mem
	n := len(contents(t, sealed, runDir, ".seg"))
	if n < 4 {
		t.Fatalf("%d segments", n)
	}
	for name, damage := range shuffles {
		for i := 1; i <= n; i++ {
			for j := 1; j <= n+1; j++ {
				if i == j || name == "missing" && j != 1 && i != 1 || name == "swapped" && j > n {
					continue
				}
				what := fmt.Sprintf("%s %d, %d", name, i, j)
				m := sealed.Kill()
				damage(t, m, i, j)
				if err := neverWrong(m, g.want); err != nil {
					t.Errorf("sealed, %s: %v", what, err)
				}
				if r, err := OpenReader(m, runDir); err == nil {
					if got, end, _ := prefix(r, g.want); end == nil {
						t.Errorf("sealed, %s: not noticed, %d entries", what, got)
					}
					_ = r.Close()
				}
				m = crashed.Kill()
				damage(t, m, i, j)
				quarantined, err := survives(t, m, g.want, 120)
				if err != nil || !quarantined && !(name == "duplicated" && j > n) {
					t.Errorf("crashed, %s: quarantined: %v, %v", what, quarantined, err)
				}
			}
		}
	}
}

func TestASegmentOfAnotherRunIsNotBelieved(t *testing.T) {
	g := newRig(t).fill(120, 1000).sealed()
	other := newRig(t, func(o *Options) {
		o.Manifest.Run = "20261123T200248.123456789Z-ffffffff"
		o.Salts = func() uint64 { return 77 }
	}).fill(120, 999).sealed()
	for n := range len(contents(t, g.mem, runDir, ".seg")) {
		name := segment.FileName(uint32(n + 1))
		m := g.mem.Kill()
		foreign := contents(t, other.mem, runDir, name)[name]
		edit(t, m, name, func([]byte) []byte { return []byte(foreign) })
		if err := neverWrong(m, g.want); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDerivedFilesAreRebuiltInMemoryAndNothingIsWritten(t *testing.T) { // DB12 DB24 DB25
	g := newRig(t).fill(600, 900).sealed()
	if names := contents(t, g.mem, runDir, ".flt"); len(names) < 2 {
		t.Fatalf("only %d filters", len(names))
	}
	garbage := func(b []byte) []byte {
		for i := range b {
			b[i] ^= 0x5a
		}
		return b
	}
	for what, change := range map[string]func(name string, m *vfs.Mem){
		"missing": func(name string, m *vfs.Mem) { remove(t, m, name) },
		"empty":   func(name string, m *vfs.Mem) { edit(t, m, name, func([]byte) []byte { return nil }) },
		"garbage": func(name string, m *vfs.Mem) { edit(t, m, name, garbage) },
		"stale":   func(name string, m *vfs.Mem) { edit(t, m, name, func(b []byte) []byte { b[16]++; return b }) },
	} {
		for _, files := range [][]string{
			{".idx"}, {".flt"}, {manifest.FileName}, {manifest.PrevName}, {manifest.FileName, manifest.PrevName},
		} {
			m := g.mem.Kill()
			for _, suffix := range files {
				for name := range contents(t, m, runDir, suffix) {
					change(name, m)
				}
			}
			before, changes := contents(t, m, runDir), m.Ops(vfs.OpChange)
			r := openReader(t, m)
			whole(t, r, g.want)
			for i := 0; i < len(g.want); i += 37 {
				if v, err := r.Get(uint64(i+1), nil); err != nil || equal(&v, g.want, i) != nil {
					t.Fatalf("%s %v: get %d: %v", what, files, i+1, err)
				}
				if seq, ok, err := r.Lookup(entry.KindID, g.want[i].ID.String()); seq != uint64(i+1) || !ok || err != nil {
					t.Fatalf("%s %v: lookup of seq %d: %d, %v, %v", what, files, i+1, seq, ok, err)
				}
			}
			if _, ok, err := r.Lookup(entry.VenueOrderID, "absent"); ok || err != nil {
				t.Errorf("%s %v: an absent key: %v, %v", what, files, ok, err)
			}
			if got := m.Ops(vfs.OpChange); got != changes || !maps.Equal(before, contents(t, m, runDir)) {
				t.Errorf("%s %v: the reader wrote something", what, files)
			}
			quiet := files[0] == manifest.PrevName || files[0] == ".flt" && what == "missing" // nobody needs them
			if warned := len(r.Warnings()) > 0; warned == quiet {
				t.Errorf("%s %v: warnings %v", what, files, r.Warnings())
			}
			if m := r.Manifest(); !m.Status.Sealed() && files[0] != manifest.FileName || m.Run != runID {
				t.Errorf("%s %v: manifest %+v", what, files, m)
			}
		}
	}
}

func TestFoldersThatAreNoRunsHaveTheirOwnErrors(t *testing.T) { // DB2 DB3 DB18 DB22
	g := newRig(t).fill(3, 10).sealed()
	version := func(name string) func(m *vfs.Mem) {
		return func(m *vfs.Mem) {
			edit(t, m, name, func(b []byte) []byte {
				salt := uint64(0)
				format.SealHeader(b[:4096], format.MagicSegment, segment.Version+1, salt)
				return b
			})
		}
	}
	for what, c := range map[string]struct {
		change func(m *vfs.Mem)
		want   error
	}{
		"newer segment version": {version(segment.FileName(1)), format.ErrVersion},
		"newer version of a compressed segment": {func(m *vfs.Mem) {
			edit(t, m, segment.FileName(1), func(b []byte) []byte {
				format.SealHeader(b[:4096], format.MagicCompressed, compressed.Version+1, 0)
				return b
			})
			if err := m.Rename(filepath.Join(runDir, segment.FileName(1)), filepath.Join(runDir, compressed.FileName(1))); err != nil {
				t.Fatal(err)
			}
		}, format.ErrVersion},
		"no segments": {func(m *vfs.Mem) { remove(t, m, segment.FileName(1)) }, format.ErrMissingSegment},
		"empty folder": {func(m *vfs.Mem) {
			for name := range contents(t, m, runDir) {
				remove(t, m, name)
			}
		}, format.ErrNotRun},
		"a foreign file as segment": {func(m *vfs.Mem) {
			edit(t, m, segment.FileName(1), func(b []byte) []byte { copy(b, "runlogIX"); return b })
		}, format.ErrWrongKind},
		"no folder": {func(m *vfs.Mem) {
			if err := m.Rename(runDir, "/elsewhere"); err != nil {
				t.Fatal(err)
			}
		}, errNotExist},
		"a file instead": {func(m *vfs.Mem) {
			if err := m.Rename(runDir, "/elsewhere"); err != nil {
				t.Fatal(err)
			}
			if _, err := m.Create(runDir); err != nil {
				t.Fatal(err)
			}
		}, format.ErrNotRun},
	} {
		m := g.mem.Kill()
		c.change(m)
		r, err := OpenReader(m, runDir)
		if err == nil {
			_, err, _ = prefix(r, g.want)
			_ = r.Close()
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
}

func TestStrangersInTheFolderAreLeftAlone(t *testing.T) { // DB25
	g := newRig(t).fill(5, 10)
	mem := g.killed()
	for _, name := range []string{"notes.txt", ".hidden", "00000002.seg.bak", "2.seg", "00000000.seg", "manifest.old"} {
		if _, err := mem.Create(filepath.Join(runDir, name)); err != nil {
			t.Fatal(err)
		}
	}
	before := contents(t, mem, runDir)
	whole(t, openReader(t, mem), g.want)
	if rec := recovered(t, mem); rec.LastSeq != 5 {
		t.Fatal(brief(rec))
	}
	r := openReader(t, mem)
	whole(t, r, g.want)
	for name := range before {
		if _, err := mem.Stat(filepath.Join(runDir, name)); err != nil {
			t.Error(err)
		}
	}
	if len(r.Warnings()) > 0 {
		t.Error(r.Warnings())
	}
}

func TestAScanEndsWithOneError(t *testing.T) { // RD13
	g := newRig(t).fill(100, 2000).sealed()
	for name, b := range contents(t, g.mem, runDir, ".seg") {
		if off := strings.Index(b, string(g.want[40].Payload)); off >= 0 {
			poke(t, g.mem, name, int64(off), 4)
		}
	}
	r := openReader(t, g.mem)
	for _, reverse := range []bool{false, true} {
		var errs, n int
		for v, err := range r.Scan(ScanOptions{Reverse: reverse}) {
			if err != nil {
				if errs++; !located(err) {
					t.Error(err)
				}
				continue
			}
			if n++; v.Seq() == 41 || errs > 0 {
				t.Errorf("seq %d was delivered after %d errors", v.Seq(), errs)
			}
		}
		if want := map[bool]int{false: 40, true: 59}[reverse]; n != want || errs != 1 {
			t.Errorf("reverse %v: %d entries and %d errors, want all %d good ones before the bad one", reverse, n, errs, want)
		}
	}
	if _, err := r.Get(41, nil); !errors.Is(err, format.ErrCorrupt) {
		t.Errorf("get: %v", err)
	}
	if _, err := r.Get(42, nil); err != nil {
		t.Errorf("its neighbour: %v", err)
	}
}

func TestADamagedFrameHidesNoOtherFromGet(t *testing.T) {
	g := newRig(t).fill(100, 500).sealed()
	name := filepath.Join(runDir, segment.FileName(1))
	b, err := vfs.ReadFile(g.mem, name, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	h, err := segment.ReadHeader(bytes.NewReader(b), name)
	if err != nil {
		t.Fatal(err)
	}
	last, frames := uint64(0), 0
	for off := h.Size; off < int64(len(b)) && last < 60; frames++ {
		size, isEntry, ok := segment.SkipFrame(b[off:], h.Salt, off)
		if !ok {
			t.Fatalf("no frame at %d", off)
		}
		if isEntry {
			last++
		}
		poke(t, g.mem, segment.FileName(1), off, 1) // the head: from here on nobody knows how long the frame is
		r := openReader(t, g.mem)
		for seq := uint64(1); seq <= 60; seq++ {
			v, err := r.Get(seq, nil)
			switch {
			case isEntry && seq == last && !errors.Is(err, format.ErrCorrupt):
				t.Errorf("frame %d is damaged, it is entry %d: %v", frames, seq, err)
			case isEntry && seq == last:
			case err != nil:
				t.Errorf("frame %d is damaged, entry %d is whole: %v", frames, seq, err)
			default:
				if err := equal(&v, g.want, int(seq-1)); err != nil {
					t.Error(err)
				}
			}
		}
		r.Close()
		poke(t, g.mem, segment.FileName(1), off, 1)
		off += size
	}
}
