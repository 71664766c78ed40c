package retention_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/retention"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

const instance = "/base/desk"

type clock struct{ now atomic.Int64 }

func (c *clock) Now() int64 { return c.now.Add(1000) }

// desk is an instance on a disk in memory, with the restore points of its runs.
type desk struct {
	t      testing.TB
	mem    *vfs.Mem
	o      runlog.Options
	points map[string][]retention.RestorePoint // by run id
}

func newDesk(t testing.TB) *desk {
	d := &desk{t: t, mem: vfs.NewMem(vfs.MemOptions{}), points: map[string][]retention.RestorePoint{}}
	c := &clock{}
	c.now.Store(1_800_000_000_000_000_000)
	d.o = runlog.Options{
		Dir: "/base", Instance: "desk", Synchronous: true, Clock: c, Salts: rand.New(rand.NewPCG(1, 2)).Uint64, FS: d.mem,
		SegmentBytes: 64 << 10, FirstSegmentBytes: 64 << 10,
	}
	return d
}

func (d *desk) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// open starts a run with so many entries, and restore points that cover some seqs.
func (d *desk) open(entries int, points ...uint64) *runlog.Run {
	d.t.Helper()
	r, err := runlog.Open(context.Background(), d.o)
	d.must(err)
	d.fill(r, entries)
	for _, seq := range points {
		d.points[r.ID()] = append(d.points[r.ID()], retention.RestorePoint{Seq: seq})
	}
	return r
}

func (d *desk) fill(r *runlog.Run, entries int) {
	d.t.Helper()
	for i := range entries {
		_, err := r.Submit(runlog.Draft{
			Topic: "t", Type: "T", TsInit: int64(i), Payload: make([]byte, 4000), Keys: []runlog.Key{{Kind: runlog.ClientOrderID, Value: fmt.Sprint(i % 7)}},
		})
		d.must(err)
	}
}

// crash lets the process die that has a run open.
func (d *desk) crash() {
	d.mem = d.mem.Kill()
	d.o.FS = d.mem
}

func (d *desk) list(own string) []retention.Run {
	d.t.Helper()
	runs, err := retention.List(instance, retention.Options{FS: d.mem, Own: own, RestorePoints: d.restorePoints})
	d.must(err)
	return runs
}

func (d *desk) restorePoints(r *wal.Reader) ([]retention.RestorePoint, error) {
	return d.points[r.Manifest().Run], nil
}

func (d *desk) ids() (list []string) {
	names, err := d.mem.ReadDir(instance)
	d.must(err)
	for _, e := range names {
		if e.IsDir() {
			list = append(list, e.Name())
		}
	}
	return list
}

// clean fails the test unless verify finds nothing in a run.
func (d *desk) clean(run string) verify.Report {
	d.t.Helper()
	rep, err := verify.Run(context.Background(), d.mem, filepath.Join(instance, run), verify.Options{})
	if err != nil || !rep.Clean() {
		d.t.Fatalf("%s: %v, %+v", run, err, rep.Findings)
	}
	return rep
}

