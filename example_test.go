package runlog_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/runlog-io/runlog"
)

func Example() {
	dir, _ := os.MkdirTemp("", "runlog")
	defer os.RemoveAll(dir)
	ctx := context.Background()

	run, err := runlog.Open(ctx, runlog.Options{Dir: dir, Instance: "engine-1"})
	if err != nil {
		log.Fatal(err)
	}
	defer run.Close(ctx)
	// A run that is damaged stops no Open; whether to go on without what it holds is not for the log to decide.
	for _, p := range run.Predecessors() {
		if p.Err != nil {
			log.Fatalf("run %s cannot be used: %v", p.Run, p.Err)
		}
	}
	// Log the message before any handler sees it. This returns at once; an error means that the engine must stop.
	seq, err := run.Submit(runlog.Draft{
		Topic: "exec.command", Type: "SubmitOrder", Payload: []byte("buy 100 at 42.50"),
		Keys: []runlog.Key{{Kind: runlog.ClientOrderID, Value: "O-1"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	// Handle it, and let nothing leave the engine before the message is durable. (A Gate holds many, without waiting.)
	if err := run.WaitDurable(ctx, seq); err != nil {
		log.Fatal(err)
	}
	fmt.Println("to the venue: new order O-1")
	for entry, err := range run.History(runlog.ClientOrderID, "O-1") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("seq %d: %s, %s\n", entry.Seq(), entry.Type(), entry.Payload())
	}
	// Output:
	// to the venue: new order O-1
	// seq 2: SubmitOrder, buy 100 at 42.50
}
