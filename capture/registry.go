package capture

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
)

// Encoder appends the encoding of m to dst, which is empty, and returns the extended slice; it adds keys to k. It may
// instead return bytes of its own, even such that m holds: they are copied by the log and never written to. An error
// means that m cannot be captured. An encoder keeps neither dst nor k, and has to be safe for concurrent use.
type Encoder[T any] func(dst []byte, m T, k *Keys) ([]byte, error)

// Headers link an entry to others. Zero ids mean "none"; nothing is ever made up.
type Headers struct {
	CorrelationID entry.ID // groups what belongs together; entries can be looked up by it
	CausationID   entry.ID // the ID of the entry that caused this one
}

// Option says more about a type at Register.
type Option[T any] struct{ apply func(*def[T]) }

// WithHeaders sets the function that reads a message's correlation and causation; nil removes it.
func WithHeaders[T any](f func(m T) Headers) Option[T] {
	return Option[T]{func(d *def[T]) { d.headers = f }}
}

// WithIdentity sets the function that reads a message's id; nil removes it. The id becomes the entry's ID, and a
// message is captured once per (payload type, id). False, or the zero id, means that this message has none: it is
// captured each time.
func WithIdentity[T any](f func(m T) (entry.ID, bool)) Option[T] {
	return Option[T]{func(d *def[T]) { d.identity = f }}
}

// WithTime sets the function that reads a message's own time, in ns since 1970 UTC, for ts_init; nil removes it.
// Without it ts_init is the time of the capture.
func WithTime[T any](f func(m T) int64) Option[T] {
	return Option[T]{func(d *def[T]) { d.time = f }}
}

// def is what is registered about a type; it is immutable once published by its slot.
type def[T any] struct {
	payloadType string
	encode      Encoder[T]
	headers     func(T) Headers
	identity    func(T) (entry.ID, bool)
	time        func(T) int64
}

// slot is the place of a type in a registry. It stays the same when the type is registered again, so handles that
// hold it see the change.
type slot[T any] struct {
	def atomic.Pointer[def[T]] // written under the registry's lock, read by captures
}

// anySlot is a slot whose type only the slot knows.
type anySlot interface {
	captureAny(a *Adapter, topic string, m any) (Result, error)
	encodeAny(m any) (entry.Draft, error)
	payloadType() string
}

// Registry is an allow-list of message types and how to capture them. The zero value is an empty registry. A Go type
// is listed as it is: T and *T are two types, and a wrapper does not list what it wraps.
type Registry struct {
	mu    sync.Mutex                               // serialises changes
	slots atomic.Pointer[map[reflect.Type]anySlot] // copied on write
}

// NewRegistry returns an empty registry.
func NewRegistry() *Registry { return &Registry{} }

// Register lists type T with its payload type, 1 to 255 bytes of UTF-8, and encoder. Registering T again replaces
// both, also for handles that exist; headers, identity and time functions stay unless an option replaces them. Two Go
// types may share a payload type, if their payloads can be decoded alike. T cannot be an interface, since no message
// has that type: list the types that implement it.
func Register[T any](r *Registry, payloadType string, enc Encoder[T], opts ...Option[T]) error {
	t := reflect.TypeFor[T]()
	if t.Kind() == reflect.Interface {
		return fmt.Errorf("%w: register %v: an interface; register the types that implement it", format.ErrInvalid, t)
	}
	if err := checkPayloadType(payloadType); err != nil {
		return fmt.Errorf("register %v: %w", t, err)
	}
	if enc == nil {
		return fmt.Errorf("%w: register %v: no encoder", format.ErrInvalid, t)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s, known := lookup[T](r)
	d := def[T]{}
	if known {
		d = *s.def.Load()
	} else {
		s = &slot[T]{}
	}
	d.payloadType, d.encode = payloadType, enc
	for _, o := range opts {
		if o.apply != nil {
			o.apply(&d)
		}
	}
	s.def.Store(&d)
	if !known {
		slots := maps.Clone(r.load())
		if slots == nil {
			slots = make(map[reflect.Type]anySlot)
		}
		slots[t] = s
		r.slots.Store(&slots)
	}
	return nil
}

// SetHeaders is WithHeaders for a type that is registered already; otherwise it fails with ErrNotRegistered.
func SetHeaders[T any](r *Registry, f func(m T) Headers) error { return change(r, WithHeaders(f)) }

// SetIdentity is WithIdentity for a type that is registered already; otherwise it fails with ErrNotRegistered.
func SetIdentity[T any](r *Registry, f func(m T) (entry.ID, bool)) error {
	return change(r, WithIdentity(f))
}

// SetTime is WithTime for a type that is registered already; otherwise it fails with ErrNotRegistered.
func SetTime[T any](r *Registry, f func(m T) int64) error { return change(r, WithTime(f)) }

func change[T any](r *Registry, o Option[T]) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := lookup[T](r)
	if !ok {
		return notRegistered(reflect.TypeFor[T]())
	}
	d := *s.def.Load()
	o.apply(&d)
	s.def.Store(&d)
	return nil
}

