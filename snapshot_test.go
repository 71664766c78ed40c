package runlog_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"iter"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/anchor"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/drive"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// blobs is a store beside the runs.
func blobs(t testing.TB, fsys vfs.FS) *anchor.DirStore {
	t.Helper()
	s, err := anchor.NewDirStore(fsys, home+"/snapshots", nil)
	must(t, err)
	return s
}

// anchors lists what a reader finds, the newest first.
func anchors(t testing.TB, r *runlog.Reader) (list []runlog.Anchor) {
	t.Helper()
	for a, err := range anchor.List(r) {
		must(t, err)
		list = append(list, a)
	}
	return list
}

func reader(t testing.TB, fsys vfs.FS, run string) *runlog.Reader {
	t.Helper()
	r, err := runlog.OpenReader(home+"/"+run, runlog.ReaderOptions{FS: fsys})
	must(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func wantAnchors(t testing.TB, got []runlog.Anchor, want ...runlog.Anchor) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d anchors %+v, want %+v", len(got), got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("anchor %d is %+v, want %+v", i, got[i], want[i])
		}
	}
}

// SA1, SA2, SA4, BK23, LC20: what was recorded reads back equal, live, sealed, and from fresh eyes.
func TestAnAnchorNamesSeqAndContentOfItsSnapshot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		r := open(t, options(mem))
		store := blobs(t, mem)
		a, err := r.Anchor(t.Context(), 1, store, strings.NewReader("state"))
		must(t, err)
		if a.Covers != 1 || a.SHA256 != sha256.Sum256([]byte("state")) || a.Size != 5 || a.Taken == 0 || a.Ref == "" {
			t.Fatalf("the anchor is %+v", a)
		}
		wantAnchors(t, anchors(t, r.Reader()), a)
		must(t, anchor.Check(t.Context(), store, a))
		closed(t, r)
		wantAnchors(t, anchors(t, reader(t, mem, r.ID())), a)
	})
}

// SA3, BK24.
func TestARunWithoutAnchorsHasNone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		r := open(t, options(mem))
		add(t, r, 3)
		wantAnchors(t, anchors(t, r.Reader()))
		closed(t, r)
		wantAnchors(t, anchors(t, reader(t, mem, r.ID())))
	})
}

// G15: the history is kept, over segments and from the index, the newest first.
func TestAllAnchorsAreKeptNewestFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		o := options(mem)
		o.SegmentBytes, o.FirstSegmentBytes = 64<<10, 64<<10
		r := open(t, o)
		store := blobs(t, mem)
		var want []runlog.Anchor
		for i := range 12 {
			add(t, r, 30)
			d := order(i)
			d.Payload = make([]byte, 10<<10)
			_, err := r.Append(t.Context(), d)
			must(t, err)
			a, err := r.Anchor(t.Context(), r.Accepted(), store, strings.NewReader(strings.Repeat("s", i+1)))
			must(t, err)
			want = append([]runlog.Anchor{a}, want...)
		}
		wantAnchors(t, anchors(t, r.Reader()), want...)
		closed(t, r)
		rd := reader(t, mem, r.ID())
		wantAnchors(t, anchors(t, rd), want...)
		n := 0
		for p, err := range anchor.Points(t.Context(), rd, store) {
			if err != nil || p.Err != nil || p.Anchor != want[n] {
				t.Fatalf("restore point %d is %+v, %v", n, p, err)
			}
			n++
		}
		must(t, store.Delete(t.Context(), want[0].Ref))
		for p, err := range anchor.Points(t.Context(), rd, store) {
			must(t, err)
			if missing := errors.Is(p.Err, fs.ErrNotExist); missing != (p.Anchor == want[0]) {
				t.Fatalf("restore point %+v", p)
			}
		}
	})
}

