package runlog

// Gate holds what an engine wants to send until the entry that it follows from is durable. It belongs to one
// goroutine, the engine's, and does nothing by itself: call Release when the engine has a moment, or when
// NotifyDurable fires. The zero value is ready to use.
type Gate[T any] struct {
	held []held[T]
	head int
}

type held[T any] struct {
	seq uint64
	v   T
}

// Hold keeps v until seq is durable. Seqs must not decrease from call to call.
func (g *Gate[T]) Hold(seq uint64, v T) { g.held = append(g.held, held[T]{seq, v}) }

// Len is the number of messages held.
func (g *Gate[T]) Len() int { return len(g.held) - g.head }

// Release hands everything at or below durable to out, in order, and lets go of it.
func (g *Gate[T]) Release(durable uint64, out func(T)) {
	for g.head < len(g.held) && g.held[g.head].seq <= durable {
		h := g.held[g.head]
		g.held[g.head] = held[T]{}
		g.head++
		out(h.v) // which may call Hold or Release
	}
	switch {
	case g.head == len(g.held):
		g.held, g.head = g.held[:0], 0
	case g.head > 1024 && g.head > len(g.held)/2:
		n := copy(g.held, g.held[g.head:])
		clear(g.held[n:])
		g.held, g.head = g.held[:n], 0
	}
}
