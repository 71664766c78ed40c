package main

import (
	"bytes"
	"flag"
	"strings"
	"testing"

	"github.com/runlog-io/runlog"
)

var full = flag.Bool("full", false, "damage every place in every way, as the page does; without it, an eighteenth of that")

// Every acknowledged entry, or an error that names file, offset and seqs; and later entries are kept. Also near the end and in
// the last entry, with large entries, in every way to look at the run.
func TestRunlogReturnsEverythingOrNamesTheDamage(t *testing.T) {
	for _, l := range loads {
		t.Run(l.title, func(t *testing.T) {
			t.Parallel()
			c, err := compare(runlogStore{title: "runlog", marked: true, segmentBytes: 4 << 20}, l, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			for i := range c.outcomes {
				for _, b := range c.outcomes[i].below() {
					t.Error(b)
				}
			}
		})
	}
}

// The same for every file of a run.
func TestEveryFileOfARunMayBeDamaged(t *testing.T) {
	for i, l := range layouts {
		t.Run(l.title, func(t *testing.T) {
			t.Parallel()
			every := 18
			if *full {
				every = 1
			}
			list, err := sweepAll(l, t.TempDir(), i, every)
			if err != nil {
				t.Fatal(err)
			}
			if len(list) < 100/every {
				t.Fatalf("only %d ways to damage it were found", len(list))
			}
			for i := range list {
				for _, b := range list[i].below() {
					t.Error(b)
				}
			}
		})
	}
}

// Before the mark nothing vouches for the last commit: that, and only that, can go without an error. See docs/guarantees.md.
func TestOnlyTheTailBeforeTheMarkCanGoSilently(t *testing.T) {
	l := loads[0]
	c, err := compare(runlogStore{title: "runlog", segmentBytes: 4 << 20}, l, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	silently := 0
	for i := range c.outcomes {
		o := &c.outcomes[i]
		for _, w := range o.ways() {
			switch {
			case w.v.ok():
			case w.v.class == silent && o.trial.toEnd:
				silently++
			default:
				t.Errorf("%s: %s: %s: %v", o.trial.row, w.name, w.v, w.v.err)
			}
		}
	}
	if silently == 0 {
		t.Error("no damage to the last commit went unnoticed: the page says that it does")
	}
}

// The table has a cell for every store and damage, and the trials are real ones: undamaged folders give everything back.
func TestEveryStoreHasItsColumn(t *testing.T) {
	l := load{"100 entries of 256 B", 100, 256}
	var columns []column
	for _, s := range everyStore() {
		c, err := compare(s, l, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if v := c.outcomes[0].boot; v.class != whole || v.lost != 0 {
			t.Errorf("%s without damage: %s: %v", s.name(), v, v.err)
		}
		if len(columns) > 0 && len(c.trials) != len(columns[0].trials) {
			t.Fatalf("%s has %d rows, want %d", s.name(), len(c.trials), len(columns[0].trials))
		}
		columns = append(columns, c)
	}
	var b bytes.Buffer
	comparisonTable(&b, l, columns)
	for _, line := range strings.Split(strings.TrimSpace(b.String()), "\n")[2:] {
		if got := strings.Count(line, "|"); got != len(columns)+2 {
			t.Errorf("%d bars in %q", got, line)
		}
	}
}

func TestJudgeTellsLossFromErrorsAndForgeries(t *testing.T) {
	acknowledged := payloads(0, 3, 16)
	items := func(seqs ...int) (list []item) {
		for _, s := range seqs {
			list = append(list, item{s, acknowledged[s-1]})
		}
		return list
	}
	for _, c := range []struct {
		name  string
		r     reading
		class class
		ok    bool
	}{
		{"all", reading{items: items(1, 2, 3)}, whole, true},
		{"one is gone", reading{items: items(1, 3)}, silent, false},
		{"an error without a place", reading{items: items(1), err: errNotWhole}, refused, false},
		{"another one's bytes", reading{items: []item{{1, acknowledged[1]}}}, wrong, false},
		{"one came twice", reading{items: items(1, 1, 2, 3)}, wrong, false},
		{"wrong bytes and an error", reading{items: []item{{1, nil}}, err: errNotWhole}, wrong, false},
		{"file and offset, no seq", reading{items: items(1), err: located(7, 0, 0)}, refused, false},
		{"seqs that are not affected", reading{items: items(1), err: located(7, 2, 2)}, refused, false},
		{"no offset", reading{items: items(1), err: located(-1, 3, 3)}, refused, false},
		{"everything named", reading{items: items(1), err: located(7, 3, 3)}, refused, true},
		{"a panic", guard(func() reading { panic("no") }), crashed, false},
	} {
		v := judge(acknowledged, nil, &trial{file: "f.seg"}, c.r)
		if v.class != c.class || v.ok() != c.ok {
			t.Errorf("%s: %s, ok %v", c.name, v, v.ok())
		}
	}
}

func located(off int64, first, last uint64) error {
	return &runlog.Error{Path: "/x/f.seg", Offset: off, FirstSeq: first, LastSeq: last, Err: runlog.ErrCorrupt}
}
