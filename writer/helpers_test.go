package writer_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
	"github.com/runlog-io/runlog/writer"
)

// off switches a duration or threshold off.
const off = -1

// rig is a writer on a real log on a disk in memory, with a probe in between.
type rig struct {
	*writer.Writer
	t   testing.TB
	mem *vfs.Mem
	log *probe
	dir string
}

// probe counts and can hold up or fail what the writer asks of the log.
type probe struct {
	*wal.Log

	mu      sync.Mutex
	appends [][2]uint64 // first and last seq
	calls   map[string]int
	hook    func(call string) error
	fails   []manifest.Halt
}

func (p *probe) enter(call string) error {
	p.mu.Lock()
	p.calls[call]++
	hook := p.hook
	p.mu.Unlock()
	if hook != nil {
		return hook(call)
	}
	return nil
}

func (p *probe) setHook(hook func(call string) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hook = hook
}

func (p *probe) count(call string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[call]
}

func (p *probe) batches() [][2]uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([][2]uint64(nil), p.appends...)
}

func (p *probe) Append(b *entry.Batch, from, to int, firstSeq uint64) error {
	if err := p.enter("append"); err != nil {
		return err
	}
	p.mu.Lock()
	p.appends = append(p.appends, [2]uint64{firstSeq, firstSeq + uint64(to-from) - 1})
	p.mu.Unlock()
	return p.Log.Append(b, from, to, firstSeq)
}

func (p *probe) Sync() error {
	if err := p.enter("sync"); err != nil {
		return err
	}
	return p.Log.Sync()
}

func (p *probe) Mark() error {
	if err := p.enter("mark"); err != nil {
		return err
	}
	return p.Log.Mark()
}

func (p *probe) Seal(s manifest.Status) error {
	if err := p.enter("seal"); err != nil {
		return err
	}
	return p.Log.Seal(s)
}

func (p *probe) Fail(h manifest.Halt) error {
	if err := p.enter("fail"); err != nil {
		return err
	}
	p.mu.Lock()
	p.fails = append(p.fails, h)
	p.mu.Unlock()
	return p.Log.Fail(h)
}

type fixedClock int64

func (c fixedClock) Now() int64 { return int64(c) }

// counter is a source of salts that repeats itself.
func counter(seed uint64) func() uint64 {
	return func() uint64 {
		seed = seed*6364136223846793005 + 1442695040888963407
		return seed
	}
}

func newRig(t testing.TB, o writer.Options) *rig {
	return newRigOn(t, vfs.NewMem(vfs.MemOptions{}), wal.Options{}, o)
}

func newRigOn(t testing.TB, mem *vfs.Mem, lo wal.Options, o writer.Options) *rig {
	t.Helper()
	id := manifest.NewRunID(1_700_000_000_000_000_000, "", 7)
	lo.FS, lo.Dir, lo.Inline = mem, "/base/engine/"+id, o.Synchronous || o.Manual
	if lo.FirstBytes == 0 {
		lo.FirstBytes = 256 << 10
	}
	lo.NoSync = o.Sync == writer.SyncNever
	if lo.Clock = o.Clock; lo.Clock == nil {
		lo.Clock = writer.NewSystemClock()
	}
	lo.Manifest.Identity = manifest.Identity{Run: id, Instance: "engine", Origin: manifest.OriginEngine}
	must(t, mem.MkdirAll("/base/engine"))
	log, err := wal.Create(lo)
	must(t, err)
	p := &probe{Log: log, calls: map[string]int{}}
	w, err := writer.New(p, 0, log.MaxBatchBytes(), o)
	must(t, err)
	t.Cleanup(func() { // nothing may be left in a bubble
		_ = w.Close(context.Background(), nil)
		log.Quiesce()
	})
	r := &rig{Writer: w, t: t, mem: mem, log: p, dir: lo.Dir}
	r.settle()
	return r
}

// hang holds up the calls of one kind until release is called.
func (r *rig) hang(call string) (release func()) {
	gate := make(chan struct{})
	r.log.setHook(func(c string) error {
		if c == call {
			<-gate
		}
		return nil
	})
	release = sync.OnceFunc(func() {
		r.log.setHook(nil)
		close(gate)
	})
	r.t.Cleanup(release)
	return release
}

