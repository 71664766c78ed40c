package bench

import (
	"context"
	"crypto/sha256"
	"testing"

	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
)

// How long does it take to check every byte of a finished run? The floor is the SHA-256 of its segments, which is a part of
// the work.

func BenchmarkVerify(b *testing.B) {
	f := sealed(b, entryLimit(), 0)
	parts, total := mapSegments(b, f)
	b.SetBytes(total)
	beside(b, 1, func(n int) {
		for range n {
			rep, err := verify.Run(context.Background(), vfs.OS, f.dir, verify.Options{})
			if err != nil || len(rep.Findings) > 0 || rep.LastSeq != f.entries+2 {
				b.Fatal(rep, err)
			}
		}
	}, func(n int) {
		for range n {
			for _, p := range parts {
				floorSum = sha256.Sum256(p)
			}
		}
	})
	perSecond(b, b.N*int(f.entries), "entries")
}

var floorSum [sha256.Size]byte // keeps the compiler from leaving the floor out
