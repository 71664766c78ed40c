package writer_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
	"github.com/runlog-io/runlog/writer"
)

func contains(s, sub string) bool { return strings.Contains(s, sub) }

// digests tells the content of all files below dir.
func digests(t *testing.T, fsys vfs.FS, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	list, err := fsys.ReadDir(dir)
	must(t, err)
	for _, e := range list {
		name := path.Join(dir, e.Name())
		if e.IsDir() {
			maps.Copy(all, digests(t, fsys, name))
			continue
		}
		b, err := vfs.ReadFile(fsys, name, 1<<30)
		must(t, err)
		all[name] = fmt.Sprintf("%d bytes, %x", len(b), sha256.Sum256(b))
	}
	return all
}

type ticking struct{ n int64 }

func (c *ticking) Now() int64 { c.n += 1000; return c.n }

func TestSynchronousModeIsDeterministic(t *testing.T) {
	run := func(seed uint64) map[string]string {
		r := newRigOn(t, vfs.NewMem(vfs.MemOptions{}), wal.Options{Salts: counter(seed), FirstBytes: 64 << 10, SegmentBytes: 128 << 10},
			writer.Options{Synchronous: true, Clock: &ticking{}})
		rnd := rand.New(rand.NewPCG(seed, 1))
		for i := range 800 { // several segments
			d := order(i)
			d.Payload = make([]byte, rnd.IntN(1000))
			d.Keys = []entry.Key{{Kind: entry.ClientOrderID, Value: fmt.Sprint("c", rnd.IntN(50))}}
			_, err := r.Submit(&d)
			must(t, err)
		}
		must(t, r.Close(context.Background(), ended(0)))
		return digests(t, r.mem, "/")
	}
	one, two, three := run(1), run(1), run(2)
	if len(one) < 8 || !maps.Equal(one, two) {
		t.Fatalf("the same seed gives\n%v\nthen\n%v", one, two)
	}
	if maps.Equal(one, three) {
		t.Fatal("the seed makes no difference")
	}
}

func TestSynchronousModeHasNoGoroutines(t *testing.T) {
	for runtime.NumGoroutine() > 2 { // of tests before
		time.Sleep(time.Millisecond)
	}
	r := newRig(t, writer.Options{Synchronous: true})
	r.submit(100)
	if n := runtime.NumGoroutine(); n > 2 {
		t.Fatalf("%d goroutines, want the test's own", n)
	}
	r.close()
}

func TestSynchronousHaltReturnsFromSubmit(t *testing.T) {
	told := make(chan *writer.HaltError, 2)
	r := newRig(t, writer.Options{Synchronous: true, OnHalt: func(h *writer.HaltError) { told <- h }})
	r.submit(2)
	r.mem.Inject(vfs.Rule{Kind: vfs.OpDatasync, Name: segmentOne, Err: syscall.EIO})
	d := order(3)
	_, err := r.Submit(&d)
	h := halted(t, err)
	if <-told != h || h.FirstSeq != 3 || h.LastSeq != 3 {
		t.Fatalf("halt %+v", h)
	}
	if err := r.Close(context.Background(), ended(0)); halted(t, err) != h {
		t.Fatalf("close says %v", err)
	}
}

func TestSynchronousFailureInCloseHalts(t *testing.T) {
	r := newRig(t, writer.Options{Synchronous: true})
	r.submit(2)
	r.mem.Inject(vfs.Rule{Kind: vfs.OpWrite, Name: segmentOne, Err: syscall.EIO})
	if h := halted(t, r.Close(context.Background(), ended(0))); h.Reason != writer.ReasonIO {
		t.Fatalf("halt %+v", h)
	}
}

func TestSynchronousCallersMayBeConcurrent(t *testing.T) {
	r := newRig(t, writer.Options{Synchronous: true, QueueEntries: 1})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 100 {
				d := order(g*100 + i)
				seq, err := r.Append(context.Background(), &d)
				if err != nil || r.Durable() < seq {
					t.Errorf("seq %d, durable %d, %v", seq, r.Durable(), err)
				}
			}
		})
	}
	wg.Wait()
	r.close()
	if list, _ := r.stored(); len(list) != 801 {
		t.Fatalf("%d stored", len(list))
	}
}

