package slow

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// prepared is a run as the engine has left it.
type prepared struct {
	name  string
	dir   string
	files map[string][]byte
	end   Verdict // that is expected
	whole *Log    // what slow reads in it
}

const (
	instance = "slow"
	floored  = 2 // of the runs, the last ones, begin later
)

// prepare makes the runs, the same bytes each time.
var prepare = sync.OnceValues(func() (runs []*prepared, err error) {
	for i, m := range []struct {
		name string
		end  Verdict
		make func(*maker) (vfs.FS, string, error)
	}{
		{"sealed", Clean, func(m *maker) (vfs.FS, string, error) { return m.batches(20, 200, sealed) }},
		{"sealed by Close", Clean, (*maker).engine},
		{"many segments", Clean, func(m *maker) (vfs.FS, string, error) { return m.batches(24, 12000, sealed) }},
		{"batch larger than a segment", Clean, func(m *maker) (vfs.FS, string, error) { return m.batches(7, 100<<10, sealed) }},
		{"live", Clean, func(m *maker) (vfs.FS, string, error) { return m.batches(14, 9000, killed) }},
		{"live, marked", Clean, func(m *maker) (vfs.FS, string, error) { return m.batches(14, 9000, marked) }},
		{"torn", Torn, func(m *maker) (vfs.FS, string, error) { return m.batches(14, 9000, cut) }},
		{"torn at the start", Torn, func(m *maker) (vfs.FS, string, error) { return m.batches(1, 3000, cut) }},
		{"recovered", Clean, (*maker).recovered},
		{"halted", Clean, func(m *maker) (vfs.FS, string, error) { return m.batches(10, 6000, stalled) }},
		{"imported", Clean, (*maker).imported},
		{"empty", Clean, func(m *maker) (vfs.FS, string, error) { return m.batches(0, 0, sealed) }},
		{"begins later", Clean, func(m *maker) (vfs.FS, string, error) { return m.floored(sealed) }},
		{"live, begins later", Clean, func(m *maker) (vfs.FS, string, error) { return m.floored(marked) }},
	} {
		fsys, dir, err := m.make(newMaker(uint64(i)))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		files, err := readFolder(fsys, dir)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		runs = append(runs, &prepared{name: m.name, dir: dir, files: files, end: m.end, whole: Read(files)})
	}
	return runs, nil
})

// maker makes a run.
type maker struct {
	rng *rand.Rand
	mem *vfs.Mem
	o   runlog.Options
	log *wal.Log // that batches has made

	compress runlog.Compression // of runs made by batches
}

type clock struct{ now atomic.Int64 }

func (c *clock) Now() int64 { return c.now.Add(1000) }

func newMaker(seed uint64) *maker {
	m := &maker{rng: rand.New(rand.NewPCG(seed, 1)), mem: vfs.NewMem(vfs.MemOptions{Garbage: true})}
	c := &clock{}
	c.now.Store(1_800_000_000_000_000_000)
	m.o = runlog.Options{
		Dir: "/base", Instance: instance, Synchronous: true, Clock: c, Salts: rand.New(rand.NewPCG(seed, 2)).Uint64, FS: m.mem,
		SegmentBytes: 64 << 10, FirstSegmentBytes: 64 << 10, Kinds: []string{"desk"}, IdleMark: -1,
		Build: "b1", Labels: map[string]string{"z": "<&>", "a": "\u2028"}, Components: []runlog.Component{{Kind: "k", ID: "i"}},
	}
	return m
}

// draft makes an entry of any shape: no payload, zeros, noise; no, few or many keys; ids or none.
func (m *maker) draft(most int) runlog.Draft {
	d := runlog.Draft{
		Topic: fmt.Sprintf("topic-%d", m.rng.IntN(12)), Type: fmt.Sprintf("Type%d", m.rng.IntN(3)), TsInit: int64(m.rng.Uint64()),
	}
	if m.rng.IntN(6) > 0 {
		d.Payload = make([]byte, m.rng.IntN(most+1))
	}
	if m.rng.IntN(4) > 0 { // else zeros: they must not look like the end of the log
		for i := range d.Payload {
			d.Payload[i] = byte(m.rng.Uint32())
		}
	}
	keys := m.rng.IntN(4)
	if m.rng.IntN(20) == 0 {
		keys = 40
	}
	for range keys {
		kind := []string{runlog.ClientOrderID, runlog.VenueOrderID, "desk"}[m.rng.IntN(3)]
		d.Keys = append(d.Keys, runlog.Key{Kind: kind, Value: fmt.Sprintf("O-%d", m.rng.IntN(200))})
	}
	for i, id := range []*runlog.ID{&d.ID, &d.CorrelationID, &d.CausationID} {
		if m.rng.IntN(2) == 0 {
			*id = runlog.ID{byte(i + 1), byte(m.rng.IntN(16))}
		}
	}
	return d
}

// ending is how a run made by batches ends.
type ending int

const (
	sealed  ending = iota
	killed         // as a copy finds it while the writer lives
	marked         // the same behind a sync mark
	cut            // the power goes before the last sync
	stalled        // halt record in the active segment
)

