package retention

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
)

// id is the run id of run n.
func id(n int) string { return manifest.NewRunID(int64(n)*1e9, "", uint32(n)) }

// sealed is run n, sealed, with entries 1 to 99 in segments of ten, and good restore points at some seqs.
func sealed(n int, points ...uint64) Run {
	r := Run{
		ID: id(n), Origin: manifest.OriginEngine, Status: manifest.CrashedRecovered, FirstSeq: 1, LastSeq: 99, Durable: 99,
		Started: int64(n) * 1000, Bytes: 1000,
	}
	for k := range 10 {
		s := Segment{Number: uint32(k + 1), Sealed: true, FirstSeq: uint64(10 * k), LastSeq: uint64(10*k + 9), Newest: r.Started + int64(k), Bytes: 100}
		s.FirstSeq = max(s.FirstSeq, 1)
		r.Segments = append(r.Segments, s)
	}
	for _, seq := range points {
		r.RestorePoints = append(r.RestorePoints, RestorePoint{Seq: seq})
	}
	return r
}

// with changes a run.
func with(r Run, change func(*Run)) Run {
	change(&r)
	return r
}

func ended(r Run) Run { return with(r, func(r *Run) { r.Status = manifest.Ended }) }

func childOf(parent int, r Run) Run { return with(r, func(r *Run) { r.Parent = id(parent) }) }

func quarantined(r Run) Run {
	return with(r, func(r *Run) { r.Status = manifest.Quarantined })
}

func running(r Run) Run {
	return with(r, func(r *Run) {
		r.Status = manifest.Running
		r.Segments[9].Sealed = false
	})
}

func own(r Run) Run { return with(running(r), func(r *Run) { r.Own = true }) }

func bounded(n int) Policy { return Policy{Bounded: true, KeepLast: n} }

// gone says what a plan removes: "3" is run 3, "3:1-4" are its first segments.
func gone(t *testing.T, p Policy, runs ...Run) string {
	t.Helper()
	plan, err := p.Plan(runs)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, it := range plan.Items {
		if it.Reason == "" {
			t.Errorf("%s: no reason is given", it.Run)
		}
		if !it.Remove {
			continue
		}
		n := 0
		for id(n) != it.Run {
			n++
		}
		s := fmt.Sprint(n)
		if it.First > 0 {
			s += fmt.Sprintf(":%d-%d", it.First, it.Last)
		}
		list = append(list, s)
	}
	return strings.Join(list, " ")
}

func expect(t *testing.T, want string, p Policy, runs ...Run) {
	t.Helper()
	if got := gone(t, p, runs...); got != want {
		plan, _ := p.Plan(runs)
		b, _ := json.MarshalIndent(plan, "", "  ")
		t.Errorf("%+v removes %q, want %q\n%s", p, got, want, b)
	}
}

func TestRT1FullKeepsEverything(t *testing.T) {
	expect(t, "", Policy{}, ended(sealed(1, 50, 60)), ended(sealed(2, 50, 60)), ended(sealed(3, 50, 60)))
}

func TestRT2BoundedRemovesAllButTheNewestInTheOrderOfTheirStart(t *testing.T) {
	runs := []Run{ended(sealed(3, 50)), ended(sealed(1, 50)), ended(sealed(2, 50))}
	expect(t, "1 2", bounded(1), runs...)
	expect(t, "1", bounded(2), runs...)
	expect(t, "", bounded(3), runs...)
}

func TestRT3ARunningRunIsNeverRemovedNorCounted(t *testing.T) {
	runs := []Run{ended(sealed(1, 50)), ended(sealed(2, 50)), running(sealed(3, 50))}
	expect(t, "1", bounded(1), runs...)
	expect(t, "1", Policy{Before: 1 << 40}, runs...)
}

func TestRT4OnlySealedRunsCountAsOnesToKeep(t *testing.T) {
	expect(t, "1", bounded(1), running(sealed(4)), running(sealed(3, 50)), ended(sealed(2, 50)), ended(sealed(1, 50)))
}

func TestRT5ARestorePointThatCannotBeReadIsListedAndDoesNotCount(t *testing.T) {
	bad := ended(sealed(1))
	bad.RestorePoints = []RestorePoint{{Seq: 50, Err: errors.New("decode snapshot anchor")}}
	runs := []Run{bad, with(bad, func(r *Run) { r.ID = id(2) })}
	expect(t, "", bounded(1), runs...)
	plan, _ := bounded(1).Plan(runs)
	if got := plan.Items[0].Points; len(got) != 1 || got[0].Problem != "decode snapshot anchor" {
		t.Errorf("listed as %+v", got)
	}
	if got := plan.Items[0].Reason; got != "no restore point is known to be good" {
		t.Errorf("the reason is %q", got)
	}
}

