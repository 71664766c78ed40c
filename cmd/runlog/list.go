package main

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/index"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/segment/compressed"
	"github.com/runlog-io/runlog/vfs"
)

// listed is a run in ls --json.
type listed struct {
	Dir      string        `json:"dir"`
	Instance string        `json:"instance"`
	Run      string        `json:"run"`
	Status   runlog.Status `json:"status"`
	Live     bool          `json:"live"`
	Started  int64         `json:"started"`
	Ended    *int64        `json:"ended,omitempty"`
	FirstSeq uint64        `json:"first_seq,omitempty"` // above 1 once retention has removed what was in front
	LastSeq  uint64        `json:"last_seq,omitempty"`
	Parent   string        `json:"parent,omitempty"`
	Origin   string        `json:"origin,omitempty"`
	Build    string        `json:"build,omitempty"`
	Reason   string        `json:"quarantine,omitempty"`
	Error    string        `json:"error,omitempty"`
}

func (a *app) lsCmd() *cobra.Command {
	return &cobra.Command{
		Use: "ls DIR", Short: "List all runs under a base folder",
		Long: `ls lists the runs of all instances under the base folder, by instance and start time. It reads manifests only. A run that is
not sealed is Live while a process holds its instance, else Crashed: the engine's next start recovers it.`,
		Example: "  runlog ls runs\n  runlog ls runs --json | jq -r 'select(.status != \"Ended\") | .dir'",
		Args:    exactly("DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			runs, err := a.runs(args[0])
			if err != nil {
				return err
			}
			t := table{right: map[int]bool{4: true}}
			t.add("INSTANCE", "RUN", "STATE", "STARTED", "LAST SEQ", "ORIGIN", "PARENT")
			var failed error
			for i := range runs {
				in := &runs[i]
				if err := a.listOne(in, &t); err != nil {
					failed = errors.Join(failed, err)
				}
			}
			if !a.json {
				t.print(a.out)
				a.quarantined(runs)
			}
			return failed
		},
	}
}

// quarantined says why runs are.
func (a *app) quarantined(runs []runlog.RunInfo) {
	for i := range runs {
		if in := &runs[i]; in.Status == runlog.Quarantined {
			a.out.line("%s", printable(fmt.Sprintf("quarantined: %s: %s", in.Dir, in.Quarantine), -1))
		}
	}
}

// listOne lists a run. One whose manifest is lost is rebuilt in memory; if that fails, it is listed with its error.
func (a *app) listOne(in *runlog.RunInfo, t *table) (err error) {
	m, status := in.Manifest, in.Status
	if in.Err != nil {
		a.warn(in.Err)
		var r *runlog.Reader
		if r, err = runlog.OpenReader(in.Dir, runlog.ReaderOptions{}); err == nil {
			m, status = r.Manifest(), r.Status()
			_ = r.Close()
		} else if m.Run == "" {
			status = "Unreadable"
		}
	}
	l := listed{
		Dir: in.Dir, Instance: in.Instance, Run: in.Run, Status: status, Live: in.Live, Started: m.Started, Ended: m.Ended, LastSeq: m.LastSeq,
		Parent: m.Parent, Origin: m.Origin, Build: m.Build, Reason: in.Quarantine, FirstSeq: m.Floor,
	}
	if err != nil {
		l.Error = err.Error()
	}
	if a.json {
		return errors.Join(err, a.printJSON(l))
	}
	started, last, parent := "-", "-", "-"
	if m.Run != "" {
		started = formatTime(m.Started)
	}
	if m.LastSeq > 0 {
		last = count(m.LastSeq)
	}
	if m.Parent != "" {
		parent = m.Parent
	}
	t.add(in.Instance, in.Run, state(status, in.Live), started, last, m.Origin, parent)
	return err
}

// runs lists the runs under a base folder.
func (a *app) runs(dir string) ([]runlog.RunInfo, error) {
	kind, err := classify(dir)
	if err != nil {
		return nil, err
	}
	if kind != isBase {
		return nil, notBase(dir, kind)
	}
	return runlog.List(dir, runlog.ReaderOptions{})
}

