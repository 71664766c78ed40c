package fuzz

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/fuzz/oracle"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/retention"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// retaining is an instance of several runs, and a retention that is to be cut off.
type retaining struct {
	*sim
	policy retention.Policy
	points map[string][]retention.RestorePoint
	own    string // id of the run that is being written; "" for none
	by     retention.Remover
	plan   retention.Plan
	parent string            // of the next run
	begins map[string]uint64 // what the plan keeps, by run: the seq that it begins at
}

func (s *retaining) instance() string { return filepath.Join(s.o.Dir, s.o.Instance) }

// live makes a run with restore points.
func (s *retaining) live() (*runlog.Run, error) {
	run, err := runlog.Open(context.Background(), s.o)
	if err != nil {
		return nil, err
	}
	in := s.h.Start(run)
	for range 10 + s.rng.IntN(60) {
		d := s.draft()
		in.Add(d)
		if _, err := run.Submit(d); err != nil {
			return nil, err
		}
	}
	for range s.rng.IntN(4) {
		s.points[run.ID()] = append(s.points[run.ID()], retention.RestorePoint{Seq: 1 + s.rng.Uint64N(run.Durable())})
	}
	s.h.Promise(run.ID(), in.Want, run.Durable())
	return run, nil
}

// prepare makes the runs and the plan.
func (s *retaining) prepare() error {
	lives := 2 + s.rng.IntN(3)
	for i := range lives {
		run, err := s.live()
		if err != nil {
			return err
		}
		switch {
		case i == lives-1 && s.rng.IntN(2) == 0:
			s.own, s.by = run.ID(), run
		case s.rng.IntN(3) == 0:
			was := s.h.Runs[run.ID()]
			s.h.Runs[run.ID()] = oracle.Run{Acked: was.Acked + 1, Want: endedBehind(was)}
			if err := run.Close(context.Background()); err != nil {
				return err
			}
		default:
			s.mem = s.mem.Kill()
			s.o.FS = s.mem
		}
	}
	if s.by == nil {
		s.by = retention.Folder{FS: s.mem, Dir: s.instance()}
	}
	s.policy = []retention.Policy{
		{Anchored: true}, {Bounded: true}, {Bounded: true, KeepLast: 1}, {MaxBytes: 200 << 10}, {Before: s.o.Clock.Now()},
	}[s.rng.IntN(5)]
	var err error
	if s.plan, err = s.planFor(s.mem, s.own); err != nil {
		return err
	}
	s.begins = map[string]uint64{}
	s.h.Gone = map[string]bool{}
	for _, it := range s.plan.Items {
		was := s.h.Runs[it.Run]
		switch {
		case !it.Remove:
			s.begins[it.Run] = it.FirstSeq
			was.Begins = append(was.Begins, it.FirstSeq)
			s.h.Runs[it.Run] = was
		case it.First == 0:
			s.h.Gone[it.Run] = true
		default:
			was.Begins = append(was.Begins, it.FirstSeq)
			s.h.Runs[it.Run] = was
		}
	}
	s.parent, err = s.nextParent(s.mem.Kill())
	return err
}

// endedBehind is a Run.Want with RunEnded behind what was acknowledged.
func endedBehind(r oracle.Run) func(*runlog.Entry) (runlog.Entry, error) {
	return func(got *runlog.Entry) (runlog.Entry, error) {
		if got.Seq == r.Acked+1 {
			return oracle.Ended, nil
		}
		return r.Want(got)
	}
}

func (s *retaining) planFor(fsys vfs.FS, own string) (retention.Plan, error) {
	runs, err := retention.List(s.instance(), retention.Options{FS: fsys, Own: own, RestorePoints: func(r *wal.Reader) ([]retention.RestorePoint, error) {
		return s.points[r.Manifest().Run], nil
	}})
	if err != nil {
		return retention.Plan{}, err
	}
	for _, r := range runs {
		if r.Err != nil {
			return retention.Plan{}, fmt.Errorf("run %s: %w", r.ID, r.Err)
		}
	}
	return s.policy.Plan(runs)
}

// nextParent boots on a disk, and returns the run that the new one continues. The boot must have left nothing half removed.
func (s *retaining) nextParent(fsys *vfs.Mem) (string, error) {
	o := s.o
	o.FS = fsys
	run, err := runlog.Open(context.Background(), o)
	if err != nil {
		return "", err
	}
	return run.Manifest().Parent, s.tidy(fsys)
}