func TestRT6BoundedKeepsTheNewestAndTheNewestKnownGood(t *testing.T) {
	expect(t, "1", bounded(1), ended(sealed(1, 50)), ended(sealed(2, 50)), quarantined(sealed(3)))
	expect(t, "1 3", bounded(1), ended(sealed(1, 50)), ended(sealed(2, 50)), ended(sealed(3)), ended(sealed(4)))
}

func TestRT7WithoutAGoodRestorePointNothingGoes(t *testing.T) {
	for _, p := range []Policy{bounded(0), {Anchored: true}, {Before: 1 << 40}, {MaxBytes: 1}, {Bounded: true, Before: 1 << 40, MaxBytes: 1}} {
		expect(t, "", p, ended(sealed(1)), ended(sealed(2)), quarantined(sealed(3, 50)), running(sealed(4, 50)))
	}
}

// The design asks for one more than the original: the second newest is where it keeps from.
func TestRT8AnchoredKeepsFromTheSecondNewestGoodRestorePoint(t *testing.T) {
	anchored := Policy{Anchored: true}
	expect(t, "1", anchored, ended(sealed(1)), ended(sealed(2, 9)), ended(sealed(3, 50)), ended(sealed(4)))
	expect(t, "1 2:1-5", anchored, ended(sealed(1, 9)), ended(sealed(2, 9, 50, 60)), ended(sealed(3, 50)), ended(sealed(4)))
	expect(t, "1 2 3:1-5", anchored, ended(sealed(1, 9)), ended(sealed(2, 9, 50)), ended(sealed(3, 9, 50, 60)), ended(sealed(4)))
	expect(t, "1 2", anchored, ended(sealed(1)), ended(sealed(2)), ended(sealed(3, 9, 50)), ended(sealed(4)))
	expect(t, "", anchored, ended(sealed(1)), ended(sealed(2, 50)), ended(sealed(3)), ended(sealed(4)))
}

func TestRT9ASingleRunWithoutAGoodRestorePointStays(t *testing.T) {
	invalid := sealed(1)
	invalid.RestorePoints = []RestorePoint{{Seq: 50, Err: errors.New("the blob is gone")}}
	for _, p := range []Policy{bounded(0), {Anchored: true}, {Before: 1 << 40}, {MaxBytes: 1}} {
		expect(t, "", p, sealed(1))
		expect(t, "", p, ended(sealed(1)))
		expect(t, "", p, ended(invalid))
	}
}

func TestRT10ARestorePointAheadOfWhatIsDurableDoesNotCount(t *testing.T) {
	ahead := with(ended(sealed(1, 2)), func(r *Run) { r.Durable = 1 }) // LastSeq says 99: only what is durable decides
	later := with(ahead, func(r *Run) { r.ID = id(2) })
	expect(t, "", bounded(0), ahead, later)
	plan, _ := bounded(0).Plan([]Run{ahead})
	if got := plan.Items[0].Points[0].Problem; !strings.Contains(got, "exceeds the durable 1") {
		t.Errorf("the problem is %q", got)
	}
}

// G48: quarantined runs are evidence, unreadable ones are not judged, and neither counts toward KeepLast or fails the plan.
func TestQuarantinedAndUnreadableRunsStayAndDoNotCount(t *testing.T) {
	unreadable := with(sealed(3, 50), func(r *Run) { r.Err, r.Status = errors.New("the disk says no"), "" })
	stranger := with(ended(sealed(4, 50)), func(r *Run) { r.Strangers = []string{"notes.txt"} })
	imported := with(ended(sealed(5, 50)), func(r *Run) { r.Origin = manifest.OriginImport })
	runs := []Run{ended(sealed(1, 50)), ended(sealed(2, 50)), unreadable, stranger, imported, quarantined(sealed(6, 50))}
	expect(t, "1", bounded(1), runs...)
	plan, _ := bounded(1).Plan(runs)
	for i, want := range map[int]string{2: "the disk says no", 3: "notes.txt", 4: "imported", 5: "quarantined"} {
		if it := plan.Items[i]; it.Remove || !strings.Contains(it.Reason, want) {
			t.Errorf("%+v: want a reason with %q", it, want)
		}
	}
}

