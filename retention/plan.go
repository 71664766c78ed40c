package retention

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/runlog-io/runlog/manifest"
)

// Plan decides what goes. The runs may come in any order; they are those of one instance, all of them. It reads and
// changes nothing. An error is about the policy.
func (p Policy) Plan(runs []Run) (Plan, error) {
	if err := p.Check(); err != nil {
		return Plan{}, err
	}
	pl := newPlanner(p, runs)
	why := pl.rules()
	removable := make([]bool, len(pl.runs))
	for i := range removable {
		removable[i] = why[i] == ""
	}
	l := pl.enough(removable, why)
	return pl.plan(l, why), nil
}

// planner is one planning at work.
type planner struct {
	p     Policy
	runs  []Run
	byID  map[string]int
	good  [][]uint64 // of each run, the seqs of its good restore points, ascending
	total int64      // bytes of all runs

	newest, second point  // good restore points of the instance
	counted        []bool // one of the newest KeepLast
}

// point is a restore point of a run; run -1 is none.
type point struct {
	run int
	seq uint64
}

func newPlanner(p Policy, runs []Run) *planner {
	pl := &planner{p: p, runs: slices.Clone(runs), byID: map[string]int{}, newest: point{run: -1}, second: point{run: -1}}
	slices.SortFunc(pl.runs, func(a, b Run) int { return cmp.Compare(a.ID, b.ID) })
	pl.good = make([][]uint64, len(runs))
	pl.counted = make([]bool, len(runs))
	for i := range pl.runs {
		r := &pl.runs[i]
		pl.byID[r.ID] = i
		pl.total += r.Bytes
		for _, rp := range r.RestorePoints {
			if r.problem(rp) == "" {
				pl.good[i] = append(pl.good[i], rp.Seq)
			}
		}
		slices.Sort(pl.good[i])
		pl.good[i] = slices.Compact(pl.good[i])
		for _, seq := range pl.good[i] {
			pl.newest, pl.second = point{i, seq}, pl.newest
		}
	}
	left := p.KeepLast
	for i := len(pl.runs) - 1; i >= 0 && p.Bounded && left > 0; i-- {
		if pl.runs[i].protected() == "" {
			pl.counted[i] = true
			left--
		}
	}
	return pl
}

// problem says why a restore point does not count, "" if it does.
func (r *Run) problem(rp RestorePoint) string {
	switch {
	case rp.Err != nil:
		return rp.Err.Error()
	case rp.Seq > r.Durable:
		return fmt.Sprintf("it covers seq %d, which exceeds the durable %d", rp.Seq, r.Durable)
	case rp.Seq+1 < r.FirstSeq:
		return fmt.Sprintf("entries behind seq %d have been removed", rp.Seq)
	case r.Err != nil:
		return "the run could not be read as a whole"
	case r.Status == manifest.Quarantined:
		return "the run is quarantined"
	case !r.Status.Sealed() && !r.Own:
		return "the run is not sealed"
	case r.Origin == manifest.OriginImport:
		return "the run is imported"
	}
	return ""
}

// protected says why a run is never removed as a whole, "" if it may be.
func (r *Run) protected() string {
	switch {
	case r.Status == manifest.Quarantined:
		return "it is quarantined: it stays until an operator decides"
	case r.Err != nil:
		return "it could not be read: " + r.Err.Error()
	case r.Own:
		return "this process writes it"
	case !r.Status.Sealed():
		return "it is not sealed: a process writes it, or it waits for the engine's next start"
	case r.Origin == manifest.OriginImport:
		return "it is imported: who has made it removes it"
	case r.Linked:
		return "its folder is a link: who has moved it removes it"
	case len(r.Strangers) > 0:
		return fmt.Sprintf("its folder holds %.80q, which is not part of a run", r.Strangers[0])
	}
	return ""
}

// rules says of each run why it stays, "" if all rules let it go. What others need is not in it.
func (pl *planner) rules() []string {
	why := make([]string, len(pl.runs))
	head := pl.head()
	for i := range pl.runs {
		r := &pl.runs[i]
		switch protected := r.protected(); {
		case protected != "":
			why[i] = protected
		case pl.p.Full():
			why[i] = "the policy keeps everything"
		case pl.newest.run < 0:
			why[i] = "no restore point is known to be good"
		case i == pl.newest.run:
			why[i] = fmt.Sprintf("it holds the newest good restore point, at seq %d", pl.newest.seq)
		case i == len(pl.runs)-1:
			why[i] = "it is the newest: the ids of later runs must go on from it"
		case i == head:
			why[i] = "the engine's next start decides by it what to continue"
		case pl.counted[i]:
			why[i] = fmt.Sprintf("it is one of the newest %d", pl.p.KeepLast)
		case pl.p.Anchored && pl.second.run < 0:
			why[i] = "only one restore point is known to be good"
		case pl.p.Anchored && i >= pl.second.run:
			why[i] = fmt.Sprintf("the second newest good restore point is not behind it: run %s, seq %d", pl.runs[pl.second.run].ID, pl.second.seq)
		case pl.p.Before != 0 && r.newest() >= pl.p.Before:
			why[i] = "it holds entries of " + stamp(r.newest())
		}
	}
	return why
}

// newest is when the run's last entry was published, as far as its segments tell.
func (r *Run) newest() int64 {
	t := r.Started
	for _, s := range r.Segments {
		t = max(t, s.Newest)
	}
	return t
}

func stamp(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339) }

