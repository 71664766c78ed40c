package writer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/wal"
	"github.com/runlog-io/runlog/writer"
)

// notes reads a run's notes back, each as "seq before it: body".
func (r *rig) notes() (list []string) {
	r.t.Helper()
	rd, err := wal.OpenReader(r.mem, r.dir)
	must(r.t, err)
	defer rd.Close()
	for n, err := range rd.Notes(wal.NoteOptions{}) {
		must(r.t, err)
		list = append(list, fmt.Sprintf("%d: %s", n.After, n.Body))
	}
	return list
}

func (r *rig) wantNotes(want ...string) {
	r.t.Helper()
	if got := r.notes(); fmt.Sprint(got) != fmt.Sprint(want) {
		r.t.Fatalf("notes %q, want %q", got, want)
	}
}

func TestNotesStandWhereTheyWereSubmitted(t *testing.T) {
	for name, o := range map[string]writer.Options{
		"goroutine": {}, "synchronous": {Synchronous: true}, "small batches": {BatchEntries: 2}, "interval": {Sync: writer.SyncInterval},
	} {
		bubble(t, func(t *testing.T) {
			r := newRig(t, o)
			var want []string
			note := func(body string) writer.Ticket {
				n, after, err := r.Note(entry.NoteStateHash, []byte(body))
				must(t, err)
				want = append(want, fmt.Sprintf("%d: %s", after, body))
				return n
			}
			note("before all")
			for i := range 7 {
				r.submit(i)
				note(fmt.Sprint("a", i))
				note(fmt.Sprint("b", i))
			}
			must(t, r.WaitNote(t.Context(), note("behind all")))
			if want[len(want)-1] != "21: behind all" {
				t.Fatalf("%s: the last note is %q", name, want[len(want)-1])
			}
			r.wantNotes(want...)
			if r.Durable() != 21 {
				t.Fatalf("%s: the note is durable, the entries before it are so up to %d", name, r.Durable())
			}
			r.close()
			r.wantNotes(want...)
			r.wantStored(payloads(21, "")...)
		})
	}
}

func TestANoteAloneIsCommittedWithinCommitDelay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{})
		time.Sleep(time.Second) // the goroutine has parked
		n, after, err := r.Note(entry.NoteAnchor, []byte("x"))
		must(t, err)
		start := time.Now()
		for _, ctx := range []context.Context{t.Context(), context.Background()} {
			must(t, r.WaitNote(ctx, n))
		}
		if d := time.Since(start); d > 2*time.Millisecond || after != 0 {
			t.Fatalf("durable after %v, behind seq %d", d, after)
		}
		r.wantNotes("0: x")
		r.close()
	})
}

func TestWaitNoteEndsWithTheSyncAndNotBefore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{WarnAfter: off, HaltAfter: off})
		release := r.hang("sync")
		n, _, err := r.Note(entry.NoteAnchor, nil)
		must(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.WaitNote(ctx, n); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("the disk hangs, and WaitNote says %v", err)
		}
		release()
		must(t, r.WaitNote(t.Context(), n))
		if err := r.WaitNote(t.Context(), n+1); !errors.Is(err, format.ErrInvalid) {
			t.Fatalf("waiting for a note that nobody has made: %v", err)
		}
		r.close()
		if _, _, err := r.Note(entry.NoteAnchor, nil); !errors.Is(err, format.ErrClosed) {
			t.Fatalf("a note after Close: %v", err)
		}
	})
}

func TestAHaltEndsTheWaitForANote(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{})
		r.log.setHook(func(call string) error {
			if call == "sync" {
				return errors.New("no")
			}
			return nil
		})
		n, _, err := r.Note(entry.NoteAnchor, nil)
		must(t, err)
		halted(t, r.WaitNote(t.Context(), n))
		if _, ok := r.TryNote(entry.NoteMarker, nil); ok {
			t.Fatal("a halted run takes a marker")
		}
	})
}

func TestUnderSyncNeverNoNoteIsDurable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{Sync: writer.SyncNever})
		n, _, err := r.Note(entry.NoteAnchor, []byte("x"))
		must(t, err)
		if err := r.WaitNote(t.Context(), n); !errors.Is(err, writer.ErrNotDurable) {
			t.Fatal(err)
		}
		r.close()
		r.wantNotes("0: x")
	})
}

