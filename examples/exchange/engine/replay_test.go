package engine

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/anchor"
	"github.com/runlog-io/runlog/examples/exchange/flow"
	"github.com/runlog-io/runlog/replay"
	"github.com/runlog-io/runlog/vfs"
)

// life is an engine that lives through crashes.
type life struct {
	t     *testing.T
	r     *rand.Rand
	seed  uint64
	mem   *vfs.Mem
	store *anchor.DirStore
	run   *runlog.Run
	e     *Engine
	gen   *flow.Generator
	rep   *replay.Report
}

// boot opens a run and brings a new engine to where the log ends.
func (l *life) boot() {
	l.t.Helper()
	run, err := runlog.Open(l.t.Context(), runlog.Options{
		Dir: "/base", Instance: "exchange", FS: l.mem, Synchronous: true, FirstSegmentBytes: 64 << 10, SegmentBytes: 64 << 10,
	})
	if err != nil {
		l.t.Fatal(err)
	}
	if l.store, err = anchor.NewDirStore(l.mem, "/base/exchange/snapshots", nil); err != nil {
		l.t.Fatal(err)
	}
	parents, err := run.Parents()
	if err != nil {
		l.t.Fatal(err)
	}
	l.run, l.e = run, New(l.seed)
	if l.rep, err = replay.Restore(l.t.Context(), parents, &Replayer{Engine: l.e}, replay.Options{Store: l.store}); err != nil {
		l.t.Fatal(err)
	}
	if err := l.e.Start(run, len(parents), func(Message) {}, nil); err != nil {
		l.t.Fatal(err)
	}
	l.gen = flow.NewGenerator(l.seed, 1<<30)
	if last, ok := l.gen.Skip(l.e.Counts().Commands); !ok || last != l.e.Last() {
		l.t.Fatalf("the engine stands behind %+v", l.e.Last())
	}
}

// work handles n commands and takes a snapshot or records a hash now and then.
func (l *life) work(n int) {
	l.t.Helper()
	for range n {
		c, _ := l.gen.Next()
		err := l.e.Handle(l.t.Context(), c)
		switch l.r.IntN(60) {
		case 0:
			snapshot, serr := l.e.Snapshot(nil)
			_, aerr := l.run.Anchor(l.t.Context(), l.e.Covers(), l.store, bytes.NewReader(snapshot))
			err = errors.Join(err, serr, aerr)
		case 1, 2:
			err = errors.Join(err, l.run.StateHash(l.e.Covers(), AppendHash(nil, l.e)))
		}
		if err != nil {
			l.t.Fatal(err)
		}
	}
}

// RP28: generated order flow, crashes at any time, snapshots at any time, lost ones included: what replay makes of the
// disk is what the engine had made of the messages.
func TestTheReplayedStateEqualsTheLiveState(t *testing.T) {
	anchored, equal := 0, uint64(0)
	for seed := range uint64(8) {
		l := &life{t: t, r: rand.New(rand.NewPCG(seed, 28)), seed: seed, mem: vfs.NewMem(vfs.MemOptions{})}
		l.boot()
		for range 4 {
			l.work(l.r.IntN(250))
			hash, counts := l.e.Hash(), l.e.Counts()
			if l.mem = l.mem.Kill(); l.r.IntN(3) == 0 {
				l.lose()
			}
			l.boot()
			if l.e.Hash() != hash || l.e.Counts() != counts {
				t.Fatalf("seed %d: the replayed state is %016x %+v, the live one was %016x %+v", seed, l.e.Hash(), l.e.Counts(), hash, counts)
			}
			var ignored int
			for range l.rep.Ignored {
				ignored++
			}
			if l.rep.Failed > 0 || ignored > 0 || l.rep.Applied+l.rep.Lifecycle != l.rep.Entries {
				t.Fatalf("seed %d: %+v", seed, l.rep)
			}
			if l.rep.Plan.Anchor != nil {
				anchored++
			}
			equal += l.rep.HashesEqual
		}
	}
	if anchored < 8 || equal < 8 {
		t.Fatalf("%d replays began at an anchor, %d hashes were compared: the cases are too few", anchored, equal)
	}
}

