package writer_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
	"github.com/runlog-io/runlog/writer"
)

// contexts: one that can be cancelled waits for the writer's goroutine, one that cannot may lead a commit itself.
func contexts(t *testing.T) map[string]context.Context {
	return map[string]context.Context{"cancellable": t.Context(), "background": context.Background()}
}

func TestWaitDurable(t *testing.T) {
	for name := range contexts(t) {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ctx := contexts(t)[name]
				r := newRig(t, writer.Options{CommitDelay: time.Hour})
				time.Sleep(time.Second) // the writer has looked and will not for an hour
				atOnce(t, func() {      // it does not wait for CommitDelay
					seq := r.submit(3)
					must(t, r.WaitDurable(ctx, seq))
					must(t, r.WaitDurable(ctx, 1))
					must(t, r.WaitDurable(ctx, 0))
					if err := r.WaitDurable(ctx, seq+1); !errors.Is(err, format.ErrInvalid) {
						t.Fatalf("waiting beyond what was accepted says %v", err)
					}
				})
				r.close()
				if err := r.WaitDurable(ctx, 99); !errors.Is(err, format.ErrInvalid) {
					t.Fatalf("waiting beyond what was accepted says %v", err)
				}
			})
		})
	}
}

func TestACancelledAppendReturnsItsSeqAndTheEntryStays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{WarnAfter: off, HaltAfter: off})
		release := r.hang("sync")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		d := order(1)
		seq, err := r.Append(ctx, &d)
		if seq != 1 || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("seq %d, %v", seq, err)
		}
		release()
		r.close()
		r.wantStored(payloads(1, "")...)
	})
}

func TestWaitersOfAHaltedRunAreReleasedAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{WarnAfter: off, HaltAfter: off})
		gate := make(chan struct{})
		r.log.setHook(func(call string) error {
			<-gate
			return syscall.EIO
		})
		errs := make(chan error)
		r.submit(20)
		for i := range 20 {
			ctx := contexts(t)[[]string{"cancellable", "background"}[i%2]]
			go func() { errs <- r.WaitDurable(ctx, uint64(i+1)) }()
		}
		synctest.Wait()
		close(gate)
		atOnce(t, func() {
			for range 20 {
				if h := halted(t, <-errs); !errors.Is(h, syscall.EIO) || h.FirstSeq != 1 || h.LastSeq != 20 {
					t.Fatalf("halt %+v", h)
				}
			}
		})
	})
}

func TestWaitersOfAClosingRunGetTheirEntriesDurable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{Sync: writer.SyncInterval, SyncEvery: time.Hour, WarnAfter: off, HaltAfter: off})
		r.submit(5)
		errs := make(chan error)
		for i := range 5 {
			go func() { errs <- r.WaitDurable(t.Context(), uint64(i+1)) }()
		}
		synctest.Wait()
		r.close()
		for range 5 {
			must(t, <-errs)
		}
	})
}

func TestDurableComesWithTheEndOfTheSync(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{WarnAfter: off, HaltAfter: off})
		told := make(chan struct{}, 1)
		defer r.log.Durable().Notify(told)()
		must(t, r.WaitDurable(t.Context(), r.submit(2)))
		<-told
		r.settle()
		gate := make(chan struct{})
		r.mem.Inject(vfs.Rule{Kind: vfs.OpDatasync, Name: segmentOne, Stall: gate})
		r.submit(3)
		time.Sleep(time.Minute)
		if r.Accepted() != 5 || r.Written() != 5 || r.Durable() != 2 || len(told) != 0 {
			t.Fatalf("while the sync hangs: accepted %d, written %d, durable %d, %d notices",
				r.Accepted(), r.Written(), r.Durable(), len(told))
		}
		close(gate)
		<-told
		if r.Durable() != 5 {
			t.Fatalf("durable %d after the sync", r.Durable())
		}
	})
}

// The promise itself: what Append has acknowledged is there after a power cut that takes everything it may take.
func TestWhatAppendAcknowledgedSurvivesAPowerCut(t *testing.T) {
	for _, policy := range []writer.SyncPolicy{writer.SyncEachCommit, writer.SyncInterval} {
		bubble(t, func(t *testing.T) {
			r := newRig(t, writer.Options{Sync: policy})
			for i := 1; i <= 60; i++ {
				if i%3 == 0 {
					r.submit(2)
				}
				d := order(i)
				seq, err := r.Append(contexts(t)[[]string{"cancellable", "background"}[i%2]], &d)
				must(t, err)
				after := r.mem.Crash(vfs.LoseAll())
				if i%4 == 0 {
					after = r.mem.Crash(vfs.Random(uint64(i)))
				}
				rec, err := wal.Recover(after, r.dir, 1)
				must(t, err)
				if rec.Status != manifest.CrashedRecovered || rec.LastSeq < seq {
					t.Fatalf("seq %d was acknowledged; after a power cut the run is %s and ends at %d: %v",
						seq, rec.Status, rec.LastSeq, rec.Damage)
				}
			}
		})
	}
}

