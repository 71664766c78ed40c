package entry

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/runlog-io/runlog/internal/format"
)

// Flags of an entry frame's kind byte: which optional parts its body has.
const (
	HasID          = 1 << 0
	HasCorrelation = 1 << 1
	HasCausation   = 1 << 2
	HasKeys        = 1 << 3
)

// uvarintLen is the number of bytes of v as a uvarint.
func uvarintLen(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// AppendHead appends the first part of an entry's body: route (0 with inline strings) and times. What follows it, the
// tail, does not depend on the segment: see Batch.
func AppendHead(dst []byte, baseTime int64, route uint32, inline Route, tsInit, tsPublish int64) []byte {
	dst = binary.AppendUvarint(dst, uint64(route))
	if route == 0 {
		dst = binary.AppendUvarint(dst, uint64(len(inline.Topic)))
		dst = append(dst, inline.Topic...)
		dst = binary.AppendUvarint(dst, uint64(len(inline.Type)))
		dst = append(dst, inline.Type...)
	}
	dst = binary.AppendUvarint(dst, uint64(tsPublish-baseTime))
	d := tsPublish - tsInit
	return binary.AppendUvarint(dst, uint64(d)<<1^uint64(d>>63))
}

// MaxHead bounds the length of what AppendHead appends.
const MaxHead = 3*binary.MaxVarintLen64 + 2*2 + MaxTopic + MaxType

// View is an entry in place. It is valid as long as the memory behind it: until the next step of the iterator, or the
// next use of the buffer, that it came from; Clone makes a copy that lasts.
type View struct {
	dict       *Dict
	body       []byte
	seq        uint64
	tsInit     int64
	tsPublish  int64
	route      uint32
	idsAt      uint32
	keysAt     uint32 // first key
	payloadAt  uint32 // also the end of the keys
	flags      uint8
	topicBytes uint8 // inline route
	typeBytes  uint8
}

func malformed(what string) error {
	return fmt.Errorf("entry body: %s: %w", what, format.ErrCorrupt)
}

// uvarint decodes like binary.Uvarint, and refuses longer than shortest forms.
func uvarint(b []byte, at int) (v uint64, next int, ok bool) {
	if at < len(b) && b[at] < 0x80 {
		return uint64(b[at]), at + 1, true
	}
	return longUvarint(b, at)
}

// longUvarint is for more than one byte. Up to eight, a time for instance, are decoded at once: the gaps between their groups of
// 7 bits are closed.
func longUvarint(b []byte, at int) (v uint64, next int, ok bool) {
	if at+8 <= len(b) {
		const more = 0x8080808080808080
		v = binary.LittleEndian.Uint64(b[at:])
		if last := ^v & more; last != 0 {
			last &= -last // the highest bit of the last byte
			end := at + bits.TrailingZeros64(last)/8
			if b[end] == 0 {
				return 0, at, false
			}
			v &= (last - 1) &^ more
			v = v&0x007f007f007f007f | v>>1&0x3f803f803f803f80
			v = v&0x00003fff00003fff | v>>2&0x0fffc0000fffc000
			return v&0x000000000fffffff | v>>4&0x00fffffff0000000, end + 1, true
		}
	}
	if at >= len(b) {
		return 0, at, false
	}
	v, n := binary.Uvarint(b[at:])
	if n <= 0 || b[at+n-1] == 0 {
		return 0, at, false
	}
	return v, at + n, true
}

// ParseView reads the body of an entry frame, without its padding. flags are the low bits of the frame's kind. All
// lengths are checked, so the methods of the View cannot fail; the view borrows body and dict.
func ParseView(dict *Dict, seq uint64, flags uint8, body []byte) (v View, err error) {
	v.dict, v.seq, v.flags, v.body = dict, seq, flags, body
	if len(body) > 1<<24 {
		return v, malformed("too long")
	}
	route, at, ok := uvarint(body, 0)
	if !ok || route > 1<<31 {
		return v, malformed("route")
	}
	v.route = uint32(route)
	if route == 0 {
		if at, ok = v.parseInline(at); !ok {
			return v, malformed("inline route")
		}
	} else if _, ok := dict.Route(v.route); !ok {
		return v, malformed(fmt.Sprintf("route %d is not in the dictionary", route))
	}
	pub, at, ok := uvarint(body, at)
	if !ok {
		return v, malformed("publish time")
	}
	zz, at, ok := uvarint(body, at)
	if !ok {
		return v, malformed("init time")
	}
	v.tsPublish = dict.BaseTime + int64(pub)
	v.tsInit = v.tsPublish - (int64(zz>>1) ^ -int64(zz&1))
	v.idsAt = uint32(at)
	at += 16 * bits.OnesCount8(flags&(HasID|HasCorrelation|HasCausation))
	if at > len(body) {
		return v, malformed("ids")
	}
	v.keysAt, v.payloadAt = uint32(at), uint32(at)
	if flags&HasKeys != 0 {
		n, first, ok := uvarint(body, at)
		if !ok || n > uint64(len(body)-first) {
			return v, malformed("keys")
		}
		v.keysAt, v.payloadAt = uint32(first), uint32(first)+uint32(n)
		for at := first; at < int(v.payloadAt); {
			_, _, next, ok := nextKey(body[:v.payloadAt], at)
			if !ok {
				return v, malformed("keys")
			}
			at = next
		}
	}
	return v, nil
}

func (v *View) parseInline(at int) (int, bool) {
	n, at, ok := uvarint(v.body, at)
	if !ok || n == 0 || n > MaxTopic || n > uint64(len(v.body)-at) {
		return at, false
	}
	v.topicBytes = uint8(n)
	at += int(n)
	n, at, ok = uvarint(v.body, at)
	if !ok || n == 0 || n > MaxType || n > uint64(len(v.body)-at) {
		return at, false
	}
	v.typeBytes = uint8(n)
	return at + int(n), true
}

func nextKey(b []byte, at int) (kind KindNo, value []byte, next int, ok bool) {
	k, at, ok := uvarint(b, at)
	if !ok || k > 1<<20 {
		return 0, nil, at, false
	}
	n, at, ok := uvarint(b, at)
	if !ok || n > uint64(len(b)-at) {
		return 0, nil, at, false
	}
	return KindNo(k), b[at : at+int(n)], at + int(n), true
}

// Seq returns the entry's sequence number.
func (v *View) Seq() uint64 { return v.seq }

// TsInit returns the message's own time, in ns.
func (v *View) TsInit() int64 { return v.tsInit }

// TsPublish returns the time stamped at submit, in ns.
func (v *View) TsPublish() int64 { return v.tsPublish }

// Topic returns the topic.
func (v *View) Topic() string {
	if v.route == 0 {
		at := 1 + uvarintLen(uint64(v.topicBytes))
		return string(v.body[at : at+int(v.topicBytes)])
	}
	r, _ := v.dict.Route(v.route)
	return r.Topic
}

// Type returns the payload type.
func (v *View) Type() string {
	if v.route == 0 {
		at := 1 + uvarintLen(uint64(v.topicBytes)) + int(v.topicBytes) + uvarintLen(uint64(v.typeBytes))
		return string(v.body[at : at+int(v.typeBytes)])
	}
	r, _ := v.dict.Route(v.route)
	return r.Type
}

// RouteNo returns the number of the route in the segment's dictionary, 0 if the strings are inline.
func (v *View) RouteNo() uint32 { return v.route }

// Payload returns the payload, in place.
func (v *View) Payload() []byte { return v.body[v.payloadAt:] }

func (v *View) idAt(flag uint8) (id ID) {
	if v.flags&flag == 0 {
		return id
	}
	before := v.flags & (flag - 1) & (HasID | HasCorrelation | HasCausation)
	copy(id[:], v.body[int(v.idsAt)+16*bits.OnesCount8(before):])
	return id
}

// ID returns the entry's own id; zero if it has none.
func (v *View) ID() ID { return v.idAt(HasID) }

// CorrelationID returns the correlation id; zero if it has none.
func (v *View) CorrelationID() ID { return v.idAt(HasCorrelation) }

// CausationID returns the causation id; zero if it has none.
func (v *View) CausationID() ID { return v.idAt(HasCausation) }

// IsLifecycle reports whether runlog itself wrote the entry.
func (v *View) IsLifecycle() bool { return isLifecycle(v.Topic()) }

// Keys calls yield for each key, in the draft's order, until it returns false. Values are in place.
func (v *View) Keys(yield func(kind string, value []byte) bool) {
	kinds := v.dict.Kinds()
	v.KeyNos(func(no KindNo, value []byte) bool { return yield(kinds.Name(no), value) })
}

// KeyNos is Keys with the kinds' numbers.
func (v *View) KeyNos(yield func(kind KindNo, value []byte) bool) {
	for at := int(v.keysAt); at < int(v.payloadAt); {
		kind, value, next, _ := nextKey(v.body[:v.payloadAt], at)
		if !yield(kind, value) {
			return
		}
		at = next
	}
}

// IndexKeys calls yield for everything that the entry can be looked up by: its keys, its id and its correlation id.
func (v *View) IndexKeys(yield func(kind KindNo, value []byte) bool) {
	at := int(v.idsAt)
	if v.flags&HasID != 0 {
		if !yield(NoID, v.body[at:at+16]) {
			return
		}
		at += 16
	}
	if v.flags&HasCorrelation != 0 && !yield(NoCorrelationID, v.body[at:at+16]) {
		return
	}
	v.KeyNos(yield)
}

// HasKey reports whether the entry can be looked up by this key.
func (v *View) HasKey(kind KindNo, value string) bool {
	found := false
	v.IndexKeys(func(k KindNo, val []byte) bool {
		found = k == kind && string(val) == value
		return !found
	})
	return found
}

// Clone copies the entry.
func (v *View) Clone() Entry {
	e := Entry{
		Seq: v.seq, TsInit: v.tsInit, TsPublish: v.tsPublish, Topic: v.Topic(), Type: v.Type(),
		Payload: append([]byte{}, v.Payload()...),
		ID:      v.ID(), CorrelationID: v.CorrelationID(), CausationID: v.CausationID(),
	}
	v.Keys(func(kind string, value []byte) bool {
		e.Keys = append(e.Keys, Key{Kind: kind, Value: string(value)})
		return true
	})
	return e
}
