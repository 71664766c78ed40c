package writer_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/writer"
)

func TestSeqOrderIsSubmitOrder(t *testing.T) {
	for _, producers := range []int{1, 2, 8} {
		t.Run(fmt.Sprint(producers, " producers"), func(t *testing.T) {
			r := newRig(t, writer.Options{QueueEntries: 64, BatchEntries: 16})
			const each = 500
			got := make([]map[uint64]string, producers)
			var wg sync.WaitGroup
			for p := range producers {
				got[p] = map[uint64]string{}
				wg.Go(func() {
					last := uint64(0)
					for i := range each {
						text := fmt.Sprint(p, "/", i)
						seq, err := r.Submit(&entry.Draft{Topic: "t", Type: "t", Payload: []byte(text)})
						if err != nil || seq <= last {
							t.Errorf("seq %d after %d, %v", seq, last, err)
							return
						}
						got[p][seq], last = text, seq
					}
				})
			}
			wg.Wait()
			r.close()
			want := make([]string, producers*each+1)
			for _, m := range got {
				for seq, text := range m {
					want[seq-1] = text
				}
			}
			r.wantStored(want...)
		})
	}
}

// brokenClock runs backwards, then stands still.
type brokenClock struct{ n atomic.Int64 }

func (c *brokenClock) Now() int64 { return max(1_000_000-c.n.Add(10), 999_000) }

func TestTsPublishIncreasesWhateverTheClockDoes(t *testing.T) {
	for name, clock := range map[string]interface{ Now() int64 }{
		"backwards": &brokenClock{}, "still": fixedClock(5), "zero": fixedClock(0), "negative": fixedClock(-3),
		"at its end": fixedClock(math.MaxInt64),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, writer.Options{Clock: clock})
			r.submit(300)
			r.close()
			r.wantStored(payloads(300, "")...) // checks the times too
		})
	}
}

func TestSubmittersThatWaitForRoomAreServedInOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{QueueEntries: 1, WarnAfter: off, HaltAfter: off})
		release := r.hang("append")
		r.submit(1)
		time.Sleep(2 * time.Millisecond)
		r.submit(1)
		for i := 3; i <= 60; i++ {
			go func() {
				d := order(i)
				if seq, err := r.Submit(&d); seq != uint64(i) || err != nil {
					t.Errorf("submitter %d got seq %d, %v", i, seq, err)
				}
			}()
			synctest.Wait() // it stands in the queue
		}
		release()
		time.Sleep(time.Second)
		r.close()
		r.wantStored(payloads(60, "")...)
	})
}

func TestTheQueueIsBoundedInEntriesAndBytes(t *testing.T) {
	d := entry.Draft{Topic: "t", Type: "t", Payload: make([]byte, 1000)}
	for name, o := range map[string]writer.Options{
		"entries": {QueueEntries: 7},
		"bytes":   {QueueBytes: 7*d.Size() + d.Size()/2},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				o.WarnAfter, o.HaltAfter = off, off
				r := newRig(t, o)
				release := r.hang("append")
				_, err := r.Submit(&d)
				must(t, err)
				time.Sleep(2 * time.Millisecond) // this one is in the disk
				go func() {
					for range 20 {
						if _, err := r.Submit(&d); err != nil {
							t.Error(err)
						}
					}
				}()
				synctest.Wait()
				if n := r.Accepted(); n != 1+7 {
					t.Fatalf("%d are accepted while the disk hangs, want 8", n)
				}
				release()
				time.Sleep(time.Second)
				if n := r.Durable(); n != 21 {
					t.Fatalf("durable is %d, want 21", n)
				}
			})
		})
	}
}

func TestADraftLargerThanQueueAndBatchPassesAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{QueueBytes: 1, BatchBytes: 1})
		big := strings.Repeat("x", 300_000) // larger than the first segment too
		for _, p := range []string{"a", big, "b"} {
			_, err := r.Submit(&entry.Draft{Topic: "t", Type: "t", Payload: []byte(p)})
			must(t, err)
		}
		r.close()
		r.wantStored("a", big, "b", "")
	})
}

func TestABatchIsBoundedInEntriesAndBytes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, o := range []writer.Options{{BatchEntries: 3}, {BatchBytes: 400}} {
			r := newRig(t, o)
			release := r.hang("append")
			r.submit(1)
			time.Sleep(2 * time.Millisecond)
			r.submit(100)
			release()
			r.close()
			for _, b := range r.log.batches()[1:] {
				if n := b[1] - b[0] + 1; n < 1 || n > 6 || o.BatchEntries > 0 && n > 3 {
					t.Fatalf("%+v makes a batch of %d", o, n)
				}
			}
		}
	})
}

func TestADraftThatBreaksALimitIsRefusedAndLeavesNoTrace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{MaxPayload: 10})
		for name, d := range map[string]entry.Draft{
			"no topic":        {Type: "t"},
			"payload":         {Topic: "t", Type: "t", Payload: make([]byte, 11)},
			"lifecycle topic": {Topic: entry.TopicEnded, Type: entry.TypeEnded},
			"lifecycle other": {Topic: entry.LifecyclePrefix + "x", Type: "t"},
		} {
			if _, err := r.Submit(&d); !errors.Is(err, format.ErrInvalid) {
				t.Errorf("%s: got %v, want ErrInvalid", name, err)
			}
		}
		d := entry.Draft{Topic: "t", Type: "t", Keys: []entry.Key{{Kind: "undeclared", Value: "x"}}}
		if _, err := r.Submit(&d); !errors.Is(err, format.ErrUnknownKind) {
			t.Errorf("undeclared kind: got %v", err)
		}
		if r.Accepted() != 0 {
			t.Errorf("accepted %d", r.Accepted())
		}
		must(t, r.Close(context.Background(), nil))
		r.wantStored()
	})
}

func TestKeptPublishTimesMustIncrease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{KeepPublish: true})
		for i, ts := range []int64{-5, 1, 2} {
			seq, err := r.Submit(&entry.Draft{Topic: "t", Type: "t", TsPublish: ts})
			if seq != uint64(i+1) || err != nil {
				t.Fatalf("ts_publish %d: %v", ts, err)
			}
		}
		for _, ts := range []int64{2, 1, -6} {
			if _, err := r.Submit(&entry.Draft{Topic: "t", Type: "t", TsPublish: ts}); !errors.Is(err, format.ErrInvalid) {
				t.Fatalf("ts_publish %d after 2: %v", ts, err)
			}
		}
		r.close()
		list, _ := r.stored()
		if len(list) != 4 || list[0].TsPublish != -5 || list[2].TsPublish != 2 || list[3].TsPublish <= 2 {
			t.Fatalf("stored %+v", list)
		}
	})
}

func TestASmallDraftDoesNotOvertakeALargeOneThatWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{QueueBytes: 1000, WarnAfter: off, HaltAfter: off})
		release := r.hang("append")
		r.submit(1)
		time.Sleep(2 * time.Millisecond)
		for seq, size := range []int{600, 700, 5} { // the second one does not fit beside the first, the third one would
			go func() {
				got, err := r.Submit(&entry.Draft{Topic: "t", Type: "t", Payload: make([]byte, size)})
				if got != uint64(seq+2) || err != nil {
					t.Errorf("the draft of %d bytes got seq %d, %v", size, got, err)
				}
			}()
			synctest.Wait()
		}
		if n := r.Accepted(); n != 2 {
			t.Errorf("accepted %d while the large one waits, want 2", n)
		}
		release()
		time.Sleep(time.Second)
		r.close()
	})
}