// tidy returns an error if something is left of what was removed.
func (s *retaining) tidy(fsys vfs.FS) error {
	names, err := fsys.ReadDir(s.instance())
	if err != nil {
		return err
	}
	for _, e := range names {
		if strings.HasPrefix(e.Name(), wal.RemovedPrefix) {
			return fmt.Errorf("%s is left", e.Name())
		}
		if !e.IsDir() {
			continue
		}
		dir := filepath.Join(s.instance(), e.Name())
		m, _, err := manifest.Read(fsys, dir)
		if err != nil {
			return err
		}
		files, err := fsys.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, f := range files {
			if f.Name()[0] == '0' && f.Name() < fmt.Sprintf("%08d", m.FirstSegment()) {
				return fmt.Errorf("%s of run %s is left, which begins with segment %d", f.Name(), e.Name(), m.FirstSegment())
			}
		}
	}
	return nil
}

// cutOff judges what a power cut has left of a retention.
func (s *retaining) cutOff(left *vfs.Mem, r *rand.Rand) error {
	for id, was := range s.h.Runs {
		dir := filepath.Join(s.instance(), id)
		if _, err := left.Stat(dir); err != nil {
			if !s.h.Gone[id] {
				return fmt.Errorf("run %s is gone, and the plan keeps it: %w", id, err)
			}
			continue
		}
		if _, err := was.Read(left, dir); err != nil && !oracle.Unindexed(err) {
			return fmt.Errorf("run %s: %w", id, err)
		}
		if err := s.withoutManifest(left.Kill(), dir, s.h.Runs[id].Begins); err != nil {
			return fmt.Errorf("run %s, when its manifest is lost: %w", id, err)
		}
	}
	parent, err := s.nextParent(left.Kill())
	if err != nil {
		return fmt.Errorf("the next start: %w", err)
	}
	if parent != s.parent {
		return fmt.Errorf("the next start continues %q, and would have continued %q", parent, s.parent)
	}
	if s.own == "" { // then no boot is needed for the next retention
		if err := s.goOn(left.Kill()); err != nil {
			return fmt.Errorf("the next retention: %w", err)
		}
	}
	return s.judge(left, r)
}

// withoutManifest returns an error if the previous copy alone does not tell where the run begins.
func (s *retaining) withoutManifest(fsys vfs.FS, dir string, begins []uint64) error {
	if err := fsys.Remove(filepath.Join(dir, manifest.FileName)); err != nil {
		return err
	}
	r, err := runlog.OpenReader(dir, runlog.ReaderOptions{FS: fsys})
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := r.Get(r.FirstSeq(), nil); err != nil {
		return err
	}
	return r.Damage()
}

// goOn lets another retention end what the first one has begun.
func (s *retaining) goOn(fsys *vfs.Mem) error {
	plan, err := s.planFor(fsys, "")
	if err != nil {
		return err
	}
	if _, err := retention.Apply(context.Background(), &plan, retention.Folder{FS: fsys, Dir: s.instance()}); err != nil {
		return err
	}
	return s.asPlanned(fsys)
}

// asPlanned returns an error unless exactly what the plan keeps is there.
func (s *retaining) asPlanned(fsys vfs.FS) error {
	plan, err := s.planFor(fsys, s.own)
	if err != nil {
		return err
	}
	got := map[string]uint64{}
	for _, it := range plan.Items {
		got[it.Run] = it.FirstSeq
	}
	if !maps.Equal(got, s.begins) {
		return fmt.Errorf("%v is left, the plan keeps %v", got, s.begins)
	}
	return s.tidy(fsys)
}

// retentions cuts the power at each operation of a retention.
func retentions(c *matrix.Cases) (err error) {
	s := &retaining{sim: newSim(c.Seed), points: map[string][]retention.RestorePoint{}}
	if err := s.prepare(); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	if s.plan.Removals() == 0 {
		return nil
	}
	s.fault = func(n int64) {
		if err != nil || !c.Next() {
			return
		}
		r := rand.New(rand.NewPCG(s.seed, uint64(n)))
		name, cut := crashes(r)
		if err = s.cutOff(cut(s.mem).(*vfs.Mem), r); err != nil {
			err = fmt.Errorf("before %v, %s: %w", s.op, name, err)
		}
	}
	s.watch(0)
	done, aerr := retention.Apply(context.Background(), &s.plan, s.by)
	s.mem.SetHook(nil)
	if err == nil && aerr != nil {
		err = fmt.Errorf("%d of %d done: %w", done, s.plan.Removals(), aerr)
	}
	if err == nil {
		err = s.asPlanned(s.mem)
	}
	if err != nil || !c.Next() {
		return err
	}
	for id, was := range s.h.Runs { // from here on it is as the plan says, whatever crash comes
		was.Begins = []uint64{s.begins[id]}
		if s.h.Runs[id] = was; s.h.Gone[id] {
			delete(s.h.Runs, id)
		}
	}
	r := rand.New(rand.NewPCG(s.seed, 1<<40))
	_, cut := crashes(r)
	return s.cutOff(cut(s.mem).(*vfs.Mem), r)
}

func TestAPowerCutInsideARetentionLeavesWhatThePlanKeeps(t *testing.T) {
	matrix.Run(t, "retention", retentions)
}
