package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/runlog-io/runlog/anchor"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/examples/exchange/book"
	"github.com/runlog-io/runlog/examples/exchange/flow"
)

// ErrDiverged: the engine makes something else of the logged commands than it did before. Another version of it wrote
// the log, or it is not as deterministic as it should be.
var ErrDiverged = errors.New("the log and the engine disagree")

// RecoverError says which entry could not be applied. It wraps ErrDiverged, or why the entry could not be read.
type RecoverError struct {
	Run string
	Seq uint64
	Err error
}

func (e *RecoverError) Error() string { return fmt.Sprintf("run %s: seq %d: %v", e.Run, e.Seq, e.Err) }

func (e *RecoverError) Unwrap() error { return e.Err }

// Recover applies one run's entries, without package replay and from the very first one. Call it for each run of the
// chain, oldest first, before Start. If see is not nil, it is called with each event that is in the log, after it was
// compared with the one the engine makes.
func (e *Engine) Recover(run string, entries iter.Seq2[entry.View, error], see func(seq uint64, v Event)) error {
	seq := uint64(0)
	r := Replayer{Engine: e}
	for v, err := range entries {
		if err != nil {
			return fmt.Errorf("run %s: after seq %d: %w", run, seq, err)
		}
		seq = v.Seq()
		if v.IsLifecycle() {
			continue
		}
		event, err := r.entry(&v)
		if err != nil {
			return &RecoverError{Run: run, Seq: seq, Err: err}
		}
		if see != nil && event.N != 0 {
			see(seq, event)
		}
	}
	return nil
}

// Replayer is the engine as package replay sees it.
type Replayer struct {
	*Engine
	See  func(run string, seq uint64, v Event) // called with each event after it was compared; may be nil
	run  string
	want []byte
}

// BeginRun implements replay.RunBeginner.
func (r *Replayer) BeginRun(run string) error { r.run = run; return nil }

// Reset implements replay.Applier.
func (r *Replayer) Reset(context.Context) error {
	n := New(r.seed)
	r.book, r.mirrors = n.book, n.mirrors
	r.commands, r.events, r.reports, r.strays = 0, 0, 0, 0
	r.last, r.made, r.logged = n.last, r.made[:0], 0
	return nil
}

// Restore implements replay.Applier.
func (r *Replayer) Restore(_ context.Context, _ anchor.Anchor, snapshot io.Reader) error {
	return r.restore(snapshot)
}

// Apply implements replay.Applier: commands are carried out again, and the events in the log are compared with those that
// come of it.
func (r *Replayer) Apply(v *entry.View) (applied bool, err error) {
	event, err := r.entry(v)
	if err == nil && r.See != nil && event.N != 0 {
		r.See(r.run, v.Seq(), event)
	}
	return err == nil, err
}

// AppendStateHash implements replay.Hasher.
func (r *Replayer) AppendStateHash(dst []byte) ([]byte, error) { return AppendHash(dst, r.Engine), nil }

// AppendHash appends the state's hash in the form in which it is recorded in the log.
func AppendHash(dst []byte, e *Engine) []byte { return binary.BigEndian.AppendUint64(dst, e.Hash()) }

// entry applies one entry; if it is an event, it is returned.
func (r *Replayer) entry(v *entry.View) (event Event, err error) {
	typ := v.Type()
	switch topic := v.Topic(); topic {
	case TopicCommands:
		return Event{}, r.command(v, typ)
	case TopicEvents:
		return r.compare(v, typ)
	case TopicReports:
		var rep flow.Report
		if err := rep.UnmarshalBinary(v.Payload()); err != nil {
			return Event{}, err
		}
		if typ != ReportType(rep.Action) {
			return Event{}, fmt.Errorf("type %q of a report with action %q: %w", typ, byte(rep.Action), ErrDiverged)
		}
		r.applyReport(rep)
		return Event{}, nil
	default:
		return Event{}, fmt.Errorf("unknown topic %q: %w", topic, ErrDiverged)
	}
}

func (r *Replayer) command(v *entry.View, typ string) error {
	c := flow.Command{At: v.TsInit()}
	if err := decodeCommand(v.Payload(), &c); err != nil {
		return err
	}
	switch {
	case r.Missing() > 0:
		return fmt.Errorf("command %d, but %d events of command %d are missing before it: %w",
			c.N, r.Missing(), r.last.N, ErrDiverged)
	case c.N != r.commands+1:
		return fmt.Errorf("command %d after command %d: %w", c.N, r.commands, ErrDiverged)
	case c.Action < book.Submit || c.Action > book.Cancel || typ != commandTypes[c.Action]:
		return fmt.Errorf("type %q of a command with action %d: %w", typ, c.Action, ErrDiverged)
	case v.ID() != newID(r.seed, commandIDs, c.N):
		return fmt.Errorf("command %d has id %v, of another seed: %w", c.N, v.ID(), ErrDiverged)
	}
	r.apply(c)
	return nil
}

// compare checks a logged event against the one that was made again.
func (r *Replayer) compare(v *entry.View, typ string) (Event, error) {
	if r.Missing() == 0 {
		return Event{}, fmt.Errorf("%s after all events of command %d: %w", typ, r.last.N, ErrDiverged)
	}
	want := r.event(r.logged)
	r.want = AppendEvent(r.want[:0], &want)
	switch {
	case typ != eventTypes[want.Kind] || !bytes.Equal(v.Payload(), r.want):
		var got Event
		if err := DecodeEvent(v.Payload(), &got); err != nil {
			return Event{}, err
		}
		return Event{}, fmt.Errorf("the log has %s %+v, the engine makes %s %+v: %w",
			typ, got, eventTypes[want.Kind], want, ErrDiverged)
	case v.ID() != newID(r.seed, eventIDs, want.N),
		v.CorrelationID() != newID(r.seed, orderIDs, want.Order),
		v.CausationID() != newID(r.seed, commandIDs, want.Command),
		v.TsInit() != want.At:
		return Event{}, fmt.Errorf("event %d has another id, header or time than the engine gives it: %w",
			want.N, ErrDiverged)
	}
	r.logged++
	r.events++
	return want, nil
}