func (r *Registry) load() map[reflect.Type]anySlot {
	if p := r.slots.Load(); p != nil {
		return *p
	}
	return nil
}

func lookup[T any](r *Registry) (*slot[T], bool) {
	s, ok := r.load()[reflect.TypeFor[T]()].(*slot[T])
	return s, ok
}

// Len returns the number of registered types.
func (r *Registry) Len() int { return len(r.load()) }

// Contains reports whether the type of m is registered.
func (r *Registry) Contains(m any) bool {
	_, ok := r.load()[reflect.TypeOf(m)]
	return ok
}

// Type is a registered type.
type Type struct {
	Go          reflect.Type
	PayloadType string // the registered one; an encoder may set others
}

// Types lists what is registered, sorted by payload type, for audits of what a program captures.
func (r *Registry) Types() []Type {
	var types []Type
	for t, s := range r.load() {
		types = append(types, Type{t, s.payloadType()})
	}
	slices.SortFunc(types, func(a, b Type) int {
		return cmp.Or(cmp.Compare(a.PayloadType, b.PayloadType), cmp.Compare(a.Go.String(), b.Go.String()))
	})
	return types
}

// Encode returns the draft that a capture of m would submit, except for the topic, and for ts_init if the type has no
// time function. The caller owns it. It is for tests and tools. The error is ErrNotRegistered or an EncodeError.
func (r *Registry) Encode(m any) (entry.Draft, error) {
	s, ok := r.load()[reflect.TypeOf(m)]
	if !ok {
		return entry.Draft{}, notRegistered(reflect.TypeOf(m))
	}
	return s.encodeAny(m)
}

func (s *slot[T]) payloadType() string { return s.def.Load().payloadType }

func (s *slot[T]) encodeAny(m any) (entry.Draft, error) {
	var sc scratch
	d, err := s.def.Load().draft(&sc, "", m.(T), nil)
	if err != nil {
		return entry.Draft{}, err
	}
	// Nobody else knows sc, so only what may lie in the message has to be copied.
	d.Payload = append([]byte{}, d.Payload...)
	for i := range d.Keys {
		d.Keys[i].Value = strings.Clone(d.Keys[i].Value)
	}
	return d, nil
}

// draft runs the encoder and the extractors. The draft lives in sc. Without a clock, ts_init is left 0 if the type
// brings none.
func (d *def[T]) draft(sc *scratch, topic string, m T, now func() int64) (entry.Draft, error) {
	payload, err := d.encode(sc.buf[:0], m, &sc.keys)
	if err != nil {
		return entry.Draft{}, &EncodeError{Topic: topic, Type: d.payloadType, GoType: reflect.TypeFor[T](), Err: err}
	}
	draft := entry.Draft{Topic: topic, Type: d.payloadType, Payload: payload, Keys: sc.keys.list}
	if sc.keys.typ != "" {
		draft.Type = sc.keys.typ
	}
	if d.identity != nil {
		if id, ok := d.identity(m); ok {
			draft.ID = id
		}
	}
	if d.headers != nil {
		h := d.headers(m)
		draft.CorrelationID, draft.CausationID = h.CorrelationID, h.CausationID
	}
	switch {
	case d.time != nil:
		draft.TsInit = d.time(m)
	case now != nil:
		draft.TsInit = now()
	}
	return draft, nil
}