// A lost wake-up would leave somebody waiting for ever: many callers of both kinds, small queues, pauses of all lengths.
func TestNoWakeUpIsLost(t *testing.T) {
	for name, o := range map[string]writer.Options{
		"default":     {},
		"small queue": {QueueEntries: 3, BatchEntries: 2, IdleMark: time.Millisecond},
		"idle":        {IdleMark: time.Microsecond, CommitDelay: time.Hour, BatchEntries: 5},
		"leaders":     {IdleMark: off, CommitDelay: time.Hour, BatchEntries: 5},
		"interval":    {Sync: writer.SyncInterval, SyncEvery: 100 * time.Microsecond, QueueEntries: 10},
	} {
		t.Run(name, func(t *testing.T) {
			o.WarnAfter, o.HaltAfter = off, off
			r := newRig(t, o)
			var appended, cancelled atomic.Int64
			stop := time.Now().Add(400 * time.Millisecond)
			done := make(chan struct{})
			var wg sync.WaitGroup
			for g := range 128 {
				wg.Go(func() {
					rnd := rand.New(rand.NewPCG(uint64(g), 1))
					for i := 0; time.Now().Before(stop); i++ {
						ctx, cancel := context.Background(), context.CancelFunc(func() {})
						switch kind := rnd.IntN(4); {
						case name == "leaders": // each commits for itself or for others; nobody asks the writer's goroutine
						case kind == 0:
							ctx, cancel = context.WithCancel(ctx)
						case kind == 1:
							ctx, cancel = context.WithTimeout(ctx, time.Duration(rnd.IntN(300))*time.Microsecond)
						}
						d := order(i)
						_, err := r.Append(ctx, &d)
						cancel()
						switch {
						case err == nil:
							appended.Add(1)
						case errors.Is(err, context.DeadlineExceeded):
							cancelled.Add(1)
						default:
							t.Errorf("append: %v", err)
							return
						}
						if rnd.IntN(10) == 0 {
							time.Sleep(time.Duration(rnd.IntN(500)) * time.Microsecond)
						}
					}
				})
			}
			go func() {
				wg.Wait()
				close(done)
			}()
			select {
			case <-done:
			case <-time.After(2 * time.Minute):
				t.Fatalf("stuck: accepted %d, durable %d", r.Accepted(), r.Durable())
			}
			if n := appended.Load() + cancelled.Load(); appended.Load() == 0 || uint64(n) != r.Accepted() {
				t.Fatalf("%d appended, %d cancelled, %d accepted", appended.Load(), cancelled.Load(), r.Accepted())
			}
			r.close()
			if list, _ := r.stored(); uint64(len(list)) != r.Accepted() {
				t.Fatalf("%d stored, %d accepted", len(list), r.Accepted())
			}
		})
	}
}

func TestCloseUnderLoadLosesNothingAccepted(t *testing.T) {
	for round := range 20 {
		r := newRig(t, writer.Options{QueueEntries: 4, WarnAfter: off, HaltAfter: off})
		var accepted atomic.Int64
		var wg sync.WaitGroup
		for g := range 16 {
			wg.Go(func() {
				for i := 0; ; i++ {
					d := order(i)
					ctx := context.Background()
					if g%2 == 0 {
						ctx = t.Context()
					}
					seq, err := r.Append(ctx, &d)
					if seq != 0 {
						accepted.Add(1)
					}
					if err != nil {
						if !errors.Is(err, format.ErrClosed) {
							t.Errorf("append: %v", err)
						}
						return
					}
				}
			})
		}
		time.Sleep(time.Duration(round) * 100 * time.Microsecond)
		r.close()
		wg.Wait()
		if list, _ := r.stored(); int64(len(list)) != accepted.Load()+1 || r.Durable() != uint64(len(list)) {
			t.Fatalf("%d stored, %d accepted and RunEnded, durable %d", len(list), accepted.Load(), r.Durable())
		}
	}
}

// Callers that cannot be cancelled need nobody else: whoever is done leading hands over to the next.
func TestALeaderHandsOver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{BatchEntries: 1, CommitDelay: time.Hour, WarnAfter: off, HaltAfter: off})
		time.Sleep(time.Second) // the writer's goroutine will not look for an hour
		release := r.hang("append")
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				d := order(i)
				_, err := r.Append(context.Background(), &d)
				must(t, err)
			})
			synctest.Wait()
		}
		atOnce(t, func() {
			release()
			wg.Wait()
		})
		if n := len(r.log.batches()); n != 10 {
			t.Fatalf("%d batches, want 10", n)
		}
		r.close()
	})
}
