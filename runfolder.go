package runlog

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/runlog-io/runlog/vfs"
)

// errNothingBehind: a link in the place of a run leads to an empty folder, as that of a volume that is not mounted.
var errNothingBehind = errors.New("a link in a run's place leads to a folder that holds no run")

// followed reports whether a name in a folder is a link that was followed to a folder, and what it is that cannot be
// one: a plain file (ErrNotRun), or a link that cannot be followed (the system's error). A run that was moved to
// another volume is still the run that was there, so nothing that has a run's name is passed over in silence.
func followed(fsys vfs.FS, dir string, e fs.DirEntry) (link bool, err error) {
	if e.IsDir() {
		return false, nil
	}
	path := filepath.Join(dir, e.Name())
	info, err := fsys.Stat(path)
	if err != nil {
		return false, err
	}
	if !info.IsDir() {
		return false, &Error{Path: path, Offset: -1, Why: "a file with a run's name", Err: ErrNotRun}
	}
	return true, nil
}
