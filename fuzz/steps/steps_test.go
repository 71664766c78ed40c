package steps

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/fuzz/oracle"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
	"github.com/runlog-io/runlog/writer"
)

// driver is one seed's world. It holds everything that could run by itself, and decides what happens next: some
// producer submits, the writer commits, a background task runs, a reader looks, the power goes.
type driver struct {
	rng   *rand.Rand
	mem   *vfs.Mem
	clock ticker
	salts func() uint64
	ops   []vfs.Op // what was done to the disks of all lives
	life  int
	runs  []past
	met   map[string]int // what has happened, so that a test can see that it does

	// Of the life that is being lived:
	dir    string
	policy writer.SyncPolicy
	log    *wal.Log
	w      *writer.Writer
	tasks  []func() // begun by nobody yet
	want   []entry.Entry
	sent   [producers]int
	kinds  []string
	faulty bool     // an I/O error was arranged, so the run may halt
	cut    *vfs.Mem // the disk as a crash in the middle of a step has left it
	kind   int      // of that crash
	sure   floor    // what had to survive it
}

// past is a run that was recovered; it must not change any more.
type past struct {
	dir string
	run oracle.Run

	faulty bool // an index may not have been written
}

// floor is the last seq that may not be lost by a crash.
type floor struct {
	powerCut, kill uint64
}

func (f floor) of(kind int) uint64 {
	if kind == killed {
		return f.kill
	}
	return f.powerCut
}

const producers = 4

// ticker is a clock that moves whenever somebody looks.
type ticker struct{ now atomic.Int64 }

func (c *ticker) Now() int64 { return c.now.Add(1000) }

// drive lives some lives on one disk, as long as more are wanted. All that happens in them follows from the seed. After each
// it checks that what was acknowledged is there, in order, without a gap, byte for byte. It returns the world as it is at
// the end.
func drive(seed uint64, more func() bool) (d *driver, err error) {
	d = &driver{rng: rand.New(rand.NewPCG(seed, 1)), salts: rand.New(rand.NewPCG(seed, 2)).Uint64, met: map[string]int{}}
	d.clock.now.Store(1_800_000_000_000_000_000)
	d.mem = vfs.NewMem(vfs.MemOptions{SectorSize: []int{512, 4096}[d.rng.IntN(2)], Garbage: d.rng.IntN(2) == 0})
	defer func() {
		d.keepTrace()
		if err != nil {
			err = fmt.Errorf("run %d: %w", d.life, err)
		}
	}()
	for lives := 1 + d.rng.IntN(3); d.life < lives && more(); {
		d.life++
		d.mem.SetTrace(true)
		if err := d.live(); err != nil {
			return d, err
		}
	}
	return d, nil
}

// keepTrace keeps what was done to the disk that is about to be exchanged.
func (d *driver) keepTrace() { d.ops = append(d.ops, d.mem.Trace()...) }

// exchange goes on with another disk.
func (d *driver) exchange(m *vfs.Mem) {
	d.keepTrace()
	d.mem = m
	d.mem.SetTrace(true)
}

// live is one run from its creation to what a recovery makes of it.
func (d *driver) live() error {
	if err := d.create(); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	d.cut, d.faulty, d.want, d.sent, d.kinds = nil, false, nil, [producers]int{}, nil
	var err error
	for range d.rng.IntN(120) {
		if err = d.step(); err != nil || d.cut != nil {
			break
		}
	}
	if err == nil && d.cut == nil {
		return d.end()
	}
	if d.cut != nil {
		d.met["crash inside a step"]++
		defer d.log.Abandon() // in the world that went on without the cut, where nobody looks
		return d.after(d.cut, d.kind, d.sure, "")
	}
	if d.w.Err() == nil {
		return err
	}
	d.met["halt"]++
	if h := (*writer.HaltError)(nil); !d.faulty || !errors.As(d.w.Err(), &h) {
		return fmt.Errorf("nothing was wrong, but: %w", err)
	}
	return d.end()
}