// batches drives a wal.Log: several entries a batch, several batches a sync, marks now and then.
func (m *maker) batches(n, most int, e ending) (vfs.FS, string, error) {
	id := manifest.NewRunID(m.o.Clock.Now(), "", 7)
	dir := path.Join(m.o.Dir, instance, id)
	if err := m.mem.MkdirAll(path.Dir(dir)); err != nil {
		return nil, "", err
	}
	log, err := wal.Create(wal.Options{
		FS: m.mem, Dir: dir, SegmentBytes: 64 << 10, FirstBytes: 64 << 10, Clock: m.o.Clock, Salts: m.o.Salts, Inline: true, Compress: m.compress,
		Manifest: manifest.Manifest{Identity: manifest.Identity{Run: id, Instance: instance, Origin: manifest.OriginEngine, Build: "b2"}},
	})
	if err != nil {
		return nil, "", err
	}
	if _, err := log.DeclareKind("desk"); err != nil {
		return nil, "", err
	}
	m.log = log
	var b entry.Batch
	seq := uint64(1)
	appendBatch := func() error {
		for range m.rng.IntN(5) + 1 {
			d := m.draft(most)
			b.Add(&d, log.Kinds(), m.o.Clock.Now())
			if m.rng.IntN(4) == 0 {
				b.AddNote(entry.NoteAnchor+entry.NoteKind(m.rng.IntN(6)), make([]byte, m.rng.IntN(100)))
			}
		}
		err := log.Append(&b, 0, b.Len(), seq)
		seq += uint64(b.Len())
		b.Reset(1 << 20)
		return err
	}
	for i := range n {
		if i == n/2 {
			if _, err := log.DeclareKind("later"); err != nil {
				return nil, "", err
			}
		}
		if err := appendBatch(); err != nil {
			return nil, "", err
		}
		switch m.rng.IntN(5) {
		case 0, 1:
			err = log.Sync()
		case 2:
			err = log.Mark()
		}
		if err != nil {
			return nil, "", err
		}
	}
	switch e {
	case sealed:
		b.Add(&entry.Draft{Topic: entry.TopicEnded, Type: entry.TypeEnded}, log.Kinds(), m.o.Clock.Now())
		if err = log.Append(&b, 0, b.Len(), seq); err == nil {
			err = log.Seal(manifest.Ended)
		}
	case marked:
		err = log.Mark()
	case cut:
		if err = log.Sync(); err == nil {
			err = appendBatch()
		}
		if err != nil {
			return nil, "", err
		}
		torn, err := m.tear(dir)
		return torn, dir, err
	case stalled:
		if err = log.Sync(); err == nil {
			err = log.Fail(manifest.Halt{Reason: manifest.ReasonStall, Stage: manifest.StageQueue})
		}
	}
	return m.mem.Kill(), dir, err
}

// floored is a run whose first segments retention has removed.
func (m *maker) floored(e ending) (vfs.FS, string, error) {
	fsys, dir, err := m.batches(30, 12000, e)
	if err != nil {
		return nil, "", err
	}
	if e == sealed {
		return fsys, dir, wal.RemoveBefore(fsys, dir, 4)
	}
	err = m.log.RemoveBefore(4)
	return m.mem.Kill(), dir, err
}

// tear cuts the power so that the last batch is there in part.
func (m *maker) tear(dir string) (vfs.FS, error) {
	for seed := range uint64(100) {
		torn := m.mem.Crash(vfs.Random(seed))
		if files, err := readFolder(torn, dir); err == nil && Read(files).Torn > 0 {
			return torn, nil
		}
	}
	return nil, errors.New("no power cut tears the last batch")
}

// engine makes a run through the front door.
func (m *maker) engine() (vfs.FS, string, error) {
	run, err := runlog.Open(context.Background(), m.o)
	if err != nil {
		return nil, "", err
	}
	for range 60 {
		if _, err := run.Submit(m.draft(4000)); err != nil {
			return nil, "", err
		}
	}
	return m.mem, run.Dir(), run.Close(context.Background())
}

// recovered is a torn run that the next boot has sealed.
func (m *maker) recovered() (vfs.FS, string, error) {
	fsys, dir, err := m.batches(12, 9000, cut)
	if err != nil {
		return nil, "", err
	}
	m.o.FS = fsys
	run, err := runlog.Open(context.Background(), m.o)
	if err != nil {
		return nil, "", err
	}
	return fsys, dir, errors.Join(run.Predecessors()[0].Err, run.Close(context.Background()))
}

func (m *maker) imported() (vfs.FS, string, error) {
	im, err := runlog.NewImport(m.o)
	if err != nil {
		return nil, "", err
	}
	for ts := range int64(80) {
		d := m.draft(2500)
		d.TsPublish = ts + 5
		if err := im.Add(d); err != nil {
			return nil, "", err
		}
	}
	dir, err := im.Finish(context.Background())
	return m.mem, dir, err
}

func readFolder(fsys vfs.FS, dir string) (map[string][]byte, error) {
	list, err := fsys.ReadDir(dir)
	files := map[string][]byte{}
	for _, e := range list {
		b, err := vfs.ReadFile(fsys, path.Join(dir, e.Name()), 1<<30)
		if err != nil {
			return nil, err
		}
		files[e.Name()] = b
	}
	return files, err
}

// writeFolder makes a folder with these files.
func writeFolder(fsys vfs.FS, dir string, files map[string][]byte) error {
	if err := fsys.MkdirAll(dir); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f, err := fsys.Create(path.Join(dir, name))
		if err != nil {
			return err
		}
		if _, err := f.WriteAt(files[name], 0); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}
