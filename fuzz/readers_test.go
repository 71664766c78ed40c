package fuzz

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/fuzz/oracle"
	"github.com/runlog-io/runlog/vfs"
)

// What the writer of this row submits follows from the seq, so that each reader can tell by itself.

const orders = 61 // different keys

func numbered(seq uint64) runlog.Draft {
	payload := make([]byte, 40+seq*seq%300)
	for i := 0; i+8 <= len(payload); i += 8 {
		binary.LittleEndian.PutUint64(payload[i:], (seq+uint64(i))*0x9e3779b97f4a7c15)
	}
	return runlog.Draft{
		Topic: fmt.Sprintf("topic-%d", seq%7), Type: "T", TsInit: int64(seq), ID: runlog.ID{byte(seq), byte(seq >> 8), 1},
		Keys: []runlog.Key{{Kind: runlog.ClientOrderID, Value: order(seq)}}, Payload: payload,
	}
}

func order(seq uint64) string { return fmt.Sprintf("O-%d", seq%orders) }

// checked says what is wrong with an entry that should have this seq.
func checked(v runlog.View, seq uint64) error {
	if v.Seq() != seq {
		return oracle.False("seq %d where %d should be", v.Seq(), seq)
	}
	got := v.Clone()
	if got.IsLifecycle() {
		return nil // the first and the last
	}
	want := oracle.EntryOf(numbered(seq))
	if got.Topic != want.Topic || got.TsInit != want.TsInit || got.ID != want.ID || !bytes.Equal(got.Payload, want.Payload) ||
		!slices.Equal(got.Keys, want.Keys) {
		return oracle.False("seq %d holds something else", seq)
	}
	return nil
}

// busy is a run that is written as fast as it can be, with small segments, while it is read.
type busy struct {
	run     *runlog.Run
	fs      vfs.FS
	total   uint64 // entries, RunStarted and RunEnded included
	read    atomic.Int64
	tails   sync.WaitGroup // those through the Run that have not caught up yet, and what else Close waits for
	closing atomic.Bool
	over    chan struct{} // closed when the writer is done
}

// readers lets readers of every kind go beside a writer that rotates and seals all the time. A case is an entry read.
func readers(c *matrix.Cases, dir string, fsys vfs.FS) error {
	return readersBeside(c, runlog.Options{
		Dir: dir, Instance: "busy", FS: fsys, SegmentBytes: 64 << 10, CommitDelay: 100 * time.Microsecond,
		WarnAfter: -1, HaltAfter: -1,
	}, nil)
}

