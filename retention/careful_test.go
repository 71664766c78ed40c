package retention_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/anchor"
	"github.com/runlog-io/runlog/replay"
	"github.com/runlog-io/runlog/retention"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// The newest anchors are written, and a power cut takes them with all that is not synced. What the restart then needs is
// still there.
func TestAnchorsThatAPowerCutCanTakeLetNothingGo(t *testing.T) {
	d := newDesk(t)
	d.o.Sync = runlog.SyncNever
	store, err := anchor.NewDirStore(d.mem, "/base/snapshots", nil)
	d.must(err)
	live, err := runlog.Open(t.Context(), d.o)
	d.must(err)
	snap := func(covers uint64) { // under SyncNever it is recorded, and the call says that it is not durable
		if _, err := live.Anchor(t.Context(), covers, store, bytes.NewReader([]byte("state"))); err == nil {
			t.Fatal("an anchor is durable under SyncNever")
		}
	}
	d.fill(live, 20)
	snap(5)
	snap(10)
	d.fill(live, 100)
	snap(90)
	snap(95)
	runs, err := retention.List(instance, retention.Options{FS: d.mem, Own: live.ID(), RestorePoints: retention.Anchors(t.Context(), store)})
	d.must(err)
	plan, err := retention.Policy{Anchored: true}.Plan(runs)
	d.must(err)
	_, err = retention.Apply(t.Context(), &plan, live)
	d.must(err)
	after := d.mem.Crash(vfs.LoseAll())
	d.o.FS = after
	next, err := runlog.Open(t.Context(), d.o)
	d.must(err)
	parents, err := next.Parents()
	d.must(err)
	left, err := anchor.NewDirStore(after, "/base/snapshots", nil)
	d.must(err)
	if _, err := replay.Prepare(t.Context(), parents, replay.Options{Store: left}); err != nil {
		t.Errorf("the state is lost: %v", err)
	}
}

func TestAnEngineStartsBehindARetentionThatHasRemovedItsAncestors(t *testing.T) {
	d := newDesk(t)
	first := d.open(60).ID()
	d.crash()
	second := d.open(60, 30, 50).ID()
	d.crash()
	live := d.open(0)
	plan, err := retention.Policy{Anchored: true}.Plan(d.list(live.ID()))
	d.must(err)
	_, err = retention.Apply(t.Context(), &plan, live)
	d.must(err)
	if slices.Contains(d.ids(), first) {
		t.Fatal("nothing was removed")
	}
	d.crash()
	next, err := runlog.Open(t.Context(), d.o)
	d.must(err)
	parents, err := next.Parents()
	wantIs(t, err, runlog.ErrParent)
	wantIs(t, err, fs.ErrNotExist)
	if len(parents) != 1 || parents[0].Manifest().Run != second {
		t.Fatalf("%d parents in front of what is gone", len(parents))
	}
}

// A run cannot be read for a moment, so nobody knows its parent. Each older run may be that.
func TestARunThatCannotBeReadForAMomentKeepsItsAncestors(t *testing.T) {
	d := newDesk(t)
	a := d.open(20).ID()
	d.crash()
	b := d.open(20).ID()
	d.crash()
	c := d.open(20).ID()
	d.crash()
	live := d.open(20, 10)
	fault := d.mem.Inject(vfs.Rule{Kind: vfs.OpOpen | vfs.OpStat, Name: "base/desk/" + c + "/*", Forever: true, Err: syscall.EMFILE})
	runs := d.list(live.ID())
	fault.Remove()
	plan, err := retention.Policy{Bounded: true}.Plan(runs)
	d.must(err)
	_, err = retention.Apply(t.Context(), &plan, live)
	d.must(err)
	for _, id := range []string{a, b} {
		if !slices.Contains(d.ids(), id) {
			t.Errorf("%s is gone, and the run behind it has one restore point only", id)
		}
	}
}

func TestARunBehindALinkIsSeenAndKept(t *testing.T) {
	dir := t.TempDir()
	o := runlog.Options{Dir: dir, Instance: "desk", Synchronous: true, SegmentBytes: 64 << 10, FirstSegmentBytes: 64 << 10}
	inst := filepath.Join(dir, "desk")
	var ids []string
	for range 3 {
		r, err := runlog.Open(t.Context(), o)
		if err == nil {
			_, err = r.Submit(runlog.Draft{Topic: "t", Type: "T", Payload: make([]byte, 100)})
		}
		if err == nil {
			err = r.Abandon(t.Context(), context.Canceled)
		}
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, r.ID())
	}
	moved := filepath.Join(t.TempDir(), ids[1])
	if err := os.Rename(filepath.Join(inst, ids[1]), moved); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(moved, filepath.Join(inst, ids[1])); err != nil {
		t.Fatal(err)
	}
	live, err := runlog.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close(context.Background())
	runs, err := retention.List(inst, retention.Options{Own: live.ID(), RestorePoints: func(r *wal.Reader) ([]retention.RestorePoint, error) {
		if r.Manifest().Run == ids[2] {
			return []retention.RestorePoint{{Seq: 2}}, nil // one: without it the restart goes back to the first run
		}
		return nil, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := retention.Policy{Bounded: true}.Plan(runs)
	if err != nil {
		t.Fatal(err)
	}
	seen := false
	for _, it := range plan.Items {
		seen = seen || it.Run == ids[1]
		if it.Remove {
			t.Errorf("%s goes: %+v", it.Run, it)
		}
	}
	if !seen {
		t.Error("the run behind the link is not in the plan")
	}
}

func TestCloseReturnsWithItsContextWhileARemovalHangs(t *testing.T) {
	mem := vfs.NewMem(vfs.MemOptions{})
	o := runlog.Options{Dir: "/base", Instance: "desk", FS: mem}
	for _, end := range []func(ctx context.Context, r *runlog.Run) error{
		func(ctx context.Context, r *runlog.Run) error { return r.Close(ctx) },
		func(ctx context.Context, r *runlog.Run) error { return r.Abandon(ctx, context.Canceled) },
	} {
		earlier, err := runlog.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if err := earlier.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		r, err := runlog.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		stall, hangs := make(chan struct{}), make(chan struct{}, 100)
		mem.SetHook(func(op vfs.Op) error {
			if op.Kind == vfs.OpRemove && filepath.Base(filepath.Dir(op.Name)) == ".removed-"+earlier.ID() {
				hangs <- struct{}{}
				<-stall
			}
			return nil
		})
		removed := make(chan error, 1)
		go func() { removed <- r.RemoveRun(earlier.ID()) }()
		<-hangs
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		ended := make(chan error, 1)
		go func() { ended <- end(ctx, r) }()
		select {
		case err := <-ended:
			wantIs(t, err, context.DeadlineExceeded)
		case <-time.After(2 * time.Minute):
			t.Fatal("it waits for the disk")
		}
		cancel()
		close(stall)
		if err := <-removed; err != nil {
			t.Error(err)
		}
		mem.SetHook(nil)
		for { // the instance is released in the background
			next, err := runlog.Open(t.Context(), o)
			if err == nil {
				_ = next.Close(context.Background())
				break
			}
			wantIs(t, err, runlog.ErrLocked)
			time.Sleep(time.Millisecond)
		}
	}
}

func wantIs(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}
