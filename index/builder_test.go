package index

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
)

func TestBuilderAnswersLikeAMap(t *testing.T) {
	for seed := range uint64(8) {
		m := randomModel(seed, 1+seed*1000, 3000, []int{5, 300, 5000, 100000}[seed%4])
		if err := m.checkBuilder(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for i := range 1000 {
			if seqs := m.b.Seqs(order(-1-i), math.MaxUint64, nil); seqs != nil {
				t.Fatalf("absent key has entries %v", seqs)
			}
		}
	}
}

func TestBuilderTakesHostileFingerprints(t *testing.T) {
	m := newModel(5)
	fps := []uint64{0, 1, math.MaxUint64, math.MaxUint64 - 1, 1<<63 + 7, 1<<54 + 8, 1<<54 + 9}
	for i := range uint64(2000) {
		fps = append(fps, math.MaxUint64-i*3) // one home slot, wraps around
	}
	for round := range 3 {
		for _, fp := range fps[:len(fps)-round] {
			m.add(0, fp, fp)
		}
	}
	if err := m.checkBuilder(); err != nil {
		t.Fatal(err)
	}
	f := m.open(t)
	if err := m.checkFile(f, false); err != nil {
		t.Fatal(err)
	}
	if err := f.VerifyAll(); err != nil {
		t.Fatal(err)
	}
}

func TestBuilderReportsMisuse(t *testing.T) {
	for name, misuse := range map[string]func(b *Builder){
		"gap":             func(b *Builder) { b.AddEntry(12, 64) },
		"repeated seq":    func(b *Builder) { b.AddEntry(10, 64) },
		"odd offset":      func(b *Builder) { b.AddEntry(11, 65) },
		"offset < 0":      func(b *Builder) { b.AddEntry(11, -8) },
		"offset too big":  func(b *Builder) { b.AddEntry(11, maxOffset) },
		"key before":      func(b *Builder) { b.AddKey(1, 9) },
		"key behind":      func(b *Builder) { b.AddKey(1, 11) },
		"key descending":  func(b *Builder) { b.AddEntry(11, 64); b.AddKey(1, 11); b.AddKey(1, 10) },
		"route too big":   func(b *Builder) { b.AddRoute(MaxRoute + 1) },
		"offset >= end":   func(b *Builder) { b.AddRoute(1); b.AddRoute(1); m := int64(1 << 20); b.AddEntry(11, m) },
		"route not known": func(b *Builder) { b.AddRoute(77) },
		"entry unrouted":  func(b *Builder) { b.AddEntry(11, 64) },
		"route undefined": func(b *Builder) { b.AddRoute(100) },
	} {
		m := newModel(10)
		m.b.AddEntry(10, 32)
		for range 3 { // so that the sample of the bad offset is kept
			misuse(m.b)
		}
		if name == "offset >= end" {
			m.meta.ContentEnd = 32
		}
		if _, err := Encode(m.b, m.dict, m.meta); !errors.Is(err, format.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}

func TestBuilderRefusesContentBehindItsEnd(t *testing.T) {
	m := newModel(1)
	m.add(1)
	m.meta.ContentEnd = m.offsets[0]
	if _, err := Encode(m.b, m.dict, m.meta); !errors.Is(err, format.ErrInvalid) {
		t.Errorf("%v, want ErrInvalid", err)
	}
}

func TestBuilderBounds(t *testing.T) {
	b := NewBuilder(100)
	if got := b.Bounds(); got != (Bounds{FirstSeq: 100}) || got.LastSeq() != 99 {
		t.Errorf("empty: %+v", got)
	}
	if _, _, ok := b.Offset(100); ok {
		t.Error("an empty builder has a sample")
	}
	for i, ts := range []int64{5, -3, 9} {
		b.AddEntry(100+uint64(i), int64(i)*8)
		b.AddTimes(ts, -ts)
	}
	want := Bounds{FirstSeq: 100, Entries: 3, MinInit: -3, MaxInit: 9, MinPublish: -9, MaxPublish: 3}
	if got := b.Bounds(); got != want || got.LastSeq() != 102 {
		t.Errorf("%+v, want %+v", got, want)
	}
	if at, off, ok := b.Offset(1000); !ok || at != 100 || off != 0 {
		t.Errorf("Offset behind the end = %d %d %v", at, off, ok)
	}
	if _, _, ok := b.Offset(99); ok {
		t.Error("Offset before the first seq is ok")
	}
	if b.Bytes() < minTable*16 || b.Bytes() > 1<<20 {
		t.Errorf("Bytes() = %d", b.Bytes())
	}
}

// Keys that are taken together, over tables that grow meanwhile, are those that are taken one by one.
func TestKeysThatComeTogetherChangeNoAnswerAndNoByte(t *testing.T) {
	a, b := NewBuilder(1), NewBuilder(1)
	rnd := rand.New(rand.NewPCG(6, 1))
	var together []Posting
	for seq := uint64(1); seq <= 9000; seq++ {
		for _, x := range []*Builder{a, b} {
			x.AddEntry(seq, int64(seq)*8)
			x.AddRoute(0)
		}
		for range rnd.IntN(4) {
			fp := order(rnd.IntN(6000))
			a.AddKey(fp, seq)
			together = append(together, Posting{fp, seq})
		}
		if seq%61 == 0 || seq == 9000 {
			b.AddKeys(together)
			together = together[:0]
		}
	}
	b.AddKeys(nil)
	meta := Meta{Salt: 5, Number: 1, ContentEnd: 9001 * 8}
	first, err := Encode(a, entry.NewDict(0), meta)
	second, err2 := Encode(b, entry.NewDict(0), meta)
	if err != nil || err2 != nil || !slices.Equal(first, second) {
		t.Errorf("the same keys give other bytes, or %v, %v", err, err2)
	}
	if a.Keys() != b.Keys() || a.Keys() < 5000 {
		t.Errorf("%d and %d keys", a.Keys(), b.Keys())
	}
}

func TestReserveChangesNoAnswerAndNoByte(t *testing.T) {
	a, b := randomModel(3, 1, 2000, 700), newModel(1)
	b.b.Reserve(50000)
	before := b.b.Bytes()
	rnd := rand.New(rand.NewPCG(3, 1))
	for range 2000 {
		var fps []uint64
		for range rnd.IntN(4) {
			fps = append(fps, order(rnd.IntN(700)))
		}
		b.add([]uint32{0, 1, 2, 200}[rnd.IntN(4)], fps...)
	}
	if !slices.Equal(a.encode(t), b.encode(t)) {
		t.Error("the same content gives other bytes")
	}
	if before < 50000*16 {
		t.Errorf("reserved %d bytes", before)
	}
}

func TestBuilderReadersSeeWhatIsPublished(t *testing.T) {
	const entries, keys = 60000, 9000
	b := NewBuilder(1)
	fps := make([]uint64, keys)
	for i := range fps {
		fps[i] = order(i)
	}
	var published atomic.Uint64 // entries are complete up to here
	var wg sync.WaitGroup
	for r := range 3 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rnd := rand.New(rand.NewPCG(uint64(r), 2))
			var buf []uint64
			for {
				done := published.Load()
				if done == 0 {
					continue
				}
				i := rnd.IntN(keys)
				// Key i is on the entries i+1, i+1+keys, ..., and on the one that follows each.
				var want []uint64
				for s := uint64(i) + 1; s <= done; s += keys {
					want = append(want, s)
					if s+1 <= done {
						want = append(want, s+1)
					}
				}
				buf = b.Seqs(fps[i], done, buf[:0])
				if i > 0 && !slices.Equal(buf, want) {
					t.Errorf("key %d up to %d: %v, want %v", i, done, buf, want)
					return
				}
				if seq, ok := b.First(fps[i], done); ok != (len(want) > 0) || ok && seq != want[0] {
					t.Errorf("First of key %d up to %d: %d %v, want %v", i, done, seq, ok, want)
					return
				}
				seq := 1 + rnd.Uint64N(done)
				if at, off, ok := b.Offset(seq); !ok || at != seq-(seq-1)%SampleEvery || off != int64(at)*16 {
					t.Errorf("Offset(%d) = %d %d %v", seq, at, off, ok)
					return
				}
				if n := b.RouteCount(uint32(seq % 500)); n > entries {
					t.Errorf("RouteCount = %d", n)
				}
				if bo := b.Bounds(); bo.Entries < done || bo.MaxPublish < int64(done) || b.Bytes() == 0 {
					t.Errorf("Bounds = %+v at %d", bo, done)
				}
				if done == entries {
					return
				}
			}
		}()
	}
	for seq := uint64(1); seq <= entries; seq++ {
		b.AddEntry(seq, int64(seq)*16)
		i := (seq - 1) % keys
		b.AddKey(fps[i], seq)
		if i > 0 {
			b.AddKey(fps[i-1], seq)
		} else if seq > 1 {
			b.AddKey(fps[keys-1], seq)
		}
		b.AddRoute(uint32(seq * 7 % 500))
		b.AddTimes(int64(seq), int64(seq))
		published.Store(seq)
	}
	wg.Wait()
	if b.Err() != nil {
		t.Error(b.Err())
	}
}

func TestBuilderAllocatesOnlyToGrow(t *testing.T) {
	b := NewBuilder(1)
	b.Reserve(100000)
	b.AddRoute(3)
	seq, i := uint64(0), 0
	fps := make([]uint64, 50000)
	for i := range fps {
		fps[i] = order(i)
	}
	if n := testing.AllocsPerRun(40000, func() {
		seq++
		b.AddEntry(seq, int64(seq)*8)
		b.AddKey(fps[i%len(fps)], seq)
		b.AddKey(fps[i/2], seq)
		b.AddTimes(int64(seq), int64(seq))
		b.AddRoute(3)
		i++
	}); n != 0 {
		t.Errorf("adding allocates %v times per entry", n)
	}
	buf := make([]uint64, 0, 16)
	if n := testing.AllocsPerRun(1000, func() {
		buf = b.Seqs(fps[7], seq, buf[:0])
		b.First(fps[9], seq)
		b.Offset(77)
	}); n != 0 {
		t.Errorf("looking up allocates %v times", n)
	}
}
