package verify_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
)

// entries collects what OnEntry gets.
func entries(t testing.TB, fsys vfs.FS, dir string) (list []runlog.Entry, rep verify.Report) {
	t.Helper()
	rep, err := verify.Run(ctx, fsys, dir, verify.Options{OnEntry: func(v *runlog.View) error {
		list = append(list, v.Clone())
		return nil
	}})
	must(t, err)
	return list, rep
}

func equal(a, b *runlog.Entry) bool {
	return a.Seq == b.Seq && a.TsInit == b.TsInit && a.TsPublish == b.TsPublish && a.Topic == b.Topic && a.Type == b.Type &&
		string(a.Payload) == string(b.Payload) && a.ID == b.ID && a.CorrelationID == b.CorrelationID && slices.Equal(a.Keys, b.Keys)
}

func TestOnEntryGetsEveryEntryInOrder(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{"sealed": sealed(t), "crashed": crashed(t, 300)} {
		got, rep := entries(t, vfs.OS, dir)
		r, err := runlog.OpenReader(dir, runlog.ReaderOptions{})
		must(t, err)
		n := 0
		for v, err := range r.Scan(runlog.ScanOptions{}) {
			must(t, err)
			if want := v.Clone(); n >= len(got) || !equal(&got[n], &want) {
				t.Fatalf("%s: entry %d differs from what the reader gives", name, n)
			}
			n++
		}
		must(t, r.Close())
		if n != len(got) || uint64(n) != rep.Entries {
			t.Errorf("%s: %d entries, the reader gives %d, the report says %d", name, len(got), n, rep.Entries)
		}
	}
}

func TestOnEntryCanEndTheCheck(t *testing.T) {
	t.Parallel()
	stop := errors.New("enough")
	if _, err := verify.Run(ctx, vfs.OS, sealed(t), verify.Options{OnEntry: func(*runlog.View) error { return stop }}); !errors.Is(err, stop) {
		t.Error(err)
	}
}

// frames lists where the entries of a segment of a sound run stand.
func frames(t testing.TB, path string) (offs []int64, sizes []int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	f, err := vfs.OS.OpenRead(path)
	must(t, err)
	defer f.Close()
	h, err := segment.ReadHeader(f, path)
	must(t, err)
	for off := h.Size; off < int64(len(b)); {
		size, isEntry, ok := segment.SkipFrame(b[off:], h.Salt, off)
		if !ok {
			break
		}
		if isEntry {
			offs, sizes = append(offs, off), append(sizes, size)
		}
		off += size
	}
	return offs, sizes
}

// Whatever part of frames is damaged, exactly the entries that stand there are lost, and the findings name exactly them.
func TestDamageLosesTheEntriesThatItHitsAndNoOther(t *testing.T) {
	t.Parallel()
	dir := sealed(t)
	want, _ := entries(t, vfs.OS, dir)
	path := filepath.Join(dir, segment.FileName(2))
	sound, err := os.ReadFile(path)
	must(t, err)
	offs, sizes := frames(t, path)
	first := uint64(0) // seq of the segment's first entry
	for _, n := range [][]int{{3}, {3, 5}, {3, 4, 5}, {10, 30, 31, 70}, {0, len(offs) - 1}} {
		for name, harm := range map[string]func(b []byte, i int){
			"head":  func(b []byte, i int) { b[offs[i]+1] ^= 0x40 },
			"body":  func(b []byte, i int) { b[offs[i]+40] ^= 1 },
			"whole": func(b []byte, i int) { clear(b[offs[i] : offs[i]+sizes[i]]) },
		} {
			b := slices.Clone(sound)
			for _, i := range n {
				harm(b, i)
			}
			must(t, os.WriteFile(path, b, 0o644))
			got, rep := entries(t, vfs.OS, dir)
			if first == 0 {
				for i, e := range want {
					if got[i].Seq != e.Seq {
						first = e.Seq - uint64(n[0])
						break
					}
				}
			}
			expect := slices.DeleteFunc(slices.Clone(want), func(e runlog.Entry) bool {
				return slices.ContainsFunc(n, func(i int) bool { return e.Seq == first+uint64(i) })
			})
			if !slices.EqualFunc(got, expect, func(a, b runlog.Entry) bool { return equal(&a, &b) }) {
				t.Errorf("%s of %v: %d entries, want %d: %v", name, n, len(got), len(expect), rep.Findings)
			}
			named := 0
			for _, f := range rep.Findings {
				if f.Kind == verify.KindFrame && f.FirstSeq != 0 {
					named += int(f.LastSeq - f.FirstSeq + 1)
				}
			}
			if named != len(n) {
				t.Errorf("%s of %v: the findings name %d entries: %v", name, n, named, rep.Findings)
			}
		}
	}
}

