package fuzz

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/fuzz/oracle"
	"github.com/runlog-io/runlog/segment/compressed"
	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// The rows of this file are about compressed segments.

// compressible are runs of a few segments that become smaller, made once.
var compressible = sync.OnceValues(func() (list []*specimen, err error) {
	for seed := range uint64(2) {
		s := newStage(900 + seed)
		run, in, err := s.engine(20)
		if err != nil {
			return nil, err
		}
		for i := range 60 {
			d := s.draft(100 + i%7*400)
			for k := range d.Payload {
				if k%64 >= 8 { // else noise
					d.Payload[k] = byte('a' + k%3)
				}
			}
			in.Add(d)
			if _, err := run.Submit(d); err != nil {
				return nil, err
			}
			s.h.Promise(run.ID(), in.Want, run.Durable())
		}
		if err := s.close(run, in); err != nil {
			return nil, err
		}
		sc := &specimen{name: "compressible", mem: s.mem.Kill(), h: s.h, run: run.ID(), dir: filepath.Join(specimenBase, specimenInstance, run.ID())}
		if err := errors.Join(sc.look(), sc.whole()); err != nil {
			return nil, err
		}
		list = append(list, sc)
	}
	return list, nil
})

// blocksOf says how a case compresses.
func blocksOf(seed uint64) runlog.Compression {
	return runlog.Compression{Codec: []runlog.Codec{runlog.S2, runlog.Zstd}[seed%2], BlockBytes: compressed.MinBlock}
}

// pass compresses a run, or goes back.
func pass(fsys vfs.FS, dir string, how runlog.Compression, back bool) error {
	forms, err := wal.Compress(context.Background(), fsys, dir, wal.CompressOptions{Compression: how, Undo: back})
	if err != nil {
		return err
	}
	for _, f := range forms {
		if (f.Codec == runlog.NoCodec) != back {
			return fmt.Errorf("segment %d is %v after the pass", f.Number, f.Codec)
		}
	}
	n, err := filesWith(fsys, dir, ".tmp")
	if n > 0 {
		return fmt.Errorf("%d unfinished files are left behind", n)
	}
	return err
}

