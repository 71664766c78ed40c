package replay

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/wal"
)

// Catalog is where data from outside of the log is kept, such as market data in files. R is its kind of record. Package
// markers has a Catalog of its own: that one is asked for one stream up to an entry, this one for a class over a range.
type Catalog[R any] interface {
	// Plan says what the catalog has for a query, without loading it.
	Plan(ctx context.Context, q CatalogQuery) (Coverage, error)
	// Load returns the records of a query that Plan has covered. Records come one by one, so a slice may be larger than
	// memory.
	Load(ctx context.Context, q CatalogQuery, c Coverage) iter.Seq2[R, error]
}

// CatalogQuery is what a catalog is asked for: one class of records, between two times, both inclusive.
type CatalogQuery struct {
	Class       string
	Identifiers []string // nil: all
	Start, End  int64    // ns
}

// Coverage is what a catalog has for a query.
type Coverage struct {
	Files []string // or whatever the catalog calls them; none: it has nothing
}

// Slice is a part of a catalog that belongs to a part of the log.
type Slice struct {
	Class       string
	Identifiers []string
	Optional    bool    // it may be missing
	Bounds      *Bounds // nil: the least and greatest ts_init of the entries
}

// Bounds are times in ns, both inclusive.
type Bounds struct{ Start, End int64 }

// ErrEmptyCatalogSelection: a join without slices.
var ErrEmptyCatalogSelection = errors.New("no slice of the catalog is selected")

// MissingCatalogTimeBoundsError: a slice has no bounds, and there is no entry to take them from.
type MissingCatalogTimeBoundsError struct{ Class string }

func (e *MissingCatalogTimeBoundsError) Error() string {
	return fmt.Sprintf("slice %q: no time bounds are given, and no entry has any", e.Class)
}

// InvalidCatalogTimeRangeError: a slice ends before it begins.
type InvalidCatalogTimeRangeError struct {
	Class      string
	Start, End int64
}

func (e *InvalidCatalogTimeRangeError) Error() string {
	return fmt.Sprintf("slice %q: it ends at %d, before it begins at %d", e.Class, e.End, e.Start)
}

// MissingCatalogSliceError: the catalog has nothing for a slice that is not optional.
type MissingCatalogSliceError struct {
	Class       string
	Identifiers []string
}

func (e *MissingCatalogSliceError) Error() string {
	of := "any identifier"
	if e.Identifiers != nil {
		of = strings.Join(e.Identifiers, ", ")
	}
	return fmt.Sprintf("slice %q of %s: the catalog has nothing", e.Class, of)
}

// Is makes errors.Is(err, ErrInvalid) hold.
func (e *InvalidCatalogTimeRangeError) Is(target error) bool { return target == format.ErrInvalid }

// JoinPlan says which part of the log goes with which parts of a catalog.
type JoinPlan struct {
	Span   Span
	Slices []SlicePlan
}

// SlicePlan is one slice with its bounds resolved and what the catalog has of it.
type SlicePlan struct {
	Query    CatalogQuery
	Coverage Coverage
	Optional bool
}

// Missing reports whether the catalog has nothing.
func (s *SlicePlan) Missing() bool { return len(s.Coverage.Files) == 0 }

// PlanJoin reads the selected entries once for their span, and asks the catalog what it has. All that is wrong with the
// slices themselves is an error before the catalog is called.
func PlanJoin[R any](ctx context.Context, chain []*wal.Reader, q Query, slices []Slice, c Catalog[R]) (*JoinPlan, error) {
	if len(slices) == 0 {
		return nil, ErrEmptyCatalogSelection
	}
	if err := q.check(chain); err != nil {
		return nil, err
	}
	for _, s := range slices {
		if b := s.Bounds; b != nil && b.Start > b.End {
			return nil, &InvalidCatalogTimeRangeError{s.Class, b.Start, b.End}
		}
	}
	span, err := Select(ctx, chain, q, nil)
	if err != nil {
		return nil, err
	}
	p := &JoinPlan{Span: span}
	for _, s := range slices {
		cq := CatalogQuery{Class: s.Class, Start: span.MinInit, End: span.MaxInit}
		if len(s.Identifiers) > 0 {
			cq.Identifiers = s.Identifiers
		}
		switch {
		case s.Bounds != nil:
			cq.Start, cq.End = s.Bounds.Start, s.Bounds.End
		case span.Entries == 0:
			return nil, &MissingCatalogTimeBoundsError{s.Class}
		}
		p.Slices = append(p.Slices, SlicePlan{Query: cq, Optional: s.Optional})
	}
	for i := range p.Slices {
		s := &p.Slices[i]
		if s.Coverage, err = c.Plan(ctx, s.Query); err != nil {
			return nil, fmt.Errorf("slice %q: plan: %w", s.Query.Class, err)
		}
	}
	return p, nil
}

// Joined is a part of the log and what was going on outside meanwhile.
type Joined[R any] struct {
	Plan    *JoinPlan
	Entries func(visit func(run string, v *entry.View) error) error // as Select gives them
	Records []iter.Seq2[R, error]                                   // by slice; of a missing one: none
}

// Join plans, and makes the records readable. A slice that is missing and not optional is a *MissingCatalogSliceError, and
// nothing is loaded. The catalog's Load is called when a slice's records are asked for, and never for a missing one.
func Join[R any](ctx context.Context, chain []*wal.Reader, q Query, slices []Slice, c Catalog[R]) (*Joined[R], error) {
	p, err := PlanJoin(ctx, chain, q, slices, c)
	if err != nil {
		return nil, err
	}
	j := &Joined[R]{Plan: p, Entries: func(visit func(string, *entry.View) error) error {
		_, err := Select(ctx, chain, q, visit)
		return err
	}}
	for i := range p.Slices {
		s := &p.Slices[i]
		records := func(func(R, error) bool) {}
		switch {
		case !s.Missing():
			records = func(yield func(R, error) bool) { c.Load(ctx, s.Query, s.Coverage)(yield) }
		case !s.Optional:
			return nil, &MissingCatalogSliceError{s.Query.Class, s.Query.Identifiers}
		}
		j.Records = append(j.Records, records)
	}
	return j, nil
}
