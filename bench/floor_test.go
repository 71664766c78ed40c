package bench

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog/vfs"
)

// The same bytes, moved by a bare loop: what the machine allows at this moment.

// versus adds up the time of work and of its floor, which take turns, so that a machine whose speed drifts treats both
// alike. The floor runs off the benchmark's clock.
type versus struct {
	work, floor int64
	pause       func() // after each chunk of work, off all clocks; nil: none
}

// turns does n operations of each, a chunk at a time.
func (v *versus) turns(b *testing.B, n, chunk int, work, floor func(n int)) {
	for n > 0 {
		c := min(n, chunk)
		before := clock()
		floor(c)
		v.floor += clock() - before
		b.StartTimer()
		before = clock()
		work(c)
		v.work += clock() - before
		b.StopTimer()
		if v.pause != nil {
			v.pause()
		}
		n -= c
	}
}

// report says how often the floor's time an operation takes: 1 is the floor, less is better.
func (v *versus) report(b *testing.B) {
	if v.floor > 0 {
		b.ReportMetric(float64(v.work)/float64(v.floor), "x_floor")
	}
}

// beside measures the whole of a benchmark, all allocations counted, in turns with its floor.
func beside(b *testing.B, chunk int, work, floor func(n int)) {
	var v versus
	b.ReportAllocs()
	b.StopTimer()
	b.ResetTimer()
	v.turns(b, b.N, chunk, work, floor)
	v.report(b)
}

// frameBytes is what an entry without keys takes on disk beside its payload, about.
const frameBytes = 24

const floorFileBytes = 256 << 20

// zeroed returns a file of zeros that are on the disk, so that writing to it changes no metadata. All floors share it.
func zeroed(b *testing.B) vfs.File {
	fixtures.mu.Lock()
	defer fixtures.mu.Unlock()
	if fixtures.floor != nil {
		return fixtures.floor
	}
	f, err := vfs.OS.Create(filepath.Join(fixtures.dir, "floor"))
	check(b, err)
	zeros := make([]byte, 1<<20)
	for off := int64(0); off < floorFileBytes; off += int64(len(zeros)) {
		_, err := f.WriteAt(zeros, off)
		check(b, err)
	}
	check(b, f.Datasync())
	fixtures.floor = f
	return f
}

// floorBuffer appends to a buffer under a lock and reads the clock.
type floorBuffer struct {
	mu  sync.Mutex
	buf []byte
	at  int64
}

func (f *floorBuffer) add(payload []byte) {
	f.mu.Lock()
	f.at = max(clock(), f.at+1)
	if len(f.buf)+len(payload) > cap(f.buf) {
		f.buf = f.buf[:0]
	}
	f.buf = append(f.buf, payload...)
	f.mu.Unlock()
}

func newFloorBuffer() *floorBuffer { return &floorBuffer{buf: make([]byte, 0, 4<<20)} }

// BenchmarkFloorBuffer is the least that a submit can do.
func BenchmarkFloorBuffer(b *testing.B) {
	f, payload := newFloorBuffer(), make([]byte, payloadBytes)
	b.ReportAllocs()
	for b.Loop() {
		f.add(payload)
	}
}

// BenchmarkFloorAppend writes and syncs so many entries at once; ns/op and entries/s are per entry, percentiles per
// write.
func BenchmarkFloorAppend(b *testing.B) {
	for _, entries := range []int{1, 16, 128} {
		b.Run(fmt.Sprintf("entries=%d", entries), func(b *testing.B) {
			f, h := zeroed(b), &histogram{}
			buf := make([]byte, entries*(payloadBytes+frameBytes))
			b.ReportAllocs()
			b.ResetTimer()
			off := int64(0)
			for left := b.N; left > 0; left -= entries {
				before := clock()
				writeSync(b, f, buf, &off)
				h.add(clock() - before)
			}
			b.StopTimer()
			h.report(b)
			perSecond(b, (b.N+entries-1)/entries*entries, "entries")
		})
	}
}

// floorGroup is the least group commit: a buffer that fills while the one before is synced, one write, one sync, one
// wake-up for all in it. Whoever comes first in a batch commits it.
type floorGroup struct {
	b     *testing.B
	f     vfs.File
	off   int64
	frame []byte

	mu    sync.Mutex
	batch *floorBatch
}

type floorBatch struct {
	buf          []byte
	before, done chan struct{}
}

func newFloorGroup(b *testing.B, size int) *floorGroup {
	before := make(chan struct{})
	close(before)
	return &floorGroup{b: b, f: zeroed(b), frame: make([]byte, size+frameBytes), batch: &floorBatch{before: before}}
}

func (g *floorGroup) append() {
	g.mu.Lock()
	batch := g.batch
	leads := batch.done == nil
	if leads {
		batch.done = make(chan struct{})
	}
	batch.buf = append(batch.buf, g.frame...)
	g.mu.Unlock()
	if !leads {
		<-batch.done
		return
	}
	<-batch.before
	g.mu.Lock()
	g.batch = &floorBatch{before: batch.done, buf: make([]byte, 0, cap(batch.buf))}
	g.mu.Unlock()
	writeSync(g.b, g.f, batch.buf, &g.off)
	close(batch.done)
}

func writeSync(b *testing.B, f vfs.File, buf []byte, off *int64) {
	if *off+int64(len(buf)) > floorFileBytes {
		*off = 0
	}
	if _, err := f.WriteAt(buf, *off); err != nil {
		b.Error(err)
	}
	if err := f.Datasync(); err != nil {
		b.Error(err)
	}
	*off += int64(len(buf))
}

// floorStream copies entries into batches, and writes and syncs each.
type floorStream struct {
	b          *testing.B
	f          vfs.File
	off        int64
	frame, buf []byte
	batch      int // bytes
}

