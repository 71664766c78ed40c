package entry

import (
	"fmt"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog/internal/format"
)

// KindNo is a key kind's number within a run. The built-in kinds have fixed numbers, declared ones start at
// FirstUserKind.
type KindNo uint32

// Numbers of the built-in kinds, and the first one for declared kinds.
const (
	NoClientOrderID KindNo = 1
	NoVenueOrderID  KindNo = 2
	NoID            KindNo = 3
	NoCorrelationID KindNo = 4
	FirstUserKind   KindNo = 16
)

// Kinds is an immutable table of key kinds; With makes a bigger one. The zero value holds the built-in kinds. It is safe
// for concurrent use.
type Kinds struct {
	names  []string // of declared kinds, in order of their numbers
	byName map[string]KindNo
}

var builtinKinds = [...]string{"", ClientOrderID, VenueOrderID, KindID, KindCorrID}

// mapFrom is the number of declared kinds from which a map beats comparing one by one.
const mapFrom = 8

// No returns the number of a kind.
func (k *Kinds) No(name string) (KindNo, bool) {
	switch name {
	case ClientOrderID:
		return NoClientOrderID, true
	case VenueOrderID:
		return NoVenueOrderID, true
	case KindID:
		return NoID, true
	case KindCorrID:
		return NoCorrelationID, true
	}
	if k == nil {
		return 0, false
	}
	if k.byName != nil {
		no, ok := k.byName[name]
		return no, ok
	}
	for i, n := range k.names {
		if n == name {
			return FirstUserKind + KindNo(i), true
		}
	}
	return 0, false
}

// Name returns the name of a kind, or "" for an unknown number.
func (k *Kinds) Name(no KindNo) string {
	if no < KindNo(len(builtinKinds)) {
		return builtinKinds[no]
	}
	if k == nil || no < FirstUserKind || int(no-FirstUserKind) >= len(k.names) {
		return ""
	}
	return k.names[no-FirstUserKind]
}

// Declared lists the declared kinds in the order of their numbers, which start at FirstUserKind.
func (k *Kinds) Declared() []string {
	if k == nil {
		return nil
	}
	return append([]string(nil), k.names...)
}

// With returns a table that also holds name. Declaring a kind again returns the same table and number.
func (k *Kinds) With(name string) (*Kinds, KindNo, error) {
	if no, ok := k.No(name); ok {
		return k, no, nil
	}
	if name == "" || len(name) > MaxKindName || !utf8.ValidString(name) {
		return k, 0, fmt.Errorf("%w: key kind %.80q: want 1 to %d bytes of UTF-8", format.ErrInvalid, name, MaxKindName)
	}
	n := &Kinds{}
	if k != nil {
		n.names = append(n.names, k.names...)
	}
	if len(n.names)+int(NoCorrelationID) >= MaxKinds {
		return k, 0, fmt.Errorf("%w: key kind %q: a run can have at most %d kinds", format.ErrInvalid, name, MaxKinds)
	}
	n.names = append(n.names, name)
	if len(n.names) >= mapFrom {
		n.byName = make(map[string]KindNo, len(n.names))
		for i, s := range n.names {
			n.byName[s] = FirstUserKind + KindNo(i)
		}
	}
	return n, FirstUserKind + KindNo(len(n.names)-1), nil
}

// Fingerprint is the 64-bit hash that indexes store in place of a key. Equal fingerprints make a candidate, never a
// match.
func Fingerprint(kind KindNo, value []byte) uint64 {
	return format.Mix(xxhash.Sum64(value) + uint64(kind))
}

// FingerprintString is Fingerprint of a string.
func FingerprintString(kind KindNo, value string) uint64 {
	return format.Mix(xxhash.Sum64String(value) + uint64(kind))
}
