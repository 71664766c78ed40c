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
	"testing"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
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
	acks map[uint64]uint64
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

// intact checks a recovered run against what was acknowledged: every entry is one that was submitted, none is there
// twice, the seqs have no gap, and each acknowledged seq holds what was acknowledged.
func (k *killed) intact(r *runlog.Reader) (n uint64, err error) {
	seen := map[uint64]bool{}
	for v, err := range r.Scan(runlog.ScanOptions{}) {
		if err != nil {
			return n, err
		}
		got := v.Clone()
		if n++; got.Seq != n {
			return n, fmt.Errorf("seq %d follows seq %d", got.Seq, n-1)
		}
		if n == 1 {
			if got.Topic != entry.TopicStarted {
				return n, fmt.Errorf("the first entry is %s", got.Topic)
			}
			continue
		}
		id := binary.LittleEndian.Uint64(got.Payload)
		want := entryOf(made(id))
		if err := same(&got, &want); err != nil || seen[id] {
			return n, fmt.Errorf("seq %d, entry %#x (there before: %v): %w", n, id, seen[id], err)
		}
		seen[id] = true
		if acked, ok := k.acks[n]; ok && acked != id {
			return n, fmt.Errorf("seq %d was acknowledged with entry %#x and holds %#x", n, acked, id)
		}
	}
	for seq, id := range k.acks {
		if seq > n {
			return n, fmt.Errorf("seq %d was acknowledged, the run ends at %d", seq, n)
		}
		if seq%97 == 0 {
			got, ok, err := r.Lookup(runlog.ClientOrderID, fmt.Sprintf("O-%d", id))
			if err != nil || !ok || got != seq {
				return n, fmt.Errorf("lookup of entry %#x: seq %d, %v, %w; want %d", id, got, ok, err, seq)
			}
		}
	}
	return n, errors.Join(append(r.Warnings(), r.Damage())...)
}

func TestKilledProcessesLoseNothingAcknowledged(t *testing.T) {
	kills := 110
	if raceEnabled {
		kills = 12
	}
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 4))
	started := time.Now()
	var all []killed
	for i := range kills {
		after := time.Duration(r.Int64N(int64(80 * time.Millisecond)))
		all = append(all, runAndKill(t, dir, after, i%4 > 0))
	}
	took := time.Since(started)

	run, err := runlog.Open(context.Background(), killOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close(context.Background())
	status := map[string]runlog.Predecessor{}
	for _, p := range run.Predecessors() {
		status[p.Run] = p
		if p.Err != nil || p.Status != runlog.CrashedRecovered {
			t.Errorf("run %s is %s: %v", p.Run, p.Status, p.Err)
		}
	}
	parents, err := run.Parents()
	if err != nil {
		t.Fatal(err)
	}
	inChain := map[string]bool{}
	for _, p := range parents {
		inChain[p.Manifest().Run] = true
	}
	var acked, entries, segments, opened int
	for i := range all {
		k := &all[i]
		if k.run == "" {
			continue
		}
		opened++
		p, known := status[k.run]
		if !known || p.LastSeq > 1 && !inChain[k.run] {
			t.Errorf("run %s: among the predecessors: %v, in the chain of parents: %v", k.run, known, inChain[k.run])
			continue
		}
		reader, err := runlog.OpenReader(filepath.Join(dir, "killed", k.run), runlog.ReaderOptions{})
		if err != nil {
			t.Error(err)
			continue
		}
		n, err := k.intact(reader)
		if err != nil || n != p.LastSeq {
			t.Errorf("run %s: %d entries, boot said %d: %v", k.run, n, p.LastSeq, err)
		}
		segments += int(reader.Manifest().Segments)
		acked += len(k.acks)
		entries += int(n)
		_ = reader.Close()
	}
	t.Logf("%d kills in %v (%.1f a second), %d runs were open by then; %d entries acknowledged, %d recovered, %d segments",
		kills, took.Round(time.Millisecond), float64(kills)/took.Seconds(), opened, acked, entries, segments)
	if opened < kills/2 || acked == 0 {
		t.Errorf("only %d of %d children got as far as to write", opened, kills)
	}
}
