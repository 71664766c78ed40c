package replay_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/replay"
)

// replayed replays with an engine that is off by one from its nth entry on.
func (w *world) replayed(bug uint64, o replay.Options) (*replay.Report, error) {
	l := newLedger()
	l.bug, o.Store = bug, w.store
	return replay.Restore(w.t.Context(), w.parents(), l, o)
}

func TestADivergenceNamesTheRangeOfSeqs(t *testing.T) {
	w := newWorld(t)
	w.pay(4)
	h1 := w.hash()
	w.pay(4)
	h2 := w.hash()
	w.kill()
	w.pay(4)
	h3 := w.hash()
	w.pay(4)
	w.kill()
	at := func(run int, seq uint64) replay.Cursor { return replay.Cursor{Run: w.ids[run], Seq: seq} }
	for bug := range uint64(18) {
		var want *replay.Divergence
		switch {
		case bug == 0:
		case bug <= 4:
			want = &replay.Divergence{Different: at(0, h1)}
		case bug <= 8:
			want = &replay.Divergence{Equal: at(0, h1), Different: at(0, h2)}
		case bug <= 12:
			want = &replay.Divergence{Equal: at(0, h2), Different: at(1, h3)}
		}
		rep, err := w.replayed(bug, replay.Options{})
		var d *replay.DivergenceError
		if diverged := errors.As(err, &d); diverged != (want != nil) || errors.Is(err, replay.ErrDiverged) != diverged {
			t.Fatalf("bug at entry %d: %v", bug, err)
		}
		if want == nil {
			if must(t, err); rep.HashesEqual != 3 || rep.Divergence != nil {
				t.Fatalf("bug at entry %d: %+v", bug, rep)
			}
			continue
		}
		if d.Equal != want.Equal || d.Different != want.Different || rep.Cursor != d.Different || len(d.Want) != 8 || string(d.Want) == string(d.Got) {
			t.Fatalf("bug at entry %d: %v", bug, err)
		}
		rep, err = w.replayed(bug, replay.Options{GoOn: true})
		must(t, err)
		if rep.Divergence.Different != want.Different || rep.Applied != 16 {
			t.Fatalf("bug at entry %d: %+v", bug, rep)
		}
		_, err = w.replayed(bug, replay.Options{NoCompare: true})
		must(t, err)
	}
}

// The state of a snapshot is compared, too, if its hash was recorded.
func TestASnapshotOfAnotherStateIsADivergence(t *testing.T) {
	w := newWorld(t)
	w.pay(4)
	seq := w.hash()
	w.live.balances["alice"]++
	w.anchor()
	w.kill()
	_, rep, err := w.restore(replay.Options{})
	var d *replay.DivergenceError
	if !errors.As(err, &d) || d.Different != (replay.Cursor{Run: w.ids[0], Seq: seq}) || d.Equal != (replay.Cursor{}) || rep.Entries != 0 {
		t.Fatalf("%v", err)
	}
}

// A state that is not the engine's, since entries were left out, is not called divergent.
func TestHashesAreNotComparedWhenEntriesWereLeftOut(t *testing.T) {
	w := newWorld(t)
	w.pay(2)
	w.hash()
	w.put("Pay", "garbage")
	w.hash()
	w.kill()
	_, rep, err := w.restore(replay.Options{OnError: func(*replay.EntryError) bool { return true }})
	if must(t, err); rep.HashesEqual != 1 || rep.HashesUnchecked != 1 {
		t.Fatalf("%+v", rep)
	}
	_, rep, err = w.restore(replay.Options{Filter: func(v *entry.View) bool { return v.Type() != "Pay" }})
	if must(t, err); rep.HashesEqual != 0 || rep.HashesUnchecked != 2 {
		t.Fatalf("%+v", rep)
	}
}

func TestBisectFindsTheFirstEntryThatDiffers(t *testing.T) {
	w := newWorld(t)
	w.pay(7)
	w.anchor()
	w.pay(5)
	w.anchor()
	w.kill()
	w.pay(6)
	w.anchor() // behind the place where the states are known to be equal, it must not be used
	w.pay(5)
	w.kill()
	chain := w.parents()
	where := func(n uint64) replay.Cursor { // of the nth entry that is applied: RunStarted comes first
		if n <= 12 {
			return replay.Cursor{Run: w.ids[0], Seq: n + 1}
		}
		return replay.Cursor{Run: w.ids[1], Seq: n - 12 + 1}
	}
	for bug := uint64(1); bug <= 23; bug++ {
		for _, samples := range []int{0, 2, 3} {
			for _, equal := range []uint64{0, bug / 2, bug - 1} {
				b := newLedger()
				b.bug = bug
				o := replay.BisectOptions{Samples: samples}
				if equal > 0 {
					o.Equal, o.Store = where(equal), w.store
				}
				s, err := replay.Bisect(t.Context(), chain, newLedger(), b, o)
				must(t, err)
				if s.At != where(bug) || string(s.A) == string(s.B) || len(s.Before) != 8 || string(s.Before) == string(s.A) {
					t.Fatalf("bug at %v: found %+v", where(bug), s)
				}
				most := 6 // log2 of 25, and one
				if samples == 0 {
					most = 1
				}
				if s.Passes > most || s.Read > uint64(25*s.Passes) {
					t.Fatalf("bug at entry %d, %d samples: %d passes, %d entries read", bug, samples, s.Passes, s.Read)
				}
			}
		}
	}
	_, err := replay.Bisect(t.Context(), chain, newLedger(), newLedger(), replay.BisectOptions{})
	wantIs(t, err, replay.ErrSame)
	_, err = replay.Bisect(t.Context(), chain, newLedger(), newLedger(), replay.BisectOptions{Samples: 1})
	wantIs(t, err, runlog.ErrInvalid)
	_, err = replay.Bisect(t.Context(), chain, newLedger(), newLedger(), replay.BisectOptions{Equal: where(5), Different: where(5)})
	wantIs(t, err, replay.ErrCursor)
	_, err = replay.Bisect(t.Context(), nil, newLedger(), newLedger(), replay.BisectOptions{})
	wantIs(t, err, replay.ErrCursor)
}

