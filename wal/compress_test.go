package wal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/segment/compressed"
	"github.com/runlog-io/runlog/vfs"
)

// compressing lets a rig's log compress all but the newest of its sealed segments.
func compressing(codec Codec, keep int) func(*Options) {
	return func(o *Options) { o.Compress = Compression{Codec: codec, KeepPlain: keep, BlockBytes: 4096} }
}

// compressAll compresses every segment of a sealed run.
func compressAll(t testing.TB, fsys vfs.FS, c Compression) []SegmentForm {
	t.Helper()
	forms, err := Compress(context.Background(), fsys, runDir, CompressOptions{Compression: c})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range forms {
		if f.Codec != c.Codec || !f.Changed {
			t.Fatalf("%+v", f)
		}
	}
	return forms
}

func undo(t testing.TB, fsys vfs.FS) {
	t.Helper()
	if _, err := Compress(context.Background(), fsys, runDir, CompressOptions{Undo: true}); err != nil {
		t.Fatal(err)
	}
}

// Compressing, and going back, changes nothing but the segments' form: every file is byte for byte what it was.
func TestCompressingCanBeUndone(t *testing.T) {
	g := newRig(t).fill(300, 700).sealed()
	before := contents(t, g.mem, runDir)
	for _, codec := range []Codec{Zstd, S2} {
		forms := compressAll(t, g.mem, Compression{Codec: codec})
		after := contents(t, g.mem, runDir)
		for _, f := range forms {
			if f.DiskBytes >= f.PlainBytes || int(f.DiskBytes) != len(after[compressed.FileName(f.Number)]) ||
				int(f.PlainBytes) != len(before[segment.FileName(f.Number)]) {
				t.Errorf("%+v", f)
			}
			delete(after, compressed.FileName(f.Number))
		}
		for name := range after {
			if strings.HasSuffix(name, ".seg") || strings.HasSuffix(name, ".tmp") || after[name] != before[name] {
				t.Errorf("%s is there, or has changed", name)
			}
		}
		undo(t, g.mem)
		if !maps.Equal(before, contents(t, g.mem, runDir)) {
			t.Errorf("%v: the files are not what they were", codec)
		}
	}
}

func TestTheNewestSegmentsStayPlain(t *testing.T) {
	g := newRig(t).fill(300, 700).sealed()
	n := len(contents(t, g.mem, runDir, ".seg"))
	forms, err := Compress(context.Background(), g.mem, runDir, CompressOptions{Compression: Compression{Codec: S2, KeepPlain: 2}})
	if err != nil || len(forms) != n {
		t.Fatal(len(forms), err)
	}
	for i, f := range forms {
		if f.Changed != (i < n-2) {
			t.Errorf("%+v", f)
		}
	}
	whole(t, openReader(t, g.mem), g.want)

	live := newRig(t, compressing(S2, 2)).fill(300, 700)
	defer live.log.Abandon()
	for i, ref := range live.log.set.Load().segs {
		sealed := len(live.log.set.Load().segs) - 1 // the last one is active
		if ref.isCompressed(live.mem) != (i < sealed-2) {
			t.Errorf("segment %d of %d", i+1, sealed)
		}
	}
}

func TestSegmentsThatWouldNotBecomeSmallerStayAsTheyAre(t *testing.T) {
	g := newRig(t)
	rng := rand.New(rand.NewPCG(8, 8))
	for i := range uint64(80) {
		d := draft(i+1, 900)
		for k := range d.Payload {
			d.Payload[k] = byte(rng.Uint32())
		}
		g.must(g.add(d))
		g.must(g.log.Sync())
	}
	g.sealed()
	before := contents(t, g.mem, runDir)
	forms, err := Compress(context.Background(), g.mem, runDir, CompressOptions{Compression: Compression{Codec: Zstd}})
	if err != nil || forms[0].Changed || forms[0].Codec != NoCodec {
		t.Fatalf("%+v, %v", forms[0], err)
	}
	if after := contents(t, g.mem, runDir); after[segment.FileName(1)] != before[segment.FileName(1)] || len(after) != len(before) {
		t.Error("files have changed")
	}
}

