package runlog_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

// killed is an engine that dies after n orders; it returns what it leaves and the run it wrote.
func killed(t testing.TB, mem *vfs.Mem, n int, edit ...func(*runlog.Options)) (*vfs.Mem, *runlog.Run) {
	t.Helper()
	o := options(mem)
	for _, e := range edit {
		e(&o)
	}
	r := open(t, o)
	add(t, r, n)
	return mem.Kill(), r
}

func TestLC1AMissingFolderIsMade(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := open(t, options(newMem()))
		wantParent(t, r, "")
		if list, err := r.Parents(); err != nil || len(list) != 0 {
			t.Fatalf("parents %v, %v", list, err)
		}
	})
}

func TestLC5ARunThatDiedAfterRunEndedIsEndedAndNoParent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		r := open(t, options(mem))
		add(t, r, 2)
		mem.Inject(vfs.Rule{Kind: vfs.OpRename, Name: manifest.FileName, Err: syscall.EIO})
		wantIs(t, r.Close(t.Context()), syscall.EIO)
		next := open(t, options(mem.Kill()))
		if p := predecessor(t, next, r.ID()); p.Status != runlog.Ended || p.LastSeq != 4 {
			t.Fatalf("predecessor %+v", p)
		}
		wantParent(t, next, "")
	})
}

// LC6: an engine that dies before its first own entry leaves no state, and hides nobody's.
func TestLC6ARunWithoutStateIsNobodysParent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, state := killed(t, newMem(), 3)
		for range 3 {
			var empty *runlog.Run
			mem, empty = killed(t, mem, 0)
			wantParent(t, empty, state.ID())
		}
		r := open(t, options(mem))
		wantParent(t, r, state.ID())
		if n := len(r.Predecessors()); n != 4 {
			t.Fatalf("%d predecessors, want 4", n)
		}
	})
}

func TestLC7TheNewestCrashedRunIsTheParentAndTheChainGoesBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, want := newMem(), []string{}
		for n := 1; n <= 3; n++ {
			var r *runlog.Run
			mem, r = killed(t, mem, n)
			want = append([]string{r.ID()}, want...)
		}
		r := open(t, options(mem))
		wantParent(t, r, want[0])
		for range 2 {
			parents, err := r.Parents()
			must(t, err)
			var got []string
			for _, p := range parents {
				got = append(got, p.Manifest().Run)
				if p.Status() != runlog.CrashedRecovered {
					t.Fatalf("%s is %s", p.Dir(), p.Status())
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("parents %v, want %v", got, want)
			}
		}
		seq, ok, err := must1(r.Parents())[0].Lookup(runlog.ClientOrderID, "O-3")
		if seq != 4 || !ok || err != nil {
			t.Fatalf("the parent's order 3 is at %d, %v, %v", seq, ok, err)
		}
	})
}

func must1[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestLC8ALaterBootTouchesOnlyTheNewestRun(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, first := killed(t, newMem(), 2)
		mem, second := killed(t, mem, 2)
		mem.SetTrace(true)
		r := open(t, options(mem))
		for _, op := range mem.Trace() {
			if op.Kind&vfs.OpChange != 0 && (len(op.Name) > len(first.Dir()) && op.Name[:len(first.Dir())] == first.Dir()) {
				t.Fatalf("%s of %s, of a run that was recovered before", op.Kind, op.Name)
			}
		}
		if p := predecessor(t, r, first.ID()); p.Recovered || p.Status != runlog.CrashedRecovered {
			t.Fatalf("predecessor %+v", p)
		}
		if p := predecessor(t, r, second.ID()); !p.Recovered || p.Parent != first.ID() {
			t.Fatalf("predecessor %+v", p)
		}
	})
}

func TestLC11RunIDsDifferAndSortThoughTheClockStandsStillOrGoesBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, last := newMem(), ""
		for _, now := range []clock{1e18, 1e18, 9e17, 5, 1e18} {
			var r *runlog.Run
			mem, r = killed(t, mem, 1, func(o *runlog.Options) { o.Clock = now })
			if r.ID() <= last {
				t.Fatalf("%s comes after %s", r.ID(), last)
			}
			wantParent(t, r, last)
			last = r.ID()
		}
	})
}

type clock int64

