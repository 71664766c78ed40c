// Package retention decides which runs of an instance, and which segments of a run, may be removed, and has them removed.
//
// It works in three steps. List gathers facts: it reads, and changes nothing. Policy.Plan is a pure function from facts to
// a Plan, which says for every run what stays, what goes, and why. Apply carries a plan out, and nothing is removed before
// somebody calls it. Whoever applies a plan holds the instance's lock from List to Apply: an engine does, through its
// *runlog.Run, and so does the operator's tool, through Folder.
//
// Whatever the policy, these stay:
//
//   - runs that are quarantined, not sealed, imported, or that could not be read; a folder that holds more than a run;
//   - everything, while no restore point is known to be good: its blob was verified, and what it covers is durable;
//   - the run of the newest good restore point, from that point on;
//   - the newest run, since ids go on from it, and the one by which the engine's next start decides what to continue;
//   - whatever a run that stays needs for its restore, even if the newest restore point that it could use were lost: its
//     ancestors back to the second newest good restore point, or all of them if there are fewer than two;
//   - a run without which a later start could continue an older one that stays, though it was done with.
//
// Segments go from the front of a run only, and only those in front of the one that holds the last seq which the
// oldest needed restore point covers: the restore point itself stands behind that seq.
package retention

import (
	"fmt"

	"github.com/runlog-io/runlog/internal/format"
	"github.com/runlog-io/runlog/manifest"
)

// RestorePoint is a snapshot of an engine's state, from which replay can go on.
type RestorePoint struct {
	Seq uint64 // the last seq that it covers
	Err error  // why it cannot be used; nil: its blob was verified
}

// Segment is a segment of a run, as far as retention cares.
type Segment struct {
	Number   uint32
	Sealed   bool
	FirstSeq uint64
	LastSeq  uint64 // below FirstSeq if there is no entry
	Newest   int64  // greatest ts_publish, ns; 0 if there is no entry, or it is not sealed
	Bytes    int64  // of all its files
}

// Run is what is known of a run.
type Run struct {
	ID       string
	Parent   string // run id, "" for none
	Origin   string
	Status   manifest.Status
	Own      bool // the caller's process writes it
	FirstSeq uint64
	LastSeq  uint64
	Durable  uint64 // last seq that is proven durable
	Started  int64  // ns
	Bytes    int64  // of all its files
	Segments []Segment

	RestorePoints []RestorePoint
	ParentUnknown bool     // neither its manifest nor its segments could be read
	Linked        bool     // its folder is a link: a run that was moved to another volume
	Strangers     []string // what its folder holds that is not part of a run
	Err           error    // why it could not be read, or not as a whole
}

// Policy says what may go. Something goes only if every rule that is set lets it; the zero value, which has no rule,
// keeps everything.
type Policy struct {
	// Bounded keeps the newest KeepLast runs, whole. Only sealed runs that could be read and are not quarantined count.
	Bounded  bool
	KeepLast int // only with Bounded; at least 0

	// Anchored keeps everything from the second newest good restore point of the instance on, and so everything while
	// there is only one: if the blob of the newest is lost, the one before must do.
	Anchored bool

	// Before keeps what was published at this time or later, ns since 1970 UTC. 0: age does not matter.
	Before int64

	// MaxBytes removes, oldest first, whole runs and then segments, no more than it takes for the instance's runs to have
	// at most so many bytes. 0: as much as the other rules let.
	MaxBytes int64
}

// Full reports whether the policy keeps everything.
func (p *Policy) Full() bool { return *p == Policy{} }

// Check refuses a policy that makes no sense; the error names the field and wraps runlog.ErrInvalid.
func (p *Policy) Check() error {
	switch {
	case p.KeepLast < 0:
		return fmt.Errorf("%w: policy KeepLast is %d, want at least 0", format.ErrInvalid, p.KeepLast)
	case p.KeepLast > 0 && !p.Bounded:
		return fmt.Errorf("%w: policy KeepLast is %d, but Bounded is not set", format.ErrInvalid, p.KeepLast)
	case p.Before < 0:
		return fmt.Errorf("%w: policy Before is %d, want a time after 1970", format.ErrInvalid, p.Before)
	case p.MaxBytes < 0:
		return fmt.Errorf("%w: policy MaxBytes is %d, want at least 1, or 0 for no limit", format.ErrInvalid, p.MaxBytes)
	}
	return nil
}

// Plan says of every run what stays and what goes. It is data: printing it, or sending it as JSON, changes nothing.
type Plan struct {
	Items   []Item `json:"items"`         // by run, oldest first; a run of which a part goes has two
	Bytes   int64  `json:"bytes"`         // of all runs, now
	Removed int64  `json:"removed_bytes"` // of what goes
	Over    int64  `json:"over_bytes"`    // of what must stay, above MaxBytes
}

// Item is a run, or the first or the other segments of one.
type Item struct {
	Run      string          `json:"run"`
	Status   manifest.Status `json:"status,omitempty"`
	Remove   bool            `json:"remove"`
	First    uint32          `json:"first_segment,omitempty"` // 0: the whole run
	Last     uint32          `json:"last_segment,omitempty"`
	FirstSeq uint64          `json:"first_seq,omitempty"`
	LastSeq  uint64          `json:"last_seq,omitempty"`
	Bytes    int64           `json:"bytes"`
	Reason   string          `json:"reason"`
	Points   []Point         `json:"restore_points,omitempty"` // of the run, with the item that stays
}

// Point is a restore point as a plan shows it.
type Point struct {
	Seq     uint64 `json:"seq"`
	Problem string `json:"problem,omitempty"` // why it does not count
}

// Removals counts the items that go.
func (p *Plan) Removals() (n int) {
	for i := range p.Items {
		if p.Items[i].Remove {
			n++
		}
	}
	return n
}
