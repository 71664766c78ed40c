package verify_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/index"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
)

func hex(sum [32]byte) string { return fmt.Sprintf("%x", sum) }

// seqsOf lists the seq ranges of the findings of one kind.
func seqsOf(rep *verify.Report, kind verify.Kind) (list [][2]uint64) {
	for _, f := range rep.Findings {
		if f.Kind == kind && f.FirstSeq != 0 {
			list = append(list, [2]uint64{f.FirstSeq, f.LastSeq})
		}
	}
	return list
}

// only fails unless all findings are of these kinds.
func only(t testing.TB, rep *verify.Report, kinds ...verify.Kind) {
	t.Helper()
	for _, f := range rep.Findings {
		if !slices.Contains(kinds, f.Kind) {
			t.Errorf("finding %v, want only %v", f, kinds)
		}
	}
}

// says fails unless a finding of this kind says all of these texts.
func says(t testing.TB, rep *verify.Report, kind verify.Kind, texts ...string) {
	t.Helper()
	for _, f := range rep.Findings {
		all := f.Kind == kind
		for _, s := range texts {
			all = all && strings.Contains(f.Detail, s)
		}
		if all {
			return
		}
	}
	t.Errorf("no %s finding says %q in %v", kind, texts, rep.Findings)
}

func TestVF1ACleanRunHasNoFindings(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(vfs.MemOptions{})
	for _, c := range []struct {
		fsys vfs.FS
		base string
	}{{vfs.OS, t.TempDir()}, {mem, "/runs"}} {
		r, err := runlog.Open(ctx, runlog.Options{Dir: c.base, Instance: "demo", FS: c.fsys, WarnAfter: -1, HaltAfter: -1})
		must(t, err)
		for i := range 3 {
			_, err := r.Submit(runlog.Draft{Topic: "a", Type: "b", TsInit: int64(i)})
			must(t, err)
		}
		must(t, r.Close(ctx))
		rep, err := verify.Run(ctx, c.fsys, r.Dir(), verify.Options{})
		if err != nil || !rep.Clean() || rep.LastSeq != 5 || rep.Entries != 5 || rep.Status != manifest.Ended || rep.Run != r.ID() {
			t.Errorf("%T: %v, %+v", c.fsys, err, rep)
		}
	}
}

func TestVF2AnEmptySealedRunIsClean(t *testing.T) {
	t.Parallel()
	if rep := check(t, (&crafted{}).make(t)); !rep.Clean() || rep.Entries != 0 || rep.LastSeq != 0 || rep.Segments != 1 {
		t.Errorf("%+v", rep)
	}
}

func TestVF3ABadPayloadIsNamedAndTheRestIsRead(t *testing.T) {
	t.Parallel()
	dir := (&crafted{seqs: []uint64{1, 2, 3}}).make(t)
	flipPayload(t, dir, 2)
	rep := check(t, dir)
	if got := seqsOf(&rep, verify.KindFrame); !slices.Equal(got, [][2]uint64{{2, 2}}) || rep.Entries != 2 || rep.LastSeq != 3 {
		t.Errorf("%v, %+v", got, rep)
	}
	only(t, &rep, verify.KindFrame, verify.KindDigest)
}

func TestVF4EachOfTwoBadEntriesIsNamed(t *testing.T) {
	t.Parallel()
	dir := (&crafted{seqs: []uint64{1, 2, 3, 4, 5}}).make(t)
	flipPayload(t, dir, 2)
	flipPayload(t, dir, 4)
	if rep := check(t, dir); !slices.Equal(seqsOf(&rep, verify.KindFrame), [][2]uint64{{2, 2}, {4, 4}}) {
		t.Errorf("%v", rep.Findings)
	}
}

// flipPayload flips a bit in the n-th payload of a crafted run.
func flipPayload(t testing.TB, dir string, n int) {
	t.Helper()
	path := filepath.Join(dir, segment.FileName(1))
	b, err := os.ReadFile(path)
	must(t, err)
	at := strings.Index(string(b), fmt.Sprintf("payload %d.", n))
	if at < 0 {
		t.Fatalf("no payload %d", n)
	}
	b[at] ^= 1
	must(t, os.WriteFile(path, b, 0o644))
}