func (c clock) Now() int64 { return int64(c) }

func TestLC13AnEndedRunIsNobodysParentAndConsumesItsOwn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, crashed := killed(t, newMem(), 2)
		r := open(t, options(mem))
		wantParent(t, r, crashed.ID())
		closed(t, r) // it took the state over and ended well
		wantParent(t, open(t, options(mem)), "")
	})
}

func TestAParentIsConsumedByAChildThatHoldsState(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, a := killed(t, newMem(), 2)
		mem, b := killed(t, mem, 1)
		wantParent(t, b, a.ID())
		c := open(t, options(mem))
		wantParent(t, c, b.ID())
		closed(t, c)
		wantParent(t, open(t, options(mem)), "")
	})
}

// LC9: the damage is in an entry that was acknowledged.
func TestLC9ADamagedRunIsQuarantinedForGoodAndHidesNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, healthy := killed(t, newMem(), 3)
		mem, bad := killed(t, mem, 3)
		damage(t, mem, bad.ID())
		before, err := vfs.ReadFile(mem, bad.Dir()+"/"+segmentOne, 1<<30)
		must(t, err)
		for range 3 {
			var r *runlog.Run
			mem, r = killed(t, mem, 0)
			p := predecessor(t, r, bad.ID())
			if p.Status != runlog.Quarantined || p.Err == nil || p.Recovered {
				t.Fatalf("predecessor %+v", p)
			}
			skipped := r.Manifest().Skipped
			if len(skipped) != 1 || skipped[0].Run != bad.ID() || skipped[0].Reason == "" {
				t.Fatalf("skipped %+v", skipped)
			}
			wantParent(t, r, healthy.ID())
		}
		after, err := vfs.ReadFile(mem, bad.Dir()+"/"+segmentOne, 1<<30)
		must(t, err)
		if !slices.Equal(before, after) {
			t.Fatal("the evidence was changed")
		}
		list, err := runlog.List("/base", runlog.ReaderOptions{FS: mem})
		must(t, err)
		if list[1].Run != bad.ID() || list[1].Status != runlog.Quarantined || list[1].Live {
			t.Fatalf("listed as %+v", list[1])
		}
	})
}

// LC10: a run that the system does not let anybody decide may be the one to continue, so it stops the boot once...
func TestLC10ARunThatCannotBeDecidedStopsTheBootUntilItCan(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for kind, errno := range map[vfs.OpKind]error{
			vfs.OpRead: syscall.EIO, vfs.OpOpen: syscall.EMFILE, vfs.OpMap | vfs.OpDatasync: syscall.ENOMEM, vfs.OpWrite: syscall.ENOSPC,
		} {
			mem, _ := killed(t, newMem(), 3)
			mem, newest := killed(t, mem, 3)
			fault := mem.Inject(vfs.Rule{Kind: kind, Name: newest.Dir()[1:] + "/" + segmentOne, Forever: true, Err: errno})
			for range 2 {
				_, err := runlog.Open(t.Context(), options(mem))
				wantIs(t, err, runlog.ErrUndecided, errno)
				var u *runlog.UndecidedError
				if !errors.As(err, &u) || u.Run != newest.ID() || u.Dir != newest.Dir() || !strings.Contains(err.Error(), segmentOne) {
					t.Fatalf("%#v, %v", u, err)
				}
			}
			fault.Remove()
			r := open(t, options(mem))
			wantParent(t, r, newest.ID())
			if p := predecessor(t, r, newest.ID()); p.Status != runlog.CrashedRecovered || !p.Recovered {
				t.Fatalf("predecessor %+v", p)
			}
		}
	})
}