// enough finds out how many of the removable runs have to go, the oldest first, for MaxBytes; without that, all. It notes
// in why which ones need not.
func (pl *planner) enough(removable []bool, why []string) *lineage {
	all := pl.keep(removable)
	if pl.p.MaxBytes == 0 {
		return all
	}
	var places []int
	for i, may := range removable {
		if may {
			places = append(places, i)
		}
	}
	try := func(n int) *lineage { // with the first n of them
		some := make([]bool, len(removable))
		for _, i := range places[:n] {
			some[i] = true
		}
		return pl.keep(some)
	}
	// The more may go, the less stays, as a rule; any number is safe.
	n := sort.Search(len(places), func(n int) bool { return pl.bytesOf(try(n)) <= pl.p.MaxBytes })
	for _, i := range places[n:] {
		why[i] = fmt.Sprintf("the runs have no more than %d bytes with it", pl.p.MaxBytes)
	}
	return try(n)
}

// bytesOf adds up the runs that stay.
func (pl *planner) bytesOf(l *lineage) (n int64) {
	for i := range pl.runs {
		if l.kept[i] {
			n += pl.runs[i].Bytes
		}
	}
	return n
}

// plan writes down what was decided.
func (pl *planner) plan(l *lineage, why []string) Plan {
	out := Plan{Items: []Item{}, Bytes: pl.total}
	left := pl.bytesOf(l)
	for i := range pl.runs {
		r := &pl.runs[i]
		if !l.kept[i] {
			out.Removed += r.Bytes
			out.Items = append(out.Items, Item{
				Run: r.ID, Status: r.Status, Remove: true, FirstSeq: r.FirstSeq, LastSeq: r.LastSeq, Bytes: r.Bytes, Reason: pl.removal(),
			})
			continue
		}
		stays := Item{
			Run: r.ID, Status: r.Status, FirstSeq: r.FirstSeq, LastSeq: r.LastSeq, Bytes: r.Bytes, Reason: cmp.Or(why[i], l.why[i]), Points: r.points(),
		}
		if n := pl.cut(l, i, left); n > 0 {
			goes := stays
			goes.Remove, goes.Points, goes.Reason = true, nil, pl.removal()
			goes.First, goes.Last = r.Segments[0].Number, r.Segments[n-1].Number
			goes.LastSeq, goes.Bytes = r.Segments[n].FirstSeq-1, sum(r.Segments[:n])
			stays.First, stays.Last = r.Segments[n].Number, r.Segments[len(r.Segments)-1].Number
			stays.FirstSeq, stays.Bytes = r.Segments[n].FirstSeq, r.Bytes-goes.Bytes
			left -= goes.Bytes
			out.Removed += goes.Bytes
			out.Items = append(out.Items, goes)
		}
		out.Items = append(out.Items, stays)
	}
	if pl.p.MaxBytes > 0 {
		out.Over = max(left-pl.p.MaxBytes, 0)
	}
	return out
}

func sum(segs []Segment) (n int64) {
	for _, s := range segs {
		n += s.Bytes
	}
	return n
}

func (r *Run) points() (list []Point) {
	for _, rp := range r.RestorePoints {
		list = append(list, Point{Seq: rp.Seq, Problem: r.problem(rp)})
	}
	return list
}

// removal is why whatever goes may go.
func (pl *planner) removal() string {
	var rules []string
	if pl.p.Bounded {
		rules = append(rules, fmt.Sprintf("it is not one of the newest %d runs", pl.p.KeepLast))
	}
	if pl.p.Anchored {
		rules = append(rules, fmt.Sprintf("it lies before the second newest good restore point (run %s, seq %d)",
			pl.runs[pl.second.run].ID, pl.second.seq))
	}
	if pl.p.Before != 0 {
		rules = append(rules, "nothing in it was published after "+stamp(pl.p.Before))
	}
	if pl.p.MaxBytes != 0 {
		rules = append(rules, fmt.Sprintf("the runs have more than %d bytes with it", pl.p.MaxBytes))
	}
	return strings.Join(append(rules, "nothing that stays needs it"), "; ")
}

// cut returns how many segments of run i, which stays, may go from its front, when left bytes of all runs stay so far.
func (pl *planner) cut(l *lineage, i int, left int64) int {
	r := &pl.runs[i]
	switch {
	case pl.p.Full() || pl.newest.run < 0 || l.from[i] == 0 || pl.counted[i]:
		return 0
	case r.Err != nil || r.Status == manifest.Quarantined || !r.Status.Sealed() && !r.Own || r.Origin == manifest.OriginImport:
		return 0
	case pl.p.Anchored && (pl.second.run < 0 || i > pl.second.run):
		return 0
	}
	from := l.from[i]
	if pl.p.Anchored && i == pl.second.run {
		from = min(from, pl.second.seq)
	}
	n := 0 // the place of the last segment that the run can begin with
	for k, s := range r.Segments {
		if !s.Sealed || s.FirstSeq > from {
			break
		}
		if s.LastSeq >= s.FirstSeq {
			n = k
		}
	}
	most := 0
	for k, s := range r.Segments[:n] {
		if pl.p.Before != 0 && s.Newest >= pl.p.Before || pl.p.MaxBytes != 0 && left <= pl.p.MaxBytes {
			break
		}
		left -= s.Bytes
		if next := r.Segments[k+1]; next.LastSeq >= next.FirstSeq {
			most = k + 1
		}
	}
	return most
}
