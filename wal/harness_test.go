package wal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
)

const (
	runID  = "20261123T200248.123456789Z-1a2b3c4d"
	runDir = "/base/desk/" + runID
)

// ticker is a clock that moves by a microsecond whenever somebody looks.
type ticker struct{ now atomic.Int64 }

func (c *ticker) Now() int64 { return c.now.Add(1000) }

// rig is a log on a disk in memory, with what was submitted to it.
type rig struct {
	t    testing.TB
	mem  *vfs.Mem
	o    Options
	log  *Log
	rng  *rand.Rand
	want []entry.Entry // by seq - 1
}

func newRig(t testing.TB, change ...func(*Options)) *rig {
	t.Helper()
	c := &ticker{}
	c.now.Store(1_800_000_000_000_000_000)
	salts := rand.New(rand.NewPCG(1, 2))
	g := &rig{t: t, mem: vfs.NewMem(vfs.MemOptions{}), rng: rand.New(rand.NewPCG(3, 4))}
	g.o = Options{
		FS: g.mem, Dir: runDir, SegmentBytes: 64 << 10, FirstBytes: 64 << 10, Clock: c, Salts: salts.Uint64, Inline: true,
		Manifest: manifest.Manifest{
			Identity: manifest.Identity{Run: runID, Instance: "desk", Origin: manifest.OriginEngine},
			Kinds:    []manifest.KeyKind{{ID: uint32(entry.FirstUserKind), Name: "desk"}},
		},
	}
	for _, f := range change {
		f(&g.o)
	}
	if err := g.o.FS.MkdirAll("/base/desk"); err != nil {
		t.Fatal(err)
	}
	var err error
	if g.log, err = Create(g.o); err != nil {
		t.Fatal(err)
	}
	return g
}

// draft makes entry number n (its seq): a topic of three, a type of two, an order id of n/4, an id of its own.
func draft(n uint64, payload int) entry.Draft {
	return entry.Draft{
		Topic: fmt.Sprintf("topic-%d", n%3), Type: fmt.Sprintf("Type%d", n%2), TsInit: int64(1000*n) * (1 - 2*int64(n%2)),
		Payload: bytes.Repeat([]byte{byte(n)}, payload),
		ID:      entry.ID{1, byte(n >> 8), byte(n)}, CorrelationID: entry.ID{2, byte(n / 10)},
		Keys: []entry.Key{{Kind: entry.ClientOrderID, Value: fmt.Sprintf("O-%d", n/4)}, {Kind: "desk", Value: "D-1"}},
	}
}

// add appends drafts as one batch.
func (g *rig) add(drafts ...entry.Draft) error {
	var b entry.Batch
	for i := range drafts {
		ts := g.o.Clock.Now()
		b.Add(&drafts[i], g.log.Kinds(), ts)
		g.want = append(g.want, entryOf(&drafts[i], uint64(len(g.want)+1), ts))
	}
	return g.log.Append(&b, 0, b.Len(), uint64(len(g.want)-len(drafts)+1))
}

func entryOf(d *entry.Draft, seq uint64, ts int64) entry.Entry {
	return entry.Entry{
		Seq: seq, TsInit: d.TsInit, TsPublish: ts, Topic: d.Topic, Type: d.Type, Payload: bytes.Clone(d.Payload), ID: d.ID,
		CorrelationID: d.CorrelationID, CausationID: d.CausationID, Keys: d.Keys,
	}
}

// fill appends n entries of the given payload size in batches of 1 to 3, and syncs each.
func (g *rig) fill(n, payload int) *rig {
	g.t.Helper()
	for n > 0 {
		k := min(1+g.rng.IntN(3), n)
		var batch []entry.Draft
		for i := range k {
			batch = append(batch, draft(uint64(len(g.want)+i+1), payload))
		}
		if err := g.add(batch...); err != nil {
			g.t.Fatal(err)
		}
		g.must(g.log.Sync())
		n -= k
	}
	return g
}

func (g *rig) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

// sealed ends the run cleanly.
func (g *rig) sealed() *rig {
	g.t.Helper()
	g.must(g.log.Mark())
	g.must(g.log.Seal(manifest.Ended))
	g.log.Close()
	return g
}

