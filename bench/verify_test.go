package bench

import (
	"context"
	"crypto/sha256"
	"io"
	"path/filepath"
	"testing"

	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
)

// How fast is a run checked from the first byte to the last? ns/op is per run, MB/s are bytes of its segments. Compare with
// BenchmarkFloorVerify.
func BenchmarkVerify(b *testing.B) {
	f := sealed(b, 1_000_000, 0)
	b.SetBytes(f.use.segments)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		rep, err := verify.Run(context.Background(), vfs.OS, f.dir, verify.Options{})
		if err != nil || !rep.Clean() {
			b.Fatal(err, rep.Findings)
		}
	}
	perSecond(b, b.N*int(f.entries), "entries")
}

// BenchmarkFloorVerify reads the same segments a MiB at a time and hashes them with SHA-256, which no check can do without.
func BenchmarkFloorVerify(b *testing.B) {
	f := sealed(b, 1_000_000, 0)
	names, err := filepath.Glob(filepath.Join(f.dir, "*.seg"))
	check(b, err)
	b.SetBytes(f.use.segments)
	buf := make([]byte, 1<<20)
	b.ResetTimer()
	for range b.N {
		for _, name := range names {
			file, err := vfs.OS.OpenRead(name)
			check(b, err)
			size, err := file.Size()
			check(b, err)
			h := sha256.New()
			_, err = io.CopyBuffer(struct{ io.Writer }{h}, io.NewSectionReader(file, 0, size), buf)
			check(b, err)
			_ = h.Sum(nil)
			check(b, file.Close())
		}
	}
	perSecond(b, b.N*int(f.entries), "entries")
}
