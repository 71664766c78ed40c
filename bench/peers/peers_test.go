package main

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gonum.org/v1/plot/plotter"
)

func TestMain(m *testing.M) {
	asCell()
	os.Exit(m.Run())
}

// tiny is a plan whose figures say nothing.
func tiny(t *testing.T) plan {
	return plan{dir: t.TempDir(), rounds: 1, seconds: 0.01, size: 256, entries: 3000, stores: stores()}
}

// Every store does every job that it does not say it cannot, what it did is checked, and the page shows it.
func TestEveryStoreDoesEveryJob(t *testing.T) {
	t.Parallel()
	p := tiny(t)
	b, err := carryOut(context.Background(), p, t.Logf)
	if err == nil {
		err = failures(b)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range []struct {
		job, metric string
		x           int
		task        task
	}{
		{jobAlone, "p50", 1, alone}, {jobGroup, "rate", 16, group}, {jobGroup, "rate", 128, group}, {jobStream, "rate", 100, stream}, {jobStream, "rate", 1000, stream},
		{jobKeyed, "rate", 1000, keyed}, {jobOpen, "open", 3000, reopen}, {jobOpen, "anon", 3000, reopen}, {jobRead, "get.ns", 3000, get},
		{jobRead, "scan.rate", 3000, scan}, {jobFind, "hit.ns", 3000, find}, {jobFind, "miss.ns", 3000, find}, {jobDisk, "disk", 3000, disk},
	} {
		for _, s := range p.stores {
			_, can := s.lacks(j.task)
			if _, measured := b.median(point{j.job, j.x, s.name()}, j.metric); measured != can && (isPeer(s) || can) {
				t.Errorf("%s: %s %d: measured %v, although lacks says %v", s.name(), j.job, j.x, measured, can)
			}
		}
	}
	if left, err := os.ReadDir(p.dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	checkPage(t, &p, b)
}

// Every plot is drawn by a run of the floor and runlog alone that takes its points from all experiments.
func TestGrowthIsPlotted(t *testing.T) {
	t.Parallel()
	p := tiny(t)
	p.growth, p.lengths, p.stores = 1, []int{300}, []store{floorStore{}, runlogStore{}, runlogStore{waits: true}}
	p.jobs = []string{jobAlone, jobGroup, jobStream, jobSize, jobOpen, jobRead, jobFind, jobSegments}
	b, err := carryOut(context.Background(), p, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	dir, charts := t.TempDir(), p.charts(b)
	if err := writeCharts(dir, charts); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"size", "batch", "callers", "open", "memory", "get", "scan", "find", "miss", "segments"} {
		svg, err := os.ReadFile(filepath.Join(dir, want+".svg"))
		if err != nil || !strings.Contains(string(svg), "runlog") || strings.Contains(string(svg), "NaN") {
			t.Errorf("plot %s: %d bytes, %v", want, len(svg), err)
		}
		if !strings.Contains(links("x", charts), "(x/"+want+".svg)") {
			t.Errorf("the page has no plot %s", want)
		}
	}
}

func checkPage(t *testing.T, p *plan, b *book) {
	text := p.text(b, "", 0)
	for line := range strings.Lines(text) {
		if strings.Contains(line, "NaN") || strings.Contains(line, "Inf") || strings.Contains(line, "{{") {
			t.Error(line)
		}
	}
	for _, s := range p.stores {
		if !strings.Contains(text, "| "+s.name()+" |") {
			t.Errorf("%s is not on the page", s.name())
		}
	}
	for _, g := range p.goals() {
		if !strings.Contains(text, "| "+g.what+" | "+g.want+" |") {
			t.Errorf("no goal %q on the page", g.what)
		}
	}
	bars := 0
	for line := range strings.Lines(text) { // all lines of a table have as many cells
		n := strings.Count(line, "|")
		if bars > 0 && n > 0 && n != bars {
			t.Errorf("%d bars, want %d: %s", n, bars, line)
		}
		bars = n
	}
}

// A plan that is stopped leaves nothing behind.
func TestAStoppedRunCleansUp(t *testing.T) {
	p := tiny(t)
	p.stores = []store{floorStore{}, runlogStore{}}
	ctx, stop := context.WithCancel(context.Background())
	said := 0
	_, err := carryOut(ctx, p, func(string, ...any) {
		if said++; said == 3 {
			stop()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that it was canceled", err)
	}
	if left, err := os.ReadDir(p.dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// faulty is a store in memory that does something wrong.
type faulty struct {
	entries         [][]byte
	loses, misreads bool
	skipsScan       bool
}

func (f *faulty) append(items []item) error {
	for _, it := range items {
		f.entries = append(f.entries, slices.Clone(it.payload))
	}
	return nil
}
func (f *faulty) flush() error { return nil }
func (f *faulty) close() error { return nil }

func (f *faulty) last() (uint64, error) {
	if f.loses {
		return uint64(len(f.entries)) - 1, nil
	}
	return uint64(len(f.entries)), nil
}

func (f *faulty) get(seq uint64, _ []byte) ([]byte, error) {
	if f.misreads {
		seq = uint64(len(f.entries)) + 1 - seq
	}
	return f.entries[seq-1], nil
}

func (f *faulty) scan(do func(payload []byte) error) error {
	for i, e := range f.entries {
		if f.skipsScan && i == 70 {
			continue
		}
		if err := do(e); err != nil {
			return err
		}
	}
	return nil
}

func TestNoFigureComesFromAStoreThatLosesOrSkips(t *testing.T) {
	const n = 101
	src := newSource(64, 1)
	for _, c := range []struct {
		name  string
		store faulty
		ok    bool
	}{
		{"a good one", faulty{}, true}, {"one that loses", faulty{loses: true}, false},
		{"one that reads another entry", faulty{misreads: true}, false}, {"one that skips", faulty{skipsScan: true}, false},
	} {
		f := c.store
		for seq := uint64(1); seq <= n; seq++ {
			if err := f.append(src.batch(seq, 1, false)); err != nil {
				t.Fatal(err)
			}
		}
		err := errors.Join(checkCount(&f, n), checkAll(&f, src, n), checkSome(&f, src, n, &cell{Seed: 1}))
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	changed := slices.Clone(src.payload(5))
	changed[20] ^= 1
	if src.check(5, changed) == nil {
		t.Error("a flipped bit is not noticed")
	}
}

func TestEntriesAreDifferentAndCarryFourIdsInThree(t *testing.T) {
	src := newSource(256, 300)
	items := src.batch(1, 300, true)
	ids, payloads := map[string]int{}, map[string]bool{}
	n := 0
	for i, it := range items {
		if len(it.payload) != 256 || binary.LittleEndian.Uint64(it.payload) != uint64(i)+1 {
			t.Fatalf("entry %d: %d bytes, number %d", i+1, len(it.payload), binary.LittleEndian.Uint64(it.payload))
		}
		payloads[string(it.payload)] = true
		for _, id := range []string{it.client, it.venue} {
			if id != "" {
				ids[id]++
				n++
			}
		}
	}
	if len(payloads) != 300 || n != keysPer(300) || len(ids) != 200 {
		t.Errorf("%d different payloads, %d ids, %d different ones", len(payloads), n, len(ids))
	}
	var buf [idBytes]byte
	if id := clientID(buf[:], 7); items[firstSeq(7)-1].client != id || items[firstSeq(7)].client != id || items[firstSeq(7)+1].client == id {
		t.Error("the client id of order 7 is not in its first two entries, and only there")
	}
}

func TestRatiosArePairedByRound(t *testing.T) {
	b := newBook()
	mine, floor := point{jobAlone, 1, "runlog"}, point{jobAlone, 1, "floor"}
	b.rounds[mine] = []metrics{{"p50": 100}, {"p50": 300}, {"p50": 200}}
	b.rounds[floor] = []metrics{{"p50": 100}, {"p50": 150}, {"p50": 160}}
	if got := b.ratio(mine, "floor", "p50"); !slices.Equal(got, []float64{1, 2, 1.25}) {
		t.Errorf("ratios %v", got)
	}
	if got := spread(b.ratio(mine, "floor", "p50"), timesX); got != "1.25 (1.00–2.00)" {
		t.Error(got)
	}
}

// Whether a goal is met follows from what was measured.
func TestGoalsAreComputed(t *testing.T) {
	p := plan{entries: 1000, size: 256, stores: stores()}
	for _, c := range []struct {
		ours, floor float64
		met         string
	}{{108, 100, "yes"}, {112, 100, "**no**"}} {
		b := newBook()
		b.rounds[point{jobAlone, 1, "runlog"}] = []metrics{{"p50": c.ours * 1000}}
		b.rounds[point{jobAlone, 1, "floor"}] = []metrics{{"p50": c.floor * 1000}}
		b.rounds[point{jobAlone, 1, "bbolt"}] = []metrics{{"p50": 300_000}}
		b.rounds[point{jobAlone, 1, "pebble"}] = []metrics{{"p50": 200_000}}
		table := p.goalTable(b)
		if !strings.Contains(table, " | "+c.met+" | 100 µs |") || !strings.Contains(table, "| pebble |") {
			t.Errorf("%v: %s", c, table)
		}
	}
}

func TestFiguresCanBeRead(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.25: "0.25", 3: "3", 9.999: "10", 42.04: "42", 42.06: "42.1", 1234567: "1,234,567", -128.4: "-128", 999.6: "1,000",
	} {
		if got := figure(v); got != want {
			t.Errorf("%v is written %q, want %q", v, got, want)
		}
	}
	if got := short(65536, 1024); got != "64 Ki" {
		t.Error(got)
	}
	list := sorted(plotter.XYs{{X: 3}, {X: 1}, {X: 2}})
	if list[0].X != 1 || list[2].X != 3 {
		t.Error(list)
	}
}

func TestGapsAreOfGoals(t *testing.T) {
	p := plan{entries: 1000, runlog: []int{2000}}
	keys := map[string]bool{}
	for _, g := range p.goals() {
		keys[g.key] = true
	}
	for part := range strings.SplitSeq("\n"+gaps, "\n## ") {
		if key, _, _ := strings.Cut(part, "\n"); key != "" && (!keys[key] || gap(key) == "") {
			t.Errorf("gaps.md has a section %q that no goal has, or that says nothing", key)
		}
	}
}

// loader is a store that loads everything before it gives the first entry.
type loader struct {
	entries int
	load    time.Duration
}

func (l loader) scan(f func(payload []byte) error) error {
	time.Sleep(l.load)
	for i := range l.entries {
		if err := f(binary.LittleEndian.AppendUint64(nil, uint64(i+1))); err != nil {
			return err
		}
	}
	return nil
}

func TestAScanThatLoadsFirstIsCountedWhole(t *testing.T) {
	l, m := loader{100_000, 60 * time.Millisecond}, metrics{}
	if err := scanFor(&cell{Seconds: 0.03, Entries: l.entries}, m, l); err != nil {
		t.Fatal(err)
	}
	if least := 200_000.0; m["scan.rate"] < least { // the first few thousand entries over the loading are 68,000
		t.Errorf("%.0f entries a second, want at least %.0f", m["scan.rate"], least)
	}
}
