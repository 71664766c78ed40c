package runlog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

const (
	instance = "engine-1"
	home     = "/base/" + instance
	off      = -1
)

var segmentOne = segment.FileName(1)

func TestMain(m *testing.M) {
	if dir := os.Getenv("RUNLOG_TEST_CHILD"); dir != "" {
		child(dir)
		return
	}
	os.Exit(m.Run())
}

// child is an engine that waits for its death.
func child(dir string) {
	r, err := runlog.Open(context.Background(), runlog.Options{Dir: dir, Instance: instance})
	if err == nil {
		_, err = r.Append(context.Background(), order(1))
	}
	fmt.Println("child:", err)
	time.Sleep(time.Hour)
}

func bubble(t *testing.T, f func(t *testing.T)) { t.Helper(); synctest.Test(t, f) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newMem() *vfs.Mem { return vfs.NewMem(vfs.MemOptions{}) }

func options(fsys vfs.FS) runlog.Options {
	return runlog.Options{Dir: "/base", Instance: instance, FS: fsys, FirstSegmentBytes: 128 << 10, SegmentBytes: 256 << 10}
}

// open starts a run that is given up with the test, as a bubble needs it.
func open(t testing.TB, o runlog.Options) *runlog.Run {
	t.Helper()
	r, err := runlog.Open(t.Context(), o)
	must(t, err)
	t.Cleanup(func() {
		_ = r.Close(context.Background())
		if _, simulated := o.FS.(*vfs.Mem); simulated && !o.Synchronous {
			time.Sleep(time.Second) // in a bubble: background work ends, and no real time passes
		}
	})
	return r
}

func order(n int) runlog.Draft {
	return runlog.Draft{
		Topic: "exec.command", Type: "SubmitOrder", Payload: fmt.Appendf(nil, "order %d", n), TsInit: int64(n),
		Keys: []runlog.Key{{Kind: runlog.ClientOrderID, Value: fmt.Sprint("O-", n)}},
	}
}

// add makes n more orders durable.
func add(t testing.TB, r *runlog.Run, n int) {
	t.Helper()
	for range n {
		_, err := r.Append(t.Context(), order(int(r.Accepted())))
		must(t, err)
	}
}

// crashed returns the disk as a killed process leaves it, after a run with n orders.
func crashed(t testing.TB, mem *vfs.Mem, n int) (after *vfs.Mem, run string) {
	t.Helper()
	r := open(t, options(mem))
	add(t, r, n)
	return mem.Kill(), r.ID()
}

// closed ends a run.
func closed(t testing.TB, r *runlog.Run) { t.Helper(); must(t, r.Close(context.Background())) }

func wantParent(t testing.TB, r *runlog.Run, want string) {
	t.Helper()
	if got := r.Manifest().Parent; got != want {
		t.Fatalf("the parent of %s is %q, want %q", r.ID(), got, want)
	}
}

func predecessor(t testing.TB, r *runlog.Run, run string) runlog.Predecessor {
	t.Helper()
	for _, p := range r.Predecessors() {
		if p.Run == run {
			return p
		}
	}
	t.Fatalf("%s is not among the predecessors %+v", run, r.Predecessors())
	return runlog.Predecessor{}
}

// damage flips a bit of an order that was acknowledged long ago.
func damage(t testing.TB, fsys vfs.FS, run string) {
	t.Helper()
	name := home + "/" + run + "/" + segmentOne
	b, err := vfs.ReadFile(fsys, name, 1<<30)
	must(t, err)
	at := bytes.Index(b, []byte("order 1"))
	if at < 0 {
		t.Fatal("there is no such order")
	}
	f, err := fsys.Open(name)
	must(t, err)
	_, err = f.WriteAt([]byte{b[at] ^ 1}, int64(at))
	must(t, err)
	must(t, f.Datasync())
	must(t, f.Close())
}

func wantIs(t testing.TB, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Fatalf("got %v, want %v", err, target)
		}
	}
}
