package fuzz

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/fuzz/oracle"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// sim is one seed's world: a disk, a clock, salts, and a load that all follow from the seed.
type sim struct {
	seed  uint64
	rng   *rand.Rand
	mem   *vfs.Mem
	o     runlog.Options
	h     oracle.History
	live  func()        // notes what the run that is open has acknowledged by now
	noted int           // notes that it has acknowledged
	fault func(n int64) // called before each operation that changes the disk
	op    vfs.Op        // that operation
	tiny  bool          // small entries, and some of zeros to fill a segment: so a fault has little to try in vain
	spot  *spot         // where the states of the disk that are being judged differ
}

type clock struct{ now atomic.Int64 }

func (c *clock) Now() int64 { return c.now.Add(1000) }

func newSim(seed uint64) *sim {
	s := &sim{seed: seed, rng: rand.New(rand.NewPCG(seed, 1))}
	salts := rand.New(rand.NewPCG(seed, 2))
	s.mem = vfs.NewMem(vfs.MemOptions{SectorSize: []int{512, 4096}[seed%2], Garbage: seed%3 != 0})
	c := &clock{}
	c.now.Store(1_800_000_000_000_000_000)
	s.o = runlog.Options{
		Dir: "/base", Instance: "sim", Synchronous: true, Clock: c, Salts: salts.Uint64,
		SegmentBytes: 64 << 10, FirstSegmentBytes: 64 << 10,
		MaxPayload: 24 << 10, Kinds: []string{"desk"}, FS: s.mem,
	}
	return s
}

// run does the load, which is finished or in the middle of a run when it returns.
func (s *sim) run() error {
	s.watch(0)
	defer func() { s.mem.SetHook(nil) }()
	if s.seed%4 == 3 {
		return s.batches()
	}
	for i := s.rng.IntN(2); i >= 0; i-- {
		if err := s.engine(); err != nil {
			return err
		}
	}
	return nil
}

// watch calls fault before each operation that changes the disk; they are numbered from n on.
func (s *sim) watch(n int64) {
	s.mem.SetHook(func(op vfs.Op) error {
		if op.Kind&vfs.OpChange != 0 {
			s.op = op
			s.fault(n)
			n++
		}
		return nil
	})
}

// engine is a load as an engine makes it: each entry is acknowledged before the next one.
func (s *sim) engine() error {
	run, err := runlog.Open(context.Background(), s.o)
	if err != nil {
		return err
	}
	in := s.h.Start(run)
	s.live = func() { s.h.Promise(run.ID(), in.Want, run.Durable()) }
	defer s.forget()
	for i := s.rng.IntN(40); i >= 0; i-- {
		if s.rng.IntN(20) == 0 {
			if err := run.DeclareKind(fmt.Sprintf("kind-%d", s.rng.IntN(3))); err != nil {
				return err
			}
		}
		d := s.draft()
		in.Add(d)
		if _, err := run.Submit(d); err != nil { // synchronous: acknowledged when it returns
			return err
		}
	}
	if s.rng.IntN(2) == 0 {
		in.Entries = append(in.Entries, oracle.Ended)
		return run.Close(context.Background())
	}
	return s.reopenAfterKill()
}

// note writes down what is acknowledged by now.
func (s *sim) note() {
	if s.live != nil {
		s.live()
	}
}

// forget ends the watch over an open run; its last word stays.
func (s *sim) forget() {
	s.note()
	s.live = nil
}

// reopenAfterKill lets a process die while the machine stays on: its locks and handles are gone, its page cache is there.
func (s *sim) reopenAfterKill() error {
	killed := s.mem.Kill()
	s.mem.SetHook(nil)
	s.mem, s.o.FS = killed, killed
	s.watch(1 << 20)
	return nil
}

