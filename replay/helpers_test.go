package replay_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strings"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/anchor"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/replay"
	"github.com/runlog-io/runlog/vfs"
)

const (
	instance = "engine-1"
	home     = "/base/" + instance
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantIs(t testing.TB, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Fatalf("got %v, want %v", err, target)
		}
	}
}

// ledger is an engine: accounts with balances.
type ledger struct {
	*replay.Registry
	balances map[string]int
	n        uint64 // entries applied
	bug      uint64 // from its nth entry on, it is off by one; 0: never

	run      string
	runs     []string
	restores []uint64 // what the restored snapshots covered; 0 for a reset
	failing  error    // of Restore
}

type move struct {
	account string
	amount  int
}

var errUnknown = errors.New("unknown account")

func newLedger() *ledger {
	l := &ledger{Registry: replay.NewRegistry(), balances: map[string]int{}}
	decode := func(v *entry.View) (m move, err error) {
		_, err = fmt.Sscanf(string(v.Payload()), "%s %d", &m.account, &m.amount)
		return m, err
	}
	count := func(err error) error {
		if err == nil {
			if l.n++; l.n == l.bug {
				l.balances["bug"]++
			}
		}
		return err
	}
	err := errors.Join(
		replay.On(l.Registry, "Open", decode, func(m move) error { l.balances[m.account] = m.amount; return count(nil) }),
		replay.On(l.Registry, "Pay", decode, func(m move) error {
			if _, ok := l.balances[m.account]; !ok {
				return count(errUnknown)
			}
			l.balances[m.account] += m.amount
			return count(nil)
		}),
		replay.On(l.Registry, "Note", decode, func(m move) error {
			if _, ok := l.balances[m.account]; !ok {
				return replay.ErrIgnored
			}
			return count(nil)
		}),
		l.ForensicOnly("Log"),
	)
	if err != nil {
		panic(err)
	}
	return l
}

func (l *ledger) BeginRun(run string) error { l.run = run; l.runs = append(l.runs, run); return nil }

func (l *ledger) Reset(context.Context) error {
	l.balances, l.n = map[string]int{}, 0
	l.restores = append(l.restores, 0)
	return nil
}

type image struct {
	Balances map[string]int
	N        uint64
}

func (l *ledger) Restore(_ context.Context, a anchor.Anchor, r io.Reader) error {
	var in image
	if err := json.NewDecoder(r).Decode(&in); err != nil {
		return err
	}
	l.balances, l.n = in.Balances, in.N
	l.restores = append(l.restores, a.Covers)
	return l.failing
}

func (l *ledger) snapshot() []byte {
	b, _ := json.Marshal(image{l.balances, l.n}) // never fails
	return b
}

func (l *ledger) AppendStateHash(dst []byte) ([]byte, error) {
	h := sha256.Sum256(l.snapshot())
	return append(dst, h[:8]...), nil
}

// world is a disk and a live engine on it.
type world struct {
	t     testing.TB
	mem   *vfs.Mem
	store *anchor.DirStore
	run   *runlog.Run
	live  *ledger
	ids   []string
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, live: newLedger()}
	w.on(vfs.NewMem(vfs.MemOptions{}))
	return w
}

func (w *world) on(mem *vfs.Mem) {
	w.mem = mem
	var err error
	w.store, err = anchor.NewDirStore(mem, home+"/snapshots", nil)
	must(w.t, err)
	w.boot()
}

func (w *world) options() runlog.Options {
	return runlog.Options{Dir: "/base", Instance: instance, FS: w.mem, Synchronous: true, FirstSegmentBytes: 64 << 10, SegmentBytes: 64 << 10}
}

func (w *world) boot() {
	r, err := runlog.Open(w.t.Context(), w.options())
	must(w.t, err)
	w.run = r
	w.ids = append(w.ids, r.ID())
	w.t.Cleanup(func() { _ = r.Close(context.Background()) })
}

// kill ends the process and starts the next.
func (w *world) kill() { w.on(w.mem.Kill()) }

// put logs an entry, and the live engine handles it.
func (w *world) put(typ, payload string) uint64 {
	w.t.Helper()
	account, _, _ := strings.Cut(payload, " ")
	d := runlog.Draft{Topic: "ledger", Type: typ, Payload: []byte(payload), TsInit: int64(100 + w.run.Accepted()),
		Keys: []runlog.Key{{Kind: runlog.ClientOrderID, Value: account}}, CorrelationID: runlog.ID{byte(len(account))}}
	seq, err := w.run.Submit(d)
	must(w.t, err)
	v, err := w.run.Get(seq, nil)
	must(w.t, err)
	_, _ = w.live.Apply(&v)
	return seq
}

// pay logs n payments.
func (w *world) pay(n int) {
	if len(w.live.balances) == 0 {
		w.put("Open", "alice 100")
		n--
	}
	for i := range n {
		w.put("Pay", fmt.Sprint("alice ", i+1))
	}
}

func (w *world) anchor() runlog.Anchor {
	w.t.Helper()
	a, err := w.run.Anchor(w.t.Context(), w.run.Accepted(), w.store, bytes.NewReader(w.live.snapshot()))
	must(w.t, err)
	return a
}

func (w *world) hash() uint64 {
	h, _ := w.live.AppendStateHash(nil)
	must(w.t, w.run.StateHash(w.run.Accepted(), h))
	return w.run.Accepted()
}

func (w *world) parents() []*runlog.Reader {
	w.t.Helper()
	chain, err := w.run.Parents()
	must(w.t, err)
	return chain
}

// restore replays the parents of the running run into a new engine.
func (w *world) restore(o replay.Options) (*ledger, *replay.Report, error) {
	w.t.Helper()
	l := newLedger()
	if o.Store == nil {
		o.Store = w.store
	}
	rep, err := replay.Restore(w.t.Context(), w.parents(), l, o)
	var ignored uint64
	for _, n := range rep.Ignored {
		ignored += n
	}
	if sum := rep.Applied + rep.Lifecycle + rep.Filtered + rep.Failed + ignored; sum != rep.Entries {
		w.t.Fatalf("%d entries were read, and %d are accounted for: %+v", rep.Entries, sum, rep)
	}
	return l, rep, err
}

func (w *world) wantSame(l *ledger) {
	w.t.Helper()
	if got, want := string(l.snapshot()), string(w.live.snapshot()); got != want {
		w.t.Fatalf("the replayed state is %s, the live one was %s", got, want)
	}
}

// flip changes a blob's first byte.
func (w *world) flip(ref string) {
	w.t.Helper()
	f, err := w.mem.Open(home + "/snapshots/" + ref)
	must(w.t, err)
	_, err = f.WriteAt([]byte("!"), 0)
	must(w.t, cmp.Or(err, f.Datasync(), f.Close()))
}

// mapStore is a store that is no folder.
type mapStore map[string][]byte

func (m mapStore) Put(_ context.Context, r io.Reader) (anchor.Blob, error) {
	b, err := io.ReadAll(r)
	ref := fmt.Sprint("row ", len(m))
	m[ref] = b
	return anchor.Blob{Ref: ref, Size: int64(len(b)), SHA256: sha256.Sum256(b)}, err
}

func (m mapStore) Open(_ context.Context, ref string) (io.ReadCloser, error) {
	b, ok := m[ref]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (m mapStore) Delete(_ context.Context, ref string) error { delete(m, ref); return nil }

func (m mapStore) List(context.Context) iter.Seq2[anchor.Blob, error] {
	return func(func(anchor.Blob, error) bool) {}
}
