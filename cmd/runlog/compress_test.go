package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/segment/compressed"
	"github.com/runlog-io/runlog/vfs"
)

func TestCompressAndBackChangesNothingThatTheToolShows(t *testing.T) {
	base, dir := imported(t, many(2000))
	reads := [][]string{
		{"cat", dir}, {"cat", dir, "--reverse"}, {"export", dir}, {"get", dir, "700"}, {"history", dir, "account=A"}, {"statement", dir}, {"prove", dir, "5", "9"},
	}
	show := func() (all []string) {
		for _, args := range reads {
			all = append(all, do(t, args...).want(t, 0).out)
		}
		return all
	}
	before := show()
	plain, err := os.ReadFile(filepath.Join(dir, segment.FileName(1)))
	if err != nil {
		t.Fatal(err)
	}
	for _, codec := range []string{"zstd", "s2"} {
		prints(t, do(t, "compress", base, "--codec", codec).want(t, 0).out, "1 segment, 1 compressed, 1 changed", "ratio")
		prints(t, do(t, "compress", dir, "--codec", codec).want(t, 0).out, "1 segment, 1 compressed, 0 changed")
		if _, err := os.Stat(filepath.Join(dir, segment.FileName(1))); !os.IsNotExist(err) {
			t.Errorf("the plain file is still there: %v", err)
		}
		for i, out := range show() {
			if out != before[i] {
				t.Errorf("runlog %s prints something else", strings.Join(reads[i], " "))
			}
		}
		prints(t, do(t, "verify", dir).want(t, 0).out, "ok: Ended")
		prints(t, do(t, "ls", base).want(t, 0).out, "Ended")
		prints(t, do(t, "info", dir).want(t, 0).out, "uncompressed (ratio", "sealed, "+codec+" (ratio")
		var in infoJSON
		if err := json.Unmarshal([]byte(do(t, "info", dir, "--json").want(t, 0).out), &in); err != nil {
			t.Fatal(err)
		}
		s := in.Segments[0]
		if s.Codec != codec || s.Plain != int64(len(plain)) || s.Bytes >= s.Plain || in.Bytes != s.Bytes || in.Plain != s.Plain || s.Index == 0 || s.Problem != "" {
			t.Errorf("info: %+v", s)
		}
		var c compressionJSON
		if err := json.Unmarshal([]byte(do(t, "compress", dir, "--undo", "--json").want(t, 0).out), &c); err != nil {
			t.Fatal(err)
		}
		if c.Record != "compression" || c.Segments != 1 || c.Compressed != 0 || c.Changed != 1 || c.Bytes != int64(len(plain)) || c.PlainBytes != c.Bytes {
			t.Errorf("%+v", c)
		}
		if b, err := os.ReadFile(filepath.Join(dir, segment.FileName(1))); err != nil || string(b) != string(plain) {
			t.Errorf("the plain file is not what it was: %v", err)
		}
	}
}

func prints(t *testing.T, out string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(out, part) {
			t.Errorf("it prints %q, want %q in it", out, part)
		}
	}
}

func TestCompressRefusesWhatItMayNotTouch(t *testing.T) {
	base, dir := imported(t, many(2000))
	for want, args := range map[string][]string{
		"codec": {"compress", dir, "--codec", "lzma"}, "want zstd or s2": {"compress", dir, "--codec", "none"}, "level": {"compress", dir, "--level", "9"},
		"power of two": {"compress", dir, "--block", "100"}, "KeepPlain": {"compress", dir, "--keep-plain", "-1"},
		"means nothing": {"compress", dir, "--undo", "--level", "1"}, "no such file": {"compress", filepath.Join(base, "none")},
		"not a run": {"compress", t.TempDir()},
	} {
		do(t, args...).want(t, 2, want)
	}
	lock, err := vfs.OS.Lock(filepath.Join(filepath.Dir(dir), manifest.LockName), manifest.EncodeHolder(manifest.Holder{PID: 7, Host: "h"}))
	if err != nil {
		t.Fatal(err)
	}
	do(t, "compress", dir).want(t, 2, "locked by")
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if err := manifest.WriteQuarantine(vfs.OS, dir, manifest.Quarantine{Reason: "because"}); err != nil {
		t.Fatal(err)
	}
	do(t, "compress", dir).want(t, 2, "because")
	do(t, "compress", base).want(t, 0, "skipped: it is quarantined")
	if err := os.Remove(filepath.Join(dir, manifest.QuarantineName)); err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(elsewhere, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	do(t, "compress", elsewhere).want(t, 2, "not named as a run")
	flip(t, filepath.Join(dir, segment.FileName(1)), 9000)
	do(t, "compress", dir).want(t, 1, "SHA-256", segment.FileName(1))
	if _, err := os.Stat(filepath.Join(dir, compressed.FileName(1))); !os.IsNotExist(err) {
		t.Errorf("a damaged segment was compressed: %v", err)
	}
}

func TestDamageToACompressedSegmentIsNamedByTheTool(t *testing.T) {
	_, dir := imported(t, many(2000))
	do(t, "compress", dir, "--block", "4").want(t, 0)
	name := compressed.FileName(1)
	flip(t, filepath.Join(dir, name), 6000)
	do(t, "cat", dir).want(t, 1, name, "offset", "a block does not validate")
	prints(t, do(t, "verify", dir).want(t, 1).out, "block: ", name)
	do(t, "salvage", dir, filepath.Join(t.TempDir(), "out")).want(t, 1)
}
