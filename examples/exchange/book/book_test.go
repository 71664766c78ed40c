package book

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// slow is the model: one slice of orders in time order, searched from end to end.
type slow struct {
	orders []Order // oldest first; an order that loses its priority moves to the end
	venue  uint64
	match  uint64
}

func (s *slow) index(id uint64) int {
	return slices.IndexFunc(s.orders, func(o Order) bool { return o.ID == id })
}

func (s *slow) apply(c Command) (out []Event) {
	i := s.index(c.Order)
	reject := func(r Reason) []Event {
		e := Event{Order: c.Order, Price: c.Price, Qty: c.Qty, Kind: Rejected, Reason: r, Side: c.Side}
		if i >= 0 {
			e.Venue, e.Leaves = s.orders[i].Venue, s.orders[i].Leaves
		}
		return []Event{e}
	}
	var o Order
	switch {
	case c.Action < Submit || c.Action > Cancel:
		return reject(BadAction)
	case c.Action == Submit && i >= 0:
		return reject(Duplicate)
	case c.Action != Submit && i < 0:
		return reject(UnknownOrder)
	case c.Action != Cancel && c.Qty == 0:
		return reject(BadQuantity)
	case c.Action == Submit && c.Side != Buy && c.Side != Sell:
		return reject(BadSide)
	case c.Action == Cancel:
		o = s.orders[i]
		s.orders = slices.Delete(s.orders, i, i+1)
		return []Event{{Order: o.ID, Venue: o.Venue, Price: o.Price, Qty: o.Leaves, Kind: Cancelled, Side: o.Side}}
	case c.Action == Modify:
		o = s.orders[i]
		keeps := o.Price == c.Price && c.Qty <= o.Leaves
		o.Price, o.Leaves = c.Price, c.Qty
		out = append(out, Event{Order: o.ID, Venue: o.Venue, Price: o.Price, Qty: c.Qty, Leaves: c.Qty,
			Kind: Modified, Side: o.Side})
		if keeps {
			s.orders[i] = o
			return out
		}
		s.orders = slices.Delete(s.orders, i, i+1)
	default:
		s.venue++
		o = Order{ID: c.Order, Venue: s.venue, Price: c.Price, Leaves: c.Qty, Side: c.Side}
		out = append(out, Event{Order: o.ID, Venue: o.Venue, Price: o.Price, Qty: c.Qty, Leaves: c.Qty,
			Kind: Accepted, Side: o.Side})
	}
	for o.Leaves > 0 {
		best := -1
		for j, m := range s.orders {
			crosses := m.Side != o.Side && (m.Price == o.Price || (o.Side == Buy) == (m.Price < o.Price))
			if crosses && (best < 0 || m.Price != s.orders[best].Price && (o.Side == Buy) == (m.Price < s.orders[best].Price)) {
				best = j
			}
		}
		if best < 0 {
			break
		}
		m := &s.orders[best]
		qty := min(m.Leaves, o.Leaves)
		m.Leaves -= qty
		o.Leaves -= qty
		s.match++
		out = append(out,
			Event{Order: m.ID, Venue: m.Venue, Match: s.match, Price: m.Price, Qty: qty, Leaves: m.Leaves,
				Kind: Filled, Side: m.Side},
			Event{Order: o.ID, Venue: o.Venue, Match: s.match, Price: m.Price, Qty: qty, Leaves: o.Leaves,
				Kind: Filled, Side: o.Side})
		if m.Leaves == 0 {
			s.orders = slices.Delete(s.orders, best, best+1)
		}
	}
	if o.Leaves > 0 {
		s.orders = append(s.orders, o)
	}
	return out
}

// walk gives the model's orders in the order of Book.Walk.
func (s *slow) walk() []Order {
	w := slices.Clone(s.orders)
	slices.SortStableFunc(w, func(a, b Order) int {
		switch {
		case a.Side != b.Side:
			return int(a.Side) - int(b.Side)
		case a.Price == b.Price:
			return 0
		case (a.Side == Buy) == (a.Price > b.Price):
			return -1
		}
		return 1
	})
	return w
}

func orders(b *Book) (all []Order) {
	for o := range b.Walk {
		all = append(all, o)
	}
	return all
}

func randomCommand(r *rand.Rand) Command {
	c := Command{
		Order: 1 + r.Uint64N(40), Price: 100 + r.Int64N(12), Qty: r.Uint32N(9),
		Action: Action(1 + r.Uint32N(3)), Side: Side(1 + r.Uint32N(2)),
	}
	if r.IntN(100) == 0 {
		c.Action, c.Side = Action(r.Uint32N(6)), Side(r.Uint32N(4))
	}
	if r.IntN(3) == 0 {
		c.Price -= 106 // negative prices are prices too
	}
	return c
}

