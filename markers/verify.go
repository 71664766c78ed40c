package markers

import (
	"context"
	"fmt"

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
	Dropped   uint64 // records that gaps stand for
	Streams   int
	Final     bool // the markers were closed
	Findings  uint64
}

// Any reports whether the run has markers.
func (s *Summary) Any() bool { return s.Parts+s.Cursors+s.Markers+s.Gaps > 0 }

// Verify reads all records of a run once, and reports what is wrong with them. It takes the log's checksums for granted:
// an error is what reading the log has met, and comes after everything in front of it was verified. Memory grows with the
// number of streams only. A run without markers has nothing to report.
func Verify(ctx context.Context, src Source, report func(Finding)) (Summary, error) {
	var sum Summary
	var rec Record
	f := newFold(src.FirstSeq() > 1)
	find := func(p Problem, detail string) {
		sum.Findings++
		report(Finding{Problem: p, After: rec.After, Record: rec.Seq, Detail: detail})
	}
	for n, err := range src.Notes(wal.NoteOptions{Kinds: allKinds}) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			sum.Streams, sum.Final = len(f.cursors), f.final
			return sum, err
		}
		if err := decode(n, &rec); err != nil {
			sum.Parts++ // something is there
			find(BadRecord, err.Error())
			continue
		}
		whole := f.snap.whole
		f.add(&rec, find)
		if f.snap.whole != whole {
			sum.Snapshots++
		}
		sum.count(&rec)
	}
	sum.Streams, sum.Final = len(f.cursors), f.final
	if sum.Any() && !f.final && src.Status() == manifest.Ended {
		rec = Record{After: src.LastSeq()}
		find(NoFinal, "the run has ended, and its last snapshot is not there: what was observed last may be missing")
	}
	return sum, nil
}

func (s *Summary) count(rec *Record) {
	switch {
	case len(rec.Cursors) > 0 && rec.Part.Snapshot == 0:
		s.Cursors++
	case rec.Part.Snapshot > 0:
		s.Parts++
	case rec.Gap.From > 0:
		s.Gaps++
		if rec.Gap.To >= rec.Gap.From {
			s.Dropped += rec.Gap.To - rec.Gap.From + 1
		}
	default:
		s.Markers++
	}
}
