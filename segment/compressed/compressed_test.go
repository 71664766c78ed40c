package compressed

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

func TestEveryByteComesBack(t *testing.T) {
	for _, codec := range bothCodecs {
		for level := range codec.MaxLevel() + 1 {
			for _, n := range []int{0, 8, MinBlock - 8, MinBlock, MinBlock + 8, 12 * MinBlock, 13*MinBlock + 800, 25 * MinBlock, 3 << 20} {
				if n > 1<<20 && level != 1 {
					continue
				}
				plain := sealedFile(n)
				z := opened(squeeze(t, plain, Options{Codec: codec, Level: level, BlockBytes: MinBlock}))
				got, err := content(z)
				if err != nil || !bytes.Equal(got, plain) {
					t.Fatalf("%v level %d, %d bytes: %v", codec, level, n, err)
				}
			}
		}
	}
}

func TestReadsAtAnyPlaceGiveThePlainFilesBytes(t *testing.T) {
	plain := sealedFile(14*MinBlock + 1000)
	rng := rand.New(rand.NewPCG(1, 1))
	for _, codec := range bothCodecs {
		z := opened(squeeze(t, plain, Options{Codec: codec, BlockBytes: 2 * MinBlock}))
		for range 2000 {
			off, n := rng.IntN(len(plain)+100), rng.IntN(6*MinBlock)
			b := make([]byte, n)
			k, err := z.ReadAt(b, int64(off))
			want := plain[min(off, len(plain)):min(off+n, len(plain))]
			if !bytes.Equal(b[:k], want) || k < n && err != io.EOF || k == n && err != nil {
				t.Fatalf("%d bytes at %d: %d, %v", n, off, k, err)
			}
		}
	}
}

func TestBlocksThatDoNotGetSmallerAreStoredAsTheyAre(t *testing.T) {
	plain := sealedFile(8 * MinBlock)
	b := squeeze(t, plain, Options{Codec: S2, BlockBytes: MinBlock})
	z, raw := opened(b), 0
	for i := range z.h.blocks {
		at := z.h.indexAt() + i/lineBlocks*lineSize
		p, err := z.h.locate("", b[at:at+lineSize], i)
		if err != nil {
			t.Fatal(err)
		}
		if p.raw {
			raw++
			if !bytes.Equal(b[p.off+checkSize:p.off+checkSize+p.size], plain[z.h.from(i):z.h.to(i)]) {
				t.Errorf("block %d is not its content", i)
			}
		}
	}
	if raw != 4 || len(b) >= len(plain) {
		t.Errorf("%d of %d blocks are raw, %d bytes of %d", raw, z.h.blocks, len(b), len(plain))
	}
}

func TestADamagedSegmentIsNotCompressed(t *testing.T) {
	plain := sealedFile(5 * MinBlock)
	p, err := ReadPlain(&memory{plain}, "plain", int64(len(plain)))
	if err != nil {
		t.Fatal(err)
	}
	plain[segment.BlockSize+100] ^= 1
	if _, err := Encode(&memory{}, &memory{plain}, "plain", p, Options{Codec: S2}); !errors.Is(err, format.ErrCorrupt) {
		t.Errorf("a flipped bit: %v", err)
	}
	if _, err := Encode(&memory{}, &memory{plain[:3*MinBlock]}, "plain", p, Options{Codec: S2}); !errors.Is(err, format.ErrCorrupt) {
		t.Errorf("cut: %v", err)
	}
	if _, err := ReadPlain(&memory{plain[:len(plain)-8]}, "plain", int64(len(plain)-8)); !errors.Is(err, format.ErrCorrupt) {
		t.Errorf("without a footer: %v", err)
	}
}

