package fuzz

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/fuzz/oracle"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// specimen is a small run in one of the states that a run can be in, all of it durable, with what it was asked to hold.
// Scenes are prepared once and never changed: damage is done to copies.
type specimen struct {
	name   string
	mem    *vfs.Mem
	h      oracle.History // all runs of the instance
	run    string         // the one that is damaged
	dir    string
	files  []file
	all    []runlog.Entry // what the whole run holds
	proof  []proof        // what its segments hold
	early  damage         // done before, in a run that is quarantined for it
	sealed bool           // its manifest says so
	keys   []question
	older  map[string][]byte // files as they once were, by path
}

// file is one file of a specimen's run.
type file struct {
	name string
	b    []byte
	end  int64 // behind the last byte that is not zero
	log  bool  // it is part of the log: a segment that is neither a spare nor a halt record beside the chain
	foot int64 // where its footer begins; -1: it has none
}

func (f *file) segment() bool { return strings.HasSuffix(f.name, ".seg") }
func (f *file) derived() bool {
	return strings.HasSuffix(f.name, ".idx") || strings.HasSuffix(f.name, ".flt")
}

const specimenBase, specimenInstance = "/base", "desk-1"

func specimenOptions(fsys vfs.FS, seed uint64, now int64) runlog.Options {
	c := &clock{}
	c.now.Store(now)
	return runlog.Options{
		Dir: specimenBase, Instance: specimenInstance, FS: fsys, Synchronous: true, Clock: c, Salts: rand.New(rand.NewPCG(seed, 5)).Uint64,
		SegmentBytes: segment.MinSegment, FirstSegmentBytes: segment.MinSegment, MaxPayload: 60 << 10, Kinds: []string{"desk"},
		Labels: map[string]string{"desk": "a"},
	}
}

// stage is where a specimen is made.
type stage struct {
	mem  *vfs.Mem
	o    runlog.Options
	h    oracle.History
	made int // drafts
	seed uint64
}

func newStage(seed uint64) *stage {
	s := &stage{mem: vfs.NewMem(vfs.MemOptions{}), seed: seed}
	s.o = specimenOptions(s.mem, seed, 1_800_000_000_000_000_000+int64(seed)*1e9)
	return s
}

// draft makes the next draft. Keys and ids repeat over entries and segments, so that histories have several parts.
func (s *stage) draft(payload int) runlog.Draft {
	n := s.made
	s.made++
	d := runlog.Draft{
		Topic: fmt.Sprint("topic-", n%3), Type: fmt.Sprint("T", n%2), TsInit: int64(1000*n) * (1 - 2*int64(n%2)), Payload: make([]byte, payload),
		Keys: []runlog.Key{{Kind: runlog.ClientOrderID, Value: fmt.Sprint("O-", n%5)}},
	}
	r := rand.New(rand.NewPCG(uint64(n), s.seed))
	for i := range d.Payload {
		d.Payload[i] = byte(r.Uint32())
	}
	if n%3 == 0 {
		d.Keys = append(d.Keys, runlog.Key{Kind: "desk", Value: "D"})
		d.ID, d.CorrelationID = runlog.ID{1, byte(n)}, runlog.ID{2, byte(n / 6)}
	}
	return d
}

// engine makes a run by the front door: one commit for each entry.
func (s *stage) engine(payloads ...int) (*runlog.Run, *oracle.Submitted, error) {
	run, err := runlog.Open(context.Background(), s.o)
	if err != nil {
		return nil, nil, err
	}
	in := s.h.Start(run)
	return run, in, s.submit(run, in, payloads...)
}

func (s *stage) submit(run *runlog.Run, in *oracle.Submitted, payloads ...int) error {
	for _, n := range payloads {
		d := s.draft(n)
		in.Add(d)
		if _, err := run.Submit(d); err != nil {
			return err
		}
		s.h.Promise(run.ID(), in.Want, run.Durable())
	}
	return nil
}

func (s *stage) close(run *runlog.Run, in *oracle.Submitted) error {
	in.Entries = append(in.Entries, oracle.Ended)
	return run.Close(context.Background())
}