// killed lets the process die and returns what the next one finds.
func (g *rig) killed() *vfs.Mem {
	g.log.Abandon()
	return g.mem.Kill()
}

func openReader(t testing.TB, fsys vfs.FS) *Reader {
	t.Helper()
	r, err := OpenReader(fsys, runDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func recovered(t testing.TB, fsys vfs.FS) Recovery {
	t.Helper()
	rec, err := Recover(fsys, runDir, 1)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// prefix scans r and returns how many entries of want it delivers before it ends, with or without an error. Anything
// else than the right entry at the right place is the second error.
func prefix(r *Reader, want []entry.Entry) (n int, end, wrong error) {
	for v, err := range r.Scan(ScanOptions{}) {
		if err != nil {
			return n, err, nil
		}
		if err := equal(&v, want, n); err != nil {
			return n, nil, err
		}
		n++
	}
	return n, nil, nil
}

func equal(v *entry.View, want []entry.Entry, i int) error {
	if i >= len(want) {
		return fmt.Errorf("entry %d was delivered, %d were submitted", i+1, len(want))
	}
	got := v.Clone()
	if len(got.Payload) == 0 {
		got.Payload = nil
	}
	exp := want[i]
	if len(exp.Payload) == 0 {
		exp.Payload = nil
	}
	if len(got.Keys)+len(exp.Keys) == 0 {
		got.Keys, exp.Keys = nil, nil
	}
	if !reflect.DeepEqual(got, exp) {
		return fmt.Errorf("entry %d: got seq %d, %s, want %s", i+1, got.Seq, got.Topic, exp.Topic)
	}
	return nil
}

// whole fails the test unless r delivers exactly want.
func whole(t testing.TB, r *Reader, want []entry.Entry) {
	t.Helper()
	if n, end, wrong := prefix(r, want); n != len(want) || end != nil || wrong != nil {
		t.Fatalf("%d of %d entries, then %v, %v", n, len(want), end, wrong)
	}
}

// located reports whether an error says what is wrong and where.
func located(err error) bool {
	var fe *format.Error
	return errors.As(err, &fe) && fe.Path != "" && (fe.Offset >= 0 || fe.FirstSeq > 0 || errors.Is(err, format.ErrMissingSegment)) &&
		(errors.Is(err, format.ErrCorrupt) || errors.Is(err, format.ErrVersion) || errors.Is(err, format.ErrWrongKind))
}

// contents returns the files of a folder whose names have one of the suffixes; no suffix: all.
func contents(t testing.TB, fsys vfs.FS, dir string, suffixes ...string) map[string]string {
	t.Helper()
	names, err := fsys.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range names {
		keep := len(suffixes) == 0
		for _, s := range suffixes {
			keep = keep || strings.HasSuffix(e.Name(), s)
		}
		if keep && !e.IsDir() {
			b, err := vfs.ReadFile(fsys, filepath.Join(dir, e.Name()), 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			all[e.Name()] = string(b)
		}
	}
	return all
}

// edit changes the bytes of a file in place.
func edit(t testing.TB, fsys vfs.FS, name string, change func(b []byte) []byte) {
	t.Helper()
	f, err := fsys.Open(filepath.Join(runDir, name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, _ := f.Size()
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && size > 0 {
		t.Fatal(err)
	}
	b = change(b)
	if err := errors.Join(f.Truncate(0), f.Truncate(int64(len(b)))); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Datasync(); err != nil {
		t.Fatal(err)
	}
}

// cut sets a file's length.
func cut(t testing.TB, fsys vfs.FS, name string, n int) {
	t.Helper()
	f, err := fsys.Open(filepath.Join(runDir, name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(f.Truncate(int64(n)), f.Datasync()); err != nil {
		t.Fatal(err)
	}
}

// poke xors one byte.
func poke(t testing.TB, fsys vfs.FS, name string, off int64, mask byte) {
	t.Helper()
	f, err := fsys.Open(filepath.Join(runDir, name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= mask
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	if err := f.Datasync(); err != nil {
		t.Fatal(err)
	}
}

func remove(t testing.TB, fsys vfs.FS, name string) {
	t.Helper()
	if err := fsys.Remove(filepath.Join(runDir, name)); err != nil {
		t.Fatal(err)
	}
}