// Every flipped bit is found, and whatever is read all the same is right.
func TestEveryFlippedBitIsFound(t *testing.T) {
	plain := sealedFile(14*MinBlock + 200)
	p, _ := ReadPlain(&memory{plain}, "plain", int64(len(plain)))
	for _, codec := range bothCodecs {
		b := squeeze(t, plain, Options{Codec: codec, BlockBytes: MinBlock})
		h := opened(b).h
		for i := range len(b) * 8 {
			off := int64(i / 8)
			if off > headerSize+100 && off < h.indexAt() && i%101 > 0 || off > h.blocksAt() && off < h.footerAt() && i%37 > 0 {
				continue // one bit in so many is enough under one checksum
			}
			b[off] ^= 1 << (i % 8)
			err := Verify(&memory{b}, "packed", int64(len(b)), p, nil)
			var at *format.Error
			if !errors.As(err, &at) || at.Path != "packed" || !errors.Is(err, format.ErrCorrupt) {
				t.Fatalf("%v: bit %d: %v", codec, i, err)
			}
			readable(t, b, plain, off)
			b[off] ^= 1 << (i % 8)
		}
	}
}

// readable reads everything block by block: what comes is right, and what does not come is what the damage at off takes.
func readable(t *testing.T, b, plain []byte, off int64) {
	t.Helper()
	z := opened(b)
	if z.Err() != nil {
		if off >= headerSize {
			t.Fatalf("damage at %d: %v", off, z.Err())
		}
		return
	}
	lost := int64(0)
	for i := range z.h.blocks {
		got, err := z.Block(i, make([]byte, z.BlockSize()))
		if err == nil && !bytes.Equal(got, plain[z.h.from(i):z.h.to(i)]) {
			t.Fatalf("damage at %d: block %d is wrong", off, i)
		}
		if err != nil {
			l, ok := isLost(err)
			if !ok || l.From > z.h.from(i) || l.To < z.h.to(i) || off >= z.h.blocksAt() && l.To-l.From > MinBlock || !errors.Is(err, format.ErrCorrupt) {
				t.Fatalf("damage at %d: %v", off, err)
			}
			lost++
		}
	}
	want := int64(0)
	switch {
	case off >= z.h.blocksAt() && off < z.h.footerAt():
		want = 1
	case off >= z.h.indexAt() && off < z.h.blocksAt():
		want = min(lineBlocks, z.h.blocks-(off-z.h.indexAt())/lineSize*lineBlocks)
	}
	if lost != want {
		t.Fatalf("damage at %d takes %d blocks, want %d", off, lost, want)
	}
}

func TestEveryTruncationIsFound(t *testing.T) {
	plain := sealedFile(3*MinBlock + 8)
	p, _ := ReadPlain(&memory{plain}, "plain", int64(len(plain)))
	b := squeeze(t, plain, Options{Codec: Zstd, BlockBytes: MinBlock})
	for n := range len(b) {
		if err := Verify(&memory{b[:n]}, "packed", int64(n), p, nil); !errors.Is(err, format.ErrCorrupt) {
			t.Fatalf("%d of %d bytes: %v", n, len(b), err)
		}
	}
	if err := Verify(&memory{append(b, 0)}, "packed", int64(len(b)+1), p, nil); !errors.Is(err, format.ErrCorrupt) {
		t.Error("a byte too many is not noticed")
	}
}

// A block is good at its own place only.
func TestMovedBlocksDoNotValidate(t *testing.T) {
	plain := sealedFile(14 * MinBlock)
	b := squeeze(t, plain, Options{Codec: S2, BlockBytes: MinBlock})
	z := opened(b)
	var places []place
	for i := range z.h.blocks {
		at := z.h.indexAt() + i/lineBlocks*lineSize
		p, err := z.h.locate("", b[at:at+lineSize], i)
		if err != nil {
			t.Fatal(err)
		}
		places = append(places, p)
	}
	swapped := 0
	for i := range places {
		for j := range i {
			if places[i].size != places[j].size || places[i].raw != places[j].raw {
				continue
			}
			x, y := b[places[i].off:][:checkSize+places[i].size], b[places[j].off:][:checkSize+places[j].size]
			hold := bytes.Clone(x)
			copy(x, y)
			copy(y, hold)
			swapped++
			for _, k := range []int{i, j} {
				if _, err := opened(b).Block(int64(k), make([]byte, MinBlock)); !errors.Is(err, format.ErrCorrupt) {
					t.Errorf("blocks %d and %d are swapped: %v", i, j, err)
				}
			}
			copy(y, x)
			copy(x, hold)
		}
	}
	if swapped == 0 {
		t.Fatal("no two blocks are of a size")
	}
}

