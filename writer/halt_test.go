package writer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
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

func TestAHaltNeverComesWithoutItsWarning(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var warned atomic.Int64
		const limit = 50 * time.Millisecond
		r := newRig(t, writer.Options{QueueEntries: 1, BatchEntries: 1, HaltAfter: limit, WarnAfter: limit, OnWarn: func(writer.Warning) { warned.Add(1) }})
		release := r.hang("append")
		r.submit(1)
		time.Sleep(time.Second)
		if r.Err() == nil || warned.Load() == 0 {
			t.Errorf("halted by %v after %d warnings", r.Err(), warned.Load())
		}
		release()
	})
}

func TestHB1ASubmitterThatWaitsTooLongHaltsTheRun(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var told halts
		const limit = 50 * time.Millisecond
		r := newRig(t, writer.Options{QueueEntries: 1, BatchEntries: 1, HaltAfter: limit, WarnAfter: off, OnHalt: told.add})
		release := r.hang("append")
		r.submit(1)
		time.Sleep(2 * time.Millisecond) // the first one is in the disk
		r.submit(1)
		d := order(3)
		_, err := r.Submit(&d)
		h := told.one(t)
		if halted(t, err) != h || h.Reason != writer.ReasonStall || h.StalledFor < limit || h.Threshold != limit {
			t.Fatalf("submit says %v, OnHalt got %+v", err, h)
		}
		if h.FirstSeq != 1 || h.LastSeq != 2 {
			t.Fatalf("names seq %d to %d, want 1 to 2", h.FirstSeq, h.LastSeq)
		}
		release()
		_ = r.Close(t.Context(), nil)
	})
}

func TestHB2AfterAHaltEveryCallReturnsTheSameErrorAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var told halts
		r := newRig(t, writer.Options{OnHalt: told.add})
		release := r.hang("sync")
		seq := r.submit(1)
		first := r.WaitDurable(t.Context(), seq)
		h := halted(t, first)
		atOnce(t, func() {
			d := order(2)
			for range 3 {
				_, err := r.Submit(&d)
				_, err2 := r.Append(t.Context(), &d)
				err3 := r.WaitDurable(t.Context(), seq)
				if err4 := r.Err(); halted(t, err) != h || halted(t, err2) != h || halted(t, err3) != h || halted(t, err4) != h {
					t.Fatalf("got %v, %v, %v, %v; want %v each time", err, err2, err3, err4, h)
				}
			}
		})
		told.one(t)
		release()
		if err := r.Close(t.Context(), nil); halted(t, err) != h {
			t.Fatalf("close says %v", err)
		}
		told.one(t)
	})
}

func TestHB3WhatWasAcceptedIsCommittedWhenTheDiskComesBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{QueueEntries: 2})
		release := r.hang("append")
		r.submit(1)
		time.Sleep(2 * time.Millisecond)
		r.submit(2)
		d := order(4)
		_, err := r.Submit(&d)
		h := halted(t, err)
		time.Sleep(10 * time.Second)
		release()
		<-r.Done()
		if r.Durable() != 3 {
			t.Fatalf("durable is %d, want 3", r.Durable())
		}
		r.wantStored(payloads(3)...)
		records := r.log.fails
		if len(records) != 1 || records[0].Reason != manifest.ReasonStall || records[0].Accepted != h.LastSeq ||
			records[0].Durable != 0 || records[0].Time != h.Time {
			t.Fatalf("the halt record is %+v", records)
		}
		file, err := vfs.ReadFile(r.mem, r.dir+"/"+segmentOne, 1<<20)
		must(t, err)
		if !bytes.Contains(file, []byte(`"reason":"stall"`)) {
			t.Fatal("the halt record is not in the log")
		}
		rec, err := wal.Recover(r.mem.Kill(), r.dir, 1)
		must(t, err)
		if rec.LastSeq != 3 || rec.Status != manifest.CrashedRecovered {
			t.Fatalf("recovered as %s at %d", rec.Status, rec.LastSeq)
		}
	})
}

