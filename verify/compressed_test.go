package verify_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/segment/compressed"
	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

func compress(t testing.TB, dir string, codec wal.Codec) {
	t.Helper()
	_, err := wal.Compress(ctx, vfs.OS, dir, wal.CompressOptions{Compression: wal.Compression{Codec: codec, BlockBytes: 4096}})
	must(t, err)
}

func TestACompressedRunIsClean(t *testing.T) {
	t.Parallel()
	dir := sealed(t)
	want, plain := entries(t, vfs.OS, dir)
	for _, codec := range []wal.Codec{wal.Zstd, wal.S2} {
		compress(t, dir, codec)
		got, rep := entries(t, vfs.OS, dir)
		if !rep.Clean() || len(rep.Notes) > 0 || rep.Digest != plain.Digest || rep.Bytes != plain.Bytes || rep.Segments != plain.Segments {
			t.Errorf("%v: %+v", codec, rep)
		}
		if len(got) != len(want) {
			t.Errorf("%v: %d entries of %d", codec, len(got), len(want))
		}
		_, err := wal.Compress(ctx, vfs.OS, dir, wal.CompressOptions{Undo: true})
		must(t, err)
	}
}

// Every byte of a compressed segment is checked, and what is lost with it is named.
func TestEveryFlippedByteOfACompressedSegmentIsFound(t *testing.T) {
	t.Parallel()
	dir := sealed(t)
	want, _ := entries(t, vfs.OS, dir)
	compress(t, dir, wal.S2)
	path := filepath.Join(dir, compressed.FileName(2))
	b, err := os.ReadFile(path)
	must(t, err)
	inside := int64(128 + segment.BlockSize)
	for off := int64(0); off < int64(len(b)); off += 29 {
		if off > 200 && off < inside-100 {
			off = inside - 60 // under one checksum, most of it zeros
		}
		must(t, flipOne(path, int(off)))
		got, rep := entries(t, vfs.OS, dir)
		if !blames(&rep, compressed.FileName(2)) {
			t.Fatalf("offset %d: %v", off, rep.Findings)
		}
		var missing []uint64
		for _, e := range want {
			if !slices.ContainsFunc(got[max(0, min(int(e.Seq)-200, len(got))):], func(g runlog.Entry) bool { return g.Seq == e.Seq }) {
				missing = append(missing, e.Seq)
			}
		}
		for _, seq := range missing {
			if !slices.ContainsFunc(rep.Findings, func(f verify.Finding) bool {
				return f.FirstSeq <= seq && max(f.FirstSeq, f.LastSeq) >= seq && f.FirstSeq > 0
			}) {
				t.Fatalf("offset %d: seq %d is missing and not named: %v", off, seq, rep.Findings)
			}
		}
		if off > inside+64 && off < int64(len(b))-segment.FooterSize && (len(missing) == 0 || len(missing) > 30) {
			t.Fatalf("offset %d: %d entries are lost with a block of 4 KiB: %v", off, len(missing), rep.Findings)
		}
		must(t, flipOne(path, int(off)))
	}
	if rep := check(t, dir); !rep.Clean() {
		t.Error(rep.Findings)
	}
}

func TestACompressedFileBesideThePlainOneIsANote(t *testing.T) {
	t.Parallel()
	dir := sealed(t)
	plain, err := os.ReadFile(filepath.Join(dir, segment.FileName(2)))
	must(t, err)
	compress(t, dir, wal.Zstd)
	must(t, os.WriteFile(filepath.Join(dir, segment.FileName(2)), plain, 0o644))
	for _, state := range []string{"whole", "damaged"} {
		rep := check(t, dir)
		if !rep.Clean() || len(rep.Notes) != 1 || !strings.Contains(rep.Notes[0], compressed.FileName(2)) || !strings.Contains(rep.Notes[0], state) {
			t.Errorf("%s: findings %v, notes %v", state, rep.Findings, rep.Notes)
		}
		must(t, flipOne(filepath.Join(dir, compressed.FileName(2)), 4300))
	}
}
