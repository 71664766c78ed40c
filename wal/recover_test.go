package wal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

// noUncached is a file system that cannot read past its cache.
type noUncached struct{ vfs.FS }

type noUncachedFile struct{ vfs.File }

func (noUncachedFile) ReadAtUncached([]byte, int64) (int, error) {
	return 0, vfs.ErrUncachedUnsupported
}

func (n noUncached) OpenRead(name string) (vfs.File, error) {
	f, err := n.FS.OpenRead(name)
	return noUncachedFile{f}, err
}

func TestAFailedSyncHaltsAndRecoveryTrustsTheDisk(t *testing.T) {
	for name, wrap := range map[string]func(m *vfs.Mem) vfs.FS{
		"uncached reads": func(m *vfs.Mem) vfs.FS { return m },
		"copy":           func(m *vfs.Mem) vfs.FS { return noUncached{m} },
	} {
		for _, landed := range []vfs.Chooser{vfs.LoseAll(), vfs.KeepAll(), vfs.Random(5)} {
			t.Run(name, func(t *testing.T) {
				g := newRig(t, func(o *Options) { o.Inline = false }).fill(20, 100)
				<-g.log.maker.done
				acked := len(g.want)
				g.mem.Inject(vfs.Rule{Kind: vfs.OpDatasync, Name: segment.FileName(1), Err: syscall.EIO, Landed: landed})
				g.must(g.add(draft(21, 3000), draft(22, 10)))
				if err := g.log.Sync(); !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), segment.FileName(1)) {
					t.Fatalf("sync: %v", err)
				}
				if err := g.log.Sync(); !errors.Is(err, syscall.EIO) {
					t.Fatalf("the second sync, which the kernel would let pass: %v", err)
				}
				if err := g.add(draft(23, 1)); !errors.Is(err, syscall.EIO) {
					t.Fatalf("append after it: %v", err)
				}
				if d := g.log.Durable().Load(); d != uint64(acked) {
					t.Fatalf("durable is %d", d)
				}
				h := manifest.Halt{Reason: manifest.ReasonIO, Message: "sync", Time: 7, Accepted: 22, Durable: uint64(acked)}
				g.must(g.log.Fail(h))
				mem := g.killed() // the page cache still shows what the disk may not have
				if r := openReader(t, mem); r.Manifest().Halt == nil || *r.Manifest().Halt != h {
					t.Errorf("the reader shows %+v", r.Manifest().Halt)
				}
				fsys := wrap(mem)
				rec := recovered(t, fsys)
				if rec.Manifest.Halt == nil || *rec.Manifest.Halt != h || rec.LastSeq < uint64(acked) {
					t.Fatalf("recovered %+v, halt %+v", rec, rec.Manifest.Halt)
				}
				if n := contents(t, mem, runDir, ".seg"); len(n) != 1 {
					t.Errorf("%d segments are left", len(n))
				}
				for what, after := range map[string]*vfs.Mem{"cut": mem.Crash(vfs.LoseAll()), "on": mem} {
					r := openReader(t, after)
					if n, end, wrong := prefix(r, g.want); uint64(n) != rec.LastSeq || end != nil || wrong != nil || len(r.Warnings()) > 0 {
						t.Errorf("power %s: %d entries, recovery said %d; %v, %v, %v", what, n, rec.LastSeq, end, wrong, r.Warnings())
					}
					if again := recovered(t, after); again.LastSeq != rec.LastSeq || again.Manifest.Halt == nil {
						t.Errorf("power %s: recovered again: %+v", what, again)
					}
				}
			})
		}
	}
}

func TestAHaltThatIsNoIOErrorIsRecordedInTheLog(t *testing.T) {
	g := newRig(t).fill(5, 50)
	h := manifest.Halt{Reason: manifest.ReasonStall, Stage: manifest.StageQueue, Time: 9, Accepted: 5, Durable: 5}
	g.must(g.log.Fail(h))
	mem := g.killed()
	if r := openReader(t, mem); r.Manifest().Halt == nil || *r.Manifest().Halt != h {
		t.Errorf("the reader shows %+v", r.Manifest().Halt)
	}
	rec := recovered(t, mem)
	if rec.LastSeq != 5 || rec.Manifest.Halt == nil || *rec.Manifest.Halt != h {
		t.Errorf("%+v, halt %+v", rec, rec.Manifest.Halt)
	}
}

