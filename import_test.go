package runlog_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

func TestAnImportAppearsOnlyWhenItIsFinished(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		im := must1(runlog.NewImport(options(mem)))
		must(t, im.DeclareKind("desk"))
		d := order(1)
		d.Keys = append(d.Keys, runlog.Key{Kind: "desk", Value: "fx"})
		for ts := int64(1); ts <= 500; ts++ {
			d.TsPublish = ts
			must(t, im.Add(d))
		}
		if list, err := runlog.List("/base", runlog.ReaderOptions{FS: mem}); err == nil {
			t.Fatalf("an unfinished import is listed: %+v", list)
		}
		dir, err := im.Finish(t.Context())
		must(t, err)
		rd := must1(runlog.OpenReader(dir, runlog.ReaderOptions{FS: mem.Crash(vfs.LoseAll())}))
		defer rd.Close()
		if m := rd.Manifest(); m.Status != runlog.Ended || m.Origin != manifest.OriginImport || rd.LastSeq() != 502 {
			t.Fatalf("manifest %+v", m)
		}
		for v, err := range rd.Scan(runlog.ScanOptions{From: 2, To: 501}) {
			must(t, err)
			if v.TsPublish() != int64(v.Seq())-1 {
				t.Fatalf("seq %d was published at %d", v.Seq(), v.TsPublish())
			}
		}
		if seq, ok, err := rd.Lookup("desk", "fx"); seq != 2 || !ok || err != nil {
			t.Fatalf("the key finds %d, %v, %v", seq, ok, err)
		}
		wantOnly(t, mem, dir)
	})
}

// wantOnly checks that the instance's folder holds these runs and nothing else but the lock.
func wantOnly(t *testing.T, mem *vfs.Mem, dirs ...string) {
	t.Helper()
	list, err := mem.ReadDir(home)
	must(t, err)
	n := 0
	for _, e := range list {
		if e.Name() != manifest.LockName {
			n++
		}
	}
	if n != len(dirs) {
		t.Fatalf("the folder holds %v, want %v", list, dirs)
	}
	for _, dir := range dirs {
		if _, err := mem.Stat(dir); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnAbortedImportLeavesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		im := must1(runlog.NewImport(options(mem)))
		for range 1000 {
			must(t, im.Add(order(1)))
		}
		must(t, im.Abort())
		wantOnly(t, mem)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		im = must1(runlog.NewImport(options(mem)))
		must(t, im.Add(order(1)))
		if _, err := im.Finish(ctx); err != nil {
			wantOnly(t, mem)
		}
	})
}

func TestAnImportThatDiedIsRemovedByTheNext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		im := must1(runlog.NewImport(options(mem)))
		must(t, im.Add(order(1)))
		after := mem.Kill()
		must(t, im.Abort())
		atWork := must1(runlog.NewImport(options(after)))
		must(t, must1(runlog.NewImport(options(after))).Abort()) // leaves the one at work alone
		must(t, atWork.Add(order(1)))
		wantOnly(t, after, must1(atWork.Finish(t.Context())))
	})
}

func TestAnImportsPublishTimesMustIncrease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		im := must1(runlog.NewImport(options(mem)))
		d := order(1)
		for _, ts := range []int64{100, 200} {
			d.TsPublish = ts
			must(t, im.Add(d))
		}
		for _, ts := range []int64{200, 150, -1} {
			d.TsPublish = ts
			wantIs(t, im.Add(d), runlog.ErrInvalid)
		}
		d.TsPublish = 0 // stamped
		must(t, im.Add(d))
		dir := must1(im.Finish(t.Context()))
		rd := must1(runlog.OpenReader(dir, runlog.ReaderOptions{FS: mem}))
		defer rd.Close()
		if rd.LastSeq() != 5 {
			t.Fatalf("%d entries", rd.LastSeq())
		}
	})
}

