package runlog_test

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
)

// continuing opens a run that continues the named one.
func continuing(t testing.TB, mem *vfs.Mem, run string) *runlog.Run {
	t.Helper()
	o := options(mem)
	o.ContinueFrom = run
	return open(t, o)
}

// ended is an engine with n orders that ended cleanly.
func ended(t testing.TB, mem *vfs.Mem, n int) string {
	t.Helper()
	r := open(t, options(mem))
	add(t, r, n)
	closed(t, r)
	return r.ID()
}

// everything lists a simulated disk's files with their content.
func everything(t testing.TB, mem *vfs.Mem) (list []string) {
	t.Helper()
	var walk func(dir string)
	walk = func(dir string) {
		for _, e := range must1(mem.ReadDir(dir)) {
			name := dir + "/" + e.Name()
			if e.IsDir() {
				list = append(list, name)
				walk(name)
				continue
			}
			list = append(list, name+"\n"+string(must1(vfs.ReadFile(mem, name, 1<<30))))
		}
	}
	walk("/base")
	return list
}

func TestLC25ARunThatEndedIsContinuedWhenItIsNamed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		first := ended(t, mem, 3)
		ended(t, mem, 2)
		r := continuing(t, mem, first)
		wantParent(t, r, first)
		parents := must1(r.Parents())
		if seq, ok, err := parents[0].Lookup(runlog.ClientOrderID, "O-3"); seq != 4 || !ok || err != nil || len(parents) != 1 {
			t.Fatalf("%d parents; order 3 is at %d, %v, %v", len(parents), seq, ok, err)
		}
		closed(t, r)
		wantParent(t, open(t, options(mem)), "") // the name was for one start
	})
}

func TestLC26TheNamedRunWinsOverACrashedOneWhichIsRecoveredAndNeverComesBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		first := ended(t, mem, 3)
		mem, crash := killed(t, mem, 2)
		r := continuing(t, mem, first)
		wantParent(t, r, first)
		if p := predecessor(t, r, crash.ID()); p.Status != runlog.CrashedRecovered || !p.Recovered || p.LastSeq != 3 {
			t.Fatalf("predecessor %+v", p)
		}
		if s := r.Manifest().Skipped; len(s) != 1 || s[0].Run != crash.ID() || !strings.Contains(s[0].Reason, first) {
			t.Fatalf("skipped %+v", s)
		}
		empty := mem.Kill() // the boot failed before the engine did anything: nothing was decided
		wantParent(t, open(t, options(empty)), crash.ID())

		add(t, r, 1)
		after := mem.Kill()
		wantParent(t, open(t, options(after)), r.ID())
		closed(t, r) // and behind an engine that has gone on and ended well, an older state stays passed over
		wantParent(t, open(t, options(mem)), "")
	})
}

func TestLC26AnUndecidedRunStopsNoBootThatNamesAnother(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		first := ended(t, mem, 3)
		mem, crash := killed(t, mem, 2)
		mem.Inject(vfs.Rule{Kind: vfs.OpRead, Name: crash.Dir()[1:] + "/*", Forever: true, Err: syscall.EMFILE})
		r := continuing(t, mem, first)
		wantParent(t, r, first)
		if s := r.Manifest().Skipped; len(s) != 1 || s[0].Run != crash.ID() {
			t.Fatalf("skipped %+v", s)
		}
	})
}

