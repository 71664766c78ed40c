package verify_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runlog-io/runlog/verify"
	"github.com/runlog-io/runlog/vfs"
)

// faulty cuts files with one suffix to nothing as soon as they have been mapped: to who reads the mapping that is what a
// sector is that the medium does not give.
type faulty struct {
	vfs.FS
	ext string
}

type faultyFile struct {
	vfs.File
	path, ext string
}

func (f faulty) OpenRead(name string) (vfs.File, error) {
	file, err := f.FS.OpenRead(name)
	if err != nil {
		return nil, err
	}
	return faultyFile{file, name, f.ext}, nil
}

func (f faultyFile) Map(n int64) (vfs.Mapping, error) {
	m, err := f.File.Map(n)
	if err == nil && filepath.Ext(f.path) == f.ext {
		err = os.Truncate(f.path, 0)
	}
	return m, err
}

func TestADerivedFileThatFaultsIsAFindingAndTheCheckGoesOn(t *testing.T) {
	for _, ext := range []string{".idx", ".flt"} {
		dir := sealed(t)
		derived := 0
		for _, name := range names(t, dir) {
			if strings.HasSuffix(name, ext) {
				derived++
			}
		}
		if derived == 0 {
			t.Fatalf("the run has no %s", ext)
		}
		rep, err := verify.Run(t.Context(), faulty{vfs.OS, ext}, dir, verify.Options{})
		if err != nil {
			t.Fatalf("%s: %v", ext, err)
		}
		for _, f := range rep.Findings {
			if filepath.Ext(f.Path) != ext && filepath.Ext(f.Path) != ".flt" {
				t.Errorf("%s: %+v", ext, f)
			}
		}
		if len(rep.Findings) < derived {
			t.Errorf("%s: %d findings for %d files", ext, len(rep.Findings), derived)
		}
	}
}
