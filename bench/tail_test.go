package bench

import (
	"context"
	"encoding/binary"
	"encoding/gob"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/runlog-io/runlog"
)

// How soon does a follower see an entry, and does it keep up?

// tailRate is what BenchmarkTailSeen submits at: entries/s that neither side has trouble with.
const tailRate = 10_000

// BenchmarkTailSeen submits at a fixed rate, and measures from just before an entry is accepted until a follower has it: in
// this process, woken by the writer, or in another one, which knows nothing but the files, and polls.
func BenchmarkTailSeen(b *testing.B) {
	for _, level := range levels {
		b.Run("same-process/"+level.name, func(b *testing.B) { tailSeen(b, level.level, followHere) })
	}
	for _, level := range levels {
		b.Run("other-process/"+level.name, func(b *testing.B) { tailSeen(b, level.level, followThere) })
	}
}

var levels = []struct {
	name  string
	level runlog.Level
}{{"durable", runlog.Durable}, {"written", runlog.Written}}

// follower is one that has begun to read. Once the run is closed, end returns how late it saw each stamped entry.
type follower struct{ end func() *histogram }

func tailSeen(b *testing.B, level runlog.Level, begin func(b *testing.B, run *runlog.Run, level runlog.Level) follower) {
	f, total := newFlow(payloadBytes, false), &histogram{}
	b.ReportAllocs()
	b.StopTimer()
	b.ResetTimer()
	for left := b.N; left > 0; {
		n := min(left, entryLimit())
		left -= n
		run := open(b, runlog.Options{})
		seen := begin(b, run, level)
		b.StartTimer()
		paced(tailRate, n, true, &histogram{}, func() {
			d := f.next()
			d.Topic = stampedTopic
			binary.LittleEndian.PutUint64(d.Payload, uint64(time.Now().UnixNano()))
			if _, err := run.Submit(d); err != nil {
				b.Error(err)
			}
		})
		b.StopTimer()
		closeRun(b, run)
		h := seen.end()
		if h.n != uint64(n) {
			b.Fatalf("the follower saw %d of %d entries", h.n, n)
		}
		total.merge(h)
	}
	total.report(b)
}

// stampedTopic marks entries that begin with the wall time at which they were submitted: the one clock that both processes
// have.
const stampedTopic = "bench.stamped"

// watch follows a run to its end. It calls ready once it has read what was there at the beginning.
func watch(r *runlog.Reader, level runlog.Level, ready func()) (*histogram, error) {
	h := &histogram{}
	for v, err := range r.Tail(context.Background(), runlog.TailOptions{Level: level}) {
		switch {
		case err != nil:
			return nil, err
		case v.Topic() == stampedTopic:
			h.add(time.Now().UnixNano() - int64(binary.LittleEndian.Uint64(v.Payload())))
		case v.Seq() == 1:
			ready()
		}
	}
	return h, nil
}

func followHere(b *testing.B, run *runlog.Run, level runlog.Level) follower {
	ready, done := make(chan struct{}), make(chan *histogram, 1)
	go func() {
		h, err := watch(run.Reader(), level, func() { close(ready) })
		if err != nil {
			b.Error(err)
			h = &histogram{}
		}
		done <- h
	}()
	<-ready
	return follower{func() *histogram { return <-done }}
}

// followEnv names the run that this process is to follow, with the level behind it, instead of running tests.
const followEnv = "RUNLOG_BENCH_FOLLOW"

func followThere(b *testing.B, run *runlog.Run, level runlog.Level) follower {
	self, err := os.Executable()
	check(b, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d:%s", followEnv, level, run.Dir()))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	check(b, err)
	check(b, cmd.Start())
	b.Cleanup(func() {
		_ = cmd.Process.Kill() // a benchmark that failed leaves none behind; Wait has reaped one that ended
	})
	in := gob.NewDecoder(out)
	var begun bool
	check(b, in.Decode(&begun))
	return follower{func() *histogram {
		var said struct {
			Counts []uint64
			Max    int64
		}
		check(b, in.Decode(&said))
		check(b, cmd.Wait())
		h := &histogram{max: said.Max}
		copy(h.counts[:], said.Counts)
		for _, c := range said.Counts {
			h.n += c
		}
		return h
	}}
}

// followAlone is the other process. It does not return.
func followAlone(spec string) {
	out := gob.NewEncoder(os.Stdout)
	number, dir, _ := strings.Cut(spec, ":")
	level := runlog.Durable
	if number == fmt.Sprint(runlog.Written) {
		level = runlog.Written
	}
	r, err := runlog.OpenReader(dir, runlog.ReaderOptions{})
	if err == nil {
		var h *histogram
		if h, err = watch(r, level, func() { _ = out.Encode(true) }); err == nil {
			err = out.Encode(struct {
				Counts []uint64
				Max    int64
			}{h.counts[:], h.max})
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "follower:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// BenchmarkTailStream streams while a follower in the same process reads along, until it has the last entry.
func BenchmarkTailStream(b *testing.B) { tailStream(b, false) }

// BenchmarkTailStreamFiles is the same with a reader of the files alone.
func BenchmarkTailStreamFiles(b *testing.B) { tailStream(b, true) }

func tailStream(b *testing.B, files bool) {
	f := newFlow(payloadBytes, false)
	inRuns(b, runlog.Options{}, entryLimit(), func(run *runlog.Run, n int) {
		warm(b, run)
		last := run.Accepted() + uint64(n)
		seen, stop := follow(b, run, files, run.Accepted()+1)
		b.StartTimer()
		go func() {
			for range n {
				if _, err := run.Submit(f.next()); err != nil {
					b.Error(err)
					return
				}
			}
			run.Flush()
		}()
		for got := range seen {
			if got == last {
				break
			}
		}
		b.StopTimer()
		stop()
	})
	perSecond(b, b.N, "entries")
}

// follow tails the run from seq on, on its own goroutine, and sends the seqs. stop ends it.
func follow(b *testing.B, run *runlog.Run, files bool, from uint64) (seen <-chan uint64, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	tail := run.Tail
	reader := run.Reader()
	if files {
		var err error
		reader, err = runlog.OpenReader(run.Dir(), runlog.ReaderOptions{})
		check(b, err)
		tail = reader.Tail
	}
	ch, done := make(chan uint64, 4096), make(chan struct{})
	go func() {
		defer close(done)
		defer close(ch)
		for v, err := range tail(ctx, runlog.TailOptions{From: from}) {
			if err != nil {
				if ctx.Err() == nil {
					b.Error(err)
				}
				return
			}
			select {
			case ch <- v.Seq():
			case <-ctx.Done():
				return
			}
		}
	}()
	return ch, func() {
		cancel()
		for range ch { // lets a blocked sender go
		}
		<-done
		if files {
			check(b, reader.Close())
		}
	}
}