// onDisk writes the specimen to a disk with sectors of that size.
func (s *specimen) onDisk(sector int) (*vfs.Mem, error) {
	m := vfs.NewMem(vfs.MemOptions{SectorSize: sector, Garbage: true})
	if err := m.MkdirAll(s.dir); err != nil {
		return nil, err
	}
	for _, f := range s.files {
		if err := overwrite(m, filepath.Join(s.dir, f.name), f.b); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// complete says what a sealed run has lost: it must have lost nothing.
func (s *specimen) complete(fsys vfs.FS) error {
	was := s.h.Runs[s.run]
	n := uint64(len(s.all))
	was.Acked, was.Exact = n, &n
	_, err := was.Read(fsys, s.dir)
	return err
}

// sameFiles compares the run's files with what they were.
func (s *specimen) sameFiles(fsys vfs.FS) error {
	names, err := fsys.ReadDir(s.dir)
	if err != nil || len(names) != len(s.files) {
		return fmt.Errorf("%d files, %d were there: %w", len(names), len(s.files), err)
	}
	for _, f := range s.files {
		b, err := vfs.ReadFile(fsys, filepath.Join(s.dir, f.name), 1<<30)
		if err != nil || string(b) != string(f.b) {
			return fmt.Errorf("%s is not what it was: %w", f.name, err)
		}
	}
	return nil
}

// swapped cuts the power at each operation of a pass. What is left holds every entry, and another pass, inside which the power
// goes once more, ends it.
func swapped(c *matrix.Cases) error {
	list, err := compressible()
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(c.Seed, 11))
	s, how, back := list[c.Seed%uint64(len(list))], blocksOf(c.Seed/2), c.Seed/4%2 == 1
	m, err := s.onDisk([]int{512, 4096}[c.Seed/8%2])
	if err != nil {
		return err
	}
	if back {
		if err := pass(m, s.dir, how, false); err != nil {
			return err
		}
	}
	if c.Seed%5 == 0 && c.Next() {
		if err := s.lied(m, how, back, r); err != nil {
			return err
		}
	}
	var found error
	m.SetHook(func(op vfs.Op) error {
		if op.Kind&vfs.OpChange == 0 || found != nil || !c.Next() {
			return nil
		}
		_, cut := crashes(r)
		if err := s.ended(cut(m).(*vfs.Mem), how, r); err != nil {
			found = fmt.Errorf("power cut before %v: %w", op, err)
		}
		return nil
	})
	err = pass(m, s.dir, how, back)
	m.SetHook(nil)
	if found == nil && err == nil {
		err = s.complete(m)
	}
	return errors.Join(found, err)
}

// ended judges what a power cut has left of a pass, and what further ones make of it.
func (s *specimen) ended(m *vfs.Mem, how runlog.Compression, r *rand.Rand) error {
	if err := s.complete(m); err != nil {
		return err
	}
	if r.IntN(8) == 0 {
		rep, err := verify.Run(context.Background(), m, s.dir, verify.Options{})
		if err != nil || !rep.Clean() {
			return fmt.Errorf("verify: %v, %w", rep.Findings, err)
		}
	}
	back, at := r.IntN(2) == 0, r.IntN(40)
	_, cut := crashes(r)
	var inside vfs.FS
	m.SetHook(func(op vfs.Op) error {
		if op.Kind&vfs.OpChange != 0 {
			if at--; at == 0 {
				inside = cut(m)
			}
		}
		return nil
	})
	err := pass(m, s.dir, how, back)
	m.SetHook(nil)
	if err == nil {
		err = s.complete(m)
	}
	if err == nil && inside != nil {
		if err = s.complete(inside); err == nil {
			err = pass(inside, s.dir, how, true)
		}
		if err == nil {
			err = s.sameFiles(inside)
		}
		if err != nil {
			err = fmt.Errorf("power cut inside the next pass: %w", err)
		}
	}
	return err
}

// lied lets the disk hold something else than was written, once. The pass must notice, or it does not matter.
func (s *specimen) lied(m *vfs.Mem, how runlog.Compression, back bool, r *rand.Rand) error {
	l := &liar{FS: m.Kill(), nth: 1 + r.IntN(20), bit: r.IntN(1 << 20)}
	err := pass(l, s.dir, how, back)
	if l.nth <= 0 && err == nil {
		return errors.New("another bit came to the disk than was written, and the pass has not noticed")
	}
	if err := s.complete(l.FS); err != nil {
		return fmt.Errorf("another bit came to the disk than was written: %w", err)
	}
	return pass(l.FS, s.dir, how, back)
}

// liar flips a bit of the nth write to unfinished files.
type liar struct {
	vfs.FS
	nth, bit int
}

func (l *liar) Create(name string) (vfs.File, error) {
	f, err := l.FS.Create(name)
	if err != nil {
		return nil, err
	}
	return &lyingFile{f, l}, nil
}

type lyingFile struct {
	vfs.File
	l *liar
}

func (f *lyingFile) WriteAt(b []byte, off int64) (int, error) {
	if f.l.nth--; f.l.nth == 0 && len(b) > 0 {
		b = append([]byte(nil), b...)
		at := f.l.bit % (8 * len(b))
		b[at/8] ^= 1 << (at % 8)
	}
	return f.File.WriteAt(b, off)
}

func TestPowerCutsWhileCompressingLoseNothing(t *testing.T) { matrix.Run(t, "swap", swapped) }

// compressingLoad is the load of the row "power", with small entries and zeros, so that segments become smaller.
func compressingLoad(c *matrix.Cases, swaps *atomic.Int64) error {
	s := newSim(c.Seed)
	s.tiny = true
	s.o.Compress = blocksOf(c.Seed)
	s.o.Compress.KeepPlain = int(c.Seed / 2 % 2)
	return s.everywhere(c, func() {
		if s.op.Kind == vfs.OpRename && strings.HasSuffix(s.op.Name, ".seg") { // the plain file's name goes
			swaps.Add(1)
		}
	})
}

func TestPowerCutsBesideCompressingLoseNothingAcknowledged(t *testing.T) {
	var swaps, loads atomic.Int64
	matrix.Run(t, "compressing", func(c *matrix.Cases) error {
		loads.Add(1)
		return compressingLoad(c, &swaps)
	}, matrix.Detail(func() string {
		return fmt.Sprintf("%d segments were swapped", swaps.Load())
	}))
	if swaps.Load() == 0 && loads.Load() > 10 {
		t.Error("no segment was compressed")
	}
}

// packedRun is a compressed specimen.
type packedRun struct {
	*specimen
	mem   *vfs.Mem
	files []file // compressed segments
	bytes uint64
}

var packedRuns = sync.OnceValues(func() (list []*packedRun, err error) {
	specimens, err := compressible()
	if err != nil {
		return nil, err
	}
	for i, s := range specimens {
		p := &packedRun{specimen: s, mem: s.copy()}
		if err := pass(p.mem, s.dir, blocksOf(uint64(i)), false); err != nil {
			return nil, err
		}
		for n := uint32(1); ; n++ {
			b, err := vfs.ReadFile(p.mem, filepath.Join(s.dir, compressed.FileName(n)), 1<<30)
			if err != nil {
				break
			}
			p.files = append(p.files, file{name: compressed.FileName(n), b: b})
			p.bytes += uint64(len(b))
		}
		list = append(list, p)
	}
	return list, nil
})

// packed flips every bit of one byte of a compressed segment, and cuts the file there. Seeds that follow each other are at
// places all over the files.
func packed(c *matrix.Cases) error {
	list, err := packedRuns()
	if err != nil {
		return err
	}
	p := list[c.Seed%uint64(len(list))]
	at := c.Seed / uint64(len(list)) * 7919 % p.bytes
	f := &p.files[0]
	for i := 0; at >= uint64(len(f.b)); i++ {
		at -= uint64(len(f.b))
		f = &p.files[i+1]
	}
	for bit := range 9 {
		if !c.Next() {
			return nil
		}
		m := p.mem.Kill()
		d := harm{damage: damage{{f.name, int64(at), int64(at) + 1}}}
		err := change(m, filepath.Join(p.dir, f.name), func(b []byte) []byte {
			if bit == 8 {
				d.damage[0].to = int64(len(b))
				return b[:at]
			}
			b[at] ^= 1 << bit
			return b
		})
		if err == nil {
			err = p.told(m, d, int(c.Seed)+bit)
		}
		if err != nil {
			return fmt.Errorf("%s, byte %d, bit %d (8: cut): %w", f.name, at, bit, err)
		}
	}
	return nil
}

// told judges a damaged copy: nothing wrong comes, what does not come is explained, and verify finds it.
func (p *packedRun) told(m *vfs.Mem, d harm, n int) error {
	r, err := runlog.OpenReader(p.dir, runlog.ReaderOptions{FS: m})
	if err != nil {
		return p.blames(err, d)
	}
	defer r.Close()
	var buf runlog.Buffer
	lost := 0
	for i := range p.all {
		seq := uint64(i + 1)
		v, err := r.Get(seq, &buf)
		if err == nil {
			err = p.right(v, seq)
		} else {
			lost++
			err = p.blames(err, d)
		}
		if err != nil {
			return fmt.Errorf("get %d: %w", seq, err)
		}
	}
	was := p.h.Runs[p.run]
	was.Acked = 0
	got, said := was.Read(m, p.dir)
	if errors.Is(said, oracle.ErrFalse) || said == nil && (lost > 0 || got < uint64(len(p.all))) {
		return fmt.Errorf("%d entries are lost, and a scan gives %d: %w", lost, got, said)
	}
	if err := p.blames(said, d); err != nil {
		return err
	}
	if err := p.ask(m, d, n, 6); err != nil {
		return err
	}
	rep, err := verify.Run(context.Background(), m, p.dir, verify.Options{})
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	for _, f := range rep.Findings {
		if filepath.Base(f.Path) == d.damage[0].file {
			return nil
		}
	}
	return fmt.Errorf("verify has not found it: %v", rep.Findings)
}

func TestDamageToACompressedSegmentIsFound(t *testing.T) { matrix.Run(t, "packed", packed) }

// swapReaders lets readers of every kind go beside a log that compresses, and then beside passes that go back and forth.
func swapReaders(c *matrix.Cases, dir string, fsys vfs.FS) error {
	o := runlog.Options{
		Dir: dir, Instance: "busy", FS: fsys, SegmentBytes: 64 << 10, WarnAfter: -1, HaltAfter: -1, Compress: blocksOf(c.Seed),
	}
	var run string
	err := readersBeside(c, o, func(ctx context.Context, b *busy) error {
		run = b.run.Dir()
		for ctx.Err() == nil { // some of it is compressed while it is read
			if n, err := filesWith(fsys, run, ".segz"); err != nil || n > 1 {
				return err
			}
			time.Sleep(time.Millisecond)
		}
		return errors.New("nothing was compressed beside the readers")
	})
	if err != nil {
		return err
	}
	over, done := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(over)
		for i := range 4 {
			if _, err := wal.Compress(context.Background(), fsys, run, wal.CompressOptions{Compression: o.Compress, Undo: i%2 == 1}); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	kept, err := runlog.OpenReader(run, runlog.ReaderOptions{FS: fsys})
	if err != nil {
		return err
	}
	defer kept.Close()
	b := &busy{fs: fsys, over: over, total: 1500}
	err = b.again(context.Background(), func() error {
		fresh, err := runlog.OpenReader(run, runlog.ReaderOptions{FS: fsys})
		if err != nil {
			return err
		}
		defer fresh.Close()
		for _, r := range []*runlog.Reader{kept, fresh} {
			if err := b.contiguous(r.Scan(runlog.ScanOptions{}), 1, b.total); err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(err, <-done)
}

func filesWith(fsys vfs.FS, dir, suffix string) (n int, err error) {
	names, err := fsys.ReadDir(dir)
	for _, e := range names {
		if strings.HasSuffix(e.Name(), suffix) {
			n++
		}
	}
	return n, err
}

func TestReadersSeeEveryEntryOnceBesideCompressing(t *testing.T) {
	matrix.Run(t, "swap-readers", func(c *matrix.Cases) error {
		if err := swapReaders(c, t.TempDir(), vfs.OS); err != nil {
			return fmt.Errorf("on files: %w", err)
		}
		if err := swapReaders(c, "/base", vfs.NewMem(vfs.MemOptions{})); err != nil {
			return fmt.Errorf("in memory: %w", err)
		}
		return nil
	}, matrix.Workers(1))
}
