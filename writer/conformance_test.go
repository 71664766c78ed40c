package writer_test

import (
	"errors"
	"fmt"
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

func TestWR1CloseCommitsEverythingAndEndsTheRun(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var told halts
		r := newRig(t, writer.Options{OnHalt: told.add})
		r.submit(5)
		r.close()
		if r.Durable() != 6 {
			t.Fatalf("durable is %d, want 6", r.Durable())
		}
		list, m := r.stored()
		if m.Status != manifest.Ended || m.LastSeq != 6 || !list[5].IsLifecycle() || list[5].Type != entry.TypeEnded {
			t.Fatalf("status %s, last seq %d, last entry %+v", m.Status, m.LastSeq, list[5])
		}
		if len(told.list) != 0 {
			t.Fatalf("halted: %v", told.list[0])
		}
	})
}

func TestWR2FullBatchesAreCommittedOneByOne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{BatchEntries: 2, CommitDelay: time.Hour})
		r.submit(6)
		r.close()
		want := [][2]uint64{{1, 2}, {3, 4}, {5, 6}, {7, 7}}
		if got := r.log.batches(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("batches %v, want %v", got, want)
		}
	})
}

func TestWR3AnEntryIsCommittedWithinCommitDelay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{BatchEntries: 100, CommitDelay: 20 * time.Millisecond})
		r.submit(1)
		time.Sleep(20 * time.Millisecond)
		synctest.Wait()
		if r.Durable() != 1 {
			t.Fatalf("durable is %d after CommitDelay, want 1", r.Durable())
		}
		r.close()
		if r.Durable() != 2 {
			t.Fatalf("durable is %d after Close, want 2", r.Durable())
		}
	})
}

func TestWR4AllBatchesBecomeDurableWithoutClose(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{BatchEntries: 2})
		must(t, r.WaitDurable(t.Context(), r.submit(10)))
		r.close()
		if r.Durable() != 11 {
			t.Fatalf("durable is %d, want 11", r.Durable())
		}
	})
}

func TestWR5SeqsHaveNoHoles(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{BatchEntries: 3})
		r.submit(20)
		r.close()
		r.wantStored(payloads(20, "")...)
	})
}

func TestWR6ASealedRunStaysAndIsNotWrittenAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{})
		for i := range 3 {
			d := order(i)
			d.Keys = []entry.Key{
				{Kind: entry.ClientOrderID, Value: fmt.Sprint("c", i)}, {Kind: entry.VenueOrderID, Value: fmt.Sprint("v", i)},
			}
			_, err := r.Submit(&d)
			must(t, err)
		}
		r.close()
		before := r.mem.Ops(vfs.OpWrite)
		_, err := wal.Create(wal.Options{FS: r.mem, Dir: r.dir, Clock: fixedClock(1), Manifest: manifest.Manifest{
			Identity: manifest.Identity{Run: "x", Instance: "engine", Origin: manifest.OriginEngine}}})
		if err == nil || r.mem.Ops(vfs.OpWrite) != before {
			t.Fatalf("a sealed run was opened for writing again: %v", err)
		}
		if list, m := r.stored(); len(list) != 4 || m.Status != manifest.Ended {
			t.Fatalf("%d entries, status %s", len(list), m.Status)
		}
	})
}

func TestWR7TheManifestTellsTheGreatestTsInit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{})
		for _, ts := range []int64{50, 120, 80} {
			d := order(1)
			d.TsInit = ts
			_, err := r.Submit(&d)
			must(t, err)
		}
		must(t, r.Close(t.Context(), ended(9999)))
		_, m := r.stored()
		if m.Status != manifest.Ended || m.LastSeq != 4 || m.Ended == nil || *m.Ended != 9999 {
			t.Fatalf("manifest %+v", m)
		}
	})
}