func newFloorStream(b *testing.B, size, batch int) *floorStream {
	return &floorStream{b: b, f: zeroed(b), frame: make([]byte, size+frameBytes), buf: make([]byte, 0, batch+size+frameBytes), batch: batch}
}

// run appends n entries, all of them durable when it returns.
func (s *floorStream) run(n int) {
	for range n {
		if s.buf = append(s.buf, s.frame...); len(s.buf) >= s.batch {
			s.sync()
		}
	}
	if len(s.buf) > 0 {
		s.sync()
	}
}

func (s *floorStream) sync() {
	writeSync(s.b, s.f, s.buf, &s.off)
	s.buf = s.buf[:0]
}

// floorBatchBytes is that of a thousand entries, as long as that is no more than a few MiB.
func floorBatchBytes(size int) int { return min(1000*(size+frameBytes), 4<<20) }

// BenchmarkFloorStream writes batches of a thousand entries, and of about a MiB, as runlog's are.
func BenchmarkFloorStream(b *testing.B) {
	for _, size := range []int{16, payloadBytes, 4096, 65536} {
		for _, batch := range []int{floorBatchBytes(size), 1 << 20} {
			b.Run(fmt.Sprintf("size=%d/batch=%dKiB", size, batch>>10), func(b *testing.B) {
				s := newFloorStream(b, size, batch)
				b.ReportAllocs()
				b.SetBytes(int64(size))
				b.ResetTimer()
				s.run(b.N)
				b.StopTimer()
				perSecond(b, b.N, "entries")
			})
		}
	}
}

// mapSegments maps the segments of the run that BenchmarkScan and BenchmarkGet read.
func mapSegments(b *testing.B, f *fixture) (parts [][]byte, total int64) {
	names, err := filepath.Glob(filepath.Join(f.dir, "*.seg"))
	check(b, err)
	for _, name := range names {
		file, err := vfs.OS.OpenRead(name)
		check(b, err)
		size, err := file.Size()
		check(b, err)
		m, err := file.Map(size)
		check(b, err)
		check(b, file.Close())
		b.Cleanup(func() { _ = m.Close() })
		parts = append(parts, m.Bytes())
		total += size
	}
	return parts, total
}

// floorScan hashes mapped segments with XXH64, a MiB at a time, and goes on where it stopped.
type floorScan struct {
	parts      [][]byte
	entryBytes int64
	rest       []byte
	next       int
	sum        uint64
}

func newFloorScan(b *testing.B, f *fixture) *floorScan {
	parts, total := mapSegments(b, f)
	return &floorScan{parts: parts, entryBytes: total / int64(f.entries)}
}

// run hashes as many bytes as so many entries have.
func (s *floorScan) run(entries int) {
	for left := int64(entries) * s.entryBytes; left > 0; {
		if len(s.rest) == 0 {
			s.rest, s.next = s.parts[s.next%len(s.parts)], s.next+1
		}
		n := min(int64(len(s.rest)), 1<<20, left)
		s.sum ^= xxhash.Sum64(s.rest[:n])
		s.rest, left = s.rest[n:], left-n
	}
}

// BenchmarkFloorScan is a scan that looks at nothing; ns/op is per entry.
func BenchmarkFloorScan(b *testing.B) {
	s := newFloorScan(b, sealed(b, 1_000_000, 0))
	b.ReportAllocs()
	b.SetBytes(payloadBytes)
	b.ResetTimer()
	s.run(b.N)
	perSecond(b, b.N, "entries")
}

// floorGet copies an entry's bytes from a random place of mapped segments and hashes the copy.
type floorGet struct {
	parts [][]byte
	total uint64
	buf   []byte
	rng   *rand.Rand
	sum   uint64
}

func newFloorGet(b *testing.B, f *fixture) *floorGet {
	parts, total := mapSegments(b, f)
	return &floorGet{parts: parts, total: uint64(total), buf: make([]byte, total/int64(f.entries)&^7), rng: random()}
}

func (g *floorGet) run(n int) {
	for range n {
		at := int64(g.rng.Uint64N(g.total))
		for _, p := range g.parts {
			if at < int64(len(p)) {
				copy(g.buf, p[min(at&^7, int64(len(p)-len(g.buf))):])
				break
			}
			at -= int64(len(p))
		}
		g.sum ^= xxhash.Sum64(g.buf)
	}
}

func BenchmarkFloorGet(b *testing.B) {
	g := newFloorGet(b, sealed(b, 1_000_000, 0))
	b.ReportAllocs()
	b.ResetTimer()
	g.run(b.N)
}

// floorTable is open addressing without pointers: an id's hash, and the seq that it leads to.
type floorTable struct {
	slots []struct{ hash, seq uint64 }
	found uint64
}

// newFloorTable has the venue ids of a fixture's orders.
func newFloorTable(f *fixture) *floorTable {
	size := 1024
	for size < 2*int(f.orders()) {
		size *= 2
	}
	t := &floorTable{slots: make([]struct{ hash, seq uint64 }, size)}
	for order := range f.orders() {
		h := xxhash.Sum64(appendVenueID(nil, order))
		*t.slot(h) = struct{ hash, seq uint64 }{h, 3*order + 3}
	}
	return t
}

func (t *floorTable) slot(hash uint64) *struct{ hash, seq uint64 } {
	for i := hash; ; i++ {
		if s := &t.slots[i&uint64(len(t.slots)-1)]; s.seq == 0 || s.hash == hash {
			return s
		}
	}
}

func (t *floorTable) run(list []string, n int) {
	for i := range n {
		t.found += t.slot(xxhash.Sum64String(list[i%len(list)])).seq
	}
}
