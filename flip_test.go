package runlog_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/index"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// victim is the run of a process that was killed: one segment is sealed, the next one holds ten entries that a mark proves durable.
type victim struct {
	disk    *vfs.Mem
	id, dir string
	last    uint64 // seq
	first   uint64 // of the segment that is not sealed
	end     int64  // of what is proven durable in it
}

var active = segment.FileName(2)

func newVictim(t *testing.T) victim {
	t.Helper()
	o := options(newMem())
	o.FirstSegmentBytes, o.SegmentBytes, o.Synchronous = segment.MinSegment, segment.MinSegment, true
	mem := o.FS.(*vfs.Mem)
	r := open(t, o)
	big := order(0)
	big.Payload = make([]byte, 8<<10)
	for {
		if _, err := mem.Stat(filepath.Join(r.Dir(), active)); err == nil && sealedSegment(t, mem, filepath.Join(r.Dir(), segmentOne)) {
			break
		}
		must1(r.Submit(big))
	}
	for r.Accepted() < 14 {
		add(t, r, 1)
	}
	disk := mem.Kill()
	v := victim{disk: disk, id: r.ID(), dir: r.Dir(), last: r.Accepted()}
	closed(t, r) // on the other disk
	raw := must1(vfs.ReadFile(disk, filepath.Join(v.dir, active), 1<<30))
	h, err := segment.ReadHeader(strings.NewReader(string(raw)), active)
	must(t, err)
	durable := uint64(0)
	var commits []segment.Commit
	segment.FindCommits(raw, h.Salt, 0, func(c segment.Commit) bool {
		durable = max(durable, c.Durable)
		commits = append(commits, c)
		return true
	})
	for _, c := range commits {
		if v.first == 0 {
			v.first = c.FirstSeq
		}
		if c.Ordinal <= durable {
			v.end = c.End()
		}
	}
	if v.end == 0 || v.first < 3 || v.last < v.first+5 {
		t.Fatalf("not the run that was wanted: %+v, %d commits", v, len(commits))
	}
	return v
}

func sealedSegment(t *testing.T, mem *vfs.Mem, name string) bool {
	t.Helper()
	f := must1(mem.OpenRead(name))
	defer f.Close()
	h := must1(segment.ReadHeader(f, name))
	_, ok, err := segment.ReadFooter(f, must1(f.Size()), &h)
	must(t, err)
	return ok
}

// flipped is a copy of the disk with one bit of one file turned over.
func (v *victim) flipped(t *testing.T, file string, at int64) *vfs.Mem {
	t.Helper()
	mem := v.disk.Kill()
	f := must1(mem.Open(filepath.Join(v.dir, file)))
	var b [1]byte
	must1(f.ReadAt(b[:], at))
	b[0] ^= 1 << (at % 8)
	must1(f.WriteAt(b[:], at))
	must(t, f.Datasync())
	must(t, f.Close())
	return mem
}

// next is the engine's next start.
func (v *victim) next(t *testing.T, mem *vfs.Mem) *runlog.Run {
	t.Helper()
	o := options(mem)
	o.FirstSegmentBytes, o.Synchronous = segment.MinSegment, true
	r, err := runlog.Open(t.Context(), o)
	must(t, err)
	return r
}

// A run with one flipped bit in the durable part of its unsealed segment is quarantined at boot, the engine still starts, and
// the finding names the seq.
func TestAFlippedBitInTheDurablePartOfAnUnsealedSegmentIsQuarantinedWithItsSeq(t *testing.T) {
	v := newVictim(t)
	for at := int64(0); at < v.end; at++ {
		if at > 600 && at < segment.BlockSize-16 && at%61 != 0 { // zeros that fill up the header
			continue
		}
		where := fmt.Sprintf("byte %d of %d", at, v.end)
		mem := v.flipped(t, active, at)
		r := v.next(t, mem)
		p := predecessor(t, r, v.id)
		var fe *runlog.Error
		if p.Status != runlog.Quarantined || !errors.Is(p.Err, runlog.ErrCorrupt) || !errors.As(p.Err, &fe) || r.Manifest().Parent != "" {
			t.Fatalf("%s: predecessor %+v", where, p)
		}
		q, quarantined, err := manifest.ReadQuarantine(mem, v.dir)
		if err != nil || !quarantined || q.File != active || q.FirstSeq < v.first || q.FirstSeq > v.last || fe.FirstSeq != q.FirstSeq {
			t.Fatalf("%s: quarantine %+v, %v; %v", where, q, err, p.Err)
		}
		if at >= segment.BlockSize { // the verdict names no more than what the batch holds
			if q.LastSeq < q.FirstSeq {
				t.Fatalf("%s: quarantine %+v", where, q)
			}
		}
		if at%16 == 0 { // the engine runs
			add(t, r, 1)
			closed(t, r)
		}
	}
}