func TestAFullDiskHaltsAndTheRunIsCleanAfterwards(t *testing.T) { // DB14
	for _, errno := range []error{syscall.ENOSPC, syscall.EFBIG, syscall.EIO} {
		for nth := 1; nth < 60; nth++ {
			for _, forever := range []bool{false, true} {
				g := newRig(t).fill(3, 500)
				g.mem.Inject(vfs.Rule{Kind: vfs.OpChange, Name: "*.seg", Nth: nth, Err: errno, Short: 100, Forever: forever})
				var err error
				for i := 0; err == nil && i < 90; i++ {
					if err = g.add(draft(uint64(len(g.want)+1), 1500)); err == nil {
						err = g.log.Sync()
					}
				}
				if err == nil {
					t.Fatalf("operation %d failed and nobody noticed", nth)
				}
				if !errors.Is(err, errno) || g.log.Sync() == nil || g.add(draft(1, 1)) == nil {
					t.Fatalf("operation %d: %v", nth, err)
				}
				acked := g.log.Durable().Load()
				_ = g.log.Fail(manifest.Halt{Reason: manifest.ReasonDiskFull, Accepted: uint64(len(g.want)), Durable: acked})
				for _, after := range []*vfs.Mem{g.mem.Kill(), g.mem.Crash(vfs.LoseAll()), g.mem.Crash(vfs.Random(uint64(nth)))} {
					rec := recovered(t, after)
					r := openReader(t, after)
					n, end, wrong := prefix(r, g.want)
					if rec.Status != manifest.CrashedRecovered || uint64(n) < acked || uint64(n) != rec.LastSeq || end != nil || wrong != nil {
						t.Fatalf("%v at operation %d: %d entries of %d acknowledged, %v, %v, %+v", errno, nth, n, acked, end, wrong, rec)
					}
				}
				g.log.Abandon()
			}
		}
	}
}

// wrecks are runs as a crash can leave them.
var wrecks = map[string]func(t *testing.T) (*rig, *vfs.Mem){
	"torn tail": func(t *testing.T) (*rig, *vfs.Mem) {
		g := newRig(t).fill(40, 2000)
		g.must(g.add(draft(41, 6000)))
		g.must(g.add(draft(42, 9000)))
		g.log.Abandon()
		return g, g.mem.Crash(vfs.Random(4))
	},
	"short torn tail": func(t *testing.T) (*rig, *vfs.Mem) {
		g := newRig(t).fill(4, 20)
		mem := g.killed()
		end := g.log.active.end.Load()
		poke(t, mem, segment.FileName(1), end+3, 9)
		poke(t, mem, segment.FileName(1), end+90, 9)
		return g, mem
	},
	"killed": func(t *testing.T) (*rig, *vfs.Mem) {
		g := newRig(t).fill(60, 3000)
		return g, g.killed()
	},
	"rotated": func(t *testing.T) (*rig, *vfs.Mem) {
		g := newRig(t).fill(30, 3000)
		g.must(g.log.rotate())
		return g, g.killed()
	},
	"halted": func(t *testing.T) (*rig, *vfs.Mem) {
		g := newRig(t, func(o *Options) { o.Inline = false }).fill(4, 300)
		<-g.log.maker.done
		g.mem.Inject(vfs.Rule{Kind: vfs.OpWrite, Name: segment.FileName(1), Err: syscall.EIO})
		if err := g.add(draft(5, 10)); err == nil {
			t.Fatal("the write did not fail")
		}
		g.must(g.log.Fail(manifest.Halt{Reason: manifest.ReasonIO, Accepted: 5, Durable: 4}))
		return g, g.killed()
	},
	"lying cache": func(t *testing.T) (*rig, *vfs.Mem) {
		g := newRig(t).fill(4, 300)
		g.mem.Inject(vfs.Rule{Kind: vfs.OpDatasync, Name: segment.FileName(1), Err: syscall.EIO, Landed: vfs.LoseAll()})
		g.must(g.add(draft(5, 2000)))
		if err := g.log.Sync(); err == nil {
			t.Fatal("the sync did not fail")
		}
		return g, g.killed()
	},
	"closing": func(t *testing.T) (*rig, *vfs.Mem) {
		g := newRig(t).fill(30, 3000)
		var left *vfs.Mem
		g.mem.SetHook(func(op vfs.Op) error {
			if left == nil && op.Kind == vfs.OpTruncate {
				left = g.mem.Kill()
			}
			return nil
		})
		g.sealed()
		return g, left
	},
}

func brief(r Recovery) string {
	return fmt.Sprintf("%s at seq %d, %d bytes dropped, damage %v", r.Status, r.LastSeq, r.DroppedBytes, r.Damage)
}