func TestParentsStayWhileARunThatStaysNeedsThem(t *testing.T) {
	chain := func(points ...[]uint64) (runs []Run) {
		for i, p := range points {
			r := sealed(i+1, p...)
			if i > 0 {
				r = childOf(i, r)
			}
			runs = append(runs, r)
		}
		return runs
	}
	none, one, two := []uint64{}, []uint64{50}, []uint64{20, 50}
	expect(t, "", bounded(1), chain(one, none, none)...) // the only restore point, and its fallback is the whole chain
	expect(t, "1 2:1-5", bounded(1), chain(one, one, none, one)...)
	expect(t, "1 2:1-2", bounded(1), chain(none, two, none)...)
	expect(t, "1 2", bounded(1), chain(none, one, two)...)
	expect(t, "1", bounded(2), chain(none, two, two)...)
	live := append(chain(one, one, one), own(childOf(3, sealed(4))))
	expect(t, "1 2:1-5", bounded(0), live...)
	live[3].RestorePoints = []RestorePoint{{Seq: 20}, {Seq: 50}}
	expect(t, "1 2 3 4:1-2", bounded(0), live...)
	crashed := append(chain(one, one, one), running(childOf(3, sealed(4, 20, 50)))) // nobody has recovered it yet
	expect(t, "1 2:1-5", bounded(0), crashed...)
	evidence := append(chain(one, one, one), quarantined(childOf(3, sealed(4, 20, 50))))
	expect(t, "1 2:1-5", bounded(0), evidence...)
}

func TestTheRunByWhichTheNextStartDecidesStays(t *testing.T) {
	// Run 2 has continued run 1 and ended well, and so nothing is to be continued. Without it, the next start would continue
	// run 1 once more.
	expect(t, "1:1-1", bounded(0), sealed(1, 10, 50), childOf(1, ended(sealed(2))), quarantined(sealed(3)))
	expect(t, "1:1-1 2", bounded(0), sealed(1, 10, 50), childOf(1, ended(sealed(2))), ended(sealed(3)), quarantined(sealed(4)))
	empty := with(sealed(3), func(r *Run) { r.LastSeq, r.Durable = 1, 1 })
	expect(t, "1 2:1-1", bounded(0), ended(sealed(1, 50)), sealed(2, 10, 50), empty)
	expect(t, "1 3", bounded(0), sealed(1), ended(sealed(2, 50)), empty, quarantined(sealed(4)))
}

func TestBesideTheOwnRunOlderOnesGoTogetherOrTheOneThatDecidesStays(t *testing.T) {
	runs := []Run{sealed(1, 10, 50), childOf(1, ended(sealed(2))), own(sealed(3, 20, 50))}
	expect(t, "1 2 3:1-2", bounded(0), runs...)
	runs[2].RestorePoints = runs[2].RestorePoints[:0] // then run 1 has the last ones
	expect(t, "1:1-1", bounded(0), runs...)           // and run 2 says that it is done with, should run 3 be lost
	runs[2].Durable = 1
	expect(t, "1:1-1", bounded(0), runs...)
}

func TestAgeDecidesOnWholeRunsAndOnSegmentsThatARestorePointCovers(t *testing.T) {
	runs := []Run{ended(sealed(1, 50)), ended(sealed(2, 50)), ended(sealed(3, 50, 80, 90))}
	expect(t, "", Policy{Before: 1000}, runs...)
	expect(t, "1", Policy{Before: 2000}, runs...)
	expect(t, "1 2", Policy{Before: 2010}, runs...)
	expect(t, "1 2 3:1-3", Policy{Before: 3003}, runs...) // no further than the second newest restore point lets
	expect(t, "1 2 3:1-8", Policy{Before: 1 << 40}, runs...)
}

func TestMaxBytesRemovesTheOldestAndNoMoreThanNeeded(t *testing.T) {
	runs := []Run{ended(sealed(1, 50)), ended(sealed(2, 50)), ended(sealed(3, 50, 80, 90))}
	for bytes, want := range map[int64]string{
		3000: "", 2999: "1", 2000: "1", 1999: "1 2", 1000: "1 2", 999: "1 2 3:1-1", 701: "1 2 3:1-3", 300: "1 2 3:1-7", 100: "1 2 3:1-8",
	} {
		expect(t, want, Policy{MaxBytes: bytes}, runs...)
	}
	plan, _ := Policy{MaxBytes: 100}.Plan(runs)
	if plan.Bytes != 3000 || plan.Removed != 2800 || plan.Over != 100 {
		t.Errorf("%d of %d bytes go, %d too many stay", plan.Removed, plan.Bytes, plan.Over)
	}
}