func TestEntriesSurviveDamageToWhatDescribesThem(t *testing.T) {
	t.Parallel()
	dir := sealed(t)
	want, _ := entries(t, vfs.OS, dir)
	path := filepath.Join(dir, segment.FileName(2))
	sound, err := os.ReadFile(path)
	must(t, err)
	offs, _ := frames(t, path)
	for name, harm := range map[string]func(b []byte){
		"start frame's head":      func(b []byte) { b[segment.BlockSize+1] ^= 1 },
		"start frame's base time": func(b []byte) { b[segment.BlockSize+16+24] ^= 1 },
		"dictionary":              func(b []byte) { clear(b[segment.BlockSize+segment.StartSize : offs[0]]) },
		"all before the entries":  func(b []byte) { clear(b[segment.BlockSize:offs[0]]) },
		"header":                  func(b []byte) { b[100] ^= 1 },
		"footer":                  func(b []byte) { b[len(b)-30] ^= 1 },
	} {
		b := slices.Clone(sound)
		harm(b)
		must(t, os.WriteFile(path, b, 0o644))
		got, rep := entries(t, vfs.OS, dir)
		if !slices.EqualFunc(got, want, func(a, b runlog.Entry) bool { return equal(&a, &b) }) {
			t.Errorf("%s: %d of %d entries: %v", name, len(got), len(want), rep.Findings)
		}
		if rep.Clean() {
			t.Errorf("%s: no finding", name)
		}
	}
}

// counting counts the bytes that are read of one file, and can make a part of it unreadable.
type counting struct {
	vfs.FS
	path     string
	from, to int64 // a read that touches them fails; 0, 0: none
	read     atomic.Int64
}

func (c *counting) OpenRead(name string) (vfs.File, error) {
	f, err := c.FS.OpenRead(name)
	if err != nil || name != c.path {
		return f, err
	}
	return &countingFile{File: f, c: c}, nil
}

type countingFile struct {
	vfs.File
	c *counting
}

func (f *countingFile) ReadAt(b []byte, off int64) (int, error) {
	if off < f.c.to && off+int64(len(b)) > f.c.from {
		return 0, &os.PathError{Op: "read", Path: f.c.path, Err: syscall.EIO}
	}
	n, err := f.File.ReadAt(b, off)
	f.c.read.Add(int64(n))
	return n, err
}

func TestASoundSegmentIsReadOnce(t *testing.T) {
	t.Parallel()
	dir := sealed(t)
	c := &counting{FS: vfs.OS, path: filepath.Join(dir, segment.FileName(2))}
	info, err := os.Stat(c.path)
	must(t, err)
	rep, err := verify.Run(ctx, c, dir, verify.Options{})
	if err != nil || !rep.Clean() {
		t.Fatal(err, rep.Findings)
	}
	few := 3 * int64(segment.BlockSize+segment.FooterSize) // header and footer are asked for by themselves
	if n := c.read.Load(); n < info.Size() || n > info.Size()+few {
		t.Errorf("%d bytes were read of %d", n, info.Size())
	}
}

func TestBytesThatTheMediumDoesNotGiveBackAreAFindingAndHideNothing(t *testing.T) {
	t.Parallel()
	dir := sealed(t)
	want, _ := entries(t, vfs.OS, dir)
	c := &counting{FS: vfs.OS, path: filepath.Join(dir, segment.FileName(2)), from: 5 * 4096, to: 5*4096 + 1}
	must(t, flipOne(filepath.Join(dir, segment.FileName(4)), 9000))
	got, rep := entries(t, c, dir)
	if !blames(&rep, segment.FileName(2)) || !blames(&rep, segment.FileName(4)) || rep.LastSeq != want[len(want)-1].Seq {
		t.Errorf("%v", rep.Findings)
	}
	says(t, &rep, verify.KindRead, "4096 bytes cannot be read")
	if lost := len(want) - len(got); lost < 10 || lost > 16 { // 4096 bytes of entries of about 330, and one elsewhere
		t.Errorf("%d entries are lost: %v", lost, rep.Findings)
	}
	for _, f := range rep.Findings {
		if f.Kind == verify.KindDigest && f.Path == c.path {
			t.Errorf("the digest of what could not be read is judged: %v", f)
		}
	}
}

func TestAFooterThatCannotBeReadCostsNoEntry(t *testing.T) {
	t.Parallel()
	dir := sealed(t)
	want, _ := entries(t, vfs.OS, dir)
	path := filepath.Join(dir, segment.FileName(2))
	info, err := os.Stat(path)
	must(t, err)
	got, rep := entries(t, &counting{FS: vfs.OS, path: path, from: info.Size() - 100, to: info.Size()}, dir)
	says(t, &rep, verify.KindRead, "cannot be read")
	if len(want)-len(got) > 12 { // the block that the footer is in holds entries too
		t.Errorf("%d of %d entries: %v", len(got), len(want), rep.Findings)
	}
	for _, f := range rep.Findings {
		if filepath.Base(f.Path) != segment.FileName(2) && f.Kind != verify.KindFilter {
			t.Errorf("%v", f)
		}
	}
}

func flipOne(path string, at int) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[at] ^= 1
	return os.WriteFile(path, b, 0o644)
}
