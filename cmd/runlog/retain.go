package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/retention"
	"github.com/runlog-io/runlog/vfs"
)

// retainFlags are the rules of retain.
type retainFlags struct {
	keepLast  int
	anchored  bool
	olderThan string
	maxBytes  string
	blobs     string
	apply     bool
}

func (a *app) retainCmd() *cobra.Command {
	var f retainFlags
	cmd := &cobra.Command{
		Use: "retain DIR|INSTANCE", Short: "Say which runs and segments may be removed, or remove them",
		Long: `retain says of every run of an instance, or of all instances below a base folder, what would stay and what would go, and why. Nothing is
removed without --apply, and without a rule everything stays. Something goes only if every rule that is given lets it.

Whatever the rules, these stay: runs that are quarantined, not sealed, imported, or that cannot be read; everything, while no restore point
is known to be good; the newest good restore point and what it needs; the newest run, the run by which the engine's next start decides what to
continue, and whatever these or other runs that stay need for their restore, even if their newest restore point were lost.

--apply takes the instance's lock and plans under it: while an engine holds the instance, retention is the engine's own business. Removed is
removed: copy first what has to be kept longer.

Exit codes: 0 fine; 2 usage, the instance is held, or something could not be removed.`,
		Example: `  runlog retain runs --blobs runs/demo/snapshots --anchored
  runlog retain runs/demo --blobs runs/demo/snapshots --keep-last 10 --older-than 90d --apply
  runlog retain runs --max-bytes 500GiB --json | jq -r 'select(.remove) | "\(.run) \(.reason)"'`,
		Args: exactly("DIR|INSTANCE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			policy, err := f.policy(cmd, time.Now())
			if err != nil {
				return err
			}
			instances, err := a.instances(args[0])
			if err != nil {
				return err
			}
			if err := a.openBlobs(f.blobs); err != nil {
				return err
			}
			for _, dir := range instances {
				err = errors.Join(err, a.retain(dir, policy, f.apply))
			}
			return err
		},
	}
	cmd.Flags().IntVar(&f.keepLast, "keep-last", 0, "the newest so many runs stay")
	cmd.Flags().BoolVar(&f.anchored, "anchored", false, "what comes after the second newest good restore point stays")
	cmd.Flags().StringVar(&f.olderThan, "older-than", "", "what is younger than this stays: 90d, 36h")
	cmd.Flags().StringVar(&f.maxBytes, "max-bytes", "", "no more goes than it takes to come down to this: bytes, or with KiB, MiB, GiB, TiB")
	cmd.Flags().StringVar(&f.blobs, "blobs", "", "`folder` of the snapshots: without it no restore point can be checked, and everything stays")
	cmd.Flags().BoolVar(&f.apply, "apply", false, "remove what may go")
	return cmd
}

// openBlobs makes the snapshots in a folder the blobs that restore points need; "": none are to be had.
func (a *app) openBlobs(dir string) error {
	store, err := openStore(dir)
	if store != nil {
		a.restorePoints = retention.Anchors(a.ctx, store)
	}
	return err
}

// policy makes the rules; only flags that are given count.
func (f *retainFlags) policy(cmd *cobra.Command, now time.Time) (p retention.Policy, err error) {
	p.Anchored = f.anchored
	p.Bounded, p.KeepLast = cmd.Flags().Changed("keep-last"), f.keepLast
	if f.olderThan != "" {
		age, err := parseAge(f.olderThan)
		if err != nil {
			return p, err
		}
		p.Before = now.Add(-age).UnixNano()
	}
	if f.maxBytes != "" {
		if p.MaxBytes, err = parseBytes(f.maxBytes); err != nil {
			return p, err
		}
	}
	if f.apply && p.Full() {
		return p, fmt.Errorf("--apply without a rule removes nothing: want --keep-last, --anchored, --older-than or --max-bytes")
	}
	return p, p.Check()
}

// parseAge reads a duration that may be in days.
func parseAge(s string) (time.Duration, error) {
	const day = 24 * time.Hour
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil && n > 0 {
			return time.Duration(n) * day, nil
		}
	} else if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return d, nil
	}
	return 0, fmt.Errorf("--older-than %q: want a time such as 90d, 36h or 45m", s)
}

