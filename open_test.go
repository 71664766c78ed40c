package runlog_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

func TestLC2RunStartedIsDurableBeforeOpenReturns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		r := open(t, options(mem))
		if r.Durable() != 1 || len(r.Predecessors()) != 0 {
			t.Fatalf("durable %d, predecessors %v", r.Durable(), r.Predecessors())
		}
		wantParent(t, r, "")
		after, err := runlog.OpenReader(r.Dir(), runlog.ReaderOptions{FS: mem.Crash(vfs.LoseAll())})
		must(t, err)
		defer after.Close()
		v, err := after.Get(1, nil)
		must(t, err)
		if v.Topic() != "run.lifecycle.RunStarted" || v.Type() != "RunStarted" || !v.IsLifecycle() {
			t.Fatalf("seq 1 is %s %s", v.Topic(), v.Type())
		}
		id, err := manifest.DecodeIdentity("", 0, v.Payload())
		if err != nil || id.Run != r.ID() {
			t.Fatalf("RunStarted names %+v, %v", id, err)
		}
	})
}

func TestLC3CloseEndsAndSealsTheRun(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		r := open(t, options(mem))
		add(t, r, 3)
		closed(t, r)
		closed(t, r)
		rd, err := runlog.OpenReader(r.Dir(), runlog.ReaderOptions{FS: mem.Crash(vfs.LoseAll())})
		must(t, err)
		defer rd.Close()
		v, err := rd.Get(5, nil)
		must(t, err)
		m := rd.Manifest()
		if v.Type() != "RunEnded" || rd.LastSeq() != 5 || m.Status != runlog.Ended || m.LastSeq != 5 || len(m.Digest) != 64 ||
			rd.Live() {
			t.Fatalf("last entry %s, manifest %+v", v.Type(), m)
		}
		_, err = r.Submit(order(1))
		wantIs(t, err, runlog.ErrClosed)
		wantIs(t, r.DeclareKind("late"), runlog.ErrClosed)
		wantIs(t, r.Err(), runlog.ErrClosed)
	})
}

func TestMF2EachIdentityFieldKeepsItsOwnSetting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, seed := newMem(), uint64(42)
		o := options(mem)
		o.Build, o.SchemaVersion, o.ConfigHash, o.Seed = "build", "schema", "config", &seed
		o.Components = []runlog.Component{{Kind: "strategy", ID: "s1", ConfigHash: "h1"}, {Kind: "adapter", ID: "a1", ConfigHash: "h2"}}
		o.Labels = map[string]string{"desk": "fx"}
		o.Kinds = []string{"strategy", "account"}
		r := open(t, o)
		check := func(m runlog.Manifest) {
			t.Helper()
			if m.Run != r.ID() || m.Instance != instance || m.Build != "build" || m.SchemaVersion != "schema" ||
				m.ConfigHash != "config" || *m.Seed != 42 || len(m.Components) != 2 || m.Components[1] != o.Components[1] ||
				m.Labels["desk"] != "fx" ||
				m.Origin != manifest.OriginEngine || len(m.Kinds) != 2 || m.Kinds[0].Name != "strategy" || m.Kinds[1].Name != "account" {
				t.Fatalf("manifest %+v", m)
			}
		}
		check(r.Manifest())
		closed(t, r)
		rd, err := runlog.OpenReader(r.Dir(), runlog.ReaderOptions{FS: mem})
		must(t, err)
		defer rd.Close()
		check(rd.Manifest())
	})
}

func TestASecondOpenIsRefusedAtOnceAndNamesTheHolder(t *testing.T) {
	dir := t.TempDir()
	o := runlog.Options{Dir: dir, Instance: instance}
	r := open(t, o)
	_, err := runlog.Open(context.Background(), o)
	wantIs(t, err, runlog.ErrLocked)
	host, _ := os.Hostname()
	if s := err.Error(); !strings.Contains(s, fmt.Sprint(os.Getpid())) || !strings.Contains(s, host) {
		t.Fatalf("the error %q names neither pid %d nor host %q", s, os.Getpid(), host)
	}
	o.Instance = "engine-2" // another one is free
	open(t, o)
	closed(t, r)
	o.Instance = instance
	open(t, o)
}