func TestABadFirstDraftLeavesTheImportUsable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		im := must1(runlog.NewImport(options(newMem())))
		wantIs(t, im.Add(runlog.Draft{Type: "t", TsPublish: 1e18}), runlog.ErrInvalid)
		d := order(1)
		d.TsPublish = 5
		must(t, im.Add(d))
		must1(im.Finish(t.Context()))
	})
}

func TestAnEmptyImportIsARunToo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		dir := must1(must1(runlog.NewImport(options(mem))).Finish(t.Context()))
		rd := must1(runlog.OpenReader(dir, runlog.ReaderOptions{FS: mem}))
		defer rd.Close()
		if rd.LastSeq() != 2 || rd.Status() != runlog.Ended {
			t.Fatalf("%d entries, %s", rd.LastSeq(), rd.Status())
		}
	})
}

func TestAnImportWorksBesideALiveRunAndIsNobodysParent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		live := open(t, options(mem))
		add(t, live, 2)
		im := must1(runlog.NewImport(options(mem)))
		must(t, im.Add(order(1)))
		add(t, live, 2)
		dir := must1(im.Finish(t.Context()))
		add(t, live, 2)
		after := mem.Kill()
		next := open(t, options(after))
		wantParent(t, next, live.ID())
		wantOnly(t, after, dir, live.Dir(), next.Dir())
		p := predecessor(t, next, strings.TrimPrefix(dir, home+"/"))
		if p.Status != runlog.Ended || p.Recovered || p.Origin != manifest.OriginImport {
			t.Fatalf("predecessor %+v", p)
		}
	})
}

// G: no half-made run that looks finished, whatever fails.
func TestAnImportThatFailsLeavesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for n := 1; n < 300; n++ {
			mem := newMem()
			fault := mem.Inject(vfs.Rule{Kind: vfs.OpChange &^ vfs.OpRemove, Nth: n, Err: syscall.ENOSPC})
			im, err := runlog.NewImport(options(mem))
			if err == nil {
				if err = im.Add(order(1)); err == nil {
					_, err = im.Finish(t.Context())
				} else {
					_ = im.Abort()
				}
			}
			fault.Remove()
			if fault.Hits() == 0 {
				must(t, err)
				return
			}
			list, lerr := runlog.List("/base", runlog.ReaderOptions{FS: mem})
			if err == nil { // it did not matter
				if lerr != nil || len(list) != 1 || list[0].Status != runlog.Ended {
					t.Fatalf("operation %d failed: listed %+v, %v", n, list, lerr)
				}
				continue
			}
			if len(list) > 0 && (list[0].Status != runlog.Ended || !strings.Contains(err.Error(), "sync")) {
				t.Fatalf("operation %d failed: %v, yet %+v is there", n, err, list[0])
			}
		}
		t.Fatal("the import never gets to its end")
	})
}

// Notes that come before the first entry wait for it, since RunStarted takes its time from it.
func TestAnImportsNotesStandWhereTheyWereAdded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		im := must1(runlog.NewImport(options(mem)))
		wantIs(t, im.Note(entry.NoteGap+1, nil), runlog.ErrInvalid)
		body := []byte("before")
		must(t, im.Note(entry.NoteAnchor, body))
		body[0] = 'x'
		d := order(1)
		d.TsPublish = 1000
		must(t, im.Add(d))
		must(t, im.Note(entry.NoteMarker, []byte("behind")))
		wantIs(t, im.Note(entry.NoteAnchor, make([]byte, entry.MaxNote+1)), runlog.ErrInvalid)
		rd := must1(runlog.OpenReader(must1(im.Finish(t.Context())), runlog.ReaderOptions{FS: mem}))
		defer rd.Close()
		var got []string
		for n, err := range rd.Notes(wal.NoteOptions{}) {
			must(t, err)
			got = append(got, fmt.Sprintf("%s %d %s", n.Kind, n.After, n.Body))
		}
		if want := []string{"anchor 1 before", "marker 2 behind"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
