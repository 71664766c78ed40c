//go:build !race

// The race detector allocates, and makes sync.Pool drop values on purpose.

package wal

import (
	"testing"

	"github.com/runlog-io/runlog/entry"
)

// Each kind of read is warmed up by its first calls, which map files and grow buffers.
func TestReadsDoNotAllocate(t *testing.T) {
	for _, stage := range []string{"live", "sealed"} {
		r, want := stages[stage](t)
		key := want[len(want)/2].Keys[0]
		var buf Buffer
		for name, read := range map[string]func() error{
			"Get": func() error {
				_, err := r.Get(uint64(len(want)/2), &buf)
				return err
			},
			"Lookup, hit": func() error {
				_, _, err := r.Lookup(key.Kind, key.Value)
				return err
			},
			"Lookup, miss": func() error {
				_, _, err := r.Lookup(entry.VenueOrderID, "no such order")
				return err
			},
		} {
			if err := read(); err != nil {
				t.Fatal(err)
			}
			n := testing.AllocsPerRun(100, func() {
				if err := read(); err != nil {
					t.Error(err)
				}
			})
			if n != 0 {
				t.Errorf("%s, %s: %v allocations, want none", stage, name, n)
			}
		}
	}
}

// What a scan allocates does not grow with the entries that it passes.
func TestScanDoesNotAllocatePerEntry(t *testing.T) {
	r, want := stages["sealed"](t)
	for _, reverse := range []bool{false, true} {
		n := testing.AllocsPerRun(10, func() {
			for _, err := range r.Scan(ScanOptions{Reverse: reverse}) {
				if err != nil {
					t.Error(err)
				}
			}
		})
		if limit := float64(len(r.set().segs) * 10); n > limit || limit > float64(len(want))/2 {
			t.Errorf("reverse %v: %v allocations for %d entries in %d segments", reverse, n, len(want), len(r.set().segs))
		}
	}
}

// More segments than a reader kept mapped in the past: none is mapped again.
func TestReadsOverManySegmentsDoNotAllocate(t *testing.T) {
	g := newRig(t).fill(1, 0).fill(3*maxOpenFiles, 12_000).sealed()
	r := openReader(t, g.mem)
	if n := len(r.set().segs); n <= maxOpenFiles {
		t.Fatalf("only %d segments", n)
	}
	var buf Buffer
	i := 0
	read := func() {
		e := &g.want[i*7%len(g.want)]
		i++
		if _, err := r.Get(e.Seq, &buf); err != nil {
			t.Error(err)
		}
		if first, ok, err := r.Lookup(e.Keys[0].Kind, e.Keys[0].Value); !ok || first > e.Seq || err != nil {
			t.Error(first, ok, err)
		}
		if _, ok, err := r.Lookup(entry.VenueOrderID, "no such order"); ok || err != nil {
			t.Error(ok, err)
		}
	}
	for range g.want {
		read()
	}
	if n := testing.AllocsPerRun(len(g.want), read); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func TestWarmReadsOfCompressedSegmentsDoNotAllocate(t *testing.T) {
	g := newRig(t).fill(300, 700).sealed()
	compressAll(t, g.mem, Compression{Codec: Zstd})
	r := openReader(t, g.mem)
	var buf Buffer
	read := func() {
		for seq := range uint64(100) {
			if _, err := r.Get(seq+1, &buf); err != nil {
				t.Fatal(err)
			}
		}
	}
	read()
	if n := testing.AllocsPerRun(10, read); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
