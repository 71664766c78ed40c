package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/examples/exchange/engine"
	"github.com/runlog-io/runlog/examples/exchange/flow"
)

// trail is what an order's records amount to: how many, and a checksum that depends on their order.
type trail struct {
	n   uint64
	sum uint64
}

func (t *trail) add(typ string, payload []byte) {
	t.n++
	t.sum = xxhash.Sum64(payload) + xxhash.Sum64String(typ) + t.sum*0x9e3779b97f4a7c15
}

// tally is what is compared between the input and the log.
type tally struct {
	types  map[string]uint64
	orders map[uint64]trail // by order id, without id 0
	all    trail
}

func newTally() *tally { return &tally{types: map[string]uint64{}, orders: map[uint64]trail{}} }

func (t *tally) add(typ string, order uint64, payload []byte) {
	t.types[typ]++
	t.all.add(typ, payload)
	if order != 0 {
		o := t.orders[order]
		o.add(typ, payload)
		t.orders[order] = o
	}
}

// captureInput captures a recorded file, and compares what the log holds with it.
func (c *config) captureInput(ctx context.Context, dir string) (err error) {
	in, err := flow.OpenFile(c.input)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	var warn warnings
	run, err := openRun(ctx, dir, instance, nil, &warn)
	if err != nil {
		return err
	}
	e := engine.New(0)
	want := newTally()
	start := time.Now()
	err = c.capture(ctx, in, run, e, want)
	took := time.Since(start)
	c.status("")
	if closeErr := run.Close(context.WithoutCancel(ctx)); err != nil || closeErr != nil {
		// Half of an input must not look like a whole one, not even with --keep.
		return errors.Join(err, closeErr, os.RemoveAll(run.Dir()))
	}
	return c.compareInput(ctx, dir, e, want, took)
}

func (c *config) capture(ctx context.Context, in *flow.Reader, run *runlog.Run, e *engine.Engine, want *tally) error {
	if err := e.Start(run, 0, func(engine.Message) {}, nil); err != nil {
		return err
	}
	var r flow.Report
	var payload []byte
	for {
		if err := in.Next(&r); err == io.EOF {
			return e.Flush(ctx)
		} else if err != nil {
			return err
		}
		if err := e.Report(ctx, r); err != nil {
			return err
		}
		payload, _ = r.AppendBinary(payload[:0]) // never fails
		want.add(engine.ReportType(r.Action), r.OrderID, payload)
		if in.Records()%65536 == 0 {
			c.status("%s records captured", count(uint64(in.Records())))
		}
	}
}

// compareInput reads the log with fresh eyes: once from end to end, once order by order through the index.
func (c *config) compareInput(
	ctx context.Context, dir string, e *engine.Engine, want *tally, took time.Duration,
) (err error) {
	runs, err := runsOf(dir, instance)
	if err != nil {
		return err
	}
	readers, closeAll, err := openRuns(runs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	log := readers[0]
	got := newTally()
	for v, err := range log.Scan(runlog.ScanOptions{Topic: engine.TopicReports}) {
		if err != nil {
			return err
		}
		var order uint64
		for kind, value := range v.Keys {
			if kind == runlog.VenueOrderID {
				order, err = strconv.ParseUint(string(value), 10, 64)
			}
		}
		if err != nil {
			return err
		}
		got.add(v.Type(), order, v.Payload())
	}
	again := engine.New(0)
	if err := again.Recover(runs[0].Run, log.Scan(runlog.ScanOptions{}), nil); err != nil {
		return err
	}
	differ, longest, err := c.compareHistories(ctx, log, want)
	if err != nil {
		return err
	}
	findings, err := verifyRun(ctx, runs[0])
	if err != nil {
		return err
	}
	segments, all, err := diskBytes(runs[0].Dir)
	if err != nil {
		return err
	}

	counts := e.Counts()
	q := quantilesOf(&e.SubmitLatency)
	entries := float64(log.LastSeq())
	c.printf("%s records captured in %v, %.1f bytes per entry on disk, %.1f with the indexes; submit p50 %v, p99 %v\n\n",
		count(want.all.n), round(took), float64(segments)/entries, float64(all)/entries, q.P50, q.P99)
	rows := [][]string{{"type", "input", "log"}}
	types := maps.Clone(want.types)
	maps.Copy(types, got.types)
	for _, typ := range slices.Sorted(maps.Keys(types)) {
		rows = append(rows, []string{typ, count(want.types[typ]), count(got.types[typ])})
	}
	rows = append(rows, []string{"records", count(want.all.n), count(got.all.n)},
		[]string{"orders", count(uint64(len(want.orders))), count(uint64(len(got.orders)))})
	c.printf("%s\n", table(rows, 1, 2))
	if n := want.orders[longest].n; n > 0 {
		key := strconv.FormatUint(longest, 10)
		steps, err := history(readers, runlog.VenueOrderID, key)
		if err != nil {
			return err
		}
		c.printf("The longest history: %s=%s, %d entries (%d in the input)\n%s\n", runlog.VenueOrderID, key, len(steps), n,
			timeline(steps, 12))
	}
	c.printf("book: %s open orders; %s reports did not fit it\n", count(uint64(counts.Open)), count(counts.Strays))

	ok := true
	answer := func(question string, yes bool, detail string) {
		ok = ok && yes
		c.printf("%s: %s%s\n", question, yesNo(yes), detail)
	}
	answer("counts equal the input's", maps.Equal(want.types, got.types) && maps.Equal(want.orders, got.orders) &&
		want.all == got.all, "")
	answer("histories equal the input's", differ == 0, fmt.Sprintf(" (%s orders)", count(uint64(len(want.orders)))))
	answer("book rebuilt from the log equals the engine's", again.Hash() == e.Hash(), fmt.Sprintf(" (%016x)", e.Hash()))
	answer("run verified", len(findings) == 0, "")
	for _, f := range findings {
		c.printf("  %s\n", f)
	}
	if c.keep {
		c.printf("run %s\n", runs[0].Dir)
	}
	if !ok {
		return errNo
	}
	return nil
}

// compareHistories looks up every order of the input. It returns how many histories differ, and the order with the
// longest.
func (c *config) compareHistories(
	ctx context.Context, log *runlog.Reader, want *tally,
) (differ int, longest uint64, err error) {
	ids := slices.Sorted(maps.Keys(want.orders))
	for i, id := range ids {
		if i%1024 == 0 {
			c.status("%s of %s histories compared", count(uint64(i)), count(uint64(len(ids))))
			if err := ctx.Err(); err != nil {
				return 0, 0, err
			}
		}
		var got trail
		for v, err := range log.History(runlog.VenueOrderID, strconv.FormatUint(id, 10)) {
			if err != nil {
				return 0, 0, err
			}
			got.add(v.Type(), v.Payload())
		}
		if got != want.orders[id] {
			differ++
		}
		if want.orders[id].n > want.orders[longest].n {
			longest = id
		}
	}
	c.status("")
	return differ, longest, nil
}