func TestWR8AKeyFindsItsEntry(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{BatchEntries: 3})
		for i := 1; i <= 8; i++ {
			d := order(i)
			if i == 2 {
				d.Keys = []entry.Key{{Kind: entry.ClientOrderID, Value: "O-2"}}
			}
			_, err := r.Submit(&d)
			must(t, err)
		}
		r.close()
		r.wantStored(payloads(8, "")...)
		rd, err := wal.OpenReader(r.mem, r.dir)
		must(t, err)
		defer rd.Close()
		if seq, ok, err := rd.Lookup(entry.ClientOrderID, "O-2"); seq != 2 || !ok || err != nil {
			t.Fatalf("the key finds %d, %v, %v; want 2", seq, ok, err)
		}
	})
}

func TestWR9PayloadsOfAllLengthsComeBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{})
		want := []string{"x", string(make([]byte, 70_000)), "", "after", ""}
		for _, p := range want[:4] {
			_, err := r.Submit(&entry.Draft{Topic: "t", Type: "t", Payload: []byte(p)})
			must(t, err)
		}
		r.close()
		r.wantStored(want...)
	})
}

func TestWR10ARunThatIsNotClosedIsUnsealed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{})
		must(t, r.WaitDurable(t.Context(), r.submit(1)))
		died := r.mem.Kill()
		r.close()
		if _, m := stored(t, died, r.dir); m.Status != manifest.Running {
			t.Fatalf("status is %s, want Running", m.Status)
		}
		rec, err := wal.Recover(died, r.dir, 1)
		must(t, err)
		if rec.Status != manifest.CrashedRecovered || rec.LastSeq != 1 {
			t.Fatalf("recovered as %s at %d, want CrashedRecovered at 1", rec.Status, rec.LastSeq)
		}
	})
}

func TestWR11TsPublishFollowsTheClockAndIncreases(t *testing.T) {
	clock := writer.NewSystemClock()
	r := newRig(t, writer.Options{Clock: clock})
	var before []int64
	for i := range 500 {
		before = append(before, clock.Now())
		d := order(i)
		_, err := r.Submit(&d)
		must(t, err)
	}
	r.close()
	list, _ := r.stored()
	for i, e := range list[:500] {
		if e.TsPublish < before[i] || i > 0 && e.TsPublish <= list[i-1].TsPublish {
			t.Fatalf("seq %d was published at %d, submitted after %d", e.Seq, e.TsPublish, before[i])
		}
	}
}

// WR12: a draft without keys is the plain struct.
func TestWR12ADraftKeepsItsFieldsAndHasNoKeysByItself(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{})
		d := entry.Draft{
			Topic: "a", Type: "b", Payload: []byte("c"), TsInit: 4, ID: entry.ID{1}, CorrelationID: entry.ID{2}, CausationID: entry.ID{3},
		}
		_, err := r.Submit(&d)
		must(t, err)
		r.close()
		list, _ := r.stored()
		e := list[0]
		if e.Topic != "a" || e.Type != "b" || string(e.Payload) != "c" || e.TsInit != 4 || e.ID != d.ID ||
			e.CorrelationID != d.CorrelationID || e.CausationID != d.CausationID || len(e.Keys) != 0 {
			t.Fatalf("came back as %+v", e)
		}
	})
}

func TestWR13SynchronousSubmitsAreDurableWhenTheyReturn(t *testing.T) {
	r := newRig(t, writer.Options{Synchronous: true})
	for n := uint64(1); n <= 2; n++ {
		if r.submit(1); r.Durable() != n {
			t.Fatalf("durable is %d after submit %d", r.Durable(), n)
		}
	}
	r.close()
}

func TestWR14SeqsContinueBehindTheLogsLast(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, writer.Options{Manual: true})
		r.submit(3)
		_, err := r.Step()
		must(t, err)
		time.Sleep(time.Millisecond)
		second, err := writer.New(r.log, 3, r.log.MaxBatchBytes(), writer.Options{})
		must(t, err)
		d := order(4)
		if seq, err := second.Submit(&d); seq != 4 || err != nil {
			t.Fatalf("seq %d, %v; want 4", seq, err)
		}
		must(t, second.Close(t.Context(), nil))
		if _, err := second.Submit(&d); !errors.Is(err, format.ErrClosed) || errors.Is(err, writer.ErrHalted) {
			t.Fatalf("a closed writer answers %v", err)
		}
		r.wantStored(payloads(4)...)
	})
}
