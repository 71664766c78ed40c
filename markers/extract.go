package markers

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/runlog-io/runlog/internal/format"
)

// Extractor says what a message of type T is. Its functions have to be safe for concurrent use.
type Extractor[T any] struct {
	Class string
	// ID names the stream within its class: a string that the message holds, since one that is built costs an allocation
	// for each message.
	ID func(m T) string
	// Times gives the time of the event and that at which the message was made, in ns since 1970 UTC.
	Times func(m T) (tsEvent, tsInit int64)
	// Fingerprint identifies the message's content. It is called for marked streams only. nil: all zeros.
	Fingerprint func(m T) Fingerprint
}

// extractor is an Extractor whose type only it knows.
type extractor interface {
	observe(m *Markers, msg any) error
	class() string
}

// Registry lists the Go types of the messages that are observed, and how to read them. The zero value is an empty one. A
// type is listed as it is: T and *T are two types. It is safe for concurrent use.
type Registry struct {
	mu    sync.Mutex                                 // serialises changes
	types atomic.Pointer[map[reflect.Type]extractor] // copied on write
}

// Register lists type T. Registering it again replaces its extractor, except in handles that exist.
func Register[T any](r *Registry, x Extractor[T]) error {
	t := reflect.TypeFor[T]()
	switch {
	case t.Kind() == reflect.Interface:
		return fmt.Errorf("%w: markers: register %v: an interface; register the types that implement it", format.ErrInvalid, t)
	case x.ID == nil || x.Times == nil:
		return fmt.Errorf("%w: markers: register %v: ID and Times are required", format.ErrInvalid, t)
	}
	if err := checkText("class", x.Class, MaxClass); err != nil {
		return fmt.Errorf("register %v: %w", t, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	types := maps.Clone(r.load())
	if types == nil {
		types = make(map[reflect.Type]extractor)
	}
	types[t] = &x
	r.types.Store(&types)
	return nil
}

func (r *Registry) load() map[reflect.Type]extractor {
	if p := r.types.Load(); p != nil {
		return *p
	}
	return nil
}

// Classes lists the classes of the registered types, sorted.
func (r *Registry) Classes() (list []string) {
	for _, x := range r.load() {
		list = append(list, x.class())
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func (x *Extractor[T]) class() string { return x.Class }

func (x *Extractor[T]) observe(m *Markers, msg any) error { return x.see(m, msg.(T)) }

func (x *Extractor[T]) see(m *Markers, msg T) error {
	s, err := m.stream(x.Class, x.ID(msg))
	if s == nil {
		return err
	}
	event, init := x.Times(msg)
	if !s.marked {
		s.Observe(init)
		return nil
	}
	var f Fingerprint
	if x.Fingerprint != nil {
		f = x.Fingerprint(msg)
	}
	s.Mark(event, init, f)
	return nil
}

// ObserveAny observes a message of any type. It reports false when the type is not registered. For a type known at
// compile time a Handle is faster. The error is that of Observe.
func (m *Markers) ObserveAny(r *Registry, msg any) (registered bool, err error) {
	x, ok := r.load()[reflect.TypeOf(msg)]
	if !ok {
		return false, nil
	}
	return true, x.observe(m, msg)
}

// Handle observes messages of one type. It is safe for concurrent use.
type Handle[T any] struct {
	m *Markers
	x *Extractor[T]
}

// Bind returns a handle for messages of type T, which must be registered: else the error is ErrInvalid.
func Bind[T any](m *Markers, r *Registry) (*Handle[T], error) {
	t := reflect.TypeFor[T]()
	x, ok := r.load()[t].(*Extractor[T])
	if !ok {
		return nil, fmt.Errorf("%w: markers: %v is not registered", format.ErrInvalid, t)
	}
	return &Handle[T]{m: m, x: x}, nil
}

// Observe observes a message. The error is that of Markers.Observe.
func (h *Handle[T]) Observe(msg T) error { return h.x.see(h.m, msg) }
