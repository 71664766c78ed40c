package compressed

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/runlog-io/runlog/internal/format"
)

// Codec is how blocks are compressed.
type Codec uint32

// The codecs. Their numbers are those in the file.
const (
	None Codec = 0 // not compressed; no file has it
	Zstd Codec = 1
	S2   Codec = 2
)

var codecNames = [...]string{"none", "zstd", "s2"}

func (c Codec) String() string {
	if int(c) < len(codecNames) {
		return codecNames[c]
	}
	return fmt.Sprintf("codec %d", uint32(c))
}

// ParseCodec is the inverse of String; "" is None.
func ParseCodec(name string) (Codec, error) {
	if name == "" {
		return None, nil
	}
	for c, n := range codecNames {
		if n == name {
			return Codec(c), nil
		}
	}
	return None, fmt.Errorf("%w: codec %.40q: want zstd, s2 or none", format.ErrInvalid, name)
}

// MaxLevel is the slowest and smallest level of a codec; 1 is the fastest.
func (c Codec) MaxLevel() int {
	switch c {
	case Zstd:
		return int(zstd.SpeedBestCompression)
	case S2:
		return 3
	}
	return 0
}

// compressor returns a function that appends the compressed form of b to dst.
func (c Codec) compressor(level int, blockSize int64) (func(dst, b []byte) []byte, error) {
	if level == 0 {
		level = 1
	}
	if level < 1 || level > c.MaxLevel() {
		return nil, fmt.Errorf("%w: level %d of codec %v: want 1 to %d", format.ErrInvalid, level, c, c.MaxLevel())
	}
	if c == S2 {
		encode := [...]func(dst, src []byte) []byte{s2.Encode, s2.EncodeBetter, s2.EncodeBest}[level-1]
		return func(dst, b []byte) []byte {
			n := s2.MaxEncodedLen(len(b)) // of at most MaxBlock, so never negative
			if cap(dst)-len(dst) < n {
				dst = append(make([]byte, 0, len(dst)+n), dst...)
			}
			return dst[:len(dst)+len(encode(dst[len(dst):len(dst)+n], b))]
		}, nil
	}
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevel(level)), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(int(blockSize)), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, err
	}
	return func(dst, b []byte) []byte { return e.EncodeAll(b, dst) }, nil
}

// decoder is shared: it hands out as many states as there are processors, made when first needed.
var decoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(MaxBlock),
		zstd.WithDecoderMaxWindow(2*MaxBlock), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic(err) // cannot be: the options are constants
	}
	return d
})

// decompress fills dst from b, or reports that b does not give as many bytes. It writes nowhere else, and allocates
// nothing that b asks for.
func (c Codec) decompress(dst, b []byte) bool {
	if c == S2 {
		n, err := s2.DecodedLen(b)
		if err != nil || n != len(dst) {
			return false
		}
		got, err := s2.Decode(dst, b)
		return err == nil && len(got) == len(dst)
	}
	got, err := decoder().DecodeAll(b, dst[:0:len(dst)])
	return err == nil && len(got) == len(dst) && (len(got) == 0 || &got[0] == &dst[0])
}
