package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/examples/exchange/engine"
	orderflow "github.com/runlog-io/runlog/examples/exchange/flow"
	"github.com/runlog-io/runlog/segment/compressed"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// What does compressing sealed segments save, and what does it cost, then and when they are read? The runs hold realistic
// orders in two dresses: the exchange's own entries, which are packed tightly and carry two or three ids each, and the same flow as
// FIX messages. Ratios are of the plain segments' bytes to the compressed ones', indexes not counted.

// binaryOrders are the exchange's entries.
func binaryOrders(tb testing.TB, run *runlog.Run, orders int) {
	tb.Helper()
	e := engine.New(1)
	check(tb, e.Start(run, 1, func(engine.Message) {}, nil))
	g := orderflow.NewGenerator(1, uint64(orders))
	for c, ok := g.Next(); ok; c, ok = g.Next() {
		check(tb, e.Handle(context.Background(), c))
	}
}

// fixOrders are the commands of the flow and their confirmations as FIX messages.
func fixOrders(tb testing.TB, run *runlog.Run, orders int) {
	tb.Helper()
	rng := rand.New(rand.NewPCG(1, 7))
	g := orderflow.NewGenerator(1, uint64(orders))
	var payload []byte
	submit := func(typ string, id, order uint64, at int64, text string, args ...any) {
		payload = fmt.Appendf(payload[:0], text, args...)
		payload = fmt.Appendf(payload, "10=%03d|", at%256)
		_, err := run.Submit(runlog.Draft{
			Topic: "fix.session-7", Type: typ, TsInit: at, Payload: payload, ID: runlog.ID{1, byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id)},
			Keys: []runlog.Key{{Kind: runlog.ClientOrderID, Value: fmt.Sprintf("DESK4-%010d", order)}},
		})
		check(tb, err)
	}
	for c, ok := g.Next(); ok; c, ok = g.Next() {
		submit("35=D", 2*c.N, c.Order, c.At, "8=FIX.4.4|9=%d|35=D|49=CLIENT12|56=EXCH|34=%d|52=%d|11=DESK4-%010d|1=ACC-%04d|55=NQH4|54=%d|38=%d|40=2|44=%d.%02d|59=0|60=%d|",
			180+c.N%9, c.N, c.At, c.Order, c.Order%37, 1+c.Side, c.Qty, c.Price/4, c.Price%4*25, c.At)
		submit("35=8", 2*c.N+1, c.Order, c.At, "8=FIX.4.4|9=%d|35=8|49=EXCH|56=CLIENT12|34=%d|52=%d|37=%d|11=DESK4-%010d|17=%016x|150=%d|39=%d|55=NQH4|54=%d|151=%d|14=0|6=0|60=%d|",
			190+c.N%7, c.N, c.At+40_000, 6_412_000_000_000+c.Order, c.Order, rng.Uint64(), c.Action, c.Action, 1+c.Side, c.Qty, c.At+40_000)
	}
}

var dresses = []struct {
	name   string
	fill   func(testing.TB, *runlog.Run, int)
	orders int
}{{"binary", binaryOrders, 150_000}, {"fix", fixOrders, 60_000}}

// packings are the ways to compress that are compared.
var packings = []wal.Compression{
	{}, {Codec: wal.S2, Level: 1}, {Codec: wal.S2, Level: 2}, {Codec: wal.Zstd, Level: 1}, {Codec: wal.Zstd, Level: 2},
}

func nameOf(c wal.Compression) string {
	if c.Codec == wal.NoCodec {
		return "plain"
	}
	block := c.BlockBytes
	if block == 0 {
		block = compressed.DefaultBlock
	}
	return fmt.Sprintf("%v-%d/block=%dK", c.Codec, max(c.Level, 1), block>>10)
}

// orderRuns are the plain runs, made when first asked for.
var orderRuns struct {
	mu   sync.Mutex
	dirs map[string]string
}

// orderRun returns the folder of a finished run with orders in this dress, compressed or not.
func orderRun(tb testing.TB, dress int, c wal.Compression) string {
	tb.Helper()
	orderRuns.mu.Lock()
	defer orderRuns.mu.Unlock()
	d := dresses[dress]
	key := d.name + "/" + nameOf(c)
	if dir := orderRuns.dirs[key]; dir != "" {
		return dir
	}
	if orderRuns.dirs == nil {
		orderRuns.dirs = map[string]string{}
	}
	plain := orderRuns.dirs[d.name+"/plain"]
	if plain == "" {
		run := open(tb, runlog.Options{Dir: filepath.Join(fixtures.dir, "orders-"+d.name), SegmentBytes: 16 << 20, FirstSegmentBytes: 16 << 20})
		d.fill(tb, run, d.orders)
		closeRun(tb, run)
		plain = run.Dir()
		orderRuns.dirs[d.name+"/plain"] = plain
	}
	dir := plain
	if c.Codec != wal.NoCodec {
		dir = filepath.Join(fixtures.dir, "orders", key, filepath.Base(plain))
		check(tb, os.CopyFS(dir, os.DirFS(plain)))
		squeeze(tb, dir, c)
	}
	orderRuns.dirs[key] = dir
	return dir
}

func squeeze(tb testing.TB, dir string, c wal.Compression) (plain, disk int64) {
	tb.Helper()
	forms, err := wal.Compress(context.Background(), vfs.OS, dir, wal.CompressOptions{Compression: c})
	check(tb, err)
	for _, f := range forms {
		plain, disk = plain+f.PlainBytes, disk+f.DiskBytes
	}
	return plain, disk
}

