package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/anchor"
	"github.com/runlog-io/runlog/examples/exchange/engine"
	"github.com/runlog-io/runlog/replay"
	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
)

// checked is what the runs of an instance say, read from the disk without any help from the processes that wrote them.
type checked struct {
	runs     []runlog.RunInfo
	perRun   []uint64 // entries
	entries  uint64
	missing  uint64 // messages that are not in the log, or are something else there
	example  string // the first of them
	counts   engine.Counts
	hash     uint64 // of the state rebuilt from the log alone
	hashes   uint64 // recorded state hashes that are equal
	diverged string // the first that is not
	anchors  int    // snapshots that the log names, all of them good
	findings []string
	logBytes int64 // on disk: segments
	allBytes int64 // on disk: everything
	took     time.Duration
}

// runsOf lists the runs of an instance, oldest first.
func runsOf(dir, name string) (runs []runlog.RunInfo, err error) {
	all, err := runlog.List(dir, runlog.ReaderOptions{})
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		if r.Instance == name {
			runs = append(runs, r)
		}
	}
	return runs, nil
}

// openRuns opens them for reading.
func openRuns(runs []runlog.RunInfo) (readers []*runlog.Reader, closeAll func() error, err error) {
	closeAll = func() (err error) {
		for _, r := range readers {
			err = errors.Join(err, r.Close())
		}
		return err
	}
	for _, r := range runs {
		rd, err := runlog.OpenReader(r.Dir, runlog.ReaderOptions{})
		if err != nil {
			return nil, nil, errors.Join(err, closeAll())
		}
		readers = append(readers, rd)
	}
	return readers, closeAll, nil
}

// lineage returns the newest run and those that it continues, newest first, and names each other run that holds entries: only
// one that was killed before it had any is passed over by those behind it.
func lineage(readers []*runlog.Reader) (chain []*runlog.Reader, left []string) {
	next := ""
	for i, r := range slices.Backward(readers) {
		m := r.Manifest()
		switch {
		case i == len(readers)-1 || m.Run == next:
			chain = append(chain, r)
			next = m.Parent
		case r.LastSeq() > 1: // seq 1 is RunStarted
			left = append(left, fmt.Sprintf("%s: no later run continues it", r.Dir()))
		}
	}
	return chain, left
}

// check verifies the runs, rebuilds the state from them, and looks up every message.
func (s *session) check(ctx context.Context) (c checked, err error) {
	start := time.Now()
	if c.runs, err = runsOf(s.dir, s.instance); err != nil {
		return c, err
	}
	readers, closeAll, err := openRuns(c.runs)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	e := engine.New(s.c.seed)
	var body []byte
	next := 0 // message
	see := func(run string, seq uint64, v engine.Event) {
		if next == len(s.messages) || s.ids[s.messages[next].run] != run || s.messages[next].seq != seq {
			return
		}
		if body = engine.AppendEvent(body[:0], &v); xxhash.Sum64(body) == s.messages[next].sum {
			next++
		}
	}
	store := anchor.OpenDirStore(vfs.OS, filepath.Join(s.dir, s.instance, snapshots), nil)
	for _, rd := range readers {
		for p, err := range anchor.Points(ctx, rd, store) {
			if err = cmp.Or(err, p.Err); err != nil {
				c.findings = append(c.findings, err.Error())
			}
			c.anchors++
		}
		c.perRun = append(c.perRun, rd.LastSeq())
		c.entries += rd.LastSeq()
	}
	chain, left := lineage(readers)
	c.findings = append(c.findings, left...)
	// Without a store: the snapshots are not used, so what comes out is what the log alone says.
	rep, err := replay.Restore(ctx, chain, &engine.Replayer{Engine: e, See: see}, replay.Options{GoOn: true, AllowUnsealed: true})
	if err != nil {
		if ctx.Err() != nil {
			return c, err
		}
		c.findings = append(c.findings, err.Error())
	}
	c.hashes = rep.HashesEqual
	if d := rep.Divergence; d != nil {
		c.diverged = (&replay.DivergenceError{Divergence: *d}).Error()
	}
	// Messages were received in the order of their entries, so the first one that was not met stops the count.
	if c.missing = uint64(len(s.messages) - next); c.missing > 0 {
		m := s.messages[next]
		c.example = fmt.Sprintf("message %d: run %s, seq %d", next+1, s.ids[m.run], m.seq)
	}
	c.counts, c.hash = e.Counts(), e.Hash()
	for _, r := range c.runs {
		findings, err := verifyRun(ctx, r)
		if err != nil {
			return c, err
		}
		c.findings = append(c.findings, findings...)
		n, all, err := diskBytes(r.Dir)
		if err != nil {
			return c, err
		}
		c.logBytes += n
		c.allBytes += all
	}
	if n := len(c.runs); n > 0 && c.runs[n-1].Status != runlog.Ended {
		c.findings = append(c.findings, fmt.Sprintf("the last run's status is %v", c.runs[n-1].Status))
	}
	c.took = time.Since(start)
	return c, nil
}