// SA5, SA6, BK25, BK26, G16, G18: what an anchor cannot cover is refused with a typed error, stores nothing, and halts nothing.
func TestAnAnchorCoversNoSeqThatIsNotThereAndNeverGoesBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		r := open(t, options(mem))
		store := blobs(t, mem)
		add(t, r, 6) // 7 is the last
		refused := func(covers uint64) {
			t.Helper()
			_, err := r.Anchor(t.Context(), covers, store, strings.NewReader("state"))
			var order *anchor.OrderError
			if !errors.As(err, &order) || order.Seq != covers || !errors.Is(err, runlog.ErrInvalid) {
				t.Fatalf("covering %d: %v", covers, err)
			}
			if err := r.RecordAnchor(t.Context(), runlog.Anchor{Covers: covers, Ref: "x"}); !errors.Is(err, runlog.ErrInvalid) {
				t.Fatalf("recording one that covers %d: %v", covers, err)
			}
		}
		refused(0)
		refused(8)
		_, err := r.Anchor(t.Context(), 1, nil, strings.NewReader("state"))
		wantIs(t, err, runlog.ErrInvalid)
		_, err = r.Anchor(t.Context(), 1, store, nil)
		wantIs(t, err, runlog.ErrInvalid)
		for _, covers := range []uint64{2, 2, 5, 7} { // equal or newer
			_, err := r.Anchor(t.Context(), covers, store, strings.NewReader("state"))
			must(t, err)
			if covers > 2 {
				refused(covers - 1)
			}
		}
		n := 0
		for _, err := range store.List(t.Context()) {
			must(t, err)
			n++
		}
		if list := anchors(t, r.Reader()); n != 4 || len(list) != 4 || list[0].Covers != 7 || list[3].Covers != 2 {
			t.Fatalf("%d blobs, anchors %+v", n, list)
		}
		add(t, r, 1)
		must(t, r.Err())
	})
}

// SA7, BK27.
func TestAnAnchorOfAClosedRunIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		r := open(t, options(mem))
		store := blobs(t, mem)
		closed(t, r)
		_, err := r.Anchor(t.Context(), 1, store, strings.NewReader("state"))
		wantIs(t, err, runlog.ErrClosed)
		wantIs(t, r.RecordAnchor(t.Context(), runlog.Anchor{Covers: 1, Ref: "x"}), runlog.ErrClosed)
		wantIs(t, r.StateHash(1, []byte{1}), runlog.ErrClosed)
		for b, err := range store.List(t.Context()) {
			t.Fatalf("%+v was stored, %v", b, err)
		}
	})
}

// SA8: garbage in an anchor's place is named, and hides no other anchor.
func TestAMalformedAnchorIsNamedAndHidesNoOther(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		must(t, mem.MkdirAll(home))
		id := manifest.Identity{Run: manifest.NewRunID(1e18, "", 1), Instance: instance, Started: 1e18, Origin: manifest.OriginEngine}
		log, err := wal.Create(wal.Options{
			FS: mem, Dir: home + "/" + id.Run, Manifest: manifest.Manifest{Identity: id, Status: manifest.Running}, Clock: clock(1e18), Inline: true,
		})
		must(t, err)
		defer log.Close()
		b := &entry.Batch{}
		good := runlog.Anchor{Covers: 1, Ref: "x"}
		body, err := good.Append(nil)
		must(t, err)
		beyond, err := (&runlog.Anchor{Covers: 2, Ref: "x"}).Append(nil)
		must(t, err)
		d := order(1)
		b.Add(&d, log.Kinds(), 1)
		for _, body := range [][]byte{body, []byte("garbage"), beyond, body} {
			b.AddNote(entry.NoteAnchor, body)
		}
		must(t, log.Append(b, 0, 1, 1))
		must(t, log.Sync())
		var got []string
		for a, err := range anchor.List(log.Reader()) {
			var at *runlog.Error
			switch {
			case err == nil && a == good:
				got = append(got, "good")
			case errors.Is(err, anchor.ErrMalformed) && errors.Is(err, runlog.ErrCorrupt) && errors.As(err, &at) && at.FirstSeq == 1:
				got = append(got, "malformed")
			default:
				t.Fatalf("%+v, %v", a, err)
			}
		}
		if s := strings.Join(got, " "); s != "good malformed malformed good" {
			t.Fatal(s)
		}
	})
}

