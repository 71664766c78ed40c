package wal

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

// held is what a segment of a whole run holds.
type held struct {
	first, last uint64
	footer      int64 // where it begins
	lastBatch   int64 // where the last batch with an entry begins
	lastCommit  int64 // where the last commit frame begins
	batchFirst  uint64
}

// layout reads what each segment of a sealed run holds.
func layout(t *testing.T, m *vfs.Mem) (list []held) {
	t.Helper()
	for n := range len(contents(t, m, runDir, ".seg")) {
		path := filepath.Join(runDir, segment.FileName(uint32(n+1)))
		f, err := m.OpenRead(path)
		if err != nil {
			t.Fatal(err)
		}
		in, err := readInfo(f, path)
		if err != nil {
			t.Fatal(err)
		}
		h := held{first: in.footer.FirstSeq, last: in.footer.LastSeq, footer: in.footer.ContentEnd}
		b := []byte(contents(t, m, runDir, segment.FileName(uint32(n+1)))[segment.FileName(uint32(n+1))])
		segment.FindCommits(b, in.header.Salt, 0, func(c segment.Commit) bool {
			if h.lastCommit = c.Offset; c.LastSeq >= c.FirstSeq {
				h.lastBatch, h.batchFirst = c.BatchStart, c.FirstSeq
			}
			return true
		})
		list = append(list, h)
		_ = f.Close()
	}
	return list
}

func eight(t *testing.T) (*rig, []held) {
	t.Helper()
	g := newRig(t).fill(400, 1000).sealed()
	list := layout(t, g.mem)
	if len(list) < 7 {
		t.Fatalf("%d segments", len(list))
	}
	return g, list
}

// loses reads a run every way and checks that exactly first to last cannot be read, that what says so names name and
// these seqs, and that all else is delivered.
func loses(r *Reader, want []entry.Entry, name string, first, last uint64) error {
	names := func(err error) error {
		var at *format.Error
		if !errors.As(err, &at) || filepath.Base(at.Path) != name || at.FirstSeq != first || at.LastSeq != last || !located(err) {
			return fmt.Errorf("want %s, seq %d to %d: %w", name, first, last, err)
		}
		return nil
	}
	n, end, wrong := prefix(r, want)
	if err := names(end); uint64(n) != first-1 || wrong != nil || err != nil {
		return fmt.Errorf("scan: %d entries, then %w, %w", n, err, wrong)
	}
	next := len(want)
	for v, err := range r.Scan(ScanOptions{Reverse: true}) {
		if end = err; err != nil {
			break
		}
		if err := equal(&v, want, next-1); err != nil {
			return fmt.Errorf("backwards: %w", err)
		}
		next--
	}
	if err := names(end); uint64(next) != last || err != nil {
		return fmt.Errorf("backwards: down to seq %d, then %w", next+1, err)
	}
	var buf Buffer
	for i := range want {
		v, err := r.Get(uint64(i+1), &buf)
		if seq := uint64(i + 1); seq >= first && seq <= last {
			err = names(err)
		} else if err == nil {
			err = equal(&v, want, i)
		}
		if err != nil {
			return fmt.Errorf("get %d: %w", i+1, err)
		}
		seq, ok, err := r.Lookup(entry.KindID, want[i].ID.String())
		if uint64(i+1) < first && (seq != uint64(i+1) || !ok || err != nil) {
			return fmt.Errorf("lookup of seq %d: %d, %v, %w", i+1, seq, ok, err)
		} else if uint64(i+1) >= first && (ok || names(err) != nil) {
			return fmt.Errorf("lookup of seq %d, which a lost one may come before: %d, %v, %w", i+1, seq, ok, err)
		}
	}
	n = 0
	for v, err := range r.History("desk", "D-1") {
		if end = err; err != nil {
			break
		}
		if err := equal(&v, want, n); err != nil {
			return fmt.Errorf("history: %w", err)
		}
		n++
	}
	if err := names(end); uint64(n) != first-1 || err != nil {
		return fmt.Errorf("history: %d entries, then %w", n, err)
	}
	for v, err := range r.Scan(ScanOptions{From: last + 1}) {
		if err != nil {
			return fmt.Errorf("from behind the damage: %w", err)
		}
		if err := equal(&v, want, int(last)); err != nil {
			return fmt.Errorf("from behind the damage: %w", err)
		}
		last++
	}
	if last != uint64(len(want)) {
		return fmt.Errorf("from behind the damage: up to seq %d", last)
	}
	return nil
}

