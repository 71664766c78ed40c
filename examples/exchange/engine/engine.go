package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/capture"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/examples/exchange/book"
	"github.com/runlog-io/runlog/examples/exchange/flow"
)

// Log is what the engine needs of a run: *runlog.Run is one.
type Log interface {
	capture.Submitter
	Durable() uint64
	WaitDurable(ctx context.Context, seq uint64) error
}

// Message leaves the engine: an event, and the log's entry that vouches for it.
type Message struct {
	Event
	Run int    // place of the run in the chain, oldest first, from 0
	Seq uint64 // in that run
}

// Window is how many commands the engine takes before it waits until the first half of them is durable. It bounds what
// the gate holds, and keeps an engine that is faster than its disk from filling the log's queue, where each submit
// would wait.
const Window = 32768

// releaseEvery is how often, in commands, the gate looks at the watermark.
const releaseEvery = 128

// identities is how many messages the adapter remembers to tell duplicates. Nothing is delivered twice here unless a
// recovered engine goes on at the wrong place, and then the very first message says so.
const identities = 4096

// Engine is an exchange with one instrument, or the mirror of a venue with several.
type Engine struct {
	book     *book.Book
	mirrors  map[uint32]*book.Book // of the venue's instruments
	seed     uint64
	commands uint64 // handled
	events   uint64 // made
	reports  uint64
	strays   uint64 // reports about orders that the mirror does not know
	last     flow.Command
	made     []book.Event // by the last command
	logged   int          // how many of them are in the log

	log        Log
	runNo      int
	commandLog *capture.Handle[flow.Command]
	eventLog   *capture.Handle[Event]
	reportLog  *capture.Handle[flow.Report]
	gate       runlog.Gate[Message]
	out        func(Message)
	halfSeq    uint64 // the last seq when the window was half full
	lastSeq    uint64

	// What the engine's thread feels: of each capture, and of the submit to the log within it.
	CaptureLatency Histogram
	SubmitLatency  Histogram
}

// timedLog times each submit.
type timedLog struct {
	Log
	h *Histogram
}

func (l *timedLog) Submit(d entry.Draft) (uint64, error) {
	start := time.Now()
	seq, err := l.Log.Submit(d)
	l.h.Record(time.Since(start))
	return seq, err
}

// New returns an empty engine. The seed is that of the flow; ids are made from it.
func New(seed uint64) *Engine {
	return &Engine{book: book.New(1 << 10), mirrors: make(map[uint32]*book.Book), seed: seed, out: func(Message) {}}
}

// Start connects the engine to the run that it writes from now on, after Recover if there are predecessors, and
// captures the events that their torn end has lost. out is called for each message that may leave. The adapter
// remembers the identities of what it captured; seedFrom lets it remember those of the predecessors, too. It may be
// nil.
func (e *Engine) Start(log Log, runNo int, out func(Message), seedFrom func(*capture.Adapter) error) error {
	reg := capture.NewRegistry()
	if err := errors.Join(
		capture.Register(reg, "Command", e.encodeCommand,
			capture.WithIdentity(func(c flow.Command) (entry.ID, bool) { return newID(e.seed, commandIDs, c.N), true }),
			capture.WithHeaders(func(c flow.Command) capture.Headers {
				return capture.Headers{CorrelationID: newID(e.seed, orderIDs, c.Order)}
			}),
			capture.WithTime(func(c flow.Command) int64 { return c.At })),
		capture.Register(reg, "Event", e.encodeEvent,
			capture.WithIdentity(func(v Event) (entry.ID, bool) { return newID(e.seed, eventIDs, v.N), true }),
			capture.WithHeaders(func(v Event) capture.Headers {
				return capture.Headers{
					CorrelationID: newID(e.seed, orderIDs, v.Order),
					CausationID:   newID(e.seed, commandIDs, v.Command),
				}
			}),
			capture.WithTime(func(v Event) int64 { return v.At })),
		// A venue's report has no id of its own, and none is made up.
		capture.Register(reg, "Report", encodeReport,
			capture.WithTime(func(r flow.Report) int64 { return r.TsEvent })),
	); err != nil {
		return err
	}
	adapter, err := capture.New(reg, &timedLog{log, &e.SubmitLatency}, capture.Options{Window: identities})
	if err != nil {
		return err
	}
	if seedFrom != nil {
		if err := seedFrom(adapter); err != nil {
			return err
		}
	}
	var errs [3]error
	e.commandLog, errs[0] = capture.Bind[flow.Command](adapter, TopicCommands)
	e.eventLog, errs[1] = capture.Bind[Event](adapter, TopicEvents)
	e.reportLog, errs[2] = capture.Bind[flow.Report](adapter, TopicReports)
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	e.log, e.runNo, e.out = log, runNo, out
	return e.logEvents()
}

func (e *Engine) encodeCommand(dst []byte, c flow.Command, k *capture.Keys) ([]byte, error) {
	if int(c.Action) >= len(commandTypes) || c.Action == 0 {
		return nil, fmt.Errorf("command %d: unknown action %d", c.N, c.Action)
	}
	k.SetType(commandTypes[c.Action])
	k.AddUint(entry.ClientOrderID, c.Order)
	return appendCommand(dst, &c), nil
}

