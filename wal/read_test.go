package wal

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
)

// stages are the shapes in which a run is read: beside its writer, after a crash, and sealed. Each returns a reader
// and what it must deliver.
var stages = map[string]func(t *testing.T) (*Reader, []entry.Entry){
	"live": func(t *testing.T) (*Reader, []entry.Entry) {
		g := newRig(t).fill(300, 700)
		t.Cleanup(g.log.Abandon)
		return g.log.Reader(), g.want
	},
	"crashed": func(t *testing.T) (*Reader, []entry.Entry) {
		g := newRig(t).fill(300, 700)
		return openReader(t, g.killed()), g.want
	},
	"sealed": func(t *testing.T) (*Reader, []entry.Entry) {
		g := newRig(t).fill(300, 700).sealed()
		return openReader(t, g.mem), g.want
	},
	"recovered": func(t *testing.T) (*Reader, []entry.Entry) {
		g := newRig(t).fill(300, 700)
		mem := g.killed()
		recovered(t, mem)
		return openReader(t, mem), g.want
	},
	"sealed, without indexes": func(t *testing.T) (*Reader, []entry.Entry) {
		g := newRig(t).fill(300, 700).sealed()
		for name := range contents(t, g.mem, runDir, ".idx", ".flt") {
			remove(t, g.mem, name)
		}
		return openReader(t, g.mem), g.want
	},
	"live, compressing": func(t *testing.T) (*Reader, []entry.Entry) {
		g := newRig(t, compressing(S2, 1)).fill(300, 700)
		t.Cleanup(g.log.Abandon)
		return g.log.Reader(), g.want
	},
	"crashed, compressing": func(t *testing.T) (*Reader, []entry.Entry) {
		g := newRig(t, compressing(Zstd, 0)).fill(300, 700)
		return openReader(t, g.killed()), g.want
	},
	"recovered, compressing": func(t *testing.T) (*Reader, []entry.Entry) {
		g := newRig(t, compressing(S2, 0)).fill(300, 700)
		mem := g.killed()
		recovered(t, mem)
		return openReader(t, mem), g.want
	},
	"compressed": func(t *testing.T) (*Reader, []entry.Entry) {
		g := newRig(t).fill(300, 700).sealed()
		compressAll(t, g.mem, Compression{Codec: Zstd, BlockBytes: 4096})
		return openReader(t, g.mem), g.want
	},
	"compressed, without indexes": func(t *testing.T) (*Reader, []entry.Entry) {
		g := newRig(t).fill(300, 700).sealed()
		compressAll(t, g.mem, Compression{Codec: S2})
		for name := range contents(t, g.mem, runDir, ".idx", ".flt") {
			remove(t, g.mem, name)
		}
		return openReader(t, g.mem), g.want
	},
	"compressed, with entries larger than blocks": func(t *testing.T) (*Reader, []entry.Entry) {
		g := newRig(t)
		for g.log.set.Load().segs[0].open.Load() != nil || len(g.want) < 260 {
			g.fill(7, 700).fill(1, 9000).fill(1, 20_000).fill(1, 0)
		}
		g.sealed()
		compressAll(t, g.mem, Compression{Codec: S2, BlockBytes: 4096})
		return openReader(t, g.mem), g.want
	},
}

func TestEveryStageDeliversEveryEntry(t *testing.T) { // BK4 BK9 DB16 RD7 RD16 MB1 MB4
	for name, stage := range stages {
		t.Run(name, func(t *testing.T) {
			r, want := stage(t)
			whole(t, r, want)
			if n := len(r.set().segs); n < 4 {
				t.Fatalf("only %d segments", n)
			}
			if n := len(contents(t, r.fsys, runDir, ".segz")); (n > 0) != strings.Contains(name, "compress") {
				t.Fatalf("%d segments are compressed", n)
			}
			i := len(want)
			for v, err := range r.Scan(ScanOptions{Reverse: true}) {
				if i--; err != nil {
					t.Fatal(err)
				}
				if err := equal(&v, want, i); err != nil {
					t.Fatal(err)
				}
			}
			if i != 0 {
				t.Fatalf("backwards: %d entries are missing", i)
			}
			var buf Buffer
			for i := range want {
				v, err := r.Get(uint64(i+1), &buf)
				if err != nil {
					t.Fatal(err)
				}
				if err := equal(&v, want, i); err != nil {
					t.Fatal(err)
				}
			}
			if r.FirstSeq() != 1 || r.LastSeq() != uint64(len(want)) {
				t.Errorf("the reader has %d to %d", r.FirstSeq(), r.LastSeq())
			}
		})
	}
}

