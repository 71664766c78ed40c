package flow

import (
	"math/bits"

	"github.com/runlog-io/runlog/examples/exchange/book"
)

// Command is a client's message: a book command with its place in the flow and its time.
type Command struct {
	book.Command
	N  uint64 // place in the flow, from 1
	At int64  // when the client sent it, ns since 1970 UTC
}

// The shape of the flow. The mix follows a day of a busy futures contract: of 100 commands about 49 are new orders, 30
// cancels, 21 modifies; about a fifth of the orders get fills; most orders live for a few records, very few for
// hundreds.
const (
	startTime = 1_703_500_000_000_000_000
	startMid  = 19_000 // ticks
	midRange  = 300    // the mid price stays this close to where it started

	maxWorking = 400 // orders that wait for their cancel
	maxQuotes  = 48  // orders that follow the price
	quoteAway  = 4   // ticks
)

// working is an order that the generator will touch again.
type working struct {
	order    uint64
	price    int64
	qty      uint32
	modifies uint32 // before its cancel
	away     uint32 // ticks that it keeps off the mid price, at least
	side     book.Side
}

// Generator makes the flow of one seed. It belongs to one goroutine.
type Generator struct {
	rng     uint64
	limit   uint64 // orders
	order   uint64 // the last one submitted; client ids are 1, 2, 3, ...
	n       uint64
	at      int64
	mid     int64
	burst   uint32 // commands left in the current burst
	working []working
	quotes  []working
}

// NewGenerator returns the flow of a seed. It ends with the last of so many orders.
func NewGenerator(seed, orders uint64) *Generator {
	return &Generator{
		rng: seed, limit: orders, at: startTime, mid: startMid,
		working: make([]working, 0, maxWorking), quotes: make([]working, 0, maxQuotes),
	}
}

// rand is splitmix64: integers only, so that the flow is the same on every machine.
func (g *Generator) rand() uint64 {
	g.rng += 0x9e3779b97f4a7c15
	x := g.rng
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// upTo returns 0 to n-1, all as likely.
func (g *Generator) upTo(n uint64) uint64 {
	hi, _ := bits.Mul64(g.rand(), n)
	return hi
}

// halving returns 0 in half of the cases, 1 in a quarter, ..., at most limit.
func (g *Generator) halving(limit int) int { return min(bits.TrailingZeros64(g.rand()), limit) }

// Position is the number of commands made so far.
func (g *Generator) Position() uint64 { return g.n }

// Orders is the number of orders submitted so far.
func (g *Generator) Orders() uint64 { return g.order }

// Skip makes n commands and forgets them; it returns the last one. It reports false if the flow is shorter than that.
func (g *Generator) Skip(n uint64) (last Command, ok bool) {
	for range n {
		if last, ok = g.Next(); !ok {
			return last, false
		}
	}
	return last, true
}

// Next returns the next command; false after the last one.
func (g *Generator) Next() (Command, bool) {
	if g.order == g.limit {
		return Command{}, false
	}
	g.tick()
	c := Command{N: g.n + 1, At: g.at}
	g.n++
	r := g.upTo(1000)
	quoteShare := uint64(100)
	if g.burst > 0 {
		quoteShare = 140 // whoever quotes runs after the price
	}
	switch {
	case r < quoteShare && len(g.quotes) > 0:
		c.Command = g.touch(&g.quotes, int(g.upTo(uint64(len(g.quotes)))))
	case (r < 520 || len(g.working) == maxWorking) && len(g.working) > 0:
		// Young orders first: most orders are cancelled soon.
		i := len(g.working) - 1 - int(g.upTo(1+uint64(len(g.working)-1)>>g.halving(5)))
		c.Command = g.touch(&g.working, i)
	default:
		c.Command = g.submit()
	}
	return c, true
}

// tick moves the clock and the price.
func (g *Generator) tick() {
	if g.burst > 0 {
		g.burst--
		g.at += int64(100 + g.upTo(400)<<g.halving(6))
	} else {
		g.at += int64(5_000 + g.upTo(50_000)<<g.halving(12))
		if g.upTo(1500) == 0 {
			g.burst = uint32(50 + g.upTo(100)<<g.halving(5))
		}
	}
	if g.upTo(700) != 0 {
		return
	}
	if off := g.mid - startMid; g.upTo(2*midRange) < uint64(midRange+off) { // the farther off, the stronger the pull back
		g.mid--
	} else {
		g.mid++
	}
}

// submit makes a new order. Its kind decides about its life.
func (g *Generator) submit() book.Command {
	g.order++
	c := book.Command{
		Action: book.Submit, Order: g.order, Side: book.Side(1 + g.upTo(2)),
		Qty: uint32(1 + g.upTo(5)<<g.halving(4)),
	}
	w := working{order: g.order, qty: c.Qty, side: c.Side}
	away := int64(1 + g.halving(9) + g.halving(9))
	switch kind := g.upTo(1000); {
	case kind < 75: // takes what is there
		away = -int64(1 + g.upTo(3))
	case kind < 330: // deep in the book, to stay
		away = int64(12 + g.upTo(60)<<g.halving(3))
	case kind < 342 && len(g.quotes) < maxQuotes:
		w.modifies = uint32((4 + g.upTo(6)) << g.halving(6))
		away += quoteAway // quotes rarely trade
		w.away = quoteAway
		w.price = at(c.Side, g.mid, away)
		g.quotes = append(g.quotes, w)
	case len(g.working) < maxWorking:
		w.modifies = uint32(max(0, g.halving(4)-1))
		w.price = at(c.Side, g.mid, away)
		g.working = append(g.working, w)
	}
	c.Price = at(c.Side, g.mid, away)
	return c
}

// at is the price so many ticks behind the mid, seen from a side.
func at(s book.Side, mid, away int64) int64 {
	if s == book.Buy {
		return mid - away
	}
	return mid + away
}

// touch modifies or cancels order i of a pool.
func (g *Generator) touch(pool *[]working, i int) book.Command {
	p := *pool
	w := &p[i]
	c := book.Command{Action: book.Cancel, Order: w.order, Side: w.side}
	if w.modifies == 0 {
		*pool = append(p[:i], p[i+1:]...)
		return c
	}
	w.modifies--
	switch r := g.upTo(100); {
	case r < 25 && w.qty > 1:
		w.qty -= uint32(1 + g.upTo(uint64(w.qty-1)))
	case r < 35:
		w.qty += uint32(1 + g.upTo(4))
	default:
		w.price = at(w.side, g.mid, int64(w.away)+int64(2+g.halving(6)))
	}
	c.Action, c.Price, c.Qty = book.Modify, w.price, w.qty
	return c
}