// infoJSON is info --json.
type infoJSON struct {
	Dir        string          `json:"dir"`
	State      string          `json:"state"`
	Status     runlog.Status   `json:"status"`
	Live       bool            `json:"live"`
	Entries    uint64          `json:"entries"`
	FirstSeq   uint64          `json:"first_seq"`
	LastSeq    uint64          `json:"last_seq"`
	Durable    uint64          `json:"durable_seq"`
	Bytes      int64           `json:"bytes"`
	Plain      int64           `json:"plain_bytes"`
	TornBytes  int64           `json:"torn_bytes"`
	Kinds      []string        `json:"kinds"`
	Anchors    int             `json:"anchors"`
	LastAnchor *anchorInfo     `json:"last_anchor,omitempty"`
	Manifest   runlog.Manifest `json:"manifest"`
	Segments   []segmentInfo   `json:"segments"`
	Why        *quarantineJSON `json:"quarantine,omitempty"`
	Damage     string          `json:"damage,omitempty"`
	Warnings   []string        `json:"warnings"`
}

// quarantineJSON is the verdict that a quarantine file holds; empty if that is damaged.
type quarantineJSON manifest.Quarantine

func (a *app) infoCmd() *cobra.Command {
	return &cobra.Command{
		Use: "info RUN", Short: "Show who a run is, how it ended, and what it holds",
		Long: `info shows the run's identity, how it ended, its key kinds and its segments. It reads headers, footers and the part of
the log that is not sealed; it does not verify the rest (see runlog verify).`,
		Example: "  runlog info runs/demo/20261123T200248.123456789Z-1a2b3c4d\n  runlog info runs/demo/2026* --json | jq .manifest.parent",
		Args:    exactly("RUN"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.withRun(args[0], a.info)
		},
	}
}

func (a *app) info(r *runlog.Reader) error {
	m := r.Manifest()
	in := infoJSON{
		Dir: r.Dir(), Status: r.Status(), Entries: r.LastSeq() + 1 - r.FirstSeq(), FirstSeq: r.FirstSeq(), LastSeq: r.LastSeq(), Durable: r.Durable(), TornBytes: r.DroppedBytes(),
		Manifest: m, Kinds: kindNames(r), Warnings: []string{},
	}
	in.Live = live(r.Dir(), m) && in.Status == runlog.Running
	in.State = state(in.Status, in.Live)
	in.Anchors, in.LastAnchor = lastAnchor(r)
	var err error
	if in.Segments, err = segments(r.Dir(), m.FirstSegment(), r.LastSeq()); err != nil {
		return err
	}
	if in.Live {
		in.TornBytes = 0 // what is behind the last whole batch is being written
		beingIndexed(in.Segments)
	}
	for _, s := range in.Segments {
		in.Bytes += s.Bytes
		if in.Plain += s.Bytes; s.Codec != "" {
			in.Plain += s.Plain - s.Bytes
		}
	}
	for _, w := range r.Warnings() {
		in.Warnings = append(in.Warnings, w.Error())
	}
	if q, quarantined, _ := manifest.ReadQuarantine(vfs.OS, r.Dir()); quarantined {
		why := quarantineJSON(q)
		in.Why = &why
	}
	damage := r.Damage()
	if damage != nil {
		in.Damage = damage.Error()
	}
	if a.json {
		return errors.Join(damage, a.printJSON(in))
	}
	a.printInfo(&in)
	return damage
}

