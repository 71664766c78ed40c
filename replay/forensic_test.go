package replay_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/replay"
)

// selected reads a query as "run.seq".
func selected(w *world, chain []*runlog.Reader, q replay.Query) (list []string, span replay.Span) {
	w.t.Helper()
	span, err := replay.Select(w.t.Context(), chain, q, func(run string, v *entry.View) error {
		list = append(list, fmt.Sprintf("%d.%d", slices.Index(w.ids, run), v.Seq()))
		return nil
	})
	must(w.t, err)
	if span.Entries != uint64(len(list)) {
		w.t.Fatalf("the span says %d, %d were given", span.Entries, len(list))
	}
	return list, span
}

// RP8.
func TestASeqRangeThatCannotBeIsRefused(t *testing.T) {
	w := newWorld(t)
	w.pay(3)
	w.kill()
	w.pay(3)
	w.kill()
	one := w.parents()[:1]
	for q, why := range map[replay.Query]string{
		{From: 0, To: 3}: "seq is 1-based", {From: 4, To: 3}: "from_seq exceeds to_seq",
	} {
		_, err := replay.Select(t.Context(), one, q, nil)
		var bad *replay.SeqRangeError
		if !errors.As(err, &bad) || bad.Why != why || !errors.Is(err, runlog.ErrInvalid) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	_, err := replay.Select(t.Context(), w.parents(), replay.Query{From: 1, To: 3}, nil)
	wantIs(t, err, runlog.ErrInvalid)
}

// RP9, RP11: no catalog, no engine, no snapshot; times are least and greatest.
func TestSelectShowsARangeWithItsTimes(t *testing.T) {
	w := newWorld(t)
	for _, ts := range []int64{80, 130, 90} {
		_, err := w.run.Submit(runlog.Draft{Topic: "t", Type: fmt.Sprint("T", ts), Payload: []byte{1}, TsInit: ts})
		must(t, err)
	}
	must(t, w.run.Close(t.Context()))
	chain, err := replay.OpenChain(w.mem, w.run.Dir())
	must(t, err)
	defer replay.Close(chain)
	var types []string
	span, err := replay.Select(t.Context(), chain, replay.Query{From: 2, To: 4}, func(_ string, v *entry.View) error {
		types = append(types, v.Type())
		return nil
	})
	must(t, err)
	if span.Entries != 3 || span.First.Seq != 2 || span.Last.Seq != 4 || span.MinInit != 80 || span.MaxInit != 130 || span.MinPublish >= span.MaxPublish ||
		!slices.Equal(types, []string{"T80", "T130", "T90"}) {
		t.Fatalf("%+v, %v", span, types)
	}
	got, _ := selected(w, chain, replay.Query{})
	if want := []string{"0.1", "0.2", "0.3", "0.4", "0.5"}; !slices.Equal(got, want) {
		t.Fatal(got)
	}
	if got, span := selected(w, chain, replay.Query{From: 9}); len(got) != 0 || span != (replay.Span{}) {
		t.Fatalf("%v, %+v", got, span)
	}
}

// RP22: each entry once, in order, over the chain.
func TestSelectFollowsOneOrderOverTheChain(t *testing.T) {
	w := newWorld(t)
	w.pay(3) // alice, 2 to 4
	w.put("Open", "bo 1")
	w.kill()
	w.put("Pay", "bo 2")
	w.pay(1)
	w.kill()
	chain := w.parents()
	for q, want := range map[replay.Query][]string{
		{Kind: runlog.ClientOrderID, Value: "bo"}:                                     {"0.5", "1.2"},
		{Kind: runlog.ClientOrderID, Value: "alice"}:                                  {"0.2", "0.3", "0.4", "1.3"},
		{Kind: runlog.ClientOrderID, Value: "nobody"}:                                 nil,
		{Correlation: runlog.ID{2}}:                                                   {"0.5", "1.2"},
		{Kind: runlog.ClientOrderID, Value: "alice", Correlation: runlog.ID{2}}:       nil,
		{Kind: runlog.ClientOrderID, Value: "bo", Correlation: runlog.ID{2}}:          {"0.5", "1.2"},
		{Correlation: runlog.ID{5}}:                                                   {"0.2", "0.3", "0.4", "1.3"},
		{Correlation: runlog.ID{9}, Kind: runlog.ClientOrderID, Value: "nobody else"}: nil,
	} {
		if got, _ := selected(w, chain, q); !slices.Equal(got, want) {
			t.Errorf("%+v: %v, want %v", q, got, want)
		}
	}
	if got, _ := selected(w, chain[1:], replay.Query{Kind: runlog.ClientOrderID, Value: "alice", From: 3, To: 3}); !slices.Equal(got, []string{"0.3"}) {
		t.Errorf("a part of an order: %v", got)
	}
	_, err := replay.Select(t.Context(), chain, replay.Query{Kind: "unheard of", Value: "x"}, nil)
	wantIs(t, err, runlog.ErrUnknownKind)
	_, err = replay.Select(t.Context(), chain, replay.Query{}, func(string, *entry.View) error { return errStop })
	wantIs(t, err, errStop)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	_, err = replay.Select(ctx, chain, replay.Query{}, nil)
	wantIs(t, err, context.Canceled)
}

func TestAKindThatOnlyOneRunDeclaresIsFoundThere(t *testing.T) {
	w := newWorld(t)
	w.pay(2)
	w.kill()
	must(t, w.run.DeclareKind("account"))
	_, err := w.run.Submit(runlog.Draft{Topic: "t", Type: "T", Keys: []runlog.Key{{Kind: "account", Value: "7"}}})
	must(t, err)
	w.kill()
	if got, _ := selected(w, w.parents(), replay.Query{Kind: "account", Value: "7"}); !slices.Equal(got, []string{"1.2"}) {
		t.Fatal(got)
	}
}

// ticks is a catalog in memory.
type ticks struct {
	records map[string][]int64 // by class: times
	calls   []string
	queries []replay.CatalogQuery
}

func (c *ticks) within(q replay.CatalogQuery) (in []int64) {
	for _, ts := range c.records[q.Class] {
		if ts >= q.Start && ts <= q.End {
			in = append(in, ts)
		}
	}
	return in
}

func (c *ticks) Plan(_ context.Context, q replay.CatalogQuery) (cov replay.Coverage, err error) {
	c.calls, c.queries = append(c.calls, "plan "+q.Class), append(c.queries, q)
	if len(c.within(q)) > 0 {
		cov.Files = []string{q.Class + ".parquet"}
	}
	if q.Class == "broken" {
		err = errDown
	}
	return cov, err
}

func (c *ticks) Load(_ context.Context, q replay.CatalogQuery, _ replay.Coverage) iter.Seq2[int64, error] {
	c.calls = append(c.calls, "load "+q.Class)
	return func(yield func(int64, error) bool) {
		for _, ts := range c.within(q) {
			if !yield(ts, nil) {
				return
			}
		}
	}
}

// spanned is a chain with two entries at 120 and 100.
func spanned(t *testing.T) []*runlog.Reader {
	w := newWorld(t)
	for _, ts := range []int64{120, 100} {
		_, err := w.run.Submit(runlog.Draft{Topic: "t", Type: "T", TsInit: ts})
		must(t, err)
	}
	must(t, w.run.Close(t.Context()))
	chain, err := replay.OpenChain(w.mem, w.run.Dir())
	must(t, err)
	t.Cleanup(func() { _ = replay.Close(chain) })
	return chain
}

// RP1, RP10: records come by slice, within the entries' times unless others are given; entries in the order of their seqs.
func TestJoinPutsRecordsBesideEntries(t *testing.T) {
	c := &ticks{records: map[string][]int64{"quotes": {99, 100, 110, 120, 121}, "trades": {110}}}
	chain := spanned(t)
	q := replay.Query{From: 2, To: 3}
	j, err := replay.Join(t.Context(), chain, q, []replay.Slice{{Class: "quotes"}, {Class: "trades", Identifiers: []string{"ESH4"}}}, c)
	must(t, err)
	if s := j.Plan.Span; s.Entries != 2 || s.First.Seq != 2 || s.Last.Seq != 3 || s.MinInit != 100 || s.MaxInit != 120 {
		t.Fatalf("%+v", s)
	}
	if q := c.queries; q[0].Start != 100 || q[0].End != 120 || q[0].Identifiers != nil || !slices.Equal(q[1].Identifiers, []string{"ESH4"}) {
		t.Fatalf("%+v", q)
	}
	var seqs []uint64
	must(t, j.Entries(func(_ string, v *entry.View) error { seqs = append(seqs, v.Seq()); return nil }))
	if !slices.Equal(seqs, []uint64{2, 3}) {
		t.Fatal(seqs)
	}
	for i, want := range [][]int64{{100, 110, 120}, {110}} {
		var got []int64
		for ts, err := range j.Records[i] {
			must(t, err)
			got = append(got, ts)
		}
		if !slices.Equal(got, want) {
			t.Errorf("slice %d: %v", i, got)
		}
	}
}

// RP5.
func TestGivenBoundsOverrideTheEntriesTimes(t *testing.T) {
	c := &ticks{records: map[string][]int64{"quotes": {99, 100, 110, 120, 121}}}
	p, err := replay.PlanJoin(t.Context(), spanned(t), replay.Query{}, []replay.Slice{{Class: "quotes", Bounds: &replay.Bounds{Start: 5, End: 6}, Optional: true}}, c)
	if must(t, err); c.queries[0].Start != 5 || c.queries[0].End != 6 || !p.Slices[0].Missing() {
		t.Fatalf("%+v", c.queries)
	}
}

// RP2, RP3.
func TestAMissingSliceIsAnErrorUnlessItIsOptional(t *testing.T) {
	chain, q := spanned(t), replay.Query{From: 2, To: 3}
	c := &ticks{records: map[string][]int64{"quotes": {110}}}
	slices2 := []replay.Slice{{Class: "quotes"}, {Class: "trades", Identifiers: []string{"A", "B"}}}
	p, err := replay.PlanJoin(t.Context(), chain, q, slices2, c)
	if must(t, err); p.Slices[0].Missing() || !p.Slices[1].Missing() || p.Slices[1].Query.Start != 100 || p.Slices[1].Query.End != 120 {
		t.Fatalf("%+v", p)
	}
	_, err = replay.Join(t.Context(), chain, q, slices2, c)
	var missing *replay.MissingCatalogSliceError
	if !errors.As(err, &missing) || missing.Class != "trades" || !slices.Equal(missing.Identifiers, []string{"A", "B"}) {
		t.Fatal(err)
	}
	slices2[1].Optional = true
	j, err := replay.Join(t.Context(), chain, q, slices2, c)
	must(t, err)
	for range j.Records[1] {
		t.Fatal("a missing slice has records")
	}
	for range j.Records[0] {
		break
	}
	if !slices.Contains(c.calls, "load quotes") || slices.Contains(c.calls, "load trades") {
		t.Fatal(c.calls)
	}
}

// RP4, RP6, RP7, RP8: what is wrong with the question is said before anybody is asked.
func TestABadJoinNeverReachesTheCatalog(t *testing.T) {
	chain := spanned(t)
	for name, c := range map[string]struct {
		q      replay.Query
		slices []replay.Slice
		is     func(error) bool
	}{
		"no slices": {replay.Query{}, nil, func(err error) bool { return errors.Is(err, replay.ErrEmptyCatalogSelection) }},
		"no entries, no bounds": {replay.Query{From: 99}, []replay.Slice{{Class: "ok", Bounds: &replay.Bounds{Start: 1, End: 2}}, {Class: "quotes"}}, func(err error) bool {
			var e *replay.MissingCatalogTimeBoundsError
			return errors.As(err, &e) && e.Class == "quotes"
		}},
		"start above end": {replay.Query{}, []replay.Slice{{Class: "ok"}, {Class: "quotes", Bounds: &replay.Bounds{Start: 2, End: 1}}}, func(err error) bool {
			var e *replay.InvalidCatalogTimeRangeError
			return errors.As(err, &e) && e.Class == "quotes" && e.Start == 2 && e.End == 1 && errors.Is(err, runlog.ErrInvalid)
		}},
		"bad range": {replay.Query{From: 3, To: 2}, []replay.Slice{{Class: "quotes"}}, func(err error) bool {
			var e *replay.SeqRangeError
			return errors.As(err, &e)
		}},
	} {
		cat := &ticks{}
		if _, err := replay.Join(t.Context(), chain, c.q, c.slices, cat); !c.is(err) || len(cat.calls) > 0 {
			t.Errorf("%s: %v; calls %v", name, err, cat.calls)
		}
	}
	_, err := replay.PlanJoin(t.Context(), chain, replay.Query{}, []replay.Slice{{Class: "broken"}}, &ticks{})
	wantIs(t, err, errDown)
}
