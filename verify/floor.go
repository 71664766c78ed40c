package verify

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"

	"github.com/runlog-io/runlog/index"
	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/segment"
)

// fromFloor leaves out what lies below the run's floor: retention has removed it, or was about to.
func (v *verifier) fromFloor(nums []uint32) []uint32 {
	first := v.m.FirstSegment()
	v.rep.FirstSeq = v.m.FirstSeq()
	if first == 1 {
		return nums
	}
	left, kept := 0, nums[:0:0]
	for _, n := range nums {
		if n >= first {
			kept = append(kept, n)
			continue
		}
		left++
		if fi, err := v.fsys.Stat(v.path(segment.FileName(n))); err == nil {
			v.total -= fi.Size()
		}
	}
	for n := range v.indexes {
		if n < first {
			left++
			delete(v.indexes, n)
		}
	}
	filters := v.filters[:0:0]
	for _, r := range v.filters {
		if r.First >= first {
			filters = append(filters, r)
		} else {
			left++
		}
	}
	v.filters = filters
	v.note("the run begins at seq %d: retention has removed what was in front", v.m.Floor)
	if left > 0 {
		v.note("%d files below segment %d are no longer part of the run: the next retention, or start of the engine, removes them", left, first)
	}
	v.checkPrevFloor()
	v.atFloor()
	return kept
}

// checkPrevFloor checks that the manifest's previous copy knows of what is gone, so that it could stand in.
func (v *verifier) checkPrevFloor() {
	if v.prevFloor == 0 {
		return
	}
	for n := v.prevFloor; n < v.m.FirstSegment(); n++ {
		if !v.names[segment.FileName(n)] {
			v.find(KindManifest, v.path(manifest.PrevName), -1, 0, 0,
				fmt.Sprintf("the previous copy does not know that the run begins with segment %d, and segment %d is gone", v.m.FirstSegment(), n))
			return
		}
	}
}

// atFloor sets the check to the state in front of the floor's segment, as far as the manifest knows it; the rest is in the
// segment's start frame.
func (v *verifier) atFloor() {
	c := &v.c
	*c = carry{allGood: c.allGood, named: true, shaKnown: true, headerSize: c.headerSize, kinds: c.kinds, dropped: c.dropped}
	c.chain = segment.Chain{Seq: v.m.FirstSeq() - 1}
	if _, err := hex.Decode(c.sha[:], []byte(v.m.BaseDigest)); err != nil {
		c.shaKnown = false
	}
	if v.m.BaseEnded != nil { // as if it were the time of one entry, which is gone
		c.entries, c.maxInit = 1, *v.m.BaseEnded
	}
}

// floorMoved reports whether segment n is gone because retention has removed it since the check began. The check then
// goes on at the new floor. An error says that the whole run is gone.
func (v *verifier) floorMoved(n uint32) (bool, error) {
	m, _, err := manifest.Read(v.fsys, v.dir)
	if errors.Is(err, fs.ErrNotExist) {
		if _, serr := v.fsys.Stat(v.dir); errors.Is(serr, fs.ErrNotExist) {
			return false, &format.Error{Path: v.dir, Offset: -1, Why: "the run was removed while it was checked", Err: format.ErrRemoved}
		}
	}
	if err != nil || m.FirstSegment() <= v.m.FirstSegment() || m.FirstSegment() <= n {
		return false, nil
	}
	v.m.FloorSegment, v.m.Floor, v.m.BaseDigest, v.m.BaseEnded = m.FloorSegment, m.Floor, m.BaseDigest, m.BaseEnded
	v.below = v.rep.Segments
	v.rep.FirstSeq = v.m.Floor
	v.note("retention has removed what was in front of seq %d while the run was checked", v.m.Floor)
	v.atFloor()
	return true, nil
}

// isBelow reports whether retention has removed segment n, or the whole run.
func (v *verifier) isBelow(n uint32) bool {
	if n < v.m.FirstSegment() {
		return true
	}
	m, _, err := manifest.Read(v.fsys, v.dir)
	if errors.Is(err, fs.ErrNotExist) {
		_, err = v.fsys.Stat(v.dir)
		return errors.Is(err, fs.ErrNotExist)
	}
	return err == nil && n < m.FirstSegment()
}

// goneBelow reports whether err only says that a derived file of segment n, or of those behind it, has been removed with
// it.
func (v *verifier) goneBelow(n uint32, err error) bool {
	return errors.Is(err, fs.ErrNotExist) && v.isBelow(n)
}

// checkFloor compares the floor with the start frame of its segment.
func (s *seg) checkFloor() {
	m := &s.v.m
	if s.number == m.FloorSegment && s.started && s.start.Prev.Seq+1 != m.Floor {
		s.v.find(KindManifest, s.v.path(manifest.FileName), -1, 0, 0,
			fmt.Sprintf("floor is %d, but segment %d begins at seq %d", m.Floor, s.number, s.start.Prev.Seq+1))
	}
}

// filtersDue lists the filters that a run must have: those of its sealed segments that do not begin below the floor.
func (v *verifier) filtersDue() (due []index.Range) {
	for _, r := range index.Covering(v.lastSealed) {
		if r.First >= v.m.FirstSegment() {
			due = append(due, r)
		}
	}
	return due
}