func TestOnlySealedRunsAreCompressed(t *testing.T) {
	g := newRig(t).fill(100, 700)
	mem := g.killed()
	o := CompressOptions{Compression: Compression{Codec: S2}}
	if _, err := Compress(context.Background(), mem, runDir, o); !errors.Is(err, format.ErrInvalid) {
		t.Errorf("a crashed run: %v", err)
	}
	recovered(t, mem)
	if err := manifest.WriteQuarantine(mem, runDir, manifest.Quarantine{Reason: "because"}); err != nil {
		t.Fatal(err)
	}
	before := contents(t, mem, runDir)
	if _, err := Compress(context.Background(), mem, runDir, o); !errors.Is(err, format.ErrQuarantined) {
		t.Errorf("a quarantined run: %v", err)
	}
	if !maps.Equal(before, contents(t, mem, runDir)) {
		t.Error("a quarantined run was changed")
	}
	for _, bad := range []Compression{{}, {Codec: 7}, {Codec: S2, KeepPlain: -1}, {Codec: Zstd, Level: 99}, {Codec: S2, BlockBytes: 5}} {
		if _, err := Compress(context.Background(), mem, runDir, CompressOptions{Compression: bad}); !errors.Is(err, format.ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
		if o := g.o; bad.Codec != NoCodec {
			o.Compress = bad
			if _, err := Create(o); !errors.Is(err, format.ErrInvalid) {
				t.Errorf("a log with %+v: %v", bad, err)
			}
		}
	}
}

// A damaged segment stays what it is, byte for byte, and the others are compressed.
func TestADamagedSegmentIsNotCompressed(t *testing.T) {
	g := newRig(t).fill(300, 700).sealed()
	name := segment.FileName(2)
	poke(t, g.mem, name, 9000, 1)
	before := contents(t, g.mem, runDir)[name]
	forms, err := Compress(context.Background(), g.mem, runDir, CompressOptions{Compression: Compression{Codec: S2}})
	if !errors.Is(err, format.ErrCorrupt) || !located(err) || !errors.Is(forms[1].Err, format.ErrCorrupt) {
		t.Errorf("%v, %+v", err, forms[1])
	}
	after := contents(t, g.mem, runDir)
	if after[name] != before || len(contents(t, g.mem, runDir, ".seg")) != 1 || len(contents(t, g.mem, runDir, ".tmp")) != 0 {
		t.Error("the damaged segment was touched, or others were not compressed")
	}
}

// The disk is trusted, not the encoder: a write that comes to the disk in another form leaves the plain file.
func TestTheCompressedFileIsReadBackFromTheDisk(t *testing.T) {
	for _, suffix := range []string{".segz.tmp", ".seg.tmp"} {
		g := newRig(t).fill(300, 700).sealed()
		if suffix == ".seg.tmp" {
			compressAll(t, g.mem, Compression{Codec: S2})
		}
		before := contents(t, g.mem, runDir)
		for nth := 1; ; nth++ {
			bad := &liar{Mem: g.mem, suffix: suffix, nth: nth}
			_, err := Compress(context.Background(), bad, runDir, CompressOptions{Compression: Compression{Codec: S2}, Undo: suffix == ".seg.tmp"})
			if !bad.lied {
				break
			}
			if !errors.Is(err, format.ErrCorrupt) {
				t.Fatalf("write %d to a %s was changed on its way: %v", nth, suffix, err)
			}
			if n := len(contents(t, g.mem, runDir, ".tmp")); n != 0 {
				t.Errorf("%d unfinished files stay", n)
			}
			whole(t, openReader(t, g.mem), g.want)
			if suffix == ".segz.tmp" {
				undo(t, g.mem)
			} else {
				compressAllThatAreNot(t, g.mem)
			}
			if !maps.Equal(before, contents(t, g.mem, runDir)) {
				t.Fatal("the files are not what they were")
			}
			if nth > 12 {
				break
			}
		}
	}
}

func compressAllThatAreNot(t *testing.T, fsys vfs.FS) {
	t.Helper()
	if _, err := Compress(context.Background(), fsys, runDir, CompressOptions{Compression: Compression{Codec: S2}}); err != nil {
		t.Fatal(err)
	}
}

// liar changes a bit of the nth write to files with the suffix.
type liar struct {
	*vfs.Mem
	suffix string
	nth    int
	lied   bool
}

func (l *liar) Create(name string) (vfs.File, error) {
	f, err := l.Mem.Create(name)
	if err == nil && strings.HasSuffix(name, l.suffix) {
		return &lyingFile{f, l}, nil
	}
	return f, err
}

type lyingFile struct {
	vfs.File
	l *liar
}

func (f *lyingFile) WriteAt(b []byte, off int64) (int, error) {
	if f.l.nth--; f.l.nth == 0 && len(b) > 0 {
		f.l.lied = true
		b = append([]byte(nil), b...)
		b[len(b)/2] ^= 4
	}
	return f.File.WriteAt(b, off)
}

// Every operation of a pass fails in turn: the run stays whole, and the next pass ends what was begun.
func TestAFailingDiskLeavesTheRunWhole(t *testing.T) {
	for _, back := range []bool{false, true} {
		done := false
		for nth := 1; !done; nth++ {
			g := newRig(t).fill(120, 700).sealed()
			if back {
				compressAll(t, g.mem, Compression{Codec: S2})
			}
			g.mem.Inject(vfs.Rule{Kind: vfs.OpChange, Nth: nth, Err: syscall.EIO, Landed: vfs.LoseAll()})
			o := CompressOptions{Compression: Compression{Codec: S2}, Undo: back}
			_, err := Compress(context.Background(), g.mem, runDir, o)
			done = err == nil
			if err != nil && !errors.Is(err, syscall.EIO) {
				t.Fatalf("operation %d: %v", nth, err)
			}
			mem := g.mem.Kill()
			whole(t, openReader(t, mem), g.want)
			if _, err := Compress(context.Background(), mem, runDir, o); err != nil {
				t.Fatalf("operation %d, again: %v", nth, err)
			}
			whole(t, openReader(t, mem), g.want)
			want := map[bool]string{false: ".segz", true: ".seg"}[back]
			if a, b, c := len(contents(t, mem, runDir, want)), len(contents(t, mem, runDir, ".seg", ".segz")), len(contents(t, mem, runDir, ".tmp")); a != b || a < 2 || c > 0 {
				t.Fatalf("operation %d: %d of %d segments are %s, %d unfinished files", nth, a, b, want, c)
			}
		}
	}
}

// Where both forms are there, the plain one counts, alone.
func TestWhereBothFormsAreThePlainOneCounts(t *testing.T) {
	g := newRig(t).fill(300, 700).sealed()
	plain := contents(t, g.mem, runDir, ".seg")
	compressAll(t, g.mem, Compression{Codec: S2})
	packed := contents(t, g.mem, runDir, ".segz")
	both := func() *vfs.Mem {
		m := g.mem.Kill()
		for name, b := range plain {
			put(t, m, name, b)
		}
		return m
	}
	o := CompressOptions{Compression: Compression{Codec: S2}}

	m := both()
	for name := range packed {
		poke(t, m, name, 5000, 1)
	}
	whole(t, openReader(t, m), g.want)
	if _, err := Compress(context.Background(), m, runDir, o); err != nil { // what is damaged is made again
		t.Fatal(err)
	}
	if !maps.Equal(packed, contents(t, m, runDir, ".seg", ".segz")) {
		t.Error("a damaged compressed file beside the good plain one was not made again")
	}

	m = both()
	poke(t, m, segment.FileName(2), 9000, 1)
	if _, end, _ := prefix(openReader(t, m), g.want); !errors.Is(end, format.ErrCorrupt) || !strings.Contains(end.Error(), segment.FileName(2)+":") {
		t.Errorf("a damaged plain file is passed over: %v", end)
	}
	if _, err := Compress(context.Background(), m, runDir, o); err != nil { // header and footer say that it is the same segment
		t.Fatal(err)
	}
	whole(t, openReader(t, m), g.want)

	m = both()
	poke(t, m, segment.FileName(2), 20, 1) // its header: nothing says whose file it is
	if _, err := Compress(context.Background(), m, runDir, o); !errors.Is(err, format.ErrCorrupt) {
		t.Errorf("a plain file without a header: %v", err)
	}
	if len(contents(t, m, runDir, segment.FileName(2), compressed.FileName(2))) != 2 {
		t.Error("one of both is gone")
	}

	m = both()
	put(t, m, compressed.FileName(2), packed[compressed.FileName(3)]) // another segment's
	if _, err := Compress(context.Background(), m, runDir, o); err != nil {
		t.Fatal(err)
	}
	whole(t, openReader(t, m), g.want)
	if !maps.Equal(packed, contents(t, m, runDir, ".seg", ".segz")) {
		t.Error("another segment's file was taken for this one's")
	}
}

// put replaces a file of the run.
func put(t testing.TB, fsys vfs.FS, name, b string) {
	t.Helper()
	if err := vfs.WriteFileAtomic(fsys, runDir, filepath.Join(runDir, name), []byte(b)); err != nil {
		t.Fatal(err)
	}
}

func TestUnfinishedFilesOfAPassAreRemoved(t *testing.T) {
	g := newRig(t).fill(150, 700).sealed()
	for _, name := range []string{"00000001.segz.tmp", "00000002.seg.tmp", "00000009.segz.tmp"} {
		put(t, g.mem, name, "half")
	}
	compressAll(t, g.mem, Compression{Codec: S2})
	if n := len(contents(t, g.mem, runDir, ".tmp")); n != 0 {
		t.Errorf("%d are left", n)
	}
	live := newRig(t).fill(150, 700)
	mem := live.killed()
	put(t, mem, "00000001.segz.tmp", "half")
	recovered(t, mem)
	if n := len(contents(t, mem, runDir, ".tmp")); n != 0 {
		t.Errorf("%d are left by recovery", n)
	}
}

// A pass that is told to stop leaves the segment that it is at, and says how far it has come.
func TestAPassStopsBetweenAndInsideSegments(t *testing.T) {
	g := newRig(t).fill(300, 700).sealed()
	ctx, cancel := context.WithCancel(context.Background())
	o := CompressOptions{Compression: Compression{Codec: S2}}
	o.OnSegment = func(f SegmentForm) {
		if f.Number == 2 {
			cancel()
		}
	}
	var last, total int64
	o.OnProgress = func(d, all int64) {
		if d < last || d > all {
			t.Errorf("%d of %d after %d", d, all, last)
		}
		last, total = d, all
	}
	forms, err := Compress(ctx, g.mem, runDir, o)
	if !errors.Is(err, context.Canceled) || len(forms) != 2 || total == 0 {
		t.Errorf("%d segments, %v", len(forms), err)
	}
	ctx, cancel = context.WithCancel(context.Background())
	o.OnSegment, o.OnProgress = nil, func(int64, int64) { cancel() }
	forms, err = Compress(ctx, g.mem, runDir, o)
	if !errors.Is(err, context.Canceled) || len(contents(t, g.mem, runDir, ".segz")) != 2 || len(contents(t, g.mem, runDir, ".tmp")) != 0 {
		t.Errorf("%d segments, %v", len(forms), err)
	}
	whole(t, openReader(t, g.mem), g.want)
}

// The background compresses while the log grows; sealing waits for no more than what is being done.
func TestALogCompressesInTheBackground(t *testing.T) {
	var mu sync.Mutex
	var tasks []func()
	g := newRig(t, compressing(Zstd, 1), func(o *Options) {
		o.Inline = false
		o.Background = func(task func()) { mu.Lock(); tasks = append(tasks, task); mu.Unlock() }
	})
	g.fill(200, 700)
	for len(tasks) > 0 {
		task := tasks[0]
		tasks = tasks[1:]
		task()
	}
	n := len(contents(t, g.mem, runDir, ".segz"))
	if n == 0 {
		t.Fatal("nothing was compressed")
	}
	g.fill(100, 700)
	g.sealed()
	if m := len(contents(t, g.mem, runDir, ".segz")); m != n {
		t.Errorf("sealing has compressed %d more", m-n)
	}
	for _, task := range tasks { // they come too late, and do nothing
		task()
	}
	r := openReader(t, g.mem)
	whole(t, r, g.want)
	if m := len(contents(t, g.mem, runDir, ".segz")); m != n {
		t.Error("a task that came late has changed the run")
	}
}

func TestTroubleWithCompressingIsAWarning(t *testing.T) {
	var warned []error
	g := newRig(t, compressing(S2, 0), func(o *Options) { o.Warn = func(err error) { warned = append(warned, err) } })
	g.mem.Inject(vfs.Rule{Kind: vfs.OpChange, Name: "*.segz.tmp", Err: syscall.ENOSPC, Forever: true})
	g.fill(200, 700).sealed()
	if len(warned) == 0 || !errors.Is(warned[0], syscall.ENOSPC) || !strings.Contains(warned[0].Error(), ".segz") {
		t.Errorf("%v", warned)
	}
	whole(t, openReader(t, g.mem), g.want)
}

// Readers that are open, in the same process and on the files alone, do not notice the swap, whichever way it goes.
func TestReadersDoNotNoticeTheSwap(t *testing.T) {
	g := newRig(t).fill(300, 700).sealed()
	r := openReader(t, g.mem)
	whole(t, r, g.want)
	fresh := openReader(t, g.mem) // has mapped nothing yet
	step := func() {
		whole(t, r, g.want)
		for i := range g.want {
			if v, err := r.Get(uint64(i+1), nil); err != nil || equal(&v, g.want, i) != nil {
				t.Fatal(i, err)
			}
		}
	}
	compressAll(t, g.mem, Compression{Codec: Zstd})
	step()
	whole(t, fresh, g.want)
	whole(t, openReader(t, g.mem), g.want)
	undo(t, g.mem)
	step()
	whole(t, openReader(t, g.mem), g.want)
}

// A tail goes on over segments that are sealed and compressed under it, in the same and in another process.
func TestTailsGoOnAcrossTheSwap(t *testing.T) {
	g := newRig(t, compressing(S2, 0), func(o *Options) { o.Inline = false })
	other := openReader(t, g.mem)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	const n = 400
	errs := make(chan error, 2)
	for _, r := range []*Reader{g.log.Reader(), other} {
		go func() {
			next := uint64(1)
			for v, err := range r.Tail(ctx, TailOptions{Level: Written}) {
				if err != nil || v.Seq() != next || len(v.Payload()) != 700 {
					errs <- fmt.Errorf("seq %d, want %d: %w", v.Seq(), next, errors.Join(err, errors.New("wrong")))
					return
				}
				if next++; next > n {
					errs <- nil
					return
				}
			}
			errs <- fmt.Errorf("it ended at %d", next)
		}()
	}
	g.fill(n, 700)
	for range 2 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	g.sealed()
	whole(t, other, g.want)
	if len(contents(t, g.mem, runDir, ".segz")) == 0 {
		t.Log("nothing was compressed in time")
	}
}

// A follower that comes late finds the next segment compressed already.
func TestALateFollowerGoesOnInCompressedSegments(t *testing.T) {
	g := newRig(t, compressing(Zstd, 0)).fill(3, 700)
	late := openReader(t, g.mem)
	whole(t, late, g.want)
	g.fill(300, 700)
	if n := len(contents(t, g.mem, runDir, ".segz")); n < 3 {
		t.Fatalf("%d segments are compressed", n)
	}
	g.must(late.refresh())
	whole(t, late, g.want)
	g.sealed()
	g.must(late.refresh())
	whole(t, late, g.want)
}

// Damage to a block takes the entries that touch it, names them, and hides no other.
func TestADamagedBlockTakesItsEntriesAndNoOthers(t *testing.T) {
	for _, codec := range []Codec{Zstd, S2} {
		g := newRig(t).fill(300, 700).sealed()
		plain := contents(t, g.mem, runDir, ".seg")[segment.FileName(2)]
		compressAll(t, g.mem, Compression{Codec: codec, BlockBytes: 4096})
		name := compressed.FileName(2)
		z, err := compressed.Open(g.mem, filepath.Join(runDir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		size := len(contents(t, g.mem, runDir, name)[name])
		tried := map[[2]int64]bool{}
		for off := int64(128 + 4096); off < int64(size); off += 11 {
			m := g.mem.Kill()
			poke(t, m, name, off, 0x10)
			lost, from, to := lostBlock(t, m, name)
			if !lost || tried[[2]int64{from, to}] {
				continue
			}
			tried[[2]int64{from, to}] = true
			takesOnly(t, m, g.want, plain, from, to)
		}
		if start, end := z.Bounds(); int64(len(tried)) <= (end-start)/4096 { // every block, and the line of the index
			t.Errorf("only %d places were damaged", len(tried))
		}
	}
}

// lostBlock finds the content that cannot be read.
func lostBlock(t *testing.T, m vfs.FS, name string) (lost bool, from, to int64) {
	t.Helper()
	z, err := compressed.Open(m, filepath.Join(runDir, name))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	start, end := z.Bounds()
	b := make([]byte, z.BlockSize())
	for off := start; off < end; off += z.BlockSize() {
		if _, err := z.ReadAt(b[:min(z.BlockSize(), end-off)], off); err != nil {
			if !lost {
				from = off
			}
			lost, to = true, min(off+z.BlockSize(), end)
		}
	}
	return lost, from, to
}

// takesOnly checks that exactly the entries of segment 2 that touch from..to are lost, to every way to read, and that an
// error names them.
func takesOnly(t *testing.T, m vfs.FS, want []entry.Entry, plain string, from, to int64) {
	t.Helper()
	r := openReader(t, m)
	var gone []uint64
	var buf Buffer
	for i := range want {
		v, err := r.Get(uint64(i+1), &buf)
		switch {
		case err == nil:
			if err := equal(&v, want, i); err != nil {
				t.Fatal(err)
			}
		case !errors.Is(err, format.ErrCorrupt) || !located(err) || !strings.Contains(err.Error(), compressed.FileName(2)) || !strings.Contains(err.Error(), fmt.Sprintf("seq %d", i+1)):
			t.Fatalf("seq %d: %v", i+1, err)
		default:
			gone = append(gone, uint64(i+1))
		}
	}
	if exp := touching(plain, from, to); fmt.Sprint(gone) != fmt.Sprint(exp) {
		t.Fatalf("content %d to %d: seqs %v cannot be read, want %v", from, to, gone, exp)
	}
	if len(gone) == 0 {
		return
	}
	first, last := gone[0], gone[len(gone)-1]
	n, end, wrong := prefix(r, want)
	var at *format.Error
	if wrong != nil || n != int(first)-1 || !errors.As(end, &at) || at.FirstSeq != first || max(at.LastSeq, first) != last {
		t.Fatalf("forward: %d entries, want %d, then %v, %v", n, first-1, end, wrong)
	}
	i := len(want)
	for v, err := range r.Scan(ScanOptions{Reverse: true}) {
		if err != nil {
			if !errors.Is(err, format.ErrCorrupt) {
				t.Fatal(err)
			}
			break
		}
		i--
		if err := equal(&v, want, i); err != nil {
			t.Fatal(err)
		}
	}
	if uint64(i) != last {
		t.Fatalf("backwards down to %d, want %d", i+1, last+1)
	}
	n = 0
	for v, err := range r.Scan(ScanOptions{From: last + 1}) {
		if err != nil || equal(&v, want, int(v.Seq())-1) != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != len(want)-int(last) {
		t.Fatalf("%d entries behind the damage, want %d", n, len(want)-int(last))
	}
}

// touching returns the seqs of the entries of which a byte lies in from..to of a plain segment.
func touching(plain string, from, to int64) (seqs []uint64) {
	b := []byte(plain)
	h, _ := segment.ReadHeader(strings.NewReader(plain), "")
	st, _ := segment.DecodeStart(b[h.Size:], h.Salt, h.Size)
	seq := st.Prev.Seq
	for off := h.Size; off < int64(len(b)); {
		size, isEntry, ok := segment.SkipFrame(b[off:], h.Salt, off)
		if !ok {
			break
		}
		if isEntry {
			if seq++; off < to && off+size > from {
				seqs = append(seqs, seq)
			}
		}
		off += size
	}
	return seqs
}

// A damaged footer takes nothing; a damaged header takes the segment.
func TestDamageToTheEndsOfACompressedSegment(t *testing.T) {
	g := newRig(t).fill(300, 700).sealed()
	compressAll(t, g.mem, Compression{Codec: S2})
	name := compressed.FileName(2)
	size := len(contents(t, g.mem, runDir, name)[name])

	m := g.mem.Kill()
	poke(t, m, name, int64(size-100), 1)
	r := openReader(t, m)
	whole(t, r, g.want)
	if w := r.Warnings(); len(w) == 0 || !strings.Contains(w[0].Error(), name) {
		t.Errorf("warnings %v", w)
	}
	for _, off := range []int64{40, 128 + 40} {
		m = g.mem.Kill()
		poke(t, m, name, off, 1)
		r = openReader(t, m)
		_, end, wrong := prefix(r, g.want)
		if wrong != nil || !errors.Is(end, format.ErrCorrupt) || !located(end) || !strings.Contains(end.Error(), name) {
			t.Errorf("offset %d: %v, %v", off, end, wrong)
		}
		if _, err := r.Get(uint64(len(g.want)), nil); err != nil {
			t.Errorf("offset %d: what is behind: %v", off, err)
		}
	}
}

// Recovery never writes into a compressed segment.
func TestRecoveryLeavesCompressedSegmentsAlone(t *testing.T) {
	g := newRig(t, compressing(S2, 0)).fill(300, 700)
	mem := g.killed()
	before := contents(t, mem, runDir, ".segz")
	if len(before) < 3 {
		t.Fatal("nothing is compressed")
	}
	m := mem.Kill()
	recovered(t, m)
	if !maps.Equal(before, contents(t, m, runDir, ".segz")) {
		t.Error("recovery has changed them")
	}
	whole(t, openReader(t, m), g.want)
	for name, b := range before { // a damaged footer: it cannot be written again in place
		m := mem.Kill()
		poke(t, m, name, int64(len(b)-50), 1)
		rec := recovered(t, m)
		if n, _ := compressed.ParseFileName(name); int(n) == len(before) && rec.Status != manifest.Quarantined {
			t.Errorf("%s: %+v", name, rec)
		}
		if now := contents(t, m, runDir, ".segz"); len(now) != len(before) || now[name] == b {
			t.Error("recovery has changed them")
		}
		whole(t, openReader(t, m), g.want)
	}
}

// The cache stays within its bound, whatever is read, and closing lets go of everything.
func TestDecompressedBlocksAreBounded(t *testing.T) {
	g := newRig(t).fill(300, 700).sealed()
	compressAll(t, g.mem, Compression{Codec: S2, BlockBytes: 4096})
	r := openReader(t, g.mem)
	c := r.files.blocks
	c.limit = 5 * 4096
	var wg sync.WaitGroup
	for k := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(k)))
			var buf Buffer
			for range 1000 {
				seq := 1 + rng.Uint64N(uint64(len(g.want)))
				if v, err := r.Get(seq, &buf); err != nil || equal(&v, g.want, int(seq)-1) != nil {
					t.Error(seq, err)
					return
				}
			}
		})
	}
	wg.Wait()
	held := int64(0)
	for _, b := range c.byKey {
		held += int64(cap(b.buf))
		if b.pins != 0 {
			t.Error("a block is still pinned")
		}
	}
	if held != c.bytes || held > c.limit+4*4096 {
		t.Errorf("%d bytes are held, %d counted, %d allowed", held, c.bytes, c.limit)
	}
	g.must(r.Close())
	if len(c.byKey) != 0 || c.bytes != 0 {
		t.Errorf("%d blocks stay", len(c.byKey))
	}
}