// A driver decides what happens when: each interleaving of submits and commits gives a log that is right, and always
// the same.
func TestASeededDriverReplaysAnInterleaving(t *testing.T) {
	run := func(seed uint64) map[string]string {
		r := newRigOn(t, vfs.NewMem(vfs.MemOptions{}), wal.Options{Salts: counter(seed)},
			writer.Options{Manual: true, Clock: &ticking{}, QueueEntries: 10, BatchEntries: 4})
		rnd := rand.New(rand.NewPCG(seed, 2))
		accepted := uint64(0)
		for range 500 {
			if rnd.IntN(3) > 0 {
				d := order(int(accepted) + 1)
				switch seq, err := r.Submit(&d); {
				case err == nil:
					accepted = seq
				case errors.Is(err, writer.ErrHalted) || r.Accepted() != accepted:
					t.Fatalf("submit: %v", err)
				}
				continue
			}
			before := r.Durable()
			more, err := r.Step()
			must(t, err)
			if step := r.Durable() - before; more != (step > 0) || step > 10 {
				t.Fatalf("a step commits %d entries and says %v", step, more)
			}
		}
		must(t, r.Close(context.Background(), ended(0)))
		r.wantStored(payloads(int(accepted), "")...)
		return digests(t, r.mem, "/")
	}
	for seed := range uint64(20) {
		if !maps.Equal(run(seed), run(seed)) {
			t.Fatalf("seed %d gives two logs", seed)
		}
	}
}

func TestAFailedStepHalts(t *testing.T) {
	r := newRig(t, writer.Options{Manual: true})
	r.submit(1)
	r.mem.Inject(vfs.Rule{Kind: vfs.OpWrite, Name: segmentOne, Err: syscall.EIO})
	_, err := r.Step()
	h := halted(t, err)
	if _, err := r.Step(); halted(t, err) != h {
		t.Fatalf("the next step says %v", err)
	}
}

func TestAFullQueueTellsTheDriver(t *testing.T) {
	r := newRig(t, writer.Options{Manual: true, QueueEntries: 2})
	r.submit(2)
	d := order(3)
	if _, err := r.Submit(&d); err == nil || errors.Is(err, writer.ErrHalted) || errors.Is(err, format.ErrClosed) {
		t.Fatalf("a submit to a full queue says %v", err)
	}
	_, err := r.Step()
	must(t, err)
	r.submit(1)
	r.close()
	r.wantStored(payloads(3, "")...)
}

func TestSubmitDoesNotAllocate(t *testing.T) {
	dir := t.TempDir() + "/run"
	log, err := wal.Create(wal.Options{FS: vfs.OS, Dir: dir, Clock: writer.NewSystemClock(), Manifest: manifest.Manifest{
		Identity: manifest.Identity{Run: manifest.NewRunID(1e18, "", 7), Instance: "engine", Origin: manifest.OriginEngine}}})
	must(t, err)
	w, err := writer.New(log, 0, log.MaxBatchBytes(), writer.Options{WarnAfter: off, HaltAfter: off})
	must(t, err)
	d := order(1)
	d.Payload, d.ID, d.CorrelationID = make([]byte, 256), entry.ID{1}, entry.ID{2}
	d.Keys = []entry.Key{{Kind: entry.ClientOrderID, Value: "O-1"}, {Kind: entry.VenueOrderID, Value: "V-1"}}
	for i := range 20_000 { // warm: the buffers have their size
		_, err := w.Submit(&d)
		must(t, err)
		if i%1000 == 0 {
			must(t, w.WaitDurable(context.Background(), w.Accepted()))
		}
	}
	if n := testing.AllocsPerRun(20_000, func() {
		if _, err := w.Submit(&d); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("Submit allocates %v times, the commits in the background included", n)
	}
	must(t, w.Close(context.Background(), nil))
	log.Close()
	if _, err := vfs.OS.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

func TestAWaiterLeadsWhenASynchronousSubmitIsDone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{Synchronous: true, Sync: writer.SyncInterval})
		seq := r.submit(1)
		release := r.hang("append")
		go r.submit(1)
		synctest.Wait()
		done := make(chan error, 1)
		go func() { done <- r.WaitDurable(context.Background(), seq) }()
		synctest.Wait()
		release()
		select {
		case err := <-done:
			must(t, err)
		case <-time.After(time.Second):
			t.Fatal("nobody leads")
		}
	})
}
