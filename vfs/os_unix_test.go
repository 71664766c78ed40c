//go:build linux || darwin

package vfs

import (
	"path/filepath"
	"testing"
)

func TestWhereSpaceCannotBeReservedFilesGrow(t *testing.T) {
	f := create(t, OS, filepath.Join(t.TempDir(), "a"), "12345").(osFile)
	defer f.Close()
	for _, c := range [][2]int64{{3, 5}, {5, 5}, {9, 9}} {
		must(t, extend(f.File, c[0]))
		if size, err := f.Size(); err != nil || size != c[1] {
			t.Errorf("extended to %d: %d bytes, %v", c[0], size, err)
		}
	}
}