// LC27, LC28: whatever is wrong with the named run, no run is opened, and every byte on the disk is as before.
func TestLC27LC28ARunThatCannotBeContinuedStopsTheBootAndChangesNothing(t *testing.T) {
	cases := map[string]struct {
		make func(t *testing.T, mem *vfs.Mem) (*vfs.Mem, string)
		want error
	}{
		"missing": {func(t *testing.T, mem *vfs.Mem) (*vfs.Mem, string) {
			return mem, manifest.NewRunID(1, "", 1)
		}, fs.ErrNotExist},
		"empty": {func(t *testing.T, mem *vfs.Mem) (*vfs.Mem, string) {
			id := manifest.NewRunID(1, "", 1)
			must(t, mem.MkdirAll(home+"/"+id))
			return mem, id
		}, runlog.ErrNotRun},
		"crashed": {func(t *testing.T, mem *vfs.Mem) (*vfs.Mem, string) {
			mem, r := killed(t, mem, 2)
			return mem, r.ID()
		}, runlog.ErrNotSealed},
		"quarantined": {func(t *testing.T, mem *vfs.Mem) (*vfs.Mem, string) {
			mem, r := killed(t, mem, 3)
			damage(t, mem, r.ID())
			mem, _ = killed(t, mem, 1)
			return mem, r.ID()
		}, runlog.ErrQuarantined},
		"without its segment": {func(t *testing.T, mem *vfs.Mem) (*vfs.Mem, string) {
			id := ended(t, mem, 3)
			must(t, mem.Remove(home+"/"+id+"/"+segmentOne))
			mem, _ = killed(t, mem, 1)
			return mem, id
		}, runlog.ErrMissingSegment},
		"another run in its folder": {func(t *testing.T, mem *vfs.Mem) (*vfs.Mem, string) {
			id, other := ended(t, mem, 3), manifest.NewRunID(1, "", 1)
			must(t, mem.Rename(home+"/"+id, home+"/"+other))
			mem, _ = killed(t, mem, 1)
			return mem, other
		}, runlog.ErrCorrupt},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				mem, _ := killed(t, newMem(), 1) // which a boot would recover
				mem, run := c.make(t, mem)
				before := everything(t, mem)
				o := options(mem)
				o.ContinueFrom = run
				_, err := runlog.Open(t.Context(), o)
				wantIs(t, err, runlog.ErrCannotContinue, c.want)
				var ce *runlog.ContinueError
				if !errors.As(err, &ce) || ce.Run != run || ce.Dir != home+"/"+run || !strings.Contains(err.Error(), run) {
					t.Fatalf("%#v, %v", ce, err)
				}
				if !slices.Equal(before, everything(t, mem)) {
					t.Fatal("the disk has changed")
				}
			})
		})
	}
}

func TestLC27AMissingRunInAMissingFolderMakesNoFolder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		o := options(mem)
		o.ContinueFrom = manifest.NewRunID(1, "", 1)
		_, err := runlog.Open(t.Context(), o)
		wantIs(t, err, runlog.ErrCannotContinue, fs.ErrNotExist)
		if n := mem.Ops(vfs.OpChange); n != 0 {
			t.Fatalf("%d operations that change something", n)
		}
		_, err = runlog.NewImport(o) // which continues nothing
		wantIs(t, err, runlog.ErrInvalid)
		o.ContinueFrom = "../elsewhere"
		_, err = runlog.Open(t.Context(), o)
		wantIs(t, err, runlog.ErrInvalid)
	})
}

// What salvage makes of a quarantined run is an import. Nothing chooses it by itself.
func TestAnImportIsContinuedOnlyWhenItIsNamed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		im := must1(runlog.NewImport(options(mem)))
		must(t, im.Add(order(1)))
		dir := must1(im.Finish(t.Context()))
		closed(t, open(t, options(mem)))
		run := dir[len(home)+1:]
		wantParent(t, continuing(t, mem, run), run)
	})
}

// GoWithout leaves a run behind for good once the engine has gone on, however that ended.
func TestNothingOlderComesBackBehindARunThatEndedWell(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, left := killed(t, newMem(), 3)
		fault := mem.Inject(vfs.Rule{Kind: vfs.OpRead, Name: left.Dir()[1:] + "/*", Forever: true, Err: syscall.EMFILE})
		o := options(mem)
		o.GoWithout = []string{left.ID()}
		r := open(t, o)
		wantParent(t, r, "")
		add(t, r, 2)
		closed(t, r)
		fault.Remove()
		next := open(t, options(mem))
		wantParent(t, next, "")
		if p := predecessor(t, next, left.ID()); p.Status != runlog.CrashedRecovered {
			t.Fatalf("predecessor %+v", p)
		}
	})
}

