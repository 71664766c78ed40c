package replay_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/anchor"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/replay"
	"github.com/runlog-io/runlog/vfs"
)

// RP12, RP25, LC22: the snapshot first, then what is behind it, and nothing else.
func TestReplayBeginsBehindTheNewestAnchor(t *testing.T) {
	w := newWorld(t)
	w.pay(5)
	w.anchor()
	w.pay(2)
	a := w.anchor()
	w.pay(1)
	parent := w.run.ID()
	w.kill()
	l, rep, err := w.restore(replay.Options{})
	must(t, err)
	w.wantSame(l)
	if !slices.Equal(l.restores, []uint64{a.Covers}) || rep.Applied != 1 || rep.Entries != 1 || len(rep.Ignored) != 0 || *rep.Plan.Anchor != a {
		t.Fatalf("restored %v, report %+v", l.restores, rep)
	}
	if rp := rep.Plan.Runs; len(rp) != 1 || rp[0].Run != parent || rp[0].From != a.Covers+1 || rp[0].To != 9 || rep.Plan.Total != 1 {
		t.Fatalf("the plan is %+v", rep.Plan)
	}
	if rep.Cursor != (replay.Cursor{Run: parent, Seq: 9}) || w.run.Manifest().Parent != parent {
		t.Fatalf("the state is that of %v", rep.Cursor)
	}
}

// RP13.
func TestAnAnchorAtTheEndLeavesNothingToApply(t *testing.T) {
	w := newWorld(t)
	w.pay(4)
	a := w.anchor()
	w.kill()
	l, rep, err := w.restore(replay.Options{})
	must(t, err)
	w.wantSame(l)
	if rep.Entries != 0 || rep.Plan.Total != 0 || rep.Cursor.Seq != a.Covers || rep.MinInit != 0 {
		t.Fatalf("%+v", rep)
	}
}

// RP14: and nothing is published: replay has nothing to publish with.
func TestWithoutAnAnchorReplayBeginsWithTheFirstEntry(t *testing.T) {
	w := newWorld(t)
	w.pay(4)
	w.kill()
	durable := w.run.Accepted()
	l, rep, err := w.restore(replay.Options{})
	must(t, err)
	w.wantSame(l)
	if rep.Plan.Anchor != nil || !slices.Equal(l.restores, []uint64{0}) || rep.Applied != 4 || rep.Lifecycle != 1 || rep.Plan.Runs[0].From != 1 {
		t.Fatalf("%+v", rep)
	}
	if w.run.Accepted() != durable {
		t.Fatal("replay has logged something")
	}
	l, rep, err = w.restore(replay.Options{RequireAnchor: true})
	wantIs(t, err, replay.ErrNoAnchor)
	if len(l.restores) != 0 || rep.Entries != 0 {
		t.Fatal("the state was touched")
	}
}

func TestAFirstStartReplaysNothing(t *testing.T) {
	w := newWorld(t)
	l, rep, err := w.restore(replay.Options{})
	must(t, err)
	if !slices.Equal(l.restores, []uint64{0}) || rep.Entries != 0 {
		t.Fatalf("%v, %+v", l.restores, rep)
	}
	_, _, err = w.restore(replay.Options{Resume: replay.Cursor{Run: "x", Seq: 1}})
	wantIs(t, err, replay.ErrCursor)
}

// G15, LC24, RP26: a blob that is lost or altered costs a longer replay; when none is left, everything is replayed, or
// nothing is done if that was asked for. Nothing on the disk changes.
func TestALostOrAlteredBlobFallsBackToTheAnchorBefore(t *testing.T) {
	w := newWorld(t)
	var as []runlog.Anchor
	for range 3 {
		w.pay(4)
		as = append(as, w.anchor())
	}
	w.pay(1)
	w.kill()
	must(t, w.store.Delete(t.Context(), as[2].Ref))
	w.flip(as[1].Ref)
	l, rep, err := w.restore(replay.Options{})
	must(t, err)
	w.wantSame(l)
	if p := rep.Plan; *p.Anchor != as[0] || len(p.Passed) != 2 || p.Passed[0].Anchor != as[2] || !errors.Is(p.Passed[0].Err, fs.ErrNotExist) ||
		p.Passed[1].Anchor != as[1] || !errors.Is(p.Passed[1].Err, anchor.ErrBlob) {
		t.Fatalf("%+v", p)
	}
	w.flip(as[0].Ref)
	before := w.mem.Used()
	_, _, err = w.restore(replay.Options{RequireAnchor: true})
	wantIs(t, err, replay.ErrNoAnchor)
	if w.mem.Used() != before || w.run.Manifest().Parent == "" {
		t.Fatal("the refused replay has changed something")
	}
	l, rep, err = w.restore(replay.Options{})
	must(t, err)
	w.wantSame(l)
	if rep.Plan.Anchor != nil || len(rep.Plan.Passed) != 3 {
		t.Fatalf("%+v", rep.Plan)
	}
}