// verifyRun returns what is wrong with a run, checked from the first byte to the last.
func verifyRun(ctx context.Context, r runlog.RunInfo) (findings []string, err error) {
	rep, err := verify.Run(ctx, vfs.OS, r.Dir, verify.Options{})
	for _, f := range rep.Findings {
		findings = append(findings, f.String())
	}
	return findings, err
}

// diskBytes sums up the files of a run.
func diskBytes(dir string) (segments, all int64, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		all += info.Size()
		if strings.HasPrefix(filepath.Ext(path), ".seg") || strings.HasPrefix(filepath.Ext(path), ".sz") {
			segments += info.Size()
		}
		return nil
	})
	return segments, all, err
}

// report prints the outcome, and returns errNo if it is not what it should be.
func (c *config) report(crashed, whole *session, check, wholeCheck checked, began time.Time) error {
	w := &whole.summary
	c.printf("Flow: seed %d, %s orders: %s commands gave %s events; %s orders are open at the end\n\n",
		c.seed, count(c.orders), count(w.Counts.Commands), count(w.Counts.Events), count(uint64(w.Counts.Open)))

	c.printf("Without a crash\n")
	rate := float64(w.Entries) / w.Flow.Seconds()
	perEntry := func(n int64) string { return fmt.Sprintf("%.1f", float64(n)/float64(wholeCheck.entries)) }
	c.printf("%s", table([][]string{
		{"entries captured", count(w.Entries), "commands and events, each with its ids and keys"},
		{"durable throughput", count(uint64(rate)) + "/s", fmt.Sprintf("%.0f MB/s of log, until the last entry was durable",
			float64(wholeCheck.logBytes)/1e6/w.Flow.Seconds())},
		{"bytes per entry", perEntry(wholeCheck.logBytes), "on disk; with the indexes " + perEntry(wholeCheck.allBytes)},
	}, 1))
	c.printf("\n  Latency on the engine's thread; a capture is encode, keys, ids and submit\n")
	row := func(name string, q quantiles) []string {
		return []string{name, q.P50.String(), q.P99.String(), q.P999.String(), q.Max.String(), count(q.N)}
	}
	c.printf("%s\n", table([][]string{
		{"", "p50", "p99", "p99.9", "max", "samples"},
		row("submit", w.Submit), row("capture", w.Capture), row("the clock alone", w.Clock),
	}, 1, 2, 3, 4, 5))

	c.printf("With %d kills\n", c.kills)
	rows := [][]string{{"life", "killed at", "entries", "torn bytes", "remade", "log open", "snapshot", "restored", "tail", "replayed", "down for"}}
	for i, h := range crashed.hellos {
		killed, entries := "-", "-"
		if i < len(crashed.killedAt) {
			killed = "order " + count(crashed.killedAt[i])
		}
		if i < len(check.perRun) {
			entries = count(check.perRun[i])
		}
		line := []string{fmt.Sprint(i + 1), killed, entries}
		if i == 0 {
			line = append(line, "-", "-", round(h.Open).String(), "-", "-", "-", "-", "-")
		} else {
			line = append(line, count(uint64(h.Dropped)), fmt.Sprint(h.Remade), round(h.Open).String(),
				count(uint64(h.Snapshot)/1000)+" kB", round(h.Restore).String(), count(h.Replayed), round(h.Replay).String(),
				round(crashed.gaps[i-1]).String())
		}
		rows = append(rows, line)
	}
	c.printf("%s", table(rows, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10))
	c.printf("  A restart restores the last snapshot and replays the tail of the log behind it\n\n")
	if err := c.showLife(crashed, check); err != nil {
		return err
	}
	if d := w.Warned; d.Stalls > 0 {
		c.printf("the log warned %d times that the disk was slow, at most by %v\n\n", d.Stalls, round(d.Longest))
	}
	if other := slices.Concat(crashed.summary.Warned.Other, w.Warned.Other); len(other) > 0 {
		c.printf("other warnings of the log: %d, the first: %s\n\n", len(other), other[0])
	}

	ok := true
	answer := func(question string, yes bool, detail string) {
		ok = ok && yes
		c.printf("%s: %s%s\n", question, yesNo(yes), detail)
	}
	findings := slices.Concat(check.findings, wholeCheck.findings)
	answer("all runs verified", len(findings) == 0, fmt.Sprintf(" (%d runs, %s entries, %d snapshots, %v)",
		len(check.runs)+len(wholeCheck.runs), count(check.entries+wholeCheck.entries), check.anchors+wholeCheck.anchors,
		round(max(check.took, wholeCheck.took))))
	for _, f := range findings {
		c.printf("  %s\n", f)
	}
	answer("every event became a message, once and in order", uint64(len(crashed.messages)) == w.Counts.Events &&
		len(crashed.messages) == len(whole.messages), fmt.Sprintf(" (%s)", count(uint64(len(crashed.messages)))))
	detail := ""
	if check.missing+wholeCheck.missing > 0 {
		detail = fmt.Sprintf(" (%d are; %s%s)", check.missing+wholeCheck.missing, check.example, wholeCheck.example)
	}
	answer("no released message is missing from the log", detail == "", detail)
	answer("state rebuilt from the log alone equals the engine's", check.hash == crashed.summary.Hash &&
		wholeCheck.hash == w.Hash && check.counts == crashed.summary.Counts, fmt.Sprintf(" (%016x)", check.hash))
	detail = fmt.Sprintf(" (%s)", count(check.hashes+wholeCheck.hashes))
	if diverged := cmp.Or(check.diverged, wholeCheck.diverged); diverged != "" {
		detail = " (" + diverged + ")"
	}
	answer("each state hash that was recorded on the way equals the replayed state", check.diverged+wholeCheck.diverged == "" &&
		wholeCheck.hashes == uint64(w.Hashes), detail)
	answer("state after recovery equals state without the crash", crashed.summary.Hash == w.Hash &&
		crashed.summary.Counts == w.Counts, fmt.Sprintf(" (%016x)", crashed.summary.Hash))
	c.printf("took %v\n", round(time.Since(began)))
	if !ok {
		return errNo
	}
	return nil
}

// showLife prints the history of one order, as the log's index finds it.
func (c *config) showLife(s *session, check checked) (err error) {
	readers, closeAll, err := openRuns(check.runs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	order := fmt.Sprint(s.interesting())
	steps, err := history(readers, runlog.ClientOrderID, order)
	if err != nil || len(steps) == 0 {
		return err
	}
	c.printf("The life of one order: %s=%s\n%s\n", runlog.ClientOrderID, order, timeline(steps, 20))
	return nil
}