// SA9: the anchor stands behind all that was submitted before it, and makes it durable.
func TestAnAnchorIsDurableBehindEverythingSubmittedBefore(t *testing.T) {
	for name, o := range map[string]runlog.Options{"goroutine": {}, "synchronous": {Synchronous: true}, "interval": {Sync: runlog.SyncInterval}} {
		bubble(t, func(t *testing.T) {
			mem := newMem()
			base := options(mem)
			base.Synchronous, base.Sync = o.Synchronous, o.Sync
			r := open(t, base)
			store := blobs(t, mem)
			for i := range 2 {
				_, err := r.Submit(order(i))
				must(t, err)
			}
			a, err := r.Anchor(t.Context(), 2, store, strings.NewReader("state"))
			must(t, err)
			if r.Durable() != 3 {
				t.Fatalf("%s: durable is %d", name, r.Durable())
			}
			add(t, r, 2)
			left := mem.Crash(vfs.LoseAll())
			for n, err := range reader(t, left, r.ID()).Notes(wal.NoteOptions{}) {
				if err != nil || n.After != 3 {
					t.Fatalf("%s: note behind %d, %v", name, n.After, err)
				}
			}
			wantAnchors(t, anchors(t, reader(t, left, r.ID())), a)
		})
	}
}

// LC21: a snapshot in the middle of the work covers what the caller says, not what was accepted meanwhile.
func TestAnAnchorCoversWhatTheCallerSaysNotWhatWasAcceptedMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		r := open(t, options(mem))
		store := blobs(t, mem)
		add(t, r, 4)
		taken := r.Accepted()
		add(t, r, 4)
		a, err := r.Anchor(t.Context(), taken, store, readerFunc(func(p []byte) (int, error) {
			_, err := r.Submit(order(9)) // while it is being stored
			return 0, cmp.Or(err, io.EOF)
		}))
		if err != nil || a.Covers != taken || r.Durable() != taken+5 {
			t.Fatalf("%+v, durable %d, %v", a, r.Durable(), err)
		}
		once := iotest.DataErrReader(strings.NewReader("state"))
		a, err = r.Anchor(t.Context(), taken, store, readerFunc(func(p []byte) (int, error) {
			if _, err := r.Submit(order(10)); err != nil {
				return 0, err
			}
			return once.Read(p)
		}))
		must(t, err)
		if _, err := r.Get(taken, nil); err != nil || a.Covers != taken || r.Durable() < taken+6 {
			t.Fatalf("%+v, durable %d, %v", a, r.Durable(), err)
		}
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// brokenStore fails.
type brokenStore struct{ runlog.BlobStore }

func (brokenStore) Put(context.Context, io.Reader) (anchor.Blob, error) {
	return anchor.Blob{}, syscall.ENOSPC
}
func (brokenStore) List(context.Context) iter.Seq2[anchor.Blob, error] { return nil }

// G18.
func TestAFailingStoreNeverHaltsTheRun(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		r := open(t, options(mem))
		_, err := r.Anchor(t.Context(), 1, brokenStore{}, strings.NewReader("state"))
		wantIs(t, err, syscall.ENOSPC)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = r.Anchor(ctx, 1, blobs(t, mem), strings.NewReader("state"))
		wantIs(t, err, context.Canceled)
		add(t, r, 1)
		must(t, r.Err())
		wantAnchors(t, anchors(t, r.Reader()))
	})
}

// A blob whose note was refused is nobody's and is removed; one whose note may yet be in the log stays.
func TestABlobIsRemovedOnlyIfNoAnchorCanNameIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		o := options(mem)
		o.Sync = runlog.SyncNever
		r := open(t, o)
		store := blobs(t, mem)
		a, err := r.Anchor(t.Context(), 1, store, strings.NewReader("state"))
		wantIs(t, err, runlog.ErrNotDurable)
		must(t, anchor.Check(t.Context(), store, a))
		r2 := open(t, func() runlog.Options { o := options(mem); o.Dir = "/elsewhere"; return o }())
		closing := readerFunc(func([]byte) (int, error) { return 0, errors.Join(r2.Close(context.Background()), io.EOF) })
		_, err = r2.Anchor(t.Context(), 1, store, io.MultiReader(strings.NewReader("x"), eof(closing)))
		wantIs(t, err, runlog.ErrClosed)
		n := 0
		for b, err := range store.List(t.Context()) {
			if n++; err != nil || b.Ref != a.Ref {
				t.Fatalf("%+v, %v", b, err)
			}
		}
		if n != 1 {
			t.Fatalf("%d blobs", n)
		}
		closed(t, r)
		wantAnchors(t, anchors(t, reader(t, mem, r.ID())), a)
	})
}

