package verify_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
)

var ctx = context.Background()

// open starts a run of small segments.
func open(t testing.TB, base string) *runlog.Run {
	t.Helper()
	salt := uint64(0x1234)
	r, err := runlog.Open(ctx, runlog.Options{
		Dir: base, Instance: "demo", Kinds: []string{"account"}, SegmentBytes: segment.MinSegment, FirstSegmentBytes: segment.MinSegment,
		WarnAfter: -1, HaltAfter: -1, Labels: map[string]string{"desk": "a"},
		Salts: func() uint64 { salt = salt*6364136223846793005 + 1442695040888963407; return salt },
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// fill submits n entries of about 330 bytes.
func fill(t testing.TB, r *runlog.Run, n int) {
	t.Helper()
	for i := range n {
		id := runlog.ID{1, byte(i), byte(i >> 8)}
		seq, err := r.Submit(runlog.Draft{
			Topic: fmt.Sprintf("orders.%d", i%3), Type: "new", TsInit: int64(1000 + i), ID: id, CorrelationID: runlog.ID{2, byte(i / 4)},
			Payload: []byte(strings.Repeat("payload ", 30)),
			Keys:    []runlog.Key{{Kind: runlog.ClientOrderID, Value: fmt.Sprint("c", i/3)}, {Kind: "account", Value: fmt.Sprint("a", i%5)}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if i%20 == 19 {
			if err := r.WaitDurable(ctx, seq); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// sealed makes a run of at least 5 segments, so that there is a filter.
func sealed(t testing.TB) string {
	t.Helper()
	r := open(t, t.TempDir())
	fill(t, r, 500)
	if err := r.Close(ctx); err != nil {
		t.Fatal(err)
	}
	return r.Dir()
}

// crashed makes a run that its process has left, with its files as they were.
func crashed(t testing.TB, n int) string {
	t.Helper()
	r := open(t, t.TempDir())
	fill(t, r, n)
	if err := r.WaitDurable(ctx, r.Accepted()); err != nil {
		t.Fatal(err)
	}
	awaitMark(t, r.Dir(), r.Accepted())
	dir := filepath.Join(t.TempDir(), filepath.Base(r.Dir()))
	copyDir(t, r.Dir(), dir)
	if err := r.Close(ctx); err != nil {
		t.Fatal(err)
	}
	return dir
}

// awaitMark waits until a sync mark proves the last entry.
func awaitMark(t testing.TB, dir string, last uint64) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
		proven := uint64(0)
		names, err := filepath.Glob(filepath.Join(dir, "*.seg"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				continue // a spare that has just got its name
			}
			if h, err := segment.ReadHeader(bytes.NewReader(b), name); err == nil {
				segment.FindCommits(b, h.Salt, 0, func(c segment.Commit) bool {
					if c.Flags&segment.FlagMark != 0 {
						proven = max(proven, c.LastSeq)
					}
					return true
				})
			}
		}
		if proven == last {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("seq %d is proven, not %d", proven, last)
		}
	}
}

func copyDir(t testing.TB, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func check(t testing.TB, dir string) verify.Report {
	t.Helper()
	rep, err := verify.Run(ctx, vfs.OS, dir, verify.Options{})
	if err != nil {
		t.Fatalf("verify: %v", err)
	}
	return rep
}

// hash is over all names and contents of a folder.
func hash(t testing.TB, dir string) [32]byte {
	t.Helper()
	h := sha256.New()
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, p))
		fmt.Fprintf(h, "%s %d ", p, len(b))
		h.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return [32]byte(h.Sum(nil))
}

func names(t testing.TB, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func blames(rep *verify.Report, name string) bool {
	return slices.ContainsFunc(rep.Findings, func(f verify.Finding) bool { return filepath.Base(f.Path) == name })
}

func TestCleanRunsHaveNoFindings(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{"sealed": sealed(t), "crashed": crashed(t, 300), "crashed early": crashed(t, 1)} {
		before := hash(t, dir)
		var last, total int64
		rep, err := verify.Run(ctx, vfs.OS, dir, verify.Options{OnProgress: func(d, n int64) { last, total = d, n }})
		if err != nil || !rep.Clean() {
			t.Errorf("%s: %v %v", name, err, rep.Findings)
		}
		if hash(t, dir) != before {
			t.Errorf("%s: verify has changed the folder", name)
		}
		if last != total || last != rep.Bytes {
			t.Errorf("%s: progress ended at %d of %d, the segments have %d bytes", name, last, total, rep.Bytes)
		}
		if rep.LastSeq == 0 || rep.Entries != rep.LastSeq {
			t.Errorf("%s: %d entries, last seq %d", name, rep.Entries, rep.LastSeq)
		}
		t.Logf("%s: %d entries in %d segments, notes %v, files %v", name, rep.Entries, rep.Segments, rep.Notes, names(t, dir))
	}
}

func TestDigestIsTheManifests(t *testing.T) {
	t.Parallel()
	dir := sealed(t)
	rep := check(t, dir)
	m, _, err := manifest.Read(vfs.OS, dir)
	if err != nil || m.Digest != rep.Digest || m.LastSeq != rep.LastSeq || int(m.Segments) != rep.Segments {
		t.Errorf("report %+v, manifest %+v, %v", rep, m, err)
	}
}

// damage changes one file of a fresh copy and expects a finding that names it.
func damage(t *testing.T, dir, name string, change func(b []byte) []byte) {
	t.Helper()
	path := filepath.Join(dir, name)
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.WriteFile(path, old, 0o644); err != nil {
			t.Fatal(err)
		}
	}()
	b := change(slices.Clone(old))
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	rep, err := verify.Run(ctx, vfs.OS, dir, verify.Options{})
	if err != nil {
		t.Errorf("%s: error %v", name, err)
	}
	if !blames(&rep, name) {
		t.Errorf("%s: not named in %v", name, rep.Findings)
	}
}

func TestEveryFlippedByteIsFound(t *testing.T) {
	t.Parallel()
	dir := sealed(t)
	for _, name := range names(t, dir) {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		step := max(info.Size()/50, 1)
		if testing.Short() {
			step *= 5
		}
		for at := int64(0); at < info.Size(); at += step {
			if t.Failed() {
				return
			}
			bit := byte(1) << (at % 8)
			damage(t, dir, name, func(b []byte) []byte { b[at] ^= bit; return b })
			if t.Failed() {
				t.Fatalf("%s: byte %d of %d, bit %#x", name, at, info.Size(), bit)
			}
		}
		for at := max(info.Size()-segment.FooterSize-8, 0); at < info.Size(); at += 3 { // footers, trailers and whole small files
			damage(t, dir, name, func(b []byte) []byte { b[at] ^= 0x10; return b })
		}
	}
}

func TestEveryTruncationAndExtensionIsFound(t *testing.T) {
	t.Parallel()
	dir := sealed(t)
	for _, name := range names(t, dir) {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		n := info.Size()
		for _, size := range []int64{0, 1, 7, 31, 64, 4095, 4096, 4100, n / 3, n / 2, n - 185, n - 184, n - 8, n - 1} {
			if size >= 0 && size < info.Size() {
				damage(t, dir, name, func(b []byte) []byte { return b[:size] })
			}
		}
		for _, n := range []int{1, 8, 64, 5000} {
			damage(t, dir, name, func(b []byte) []byte { return append(b, make([]byte, n)...) })
		}
	}
}

func TestRemovedFilesAreNamed(t *testing.T) {
	t.Parallel()
	dir := sealed(t)
	for _, name := range names(t, dir) {
		path := filepath.Join(dir, name)
		if err := os.Rename(path, dir+".aside"); err != nil {
			t.Fatal(err)
		}
		rep := check(t, dir)
		if !blames(&rep, name) {
			t.Errorf("%s removed: %v", name, rep.Findings)
		}
		if err := os.Rename(dir+".aside", path); err != nil {
			t.Fatal(err)
		}
	}
	if rep := check(t, dir); !rep.Clean() {
		t.Errorf("after all: %v", rep.Findings)
	}
}

func TestSwappedAndDuplicatedSegmentsAreNamed(t *testing.T) {
	t.Parallel()
	last := func(dir string) uint32 {
		m, _, err := manifest.Read(vfs.OS, dir)
		if err != nil {
			t.Fatal(err)
		}
		return m.Segments
	}
	seg := func(dir string, n uint32) string { return filepath.Join(dir, segment.FileName(n)) }
	idx := func(dir string, n uint32) string { return strings.TrimSuffix(seg(dir, n), "seg") + "idx" }
	cp := func(from, to string) {
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	swap := func(a, b string) {
		if err := errors.Join(os.Rename(a, a+"x"), os.Rename(b, a), os.Rename(a+"x", b)); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		change func(dir string)
		blame  []uint32
	}{
		"swapped":                 {func(d string) { swap(seg(d, 2), seg(d, 3)) }, []uint32{2, 3}},
		"swapped with index":      {func(d string) { swap(seg(d, 2), seg(d, 3)); swap(idx(d, 2), idx(d, 3)) }, []uint32{2, 3}},
		"copied over":             {func(d string) { cp(seg(d, 2), seg(d, 3)) }, []uint32{3}},
		"copied behind":           {func(d string) { cp(seg(d, 1), seg(d, last(d)+1)) }, nil},
		"last copied behind":      {func(d string) { cp(seg(d, last(d)), seg(d, last(d)+1)) }, nil},
		"first one gone":          {func(d string) { _ = os.Remove(seg(d, 1)) }, []uint32{1}},
		"first two gone":          {func(d string) { _ = os.Remove(seg(d, 1)); _ = os.Remove(seg(d, 2)) }, []uint32{1, 2}},
		"empty file in its place": {func(d string) { _ = os.Truncate(seg(d, 2), 0) }, []uint32{2}},
	} {
		dir := sealed(t)
		n := last(dir)
		c.change(dir)
		rep := check(t, dir)
		if c.blame == nil {
			c.blame = []uint32{n + 1}
		}
		for _, n := range c.blame {
			if !blames(&rep, segment.FileName(n)) {
				t.Errorf("%s: segment %d is not named in %v", name, n, rep.Findings)
			}
		}
	}
}

func TestOneBadFrameHidesNoOther(t *testing.T) {
	t.Parallel()
	dir := sealed(t)
	path := filepath.Join(dir, segment.FileName(2))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	for at := 8000; at < len(b)-8000; at += 9000 { // every one in another batch
		b[at] ^= 1
		want++
	}
	c, err := os.ReadFile(filepath.Join(dir, segment.FileName(4)))
	if err != nil {
		t.Fatal(err)
	}
	c[len(c)/2] ^= 1
	if err := errors.Join(os.WriteFile(path, b, 0o644), os.WriteFile(filepath.Join(dir, segment.FileName(4)), c, 0o644)); err != nil {
		t.Fatal(err)
	}
	var streamed []verify.Finding
	rep, err := verify.Run(ctx, vfs.OS, dir, verify.Options{OnFinding: func(f verify.Finding) { streamed = append(streamed, f) }})
	if err != nil || !slices.Equal(streamed, rep.Findings) {
		t.Fatalf("%v, %d streamed, %d reported", err, len(streamed), len(rep.Findings))
	}
	got, digests := 0, 0
	for _, f := range rep.Findings {
		switch f.Kind {
		case verify.KindFrame, verify.KindCommit:
			got++
			if f.Path == path && f.Kind == verify.KindFrame && (f.FirstSeq == 0 || f.LastSeq < f.FirstSeq) {
				t.Errorf("no seqs in %v", f)
			}
		case verify.KindDigest:
			digests++
		default:
			t.Errorf("damage to frames is also called %v", f)
		}
	}
	if got < want+1 || digests != 2 {
		t.Errorf("%d of %d bad frames and %d digests in:\n%v", got, want+1, digests, rep.Findings)
	}
}

func TestMissingIndexOfACrashedRunIsAFinding(t *testing.T) {
	t.Parallel()
	dir := crashed(t, 500)
	if err := os.Remove(filepath.Join(dir, "00000001.idx")); err != nil {
		t.Fatal(err)
	}
	if rep := check(t, dir); !blames(&rep, "00000001.idx") || rep.Count != 1 {
		t.Error(rep.Findings)
	}
}

func TestTornTailIsANote(t *testing.T) {
	t.Parallel()
	dir := crashed(t, 30)
	path := filepath.Join(dir, segment.FileName(1))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	end := len(b)
	for end > 0 && b[end-1] == 0 {
		end--
	}
	end = (end + 7) &^ 7
	for i := range 100 {
		b[end+i] = byte(i + 1)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	rep := check(t, dir)
	if !rep.Clean() || len(rep.Notes) == 0 || rep.LastSeq != 31 {
		t.Errorf("findings %v, notes %v, last seq %d", rep.Findings, rep.Notes, rep.LastSeq)
	}
}

func TestDurableDamageOfACrashedRunIsAFinding(t *testing.T) {
	t.Parallel()
	dir := crashed(t, 60)
	for at := 4096 + 64; at < 4096+15000; at += 1009 {
		damage(t, dir, segment.FileName(1), func(b []byte) []byte { b[at] ^= 4; return b })
		damage(t, dir, segment.FileName(1), func(b []byte) []byte { clear(b[at : at+2000]); return b })
	}
}

func TestQuarantineIsAFinding(t *testing.T) {
	t.Parallel()
	dir := sealed(t)
	if err := manifest.WriteQuarantine(vfs.OS, dir, manifest.Quarantine{Reason: "test", Offset: -1}); err != nil {
		t.Fatal(err)
	}
	rep := check(t, dir)
	if rep.Status != manifest.Quarantined || !blames(&rep, manifest.QuarantineName) {
		t.Errorf("%+v", rep)
	}
	damage(t, dir, manifest.QuarantineName, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
}

func TestWhatIsNoRunIsAnError(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]error{t.TempDir(): runlog.ErrNotRun, file: runlog.ErrNotRun, file + "x": fs.ErrNotExist} {
		if rep, err := verify.Run(ctx, vfs.OS, dir, verify.Options{}); !errors.Is(err, want) || rep.Count != 0 {
			t.Errorf("%s: %v, want %v", dir, err, want)
		}
	}
}

func TestLiveRunIsCleanAtEveryMoment(t *testing.T) {
	t.Parallel()
	r := open(t, t.TempDir())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 60 { // a bounded load: every check reads all of it again
			fill(t, r, 40)
			time.Sleep(5 * time.Millisecond)
		}
	}()
	for i, writing := 0, true; writing; i++ {
		select {
		case <-done:
			writing = false
		default:
		}
		rep, err := verify.Run(ctx, vfs.OS, r.Dir(), verify.Options{})
		if err != nil || !rep.Clean() {
			t.Errorf("check %d: %v %v", i, err, rep.Findings)
			break
		}
	}
	<-done
	if err := r.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if rep := check(t, r.Dir()); !rep.Clean() {
		t.Error(rep.Findings)
	}
}

// growing shows a segment as it was until another one is opened, as when a writer goes on between two reads.
type growing struct {
	vfs.FS
	path, trigger string
	before        int64 // bytes that are shown at first, zeros behind them
	grown         atomic.Bool
}

func (g *growing) OpenRead(name string) (vfs.File, error) {
	f, err := g.FS.OpenRead(name)
	if name == g.trigger {
		g.grown.Store(true)
	}
	if err != nil || name != g.path {
		return f, err
	}
	return &growingFile{File: f, g: g}, nil
}

type growingFile struct {
	vfs.File
	g *growing
}

func (f *growingFile) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(b, off)
	if !f.g.grown.Load() && off+int64(n) > f.g.before {
		clear(b[max(f.g.before-off, 0):n])
	}
	return n, err
}

func TestWhatAWriterFinishesDuringTheCheckIsNoDamage(t *testing.T) {
	t.Parallel()
	dir := crashed(t, 100) // the first segment is full
	first, second := filepath.Join(dir, segment.FileName(1)), filepath.Join(dir, segment.FileName(2))
	b, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	b = append(b[:len(b)-segment.FooterSize], make([]byte, segment.MinSegment)...)[:segment.MinSegment]
	if err := os.WriteFile(first, b, 0o644); err != nil { // as before it was sealed
		t.Fatal(err)
	}
	derived, _ := filepath.Glob(filepath.Join(dir, "*.idx"))
	filters, _ := filepath.Glob(filepath.Join(dir, "*.flt"))
	for _, name := range append(derived, filters...) {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	for before := int64(5000); before < 25000; before += 1999 {
		g := &growing{FS: vfs.OS, path: first, trigger: second, before: before}
		rep, err := verify.Run(ctx, g, dir, verify.Options{})
		if err != nil || !rep.Clean() || !g.grown.Load() {
			t.Errorf("%d bytes first: %v %v, grown %v", before, err, rep.Findings, g.grown.Load())
		}
	}
}

func TestNewerVersionIsAnErrorAndNoFinding(t *testing.T) {
	t.Parallel()
	for _, n := range []uint32{1, 3} {
		dir := sealed(t)
		path := filepath.Join(dir, segment.FileName(n))
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		format.SealHeader(b[:segment.BlockSize], format.MagicSegment, segment.Version+1, binary.LittleEndian.Uint64(b[16:]))
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if rep, err := verify.Run(ctx, vfs.OS, dir, verify.Options{}); !errors.Is(err, runlog.ErrVersion) || !rep.Clean() {
			t.Errorf("segment %d: %v, %v", n, err, rep.Findings)
		}
	}
}

func TestCanceledCheckSaysSo(t *testing.T) {
	t.Parallel()
	done, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := verify.Run(done, vfs.OS, sealed(t), verify.Options{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestRecoveredRunsAreClean(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	from := crashed(t, 200)
	dir := filepath.Join(base, "demo", filepath.Base(from))
	copyDir(t, from, dir)
	r := open(t, base)
	defer r.Close(ctx)
	rep := check(t, dir)
	if !rep.Clean() || rep.Status != manifest.CrashedRecovered {
		t.Errorf("%+v", rep)
	}
	damage(t, dir, segment.FileName(1), func(b []byte) []byte { b[9000] ^= 1; return b })
}