// batches drives a wal.Log directly: several entries a batch, several batches a sync, marks, and halts.
func (s *sim) batches() error {
	log, in, err := s.createLog(nil)
	if err != nil {
		return err
	}
	defer s.forget()
	if _, err := log.DeclareKind("desk"); err != nil {
		return err
	}
	var b entry.Batch
	seq := uint64(1)
	b.Add(&entry.Draft{Topic: entry.TopicStarted, Type: entry.TypeStarted}, log.Kinds(), s.o.Clock.Now())
	for i := s.rng.IntN(60); i >= 0; i-- {
		for j := s.rng.IntN(4); j > 0; j-- {
			d := s.draft()
			d.Payload = d.Payload[:min(len(d.Payload), 7000)]
			in.Add(d)
			b.Add(&d, log.Kinds(), s.o.Clock.Now())
			s.addNote(&b, in)
		}
		s.addNote(&b, in)
		if err := log.Append(&b, 0, b.Len(), seq); err != nil {
			return err
		}
		seq += uint64(b.Len())
		b.Reset(1 << 20)
		switch s.rng.IntN(6) {
		case 0, 1:
			if err = log.Sync(); err == nil {
				s.noted = len(in.Notes)
			}
		case 2:
			err = log.Mark()
		}
		if err != nil {
			return err
		}
	}
	switch s.rng.IntN(3) {
	case 0:
		err = log.Seal(manifest.Ended)
	case 1:
		err = log.Fail(manifest.Halt{Reason: manifest.ReasonStall, Stage: manifest.StageQueue})
	}
	return err
}

// createLog starts a run without a writer; background as in wal.Options, nil: there is none.
func (s *sim) createLog(background func(task func())) (*wal.Log, *oracle.Submitted, error) {
	id := manifest.NewRunID(s.o.Clock.Now(), "", uint32(s.seed))
	dir := filepath.Join(s.o.Dir, s.o.Instance, id)
	if err := s.mem.MkdirAll(filepath.Dir(dir)); err != nil {
		return nil, nil, err
	}
	log, err := wal.Create(wal.Options{
		FS: s.mem, Dir: dir, SegmentBytes: 64 << 10, FirstBytes: 64 << 10, Clock: s.o.Clock, Salts: s.o.Salts, Inline: background == nil, Background: background, Compress: s.o.Compress, Prepare: s.o.Prepare,
		Manifest: manifest.Manifest{Identity: manifest.Identity{Run: id, Instance: s.o.Instance, Origin: manifest.OriginEngine}},
	})
	if err != nil {
		return nil, nil, err
	}
	in := &oracle.Submitted{Entries: []runlog.Entry{oracle.Started}}
	s.noted = 0
	s.live = func() {
		s.h.Promise(id, in.Want, log.Durable().Load())
		s.h.PromiseNotes(id, in, s.noted)
	}
	return log, in, nil
}

// addNote adds a note of some kind to a batch, now and then.
func (s *sim) addNote(b *entry.Batch, in *oracle.Submitted) {
	if s.rng.IntN(3) > 0 {
		return
	}
	kind := entry.NoteAnchor + entry.NoteKind(s.rng.IntN(6))
	body := make([]byte, s.rng.IntN(60))
	for i := range body {
		body[i] = byte(s.rng.Uint32())
	}
	in.AddNote(kind, body)
	b.AddNote(kind, body)
}

// draft makes an entry: mostly small, now and then one that forces a rotation.
func (s *sim) draft() runlog.Draft {
	size := s.rng.IntN(200)
	switch s.rng.IntN(8) {
	case 0:
		size = s.rng.IntN(12 << 10)
	case 1:
		size = s.rng.IntN(3 << 10)
	}
	if s.rng.IntN(40) == 0 {
		size = 24 << 10
	}
	if s.tiny {
		size %= 64
	}
	fill := s.tiny && s.rng.IntN(5) == 0
	if fill {
		size = 12 << 10
	}
	d := runlog.Draft{
		Topic: fmt.Sprintf("topic-%d", s.rng.IntN(4)), Type: "T", TsInit: s.rng.Int64(), Payload: make([]byte, size),
	}
	if !fill && s.rng.IntN(4) > 0 { // else zeros: they must not look like the end of the log
		for i := range d.Payload {
			d.Payload[i] = byte(s.rng.Uint32())
		}
	}
	for i := s.rng.IntN(3); i > 0; i-- {
		kind := []string{runlog.ClientOrderID, runlog.VenueOrderID, "desk"}[s.rng.IntN(3)]
		d.Keys = append(d.Keys, runlog.Key{Kind: kind, Value: fmt.Sprintf("O-%d", s.rng.IntN(9))})
	}
	if s.rng.IntN(2) == 0 {
		d.ID = runlog.ID{1, byte(s.rng.Uint32())}
	}
	return d
}

