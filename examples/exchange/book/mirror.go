package book

// Add mirrors an order that a venue put into its book. It reports false, and changes nothing, if the order is there
// already or has no side or quantity.
func (b *Book) Add(id uint64, s Side, price int64, qty uint32) bool {
	if _, ok := b.byID[id]; ok || !s.valid() || qty == 0 {
		return false
	}
	b.lastVenue++
	b.insert(node{id: id, venue: b.lastVenue, price: price, leaves: qty, side: s})
	return true
}

// Reduce mirrors a whole or partial cancel: qty is what went away. It reports false for an order that is not there.
func (b *Book) Reduce(id uint64, qty uint32) bool {
	at, ok := b.byID[id]
	if !ok {
		return false
	}
	n := &b.nodes[at]
	if qty >= n.leaves {
		b.remove(at)
		return true
	}
	n.leaves -= qty
	b.levels[n.level].qty -= uint64(qty)
	return true
}

// Replace mirrors a modify, with the priority rule of the package. It reports false for an order that is not there; a
// quantity of 0 takes the order out.
func (b *Book) Replace(id uint64, price int64, qty uint32) bool {
	at, ok := b.byID[id]
	if !ok {
		return false
	}
	n := &b.nodes[at]
	if qty == 0 {
		b.remove(at)
		return true
	}
	if price == n.price && qty <= n.leaves {
		b.levels[n.level].qty -= uint64(n.leaves - qty)
		n.leaves = qty
		return true
	}
	o := *n
	b.remove(at)
	o.price, o.leaves = price, qty
	b.insert(o)
	return true
}

// Clear empties the book; its counters go on.
func (b *Book) Clear() {
	clear(b.byID)
	b.nodes, b.levels = b.nodes[:0], b.levels[:0]
	b.ladders = [3][]rung{}
	b.freeNode, b.freeLevel, b.openOrders = none, none, 0
}