// readersBeside is readers, with any options, and with more work beside, for which Close waits.
func readersBeside(c *matrix.Cases, o runlog.Options, more func(context.Context, *busy) error) error {
	run, err := runlog.Open(context.Background(), o)
	if err != nil {
		return err
	}
	b := &busy{run: run, fs: o.FS, total: 1500, over: make(chan struct{})}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	b.tails.Add(2)
	jobs := []struct {
		name string
		do   func(context.Context, *rand.Rand) error
	}{
		{"writer", b.write}, {"scan", b.scan}, {"get", b.get}, {"look-up", b.lookUp}, {"outside", b.outside},
		{"tail of durable entries", b.tail(runlog.Durable)}, {"tail of written entries", b.tail(runlog.Written)},
		{"tail from outside", b.tailOutside},
	}
	if more != nil {
		b.tails.Add(1)
		jobs = append(jobs, struct {
			name string
			do   func(context.Context, *rand.Rand) error
		}{"beside", func(ctx context.Context, _ *rand.Rand) error {
			defer b.tails.Done()
			return more(ctx, b)
		}})
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var found error
	for i, job := range jobs {
		r := rand.New(rand.NewPCG(c.Seed, uint64(i)))
		wg.Go(func() {
			if err := job.do(ctx, r); err != nil {
				mu.Lock()
				defer mu.Unlock()
				found = errors.Join(found, fmt.Errorf("%s: %w", job.name, err))
				cancel()
			}
		})
	}
	wg.Wait()
	for range b.read.Load() {
		if !c.Next() {
			break
		}
	}
	return found
}

func (b *busy) write(ctx context.Context, r *rand.Rand) error {
	defer close(b.over)
	for seq := uint64(2); seq < b.total; seq++ {
		got, err := b.run.Submit(numbered(seq))
		if err != nil || got != seq {
			return fmt.Errorf("submit gave seq %d, want %d: %w", got, seq, err)
		}
		if r.IntN(50) == 0 {
			if err := b.run.WaitDurable(ctx, seq); err != nil {
				return err
			}
		}
	}
	if err := b.run.WaitDurable(ctx, b.total-1); err != nil {
		return err
	}
	b.tails.Wait() // Close lets go of the files
	b.closing.Store(true)
	return b.run.Close(ctx)
}

// again runs a pass over and over until the writer is done, and once after that. What reads through the Run ends when
// that is closed.
func (b *busy) again(ctx context.Context, pass func() error) error {
	for last := false; ; {
		err := pass()
		if errors.Is(err, runlog.ErrClosed) && b.closing.Load() {
			return nil
		}
		if err != nil || last {
			return err
		}
		select {
		case <-b.over:
			last = true
		case <-ctx.Done():
			return nil // another one has failed
		default:
		}
	}
}

// contiguous reads entries that must begin at seq from, and reach seq least.
func (b *busy) contiguous(entries iter.Seq2[runlog.View, error], from, least uint64) error {
	seq := from
	for v, err := range entries {
		if err != nil {
			return fmt.Errorf("behind seq %d: %w", seq-1, err)
		}
		if err := checked(v, seq); err != nil {
			return err
		}
		seq++
	}
	b.read.Add(int64(seq - from))
	if seq <= least {
		return oracle.False("it ended at seq %d, %d was there before", seq-1, least)
	}
	return nil
}

func (b *busy) scan(ctx context.Context, r *rand.Rand) error {
	return b.again(ctx, func() error {
		least := b.run.Durable()
		from := 1 + r.Uint64N(least)
		return b.contiguous(b.run.Scan(runlog.ScanOptions{From: from}), from, least)
	})
}

func (b *busy) get(ctx context.Context, r *rand.Rand) error {
	buf := &runlog.Buffer{}
	return b.again(ctx, func() error {
		seq := 1 + r.Uint64N(b.run.Durable())
		v, err := b.run.Get(seq, buf)
		if err != nil {
			return fmt.Errorf("seq %d: %w", seq, err)
		}
		b.read.Add(1)
		return checked(v, seq)
	})
}

func (b *busy) lookUp(ctx context.Context, r *rand.Rand) error {
	return b.again(ctx, func() error {
		least := b.run.Durable()
		want := 2 + r.Uint64N(orders) // the first one with its key
		if want > least || want >= b.total {
			return nil
		}
		got, ok, err := b.run.Lookup(runlog.ClientOrderID, order(want))
		if err != nil {
			return err
		}
		if !ok || got != want {
			return oracle.False("look-up gave %d, %v, want %d", got, ok, want)
		}
		seq := want
		for v, err := range b.run.History(runlog.ClientOrderID, order(want)) {
			if err != nil {
				return err
			}
			if err := checked(v, seq); err != nil {
				return fmt.Errorf("history: %w", err)
			}
			b.read.Add(1)
			seq += orders
		}
		if seq <= min(least, b.total-1) {
			return oracle.False("history ended before seq %d, %d was durable", seq, least)
		}
		return nil
	})
}

// outside opens the run's folder as another process would.
func (b *busy) outside(ctx context.Context, _ *rand.Rand) error {
	return b.again(ctx, func() error {
		least := b.run.Durable()
		reader, err := runlog.OpenReader(b.run.Dir(), runlog.ReaderOptions{FS: b.fs})
		if err != nil {
			return err
		}
		defer reader.Close()
		if err := b.contiguous(reader.Scan(runlog.ScanOptions{}), 1, least); err != nil {
			return err
		}
		return reader.Damage()
	})
}

// tail follows the run until it is closed.
func (b *busy) tail(level runlog.Level) func(context.Context, *rand.Rand) error {
	return func(ctx context.Context, _ *rand.Rand) error {
		caughtUp := sync.OnceFunc(b.tails.Done)
		defer caughtUp()
		tail := b.run.Tail(ctx, runlog.TailOptions{Level: level})
		return b.contiguous(func(yield func(runlog.View, error) bool) {
			for v, err := range tail {
				if errors.Is(err, runlog.ErrClosed) && b.closing.Load() || !yield(v, err) {
					return
				}
				if v.Seq() == b.total-1 {
					caughtUp()
				}
			}
		}, 1, b.total-1)
	}
}

func (b *busy) tailOutside(ctx context.Context, _ *rand.Rand) error {
	reader, err := runlog.OpenReader(b.run.Dir(), runlog.ReaderOptions{FS: b.fs})
	if err != nil {
		return err
	}
	defer reader.Close()
	return b.contiguous(reader.Tail(ctx, runlog.TailOptions{Level: runlog.Written}), 1, b.total)
}

func TestReadersSeeEveryEntryOnceBesideTheWriter(t *testing.T) {
	matrix.Run(t, "readers", func(c *matrix.Cases) error {
		if err := readers(c, t.TempDir(), vfs.OS); err != nil {
			return fmt.Errorf("on files: %w", err)
		}
		if err := readers(c, "/base", vfs.NewMem(vfs.MemOptions{})); err != nil {
			return fmt.Errorf("in memory: %w", err)
		}
		return nil
	}, matrix.Workers(1))
}
