package bench

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/capture"
)

// What does a typed message cost, from the engine's struct to the accepted entry? Compare with BenchmarkSubmitIdle.

// newOrder is a message of 56 bytes when encoded.
type newOrder struct {
	ID         runlog.ID
	ClientID   string
	Instrument uint32
	Side       uint8
	Price      int64
	Quantity   int64
	At         int64
}

func encodeNewOrder(dst []byte, m *newOrder) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, m.Instrument)
	dst = append(dst, m.Side, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(m.Price))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(m.Quantity))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(m.At))
	return append(dst, m.ClientID...)
}

// adapter returns one that captures newOrder by value (nothing but the message), and *newOrder with its client order id
// and identity.
func adapter(tb testing.TB, sub capture.Submitter) *capture.Adapter {
	tb.Helper()
	reg := capture.NewRegistry()
	at := func(m newOrder) int64 { return m.At }
	check(tb, capture.Register(reg, "NewOrder", func(dst []byte, m newOrder, _ *capture.Keys) ([]byte, error) {
		return encodeNewOrder(dst, &m), nil
	}, capture.WithTime(at)))
	check(tb, capture.Register(reg, "NewOrder", func(dst []byte, m *newOrder, k *capture.Keys) ([]byte, error) {
		k.Add(runlog.ClientOrderID, m.ClientID)
		return encodeNewOrder(dst, m), nil
	},
		capture.WithTime(func(m *newOrder) int64 { return m.At }),
		capture.WithIdentity(func(m *newOrder) (runlog.ID, bool) { return m.ID, true })))
	a, err := capture.New(reg, sub, capture.Options{})
	check(tb, err)
	return a
}

// capturing is one of the two ways to capture a message: through a handle that knows its type, or through an interface. One adapter
// serves all producers of a run, as in an engine.
type capturing struct {
	name string
	bind func(tb testing.TB, a *capture.Adapter) func(m *newOrder) (capture.Result, error)
}

var captures = []capturing{
	{"typed", func(tb testing.TB, a *capture.Adapter) func(m *newOrder) (capture.Result, error) {
		h, err := capture.Bind[*newOrder](a, "orders.commands")
		check(tb, err)
		return h.Capture
	}},
	{"any", func(_ testing.TB, a *capture.Adapter) func(m *newOrder) (capture.Result, error) {
		return func(m *newOrder) (capture.Result, error) { return a.CaptureAny("orders.commands", m) }
	}},
}

// operations gives each producer messages of its own, whose identities no other has: a message that counts as a duplicate
// would cost less.
func (c capturing) operations(tb testing.TB) producing {
	return func(run *runlog.Run) func(int) func() error {
		capturing := c.bind(tb, adapter(tb, run))
		return func(producer int) func() error {
			m, sum := &newOrder{ClientID: "CL-1000000001", Instrument: 7, Side: 1, Price: 10125, Quantity: 300}, uint64(0)
			binary.LittleEndian.PutUint64(m.ID[8:], uint64(producer)+1)
			return func() error {
				sum++
				m.At = int64(sum)
				binary.LittleEndian.PutUint64(m.ID[:], sum)
				r, err := capturing(m)
				if err == nil && r.Outcome != capture.Captured {
					err = fmt.Errorf("a new message: %v", r.Outcome)
				}
				return err
			}
		}
	}
}

// BenchmarkCapturePaced captures at a fixed rate, timed from the intended start. Compare with BenchmarkSubmitPaced.
func BenchmarkCapturePaced(b *testing.B) {
	for _, how := range captures {
		for _, producers := range producerCounts {
			for _, rate := range rates {
				b.Run(fmt.Sprintf("%s/producers=%d/rate=%d", how.name, producers, rate), func(b *testing.B) {
					pacedRuns(b, rate, producers, how.operations(b))
				})
			}
		}
	}
}

