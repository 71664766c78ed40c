package slow

import (
	"path/filepath"
	"testing"

	"github.com/runlog-io/runlog/vfs"
)

func TestSlowAndRealReadTheSame(t *testing.T) {
	runs, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	for _, run := range runs {
		t.Run(run.name, func(t *testing.T) {
			l := run.whole
			t.Logf("%d entries, %d segments, %d files, %d of %d commits proven, torn %d, %+v %s", len(l.Entries), l.Segments, len(run.files), l.Proven, l.Ordinal, l.Torn, l.End, l.Halt)
			if l.End.Verdict != run.end || len(l.Findings) > 0 {
				t.Errorf("slow: %+v %q", l.End, l.Findings)
			}
			for name, on := range map[string]struct {
				fsys vfs.FS
				dir  string
			}{
				"memory": {vfs.NewMem(vfs.MemOptions{}), run.dir},
				"disk":   {vfs.OS, filepath.Join(t.TempDir(), filepath.Base(run.dir))},
			} {
				if err := writeFolder(on.fsys, on.dir, run.files); err != nil {
					t.Fatal(err)
				}
				if err := compare(on.fsys, on.dir, run.files, l); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}
