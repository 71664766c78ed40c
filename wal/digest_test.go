package wal

import (
	"testing"

	"github.com/runlog-io/runlog/segment"
)

// The digest that is made while a segment is read is that of the file, however batches lie in the pieces that are read.
func TestTheDigestOfWhatWasReadIsThatOfTheFile(t *testing.T) {
	g := newRig(t, func(o *Options) { o.SegmentBytes, o.FirstBytes = 16<<20, 16<<20 })
	for _, payload := range []int{10, 300_000, 1, 1_400_000, 40_000} {
		g.fill(7, payload)
	}
	written := g.log.set.Load().segs[0].open.Load()
	for limit, last := range map[int64]bool{written.end.Load(): true, written.end.Load() - 1: false, 0: true} {
		f, err := g.mem.OpenRead(written.path)
		if err != nil {
			t.Fatal(err)
		}
		o := newOpenSeg(written.path, written.header, f, written.prev)
		if o.digest, err = newDigest(f, o.path, o.header.Size); err != nil {
			t.Fatal(err)
		}
		if _, err := o.advance(limit); err != nil {
			t.Fatal(err)
		}
		end := o.end.Load()
		if (end == written.end.Load()) != last {
			t.Fatalf("read up to %d of %d", end, written.end.Load())
		}
		got, ok := o.digest.sum(end)
		want, err := contentSHA(f, end)
		if !ok || err != nil || got != want {
			t.Errorf("limit %d: %x (made: %v), of the file %x, %v", limit, got, ok, want, err)
		}
		if _, ok := o.digest.sum(end + 8); ok {
			t.Error("the digest of less passes for one of more")
		}
		_ = f.Close()
	}
}

// What the digest has not seen is read again.
func TestADigestThatMissedAPieceIsNotUsed(t *testing.T) {
	g := newRig(t)
	g.fill(20, 1000)
	o := g.log.set.Load().segs[0].open.Load()
	end := o.end.Load()
	o.digest = &digest{h: segment.NewContentHash(), end: o.header.Size}
	w := window{off: end - 100, n: 100, buf: make([]byte, 100)}
	o.digest.finish(&w, end)
	got, err := o.contentSHA(end)
	want, werr := contentSHA(o.file, end)
	if err != nil || werr != nil || got != want {
		t.Errorf("%x, %v; of the file %x, %v", got, err, want, werr)
	}
}