func TestBookEqualsTheSlowBook(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		b, model := New(0), &slow{}
		for i := range 1500 {
			c := randomCommand(r)
			got, want := b.Apply(c, nil), model.apply(c)
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d, command %d, %+v:\n got %+v\nwant %+v", seed, i, c, got, want)
			}
			if g, w := orders(b), model.walk(); !slices.Equal(g, w) {
				t.Fatalf("seed %d, command %d, %+v:\n got %+v\nwant %+v", seed, i, c, g, w)
			}
		}
	}
}

func TestBookIsNeverCrossedAndConservesQuantity(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	b := New(16)
	var events []Event
	var in, out uint64 // quantity put in; filled, cancelled or changed away
	open := func() (n uint64) {
		for o := range b.Walk {
			n += uint64(o.Leaves)
		}
		return n
	}
	for i := range 20_000 {
		c := randomCommand(r)
		before, _ := b.Get(c.Order)
		events = b.Apply(c, events[:0])
		for _, e := range events {
			switch e.Kind {
			case Accepted:
				in += uint64(e.Qty)
			case Modified:
				in += uint64(e.Qty)
				out += uint64(before.Leaves)
			case Cancelled, Filled:
				out += uint64(e.Qty)
			}
		}
		bid, _, okBid := b.Best(Buy)
		ask, _, okAsk := b.Best(Sell)
		if okBid && okAsk && bid >= ask {
			t.Fatalf("command %d, %+v: crossed, bid %d, ask %d", i, c, bid, ask)
		}
		if in-out != open() {
			t.Fatalf("command %d, %+v: %d in, %d out, but %d open", i, c, in, out, open())
		}
		if i%100 == 0 {
			checkLevels(t, b)
		}
	}
}

// checkLevels compares what the book keeps twice.
func checkLevels(t *testing.T, b *Book) {
	t.Helper()
	n := 0
	for _, s := range []Side{Buy, Sell} {
		for i, r := range b.ladders[s] {
			if i > 0 && !s.better(r.price, b.ladders[s][i-1].price) {
				t.Fatalf("%v ladder is out of order at rung %d", s, i)
			}
			l := b.levels[r.level]
			var qty uint64
			var count int32
			for at := l.head; at != none; at = b.nodes[at].next {
				qty += uint64(b.nodes[at].leaves)
				count++
			}
			if qty != l.qty || count != l.count || count == 0 || l.price != r.price {
				t.Fatalf("%v level %+v: counted %d orders, quantity %d", s, l, count, qty)
			}
			n += int(count)
		}
	}
	if n != b.Len() || n != len(b.byID) {
		t.Fatalf("%d orders in the ladders, Len is %d, %d by id", n, b.Len(), len(b.byID))
	}
}

func TestPriority(t *testing.T) {
	cases := []struct {
		name   string
		change Command // to order 1, which was there before order 2
		first  uint64  // who is filled first afterwards
	}{
		{"a smaller size keeps the place", Command{Order: 1, Price: 10, Qty: 3, Action: Modify}, 1},
		{"the same again keeps the place", Command{Order: 1, Price: 10, Qty: 5, Action: Modify}, 1},
		{"a bigger size loses the place", Command{Order: 1, Price: 10, Qty: 6, Action: Modify}, 2},
		{"a worse price loses the place", Command{Order: 1, Price: 9, Qty: 5, Action: Modify}, 2},
		{"a better price comes first", Command{Order: 1, Price: 11, Qty: 5, Action: Modify}, 1},
		{"a refused change keeps the place", Command{Order: 1, Price: 10, Qty: 0, Action: Modify}, 1},
	}
	for _, c := range cases {
		b := New(0)
		b.Apply(Command{Order: 1, Price: 10, Qty: 5, Action: Submit, Side: Buy}, nil)
		b.Apply(Command{Order: 2, Price: 10, Qty: 5, Action: Submit, Side: Buy}, nil)
		b.Apply(c.change, nil)
		events := b.Apply(Command{Order: 3, Price: 1, Qty: 1, Action: Submit, Side: Sell}, nil)
		if len(events) != 3 || events[1].Kind != Filled || events[1].Order != c.first {
			t.Errorf("%s: got %+v", c.name, events)
		}
	}
}

