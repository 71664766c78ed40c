package main

import (
	le "encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog/manifest"
)

// older gives an index the header of the version before, with a checksum that fits.
func older(t testing.TB, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	reversion(b, -1)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAnIndexOfAnEarlierVersionIsANoteAndCanBeWrittenAnew(t *testing.T) {
	_, dir := imported(t, many(50))
	path := filepath.Join(dir, "00000001.idx")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	older(t, path)
	if r := do(t, "verify", "--no-isolate", dir).want(t, 0, "00000001.idx is of an earlier version"); !strings.Contains(r.out, ": ok") {
		t.Errorf("verify: %s", r.out)
	}
	before := tree(t, dir)
	if r := recovery(t, 0, "--dry-run", dir); r.Decision != decidedMended || !slices.Equal(r.Rewritten, []string{"00000001.idx"}) {
		t.Errorf("dry run: %+v", r)
	}
	if !slices.Equal(before, tree(t, dir)) {
		t.Error("the dry run has changed something")
	}
	if r := do(t, "recover", dir).want(t, 0); !strings.Contains(r.out, "Ended; written anew: 00000001.idx") {
		t.Errorf("recover: %s", r.out)
	}
	if got, err := os.ReadFile(path); err != nil || !slices.Equal(got, whole) {
		t.Errorf("the index is not as it was: %v", err)
	}
	if r := do(t, "verify", "--no-isolate", dir).want(t, 0); r.stderr != "" {
		t.Errorf("verify: %s", r.stderr)
	}
	if r := recovery(t, 0, dir); r.Decision != decidedNothing || r.Status != "Ended" || r.Rewritten != nil {
		t.Errorf("again: %+v", r)
	}
}

func TestRecoverPutsBackALostManifestAndDamagedDerivedFiles(t *testing.T) {
	_, dir := imported(t, many(5000))
	for _, name := range []string{manifest.FileName, manifest.PrevName} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	flip(t, filepath.Join(dir, "00000001.idx"), 600)
	do(t, "verify", "--no-isolate", dir).want(t, 1)
	if r := recovery(t, 0, dir); r.Decision != decidedMended || !slices.Contains(r.Rewritten, manifest.FileName) || !slices.Contains(r.Rewritten, "00000001.idx") {
		t.Errorf("%+v", r)
	}
	do(t, "verify", "--no-isolate", dir).want(t, 0)
}

func TestRecoverLeavesASealedRunsDamagedSegmentsAlone(t *testing.T) {
	_, dir := imported(t, many(50))
	flip(t, filepath.Join(dir, "00000001.seg"), 5000)
	if err := os.Remove(filepath.Join(dir, "00000001.idx")); err != nil {
		t.Fatal(err)
	}
	before := tree(t, dir)
	do(t, "recover", dir).want(t, 1, "00000001.seg")
	if r := recovery(t, 1, dir); r.Decision != undecided || r.Rewritten != nil {
		t.Errorf("it says that it has written %v: %+v", r.Rewritten, r)
	}
	if after := tree(t, dir); !slices.Equal(before, after) {
		t.Errorf("changed from %v to %v", before, after)
	}
}

// reversion changes the version in a file's header, whose sum it makes right.
func reversion(b []byte, by int) {
	const version, size, sum = 8, 12, 24
	le.LittleEndian.PutUint16(b[version:], uint16(int(le.LittleEndian.Uint16(b[version:]))+by))
	n := le.LittleEndian.Uint32(b[size:])
	clear(b[sum : sum+8])
	le.LittleEndian.PutUint64(b[sum:], xxhash.Sum64(b[:n]))
}

func TestRecoverMendsACompressedRun(t *testing.T) {
	_, dir := imported(t, many(5000))
	do(t, "compress", dir).want(t, 0)
	if err := os.Remove(filepath.Join(dir, "00000001.idx")); err != nil {
		t.Fatal(err)
	}
	if r := recovery(t, 0, dir); r.Decision != decidedMended || !slices.Equal(r.Rewritten, []string{"00000001.idx"}) {
		t.Errorf("%+v", r)
	}
	do(t, "verify", "--no-isolate", dir).want(t, 0)
}