// Stored bytes with a right check that would grow beyond their block are refused before they do.
func TestBombsAreRefusedWithoutMemory(t *testing.T) {
	e, err := zstd.NewWriter(nil, zstd.WithSingleSegment(true))
	if err != nil {
		t.Fatal(err)
	}
	bomb := e.EncodeAll(make([]byte, 512<<20), nil)
	small := e.EncodeAll(make([]byte, 100), nil)
	for name, stored := range map[string][]byte{
		"zstd, 512 MiB": bomb[:min(len(bomb), 4000)], "zstd, 100 bytes": small, "zstd, two frames": append(bytes.Clone(small), small...),
		"s2, 4 GiB": append(binary.AppendUvarint(nil, 1<<32-1), 0), "s2, 100 bytes": s2.Encode(nil, make([]byte, 100)), "nothing": {}, "text": []byte("text"),
	} {
		for _, codec := range bothCodecs {
			dst := make([]byte, MinBlock)
			codec.decompress(dst, stored) // makes what every use needs
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if codec.decompress(dst, stored) {
				t.Errorf("%s passes as %v", name, codec)
			}
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 128<<10 {
				t.Errorf("%s with %v: %d bytes of memory", name, codec, n)
			}
		}
	}
}

func TestHeadersThatCannotBeAreRefused(t *testing.T) {
	good := squeeze(t, sealedFile(14*MinBlock), Options{Codec: Zstd, BlockBytes: MinBlock})
	for name, c := range map[string]struct {
		off  int
		to   uint64
		size int
		want error
	}{
		"a later version": {8, 2, 2, format.ErrVersion}, "flags": {10, 1, 2, format.ErrVersion},
		"an unknown codec": {hdrCodec, 3, 4, format.ErrVersion}, "no codec": {hdrCodec, 0, 4, format.ErrVersion},
		"number 0":            {hdrNumber, 0, 4, format.ErrCorrupt},
		"tiny blocks":         {hdrBlockSize, 2048, 4, format.ErrCorrupt},
		"huge blocks":         {hdrBlockSize, 1 << 31, 4, format.ErrCorrupt},
		"crooked blocks":      {hdrBlockSize, 5000, 4, format.ErrCorrupt},
		"too many blocks":     {hdrBlocks, 1<<32 - 1, 4, format.ErrCorrupt},
		"no header":           {hdrContentStart, 0, 8, format.ErrCorrupt},
		"endless content":     {hdrContentEnd, 1 << 62, 8, format.ErrCorrupt},
		"negative content":    {hdrContentEnd, 1 << 63, 8, format.ErrCorrupt},
		"a file without room": {hdrFileSize, 300, 8, format.ErrCorrupt},
		"another file size":   {hdrFileSize, 1 << 40, 8, format.ErrCorrupt},
	} {
		b := bytes.Clone(good)
		var v [8]byte
		le.PutUint64(v[:], c.to)
		copy(b[c.off:], v[:c.size])
		reseal(b)
		z := opened(b)
		var at *format.Error
		if !errors.Is(z.Err(), c.want) || !errors.As(z.Err(), &at) || at.Path != "packed" || at.Offset < 0 {
			t.Errorf("%s: %v", name, z.Err())
		}
		if _, err := z.Size(); err == nil {
			t.Errorf("%s: it has a size", name)
		}
	}
}

