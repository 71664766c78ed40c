package writer_test

import (
	"context"
	"errors"
	"sync"
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

func TestCloseIsIdempotentAlsoConcurrently(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{})
		r.submit(3)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { must(t, r.Close(context.Background(), ended(0))) })
		}
		wg.Wait()
		must(t, r.Close(t.Context(), ended(0)))
		if n := r.log.count("seal"); n != 1 {
			t.Fatalf("sealed %d times", n)
		}
		r.wantStored(payloads(3, "")...)
	})
}

func TestAfterCloseCallsReturnErrClosedWhichIsNoHalt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{})
		r.submit(2)
		r.close()
		d := order(3)
		_, err := r.Submit(&d)
		_, err2 := r.Append(t.Context(), &d)
		for _, err := range []error{err, err2, r.Err()} {
			if !errors.Is(err, format.ErrClosed) || errors.Is(err, writer.ErrHalted) {
				t.Fatalf("got %v, want ErrClosed", err)
			}
		}
		must(t, r.WaitDurable(t.Context(), 2))
		r.wantStored(payloads(2, "")...)
	})
}

func TestCloseTakesWaitingSubmittersOutOfTheQueue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{QueueEntries: 1})
		release := r.hang("append")
		r.submit(1)
		time.Sleep(2 * time.Millisecond)
		r.submit(1)
		errs := make(chan error)
		for range 3 {
			go func() {
				d := order(9)
				_, err := r.Submit(&d)
				errs <- err
			}()
		}
		synctest.Wait()
		go func() {
			time.Sleep(20 * time.Millisecond)
			release()
		}()
		must(t, r.Close(t.Context(), ended(0)))
		for range 3 {
			if err := <-errs; !errors.Is(err, format.ErrClosed) {
				t.Fatalf("a waiting submitter got %v", err)
			}
		}
		r.wantStored(payloads(2, "")...)
	})
}

func TestCloseReturnsWithItsContextWhileTheDiskHangsAndALaterOneWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{WarnAfter: off, HaltAfter: off})
		r.submit(2)
		release := r.hang("sync")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := r.Close(ctx, ended(0)); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Fatalf("close says %v after %v", err, time.Since(start))
		}
		d := order(3)
		if _, err := r.Submit(&d); !errors.Is(err, format.ErrClosed) {
			t.Fatalf("submit says %v", err)
		}
		go func() {
			time.Sleep(time.Minute)
			release()
		}()
		must(t, r.Close(t.Context(), ended(0)))
		r.wantStored(payloads(2, "")...)
	})
}

func TestCloseOfAHaltedRunWhoseDiskHangsReturnsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{})
		release := r.hang("append")
		r.submit(1)
		time.Sleep(time.Second)
		h := halted(t, r.Err())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Close(ctx, ended(0)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("close says %v", err)
		}
		release()
		if err := r.Close(t.Context(), ended(0)); halted(t, err) != h {
			t.Fatalf("close says %v", err)
		}
		r.wantStored(payloads(1)...)
	})
}

// A stall in the last commits halts the run: it is not sealed, and what was accepted is there.
func TestAStallDuringCloseHaltsAndTheRunStaysUnsealed(t *testing.T) {
	for name, sync := range map[string]writer.SyncPolicy{"each commit": writer.SyncEachCommit, "interval": writer.SyncInterval} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t, writer.Options{Sync: sync})
				must(t, r.WaitDurable(t.Context(), r.submit(2)))
				gate := make(chan struct{})
				stuck := r.mem.Inject(vfs.Rule{Kind: vfs.OpDatasync, Name: segmentOne, Stall: gate})
				go func() {
					time.Sleep(time.Second)
					close(gate)
				}()
				h := halted(t, r.Close(t.Context(), ended(0)))
				if stuck.Hits() != 1 || h.Reason != writer.ReasonStall || r.log.count("seal") != 0 || r.log.count("fail") != 1 {
					t.Fatalf("%d hits, %v, calls %v", stuck.Hits(), h, r.log.calls)
				}
				if list, m := r.stored(); len(list) != 3 || m.Status != manifest.Running {
					t.Fatalf("%d entries, status %s", len(list), m.Status)
				}
				rec, err := wal.Recover(r.mem.Kill(), r.dir, 1)
				must(t, err)
				if rec.Damage != nil || rec.LastSeq != 3 {
					t.Fatalf("recovered at %d with damage %v", rec.LastSeq, rec.Damage)
				}
			})
		})
	}
}