func TestVF6AFrameOfAnotherSeqIsNamedWithBoth(t *testing.T) {
	t.Parallel()
	rep := check(t, (&crafted{seqs: []uint64{1, 99, 3}}).make(t))
	if got := seqsOf(&rep, verify.KindFrame); !slices.Equal(got, [][2]uint64{{2, 2}}) || rep.Count != 1 {
		t.Errorf("%v", rep.Findings)
	}
	says(t, &rep, verify.KindFrame, "the frame is that of seq 99")
}

func TestVF7AnIndexThatSaysMoreThanTheEntriesIsAFinding(t *testing.T) {
	t.Parallel()
	rep := check(t, (&crafted{seqs: []uint64{1, 2, 3}, stray: "c-2"}).make(t))
	if rep.Count != 1 {
		t.Errorf("%v", rep.Findings)
	}
	says(t, &rep, verify.KindIndex, "not what the segment's entries give")
}

func TestVF8AMissingEntryIsAGap(t *testing.T) {
	t.Parallel()
	rep := check(t, (&crafted{seqs: []uint64{1, 3}}).make(t))
	if got := seqsOf(&rep, verify.KindFrame); !slices.Equal(got, [][2]uint64{{2, 2}}) || rep.Entries != 2 || rep.LastSeq != 3 {
		t.Errorf("%v, %+v", got, rep)
	}
}

func TestVF9EachGapIsNamed(t *testing.T) {
	t.Parallel()
	rep := check(t, (&crafted{seqs: []uint64{1, 3, 5}}).make(t))
	if got := seqsOf(&rep, verify.KindFrame); !slices.Equal(got, [][2]uint64{{2, 2}, {4, 4}}) || rep.Entries != 3 || rep.LastSeq != 5 {
		t.Errorf("%v, %+v", got, rep)
	}
}

func TestVF10AnEndThatIsCutOffIsOneGapUpToTheSealedSeq(t *testing.T) {
	t.Parallel()
	r := open(t, t.TempDir())
	fill(t, r, 40) // two batches or more
	must(t, r.Close(ctx))
	path := filepath.Join(r.Dir(), segment.FileName(1))
	info, err := os.Stat(path)
	must(t, err)
	must(t, os.Truncate(path, info.Size()*2/3))
	rep := check(t, r.Dir())
	got := append(seqsOf(&rep, verify.KindFrame), seqsOf(&rep, verify.KindFooter)...)
	if len(got) == 0 || got[len(got)-1][1] != 42 || got[0][0] > rep.Entries+1 {
		t.Errorf("%v of 42, %d read: %v", got, rep.Entries, rep.Findings)
	}
	if got[0][0] <= rep.Entries { // a batch is whole or absent, but what is left of it can be read
		says(t, &rep, verify.KindFrame, fmt.Sprintf("to %d, before it in the same batch, can be read one by one", rep.Entries))
	}
}

func TestVF11AManifestOfAnotherLastSeqNamesBoth(t *testing.T) {
	t.Parallel()
	rep := check(t, (&crafted{seqs: []uint64{1, 2, 3}, manifest: func(m *manifest.Manifest) { m.LastSeq = 99 }}).make(t))
	if rep.Count != 1 {
		t.Errorf("%v", rep.Findings)
	}
	says(t, &rep, verify.KindManifest, "last_seq is 99", "say 3")
}

func TestVF12AManifestOfAnotherEndNamesBoth(t *testing.T) {
	t.Parallel()
	end := int64(99)
	set := func(m *manifest.Manifest) { m.Ended = &end }
	for _, c := range []struct {
		run  crafted
		says []string
	}{
		{crafted{seqs: []uint64{1, 2, 3}, manifest: set}, []string{"ended is 99", "say 25"}},
		{crafted{seqs: []uint64{1, 2, 3}, manifest: func(m *manifest.Manifest) { m.Ended = nil }}, []string{"ended is absent", "say 25"}},
		{crafted{manifest: set}, []string{"ended is 99", "no entry"}},
	} {
		rep := check(t, c.run.make(t))
		if rep.Count != 1 {
			t.Errorf("%v", rep.Findings)
		}
		says(t, &rep, verify.KindManifest, c.says...)
	}
}

