package wal

import (
	"context"
	"errors"
	"testing"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

// badDisk is a file system whose cache still holds what the disk has lost of one file.
type badDisk struct {
	vfs.FS
	name string
	at   int64
}

type badDiskFile struct {
	vfs.File
	at int64
}

func (f badDiskFile) ReadAtUncached(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAtUncached(p, off)
	if i := f.at - off; i >= 0 && i < int64(n) {
		p[i] ^= 1
	}
	return n, err
}

func (d badDisk) OpenRead(name string) (vfs.File, error) {
	f, err := d.FS.OpenRead(name)
	if err == nil && name == d.name {
		f = badDiskFile{f, d.at}
	}
	return f, err
}

// What a later segment proves durable is not cut off as a torn tail, whatever the disk says now.
func TestRecoveryDoesNotCutOffWhatALaterSegmentProves(t *testing.T) {
	g := newRig(t, func(o *Options) { o.Inline = false })
	g.log.sealer.stop() // the process dies before the footer is written
	g.fill(60, 1000)
	first := g.log.set.Load().segs[0].open.Load()
	if first == nil || len(g.log.set.Load().segs) < 2 {
		t.Fatal("there is no open segment behind the active one")
	}
	at := first.end.Load() - 8
	acked := g.log.Durable().Load()
	mem := g.killed()
	before := contents(t, mem, runDir, ".seg")
	rec, err := Recover(badDisk{mem, runDir + "/" + segment.FileName(1), at}, runDir, 9)
	if err != nil {
		t.Fatal(err)
	}
	if rec.Status != manifest.Quarantined || !errors.Is(rec.Damage, format.ErrCorrupt) {
		t.Errorf("%s with %d of %d acknowledged entries: %v", rec.Status, rec.LastSeq, acked, rec.Damage)
	}
	for name, b := range contents(t, mem, runDir, ".seg") {
		if string(b) != string(before[name]) {
			t.Errorf("%s was changed", name)
		}
	}
	if n := len(contents(t, mem, runDir, ".seg")); n != len(before) {
		t.Errorf("%d of %d segments are left", n, len(before))
	}
}

// growing lets a writer go on between two looks of a reader at the file: it adds batches whenever the size is asked.
type growing struct {
	vfs.FS
	grow func()
}

type growingFile struct {
	vfs.File
	grow func()
}

func (f growingFile) Size() (int64, error) {
	f.grow()
	return f.File.Size()
}

func (d growing) OpenRead(name string) (vfs.File, error) {
	f, err := d.FS.OpenRead(name)
	return growingFile{f, d.grow}, err
}

// A writer that commits faster than a reader can look is not damage.
func TestAWriterThatNeverRestsIsNotDamage(t *testing.T) {
	g := newRig(t).fill(3, 100)
	r, err := OpenReader(growing{g.mem, func() { g.fill(6, 10) }}, runDir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.Damage() != nil || !r.Live() {
		t.Fatalf("damage: %v, live: %v", r.Damage(), r.Live())
	}
	if n, end, wrong := prefix(r, g.want); uint64(n) != r.LastSeq() || n < 3 || end != nil || wrong != nil {
		t.Errorf("%d entries of %d: %v, %v", n, r.LastSeq(), end, wrong)
	}
}

// A recovery that replaces the segment by a copy ends the tails that still hold the old file.
func TestATailEndsWhenRecoveryHasCopiedTheSegment(t *testing.T) {
	g := newRig(t).fill(5, 10)
	mem := g.killed()
	r := openReader(t, mem)
	if _, err := Recover(noUncached{mem}, runDir, 9); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	n := 0
	for _, err := range r.Tail(ctx, TailOptions{}) {
		if err != nil {
			t.Fatalf("after %d entries: %v", n, err)
		}
		n++
	}
	if n != len(g.want) || r.Durable() != uint64(n) {
		t.Errorf("%d entries, durable %d", n, r.Durable())
	}
}