func (d *driver) create() error {
	id := manifest.NewRunID(d.clock.Now(), "", uint32(d.life))
	d.dir = "/base/engine/" + id
	d.policy = []writer.SyncPolicy{writer.SyncEachCommit, writer.SyncEachCommit, writer.SyncInterval, writer.SyncNever}[d.rng.IntN(4)]
	if err := d.mem.MkdirAll("/base/engine"); err != nil {
		return err
	}
	d.tasks = nil
	log, err := wal.Create(wal.Options{
		FS: d.mem, Dir: d.dir, SegmentBytes: 64 << 10, FirstBytes: 64 << 10, Clock: &d.clock, Salts: d.salts, NoSync: d.policy == writer.SyncNever,
		Background: func(task func()) { d.tasks = append(d.tasks, task) },
		Manifest:   manifest.Manifest{Identity: manifest.Identity{Run: id, Instance: "engine", Origin: manifest.OriginEngine}},
	})
	if err != nil {
		return err
	}
	d.log = log
	d.w, err = writer.New(log, 0, log.MaxBatchBytes(), writer.Options{
		Manual: true, Clock: &d.clock, Sync: d.policy, QueueEntries: 2 + d.rng.IntN(20), BatchEntries: 1 + d.rng.IntN(8),
	})
	return err
}

// step is one thing that happens.
func (d *driver) step() error {
	if d.rng.IntN(60) == 0 {
		d.arm()
		defer d.mem.SetHook(nil)
	}
	switch n := d.rng.IntN(100); {
	case n < 40:
		return d.submit(d.rng.IntN(producers))
	case n < 65:
		_, err := d.w.Step()
		return err
	case n < 80:
		return d.background()
	case n < 83:
		return d.w.Mark()
	case n < 86:
		return d.w.Sync()
	case n < 94:
		return d.look()
	case n < 97:
		return d.lookFromOutside()
	case n < 98:
		name := fmt.Sprintf("kind-%d", len(d.kinds))
		d.kinds = append(d.kinds, name)
		_, err := d.log.DeclareKind(name)
		return err
	case n < 99 && !d.faulty:
		d.faulty = true
		d.mem.Inject(vfs.Rule{Kind: vfs.OpChange, Nth: 1 + d.rng.IntN(20), Err: []error{syscall.EIO, syscall.ENOSPC}[d.rng.IntN(2)]})
	}
	return nil
}

// arm lets the power go, or the process be killed, at some operation of the step that follows.
func (d *driver) arm() {
	at, salt, kind := d.rng.IntN(12), d.rng.Uint64(), d.rng.IntN(4)
	mem := d.mem
	mem.SetHook(func(op vfs.Op) error {
		if at--; at < 0 && d.cut == nil && op.Kind&vfs.OpChange != 0 {
			d.cut, d.sure, d.kind = blackout(mem, kind, salt), d.floor(), kind
		}
		return nil
	})
}

const killed = 3

// blackout returns the disk after a power cut of some kind, or after the death of the process.
func blackout(m *vfs.Mem, kind int, salt uint64) *vfs.Mem {
	switch kind {
	case killed:
		return m.Kill()
	case 0:
		return m.Crash(vfs.LoseAll())
	}
	return m.Crash(vfs.Random(salt))
}

// floor is what may not be lost now. After an error the disk may lack what the page cache shows.
func (d *driver) floor() floor {
	f := floor{powerCut: d.w.Durable(), kill: d.w.Written()}
	if d.faulty {
		f.kill = f.powerCut
	}
	return f
}

