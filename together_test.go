package runlog_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// A writer, notes, compression, retention, and readers of every kind, until eight removals have passed: nobody sees damage, and what is left
// verifies.
func TestReadersBesideCompressionAndRetentionSeeNoDamage(t *testing.T) {
	o := runlog.Options{
		Dir: t.TempDir(), Instance: "desk", SegmentBytes: segment.MinSegment, FirstSegmentBytes: segment.MinSegment, WarnAfter: -1, HaltAfter: -1,
		Compress: wal.Compression{Codec: wal.Zstd, KeepPlain: 1},
	}
	r, err := runlog.Open(t.Context(), o)
	must(t, err)
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			d := order(i)
			d.Payload = append(d.Payload, make([]byte, 700)...)
			seq, err := r.Submit(d)
			if err == nil && i%10 == 0 {
				_, _, err = r.Note(entry.NoteStateHash, fmt.Appendf(nil, "h%d", seq))
			}
			if err == nil && i%20 == 0 {
				err = r.WaitDurable(ctx, seq)
			}
			if err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	})
	wg.Go(func() {
		for removals := 0; ctx.Err() == nil; {
			segs, err := r.Reader().Segments()
			if err != nil {
				t.Error(err)
				return
			}
			last := len(segs) - 1
			for last > 0 && !segs[last].Sealed {
				last--
			}
			if last > 8 {
				if err := r.RemoveBefore(r.ID(), segs[last-5].Number); err != nil {
					t.Error(err)
					return
				}
				if removals++; removals == 8 {
					stop()
				}
			}
			time.Sleep(3 * time.Millisecond)
		}
	})
	outside, err := runlog.OpenReader(r.Dir(), runlog.ReaderOptions{})
	must(t, err)
	defer outside.Close()
	for k, rd := range []*runlog.Reader{r.Reader(), outside, nil} {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				rd := rd
				if rd == nil {
					fresh, err := runlog.OpenReader(r.Dir(), runlog.ReaderOptions{})
					if err != nil {
						t.Error("open", err)
						return
					}
					defer fresh.Close()
					rd = fresh
				}
				if k == 1 {
					for range rd.Tail(ctx, runlog.TailOptions{From: rd.LastSeq()}) {
						break
					}
				}
				last := uint64(0)
				for v, err := range rd.Scan(runlog.ScanOptions{Reverse: n%2 == 1}) {
					if err != nil {
						if !errors.Is(err, runlog.ErrRemoved) || errors.Is(err, runlog.ErrCorrupt) {
							t.Errorf("%d scan behind %d: %v", k, last, err)
						}
						break
					}
					last = v.Seq()
				}
				if _, _, err := rd.Lookup(runlog.ClientOrderID, "O-1"); err != nil {
					t.Errorf("%d look-up: %v", k, err)
				}
				for _, err := range rd.Notes(wal.NoteOptions{Reverse: n%2 == 0}) {
					if err != nil && !errors.Is(err, runlog.ErrRemoved) {
						t.Errorf("%d notes: %v", k, err)
						break
					}
				}
				if t.Failed() {
					return
				}
			}
		})
	}
	wg.Wait()
	if r.Reader().FirstSeq() == 1 {
		t.Error("nothing was removed")
	}
	must(t, r.Close(context.Background()))
	rep, err := verify.Run(context.Background(), vfs.OS, r.Dir(), verify.Options{})
	must(t, err)
	if !rep.Clean() {
		t.Errorf("%+v", rep.Findings)
	}
}