// parseBytes reads a number of bytes.
func parseBytes(s string) (int64, error) {
	digits, shift := s, 0
	for i, unit := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if rest, ok := strings.CutSuffix(s, unit); ok {
			digits, shift = rest, 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || n > 1<<62>>shift {
		return 0, fmt.Errorf("--max-bytes %q: want a number of bytes such as 1000000 or 500GiB", s)
	}
	return n << shift, nil
}

// instances lists the folders of instances that path names.
func (a *app) instances(path string) (dirs []string, err error) {
	kind, err := classify(path)
	if err != nil {
		return nil, err
	}
	switch kind {
	case isInst:
		return []string{filepath.Clean(path)}, nil
	case isBase:
		runs, err := a.runs(path)
		for _, r := range runs {
			if dir := filepath.Dir(r.Dir); len(dirs) == 0 || dirs[len(dirs)-1] != dir {
				dirs = append(dirs, dir)
			}
		}
		return dirs, err
	case isRun:
		return nil, fmt.Errorf("%s: it is a run's directory: retention looks at all runs of an instance, here %s", path, filepath.Dir(filepath.Clean(path)))
	}
	return nil, notBase(path, kind)
}

// retain plans for one instance, and removes what may go if it is to be applied.
func (a *app) retain(dir string, policy retention.Policy, apply bool) error {
	if apply {
		lock, err := lockInstance(dir)
		if err != nil {
			return err
		}
		defer lock.Close()
	} else if _, held, _ := vfs.OS.LockHolder(filepath.Join(dir, manifest.LockName)); held {
		a.note("%s: a process holds the instance: only that can apply a plan, for its own run too", dir)
	}
	runs, err := retention.List(dir, retention.Options{RestorePoints: a.restorePoints})
	if err != nil {
		return err
	}
	for i := range runs {
		if runs[i].Err != nil {
			a.warn(fmt.Errorf("%s: run %s stays: %w", dir, runs[i].ID, runs[i].Err))
		}
	}
	plan, err := policy.Plan(runs)
	if err != nil {
		return err
	}
	a.printPlan(dir, &plan)
	done := 0
	if apply {
		done, err = retention.Apply(a.ctx, &plan, retention.Folder{Dir: dir})
	}
	return errors.Join(err, a.printRetained(dir, &plan, apply, done))
}

// planItemJSON is an item of a plan in retain --json.
type planItemJSON struct {
	Record string `json:"record"` // "item"
	Dir    string `json:"dir"`    // the instance's folder
	retention.Item
}

// retainedJSON ends an instance in retain --json.
type retainedJSON struct {
	Record  string `json:"record"` // "plan"
	Dir     string `json:"dir"`
	Applied bool   `json:"applied"`
	Items   int    `json:"removals"` // items that go
	Done    int    `json:"removals_done"`
	Bytes   int64  `json:"bytes"`
	Removed int64  `json:"removed_bytes"` // if all that goes is gone
	Over    int64  `json:"over_bytes"`
}

func (a *app) printPlan(dir string, plan *retention.Plan) {
	if a.json {
		for _, it := range plan.Items {
			_ = a.printJSON(planItemJSON{Record: "item", Dir: dir, Item: it})
		}
		return
	}
	t := table{right: map[int]bool{3: true, 4: true}}
	t.add("RUN", "PLAN", "SEGMENTS", "SEQS", "SIZE", "WHY")
	for _, it := range plan.Items {
		verdict, segments := "keep", "all"
		if it.Remove {
			verdict = "REMOVE"
		}
		if it.First > 0 {
			segments = fmt.Sprintf("%d-%d", it.First, it.Last)
		}
		why := it.Reason
		for _, p := range it.Points {
			if p.Problem != "" {
				why += fmt.Sprintf("; restore point at seq %d is not good: %s", p.Seq, p.Problem)
			}
		}
		t.add(it.Run, verdict, segments, fmt.Sprintf("%d-%d", it.FirstSeq, it.LastSeq), size(it.Bytes), printable(why, -1))
	}
	t.print(a.out)
}

func (a *app) printRetained(dir string, plan *retention.Plan, applied bool, done int) error {
	if a.json {
		return a.printJSON(retainedJSON{
			Record: "plan", Dir: dir, Applied: applied, Items: plan.Removals(), Done: done, Bytes: plan.Bytes, Removed: plan.Removed, Over: plan.Over,
		})
	}
	s := fmt.Sprintf("%s of %s may go: nothing is removed without --apply", size(plan.Removed), size(plan.Bytes))
	switch n := plan.Removals(); {
	case n == 0:
		s = fmt.Sprintf("nothing may go: all %s stay", size(plan.Bytes))
	case applied && done == n:
		s = fmt.Sprintf("removed: %s of %s", size(plan.Removed), size(plan.Bytes))
	case applied:
		s = fmt.Sprintf("%s removed, of %d", number(done, "item", "items"), n)
	}
	if plan.Over > 0 {
		s += fmt.Sprintf("; what must stay is %s more than --max-bytes", size(plan.Over))
	}
	a.out.line("%s: %s", dir, s)
	return nil
}
