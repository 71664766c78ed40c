// Package faultkit is a template: a small risk ledger on runlog, and tests that show that it recovers, whatever the
// disk does. docs/fault-kit.md walks through them.
//
// The ledger reserves money for orders, gives it back, and spends it on fills. Three rules make it survive a crash. A
// command is in the log before it is applied. A reply leaves when its command is durable. A snapshot never knows more
// than the log: it is taken of durable commands only, and says up to which entry.
package faultkit

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"slices"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/vfs"
)

// Kind is what a command does, and the payload type of its entry.
type Kind string

// The commands.
const (
	Reserve Kind = "Reserve" // sets Amount aside for a new order
	Release Kind = "Release" // gives back what is left of an order's reservation
	Fill    Kind = "Fill"    // spends Amount of it
)

// Command is one message that changes the state.
type Command struct {
	Kind   Kind  `json:"-"`
	Order  int   `json:"order"`
	Amount int64 `json:"amount,omitempty"`
}

// Reply is what a client is told. Replies are numbered, so that a client can tell one that it has had already.
type Reply struct {
	N    int // number of the command, from 1
	OK   bool
	Free int64
}

const topic = "ledger.commands"

// State is all that the engine must not forget. Apply is its only writer.
type State struct {
	Applied  int // commands
	Free     int64
	Spent    int64
	Reserved map[int]int64 // by order
}

// NewState is the state before the first command.
func NewState() State { return State{Free: 1000, Reserved: map[int]int64{}} }

// Apply carries a command out. It depends on state and command only: no clock, no chance.
func (s *State) Apply(c Command) Reply {
	s.Applied++
	held, known := s.Reserved[c.Order]
	ok := known
	switch {
	case c.Kind == Reserve:
		if ok = !known && c.Amount <= s.Free; ok {
			s.Free -= c.Amount
			s.Reserved[c.Order] = c.Amount
		}
	case c.Kind == Release && known:
		s.Free += held
		delete(s.Reserved, c.Order)
	case c.Kind == Fill:
		if ok = known && c.Amount <= held; ok {
			s.Spent += c.Amount
			s.Reserved[c.Order] -= c.Amount
		}
	}
	return Reply{N: s.Applied, OK: ok, Free: s.Free}
}

// Log is what the engine needs of a *runlog.Run once it is open.
type Log interface {
	Submit(runlog.Draft) (uint64, error)
	Durable() uint64
	WaitDurable(ctx context.Context, seq uint64) error
}

type entries = iter.Seq2[runlog.View, error]

// Config says how to start an engine.
type Config struct {
	Log runlog.Options
	Out func(Reply) // lets a reply leave

	// Tests plant bugs here.
	log    func(Log) Log
	replay func(entries) entries
}

// Engine is the ledger. It belongs to one goroutine.
type Engine struct {
	State
	config Config
	run    *runlog.Run
	log    Log
	last   uint64 // seq of the last command in this run
	gate   runlog.Gate[Reply]
}

// Start opens a run and rebuilds the state of the runs before.
func Start(ctx context.Context, config Config) (*Engine, error) {
	config.Log.FS = cmp.Or(config.Log.FS, vfs.OS)
	run, err := runlog.Open(ctx, config.Log)
	if err != nil {
		return nil, err
	}
	e := &Engine{State: NewState(), config: config, run: run, log: run}
	if config.log != nil {
		e.log = config.log(run)
	}
	if err := e.recover(); err != nil {
		return nil, errors.Join(err, run.Abandon(ctx, err)) // the next Start finds the same parents
	}
	return e, nil
}

// recover loads the snapshot, if there is one, and applies what the log holds beyond it, oldest run first.
func (e *Engine) recover() error {
	snap, err := e.loadSnapshot()
	if err != nil {
		return err
	}
	for _, p := range e.run.Predecessors() {
		if p.Err != nil && p.Run >= snap.Run { // damaged, or not readable now: to go on without it would be to forget it
			return fmt.Errorf("run %s: %w", p.Run, p.Err)
		}
	}
	parents, err := e.run.Parents()
	if err != nil {
		return err
	}
	for _, p := range slices.Backward(parents) {
		id, from := p.Manifest().Run, uint64(1)
		switch {
		case id < snap.Run: // ids sort by start time
			continue
		case id == snap.Run:
			from = snap.Seq + 1
		}
		scan := p.Scan(runlog.ScanOptions{From: from, Topic: topic})
		if e.config.replay != nil {
			scan = e.config.replay(scan)
		}
		for v, err := range scan {
			if err != nil {
				return err
			}
			c, err := decode(v)
			if err != nil {
				return fmt.Errorf("run %s: %w", id, err)
			}
			e.Apply(c)
		}
	}
	return nil
}

func decode(v runlog.View) (Command, error) {
	c := Command{Kind: Kind(v.Type())}
	if err := json.Unmarshal(v.Payload(), &c); err != nil {
		return c, fmt.Errorf("seq %d: %w", v.Seq(), err)
	}
	return c, nil
}

// Handle logs a command, applies it, and holds the reply until the command is durable. After an error the engine is
// finished: nothing that was held may leave.
func (e *Engine) Handle(c Command) error {
	payload, err := json.Marshal(c)
	if err != nil {
		return err
	}
	seq, err := e.log.Submit(runlog.Draft{Topic: topic, Type: string(c.Kind), Payload: payload})
	if err != nil {
		return err
	}
	e.last = seq
	e.gate.Hold(seq, e.Apply(c))
	e.gate.Release(e.log.Durable(), e.config.Out)
	return nil
}

// Flush waits until all commands are durable and lets their replies out.
func (e *Engine) Flush(ctx context.Context) error {
	if err := e.log.WaitDurable(ctx, e.last); err != nil {
		return err
	}
	e.gate.Release(e.log.Durable(), e.config.Out)
	return nil
}

// snapshot is a State and the last entry that is in it.
type snapshot struct {
	Run   string
	Seq   uint64
	State State
}

func (e *Engine) snapshotFile() string { return path.Join(e.config.Log.Dir, "snapshot") }

func (e *Engine) loadSnapshot() (s snapshot, err error) {
	b, err := vfs.ReadFile(e.config.Log.FS, e.snapshotFile(), 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err == nil {
		e.State = s.State
	}
	return s, err
}

// Snapshot saves the state, so that a restart has less to replay.
func (e *Engine) Snapshot(ctx context.Context) error {
	if err := e.Flush(ctx); err != nil { // or the snapshot would hold commands that a power cut takes from the log
		return err
	}
	b, err := json.Marshal(snapshot{Run: e.run.ID(), Seq: e.last, State: e.State})
	if err != nil {
		return err
	}
	return vfs.WriteFileAtomic(e.config.Log.FS, e.config.Log.Dir, e.snapshotFile(), b)
}

// Close ends the run. Runs that ended are nobody's parent: the snapshot carries the state on.
func (e *Engine) Close(ctx context.Context) error {
	if err := e.Snapshot(ctx); err != nil {
		return errors.Join(err, e.run.Abandon(ctx, err))
	}
	return e.run.Close(ctx)
}
