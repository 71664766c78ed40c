//go:build !race

// The race detector makes sync.Pool drop values on purpose, so allocations are counted without it.

package bench

import (
	"encoding/binary"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/capture"
)

// allocations counts what op allocates, on average over enough calls that the writer's own growth rounds to nothing.
func allocations(t *testing.T, run *runlog.Run, op func()) float64 {
	t.Helper()
	warm(t, run)
	n := testing.AllocsPerRun(submitBlock, op)
	closeRun(t, run)
	return n
}

func TestSubmitDoesNotAllocate(t *testing.T) {
	for _, keyed := range []bool{false, true} {
		run, f := open(t, runlog.Options{}), newFlow(payloadBytes, keyed)
		n := allocations(t, run, func() {
			if _, err := run.Submit(f.next()); err != nil {
				t.Error(err)
			}
		})
		if n != 0 {
			t.Errorf("Submit (keys: %v) makes %v allocations, want none", keyed, n)
		}
	}
}

func TestTypedCaptureDoesNotAllocate(t *testing.T) {
	m := newOrder{ClientID: "CL-1000000001", Price: 10125, Quantity: 300}

	run := open(t, runlog.Options{})
	plain, err := capture.Bind[newOrder](adapter(t, run), "orders.commands")
	check(t, err)
	n := allocations(t, run, func() {
		if r, err := plain.Capture(m); err != nil || r.Outcome != capture.Captured {
			t.Error(r.Outcome, err)
		}
	})
	if n != 0 {
		t.Errorf("a typed capture makes %v allocations, want none", n)
	}

	run = open(t, runlog.Options{})
	identified, err := capture.Bind[*newOrder](adapter(t, run), "orders.commands")
	check(t, err)
	sum := uint64(0)
	n = allocations(t, run, func() {
		sum++
		binary.LittleEndian.PutUint64(m.ID[:], sum)
		if r, err := identified.Capture(&m); err != nil || r.Outcome != capture.Captured {
			t.Error(r.Outcome, err)
		}
	})
	if n != 0 {
		t.Errorf("a typed capture with identity and key makes %v allocations, want none", n)
	}
}

// Once the segments are mapped and the buffer has grown.
func TestGetDoesNotAllocate(t *testing.T) {
	f, rng := sealed(t, 100_000, 0), random()
	var buf runlog.Buffer
	read := func() {
		if _, err := f.reader.Get(f.seq(rng.Uint64()), &buf); err != nil {
			t.Error(err)
		}
	}
	for range 1000 {
		read()
	}
	if n := testing.AllocsPerRun(5000, read); n != 0 {
		t.Errorf("Get makes %v allocations, want none", n)
	}
}