func TestVF15AGoodIndexIsNoFinding(t *testing.T) {
	t.Parallel()
	if rep := check(t, (&crafted{seqs: []uint64{1, 2, 3}}).make(t)); !rep.Clean() || rep.Entries != 3 {
		t.Errorf("%+v", rep)
	}
}

func TestVF16WhatIsNoRunIsAnErrorThatNamesIt(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "nowhere")
	if rep, err := verify.Run(ctx, vfs.OS, dir, verify.Options{}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), dir) || rep.Count != 0 {
		t.Errorf("%v, %+v", err, rep)
	}
}

func TestVF17AnEntryThatCannotBeDecodedIsAFindingLikeAnyOther(t *testing.T) {
	t.Parallel()
	dir := (&crafted{seqs: []uint64{1, 2, 3, 4, 5}, undef: 2}).make(t)
	flipPayload(t, dir, 4)
	rep := check(t, dir)
	if got := seqsOf(&rep, verify.KindFrame); !slices.Equal(got, [][2]uint64{{2, 2}, {4, 4}}) || rep.LastSeq != 5 {
		t.Errorf("%v", rep.Findings)
	}
}

// An index file that lacks a key, or gives an entry another key, is whole by itself.
func TestG37AnIndexThatLacksAKeyIsAFinding(t *testing.T) {
	t.Parallel()
	dir := sealed(t)
	path := filepath.Join(dir, index.FileName(1))
	f, err := vfs.OS.OpenRead(filepath.Join(dir, segment.FileName(1)))
	must(t, err)
	h, err := segment.ReadHeader(f, "")
	must(t, err)
	size, err := f.Size()
	must(t, err)
	ft, ok, err := segment.ReadFooter(f, size, &h)
	if err != nil || !ok {
		t.Fatal(err, ok)
	}
	raw := make([]byte, ft.ContentEnd)
	_, err = f.ReadAt(raw, 0)
	must(t, err)
	must(t, f.Close())
	dict, ix, n := entry.NewDict(0), index.NewBuilder(1), 0
	chain := segment.FirstChain(filepath.Base(dir))
	for off := h.Size; off < ft.ContentEnd; {
		b, err := segment.ReadBatch(raw[off:], h.Salt, off, chain)
		must(t, err)
		if st, ok := segment.DecodeStart(raw[off:], h.Salt, off); ok {
			dict.BaseTime = st.BaseTime
		}
		must(t, segment.Frames(b.Raw, h.Salt, off, chain.Seq+1, func(f *segment.Frame) error {
			if !f.IsEntry() {
				return segment.Learn(f, dict)
			}
			e, err := entry.ParseView(dict, f.Seq, f.Flags(), f.Body)
			if err != nil {
				return err
			}
			ix.AddEntry(f.Seq, f.Offset)
			e.IndexKeys(func(kind entry.KindNo, value []byte) bool {
				if n++; n != 20 { // the one that is left out
					ix.AddKey(entry.Fingerprint(kind, value), f.Seq)
				}
				return true
			})
			ix.AddRoute(e.RouteNo())
			ix.AddTimes(e.TsInit(), e.TsPublish())
			return nil
		}))
		off, chain = b.Commit.End(), b.Next
	}
	must(t, os.Remove(path))
	data, err := index.Encode(ix, dict, index.Meta{Number: 1, Salt: h.Salt, Chain: ft.Chain, ContentEnd: ft.ContentEnd})
	must(t, err)
	must(t, index.Write(vfs.OS, dir, index.FileName(1), data))
	rep := check(t, dir)
	says(t, &rep, verify.KindIndex, "not what the segment's entries give")
	only(t, &rep, verify.KindIndex, verify.KindFilter) // a filter over it has another number of keys
}