func (d *driver) submit(p int) error {
	e := entry.Draft{
		Topic: fmt.Sprintf("producer-%d", p), Type: fmt.Sprintf("T%d", d.rng.IntN(3)), TsInit: d.rng.Int64(),
		Payload: make([]byte, []int{20, 300, 5000}[d.rng.IntN(3)]+d.rng.IntN(4000)),
		Keys:    []entry.Key{{Kind: entry.ClientOrderID, Value: fmt.Sprintf("O-%d", d.rng.IntN(9))}},
	}
	for i := range e.Payload {
		e.Payload[i] = byte(d.rng.Uint32() >> (i % 3))
	}
	copy(e.Payload, fmt.Sprintf("%d/%d", p, d.sent[p]))
	if n := len(d.kinds); n > 0 && d.rng.IntN(2) == 0 {
		e.Keys = append(e.Keys, entry.Key{Kind: d.kinds[d.rng.IntN(n)], Value: "V"})
	}
	seq, err := d.w.Submit(&e)
	switch {
	case err != nil && d.w.Err() == nil:
		return nil // the queue is full: the producer tries again
	case err != nil:
		return err
	case seq != uint64(len(d.want)+1):
		return fmt.Errorf("seq %d was given out after %d", seq, len(d.want))
	}
	d.sent[p]++
	d.want = append(d.want, entry.Entry{Seq: seq, Topic: e.Topic, Type: e.Type, TsInit: e.TsInit, Payload: bytes.Clone(e.Payload), Keys: e.Keys})
	return nil
}

// background lets one of the tasks run that nobody has begun.
func (d *driver) background() error {
	if n := len(d.tasks); n > 0 {
		i := d.rng.IntN(n)
		task := d.tasks[i]
		d.tasks = slices.Delete(d.tasks, i, i+1)
		before := d.mem.Ops(vfs.OpChange)
		task()
		if d.mem.Ops(vfs.OpChange) == before {
			d.met["task that came too late"]++
		} else {
			d.met["task"]++
		}
	}
	return nil
}

// look reads beside the writer: durable entries, and nothing else.
func (d *driver) look() error {
	r, durable := d.log.Reader(), d.w.Durable()
	switch d.rng.IntN(4) {
	case 0:
		seq := 1 + d.rng.Uint64N(uint64(len(d.want)+1))
		v, err := r.Get(seq, nil)
		if seq > durable {
			if !errors.Is(err, format.ErrNotFound) {
				return fmt.Errorf("get seq %d, durable is %d: %w", seq, durable, err)
			}
			return nil
		}
		if err != nil {
			return err
		}
		return equal(&v, d.want, seq)
	case 1:
		order := fmt.Sprintf("O-%d", d.rng.IntN(9))
		want := slices.IndexFunc(d.want[:durable], func(e entry.Entry) bool { return e.Keys[0].Value == order }) + 1
		if seq, ok, err := r.Lookup(entry.ClientOrderID, order); err != nil || ok != (want > 0) || seq != uint64(want) {
			return fmt.Errorf("look up %s: seq %d, %v, want %d", order, seq, err, want)
		}
		return nil
	case 2:
		n, err := prefix(r, d.want)
		if err == nil && n != durable {
			err = fmt.Errorf("a scan returns %d entries, %d are durable", n, durable)
		}
		return err
	}
	next := 1 + d.rng.Uint64N(durable+1)
	for next <= durable {
		for v, err := range r.Tail(context.Background(), wal.TailOptions{From: next}) {
			if err == nil {
				err = equal(&v, d.want, next)
			}
			if err != nil {
				return fmt.Errorf("tail: %w", err)
			}
			if next++; next > durable {
				break
			}
		}
	}
	return nil
}

// lookFromOutside reads the files as another process does.
func (d *driver) lookFromOutside() error {
	if d.faulty {
		return nil // it may meet the error that is meant for the writer
	}
	r, err := wal.OpenReader(d.mem, d.dir)
	if err != nil {
		return fmt.Errorf("from outside: %w", err)
	}
	defer r.Close()
	n, err := prefix(r, d.want)
	if err == nil && (n != d.w.Written() || r.Durable() > max(d.w.Durable(), n*uint64(d.policy/writer.SyncNever)) || !r.Live() || r.DroppedBytes() > 0) {
		err = fmt.Errorf("%d entries, durable %d; the writer says written %d, durable %d", n, r.Durable(), d.w.Written(), d.w.Durable())
	}
	return errors.Join(err, r.Damage())
}