// Sealing stops what is being compressed: it does not wait for the rest, and leaves nothing behind.
func TestSealingStopsTheCompression(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	g := newRig(t, compressing(Zstd, 0), func(o *Options) { o.Inline = false })
	g.mem.SetHook(func(op vfs.Op) error {
		if op.Kind == vfs.OpWrite && strings.HasSuffix(op.Name, ".segz.tmp") {
			once.Do(func() { close(begun); <-release })
		}
		return nil
	})
	g.fill(60, 700)
	<-begun
	done := make(chan error, 1)
	go func() { done <- errors.Join(g.log.Mark(), g.log.Seal(manifest.Ended)) }()
	for !g.log.packer.stopped.Load() {
		time.Sleep(time.Millisecond)
	}
	close(release)
	g.must(<-done)
	g.log.Close()
	if n := len(contents(t, g.mem, runDir, ".segz", ".tmp")); n != 0 {
		t.Errorf("%d files of a compression that was stopped", n)
	}
	whole(t, openReader(t, g.mem), g.want)
}

// A file that is cut short under a reader is a typed error, never a fault: compressed segments are not mapped.
func TestACompressedSegmentThatIsCutUnderAReader(t *testing.T) {
	g := newRig(t).fill(300, 700).sealed()
	compressAll(t, g.mem, Compression{Codec: S2, BlockBytes: 4096})
	r := openReader(t, g.mem)
	if _, err := r.Get(1, nil); err != nil {
		t.Fatal(err)
	}
	for name := range contents(t, g.mem, runDir, ".segz") {
		cut(t, g.mem, name, 4500)
	}
	r.files.blocks.limit = 0
	failed := 0
	for i := range g.want {
		v, err := r.Get(uint64(i+1), nil)
		switch {
		case err == nil:
			if err := equal(&v, g.want, i); err != nil {
				t.Fatal(err)
			}
		case !errors.Is(err, format.ErrCorrupt) || !located(err):
			t.Fatal(err)
		default:
			failed++
		}
	}
	if failed == 0 {
		t.Error("nobody has noticed it")
	}
}

