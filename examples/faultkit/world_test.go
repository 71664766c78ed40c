package faultkit

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/vfs"
)

// bug is what a test plants in the engine. The zero value is no bug.
type bug struct {
	log    func(Log) Log
	replay func(entries) entries
}

// world is one seed's: a disk, a load, and what has left the engine. All of it follows from the seed.
type world struct {
	seed     uint64
	bug      bug
	mem      *vfs.Mem
	commands []Command
	handled  int                          // commands that Handle has taken
	released []Reply                      // that have left
	clock    func() runlog.Clock          // of the next start
	kinds    vfs.OpKind                   // operations that fault is called for
	fault    func(n int, op vfs.Op) error // called before each, counted from 1; an error fails it
	trace    []vfs.Op                     // those so far
}

func newWorld(seed uint64, size int, b bug) *world {
	w := &world{seed: seed, bug: b, commands: load(seed, size), kinds: vfs.OpChange}
	w.fault = func(int, vfs.Op) error { return nil }
	w.clock = func() runlog.Clock {
		c := &ticks{}
		c.Store(1_800_000_000_000_000_000 + int64(len(w.trace))*1_000_000)
		return c
	}
	w.watch(vfs.NewMem(vfs.MemOptions{SectorSize: []int{512, 4096}[seed%2], Garbage: true}))
	return w
}

// watch makes mem the world's disk.
func (w *world) watch(mem *vfs.Mem) {
	w.mem = mem
	mem.SetHook(func(op vfs.Op) error {
		if op.Kind&w.kinds == 0 {
			return nil
		}
		w.trace = append(w.trace, op)
		return w.fault(len(w.trace), op)
	})
}

// load makes commands.
func load(seed uint64, size int) (list []Command) {
	r := rand.New(rand.NewPCG(seed, 1))
	for range size {
		kind := []Kind{Reserve, Reserve, Fill, Release}[r.IntN(4)]
		list = append(list, Command{Kind: kind, Order: r.IntN(1 + size/4), Amount: 1 + r.Int64N(100)})
	}
	return list
}

// ticks is a clock that moves when it is read.
type ticks struct{ atomic.Int64 }

func (c *ticks) Now() int64 { return c.Add(1000) }

// config is the engine's own, but for what makes it deterministic: no goroutines, a clock and salts of its own.
func (w *world) config(mem *vfs.Mem, out func(Reply)) Config {
	return Config{
		Log: runlog.Options{
			Dir: "/data", Instance: "ledger", FS: mem, MaxPayload: 4 << 10, FirstSegmentBytes: 64 << 10, SegmentBytes: 64 << 10,
			Synchronous: true, Clock: w.clock(), Salts: rand.New(rand.NewPCG(w.seed, uint64(len(w.trace)))).Uint64,
			Sync: runlog.SyncInterval, // so that there are commands which are logged and not durable: else the gate is not tested
		},
		Out: out, log: w.bug.log, replay: w.bug.replay,
	}
}

// play is the engine's life: it starts, works, saves a snapshot, is killed, starts again, works and ends.
func (w *world) play() error {
	ctx := context.Background()
	half := len(w.commands) / 2
	for _, until := range []int{half, len(w.commands)} {
		e, err := Start(ctx, w.config(w.mem, func(r Reply) { w.released = append(w.released, r) }))
		if err != nil {
			return err
		}
		for i, c := range w.commands[e.Applied:until] {
			if err := e.Handle(c); err != nil {
				return err
			}
			w.handled = e.Applied
			switch i % 8 {
			case 3:
				err = e.Flush(ctx)
			case 6:
				err = e.Snapshot(ctx)
			}
			if err != nil {
				return err
			}
		}
		if until == half {
			w.watch(w.mem.Kill())
		} else if err := e.Close(ctx); err != nil {
			return err
		}
	}
	return nil
}

// model is the engine without a log: it never crashes. It gives the state after n commands, and all their replies.
func (w *world) model(n int) (State, []Reply) {
	s, replies := NewState(), []Reply{}
	for _, c := range w.commands[:n] {
		replies = append(replies, s.Apply(c))
	}
	return s, replies
}

// check starts the engine on what a fault has left and says what is wrong. atLeast commands must be there.
func (w *world) check(left *vfs.Mem, atLeast int) error {
	ctx := context.Background()
	e, err := Start(ctx, w.config(left, func(Reply) {}))
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	n := e.Applied
	if n < atLeast || n > len(w.commands) {
		return fmt.Errorf("%d commands are back, not %d to %d", n, atLeast, len(w.commands))
	}
	logged, err := commandsIn(left)
	if err != nil {
		return fmt.Errorf("the log: %w", err)
	}
	if !slices.Equal(logged, w.commands[:n]) {
		return fmt.Errorf("the state is that after %d commands, but the log has %v, want %v", n, logged, w.commands[:n])
	}
	state, replies := w.model(n)
	if got, want := text(e.State), text(state); got != want {
		return fmt.Errorf("state after %d commands: %s, want %s", n, got, want)
	}
	for _, r := range w.released {
		if r.N > n || r != replies[r.N-1] {
			return fmt.Errorf("reply %+v has left, but the log ends at command %d", r, n)
		}
	}
	for _, c := range w.commands[n:] { // life goes on
		if err := e.Handle(c); err != nil {
			return fmt.Errorf("after the restart: %w", err)
		}
	}
	if err := e.Close(ctx); err != nil {
		return fmt.Errorf("after the restart: %w", err)
	}
	if state, _ = w.model(len(w.commands)); text(e.State) != text(state) {
		return fmt.Errorf("at the end: state %s, want %s", text(e.State), text(state))
	}
	return nil
}

// commandsIn reads the log as an auditor does: without engine and snapshot, all runs in order.
func commandsIn(disk *vfs.Mem) (list []Command, err error) {
	o := runlog.ReaderOptions{FS: disk}
	runs, err := runlog.List("/data", o)
	if err != nil {
		return nil, err
	}
	for _, run := range runs {
		r, err := runlog.OpenReader(run.Dir, o)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		for v, err := range r.Scan(runlog.ScanOptions{Topic: topic}) {
			c := Command{}
			if err == nil {
				c, err = decode(v)
			}
			if err != nil {
				return nil, err
			}
			list = append(list, c)
		}
	}
	return list, nil
}

func text(s State) string {
	b, _ := json.Marshal(s)
	return string(b)
}