func TestAnEngineReclaimsItsOwnRunAndOlderOnesWhileItWrites(t *testing.T) {
	d := newDesk(t)
	d.open(60)
	d.crash()
	second := d.open(60, 30, 50).ID()
	d.crash()
	live := d.open(100, 40)
	keep := func() string {
		t.Helper()
		plan, err := retention.Policy{Anchored: true}.Plan(d.list(live.ID()))
		d.must(err)
		done, err := retention.Apply(context.Background(), &plan, live)
		d.must(err)
		if done != plan.Removals() {
			t.Errorf("%d of %d", done, plan.Removals())
		}
		return fmt.Sprint(d.ids())
	}
	if got := keep(); got != fmt.Sprint([]string{second, live.ID()}) {
		t.Errorf("left: %s", got)
	}
	if rep := d.clean(second); rep.FirstSeq < 20 || rep.FirstSeq > 30 { // run 3 has one restore point, and falls back on this
		t.Errorf("run 2 begins at seq %d", rep.FirstSeq)
	}
	d.fill(live, 100)
	d.points[live.ID()] = append(d.points[live.ID()], retention.RestorePoint{Seq: 150}, retention.RestorePoint{Seq: 190})
	if got := keep(); got != fmt.Sprint([]string{live.ID()}) {
		t.Errorf("left: %s", got)
	}
	begins := live.Reader().FirstSeq()
	if begins < 100 || begins > 150 {
		t.Errorf("it begins at seq %d", begins)
	}
	d.fill(live, 50)
	n := 0
	for v, err := range live.Scan(runlog.ScanOptions{}) {
		d.must(err)
		if v.Seq() != begins+uint64(n) {
			t.Fatalf("seq %d follows %d", v.Seq(), begins+uint64(n)-1)
		}
		n++
	}
	if uint64(n) != live.Durable()-begins+1 {
		t.Errorf("%d entries", n)
	}
	d.clean(live.ID())
	d.crash()
	next := d.open(1)
	if next.Manifest().Parent != live.ID() {
		t.Errorf("the next run continues %s", next.Manifest().Parent)
	}
	if rep := d.clean(live.ID()); rep.FirstSeq != begins || rep.LastSeq != 251 {
		t.Errorf("recovered: %+v", rep)
	}
	d.must(next.Close(context.Background()))
	if err := next.RemoveRun(live.ID()); !errors.Is(err, runlog.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestListDescribesWhatItCannotReadInsteadOfFailing(t *testing.T) {
	d := newDesk(t)
	damaged := d.open(60, 30).ID()
	d.crash()
	whole := d.open(60, 30, 90).ID() // and a restore point ahead of it
	d.crash()
	d.open(60, 10)
	d.flip(filepath.Join(instance, damaged, segment.FileName(1)), 80)
	d.crash()
	failing := d.open(60, 20).ID()
	f, err := d.mem.Create(filepath.Join(instance, whole, "notes.txt"))
	d.must(err)
	d.must(f.Close())
	runs, err := retention.List(instance, retention.Options{FS: d.mem, RestorePoints: func(r *wal.Reader) ([]retention.RestorePoint, error) {
		if r.Manifest().Run == failing {
			return nil, syscall.ECONNREFUSED
		}
		return d.restorePoints(r)
	}})
	d.must(err)
	if len(runs) != 4 {
		t.Fatalf("%d runs", len(runs))
	}
	if r := runs[0]; r.ID != damaged || r.Err == nil || r.Status != runlog.CrashedRecovered {
		t.Errorf("%+v", r)
	}
	if r := runs[1]; r.Err != nil || r.LastSeq != 61 || r.Durable != 61 || len(r.Segments) < 4 || fmt.Sprint(r.Strangers) != "[notes.txt]" || r.Parent != damaged {
		t.Errorf("%+v", r)
	}
	if r := runs[3]; r.ID != failing || !errors.Is(r.Err, syscall.ECONNREFUSED) || r.Status != runlog.Running || r.Parent == "" {
		t.Errorf("%+v", r)
	}
	plan, err := retention.Policy{Bounded: true}.Plan(runs)
	d.must(err)
	if plan.Removals() != 0 {
		t.Errorf("%+v", plan.Items)
	}
	if got := plan.Items[1].Points; len(got) != 2 || got[0].Problem != "" || !strings.Contains(got[1].Problem, "exceeds the durable 61") {
		t.Errorf("restore points %+v", got)
	}
}

// flip turns a bit of a file, off bytes before its end.
func (d *desk) flip(name string, off int64) {
	d.t.Helper()
	f, err := d.mem.Open(name)
	d.must(err)
	defer f.Close()
	size, err := f.Size()
	d.must(err)
	b := make([]byte, 1)
	_, err = f.ReadAt(b, size-off)
	d.must(err)
	b[0] ^= 1
	_, err = f.WriteAt(b, size-off)
	d.must(err)
	d.must(f.Datasync())
}

func TestApplyStopsAtTheFirstErrorAndAnotherPlanGoesOn(t *testing.T) {
	d := newDesk(t)
	var ids []string
	for range 4 {
		r := d.open(40, 20, 30)
		ids = append(ids, r.ID())
		d.must(r.Close(context.Background()))
	}
	policy := retention.Policy{Bounded: true, KeepLast: 1}
	folder := retention.Folder{FS: d.mem, Dir: instance}
	plan, err := policy.Plan(d.list(""))
	d.must(err)
	if len(d.ids()) != 4 {
		t.Fatal("a plan has removed something")
	}
	d.mem.Inject(vfs.Rule{Kind: vfs.OpRename, Name: ids[1], Err: syscall.EIO})
	done, err := retention.Apply(context.Background(), &plan, folder)
	if done != 1 || !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), ids[1]) {
		t.Errorf("%d, %v", done, err)
	}
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	plan, err = policy.Plan(d.list(""))
	d.must(err)
	if done, err := retention.Apply(canceled, &plan, folder); done != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d, %v", done, err)
	}
	d.mem.Inject(vfs.Rule{Kind: vfs.OpRemove, Name: segment.FileName(2), Err: syscall.EIO})
	if done, err := retention.Apply(context.Background(), &plan, folder); done != 0 || !errors.Is(err, syscall.EIO) {
		t.Errorf("%d, %v", done, err)
	}
	if got := d.ids(); !slices.ContainsFunc(got, func(n string) bool { return strings.HasPrefix(n, wal.RemovedPrefix) }) {
		t.Errorf("left: %v", got)
	}
	plan, err = policy.Plan(d.list(""))
	d.must(err)
	if _, err := retention.Apply(context.Background(), &plan, folder); err != nil {
		t.Error(err)
	}
	if got := d.ids(); len(got) != 1 || got[0] != ids[3] {
		t.Errorf("left: %v", got)
	}
}

