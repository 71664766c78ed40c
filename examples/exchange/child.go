package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/examples/exchange/book"
	"github.com/runlog-io/runlog/examples/exchange/engine"
	"github.com/runlog-io/runlog/examples/exchange/flow"
)

// The instances: folders below the one that the demonstration works in.
const (
	instance      = "exchange"
	uninterrupted = "uninterrupted"
)

// progressEvery is how often, in commands, the parent hears how far the child is.
const progressEvery = 2048

// warnings collects what the log warns about; they come from the log's own goroutines.
type warnings struct {
	mu sync.Mutex
	w  warned
}

// warned sums up warnings.
type warned struct {
	Stalls  int           // a commit was slow, or entries were waiting for one
	Longest time.Duration // of the stalls
	Other   []string      // the first few
}

func (w *warnings) add(x runlog.Warning) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case x.Threshold > 0:
		w.w.Stalls++
		w.w.Longest = max(w.w.Longest, x.For)
	case len(w.w.Other) < 10:
		w.w.Other = append(w.w.Other, x.String())
	}
}

func (w *warnings) sum() warned {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.w
	s.Other = slices.Clone(s.Other)
	return s
}

func openRun(ctx context.Context, dir, name string, seed *uint64, w *warnings) (*runlog.Run, error) {
	return runlog.Open(ctx, runlog.Options{
		Dir: dir, Instance: name, Build: "example", SchemaVersion: "1", Seed: seed,
		// A laptop's disk, or one that a CI machine shares, may be stuck for a moment. Here that is no reason to stop
		// trading.
		HaltAfter: 10 * time.Second,
		OnWarn:    w.add,
	})
}

// sender is where messages and reports about the child's life go.
type sender interface {
	message(engine.Message)
	progress(orders uint64)
	json(kind byte, v any)
}

// runEngine is the child: recover what is there, go on with the flow to its end, close the run.
func (c *config) runEngine(ctx context.Context) error {
	if !c.feed {
		return c.serve(ctx, &narrator{c: c}, func() error { return nil })
	}
	signal.Ignore(os.Interrupt) // Ctrl-C goes to the whole group; the parent decides what becomes of us
	f := &feedWriter{w: c.stdout}
	return c.serve(ctx, f, func() error { return f.err })
}

func (c *config) serve(ctx context.Context, out sender, broken func() error) error {
	clock := engine.ClockCost(100_000)
	var warn warnings
	start := time.Now()
	run, err := openRun(ctx, c.dir, c.instance, &c.seed, &warn)
	if err != nil {
		return err
	}
	if err := checkPredecessors(run.Predecessors(), c.without); err != nil {
		return err
	}
	// On an error the run is not closed: a clean end would say that the story ends here, and the next start would
	// begin a new one.
	h := hello{Open: time.Since(start)}
	if p := run.Predecessors(); len(p) > 0 {
		h.Dropped = p[len(p)-1].DroppedBytes
	}

	e := engine.New(c.seed)
	store, err := c.rebuild(ctx, e, run, out, &h)
	if err != nil {
		return err
	}
	start = time.Now()
	gen := flow.NewGenerator(c.seed, c.orders)
	n := e.Counts().Commands
	if last, ok := gen.Skip(n); !ok || last != e.Last() {
		return fmt.Errorf("%s: the log holds another flow than that of seed %d with %d orders", c.dir, c.seed, c.orders)
	}
	h.Skip = time.Since(start)
	out.json(frameHello, h)

	keep := keeper{run: run, store: store, every: c.snapshotEvery()}
	start = time.Now()
	for broken() == nil {
		cmd, ok := gen.Next()
		if !ok {
			break
		}
		if err := e.Handle(ctx, cmd); err != nil {
			return err
		}
		if err := keep.behind(ctx, e, cmd.N); err != nil {
			return err
		}
		if cmd.N%progressEvery == 0 {
			out.progress(gen.Orders())
		}
	}
	if err := broken(); err != nil {
		return err
	}
	if err := errors.Join(e.Flush(ctx), keep.wait()); err != nil {
		return err
	}
	s := summary{
		Counts: e.Counts(), Hash: e.Hash(), Entries: run.Durable(), Flow: time.Since(start),
		Submit: quantilesOf(&e.SubmitLatency), Capture: quantilesOf(&e.CaptureLatency), Clock: quantilesOf(clock),
		Anchors: keep.anchors, Hashes: keep.hashes,
	}
	start = time.Now()
	if err := run.Close(ctx); err != nil {
		return err
	}
	s.Close, s.Warned = time.Since(start), warn.sum()
	out.json(frameSummary, s)
	return broken()
}

// narrator is for people who start the engine themselves.
type narrator struct {
	c        *config
	messages uint64
}

func (n *narrator) message(engine.Message) { n.messages++ }

func (n *narrator) progress(orders uint64) {
	n.c.status("%s of %s orders, %s messages out", count(orders), count(n.c.orders), count(n.messages))
}

func (n *narrator) json(_ byte, v any) {
	n.c.status("")
	switch v := v.(type) {
	case hello:
		n.c.printf("run %s; before it: %d\n", v.Runs[len(v.Runs)-1], len(v.Runs)-1)
		n.c.printf("recovered %s commands and %s events; log opened in %v, snapshot of %s bytes restored in %v, %s entries replayed in %v\n",
			count(v.Recovered.Commands), count(v.Recovered.Events), round(v.Open), count(uint64(v.Snapshot)), round(v.Restore),
			count(v.Replayed), round(v.Replay))
		n.c.printf("torn bytes dropped: %d, events made again: %d, state hashes compared: %d\n", v.Dropped, v.Remade, v.Hashes)
	case summary:
		n.c.printf("done: %s commands, %s events, %s open orders, state %016x; %s messages out\n",
			count(v.Counts.Commands), count(v.Counts.Events), count(uint64(v.Counts.Open)), v.Hash, count(n.messages))
	}
}

// describe puts an entry of the exchange into words.
func describe(typ string, payload []byte) string {
	if e, ok := engine.ParseEvent(typ, payload); ok {
		switch e.Kind {
		case book.Filled:
			return fmt.Sprintf("%v %d @ %d, %d left, match %d", e.Side, e.Qty, e.Price, e.Leaves, e.Match)
		case book.Rejected:
			return e.Reason.String()
		case book.Cancelled:
			return fmt.Sprintf("%v %d @ %d", e.Side, e.Qty, e.Price)
		}
		return fmt.Sprintf("%v %d @ %d, venue id %d", e.Side, e.Qty, e.Price, e.Venue)
	}
	if c, ok := engine.ParseCommand(typ, payload); ok {
		if c.Action == book.Cancel {
			return ""
		}
		return fmt.Sprintf("%v %d @ %d", c.Side, c.Qty, c.Price)
	}
	var r flow.Report
	if r.UnmarshalBinary(payload) == nil {
		side := map[byte]string{'A': "ask", 'B': "bid"}[r.Side]
		return fmt.Sprintf("%s %d @ %.2f", side, r.Size, float64(r.Price)/1e9)
	}
	return fmt.Sprintf("%d bytes", len(payload))
}