// LC24: an engine that refuses to start without a snapshot gives up its run, and the next start finds the same chain.
func TestTheRefusedReplayLeavesTheParentToTheNextStart(t *testing.T) {
	w := newWorld(t)
	w.pay(4)
	a := w.anchor()
	w.kill()
	must(t, w.store.Delete(t.Context(), a.Ref))
	for range 3 {
		_, _, err := w.restore(replay.Options{RequireAnchor: true})
		wantIs(t, err, replay.ErrNoAnchor)
		must(t, w.run.Abandon(t.Context(), err))
		w.boot()
		if got := w.run.Manifest().Parent; got != w.ids[0] {
			t.Fatalf("the parent is %q, want %q", got, w.ids[0])
		}
	}
	l, _, err := w.restore(replay.Options{})
	must(t, err)
	w.wantSame(l)
}

// LC23: any store will do.
func TestTheBlobMayBeInAnotherDatabase(t *testing.T) {
	w := newWorld(t)
	w.pay(4)
	store := mapStore{}
	_, err := w.run.Anchor(t.Context(), w.run.Accepted(), store, bytesOf(w.live))
	must(t, err)
	w.pay(2)
	w.kill()
	l, rep, err := w.restore(replay.Options{Store: store})
	must(t, err)
	w.wantSame(l)
	if rep.Plan.Anchor == nil || rep.Applied != 2 {
		t.Fatalf("%+v", rep)
	}
	l, rep, err = w.restore(replay.Options{Store: failingStore{store}}) // a database that does not answer
	must(t, err)
	w.wantSame(l)
	if rep.Plan.Anchor != nil || !errors.Is(rep.Plan.Passed[0].Err, errDown) {
		t.Fatalf("%+v", rep.Plan)
	}
}

// G13, G14: runs without state of their own hide nothing, and the chain is walked back to the run with the anchor.
func TestAChainIsReplayedFromTheRunWithTheAnchor(t *testing.T) {
	w := newWorld(t)
	w.pay(5)
	w.kill()
	w.pay(3)
	a := w.anchor()
	w.pay(2)
	w.kill()
	w.kill() // crashed before it held anything: the next one skips it
	w.pay(4)
	w.kill()
	chain := w.parents()
	if len(chain) != 3 {
		t.Fatalf("a chain of %d", len(chain))
	}
	l, rep, err := w.restore(replay.Options{})
	must(t, err)
	w.wantSame(l)
	if want := []string{w.ids[1], w.ids[3]}; !slices.Equal(l.runs, want) || *rep.Plan.Anchor != a || rep.Applied != 6 {
		t.Fatalf("replayed %v, want %v: %+v", l.runs, want, rep)
	}
	must(t, w.store.Delete(t.Context(), a.Ref))
	l, rep, err = w.restore(replay.Options{})
	must(t, err)
	w.wantSame(l)
	if want := []string{w.ids[0], w.ids[1], w.ids[3]}; !slices.Equal(l.runs, want) || rep.Applied != 14 || rep.Lifecycle != 3 {
		t.Fatalf("replayed %v, want %v: %+v", l.runs, want, rep)
	}
}

