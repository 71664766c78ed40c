package capture

import (
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
)

// Submitter is the log as capture needs it. Submit copies all that the draft refers to before it returns, and gives
// the seq. An error that is runlog.ErrInvalid is this draft's fault; any other means that the log takes no more
// entries. If messages are captured concurrently, Submit is called concurrently.
type Submitter interface {
	Submit(d entry.Draft) (seq uint64, err error)
}

// Outcome says what became of a message that was captured without an error.
type Outcome uint8

// The outcomes. The zero value goes with an error.
const (
	Captured      Outcome = 1 + iota // accepted by the log
	NotRegistered                    // its type is not on the list: nothing was done
	Duplicate                        // its identity is in the log already: nothing was done
)

func (o Outcome) String() string {
	switch o {
	case 0:
		return "failed"
	case Captured:
		return "captured"
	case NotRegistered:
		return "not registered"
	case Duplicate:
		return "duplicate"
	}
	return fmt.Sprintf("Outcome(%d)", uint8(o))
}

// Result is what a capture without an error gives; with an error it is zero.
type Result struct {
	Outcome Outcome
	Seq     uint64 // of the accepted entry; 0 unless Captured
}

// DefaultWindow is the number of identities that an adapter remembers by default.
const DefaultWindow = 65536

// Options of an Adapter.
type Options struct {
	// Window is the number of identities that are remembered, at 32 to 40 bytes each, over all types: it bounds how
	// many other messages may lie between two hops of one. 0 means DefaultWindow; at most 1<<26; negative: no
	// de-duplication.
	Window int

	// Count is incremented with each message captured; it may be shared. nil: not counted.
	Count *atomic.Uint64

	// Now gives ts_init, in ns since 1970 UTC, of messages that bring no time of their own. nil: the system's clock.
	Now func() int64

	// Strict makes Tap refuse messages whose types are not registered. The default lets them pass, uncaptured.
	Strict bool
}

// Adapter captures messages into one log. It is safe for concurrent use.
type Adapter struct {
	reg    *Registry
	sub    Submitter
	now    func() int64
	count  *atomic.Uint64
	strict bool

	ended atomic.Pointer[EndedError] // set once, by whichever capture meets the first error
	pool  sync.Pool                  // of *scratch

	window  *window // nil: no de-duplication
	seed    maphash.Seed
	stripes [stripes]stripe // by identity: whoever checks, submits and remembers it holds the lock
}

// stripes is how many identities can be captured at the same time: more than the CPUs, as a holder may wait for the
// log.
const stripes = 64

type stripe struct {
	sync.Mutex
	_ [56]byte // one cache line each
}

// scratch is the memory of one capture at a time.
type scratch struct {
	buf  []byte // handed to encoders
	keys Keys
}

// keepBytes bounds the buffers that idle scratch memory keeps.
const keepBytes = entry.DefaultMaxPayload

// New returns an adapter that captures what reg lists into sub. The registry may be changed later.
func New(reg *Registry, sub Submitter, o Options) (*Adapter, error) {
	switch {
	case reg == nil:
		return nil, fmt.Errorf("%w: capture: no Registry", format.ErrInvalid)
	case sub == nil:
		return nil, fmt.Errorf("%w: capture: no Submitter", format.ErrInvalid)
	case o.Window > maxWindow:
		return nil, fmt.Errorf("%w: capture: Window of %d, the limit is %d", format.ErrInvalid, o.Window, maxWindow)
	case o.Window == 0:
		o.Window = DefaultWindow
	}
	a := &Adapter{reg: reg, sub: sub, now: o.Now, count: o.Count, strict: o.Strict, seed: maphash.MakeSeed()}
	if a.now == nil {
		a.now = func() int64 { return time.Now().UnixNano() }
	}
	if a.count == nil {
		a.count = new(atomic.Uint64)
	}
	if o.Window > 0 {
		a.window = newWindow(o.Window)
	}
	a.pool.New = func() any { return new(scratch) }
	return a, nil
}

// Registry returns the adapter's registry.
func (a *Adapter) Registry() *Registry { return a.reg }

// Err returns nil while messages can be captured, and the *EndedError after that.
func (a *Adapter) Err() error {
	if e := a.ended.Load(); e != nil {
		return e
	}
	return nil
}

// CaptureAny captures a message of any type. For a type known at compile time a Handle is faster.
func (a *Adapter) CaptureAny(topic string, m any) (Result, error) {
	if e := a.ended.Load(); e != nil {
		return Result{}, e
	}
	s, ok := a.reg.load()[reflect.TypeOf(m)]
	if !ok {
		return Result{Outcome: NotRegistered}, nil
	}
	return s.captureAny(a, topic, m)
}

// Tap captures a message and then calls next, which dispatches it. It does not call next, and returns the error, if
// the message should be in the log and is not: nobody acts on what was not captured. A duplicate, on its second hop,
// passes. So does a message whose type is not registered, unless Options.Strict is set: then the error is
// ErrNotRegistered.
//
// next runs when the log has accepted the message, which does not mean that it is durable.
func (a *Adapter) Tap(topic string, m any, next func()) error {
	r, err := a.CaptureAny(topic, m)
	if err != nil {
		return err
	}
	if r.Outcome == NotRegistered && a.strict {
		return fmt.Errorf("topic %q: %w", topic, notRegistered(reflect.TypeOf(m)))
	}
	next()
	return nil
}

