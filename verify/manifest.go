package verify

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
)

// readManifest reads both copies by themselves: manifest.Read would let one stand in for the other.
func (v *verifier) readManifest() error {
	m, err := v.decodeManifest(manifest.FileName)
	if errors.Is(err, format.ErrVersion) {
		return err
	}
	v.m, v.haveM = m, err == nil
	prev, perr := v.decodeManifest(manifest.PrevName)
	switch {
	case errors.Is(perr, fs.ErrNotExist) && v.haveM && !m.Status.Sealed():
		v.note("%s is missing: its first write was cut off", manifest.PrevName)
	case errors.Is(perr, fs.ErrNotExist):
		v.find(KindManifest, v.path(manifest.PrevName), -1, 0, 0, "the manifest's previous copy is not there")
	case perr != nil:
		v.problem(KindManifest, v.path(manifest.PrevName), perr)
	case !v.haveM:
		v.m = prev
	case !sameIdentity(prev.Identity, m.Identity):
		v.find(KindManifest, v.path(manifest.PrevName), -1, 0, 0, "the previous copy is of another run: "+prev.Run)
	}
	if perr == nil {
		v.prevFloor = prev.FirstSegment()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		v.find(KindManifest, v.path(manifest.FileName), -1, 0, 0, "the manifest is not there")
	case err != nil:
		v.problem(KindManifest, v.path(manifest.FileName), err)
	}
	if v.haveM || perr == nil {
		v.runID = v.m.Run
		v.rep.Run, v.rep.Status = v.m.Run, v.m.Status
		if v.identity, err = manifest.EncodeIdentity(v.m.Identity); err != nil {
			return err
		}
	}
	v.sealed = v.haveM && v.m.Status.Sealed()
	return nil
}

func (v *verifier) decodeManifest(name string) (manifest.Manifest, error) {
	path := v.path(name)
	info, err := v.fsys.Stat(path)
	if err != nil {
		return manifest.Manifest{}, err
	}
	if info.Size() > manifest.MaxSize {
		return manifest.Manifest{}, &format.Error{Path: path, Offset: manifest.MaxSize, Why: "too long", Err: format.ErrCorrupt}
	}
	b, err := vfs.ReadFile(v.fsys, path, manifest.MaxSize)
	if err != nil {
		return manifest.Manifest{}, err
	}
	return manifest.Decode(path, b)
}

func sameIdentity(a, b manifest.Identity) bool {
	x, err1 := manifest.EncodeIdentity(a)
	y, err2 := manifest.EncodeIdentity(b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

func (v *verifier) readQuarantine() {
	q, quarantined, err := manifest.ReadQuarantine(v.fsys, v.dir)
	if !quarantined {
		return
	}
	v.rep.Status = manifest.Quarantined
	path := v.path(manifest.QuarantineName)
	switch {
	case errors.Is(err, format.ErrCorrupt), errors.Is(err, format.ErrWrongKind):
		v.problem(KindQuarantine, path, err)
	case err != nil:
		v.errs = append(v.errs, err)
	default:
		v.find(KindQuarantine, path, -1, q.FirstSeq, q.LastSeq, "the run is quarantined: "+q.Reason)
	}
}

// checkManifest compares the manifest of a sealed run with what the segments say.
func (v *verifier) checkManifest() {
	if !v.haveM {
		if v.c.ended && v.rep.Status != manifest.Quarantined { // the segments tell how the run stands
			v.rep.Status = v.statusByEntries()
		}
		return
	}
	m, path := &v.m, v.path(manifest.FileName)
	differs := func(field string, got, want any) {
		v.find(KindManifest, path, -1, 0, 0, fmt.Sprintf("%s is %v, the segments say %v", field, got, want))
	}
	for i, name := range v.c.kinds {
		if i < len(m.Kinds) && m.Kinds[i].Name == name {
			continue
		}
		if v.sealed || i < len(m.Kinds) {
			differs("kinds", m.Kinds, v.c.kinds)
			break
		}
	}
	if !v.sealed {
		return
	}
	if got := m.FirstSegment() - 1 + uint32(v.rep.Segments-v.below); m.Segments != got {
		differs("segments", m.Segments, got)
	}
	if v.c.known && m.LastSeq != v.c.chain.Seq {
		differs("last_seq", m.LastSeq, v.c.chain.Seq)
	}
	if v.rep.Digest != "" && m.Digest != v.rep.Digest {
		differs("digest", m.Digest, v.rep.Digest)
	}
	if !v.c.allGood {
		return // the rest needs every entry
	}
	if m.DroppedBytes != v.c.dropped {
		differs("dropped_bytes", m.DroppedBytes, v.c.dropped)
	}
	switch {
	case v.c.entries == 0 && m.Ended != nil:
		differs("ended", *m.Ended, "that there is no entry")
	case v.c.entries > 0 && m.Ended == nil:
		differs("ended", "absent", v.c.maxInit)
	case v.c.entries > 0 && *m.Ended != v.c.maxInit:
		differs("ended", *m.Ended, v.c.maxInit)
	}
	if want := v.statusByEntries(); m.Status != want {
		differs("status", m.Status, want)
	}
}

// statusByEntries is how a sealed run ended, by its last entry.
func (v *verifier) statusByEntries() manifest.Status {
	if v.c.lastTopic == entry.TopicEnded && v.c.lastType == entry.TypeEnded {
		return manifest.Ended
	}
	return manifest.CrashedRecovered
}
