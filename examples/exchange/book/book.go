package book

import (
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"
)

const none = int32(-1)

// node is an open order in the slab, linked to its neighbours in time at the same price.
type node struct {
	id     uint64
	venue  uint64
	price  int64
	leaves uint32
	prev   int32 // older
	next   int32 // newer; the next free slot when the node is free
	level  int32
	side   Side
}

// level is the queue of orders at one price.
type level struct {
	price int64
	qty   uint64
	head  int32 // oldest, the next one to be filled; the next free slot when the level is free
	tail  int32
	count int32
}

// rung of a ladder: the price is repeated here, so that searching stays within one array.
type rung struct {
	price int64
	level int32
}

// Book is a limit order book. The zero value is not usable, New makes one.
type Book struct {
	byID       map[uint64]int32 // client id -> node
	nodes      []node
	levels     []level
	ladders    [3][]rung // by Side; sorted, the best price last, where most of the changes are
	freeNode   int32
	freeLevel  int32
	lastVenue  uint64
	lastMatch  uint64
	openOrders int
}

// New returns an empty book with room for so many open orders; it grows when they become more.
func New(orders int) *Book {
	return &Book{
		byID: make(map[uint64]int32, orders), nodes: make([]node, 0, orders),
		freeNode: none, freeLevel: none,
	}
}

// Apply carries out one command and appends the events it made to dst. It does not allocate once the book has reached
// its size.
func (b *Book) Apply(c Command, dst []Event) []Event {
	at, known := b.byID[c.Order]
	switch c.Action {
	case Submit:
		switch {
		case known:
			return b.reject(dst, c, Duplicate)
		case c.Qty == 0:
			return b.reject(dst, c, BadQuantity)
		case !c.Side.valid():
			return b.reject(dst, c, BadSide)
		}
		b.lastVenue++
		o := node{id: c.Order, venue: b.lastVenue, price: c.Price, leaves: c.Qty, side: c.Side}
		dst = append(dst, o.event(Accepted, c.Qty))
		dst = b.match(&o, dst)
		if o.leaves > 0 {
			b.insert(o)
		}
		return dst
	case Modify:
		switch {
		case !known:
			return b.reject(dst, c, UnknownOrder)
		case c.Qty == 0:
			return b.reject(dst, c, BadQuantity)
		}
		return b.modify(at, c, dst)
	case Cancel:
		if !known {
			return b.reject(dst, c, UnknownOrder)
		}
		o := b.nodes[at]
		b.remove(at)
		e := o.event(Cancelled, o.leaves)
		e.Leaves = 0
		return append(dst, e)
	}
	return b.reject(dst, c, BadAction)
}

func (b *Book) modify(at int32, c Command, dst []Event) []Event {
	n := &b.nodes[at]
	if c.Price == n.price && c.Qty <= n.leaves { // only smaller: it keeps its place
		b.levels[n.level].qty -= uint64(n.leaves - c.Qty)
		n.leaves = c.Qty
		return append(dst, n.event(Modified, c.Qty))
	}
	o := *n
	b.remove(at)
	o.price, o.leaves = c.Price, c.Qty
	dst = append(dst, o.event(Modified, c.Qty))
	dst = b.match(&o, dst)
	if o.leaves > 0 {
		b.insert(o)
	}
	return dst
}

func (b *Book) reject(dst []Event, c Command, why Reason) []Event {
	e := Event{Order: c.Order, Price: c.Price, Qty: c.Qty, Kind: Rejected, Reason: why, Side: c.Side}
	if at, ok := b.byID[c.Order]; ok {
		e.Venue, e.Leaves = b.nodes[at].venue, b.nodes[at].leaves
	}
	return append(dst, e)
}

func (n *node) event(k Kind, qty uint32) Event {
	return Event{Order: n.id, Venue: n.venue, Price: n.price, Qty: qty, Leaves: n.leaves, Kind: k, Side: n.side}
}

// match fills an incoming order against the other side, best price first, oldest order first, at the resting price.
func (b *Book) match(o *node, dst []Event) []Event {
	other := Buy + Sell - o.side
	for o.leaves > 0 {
		ladder := b.ladders[other]
		if len(ladder) == 0 {
			break
		}
		best := ladder[len(ladder)-1]
		if o.side.better(best.price, o.price) { // the best resting price is out of reach
			break
		}
		l := &b.levels[best.level]
		at := l.head
		m := &b.nodes[at]
		qty := min(o.leaves, m.leaves)
		o.leaves -= qty
		m.leaves -= qty
		l.qty -= uint64(qty)
		b.lastMatch++
		taker, maker := o.event(Filled, qty), m.event(Filled, qty)
		taker.Price, taker.Match, maker.Match = m.price, b.lastMatch, b.lastMatch
		dst = append(dst, maker, taker)
		if m.leaves == 0 {
			b.remove(at)
		}
	}
	return dst
}