func TestOneDamagedSegmentTakesNoOtherEntries(t *testing.T) {
	g, segs := eight(t)
	for what, harm := range map[string]func(m *vfs.Mem, name string, h held) (first uint64){
		"damaged header": func(m *vfs.Mem, name string, h held) uint64 { poke(t, m, name, 20, 1); return h.first },
		"short header":   func(m *vfs.Mem, name string, h held) uint64 { cut(t, m, name, 100); return h.first },
		"emptied":        func(m *vfs.Mem, name string, h held) uint64 { cut(t, m, name, 0); return h.first },
		"another kind": func(m *vfs.Mem, name string, h held) uint64 {
			edit(t, m, name, func(b []byte) []byte { copy(b, format.MagicIndex); return b })
			return h.first
		},
		"not there": func(m *vfs.Mem, name string, h held) uint64 { remove(t, m, name); return h.first },
		"no start frame, no footer": func(m *vfs.Mem, name string, h held) uint64 {
			poke(t, m, name, 4096, 1)
			poke(t, m, name, h.footer+20, 1)
			return h.first
		},
		"footer and last batch": func(m *vfs.Mem, name string, h held) uint64 {
			poke(t, m, name, h.footer+20, 1)
			poke(t, m, name, h.lastBatch+20, 1)
			return h.batchFirst
		},
		"cut inside the last batch": func(m *vfs.Mem, name string, h held) uint64 {
			cut(t, m, name, int(h.lastBatch)+24)
			return h.batchFirst
		},
	} {
		for n := range segs[:len(segs)-1] {
			m, name := g.mem.Kill(), segment.FileName(uint32(n+1))
			first := harm(m, name, segs[n])
			r := openReader(t, m)
			if err := loses(r, g.want, name, first, segs[n].last); err != nil {
				t.Errorf("%s, %s: %v", what, name, err)
			}
		}
	}
}

func TestTheLastSegmentsLossIsNamedByTheManifest(t *testing.T) {
	g, segs := eight(t)
	h, name := segs[len(segs)-1], segment.FileName(uint32(len(segs)))
	for what, harm := range map[string]func(m *vfs.Mem) (first uint64){
		"damaged header": func(m *vfs.Mem) uint64 { poke(t, m, name, 20, 1); return h.first },
		"emptied":        func(m *vfs.Mem) uint64 { cut(t, m, name, 0); return h.first },
		"not there":      func(m *vfs.Mem) uint64 { remove(t, m, name); return h.first },
		"cut":            func(m *vfs.Mem) uint64 { cut(t, m, name, int(h.lastBatch)+24); return h.batchFirst },
	} {
		m := g.mem.Kill()
		first := harm(m)
		r := openReader(t, m)
		n, end, wrong := prefix(r, g.want)
		var at *format.Error
		if !errors.As(end, &at) || uint64(n) != first-1 || wrong != nil || at.FirstSeq != first || at.LastSeq != h.last ||
			filepath.Base(at.Path) != name {
			t.Errorf("%s: %d entries, then %v, %v; want %s, seq %d to %d", what, n, end, wrong, name, first, h.last)
		}
		if _, err := r.Get(h.last, nil); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("%s: get of the last entry: %v", what, err)
		}
	}
}

func TestSeveralDamagedSegmentsShareTheirRange(t *testing.T) {
	g, segs := eight(t)
	m := g.mem.Kill()
	remove(t, m, segment.FileName(3))
	poke(t, m, segment.FileName(4), 20, 1)
	r := openReader(t, m)
	_, end, _ := prefix(r, g.want)
	var at *format.Error
	if !errors.As(end, &at) || at.FirstSeq != segs[2].first || at.LastSeq != segs[3].last {
		t.Errorf("%v, want seq %d to %d", end, segs[2].first, segs[3].last)
	}
	if v, err := r.Get(segs[4].first, nil); err != nil || equal(&v, g.want, int(segs[4].first)-1) != nil {
		t.Errorf("behind both: %v", err)
	}
}

// counting counts what is opened.
type counting struct {
	vfs.FS
	opened map[string]int
}

func (c *counting) OpenRead(name string) (vfs.File, error) {
	c.opened[filepath.Base(name)]++
	return c.FS.OpenRead(name)
}