// LC25, LC26: whatever run is named can be replayed, whichever one a boot would choose.
func TestAnySealedRunCanBeReplayed(t *testing.T) {
	w := newWorld(t)
	w.pay(3)
	w.anchor()
	w.pay(3)
	must(t, w.run.Close(t.Context())) // ended: nobody's parent
	ended := w.run.ID()
	w.boot()
	w.put("Open", "bob 1")
	w.kill() // crashed: the parent of the next
	chain, err := replay.OpenChain(w.mem, home+"/"+ended)
	must(t, err)
	defer replay.Close(chain)
	l := newLedger()
	rep, err := replay.Restore(t.Context(), chain, l, replay.Options{Store: w.store})
	must(t, err)
	if l.balances["alice"] != 100+1+2+1+2+3 || rep.Applied != 3 || len(l.balances) != 1 {
		t.Fatalf("%v, %+v", l.balances, rep)
	}
	if p := w.run.Predecessors(); len(p) != 2 || p[1].Status != runlog.CrashedRecovered || w.run.Manifest().Parent != p[1].Run {
		t.Fatalf("%+v", p)
	}
	// LC27: one that is not there.
	_, err = replay.OpenChain(w.mem, home+"/20200101T000000.000000000Z-00000000")
	wantIs(t, err, fs.ErrNotExist)
}

// RP27, LC28: state is not built on a run that is still being written, nor on one that is damaged.
func TestRunsThatAreNotSealedOrQuarantinedAreRefused(t *testing.T) {
	w := newWorld(t)
	w.pay(3)
	live := []*runlog.Reader{w.run.Reader()}
	l := newLedger()
	_, err := replay.Restore(t.Context(), live, l, replay.Options{Store: w.store})
	wantIs(t, err, replay.ErrNotSealed)
	rep, err := replay.Restore(t.Context(), live, l, replay.Options{Store: w.store, AllowUnsealed: true})
	must(t, err)
	w.wantSame(l)
	if rep.Applied != 3 {
		t.Fatalf("%+v", rep)
	}
	damaged := w.run.ID()
	left := w.mem.Kill()
	flipPayload(t, left, home+"/"+damaged+"/00000001.seg", "alice 1")
	w.on(left)
	if w.run.Manifest().Parent != "" {
		t.Fatal("the damaged run has become the parent")
	}
	chain, err := replay.OpenChain(left, home+"/"+damaged)
	must(t, err)
	defer replay.Close(chain)
	l = newLedger()
	_, err = replay.Restore(t.Context(), chain, l, replay.Options{Store: w.store})
	wantIs(t, err, runlog.ErrQuarantined)
	if len(l.restores) != 0 {
		t.Fatal("the state was touched")
	}
	rep, err = replay.Restore(t.Context(), chain, l, replay.Options{Store: w.store, AllowQuarantined: true})
	wantIs(t, err, runlog.ErrCorrupt)
	if rep.Cursor.Seq >= 4 {
		t.Fatalf("it has come to %v", rep.Cursor)
	}
}

func TestAChainThatDoesNotGoBackFarEnoughIsRefused(t *testing.T) {
	w := newWorld(t)
	w.pay(3)
	w.kill()
	w.pay(3)
	w.kill()
	l := newLedger()
	_, err := replay.Restore(t.Context(), w.parents()[:1], l, replay.Options{Store: w.store})
	var at *replay.ChainError
	if wantIs(t, err, replay.ErrIncomplete); !errors.As(err, &at) || at.Run != w.ids[1] || len(l.restores) != 0 {
		t.Fatalf("%v, %+v", err, at)
	}
	backwards := slices.Clone(w.parents())
	slices.Reverse(backwards)
	_, err = replay.Restore(t.Context(), backwards, l, replay.Options{Store: w.store})
	wantIs(t, err, replay.ErrChain)
}

// Runs that retention has removed are not missed, as long as an anchor makes up for them.
func TestAChainMayEndBehindTheAnchor(t *testing.T) {
	w := newWorld(t)
	w.pay(3)
	w.kill()
	w.pay(3)
	a := w.anchor()
	w.kill()
	old := home + "/" + w.ids[0]
	names, err := w.mem.ReadDir(old)
	must(t, err)
	for _, e := range names {
		must(t, w.mem.Remove(old+"/"+e.Name()))
	}
	must(t, w.mem.Remove(old))
	chain, err := replay.OpenChain(w.mem, home+"/"+w.ids[1])
	must(t, err)
	defer replay.Close(chain)
	l := newLedger()
	_, err = replay.Restore(t.Context(), chain, l, replay.Options{Store: w.store})
	must(t, err)
	w.wantSame(l)
	must(t, w.store.Delete(t.Context(), a.Ref))
	_, err = replay.Restore(t.Context(), chain, l, replay.Options{Store: w.store})
	wantIs(t, err, replay.ErrIncomplete)
}

