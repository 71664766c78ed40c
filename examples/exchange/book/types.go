package book

// Side of an order.
type Side uint8

// The sides; the zero value is neither.
const (
	Buy  Side = 1
	Sell Side = 2
)

func (s Side) String() string {
	switch s {
	case Buy:
		return "buy"
	case Sell:
		return "sell"
	}
	return "none"
}

func (s Side) valid() bool { return s == Buy || s == Sell }

// better reports whether price a has priority over price b on this side.
func (s Side) better(a, b int64) bool {
	if s == Buy {
		return a > b
	}
	return a < b
}

// Action says what a command asks for.
type Action uint8

// The commands.
const (
	Submit Action = 1 // a new order: Side, Price, Qty
	Modify Action = 2 // a new Price and a new open quantity Qty
	Cancel Action = 3
)

func (a Action) String() string {
	switch a {
	case Submit:
		return "submit"
	case Modify:
		return "modify"
	case Cancel:
		return "cancel"
	}
	return "?"
}

// Command is a client's request about one order.
type Command struct {
	Order  uint64 // the client's id of the order
	Price  int64  // in ticks; may be negative
	Qty    uint32
	Action Action
	Side   Side // of a Submit
}

// Kind of an event.
type Kind uint8

// The events. Each command gives one of the first four; Filled follows for every match, once for each of the two
// orders.
const (
	Accepted  Kind = 1
	Rejected  Kind = 2
	Modified  Kind = 3
	Cancelled Kind = 4
	Filled    Kind = 5
)

func (k Kind) String() string {
	switch k {
	case Accepted:
		return "accepted"
	case Rejected:
		return "rejected"
	case Modified:
		return "modified"
	case Cancelled:
		return "cancelled"
	case Filled:
		return "filled"
	}
	return "?"
}

// Reason says why a command was rejected.
type Reason uint8

// The reasons.
const (
	NoReason     Reason = 0
	UnknownOrder Reason = 1 // never seen, filled or cancelled: too late
	Duplicate    Reason = 2 // the id belongs to an open order
	BadQuantity  Reason = 3
	BadSide      Reason = 4
	BadAction    Reason = 5
)

func (r Reason) String() string {
	switch r {
	case NoReason:
		return ""
	case UnknownOrder:
		return "unknown order"
	case Duplicate:
		return "duplicate id"
	case BadQuantity:
		return "bad quantity"
	case BadSide:
		return "bad side"
	case BadAction:
		return "bad action"
	}
	return "?"
}

// Event is what a command did to one order.
type Event struct {
	Order  uint64 // the client's id
	Venue  uint64 // the book's own id of the order, from 1; 0 in most rejections
	Match  uint64 // number of the match, from 1, of a Filled
	Price  int64  // of the order; of a Filled: of the match
	Qty    uint32 // accepted, changed to, cancelled, or filled by this match
	Leaves uint32 // still open afterwards
	Kind   Kind
	Reason Reason
	Side   Side
}

// Order is an open order, as Walk shows it.
type Order struct {
	ID     uint64
	Venue  uint64
	Price  int64
	Leaves uint32
	Side   Side
}