func TestWindowsSelectWhatTheySay(t *testing.T) { // BK10 BK11 RD6 RD8 RD9 RD10 RD11 RD12
	const beyond = ^uint64(0)
	for name, stage := range stages {
		t.Run(name, func(t *testing.T) {
			r, want := stage(t)
			last := uint64(len(want))
			for _, w := range []struct{ from, to, first, n uint64 }{
				{0, 0, 1, last}, {1, 3, 1, 3}, {2, 3, 2, 2}, {4, 7, 4, 4}, {3, 1, 0, 0}, {last, last, last, 1}, {last + 1, last + 9, 0, 0},
				{last + 1, 0, 0, 0}, {last - 2, last + 99, last - 2, 3}, {last - 2, beyond, last - 2, 3}, {50, 250, 50, 201},
				{beyond, beyond, 0, 0},
			} {
				for _, reverse := range []bool{false, true} {
					var got []uint64
					for v, err := range r.Scan(ScanOptions{From: w.from, To: w.to, Reverse: reverse}) {
						if err != nil {
							t.Fatal(err)
						}
						got = append(got, v.Seq())
						if err := equal(&v, want, int(v.Seq())-1); err != nil {
							t.Fatal(err)
						}
					}
					if reverse {
						slices.Reverse(got)
					}
					if uint64(len(got)) != w.n || w.n > 0 && (got[0] != w.first || got[w.n-1] != w.first+w.n-1) {
						t.Errorf("%d to %d, reverse %v: %d entries", w.from, w.to, reverse, len(got))
					}
				}
			}
			for _, seq := range []uint64{0, last + 1, beyond} {
				if _, err := r.Get(seq, nil); !errors.Is(err, format.ErrNotFound) {
					t.Errorf("get %d: %v", seq, err)
				}
			}
		})
	}
}

func TestScansSelectByTopicTypeAndTime(t *testing.T) {
	for name, stage := range stages {
		t.Run(name, func(t *testing.T) {
			r, want := stage(t)
			mid := want[len(want)/2].TsPublish
			for _, o := range []ScanOptions{
				{Topic: "topic-1"}, {Type: "Type1"}, {Topic: "topic-2", Type: "Type0"},
				{Topic: "none"}, {Type: "none"}, {Topic: "none", Type: "Type0"},
				{Since: mid}, {Until: mid}, {Since: mid - 50_000, Until: mid + 50_000},
				{Since: mid + 1}, {Until: mid - 1}, {Since: mid, Until: mid - 1},
				{Since: 1}, {Until: 1}, {Since: want[len(want)-1].TsPublish + 1},
				{By: ByInit, Since: 100_000}, {By: ByInit, Until: -100_000}, {By: ByInit, Since: -5_000, Until: 5_000},
				{By: ByInit, Since: 20_000, Until: 20_000}, {By: ByInit, Since: 1 << 60},
				{From: 20, To: 200, Topic: "topic-0", Since: mid - 20_000, By: ByPublish},
			} {
				for _, o.Reverse = range []bool{false, true} {
					q := query{ScanOptions: o}
					var exp, got []uint64
					for i := range want {
						w := &want[i]
						ts := w.TsPublish
						if o.By == ByInit {
							ts = w.TsInit
						}
						if (o.Topic == "" || w.Topic == o.Topic) && (o.Type == "" || w.Type == o.Type) &&
							w.Seq >= o.From && (o.To == 0 || w.Seq <= o.To) &&
							(o.Since == 0 || ts >= o.Since) && (o.Until == 0 || ts <= o.Until) {
							exp = append(exp, w.Seq)
						}
					}
					if o.Reverse {
						slices.Reverse(exp)
					}
					for v, err := range r.Scan(o) {
						if err != nil {
							t.Fatal(err)
						}
						got = append(got, v.Seq())
					}
					if !slices.Equal(got, exp) {
						t.Errorf("%+v: got %d entries, want %d", q.ScanOptions, len(got), len(exp))
					}
				}
			}
		})
	}
}

