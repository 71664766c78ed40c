package fuzz

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/anchor"
	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/replay"
	"github.com/runlog-io/runlog/vfs"
)

// digest is the state of an engine: it depends on every entry and on their order.
type digest struct{ sum uint64 }

func (d *digest) add(payload []byte) {
	b := binary.LittleEndian.AppendUint64(nil, d.sum)
	d.sum = xxhash.Sum64(append(b, payload...))
}

// snapshot is the state, and so many bytes more that it lies in several blocks.
func (d *digest) snapshot() []byte {
	b := binary.LittleEndian.AppendUint64(nil, d.sum)
	return append(b, bytes.Repeat(b, 1+int(d.sum%900))...)
}

func (d *digest) Reset(context.Context) error { d.sum = 0; return nil }

func (d *digest) Restore(_ context.Context, _ anchor.Anchor, r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if d.sum = binary.LittleEndian.Uint64(b); !bytes.Equal(b, d.snapshot()) {
		return errors.New("this snapshot was never taken")
	}
	return nil
}

func (d *digest) Apply(v *runlog.View) (bool, error) { d.add(v.Payload()); return true, nil }

// anchored is a load that takes snapshots.
type anchored struct {
	*sim
	c        *matrix.Cases
	states   map[string][]uint64        // of a run: the state behind each seq
	promised map[string][]anchor.Anchor // anchors that have been acknowledged, by run
	err      error                      // of a visit
}

const snapshotDir = "/base/sim/snapshots"

// anchors cuts the power at every operation of taking snapshots, beside entries, rotations and restarts. An anchor that
// was acknowledged is there, any that is there has its blob, whole and as it was, and what is replayed from there is the
// state that the engine had.
func anchors(c *matrix.Cases) error {
	a := &anchored{sim: newSim(c.Seed), c: c, states: map[string][]uint64{}, promised: map[string][]anchor.Anchor{}}
	a.fault = func(int64) { a.visit() }
	a.watch(0)
	var lerr error
	for i := 1 + a.rng.IntN(2); i >= 0 && lerr == nil && a.err == nil; i-- {
		lerr = a.life()
	}
	a.mem.SetHook(nil)
	if a.visit(); a.err != nil {
		return fmt.Errorf("before %v: %w", a.op, a.err)
	}
	return lerr
}

// life is one run, from its start to its death.
func (a *anchored) life() error {
	ctx := context.Background()
	run, err := runlog.Open(ctx, a.o)
	if err != nil {
		return err
	}
	store, err := anchor.NewDirStore(a.mem, snapshotDir, a.o.Salts)
	if err != nil {
		return err
	}
	parents, err := run.Parents()
	if err != nil {
		return err
	}
	var state digest
	rep, err := replay.Restore(ctx, parents, &state, replay.Options{Store: store})
	if err != nil {
		return err
	}
	if err := a.same(rep.Cursor, &state); err != nil {
		return err
	}
	a.states[run.ID()] = []uint64{state.sum, state.sum} // before and behind RunStarted
	for i := 3 + a.rng.IntN(12); i >= 0 && a.err == nil; i-- {
		d := a.draft()
		state.add(d.Payload)
		a.states[run.ID()] = append(a.states[run.ID()], state.sum)
		if _, err := run.Submit(d); err != nil {
			return err
		}
		if a.rng.IntN(4) > 0 {
			continue
		}
		an, err := run.Anchor(ctx, run.Accepted(), store, bytes.NewReader(state.snapshot()))
		if err != nil {
			return err
		}
		a.promised[run.ID()] = append(a.promised[run.ID()], an)
	}
	return a.reopenAfterKill()
}

// same compares a replayed state with the one that the engine had there.
func (a *anchored) same(at replay.Cursor, state *digest) error {
	want := uint64(0)
	if at.Run != "" {
		want = a.states[at.Run][at.Seq]
	}
	if state.sum != want {
		return fmt.Errorf("the state at %v is %x, the engine's was %x", at, state.sum, want)
	}
	return nil
}

// visit judges what a power cut can leave now.
func (a *anchored) visit() {
	r := rand.New(rand.NewPCG(a.seed, uint64(a.op.N)))
	for _, choose := range []vfs.Chooser{vfs.LoseAll(), vfs.Scramble(), vfs.Random(r.Uint64()), vfs.Random(r.Uint64())} {
		if a.err != nil || !a.c.Next() {
			return
		}
		left := a.mem.Crash(choose)
		if a.err = a.listed(left); a.err == nil && r.IntN(8) == 0 {
			a.err = a.replayed(left)
		}
	}
}

// listed reads the anchors that are left.
func (a *anchored) listed(left *vfs.Mem) error {
	ctx, store := context.Background(), anchor.OpenDirStore(left, snapshotDir, nil)
	for run := range a.states {
		rd, err := runlog.OpenReader(filepath.Join(a.o.Dir, a.o.Instance, run), runlog.ReaderOptions{FS: left})
		if err != nil {
			if len(a.promised[run]) > 0 {
				return err
			}
			continue
		}
		var found []anchor.Anchor
		for p, err := range anchor.Points(ctx, rd, store) {
			if err = errors.Join(err, p.Err); err != nil {
				return fmt.Errorf("run %s: %w", run, err)
			}
			if p.Anchor.Covers > rd.LastSeq() {
				return fmt.Errorf("run %s: an anchor covers seq %d, and the log ends with seq %d", run, p.Anchor.Covers, rd.LastSeq())
			}
			found = append(found, p.Anchor)
			blobsRead.Add(1)
		}
		_ = rd.Close()
		for _, p := range a.promised[run] {
			if !slices.Contains(found, p) {
				return fmt.Errorf("run %s: the anchor that covers seq %d was acknowledged and is gone", run, p.Covers)
			}
		}
	}
	return nil
}

// replayed boots on what is left and rebuilds the state.
func (a *anchored) replayed(left *vfs.Mem) error {
	o := a.o
	o.FS = left
	ctx := context.Background()
	run, err := runlog.Open(ctx, o)
	if err != nil {
		return err
	}
	parents, err := run.Parents()
	if err != nil {
		return err
	}
	var state digest
	rep, err := replay.Restore(ctx, parents, &state, replay.Options{Store: anchor.OpenDirStore(left, snapshotDir, nil)})
	if err != nil {
		return err
	}
	if len(rep.Plan.Passed) > 0 {
		return fmt.Errorf("an anchor cannot be used: %w", rep.Plan.Passed[0].Err)
	}
	if rep.Plan.Anchor != nil {
		fromAnchor.Add(1)
	}
	return a.same(rep.Cursor, &state)
}

var blobsRead, fromAnchor atomic.Int64

func TestAPowerCutWhileASnapshotIsTakenLeavesAnAnchorWithItsBlobOrNone(t *testing.T) {
	matrix.Run(t, "anchor", anchors, matrix.Detail(func() string {
		return fmt.Sprintf("%d blobs read, %d replays from a snapshot", blobsRead.Load(), fromAnchor.Load())
	}))
}