// The range that a replay has named is where Bisect looks, from the last anchor on.
func TestBisectGoesOnFromADivergence(t *testing.T) {
	w := newWorld(t)
	w.pay(500)
	w.anchor()
	w.pay(100)
	w.hash()
	w.pay(200)
	w.hash()
	w.kill()
	if err := w.store.Delete(t.Context(), "nothing"); err == nil {
		t.Fatal("deleted")
	}
	const bug = 700
	l := newLedger()
	l.bug = bug
	rep, err := replay.Restore(t.Context(), w.parents(), l, replay.Options{Store: w.store})
	wantIs(t, err, replay.ErrDiverged)
	a, b := newLedger(), newLedger()
	b.bug = bug
	d := rep.Divergence
	s, err := replay.Bisect(t.Context(), w.parents(), a, b, replay.BisectOptions{Store: w.store, Equal: d.Equal, Different: d.Different})
	must(t, err)
	if s.At != (replay.Cursor{Run: w.ids[0], Seq: bug + 1}) || s.Passes != 2 || a.restores[0] != 501 || s.Read > 2*300 || s.Hashed > 2*66 {
		t.Fatalf("%+v, restored %v", s, a.restores)
	}
}

// unsteady hashes by chance.
type unsteady struct {
	*ledger
	r *rand.Rand
}

func (u unsteady) AppendStateHash(dst []byte) ([]byte, error) {
	return fmt.Append(dst, u.r.IntN(2)), nil
}

func TestBisectSaysWhenTheGroundMoves(t *testing.T) {
	w := newWorld(t)
	w.pay(40)
	w.kill()
	seen := map[error]int{}
	for seed := range uint64(200) {
		_, err := replay.Bisect(t.Context(), w.parents(), unsteady{newLedger(), rand.New(rand.NewPCG(seed, 1))},
			unsteady{newLedger(), rand.New(rand.NewPCG(seed, 2))}, replay.BisectOptions{Samples: 3})
		for _, e := range []error{replay.ErrDifferentStart, replay.ErrUnsteady, replay.ErrSame, nil} {
			if errors.Is(err, e) {
				seen[e]++
				break
			}
		}
	}
	if seen[replay.ErrDifferentStart] == 0 || seen[replay.ErrUnsteady] == 0 {
		t.Fatal(seen)
	}
	b := newLedger()
	b.bug = 20
	ctx, stop := context.WithCancel(t.Context())
	stop()
	_, err := replay.Bisect(ctx, w.parents(), newLedger(), b, replay.BisectOptions{})
	wantIs(t, err, context.Canceled)
}

func TestRecordedHashesOfTwoRunsAreCompared(t *testing.T) {
	record := func(hashes map[uint64]byte) *runlog.Reader {
		w := newWorld(t)
		w.pay(20)
		for seq := range uint64(21) {
			if h, ok := hashes[seq]; ok {
				must(t, w.run.StateHash(seq, []byte{h}))
			}
		}
		must(t, w.run.Close(t.Context()))
		r, err := runlog.OpenReader(w.run.Dir(), runlog.ReaderOptions{FS: w.mem})
		must(t, err)
		t.Cleanup(func() { _ = r.Close() })
		return r
	}
	a := record(map[uint64]byte{3: 1, 5: 2, 8: 3, 10: 4, 12: 5})
	for _, c := range []struct {
		b                       map[uint64]byte
		equal, last, firstOther uint64
	}{
		{map[uint64]byte{3: 1, 5: 2, 8: 3, 10: 4, 12: 5}, 5, 12, 0},
		{map[uint64]byte{2: 9, 5: 2, 7: 9, 10: 4, 20: 9}, 2, 10, 0},
		{map[uint64]byte{5: 2, 9: 0, 10: 7, 12: 8}, 1, 5, 10},
		{map[uint64]byte{3: 0}, 0, 0, 3},
		{nil, 0, 0, 0},
	} {
		got, err := replay.CompareRecorded(t.Context(), a, record(c.b))
		if must(t, err); got.Equal != c.equal || got.LastEqual != c.last || got.Different != c.firstOther {
			t.Errorf("%v: %+v", c.b, got)
		}
	}
}
