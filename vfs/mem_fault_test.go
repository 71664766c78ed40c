package vfs

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
)

func TestAFailedSyncIsFinalThoughTheNextOneSucceeds(t *testing.T) {
	m := newMem()
	f := durable(t, m, "a", sectorOf('a')+sectorOf('b'))
	write(t, f, sectorOf('x'), 0)
	m.Inject(Rule{Kind: OpDatasync, Err: syscall.EIO})
	wantErr(t, f.Datasync(), syscall.EIO, "a")
	must(t, f.Datasync())
	if got := letters(t, "a")(m); got != "xb" {
		t.Errorf("the cache holds %s", got)
	}
	b := make([]byte, 1)
	if _, err := f.ReadAtUncached(b, 0); err != nil || b[0] != 'a' {
		t.Errorf("the disk holds %q, %v", b, err)
	}
	wantOutcomes(t, m, letters(t, "a"), "ab")
	write(t, f, sectorOf('y'), 512) // other sectors still work
	must(t, f.Datasync())
	wantOutcomes(t, m, letters(t, "a"), "ay")
	write(t, f, sectorOf('z'), 0) // and so does writing the lost one again
	must(t, f.Datasync())
	wantOutcomes(t, m, letters(t, "a"), "zy")
}

func TestAFailedSyncMayHaveWrittenPart(t *testing.T) {
	m := newMem()
	f := durable(t, m, "a", sectorOf('a')+sectorOf('b'))
	write(t, f, sectorOf('x')+sectorOf('y'), 0)
	m.Inject(Rule{Kind: OpDatasync, Err: syscall.EIO, Landed: func(c Choice) int {
		if c.Sector == 1 {
			return c.Newest
		}
		return 0
	}})
	wantErr(t, f.Datasync(), syscall.EIO, "a")
	wantOutcomes(t, m, letters(t, "a"), "ay")
}

func TestAFailedSyncOfACutFileKeepsTheCutPending(t *testing.T) {
	m := newMem()
	f := durable(t, m, "a", sectorOf('a')+sectorOf('b'))
	must(t, f.Truncate(100))
	m.Inject(Rule{Kind: OpDatasync, Err: syscall.EIO})
	wantErr(t, f.Datasync(), syscall.EIO, "a")
	wantOutcomes(t, m, func(m *Mem) string { return fmt.Sprint(len(content(t, m, "a"))) }, "100", "1024")
	must(t, f.Datasync())
	wantOutcomes(t, m, files(t, "a"), strings.Repeat("a", 100))
}

func TestAnIOErrorOfAWriteLosesItsSectors(t *testing.T) {
	m := newMem()
	f := durable(t, m, "a", sectorOf('a')+sectorOf('b'))
	m.Inject(Rule{Kind: OpWrite, Err: syscall.EIO, Short: 3})
	n, err := f.WriteAt([]byte(sectorOf('x')), 0)
	if wantErr(t, err, syscall.EIO, "a"); n != 3 {
		t.Errorf("%d bytes reported", n)
	}
	must(t, f.Datasync())
	if got := letters(t, "a")(m); got != "xb" {
		t.Errorf("the cache holds %s", got)
	}
	wantOutcomes(t, m, letters(t, "a"), "ab")
}

func TestAShortWriteWritesWhatItSays(t *testing.T) {
	for short := range 6 {
		m := newMem()
		f := durable(t, m, "a", "12345")
		m.Inject(Rule{Kind: OpWrite, Err: syscall.ENOSPC, Short: short})
		n, err := f.WriteAt([]byte("abcde"), 0)
		if wantErr(t, err, syscall.ENOSPC, "a"); n != short {
			t.Errorf("%d bytes, want %d", n, short)
		}
		must(t, f.Datasync())
		wantOutcomes(t, m, files(t, "a"), "abcde"[:short]+"12345"[short:])
	}
}