func TestRulesCombine(t *testing.T) {
	runs := []Run{ended(sealed(1, 50)), ended(sealed(2, 50)), ended(sealed(3, 50)), ended(sealed(4, 50, 80, 90))}
	expect(t, "1 2", Policy{Bounded: true, KeepLast: 2, MaxBytes: 1}, runs...)
	expect(t, "1", Policy{Bounded: true, KeepLast: 2, Before: 2000}, runs...)
	expect(t, "1 2 3 4:1-8", Policy{Anchored: true, Before: 1 << 40}, runs...)
	expect(t, "1 2 3", Policy{Anchored: true, Bounded: true, KeepLast: 1}, runs...) // those that are kept for their number stay whole
}

func TestALongLivedRunIsReclaimedFromItsFront(t *testing.T) { // G47
	expect(t, "1:1-8", Policy{Anchored: true}, own(sealed(1, 20, 50, 80, 85)))
	expect(t, "", Policy{Anchored: true}, own(sealed(1, 80)))
	expect(t, "", Policy{Anchored: true}, running(sealed(1, 20, 50, 80, 85))) // another process's
	expect(t, "1:1-8", Policy{Anchored: true}, own(sealed(1, 95, 96)))        // never all that is sealed
	pruned := own(sealed(1, 3, 4, 60, 80))
	pruned.Segments, pruned.FirstSeq = pruned.Segments[4:], 40
	expect(t, "1:5-6", Policy{Anchored: true}, pruned)
	empty := own(sealed(1, 55, 80))
	for _, k := range []int{4, 5} { // a run never begins with a segment without entries
		empty.Segments[k].FirstSeq, empty.Segments[k].LastSeq = 40, 39
	}
	expect(t, "1:1-3", Policy{Anchored: true}, empty)
}