// Once everything is durable a slow disk only delays the end.
func TestASlowSealDoesNotHalt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var told halts
		r := newRig(t, writer.Options{OnHalt: told.add})
		r.submit(2)
		r.log.setHook(func(call string) error {
			if call == "seal" {
				time.Sleep(time.Minute)
			}
			return nil
		})
		r.close()
		if len(told.list) != 0 || r.log.count("fail") != 0 {
			t.Fatalf("halted: %v", told.list)
		}
		r.wantStored(payloads(2, "")...)
	})
}

func TestAFailedSealHaltsAndWritesNoMore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var told halts
		r := newRig(t, writer.Options{OnHalt: told.add})
		r.submit(2)
		r.mem.Inject(vfs.Rule{Kind: vfs.OpRename, Name: manifest.FileName, Err: syscall.EIO})
		h := halted(t, r.Close(t.Context(), ended(0)))
		if h.Reason != writer.ReasonIO || told.one(t) != h || r.log.count("seal") != 1 || r.log.count("fail") != 0 {
			t.Fatalf("halted by %v, calls %v", h, r.log.calls)
		}
		rec, err := wal.Recover(r.mem.Kill(), r.dir, 1)
		must(t, err)
		if rec.LastSeq != 3 || rec.Status != manifest.Ended {
			t.Fatalf("recovered as %s at %d: %v", rec.Status, rec.LastSeq, rec.Damage)
		}
	})
}

func TestAbandonLeavesTheRunAsACrashWould(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{OnHalt: func(h *writer.HaltError) { t.Errorf("OnHalt: %v", h) }})
		r.submit(2)
		r.Abandon(context.Canceled)
		<-r.Done()
		if err := r.Err(); !errors.Is(err, context.Canceled) || !errors.Is(err, writer.ErrHalted) {
			t.Fatalf("later calls get %v", err)
		}
		if _, m := r.stored(); m.Status != manifest.Running {
			t.Fatalf("status %s", m.Status)
		}
		r.wantStored(payloads(2)...)
	})
}

// Whoever comes first decides: a run is never sealed, or taken for ended, that has told its callers that it was given up.
func TestAbandonWhileTheRunIsBeingEndedChangesNothing(t *testing.T) {
	for _, call := range []string{"append", "sync", "seal"} {
		bubble(t, func(t *testing.T) {
			r := newRig(t, writer.Options{WarnAfter: off, HaltAfter: off})
			r.submit(2)
			time.Sleep(time.Second) // what comes now is the last entry
			release := r.hang(call)
			closed := make(chan error, 1)
			go func() { closed <- r.Close(context.Background(), ended(0)) }()
			time.Sleep(time.Second)
			r.Abandon(errors.New("the state cannot be restored"))
			release()
			if err := <-closed; err != nil {
				t.Errorf("%s: close says %v", call, err)
			}
			if err := r.Err(); !errors.Is(err, format.ErrClosed) || errors.Is(err, writer.ErrHalted) {
				t.Errorf("%s: the run says %v", call, err)
			}
			if _, m := r.stored(); m.Status != manifest.Ended || m.Halt != nil {
				t.Errorf("%s: the manifest says %s, halt %+v", call, m.Status, m.Halt)
			}
			r.wantStored(payloads(2, "")...)
		})
	}
}

func TestAbandonBeforeTheRunIsBeingEndedLeavesItUnended(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{WarnAfter: off, HaltAfter: off})
		release := r.hang("append")
		r.submit(2)
		closed := make(chan error, 1)
		go func() { closed <- r.Close(context.Background(), ended(0)) }()
		time.Sleep(time.Second) // Close waits for what was submitted
		r.Abandon(errors.New("the state cannot be restored"))
		release()
		if h := halted(t, <-closed); h.Reason != writer.ReasonAbandon {
			t.Errorf("close says %v", h)
		}
		rec, err := wal.Recover(r.mem.Kill(), r.dir, 1)
		if err != nil || rec.Status != manifest.CrashedRecovered || rec.LastSeq != 2 {
			t.Errorf("recovered %+v, %v", rec, err)
		}
	})
}