func TestACrashInsideRecoveryAtEveryOperationChangesNothing(t *testing.T) {
	for name, wreck := range wrecks {
		for _, uncached := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				g, mem := wreck(t)
				fsys := func(m *vfs.Mem) vfs.FS {
					if uncached {
						return m
					}
					return noUncached{m}
				}
				calm := mem.Kill()
				want := recovered(t, fsys(calm))
				if n, end, wrong := prefix(openReader(t, calm), g.want); uint64(n) != want.LastSeq || end != nil || wrong != nil {
					t.Fatalf("%d entries, %v, %v, %+v", n, end, wrong, want)
				}
				if again := recovered(t, fsys(calm)); brief(again) != brief(want) {
					t.Fatalf("again %s, first %s", brief(again), brief(want))
				}
				cases := 0
				run := mem.Kill()
				run.SetHook(func(op vfs.Op) error {
					if op.Kind&vfs.OpChange == 0 {
						return nil
					}
					for i, left := range []*vfs.Mem{
						run.Kill(), run.Crash(vfs.LoseAll()), run.Crash(vfs.Random(uint64(op.N))), run.Crash(vfs.Scramble()),
					} {
						cases++
						got, err := Recover(fsys(left), runDir, 2)
						if err != nil || got.Status != want.Status || got.LastSeq > want.LastSeq || got.LastSeq < g.log.durable.Load() {
							t.Errorf("operation %d (%v), crash %d: %v, %v, want %v", op.N, op.Kind, i, brief(got), err, brief(want))
							continue
						}
						if i == 0 && (got.LastSeq != want.LastSeq || got.DroppedBytes != want.DroppedBytes && uncached && name != "lying cache") {
							t.Errorf("operation %d (%v), killed: %v, want %v", op.N, op.Kind, brief(got), brief(want))
						}
						if (got.Manifest.Halt == nil) != (want.Manifest.Halt == nil) {
							t.Errorf("operation %d (%v), crash %d: halt %v, want %v", op.N, op.Kind, i, got.Manifest.Halt, want.Manifest.Halt)
						}
						r, err := OpenReader(left.Crash(vfs.LoseAll()), runDir)
						if err != nil {
							t.Fatal(err)
						}
						n, end, wrong := prefix(r, g.want)
						if uint64(n) != got.LastSeq || end != nil || wrong != nil || len(r.Warnings()) > 0 {
							t.Errorf("operation %d (%v), crash %d: %d entries, %v, %v, %v", op.N, op.Kind, i, n, end, wrong, r.Warnings())
						}
						_ = r.Close()
					}
					return nil
				})
				recovered(t, fsys(run))
				if cases < 12 {
					t.Errorf("only %d crashes", cases)
				}
			})
		}
	}
}

func TestRecoveryThatFailsAtAnyOperationCanBeTriedAgain(t *testing.T) {
	for name, wreck := range wrecks {
		g, mem := wreck(t)
		want := recovered(t, mem.Kill())
		for nth := 1; nth < 400; nth++ {
			m := mem.Kill()
			in := m.Inject(vfs.Rule{Nth: nth, Err: syscall.EIO})
			_, err := Recover(m, runDir, 1)
			hit := in.Hits() > 0
			in.Remove()
			for _, left := range []*vfs.Mem{m.Kill(), m.Crash(vfs.Random(uint64(nth)))} {
				got, err2 := Recover(left, runDir, 2)
				if err2 != nil || got.Status != want.Status || got.LastSeq < g.log.durable.Load() || got.LastSeq > uint64(len(g.want)) {
					t.Fatalf("%s: operation %d failed (%v), then: %v, %v, want %v", name, nth, err, brief(got), err2, brief(want))
				}
				r, err := OpenReader(left, runDir)
				if err != nil {
					t.Fatal(err)
				}
				if n, end, wrong := prefix(r, g.want); uint64(n) != got.LastSeq || end != nil || wrong != nil {
					t.Fatalf("%s: operation %d: %d entries, %v, %v", name, nth, n, end, wrong)
				}
				_ = r.Close()
			}
			if !hit {
				break
			}
		}
	}
}

func TestADamagedOldSegmentQuarantinesAndChangesNothing(t *testing.T) {
	g := newRig(t).fill(60, 3000)
	mem := g.killed()
	poke(t, mem, segment.FileName(2), 40, 1) // its header
	before := contents(t, mem, runDir, ".seg")
	rec := recovered(t, mem)
	if rec.Status != manifest.Quarantined || !errors.Is(rec.Damage, format.ErrCorrupt) || !located(rec.Damage) {
		t.Fatalf("%+v", rec)
	}
	if !maps.Equal(before, contents(t, mem, runDir, ".seg")) {
		t.Error("a segment was changed")
	}
	again := recovered(t, mem)
	if again.Status != manifest.Quarantined || !errors.Is(again.Damage, format.ErrQuarantined) {
		t.Errorf("again: %+v", again)
	}
	if r := openReader(t, mem); r.Status() != manifest.Quarantined {
		t.Errorf("the reader says %s", r.Status())
	}
}