func TestABrokenChainOfParentsNamesTheRunThatBreaksIt(t *testing.T) {
	breaks := map[string]struct {
		harm func(t *testing.T, mem *vfs.Mem, a, b *runlog.Run)
		want error
	}{
		"removed": {func(t *testing.T, mem *vfs.Mem, a, _ *runlog.Run) {
			must(t, mem.Rename(a.Dir(), "/base/gone"))
		}, fs.ErrNotExist},
		"quarantined": {func(t *testing.T, mem *vfs.Mem, a, _ *runlog.Run) {
			must(t, manifest.WriteQuarantine(mem, a.Dir(), manifest.Quarantine{Reason: "seen on the medium", Offset: -1}))
		}, runlog.ErrQuarantined},
		"empty": {func(t *testing.T, mem *vfs.Mem, a, _ *runlog.Run) {
			must(t, mem.Rename(a.Dir(), "/base/gone"))
			must(t, mem.MkdirAll(a.Dir()))
		}, runlog.ErrNotRun},
		"another run": {func(t *testing.T, mem *vfs.Mem, a, b *runlog.Run) {
			must(t, mem.Rename(a.Dir(), "/base/gone"))
			must(t, mem.MkdirAll(a.Dir()))
			names := must1(mem.ReadDir(b.Dir()))
			for _, e := range names {
				data := must1(vfs.ReadFile(mem, b.Dir()+"/"+e.Name(), 1<<30))
				must(t, vfs.WriteFileAtomic(mem, a.Dir(), a.Dir()+"/"+e.Name(), data))
			}
		}, runlog.ErrCorrupt},
	}
	for name, c := range breaks {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				mem, a := killed(t, newMem(), 1)
				mem, b := killed(t, mem, 1)
				r := open(t, options(mem))
				c.harm(t, mem, a, b)
				wantBreak := func(err error) {
					t.Helper()
					wantIs(t, err, runlog.ErrParent, c.want)
					var p *runlog.ParentError
					if !errors.As(err, &p) || p.Run != a.ID() || p.Of != b.ID() || p.Dir != a.Dir() || !strings.Contains(err.Error(), a.ID()) {
						t.Fatalf("%#v, %v", p, err)
					}
				}
				list, err := r.Parents()
				wantBreak(err)
				want := 0
				if errors.Is(err, fs.ErrNotExist) { // retention removes runs: those in front are what there is
					want = 1
				}
				if again, err2 := r.Parents(); len(list) != want || len(again) != want || (err2 == nil) != (err == nil) {
					t.Fatalf("%d parents, then %d, %v", len(list), len(again), err2)
				}
				list, err = runlog.OpenParents(r.Dir(), runlog.ReaderOptions{FS: mem})
				wantBreak(err)
				if len(list) != 1 || list[0].Manifest().Run != b.ID() {
					t.Fatalf("%d parents in front of the break", len(list))
				}
				must(t, list[0].Close())
			})
		})
	}
}

func TestAChainThatGoesInACircleIsNoChain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, a := killed(t, newMem(), 1)
		mem, b := killed(t, mem, 1)
		closed(t, open(t, options(mem)))
		m, _, err := manifest.Read(mem, a.Dir())
		must(t, err)
		m.Parent = b.ID()
		raw := must1(manifest.Encode(m))
		must(t, vfs.WriteFileAtomic(mem, a.Dir(), a.Dir()+"/"+manifest.FileName, raw))
		list, err := runlog.OpenParents(b.Dir(), runlog.ReaderOptions{FS: mem})
		wantIs(t, err, runlog.ErrParent, runlog.ErrCorrupt)
		for _, p := range list {
			must(t, p.Close())
		}
	})
}