// BenchmarkCompress is a whole pass over a run: read, compress, write, sync, read back, compare. MB/s are of plain bytes.
func BenchmarkCompress(b *testing.B) {
	for dress := range dresses {
		for _, c := range packings[1:] {
			for _, block := range []int{16 << 10, 32 << 10, 64 << 10, 256 << 10} {
				c.BlockBytes = block
				b.Run(dresses[dress].name+"/"+nameOf(c), func(b *testing.B) {
					from := orderRun(b, dress, wal.Compression{})
					var plain, disk int64
					for range b.N {
						b.StopTimer()
						dir := filepath.Join(b.TempDir(), filepath.Base(from))
						check(b, os.CopyFS(dir, os.DirFS(from)))
						b.StartTimer()
						plain, disk = squeeze(b, dir, c)
						b.StopTimer()
						check(b, os.RemoveAll(dir))
					}
					b.SetBytes(plain)
					b.ReportMetric(float64(plain)/float64(disk), "ratio")
				})
			}
		}
	}
}

// orderReader opens a run and returns the number of its entries.
func orderReader(b *testing.B, dress int, c wal.Compression) (*runlog.Reader, uint64) {
	b.Helper()
	r, err := runlog.OpenReader(orderRun(b, dress, c), runlog.ReaderOptions{})
	check(b, err)
	b.Cleanup(func() { _ = r.Close() })
	return r, r.LastSeq()
}

// reading is a way to read: it returns what reads n entries.
type reading struct {
	name  string
	chunk int // entries that are read in turn
	start func(tb testing.TB, r *runlog.Reader, last uint64) func(n int)
}

// readings are gets anywhere, so that a block is decompressed for nearly each; gets near each other, as of the entries of one order;
// and scans.
var readings = []reading{
	{"get/random", 200, gets(func(rng *rand.Rand, last uint64) uint64 { return 1 + rng.Uint64N(last) })},
	{"get/near", 10_000, gets(func(rng *rand.Rand, last uint64) uint64 { return last/2 + rng.Uint64N(200) })},
	{"scan/forward", 100_000, scans(false)},
	{"scan/backward", 100_000, scans(true)},
}

func gets(seq func(rng *rand.Rand, last uint64) uint64) func(testing.TB, *runlog.Reader, uint64) func(int) {
	return func(tb testing.TB, r *runlog.Reader, last uint64) func(n int) {
		rng := random()
		var buf runlog.Buffer
		return func(n int) {
			for range n {
				_, err := r.Get(seq(rng, last), &buf)
				check(tb, err)
			}
		}
	}
}

func scans(reverse bool) func(testing.TB, *runlog.Reader, uint64) func(int) {
	return func(tb testing.TB, r *runlog.Reader, _ uint64) func(n int) {
		return func(n int) {
			for n > 0 {
				for _, err := range r.Scan(runlog.ScanOptions{Reverse: reverse}) {
					check(tb, err)
					if n--; n == 0 {
						return
					}
				}
			}
		}
	}
}

// BenchmarkCompressedRead measures each way to read a compressed run in turns with the same on the plain one: x_floor is how
// often the plain one's time it takes. On Linux cpu_x_plain is the same of the reading thread's processor time, which other work on
// the machine disturbs less. ns/op is per entry.
func BenchmarkCompressedRead(b *testing.B) {
	for _, how := range readings {
		for dress := range dresses {
			for _, codec := range []wal.Codec{wal.S2, wal.Zstd} {
				for _, block := range []int{16 << 10, 32 << 10, 64 << 10} {
					c := wal.Compression{Codec: codec, BlockBytes: block}
					b.Run(how.name+"/"+dresses[dress].name+"/"+nameOf(c), func(b *testing.B) {
						plain, _ := orderReader(b, dress, wal.Compression{})
						r, last := orderReader(b, dress, c)
						cpu := newCPUTurns(how.start(b, r, last), how.start(b, plain, last))
						beside(b, how.chunk, cpu.work, cpu.floor)
						cpu.report(b)
					})
				}
			}
		}
	}
}

// cpuTurns adds up the processor time of work and floor.
type cpuTurns struct {
	do    [2]func(n int)
	spent [2]int64
}

func newCPUTurns(work, floor func(n int)) *cpuTurns {
	return &cpuTurns{do: [2]func(n int){work, floor}}
}

func (c *cpuTurns) turn(i, n int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := threadCPU()
	c.do[i](n)
	c.spent[i] += threadCPU() - before
}

func (c *cpuTurns) work(n int)  { c.turn(0, n) }
func (c *cpuTurns) floor(n int) { c.turn(1, n) }

func (c *cpuTurns) report(b *testing.B) {
	if c.spent[1] > 0 {
		b.ReportMetric(float64(c.spent[0])/float64(c.spent[1]), "cpu_x_plain")
		b.ReportMetric(float64(c.spent[0])/float64(b.N), "cpu-ns/op")
	}
}

func TestWarmGetsOfCompressedSegmentsDoNotAllocate(t *testing.T) {
	r, err := runlog.OpenReader(orderRun(t, 1, wal.Compression{Codec: wal.S2}), runlog.ReaderOptions{})
	check(t, err)
	defer r.Close()
	var buf runlog.Buffer
	read := func() {
		for seq := uint64(5000); seq < 5100; seq++ {
			if _, err := r.Get(seq, &buf); err != nil {
				t.Fatal(err)
			}
		}
	}
	read()
	if n := testing.AllocsPerRun(10, read); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
