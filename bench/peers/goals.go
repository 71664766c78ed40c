package main

import (
	"cmp"
	_ "embed"
	"fmt"
	"slices"
	"strings"
)

// gaps says why goals are not reached, and what was tried: a section for each goal's key.
//
//go:embed gaps.md
var gaps string

// gap returns the section of a goal.
func gap(key string) string {
	_, rest, _ := strings.Cut("\n"+gaps, "\n## "+key+"\n")
	text, _, _ := strings.Cut(rest, "\n## ")
	return strings.Join(strings.Fields(text), " ")
}

// goal is a row of the table of what runlog wants to reach: see the page for the words.
type goal struct {
	key        string // of what gaps.md says of it
	what, want string
	task       task
	job        string
	x          int
	show       func(v view) string // a store's cell; empty: it was not measured
	metric     string              // what stores are ranked by
	most       bool                // more of it is better
	met        func(v view) bool
}

// view is what was measured of one store at one point.
type view struct {
	b *book
	p point
}

func (v view) get(metric string) float64 {
	m, _ := v.b.median(v.p, metric)
	return m
}

func (v view) has() bool { return len(v.b.rounds[v.p]) > 0 }

// overFloor is the median of the ratios to the floor, paired by round.
func (v view) overFloor(metric string) float64 {
	if list := v.b.ratio(v.p, "floor", metric); len(list) > 0 {
		return median(list)
	}
	return 0
}

func ns(v float64) string {
	switch {
	case v < 1000:
		return fmt.Sprintf("%.0f ns", v)
	case v < 1e6:
		return figure(v/1e3) + " µs"
	}
	return figure(v/1e6) + " ms"
}

func perSecond(v float64) string {
	if v < 1e6 {
		return figure(v/1e3) + " k/s"
	}
	return figure(v/1e6) + " M/s"
}

func (p *plan) goals() []goal {
	rate := func(v view) string { return perSecond(v.get("rate")) }
	// The clock around a call is not the call's.
	net := func(v view, q string) float64 { return max(v.get(q)-v.get("clock.p50"), 0) }
	entries := float64(p.entries)
	beyond := func(v view) float64 { return v.get("disk")/entries - float64(p.size) }
	list := []goal{
		{key: "submit", what: "Submit, writer keeping up", want: "p50 ≤ 100 ns, p99 ≤ 1 µs, 0 allocs", task: alone, job: jobSubmit, metric: "p50",
			show: func(v view) string {
				return fmt.Sprintf("p50 %s, p99 %s, %s allocs", ns(net(v, "p50")), ns(net(v, "p99")), figure(v.get("allocs")))
			},
			met: func(v view) bool { return net(v, "p50") <= 100 && net(v, "p99") <= 1000 && v.get("allocs") == 0 }},
		{key: "alone", what: "One durable append, alone", want: "p50 ≤ 1.1 × floor", task: alone, job: jobAlone, x: 1, metric: "p50",
			show: func(v view) string { return ns(v.get("p50")) },
			met:  func(v view) bool { return v.overFloor("p50") <= 1.1 }},
		{key: "group", what: "128 goroutines, each waiting for its own append", want: "≥ 1 × floor", task: group, job: jobGroup, x: 128, metric: "rate", most: true, show: rate,
			met: func(v view) bool { return v.overFloor("rate") >= 1 }},
		{key: "stream", what: "Durable stream, one producer", want: "≥ 3 M/s, ≥ 0.9 × floor", task: stream, job: jobStream, x: mainBatch, metric: "rate", most: true, show: rate,
			met: func(v view) bool { return v.get("rate") >= 3e6 && v.overFloor("rate") >= 0.9 }},
		{key: "keyed", what: "The same with order ids", want: "≥ 2 M/s", task: keyed, job: jobKeyed, x: mainBatch, metric: "rate", most: true, show: rate,
			met: func(v view) bool { return v.get("rate") >= 2e6 }},
	}
	all := slices.Concat([]int{p.entries}, p.runlog)
	for _, n := range all {
		among := ", " + grouped(int64(n)) + " entries"
		list = append(list,
			goal{key: "read", what: "Read by number, random" + among, want: "≤ 500 ns, 0 allocs", task: get, job: jobRead, x: n, metric: "get.ns",
				show: func(v view) string { return withAllocs(v, "get.") },
				met:  func(v view) bool { return v.get("get.ns") <= 500 && v.get("get.allocs") == 0 }},
			goal{key: "hit", what: "Look up an order id" + among, want: "≤ 1 µs, 0 allocs", task: find, job: jobFind, x: n, metric: "hit.ns",
				show: func(v view) string { return withAllocs(v, "hit.") },
				met:  func(v view) bool { return v.get("hit.ns") <= 1000 && v.get("hit.allocs") == 0 }},
			goal{key: "miss", what: "Look up an id that is not there" + among, want: "≤ 300 ns", task: find, job: jobFind, x: n, metric: "miss.ns",
				show: func(v view) string { return withAllocs(v, "miss.") },
				met:  func(v view) bool { return v.get("miss.ns") <= 300 }},
			goal{key: "scan", what: "Scan" + among, want: "≥ 30 M/s", task: scan, job: jobRead, x: n, metric: "scan.rate", most: true,
				show: func(v view) string { return perSecond(v.get("scan.rate")) },
				met:  func(v view) bool { return v.get("scan.rate") >= 30e6 }})
	}
	for _, n := range all {
		list = append(list,
			goal{key: "open", what: "Open after a crash, " + grouped(int64(n)) + " entries", want: "≤ 50 ms", task: reopen, job: jobOpen, x: n, metric: "open",
				show: func(v view) string { return ns(v.get("open")) },
				met:  func(v view) bool { return v.get("open") <= 50e6 }},
			goal{key: "memory", what: "Anonymous memory after that open", want: "≤ 16 MiB", task: reopen, job: jobOpen, x: n, metric: "anon",
				show: func(v view) string { return mebi(v.get("anon")) + " MiB" },
				met:  func(v view) bool { return v.get("anon") <= 16<<20 }})
	}
	return append(list,
		goal{key: "disk", what: "Disk per entry beyond the payload", want: "≤ 24 B", task: disk, job: jobDisk, x: p.entries, metric: "disk",
			show: func(v view) string { return figure(beyond(v)) + " B" },
			met:  func(v view) bool { return beyond(v) <= 24 }},
		goal{key: "index", what: "Index per order id", want: "≤ 20 B", task: find, job: jobKeyDisk, x: p.entries, metric: "index",
			show: func(v view) string {
				if v.get("index") == 0 {
					return ""
				}
				return figure(v.get("index")/float64(keysPer(p.entries))) + " B"
			},
			met: func(v view) bool { return v.get("index")/float64(keysPer(p.entries)) <= 20 }})
}