// G64: wherever a replay was stopped, going on from its cursor gives the same state as never having stopped.
func TestAReplayGoesOnFromItsCursor(t *testing.T) {
	w := newWorld(t)
	w.pay(6)
	w.anchor()
	w.pay(3)
	w.kill()
	w.pay(5)
	w.kill()
	whole := 0
	for n := range 20 {
		l := newLedger()
		ctx, stop := context.WithCancel(t.Context())
		left := n
		o := replay.Options{Store: w.store, Filter: func(*entry.View) bool {
			left--
			return true
		}, OnError: func(*replay.EntryError) bool { return false }}
		stopper := &stopping{ledger: l, left: &left}
		rep, err := replay.Restore(ctx, w.parents(), stopper, o)
		stop()
		if err == nil {
			whole++
			w.wantSame(l)
			continue
		}
		wantIs(t, err, errStop)
		rest, err := replay.Restore(t.Context(), w.parents(), l, replay.Options{Store: w.store, Resume: rep.Cursor})
		must(t, err)
		w.wantSame(l)
		if rep.Applied+rest.Applied != 8 || len(l.restores) != 1 {
			t.Fatalf("stopped after %d: %d and %d applied, restored %v", n, rep.Applied, rest.Applied, l.restores)
		}
	}
	if whole == 0 || whole > 12 {
		t.Fatalf("%d of 20 were never stopped", whole)
	}
	for _, c := range []replay.Cursor{{Run: w.ids[0], Seq: 99}, {Run: "nobody", Seq: 1}, {Run: w.run.ID(), Seq: 1}} {
		_, _, err := w.restore(replay.Options{Resume: c})
		wantIs(t, err, replay.ErrCursor)
	}
	_, _, err := w.restore(replay.Options{Resume: replay.Cursor{Run: w.ids[1], Seq: 2}, Until: replay.Cursor{Run: w.ids[0], Seq: 2}})
	wantIs(t, err, replay.ErrCursor)
}

func TestAReplayEndsWhereItIsTold(t *testing.T) {
	w := newWorld(t)
	w.pay(5)
	w.anchor() // covers 6
	w.pay(5)
	w.kill()
	w.pay(2)
	w.kill()
	for until, want := range map[replay.Cursor][2]uint64{ // applied, restored
		{Run: w.ids[0], Seq: 11}: {5, 6}, {Run: w.ids[0], Seq: 6}: {0, 6}, {Run: w.ids[0], Seq: 5}: {4, 0}, {Run: w.ids[1], Seq: 2}: {6, 6},
	} {
		l, rep, err := w.restore(replay.Options{Until: until})
		must(t, err)
		if rep.Applied != want[0] || l.restores[0] != want[1] || rep.Cursor != until {
			t.Errorf("until %v: applied %d, restored %v, at %v", until, rep.Applied, l.restores, rep.Cursor)
		}
	}
	_, _, err := w.restore(replay.Options{Until: replay.Cursor{Run: w.ids[0], Seq: 12}})
	wantIs(t, err, replay.ErrCursor)
}

// G64: a dry run reads and judges everything and touches nothing.
func TestADryRunTouchesNothing(t *testing.T) {
	w := newWorld(t)
	w.pay(3)
	w.put("Pay", "not a payment")
	w.put("Unheard", "x")
	w.put("Log", "x")
	w.kill()
	l, rep, err := w.restore(replay.Options{DryRun: true, OnError: func(*replay.EntryError) bool { return true }})
	must(t, err)
	if len(l.restores)+len(l.runs) != 0 || l.n != 0 || rep.Applied != 3 || rep.Failed != 1 || rep.FirstErr.Seq != 5 || rep.Ignored["Unheard"] != 1 || rep.Ignored["Log"] != 1 {
		t.Fatalf("%+v", rep)
	}
	rep, err = replay.Restore(t.Context(), w.parents(), nil, replay.Options{DryRun: true})
	if err != nil || rep.Applied != 6 {
		t.Fatalf("without an engine: %+v, %v", rep, err)
	}
}

