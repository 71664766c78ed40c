package fuzz

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/fuzz/oracle"
	"github.com/runlog-io/runlog/vfs"
)

const childEnv = "RUNLOG_FUZZ_CHILD" // the base folder; set in the process that is going to be killed

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := load(dir, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	debug.SetGCPercent(400) // thousands of small worlds
	os.Exit(m.Run())
}

// Each record on the pipe is three words: what, and two numbers.
const (
	recRun = iota + 1 // Open has returned: the 35 bytes of the run's id follow
	recAck            // seq, and what it holds
)

func put(w io.Writer, what, a, b uint64, text string) {
	rec := binary.LittleEndian.AppendUint64(nil, what)
	rec = binary.LittleEndian.AppendUint64(rec, a)
	rec = binary.LittleEndian.AppendUint64(rec, b)
	_, _ = w.Write(append(rec, text...)) // one write, so that a kill cannot mix records
}

func killOptions(dir string) runlog.Options {
	return runlog.Options{
		Dir: dir, Instance: "killed", SegmentBytes: 64 << 10, FirstSegmentBytes: 64 << 10, MaxPayload: 8 << 10,
		HaltAfter: -1, WarnAfter: -1, IdleMark: 3 * time.Millisecond,
	}
}

// made is entry number n of producer p; everything in it follows from the two.
func made(id uint64) runlog.Draft {
	r := rand.New(rand.NewPCG(id, 3))
	payload := binary.LittleEndian.AppendUint64(nil, id)
	size := r.IntN(300)
	if r.IntN(50) == 0 {
		size = r.IntN(8 << 10)
	}
	for len(payload) < size {
		payload = append(payload, byte(r.Uint32()))
	}
	return runlog.Draft{
		Topic: fmt.Sprintf("orders.%d", id>>32), Type: "Order", TsInit: int64(id), Payload: payload,
		Keys: []runlog.Key{{Kind: runlog.ClientOrderID, Value: fmt.Sprintf("O-%d", id)}},
	}
}

// load is the child: three goroutines that wait for each entry, and one that streams, until somebody kills it.
func load(dir string, w io.Writer) error {
	run, err := runlog.Open(context.Background(), killOptions(dir))
	if err != nil {
		return err
	}
	put(w, recRun, 0, 0, run.ID())
	var wg sync.WaitGroup
	for p := range uint64(3) {
		wg.Go(func() {
			for n := uint64(0); ; n++ {
				id := p<<32 | n
				seq, err := run.Append(context.Background(), made(id))
				if err != nil {
					panic(err)
				}
				put(w, recAck, seq, id, "")
			}
		})
	}
	var seqs, ids []uint64
	for n := uint64(0); ; n++ {
		id := 3<<32 | n
		seq, err := run.Submit(made(id))
		if err != nil {
			return err
		}
		if seqs, ids = append(seqs, seq), append(ids, id); n%50 == 49 {
			if err := run.WaitDurable(context.Background(), seq); err != nil {
				return err
			}
			for i := range seqs {
				put(w, recAck, seqs[i], ids[i], "")
			}
			seqs, ids = seqs[:0], ids[:0]
			time.Sleep(time.Duration(n%7) * time.Millisecond) // now and then an idle moment, so that there are marks
		}
	}
}

// killed is what the parent knows of a child that was killed: its run, if Open had returned, and what was acknowledged.
type killed struct {
	run  string
	acks map[uint64]uint64 // seq to what it holds
}

// want returns what should be at a seq: what was acknowledged there, or else what the entry itself claims to be, if it
// is not there twice.
func (k *killed) want() func(got *runlog.Entry) (runlog.Entry, error) {
	seen := map[uint64]uint64{}
	return func(got *runlog.Entry) (runlog.Entry, error) {
		if got.Seq == 1 {
			return oracle.Started, nil
		}
		id, acked := k.acks[got.Seq]
		if !acked {
			if len(got.Payload) < 8 {
				return runlog.Entry{}, errors.New("nobody submitted it")
			}
			id = binary.LittleEndian.Uint64(got.Payload)
		}
		if at, twice := seen[id]; twice && at != got.Seq {
			return runlog.Entry{}, fmt.Errorf("entry %#x is at seq %d too", id, at)
		}
		seen[id] = got.Seq
		return oracle.EntryOf(made(id)), nil
	}
}

// acked is the highest seq that was acknowledged.
func (k *killed) acked() (n uint64) {
	for seq := range k.acks {
		n = max(n, seq)
	}
	return n
}

// runAndKill starts a child and kills it after some time: since its start, or, if opened is set, since its Open has
// returned.
func runAndKill(t *testing.T, dir string, after time.Duration, opened bool) killed {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	wait := after
	if opened {
		wait = time.Minute
	}
	timer := time.AfterFunc(wait, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	k := killed{acks: map[uint64]uint64{}}
	in := bufio.NewReader(out)
	for rec := make([]byte, 24); ; {
		if _, err := io.ReadFull(in, rec); err != nil {
			break
		}
		a, b := binary.LittleEndian.Uint64(rec[8:]), binary.LittleEndian.Uint64(rec[16:])
		if binary.LittleEndian.Uint64(rec) == recRun {
			id := make([]byte, 35)
			if _, err := io.ReadFull(in, id); err != nil {
				break
			}
			k.run = string(id)
			if opened {
				timer.Reset(after)
			}
			continue
		}
		k.acks[a] = b
	}
	_ = cmd.Wait()
	if stderr.Len() > 0 {
		t.Fatalf("the child failed by itself: %s", stderr.Bytes())
	}
	return k
}

// TestKilledProcessesLoseNothingAcknowledged kills children one after the other, each of which recovers what the one before has left. At the
// end the oracle judges all runs.
func TestKilledProcessesLoseNothingAcknowledged(t *testing.T) {
	var acked, opened atomic.Int64
	matrix.Run(t, "kill", func(c *matrix.Cases) error {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			return err
		}
		r := rand.New(rand.NewPCG(c.Seed, 4))
		var h oracle.History
		last := killed{}
		for range 25 {
			if !c.Next() {
				break
			}
			k := runAndKill(t, dir, time.Duration(r.Int64N(int64(80*time.Millisecond))), c.N()%4 > 0)
			if k.run != "" {
				opened.Add(1)
				acked.Add(int64(len(k.acks)))
				h.Promise(k.run, k.want(), k.acked())
				last = k
			}
		}
		o := killOptions(dir)
		if err := h.Judge(vfs.OS, o, 1, nil); err != nil || last.run == "" {
			return err
		}
		return last.findable(filepath.Join(dir, o.Instance, last.run))
	}, matrix.Workers(2), matrix.Detail(func() string {
		return fmt.Sprintf("%d runs opened, %d entries acknowledged", opened.Load(), acked.Load())
	}))
	if opened.Load() == 0 || acked.Load() == 0 {
		t.Errorf("%d children got as far as to write, %d entries were acknowledged", opened.Load(), acked.Load())
	}
}

// findable looks acknowledged entries up by their keys.
func (k *killed) findable(dir string) error {
	r, err := runlog.OpenReader(dir, runlog.ReaderOptions{})
	if err != nil {
		return err
	}
	defer r.Close()
	for seq, id := range k.acks {
		if seq%17 > 0 {
			continue
		}
		got, ok, err := r.Lookup(runlog.ClientOrderID, fmt.Sprintf("O-%d", id))
		if err != nil || !ok || got != seq {
			return fmt.Errorf("lookup of entry %#x: seq %d, %v, %w; want %d", id, got, ok, err, seq)
		}
	}
	return nil
}
