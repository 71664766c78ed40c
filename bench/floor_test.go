package bench

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog/vfs"
)

// The same bytes, moved by a bare loop: what the machine allows at this moment.

// frameBytes is what an entry without keys takes on disk beside its payload, about.
const frameBytes = 24

const floorFileBytes = 256 << 20

// zeroed returns a file of zeros that are on the disk, so that writing to it changes no metadata.
func zeroed(b *testing.B) vfs.File {
	f, err := vfs.OS.Create(filepath.Join(b.TempDir(), "floor"))
	check(b, err)
	b.Cleanup(func() { _ = f.Close() })
	zeros := make([]byte, 1<<20)
	for off := int64(0); off < floorFileBytes; off += int64(len(zeros)) {
		_, err := f.WriteAt(zeros, off)
		check(b, err)
	}
	check(b, f.Datasync())
	return f
}

// BenchmarkFloorBuffer appends to a buffer under a lock and reads the clock: the least that a submit can do.
func BenchmarkFloorBuffer(b *testing.B) {
	var mu sync.Mutex
	payload, buf := make([]byte, payloadBytes), make([]byte, 0, 4<<20)
	b.ReportAllocs()
	at := int64(0)
	for b.Loop() {
		mu.Lock()
		at = max(clock(), at+1)
		if len(buf)+len(payload) > cap(buf) {
			buf = buf[:0]
		}
		buf = append(buf, payload...)
		mu.Unlock()
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

func writeSync(b *testing.B, f vfs.File, buf []byte, off *int64) {
	if *off+int64(len(buf)) > floorFileBytes {
		*off = 0
	}
	if _, err := f.WriteAt(buf, *off); err != nil {
		b.Fatal(err)
	}
	if err := f.Datasync(); err != nil {
		b.Fatal(err)
	}
	*off += int64(len(buf))
}

// BenchmarkFloorStream copies entries into batches, and writes and syncs each: of a thousand entries, and of about a
// MiB, as runlog's are.
func BenchmarkFloorStream(b *testing.B) {
	for _, size := range []int{16, payloadBytes, 4096, 65536} {
		for _, batch := range []int{1000 * (size + frameBytes), 1 << 20} {
			if batch > 16<<20 {
				continue
			}
			b.Run(fmt.Sprintf("size=%d/batch=%dKiB", size, batch>>10), func(b *testing.B) {
				f := zeroed(b)
				payload, buf := make([]byte, size+frameBytes), make([]byte, 0, batch+size+frameBytes)
				b.ReportAllocs()
				b.SetBytes(int64(size))
				b.ResetTimer()
				off := int64(0)
				for range b.N {
					if buf = append(buf, payload...); len(buf) >= batch {
						writeSync(b, f, buf, &off)
						buf = buf[:0]
					}
				}
				if len(buf) > 0 {
					writeSync(b, f, buf, &off)
				}
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

// BenchmarkFloorScan hashes the mapped segments with XXH64, a MiB at a time; ns/op is per entry.
func BenchmarkFloorScan(b *testing.B) {
	f := sealed(b, 1_000_000, 0)
	parts, total := mapSegments(b, f)
	entryBytes := total / int64(f.entries)
	b.ReportAllocs()
	b.SetBytes(payloadBytes)
	b.ResetTimer()
	sum := uint64(0)
	for left := int64(b.N) * entryBytes; left > 0; {
		for _, p := range parts {
			for len(p) > 0 && left > 0 {
				n := min(int64(len(p)), 1<<20, left)
				sum ^= xxhash.Sum64(p[:n])
				p, left = p[n:], left-n
			}
		}
	}
	_ = sum
	perSecond(b, b.N, "entries")
}

// BenchmarkFloorGet copies an entry's bytes from a random place of the mapped segments and hashes the copy.
func BenchmarkFloorGet(b *testing.B) {
	f := sealed(b, 1_000_000, 0)
	parts, total := mapSegments(b, f)
	buf := make([]byte, total/int64(f.entries)&^7)
	rng := random()
	b.ReportAllocs()
	b.ResetTimer()
	sum := uint64(0)
	for b.Loop() {
		at := int64(rng.Uint64N(uint64(total)))
		for _, p := range parts {
			if at < int64(len(p)) {
				copy(buf, p[min(at&^7, int64(len(p)-len(buf))):])
				break
			}
			at -= int64(len(p))
		}
		sum ^= xxhash.Sum64(buf)
	}
	_ = sum
}