// BenchmarkCaptureSaturating captures as fast as the log takes it. Compare with BenchmarkSubmitSaturating.
func BenchmarkCaptureSaturating(b *testing.B) {
	for _, how := range captures {
		for _, producers := range producerCounts {
			b.Run(fmt.Sprintf("%s/producers=%d", how.name, producers), func(b *testing.B) {
				saturatingRuns(b, producers, how.operations(b))
			})
		}
	}
}

// captureBlocks is the loop of BenchmarkSubmitIdle around op.
func captureBlocks(b *testing.B, bind func(a *capture.Adapter) (op func(m *newOrder) (capture.Result, error))) {
	m := &newOrder{ClientID: "CL-1000000001", Instrument: 7, Side: 1, Price: 10125, Quantity: 300}
	var sum uint64
	inRuns(b, runlog.Options{}, entryLimit(), func(run *runlog.Run, n int) {
		warm(b, run)
		op := bind(adapter(b, run))
		for n > 0 {
			block := min(n, submitBlock)
			b.StartTimer()
			for range block {
				sum++
				m.At = int64(sum)
				binary.LittleEndian.PutUint64(m.ID[:], sum)
				if r, err := op(m); err != nil || r.Outcome != capture.Captured {
					b.Fatal(r.Outcome, err)
				}
			}
			b.StopTimer()
			waitAll(b, run)
			n -= block
		}
	})
}

// BenchmarkCaptureTyped captures through a typed handle.
func BenchmarkCaptureTyped(b *testing.B) {
	captureBlocks(b, func(a *capture.Adapter) func(m *newOrder) (capture.Result, error) {
		h, err := capture.Bind[newOrder](a, "orders.commands")
		check(b, err)
		return func(m *newOrder) (capture.Result, error) { return h.Capture(*m) }
	})
}

// BenchmarkCaptureTypedIdentity adds the message's id, which is checked for duplicates and indexed, and a key.
func BenchmarkCaptureTypedIdentity(b *testing.B) {
	captureBlocks(b, func(a *capture.Adapter) func(m *newOrder) (capture.Result, error) {
		h, err := capture.Bind[*newOrder](a, "orders.commands")
		check(b, err)
		return h.Capture
	})
}

// BenchmarkCaptureAny captures a value of any type; making an interface of it is the allocation.
func BenchmarkCaptureAny(b *testing.B) {
	captureBlocks(b, func(a *capture.Adapter) func(m *newOrder) (capture.Result, error) {
		return func(m *newOrder) (capture.Result, error) { return a.CaptureAny("orders.commands", *m) }
	})
}

// BenchmarkCaptureAnyPointer captures pointers, as most buses carry, with identity and key.
func BenchmarkCaptureAnyPointer(b *testing.B) {
	captureBlocks(b, func(a *capture.Adapter) func(m *newOrder) (capture.Result, error) {
		return func(m *newOrder) (capture.Result, error) { return a.CaptureAny("orders.commands", m) }
	})
}

// BenchmarkCaptureAnyUnregistered is what a bus pays for messages that are not on the list.
func BenchmarkCaptureAnyUnregistered(b *testing.B) {
	run := open(b, runlog.Options{})
	a := adapter(b, run)
	m := &struct{ n int }{}
	b.ReportAllocs()
	for b.Loop() {
		if r, err := a.CaptureAny("noise", m); err != nil || r.Outcome != capture.NotRegistered {
			b.Fatal(r.Outcome, err)
		}
	}
	closeRun(b, run)
}

// BenchmarkCaptureAnyDuplicate is the second hop of a message.
func BenchmarkCaptureAnyDuplicate(b *testing.B) {
	run := open(b, runlog.Options{})
	a := adapter(b, run)
	m := &newOrder{ID: runlog.ID{1}, ClientID: "CL-1000000001"}
	_, err := a.CaptureAny("orders.commands", m)
	check(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if r, err := a.CaptureAny("orders.commands", m); err != nil || r.Outcome != capture.Duplicate {
			b.Fatal(r.Outcome, err)
		}
	}
	closeRun(b, run)
}