func TestHB4AFullDiskHalts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var told halts
		r := newRig(t, writer.Options{OnHalt: told.add})
		r.mem.Inject(vfs.Rule{Kind: vfs.OpWrite, Err: syscall.ENOSPC, Forever: true})
		d := order(1)
		seq, err := r.Append(t.Context(), &d)
		h := halted(t, err)
		if seq != 1 || h.Reason != writer.ReasonDiskFull || h.FirstSeq != 1 || h.LastSeq != 1 || told.one(t) != h {
			t.Fatalf("seq %d, halt %+v", seq, h)
		}
		if _, err := r.Submit(&d); halted(t, err) != h {
			t.Fatalf("a later submit says %v", err)
		}
		if err := r.Close(t.Context(), ended(0)); halted(t, err) != h {
			t.Fatalf("close says %v", err)
		}
	})
}

// HB5 and HB6 are about requests that wait for the writer. Here they are a commit, a submitter and an entry, watched
// apart.
func TestHB5ACommitThatIsStuckWarnsThenHalts(t *testing.T) {
	for _, call := range []string{"append", "sync"} {
		wantStall(t, writer.StageCommit, writer.Options{}, func(r *rig) (release func()) {
			release = r.hang(call)
			r.submit(1)
			return release
		})
	}
}

func TestHB5AMarkThatIsStuckHaltsThoughNoEntryWaits(t *testing.T) {
	wantStall(t, writer.StageCommit, writer.Options{IdleMark: 10 * time.Millisecond}, func(r *rig) (release func()) {
		must(t, r.WaitDurable(context.Background(), r.submit(1)))
		return r.hang("mark")
	})
}

func TestHB6ASubmitterThatIsStuckWarnsThenHaltsThoughCommitsGoOn(t *testing.T) {
	o := writer.Options{QueueEntries: 100, BatchEntries: 1}
	wantStall(t, writer.StageQueue, o, func(r *rig) (release func()) {
		r.slow(10 * time.Millisecond)
		r.submit(100)
		time.Sleep(2 * time.Millisecond)
		r.submit(100)
		go func() {
			d := order(201)
			_, _ = r.Submit(&d)
		}()
		return func() { r.log.setHook(nil) }
	})
}

func TestTheOldestEntryWaitingTooLongWarnsThenHaltsThoughCommitsGoOn(t *testing.T) {
	wantStall(t, writer.StageAge, writer.Options{BatchEntries: 1}, func(r *rig) (release func()) {
		r.slow(10 * time.Millisecond)
		r.submit(100)
		return func() { r.log.setHook(nil) }
	})
}

// slow makes each commit take a while.
func (r *rig) slow(d time.Duration) {
	r.log.setHook(func(call string) error {
		if call == "append" {
			time.Sleep(d)
		}
		return nil
	})
}

func wantStall(t *testing.T, stage writer.Stage, o writer.Options, cause func(r *rig) (release func())) {
	t.Helper()
	bubble(t, func(t *testing.T) {
		var told halts
		var warnings []writer.Warning
		o.OnHalt, o.OnWarn = told.add, func(w writer.Warning) { warnings = append(warnings, w) }
		r := newRig(t, o)
		start := time.Now()
		release := cause(r)
		time.Sleep(245 * time.Millisecond)
		if err := r.Err(); err != nil {
			t.Fatalf("halted after %v: %v", time.Since(start), err)
		}
		time.Sleep(50 * time.Millisecond)
		h := told.one(t)
		if h.Reason != writer.ReasonStall || h.Stage != stage || h.Threshold != 250*time.Millisecond || h.StalledFor < h.Threshold ||
			h.Cause != nil || !strings.Contains(h.Error(), string(stage)) {
			t.Fatalf("halted by %v, want stage %s", h, stage)
		}
		warned := false
		for _, w := range warnings {
			if w.Kind == writer.WarnStall && w.Stage == stage && strings.Contains(w.String(), string(stage)) {
				warned = w.For >= 50*time.Millisecond && w.For < 100*time.Millisecond
			}
		}
		if !warned {
			t.Fatalf("warnings %v, want one of stage %s after 50 ms", warnings, stage)
		}
		release()
		if err := r.Close(t.Context(), nil); halted(t, err) != h {
			t.Fatalf("close says %v", err)
		}
		if r.Durable() != r.Accepted() {
			t.Fatalf("durable is %d, accepted %d", r.Durable(), r.Accepted())
		}
	})
}

