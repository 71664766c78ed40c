package slow

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/vfs"
)

// source gives the choices of a case; a fuzzer's bytes, or noise. Where they end all are 0.
type source struct{ b []byte }

func (s *source) n(most int) int {
	var v uint32
	for range 3 {
		v <<= 8
		if len(s.b) > 0 {
			v |= uint32(s.b[0])
			s.b = s.b[1:]
		}
	}
	return int(v) % max(most, 1)
}

// damage changes files, mostly of one kind, whose contents must not be shared with others, and says what it did.
func damage(files map[string][]byte, s *source, kind string) string {
	names := slices.Sorted(maps.Keys(files))
	if len(names) == 0 {
		return "nothing"
	}
	pick := func() string {
		segs := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !strings.HasSuffix(n, kind) })
		if len(segs) > 0 && s.n(4) > 0 {
			if s.n(2) == 0 {
				return segs[max(0, len(segs)-1-s.n(3))] // near the end
			}
			return segs[s.n(len(segs))]
		}
		return names[s.n(len(names))]
	}
	name := pick()
	b := files[name]
	used := len(bytes.TrimRight(b, "\x00")) + 64 // where damage can matter
	at := s.n(min(len(b), used))
	size := min(1+s.n([]int{8, 64, 600, 20000}[s.n(4)]), len(b)-at)
	switch s.n(9) {
	case 0:
		if len(b) > 0 {
			b[at] ^= 1 << s.n(8)
		}
		return fmt.Sprintf("flip %s:%d", name, at)
	case 1:
		seed := uint64(s.n(1 << 16))
		r := rand.New(rand.NewPCG(seed, 3))
		for i := range max(size, 0) {
			b[at+i] = byte(r.Uint32())
		}
		return fmt.Sprintf("overwrite %s:%d+%d, noise %d", name, at, size, seed)
	case 2:
		if size > 0 {
			clear(b[at : at+size])
		}
		return fmt.Sprintf("zero %s:%d+%d", name, at, size)
	case 3:
		if s.n(3) == 0 {
			at = s.n(len(b)) // anywhere, the zeros ahead included
		}
		files[name] = b[:at]
		return fmt.Sprintf("truncate %s:%d", name, at)
	case 4:
		other := pick()
		files[name], files[other] = files[other], files[name]
		return fmt.Sprintf("swap %s %s", name, other)
	case 5:
		copyTo := pick()
		if s.n(2) == 0 {
			copyTo = SegmentName(uint32(len(names)) + 1)
		}
		files[copyTo] = bytes.Clone(b)
		return fmt.Sprintf("copy %s to %s", name, copyTo)
	case 6:
		delete(files, name)
		return "remove " + name
	case 7:
		from := files[pick()]
		at = at / 8 * 8
		src := s.n(len(from)) / 8 * 8
		n := min(size, len(b)-at, len(from)-src)
		if n > 0 {
			copy(b[at:at+n], bytes.Clone(from[src:src+n]))
		}
		return fmt.Sprintf("splice %s:%d+%d from :%d", name, at, n, src)
	default:
		files[name] = append(b, make([]byte, size)...)
		if s.n(2) == 0 {
			for i := len(b); i < len(files[name]); i++ {
				files[name][i] = byte(i*7 + 1)
			}
		}
		return fmt.Sprintf("append %d bytes to %s", size, name)
	}
}

// differCase damages a run as the bytes say and compares what the readers make of it. later: one that begins later; those
// have cases of their own, so that the row's seeds go on to mean what they meant.
func differCase(data []byte, later bool) error {
	runs, err := prepare()
	if err != nil {
		return err
	}
	if whole := len(runs) - floored; later {
		runs = runs[whole:]
	} else {
		runs = runs[:whole]
	}
	return differOn(runs, data, ".seg")
}

func differOn(runs []*prepared, data []byte, kind string) error {
	s := &source{data}
	run := runs[s.n(len(runs))]
	files := map[string][]byte{}
	for name, b := range run.files {
		files[name] = bytes.Clone(b)
	}
	var did []string
	for i := s.n(3); i >= 0; i-- {
		did = append(did, damage(files, s, kind))
	}
	mem := vfs.NewMem(vfs.MemOptions{SectorSize: 64 << 10})
	if err := writeFolder(mem, run.dir, files); err != nil {
		return err
	}
	if err := compare(mem, run.dir, files, run.whole); err != nil {
		return fmt.Errorf("%s, %q:\n%w", run.name, did, err)
	}
	return nil
}

// differ is one case by number; a matrix of tests calls it.
func differ(seed uint64, later bool) error {
	r := rand.New(rand.NewPCG(seed, 4))
	data := make([]byte, 96)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	if err := differCase(data, later); err != nil {
		return fmt.Errorf("seed %d: %w", seed, err)
	}
	return nil
}

func TestSlowAndRealAgreeOnDamageToARunThatBeginsLater(t *testing.T) {
	for seed := range uint64(150) {
		if err := differ(seed, true); err != nil {
			t.Error(err)
		}
	}
}

func TestSlowAndRealAgreeOnDamage(t *testing.T) {
	if _, err := prepare(); err != nil {
		t.Fatal(err)
	}
	matrix.Run(t, "differ", func(c *matrix.Cases) error {
		if !c.Next() {
			return nil
		}
		return differ(c.Seed, false)
	})
}

func FuzzSlowAgainstReal(f *testing.F) {
	for seed := range uint64(16) {
		data := make([]byte, 96)
		rand.NewChaCha8([32]byte{byte(seed)}).Read(data)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := differCase(data, false); err != nil {
			t.Fatal(err)
		}
	})
}
