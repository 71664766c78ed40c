package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/runlog-io/runlog"
)

// lineageJSON is a run in lineage --json.
type lineageJSON struct {
	Dir         string        `json:"dir"`
	Instance    string        `json:"instance"`
	Run         string        `json:"run"`
	Status      runlog.Status `json:"status"`
	Live        bool          `json:"live"`
	Origin      string        `json:"origin,omitempty"`
	LastSeq     uint64        `json:"last_seq"`
	Depth       int           `json:"depth"` // parents above it that are there
	Parent      string        `json:"parent,omitempty"`
	NoParent    string        `json:"parent_missing,omitempty"` // why the parent cannot be used
	ContinuedBy []string      `json:"continued_by"`             // runs that took over its state
	SkippedBy   []skippedJSON `json:"skipped_by"`               // runs that began without it
	Reason      string        `json:"quarantine,omitempty"`
	Error       string        `json:"error,omitempty"`

	children []*lineageJSON
}

// skippedJSON says which run began without another, and why.
type skippedJSON struct {
	Run    string `json:"run"`
	Reason string `json:"reason"`
}

func (a *app) lineageCmd() *cobra.Command {
	return &cobra.Command{
		Use: "lineage PATH", Short: "Show which run continues which, and which were left out",
		Long: `lineage shows the runs of an instance as a tree: below each run, those that name it as their parent, in the order of their start. A run is
continued by a child that holds state of its own or has ended cleanly; a child that died before it did anything has continued nothing. PATH is an
instance's directory, the base folder for all instances, or a run's directory, for that run with its parents and what follows from it.

A parent that is gone or quarantined is said so, and so is which runs began without a run, and why. It reads manifests, and the end of runs that
are not sealed.`,
		Example: `  runlog lineage runs/demo
  runlog lineage runs/demo/20261123T200248.123456789Z-1a2b3c4d
  runlog lineage runs --json | jq -r 'select(.parent_missing) | "\(.run) has lost \(.parent)"'`,
		Args: exactly("PATH"),
		RunE: func(_ *cobra.Command, args []string) error { return a.lineage(args[0]) },
	}
}

func (a *app) lineage(path string) error {
	kind, err := classify(path)
	if err != nil {
		return err
	}
	only := ""
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	base, instance := path, ""
	switch kind {
	case isBase:
	case isInst:
		base, instance = filepath.Join(path, ".."), filepath.Base(abs) // so that runs are named as path is
	case isRun:
		base, instance, only = filepath.Join(path, "..", ".."), filepath.Base(filepath.Dir(abs)), filepath.Base(abs)
	default:
		return notRun(path, kind)
	}
	infos, err := runlog.List(base, runlog.ReaderOptions{})
	if err != nil {
		return err
	}
	runs := make([]*lineageJSON, 0, len(infos))
	for i := range infos {
		if in := &infos[i]; instance == "" || in.Instance == instance {
			runs = append(runs, a.relative(in))
		}
	}
	skips(infos, runs)
	roots := related(runs)
	if only != "" {
		roots = around(roots, only)
	}
	a.printLineage(roots)
	return nil
}

// relative describes one run.
func (a *app) relative(in *runlog.RunInfo) *lineageJSON {
	m, status, last, err := in.Manifest, in.Status, in.Manifest.LastSeq, in.Err
	if err != nil || !m.Status.Sealed() {
		var r *runlog.Reader
		if r, err = runlog.OpenReader(in.Dir, runlog.ReaderOptions{}); err == nil {
			m, status, last = r.Manifest(), r.Status(), r.LastSeq()
			_ = r.Close()
		}
	}
	l := &lineageJSON{
		Dir: in.Dir, Instance: in.Instance, Run: in.Run, Status: status, Live: in.Live, Origin: m.Origin, LastSeq: last, Parent: m.Parent,
		ContinuedBy: []string{}, SkippedBy: []skippedJSON{}, Reason: in.Quarantine,
	}
	if err != nil {
		l.Error = err.Error()
		if l.Status == "" {
			l.Status = "Unreadable"
		}
	}
	return l
}