// eof turns any error into the end.
func eof(r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) { n, _ := r.Read(p); return n, io.EOF })
}

func TestStateHashesComeBackInOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		r := open(t, options(mem))
		add(t, r, 5)
		for _, seq := range []uint64{1, 3, 3, 6} {
			must(t, r.StateHash(seq, []byte{byte(seq)}))
		}
		for _, seq := range []uint64{0, 2, 7} {
			wantIs(t, r.StateHash(seq, []byte{1}), runlog.ErrInvalid)
		}
		wantIs(t, r.StateHash(6, nil), runlog.ErrInvalid)
		must(t, r.Err())
		closed(t, r)
		for from, want := range map[uint64][]byte{0: {1, 3, 3, 6}, 2: {3, 3, 6}, 6: {6}, 7: nil} {
			var got []byte
			for h, err := range anchor.StateHashes(reader(t, mem, r.ID()), from) {
				must(t, err)
				if uint64(h.Hash[0]) != h.Seq {
					t.Fatalf("%+v", h)
				}
				got = append(got, h.Hash...)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("from %d: %v, want %v", from, got, want)
			}
		}
	})
}

func TestAStateHashTakesNoAllocation(t *testing.T) {
	d := &drive.Driver{Background: func(func()) {}}
	r, err := runlog.Open(drive.With(context.Background(), d), options(newMem()))
	must(t, err)
	hash := make([]byte, anchor.MaxHash)
	for range 4 { // until both arenas have grown
		for range 200 {
			must(t, r.StateHash(1, hash))
		}
		_, err := d.Step()
		must(t, err)
	}
	if n := testing.AllocsPerRun(100, func() { _ = r.StateHash(1, hash) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	must(t, r.Err())
}

// Snapshots, hashes and submits go on beside each other; what was acknowledged survives the power cut, in order.
func TestAnchorsBesideSubmittersKeepTheirOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		r := open(t, options(mem))
		store := blobs(t, mem)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for i := range 200 {
					if _, err := r.Submit(order(i)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for range 2 {
			wg.Go(func() {
				for range 50 { // the other one may have been faster
					if err := r.StateHash(r.Accepted(), []byte{1}); err != nil && !errors.Is(err, runlog.ErrInvalid) {
						t.Error(err)
					}
				}
			})
		}
		var mu sync.Mutex
		acked := map[runlog.Anchor]bool{}
		for range 2 {
			wg.Go(func() {
				for range 10 {
					a, err := r.Anchor(t.Context(), r.Accepted(), store, strings.NewReader("state"))
					if errors.Is(err, runlog.ErrInvalid) {
						continue
					}
					if err != nil || r.Durable() < a.Covers {
						t.Errorf("%+v, durable %d, %v", a, r.Durable(), err)
					}
					mu.Lock()
					acked[a] = true
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		left := mem.Crash(vfs.LoseAll())
		after := anchor.OpenDirStore(left, store.Dir(), nil)
		covers, n := ^uint64(0), 0
		for p, err := range anchor.Points(t.Context(), reader(t, left, r.ID()), after) {
			if err != nil || p.Err != nil || p.Anchor.Covers > covers {
				t.Fatalf("%+v behind one that covers %d, %v", p, covers, err)
			}
			if covers = p.Anchor.Covers; acked[p.Anchor] {
				n++
			}
		}
		if n != len(acked) || n < 10 {
			t.Fatalf("%d of %d acknowledged anchors are there", n, len(acked))
		}
	})
}