func (e *Engine) encodeEvent(dst []byte, v Event, k *capture.Keys) ([]byte, error) {
	k.SetType(eventTypes[v.Kind])
	k.AddUint(entry.ClientOrderID, v.Order)
	if v.Venue != 0 {
		k.AddUint(entry.VenueOrderID, v.Venue)
	}
	return AppendEvent(dst, &v), nil
}

func encodeReport(dst []byte, r flow.Report, k *capture.Keys) ([]byte, error) {
	k.SetType(ReportType(r.Action))
	if r.OrderID != 0 {
		k.AddUint(entry.VenueOrderID, r.OrderID)
	}
	return r.AppendBinary(dst)
}

// captured turns what a capture gave into an error unless the message is in the log now.
func (e *Engine) captured(what string, n uint64, start time.Time, r capture.Result, err error) error {
	e.CaptureLatency.Record(time.Since(start))
	if err == nil && r.Outcome != capture.Captured {
		err = errors.New(r.Outcome.String()) // its number says that it is new: the engine has gone on at the wrong place
	}
	if err != nil {
		return fmt.Errorf("%s %d: %w", what, n, err)
	}
	e.lastSeq = r.Seq
	return nil
}

// Handle captures one command, carries it out and captures the events. Commands come in the order of their numbers.
func (e *Engine) Handle(ctx context.Context, c flow.Command) error {
	if c.N != e.commands+1 {
		return fmt.Errorf("command %d comes after command %d", c.N, e.commands)
	}
	start := time.Now()
	r, err := e.commandLog.Capture(c)
	if err := e.captured("command", c.N, start, r, err); err != nil {
		return err // and the book is as it was: nobody acts on what was not captured
	}
	e.apply(c)
	if err := e.logEvents(); err != nil {
		return err
	}
	return e.pace(ctx, e.commands)
}

// apply carries out a command that is in the log.
func (e *Engine) apply(c flow.Command) {
	e.commands, e.last = c.N, c
	e.made, e.logged = e.book.Apply(c.Command, e.made[:0]), 0
}

// event returns event i of the last command.
func (e *Engine) event(i int) Event {
	return Event{Event: e.made[i], N: e.events + uint64(i-e.logged) + 1, Command: e.last.N, At: e.last.At}
}

// logEvents captures the last command's events that are not in the log yet.
func (e *Engine) logEvents() error {
	for e.logged < len(e.made) {
		v := e.event(e.logged)
		start := time.Now()
		r, err := e.eventLog.Capture(v)
		if err := e.captured("event", v.N, start, r, err); err != nil {
			return err
		}
		e.logged++
		e.events++
		e.gate.Hold(r.Seq, Message{Event: v, Run: e.runNo, Seq: r.Seq})
	}
	return nil
}

// Report captures what a venue reports about its book, and mirrors it.
func (e *Engine) Report(ctx context.Context, r flow.Report) error {
	start := time.Now()
	res, err := e.reportLog.Capture(r)
	if err := e.captured("report", e.reports+1, start, res, err); err != nil {
		return err
	}
	e.applyReport(r)
	return e.pace(ctx, e.reports)
}

// pace opens the gate now and then, and waits for the disk if the engine is a whole window ahead.
func (e *Engine) pace(ctx context.Context, n uint64) error {
	switch {
	case n%(Window/2) == 0:
		seq := e.halfSeq
		e.halfSeq = e.lastSeq
		if seq == 0 {
			return nil
		}
		if err := e.log.WaitDurable(ctx, seq); err != nil {
			return err
		}
	case n%releaseEvery != 0:
		return nil
	}
	e.Release()
	return nil
}

// Release lets out what is durable by now.
func (e *Engine) Release() { e.gate.Release(e.log.Durable(), e.out) }

// Flush waits until everything captured is durable and lets it out.
func (e *Engine) Flush(ctx context.Context) error {
	if e.lastSeq > 0 {
		if err := e.log.WaitDurable(ctx, e.lastSeq); err != nil {
			return err
		}
	}
	e.Release()
	return nil
}

// applyReport carries a report into the mirror of its instrument. Trades and fills do not change the book: the cancel
// or modify that follows them does.
func (e *Engine) applyReport(r flow.Report) {
	e.reports++
	b := e.mirrors[r.Instrument]
	if b == nil {
		b = book.New(1 << 12)
		e.mirrors[r.Instrument] = b
	}
	side := map[byte]book.Side{'B': book.Buy, 'A': book.Sell}[r.Side]
	ok := true
	switch r.Action {
	case flow.ActionAdd:
		ok = b.Add(r.OrderID, side, r.Price, r.Size)
	case flow.ActionCancel:
		ok = b.Reduce(r.OrderID, r.Size)
	case flow.ActionModify:
		ok = b.Replace(r.OrderID, r.Price, r.Size)
	case flow.ActionClear:
		b.Clear()
	}
	if !ok {
		e.strays++
	}
}
