package main

import (
	"fmt"
	"slices"
	"strings"
)

// column is one metric of a table.
type column struct {
	head   string
	metric string
	unit   unit
}

// table shows one x of one job: its first column with ranges and ratios, the others as medians.
type table struct {
	title, note string
	job         string
	x           int
	task        task
	columns     []column
	derived     bool // the first column is not a metric that is measured in rounds: no ratios
}

func (t *table) write(w *strings.Builder, b *book, list []store) {
	fmt.Fprintf(w, "### %s\n\n", t.title)
	if t.note != "" {
		fmt.Fprintf(w, "%s\n\n", t.note)
	}
	head, line := "| store |", "|---|"
	for _, c := range t.columns {
		head, line = head+" "+c.head+" |", line+"---:|"
	}
	if !t.derived {
		head, line = head+" × floor | × runlog |", line+"---:|---:|"
	}
	fmt.Fprintf(w, "%s leaves out |\n%s---|\n", head, line)
	var missing []string
	for _, s := range list {
		p := point{t.job, t.x, s.name()}
		lacks, can := s.lacks(t.task)
		if err := b.failed[p]; err != nil {
			missing = append(missing, fmt.Sprintf("%s failed (%s)", s.name(), firstLine(err.Error())))
			continue
		}
		if !can && isPeer(s) {
			missing = append(missing, s.name()+" "+lacks)
		}
		if len(b.values(p, t.columns[0].metric)) == 0 {
			continue
		}
		fmt.Fprintf(w, "| %s |", s.name())
		for i, c := range t.columns {
			list := b.values(p, c.metric)
			if i > 0 && len(list) > 0 {
				list = []float64{median(list)}
			}
			fmt.Fprintf(w, " %s |", spread(list, c.unit))
		}
		if !t.derived {
			for _, base := range []string{"floor", "runlog"} {
				fmt.Fprintf(w, " %s |", spread(b.ratio(p, base, t.columns[0].metric), timesX))
			}
		}
		fmt.Fprintf(w, " %s |\n", lacks)
	}
	fmt.Fprintln(w)
	if len(missing) > 0 {
		fmt.Fprintf(w, "Not in the table: %s.\n\n", strings.Join(missing, "; "))
	}
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return strings.ReplaceAll(s, "|", "/")
}

var (
	rateColumns = []column{
		{"entries/s", "rate", plain}, {"p50 µs", "p50", micro}, {"p99 µs", "p99", micro}, {"max µs", "max", micro},
		{"allocs per entry", "allocs", plain}, {"CPU µs per entry", "cpu", micro},
	}
	aloneColumns = []column{
		{"p50 µs", "p50", micro}, {"p99 µs", "p99", micro}, {"p99.9 µs", "p999", micro}, {"max µs", "max", micro}, {"entries/s", "rate", plain},
		{"allocs", "allocs", plain}, {"CPU µs", "cpu", micro},
	}
	submitColumns = []column{
		{"ns", "ns", plain}, {"p50 ns", "p50", plain}, {"p99 ns", "p99", plain}, {"p99.9 ns", "p999", plain}, {"max ns", "max", plain},
		{"allocs", "allocs", plain}, {"clock alone, p50 ns", "clock.p50", plain}, {"clock alone, p99 ns", "clock.p99", plain},
	}
)

func pointColumns(prefix string) []column {
	return []column{
		{"ns", prefix + "ns", plain}, {"p50 ns", prefix + "p50", plain}, {"p99 ns", prefix + "p99", plain}, {"p99.9 ns", prefix + "p999", plain},
		{"max µs", prefix + "max", micro}, {"allocs", prefix + "allocs", plain},
	}
}

// tables are all of them, in the order of the page.
func (p *plan) tables(b *book) []table {
	n := grouped(int64(p.entries))
	list := []table{
		{title: "Submit", job: jobSubmit, task: alone, columns: submitColumns,
			note: "The entry has its number when the call returns; it is not durable yet. The writer gets time to commit after each block of 4,096. " +
				"The first column is the mean without a clock around each call; the percentiles contain one reading of it, whose own cost is beside them. " +
				"The floor copies the payload into a buffer under a lock and reads the clock. No peer has a call like it."},
		{title: "One durable append, alone", job: jobAlone, x: 1, task: alone, columns: aloneColumns,
			note: "One caller; each entry is durable before the next. The floor is one pwrite and one fdatasync in a zero-filled file."},
	}
	for _, callers := range []int{16, 128} {
		list = append(list, table{title: fmt.Sprintf("%d goroutines, each waiting for its own append", callers), job: jobGroup, x: callers, task: group, columns: rateColumns})
	}
	for _, batch := range []int{100, mainBatch} {
		list = append(list, table{title: fmt.Sprintf("Durable stream, batches of %s", grouped(int64(batch))), job: jobStream, x: batch, task: stream, columns: rateColumns,
			note: "One producer. Percentiles are of one batch."})
	}
	list = append(list,
		table{title: "The same with order ids, batches of 1,000", job: jobKeyed, x: mainBatch, task: keyed, columns: rateColumns,
			note: "Four order ids in three entries: half are 16 random hex digits, half are numbers that rise. In key-value stores each is one more key."},
		table{title: "Read by number, random, " + n + " entries", job: jobRead, x: p.entries, task: get, columns: pointColumns("get."),
			note: "After a clean close, page cache warm. The first column is the mean without a clock around each call."},
		table{title: "Look up an order id, " + n + " entries", job: jobFind, x: p.entries, task: find, columns: pointColumns("hit."),
			note: "The number of the first entry with a random client id."},
		table{title: "Look up an id that is not there, " + n + " entries", job: jobFind, x: p.entries, task: find, columns: pointColumns("miss.")},
		table{title: "Scan, " + n + " entries", job: jobRead, x: p.entries, task: scan, columns: []column{{"entries/s", "scan.rate", plain}},
			note: "In order, from the first; the number in each payload is checked."},
	)
	for _, n := range b.xs(jobOpen) {
		list = append(list, table{title: "Open after the process died, " + grouped(int64(n)) + " entries", job: jobOpen, x: n, task: reopen,
			columns: []column{{"ms", "open", milli}, {"anonymous memory, MiB", "anon", mebi}},
			note:    "Until the store can append and knows its last number. The memory is what the open has added, after a collection."})
	}
	list = append(list, table{title: "Disk, " + n + " entries", job: jobDisk, x: p.entries, task: disk, derived: true,
		columns: []column{
			{"bytes per entry", "disk", scaled(float64(p.entries))},
			{"beyond the payload", "disk", func(v float64) string { return figure(v/float64(p.entries) - float64(p.size)) }},
		},
		note: "Blocks of the file system, after recovery and close, without ids."})
	return slices.DeleteFunc(list, func(t table) bool { return len(b.rounds[point{t.job, t.x, "runlog"}]) == 0 })
}
