package bench

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io/fs"
	"math/bits"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/vfs"
)

var large = flag.Bool("large", false, "runs of up to 4 M entries instead of 1 M, and one of 40 M that is opened after a crash: needs 12 GB")

const (
	payloadBytes = 256
	hotEvery     = 1000 // one entry in so many carries hotKind=hotValue and the rare topic
	hotKind      = "account"
	hotValue     = "house"
	rareTopic    = "risk.checks"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if dir := os.Getenv(followEnv); dir != "" {
		followAlone(dir)
	}
	if dir := os.Getenv("BENCH_DIR"); dir != "" {
		_ = os.Setenv("TMPDIR", dir) // what TempDir follows
	}
	dir, err := os.MkdirTemp("", "runlog-bench-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	fixtures.dir = dir
	code := m.Run()
	closeFixtures()
	os.Exit(code)
}

// entryLimit is the most entries that one run holds.
func entryLimit() int {
	if *large {
		return 4_000_000
	}
	return 1_000_000
}

// runLimit is the most entries of a size that one run holds: no more than 512 MiB of them, or 2 GiB with -large.
func runLimit(size int) int { return min(entryLimit(), entryLimit()*512/(size+1)) }

func check(tb testing.TB, err error) {
	if err != nil {
		tb.Helper()
		tb.Fatal(err)
	}
}

// open starts a run in o.Dir, or in a folder of the test's own.
func open(tb testing.TB, o runlog.Options) *runlog.Run {
	tb.Helper()
	if o.Dir == "" {
		o.Dir = tb.TempDir()
	}
	o.Instance = "bench"
	o.Kinds = []string{hotKind}
	o.WarnAfter, o.HaltAfter = -1, -1
	run, err := runlog.Open(context.Background(), o)
	check(tb, err)
	return run
}

func closeRun(tb testing.TB, run *runlog.Run) {
	tb.Helper()
	check(tb, run.Close(context.Background()))
}

// waitAll waits until everything submitted is durable.
func waitAll(tb testing.TB, run *runlog.Run) {
	tb.Helper()
	check(tb, run.WaitDurable(context.Background(), run.Accepted()))
}

// warm submits enough that the run's buffers have grown, and waits.
func warm(tb testing.TB, run *runlog.Run) {
	tb.Helper()
	f := newFlow(payloadBytes, true)
	for range 4 {
		for range 8192 {
			_, err := run.Submit(f.next())
			check(tb, err)
		}
		waitAll(tb, run)
	}
}

// inRuns calls f with fresh runs and parts of b.N, each at most limit, with the clock stopped. Afterwards it reports
// what the runs took on disk.
func inRuns(b *testing.B, o runlog.Options, limit int, f func(run *runlog.Run, n int)) {
	b.Helper()
	b.ReportAllocs()
	b.StopTimer()
	b.ResetTimer()
	for left := b.N; left > 0; {
		n := min(left, limit)
		run := open(b, o)
		f(run, n)
		b.StopTimer()
		closeRun(b, run)
		check(b, os.RemoveAll(filepath.Dir(run.Dir())))
		left -= n
	}
}

// flow makes drafts like an engine's: three entries an order, with four order ids in them. All memory is used again with
// each draft.
type flow struct {
	payload []byte
	keyed   bool
	n       uint64 // drafts made
	began   int64  // wall time
	keys    [3]runlog.Key
	text    [2][32]byte
}

func newFlow(size int, keyed bool) *flow {
	f := &flow{payload: make([]byte, size), keyed: keyed, began: time.Now().UnixNano()}
	rng := rand.New(rand.NewPCG(1, uint64(size)))
	for i := range f.payload {
		f.payload[i] = byte(rng.Uint32())
	}
	return f
}

var routes = [3][2]string{{"orders.commands", "NewOrder"}, {"orders.events", "OrderAccepted"}, {"orders.events", "OrderFilled"}}

func appendClientID(dst []byte, order uint64) []byte {
	return strconv.AppendUint(append(dst, "CL-"...), 1e9+order, 10)
}

func appendVenueID(dst []byte, order uint64) []byte {
	return strconv.AppendUint(dst, 6_412_000_000_000+order, 10)
}

// next returns a draft that is valid until the next one.
func (f *flow) next() runlog.Draft {
	i := f.n
	f.n++
	if len(f.payload) >= 8 {
		binary.LittleEndian.PutUint64(f.payload, i)
	}
	r := &routes[i%3]
	d := runlog.Draft{Topic: r[0], Type: r[1], Payload: f.payload, TsInit: f.began + int64(i)*200}
	if !f.keyed {
		return d
	}
	keys := f.keys[:0]
	if i%3 != 2 {
		keys = append(keys, runlog.Key{Kind: runlog.ClientOrderID, Value: str(appendClientID(f.text[0][:0], i/3))})
	}
	if i%3 != 0 {
		keys = append(keys, runlog.Key{Kind: runlog.VenueOrderID, Value: str(appendVenueID(f.text[1][:0], i/3))})
	}
	if i%hotEvery == 0 {
		keys = append(keys, runlog.Key{Kind: hotKind, Value: hotValue})
		d.Topic = rareTopic
	}
	d.Keys = keys
	return d
}

func str(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// clock is the time since the process began, in ns: one reading of the monotonic clock.
func clock() int64 { return int64(time.Since(began)) }

var began = time.Now()

// histogram counts durations with an error below 2 %.
type histogram struct {
	counts [58 * subBuckets]uint64
	n      uint64
	max    int64
}

const subBuckets = 64

func bucketOf(v uint64) int {
	if v < subBuckets {
		return int(v)
	}
	e := bits.Len64(v) - 7 // v>>e is in subBuckets .. 2*subBuckets-1
	return e*subBuckets + int(v>>e)
}

func (h *histogram) add(ns int64) {
	v := max(ns, 0)
	h.counts[bucketOf(uint64(v))]++
	h.n++
	h.max = max(h.max, v)
}

func (h *histogram) merge(o *histogram) {
	for i, c := range o.counts {
		h.counts[i] += c
	}
	h.n += o.n
	h.max = max(h.max, o.max)
}

// quantile returns the duration, in ns, that a share q of all does not exceed.
func (h *histogram) quantile(q float64) float64 {
	rank, seen := uint64(q*float64(h.n)), uint64(0)
	for i, c := range h.counts {
		if seen += c; seen > rank {
			if i < subBuckets {
				return float64(i)
			}
			e := i/subBuckets - 1
			return min(float64((uint64(i)-uint64(e)*subBuckets+1)<<e-1), float64(h.max))
		}
	}
	return float64(h.max)
}

func (h *histogram) report(b *testing.B) {
	b.ReportMetric(h.quantile(0.50), "p50-ns")
	b.ReportMetric(h.quantile(0.99), "p99-ns")
	b.ReportMetric(h.quantile(0.999), "p99.9-ns")
	b.ReportMetric(float64(h.max), "max-ns")
}

// perSecond reports a rate.
func perSecond(b *testing.B, n int, unit string) {
	if s := b.Elapsed().Seconds(); s > 0 {
		b.ReportMetric(float64(n)/s, unit+"/s")
	}
}

// diskUse adds up what runs take, by kind of file.
type diskUse struct{ segments, indexes int64 }

func (u *diskUse) add(tb testing.TB, dir string) {
	check(tb, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		switch ext := filepath.Ext(path); {
		case ext == ".seg", ext == ".segz":
			u.segments += info.Size()
		case !strings.Contains(filepath.Base(path), "manifest"):
			u.indexes += info.Size()
		}
		return nil
	}))
}

