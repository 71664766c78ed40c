package writer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
	"github.com/runlog-io/runlog/writer"
)

func TestSyncEachCommitSyncsEachBatchOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{})
		for range 10 {
			must(t, r.WaitDurable(t.Context(), r.submit(7)))
			r.settle()
		}
		if n, batches := r.log.count("sync"), len(r.log.batches()); n != 10 || batches != 10 {
			t.Fatalf("%d syncs for %d batches, want 10 each", n, batches)
		}
		r.close()
	})
}

func TestOneSyncServesAllWhoWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{WarnAfter: off, HaltAfter: off})
		release := r.hang("sync")
		var wg sync.WaitGroup
		for i := range 101 {
			wg.Go(func() {
				d := order(i)
				ctx := context.Background()
				if i%2 == 0 {
					ctx = t.Context()
				}
				_, err := r.Append(ctx, &d)
				must(t, err)
			})
			synctest.Wait()
		}
		release()
		wg.Wait()
		if n := r.log.count("sync"); n > 2 {
			t.Fatalf("%d syncs, want 2: the first entry's and one for the hundred that came meanwhile", n)
		}
		r.close()
	})
}

func TestSyncIntervalSyncsOncePerInterval(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{Sync: writer.SyncInterval, SyncEvery: 10 * time.Millisecond})
		seq := r.submit(1)
		time.Sleep(5 * time.Millisecond)
		if r.Written() != seq || r.Durable() != 0 {
			t.Fatalf("written %d, durable %d before the interval has passed", r.Written(), r.Durable())
		}
		must(t, r.WaitDurable(t.Context(), seq))
		before := r.log.count("sync")
		for range 1000 {
			r.submit(1)
			time.Sleep(100 * time.Microsecond)
		}
		if n := r.log.count("sync") - before; n < 8 || n > 11 {
			t.Fatalf("%d syncs in 100 ms of traffic, want one for each 10 ms", n)
		}
		must(t, r.WaitDurable(context.Background(), r.Accepted()))
		r.close()
		if r.Durable() != r.Accepted() {
			t.Fatalf("durable %d after close, accepted %d", r.Durable(), r.Accepted())
		}
	})
}

func TestOneSyncCoversAllBatchesThatWaited(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{BatchEntries: 2, CommitDelay: time.Hour})
		seq := r.submit(7)
		must(t, r.WaitDurable(context.Background(), seq))
		if got, want := fmt.Sprint(r.log.batches()), "[[1 2] [3 4] [5 6] [7 7]]"; got != want || r.log.count("sync") != 1 {
			t.Fatalf("batches %s with %d syncs, want %s with one", got, r.log.count("sync"), want)
		}
		r.close()
	})
}

// What is acknowledged is proven by a later commit, but for the last one, also when many were synced together.
func TestBatchesThatWereSyncedTogetherAreProvenWhenTheyAreDurable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{BatchEntries: 2, CommitDelay: time.Hour, IdleMark: off})
		must(t, r.WaitDurable(context.Background(), r.submit(7)))
		after := r.mem.Kill()
		path := r.dir + "/" + segmentOne
		b, err := vfs.ReadFile(after, path, 1<<20)
		must(t, err)
		f, err := after.Open(path)
		must(t, err)
		for seq := 1; seq <= 7; seq++ { // each batch, the last one too
			at := bytes.Index(b, order(seq).Payload)
			_, err := f.WriteAt([]byte{b[at] ^ 1}, int64(at))
			must(t, err)
			if rec, err := wal.Recover(after.Kill(), r.dir, 1); err != nil || !errors.Is(rec.Damage, format.ErrCorrupt) {
				t.Errorf("a flipped bit in durable entry %d is no damage: %s at %d, %v", seq, rec.Status, rec.LastSeq, err)
			}
			_, err = f.WriteAt(b[at:at+1], int64(at))
			must(t, err)
		}
		must(t, f.Close())
		r.close()
	})
}

func TestSyncNeverWritesAndProvesNothingBeforeClose(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{Sync: writer.SyncNever})
		r.mem.SetTrace(true)
		seq := r.submit(5)
		time.Sleep(time.Minute)
		if err := r.WaitDurable(t.Context(), seq); !errors.Is(err, writer.ErrNotDurable) {
			t.Fatalf("waiting says %v, want ErrNotDurable", err)
		}
		d := order(6)
		if seq, err := r.Append(context.Background(), &d); seq != 6 || !errors.Is(err, writer.ErrNotDurable) {
			t.Fatalf("append says %d, %v", seq, err)
		}
		if r.Written() < 5 || r.Durable() != 0 || r.log.count("sync") != 0 {
			t.Fatalf("written %d, durable %d, %d syncs", r.Written(), r.Durable(), r.log.count("sync"))
		}
		for _, op := range r.mem.Trace() { // the spare is synced as it is made
			if op.Kind == vfs.OpDatasync && strings.HasSuffix(op.Name, segmentOne) {
				t.Fatalf("%s was synced", op.Name)
			}
		}
		r.close()
		r.wantStored(payloads(6, "")...)
		rec, err := wal.Recover(r.mem.Crash(vfs.LoseAll()), r.dir, 1)
		if err != nil || rec.Status != manifest.Ended || rec.LastSeq != 7 {
			t.Fatalf("a closed run is %s at %d after a power cut: %v", rec.Status, rec.LastSeq, err)
		}
	})
}

