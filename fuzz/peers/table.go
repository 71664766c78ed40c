package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// comparisonTable writes one table of all stores.
func comparisonTable(w io.Writer, l load, columns []column) {
	fmt.Fprintf(w, "### %s\n\n| damage |", l.title)
	for _, c := range columns {
		fmt.Fprintf(w, " %s |", c.store.name())
	}
	fmt.Fprintf(w, "\n|---|%s\n", strings.Repeat("---|", len(columns)))
	for i, t := range columns[0].trials {
		fmt.Fprintf(w, "| %s |", t.row)
		for _, c := range columns {
			fmt.Fprintf(w, " %s |", c.outcomes[i].boot)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
}

// sweepTable writes one table of runlog's files: a row for each place, with what came of all ways to damage it.
func sweepTable(w io.Writer, l layout, list []outcome) {
	fmt.Fprintf(w, "### %s\n\n| file and place | ways to damage it | read | boot | verify |\n|---|---|---|---|---|\n", l.title)
	for len(list) > 0 {
		n := slices.IndexFunc(list, func(o outcome) bool { return o.trial.row != list[0].trial.row })
		if n < 0 {
			n = len(list)
		}
		fmt.Fprintf(w, "| %s | %d |", list[0].trial.row, n)
		for i := range list[0].ways() {
			var cells []string
			for j := range list[:n] {
				cells = append(cells, list[j].ways()[i].v.String())
			}
			fmt.Fprintf(w, " %s |", tally(cells))
		}
		fmt.Fprintln(w)
		list = list[n:]
	}
	fmt.Fprintln(w)
}

// tally lists different cells with how often each came.
func tally(cells []string) string {
	var kinds []string
	count := map[string]int{}
	for _, c := range cells {
		if count[c]++; count[c] == 1 {
			kinds = append(kinds, c)
		}
	}
	if len(kinds) == 1 {
		return kinds[0]
	}
	for i, k := range kinds {
		kinds[i] = fmt.Sprintf("%d × %s", count[k], k)
	}
	return strings.Join(kinds, "<br>")
}