func TestPoliciesThatMakeNoSenseAreRefused(t *testing.T) {
	for name, p := range map[string]Policy{
		"KeepLast": {Bounded: true, KeepLast: -1}, "Bounded": {KeepLast: 1}, "Before": {Before: -1}, "MaxBytes": {MaxBytes: -1},
	} {
		if _, err := p.Plan(nil); !errors.Is(err, format.ErrInvalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

// Whatever the runs and the policy, the invariants of the package's documentation hold.
func TestNoPlanBreaksWhatThePackagePromises(t *testing.T) {
	for seed := range uint64(20000) {
		rng := rand.New(rand.NewPCG(seed, 7))
		runs := randomRuns(rng)
		p := Policy{Bounded: rng.IntN(2) == 0, Anchored: rng.IntN(2) == 0, Before: rng.Int64N(3) * 1000 * rng.Int64N(9), MaxBytes: rng.Int64N(2) * rng.Int64N(5000)}
		if p.Bounded {
			p.KeepLast = rng.IntN(4)
		}
		plan, err := p.Plan(runs)
		if err != nil {
			t.Fatal(err)
		}
		if err := promises(&plan, p, runs); err != nil {
			b, _ := json.MarshalIndent(plan, "", "  ")
			t.Fatalf("seed %d: %+v: %v\n%s", seed, p, err, b)
		}
	}
}

func randomRuns(rng *rand.Rand) (runs []Run) {
	for n := 1; n <= 1+rng.IntN(8); n++ {
		r := sealed(n)
		for i := rng.IntN(4); i > 0; i-- {
			rp := RestorePoint{Seq: uint64(rng.IntN(110))}
			if rng.IntN(4) == 0 {
				rp.Err = errors.New("no blob")
			}
			r.RestorePoints = append(r.RestorePoints, rp)
		}
		if n > 1 && rng.IntN(3) > 0 {
			r.Parent = id(1 + rng.IntN(n-1))
		}
		switch rng.IntN(10) {
		case 0:
			r = quarantined(r)
		case 1, 2, 3:
			r = ended(r)
		case 4:
			r.Err = errors.New("cannot be read")
		}
		runs = append(runs, r)
	}
	switch last := &runs[len(runs)-1]; rng.IntN(4) {
	case 0:
		*last = own(*last)
	case 1:
		*last = running(*last)
	}
	rng.Shuffle(len(runs), func(i, j int) { runs[i], runs[j] = runs[j], runs[i] })
	return runs
}

// promises checks a plan, by other means than those that made it.
func promises(plan *Plan, p Policy, runs []Run) error {
	byID := map[string]*Run{}
	for i := range runs {
		byID[runs[i].ID] = &runs[i]
	}
	begins := map[string]uint64{} // first seq of what stays of a run
	for _, it := range plan.Items {
		r := byID[it.Run]
		switch {
		case !it.Remove:
			begins[it.Run] = it.FirstSeq
		case p.Full():
			return errors.New("something goes, and the policy keeps everything")
		case r.Status == manifest.Quarantined || r.Err != nil || !r.Status.Sealed() && (!r.Own || it.First == 0):
			return fmt.Errorf("run %s loses something", r.ID)
		}
	}
	usable := func(r *Run, seq uint64) bool { // what stays is enough to restore from there
		first, stays := begins[r.ID]
		return stays && (first <= seq || first == r.FirstSeq)
	}
	var newest *Run
	newestSeq := uint64(0)
	for _, it := range plan.Items {
		r := byID[it.Run]
		for _, rp := range r.RestorePoints {
			if r.problem(rp) == "" && (newest == nil || r.ID > newest.ID || r.ID == newest.ID && rp.Seq > newestSeq) {
				newest, newestSeq = r, rp.Seq
			}
		}
	}
	if newest != nil && !usable(newest, newestSeq) || newest == nil && plan.Removals() > 0 {
		return errors.New("the newest restore point is lost")
	}
	var rest []Run
	for _, r := range runs {
		if _, stays := begins[r.ID]; stays {
			rest = append(rest, r)
		}
	}
	for _, lost := range []bool{false, true} { // the own run may turn out to be damaged
		was, is := nextParent(runs, lost), nextParent(rest, lost)
		if was != is && (!lost || is != "") {
			return fmt.Errorf("own run lost %v: the next start continues %q, and would have continued %q", lost, is, was)
		}
	}
	for run := range begins { // each can be restored, with or without its newest restore point
		if reason := reasonOf(plan, run); strings.Contains(reason, "continues it, and needs it") {
			continue // it need not be restored for itself
		}
		for skip := range 2 {
			if err := restores(byID, run, skip, usable); err != nil {
				return fmt.Errorf("run %s without %d restore points: %w", run, skip, err)
			}
		}
	}
	return nil
}

// nextParent is what boot makes of these runs when the own one has crashed: the newest that decides is the parent, unless it
// has ended. An undecided one stops the boot, so whatever is behind it must stay the same.
func nextParent(runs []Run, ownLost bool) string {
	runs = slices.Clone(runs)
	slices.SortFunc(runs, func(a, b Run) int { return strings.Compare(b.ID, a.ID) })
	for _, r := range runs {
		switch {
		case r.Err != nil || r.Status == manifest.Quarantined || r.Own && (ownLost || r.Durable < 2):
		case r.Own:
			return r.ID
		case r.Status == manifest.Ended:
			return ""
		case r.Status == manifest.CrashedRecovered && r.LastSeq > 1:
			return r.ID
		}
	}
	return ""
}

func reasonOf(plan *Plan, run string) (reason string) {
	for _, it := range plan.Items {
		if it.Run == run && !it.Remove {
			reason = it.Reason
		}
	}
	return reason
}

// restores walks from a run to its ancestors until a good restore point is found, leaving out the first skip ones.
func restores(byID map[string]*Run, run string, skip int, usable func(*Run, uint64) bool) error {
	for r := byID[run]; r != nil; r = byID[r.Parent] {
		var seqs []uint64
		for _, rp := range r.RestorePoints {
			if r.problem(rp) == "" {
				seqs = append(seqs, rp.Seq)
			}
		}
		slices.Sort(seqs)
		seqs = slices.Compact(seqs)
		if len(seqs) > skip {
			if seq := seqs[len(seqs)-1-skip]; !usable(r, seq) {
				return fmt.Errorf("seq %d of run %s is lost", seq, r.ID)
			}
			return nil
		}
		skip -= len(seqs)
		if !usable(r, 0) {
			return fmt.Errorf("run %s is needed as a whole", r.ID)
		}
	}
	return nil
}