func TestHB7TheCauseDecidesTheReason(t *testing.T) {
	corrupt := &format.Error{Path: "x", Err: format.ErrCorrupt}
	for _, c := range []struct {
		cause  error
		reason writer.Reason
	}{
		{syscall.ENOSPC, writer.ReasonDiskFull}, {syscall.EDQUOT, writer.ReasonDiskFull}, {syscall.EFBIG, writer.ReasonDiskFull},
		{corrupt, writer.ReasonCorrupt}, {format.ErrVersion, writer.ReasonCorrupt},
		{syscall.EIO, writer.ReasonIO}, {syscall.EBADF, writer.ReasonIO},
	} {
		bubble(t, func(t *testing.T) {
			r := newRig(t, writer.Options{})
			cause := fmt.Errorf("commit 7: %w", c.cause)
			r.log.setHook(func(call string) error {
				if call == "append" {
					return cause
				}
				return nil
			})
			d := order(1)
			_, err := r.Append(context.Background(), &d)
			h := halted(t, err)
			if h.Reason != c.reason || h.Cause != cause || !errors.Is(err, c.cause) || !strings.Contains(h.Error(), cause.Error()) {
				t.Fatalf("%v halts with %q: %v, want %q", c.cause, h.Reason, err, c.reason)
			}
			_ = r.Close(t.Context(), nil)
		})
	}
}

func TestHB8WithoutOnHaltAHaltIsOnlyReturned(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{})
		r.mem.Inject(vfs.Rule{Kind: vfs.OpDatasync, Name: segmentOne, Err: syscall.EIO})
		d := order(1)
		_, err := r.Append(t.Context(), &d)
		halted(t, err)
		_ = r.Close(t.Context(), nil)
	})
}

// HB9, with every reason at once: a stall of each stage, an I/O error when the disk comes back, and callers of each kind.
func TestHB9OnHaltRunsOnceAndTheFirstReasonStays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var told halts
		r := newRig(t, writer.Options{QueueEntries: 2, OnHalt: told.add})
		gate := make(chan struct{})
		r.log.setHook(func(call string) error {
			<-gate
			return syscall.EIO
		})
		var wg sync.WaitGroup
		errs := make([]error, 40)
		for i := range errs {
			wg.Go(func() {
				d := order(i)
				ctx := context.Background()
				if i%2 == 0 {
					ctx = t.Context()
				}
				_, errs[i] = r.Append(ctx, &d)
			})
		}
		time.Sleep(time.Second)
		close(gate)
		wg.Wait()
		h := told.one(t)
		if h.Reason != writer.ReasonStall {
			t.Fatalf("the reason is %v, want the first one, a stall", h)
		}
		for _, err := range errs {
			if halted(t, err) != h {
				t.Fatalf("a caller got %v, OnHalt got %v", err, h)
			}
		}
		if err := r.Close(t.Context(), nil); halted(t, err) != h {
			t.Fatalf("close says %v", err)
		}
		told.one(t)
	})
}

func TestOnHaltHoldsNoLockAndMayClose(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var r *rig
		closed := make(chan error)
		r = newRig(t, writer.Options{OnHalt: func(h *writer.HaltError) {
			d := order(2)
			_, err := r.Submit(&d)
			closed <- errors.Join(err, r.Close(context.Background(), nil))
		}})
		r.mem.Inject(vfs.Rule{Kind: vfs.OpWrite, Name: segmentOne, Err: syscall.EIO})
		r.submit(1)
		halted(t, <-closed)
	})
}

func TestOnHaltRunsWhileTheDiskHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		told := make(chan *writer.HaltError)
		r := newRig(t, writer.Options{OnHalt: func(h *writer.HaltError) { told <- h }})
		release := r.hang("sync")
		r.submit(1)
		<-told
		if r.Durable() != 0 {
			t.Fatal("the disk did not hang")
		}
		release()
		_ = r.Close(t.Context(), nil)
	})
}

func TestThresholdsCanBeSwitchedOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		never := func(w writer.Warning) { t.Errorf("warning %v", w) }
		r := newRig(t, writer.Options{QueueEntries: 1, WarnAfter: off, HaltAfter: off, OnWarn: never})
		release := r.hang("sync")
		go func() {
			time.Sleep(time.Hour)
			release()
		}()
		must(t, r.WaitDurable(context.Background(), r.submit(5)))
		r.close()
	})
}