func TestLC4AKilledProcessFreesTheInstanceAndItsRunIsTheParent(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "RUNLOG_TEST_CHILD="+dir)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "child: <nil>\n" {
		t.Fatalf("the child says %q, %v", line, err)
	}
	_, err = runlog.Open(t.Context(), runlog.Options{Dir: dir, Instance: instance})
	wantIs(t, err, runlog.ErrLocked)
	if !strings.Contains(err.Error(), fmt.Sprint(cmd.Process.Pid)) {
		t.Fatalf("%q does not name pid %d", err, cmd.Process.Pid)
	}
	list, err := runlog.List(dir, runlog.ReaderOptions{})
	if err != nil || len(list) != 1 || !list[0].Live {
		t.Fatalf("list %+v, %v", list, err)
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()

	r := open(t, runlog.Options{Dir: dir, Instance: instance})
	wantParent(t, r, list[0].Run)
	if p := predecessor(t, r, list[0].Run); p.Status != runlog.CrashedRecovered || !p.Recovered || p.LastSeq != 2 || p.Err != nil {
		t.Fatalf("predecessor %+v", p)
	}
}

func TestTheLockIsFreeAfterAFailedOpen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		for n := 1; n < 200; n++ { // the nth operation that changes something fails
			fault := mem.Inject(vfs.Rule{Kind: vfs.OpChange &^ vfs.OpLock, Nth: n, Err: syscall.EIO})
			r, err := runlog.Open(t.Context(), options(mem))
			fault.Remove()
			if err == nil {
				closed(t, r)
				if fault.Hits() == 0 {
					return // Open has fewer operations
				}
				continue
			}
			wantIs(t, err, syscall.EIO)
			closed(t, open(t, options(mem)))
		}
		t.Fatal("Open never gets to its end")
	})
}

// HB10: whatever the disk hangs in, Open returns when its context ends; when the disk is back the instance can be
// opened, and the parent is not lost.
func TestHB10OpenReturnsWithItsContextHoweverTheDiskHangs(t *testing.T) {
	for _, kind := range []vfs.OpKind{
		vfs.OpMkdir, vfs.OpSyncDir, vfs.OpLock, vfs.OpReadDir, vfs.OpRead, vfs.OpOpen, vfs.OpCreate, vfs.OpWrite, vfs.OpDatasync,
		vfs.OpRename,
	} {
		for _, nth := range []int{1, 2, 3} {
			t.Run(fmt.Sprint(kind, nth), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					mem, parent := crashed(t, newMem(), 3)
					gate := make(chan struct{})
					mem.Inject(vfs.Rule{Kind: kind, Nth: nth, Forever: true, Stall: gate})
					ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
					defer cancel()
					start := time.Now()
					r, err := runlog.Open(ctx, options(mem))
					if d := time.Since(start); d > 20*time.Millisecond {
						t.Fatalf("returned after %v", d)
					}
					if err == nil { // Open does not need that many
						close(gate)
						wantParent(t, r, parent)
						closed(t, r)
						return
					}
					wantIs(t, err, context.DeadlineExceeded)
					time.Sleep(time.Minute)
					close(gate)
					time.Sleep(time.Minute)
					wantParent(t, open(t, options(mem)), parent)
				})
			})
		}
	}
}

func TestOpenWithAnEndedContextTouchesNothing(t *testing.T) {
	mem := newMem()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := runlog.Open(ctx, options(mem))
	wantIs(t, err, context.Canceled)
	if n := mem.Ops(vfs.OpAny); n != 0 {
		t.Fatalf("%d operations", n)
	}
}

// hangSync hangs syncs of the first segment from the nth on: its first one comes with its creation.
func hangSync(mem *vfs.Mem, nth int) (release func()) {
	gate := make(chan struct{})
	mem.Inject(vfs.Rule{Kind: vfs.OpDatasync, Name: segmentOne, Nth: nth, Forever: true, Stall: gate})
	return sync.OnceFunc(func() { close(gate) })
}

