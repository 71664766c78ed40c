package index

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
)

// FuzzOpen opens hostile bytes, as they are and with all checks made right, and calls everything.
func FuzzOpen(f *testing.F) {
	for _, m := range []*model{smallModel(), newModel(1), randomModel(2, 5, 30, 4)} {
		f.Add(m.encode(f), true)
		f.Add(m.encode(f), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, fix bool) {
		data = bytes.Clone(data)
		if fix {
			reseal(data)
		}
		want := Want{}
		if len(data) >= headerSize {
			want = Want{
				Number: le.Uint32(data[hdrNumber:]), Salt: le.Uint64(data[16:]), Chain: le.Uint64(data[hdrChain:]),
				ContentEnd: int64(le.Uint64(data[hdrContentEnd:])),
			}
		}
		x, err := openBytes(data, want)
		if err == nil {
			exercise(x)
			if files := []*File{x, x, x, x}; x.meta.Number != 0 {
				_, _ = newFilterBuild(1, 4, files)
			}
		} else if !isBadFile(err) {
			t.Fatal(err)
		}
		if len(data) >= filterHeaderSize {
			fw := FilterWant{
				First: le.Uint32(data[fltFirst:]), Last: le.Uint32(data[fltLast:]), Salts: le.Uint64(data[fltSalts:]),
			}
			if flt, err := OpenFilter(withFile(data), "x", fw); err == nil {
				_, _ = flt.MayContain(1)
				_ = flt.VerifyAll()
			} else if !isBadFile(err) {
				t.Fatal(err)
			}
		}
	})
}

// FuzzBuilder adds what the bytes say, compares the Builder with a map, and then the file that it makes. Fingerprints
// are picked from few, some of which share home slots, home buckets or tags.
func FuzzBuilder(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\xff\x01\x01\xff\x00\x33\x34"))
	f.Add(bytes.Repeat([]byte{0x10, 0x11, 0x12, 0x13, 0x10, 0xff}, 50))
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) > 1<<14 {
			return
		}
		fpOf := func(b byte) uint64 {
			switch b >> 6 {
			case 0:
				return uint64(b)
			case 1:
				return 0xffff<<48 | uint64(b&^0x40) // the tag of case 0; the last home bucket, which spills into case 0's
			case 2:
				return ^uint64(b)
			}
			return order(int(b))
		}
		m := newModel(uint64(len(ops)) + 1)
		var fps []uint64
		for _, b := range ops {
			if b != 0xff {
				fps = append(fps, fpOf(b))
				continue
			}
			m.add(uint32(len(fps)%3), fps...)
			fps = fps[:0]
		}
		if err := m.checkBuilder(); err != nil {
			t.Fatal(err)
		}
		x := m.open(t)
		if err := checkCandidates(m, x); err != nil {
			t.Fatal(err)
		}
		if err := x.VerifyAll(); err != nil {
			t.Fatal(err)
		}
	})
}

// checkCandidates is checkFile for keys that may share tags: a file may then return more, but only what has the tag.
func checkCandidates(m *model, f *File) error {
	byTag := map[uint64][]uint64{}
	for fp, seqs := range m.keys {
		byTag[fp&tagMask] = append(byTag[fp&tagMask], seqs...)
	}
	for fp, want := range m.keys {
		got, err := f.Seqs(fp, nil)
		if err != nil {
			return err
		}
		first, ok, err := f.First(fp)
		if err != nil || !ok || first != got[0] {
			return fmt.Errorf("First(%#x) = %d %v %v, want %d", fp, first, ok, err, got[0])
		}
		if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
			return fmt.Errorf("Seqs(%#x) = %v is not ascending", fp, got)
		}
		for _, s := range want {
			if !slices.Contains(got, s) {
				return fmt.Errorf("Seqs(%#x) = %v misses %d", fp, got, s)
			}
		}
		for _, s := range got {
			if !slices.Contains(byTag[fp&tagMask], s) {
				return fmt.Errorf("Seqs(%#x) = %v, of which no key has %d", fp, got, s)
			}
		}
	}
	return nil
}
