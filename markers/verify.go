package markers

import (
	"context"
	"fmt"
	"slices"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/wal"
)

// Finding is something that is wrong with a run's markers.
type Finding struct {
	Problem Problem
	After   uint64 // seq of the entry that the record stands behind
	Record  uint64 // its number; 0: there is none
	Detail  string
}

func (f Finding) String() string {
	where := fmt.Sprintf("behind seq %d", f.After)
	if f.Record > 0 {
		where = fmt.Sprintf("record %d, %s", f.Record, where)
	}
	return fmt.Sprintf("markers: %s: %s: %s", f.Problem, where, f.Detail)
}

// Summary counts what Verify has read.
type Summary struct {
	Snapshots uint64 // whole ones
	Parts     uint64 // of snapshots
	Cursors   uint64 // cursor records
	Markers   uint64
	Gaps      uint64
	Bad       uint64 // records that cannot be decoded
	Dropped   uint64 // records that gaps stand for
	Streams   int
	Final     bool // the markers were closed
	Findings  uint64
}

// Any reports whether the run has markers.
func (s *Summary) Any() bool { return s.Parts+s.Cursors+s.Markers+s.Gaps+s.Bad > 0 }

// Verifier finds what is wrong with a run's records. They are handed to it in the order of the log, by Verify or by whoever
// reads the log anyway. Memory grows with the number of streams only.
type Verifier struct {
	f      *fold
	rec    Record
	sum    Summary
	report func(Finding)
}

// NewVerifier returns a verifier that calls report for each finding, as soon as it is known. suffix: the front of the log is
// not there any more.
func NewVerifier(suffix bool, report func(Finding)) *Verifier {
	return &Verifier{f: newFold(suffix), report: report}
}

func (v *Verifier) find(p Problem, detail string) {
	v.sum.Findings++
	v.report(Finding{Problem: p, After: v.rec.After, Record: v.rec.Seq, Detail: detail})
}

// Add verifies the next note. Notes that are no records of the markers are passed over.
func (v *Verifier) Add(n entry.Note) {
	if !slices.Contains(allKinds, n.Kind) {
		return
	}
	if err := decode(n, &v.rec); err != nil {
		v.sum.Bad++
		v.find(BadRecord, err.Error())
		return
	}
	whole := v.f.snap.whole
	v.f.add(&v.rec, v.find)
	if v.f.snap.whole != whole {
		v.sum.Snapshots++
	}
	v.sum.count(&v.rec)
}

// End verifies the end: the markers of a run that was closed were closed before it. It returns what was read.
func (v *Verifier) End(status manifest.Status, lastSeq uint64) Summary {
	v.sum.Streams, v.sum.Final = len(v.f.cursors), v.f.final
	if v.sum.Any() && !v.f.final && status == manifest.Ended {
		v.rec = Record{After: lastSeq}
		v.find(NoFinal, "the run has ended, and its last snapshot is not there: what was observed last may be missing")
	}
	return v.sum
}

// Verify reads all records of a run once, and reports what is wrong with them. It takes the log's checksums for granted:
// an error is what reading the log has met, and comes after everything in front of it was verified. A run without markers
// has nothing to report.
func Verify(ctx context.Context, src Source, report func(Finding)) (Summary, error) {
	v := NewVerifier(src.FirstSeq() > 1, report)
	for n, err := range src.Notes(wal.NoteOptions{Kinds: allKinds}) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return v.End(manifest.Running, 0), err
		}
		v.Add(n)
	}
	return v.End(src.Status(), src.LastSeq()), nil
}

func (s *Summary) count(rec *Record) {
	switch rec.Kind {
	case entry.NoteStreams:
		s.Parts++
	case entry.NoteCursor:
		s.Cursors++
	case entry.NoteMarker:
		s.Markers++
	case entry.NoteGap:
		s.Gaps++
		if rec.Gap.To >= rec.Gap.From {
			s.Dropped += rec.Gap.To - rec.Gap.From + 1
		}
	}
}
