package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/manifest"
)

// errUnusable: the run that may hold the newest state cannot be used, and nobody has said to go on without it.
var errUnusable = errors.New("going on from older state is not for the engine to decide")

// checkPredecessors refuses to go on behind a run that cannot be used. Open lets such a run stop nothing: it hands out
// the newest parent that is whole, which may be a much older one, or none, as if nothing had ever happened. So an
// engine looks at its predecessors before it trusts Parents. without names the runs that an operator has given up.
//
// What lies before a run that has ended, or has state of its own, was decided when that one started.
func checkPredecessors(list []runlog.Predecessor, without []string) error {
	for _, p := range slices.Backward(list) { // newest first
		switch {
		case p.Origin == manifest.OriginImport: // no engine has run in it
		case p.Err != nil && !slices.Contains(without, p.Run):
			return fmt.Errorf("run %s cannot be used: %w: %w (--without %s starts without it)", p.Run, p.Err, errUnusable, p.Run)
		case p.Err == nil && (p.Status == runlog.Ended || p.LastSeq > 1): // seq 1 says that it started
			return nil
		}
	}
	return nil
}
