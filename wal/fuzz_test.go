package wal

import (
	"encoding/binary"
	"runtime"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

// resign makes the checks of a mutated segment fit again, as far as frames can be found, so that hostile values get
// past them.
func resign(b []byte) {
	if len(b) < segment.BlockSize {
		return
	}
	salt := binary.LittleEndian.Uint64(b[16:])
	if size := binary.LittleEndian.Uint32(b[12:]); size%64 == 0 && size >= 64 && int(size) <= len(b) {
		copy(b[24:32], make([]byte, 8))
		binary.LittleEndian.PutUint64(b[24:], xxhash.Sum64(b[:size]))
	}
	seq := uint64(0)
	for off := segment.BlockSize; off+16 <= len(b); {
		word := binary.LittleEndian.Uint32(b[off:])
		n := format.Align8(int(word & segment.MaxFrame))
		m := format.Mix(salt ^ (uint64(off)/8<<32 | uint64(word)))
		binary.LittleEndian.PutUint32(b[off+4:], uint32(m>>32))
		if n < 16 || off+n > len(b) {
			return
		}
		if kind := word >> 24; kind != segment.KindPad {
			s := uint64(0)
			if kind&0xf0 == segment.KindEntry {
				seq++
				s = seq
			}
			binary.LittleEndian.PutUint64(b[off+8:], xxhash.Sum64(b[off+16:off+n])^format.Mix(m+s))
		}
		off += n
	}
}

// FuzzRecover gives hostile bytes as a whole run folder: nothing panics, nothing large is allocated, and what
// recovery leaves can be read.
func FuzzRecover(f *testing.F) {
	g := newRig(f).fill(3, 9)
	g.must(g.log.rotate())
	g.fill(2, 20)
	g.must(g.log.Mark())
	mem := g.killed()
	add := func(mem *vfs.Mem) {
		c := contents(f, mem, runDir)
		one, two := strings.TrimRight(c[segment.FileName(1)], "\x00"), strings.TrimRight(c[segment.FileName(2)], "\x00")
		f.Add([]byte(one), []byte(two), []byte(c[manifest.FileName]), []byte(c["00000001.idx"]), true)
		f.Add([]byte(one), []byte(two), []byte(c[manifest.FileName]), []byte{}, false)
	}
	add(mem)
	recovered(f, mem)
	add(mem)
	f.Fuzz(func(t *testing.T, one, two, man, idx []byte, fix bool) {
		if len(one)+len(two)+len(man)+len(idx) > 1<<20 {
			return
		}
		if fix {
			one, two = append([]byte(nil), one...), append([]byte(nil), two...)
			resign(one)
			resign(two)
		}
		m := vfs.NewMem(vfs.MemOptions{})
		if err := m.MkdirAll(runDir); err != nil {
			t.Fatal(err)
		}
		for name, b := range map[string][]byte{
			segment.FileName(1): one, segment.FileName(2): two, manifest.FileName: man, "00000001.idx": idx,
		} {
			if len(b) == 0 {
				continue
			}
			file, err := m.Create(runDir + "/" + name)
			if err == nil {
				_, err = file.WriteAt(b, 0)
			}
			if err == nil && fix && strings.HasSuffix(name, ".seg") {
				err = file.Truncate(64 << 10) // as long as planned
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		readAll(m)
		_, err := Recover(m, runDir, 1)
		if err == nil {
			if _, err = OpenReader(m, runDir); err != nil && !located(err) { // a sealed run is not looked at by Recover
				t.Fatalf("recovered, but: %v", err)
			}
			if again, err := Recover(m, runDir, 2); err != nil {
				t.Fatalf("recovered, but not again: %+v, %v", again, err)
			}
			readAll(m)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 512<<20 {
			t.Fatalf("%d bytes were allocated", n)
		}
	})
}

func readAll(m *vfs.Mem) {
	r, err := OpenReader(m, runDir)
	if err != nil {
		return
	}
	defer r.Close()
	n := 0
	for v, err := range r.Scan(ScanOptions{}) {
		if n++; err != nil || n > 1000 {
			break
		}
		_ = v.Clone()
		_, _ = r.Get(v.Seq(), nil)
	}
	for range r.Scan(ScanOptions{Reverse: true, Topic: "topic-1"}) {
		if n++; n > 2000 {
			break
		}
	}
	_, _, _ = r.Lookup(entry.ClientOrderID, "O-0")
	for range r.History("desk", "D-1") {
		if n++; n > 3000 {
			break
		}
	}
}
