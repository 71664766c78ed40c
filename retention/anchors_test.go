package retention_test

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/runlog-io/runlog/anchor"
	"github.com/runlog-io/runlog/retention"
)

func TestARunIsCutBehindAnchorsWhoseBlobsAreThere(t *testing.T) {
	ctx, d := context.Background(), newDesk(t)
	store, err := anchor.NewDirStore(d.mem, "/blobs", nil)
	d.must(err)
	run := d.open(100)
	var refs []string
	for _, covers := range []uint64{20, 40, 60, 80} {
		a, err := run.Anchor(ctx, covers, store, strings.NewReader("the state"))
		d.must(err)
		refs = append(refs, a.Ref)
	}
	begins := func() uint64 {
		t.Helper()
		runs, err := retention.List(instance, retention.Options{FS: d.mem, Own: run.ID(), RestorePoints: retention.Anchors(ctx, store)})
		d.must(err)
		plan, err := retention.Policy{Anchored: true}.Plan(runs)
		d.must(err)
		_, err = retention.Apply(ctx, &plan, run)
		d.must(err)
		return run.Reader().FirstSeq()
	}
	d.must(store.Delete(ctx, refs[3]))
	if got := begins(); got > 40 || got < 30 { // with the newest blob gone, 40 is the second newest
		t.Errorf("it begins at seq %d", got)
	}
	left := 0
	for p, err := range anchor.Points(ctx, run.Reader(), store) {
		d.must(err)
		if p.Err == nil && p.Anchor.Covers+1 >= run.Reader().FirstSeq() {
			left++
		} else if p.Err != nil && !errors.Is(p.Err, fs.ErrNotExist) {
			t.Error(p.Err)
		}
	}
	if left != 2 {
		t.Errorf("%d good restore points are left", left)
	}
	d.must(store.Delete(ctx, refs[2]))
	if got := begins(); got > 40 { // one good one is left: nothing more goes
		t.Errorf("it begins at seq %d", got)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := retention.Anchors(canceled, store)(run.Reader()); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}
