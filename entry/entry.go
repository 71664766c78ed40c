package entry

import (
	"encoding/hex"
	"fmt"

	"github.com/runlog-io/runlog/internal/format"
)

// Limits. Those without an option are part of the format's contract.
const (
	MaxTopic    = 255      // bytes of a topic, at least 1, UTF-8
	MaxType     = 255      // bytes of a payload type, at least 1, UTF-8
	MaxKindName = 64       // bytes of a key kind's name, at least 1, UTF-8
	MaxKeyValue = 255      // bytes of a key's value, at least 1, UTF-8
	MaxKeys     = 1024     // keys of one entry
	MaxKinds    = 256      // key kinds of one run, the built-in ones included; every segment repeats the declared ones
	MaxPayload  = 8 << 20  // bytes of a payload, the hard limit; the default of the option is DefaultMaxPayload
	MaxEntry    = 12 << 20 // bytes of one encoded entry, all parts together

	DefaultMaxPayload = 1 << 20
)

// LifecyclePrefix starts the topics of the entries that runlog itself writes; drafts may not use it.
const LifecyclePrefix = "run.lifecycle."

// The lifecycle entries: seq 1 of each run, and the last entry of each run that ended cleanly.
const (
	TopicStarted = LifecyclePrefix + "RunStarted"
	TypeStarted  = "RunStarted"
	TopicEnded   = LifecyclePrefix + "RunEnded"
	TypeEnded    = "RunEnded"
)

// The built-in key kinds. The first two are for callers; the last two are what ids and correlation ids are looked up by.
const (
	ClientOrderID = "client_order_id"
	VenueOrderID  = "venue_order_id"
	KindID        = "id"
	KindCorrID    = "correlation_id"
)

// ID is a 16-byte id, usually a UUID. The zero value means that there is none.
type ID [16]byte

// IsZero reports whether the id is unset.
func (id ID) IsZero() bool { return id == ID{} }

// String gives the lowercase UUID text form, 36 characters.
func (id ID) String() string {
	var b [36]byte
	hex.Encode(b[0:8], id[0:4])
	b[8] = '-'
	hex.Encode(b[9:13], id[4:6])
	b[13] = '-'
	hex.Encode(b[14:18], id[6:8])
	b[18] = '-'
	hex.Encode(b[19:23], id[8:10])
	b[23] = '-'
	hex.Encode(b[24:36], id[10:16])
	return string(b[:])
}

// ParseID reads the UUID text form, in either case. The all-zero id is refused, since it means "unset".
func ParseID(s string) (ID, error) {
	var id ID
	bad := func() (ID, error) {
		return ID{}, fmt.Errorf("%w: id %.60q is not a UUID (8-4-4-4-12 hex digits)", format.ErrInvalid, s)
	}
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return bad()
	}
	var digits [32]byte
	n := 0
	for i := 0; i < 36; i++ {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			continue
		}
		digits[n] = s[i]
		n++
	}
	if _, err := hex.Decode(id[:], digits[:]); err != nil {
		return bad()
	}
	if id.IsZero() {
		return ID{}, fmt.Errorf("%w: the all-zero id means \"unset\"", format.ErrInvalid)
	}
	return id, nil
}

// Key makes an entry findable: a declared kind and a value.
type Key struct {
	Kind  string // ClientOrderID, VenueOrderID or a declared kind
	Value string // 1 to MaxKeyValue bytes, UTF-8
}

// Draft is an entry before the writer has given it a seq. Submitting copies everything; the caller may reuse all slices.
type Draft struct {
	Topic         string
	Type          string // payload type
	Payload       []byte // may be empty
	TsInit        int64  // the message's own time, ns since 1970 UTC; never used for order
	ID            ID     // of this entry; causation ids name it; indexed
	CorrelationID ID     // indexed
	CausationID   ID     // the ID of the entry that caused this one
	Keys          []Key

	// TsPublish is used by imports only, where it must increase with every entry; 0 lets the writer stamp it.
	TsPublish int64
}

// Entry is a copy of an entry that the caller owns.
type Entry struct {
	Seq           uint64 // from 1, without gaps, the only replay order
	TsInit        int64
	TsPublish     int64 // stamped by the writer, strictly increasing
	Topic         string
	Type          string
	Payload       []byte
	ID            ID
	CorrelationID ID
	CausationID   ID
	Keys          []Key
}

// Draft returns the draft that would make this entry again.
func (e *Entry) Draft() Draft {
	return Draft{
		Topic: e.Topic, Type: e.Type, Payload: e.Payload, TsInit: e.TsInit, TsPublish: e.TsPublish,
		ID: e.ID, CorrelationID: e.CorrelationID, CausationID: e.CausationID, Keys: e.Keys,
	}
}

// IsLifecycle reports whether runlog itself wrote the entry.
func (e *Entry) IsLifecycle() bool { return isLifecycle(e.Topic) }

func isLifecycle(topic string) bool {
	return len(topic) >= len(LifecyclePrefix) && topic[:len(LifecyclePrefix)] == LifecyclePrefix
}