// Notes come back from compressed segments, in both directions; a damaged block takes none without an error.
func TestNotesComeBackFromCompressedSegments(t *testing.T) {
	g, notes := noted(t, 120)
	g.sealed()
	compressAll(t, g.mem, Compression{Codec: Zstd, BlockBytes: 4096})
	r := openReader(t, g.mem)
	whole(t, r, g.want)
	for _, o := range noteQuestions(120) {
		if err := agree(r, notes, o); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
	name := compressed.FileName(2)
	for off := 128 + 4096 + 64 + 3; off < len(contents(t, g.mem, runDir, name)[name])-segment.FooterSize; off += 97 {
		m := g.mem.Kill()
		poke(t, m, name, int64(off), 0x20)
		r := openReader(t, m)
		for _, o := range []NoteOptions{{}, {Kinds: allNotes[:2]}, {Kinds: allNotes[:2], Reverse: true}} {
			var got []string
			var end error
			for n, err := range r.Notes(o) {
				if end = err; err == nil {
					got = append(got, string(n.Body))
				}
			}
			want := 0
			for i := range notes { // what comes is a part of what is there, in order
				n := notes[i]
				if o.Reverse {
					n = notes[len(notes)-1-i]
				}
				if want < len(got) && string(n.Body) == got[want] {
					want++
				}
			}
			if want != len(got) {
				t.Fatalf("offset %d, %+v: notes that are not there, or not in order", off, o)
			}
			if q := newNoteQuery(o); end == nil {
				missing := 0
				for _, n := range notes {
					if q.wants(n.Kind, n.After) {
						missing++
					}
				}
				if missing != len(got) {
					t.Fatalf("offset %d, %+v: %d of %d notes, and no error", off, o, len(got), missing)
				}
			} else if !errors.Is(end, format.ErrCorrupt) || !strings.Contains(end.Error(), name) {
				t.Fatalf("offset %d: %v", off, end)
			}
		}
	}
}

// Whoever may reuse the blocks of a file that was replaced comes too late for the log: its name is gone for good before its
// blocks are free.
func TestNoPowerCutBringsAReplacedFormBackOnceItsBlocksAreFree(t *testing.T) {
	for _, undo := range []bool{false, true} {
		g := newRig(t).fill(60, 700).sealed()
		if undo {
			if _, err := Compress(context.Background(), g.mem, runDir, CompressOptions{Compression: Compression{Codec: S2}}); err != nil {
				t.Fatal(err)
			}
		}
		old := segment.FileName(1)
		if undo {
			old += "z"
		}
		freed := 0
		g.mem.SetHook(func(op vfs.Op) error {
			if base := filepath.Base(op.Name); op.Kind == vfs.OpRemove && (base == old || base == old+".tmp") {
				freed++
				left := g.mem.Crash(vfs.LoseAll())
				if _, err := left.Stat(filepath.Join(runDir, old)); !errors.Is(err, errNotExist) {
					t.Errorf("%s: a power cut brings it back: %v", old, err)
				}
				whole(t, openReader(t, left), g.want)
			}
			return nil
		})
		if _, err := Compress(context.Background(), g.mem, runDir, CompressOptions{Compression: Compression{Codec: S2}, Undo: undo}); err != nil {
			t.Fatal(err)
		}
		if g.mem.SetHook(nil); freed == 0 {
			t.Error("nothing was replaced")
		}
	}
}
