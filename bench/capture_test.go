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

// BenchmarkCapturePaced captures at a fixed rate, timed from the intended start. Compare with BenchmarkSubmitPaced.
func BenchmarkCapturePaced(b *testing.B) {
	for _, rate := range rates {
		b.Run(fmt.Sprintf("typed/rate=%d", rate), func(b *testing.B) {
			capturePaced(b, rate, func(a *capture.Adapter) func(m *newOrder) (capture.Result, error) {
				h, err := capture.Bind[*newOrder](a, "orders.commands")
				check(b, err)
				return h.Capture
			})
		})
		b.Run(fmt.Sprintf("any/rate=%d", rate), func(b *testing.B) {
			capturePaced(b, rate, func(a *capture.Adapter) func(m *newOrder) (capture.Result, error) {
				return func(m *newOrder) (capture.Result, error) { return a.CaptureAny("orders.commands", m) }
			})
		})
	}
}

func capturePaced(b *testing.B, rate int, bind func(a *capture.Adapter) func(m *newOrder) (capture.Result, error)) {
	pacedRuns(b, rate, 1, func(run *runlog.Run) func() error {
		op, m, sum := bind(adapter(b, run)), &newOrder{ClientID: "CL-1000000001"}, uint64(0)
		return func() error {
			sum++
			binary.LittleEndian.PutUint64(m.ID[:], sum)
			_, err := op(m)
			return err
		}
	})
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