// reseal makes the header's checksum right.
func reseal(b []byte) {
	if len(b) < headerSize {
		return
	}
	le.PutUint64(b[24:], 0)
	le.PutUint64(b[24:], xxhash.Sum64(b[:headerSize]))
}

func TestOptionsThatCannotBeAreErrors(t *testing.T) {
	for _, o := range []Options{
		{}, {Codec: 9}, {Codec: Zstd, Level: -1}, {Codec: Zstd, Level: 5}, {Codec: S2, Level: 4}, {Codec: S2, BlockBytes: 1000}, {Codec: S2, BlockBytes: 2 << 20},
	} {
		if err := o.Check(); !errors.Is(err, format.ErrInvalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	for _, c := range []Codec{None, Zstd, S2} {
		if got, err := ParseCodec(c.String()); got != c || err != nil {
			t.Errorf("%v: %v, %v", c, got, err)
		}
	}
	if _, err := ParseCodec("lzma"); !errors.Is(err, format.ErrInvalid) {
		t.Error(err)
	}
}

func TestNames(t *testing.T) {
	if FileName(1) != "00000001.segz" {
		t.Error(FileName(1))
	}
	if n, ok := ParseFileName(FileName(123)); n != 123 || !ok {
		t.Error(n, ok)
	}
	for _, bad := range []string{"", "z", "00000001.seg", "00000000.segz", "1.segz", "00000001.segz.tmp", "00000001.segzz"} {
		if _, ok := ParseFileName(bad); ok {
			t.Errorf("%q passes", bad)
		}
	}
}

func TestThePlainFileCounts(t *testing.T) {
	m := vfs.NewMem(vfs.MemOptions{})
	plain := sealedFile(MinBlock)
	put := func(name string, b []byte) {
		if err := vfs.WriteFileAtomic(m, "/", name, b); err != nil {
			t.Fatal(err)
		}
	}
	name := "/" + segment.FileName(7)
	if _, err := OpenSegment(m, name); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	put(name+Suffix, squeeze(t, plain, Options{Codec: S2}))
	for _, want := range []string{name + Suffix, name} {
		f, err := OpenSegment(m, name)
		if err != nil || f.Name() != want {
			t.Fatalf("%v, want %s", err, want)
		}
		b := make([]byte, len(plain))
		if _, err := f.ReadAt(b, 0); err != nil || !bytes.Equal(b, plain) {
			t.Error(want, err)
		}
		if size, err := f.Size(); size != int64(len(plain)) || err != nil {
			t.Error(size, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		put(name, plain)
	}
	z, err := Open(m, name+Suffix)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for op, err := range map[string]error{
		"write": second(z.WriteAt(nil, 0)), "truncate": z.Truncate(0), "datasync": z.Datasync(), "preallocate": z.Preallocate(1), "map": second(z.Map(1)),
	} {
		if !errors.Is(err, os.ErrPermission) {
			t.Errorf("%s: %v", op, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestEncodingStopsWhenItIsToldTo(t *testing.T) {
	plain, stop := sealedFile(3<<20), errors.New("stop")
	p, _ := ReadPlain(&memory{plain}, "plain", int64(len(plain)))
	steps := 0
	o := Options{Codec: S2, Step: func() error {
		if steps++; steps == 2 {
			return stop
		}
		return nil
	}}
	dst := &memory{}
	if _, err := Encode(dst, &memory{plain}, "plain", p, o); !errors.Is(err, stop) || steps != 2 {
		t.Errorf("%d steps, %v", steps, err)
	}
	if err := Verify(dst, "packed", int64(len(dst.b)), p, nil); !errors.Is(err, format.ErrCorrupt) {
		t.Errorf("half a file passes: %v", err)
	}
}

// The golden files pin what a reader must read; what an encoder writes may differ between releases of a codec.
func TestGoldenFilesAreRead(t *testing.T) {
	plain := goldenPlain(t)
	for _, codec := range bothCodecs {
		path := filepath.Join("testdata", fmt.Sprintf("golden-v1-%v.segz", codec))
		if *update {
			b := squeeze(t, plain, Options{Codec: codec, BlockBytes: MinBlock})
			if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(path, b, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		z := opened(b)
		if z.Codec() != codec || z.DiskSize() != int64(len(b)) || z.BlockSize() != MinBlock {
			t.Errorf("%s: %+v", path, z.h)
		}
		got, err := content(z)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: %d bytes, %v", path, len(got), err)
		}
		again := header{number: 1, salt: z.h.salt, codec: codec, blockSize: MinBlock, blocks: z.h.blocks, start: segment.BlockSize,
			end: int64(len(plain) - segment.FooterSize), fileSize: int64(len(b))}
		if !bytes.Equal(again.encode(), b[:headerSize]) {
			t.Errorf("%s: the header's layout has changed", path)
		}
	}
}

// FuzzFile reads hostile bytes, as they are and with checks made right. Nothing panics, nothing large is allocated, and
// what is returned as content is of the size that was asked for.
func FuzzFile(f *testing.F) {
	for _, codec := range bothCodecs {
		b := squeeze(f, sealedFile(13*MinBlock), Options{Codec: codec, BlockBytes: MinBlock})
		f.Add(b, uint32(0), uint16(0), uint8(0))
		f.Add(b, uint32(headerSize+segment.BlockSize+8), uint16(77), uint8(1))
		f.Add(b, uint32(len(b)-300), uint16(9), uint8(3))
	}
	f.Add([]byte(format.MagicCompressed), uint32(0), uint16(1), uint8(0))
	f.Fuzz(func(t *testing.T, b []byte, at uint32, change uint16, fix uint8) {
		if len(b) > 1<<20 {
			return
		}
		b = bytes.Clone(b)
		if len(b) > 2 {
			k := int(at) % (len(b) - 1)
			b[k] ^= byte(change)
			b[k+1] ^= byte(change >> 8)
		}
		if fix&1 != 0 {
			reseal(b)
		}
		z := opened(b)
		if z.Err() != nil {
			if !errors.Is(z.Err(), format.ErrCorrupt) && !errors.Is(z.Err(), format.ErrVersion) && !errors.Is(z.Err(), format.ErrWrongKind) {
				t.Fatal(z.Err())
			}
			return
		}
		if fix&2 != 0 {
			fixChecks(z, b)
		}
		dst := make([]byte, z.BlockSize())
		for i := int64(0); i < min(z.h.blocks, 64); i++ {
			got, err := z.Block(i, dst)
			if err == nil && int64(len(got)) != z.h.to(i)-z.h.from(i) {
				t.Fatalf("block %d has %d bytes", i, len(got))
			}
			if _, ok := isLost(err); err != nil && !ok {
				t.Fatal(err)
			}
		}
		p := make([]byte, 300)
		for _, off := range []int64{0, z.h.start - 100, z.h.start, z.h.end - 100, z.h.end, z.h.end + segment.FooterSize} {
			if n, err := z.ReadAt(p, off); n < len(p) && err == nil {
				t.Fatal("a short read without an error")
			}
		}
		if h, err := segment.ReadHeader(z, "packed"); err == nil {
			_ = z.Check(&h)
		}
	})
}

// fixChecks makes the checks of index lines and blocks right, as far as they lead anywhere.
func fixChecks(z *File, b []byte) {
	for i := int64(0); i < min(z.h.blocks, 64); i++ {
		at := z.h.indexAt() + i/lineBlocks*lineSize
		line := b[at : at+lineSize]
		le.PutUint64(line[lineCheck:], format.Check64(line[:lineCheck], z.h.salt, at))
		if p, err := z.h.locate("", line, i); err == nil {
			s := b[p.off+checkSize:][:p.size]
			le.PutUint64(b[p.off:], format.Check64(s, z.h.salt, z.h.from(i)))
		}
	}
}