// ...and no boot for good: an operator can name it.
func TestLC10AnOperatorCanGoOnWithoutARunThatCannotBeDecided(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, healthy := killed(t, newMem(), 3)
		mem, bad := killed(t, mem, 3)
		reads := vfs.OpRead | vfs.OpMap | vfs.OpReadUncached
		mem.Inject(vfs.Rule{Kind: reads, Name: bad.Dir()[1:] + "/" + segmentOne, Forever: true, Err: syscall.EIO})
		o := options(mem)
		o.GoWithout = []string{healthy.ID()}
		_, err := runlog.Open(t.Context(), o)
		wantIs(t, err, runlog.ErrUndecided)
		o.GoWithout = []string{bad.ID()}
		r := open(t, o)
		if p := predecessor(t, r, bad.ID()); p.Err == nil || p.Recovered || p.Status == runlog.CrashedRecovered {
			t.Fatalf("predecessor %+v", p)
		}
		wantParent(t, r, healthy.ID())
		if s := r.Manifest().Skipped; len(s) != 1 || s[0].Run != bad.ID() {
			t.Fatalf("skipped %+v", s)
		}
		again := mem.Kill() // the disk answers again
		next := open(t, options(again))
		if p := predecessor(t, next, bad.ID()); p.Status != runlog.CrashedRecovered || !p.Recovered {
			t.Fatalf("predecessor %+v", p)
		}
		wantParent(t, next, bad.ID())

		add(t, r, 2) // unless the engine went on meanwhile: then its newest state counts
		wantParent(t, open(t, options(mem.Kill())), r.ID())
	})
}

// What a newer version wrote is whole, so it is not passed over when an engine is rolled back.
func TestARunOfANewerVersionStopsTheBoot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, healthy := killed(t, newMem(), 3)
		mem, newer := killed(t, mem, 3)
		f := must1(mem.Open(newer.Dir() + "/" + segment.FileName(1)))
		b := make([]byte, segment.BlockSize)
		format.SealHeader(b, format.MagicSegment, segment.Version+1, 7)
		must1(f.WriteAt(b, 0))
		must(t, errors.Join(f.Datasync(), f.Close()))
		o := options(mem)
		_, err := runlog.Open(t.Context(), o)
		wantIs(t, err, runlog.ErrUndecided, runlog.ErrVersion)
		o.GoWithout = []string{newer.ID()}
		wantParent(t, open(t, o), healthy.ID())
	})
}

func TestAnUndecidedRunThatCannotBeTheParentStopsNoBoot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, old := killed(t, newMem(), 3)
		mem, newest := killed(t, mem, 3)
		for range 2 { // behind a crashed run with state, and then consumed by one that ended
			mem.Inject(vfs.Rule{Kind: vfs.OpRead, Name: old.Dir()[1:] + "/*", Forever: true, Err: syscall.EMFILE})
			r := open(t, options(mem))
			wantParent(t, r, newest.ID())
			if p := predecessor(t, r, old.ID()); p.Err == nil {
				t.Fatalf("predecessor %+v", p)
			}
			add(t, r, 1)
			old, newest, mem = newest, r, mem.Kill()
		}
	})
}

func TestAConsumedRunOfWhichNothingCanBeReadBringsNobodyBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, _ := killed(t, newMem(), 3)
		mem, consumer := killed(t, mem, 3)
		closed(t, open(t, options(mem)))
		mem.Inject(vfs.Rule{Kind: vfs.OpRead, Name: consumer.Dir()[1:] + "/*", Forever: true, Err: syscall.EMFILE})
		r := open(t, options(mem))
		wantParent(t, r, "")
		if p := predecessor(t, r, consumer.ID()); p.Err == nil || p.Parent != "" {
			t.Fatalf("predecessor %+v", p)
		}
	})
}

// Whatever the one operation is that fails, no boot goes on from an older state than the newest: it does well, or it
// fails and the next one does well.
func TestNoPassingErrorEverChangesTheParent(t *testing.T) {
	for _, errno := range []error{syscall.EMFILE, syscall.ENOMEM, syscall.EIO} {
		for _, ended := range []bool{false, true} {
			bubble(t, func(t *testing.T) {
				disk, _ := killed(t, newMem(), 3)
				disk, newest := killed(t, disk, 3)
				want := newest.ID()
				if ended { // it has consumed the one before
					r := open(t, options(disk))
					closed(t, r)
					want = ""
				}
				refused := 0
				for n := 1; ; n++ {
					mem := disk.Kill()
					fault := mem.Inject(vfs.Rule{Kind: vfs.OpAny &^ vfs.OpClose, Nth: n, Err: errno})
					r, err := runlog.Open(t.Context(), options(mem))
					fault.Remove()
					if err == nil {
						got := r.Manifest().Parent
						closed(t, r)
						if got != want {
							t.Fatalf("%v at operation %d: the parent is %q, want %q: %+v", errno, n, got, want, r.Predecessors())
						}
					} else if errors.Is(err, runlog.ErrUndecided) {
						refused++
					}
					if fault.Hits() == 0 {
						break
					}
				}
				if refused == 0 {
					t.Fatalf("%v: no boot was refused", errno)
				}
			})
		}
	}
}