// Handle captures messages of one type, by default to one topic. It is safe for concurrent use.
type Handle[T any] struct {
	a     *Adapter
	slot  *slot[T]
	topic string
}

// Bind returns a handle for messages of type T; if that is not registered, the error is ErrNotRegistered. The topic
// may be empty if only CaptureTo is used.
func Bind[T any](a *Adapter, topic string) (*Handle[T], error) {
	s, ok := lookup[T](a.reg)
	if !ok {
		return nil, fmt.Errorf("bind topic %q: %w", topic, notRegistered(reflect.TypeFor[T]()))
	}
	return &Handle[T]{a: a, slot: s, topic: topic}, nil
}

// Topic returns the handle's topic.
func (h *Handle[T]) Topic() string { return h.topic }

// Capture captures m to the handle's topic. The outcome is Captured or Duplicate.
func (h *Handle[T]) Capture(m T) (Result, error) { return h.slot.capture(h.a, h.topic, m) }

// CaptureTo captures m to another topic.
func (h *Handle[T]) CaptureTo(topic string, m T) (Result, error) {
	return h.slot.capture(h.a, topic, m)
}

func (s *slot[T]) captureAny(a *Adapter, topic string, m any) (Result, error) {
	return s.capture(a, topic, m.(T))
}

func (s *slot[T]) capture(a *Adapter, topic string, m T) (Result, error) {
	if e := a.ended.Load(); e != nil {
		return Result{}, e
	}
	sc := a.pool.Get().(*scratch)
	d, err := s.def.Load().draft(sc, topic, m, a.now)
	if err != nil {
		a.release(sc, nil)
		return Result{}, err
	}
	var r Result
	if d.ID.IsZero() || a.window == nil {
		r, err = a.submit(d)
	} else {
		r, err = a.submitOnce(d)
	}
	a.release(sc, d.Payload)
	return r, err
}

// release gives scratch memory back. If the payload did not fit, the buffer grows. The payload's own memory is not
// taken over: an encoder may have returned a slice of the message.
func (a *Adapter) release(sc *scratch, payload []byte) {
	if n := len(payload); n > cap(sc.buf) && n <= keepBytes {
		sc.buf = make([]byte, 0, min(max(n, 2*cap(sc.buf), 256), keepBytes))
	}
	sc.keys.reset()
	a.pool.Put(sc)
}

// submitOnce submits a draft with an identity, unless that is remembered. The lock is held over check, submit and
// remember, so that of concurrent captures one submits and the others see its success, or try for themselves after
// its failure.
func (a *Adapter) submitOnce(d entry.Draft) (Result, error) {
	hash := maphash.Bytes(a.seed, d.ID[:])
	l := &a.stripes[hash>>32%stripes]
	l.Lock()
	defer l.Unlock()
	if e := a.ended.Load(); e != nil { // while waiting
		return Result{}, e
	}
	if a.window.has(d.Type, d.ID, hash) {
		return Result{Outcome: Duplicate}, nil
	}
	r, err := a.submit(d)
	if err == nil {
		a.window.add(d.Type, d.ID, hash)
	}
	return r, err
}

func (a *Adapter) submit(d entry.Draft) (Result, error) {
	seq, err := a.sub.Submit(d)
	if err == nil {
		a.count.Add(1)
		return Result{Outcome: Captured, Seq: seq}, nil
	}
	if errors.Is(err, format.ErrInvalid) {
		return Result{}, &DraftError{Topic: d.Topic, Type: d.Type, Err: err}
	}
	a.ended.CompareAndSwap(nil, &EndedError{Topic: d.Topic, Type: d.Type, Err: err})
	return Result{}, a.ended.Load()
}

// Seed remembers an identity as if it had been captured before all that are remembered so far: seed the newest first.
// It reports false when the window is full, so that older ones need not be sought. The zero id is no identity and is
// passed over.
func (a *Adapter) Seed(payloadType string, id entry.ID) (more bool) {
	if a.window == nil {
		return false
	}
	if id.IsZero() {
		return !a.window.full()
	}
	_, full := a.window.addOldest(payloadType, id, maphash.Bytes(a.seed, id[:]))
	return !full
}

// SeedFrom remembers the identities of entries that earlier runs hold, so that a message delivered again after a
// restart is a duplicate. The entries come newest first, and so do the runs, one call for each; it stops when the
// window is full. Call it before capturing:
//
//	parents, err := run.Parents() // newest first
//	if err != nil && !errors.Is(err, fs.ErrNotExist) { // retention removes old runs
//		return err
//	}
//	for _, parent := range parents {
//		if _, err := a.SeedFrom(parent.Scan(runlog.ScanOptions{Reverse: true})); err != nil {
//			return err
//		}
//	}
//
// Entries without an ID count for nothing, so a scan over a log that has few is long: bound it with ScanOptions.From.
// The result is how many identities are new to the window; an error of the sequence ends it and is returned, what
// came before stays.
func (a *Adapter) SeedFrom(newestFirst iter.Seq2[entry.View, error]) (added int, err error) {
	if a.window == nil || a.window.full() {
		return 0, nil
	}
	for v, err := range newestFirst {
		if err != nil {
			return added, fmt.Errorf("seed identities: %w", err)
		}
		id := v.ID()
		if id.IsZero() {
			continue
		}
		ok, full := a.window.addOldest(v.Type(), id, maphash.Bytes(a.seed, id[:]))
		if ok {
			added++
		}
		if full {
			break
		}
	}
	return added, nil
}