func TestWarnAloneNeverHalts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		warned := 0
		r := newRig(t, writer.Options{HaltAfter: off, OnWarn: func(w writer.Warning) { warned++ }})
		release := r.hang("sync")
		r.submit(1)
		time.Sleep(time.Hour)
		release()
		r.close()
		synctest.Wait()
		if warned == 0 || warned > 2 {
			t.Fatalf("%d warnings, want one for each stage that is stuck", warned)
		}
	})
}

func TestAnEntryMayWaitAsLongAsItsOptionsSay(t *testing.T) {
	for name, o := range map[string]writer.Options{
		"commit delay": {CommitDelay: time.Second},
		"interval":     {Sync: writer.SyncInterval, SyncEvery: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				o.OnWarn = func(w writer.Warning) { t.Errorf("warning %v", w) }
				r := newRig(t, o)
				time.Sleep(time.Millisecond) // the writer has looked once
				seq := r.submit(1)
				time.Sleep(900 * time.Millisecond)
				if r.Durable() != 0 {
					t.Fatal("was durable before its time")
				}
				time.Sleep(200 * time.Millisecond)
				must(t, r.WaitDurable(t.Context(), seq))
				r.close()
			})
		})
	}
}

func TestAFullQueueDoesNotWaitForCommitDelay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{QueueEntries: 4, CommitDelay: time.Hour})
		atOnce(t, func() { r.submit(100) })
		r.close()
	})
}

// A process that was suspended, which the watchdog sees as its own ticks coming late, is reported and does not count
// as a stall.
func TestASuspendedProcessIsReportedAndNotCounted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var suspended time.Duration
		slept := false
		r := newRig(t, writer.Options{OnWarn: func(w writer.Warning) {
			if w.Kind == writer.WarnSuspended {
				suspended = w.For
			} else if !slept {
				slept = true
				time.Sleep(10 * time.Second)
			}
		}})
		release := r.hang("sync")
		r.submit(1)
		time.Sleep(10*time.Second + 150*time.Millisecond) // of which 150 ms were awake
		must(t, r.Err())
		synctest.Wait()
		if suspended < 10*time.Second {
			t.Fatalf("reported as suspended for %v, want 10 s", suspended)
		}
		time.Sleep(200 * time.Millisecond)
		if h := halted(t, r.Err()); h.StalledFor > time.Second {
			t.Fatalf("the stall is said to have taken %v", h.StalledFor)
		}
		release()
		_ = r.Close(t.Context(), nil)
	})
}

func TestAfterAnIOErrorNothingMoreIsWrittenToThatFile(t *testing.T) {
	for _, kind := range []vfs.OpKind{vfs.OpWrite, vfs.OpDatasync} {
		for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC} {
			t.Run(fmt.Sprint(kind, errno), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					r := newRig(t, writer.Options{})
					must(t, r.WaitDurable(t.Context(), r.submit(3)))
					time.Sleep(100*time.Millisecond + 300*time.Microsecond) // the spare is ready, the writer between two looks
					r.mem.Inject(vfs.Rule{Kind: kind, Name: segmentOne, Err: errno})
					r.mem.SetTrace(true)
					r.submit(2)
					<-r.Done()
					h := halted(t, r.Err())
					if h.FirstSeq != 4 || h.LastSeq != 5 || !errors.Is(h, errno) {
						t.Fatalf("halt is %+v", h)
					}
					_ = r.Close(t.Context(), ended(0))
					failed := false
					for _, op := range r.mem.Trace() {
						if op.Name != r.dir+"/"+segmentOne || op.Kind&vfs.OpChange == 0 {
							continue
						}
						if failed {
							t.Fatalf("%s of the file behind the failed one", op.Kind)
						}
						failed = op.Kind == kind
					}
					rec, err := wal.Recover(r.mem.Crash(vfs.LoseAll()), r.dir, 1)
					must(t, err)
					if rec.Status != manifest.CrashedRecovered || rec.LastSeq != 3 || rec.Manifest.Halt == nil {
						t.Fatalf("recovered as %s at %d, halt record %+v", rec.Status, rec.LastSeq, rec.Manifest.Halt)
					}
				})
			})
		}
	}
}

// HB10, HB11 and HB12 are about boot: see package runlog.