// end ends the run in some way, and then the machine or the process.
func (d *driver) end() error {
	kind, salt := d.rng.IntN(4), d.rng.Uint64()
	halted, status := d.w.Err() != nil, manifest.Status("")
	sure := d.floor()
	switch d.rng.IntN(4) {
	case 0:
		last := &entry.Draft{Topic: entry.TopicEnded, Type: entry.TypeEnded, TsInit: d.clock.Now()}
		err := d.w.Close(context.Background(), last)
		if d.w.Accepted() > uint64(len(d.want)) { // as after a halt it need not be
			d.want = append(d.want, entry.Entry{Seq: uint64(len(d.want) + 1), Topic: last.Topic, Type: last.Type, TsInit: last.TsInit})
		}
		switch sure = d.floor(); {
		case err == nil:
			d.met["close"]++
			status = manifest.Ended
			sure.kill, sure.powerCut = d.w.Accepted(), d.w.Accepted()
			d.log.Close()
		case !errors.Is(err, writer.ErrHalted) || !d.faulty:
			return fmt.Errorf("close: %w", err)
		}
		d.leftovers()
	case 1:
		d.met["abandon"]++
		d.w.Abandon(errors.New("given up"))
		status, sure = manifest.CrashedRecovered, d.floor()
		if !halted && !d.faulty && d.policy != writer.SyncNever { // what was submitted is committed
			sure.kill, sure.powerCut = d.w.Accepted(), d.w.Accepted()
		}
		d.leftovers()
	default:
		defer d.log.Abandon() // in a world where nobody looks
	}
	return d.after(blackout(d.mem, kind, salt), kind, sure, status)
}

// leftovers runs what the background has never come to. The run is over, so nothing is left to do.
func (d *driver) leftovers() {
	d.met["task that nobody needs any more"] += len(d.tasks)
	before := d.mem.Ops(vfs.OpChange)
	for len(d.tasks) > 0 {
		_ = d.background()
	}
	if n := d.mem.Ops(vfs.OpChange) - before; n != 0 {
		panic(fmt.Sprintf("%d operations in the folder of a run that is over", n))
	}
}

// after recovers what a crash has left and judges it: what is sure is there, and the run has ended as status says, if
// that is known.
func (d *driver) after(left *vfs.Mem, kind int, floor floor, status manifest.Status) error {
	sure := floor.of(kind)
	d.exchange(left)
	if d.rng.IntN(3) == 0 { // the recovery does not come to its end either
		at, kind, salt := d.rng.IntN(30), d.rng.IntN(4), d.rng.Uint64()
		var again *vfs.Mem
		left.SetHook(func(op vfs.Op) error {
			if at--; at < 0 && again == nil && op.Kind&vfs.OpChange != 0 {
				again = blackout(left, kind, salt)
			}
			return nil
		})
		_, err := wal.Recover(left, d.dir, d.clock.Now())
		left.SetHook(nil)
		if err != nil {
			return fmt.Errorf("recover: %w", err)
		}
		if again != nil {
			d.met["crash inside a recovery"]++
			sure = min(sure, floor.of(kind))
			d.exchange(again)
		}
	}
	rec, err := wal.Recover(d.mem, d.dir, d.clock.Now())
	if err != nil || rec.Damage != nil {
		return fmt.Errorf("recover: %w", errors.Join(err, rec.Damage))
	}
	n := rec.LastSeq
	if n < sure || n > uint64(len(d.want)) || status != "" && rec.Status != status {
		return fmt.Errorf("recovery says %s at seq %d; %d were sure, %d submitted, it had to be %s", rec.Status, n, sure, len(d.want), status)
	}
	if rec.Manifest.Segments > 2 {
		d.met["rotation"]++
	}
	if n < uint64(len(d.want)) {
		d.met["loss of what was not acknowledged"]++
	}
	d.runs = append(d.runs, past{d.dir, oracle.Run{Want: oracle.Ordered(d.want...), Acked: sure, Exact: &n}, d.faulty})
	for i := range d.runs {
		if err := d.runs[i].check(d.mem); err != nil {
			return err
		}
	}
	d.exchange(blackout(d.mem, d.rng.IntN(4), d.rng.Uint64()))
	return d.runs[len(d.runs)-1].check(d.mem)
}