// script does one of everything and returns the first error.
func script(m *Mem) error {
	if err := m.MkdirAll("dir"); err != nil {
		return err
	}
	l, err := m.Lock("dir/LOCK", []byte("me"))
	if err != nil {
		return err
	}
	defer l.Close()
	f, err := m.Create("dir/a.tmp")
	if err != nil {
		return err
	}
	b := make([]byte, 4)
	steps := []func() error{
		func() error { return f.Preallocate(4096) },
		func() error { _, err := f.WriteAt([]byte("data"), 0); return err },
		func() error { return f.Truncate(4) },
		f.Datasync,
		func() error { return m.Rename("dir/a.tmp", "dir/a") },
		func() error { return m.SyncDir("dir") },
		func() error { _, err := f.ReadAt(b, 0); return err },
		func() error { _, err := f.ReadAtUncached(b, 0); return err },
		func() error { _, err := f.Map(4); return err },
		func() error { _, err := f.Size(); return err },
		f.Close,
		func() error { _, err := m.ReadDir("dir"); return err },
		func() error { _, err := m.Stat("dir/a"); return err },
		func() error { _, err := m.OpenRead("dir/a"); return err },
		func() error { _, _, err := m.LockHolder("dir/LOCK"); return err },
		func() error { return m.Remove("dir/a") },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func TestEveryOperationCanFail(t *testing.T) {
	m := newMem()
	m.SetTrace(true)
	must(t, script(m))
	m.SetTrace(false)
	trace := m.Trace()
	if m.Ops(OpAny) != int64(len(trace)) || m.Ops(OpSyncDir) != 2 || m.Ops(OpChange) >= m.Ops(OpAny) {
		t.Fatalf("%d operations counted, %d traced", m.Ops(OpAny), len(trace))
	}
	var kinds OpKind
	for i, op := range trace {
		if op.N != int64(i+1) {
			t.Fatalf("operation %d has number %d", i, op.N)
		}
		kinds |= op.Kind
		for _, errno := range []error{syscall.EIO, syscall.ENOSPC, syscall.EACCES} {
			m := newMem()
			in := m.Inject(Rule{Nth: i + 1, Err: errno})
			wantErr(t, script(m), errno, op.Kind.String()[:3])
			if in.Hits() != 1 {
				t.Errorf("%v: hit %d times", op, in.Hits())
			}
		}
		m := newMem()
		m.SetHook(func(o Op) error {
			if o.N == op.N {
				return syscall.EDQUOT
			}
			return nil
		})
		wantErr(t, script(m), syscall.EDQUOT, "")
	}
	if kinds != OpAny {
		t.Errorf("the script lacks %v", OpAny&^kinds)
	}
}

func TestAFailedOperationHasNoEffect(t *testing.T) {
	m := newMem()
	f := durable(t, m, "a", "A")
	m.Inject(Rule{Kind: OpChange &^ OpDatasync, Err: syscall.EROFS, Forever: true})
	_, e1 := m.Create("b")
	_, e2 := m.Lock("b", nil)
	_, e3 := f.WriteAt([]byte("x"), 0)
	for _, err := range []error{e1, e2, e3, m.Rename("a", "b"), m.Remove("a"), m.MkdirAll("b"), m.SyncDir("/"),
		f.Truncate(0), f.Preallocate(9)} {
		wantErr(t, err, syscall.EROFS, "")
	}
	wantOutcomes(t, m, files(t, "a", "b"), "A absent")
	if got := files(t, "a", "b")(m); got != "A absent" {
		t.Errorf("programs see %s", got)
	}
}

func TestRulesSelectByKindNameAndCount(t *testing.T) {
	for _, c := range []struct {
		rule Rule
		want string // one letter per write: a, a, b, d/a; - failed
	}{
		{Rule{Kind: OpWrite}, "-abd"},
		{Rule{Kind: OpWrite | OpRead, Nth: 3}, "aa-d"},
		{Rule{Kind: OpWrite, Nth: 2, Forever: true}, "a---"},
		{Rule{Kind: OpWrite, Name: "a", Forever: true}, "--b-"},
		{Rule{Kind: OpWrite, Name: "d/*"}, "aab-"},
		{Rule{Kind: OpWrite, Name: "[", Forever: true}, "aabd"},
		{Rule{Kind: OpDatasync, Forever: true}, "aabd"},
	} {
		m := newMem()
		must(t, m.MkdirAll("d"))
		a, b, d := create(t, m, "a", ""), create(t, m, "b", ""), create(t, m, "d/a", "")
		c.rule.Err = syscall.EIO
		in := m.Inject(c.rule)
		got := ""
		for i, f := range []File{a, a, b, d} {
			if _, err := f.WriteAt([]byte("."), 0); err != nil {
				got += "-"
			} else {
				got += "aabd"[i : i+1]
			}
		}
		if got != c.want {
			t.Errorf("%+v: %s, want %s", c.rule, got, c.want)
		}
		in.Remove()
		write(t, a, ".", 0)
	}
	m := newMem()
	must(t, create(t, m, "a", "").Close())
	m.Inject(Rule{Name: "b", Err: syscall.EIO})
	wantErr(t, m.Rename("a", "b"), syscall.EIO, "b")
}

func TestAStalledDiskHoldsUpNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMem()
		f, other := create(t, m, "a", ""), create(t, m, "b", "")
		free := make(chan struct{})
		in := m.Inject(Rule{Kind: OpDatasync, Name: "a", Stall: free, Err: syscall.EIO})
		done := make(chan error)
		go func() { done <- f.Datasync() }()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("the sync did not wait: %v", err)
		default:
		}
		if in.Hits() != 1 {
			t.Errorf("%d waiting", in.Hits())
		}
		must(t, other.Datasync())
		write(t, f, "x", 0)
		close(free)
		wantErr(t, <-done, syscall.EIO, "a")
	})
}

