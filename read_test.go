package runlog_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/vfs"
)

func TestKindsAreDeclaredAtOpenAndWhileTheRunIsOpen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		o := options(mem)
		o.Kinds = []string{"account", runlog.ClientOrderID}
		r := open(t, o)
		d := runlog.Draft{Topic: "t", Type: "t", Keys: []runlog.Key{{Kind: "account", Value: "A"}, {Kind: "strategy", Value: "S"}}}
		_, err := r.Submit(d)
		wantIs(t, err, runlog.ErrUnknownKind)
		if _, _, err = r.Lookup("strategy", "S"); err == nil {
			t.Fatal("a look-up by an undeclared kind is no error")
		}
		wantIs(t, err, runlog.ErrUnknownKind)
		must(t, r.DeclareKind("strategy"))
		must(t, r.DeclareKind("strategy"))
		wantIs(t, r.DeclareKind(""), runlog.ErrInvalid)
		seq, err := r.Append(t.Context(), d)
		must(t, err)
		for _, k := range d.Keys {
			if got, ok, err := r.Lookup(k.Kind, k.Value); got != seq || !ok || err != nil {
				t.Fatalf("%s finds %d, %v, %v", k.Kind, got, ok, err)
			}
		}
		closed(t, r)
		rd := must1(runlog.OpenReader(r.Dir(), runlog.ReaderOptions{FS: mem}))
		defer rd.Close()
		if got, ok, err := rd.Lookup("strategy", "S"); got != seq || !ok || err != nil {
			t.Fatalf("later the key finds %d, %v, %v", got, ok, err)
		}
		if kinds := rd.Manifest().Kinds; len(kinds) != 2 || kinds[1].Name != "strategy" {
			t.Fatalf("kinds %+v", kinds)
		}
	})
}

func TestLimitsHoldExactly(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	text := func(topic, typ string) runlog.Draft { return runlog.Draft{Topic: topic, Type: typ} }
	payload := func(n int) runlog.Draft { return runlog.Draft{Topic: "t", Type: "t", Payload: make([]byte, n)} }
	key := func(value string, n int) runlog.Draft {
		keys := []runlog.Key{{Kind: runlog.ClientOrderID, Value: value}}
		return runlog.Draft{Topic: "t", Type: "t", Keys: slices.Repeat(keys, n)}
	}
	bubble(t, func(t *testing.T) {
		o := options(newMem())
		o.MaxPayload = 1000
		r := open(t, o)
		for name, c := range map[string]struct {
			d  runlog.Draft
			ok bool
		}{
			"topic at the limit":     {text(long(255), "t"), true},
			"topic above":            {text(long(256), "t"), false},
			"no topic":               {text("", "t"), false},
			"topic not UTF-8":        {text("a\xff", "t"), false},
			"type at the limit":      {text("t", long(255)), true},
			"type above":             {text("t", long(256)), false},
			"no type":                {text("t", ""), false},
			"type not UTF-8":         {text("t", "\xc3"), false},
			"payload at the limit":   {payload(1000), true},
			"payload above":          {payload(1001), false},
			"key value at the limit": {key(long(255), 1), true},
			"key value above":        {key(long(256), 1), false},
			"key value empty":        {key("", 1), false},
			"key value not UTF-8":    {key("\xff", 1), false},
			"keys at the limit":      {key("v", 1024), true},
			"keys above":             {key("v", 1025), false},
			"lifecycle topic":        {text("run.lifecycle.RunEnded", "RunEnded"), false},
			"beside lifecycle":       {text("run.lifecycles", "t"), true},
		} {
			before := r.Accepted()
			seq, err := r.Append(t.Context(), c.d)
			if !c.ok {
				wantIs(t, err, runlog.ErrInvalid)
				if seq != 0 || r.Accepted() != before {
					t.Errorf("%s: refused, but seq %d was given out", name, seq)
				}
				continue
			}
			must(t, err)
			v, err := r.Get(seq, nil)
			must(t, err)
			if e := v.Clone(); e.Topic != c.d.Topic || e.Type != c.d.Type || len(e.Payload) != len(c.d.Payload) ||
				len(e.Keys) != len(c.d.Keys) {
				t.Errorf("%s: came back as %s %s", name, v.Topic(), v.Type())
			}
		}
	})
}

