package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/anchor"
	"github.com/runlog-io/runlog/capture"
	"github.com/runlog-io/runlog/examples/exchange/engine"
	"github.com/runlog-io/runlog/replay"
	"github.com/runlog-io/runlog/vfs"
)

// snapshots is the folder of the snapshots, beside the runs.
const snapshots = "snapshots"

// snapshotEvery is how often, in commands, a snapshot is taken. It bounds what a restart has to replay.
func (c *config) snapshotEvery() uint64 { return max(4096, c.orders/8) }

// rebuild brings the engine to where the chain of runs ends, sends the messages that the other side has not got, and
// connects the engine to its new run.
func (c *config) rebuild(
	ctx context.Context, e *engine.Engine, run *runlog.Run, out sender, h *hello,
) (*anchor.DirStore, error) {
	store, err := anchor.NewDirStore(vfs.OS, filepath.Join(c.dir, c.instance, snapshots), nil)
	if err != nil {
		return nil, err
	}
	if err := store.RemoveUnfinished(); err != nil { // the run holds the instance: nobody else stores
		return nil, err
	}
	parents, err := run.Parents()
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // retention removes old runs; Restore says if one of them is needed
		return nil, err
	}
	rep, err := replay.Restore(ctx, parents, &engine.Replayer{Engine: e}, replay.Options{Store: store})
	if err != nil {
		return nil, err
	}
	if a := rep.Plan.Anchor; a != nil {
		h.Snapshot = a.Size
	}
	h.Passed, h.Restore, h.Replayed, h.Replay = len(rep.Plan.Passed), rep.RestoreTook, rep.Entries, rep.ReplayTook
	h.Hashes = rep.HashesEqual
	if err := c.resend(parents, out); err != nil {
		return nil, err
	}
	for _, p := range slices.Backward(parents) { // oldest first
		h.Runs = append(h.Runs, p.Manifest().Run)
	}
	h.Runs = append(h.Runs, run.ID())
	h.Recovered, h.Remade = e.Counts(), e.Missing()
	return store, e.Start(run, len(parents), out.message, func(a *capture.Adapter) error {
		for _, p := range parents {
			if _, err := a.SeedFrom(p.Scan(runlog.ScanOptions{Reverse: true})); err != nil {
				return err
			}
		}
		return nil
	})
}

// resend sends the messages that the other side has not got. All that is in the parents is durable: a run that has ended
// or was recovered loses nothing any more. The snapshot may cover messages that were still on their way, so they are
// taken from the log, back to the last one that was received.
func (c *config) resend(parents []*runlog.Reader, out sender) error {
	from := make([]uint64, 0, len(parents)) // where to begin in each run, the newest first
	for _, p := range parents {
		last, err := c.lastReceived(p)
		if err != nil {
			return err
		}
		if from = append(from, last+1); last > 0 {
			break
		}
	}
	for i, seq := range slices.Backward(from) {
		for v, err := range parents[i].Scan(runlog.ScanOptions{From: seq, Topic: engine.TopicEvents}) {
			if err != nil {
				return err
			}
			event, ok := engine.ParseEvent(v.Type(), v.Payload())
			if !ok || event.N <= c.ack {
				continue
			}
			event.At = v.TsInit()
			out.message(engine.Message{Event: event, Run: len(parents) - 1 - i, Seq: v.Seq()})
		}
	}
	return nil
}

// lastReceived is the seq of the last event in a run that the other side has got; 0: none.
func (c *config) lastReceived(p *runlog.Reader) (uint64, error) {
	if c.ack == 0 {
		return 0, nil
	}
	for v, err := range p.Scan(runlog.ScanOptions{Topic: engine.TopicEvents, Reverse: true}) {
		if err != nil {
			return 0, err
		}
		if event, ok := engine.ParseEvent(v.Type(), v.Payload()); ok && event.N <= c.ack {
			return v.Seq(), nil
		}
	}
	return 0, nil
}

// keeper takes snapshots and records state hashes now and then. It belongs to the engine's goroutine.
type keeper struct {
	run     *runlog.Run
	store   *anchor.DirStore
	every   uint64 // commands
	buf     []byte
	hash    []byte
	done    chan error // of the snapshot that is being stored; nil: none is
	anchors int
	hashes  int
}

// behind is called behind each command. The engine's thread only copies the state; another goroutine waits for the disk.
// A snapshot that comes while the last one is still on its way is left out.
func (k *keeper) behind(ctx context.Context, e *engine.Engine, n uint64) (err error) {
	if n%(k.every/4) == 0 {
		k.hash = engine.AppendHash(k.hash[:0], e)
		if err := k.run.StateHash(e.Covers(), k.hash); err != nil {
			return err
		}
		k.hashes++
	}
	if n%k.every != 0 {
		return nil
	}
	if k.done != nil {
		select {
		case err := <-k.done:
			if k.done = nil; err != nil {
				return err
			}
		default:
			return nil
		}
	}
	if k.buf, err = e.Snapshot(k.buf[:0]); err != nil {
		return err
	}
	k.anchors++
	k.done = make(chan error, 1)
	go func(done chan<- error, covers uint64) {
		_, err := k.run.Anchor(ctx, covers, k.store, bytes.NewReader(k.buf))
		done <- err
	}(k.done, e.Covers())
	return nil
}

// wait waits for the last snapshot.
func (k *keeper) wait() error {
	if k.done == nil {
		return nil
	}
	done := k.done
	k.done = nil
	return <-done
}