func TestADetachedHaltRecordNamesTheLastSyncedCommit(t *testing.T) {
	g := newRig(t, func(o *Options) { o.Inline = false }).fill(20, 100)
	<-g.log.maker.done
	want := openReader(t, g.mem).ext.chain
	g.mem.Inject(vfs.Rule{Kind: vfs.OpDatasync, Name: segment.FileName(1), Err: syscall.EIO})
	g.must(g.add(draft(21, 10)))
	if err := g.log.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("sync: %v", err)
	}
	g.must(g.log.Fail(manifest.Halt{Reason: manifest.ReasonIO}))
	b := []byte(contents(t, g.mem, runDir)[segment.FileName(2)])
	h, err := segment.ReadHeader(bytes.NewReader(b), segment.FileName(2))
	g.must(err)
	s, ok := segment.DecodeStart(b[h.Size:], h.Salt, h.Size)
	if !ok || !s.Detached || s.Prev.Ordinal != want.Ordinal || s.Prev.Seq != 20 || s.Prev.Value != want.Value || want.Value == 0 {
		t.Errorf("the halt record follows %+v, want %+v", s.Prev, want)
	}
	g.log.Abandon()
}

// Under SyncNever nothing proves any commit, so that all of a segment is in doubt.
func TestATailInDoubtIsReadFromTheDiskInPieces(t *testing.T) {
	g := newRig(t, func(o *Options) { o.NoSync, o.SegmentBytes, o.FirstBytes = true, 16<<20, 16<<20 })
	for len(g.want) < 5000 {
		g.must(g.add(draft(uint64(len(g.want)+1), 1000), draft(uint64(len(g.want)+2), 1000)))
	}
	mem := g.killed()
	var total, largest int64
	mem.SetHook(func(op vfs.Op) error {
		if op.Kind == vfs.OpReadUncached {
			total, largest = total+op.Len, max(largest, op.Len)
		}
		return nil
	})
	rec := recovered(t, mem)
	mem.SetHook(nil)
	if rec.LastSeq != 5000 || total < 5<<20 || largest > windowSize {
		t.Errorf("seq %d; %d bytes were read past the cache, at most %d at once", rec.LastSeq, total, largest)
	}
	whole(t, openReader(t, mem), g.want)
}

// Only what is lost is made again: a manifest that cannot be opened for now knows things that nothing else does.
func TestAManifestThatCannotBeOpenedNowIsNotRebuilt(t *testing.T) {
	mem := newRig(t).fill(5, 50).killed()
	before := contents(t, mem, runDir)
	fault := mem.Inject(vfs.Rule{Kind: vfs.OpOpen, Name: manifest.FileName, Err: syscall.EMFILE})
	if rec, err := Recover(mem, runDir, 1); !errors.Is(err, syscall.EMFILE) || fault.Hits() != 1 {
		t.Fatalf("recovered %+v, %v", rec, err)
	}
	if !maps.Equal(before, contents(t, mem, runDir)) {
		t.Error("something was written")
	}
	recovered(t, mem)
}

func TestCreateReplacesNoSegment(t *testing.T) {
	g := newRig(t).fill(5, 50)
	before := contents(t, g.mem, runDir)
	if _, err := Create(g.o); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), segment.FileName(1)) {
		t.Errorf("a second run in the same folder: %v", err)
	}
	if !maps.Equal(before, contents(t, g.mem, runDir)) {
		t.Error("something was written")
	}
	g.log.Abandon()
}

// Nobody has synced a segment that is sealed under SyncNever. A footer that reached the disk before its content would vouch
// for what a power cut has taken.
func TestAPowerCutWhileSealingUnsyncedSegmentsIsNoDamage(t *testing.T) {
	var tasks []func()
	g := newRig(t, func(o *Options) {
		o.NoSync, o.Inline = true, false
		o.Background = func(f func()) { tasks = append(tasks, f) }
	})
	for i := range 60 {
		g.must(g.add(draft(uint64(i+1), 2000)))
	}
	syncs := 0
	g.mem.SetHook(func(op vfs.Op) error {
		if op.Kind != vfs.OpDatasync || filepath.Base(op.Name) != segment.FileName(1) {
			return nil
		}
		syncs++
		left := g.mem.Crash(func(c vfs.Choice) int {
			if filepath.Base(c.Name) == segment.FileName(1) && c.Kind == vfs.SectorChoice && c.Sector >= 40 && c.Sector < 60 {
				return 0
			}
			return c.Newest
		})
		if rec := recovered(t, left); rec.Damage != nil {
			t.Errorf("sync %d of the segment: %v", syncs, rec.Damage)
		}
		return nil
	})
	for len(tasks) > 0 {
		f := tasks[0]
		tasks = tasks[1:]
		f()
	}
	if g.mem.SetHook(nil); syncs < 2 {
		t.Fatalf("%d syncs", syncs)
	}
	g.log.Abandon()
}
