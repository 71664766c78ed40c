package fuzz

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/fuzz/oracle"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
)

// tear is a write that is about to happen.
type tear struct {
	op     vfs.Op
	before *vfs.Mem
	runs   map[string]oracle.Run
}

// torn tears every write to a segment at every byte: bytes up to there are on the disk, the rest is as it was. What
// was written before and not synced is there or not, by turns. Bytes that change nothing make no case. Files that are
// being made, under another name, are torn at a few places only: nobody reads them.
func torn(c *matrix.Cases) (err error) {
	s := newSim(c.Seed)
	s.tiny = true
	s.onDisk(vfs.MemOptions{SectorSize: 512})
	var t *tear
	finish := func() {
		if t != nil && err == nil {
			err = s.tearAll(c, t)
		}
		t = nil
	}
	s.fault = func(int64) {
		finish()
		if s.op.Kind == vfs.OpWrite && err == nil {
			s.note()
			t = &tear{op: s.op, before: s.mem.Kill(), runs: maps.Clone(s.h.Runs)}
		}
	}
	load := s.run
	if c.Seed%5 == 4 {
		load = s.detachedHalt
	}
	lerr := load()
	finish()
	return cmp.Or(err, lerr)
}

func (s *sim) tearAll(c *matrix.Cases, t *tear) error {
	all, err := contents(s.mem, t.op.Name)
	if err != nil {
		return fmt.Errorf("%v: %w", t.op, err)
	}
	all = all[t.op.Off:][:t.op.Len]
	r := rand.New(rand.NewPCG(s.seed, uint64(t.op.N)))
	disk := t.before.Crash([]vfs.Chooser{vfs.KeepAll(), vfs.LoseAll()}[r.IntN(2)])
	f, err := disk.Open(t.op.Name)
	if err != nil {
		return nil // its name was not durable: nothing of the write is there
	}
	defer f.Close()
	is := make([]byte, len(all))
	_, _ = f.ReadAt(is, t.op.Off) // behind the end there are zeros
	places := len(all)
	if !strings.HasSuffix(t.op.Name, ".seg") {
		places = 3
	}
	defer func(runs map[string]oracle.Run, op vfs.Op) { s.h.Runs, s.op = runs, op }(s.h.Runs, s.op)
	s.h.Runs, s.op, s.spot = t.runs, t.op, &spot{files: []string{t.op.Name}} // what counts is what was acknowledged then
	changed := true
	for n := range len(all) + 1 {
		if n > 0 && all[n-1] != is[n-1] {
			changed = true
			if _, err := f.WriteAt(all[n-1:n], t.op.Off+int64(n)-1); err != nil {
				return err
			}
			if err := f.Datasync(); err != nil {
				return err
			}
		}
		if !changed || places < len(all) && r.IntN(len(all)+1) >= places {
			continue
		}
		changed = false
		if !c.Next() {
			return nil
		}
		if err := s.state(c, disk); err != nil {
			return fmt.Errorf("torn behind %d of %d bytes: %w", n, len(all), err)
		}
	}
	return nil
}

func contents(fsys vfs.FS, name string) ([]byte, error) { return vfs.ReadFile(fsys, name, 1<<30) }

// detachedHalt is a load that ends with a failed write or sync, and so with a halt record in the spare.
func (s *sim) detachedHalt() error {
	s.watch(0)
	defer func() { s.mem.SetHook(nil) }()
	var makeSpare func()
	log, in, err := s.createLog(func(task func()) { makeSpare = task })
	if err != nil {
		return err
	}
	defer s.forget()
	defer log.Abandon()
	makeSpare()
	if _, err := log.DeclareKind("desk"); err != nil {
		return err
	}
	s.mem.Inject(vfs.Rule{Kind: vfs.OpWrite | vfs.OpDatasync, Name: "*.seg", Nth: 1 + s.rng.IntN(12), Err: syscall.EIO})
	var b entry.Batch
	b.Add(&entry.Draft{Topic: entry.TopicStarted, Type: entry.TypeStarted}, log.Kinds(), s.o.Clock.Now())
	for seq := uint64(1); ; {
		err := log.Append(&b, 0, b.Len(), seq)
		if err == nil {
			err = log.Sync()
		}
		if err != nil {
			return log.Fail(manifest.Halt{Reason: manifest.ReasonIO, Accepted: seq, Durable: log.Durable().Load()})
		}
		seq += uint64(b.Len())
		b.Reset(1 << 20)
		d := s.draft()
		d.Payload = d.Payload[:min(len(d.Payload), 60)]
		in.Add(d)
		b.Add(&d, log.Kinds(), s.o.Clock.Now())
	}
}

func TestTornWriteLosesNothingAcknowledged(t *testing.T) { matrix.Run(t, "torn", torn) }
