package wal

import (
	"context"
	"strings"
	"testing"

	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
)

func TestRetentionRemovesCompressedSegmentsLikePlainOnes(t *testing.T) {
	for _, compressFirst := range []bool{true, false} {
		g := newRig(t).fill(300, 700).sealed()
		pack := func() {
			if _, err := Compress(context.Background(), g.mem, runDir, CompressOptions{Compression: Compression{Codec: S2}}); err != nil {
				t.Fatal(err)
			}
		}
		if compressFirst {
			pack()
		}
		var first uint64
		if !compressFirst {
			first = firstOf(t, g.mem, 3)
		} else {
			in, err := newFiles(g.mem, runDir, 8, func(error) {}).loadInfo(&segRef{number: 3, path: runDir + "/" + segment.FileName(3)})
			if err != nil {
				t.Fatal(err)
			}
			first = in.footer.FirstSeq
		}
		g.must(RemoveBefore(g.mem, runDir, 3))
		if !compressFirst {
			pack()
		}
		packed := 0
		for name := range contents(t, g.mem, runDir) {
			if strings.HasPrefix(name, "00000001") || strings.HasPrefix(name, "00000002.") {
				t.Errorf("%s is still there", name)
			}
			if strings.HasSuffix(name, ".segz") {
				packed++
			}
		}
		if packed == 0 {
			t.Error("nothing is compressed")
		}
		r := openReader(t, g.mem)
		fromFloor(t, r, g.want, first)
		if m := r.Manifest(); m.Status != manifest.Ended || m.FirstSegment() != 3 {
			t.Errorf("%+v", m)
		}
		for name := range contents(t, g.mem, runDir, ".idx") { // the compressed segments alone give all there is
			remove(t, g.mem, name)
		}
		fromFloor(t, openReader(t, g.mem), g.want, first)
	}
}
