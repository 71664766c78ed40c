package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Holder is what a lock file says about the process that holds the instance. It only serves the error message.
type Holder struct {
	PID   int    `json:"pid"`
	Host  string `json:"host"`
	Since int64  `json:"since"` // ns since 1970 UTC
}

// EncodeHolder gives the content of the lock file.
func EncodeHolder(h Holder) []byte {
	h.Host = clip(h.Host)
	b, err := marshal(h, "")
	if err != nil { // cannot happen: two numbers and a valid string
		return nil
	}
	return b
}

// DecodeHolder reads what it can: a lock file is not checksummed, may be empty and may be in the middle of being
// replaced. ok is false when nothing could be read.
func DecodeHolder(b []byte) (h Holder, ok bool) {
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(&h); err != nil {
		return Holder{}, false
	}
	h.Host = clip(h.Host)
	return h, h != Holder{}
}

// String describes the holder for an error message.
func (h Holder) String() string {
	if h == (Holder{}) {
		return "an unknown process"
	}
	var b strings.Builder
	if h.PID > 0 {
		fmt.Fprintf(&b, "pid %d", h.PID)
	} else {
		b.WriteString("a process")
	}
	if h.Host != "" {
		fmt.Fprintf(&b, " on %s", strings.Trim(fmt.Sprintf("%q", h.Host), `"`))
	}
	if h.Since != 0 {
		fmt.Fprintf(&b, " since %s", time.Unix(0, h.Since).UTC().Format(time.RFC3339))
	}
	return b.String()
}
