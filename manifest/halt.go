package manifest

import (
	"github.com/runlog-io/runlog/internal/format"
)

// Reasons of a halt.
const (
	ReasonStall    = "stall"     // backpressure past the halt threshold; Stage says where
	ReasonDiskFull = "disk_full" // no space, file size limit or quota
	ReasonCorrupt  = "corrupt"   // the writer found damage
	ReasonIO       = "io"        // any other failed operation
	ReasonAbandon  = "abandoned" // the engine gave the run up
)

// Stages of a stall.
const (
	StageQueue  = "queue"  // a submitter waited for room
	StageCommit = "commit" // a commit was stuck in the disk
	StageAge    = "age"    // the oldest entry was older than its sync policy allows
)

// Halt is the record of why a run halted. It is the body of a halt frame and a field of the manifest.
type Halt struct {
	Reason      string `json:"reason"`  // one of the Reason constants
	Message     string `json:"message"` // for people; at most MaxReason bytes, cut if longer
	Time        int64  `json:"time"`    // ns since 1970 UTC
	Accepted    uint64 `json:"accepted"`
	Durable     uint64 `json:"durable"`                // seqs Durable+1 to Accepted were accepted but are not durable
	Stage       string `json:"stage,omitempty"`        // of a stall
	StalledNs   int64  `json:"stalled_ns,omitempty"`   // of a stall
	ThresholdNs int64  `json:"threshold_ns,omitempty"` // of a stall
}

// Validate checks reason and stage.
func (h *Halt) Validate() error {
	switch h.Reason {
	case ReasonStall, ReasonDiskFull, ReasonCorrupt, ReasonIO, ReasonAbandon:
	default:
		return invalid("Halt.Reason %.40q", h.Reason)
	}
	switch h.Stage {
	case "", StageQueue, StageCommit, StageAge:
	default:
		return invalid("Halt.Stage %.40q", h.Stage)
	}
	return nil
}

// EncodeHalt gives the body of a halt frame: compact JSON of at most MaxHalt bytes.
func EncodeHalt(h Halt) ([]byte, error) {
	if err := h.Validate(); err != nil {
		return nil, err
	}
	h.Message = clip(h.Message)
	return compact(h)
}

// DecodeHalt reads the body of a halt frame whose checksum was verified; path and offset locate errors.
func DecodeHalt(path string, offset int64, b []byte) (Halt, error) {
	var h Halt
	if err := decodeJSON(path, offset, b, &h); err != nil {
		return Halt{}, err
	}
	if err := h.Validate(); err != nil {
		return Halt{}, &format.Error{Path: path, Offset: offset, Why: "halt record: " + err.Error(), Err: format.ErrCorrupt}
	}
	h.Message = clip(h.Message)
	return h, nil
}