func TestLookupsAndHistoriesAreExact(t *testing.T) { // BK12 BK13 BK14 BK15 BK16
	for name, stage := range stages {
		t.Run(name, func(t *testing.T) {
			r, want := stage(t)
			for n := range uint64(len(want)/4 + 1) {
				value := fmt.Sprintf("O-%d", n)
				var exp, got []uint64
				for i := range want {
					if want[i].Keys[0].Value == value {
						exp = append(exp, want[i].Seq)
					}
				}
				for v, err := range r.History(entry.ClientOrderID, value) {
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, v.Seq())
					if err := equal(&v, want, int(v.Seq())-1); err != nil {
						t.Fatal(err)
					}
				}
				seq, ok, err := r.Lookup(entry.ClientOrderID, value)
				if !slices.Equal(got, exp) || err != nil || !ok || seq != exp[0] {
					t.Fatalf("%s: history %v, want %v; lookup %d, %v, %v", value, got, exp, seq, ok, err)
				}
				if _, ok, err := r.Lookup(entry.VenueOrderID, value); ok || err != nil {
					t.Fatalf("%s is found under another kind: %v", value, err)
				}
			}
			n := 0
			for _, err := range r.History("desk", "D-1") {
				if n++; err != nil {
					t.Fatal(err)
				}
			}
			if n != len(want) {
				t.Errorf("a key that all entries carry has a history of %d", n)
			}
			for _, e := range want[:9] {
				if seq, ok, err := r.Lookup(entry.KindID, e.ID.String()); seq != e.Seq || !ok || err != nil {
					t.Errorf("id %v: seq %d, %v, %v", e.ID, seq, ok, err)
				}
			}
			if seq, ok, err := r.Lookup(entry.KindCorrID, want[30].CorrelationID.String()); seq != 30 || !ok || err != nil {
				t.Errorf("correlation id: seq %d, %v, %v", seq, ok, err)
			}
			if _, ok, err := r.Lookup(entry.ClientOrderID, "absent"); ok || err != nil {
				t.Errorf("an absent key: %v, %v", ok, err)
			}
			if _, _, err := r.Lookup("undeclared", "x"); !errors.Is(err, format.ErrUnknownKind) {
				t.Errorf("an undeclared kind: %v", err)
			}
			if _, _, err := r.Lookup(entry.KindID, "no uuid"); !errors.Is(err, format.ErrInvalid) {
				t.Errorf("a bad id: %v", err)
			}
			for _, err := range r.History("undeclared", "x") {
				if !errors.Is(err, format.ErrUnknownKind) {
					t.Errorf("an undeclared kind: %v", err)
				}
			}
		})
	}
}

func TestKindsDeclaredWhileOpenAreKnownToEveryReader(t *testing.T) {
	g := newRig(t).fill(5, 100)
	if _, err := g.log.DeclareKind("late"); err != nil {
		t.Fatal(err)
	}
	d := draft(6, 10)
	d.Keys = []entry.Key{{Kind: "late", Value: "x"}}
	g.must(g.add(d))
	g.must(g.log.Sync())
	found := func(what string, r *Reader) {
		t.Helper()
		if seq, ok, err := r.Lookup("late", "x"); seq != 6 || !ok || err != nil {
			t.Errorf("%s: seq %d, %v, %v", what, seq, ok, err)
		}
	}
	early := openReader(t, g.mem)
	found("beside the writer", g.log.Reader())
	found("live, another process", early)
	if _, err := g.log.DeclareKind("later"); err != nil {
		t.Fatal(err)
	}
	d.Keys = []entry.Key{{Kind: "later", Value: "y"}}
	g.must(g.add(d))
	g.must(g.log.Sync())
	g.must(early.refresh())
	if seq, ok, err := early.Lookup("later", "y"); seq != 7 || !ok || err != nil {
		t.Errorf("declared after the reader was opened: seq %d, %v, %v", seq, ok, err)
	}
	g.must(g.log.rotate()) // a crash just after a rotation: the newest segment knows no kinds yet
	mem := g.killed()
	found("crashed", openReader(t, mem))
	rec := recovered(t, mem)
	if len(rec.Manifest.Kinds) != 3 {
		t.Errorf("the recovered manifest declares %v", rec.Manifest.Kinds)
	}
	found("recovered", openReader(t, mem))
	for _, name := range []string{manifest.FileName, manifest.PrevName} {
		remove(t, mem, name)
	}
	found("recovered, without manifests", openReader(t, mem))
}