// fixture is a finished run that benchmarks share.
type fixture struct {
	dir      string
	reader   *runlog.Reader
	entries  uint64 // of the flow; their seqs begin at 2, behind RunStarted
	segments int
	use      diskUse
}

// orders is the number of orders that have all their entries.
func (f *fixture) orders() uint64 { return f.entries / 3 }

// seq returns a seq of the flow for any number.
func (f *fixture) seq(n uint64) uint64 { return 2 + n%f.entries }

var fixtures struct {
	dir   string
	mu    sync.Mutex
	all   map[string]*fixture
	floor vfs.File // see zeroed
}

func closeFixtures() {
	for _, f := range fixtures.all {
		_ = f.reader.Close()
	}
	if fixtures.floor != nil {
		_ = fixtures.floor.Close()
	}
	_ = os.RemoveAll(fixtures.dir)
}

// sealed returns a finished run of the order flow, made when first asked for. segmentBytes 0 leaves sizes to the
// defaults.
func sealed(tb testing.TB, entries int, segmentBytes int64) *fixture {
	tb.Helper()
	fixtures.mu.Lock()
	defer fixtures.mu.Unlock()
	key := fmt.Sprintf("%d-%d", entries, segmentBytes)
	if f := fixtures.all[key]; f != nil {
		return f
	}
	o := runlog.Options{Dir: filepath.Join(fixtures.dir, key), SegmentBytes: segmentBytes, FirstSegmentBytes: segmentBytes}
	check(tb, os.MkdirAll(o.Dir, 0o755))
	run := open(tb, o)
	fill(tb, run, entries)
	closeRun(tb, run)
	f := &fixture{dir: run.Dir(), entries: uint64(entries)}
	var err error
	f.reader, err = runlog.OpenReader(f.dir, runlog.ReaderOptions{})
	check(tb, err)
	names, err := filepath.Glob(filepath.Join(f.dir, "*.seg"))
	check(tb, err)
	f.segments = len(names)
	f.use.add(tb, f.dir)
	if fixtures.all == nil {
		fixtures.all = make(map[string]*fixture)
	}
	fixtures.all[key] = f
	return f
}

// fill submits entries of the order flow and waits for them.
func fill(tb testing.TB, run *runlog.Run, entries int) {
	tb.Helper()
	flow := newFlow(payloadBytes, true)
	for range entries {
		_, err := run.Submit(flow.next())
		check(tb, err)
	}
	waitAll(tb, run)
}

// random returns a generator that gives the same numbers in each run.
func random() *rand.Rand { return rand.New(rand.NewPCG(20261123, 8)) }