// crashes are the ways in which the power can go.
func crashes(r *rand.Rand) (name string, cut func(vfs.FS) vfs.FS) {
	by := func(c vfs.Chooser) func(vfs.FS) vfs.FS {
		return func(m vfs.FS) vfs.FS { return m.(*vfs.Mem).Crash(c) }
	}
	switch r.IntN(8) {
	case 0:
		return "lose all", by(vfs.LoseAll())
	case 1:
		return "keep all", by(vfs.KeepAll())
	case 2:
		return "garbage", by(vfs.Scramble())
	case 3:
		return "kill", func(m vfs.FS) vfs.FS { return m.(*vfs.Mem).Kill() }
	default:
		return "random", by(vfs.Random(r.Uint64()))
	}
}

// crashTest is one crash: at operation n, in a way that follows from salt, and perhaps once more inside the recovery.
func (s *sim) crashTest(n int64, salt uint64) error {
	s.note()
	r := rand.New(rand.NewPCG(s.seed^salt, uint64(n)))
	name, cut := crashes(r)
	if err := s.judge(cut(s.mem).(*vfs.Mem), r); err != nil {
		return fmt.Errorf("operation %d, salt %d, %s: %w", n, salt, name, err)
	}
	return nil
}

// judge lets the oracle judge what a crash has left, with another crash after the recovery, and perhaps one inside it.
func (s *sim) judge(left *vfs.Mem, r *rand.Rand) error {
	_, cutAgain := crashes(r)
	var inside vfs.FS // a crash inside the recovery
	if at := r.IntN(40); r.IntN(3) == 0 {
		left.SetHook(func(op vfs.Op) error {
			if op.Kind&vfs.OpChange != 0 {
				if at--; at == 0 {
					inside = cutAgain(left)
				}
			}
			return nil
		})
	}
	err := s.h.Judge(left, s.o, 1, cutAgain)
	left.SetHook(nil)
	if err == nil && inside != nil {
		if err = s.h.Judge(inside, s.o, 1, cutAgain); err != nil {
			err = fmt.Errorf("crash inside the recovery: %w", err)
		}
	}
	return err
}

// everywhere runs a load and crashes it at each operation that changes the disk, in three ways.
func everywhere(c *matrix.Cases) error { return newSim(c.Seed).everywhere(c, func() {}) }

// everywhere calls see at each of the operations, too.
func (s *sim) everywhere(c *matrix.Cases, see func()) error { return s.crashing(c, s.run, see) }

// crashing is everywhere with another load.
func (s *sim) crashing(c *matrix.Cases, load func() error, see func()) (err error) {
	s.fault = func(n int64) {
		see()
		for salt := range uint64(3) {
			if err == nil && c.Next() {
				err = s.crashTest(n, salt)
			}
		}
	}
	if lerr := load(); err == nil && lerr != nil {
		err = fmt.Errorf("load: %w", lerr)
	}
	if err == nil && c.Next() {
		err = s.crashTest(-1, 0)
	}
	return err
}

func TestPowerCutAtEveryOperationLosesNothingAcknowledged(t *testing.T) {
	matrix.Run(t, "power", everywhere)
}

// FuzzCrash lets the fuzzer choose load, place and kind of the crash.
func FuzzCrash(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed, uint16(seed*31), seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64, at uint16, salt uint64) {
		s := newSim(seed)
		var err error
		s.fault = func(n int64) {
			if n == int64(at) || n == int64(at)+1<<20 {
				err = s.crashTest(n, salt)
			}
		}
		if lerr := s.run(); err == nil && lerr != nil {
			t.Fatal(lerr)
		}
		if err != nil {
			t.Fatal(strings.TrimSpace(err.Error()))
		}
	})
}