func TestAnIdleWriterWritesExactlyOneMark(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{IdleMark: 100 * time.Millisecond})
		for range 50 { // never idle for as long
			r.submit(1)
			time.Sleep(50 * time.Millisecond)
		}
		if n := r.log.count("mark"); n != 0 {
			t.Fatalf("%d marks while busy", n)
		}
		time.Sleep(time.Hour)
		if n := r.log.count("mark"); n != 1 {
			t.Fatalf("%d marks in an idle hour, want 1", n)
		}
		// The mark is proof: the last entry cannot be lost silently any more.
		rec, err := wal.Recover(r.mem.Crash(vfs.LoseAll()), r.dir, 1)
		must(t, err)
		if rec.LastSeq != 50 {
			t.Fatalf("recovered at %d", rec.LastSeq)
		}
		r.submit(1)
		time.Sleep(5 * time.Millisecond) // the writer, fast asleep, was woken
		if r.Durable() != 51 {
			t.Fatalf("durable is %d after a submit to an idle writer", r.Durable())
		}
		time.Sleep(time.Hour)
		if n := r.log.count("mark"); n != 2 {
			t.Fatalf("%d marks, want 2", n)
		}
		r.close()
	})
}

func TestIdleMarkOffWritesNone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{IdleMark: off})
		r.submit(1)
		time.Sleep(time.Hour)
		r.submit(1)
		time.Sleep(5 * time.Millisecond)
		if r.log.count("mark") != 0 || r.Durable() != 2 {
			t.Fatalf("%d marks, durable %d", r.log.count("mark"), r.Durable())
		}
		r.close()
	})
}

// An idle writer does nothing: no timer fires, no file is touched.
func TestAnIdleWriterSleeps(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{})
		r.submit(1)
		time.Sleep(time.Second)
		before, syncs := r.mem.Ops(vfs.OpAny), r.log.count("sync")
		time.Sleep(24 * time.Hour)
		if n := r.mem.Ops(vfs.OpAny) - before; n != 0 || r.log.count("sync") != syncs {
			t.Fatalf("%d operations in an idle day", n)
		}
		release := r.hang("append") // and the watchdog wakes with it
		r.submit(1)
		time.Sleep(time.Second)
		halted(t, r.Err())
		release()
	})
}

func TestOptionErrorsNameTheOption(t *testing.T) {
	for name, o := range map[string]writer.Options{
		"MaxPayload":   {MaxPayload: 9 << 20},
		"QueueBytes":   {QueueBytes: -1},
		"QueueEntries": {QueueEntries: 1 << 30},
		"BatchBytes":   {BatchBytes: -4},
		"BatchEntries": {BatchEntries: -1},
		"CommitDelay":  {CommitDelay: -time.Second},
		"SyncEvery":    {SyncEvery: 2 * time.Hour},
		"Sync":         {Sync: 7},
		"WarnAfter":    {WarnAfter: time.Minute},
	} {
		_, err := writer.New(nil, 0, 1<<20, o)
		wantNamed(t, name, err)
		wantNamed(t, name, o.Check())
	}
	for _, o := range []writer.Options{
		{}, {WarnAfter: off, HaltAfter: off}, {WarnAfter: time.Hour, HaltAfter: off}, {IdleMark: off},
	} {
		must(t, o.Check())
	}
}

func wantNamed(t *testing.T, option string, err error) {
	t.Helper()
	if !errors.Is(err, format.ErrInvalid) || !contains(err.Error(), "option "+option+" ") {
		t.Errorf("%s: the error is %v", option, err)
	}
}

func TestSyncNeverProvesNothingWhenTheRunIsAbandoned(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{Sync: writer.SyncNever})
		last := r.submit(3)
		r.settle()
		r.Abandon(errors.New("given up"))
		<-r.Done()
		if d := r.Durable(); d != 0 {
			t.Errorf("durable is %d", d)
		}
		if err := r.WaitDurable(context.Background(), last); !errors.Is(err, writer.ErrNotDurable) {
			t.Errorf("wait: %v", err)
		}
	})
}