// check reads a recovered run back.
func (p *past) check(m *vfs.Mem) error {
	if _, err := p.run.Read(m, p.dir); err != nil && !(p.faulty && oracle.Unindexed(err)) {
		return fmt.Errorf("%s: %w", p.dir, err)
	}
	return nil
}

// prefix scans a run and compares all it returns.
func prefix(r *wal.Reader, want []entry.Entry) (n uint64, err error) {
	last := int64(0)
	for v, err := range r.Scan(wal.ScanOptions{}) {
		if err == nil {
			n++
			err = equal(&v, want, n)
		}
		if err != nil {
			return n, err
		}
		if v.TsPublish() <= last {
			return n, fmt.Errorf("seq %d is published at %d, the one before at %d", n, v.TsPublish(), last)
		}
		last = v.TsPublish()
	}
	return n, nil
}

// equal checks that v is entry seq of want.
func equal(v *entry.View, want []entry.Entry, seq uint64) error {
	got := v.Clone()
	if got.Seq != seq || seq > uint64(len(want)) {
		return fmt.Errorf("seq %d stands where %d of %d should be", got.Seq, seq, len(want))
	}
	w := want[seq-1]
	w.TsPublish = got.TsPublish // the writer's
	if !bytes.Equal(got.Payload, w.Payload) {
		return fmt.Errorf("seq %d has another payload than was submitted", seq)
	}
	got.Payload, w.Payload = nil, nil
	if len(got.Keys) == 0 {
		got.Keys, w.Keys = nil, nil
	}
	if !reflect.DeepEqual(got, w) {
		return fmt.Errorf("seq %d: %+v was submitted, %+v is there", seq, w, got)
	}
	return nil
}

// disk is a digest of everything on a disk.
func disk(m *vfs.Mem) string {
	h := sha256.New()
	var walk func(dir string)
	walk = func(dir string) {
		names, err := m.ReadDir(dir)
		if err != nil {
			panic(err)
		}
		for _, e := range names {
			name := path.Join(dir, e.Name())
			if e.IsDir() {
				walk(name)
				continue
			}
			b, err := vfs.ReadFile(m, name, 1<<30)
			if err != nil {
				panic(err)
			}
			fmt.Fprintf(h, "%s %d\n", name, len(b))
			h.Write(b)
		}
	}
	walk("/")
	return fmt.Sprintf("%x", h.Sum(nil))
}

func TestStepsInAnyOrderLoseNothingAcknowledged(t *testing.T) {
	var mu sync.Mutex
	met := map[string]int{}
	matrix.Run(t, "steps", func(c *matrix.Cases) error {
		d, err := drive(c.Seed, c.Next)
		mu.Lock()
		defer mu.Unlock()
		for what, n := range d.met {
			met[what] += n
		}
		return err
	}, matrix.Detail(func() string { return fmt.Sprint(met) }))
	for _, what := range []string{"close", "abandon", "halt", "rotation", "task", "task that came too late", "task that nobody needs any more",
		"crash inside a step", "crash inside a recovery", "loss of what was not acknowledged"} {
		if met[what] == 0 && !t.Failed() {
			t.Errorf("no seed has met: %s", what)
		}
	}
}

func always() bool { return true }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestStepsAreReplayedFromTheirSeedByteForByte(t *testing.T) {
	distinct := map[string]bool{}
	for seed := range uint64(40) {
		a, err := drive(seed, always)
		must(t, err)
		b, err := drive(seed, always)
		must(t, err)
		if !slices.Equal(a.ops, b.ops) {
			i := 0
			for i < min(len(a.ops), len(b.ops)) && a.ops[i] == b.ops[i] {
				i++
			}
			t.Fatalf("seed %d: of %d and %d operations, number %d differs", seed, len(a.ops), len(b.ops), i)
		}
		if disk(a.mem) != disk(b.mem) {
			t.Fatalf("seed %d: the disks differ", seed)
		}
		if len(a.ops) < 50 {
			t.Fatalf("seed %d: only %d operations were traced", seed, len(a.ops))
		}
		distinct[disk(a.mem)] = true
	}
	if len(distinct) != 40 {
		t.Fatalf("40 seeds made %d different disks", len(distinct))
	}
}