func TestHistoryAndLookupFindOrdersIDsAndCorrelations(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := open(t, options(newMem()))
		corr := must1(runlog.ParseID("00000000-0000-4000-8000-0000000000c0"))
		var ids []runlog.ID
		for i := range 400 { // several segments
			id := runlog.ID{1, byte(i >> 8), byte(i)}
			ids = append(ids, id)
			d := order(i % 4)
			d.ID, d.Payload = id, make([]byte, 2000)
			if i%100 == 7 {
				d.CorrelationID = corr
			}
			_, err := r.Submit(d)
			must(t, err)
		}
		must(t, r.WaitDurable(t.Context(), r.Accepted()))
		check := func(kind, value string, want ...uint64) {
			t.Helper()
			var got []uint64
			for v, err := range r.History(kind, value) {
				must(t, err)
				got = append(got, v.Seq())
			}
			seq, ok, err := r.Lookup(kind, value)
			must(t, err)
			if !slices.Equal(got, want) || ok != (len(want) > 0) || ok && seq != want[0] {
				t.Fatalf("%s %s: history %v, first %d %v; want %v", kind, value, got, seq, ok, want)
			}
		}
		check("id", ids[123].String(), 125)
		check("correlation_id", corr.String(), 9, 109, 209, 309)
		check(runlog.ClientOrderID, "O-99")
		var third []uint64
		for i := range uint64(100) {
			third = append(third, 2+4*i+3)
		}
		check(runlog.ClientOrderID, "O-3", third...)
		for v, err := range r.Scan(runlog.ScanOptions{Reverse: true}) {
			must(t, err)
			if v.Seq() != 401 {
				t.Fatalf("the last entry is %d", v.Seq())
			}
			break
		}
		_, err := r.Get(402, nil)
		wantIs(t, err, runlog.ErrNotFound)
	})
}

func TestReadersBesideTheWriterSeeOnlyWhatIsDurable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		o := options(mem)
		o.WarnAfter, o.HaltAfter = off, off
		r := open(t, o)
		add(t, r, 2)
		release := hangSync(mem, 1)
		defer release()
		seq := must1(r.Submit(order(9)))
		time.Sleep(time.Second)
		if r.Written() != seq || r.Durable() != seq-1 {
			t.Fatalf("written %d, durable %d", r.Written(), r.Durable())
		}
		invisible := func() {
			t.Helper()
			_, err := r.Get(seq, nil)
			wantIs(t, err, runlog.ErrNotFound)
			if _, ok, err := r.Lookup(runlog.ClientOrderID, "O-9"); ok || err != nil {
				t.Fatalf("found %v, %v", ok, err)
			}
			for v, err := range r.Scan(runlog.ScanOptions{}) {
				must(t, err)
				if v.Seq() >= seq {
					t.Fatalf("a scan shows seq %d", v.Seq())
				}
			}
		}
		invisible()
		shown := false
		for v, err := range r.Scan(runlog.ScanOptions{Level: runlog.Written}) {
			must(t, err)
			shown = v.Seq() == seq
		}
		if !shown {
			t.Fatal("a scan of what is written does not show it")
		}
		release()
		must(t, r.WaitDurable(t.Context(), seq))
		v, err := r.Get(seq, nil)
		must(t, err)
		if string(v.Payload()) != "order 9" {
			t.Fatalf("payload %q", v.Payload())
		}
	})
}

func TestTailFollowsTheWriterWithoutGapsToTheEnd(t *testing.T) {
	for _, level := range []runlog.Level{runlog.Durable, runlog.Written} {
		bubble(t, func(t *testing.T) {
			r := open(t, options(newMem()))
			type result struct {
				seqs []uint64
				err  error
			}
			done := make(chan result)
			go func() {
				var res result
				for v, err := range r.Tail(context.Background(), runlog.TailOptions{Level: level}) {
					if err != nil {
						res.err = err
						break
					}
					if level == runlog.Durable && v.Seq() > r.Durable() {
						res.err = fmt.Errorf("seq %d came before it was durable", v.Seq())
					}
					res.seqs = append(res.seqs, v.Seq())
				}
				done <- res
			}()
			for i := range 1000 { // through several segments
				d := order(i)
				d.Payload = make([]byte, 700)
				_, err := r.Submit(d)
				must(t, err)
				if i%50 == 0 {
					time.Sleep(3 * time.Millisecond)
				}
			}
			must(t, r.WaitDurable(t.Context(), r.Accepted()))
			synctest.Wait()
			closed(t, r)
			res := <-done
			must(t, res.err)
			for i, seq := range res.seqs {
				if seq != uint64(i+1) {
					t.Fatalf("entry %d is seq %d", i, seq)
				}
			}
			if len(res.seqs) < 1001 {
				t.Fatalf("the tail ended after %d entries", len(res.seqs))
			}
		})
	}
}

func TestTailEndsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := open(t, options(newMem()))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var last error
		for _, err := range r.Tail(ctx, runlog.TailOptions{From: 2}) {
			last = err
		}
		wantIs(t, last, context.DeadlineExceeded)
	})
}

func TestNotifyDurableCoalescesAndMissesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := open(t, options(newMem()))
		ch := make(chan struct{}, 1)
		stop := r.NotifyDurable(ch)
		add(t, r, 5) // nobody reads: the writer does not wait
		if len(ch) != 1 {
			t.Fatalf("%d notices", len(ch))
		}
		released := uint64(0)
		var gate runlog.Gate[uint64]
		for range 1000 {
			seq := must1(r.Submit(order(1)))
			gate.Hold(seq, seq)
		}
		for gate.Len() > 0 {
			<-ch
			durable := r.Durable()
			gate.Release(durable, func(seq uint64) {
				if seq != max(released, 6)+1 || seq > durable {
					t.Fatalf("seq %d released after %d, durable %d", seq, released, durable)
				}
				released = seq
			})
		}
		stop()
		stop()
		for len(ch) > 0 {
			<-ch
		}
		add(t, r, 1)
		if len(ch) != 0 {
			t.Fatal("a notice after stop")
		}
	})
}

func TestGate(t *testing.T) {
	var g runlog.Gate[int]
	var got []int
	out := func(v int) { got = append(got, v) }
	g.Release(100, out)
	for i := range 5000 {
		g.Hold(uint64(i/2), i)
	}
	g.Release(0, out)
	if !slices.Equal(got, []int{0, 1}) || g.Len() != 4998 {
		t.Fatalf("released %v, %d held", got, g.Len())
	}
	for d := range uint64(2500) {
		g.Release(d, out)
	}
	for i, v := range got {
		if i != v {
			t.Fatalf("message %d came as number %d", v, i)
		}
	}
	if len(got) != 5000 || g.Len() != 0 {
		t.Fatalf("%d released, %d held", len(got), g.Len())
	}
}

func TestAGateMayBeUsedWhileItReleases(t *testing.T) {
	var g runlog.Gate[int]
	var got []int
	var out func(v int)
	out = func(v int) {
		got = append(got, v)
		if v < 20 {
			g.Release(10, out)
			g.Hold(1, v+10)
		}
	}
	g.Hold(1, 1)
	g.Hold(1, 2)
	g.Release(1, out)
	g.Release(1, out)
	slices.Sort(got)
	if !slices.Equal(got, []int{1, 2, 11, 12, 21, 22}) || g.Len() != 0 {
		t.Fatalf("released %v, %d held: a message was lost", got, g.Len())
	}
}

func TestListShowsAllRunsOfAllInstances(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		_, err := runlog.List("/nowhere", runlog.ReaderOptions{FS: mem})
		if err == nil {
			t.Fatal("a missing folder is no error")
		}
		must(t, mem.MkdirAll("/base"))
		_, err = runlog.List("/base", runlog.ReaderOptions{FS: mem})
		wantIs(t, err, runlog.ErrNotRun)
		closed(t, open(t, options(mem)))
		live := open(t, options(mem))
		o := options(mem)
		o.Instance = "another"
		must1(runlog.NewImport(o)).Abort()
		closed(t, open(t, o))
		im := must1(runlog.NewImport(options(mem))) // newer than the live run, and no reason to call that dead
		must(t, im.Add(order(1)))
		must1(im.Finish(t.Context()))

		list, err := runlog.List("/base", runlog.ReaderOptions{FS: mem})
		must(t, err)
		var got []string
		for _, i := range list {
			must(t, i.Err)
			got = append(got, fmt.Sprint(i.Instance, " ", i.Status, " ", i.Live, " ", i.Manifest.Origin))
		}
		want := []string{
			"another Ended false engine", "engine-1 Ended false engine", "engine-1 Running true engine", "engine-1 Ended false import",
		}
		if !slices.Equal(got, want) || list[2].Run != live.ID() || list[2].Dir != live.Dir() {
			t.Fatalf("listed\n%s", strings.Join(got, "\n"))
		}
		damaged := list[0].Dir + "/manifest"
		for _, name := range []string{damaged, damaged + ".prev"} {
			f := must1(mem.Open(name))
			must1(f.WriteAt([]byte("?"), 20))
			must(t, f.Close())
		}
		list = must1(runlog.List("/base", runlog.ReaderOptions{FS: mem}))
		if len(list) != 4 {
			t.Fatalf("%d runs", len(list))
		}
		wantIs(t, list[0].Err, runlog.ErrCorrupt)
	})
}

func TestOpenReaderWritesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, run := crashed(t, newMem(), 3)
		rd := must1(runlog.OpenReader(home+"/"+run, runlog.ReaderOptions{FS: mem}))
		defer rd.Close()
		if rd.LastSeq() != 4 || mem.Ops(vfs.OpChange) != 0 {
			t.Fatalf("last seq %d, %d changes", rd.LastSeq(), mem.Ops(vfs.OpChange))
		}
	})
}