// skips files which runs began without others.
func skips(infos []runlog.RunInfo, runs []*lineageJSON) {
	for i := range infos {
		for _, s := range infos[i].Manifest.Skipped {
			for _, r := range runs {
				if r.Run == s.Run && r.Instance == infos[i].Instance {
					r.SkippedBy = append(r.SkippedBy, skippedJSON{Run: infos[i].Run, Reason: s.Reason})
				}
			}
		}
	}
}

// related hangs children below their parents and returns the runs without one. Ids grow from parent to child; what says
// otherwise is no parent, so the tree has no circle.
func related(runs []*lineageJSON) (roots []*lineageJSON) {
	byID := map[[2]string]*lineageJSON{}
	for _, r := range runs {
		byID[[2]string{r.Instance, r.Run}] = r
	}
	for _, r := range runs {
		p := byID[[2]string{r.Instance, r.Parent}]
		switch {
		case r.Parent == "":
		case p == nil:
			r.NoParent = "it is not there"
		case p.Status == runlog.Quarantined:
			r.NoParent = "it is quarantined"
		case p.Error != "":
			r.NoParent = "it cannot be read"
		}
		if p == nil || p.Run >= r.Run {
			roots = append(roots, r)
			continue
		}
		p.children = append(p.children, r)
		if r.Status == runlog.Ended || r.Status != runlog.Quarantined && r.LastSeq > 1 {
			p.ContinuedBy = append(p.ContinuedBy, r.Run)
		}
	}
	return roots
}

// around keeps one run with its parents and what is below it.
func around(list []*lineageJSON, run string) []*lineageJSON {
	for _, r := range list {
		if r.Run == run {
			return []*lineageJSON{r}
		}
		if below := around(r.children, run); below != nil {
			r.children = below
			return []*lineageJSON{r}
		}
	}
	return nil
}

// maxIndent bounds how far a long chain goes to the right.
const maxIndent = 12

func (a *app) printLineage(roots []*lineageJSON) {
	t := table{right: map[int]bool{3: true}}
	t.add("INSTANCE", "RUN", "STATE", "LAST SEQ", "CONTINUED BY")
	var remarks []string
	var walk func(list []*lineageJSON, depth int)
	walk = func(list []*lineageJSON, depth int) {
		for _, r := range list {
			r.Depth = depth
			if a.json {
				_ = a.printJSON(r)
			} else {
				by := "-"
				if n := len(r.ContinuedBy); n > 0 {
					by = strings.Join(r.ContinuedBy, ", ")
				}
				t.add(r.Instance, strings.Repeat("  ", min(depth, maxIndent))+r.Run, state(r.Status, r.Live), count(r.LastSeq), by)
				remarks = append(remarks, r.remarks()...)
			}
			walk(r.children, depth+1)
		}
	}
	walk(roots, 0)
	if a.json {
		return
	}
	t.print(a.out)
	for _, s := range remarks {
		a.out.line("%s", printable(s, -1))
	}
}

// remarks is what the table does not say.
func (r *lineageJSON) remarks() (list []string) {
	add := func(format string, args ...any) { list = append(list, r.Run+": "+fmt.Sprintf(format, args...)) }
	if r.NoParent != "" {
		add("its parent %s: %s", r.Parent, r.NoParent)
	}
	if r.Status == runlog.Quarantined {
		add("quarantined: %s", r.Reason)
	}
	if r.Error != "" {
		add("%s", r.Error)
	}
	if n := len(r.SkippedBy); n > 0 {
		first, more, why := r.SkippedBy[0], "", ""
		if n > 1 {
			more = fmt.Sprintf(", and %s after it,", number(n-1, "run", "runs"))
		}
		if r.Reason == "" || !strings.HasSuffix(first.Reason, r.Reason) {
			why = ": " + first.Reason
		}
		add("%s%s began without it%s", first.Run, more, why)
	}
	return list
}
