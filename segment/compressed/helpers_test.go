package compressed

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/runlog-io/runlog/segment"
)

var update = flag.Bool("update", false, "write the golden files again")

// memory is a file in memory.
type memory struct{ b []byte }

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(m.b)) {
		return 0, io.EOF
	}
	n := copy(p, m.b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if n := off + int64(len(p)) - int64(len(m.b)); n > 0 {
		m.b = append(m.b, make([]byte, n)...)
	}
	return copy(m.b[off:], p), nil
}

// sealedFile is a plain segment with n bytes of content behind its header: half of them compress well, the others not at
// all. They are no frames, which nothing in this package looks at.
func sealedFile(n int) []byte {
	rng := rand.New(rand.NewPCG(5, 6))
	h := segment.Header{Number: 7, Salt: 0x0123456789abcdef, PlannedSize: 1 << 20, Created: 12, Identity: []byte(`{"run":"r"}`)}
	b := segment.EncodeHeader(h)
	for len(b) < segment.BlockSize+n {
		if len(b)/MinBlock%2 == 0 {
			b = append(b, bytes.Repeat([]byte("order C-1017 "), 40)...)
		} else {
			for range 64 {
				b = append(b, byte(rng.Uint32()))
			}
		}
	}
	b = b[:segment.BlockSize+n]
	ft := segment.Footer{FirstSeq: 3, LastSeq: 9, Entries: 7, ContentEnd: int64(len(b)), Flags: segment.FlagFinal}
	sum := segment.NewContentHash()
	sum.Write(b)
	sum.Sum(ft.ContentSHA[:0])
	ft.RunSHA = segment.RunSHA([32]byte{}, 7, ft.ContentSHA)
	return append(b, segment.EncodeFooter(&ft, h.Salt)...)
}

// squeeze compresses a plain file.
func squeeze(t testing.TB, plain []byte, o Options) []byte {
	t.Helper()
	src := &memory{plain}
	p, err := ReadPlain(src, "plain", int64(len(plain)))
	if err != nil {
		t.Fatal(err)
	}
	dst := &memory{}
	size, err := Encode(dst, src, "plain", p, o)
	if err != nil || size != int64(len(dst.b)) {
		t.Fatalf("%d bytes of %d: %v", size, len(dst.b), err)
	}
	if err := Verify(dst, "packed", size, p, nil); err != nil {
		t.Fatal(err)
	}
	return dst.b
}

func opened(b []byte) *File { return newFile("packed", &memory{b}, int64(len(b))) }

// content reads everything; with an error what stands before it.
func content(z *File) ([]byte, error) {
	size, err := z.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	n, err := z.ReadAt(b, 0)
	return b[:n], err
}

func goldenPlain(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "testdata", "golden-v1.seg"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var bothCodecs = []Codec{Zstd, S2}

func isLost(err error) (*LostError, bool) {
	var lost *LostError
	return lost, errors.As(err, &lost)
}