func TestFillsAtTheRestingPrice(t *testing.T) {
	b := New(0)
	b.Apply(Command{Order: 1, Price: 12, Qty: 2, Action: Submit, Side: Sell}, nil)
	b.Apply(Command{Order: 2, Price: 11, Qty: 2, Action: Submit, Side: Sell}, nil)
	got := b.Apply(Command{Order: 3, Price: 12, Qty: 5, Action: Submit, Side: Buy}, nil)
	want := []Event{
		{Order: 3, Venue: 3, Price: 12, Qty: 5, Leaves: 5, Kind: Accepted, Side: Buy},
		{Order: 2, Venue: 2, Match: 1, Price: 11, Qty: 2, Leaves: 0, Kind: Filled, Side: Sell},
		{Order: 3, Venue: 3, Match: 1, Price: 11, Qty: 2, Leaves: 3, Kind: Filled, Side: Buy},
		{Order: 1, Venue: 1, Match: 2, Price: 12, Qty: 2, Leaves: 0, Kind: Filled, Side: Sell},
		{Order: 3, Venue: 3, Match: 2, Price: 12, Qty: 2, Leaves: 1, Kind: Filled, Side: Buy},
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
	if p, q, ok := b.Best(Buy); !ok || p != 12 || q != 1 {
		t.Fatalf("the rest: price %d, quantity %d, %v", p, q, ok)
	}
}

func TestHashSeesEveryDifference(t *testing.T) {
	base := []Command{
		{Order: 1, Price: 10, Qty: 5, Action: Submit, Side: Buy},
		{Order: 2, Price: 10, Qty: 5, Action: Submit, Side: Buy},
		{Order: 3, Price: 20, Qty: 5, Action: Submit, Side: Sell},
	}
	build := func(more ...Command) uint64 {
		b := New(0)
		for _, c := range append(slices.Clone(base), more...) {
			b.Apply(c, nil)
		}
		return b.Hash()
	}
	if first, second := build(), build(); first != second {
		t.Fatal("the same commands give two hashes")
	}
	seen := map[uint64]string{build(): "base"}
	for name, c := range map[string]Command{
		"quantity": {Order: 1, Price: 10, Qty: 4, Action: Modify},
		"priority": {Order: 1, Price: 10, Qty: 6, Action: Modify},
		"price":    {Order: 1, Price: 11, Qty: 5, Action: Modify},
		"gone":     {Order: 1, Action: Cancel},
		"new":      {Order: 4, Price: 10, Qty: 5, Action: Submit, Side: Buy},
		"filled":   {Order: 4, Price: 10, Qty: 5, Action: Submit, Side: Sell},
	} {
		h := build(c)
		if other, ok := seen[h]; ok {
			t.Errorf("%s hashes like %s", name, other)
		}
		seen[h] = name
	}
}

func TestMirror(t *testing.T) {
	b := New(0)
	ok := func(want, got bool, what string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: got %v", what, got)
		}
	}
	ok(true, b.Add(1, Buy, 10, 5), "add")
	ok(true, b.Add(2, Buy, 10, 5), "add")
	ok(true, b.Add(3, Sell, 10, 5), "a mirrored book may be locked: the venue decides")
	ok(false, b.Add(1, Buy, 11, 5), "add again")
	ok(false, b.Add(4, 0, 11, 5), "add without side")
	ok(true, b.Reduce(1, 2), "reduce")
	ok(true, b.Replace(1, 10, 4), "grow")
	ok(false, b.Reduce(9, 1), "reduce an unknown order")
	ok(false, b.Replace(9, 1, 1), "replace an unknown order")
	want := []Order{{2, 2, 10, 5, Buy}, {1, 1, 10, 4, Buy}, {3, 3, 10, 5, Sell}}
	if got := orders(b); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	checkLevels(t, b)
	ok(true, b.Reduce(2, 7), "reduce by more than there is")
	ok(true, b.Replace(3, 10, 0), "replace with nothing")
	checkLevels(t, b)
	b.Clear()
	ok(true, b.Len() == 0 && b.Levels(Buy) == 0 && b.Levels(Sell) == 0, "clear")
	ok(true, b.Add(5, Sell, 3, 1), "add after clear")
	checkLevels(t, b)
}

func BenchmarkApply(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	book := New(1 << 16)
	var events []Event
	next := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		c := Command{Order: next, Price: 10_000 + r.Int64N(200), Qty: 1 + r.Uint32N(10), Action: Submit, Side: Buy}
		if c.Side = Side(1 + next&1); c.Side == Sell {
			c.Price += 190
		}
		if next > 5000 && r.IntN(2) == 0 {
			c = Command{Order: next - 1 - r.Uint64N(5000), Action: Cancel}
		} else {
			next++
		}
		events = book.Apply(c, events[:0])
	}
}