func TestTheNextStartEndsWhatACrashHasInterrupted(t *testing.T) {
	d := newDesk(t)
	old := d.open(40, 20, 30).ID()
	d.crash()
	cut := d.open(100, 60, 80).ID()
	d.crash()
	live := d.open(5)
	interrupt := func() { d.mem.Inject(vfs.Rule{Kind: vfs.OpRemove, Name: segment.FileName(1), Err: syscall.EIO}) }
	if interrupt(); live.RemoveRun(old) == nil {
		t.Fatal("nothing has interrupted it")
	}
	if interrupt(); live.RemoveBefore(cut, 3) == nil {
		t.Fatal("nothing has interrupted it")
	}
	left := func() string {
		var files []string
		names, err := d.mem.ReadDir(filepath.Join(instance, cut))
		d.must(err)
		for _, e := range names {
			if n, ok := segment.ParseFileName(e.Name()); ok && n < 3 {
				files = append(files, e.Name())
			}
		}
		return fmt.Sprint(files, len(d.ids()))
	}
	if got := left(); got != "[00000001.seg 00000002.seg] 3" { // and the old run, aside
		t.Fatalf("left over: %s", got)
	}
	d.crash()
	next := d.open(5)
	if got := left(); got != "[] 3" || slices.Contains(d.ids(), wal.RemovedPrefix+old) {
		t.Errorf("left: %s, %v", got, d.ids())
	}
	d.clean(cut)
	d.must(next.Close(context.Background()))
}

// Plans by chance, applied by an engine while it writes and by a tool while none does, for many lives of an instance:
// verify never finds anything, what is left is what the plan says, and the next start continues the same run as without
// retention.
func TestManyLivesOfAnInstanceWithRetention(t *testing.T) {
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 3))
		d := newDesk(t)
		for range 12 {
			r := d.open(1 + rng.IntN(60))
			for range rng.IntN(4) {
				d.points[r.ID()] = append(d.points[r.ID()], retention.RestorePoint{Seq: 1 + rng.Uint64N(r.Durable())})
			}
			policy := retention.Policy{Bounded: rng.IntN(2) == 0, KeepLast: 0, Anchored: rng.IntN(2) == 0, MaxBytes: rng.Int64N(2) * 400_000}
			var by retention.Remover = r
			own := r.ID()
			if rng.IntN(2) == 0 {
				if rng.IntN(2) == 0 {
					d.must(r.Close(context.Background()))
				} else {
					d.crash()
				}
				by, own = retention.Folder{FS: d.mem, Dir: instance}, ""
			}
			before, parent := d.list(own), d.nextParent()
			plan, err := policy.Plan(before)
			d.must(err)
			if _, err := retention.Apply(context.Background(), &plan, by); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			d.as(plan, before, d.list(own))
			if got := d.nextParent(); got != parent {
				t.Fatalf("seed %d: the next start continues %q, and would have continued %q", seed, got, parent)
			}
			if own != "" && rng.IntN(2) == 0 {
				d.must(r.Close(context.Background()))
			} else if own != "" {
				d.crash()
			}
		}
	}
}

// nextParent is the run that the next start would continue if the process died now.
func (d *desk) nextParent() string {
	d.t.Helper()
	o := d.o
	o.FS = d.mem.Kill()
	r, err := runlog.Open(context.Background(), o)
	d.must(err)
	return r.Manifest().Parent
}

// as fails the test unless what is there is what the plan says, and whole.
func (d *desk) as(plan retention.Plan, before, after []retention.Run) {
	d.t.Helper()
	begins := map[string]uint64{}
	for _, it := range plan.Items {
		if !it.Remove {
			begins[it.Run] = it.FirstSeq
		}
	}
	got := map[string]uint64{}
	for _, r := range after {
		got[r.ID] = r.FirstSeq
		if r.Status != manifest.Running {
			d.clean(r.ID)
		}
	}
	if !maps.Equal(begins, got) {
		d.t.Fatalf("left: %v, the plan says %v (of %d runs)", got, begins, len(before))
	}
}