// A disk that is too full to recover a run is no reason to go on without its state.
func TestAFullDiskDuringRecoveryStopsTheBoot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, state := killed(t, newMem(), 3)
		mem.Inject(vfs.Rule{Kind: vfs.OpWrite, Name: state.Dir()[1:] + "/" + segmentOne, Err: syscall.ENOSPC})
		_, err := runlog.Open(t.Context(), options(mem))
		wantIs(t, err, syscall.ENOSPC, runlog.ErrUndecided)
		wantParent(t, open(t, options(mem)), state.ID())
	})
}

// G13, G14, G25: however a boot fails, the next one finds the same parent.
func TestAFailedBootKeepsTheParent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		disk, state := killed(t, newMem(), 3)
		failed := 0
		for n := 1; ; n++ {
			mem := disk.Kill()
			fault := mem.Inject(vfs.Rule{Kind: vfs.OpChange &^ vfs.OpLock, Nth: n, Err: syscall.EIO})
			r, err := runlog.Open(t.Context(), options(mem))
			fault.Remove()
			if fault.Hits() == 0 {
				closed(t, r)
				break
			}
			if err == nil { // what failed did not matter
				wantParent(t, r, state.ID())
				mem = mem.Kill()
				_ = r.Close(t.Context())
			} else {
				failed++
			}
			for _, after := range []*vfs.Mem{mem, mem.Kill(), mem.Crash(vfs.LoseAll()), mem.Crash(vfs.Random(uint64(n)))} {
				next := open(t, options(after))
				if got := next.Manifest().Parent; got != state.ID() {
					t.Fatalf("after operation %d failed (%v) the parent is %q, want %s; %+v", n, err, got, state.ID(), next.Predecessors())
				}
			}
		}
		if failed < 10 {
			t.Fatalf("only %d boots failed", failed)
		}
	})
}

// The boot itself may be killed, or lose power, at every operation.
func TestABootThatDiesKeepsTheParent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		disk, state := killed(t, newMem(), 3)
		var states []*vfs.Mem
		mem := disk.Kill()
		n := uint64(0)
		mem.SetHook(func(op vfs.Op) error {
			if op.Kind&vfs.OpChange != 0 {
				n++
				states = append(states, mem.Kill(), mem.Crash(vfs.LoseAll()), mem.Crash(vfs.Random(n)))
			}
			return nil
		})
		o := options(mem)
		o.Synchronous = true // so that the hook is not called by two
		r := open(t, o)
		mem.SetHook(nil)
		closed(t, r)
		for i, after := range states {
			next := open(t, options(after))
			if got := next.Manifest().Parent; got != state.ID() {
				t.Fatalf("state %d: the parent is %q, want %s; %+v", i, got, state.ID(), next.Predecessors())
			}
			closed(t, next)
		}
	})
}

// The first segment has its name only when it is on the disk, so there is nothing that looks like a damaged run.
func TestAPowerCutInsideOpenLeavesNothingToQuarantine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		disk := vfs.NewMem(vfs.MemOptions{Garbage: true})
		var states []*vfs.Mem
		disk.SetHook(func(op vfs.Op) error {
			if op.Kind&vfs.OpChange != 0 {
				worst := func(c vfs.Choice) int { // keep the names, and spoil what they lead to
					if c.Garbage >= 0 {
						return c.Garbage
					}
					return c.Newest
				}
				states = append(states, disk.Crash(worst))
				for seed := range uint64(4) {
					states = append(states, disk.Crash(vfs.Random(seed)))
				}
			}
			return nil
		})
		o := options(disk)
		o.Synchronous = true // so that the hook is not called by two
		open(t, o)
		disk.SetHook(nil)
		for i, after := range states {
			o.FS = after
			r := open(t, o)
			for _, p := range r.Predecessors() {
				if p.Err != nil {
					t.Fatalf("state %d: %+v", i, p)
				}
			}
		}
	})
}

