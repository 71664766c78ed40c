package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/vfs"
)

const tmpSuffix = ".tmp"

// readFile is vfs.ReadFile, where a file that is too large to be one of ours counts as damaged.
func readFile(fsys vfs.FS, name string) ([]byte, error) {
	info, err := fsys.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Size() > MaxSize {
		return nil, &format.Error{
			Path: name, Offset: MaxSize, Err: format.ErrCorrupt,
			Why: fmt.Sprintf("%d bytes, at most %d are possible", info.Size(), MaxSize),
		}
	}
	return vfs.ReadFile(fsys, name, MaxSize)
}

func readOne(fsys vfs.FS, name string) (Manifest, []byte, error) {
	b, err := readFile(fsys, name)
	if err != nil {
		return Manifest{}, nil, err
	}
	m, err := Decode(name, b)
	return m, b, err
}

// lost reports whether err means that a file's content is not to be had, so that its previous copy may stand in. A newer
// version is no such case: its previous copy would be an older truth.
func lost(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, format.ErrCorrupt) || errors.Is(err, format.ErrWrongKind) ||
		errors.Is(err, syscall.EIO)
}

// Read reads the manifest of the run in dir. When it is missing or damaged the previous copy stands in, and warning says
// so and why: the status and what else was written at the seal may then be older than the truth. err wraps
// fs.ErrNotExist when there is neither, else format.ErrCorrupt, format.ErrVersion, format.ErrWrongKind or what reading
// failed with. It writes nothing.
func Read(fsys vfs.FS, dir string) (m Manifest, warning, err error) {
	m, _, err = readOne(fsys, filepath.Join(dir, FileName))
	if err == nil || !lost(err) {
		return m, nil, err
	}
	prev, _, prevErr := readOne(fsys, filepath.Join(dir, PrevName))
	switch {
	case prevErr == nil:
		return prev, fmt.Errorf("%s stands in for the manifest: %w", PrevName, err), nil
	case errors.Is(prevErr, fs.ErrNotExist):
		return Manifest{}, nil, err
	case errors.Is(err, fs.ErrNotExist) || errors.Is(prevErr, format.ErrVersion):
		return Manifest{}, nil, prevErr
	}
	return Manifest{}, nil, fmt.Errorf("%w (and of its previous copy: %v)", err, prevErr)
}

// Write replaces the manifest of the run in dir and keeps the one before as manifest.prev. It is durable when Write
// returns nil; after a crash or an error the old or the new manifest is there, and a whole previous copy beside it. The
// first write stores both alike, so that the fields that only the manifest knows exist twice from the start.
//
// A manifest of another version is not replaced (format.ErrVersion), nor is one of another identity (format.ErrInvalid).
// The caller holds the instance's lock, or works in a folder that nobody else knows.
func Write(fsys vfs.FS, dir string, m Manifest) error {
	b, err := Encode(m)
	if err != nil {
		return err
	}
	name, prevName := filepath.Join(dir, FileName), filepath.Join(dir, PrevName)
	old, prev, err := readOne(fsys, name)
	switch {
	case err == nil:
		if err := sameIdentity(old.Identity, m.Identity); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	case errors.Is(err, fs.ErrNotExist):
		prev = b
	case lost(err):
		prev = nil // a damaged manifest must not replace a whole previous copy
		if _, _, err := readOne(fsys, prevName); err != nil {
			prev = b
		}
	default:
		return err
	}
	// Both files are synced before either gets its name. So each name holds, at every moment, one whole content.
	if prev != nil {
		if err := writeSynced(fsys, prevName+tmpSuffix, prev); err != nil {
			return err
		}
	}
	if err := writeSynced(fsys, name+tmpSuffix, b); err != nil {
		return err
	}
	if prev != nil {
		if err := fsys.Rename(prevName+tmpSuffix, prevName); err != nil {
			return err
		}
	}
	if err := fsys.Rename(name+tmpSuffix, name); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

func sameIdentity(a, b Identity) error {
	x, err1 := EncodeIdentity(a)
	y, err2 := EncodeIdentity(b)
	if err := first(err1, err2); err != nil {
		return err
	}
	if !bytes.Equal(x, y) {
		return invalid("a run's identity never changes: %s is there, %s was to replace it", a.Run, b.Run)
	}
	return nil
}

func writeSynced(fsys vfs.FS, name string, b []byte) error {
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Create(name)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(b, 0); err == nil {
		err = f.Datasync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
