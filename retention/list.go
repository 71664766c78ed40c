package retention

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
	"github.com/runlog-io/runlog/wal"
)

// Options say how to gather facts.
type Options struct {
	FS vfs.FS // nil: the real one

	// RestorePoints returns the restore points that a run holds, in any order, each with the reason why its blob is not
	// good, if it is not. An error counts as a run that could not be read. nil: there are none, so nothing can be removed.
	RestorePoints func(r *wal.Reader) ([]RestorePoint, error)

	Own string // id of the run that the caller's process writes; "" for none
}

// List describes the runs of an instance's folder, oldest first. A run that cannot be read is in the list, with the
// reason, and fails nothing. It takes no lock and writes nothing; what it finds is to be relied on only while the caller
// holds the instance.
func List(dir string, o Options) ([]Run, error) {
	if o.FS == nil {
		o.FS = vfs.OS
	}
	names, err := o.FS.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var runs []Run
	for _, e := range names {
		if !manifest.ValidRunID(e.Name()) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if !e.IsDir() { // boots follow links, see runfolder.go
			if info, err := o.FS.Stat(path); err == nil && !info.IsDir() {
				continue
			}
		}
		run := o.describe(e.Name(), path)
		run.Linked = !e.IsDir()
		runs = append(runs, run)
	}
	return runs, nil
}

func (o *Options) describe(id, dir string) Run {
	run := Run{ID: id, Own: id == o.Own}
	m, standIn, err := manifest.Read(o.FS, dir)
	if err == nil {
		run.Parent, run.Origin, run.Status, run.Started = m.Parent, m.Origin, m.Status, m.Started
	}
	if _, quarantined, _ := manifest.ReadQuarantine(o.FS, dir); quarantined {
		run.Status = manifest.Quarantined
	}
	run.Err = errors.Join(standIn, o.measure(&run, dir))
	if rerr := o.read(&run, dir); rerr != nil && run.Err == nil {
		run.Err = rerr
	}
	run.ParentUnknown = err != nil && run.Origin == ""
	return run
}

// measure adds up the run's files.
func (o *Options) measure(run *Run, dir string) error {
	names, err := o.FS.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range names {
		if info, err := o.FS.Stat(filepath.Join(dir, e.Name())); err == nil && !e.IsDir() {
			run.Bytes += info.Size()
		}
	}
	run.Strangers, err = wal.Strangers(o.FS, dir)
	return err
}

// read opens the run.
func (o *Options) read(run *Run, dir string) error {
	r, err := wal.OpenReader(o.FS, dir)
	if err != nil {
		return err
	}
	defer r.Close()
	m := r.Manifest()
	run.Parent, run.Origin, run.Status, run.Started = m.Parent, m.Origin, r.Status(), m.Started
	run.FirstSeq, run.LastSeq, run.Durable = r.FirstSeq(), r.LastSeq(), r.Durable()
	if run.Status == manifest.Quarantined {
		return nil
	}
	if m.Run != run.ID {
		return fmt.Errorf("%s holds run %s", dir, m.Run)
	}
	if err := r.Damage(); err != nil {
		return err
	}
	segments, err := r.Segments()
	if err != nil {
		return err
	}
	for _, s := range segments {
		run.Segments = append(run.Segments, Segment{
			Number: s.Number, Sealed: s.Sealed, FirstSeq: s.FirstSeq, LastSeq: s.LastSeq, Newest: s.MaxPublish, Bytes: s.Bytes,
		})
	}
	if o.RestorePoints == nil {
		return nil
	}
	if run.RestorePoints, err = o.RestorePoints(r); err != nil {
		return fmt.Errorf("its restore points: %w", err)
	}
	return nil
}