func TestADamagedSegmentIsJudgedOnce(t *testing.T) {
	g, segs := eight(t)
	m, name := g.mem.Kill(), segment.FileName(4)
	cut(t, m, name, int(segs[3].lastBatch)+24)
	c := &counting{FS: m, opened: map[string]int{}}
	r := openReader(t, c)
	read := func() {
		_, _, _ = prefix(r, g.want)
		for seq := segs[3].first; seq <= segs[3].last; seq++ {
			_, _ = r.Get(seq, nil)
			_, _, _ = r.Lookup(entry.KindID, g.want[seq-1].ID.String())
		}
	}
	read()
	once := c.opened[name]
	read()
	if again := c.opened[name]; again != once || once > 5 {
		t.Errorf("opened %d times at first, %d times later", once, again-once)
	}
}

func TestDamagedUnsealedSegmentsHideNoLaterOnes(t *testing.T) {
	g := newRig(t)
	g.log.sealer.stop() // no segment gets its footer
	g.fill(200, 1000)
	g.must(g.log.Mark())
	m := g.killed()
	poke(t, m, segment.FileName(2), 20, 1)
	r := openReader(t, m)
	n, end, wrong := prefix(r, g.want)
	var at *format.Error
	if !errors.As(end, &at) || wrong != nil || at.FirstSeq != uint64(n+1) || at.LastSeq <= at.FirstSeq ||
		filepath.Base(at.Path) != segment.FileName(2) {
		t.Fatalf("%d entries, then %v, %v", n, end, wrong)
	}
	if r.LastSeq() != 200 || r.Damage() == nil || r.Live() {
		t.Errorf("last seq %d, damage %v, live %v", r.LastSeq(), r.Damage(), r.Live())
	}
	for seq := at.LastSeq + 1; seq <= 200; seq++ {
		if v, err := r.Get(seq, nil); err != nil || equal(&v, g.want, int(seq)-1) != nil {
			t.Fatalf("get %d: %v", seq, err)
		}
	}
	if rec := recovered(t, m); rec.Status != manifest.Quarantined {
		t.Error(brief(rec))
	}
}

func TestATailOfAQuarantinedRunEnds(t *testing.T) {
	g := newRig(t).fill(20, 100)
	g.must(g.log.Mark())
	m := g.killed()
	r := openReader(t, m)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	n, quarantined := 0, false
	for v, err := range r.Tail(ctx, TailOptions{Level: Written}) {
		if err != nil {
			var at *format.Error
			if !errors.Is(err, format.ErrQuarantined) || !errors.As(err, &at) || filepath.Base(at.Path) != segment.FileName(1) || at.FirstSeq == 0 {
				t.Errorf("the tail ends with %v", err)
			}
			quarantined = true
			break
		}
		if err := equal(&v, g.want, n); err != nil {
			t.Fatal(err)
		}
		if n++; n == len(g.want) { // then damage appears, and a boot finds it
			poke(t, m, segment.FileName(1), segment.BlockSize+200, 1)
			if rec := recovered(t, m); rec.Status != manifest.Quarantined {
				t.Fatal(brief(rec))
			}
		}
	}
	if n != len(g.want) || !quarantined || r.Status() != manifest.Quarantined || r.Live() {
		t.Errorf("%d entries, quarantined %v, status %s, live %v", n, quarantined, r.Status(), r.Live())
	}
}

func TestAScanDeliversWhatIsGoodInFrontOfADamagedEntry(t *testing.T) {
	g := newRig(t)
	g.must(g.add(draft(1, 50), draft(2, 50)))
	g.must(g.add(draft(3, 50), draft(4, 50), draft(5, 50)))
	g.must(g.add(draft(6, 50)))
	g.sealed()
	name := segment.FileName(1)
	off := int64(0)
	edit(t, g.mem, name, func(b []byte) []byte {
		for i := range b {
			if string(b[i:min(i+50, len(b))]) == string(g.want[3].Payload) {
				off = int64(i)
				b[i] ^= 1
				break
			}
		}
		return b
	})
	r := openReader(t, g.mem)
	n, end, _ := prefix(r, g.want)
	var at *format.Error
	if !errors.As(end, &at) || n != 3 || at.FirstSeq != 4 || at.LastSeq != 5 || at.Offset <= off-100 || at.Offset > off {
		t.Errorf("%d entries, then %v; the damage is at %d", n, end, off)
	}
	for _, seq := range []uint64{1, 3, 5, 6} {
		if _, err := r.Get(seq, nil); err != nil {
			t.Errorf("get %d: %v", seq, err)
		}
	}
	if _, err := r.Get(4, nil); !located(err) {
		t.Error(err)
	}
}
