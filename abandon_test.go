package runlog_test

import (
	"context"
	"errors"
	"testing"

	"github.com/runlog-io/runlog"
)

// An engine that cannot restore its state gives the run up, and the next boot gets the same parent.
func TestAnAbandonedRunDoesNotConsumeItsParent(t *testing.T) {
	ctx := context.Background()
	o := runlog.Options{Dir: t.TempDir(), Instance: "engine"}
	open := func() *runlog.Run {
		t.Helper()
		r, err := runlog.Open(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	cause := errors.New("the snapshot cannot be read")
	first := open()
	if _, err := first.Append(ctx, runlog.Draft{Topic: "t", Type: "x"}); err != nil {
		t.Fatal(err)
	}
	if err := first.Abandon(ctx, cause); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Submit(runlog.Draft{Topic: "t", Type: "x"}); !errors.Is(err, runlog.ErrHalted) || !errors.Is(err, cause) {
		t.Fatalf("submit after Abandon: %v", err)
	}
	second := open()
	if got := second.Manifest().Parent; got != first.ID() {
		t.Fatalf("parent %q, want %q: %+v", got, first.ID(), second.Predecessors())
	}
	if err := second.Abandon(ctx, cause); err != nil {
		t.Fatal(err)
	}
	third := open()
	defer third.Close(ctx)
	if got := third.Manifest().Parent; got != first.ID() {
		t.Fatalf("parent %q, want the run before the abandoned one, %q", got, first.ID())
	}
	parents, err := third.Parents()
	if err != nil || len(parents) != 1 {
		t.Fatal(len(parents), err)
	}
	if h := parents[0].Manifest().Halt; h == nil || h.Reason != "abandoned" {
		t.Fatalf("halt record in the manifest: %+v", h)
	}
}
