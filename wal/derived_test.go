package wal

import (
	"encoding/binary"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
)

// aged gives a file's header another version and a checksum that fits.
func aged(by int) func(b []byte) []byte {
	return func(b []byte) []byte {
		const version, size, sum = 8, 12, 24
		binary.LittleEndian.PutUint16(b[version:], uint16(int(binary.LittleEndian.Uint16(b[version:]))+by))
		n := binary.LittleEndian.Uint32(b[size:])
		clear(b[sum : sum+8])
		binary.LittleEndian.PutUint64(b[sum:], xxhash.Sum64(b[:n]))
		return b
	}
}

// harms are what can be wrong with an index or a filter.
var harms = map[string]func(b []byte) []byte{
	"missing":          nil,
	"empty":            func([]byte) []byte { return nil },
	"a flipped header": func(b []byte) []byte { b[40]++; return b },
	"a flipped middle": func(b []byte) []byte { b[len(b)/2] ^= 4; return b },
	"a flipped end":    func(b []byte) []byte { b[len(b)-1] ^= 4; return b },
	"cut short":        func(b []byte) []byte { return b[:len(b)/2] },
	"an older version": aged(-1),
}

// harmed does something to all derived files of a kind.
func harmed(t *testing.T, m *vfs.Mem, suffix string, harm func(b []byte) []byte) (names []string) {
	t.Helper()
	for name := range contents(t, m, runDir, suffix) {
		names = append(names, name)
		if harm == nil {
			remove(t, m, name)
		} else {
			edit(t, m, name, harm)
		}
	}
	if len(names) < 2 {
		t.Fatalf("only %d files %s", len(names), suffix)
	}
	return names
}

func TestRecoveryLeavesNoBadIndexBehind(t *testing.T) {
	good := newRig(t).fill(600, 900)
	crashed := good.killed()
	calm := crashed.Kill()
	recovered(t, calm)
	want := contents(t, calm, runDir)
	for what, harm := range harms {
		for _, suffix := range []string{".idx", ".flt"} {
			m := crashed.Kill()
			harmed(t, m, suffix, harm)
			recovered(t, m)
			if got := contents(t, m, runDir); !maps.Equal(got, want) {
				t.Errorf("%s %s: recovery leaves other files than without the harm", suffix, what)
			}
		}
	}
}

func TestMendPutsBackWhatASealedRunHasLost(t *testing.T) {
	g := newRig(t).fill(600, 900).sealed()
	want := contents(t, g.mem, runDir)
	old, _, err := manifest.Read(g.mem, runDir)
	g.must(err)
	if names, err := Mend(g.mem, runDir, 1, true); err != nil || len(names) > 0 || !maps.Equal(contents(t, g.mem, runDir), want) {
		t.Fatalf("nothing is wrong: %v, %v", names, err)
	}
	for what, harm := range harms {
		for _, suffix := range []string{".idx", ".flt", manifest.FileName, manifest.PrevName} {
			if version := strings.Contains(what, "version"); version && strings.HasPrefix(suffix, "manifest") {
				continue // its version is not in such a header
			}
			m := g.mem.Kill()
			bad := 1
			if strings.HasPrefix(suffix, ".") {
				bad = len(harmed(t, m, suffix, harm))
			} else if harm == nil {
				remove(t, m, suffix)
			} else {
				edit(t, m, suffix, harm)
			}
			before := contents(t, m, runDir)
			foreseen, err := Mend(m, runDir, 1, false)
			if err != nil || len(foreseen) != bad || !maps.Equal(contents(t, m, runDir), before) {
				t.Errorf("%s %s: foreseen %v, %v", suffix, what, foreseen, err)
			}
			done, err := Mend(m, runDir, 1, true)
			if err != nil || len(done) != bad {
				t.Errorf("%s %s: done %v, %v", suffix, what, done, err)
			}
			if again, err := Mend(m, runDir, 1, false); err != nil || len(again) > 0 {
				t.Errorf("%s %s: still %v, %v", suffix, what, again, err)
			}
			got, before := contents(t, m, runDir), maps.Clone(want)
			if strings.HasPrefix(suffix, "manifest") {
				if now, warning, err := manifest.Read(m, runDir); err != nil || warning != nil || now.LastSeq != old.LastSeq || now.Digest != old.Digest {
					t.Errorf("%s %s: %+v, %v, %v", suffix, what, now, warning, err)
				}
				for _, name := range []string{manifest.FileName, manifest.PrevName} { // with no RunEnded, the status is another
					delete(got, name)
					delete(before, name)
				}
			}
			if !maps.Equal(got, before) {
				t.Errorf("%s %s: other files than before the harm", suffix, what)
			}
		}
	}
}

func TestMendBuildsTheManifestFromTheSegments(t *testing.T) {
	g := newRig(t).fill(100, 900).sealed()
	old, _, err := manifest.Read(g.mem, runDir)
	g.must(err)
	remove(t, g.mem, manifest.FileName)
	remove(t, g.mem, manifest.PrevName)
	if names, err := Mend(g.mem, runDir, 1, true); err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	m, warning, err := manifest.Read(g.mem, runDir)
	if err != nil || warning != nil || !m.Status.Sealed() || m.LastSeq != old.LastSeq || m.Digest != old.Digest {
		t.Errorf("%+v, %v, %v", m, warning, err)
	}
}

func TestAnIndexOfALaterVersionIsLeftToLaterBuilds(t *testing.T) {
	g := newRig(t).fill(600, 900).sealed()
	harmed(t, g.mem, ".idx", aged(1))
	before := contents(t, g.mem, runDir)
	if names, err := Mend(g.mem, runDir, 1, true); err != nil || len(names) > 0 || !maps.Equal(contents(t, g.mem, runDir), before) {
		t.Errorf("%v, %v", names, err)
	}
}

func TestADamagedSegmentsIndexIsKept(t *testing.T) {
	g := newRig(t).fill(600, 900).sealed()
	poke(t, g.mem, "00000001.seg", 5000, 1)
	edit(t, g.mem, "00000001.idx", harms["a flipped end"])
	before := contents(t, g.mem, runDir)
	names, err := Mend(g.mem, runDir, 1, true)
	if !errors.Is(err, format.ErrCorrupt) || len(names) != 0 || !maps.Equal(contents(t, g.mem, runDir), before) {
		t.Errorf("%v, %v", names, err)
	}
}