// log makes a run by wal.Log: batches of several entries.
func (s *stage) log(inline bool, batches ...int) (*wal.Log, string, error) {
	id := manifest.NewRunID(s.o.Clock.Now(), "", uint32(s.o.Salts()))
	dir := filepath.Join(specimenBase, specimenInstance, id)
	if err := s.mem.MkdirAll(filepath.Dir(dir)); err != nil {
		return nil, "", err
	}
	log, err := wal.Create(wal.Options{
		FS: s.mem, Dir: dir, SegmentBytes: s.o.SegmentBytes, FirstBytes: s.o.SegmentBytes, Clock: s.o.Clock, Salts: s.o.Salts, Inline: inline,
		Manifest: manifest.Manifest{
			Identity: manifest.Identity{Run: id, Instance: specimenInstance, Origin: manifest.OriginEngine},
			Kinds:    []manifest.KeyKind{{ID: uint32(entry.FirstUserKind), Name: "desk"}},
		},
	})
	if err != nil {
		return nil, "", err
	}
	if !inline { // nothing else happens until the spare is there, so that salts and times follow from the seed
		for try := 0; try < 60_000; try++ {
			if _, err := s.mem.Stat(filepath.Join(dir, segment.FileName(2))); err == nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(20 * time.Millisecond)
	}
	in := &oracle.Submitted{Entries: []runlog.Entry{oracle.Started}}
	var b entry.Batch
	b.Add(&entry.Draft{Topic: entry.TopicStarted, Type: entry.TypeStarted}, log.Kinds(), s.o.Clock.Now())
	seq := uint64(1)
	for i, n := range batches {
		for range n {
			d := s.draft(20)
			in.Add(d)
			b.Add(&d, log.Kinds(), s.o.Clock.Now())
		}
		err := log.Append(&b, 0, b.Len(), seq)
		if err == nil && i%2 == 0 || i == len(batches)-1 { // each second commit is durable only with the next
			err = errors.Join(err, log.Sync())
		}
		if err != nil {
			return nil, "", err
		}
		seq += uint64(b.Len())
		b.Reset(1 << 20)
		s.h.Promise(id, in.Want, log.Durable().Load())
	}
	return log, id, nil
}

// many makes each entry with this payload begin a new segment, and so does the small one that follows it.
const many = 28_000

// scripts make the specimens: each returns the run that is going to be damaged.
var scripts = []struct {
	name string
	play func(s *stage) (run string, err error)
}{
	{"ended", func(s *stage) (string, error) {
		run, in, err := s.engine(20, 0, 30, 40)
		if err != nil {
			return "", err
		}
		return run.ID(), s.close(run, in)
	}},
	{"crashed", func(s *stage) (string, error) {
		run, _, err := s.engine(20, 0, 30, 40, 10)
		if err != nil {
			return "", err
		}
		return run.ID(), nil
	}},
	{"marked", func(s *stage) (string, error) {
		log, id, err := s.log(true, 1, 2, 3, 1)
		if err != nil {
			return "", err
		}
		return id, log.Mark()
	}},
	{"halted", func(s *stage) (string, error) {
		log, id, err := s.log(true, 2, 3, 1)
		if err != nil {
			return "", err
		}
		return id, log.Fail(manifest.Halt{Reason: manifest.ReasonStall, Stage: manifest.StageQueue, Message: "test"})
	}},
	{"halted beside the chain", func(s *stage) (string, error) {
		log, id, err := s.log(false, 2, 3, 1)
		if err != nil {
			return "", err
		}
		defer log.Abandon()
		s.mem.Inject(vfs.Rule{Kind: vfs.OpDatasync, Name: segment.FileName(1), Err: syscall.EIO})
		d := s.draft(20)
		var b entry.Batch
		b.Add(&d, log.Kinds(), s.o.Clock.Now())
		if err := errors.Join(log.Append(&b, 0, 1, log.Written().Load()+1), log.Sync()); !errors.Is(err, syscall.EIO) {
			return "", fmt.Errorf("the sync has not failed: %w", err)
		}
		if err := log.Fail(manifest.Halt{Reason: manifest.ReasonIO, Message: "test"}); err != nil {
			return "", err
		}
		s.mem = s.mem.Crash(vfs.KeepAll()) // before Abandon goes on with the folder
		return id, nil
	}},
	{"recovered", func(s *stage) (string, error) {
		old, _, err := s.parent()
		return old, err
	}},
	{"child of a recovered run", func(s *stage) (string, error) {
		_, child, err := s.parent()
		return child, err
	}},
	{"imported", func(s *stage) (string, error) {
		im, err := runlog.NewImport(s.o)
		if err != nil {
			return "", err
		}
		in := &oracle.Submitted{Entries: []runlog.Entry{oracle.Started}}
		for i := range 4 {
			d := s.draft(30)
			in.Add(d)
			d.TsPublish = int64(1000 + i)
			if err := im.Add(d); err != nil {
				return "", err
			}
		}
		dir, err := im.Finish(context.Background())
		in.Entries = append(in.Entries, oracle.Ended)
		s.h.Promise(filepath.Base(dir), in.Want, uint64(len(in.Entries)))
		return filepath.Base(dir), err
	}},
	{"several segments", func(s *stage) (string, error) {
		run, in, err := s.engine(20, many, 30, many, 40, 10)
		if err != nil {
			return "", err
		}
		return run.ID(), s.close(run, in)
	}},
	{"crashed in a later segment", func(s *stage) (string, error) { return s.later() }},
	{"crashed before the sealer", func(s *stage) (string, error) {
		id, err := s.later()
		if err != nil {
			return "", err
		}
		return id, unseal(s.mem, filepath.Join(specimenBase, specimenInstance, id))
	}},
	{"crashed with a spare", func(s *stage) (string, error) {
		run, in, err := s.engine(20, 10)
		if err != nil {
			return "", err
		}
		var with *vfs.Mem
		s.mem.SetHook(func(op vfs.Op) error {
			if op.Kind == vfs.OpWrite && filepath.Base(op.Name) == segment.FileName(1) && with == nil { // the closing commit
				with = s.mem.Crash(vfs.KeepAll())
			}
			return nil
		})
		promised := s.h.Runs[run.ID()]
		if err := s.submit(run, in, many); err != nil {
			return "", err
		}
		s.mem = with
		s.h.Promise(run.ID(), in.Want, promised.Acked)
		return run.ID(), nil
	}},
	{"quarantined", func(s *stage) (string, error) {
		log, id, err := s.log(true, 1, 2, 3, 1)
		if err != nil {
			return "", err
		}
		if err := log.Mark(); err != nil {
			return "", err
		}
		s.mem = s.mem.Kill()
		s.o.FS = s.mem
		name := filepath.Join(specimenBase, specimenInstance, id, segment.FileName(1))
		if err := change(s.mem, name, func(b []byte) []byte { b[earlyDamage] ^= 16; return b }); err != nil {
			return "", err
		}
		run, err := runlog.Open(context.Background(), s.o)
		if err != nil {
			return "", err
		}
		s.h.Start(run)
		return id, nil
	}},
}

// earlyDamage is where the run that is quarantined was damaged: in its second batch.
const earlyDamage = segment.BlockSize + 500

// parent makes a run that crashed with garbage behind its last batch and was recovered, and its child, which crashed too.
func (s *stage) parent() (old, child string, err error) {
	run, _, err := s.engine(20, 0, 30, 10)
	if err != nil {
		return "", "", err
	}
	s.mem = s.mem.Kill()
	s.o.FS = s.mem
	err = change(s.mem, filepath.Join(run.Dir(), segment.FileName(1)), func(b []byte) []byte {
		copy(b[lastByte(b)+3:], "garbage of a batch that was never whole")
		return b
	})
	if err != nil {
		return "", "", err
	}
	next, _, err := s.engine(10, 20)
	if err != nil {
		return "", "", err
	}
	if next.Manifest().Parent != run.ID() {
		return "", "", fmt.Errorf("the parent is %q", next.Manifest().Parent)
	}
	return run.ID(), next.ID(), nil
}

// later makes a run that crashed in its fourth segment.
func (s *stage) later() (string, error) {
	run, _, err := s.engine(20, many, 10, many, 40, 10)
	if err != nil {
		return "", err
	}
	return run.ID(), nil
}

// unseal takes a run back to before the sealer had come to any of its segments.
func unseal(m *vfs.Mem, dir string) error {
	names, err := m.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range names {
		name := filepath.Join(dir, e.Name())
		switch {
		case strings.HasSuffix(name, ".idx"), strings.HasSuffix(name, ".flt"):
			err = m.Remove(name)
		case strings.HasSuffix(name, ".seg"):
			err = change(m, name, func(b []byte) []byte {
				if len(b) < segment.MinSegment {
					b = append(b[:len(b)-segment.FooterSize], make([]byte, segment.MinSegment)...)[:segment.MinSegment]
				}
				return b
			})
		}
		if err != nil {
			return err
		}
	}
	return m.SyncDir(dir)
}

// change replaces a file's content, durably.
func change(m *vfs.Mem, name string, how func(b []byte) []byte) error {
	b, err := vfs.ReadFile(m, name, 1<<30)
	if err != nil {
		return err
	}
	return overwrite(m, name, how(b))
}

// overwrite gives a file this content, durably, and makes it if it is not there.
func overwrite(m *vfs.Mem, name string, b []byte) error {
	f, err := m.Open(name)
	if err != nil {
		f, err = m.Create(name)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	err = f.Truncate(int64(len(b)))
	if err == nil {
		_, err = f.WriteAt(b, 0)
	}
	return errors.Join(err, f.Datasync(), m.SyncDir(filepath.Dir(name)))
}

// lastByte is the offset behind the last byte that is not zero.
func lastByte(b []byte) int64 {
	for n := len(b); n > 0; n-- {
		if b[n-1] != 0 {
			return int64(n)
		}
	}
	return 0
}

// specimens are all specimens, made once, and a second set of other runs that did the same.
var specimens = sync.OnceValues(func() (list [2][]*specimen, err error) {
	for seed := range list {
		for i := range scripts {
			sc, err := play(uint64(seed), i)
			if err != nil {
				return list, fmt.Errorf("specimen %q: %w", scripts[i].name, err)
			}
			list[seed] = append(list[seed], sc)
		}
	}
	return list, nil
})

func prepared(t testing.TB) [2][]*specimen {
	t.Helper()
	list, err := specimens()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// play makes a specimen.
func play(seed uint64, script int) (*specimen, error) {
	s := newStage(100*seed + uint64(script))
	older := map[string][]byte{}
	s.mem.SetHook(func(op vfs.Op) error { // each file as it was at some moment, when it had grown
		if op.Kind == vfs.OpDatasync && s.mem.Ops(vfs.OpDatasync)%3 == 0 {
			if b, err := vfs.ReadFile(s.mem, op.Name, 1<<30); err == nil {
				older[strings.TrimSuffix(op.Name, ".tmp")] = b
			}
		}
		return nil
	})
	id, err := scripts[script].play(s)
	s.mem.SetHook(nil)
	if err != nil {
		return nil, err
	}
	sc := &specimen{name: scripts[script].name, mem: s.mem.Crash(vfs.KeepAll()), h: s.h, run: id, dir: filepath.Join(specimenBase, specimenInstance, id)}
	if sc.name == "quarantined" {
		sc.early = damage{{segment.FileName(1), earlyDamage, earlyDamage + 1}}
	}
	if err := sc.look(); err != nil {
		return nil, err
	}
	sc.older = older
	return sc, sc.whole()
}

// look reads the specimen's files, and what they prove.
func (s *specimen) look() error {
	names, err := s.mem.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range names {
		b, err := vfs.ReadFile(s.mem, filepath.Join(s.dir, e.Name()), 1<<30)
		if err != nil {
			return err
		}
		f := file{name: e.Name(), b: b, end: lastByte(b), foot: -1}
		if f.segment() {
			if err := s.prove(&f); err != nil {
				return err
			}
		}
		s.files = append(s.files, f)
	}
	m, _, err := manifest.Read(s.mem, s.dir)
	s.sealed = m.Status.Sealed()
	return err
}

// whole reads the specimen undamaged, as its own control, and keeps what it holds.
func (s *specimen) whole() error {
	was := s.h.Runs[s.run]
	n, err := was.Read(s.mem, s.dir)
	if s.early == nil && (err != nil || n < was.Acked) {
		return fmt.Errorf("undamaged: %d entries of %d, %w", n, was.Acked, err)
	}
	if s.early != nil && err == nil {
		return errors.New("the damage is not there")
	}
	r, err := runlog.OpenReader(s.dir, runlog.ReaderOptions{FS: s.mem})
	if err != nil {
		return err
	}
	defer r.Close()
	for v, err := range r.Scan(runlog.ScanOptions{}) {
		if err != nil {
			break // only of the one that was damaged before
		}
		s.all = append(s.all, v.Clone())
	}
	s.keys = questions(s.all)
	if least, must := s.claim(nil); must != (s.early != nil) || least != uint64(len(s.all)) {
		return fmt.Errorf("%d entries, but %d are claimed, and an error: %v", len(s.all), least, must)
	}
	return nil
}

// copy returns a disk with the specimen's content on which anything may be done.
func (s *specimen) copy() *vfs.Mem { return s.mem.Kill() }

func (s *specimen) file(name string) *file {
	i := slices.IndexFunc(s.files, func(f file) bool { return f.name == name })
	if i < 0 {
		return nil
	}
	return &s.files[i]
}