// To lift a quarantine, an operator removes the file: the next boot judges the run anew.
func TestTheNextBootJudgesARunAnewWhenItsQuarantineIsLifted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, bad := killed(t, newMem(), 3)
		whole := must1(vfs.ReadFile(mem, bad.Dir()+"/"+segmentOne, 1<<30))
		damage(t, mem, bad.ID())
		file := bad.Dir() + "/" + manifest.QuarantineName
		var first []byte
		for range 2 { // it is as damaged as before
			var r *runlog.Run
			mem, r = killed(t, mem, 0)
			wantParent(t, r, "")
			if p := predecessor(t, r, bad.ID()); p.Status != runlog.Quarantined || p.Err == nil {
				t.Fatalf("predecessor %+v", p)
			}
			q := must1(vfs.ReadFile(mem, file, 1<<20))
			if first == nil {
				first = q
			}
			d, err := manifest.DecodeQuarantine(file, q)
			must(t, err)
			if d.FirstSeq == 0 || d.LastSeq < d.FirstSeq || d.File != segmentOne {
				t.Fatalf("the verdict %+v names no seq or file", d)
			}
			must(t, mem.Remove(file))
		}
		must(t, vfs.WriteFileAtomic(mem, bad.Dir(), bad.Dir()+"/"+segmentOne, whole)) // back from a copy
		r := open(t, options(mem))
		wantParent(t, r, bad.ID())
		if p := predecessor(t, r, bad.ID()); p.Status != runlog.CrashedRecovered || p.Err != nil || !p.Recovered {
			t.Fatalf("predecessor %+v", p)
		}
	})
}

// A damaged verdict is a verdict.
func TestADamagedQuarantineFileStillQuarantines(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, r := killed(t, newMem(), 3)
		must(t, vfs.WriteFileAtomic(mem, r.Dir(), r.Dir()+"/"+manifest.QuarantineName, []byte("?")))
		next := open(t, options(mem))
		wantParent(t, next, "")
		if p := predecessor(t, next, r.ID()); p.Status != runlog.Quarantined || p.Err == nil {
			t.Fatalf("predecessor %+v", p)
		}
	})
}

// LC11, LC12: a program that opens again without having closed ends nothing by itself; one that closes does.
func TestLC11AProgramOpensOneRunAfterTheOther(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, last := newMem(), ""
		for range 3 {
			r := open(t, options(mem))
			_, err := runlog.Open(t.Context(), options(mem))
			wantIs(t, err, runlog.ErrLocked)
			wantParent(t, r, "")
			if r.ID() <= last {
				t.Fatalf("%s comes after %s", r.ID(), last)
			}
			closed(t, r)
			m, _, err := manifest.Read(mem, r.Dir())
			must(t, err)
			if m.Status != runlog.Ended || m.LastSeq != 2 || m.Ended == nil {
				t.Fatalf("manifest %+v", m)
			}
			last = r.ID()
		}
	})
}

func TestLC14ARunThatHaltedIsSealedByTheNextBootAndTellsWhy(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		r := open(t, options(mem))
		add(t, r, 2)
		release := hangSync(mem, 1)
		_, err := r.Append(t.Context(), order(3))
		wantIs(t, err, runlog.ErrHalted)
		release()
		wantIs(t, r.Close(context.Background()), runlog.ErrHalted)
		if m, _, err := manifest.Read(mem, r.Dir()); err != nil || m.Status != runlog.Running {
			t.Fatalf("a run that halted is %s, %v", m.Status, err)
		}
		next := open(t, options(mem))
		m, _, err := manifest.Read(mem, r.Dir())
		must(t, err)
		if m.Status != runlog.CrashedRecovered || m.Halt == nil || m.Halt.Reason != manifest.ReasonStall {
			t.Fatalf("manifest %+v", m)
		}
		wantParent(t, next, r.ID())
	})
}
