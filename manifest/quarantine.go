package manifest

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/runlog-io/runlog/vfs"
)

// Quarantine is the verdict of a recovery that found acknowledged data damaged.
type Quarantine struct {
	Time     int64  `json:"time"`   // ns since 1970 UTC
	Reason   string `json:"reason"` // for people; at most MaxReason bytes, cut if longer
	File     string `json:"file"`   // in the run's folder, "" when it is not about one file
	Offset   int64  `json:"offset"` // in the file, -1 when it does not apply
	FirstSeq uint64 `json:"first_seq"`
	LastSeq  uint64 `json:"last_seq"` // seqs that are affected, 0 when unknown
}

// EncodeQuarantine gives the content of a quarantine file.
func EncodeQuarantine(q Quarantine) ([]byte, error) {
	q.Reason, q.File = clip(q.Reason), clip(q.File)
	body, err := marshal(q, "  ")
	if err != nil {
		return nil, err
	}
	return seal(magicQuarantine, Version, body), nil
}

// DecodeQuarantine reads the content of a quarantine file. Errors are those of Decode.
func DecodeQuarantine(path string, b []byte) (Quarantine, error) {
	body, off, err := open(path, b, magicQuarantine)
	if err != nil {
		return Quarantine{}, err
	}
	var q Quarantine
	if err := decodeJSON(path, off, body, &q); err != nil {
		return Quarantine{}, err
	}
	q.Reason, q.File = clip(q.Reason), clip(q.File)
	return q, nil
}

// ReadQuarantine tells whether the run in dir is quarantined, and why. quarantined is false only when there is no such
// file for sure: a damaged or unreadable one still quarantines, and err says what is wrong with it.
func ReadQuarantine(fsys vfs.FS, dir string) (q Quarantine, quarantined bool, err error) {
	name := filepath.Join(dir, QuarantineName)
	b, err := readFile(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return Quarantine{}, false, nil
	}
	if err == nil {
		q, err = DecodeQuarantine(name, b)
	}
	return q, true, err
}

// WriteQuarantine quarantines the run in dir. It is durable when WriteQuarantine returns nil.
func WriteQuarantine(fsys vfs.FS, dir string, q Quarantine) error {
	b, err := EncodeQuarantine(q)
	if err != nil {
		return err
	}
	return vfs.WriteFileAtomic(fsys, dir, filepath.Join(dir, QuarantineName), b)
}