// find returns where the price is, or belongs, in a ladder. It looks at the best prices first.
func (b *Book) find(s Side, price int64) (int, bool) {
	ladder := b.ladders[s]
	lo, hi := 0, len(ladder)
	for step := 1; hi-lo > 0; step *= 2 { // gallop from the best end
		i := max(hi-step, lo)
		if ladder[i].price == price {
			return i, true
		}
		if s.better(price, ladder[i].price) {
			lo = i + 1
			break
		}
		hi = i
	}
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if s.better(price, ladder[mid].price) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, lo < len(ladder) && ladder[lo].price == price
}

// insert puts an order behind all others at its price.
func (b *Book) insert(o node) {
	i, ok := b.find(o.side, o.price)
	if !ok {
		b.ladders[o.side] = slices.Insert(b.ladders[o.side], i, rung{o.price, b.newLevel(o.price)})
	}
	o.level = b.ladders[o.side][i].level
	l := &b.levels[o.level]
	o.prev, o.next = l.tail, none
	at := b.newNode(o)
	if l.tail == none {
		l.head = at
	} else {
		b.nodes[l.tail].next = at
	}
	l.tail = at
	l.qty += uint64(o.leaves)
	l.count++
	b.byID[o.id] = at
	b.openOrders++
}

// remove takes an order out of the book, whatever is left of it.
func (b *Book) remove(at int32) {
	n := &b.nodes[at]
	l := &b.levels[n.level]
	if n.prev == none {
		l.head = n.next
	} else {
		b.nodes[n.prev].next = n.next
	}
	if n.next == none {
		l.tail = n.prev
	} else {
		b.nodes[n.next].prev = n.prev
	}
	l.qty -= uint64(n.leaves)
	l.count--
	if l.count == 0 {
		i, _ := b.find(n.side, n.price)
		b.ladders[n.side] = slices.Delete(b.ladders[n.side], i, i+1)
		l.head = b.freeLevel
		b.freeLevel = n.level
	}
	delete(b.byID, n.id)
	n.next = b.freeNode
	b.freeNode = at
	b.openOrders--
}

func (b *Book) newNode(o node) int32 {
	if at := b.freeNode; at != none {
		b.freeNode = b.nodes[at].next
		b.nodes[at] = o
		return at
	}
	b.nodes = append(b.nodes, o)
	return int32(len(b.nodes) - 1)
}

func (b *Book) newLevel(price int64) int32 {
	l := level{price: price, head: none, tail: none}
	if at := b.freeLevel; at != none {
		b.freeLevel = b.levels[at].head
		b.levels[at] = l
		return at
	}
	b.levels = append(b.levels, l)
	return int32(len(b.levels) - 1)
}

// Len is the number of open orders.
func (b *Book) Len() int { return b.openOrders }

// Best returns the best price of a side and the quantity open there.
func (b *Book) Best(s Side) (price int64, qty uint64, ok bool) {
	ladder := b.ladders[s]
	if len(ladder) == 0 {
		return 0, 0, false
	}
	l := &b.levels[ladder[len(ladder)-1].level]
	return l.price, l.qty, true
}

// Levels is the number of prices at which a side has orders.
func (b *Book) Levels(s Side) int { return len(b.ladders[s]) }

// Get returns an open order.
func (b *Book) Get(id uint64) (Order, bool) {
	at, ok := b.byID[id]
	if !ok {
		return Order{}, false
	}
	return b.nodes[at].order(), true
}

func (n *node) order() Order {
	return Order{ID: n.id, Venue: n.venue, Price: n.price, Leaves: n.leaves, Side: n.side}
}

// Walk calls yield for each open order: bids before asks, best price first, oldest first.
func (b *Book) Walk(yield func(Order) bool) {
	for _, s := range [...]Side{Buy, Sell} {
		for _, r := range slices.Backward(b.ladders[s]) {
			for at := b.levels[r.level].head; at != none; at = b.nodes[at].next {
				if !yield(b.nodes[at].order()) {
					return
				}
			}
		}
	}
}

// Hash is the XXH64 of everything that later commands could depend on: both counters, and all open orders in the order
// of Walk.
func (b *Book) Hash() uint64 {
	h := xxhash.New()
	var buf [29]byte
	binary.LittleEndian.PutUint64(buf[0:], b.lastVenue)
	binary.LittleEndian.PutUint64(buf[8:], b.lastMatch)
	_, _ = h.Write(buf[:16]) // never fails
	for o := range b.Walk {
		binary.LittleEndian.PutUint64(buf[0:], o.ID)
		binary.LittleEndian.PutUint64(buf[8:], o.Venue)
		binary.LittleEndian.PutUint64(buf[16:], uint64(o.Price))
		binary.LittleEndian.PutUint32(buf[24:], o.Leaves)
		buf[28] = byte(o.Side)
		_, _ = h.Write(buf[:])
	}
	return h.Sum64()
}
