package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/runlog-io/runlog/internal/format"
)

// fakeFiles counts the mappings that files hold.
type fakeFiles struct {
	*files
	places [200]place
	open   atomic.Int64
	loads  atomic.Int64
}

type fakeMapping struct {
	open   *atomic.Int64
	closed atomic.Bool
}

func (m *fakeMapping) Bytes() []byte { return nil }

func (m *fakeMapping) Close() error {
	if m.closed.Swap(true) {
		panic("unmapped twice")
	}
	m.open.Add(-1)
	return nil
}

func newFakeFiles(keep int, budget *mapBudget) *fakeFiles {
	f := &fakeFiles{files: newFiles(nil, "", keep, nil)}
	f.budget = budget
	return f
}

func (f *fakeFiles) use(t *testing.T, i int) *mapped {
	t.Helper()
	if m := f.held(&f.places[i]); m != nil {
		return m
	}
	m, err := f.pin(fmt.Sprint(i), &f.places[i], func(m *mapped) error {
		f.loads.Add(1)
		f.open.Add(1)
		m.data = &fakeMapping{open: &f.open}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMappingsStayWithinTheBudget(t *testing.T) {
	budget := &mapBudget{limit: 50}
	f := newFakeFiles(10, budget)
	for i := range 3 * len(f.places) {
		f.unpin(f.use(t, i%len(f.places)))
		if n := f.open.Load(); n > budget.limit {
			t.Fatalf("%d mappings after %d files, want %d at most", n, i+1, budget.limit)
		}
	}
	if n := f.open.Load(); n != budget.limit || budget.used.Load() != n {
		t.Errorf("%d mappings, %d counted, want %d", n, budget.used.Load(), budget.limit)
	}

	// Another reader keeps its least, and no more, while the budget is used up.
	g := newFakeFiles(10, budget)
	for i := range g.places {
		g.unpin(g.use(t, i))
	}
	if n := g.open.Load(); n != 10 {
		t.Errorf("the second reader has %d mappings, want 10", n)
	}
	f.closeAll()
	for i := range g.places {
		g.unpin(g.use(t, i))
	}
	if n := g.open.Load(); n != budget.limit {
		t.Errorf("the second reader has %d mappings after the first has gone, want %d", n, budget.limit)
	}
	g.closeAll()
	if f.open.Load() != 0 || g.open.Load() != 0 || budget.used.Load() != 0 {
		t.Errorf("%d and %d mappings stay, %d counted", f.open.Load(), g.open.Load(), budget.used.Load())
	}
}

func TestWhatIsPinnedStaysMapped(t *testing.T) {
	f := newFakeFiles(10, &mapBudget{limit: 10})
	var pinned []*mapped
	for i := range 60 {
		pinned = append(pinned, f.use(t, i))
	}
	for i, m := range pinned {
		if m.data.(*fakeMapping).closed.Load() {
			t.Fatalf("file %d was unmapped while it was pinned", i)
		}
		if f.places[i].Load() != m {
			t.Fatalf("file %d is to be mapped once more while it is pinned", i)
		}
	}
	for _, m := range pinned {
		f.unpin(m)
	}
	if n := f.open.Load(); n != 10 {
		t.Errorf("%d mappings once nothing is pinned, want 10", n)
	}

	last := f.use(t, 100)
	f.closeAll()
	if n := f.open.Load(); n != 1 {
		t.Errorf("%d mappings, want the pinned one", n)
	}
	f.unpin(last)
	if n := f.open.Load(); n != 0 {
		t.Errorf("%d mappings stay", n)
	}
	if _, err := f.pin("1", &f.places[1], nil); !errors.Is(err, format.ErrClosed) {
		t.Errorf("pin after closeAll: %v", err)
	}
}

func TestWhatIsUsedAgainAndAgainIsNotMappedAgain(t *testing.T) {
	f := newFakeFiles(10, &mapBudget{limit: 10})
	f.unpin(f.use(t, 0))
	for i := range 150 { // once each, beside one that is used with each of them
		f.unpin(f.use(t, 1+i))
		f.unpin(f.use(t, 0))
	}
	if n := f.loads.Load(); n > 153 { // when all were used since, the hand takes the first it comes to: once, here
		t.Errorf("%d loads of 151 files", n)
	}
}

// Compressed segments hold a descriptor each, of which a process has few.
func TestCompressedSegmentsHoldFewDescriptors(t *testing.T) {
	f := newFakeFiles(3, &mapBudget{limit: 1000})
	r := &f.packed
	for i := range 20 {
		m := &mapped{key: fmt.Sprint(i), owner: f.files, place: &f.places[i]}
		m.users.Store(1)
		f.mu.Lock()
		f.byKey[m.key] = m
		r.add(m)
		m.place.Store(m)
		drop := f.sweep()
		f.mu.Unlock()
		releaseAll(drop)
		if len(r.all) > 3 || len(f.byKey) > 3 {
			t.Fatalf("%d are open, want 3 at most", len(r.all))
		}
	}
}

func TestManyReadersPinAndUnpinTogether(t *testing.T) {
	f := newFakeFiles(5, &mapBudget{limit: 20})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(g)))
			for n := range 5000 {
				i := rng.IntN(60)
				if n%100 == 99 {
					f.forget(fmt.Sprint(i))
					continue
				}
				m := f.use(t, i)
				if m.data.(*fakeMapping).closed.Load() {
					t.Error("unmapped while it is pinned")
				}
				f.unpin(m)
			}
		})
	}
	wg.Wait()
	f.closeAll()
	if n := f.open.Load(); n != 0 {
		t.Errorf("%d mappings stay", n)
	}
}

// With fewer files mapped than a look-up passes, everything is found as before.
func TestReadsFindEverythingBeyondTheBudget(t *testing.T) {
	for _, stage := range []string{"sealed", "compressed"} {
		r, want := stages[stage](t)
		r.files.keep, r.files.budget = 1, &mapBudget{limit: 2}
		whole(t, r, want)
		var buf Buffer
		for i := range want {
			e := &want[len(want)-1-i]
			if v, err := r.Get(e.Seq, &buf); err != nil || equal(&v, want, int(e.Seq)-1) != nil {
				t.Fatal(stage, e.Seq, err)
			}
			if first, ok, err := r.Lookup(e.Keys[0].Kind, e.Keys[0].Value); !ok || first > e.Seq || first+3 < e.Seq || err != nil {
				t.Fatal(stage, e.Seq, first, ok, err)
			}
		}
		if n := len(r.files.mapped.all) + len(r.files.packed.all); n > 3 {
			t.Errorf("%s: %d files are kept", stage, n)
		}
	}
}
