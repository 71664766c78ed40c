package fuzz

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runlog-io/runlog/fuzz/matrix"
	"github.com/runlog-io/runlog/vfs"
)

// cutting is a file of a specimen cut to a length, or with zeros from there on.
type cutting struct {
	specimen, file int
	keep           int64
	zeros          bool
}

// cuttings lists every length of every file: all of them up to the last byte that says something, then some; of long
// payloads' insides some. Zeros are tried from each such place of a segment that
// is a multiple of 8, unless eight zeros stand before it, and from each of other files.
func cuttings(list []*specimen) (all []cutting) {
	for i, s := range list {
		for j := range s.files {
			f := &s.files[j]
			for n := int64(0); n < int64(len(f.b)); n++ {
				if step, dense := s.dense(f, n); !dense && n%step != 0 {
					continue
				}
				all = append(all, cutting{i, j, n, false})
				if n < f.end && (n%8 == 0 || !f.segment()) && !bytes.Equal(f.b[max(n-8, 0):n], make([]byte, n-max(n-8, 0))) {
					all = append(all, cutting{i, j, n, true})
				}
			}
		}
	}
	return all
}

// TestRowCutFiles cuts every file of runs in every state at every length, or fills it with zeros from there on, and then
// cuts two files by chance. A segment of a sealed run must then be told; so must one that is being written and was cut,
// since it was made with its full size; one that ends in zeros is an acknowledged prefix, as far as anything vouches for
// it, or told. Each case is read from end to end; the shares of the dearer judgements are below.
func TestRowCutFiles(t *testing.T) {
	list := prepared(t)[0]
	all := cuttings(list)
	var count tally
	matrix.Run(t, "cut", func(c *matrix.Cases) error {
		r := rand.New(rand.NewPCG(c.Seed, 12))
		first, step, ordered := part(c.Seed, len(all), 500)
		for i := first; i < len(all) || !ordered && i < first+500*step; i += step {
			if !c.Next() {
				return nil
			}
			cuts := []cutting{}
			if ordered {
				cuts = append(cuts, all[i])
			} else {
				a, b := all[r.IntN(len(all))], all[r.IntN(len(all))]
				for b.specimen != a.specimen {
					b = all[r.IntN(len(all))]
				}
				cuts = append(cuts, a, b)
			}
			if err := cutAll(list, cuts, r, &count); err != nil {
				return err
			}
		}
		return nil
	}, matrix.Detail(func() string { return fmt.Sprintf("%d cuts one by one %v", len(all), &count) }))
}

// cutAll cuts files of one specimen and judges that.
func cutAll(list []*specimen, cuts []cutting, r *rand.Rand, t *tally) error {
	s := list[cuts[0].specimen]
	m := s.copy()
	var what []string
	short := false
	for _, c := range cuts {
		f := &s.files[c.file]
		what = append(what, fmt.Sprintf("%s, keeps %d of %d bytes, zeros: %v", f.name, c.keep, len(f.b), c.zeros))
		if err := cutFile(m, filepath.Join(s.dir, f.name), c, int64(len(f.b))); err != nil {
			return err
		}
	}
	for _, c := range cuts {
		f := &s.files[c.file]
		info, err := m.Stat(filepath.Join(s.dir, f.name))
		if err != nil {
			return err
		}
		short = len(cuts) == 1 && f.log && info.Size() < int64(len(f.b)) && (s.sealed || f == s.active())
	}
	d, err := s.differs(m)
	if err == nil {
		err = s.judge(m, harm{damage: d, told: short}, shares{ask: 8, verify: 16, boot: 32}, r, t)
	}
	if err != nil {
		return fmt.Errorf("%s, %s: %w", s.name, strings.Join(what, "; "), err)
	}
	return nil
}

// active is the segment that was being written last.
func (s *specimen) active() (last *file) {
	for i := range s.files {
		if s.files[i].log {
			last = &s.files[i]
		}
	}
	return last
}

func cutFile(m *vfs.Mem, name string, c cutting, size int64) error {
	f, err := m.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(c.keep); err != nil {
		return err
	}
	if c.zeros {
		if err := f.Truncate(size); err != nil {
			return err
		}
	}
	return f.Datasync()
}
