package markers

import (
	"context"
	"fmt"
)

// Query asks for the rows of a stream whose ts_init lies between From and To, both included.
type Query struct {
	Class, ID string
	From, To  int64
}

// Catalog is outside data: what was on the streams, kept elsewhere. Package replay has a Catalog of its own, which is asked
// for a whole class over a range.
type Catalog[R any] interface {
	// Replayable reports whether rows of a class can be asked for. Of others only the order is known.
	Replayable(class string) bool
	// Covers reports whether the catalog has the stream's data for all of the time.
	Covers(ctx context.Context, q Query) (bool, error)
	// Load returns the rows, ordered by ts_init. It is called if Covers has said so.
	Load(ctx context.Context, q Query) ([]R, error)
}

// Joined is what the engine had seen when it made an entry, with the data itself.
type Joined[R any] struct {
	State   State
	Streams []JoinedStream[R] // those of which messages were seen, by slot
}

// JoinedStream is a stream with its rows.
type JoinedStream[R any] struct {
	Cursor
	OrderOnly bool // the catalog cannot replay the class
	Covered   bool // the catalog has the data
	Rows      []R  // at most Count
	// Candidate: the rows need not be those that the engine had seen. There are more or fewer in the time than it counted,
	// the catalog does not cover it, or records were dropped.
	Candidate bool
}

// JoinError says which stream could not be joined.
type JoinError struct {
	Query Query
	Op    string // Covers or Load
	Err   error
}

func (e *JoinError) Error() string {
	return fmt.Sprintf("markers: join %s %s: %s: %v", e.Query.Class, e.Query.ID, e.Op, e.Err)
}

func (e *JoinError) Unwrap() error { return e.Err }

// JoinAt returns what the engine had seen when it made the entry with this seq, joined with the rows of a catalog. Each
// stream's rows are asked for from the lowest time to the highest that it had shown in this run. A *JoinError comes from
// the catalog; other errors are those of SeenAt.
func JoinAt[R any](ctx context.Context, r *Reader, seq uint64, catalog Catalog[R]) (Joined[R], error) {
	st, err := r.SeenAt(seq)
	if err != nil {
		return Joined[R]{}, err
	}
	j := Joined[R]{State: st}
	for _, c := range st.Cursors {
		if c.Count == 0 {
			continue
		}
		s := JoinedStream[R]{Cursor: c, OrderOnly: !catalog.Replayable(c.Class)}
		if !s.OrderOnly {
			if err := s.load(ctx, catalog); err != nil {
				return Joined[R]{}, err
			}
			s.Candidate = s.Candidate || st.Loss == Some
		}
		j.Streams = append(j.Streams, s)
	}
	return j, nil
}

func (s *JoinedStream[R]) load(ctx context.Context, catalog Catalog[R]) (err error) {
	q := Query{Class: s.Class, ID: s.ID, From: s.Lowest, To: s.Highest}
	if s.Covered, err = catalog.Covers(ctx, q); err != nil {
		return &JoinError{Query: q, Op: "Covers", Err: err}
	}
	if !s.Covered {
		s.Candidate = true
		return nil
	}
	if s.Rows, err = catalog.Load(ctx, q); err != nil {
		return &JoinError{Query: q, Op: "Load", Err: err}
	}
	n := uint64(len(s.Rows))
	s.Candidate = n != s.Count
	if n > s.Count {
		s.Rows = s.Rows[n-s.Count:]
	}
	return nil
}
