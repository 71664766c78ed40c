package writer

import (
	"runtime"
	"testing"
)

func TestACommitWaitsForThoseWhomTheLastOneReleased(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that nobody runs before gather lets him
	const released = 100
	w := &Writer{company: released, expected: 5 + released}
	w.accepted.Store(5)
	done := make(chan struct{})
	for range released {
		go func() {
			w.accepted.Add(1)
			done <- struct{}{}
		}()
	}
	w.gather()
	if n := w.Accepted(); n != 5+released {
		t.Errorf("%d of %d are there", n-5, released)
	}
	for range released {
		<-done
	}
}

func TestACommitDoesNotWaitForWhoStaysAway(t *testing.T) {
	for _, o := range []Options{{}, {Synchronous: true}, {Manual: true}} {
		w := &Writer{o: o, company: 100, expected: 100}
		w.gather() // returns
		if !o.Synchronous && !o.Manual && w.company != 0 {
			t.Error("the next commit waits again")
		}
	}
}