func withAllocs(v view, prefix string) string {
	return fmt.Sprintf("%s, %s allocs", ns(v.get(prefix+"ns")), figure(v.get(prefix+"allocs")))
}

// goalTable has a line for each goal that was measured, and a column for each peer.
func (p *plan) goalTable(b *book) string {
	var w strings.Builder
	var peers []store
	for _, s := range p.stores {
		if isPeer(s) {
			peers = append(peers, s)
		}
	}
	fmt.Fprint(&w, "| what | goal | runlog | met | floor | runlog / floor | best peer |")
	for _, s := range peers {
		fmt.Fprintf(&w, " %s |", s.name())
	}
	fmt.Fprintf(&w, "\n|%s\n", strings.Repeat("---|", 7+len(peers)))
	for _, g := range p.goals() {
		at := func(store string) view { return view{b, point{g.job, g.x, store}} }
		ours := at("runlog")
		if !ours.has() {
			continue
		}
		met := "**no**"
		if g.met(ours) {
			met = "yes"
		}
		ratio := "–"
		if r := ours.overFloor(g.metric); r > 0 {
			ratio = timesX(r)
		}
		fmt.Fprintf(&w, "| %s | %s | %s | %s | %s | %s | %s |", g.what, g.want, g.cell(ours), met, g.cell(at("floor")), ratio, g.best(b, peers))
		for _, s := range peers {
			fmt.Fprintf(&w, " %s |", g.cell(at(s.name())))
		}
		fmt.Fprintln(&w)
	}
	return w.String()
}

// gapList says why each goal that was measured and not met is not.
func (p *plan) gapList(b *book) string {
	var w strings.Builder
	var said []string
	for _, g := range p.goals() {
		v := view{b, point{g.job, g.x, "runlog"}}
		if v.has() && !g.met(v) && !slices.Contains(said, g.key) {
			said = append(said, g.key)
			fmt.Fprintf(&w, "- **%s.** %s\n", strings.SplitN(g.what, ",", 2)[0], cmp.Or(gap(g.key), "Nobody has looked into it yet."))
		}
	}
	return cmp.Or(w.String(), "None.\n")
}

// cell is what a store has reached.
func (g *goal) cell(v view) string {
	if _, measured := v.b.median(v.p, g.metric); !measured {
		return "–"
	}
	return cmp.Or(g.show(v), "–")
}

func (g *goal) best(b *book, peers []store) string {
	name, best := "–", 0.0
	for _, s := range peers {
		v, ok := b.median(point{g.job, g.x, s.name()}, g.metric)
		if ok && (name == "–" || g.most == (v > best)) {
			name, best = s.name(), v
		}
	}
	return name
}