func TestHB11AHaltDuringOpenIsItsError(t *testing.T) {
	for name, ctx := range map[string]func(*testing.T) context.Context{
		"cancellable": func(t *testing.T) context.Context { return t.Context() },
		"background":  func(*testing.T) context.Context { return context.Background() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				mem, parent := crashed(t, newMem(), 3)
				before := countSyncs(t, mem)
				release := hangSync(mem, before)
				go func() {
					time.Sleep(time.Second)
					release()
				}()
				_, err := runlog.Open(ctx(t), options(mem))
				var h *runlog.HaltError
				if !errors.As(err, &h) || !errors.Is(err, runlog.ErrHalted) || h.StalledFor < 250*time.Millisecond {
					t.Fatalf("open says %v", err)
				}
				if name == "cancellable" { // it is back while the disk still hangs, and may write that run yet
					_, err = runlog.Open(t.Context(), options(mem))
					wantIs(t, err, runlog.ErrLocked)
				}
				time.Sleep(time.Minute)
				wantParent(t, open(t, options(mem)), parent)
			})
		})
	}
}

// countSyncs returns which sync of a first segment makes RunStarted durable: there are those of recovery and creation
// before.
func countSyncs(t *testing.T, mem *vfs.Mem) (nth int) {
	t.Helper()
	twin := mem.Kill()
	all := twin.Inject(vfs.Rule{Kind: vfs.OpDatasync, Name: segmentOne, Forever: true})
	open(t, options(twin))
	return all.Hits()
}

func TestHB12AfterAHaltTheInstanceCanBeOpenedAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		first := open(t, options(mem))
		add(t, first, 2)
		release := hangSync(mem, 1)
		_, err := first.Append(t.Context(), order(3))
		wantIs(t, err, runlog.ErrHalted)
		release()
		err = first.Close(t.Context())
		wantIs(t, err, runlog.ErrHalted)

		second := open(t, options(mem))
		must(t, second.Err())
		wantParent(t, second, first.ID())
		if p := predecessor(t, second, first.ID()); p.LastSeq != 4 || p.Status != runlog.CrashedRecovered {
			t.Fatalf("predecessor %+v", p)
		}
		closed(t, second)
	})
}

func TestLC18AFullDiskGivesAClearErrorAndKeepsTheParent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem, parent := crashed(t, newMem(), 3)
		refused := 0
		for full := int64(1); ; full += 16 << 10 {
			mem.SetCapacity(full)
			r, err := runlog.Open(t.Context(), options(mem))
			if err == nil {
				wantParent(t, r, parent)
				_ = r.Close(context.Background())
				break
			}
			refused++
			wantIs(t, err, syscall.ENOSPC)
			if !strings.Contains(err.Error(), "no space left") {
				t.Fatalf("the error %q is not clear", err)
			}
			time.Sleep(time.Second)
		}
		if refused < 3 {
			t.Fatalf("refused %d times", refused)
		}
	})
}

func TestBadOptionsAreNamed(t *testing.T) {
	base := func(edit func(o *runlog.Options)) runlog.Options {
		o := options(newMem())
		edit(&o)
		return o
	}
	for name, o := range map[string]runlog.Options{
		"Dir":               base(func(o *runlog.Options) { o.Dir = "" }),
		"Instance":          base(func(o *runlog.Options) { o.Instance = "a/b" }),
		"Build":             base(func(o *runlog.Options) { o.Build = strings.Repeat("x", 300) }),
		"SchemaVersion":     base(func(o *runlog.Options) { o.SchemaVersion = "\xff" }),
		"Label":             base(func(o *runlog.Options) { o.Labels = map[string]string{"k": strings.Repeat("x", 5000)} }),
		"Component":         base(func(o *runlog.Options) { o.Components = []runlog.Component{{}} }),
		"Kinds":             base(func(o *runlog.Options) { o.Kinds = []string{""} }),
		"MaxPayload":        base(func(o *runlog.Options) { o.MaxPayload = 100 << 20 }),
		"SegmentBytes":      base(func(o *runlog.Options) { o.SegmentBytes = 5 }),
		"FirstSegmentBytes": base(func(o *runlog.Options) { o.FirstSegmentBytes = -1 }),
		"QueueBytes":        base(func(o *runlog.Options) { o.QueueBytes = -1 }),
		"QueueEntries":      base(func(o *runlog.Options) { o.QueueEntries = -1 }),
		"BatchBytes":        base(func(o *runlog.Options) { o.BatchBytes = -1 }),
		"BatchEntries":      base(func(o *runlog.Options) { o.BatchEntries = -1 }),
		"CommitDelay":       base(func(o *runlog.Options) { o.CommitDelay = -1 }),
		"Sync":              base(func(o *runlog.Options) { o.Sync = 99 }),
		"Prepare":           base(func(o *runlog.Options) { o.Prepare = runlog.PrepareNone + 1 }),
		"SyncEvery":         base(func(o *runlog.Options) { o.SyncEvery = -1 }),
		"WarnAfter":         base(func(o *runlog.Options) { o.WarnAfter = time.Hour }),
	} {
		mem := o.FS.(*vfs.Mem)
		_, err := runlog.Open(t.Context(), o)
		if !errors.Is(err, runlog.ErrInvalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: the error is %v", name, err)
		}
		if list, err := mem.ReadDir(home); err == nil && len(list) > 1 {
			t.Errorf("%s: files were made: %v", name, list)
		}
		_, err = runlog.NewImport(o)
		if !errors.Is(err, runlog.ErrInvalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: the import's error is %v", name, err)
		}
	}
}

