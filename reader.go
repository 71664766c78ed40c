package runlog

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// ReaderOptions say how to open runs for reading. The zero value is useful.
type ReaderOptions struct {
	FS vfs.FS // nil: the real one
}

func (o *ReaderOptions) fs() vfs.FS {
	if o.FS == nil {
		return vfs.OS
	}
	return o.FS
}

// OpenReader opens a run's folder for reading: a sealed run, one that crashed, or one that another process writes. It
// takes no lock and writes nothing. Damage does not stop it; see Reader.Damage and Reader.Warnings.
func OpenReader(dir string, o ReaderOptions) (*Reader, error) { return wal.OpenReader(o.fs(), dir) }

// RunInfo describes a run in a listing.
type RunInfo struct {
	Instance string
	Run      string // empty if the instance's folder is a link that cannot be followed
	Dir      string
	Manifest Manifest
	Status   Status
	Live     bool  // not sealed, and a process holds the instance
	Err      error // the folder or manifest could not be read, or the manifest's previous copy stands in for it

	Quarantine string // why the run is quarantined
}

// List describes all runs under a base folder, by instance and start time. It reads manifests only, follows links to
// folders, and lists with its error what has a run's name and cannot be read. ErrNotRun: the folder holds no instance with a run.
func List(base string, o ReaderOptions) ([]RunInfo, error) {
	fsys := o.fs()
	instances, err := fsys.ReadDir(base)
	if err != nil {
		return nil, err
	}
	var list []RunInfo
	for _, in := range instances {
		if !manifest.ValidInstance(in.Name()) {
			continue
		}
		dir := filepath.Join(base, in.Name())
		if _, err := followed(fsys, base, in); errors.Is(err, ErrNotRun) {
			continue // a file
		} else if err != nil {
			list = append(list, RunInfo{Instance: in.Name(), Dir: dir, Err: err})
			continue
		}
		names, err := fsys.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		_, held, _ := fsys.LockHolder(filepath.Join(dir, manifest.LockName))
		for _, e := range names {
			if !manifest.ValidRunID(e.Name()) {
				continue
			}
			info := RunInfo{Instance: in.Name(), Run: e.Name(), Dir: filepath.Join(dir, e.Name())}
			if _, info.Err = followed(fsys, dir, e); info.Err == nil {
				info = describe(fsys, in.Name(), e.Name(), info.Dir, held)
			}
			list = append(list, info)
		}
	}
	for i, newer := len(list)-1, ""; i >= 0; i-- { // the live run is the newest unsealed one of its instance; an import may be newer
		if list[i].Live && list[i].Instance == newer {
			list[i].Live = false
		} else if list[i].Live {
			newer = list[i].Instance
		}
	}
	if len(list) == 0 {
		return nil, &Error{Path: base, Offset: -1, Why: "no runs of any instance", Err: ErrNotRun}
	}
	return list, nil
}

func describe(fsys vfs.FS, instance, run, dir string, held bool) RunInfo {
	m, warning, err := manifest.Read(fsys, dir)
	info := RunInfo{Instance: instance, Run: run, Dir: dir, Manifest: m, Status: m.Status, Err: errors.Join(err, warning)}
	info.Live = held && m.Status == manifest.Running && err == nil
	if q, quarantined, err := manifest.ReadQuarantine(fsys, dir); quarantined {
		info.Status = manifest.Quarantined
		info.Live = false
		info.Quarantine = q.Reason
		if err != nil {
			info.Quarantine = fmt.Sprintf("its quarantine file cannot be read: %v", err)
		}
	}
	return info
}