func TestLeftoversOfARunThatWasNeverBornAreRemoved(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, state := killed(t, newMem(), 3)
		dir := home + "/" + manifest.NewRunID(time.Now().UnixNano(), state.ID(), 1)
		must(t, mem.MkdirAll(dir))
		f := must1(mem.Create(dir + "/" + segment.FileName(1)))
		must(t, f.Preallocate(64<<10))
		must(t, f.Close())
		r := open(t, options(mem))
		wantParent(t, r, state.ID())
		if _, err := mem.Stat(dir); err == nil {
			t.Fatal("the leftover is still there")
		}
		if n := len(r.Predecessors()); n != 1 {
			t.Fatalf("%d predecessors", n)
		}
	})
}

func TestForeignFilesAndFoldersAreLeftAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		must(t, mem.MkdirAll(home+"/notes"))
		must(t, must1(mem.Create(home+"/readme")).Close())
		closed(t, open(t, options(mem)))
		for _, name := range []string{"/notes", "/readme"} {
			if _, err := mem.Stat(home + name); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestParentsCanBeAskedAgainAfterAnError(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, a := killed(t, newMem(), 1)
		mem, b := killed(t, mem, 1)
		r := open(t, options(mem))
		fault := mem.Inject(vfs.Rule{Kind: vfs.OpAny, Name: a.Dir()[1:] + "/*", Forever: true, Err: syscall.EIO})
		if list, err := r.Parents(); err == nil || len(list) != 0 {
			t.Fatalf("parents %v, %v", list, err)
		}
		fault.Remove()
		list, err := r.Parents()
		must(t, err)
		if len(list) != 2 || list[0].Dir() != b.Dir() || list[1].Dir() != a.Dir() {
			t.Fatalf("parents %v", list)
		}
	})
}

func TestLC14AHaltedRunIsLeftToTheNextBoot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		r := open(t, options(mem))
		add(t, r, 2)
		mem.Inject(vfs.Rule{Kind: vfs.OpWrite, Name: segmentOne, Err: syscall.EIO})
		_, err := r.Append(t.Context(), order(3))
		wantIs(t, err, runlog.ErrHalted, syscall.EIO)
		wantIs(t, r.Close(context.Background()), runlog.ErrHalted)
		next := open(t, options(mem))
		p := predecessor(t, next, r.ID())
		if p.Status != runlog.CrashedRecovered || p.LastSeq != 3 {
			t.Fatalf("predecessor %+v", p)
		}
		wantParent(t, next, r.ID())
	})
}

// A run that has lost its manifest is not mistaken for one that never started because its segment cannot be read, or
// because there are files that an Open never makes.
func TestARunWithoutAManifestIsNotRemovedWithItsData(t *testing.T) {
	for what, harm := range map[string]func(mem *vfs.Mem, dir string){
		"an unreadable segment": func(mem *vfs.Mem, dir string) {
			mem.Inject(vfs.Rule{Kind: vfs.OpRead, Name: dir[1:] + "/" + segmentOne, Forever: true, Err: syscall.EIO})
		},
		"a lost first block": func(mem *vfs.Mem, dir string) {
			f := must1(mem.Open(dir + "/" + segmentOne))
			must1(f.WriteAt(make([]byte, 512), segment.BlockSize))
			must(t, f.Close())
		},
		"a packed segment": func(mem *vfs.Mem, dir string) {
			must(t, mem.Rename(dir+"/"+segmentOne, dir+"/"+segmentOne+".gz"))
		},
	} {
		t.Run(what, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				mem, a := killed(t, newMem(), 3)
				for _, name := range []string{"manifest", "manifest.prev"} {
					must(t, mem.Remove(a.Dir()+"/"+name))
				}
				if _, err := mem.Stat(a.Dir() + "/00000002.seg"); err == nil {
					must(t, mem.Remove(a.Dir()+"/00000002.seg"))
				}
				harm(mem, a.Dir())
				o := options(mem)
				o.GoWithout = []string{a.ID()}
				open(t, o)
				if names, err := mem.ReadDir(a.Dir()); err != nil || len(names) == 0 {
					t.Errorf("%d files, %v", len(names), err)
				}
			})
		})
	}
}