func TestOpenOnAFileIsAnError(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, instance), nil, 0o600))
	_, err := runlog.Open(t.Context(), runlog.Options{Dir: dir, Instance: instance})
	if err == nil || !strings.Contains(err.Error(), "Dir") {
		t.Fatalf("got %v", err)
	}
}

func TestCloseReturnsWithItsContextWhileTheDiskHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		o := options(mem)
		o.WarnAfter, o.HaltAfter = off, off
		r := open(t, o)
		add(t, r, 1)
		release := hangSync(mem, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wantIs(t, r.Close(ctx), context.DeadlineExceeded)
		_, err := runlog.Open(t.Context(), o)
		wantIs(t, err, runlog.ErrLocked) // as long as the disk may still write
		release()
		closed(t, r)
		next := open(t, o)
		if p := predecessor(t, next, r.ID()); p.Status != runlog.Ended {
			t.Fatalf("predecessor %+v", p)
		}
	})
}

func TestSynchronousRunsAreTheSameForTheSameSeed(t *testing.T) {
	run := func(seed uint64) string {
		mem := newMem()
		o := options(mem)
		o.Synchronous, o.Clock = true, &ticking{}
		o.Salts = func() uint64 { seed = seed*6364136223846793005 + 1; return seed }
		r := open(t, o)
		for i := range 50 {
			_, err := r.Submit(order(i))
			must(t, err)
		}
		closed(t, r)
		rec, err := wal.OpenReader(mem, r.Dir())
		must(t, err)
		defer rec.Close()
		return r.ID() + rec.Manifest().Digest
	}
	if a, b := run(1), run(1); a != b {
		t.Fatalf("one seed, two runs: %s and %s", a, b)
	}
	if run(1) == run(2) {
		t.Fatal("the seed makes no difference")
	}
}

type ticking struct{ n int64 }

func (c *ticking) Now() int64 { c.n += 1000; return c.n }

func TestTroubleIsReportedToHooksAndLogger(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := newMem()
		o := options(mem)
		var text strings.Builder
		var mu sync.Mutex
		var warnings []runlog.Warning
		halts := make(chan *runlog.HaltError, 2)
		o.Logger = slog.New(slog.NewTextHandler(&text, nil))
		o.OnHalt = func(h *runlog.HaltError) { halts <- h }
		o.OnWarn = func(w runlog.Warning) {
			mu.Lock()
			defer mu.Unlock()
			warnings = append(warnings, w)
		}
		r := open(t, o)
		release := hangSync(mem, 1)
		must1(r.Submit(order(1)))
		r.Flush()
		h := <-halts
		release()
		wantIs(t, r.Close(t.Context()), runlog.ErrHalted)
		mu.Lock()
		defer mu.Unlock()
		if len(warnings) == 0 || h.FirstSeq != 2 || h.LastSeq != 2 || len(halts) != 0 {
			t.Fatalf("warnings %v, halt %v", warnings, h)
		}
		if s := text.String(); !strings.Contains(s, "log is behind") || !strings.Contains(s, "run halted") {
			t.Fatalf("logged\n%s", s)
		}
	})
}
