package fuzz

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

// bit is a bit of a file of a specimen.
type bit struct {
	specimen, file uint16
	at             uint32 // 8 * byte + bit
}

// dense reports whether every bit of this byte is tried: all of the small specimen that is ended, and elsewhere all that
// says something. Of the zeros that fill up a header, the zeros behind the log and the inside of long payloads one bit in
// some bytes is.
func (s *specimen) dense(f *file, off int64) (step int64, all bool) {
	const identity = 64 + 400
	switch {
	case s.name == "ended":
		return 1, true
	case !f.segment():
		return 1, f.name != manifest.FileName && f.name != manifest.PrevName
	case off >= identity && off < segment.BlockSize:
		return 13, false
	case off >= f.end:
		return 509, false
	case off > segment.BlockSize+500 && off < f.end-300 && f.end > many:
		return 251, false
	}
	return 1, true
}

// bits lists all bits that are flipped one by one.
func bits(list []*specimen) (all []bit) {
	for i, s := range list {
		for j := range s.files {
			f := &s.files[j]
			for off := int64(0); off < int64(len(f.b)); off++ {
				step, dense := s.dense(f, off)
				switch {
				case s.early.hits(f.name, off, off+1): // flipped back it would be whole again
				case dense:
					for b := range uint32(8) {
						all = append(all, bit{uint16(i), uint16(j), uint32(8*off) + b})
					}
				case off%step == 0:
					all = append(all, bit{uint16(i), uint16(j), uint32(8*off + off/step%8)})
				}
			}
		}
	}
	return all
}

// part returns the seed's part of n cases that are tried one by one: neighbors in number go to different seeds, so that a
// few seeds are a sample of all. all is false if the seed is for chance: one in three is, behind those that have all
// parts.
func part(seed uint64, n, size int) (first, step int, all bool) {
	parts := (n + size - 1) / size
	k := int((seed - min(seed, 2)) % uint64(parts+parts/2)) // 2 is the first one
	return k, parts, k < parts
}

// TestRowFlippedBits flips every bit of every kind of file of runs in every state, one by one, and then several bits and
// bytes by chance. Each case is read from end to end; the shares of the dearer judgements are below.
func TestRowFlippedBits(t *testing.T) {
	list := prepared(t)[0]
	all := bits(list)
	var count tally
	matrix.Run(t, "flip", func(c *matrix.Cases) error {
		r := rand.New(rand.NewPCG(c.Seed, 11))
		first, step, ordered := part(c.Seed, len(all), 500)
		if !ordered {
			for range 500 {
				if !c.Next() {
					return nil
				}
				if err := noise(list[r.IntN(len(list))], r, &count); err != nil {
					return fmt.Errorf("case %d: %w", c.N(), err)
				}
			}
			return nil
		}
		copies := map[uint16]*vfs.Mem{}
		for i := first; i < len(all); i += step {
			if !c.Next() {
				return nil
			}
			b := all[i]
			s := list[b.specimen]
			if copies[b.specimen] == nil {
				copies[b.specimen] = s.copy()
			}
			if err := flipBit(s, copies[b.specimen], &s.files[b.file], int64(b.at/8), 1<<(b.at%8), r, &count); err != nil {
				return fmt.Errorf("%s, %s, byte %d, bit %d: %w", s.name, s.files[b.file].name, b.at/8, b.at%8, err)
			}
		}
		return nil
	}, matrix.Detail(func() string { return fmt.Sprintf("%d bits one by one %v", len(all), &count) }))
}

// flipBit judges one flipped bit, and flips it back.
func flipBit(s *specimen, m *vfs.Mem, f *file, off int64, mask byte, r *rand.Rand, t *tally) error {
	share := shares{ask: 12, verify: 16, boot: 64}
	if f.derived() { // what a mere scan hardly reads
		share.ask, share.verify = 2, 4
	}
	if s.name == "ended" {
		share.verify = 1
	}
	name := filepath.Join(s.dir, f.name)
	if err := poke(m, name, off, f.b[off]^mask); err != nil {
		return err
	}
	d := harm{damage: damage{{f.name, off, off + 1}}}
	booted := share.boot
	share.boot = 0
	if err := s.judge(m, d, share, r, t); err != nil {
		return err
	}
	if r.IntN(booted) == 0 { // on a copy, since it changes everything
		t.booted.Add(1)
		if err := s.boot(m.Kill(), d, r); err != nil {
			return err
		}
	}
	return poke(m, name, off, f.b[off])
}

// poke writes a byte, durably.
func poke(m *vfs.Mem, name string, off int64, b byte) error {
	f, err := m.Open(name)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{b}, off)
	return errors.Join(err, f.Datasync(), f.Close())
}

// noise damages one or two files of a specimen in several places, and judges that.
func noise(s *specimen, r *rand.Rand, t *tally) error {
	m := s.copy()
	for range 1 + r.IntN(3) {
		f := &s.files[r.IntN(len(s.files))]
		if len(f.b) == 0 {
			continue
		}
		off := r.Int64N(int64(len(f.b)))
		if r.IntN(4) > 0 {
			off = r.Int64N(f.end) // where there is something
		}
		n := min([]int64{1, 1, 8, 64, 512}[r.IntN(5)], int64(len(f.b))-off)
		if n == 512 {
			off = off / 512 * 512
			n = min(n, int64(len(f.b))-off)
		}
		b := make([]byte, n)
		switch r.IntN(3) {
		case 0: // of another place in the file
			copy(b, f.b[r.Int64N(int64(len(f.b))-n+1):])
		case 1: // noise
			for i := range b {
				b[i] = byte(r.Uint32())
			}
		default: // a bit or two
			copy(b, f.b[off:])
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
		old, err := vfs.ReadFile(m, filepath.Join(s.dir, f.name), 1<<30)
		if err != nil {
			return err
		}
		copy(old[off:], b)
		for _, t := range s.early {
			if t.file == f.name {
				copy(old[t.from:t.to], f.b[t.from:]) // else it could become whole again
			}
		}
		if err := overwrite(m, filepath.Join(s.dir, f.name), old); err != nil {
			return err
		}
	}
	d, err := s.differs(m)
	if err != nil {
		return err
	}
	if err := s.judge(m, harm{damage: d}, shares{ask: 8, verify: 16, boot: 32}, r, t); err != nil {
		return fmt.Errorf("%s, %v: %w", s.name, d, err)
	}
	return nil
}

// differs compares a copy's files with the specimen's.
func (s *specimen) differs(m *vfs.Mem) (d damage, err error) {
	for i := range s.files {
		f := &s.files[i]
		b, err := vfs.ReadFile(m, filepath.Join(s.dir, f.name), 1<<30)
		if err != nil {
			d = append(d, touch{f.name, 0, int64(len(f.b))})
			continue
		}
		d = append(d, compare(f, b)...)
	}
	return d, nil
}

// compare returns where b is not the file's content. What is near each other counts as one.
func compare(f *file, b []byte) (d damage) {
	for i := range min(len(b), len(f.b)) {
		if b[i] == f.b[i] {
			continue
		}
		if n := len(d); n > 0 && int64(i) < d[n-1].to+8 {
			d[n-1].to = int64(i) + 1
		} else {
			d = append(d, touch{f.name, int64(i), int64(i) + 1})
		}
	}
	if n := int64(len(b)); n != int64(len(f.b)) {
		d = append(d, touch{f.name, min(n, int64(len(f.b))), max(n, int64(len(f.b)))})
	}
	return d
}
