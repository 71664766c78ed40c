package markers_test

import (
	"context"
	"fmt"
	"log"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/markers"
	"github.com/runlog-io/runlog/vfs"
)

// ticks is a catalog of one stream: outside data, as an archive of the venue's feed would be.
type ticks []int64

func (t ticks) Replayable(class string) bool { return class == "quote" }

func (t ticks) Covers(context.Context, markers.Query) (bool, error) { return true, nil }

func (t ticks) Load(_ context.Context, q markers.Query) (rows []int64, err error) {
	for _, ts := range t {
		if ts >= q.From && ts <= q.To {
			rows = append(rows, ts)
		}
	}
	return rows, nil
}

func Example() {
	ctx, disk := context.Background(), vfs.NewMem(vfs.MemOptions{})
	run, err := runlog.Open(ctx, runlog.Options{Dir: "/runs", Instance: "engine-1", FS: disk})
	if err != nil {
		log.Fatal(err)
	}
	m, err := markers.New(run, markers.Options{})
	if err != nil {
		log.Fatal(err)
	}
	quotes, err := m.Stream("quote", "BTCUSDT.BINANCE")
	if err != nil {
		log.Fatal(err)
	}
	// The engine's thread: count each message of market data, and submit through the markers.
	quotes.Observe(1001)
	quotes.Observe(1002)
	seq, err := m.Submit(runlog.Draft{Topic: "exec.command", Type: "SubmitOrder", Payload: []byte("buy 100 at 42.50")})
	if err != nil {
		log.Fatal(err)
	}
	quotes.Observe(1003)
	// At the end: the markers first.
	if err := m.Close(ctx); err != nil {
		log.Fatal(err)
	}
	if err := run.Close(ctx); err != nil {
		log.Fatal(err)
	}

	// Years later: what had the engine seen when it made that entry?
	r, err := runlog.OpenReader(run.Dir(), runlog.ReaderOptions{FS: disk})
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	j, err := markers.JoinAt(ctx, markers.Open(r), seq, ticks{999, 1001, 1002, 1003})
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range j.Streams {
		fmt.Printf("%s %s: %d messages, the rows %d; missing: %s\n", s.Class, s.ID, s.Count, s.Rows, j.State.Loss)
	}
	// Output: quote BTCUSDT.BINANCE: 2 messages, the rows [1001 1002]; missing: none
}
