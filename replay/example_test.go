package replay_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/anchor"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/replay"
	"github.com/runlog-io/runlog/vfs"
)

// Tally is an engine whose state is one number.
type Tally struct {
	*replay.Registry // Apply, by payload type
	total            uint64
}

// NewTally registers what the engine does with each payload type.
func NewTally() *Tally {
	t := &Tally{Registry: replay.NewRegistry()}
	decode := func(v *entry.View) (uint64, error) {
		n, size := binary.Uvarint(v.Payload())
		if size <= 0 {
			return 0, io.ErrUnexpectedEOF
		}
		return n, nil
	}
	if err := replay.On(t.Registry, "Add", decode, t.add); err != nil {
		log.Fatal(err)
	}
	if err := t.ForensicOnly("Remark"); err != nil { // for people; never changes the state
		log.Fatal(err)
	}
	return t
}

func (t *Tally) add(n uint64) error { t.total += n; return nil }

// Reset forgets everything.
func (t *Tally) Reset(context.Context) error { t.total = 0; return nil }

// Snapshot is the whole state; Restore reads it.
func (t *Tally) Snapshot() []byte { return binary.LittleEndian.AppendUint64(nil, t.total) }

// Restore replaces the state.
func (t *Tally) Restore(_ context.Context, _ anchor.Anchor, snapshot io.Reader) error {
	b, err := io.ReadAll(snapshot) // checked against the anchor's SHA-256 on the way
	if err == nil && len(b) != 8 {
		err = fmt.Errorf("a snapshot of %d bytes", len(b))
	}
	if err != nil {
		return err
	}
	t.total = binary.LittleEndian.Uint64(b)
	return nil
}

// AppendStateHash makes divergences visible. It must cover everything that later entries could depend on.
func (t *Tally) AppendStateHash(dst []byte) ([]byte, error) {
	return binary.LittleEndian.AppendUint64(dst, t.total), nil
}

// start opens a run and brings the engine to where the log ends.
func start(ctx context.Context, dir string) (*runlog.Run, *Tally, *anchor.DirStore, *replay.Report, error) {
	run, err := runlog.Open(ctx, runlog.Options{Dir: dir, Instance: "tally"})
	if err != nil {
		return nil, nil, nil, nil, err
	}
	store, err := anchor.NewDirStore(vfs.OS, filepath.Join(dir, "tally", "snapshots"), nil)
	if err != nil {
		return run, nil, nil, nil, err
	}
	parents, err := run.Parents()
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // retention removes old runs; Restore says if one of them is needed
		return run, nil, nil, nil, err
	}
	engine := NewTally()
	report, err := replay.Restore(ctx, parents, engine, replay.Options{Store: store})
	if err != nil {
		_ = run.Abandon(ctx, err) // the next start finds the same chain again
	}
	return run, engine, store, report, err
}

func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "replay")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	run, engine, store, _, err := start(ctx, dir)
	if err != nil {
		log.Fatal(err)
	}
	var covers uint64
	for n := range uint64(10) {
		seq, err := run.Submit(runlog.Draft{Topic: "tally", Type: "Add", Payload: binary.AppendUvarint(nil, n)})
		if err != nil {
			log.Fatal(err)
		}
		_ = engine.add(n)
		covers = seq
		if n == 6 {
			// On the engine's thread: a copy of the state, and the seq up to which it goes.
			snapshot := engine.Snapshot()
			hash, _ := engine.AppendStateHash(nil)
			if err := run.StateHash(covers, hash); err != nil {
				log.Fatal(err)
			}
			// On another goroutine, in a real engine: it waits for the disk.
			if _, err := run.Anchor(ctx, covers, store, bytes.NewReader(snapshot)); err != nil {
				log.Fatal(err)
			}
		}
	}
	if err := run.WaitDurable(ctx, covers); err != nil {
		log.Fatal(err)
	}
	if err := run.Abandon(ctx, io.EOF); err != nil { // as good as a crash
		log.Fatal(err)
	}

	run, engine, _, report, err := start(ctx, dir)
	if err != nil {
		log.Fatal(err)
	}
	defer run.Close(ctx)
	fmt.Printf("total %d: a snapshot that covers seq %d, and %d entries behind it\n", engine.total, report.Plan.Anchor.Covers, report.Applied)
	fmt.Printf("state hashes compared, and equal: %d\n", report.HashesEqual)

	// Which entry is it that a new version of the engine handles in another way?
	parents, err := run.Parents()
	if err != nil {
		log.Fatal(err)
	}
	split, err := replay.Bisect(ctx, parents, NewTally(), &careless{NewTally()}, replay.BisectOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("the new version differs from seq %d on\n", split.At.Seq)

	// Output:
	// total 45: a snapshot that covers seq 8, and 3 entries behind it
	// state hashes compared, and equal: 1
	// the new version differs from seq 7 on
}

// careless is the new version: it does not add fives.
type careless struct{ *Tally }

func (c *careless) Apply(v *entry.View) (bool, error) {
	if bytes.Equal(v.Payload(), []byte{5}) {
		return true, nil
	}
	return c.Tally.Apply(v)
}
