package runlog_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
)

func TestRemovingWhatIsNotAnEarlierRunIsRefused(t *testing.T) {
	mem := newMem()
	o := options(mem)
	o.Synchronous = true
	first := open(t, o)
	add(t, first, 3)
	closed(t, first)
	r := open(t, o)
	for _, id := range []string{"", ".", "..", "../desk", r.ID(), first.ID() + "x"} {
		wantIs(t, r.RemoveRun(id), runlog.ErrInvalid)
	}
	wantIs(t, r.RemoveBefore("..", 2), runlog.ErrInvalid)
	wantIs(t, r.RemoveBefore(r.ID(), 2), runlog.ErrInvalid)
	must(t, r.RemoveBefore(r.ID(), 1))
	must(t, r.RemoveRun(first.ID()))
	if r.RemoveRun(first.ID()) == nil {
		t.Error("a run that is not there was removed")
	}
	closed(t, r)
	for _, err := range []error{r.RemoveRun(first.ID()), r.RemoveBefore(r.ID(), 1), r.FinishRemovals()} {
		wantIs(t, err, runlog.ErrClosed)
	}
}

func TestAHaltedRunRemovesNothingFromItself(t *testing.T) {
	o := options(newMem())
	o.Synchronous = true
	r := open(t, o)
	add(t, r, 3)
	must(t, r.Abandon(t.Context(), errors.New("test")))
	if err := r.RemoveBefore(r.ID(), 1); err == nil {
		t.Error("it did")
	}
}

// Readers in this process and outside, a tail, the sealer and the writer are at work while segments go.
func TestALiveRunIsCutWhileItIsWrittenAndRead(t *testing.T) {
	o := runlog.Options{
		Dir: t.TempDir(), Instance: "desk", SegmentBytes: segment.MinSegment, FirstSegmentBytes: segment.MinSegment, WarnAfter: -1, HaltAfter: -1,
	}
	r, err := runlog.Open(t.Context(), o)
	must(t, err)
	entries := 0
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	wg.Go(func() { // an engine that reclaims its own run
		for ; !t.Failed() && (entries < 1500 || r.Reader().FirstSeq() == 1); entries++ {
			d := order(entries)
			d.Payload = make([]byte, 500)
			seq, err := r.Submit(d)
			if err == nil && (entries%20 == 19 || entries > 1500) {
				err = r.WaitDurable(t.Context(), seq)
			}
			if err != nil {
				t.Error(err)
				break
			}
		}
		stop()
	})
	wg.Go(func() {
		for ctx.Err() == nil {
			segs, err := r.Reader().Segments()
			if err != nil {
				t.Error(err)
				return
			}
			last := len(segs) - 1
			for last > 0 && !segs[last].Sealed {
				last--
			}
			if last > 0 {
				if err := r.RemoveBefore(r.ID(), segs[last].Number); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	outside, err := runlog.OpenReader(r.Dir(), runlog.ReaderOptions{})
	must(t, err)
	defer outside.Close()
	for _, rd := range []*runlog.Reader{r.Reader(), outside} {
		wg.Go(func() {
			for ctx.Err() == nil {
				last := uint64(0)
				for v, err := range rd.Scan(runlog.ScanOptions{}) {
					if err != nil {
						if !errors.Is(err, runlog.ErrRemoved) || errors.Is(err, runlog.ErrCorrupt) {
							t.Errorf("scan behind %d: %v", last, err)
						}
						break
					}
					if last != 0 && v.Seq() != last+1 {
						t.Errorf("seq %d follows %d", v.Seq(), last)
					}
					last = v.Seq()
				}
				if _, _, err := rd.Lookup(runlog.ClientOrderID, "O-1"); err != nil {
					t.Errorf("look-up: %v", err)
				}
			}
		})
	}
	last := uint64(0)
	for v, err := range r.Tail(ctx, runlog.TailOptions{}) {
		switch {
		case errors.Is(err, runlog.ErrRemoved), errors.Is(err, context.Canceled):
		case err != nil:
			t.Errorf("tail: %v", err)
		case last != 0 && v.Seq() != last+1:
			t.Errorf("tail: seq %d follows %d", v.Seq(), last)
		default:
			last = v.Seq()
		}
	}
	wg.Wait()
	closed(t, r)
	rep, err := verify.Run(t.Context(), vfs.OS, r.Dir(), verify.Options{})
	if err != nil || !rep.Clean() || rep.FirstSeq == 1 || rep.LastSeq != uint64(entries)+2 {
		t.Errorf("%v, %+v", err, rep)
	}
}
