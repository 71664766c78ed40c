package wal

import (
	"errors"
	"math"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/runlog-io/runlog/index"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
	"github.com/runlog-io/runlog/vfs"
)

// checkedWhole is how many bytes of indexes and filters recovery reads from end to end, the newest first. Of all others
// it reads header and dictionary, so that the time for a boot does not grow with the keys of the run; what is wrong
// elsewhere in them is found, and worked around, by the look-up that meets it. Mend reads all of it.
const checkedWhole = 4 << 20

// derived are the files of a run that are made of its sealed segments: indexes and filters.
type derived struct {
	fsys  vfs.FS
	dir   string
	set   *segSet
	files *files // maps what is on the disk, once that is mended
	whole int64  // bytes that may still be read whole
	fresh uint32 // segments from this number on have got their indexes from this process, just now; 0: none
}

func newDerived(fsys vfs.FS, dir, run string, set *segSet, whole int64) *derived {
	d := &derived{fsys: fsys, dir: dir, set: set, whole: whole, files: newFiles(fsys, dir, maxOpenFiles, func(error) {})}
	d.files.run = run
	return d
}

// mend names the files that are missing, damaged or of an earlier version, and writes them if write is set. The error
// says which could not be written: their segments are damaged, or the disk is full. For each index a whole segment is
// read.
func (d *derived) mend(write bool) (names []string, err error) {
	defer d.files.closeAll()
	for _, ref := range slices.Backward(d.set.segs) {
		if ref.open.Load() != nil || d.fresh > 0 && ref.number >= d.fresh || !d.badIndex(ref) {
			continue
		}
		names = append(names, index.FileName(ref.number))
		if write {
			err = errors.Join(err, d.writeIndex(ref))
		}
	}
	for _, ref := range d.set.segs {
		for _, r := range index.Due(ref.number) {
			if !d.badFilter(r) {
				continue
			}
			names = append(names, index.FilterName(r.First, r.Last))
			if write {
				buildFilter(d.fsys, d.dir, d.files, d.set, r, func(e error) { err = errors.Join(err, e) })
			}
		}
	}
	slices.Sort(names)
	return names, err
}

// badIndex reports whether a segment's index has to be written anew. Whether the segment itself is whole is not its
// business.
func (d *derived) badIndex(ref *segRef) bool {
	in, err := d.files.loadInfo(ref)
	if err != nil {
		return false
	}
	f, err := index.Open(d.fsys, filepath.Join(d.dir, index.FileName(ref.number)), indexWant(&in.header, &in.footer))
	if err != nil {
		return unusable(err)
	}
	defer f.Close()
	return d.spend(f.Size()) && unusable(f.VerifyAll())
}

// badFilter is the same for a filter. One over segments that cannot be read cannot be judged.
func (d *derived) badFilter(r index.Range) bool {
	var salts []uint64
	for n := r.First; n <= r.Last; n++ {
		ref := d.set.byNumber(n)
		if ref == nil || ref.open.Load() != nil {
			return false
		}
		in, err := d.files.loadInfo(ref)
		if err != nil {
			return false
		}
		salts = append(salts, in.header.Salt)
	}
	path := filepath.Join(d.dir, index.FilterName(r.First, r.Last))
	f, err := index.OpenFilter(d.fsys, path, index.FilterWant{First: r.First, Last: r.Last, Salts: index.ChainSalts(salts...)})
	if err != nil {
		return unusable(err)
	}
	defer f.Close()
	return d.spend(int64(f.KeyCount()/6)) && unusable(f.VerifyAll()) // about 10 bits for each key
}

// spend reports whether n more bytes may be read whole.
func (d *derived) spend(n int64) bool {
	if n > d.whole {
		return false
	}
	d.whole -= n
	return true
}

func (d *derived) writeIndex(ref *segRef) error {
	in, err := d.files.loadInfo(ref)
	if err != nil {
		return err
	}
	o, err := rebuild(d.fsys, ref.path, in)
	if err != nil { // what is there may still help to salvage the segment
		return err
	}
	return writeIndex(d.fsys, d.dir, o, &in.footer)
}

// unusable reports whether a derived file that cannot be used may be replaced: not for a passing reason, nor when a
// later build, which knows more, has written it.
func unusable(err error) bool {
	switch {
	case err == nil, errors.Is(err, format.ErrVersion) && !errors.Is(err, format.ErrOlder):
		return false
	}
	return ofContent(err) || errors.Is(err, errNotExist) || errors.Is(err, format.ErrMappingLost) || errors.Is(err, syscall.EIO)
}

// Mend puts back what a sealed run has besides its segments: a manifest that is lost, and indexes and filters that are
// missing, damaged or of an earlier version. It reads each of these files whole, and returns the names of those that it
// has written, or would write if write is not set; then it changes nothing. The segments are not touched. A run that is
// not sealed is Recover's to end. The caller holds the instance's lock if write is set.
func Mend(fsys vfs.FS, dir string, now int64, write bool) (names []string, err error) {
	names, err = mendRun(fsys, dir, now, false)
	if write && err == nil && len(names) > 0 {
		// What this names lacks what recovery has put back with the manifest. After an error, what is still to be done was not written.
		if _, err = mendRun(fsys, dir, now, true); err != nil {
			left, _ := mendRun(fsys, dir, now, false)
			names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(left, name) })
		}
	}
	return names, err
}

func mendRun(fsys vfs.FS, dir string, now int64, write bool) (names []string, err error) {
	m, names, err := mendManifest(fsys, dir, now, write)
	if err != nil {
		return names, err
	}
	st, err := examine(fsys, dir, floorOf(&m), func(h *segment.Header) string {
		if m.Run == "" {
			if id, err := manifest.DecodeIdentity("", 0, h.Identity); err == nil {
				m.Identity = id
			}
		}
		return m.Run
	})
	if st != nil {
		defer st.close()
	}
	if err != nil {
		return names, err
	}
	if damage := st.verdict(); damage != nil {
		return names, damage
	}
	more, err := newDerived(fsys, dir, m.Run, st.set, math.MaxInt64).mend(write)
	return append(names, more...), err
}

// mendManifest puts back the manifest, or its previous copy, and returns what is known of it.
func mendManifest(fsys vfs.FS, dir string, now int64, write bool) (m manifest.Manifest, names []string, err error) {
	m, standIn, merr := manifest.Read(fsys, dir)
	switch {
	case errors.Is(merr, format.ErrVersion) || passing(merr):
		return m, nil, merr
	case merr != nil || standIn != nil:
		names = []string{manifest.FileName}
		if write {
			rec, err := Recover(fsys, dir, now)
			return rec.Manifest, names, errors.Join(err, rec.Damage)
		}
	case unusable(prevError(fsys, dir)):
		names = []string{manifest.PrevName}
		if write {
			err = manifest.Write(fsys, dir, m) // which keeps a copy
		}
	}
	return m, names, err
}

// prevError is what is wrong with the manifest's previous copy.
func prevError(fsys vfs.FS, dir string) error {
	path := filepath.Join(dir, manifest.PrevName)
	b, err := vfs.ReadFile(fsys, path, manifest.MaxSize)
	if err == nil {
		_, err = manifest.Decode(path, b)
	}
	return err
}