func (a *app) printInfo(in *infoJSON) {
	m := &in.Manifest
	t := table{}
	field := func(name, value string) {
		if value != "" {
			t.add(name, printable(value, -1))
		}
	}
	field("run", m.Run)
	field("dir", in.Dir)
	field("instance", m.Instance)
	field("state", in.State+explain(in))
	field("origin", m.Origin)
	field("parent", m.Parent)
	field("started", formatTime(m.Started))
	if m.Ended != nil {
		field("ended", formatTime(*m.Ended))
	}
	field("build", m.Build)
	field("schema version", m.SchemaVersion)
	field("config hash", m.ConfigHash)
	if m.Seed != nil {
		field("seed", fmt.Sprint(*m.Seed))
	}
	for _, c := range m.Components {
		field("component", strings.TrimSpace(c.Kind+" "+c.ID+" "+c.ConfigHash))
	}
	labels := make([]string, 0, len(m.Labels))
	for k, v := range m.Labels {
		labels = append(labels, k+"="+v)
	}
	sort.Strings(labels)
	for _, l := range labels {
		field("label", l)
	}
	field("entries", count(in.Entries))
	if in.FirstSeq > 1 {
		field("begins at", "seq "+count(in.FirstSeq)+" (retention has removed what was in front)")
	}
	if in.Durable < in.LastSeq {
		field("proven durable", "up to seq "+count(in.Durable))
	}
	if total := size(in.Bytes); in.Plain > in.Bytes {
		field("size", fmt.Sprintf("%s, %s uncompressed%s", total, size(in.Plain), ratio(in.Plain, in.Bytes)))
	} else {
		field("size", total)
	}
	if in.TornBytes > 0 {
		field("torn tail", count(in.TornBytes)+" bytes")
	}
	field("key kinds", strings.Join(in.Kinds, ", "))
	if l := in.LastAnchor; l != nil {
		field("anchors", fmt.Sprintf("%s, the last covers seq %s", count(in.Anchors), count(l.Covers)))
	}
	field("digest", m.Digest)
	if h := m.Halt; h != nil {
		field("halted", fmt.Sprintf("%s: %s (accepted %d, durable %d)", h.Reason, h.Message, h.Accepted, h.Durable))
	}
	if q := in.Why; q != nil && q.Reason != "" {
		field("quarantined", formatTime(q.Time)+": "+q.Reason)
	}
	for _, s := range m.Skipped {
		field("skipped parent", s.Run+": "+s.Reason)
	}
	field("damage", in.Damage)
	t.print(a.out)
	a.out.line("")
	seg := table{right: map[int]bool{0: true, 1: true, 2: true, 3: true, 4: true, 5: true}}
	seg.add("SEGMENT", "ENTRIES", "FIRST SEQ", "LAST SEQ", "SIZE", "INDEX", "STATE")
	for _, s := range in.Segments {
		first, last, index, what := "-", "-", "-", "open"
		if s.Entries > 0 {
			first, last = count(s.FirstSeq), count(s.LastSeq)
		}
		if s.Index > 0 {
			index = size(s.Index)
		}
		switch {
		case s.Problem != "":
			what = printable(s.Problem, -1)
		case s.Codec != "":
			what = "sealed, " + s.Codec + ratio(s.Plain, s.Bytes)
		case s.Sealed:
			what = "sealed"
		case s.FirstSeq == 0 && s.Number > 1:
			what = "spare or empty"
		}
		seg.add(fmt.Sprint(s.Number), count(s.Entries), first, last, size(s.Bytes), index, what)
	}
	seg.print(a.out)
}

// explain says what a state means.
func explain(in *infoJSON) string {
	switch in.State {
	case "Live":
		return " (a process is writing it)"
	case "Crashed":
		return " (not sealed, and no process holds the instance; the engine's next start recovers it)"
	case string(runlog.CrashedRecovered):
		return " (its process died; a later start has sealed it)"
	case string(runlog.Quarantined):
		return " (acknowledged data is damaged; kept as it was found)"
	}
	return ""
}

// versionJSON is version --json.
type versionJSON struct {
	Version string         `json:"version"`
	Go      string         `json:"go"`
	Commit  string         `json:"commit,omitempty"`
	Formats map[string]int `json:"formats"`
}

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the tool's version and the file formats it reads",
		Example: "  runlog version --json",
		Args:    exactly(),
		RunE: func(*cobra.Command, []string) error {
			v := versionJSON{Version: "(devel)", Formats: map[string]int{
				"segment": segment.Version, "compressed": compressed.Version, "index": index.Version, "filter": index.FilterVersion, "manifest": manifest.Version,
			}}
			if bi, ok := debug.ReadBuildInfo(); ok {
				v.Go = bi.GoVersion
				if bi.Main.Version != "" {
					v.Version = bi.Main.Version
				}
				for _, s := range bi.Settings {
					if s.Key == "vcs.revision" {
						v.Commit = s.Value
					}
				}
			}
			if a.json {
				return a.printJSON(v)
			}
			a.out.line("runlog %s %s %s", v.Version, v.Go, v.Commit)
			a.out.line("formats: segment %d, compressed segment %d, index %d, filter %d, manifest %d; payloads up to %d bytes",
				segment.Version, compressed.Version, index.Version, index.FilterVersion, manifest.Version, entry.MaxPayload)
			return nil
		},
	}
}