func TestADiskFullWriteIsShort(t *testing.T) {
	m := NewMem(MemOptions{Capacity: 4 * 512})
	f := create(t, m, "a", sectorOf('a'))
	must(t, f.Preallocate(1024))
	g := create(t, m, "b", sectorOf('b'))
	n, err := g.WriteAt([]byte(strings.Repeat("c", 1500)), 512)
	if wantErr(t, err, syscall.ENOSPC, "b"); n != 512 {
		t.Errorf("%d bytes fit", n)
	}
	if _, err = g.WriteAt([]byte("d"), 1024); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a full disk took more: %v", err)
	}
	write(t, f, sectorOf('p'), 512) // preallocated
	write(t, g, "again", 0)
	wantErr(t, f.Preallocate(2048), syscall.ENOSPC, "a")
	_, err = m.Lock("LOCK", []byte("me"))
	wantErr(t, err, syscall.ENOSPC, "LOCK")
	if got := letters(t, "b")(m); got != "?c" {
		t.Errorf("b holds %s", got)
	}

	// Space comes back with a cut, with the last handle of a removed file, and with a larger disk.
	must(t, g.Truncate(512))
	must(t, f.Preallocate(1536))
	if m.Used() != 2048 {
		t.Errorf("%d bytes used", m.Used())
	}
	must(t, m.Remove("a"))
	if m.Used() != 2048 {
		t.Errorf("%d bytes used while the removed file is open", m.Used())
	}
	must(t, f.Close())
	if m.Used() != 512 {
		t.Errorf("%d bytes used", m.Used())
	}
	m.SetCapacity(0)
	write(t, g, sectorOf('e')+sectorOf('f')+sectorOf('g')+sectorOf('h'), 512)
	if got := m.Crash(KeepAll()).Used(); got != 5*512 {
		t.Errorf("%d bytes used after a crash", got)
	}
	must(t, m.SyncDir("/"))
	if got := m.Crash(LoseAll()).Used(); got != 0 {
		t.Errorf("%d bytes used by a file that lost its size", got)
	}
	_, err = g.WriteAt([]byte("far"), math.MaxInt64-1)
	wantErr(t, err, syscall.EFBIG, "b")
}

func TestAnUncachedReadProvesNothingUntilASync(t *testing.T) {
	for _, through := range []bool{false, true} {
		m := NewMem(MemOptions{WriteThrough: through})
		f := durable(t, m, "a", sectorOf('a')+sectorOf('b'))
		write(t, f, sectorOf('x')+sectorOf('y'), 0)
		b := make([]byte, 512)
		if _, err := f.ReadAtUncached(b, 0); err != nil || b[0] != 'x' {
			t.Fatalf("unwritten data is not seen: %q, %v", b[0], err)
		}
		if through {
			wantOutcomes(t, m, letters(t, "a"), "xb", "xy")
		} else {
			wantOutcomes(t, m, letters(t, "a"), "ab", "ay", "xb", "xy")
		}
		must(t, f.Datasync())
		wantOutcomes(t, m, letters(t, "a"), "xy")
	}
}

func TestRangesFollowAModel(t *testing.T) {
	var r ranges
	var model [40]bool
	count := func() (n int64) {
		for _, in := range model {
			if in {
				n++
			}
		}
		return n
	}
	x := uint32(7)
	next := func(n uint32) int64 {
		x = x*1664525 + 1013904223
		return int64((x >> 16) % n)
	}
	for step := range 2000 {
		before := count()
		lo, length := next(30), next(10)
		var changed int64
		if step%7 == 0 {
			changed = -r.cut(lo)
			clear(model[lo:])
		} else {
			changed = r.add(lo, lo+length)
			for i := lo; i < lo+length; i++ {
				model[i] = true
			}
		}
		sorted := slices.IsSortedFunc(r, func(a, b extent) int { return int(a.lo - b.hi) })
		if count()-before != changed || r.total() != count() || !sorted {
			t.Fatalf("step %d: %v, model %v", step, r, model)
		}
		for s := range model {
			if (r.has(int64(s)) > int64(s)) != model[s] {
				t.Fatalf("step %d: has(%d) is wrong in %v", step, s, r)
			}
		}
	}
}