// RP15, RP17, RP21, G63: what counts as applied, ignored and failed is one rule for all.
func TestTheReportAccountsForEveryEntry(t *testing.T) {
	w := newWorld(t)
	w.pay(3)
	w.put("Unheard", "alice 1")
	w.put("Log", "cannot be decoded, and is not")
	w.put("Note", "nobody 1")
	w.put("Note", "nobody 1")
	w.put("Note", "alice 1")
	w.put("Pay", "alice 0") // applied, although it changes nothing
	w.kill()
	l, rep, err := w.restore(replay.Options{})
	must(t, err)
	w.wantSame(l)
	if rep.Applied != 5 || rep.Lifecycle != 1 || len(rep.Ignored) != 3 || rep.Ignored["Unheard"] != 1 || rep.Ignored["Log"] != 1 ||
		rep.Ignored["Note"] != 2 || rep.FirstErr != nil || rep.MinInit == 0 || rep.MaxInit < rep.MinInit {
		t.Fatalf("%+v", rep)
	}
	l, rep, err = w.restore(replay.Options{Filter: func(v *entry.View) bool { return v.Type() == "Open" }})
	must(t, err)
	if rep.Applied != 1 || rep.Filtered != 8 || l.balances["alice"] != 100 {
		t.Fatalf("filtered: %+v", rep)
	}
}

// RP16, RP18, RP19, RP20, G64: an entry that cannot be applied is named, all before it are in the state, and the caller
// decides whether to go on.
func TestAnEntryThatCannotBeAppliedIsNamed(t *testing.T) {
	for payload, isDecode := range map[string]bool{"garbage": true, "nobody 1": false} {
		w := newWorld(t)
		w.pay(3)
		before := string(w.live.snapshot())
		seq := w.put("Pay", payload)
		w.pay(2)
		run := w.run.ID()
		w.kill()
		l, rep, err := w.restore(replay.Options{})
		var e *replay.EntryError
		var decode *replay.DecodeError
		if !errors.As(err, &e) || e.Run != run || e.Seq != seq || e.Type != "Pay" || errors.As(err, &decode) != isDecode || rep.FirstErr != e {
			t.Fatalf("%q: %v", payload, err)
		}
		if !isDecode {
			wantIs(t, err, errUnknown)
		}
		if string(l.snapshot()) != before || rep.Cursor.Seq != seq-1 {
			t.Fatalf("%q: the state is %s at %v", payload, l.snapshot(), rep.Cursor)
		}
		l, rep, err = w.restore(replay.Options{OnError: func(e *replay.EntryError) bool { return e.Seq == seq }})
		must(t, err)
		if rep.Failed != 1 || rep.FirstErr.Seq != seq || rep.Applied != 5 {
			t.Fatalf("%q: %+v", payload, rep)
		}
		w.wantSame(l)
	}
}

// RP16, RP17, RP29: every type that is captured is one that is replayed or one that is for people; each has one rule.
func TestEveryTypeHasOneRule(t *testing.T) {
	l := newLedger()
	for typ, want := range map[string][2]bool{"Open": {true, true}, "Pay": {true, true}, "Log": {true, false}, "Unheard": {false, false}} {
		if known, replayed := l.Knows(typ); known != want[0] || replayed != want[1] {
			t.Errorf("%s: known %v, replayed %v", typ, known, replayed)
		}
	}
	wantIs(t, l.ForensicOnly("Pay"), runlog.ErrInvalid)
	wantIs(t, replay.On(l.Registry, "Log", func(*entry.View) (int, error) { return 0, nil }, func(int) error { return nil }), runlog.ErrInvalid)
}

