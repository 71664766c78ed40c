package capture_test

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/runlog-io/runlog/capture"
	"github.com/runlog-io/runlog/entry"
)

// NewOrder is a message of the engine.
type NewOrder struct {
	ID       entry.ID
	ClientID string
	Price    int64
	Quantity uint32
	At       int64 // ns
}

// printLog stands in for a *runlog.Run.
type printLog struct{ seq uint64 }

func (l *printLog) Submit(d entry.Draft) (uint64, error) {
	l.seq++
	fmt.Printf("seq %d: topic %s, type %s, %d bytes", l.seq, d.Topic, d.Type, len(d.Payload))
	for _, k := range d.Keys {
		fmt.Printf(", %s=%s", k.Kind, k.Value)
	}
	fmt.Println()
	return l.seq, nil
}

func Example() {
	var reg capture.Registry
	err := capture.Register(&reg, "order.new", func(dst []byte, m NewOrder, k *capture.Keys) ([]byte, error) {
		if m.Quantity == 0 {
			return nil, errors.New("order without quantity")
		}
		k.Add(entry.ClientOrderID, m.ClientID)
		dst = binary.AppendVarint(dst, m.Price)
		return binary.BigEndian.AppendUint32(dst, m.Quantity), nil
	},
		capture.WithIdentity(func(m NewOrder) (entry.ID, bool) { return m.ID, true }),
		capture.WithTime(func(m NewOrder) int64 { return m.At }))
	if err != nil {
		panic(err)
	}
	a, err := capture.New(&reg, new(printLog), capture.Options{})
	if err != nil {
		panic(err)
	}
	orders, err := capture.Bind[NewOrder](a, "commands")
	if err != nil {
		panic(err)
	}

	m := NewOrder{ID: entry.ID{1}, ClientID: "C-17", Price: 10125, Quantity: 300, At: 1767225600000000000}
	for range 2 { // the bus dispatches it twice
		res, err := orders.Capture(m)
		fmt.Println(res.Outcome, res.Seq, err)
	}
	_, err = orders.Capture(NewOrder{ID: entry.ID{2}, ClientID: "C-18"})
	fmt.Println(err)
	// Output:
	// seq 1: topic commands, type order.new, 7 bytes, client_order_id=C-17
	// captured 1 <nil>
	// duplicate 0 <nil>
	// encode capture_test.NewOrder as "order.new" for topic "commands": order without quantity
}

// A bus calls Tap where it dispatches: no handler acts on a message that is not in the log.
func ExampleAdapter_Tap() {
	type tick struct{ price int }
	var reg capture.Registry
	err := capture.Register(&reg, "tick", func(dst []byte, m tick, _ *capture.Keys) ([]byte, error) {
		if m.price <= 0 {
			return nil, errors.New("bad price")
		}
		return binary.AppendVarint(dst, int64(m.price)), nil
	})
	if err != nil {
		panic(err)
	}
	a, err := capture.New(&reg, new(printLog), capture.Options{})
	if err != nil {
		panic(err)
	}
	publish := func(m any) {
		err := a.Tap("market", m, func() { fmt.Printf("handle %v\n", m) })
		if err != nil {
			fmt.Printf("refused %v: %v\n", m, errors.Unwrap(err))
		}
	}
	publish(tick{100})
	publish(tick{0})
	publish("a text, not registered")
	// Output:
	// seq 1: topic market, type tick, 2 bytes
	// handle {100}
	// refused {0}: bad price
	// handle a text, not registered
}
