package flow

import (
	"testing"

	"github.com/runlog-io/runlog/examples/exchange/book"
)

func TestTheFlowDependsOnTheSeedAlone(t *testing.T) {
	a, b, other := NewGenerator(1, 5000), NewGenerator(1, 5000), NewGenerator(2, 5000)
	same := 0
	for {
		x, ok := a.Next()
		y, ok2 := b.Next()
		if x != y || ok != ok2 {
			t.Fatalf("two flows of one seed: %+v and %+v", x, y)
		}
		if !ok {
			break
		}
		if z, _ := other.Next(); z.Command == x.Command {
			same++
		}
	}
	if n := int(a.Position()); n < 7500 || same > n/10 {
		t.Fatalf("%d commands, %d of them the same with another seed", n, same)
	}
}

func TestSkipGoesOnWhereTheOthersEnded(t *testing.T) {
	var all []Command
	g := NewGenerator(3, 200)
	for c, ok := g.Next(); ok; c, ok = g.Next() {
		all = append(all, c)
	}
	for n := range all {
		g := NewGenerator(3, 200)
		last, ok := g.Skip(uint64(n))
		if !ok || n > 0 && last != all[n-1] {
			t.Fatalf("Skip(%d): %+v, %v", n, last, ok)
		}
		if c, ok := g.Next(); !ok || c != all[n] {
			t.Fatalf("after Skip(%d): %+v, want %+v", n, c, all[n])
		}
	}
	if _, ok := NewGenerator(3, 200).Skip(uint64(len(all) + 1)); ok {
		t.Fatal("skipped beyond the end")
	}
}

// TestTheMixIsLikeTheRealOne runs the flow through a book and compares the shares with those of the recorded day: per
// 100 orders 62 cancels, 42 modifies, 22 fills; 42 % of orders with one record; 1 % with ten or more.
func TestTheMixIsLikeTheRealOne(t *testing.T) {
	const orders = 100_000
	g := NewGenerator(1, orders)
	b := book.New(1 << 16)
	var kinds [8]int
	var events []book.Event
	records := make([]int, orders+1)
	var prevAt, longest int64
	for c, ok := g.Next(); ok; c, ok = g.Next() {
		if c.At <= prevAt {
			t.Fatalf("command %d: time %d after %d", c.N, c.At, prevAt)
		}
		prevAt = c.At
		events = b.Apply(c.Command, events[:0])
		for _, e := range events {
			kinds[e.Kind]++
			records[e.Order]++
			longest = max(longest, int64(records[e.Order]))
		}
	}
	per100 := func(k book.Kind) float64 { return float64(kinds[k]) * 100 / orders }
	for _, want := range []struct {
		kind   book.Kind
		lo, hi float64
	}{
		{book.Accepted, 100, 100}, {book.Cancelled, 45, 70}, {book.Modified, 33, 50},
		{book.Filled, 25, 60}, // both sides of each match
		{book.Rejected, 0, 15},
	} {
		if got := per100(want.kind); got < want.lo || got > want.hi {
			t.Errorf("%v: %.1f per 100 orders, want %.0f to %.0f", want.kind, got, want.lo, want.hi)
		}
	}
	single, many := 0, 0
	for _, n := range records {
		if n == 1 {
			single++
		}
		if n >= 10 {
			many++
		}
	}
	t.Logf("%d commands, %v by kind, %d open orders, %d and %d levels, %d orders with one record, %d with ten or more, "+
		"the longest %d", g.Position(), kinds, b.Len(), b.Levels(book.Buy), b.Levels(book.Sell), single, many, longest)
	if single < orders/10 || many < orders/300 || many > orders/30 || longest < 200 {
		t.Errorf("lives of orders are not like the real ones")
	}
}

func BenchmarkNext(b *testing.B) {
	g := NewGenerator(1, 1<<62)
	b.ReportAllocs()
	for b.Loop() {
		g.Next()
	}
}