// lose removes a blob.
func (l *life) lose() {
	store := anchor.OpenDirStore(l.mem, "/base/exchange/snapshots", nil)
	for b, err := range store.List(l.t.Context()) {
		if err != nil {
			l.t.Fatal(err)
		}
		if err := store.Delete(context.Background(), b.Ref); err != nil {
			l.t.Fatal(err)
		}
		return
	}
}

// The engine that makes something else of a command is caught, and the command is named.
func TestADivergingEngineIsCaughtAndTheCommandNamed(t *testing.T) {
	l := &life{t: t, r: rand.New(rand.NewPCG(1, 1)), seed: 1, mem: vfs.NewMem(vfs.MemOptions{})}
	l.boot()
	l.work(500)
	if err := l.run.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	chain, err := replay.OpenChain(l.mem, l.run.Dir())
	if err != nil {
		t.Fatal(err)
	}
	defer replay.Close(chain)
	broken := func() *forgetful { return &forgetful{Replayer: Replayer{Engine: New(1)}, at: 321} }
	_, err = replay.Restore(t.Context(), chain, broken(), replay.Options{})
	var d *replay.DivergenceError
	if !errors.As(err, &d) {
		t.Fatal(err)
	}
	s, err := replay.Bisect(t.Context(), chain, &Replayer{Engine: New(1)}, broken(), replay.BisectOptions{Equal: d.Equal, Different: d.Different})
	if err != nil {
		t.Fatal(err)
	}
	v, err := chain[0].Get(s.At.Seq, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c, ok := ParseCommand(v.Type(), v.Payload()); !ok || c.N != 321 {
		t.Fatalf("%v is blamed: %s %+v", s.At, v.Type(), c)
	}
}

// forgetful counts one report too many behind one of its commands.
type forgetful struct {
	Replayer
	at uint64
}

func (f *forgetful) Apply(v *runlog.View) (bool, error) {
	before := f.commands
	applied, err := f.Replayer.Apply(v)
	if f.commands == f.at && before != f.at {
		f.reports++
	}
	return applied, err
}

func TestASnapshotIsTheWholeStateOrAnError(t *testing.T) {
	e := New(testSeed)
	if err := e.Start(&memLog{}, 0, func(Message) {}, nil); err != nil {
		t.Fatal(err)
	}
	finish(t, e)
	b := flow.Report{OrderID: 5, Price: 9, Size: 2, Instrument: 3, Action: flow.ActionAdd, Side: 'B'}
	if err := e.Report(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	whole, err := e.Snapshot(nil)
	if err != nil {
		t.Fatal(err)
	}
	restored := func(b []byte, seed uint64) (*Engine, error) {
		r := &Replayer{Engine: New(seed)}
		return r.Engine, r.Restore(t.Context(), anchor.Anchor{}, bytes.NewReader(b))
	}
	again, err := restored(whole, testSeed)
	if err != nil || again.Hash() != e.Hash() || again.Counts() != e.Counts() || again.Last() != e.Last() {
		t.Fatalf("restored %+v, want %+v, %v", again.Counts(), e.Counts(), err)
	}
	empty := New(testSeed).Hash()
	for n := range whole {
		if half, err := restored(whole[:n], testSeed); err == nil || half.Hash() != empty {
			t.Fatalf("%d of %d bytes were restored, %v", n, len(whole), err)
		}
		if n < len(magic) {
			continue
		}
		flipped := bytes.Clone(whole)
		flipped[n] ^= 0x80
		_, _ = restored(flipped, testSeed) // it may be another good state: the store's hash tells; but no panic
	}
	for name, b := range map[string][]byte{
		"longer": append(bytes.Clone(whole), 0), "another version": []byte(strings.Replace(string(whole), "snapshot 1", "snapshot 2", 1)),
	} {
		if _, err := restored(b, testSeed); !errors.Is(err, errSnapshot) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := restored(whole, testSeed+1); !errors.Is(err, errSnapshot) {
		t.Errorf("another seed: %v", err)
	}
}
