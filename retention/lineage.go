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
		again = pl.decider(l, wanted)
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
		if r.ParentUnknown { // nobody knows now which run it continues: each older one may be it
			for k := range i {
				need[k] = max(need[k], left)
				if !wanted[k] && l.why[k] == "" {
					l.why[k] = fmt.Sprintf("run %s could not be read, and may continue it", r.ID)
				}
			}
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

// decider makes sure that the engine's next start finds the run by which it decides, as long as there is an older one that it
// would continue instead. It reports whether that has to stay which could have gone otherwise.
func (pl *planner) decider(l *lineage, wanted []bool) (more bool) {
	d := pl.newestDecider()
	if d < 0 || l.kept[d] {
		return false
	}
	for i := range pl.runs[:d] {
		if l.kept[i] && pl.runs[i].decides() && pl.runs[i].Status == manifest.CrashedRecovered {
			wanted[d] = true
			l.why[d] = fmt.Sprintf("without it the engine's next start could continue run %s", pl.runs[i].ID)
			return true
		}
	}
	return false
}

// decides reports whether a sealed run, if it is the newest that does, decides what the engine's next start continues:
// docs/decisions, the newest run decides.
func (r *Run) decides() bool {
	return r.Err == nil && r.Origin == manifest.OriginEngine && (r.Status == manifest.Ended || r.Status == manifest.CrashedRecovered && r.LastSeq > 1)
}

// newestDecider is the newest sealed run that decides; -1: none.
func (pl *planner) newestDecider() int {
	for i := len(pl.runs) - 1; i >= 0; i-- {
		if pl.runs[i].decides() {
			return i
		}
	}
	return -1
}

// head is the run by which the engine's next start decides what to continue; -1 if there is none, or if it is the caller's own
// run, which holds state, so that no older one matters.
func (pl *planner) head() int {
	if n := len(pl.runs); n > 0 && pl.runs[n-1].Own && pl.runs[n-1].Err == nil && pl.runs[n-1].Durable > 1 { // seq 1 is RunStarted
		return -1
	}
	return pl.newestDecider()
}