// settle lets the writer's goroutine come to rest between two looks, so that what a bubble submits next is one batch.
func (r *rig) settle() { time.Sleep(500 * time.Microsecond) }

func (r *rig) submit(n int) (last uint64) {
	r.t.Helper()
	for range n {
		d := order(int(r.Accepted()) + 1)
		seq, err := r.Submit(&d)
		must(r.t, err)
		last = seq
	}
	return last
}

// close ends the run as an engine does, with a last entry.
func (r *rig) close() {
	r.t.Helper()
	must(r.t, r.Close(context.Background(), ended(0)))
	r.log.Log.Close()
}

// stored reads the whole run back, as a reader of the files does.
func (r *rig) stored() ([]entry.Entry, manifest.Manifest) {
	r.t.Helper()
	return stored(r.t, r.mem, r.dir)
}

func stored(t testing.TB, fsys vfs.FS, dir string) (list []entry.Entry, m manifest.Manifest) {
	t.Helper()
	rd, err := wal.OpenReader(fsys, dir)
	must(t, err)
	defer rd.Close()
	for v, err := range rd.Scan(wal.ScanOptions{}) {
		must(t, err)
		list = append(list, v.Clone())
	}
	must(t, rd.Damage())
	return list, rd.Manifest()
}

// wantStored checks that exactly these payloads are stored, with seqs from 1 on and publish times that increase.
func (r *rig) wantStored(payloads ...string) {
	r.t.Helper()
	list, _ := r.stored()
	if len(list) != len(payloads) {
		r.t.Fatalf("%d entries are stored, want %d", len(list), len(payloads))
	}
	for i, e := range list {
		if e.Seq != uint64(i+1) || string(e.Payload) != payloads[i] {
			r.t.Fatalf("entry %d is seq %d, payload %q; want %q", i, e.Seq, e.Payload, payloads[i])
		}
		if i > 0 && e.TsPublish <= list[i-1].TsPublish {
			r.t.Fatalf("ts_publish of seq %d is %d, of the one before %d", e.Seq, e.TsPublish, list[i-1].TsPublish)
		}
	}
}

// payloads are those of order 1 to n.
func payloads(n int, more ...string) (list []string) {
	for i := 1; i <= n; i++ {
		list = append(list, string(order(i).Payload))
	}
	return append(list, more...)
}

func order(n int) entry.Draft {
	return entry.Draft{Topic: "exec.order", Type: "Submit", Payload: fmt.Appendf(nil, "order %d", n), TsInit: int64(n)}
}

func ended(tsInit int64) *entry.Draft {
	return &entry.Draft{Topic: entry.TopicEnded, Type: entry.TypeEnded, TsInit: tsInit}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// halted returns err as the halt that it has to be.
func halted(t testing.TB, err error) *writer.HaltError {
	t.Helper()
	var h *writer.HaltError
	if !errors.As(err, &h) || !errors.Is(err, writer.ErrHalted) {
		t.Fatalf("got %v, want a halt", err)
	}
	return h
}

// atOnce fails unless f returns without any time passing. It only works in a bubble.
func atOnce(t testing.TB, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if d := time.Since(start); d != 0 {
		t.Fatalf("took %v, want no time at all", d)
	}
}

// bubble runs a test in simulated time, where a sleep takes no time and timers are exact.
func bubble(t *testing.T, f func(t *testing.T)) { t.Helper(); synctest.Test(t, f) }

// halts collects what OnHalt is told.
type halts struct {
	mu   sync.Mutex
	list []*writer.HaltError
}

func (h *halts) add(e *writer.HaltError) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = append(h.list, e)
}

func (h *halts) one(t testing.TB) *writer.HaltError {
	t.Helper()
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.list) != 1 {
		t.Fatalf("OnHalt was called %d times, want once", len(h.list))
	}
	return h.list[0]
}

var segmentOne = segment.FileName(1)
