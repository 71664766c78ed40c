package replay

import (
	"errors"
	"fmt"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
)

// Registry is the half of an Applier that knows the payload types: embed it beside Reset and Restore. It is an allow-list:
// types without a rule are ignored, and counted as such. Register everything before the replay; a Registry that changes no
// more is safe for concurrent use, as far as its rules are.
type Registry struct {
	rules map[string]rule
}

type rule struct {
	check func(v *entry.View) error // nil: of no consequence for the state
	apply func(v *entry.View) error
}

// NewRegistry returns an empty one.
func NewRegistry() *Registry { return &Registry{rules: map[string]rule{}} }

// On adds the rule for a payload type: decode makes a T of an entry, and apply carries it into the state. What decode
// returns may point into the view, which lives until apply returns. An error of decode becomes a *DecodeError. ErrIgnored
// from apply says that the entry does not concern the state, for example since what it is about is gone; the same entry
// must not be counted one way here and another way there. A second rule for a type is ErrInvalid.
func On[T any](r *Registry, typ string, decode func(v *entry.View) (T, error), apply func(m T) error) error {
	return r.add(typ, rule{
		check: func(v *entry.View) error {
			_, err := decode(v)
			return decodeError(err)
		},
		apply: func(v *entry.View) error {
			m, err := decode(v)
			if err != nil {
				return decodeError(err)
			}
			return apply(m)
		},
	})
}

func decodeError(err error) error {
	if err == nil {
		return nil
	}
	return &DecodeError{err}
}

// ForensicOnly names payload types that are in the log for people to read, and never change the state. They are counted
// as ignored and not decoded. The difference to a type that is not named at all: Knows tells the two apart, for a test that
// every type which the engine captures is one or the other.
func (r *Registry) ForensicOnly(types ...string) error {
	for _, typ := range types {
		if err := r.add(typ, rule{}); err != nil {
			return err
		}
	}
	return nil
}

func (r *Registry) add(typ string, rule rule) error {
	if _, ok := r.rules[typ]; ok {
		return fmt.Errorf("%w: payload type %q has a rule already", format.ErrInvalid, typ)
	}
	r.rules[typ] = rule
	return nil
}

// Knows says whether a payload type has a rule, and whether that is to replay it.
func (r *Registry) Knows(typ string) (known, replayed bool) {
	rule, known := r.rules[typ]
	return known, rule.apply != nil
}

// Apply implements the method of Applier.
func (r *Registry) Apply(v *entry.View) (applied bool, err error) {
	rule := r.rules[v.Type()]
	if rule.apply == nil {
		return false, nil
	}
	if err = rule.apply(v); errors.Is(err, ErrIgnored) {
		return false, nil
	}
	return err == nil, err
}

// Check implements Checker: it decodes the entry and forgets it.
func (r *Registry) Check(v *entry.View) (known bool, err error) {
	rule := r.rules[v.Type()]
	if rule.check == nil {
		return false, nil
	}
	return true, rule.check(v)
}