func TestNotesKeepTheirLimits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{})
		for _, bad := range []struct {
			kind entry.NoteKind
			body []byte
		}{{0x07, nil}, {0x0e, nil}, {0, nil}, {entry.NoteAnchor, make([]byte, entry.MaxNote+1)}} {
			if _, _, err := r.Note(bad.kind, bad.body); !errors.Is(err, format.ErrInvalid) {
				t.Errorf("%v with %d bytes: %v", bad.kind, len(bad.body), err)
			}
			if _, ok := r.TryNote(bad.kind, bad.body); ok {
				t.Errorf("%v with %d bytes is taken", bad.kind, len(bad.body))
			}
		}
		r.close()
		r.wantNotes()
	})
}

// A flood of markers, with a disk that hangs: no marker waits, and submitters have the whole queue.
func TestAFloodOfMarkersNeverDelaysASubmit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const room = 64
		r := newRig(t, writer.Options{QueueEntries: room, WarnAfter: off, HaltAfter: off})
		release := r.hang("sync")
		r.submit(1)
		synctest.Wait()
		time.Sleep(10 * time.Millisecond) // it is in the disk
		taken, dropped := 0, 0
		atOnce(t, func() {
			for range 10 * room {
				if _, ok := r.TryNote(entry.NoteMarker, make([]byte, 100)); ok {
					taken++
				} else {
					dropped++
				}
			}
			r.submit(room)
		})
		if taken < 30 || dropped == 0 {
			t.Fatalf("%d markers taken, %d dropped", taken, dropped)
		}
		waits := make(chan struct{})
		go func() {
			d := order(room + 2)
			_, err := r.Submit(&d)
			must(t, err)
			close(waits)
		}()
		synctest.Wait()
		select {
		case <-waits:
			t.Fatal("the queue is full, and one more submit does not wait")
		default:
		}
		release()
		<-waits
		r.close()
		if n := len(r.notes()); n != taken {
			t.Fatalf("%d markers are stored, %d were taken", n, taken)
		}
		r.wantStored(payloads(room+2, "")...)
	})
}

func TestNotesWaitWhenThereAreTooMany(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{QueueBytes: 8 << 10, WarnAfter: off, HaltAfter: off})
		release := r.hang("sync")
		r.submit(1)
		time.Sleep(10 * time.Millisecond)
		done := make(chan int)
		go func() {
			for i := range 20 {
				_, _, err := r.Note(entry.NoteStateHash, bytes.Repeat([]byte{byte('a' + i)}, 1000))
				must(t, err)
			}
			close(done)
		}()
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("20 KB of notes are in a queue of 8 KiB")
		default:
		}
		release()
		<-done
		r.close()
		if n := len(r.notes()); n != 20 {
			t.Fatalf("%d of 20 notes are stored", n)
		}
	})
}

// A note waits for room like an entry, and for nothing else.
func TestANoteDoesNotWaitWhileTheQueueHasRoom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{WarnAfter: off, HaltAfter: off})
		release := r.hang("sync")
		r.submit(1)
		time.Sleep(10 * time.Millisecond) // its commit is in the disk
		big := order(2)
		big.Payload = make([]byte, 100<<10) // more than one commit takes, and a small part of the queue
		_, err := r.Submit(&big)
		must(t, err)
		atOnce(t, func() {
			_, _, err := r.Note(entry.NoteStateHash, make([]byte, 40))
			must(t, err)
			_, err = r.Submit(&big)
			must(t, err)
		})
		release()
		r.close()
	})
}

func TestNotesDoNotAllocate(t *testing.T) {
	r := newRig(t, writer.Options{Manual: true})
	body := make([]byte, 64)
	for range 4 { // until both arenas have grown
		for range 600 {
			_, _, err := r.Note(entry.NoteStateHash, body)
			must(t, err)
		}
		_, err := r.Step()
		must(t, err)
	}
	if n := testing.AllocsPerRun(200, func() {
		_, _, _ = r.Note(entry.NoteStateHash, body)
		_, _ = r.TryNote(entry.NoteMarker, body)
	}); n != 0 {
		t.Errorf("%v allocations per note", n)
	}
}
