package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
)

// findingJSON is a finding in verify --json.
type findingJSON struct {
	Record   string      `json:"record"` // "finding"
	Dir      string      `json:"dir"`
	Kind     verify.Kind `json:"kind"`
	Path     string      `json:"path"`
	Offset   *int64      `json:"offset,omitempty"`
	FirstSeq uint64      `json:"first_seq,omitempty"`
	LastSeq  uint64      `json:"last_seq,omitempty"`
	Detail   string      `json:"detail"`
}

// verifiedJSON ends each run in verify --json.
type verifiedJSON struct {
	Record   string        `json:"record"` // "run"
	Dir      string        `json:"dir"`
	Run      string        `json:"run"`
	Status   runlog.Status `json:"status"`
	OK       bool          `json:"ok"`
	Findings int           `json:"findings"`
	Entries  uint64        `json:"entries"`
	LastSeq  uint64        `json:"last_seq"`
	Segments int           `json:"segments"`
	Bytes    int64         `json:"bytes"`
	Digest   string        `json:"digest,omitempty"`
	Notes    []string      `json:"notes"`
	Error    string        `json:"error,omitempty"`
}

func (a *app) verifyCmd() *cobra.Command {
	return &cobra.Command{
		Use: "verify RUN|DIR", Short: "Check every byte of a run, or of all runs under a base folder",
		Long: `verify reads everything and recomputes every checksum and digest: frames, commits and their chain, footers, the chained
SHA-256, the manifest against the segments, and index and filter files against the entries. It never writes. Each finding is one line on stdout.

Exit code 0: nothing found; 1: there are findings; 2: something could not be checked. A torn tail of a run that is not sealed is a note on
stderr, not a finding: it was never acknowledged.`,
		Example: `  runlog verify runs
  runlog verify runs/demo/2026* --json | jq -r 'select(.record == "finding") | .detail'`,
		Args: exactly("RUN|DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			kind, err := classify(args[0])
			switch {
			case err != nil:
				return err
			case kind == isRun:
				return a.verifyRun(args[0])
			case kind != isBase:
				return errors.Join(notRun(args[0], kind))
			}
			runs, err := runlog.List(args[0], runlog.ReaderOptions{})
			if err != nil {
				return err
			}
			var failed error
			for i := range runs {
				dir := runs[i].Dir
				if k, err := classify(dir); err == nil && k != isRun {
					a.note("%s: no files of a run: it died before it began", dir)
					continue
				}
				if err := a.verifyRun(dir); err != nil {
					failed = errors.Join(failed, err)
				}
				if a.ctx.Err() != nil || a.out.failed() {
					break
				}
			}
			return failed
		},
	}
}

func (a *app) verifyRun(dir string) error {
	p := a.newProgress()
	rep, err := verify.Run(a.ctx, vfs.OS, dir, verify.Options{
		OnFinding: func(f verify.Finding) {
			p.end()
			a.found = true
			a.printFinding(dir, &f)
			_ = a.out.Flush() // findings are shown as they come
		},
		OnProgress: func(done, total int64) {
			p.show(func() string { return fmt.Sprintf("%s: %s of %s", dir, size(done), size(total)) })
		},
	})
	p.end()
	for _, n := range rep.Notes {
		a.note("%s: %s", dir, n)
	}
	if a.json {
		v := verifiedJSON{
			Record: "run", Dir: dir, Run: rep.Run, Status: rep.Status, OK: rep.Clean() && err == nil, Findings: rep.Count, Entries: rep.Entries,
			LastSeq: rep.LastSeq, Segments: rep.Segments, Bytes: rep.Bytes, Digest: rep.Digest, Notes: append([]string{}, rep.Notes...),
		}
		if err != nil {
			v.Error = err.Error()
		}
		return errors.Join(err, a.printJSON(v))
	}
	verdict := "ok"
	switch {
	case rep.Count > 0:
		verdict = "BAD, " + number(rep.Count, "finding", "findings")
	case err != nil:
		verdict = "NOT CHECKED"
	}
	a.out.line("%s: %s: %s, %s in %s, %s", dir, verdict, state(rep.Status, live(dir, runlog.Manifest{Status: rep.Status})),
		number(rep.Entries, "entry", "entries"), number(rep.Segments, "segment", "segments"), size(rep.Bytes))
	return err
}

func (a *app) printFinding(dir string, f *verify.Finding) {
	if !a.json {
		a.out.line("%s", printable(f.String(), -1))
		return
	}
	j := findingJSON{Record: "finding", Dir: dir, Kind: f.Kind, Path: f.Path, FirstSeq: f.FirstSeq, LastSeq: f.LastSeq, Detail: f.Detail}
	if f.Offset >= 0 {
		j.Offset = &f.Offset
	}
	_ = a.printJSON(j)
}