// A flipped bit anywhere else is found by verify, and by the first read of it: entries that it takes are an error with their
// seq, and what is made again from other files is said so. No boot fails for it.
func TestAFlippedBitAnywhereElseIsFoundByTheFirstReadAndByVerify(t *testing.T) {
	v := newVictim(t)
	names := must1(v.disk.ReadDir(v.dir))
	if len(names) < 5 {
		t.Fatalf("%d files", len(names))
	}
	for _, e := range names {
		name := e.Name()
		raw := must1(vfs.ReadFile(v.disk, filepath.Join(v.dir, name), 1<<30))
		size := int64(len(raw))
		step := int64(1)
		if n, ok := segment.ParseFileName(name); ok {
			if n > 1 { // the test above, and what was never written
				continue
			}
			step = 83
		}
		for at := int64(0); at < size; at += step {
			where := fmt.Sprintf("%s, byte %d", name, at)
			mem := v.flipped(t, name, at)
			rep, err := verify.Run(t.Context(), mem, v.dir, verify.Options{})
			must(t, err)
			if rep.Clean() {
				t.Fatalf("%s: verify finds nothing", where)
			}
			v.read(t, mem, where, v.firstRead(name, raw, at))
			if at%7 == 0 {
				r := v.next(t, mem)
				closed(t, r)
			}
		}
	}
}

// finds says what the first read of a damaged byte gives.
type finds int

const (
	silence  finds = iota // no reader of entries needs it: commits without entries, what fills up, copies. That is for verify
	aWarning              // it is made again from elsewhere, and that is said
	anError               // it takes entries
)

func (v *victim) firstRead(name string, raw []byte, at int64) finds {
	_, isIndex := index.ParseFileName(name)
	switch {
	case isIndex && raw[at] != 0 && at < int64(len(raw))-8, name == manifest.FileName:
		return aWarning
	case name != segmentOne:
		return silence
	}
	f, end := anError, int64(0)
	h, _ := segment.ReadHeader(strings.NewReader(string(raw)), name)
	segment.FindCommits(raw, h.Salt, 0, func(c segment.Commit) bool {
		if at >= c.BatchStart && at < c.End() && c.LastSeq < c.FirstSeq {
			f = silence
		}
		end = c.End()
		return true
	})
	if at >= end { // the footer repeats what the commits say; boot makes it again as long as the run is not sealed
		return silence
	}
	return f
}

// read reads all of the run in every way.
func (v *victim) read(t *testing.T, mem *vfs.Mem, where string, want finds) {
	t.Helper()
	r, err := runlog.OpenReader(v.dir, runlog.ReaderOptions{FS: mem})
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	defer r.Close()
	told, seq := r.Damage(), uint64(0)
	for e, err := range r.Scan(runlog.ScanOptions{}) {
		if err != nil {
			told = err
			break
		}
		if seq++; e.Seq() != seq {
			t.Fatalf("%s: entry %d after %d", where, e.Seq(), seq-1)
		}
	}
	for n := range 300 { // most are not there: a miss reads a bucket, too
		got, ok, err := r.Lookup(runlog.ClientOrderID, fmt.Sprint("O-", n))
		switch {
		case err != nil:
			told = err
		case ok:
			if e, err := r.Get(got, nil); err != nil {
				told = err
			} else if e.Seq() != got {
				t.Fatalf("%s: entry %d is %d", where, got, e.Seq())
			}
		}
	}
	for _, o := range []runlog.ScanOptions{{Since: 1}, {Until: 1 << 60, By: runlog.ByInit}, {Topic: "exec.command"}, {Type: "none"}} {
		for _, err := range r.Scan(o) {
			if err != nil {
				told = err
			}
		}
	}
	for _, err := range r.Notes(wal.NoteOptions{Kinds: []entry.NoteKind{entry.NoteAnchor}}) {
		if err != nil {
			told = err
		}
	}
	switch {
	case want == anError:
		if told == nil {
			t.Fatalf("%s: all entries are read without an error", where)
		}
		wantIs(t, told, runlog.ErrCorrupt)
	case told != nil || seq != v.last:
		t.Fatalf("%s: %d entries, %v", where, seq, told)
	case want == aWarning && len(r.Warnings()) == 0:
		t.Fatalf("%s: read without a word", where)
	}
}
