package retention

import (
	"fmt"

	"github.com/runlog-io/runlog/manifest"
)

// spares is how many good restore points a run that stays can use: the newest, and the one before in case it is lost.
const spares = 2

// lineage is what stays when runs need each other.
type lineage struct {
	kept []bool
	why  []string // of those that stay only for others
	from []uint64 // the seq that the oldest restore point covers which is needed of the run; 0: all of the run is needed
}

// keep decides what stays when some runs may go as far as the others let them.
func (pl *planner) keep(removable []bool) *lineage {
	l := &lineage{kept: make([]bool, len(pl.runs)), why: make([]string, len(pl.runs)), from: make([]uint64, len(pl.runs))}
	wanted := make([]bool, len(pl.runs)) // it is to be restored itself, and not only for others
	for i := range pl.runs {
		wanted[i] = !removable[i]
	}
	for again := true; again; {
		pl.ancestors(l, wanted)
		again = pl.consumers(l, wanted)
	}
	return l
}

// ancestors walks from the newest run to the oldest and marks what is needed to restore those that are wanted.
func (pl *planner) ancestors(l *lineage, wanted []bool) {
	need := make([]int, len(pl.runs)) // good restore points that are still looked for, in this run and its ancestors
	for i := len(pl.runs) - 1; i >= 0; i-- {
		r := &pl.runs[i]
		if wanted[i] {
			l.kept[i], need[i] = true, spares
		}
		if need[i] == 0 {
			continue
		}
		l.kept[i], l.from[i] = true, 0
		left := need[i] - len(pl.good[i])
		if left <= 0 {
			l.from[i] = pl.good[i][-left]
			continue
		}
		p, ok := pl.byID[r.Parent]
		if !ok || p >= i { // a parent is older: ids never go back
			continue
		}
		if need[p] < left {
			need[p] = left
		}
		if !wanted[p] && l.why[p] == "" {
			l.why[p] = fmt.Sprintf("run %s continues it, and needs it for its restore", r.ID)
		}
	}
}

// consumers makes sure that no run that stays seems not to have been continued, because those that have are gone: the
// engine's next start would continue it. It reports whether another run has to stay for that.
func (pl *planner) consumers(l *lineage, wanted []bool) (more bool) {
	newest := map[int]int{} // by parent
	safe := map[int]bool{}
	for i := range pl.runs {
		if p, ok := pl.byID[pl.runs[i].Parent]; ok && pl.runs[i].consumes() {
			newest[p] = i
			safe[p] = safe[p] || l.kept[i]
		}
	}
	for p, i := range newest {
		if l.kept[p] && !safe[p] && pl.runs[p].continuable() {
			wanted[i], more = true, true
			l.why[i] = fmt.Sprintf("without it the engine's next start could continue run %s once more", pl.runs[p].ID)
		}
	}
	return more
}

// consumes reports whether the run has taken its parent's place for good: docs/decisions, parent and consumed. One that is
// not sealed, and that another process may still lose, has not.
func (r *Run) consumes() bool {
	if r.Err != nil || r.Status == manifest.Quarantined || !r.Status.Sealed() && !r.Own {
		return false
	}
	return r.Status == manifest.Ended || r.Durable > 1 // seq 1 is RunStarted
}

// continuable reports whether the run could be an engine's parent, if none has consumed it.
func (r *Run) continuable() bool {
	return r.Err == nil && r.Status == manifest.CrashedRecovered && r.LastSeq > 1 && r.Origin == manifest.OriginEngine
}

// head is the run that the engine's next start continues: the newest that could be continued and was not. -1: none.
func (pl *planner) head() int {
	consumed := map[string]bool{}
	for i := len(pl.runs) - 1; i >= 0; i-- {
		r := &pl.runs[i]
		if r.consumes() {
			consumed[r.Parent] = true
		}
		if r.continuable() && !consumed[r.ID] {
			return i
		}
	}
	return -1
}
