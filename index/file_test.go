package index

import (
	"errors"
	"io/fs"
	"math"
	"slices"
	"testing"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/vfs"
)

func TestFileAnswersLikeAMap(t *testing.T) {
	for seed := range uint64(8) {
		m := randomModel(seed, 1+seed*1000, 3000, []int{5, 300, 5000, 100000}[seed%4])
		f := m.open(t)
		if err := m.checkFile(f, false); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err := f.VerifyAll(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if f.KeyCount() != uint64(len(m.keys)) || f.Meta() != m.meta || f.Size() != int64(len(f.data)) {
			t.Fatalf("keys %d, meta %+v, size %d", f.KeyCount(), f.Meta(), f.Size())
		}
	}
}

func TestFileOfAnEmptySegment(t *testing.T) {
	m := newModel(1)
	f := m.open(t)
	if err := m.checkFile(f, false); err != nil {
		t.Error(err)
	}
	if err := f.VerifyAll(); err != nil {
		t.Error(err)
	}
	if seqs, err := f.Seqs(0, nil); seqs != nil || err != nil {
		t.Error(seqs, err)
	}
	if f.Bounds() != (Bounds{FirstSeq: 1}) || f.HasTopic("topic.1") || f.HasRoute("topic.1", "Type1") {
		t.Errorf("%+v", f.Bounds())
	}
}

func TestFileOfOneEntry(t *testing.T) {
	m := newModel(math.MaxUint32)
	m.add(1, 0, math.MaxUint64)
	f := m.open(t)
	if err := m.checkFile(f, false); err != nil {
		t.Error(err)
	}
	if err := f.VerifyAll(); err != nil {
		t.Error(err)
	}
	want := Bounds{
		FirstSeq: m.first, Entries: 1, MinPublish: int64(m.first), MaxPublish: int64(m.first),
		MinInit: m.b.Bounds().MinInit, MaxInit: m.b.Bounds().MaxInit,
	}
	if f.Bounds() != want {
		t.Errorf("%+v, want %+v", f.Bounds(), want)
	}
}

func TestFileKeepsAKeyOf100kEntries(t *testing.T) {
	m := newModel(1)
	for i := range 150000 {
		if i%3 != 1 {
			m.add(1, 42, order(i/5))
		} else {
			m.add(1)
		}
	}
	if len(m.keys[42]) != 100000 {
		t.Fatal(len(m.keys[42]))
	}
	if err := m.checkBuilder(); err != nil {
		t.Error(err)
	}
	f := m.open(t)
	if err := m.checkFile(f, false); err != nil {
		t.Error(err)
	}
	if err := f.VerifyAll(); err != nil {
		t.Error(err)
	}
}

func TestFileSpillsFullBucketsRoundTheEnd(t *testing.T) {
	for _, top := range []uint64{0, 0xffffffff, 0x80000000} { // home: first, last, middle
		m := newModel(1)
		for i := range uint64(40) {
			m.add(1, top<<32|i, order(int(i)))
		}
		f := m.open(t)
		if err := m.checkFile(f, false); err != nil {
			t.Errorf("home %#x: %v", top, err)
		}
		if err := f.VerifyAll(); err != nil {
			t.Error(err)
		}
	}
}

func TestKeysThatShareATagAreBothCandidates(t *testing.T) {
	m := newModel(1)
	a, b := uint64(0x0001_1234_5678_9abc), uint64(0x0002_1234_5678_9abc)
	m.add(1, b)
	m.add(1, a, b)
	m.add(1, a)
	m.add(1, b)
	f := m.open(t)
	for _, fp := range []uint64{a, b} {
		if seqs, err := f.Seqs(fp, []uint64{99}); err != nil || !slices.Equal(seqs, []uint64{99, 1, 2, 3, 4}) {
			t.Error(seqs, err)
		}
		if seq, ok, err := f.First(fp); seq != 1 || !ok || err != nil {
			t.Error(seq, ok, err)
		}
	}
}

func TestFileDictionary(t *testing.T) {
	m := newModel(1)
	m.add(1)
	m.add(2)
	m.add(2)
	m.add(200)
	f := m.open(t)
	d := f.Dict()
	if d.BaseTime != m.dict.BaseTime || !slices.Equal(d.Kinds().Declared(), []string{"account", "strategy"}) {
		t.Errorf("%d %v", d.BaseTime, d.Kinds().Declared())
	}
	for no, want := range m.dict.Routes() {
		got, ok := d.Route(uint32(no))
		if used := m.counts[uint32(no)] > 0; ok != used || used && got != want {
			t.Errorf("route %d: %v %v", no, got, ok)
		}
	}
	if !f.HasTopic("topic.2") || f.HasTopic("topic.3") || f.HasTopic("") {
		t.Error("HasTopic")
	}
	if !f.HasRoute("topic.2", "Type2") || f.HasRoute("topic.2", "Type1") || f.HasRoute("topic.3", "Type3") {
		t.Error("HasRoute")
	}
	var nos []uint32
	f.Routes(func(no uint32, r entry.Route, n uint64) bool {
		nos = append(nos, no)
		if r != m.dict.Routes()[no] || n != m.counts[no] {
			t.Error(no, r, n)
		}
		return no != 2
	})
	if !slices.Equal(nos, []uint32{1, 2}) || f.RouteCount(0) != 0 || f.RouteCount(3) != 0 || f.RouteCount(2) != 2 {
		t.Error(nos)
	}
	m.add(0) // inline: any topic may be there
	if f = m.open(t); !f.HasTopic("topic.3") || !f.HasRoute("x", "y") || f.RouteCount(0) != 1 {
		t.Error("inline routes are not told")
	}
}

func TestFileKeysFeedFilters(t *testing.T) {
	m := randomModel(1, 1, 500, 300)
	f := m.open(t)
	left := map[uint64]bool{}
	for fp := range m.keys {
		left[fp&tagMask] = true
	}
	if err := f.Keys(func(tag uint64) bool { delete(left, tag); return true }); err != nil || len(left) != 0 {
		t.Error(err, len(left))
	}
	n := 0
	if err := f.Keys(func(uint64) bool { n++; return n < 3 }); err != nil || n != 3 {
		t.Error(err, n)
	}
}

func TestOpenRefusesAnotherSegmentsIndex(t *testing.T) {
	m := randomModel(1, 1, 50, 30)
	data := m.encode(t)
	for name, change := range map[string]func(w *Want){
		"salt":        func(w *Want) { w.Salt++ },
		"number":      func(w *Want) { w.Number++ },
		"chain":       func(w *Want) { w.Chain++ },
		"content end": func(w *Want) { w.ContentEnd++ },
	} {
		want := m.meta
		change(&want)
		if _, err := openBytes(data, want); !isCorrupt(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	fsys := withFile(data)
	if _, err := Open(fsys, "y", m.meta); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	fsys.files["x"].noMap = true
	if _, err := Open(fsys, "x", m.meta); !errors.Is(err, errInjected) {
		t.Error(err)
	}
	fsys.files["x"].noSize = true
	if _, err := Open(fsys, "x", m.meta); !errors.Is(err, errInjected) {
		t.Error(err)
	}
}

func TestOpenUnmapsWhatItRefuses(t *testing.T) {
	m := randomModel(1, 1, 50, 30)
	fsys := withFile(m.encode(t))
	want := m.meta
	want.Chain++
	_, _ = Open(fsys, "x", want)
	if fsys.files["x"].unmaps != 1 {
		t.Error("the mapping leaks")
	}
	f, err := Open(fsys, "x", m.meta)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Close(), f.Close()); err != nil || fsys.files["x"].unmaps != 2 {
		t.Error(err, fsys.files["x"].unmaps)
	}
	_, _, err1 := f.First(1)
	_, err2 := f.Seqs(1, nil)
	_, _, err3 := f.Offset(1)
	for i, err := range []error{err1, err2, err3, f.VerifyAll(), f.Keys(nil)} {
		if !errors.Is(err, format.ErrClosed) {
			t.Errorf("call %d after Close: %v", i, err)
		}
	}
}

func TestWriteIsAllOrNothing(t *testing.T) {
	m := randomModel(1, 1, 50, 30)
	for failAt := 1; ; failAt++ {
		fsys := newMemFS()
		fsys.failAt = failAt
		err := m.write(fsys, "d", FileName(7))
		if err == nil {
			if failAt < 5 {
				t.Errorf("only %d steps", failAt)
			}
			break
		}
		if !errors.Is(err, errInjected) {
			t.Fatal(err)
		}
		fsys.failAt = 0
		if f, err := Open(fsys, join("d", FileName(7)), m.meta); err == nil {
			if err := f.VerifyAll(); err != nil {
				t.Errorf("step %d left a partial file: %v", failAt, err)
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("step %d: %v", failAt, err)
		}
		if err := m.write(fsys, "d", FileName(7)); err != nil {
			t.Errorf("after step %d failed: %v", failAt, err)
		}
	}
	m.b.AddKey(1, 0)
	if err := m.write(newMemFS(), "d", "x"); !errors.Is(err, format.ErrInvalid) {
		t.Error(err)
	}
}

func TestWriteAndOpenOnDisk(t *testing.T) {
	dir := t.TempDir()
	m := randomModel(9, 77, 5000, 3000)
	for range 2 { // the second replaces the first
		if err := m.write(vfs.OS, dir, FileName(7)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := Open(vfs.OS, join(dir, FileName(7)), m.meta)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.checkFile(f, false), f.VerifyAll(), f.Close()); err != nil {
		t.Error(err)
	}
}

func TestIndexIsSmall(t *testing.T) {
	m := newModel(1)
	for i := range 100000 {
		m.add(1, order(i))
	}
	if n := float64(len(m.encode(t))) / 100000; n > 20 {
		t.Errorf("%.1f bytes per key", n)
	}
}

func TestLookupsDoNotAllocate(t *testing.T) {
	m := randomModel(1, 1, 20000, 15000)
	f := m.open(t)
	buf := make([]uint64, 0, 64)
	i := 0
	if n := testing.AllocsPerRun(2000, func() {
		fp := uint64(i) * 0x9e3779b97f4a7c15
		i++
		_, _, _ = f.First(fp)
		buf, _ = f.Seqs(fp, buf[:0])
		_, _, _ = f.Offset(uint64(i))
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	known := order(1)
	if n := testing.AllocsPerRun(1000, func() {
		_, _, _ = f.First(known)
		buf, _ = f.Seqs(known, buf[:0])
		f.HasTopic("topic.3")
	}); n != 0 {
		t.Errorf("%v allocations per hit", n)
	}
}
