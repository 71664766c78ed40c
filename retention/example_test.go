package retention_test

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/retention"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// An engine keeps what it could need, and no more. It does this now and then, on a goroutine of its own.
func ExampleApply() {
	ctx, mem := context.Background(), vfs.NewMem(vfs.MemOptions{})
	o := runlog.Options{Dir: "/base", Instance: "desk", FS: mem, Synchronous: true, SegmentBytes: 64 << 10, FirstSegmentBytes: 64 << 10}
	run, err := runlog.Open(ctx, o)
	if err != nil {
		panic(err)
	}
	for range 100 {
		if _, err := run.Submit(runlog.Draft{Topic: "t", Type: "T", Payload: make([]byte, 4000)}); err != nil {
			panic(err)
		}
	}
	snapshots := func(*wal.Reader) ([]retention.RestorePoint, error) { // what the engine has written, and checked
		return []retention.RestorePoint{{Seq: 50}, {Seq: 90}}, nil
	}
	runs, err := retention.List(filepath.Join(o.Dir, o.Instance), retention.Options{FS: mem, Own: run.ID(), RestorePoints: snapshots})
	if err != nil {
		panic(err)
	}
	plan, err := retention.Policy{Anchored: true}.Plan(runs)
	if err != nil {
		panic(err)
	}
	for _, it := range plan.Items {
		fmt.Printf("segments %d-%d, seq %d-%d, remove: %v\n", it.First, it.Last, it.FirstSeq, it.LastSeq, it.Remove)
	}
	if _, err := retention.Apply(ctx, &plan, run); err != nil {
		panic(err)
	}
	fmt.Println("the run begins at seq", run.Reader().FirstSeq())
	// Output:
	// segments 1-8, seq 1-49, remove: true
	// segments 9-17, seq 50-101, remove: false
	// the run begins at seq 50
}