func TestAppendsMustContinueTheLog(t *testing.T) { // BK5 BK6 BK7 BK8 BK18 BK19 DB6 DB19
	g := newRig(t)
	var b, none entry.Batch
	d := draft(1, 10)
	b.Add(&d, g.log.Kinds(), 1)
	if err := g.log.Append(&b, 0, 1, 2); !errors.Is(err, format.ErrInvalid) {
		t.Errorf("a batch that starts at 2: %v", err)
	}
	if g.log.Written().Load() != 0 {
		t.Error("it left something behind")
	}
	g.must(g.log.Append(&none, 0, 0, 1))
	g.fill(3, 10)
	if w, d := g.log.Written().Load(), g.log.Durable().Load(); w != 3 || d != 3 {
		t.Errorf("written %d, durable %d", w, d)
	}
	if err := g.log.Seal(manifest.Running); !errors.Is(err, format.ErrInvalid) {
		t.Errorf("sealed as Running: %v", err)
	}
	g.fill(1, 10)
	g.sealed()
	for what, err := range map[string]error{
		"append": g.log.Append(&b, 0, 1, 5), "sync": g.log.Sync(), "mark": g.log.Mark(), "seal": g.log.Seal(manifest.Ended),
	} {
		if !errors.Is(err, format.ErrClosed) {
			t.Errorf("%s after the seal: %v", what, err)
		}
	}
	r := openReader(t, g.mem)
	whole(t, r, g.want)
	if m := r.Manifest(); m.Status != manifest.Ended || m.LastSeq != 4 || m.Ended == nil || *m.Ended != 4000 {
		t.Errorf("manifest %+v", m) // BK17: the greatest ts_init, not the last one
	}
}

func TestARunWithoutEntriesCanBeSealedAndRecovered(t *testing.T) { // BK3 BK19
	g := newRig(t)
	if m := g.log.Manifest(); m.Status != manifest.Running || m.Ended != nil || m.LastSeq != 0 {
		t.Errorf("fresh manifest: %+v", m)
	}
	mem := g.mem.Kill()
	rec := recovered(t, mem)
	if rec.Status != manifest.CrashedRecovered || rec.LastSeq != 0 || rec.Manifest.Ended != nil || len(rec.Manifest.Kinds) != 1 {
		t.Errorf("recovered: %+v", rec)
	}
	whole(t, openReader(t, mem), nil)
	g.sealed()
	whole(t, openReader(t, g.mem), nil)
}

func TestEntriesLargerThanASegmentMakeTheFileGrow(t *testing.T) {
	g := newRig(t)
	for i, size := range []int{10, 200 << 10, 3 << 20, 0, 61 << 10} {
		g.must(g.add(draft(uint64(i+1), size), draft(uint64(i+1), size/2)))
	}
	g.must(g.log.Sync())
	whole(t, g.log.Reader(), g.want)
	whole(t, openReader(t, g.mem.Kill()), g.want)
	g.must(g.log.Mark())
	mem := g.killed()
	if rec := recovered(t, mem); rec.Status != manifest.CrashedRecovered || rec.LastSeq != uint64(len(g.want)) {
		t.Fatalf("%+v", rec)
	}
	r := openReader(t, mem)
	whole(t, r, g.want)
	for i := range g.want {
		if v, err := r.Get(uint64(i+1), nil); err != nil || equal(&v, g.want, i) != nil {
			t.Fatal(i, err)
		}
	}
}

func TestManyTopicsOverflowIntoInlineRoutes(t *testing.T) {
	g := newRig(t, func(o *Options) { o.SegmentBytes = 4 << 20; o.FirstBytes = 4 << 20 })
	var batch []entry.Draft
	for i := range maxRoutes + 100 {
		batch = append(batch, entry.Draft{Topic: fmt.Sprintf("t-%d", i), Type: "T"})
	}
	g.must(g.add(batch...))
	g.must(g.log.Sync())
	check := func(what string, r *Reader) {
		whole(t, r, g.want)
		n := 0
		for _, err := range r.Scan(ScanOptions{Topic: fmt.Sprintf("t-%d", maxRoutes+50)}) {
			if n++; err != nil {
				t.Error(what, err)
			}
		}
		if n != 1 {
			t.Errorf("%s: an inline topic is found %d times", what, n)
		}
	}
	check("live", g.log.Reader())
	check("other process", openReader(t, g.mem.Kill()))
	check("sealed", openReader(t, g.sealed().mem))
}
