package replay

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/wal"
)

// Query selects entries of a chain for a look at what happened. The zero value selects all.
type Query struct {
	From, To    uint64   // seqs, inclusive, if the chain has one run only; To 0: to its end; both 0: all
	Kind, Value string   // a key: one order, say; Kind "": any
	Correlation entry.ID // zero: any
}

// Span says what a Query has selected.
type Span struct {
	Entries     uint64
	First, Last Cursor
	// Times are the least and the greatest, not those of the first and the last entry: ts_init is in no particular order.
	MinInit, MaxInit       int64
	MinPublish, MaxPublish int64
}

func (s *Span) add(run string, v *entry.View) {
	init, publish := v.TsInit(), v.TsPublish()
	if s.Entries == 0 {
		s.First = Cursor{run, v.Seq()}
		s.MinInit, s.MaxInit, s.MinPublish, s.MaxPublish = init, init, publish, publish
	}
	s.Entries++
	s.Last = Cursor{run, v.Seq()}
	s.MinInit, s.MaxInit = min(s.MinInit, init), max(s.MaxInit, init)
	s.MinPublish, s.MaxPublish = min(s.MinPublish, publish), max(s.MaxPublish, publish)
}

// check says whether the query can be answered by the chain.
func (q *Query) check(chain []*wal.Reader) error {
	switch {
	case q.From == 0 && q.To == 0:
		return nil
	case q.From == 0:
		return &SeqRangeError{q.From, q.To, "seq is 1-based"}
	case q.To != 0 && q.From > q.To:
		return &SeqRangeError{q.From, q.To, "from_seq exceeds to_seq"}
	case len(chain) != 1:
		return &SeqRangeError{q.From, q.To, fmt.Sprintf("a range is about one run, and here are %d", len(chain))}
	}
	return nil
}

func (q *Query) covers(seq uint64) bool { return seq >= q.From && (q.To == 0 || seq <= q.To) }

// Select gives the selected entries to visit, each once, the oldest run first and in the order of their seqs, and says
// what they span. It applies nothing and needs no anchor, no store and no catalog; runs of any state will do, and what is
// good before damage is given before the error. A key is found through the indexes. visit may be nil; its error ends it.
func Select(ctx context.Context, chain []*wal.Reader, q Query, visit func(run string, v *entry.View) error) (span Span, err error) {
	if err := q.check(chain); err != nil {
		return span, err
	}
	unknown := 0 // runs that do not have the kind
	for i := len(chain) - 1; i >= 0; i-- {
		r := chain[i]
		run := r.Manifest().Run
		for v, err := range q.entries(r) {
			if errors.Is(err, format.ErrUnknownKind) {
				if unknown++; unknown < len(chain) {
					break
				}
			}
			if err != nil {
				return span, &ChainError{run, r.Dir(), err}
			}
			if err := ctx.Err(); err != nil {
				return span, err
			}
			if !q.covers(v.Seq()) || q.Correlation != (entry.ID{}) && v.CorrelationID() != q.Correlation {
				continue
			}
			span.add(run, &v)
			if visit != nil {
				if err := visit(run, &v); err != nil {
					return span, err
				}
			}
		}
	}
	return span, nil
}

// entries returns those of a run that come into question.
func (q *Query) entries(r *wal.Reader) iter.Seq2[entry.View, error] {
	switch {
	case q.Kind != "":
		return r.History(q.Kind, q.Value)
	case q.Correlation != (entry.ID{}):
		return r.History(entry.KindCorrID, q.Correlation.String())
	}
	return r.Scan(wal.ScanOptions{From: q.From, To: q.To})
}
