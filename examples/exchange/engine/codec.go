package engine

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/examples/exchange/book"
	"github.com/runlog-io/runlog/examples/exchange/flow"
)

// Topics and payload types of the log's entries.
const (
	TopicCommands = "exchange.commands"
	TopicEvents   = "exchange.events"
	TopicReports  = "venue.reports"
)

var (
	commandTypes = [...]string{book.Submit: "SubmitOrder", book.Modify: "ModifyOrder", book.Cancel: "CancelOrder"}
	eventTypes   = [...]string{
		book.Accepted: "OrderAccepted", book.Rejected: "OrderRejected", book.Modified: "OrderModified",
		book.Cancelled: "OrderCancelled", book.Filled: "OrderFilled",
	}
)

// ReportType is the payload type of a venue report; "" if there is no such action.
func ReportType(a flow.Action) string {
	switch a {
	case flow.ActionAdd:
		return "ReportAdd"
	case flow.ActionCancel:
		return "ReportCancel"
	case flow.ActionModify:
		return "ReportModify"
	case flow.ActionTrade:
		return "ReportTrade"
	case flow.ActionFill:
		return "ReportFill"
	case flow.ActionClear:
		return "ReportClear"
	}
	return ""
}

// Event is an event of the book with its place in the log's story. It is also the message to the client.
type Event struct {
	book.Event
	N       uint64 // number of the event, from 1; clients see messages without gaps
	Command uint64 // the command that caused it
	At      int64  // ns; the command's, so that the event is the same when it is made again
}

var errPayload = errors.New("malformed payload")

// The payloads are rows of varints: most numbers are small, and the payload type says which they are.

func appendCommand(dst []byte, c *flow.Command) []byte {
	dst = binary.AppendUvarint(dst, c.N)
	dst = binary.AppendUvarint(dst, c.Order)
	dst = binary.AppendVarint(dst, c.Price)
	dst = binary.AppendUvarint(dst, uint64(c.Qty))
	return append(dst, byte(c.Action), byte(c.Side))
}

func decodeCommand(b []byte, c *flow.Command) error {
	d := decoder{b: b}
	c.N, c.Order, c.Price, c.Qty = d.uvarint(), d.uvarint(), d.varint(), uint32(d.uvarint())
	c.Action, c.Side = book.Action(d.byte()), book.Side(d.byte())
	return d.end()
}

// AppendEvent appends an event in binary form; DecodeEvent reads it. The time is not part of it: entries have their
// own.
func AppendEvent(dst []byte, e *Event) []byte {
	dst = binary.AppendUvarint(dst, e.N)
	dst = binary.AppendUvarint(dst, e.Command)
	dst = binary.AppendUvarint(dst, e.Order)
	dst = binary.AppendUvarint(dst, e.Venue)
	dst = binary.AppendUvarint(dst, e.Match)
	dst = binary.AppendVarint(dst, e.Price)
	dst = binary.AppendUvarint(dst, uint64(e.Qty))
	dst = binary.AppendUvarint(dst, uint64(e.Leaves))
	return append(dst, byte(e.Kind), byte(e.Reason), byte(e.Side))
}

// DecodeEvent reads what AppendEvent wrote.
func DecodeEvent(b []byte, e *Event) error {
	d := decoder{b: b}
	e.N, e.Command, e.Order, e.Venue, e.Match = d.uvarint(), d.uvarint(), d.uvarint(), d.uvarint(), d.uvarint()
	e.Price, e.Qty, e.Leaves = d.varint(), uint32(d.uvarint()), uint32(d.uvarint())
	e.Kind, e.Reason, e.Side = book.Kind(d.byte()), book.Reason(d.byte()), book.Side(d.byte())
	return d.end()
}

// decoder reads from the front; the first failure sticks.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.bad = true
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) end() error {
	if d.bad || len(d.b) > 0 {
		return fmt.Errorf("%w: cut short, or %d bytes too many", errPayload, len(d.b))
	}
	return nil
}

// idDomain keeps ids of different things apart.
type idDomain uint64

const (
	orderIDs idDomain = 1 + iota
	commandIDs
	eventIDs
)

// newID makes the id of thing number n: the same in every run of the same seed, so that what is made again has its old
// id. The form is that of a version 8 UUID.
func newID(seed uint64, of idDomain, n uint64) (id entry.ID) {
	hi := (seed + uint64(of)) * 0x9e3779b97f4a7c15
	hi ^= hi >> 29
	binary.BigEndian.PutUint64(id[:8], hi&^0xF000|0x8000)
	binary.BigEndian.PutUint64(id[8:], n&(1<<62-1)|1<<63)
	return id
}

// ParseCommand reads a command's entry, for display; false if it is none.
func ParseCommand(typ string, payload []byte) (c flow.Command, ok bool) {
	ok = decodeCommand(payload, &c) == nil && c.Action >= book.Submit && c.Action <= book.Cancel &&
		typ == commandTypes[c.Action]
	return c, ok
}

// ParseEvent reads an event's entry, for display; false if it is none.
func ParseEvent(typ string, payload []byte) (e Event, ok bool) {
	ok = DecodeEvent(payload, &e) == nil && e.Kind >= book.Accepted && e.Kind <= book.Filled && typ == eventTypes[e.Kind]
	return e, ok
}
