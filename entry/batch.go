package entry

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"github.com/runlog-io/runlog/internal/format"
)

// Check says whether a draft keeps the limits; the error names the field. maxPayload is the run's limit in bytes.
func (d *Draft) Check(kinds *Kinds, maxPayload int) error {
	if err := checkText("topic", d.Topic, MaxTopic); err != nil {
		return err
	}
	if err := checkText("type", d.Type, MaxType); err != nil {
		return err
	}
	if len(d.Payload) > maxPayload {
		return fmt.Errorf("%w: payload of %d bytes, the limit is %d", format.ErrInvalid, len(d.Payload), maxPayload)
	}
	if len(d.Keys) > MaxKeys {
		return fmt.Errorf("%w: %d keys, the limit is %d", format.ErrInvalid, len(d.Keys), MaxKeys)
	}
	for i := range d.Keys {
		no, ok := kinds.No(d.Keys[i].Kind)
		if !ok {
			return fmt.Errorf("%w: key %d: %w: %.80q", format.ErrInvalid, i, format.ErrUnknownKind, d.Keys[i].Kind)
		}
		if no == NoID || no == NoCorrelationID {
			return fmt.Errorf("%w: key %d: kind %q is taken from the entry's fields", format.ErrInvalid, i, d.Keys[i].Kind)
		}
		if v := d.Keys[i].Value; v == "" || len(v) > MaxKeyValue || !utf8.ValidString(v) {
			return fmt.Errorf("%w: key %d (%s): value %.300q: want 1 to %d bytes of UTF-8",
				format.ErrInvalid, i, d.Keys[i].Kind, v, MaxKeyValue)
		}
	}
	return nil
}

func checkText(field, s string, limit int) error {
	if s == "" || len(s) > limit || !utf8.ValidString(s) {
		return fmt.Errorf("%w: %s %.300q: want 1 to %d bytes of UTF-8", format.ErrInvalid, field, s, limit)
	}
	return nil
}

// Batch is an arena of drafts, and of notes between them, on their way to the log, in submit order. Adding copies; memory is
// kept by Reset, so a warm batch does not allocate. It is not safe for concurrent use.
type Batch struct {
	recs  []record
	notes []noteRecord
	buf   []byte
}

// record is one draft in the arena: topic, type and tail lie back to back at buf[start:end].
type record struct {
	tsInit    int64
	tsPublish int64
	start     uint32
	end       uint32
	topicLen  uint8
	typeLen   uint8
	flags     uint8
}

// Size is the number of arena bytes that a draft takes, a close upper bound.
func (d *Draft) Size() int {
	n := len(d.Topic) + len(d.Type) + len(d.Payload) + 3*16 + 4
	for i := range d.Keys {
		n += len(d.Keys[i].Value) + 6
	}
	return n
}

// Add appends a checked draft with its publish time.
func (b *Batch) Add(d *Draft, kinds *Kinds, tsPublish int64) {
	r := record{
		tsInit: d.TsInit, tsPublish: tsPublish, start: uint32(len(b.buf)),
		topicLen: uint8(len(d.Topic)), typeLen: uint8(len(d.Type)),
	}
	buf := append(b.buf, d.Topic...)
	buf = append(buf, d.Type...)
	if d.ID != (ID{}) {
		r.flags |= HasID
		buf = append(buf, d.ID[:]...)
	}
	if d.CorrelationID != (ID{}) {
		r.flags |= HasCorrelation
		buf = append(buf, d.CorrelationID[:]...)
	}
	if d.CausationID != (ID{}) {
		r.flags |= HasCausation
		buf = append(buf, d.CausationID[:]...)
	}
	if len(d.Keys) > 0 {
		r.flags |= HasKeys
		buf = appendKeys(buf, d.Keys, kinds)
	}
	b.buf = append(buf, d.Payload...)
	r.end = uint32(len(b.buf))
	b.recs = append(b.recs, r)
}

func appendKeys(buf []byte, keys []Key, kinds *Kinds) []byte {
	n := 0
	for i := range keys {
		no, _ := kinds.No(keys[i].Kind)
		n += uvarintLen(uint64(no)) + uvarintLen(uint64(len(keys[i].Value))) + len(keys[i].Value)
	}
	buf = binary.AppendUvarint(buf, uint64(n))
	for i := range keys {
		no, _ := kinds.No(keys[i].Kind)
		buf = binary.AppendUvarint(buf, uint64(no))
		buf = binary.AppendUvarint(buf, uint64(len(keys[i].Value)))
		buf = append(buf, keys[i].Value...)
	}
	return buf
}

// Len is the number of drafts.
func (b *Batch) Len() int { return len(b.recs) }

// Bytes is the number of arena bytes in use.
func (b *Batch) Bytes() int { return len(b.buf) }

// Reset empties the batch and keeps its memory, unless that has grown beyond keepBytes.
func (b *Batch) Reset(keepBytes int) {
	b.recs, b.notes = b.recs[:0], b.notes[:0]
	if cap(b.buf) > keepBytes {
		b.buf = nil
	}
	b.buf = b.buf[:0]
}

// Item is one draft of a batch, in place.
type Item struct {
	Name      []byte // topic and type, back to back
	TopicLen  int
	Tail      []byte // ids, keys and payload in their binary form
	TsInit    int64
	TsPublish int64
	Flags     uint8
}

// At returns draft i; it is valid until the batch changes.
func (b *Batch) At(i int) Item {
	r := &b.recs[i]
	p := b.buf[r.start:r.end]
	n := int(r.topicLen) + int(r.typeLen)
	return Item{
		Name: p[:n:n], TopicLen: int(r.topicLen), Tail: p[n:],
		TsInit: r.tsInit, TsPublish: r.tsPublish, Flags: r.flags,
	}
}

// IndexKeys calls yield for everything that the entry can be looked up by, as View.IndexKeys does.
func (it *Item) IndexKeys(yield func(kind KindNo, value []byte) bool) {
	at := 0
	if it.Flags&HasID != 0 {
		if !yield(NoID, it.Tail[:16]) {
			return
		}
		at += 16
	}
	if it.Flags&HasCorrelation != 0 {
		if !yield(NoCorrelationID, it.Tail[at:at+16]) {
			return
		}
		at += 16
	}
	if it.Flags&HasKeys == 0 {
		return
	}
	if it.Flags&HasCausation != 0 {
		at += 16
	}
	n, at, _ := uvarint(it.Tail, at)
	for end := at + int(n); at < end; {
		kind, value, next, _ := nextKey(it.Tail[:end], at)
		if !yield(kind, value) {
			return
		}
		at = next
	}
}

// Cost bounds the bytes that draft i takes in a segment, its share of the dictionary included.
func (b *Batch) Cost(i int) int {
	r := &b.recs[i]
	return int(r.end-r.start) + 96
}