func TestAnEngineThatCannotRestoreStopsTheReplay(t *testing.T) {
	w := newWorld(t)
	w.pay(3)
	a := w.anchor()
	w.pay(1)
	w.kill()
	l := newLedger()
	l.failing = errStop
	rep, err := replay.Restore(t.Context(), w.parents(), l, replay.Options{Store: w.store})
	var at *replay.RestoreError
	if wantIs(t, err, errStop); !errors.As(err, &at) || at.Covers != a.Covers || at.Ref != a.Ref || rep.Entries != 0 {
		t.Fatalf("%v", err)
	}
	// A blob that changes between its check and its use is noticed, too, even if the engine has not read so far.
	store := mapStore{}
	a, err = w.run.Anchor(t.Context(), 1, store, bytesOf(w.live))
	must(t, err)
	must(t, w.run.Close(t.Context()))
	chain, err := replay.OpenChain(w.mem, w.run.Dir())
	must(t, err)
	defer replay.Close(chain)
	_, err = replay.Restore(t.Context(), chain, newLedger(), replay.Options{Store: &changing{mapStore: store, ref: a.Ref}})
	wantIs(t, err, anchor.ErrBlob)
}

func TestProgressIsToldNowAndThenAndAtTheEnd(t *testing.T) {
	w := newWorld(t)
	w.pay(10) // with RunStarted: 11
	w.kill()
	var done []uint64
	_, _, err := w.restore(replay.Options{ProgressEvery: 4, Progress: func(p replay.Progress) {
		if p.Total != 11 || p.Cursor.Seq != p.Done {
			t.Errorf("%+v", p)
		}
		done = append(done, p.Done)
	}})
	if must(t, err); !slices.Equal(done, []uint64{4, 8, 11}) {
		t.Fatal(done)
	}
}

func TestAReplayStopsWithItsContext(t *testing.T) {
	w := newWorld(t)
	w.pay(3)
	w.anchor()
	w.pay(3)
	w.kill()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	for _, store := range []anchor.BlobStore{w.store, nil} {
		l := newLedger()
		rep, err := replay.Restore(ctx, w.parents(), l, replay.Options{Store: store})
		if wantIs(t, err, context.Canceled); l.n > 0 || rep.Entries > 0 {
			t.Fatalf("%+v", rep)
		}
	}
	w.pay(3000)
	w.kill()
	ctx, stop = context.WithCancel(t.Context())
	l := newLedger()
	rep, err := replay.Restore(ctx, w.parents(), l, replay.Options{Store: w.store, Filter: func(*entry.View) bool { stop(); return true }})
	if wantIs(t, err, context.Canceled); rep.Entries == 0 || rep.Entries > 1500 || rep.Cursor.Seq == 0 {
		t.Fatalf("%+v", rep)
	}
}

// G65: what a replay needs does not grow with the log.
func TestMemoryDoesNotGrowWithTheLog(t *testing.T) {
	used := func(n int) uint64 {
		o := runlog.Options{Dir: t.TempDir(), Instance: instance, WarnAfter: -1, HaltAfter: -1}
		r, err := runlog.Open(t.Context(), o)
		must(t, err)
		for i := range n {
			typ := "Pay"
			if i == 0 {
				typ = "Open"
			}
			_, err := r.Submit(runlog.Draft{Topic: "ledger", Type: typ, Payload: fmt.Appendf(make([]byte, 0, 512), "a 1%512s", "")})
			must(t, err)
			if i%100 == 0 {
				must(t, r.StateHash(uint64(i+1), []byte{1}))
			}
		}
		must(t, r.Close(t.Context()))
		chain, err := replay.OpenChain(vfs.OS, r.Dir())
		must(t, err)
		defer replay.Close(chain)
		c := &counter{}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		rep, err := replay.Restore(t.Context(), chain, c, replay.Options{GoOn: true})
		runtime.ReadMemStats(&after)
		must(t, err)
		if rep.Applied != uint64(n) || c.n != n || rep.Divergence == nil {
			t.Fatalf("%+v", rep)
		}
		must(t, os.RemoveAll(o.Dir))
		return after.TotalAlloc - before.TotalAlloc
	}
	few, many := used(2_000), used(40_000)
	if many > few+400_000 { // what a hash's copy and its comparison take: 380 hashes more
		t.Errorf("%d bytes for 2,000 entries, %d for 40,000", few, many)
	}
}
