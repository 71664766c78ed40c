package flow

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
)

// RecordBytes is the size of a market-by-order record.
const RecordBytes = 56

const (
	dbnVersion = 1
	mboType    = 0xA0
	// maxMetadata bounds what a damaged header can make us skip before we say so.
	maxMetadata = 64 << 20
	// maxWindow is what "zstd --long" uses; a damaged header cannot make us allocate more.
	maxWindow = 128 << 20
)

var zstdMagic = []byte{0x28, 0xB5, 0x2F, 0xFD}

var (
	// ErrMalformed: the input is not the format it claims to be, or ends in the middle of something.
	ErrMalformed = errors.New("malformed input")
	// ErrVersion: a format version that this reader does not know.
	ErrVersion = errors.New("unknown format version")
)

// InputError says where the input is wrong. It wraps ErrMalformed, ErrVersion or the read error.
type InputError struct {
	Name   string // of the file
	Offset int64  // in the decompressed stream
	Record int64  // the record that could not be read, from 1; 0 for the header
	Why    string
	Err    error
}

func (e *InputError) Error() string {
	where := "header"
	if e.Record > 0 {
		where = fmt.Sprintf("record %d", e.Record)
	}
	return fmt.Sprintf("%s: %s at offset %d: %s: %v", e.Name, where, e.Offset, e.Why, e.Err)
}

func (e *InputError) Unwrap() error { return e.Err }

// Action is what a venue reports about an order.
type Action byte

// The actions.
const (
	ActionAdd    Action = 'A'
	ActionCancel Action = 'C' // whole or in part: Size is what went away
	ActionModify Action = 'M'
	ActionTrade  Action = 'T' // an order that took; the book does not change
	ActionFill   Action = 'F' // an order that was resting; the book changes with the cancel or modify that follows
	ActionClear  Action = 'R' // all orders of the instrument are gone
)

// Report is one market-by-order record. Field by field as in the format.
type Report struct {
	TsEvent    int64  // ns since 1970 UTC
	TsRecv     int64  // ns since 1970 UTC
	OrderID    uint64 // 0: no order
	Price      int64  // units of 1e-9
	Size       uint32
	Instrument uint32
	Sequence   uint32
	TsInDelta  int32 // ns
	Publisher  uint16
	Flags      uint8
	Channel    uint8
	Action     Action
	Side       byte // 'A' ask, 'B' bid, 'N' none
}

// AppendBinary appends the record as it is in the file, 56 bytes.
func (r *Report) AppendBinary(dst []byte) ([]byte, error) {
	le := binary.LittleEndian
	dst = append(dst, RecordBytes/4, mboType)
	dst = le.AppendUint16(dst, r.Publisher)
	dst = le.AppendUint32(dst, r.Instrument)
	dst = le.AppendUint64(dst, uint64(r.TsEvent))
	dst = le.AppendUint64(dst, r.OrderID)
	dst = le.AppendUint64(dst, uint64(r.Price))
	dst = le.AppendUint32(dst, r.Size)
	dst = append(dst, r.Flags, r.Channel, byte(r.Action), r.Side)
	dst = le.AppendUint64(dst, uint64(r.TsRecv))
	dst = le.AppendUint32(dst, uint32(r.TsInDelta))
	return le.AppendUint32(dst, r.Sequence), nil
}

// UnmarshalBinary reads what AppendBinary wrote.
func (r *Report) UnmarshalBinary(b []byte) error {
	switch {
	case len(b) != RecordBytes:
		return fmt.Errorf("%d bytes, want %d: %w", len(b), RecordBytes, ErrMalformed)
	case b[1] != mboType:
		return fmt.Errorf("record type 0x%02X, want 0x%02X: %w", b[1], mboType, ErrMalformed)
	case b[0] != RecordBytes/4:
		return fmt.Errorf("record length of %d words, want %d: %w", b[0], RecordBytes/4, ErrMalformed)
	case bytes.IndexByte([]byte("ACMTFR"), b[38]) < 0:
		return fmt.Errorf("unknown action %q: %w", b[38], ErrMalformed)
	case bytes.IndexByte([]byte("ABN"), b[39]) < 0:
		return fmt.Errorf("unknown side %q: %w", b[39], ErrMalformed)
	}
	le := binary.LittleEndian
	*r = Report{
		Publisher: le.Uint16(b[2:]), Instrument: le.Uint32(b[4:]), TsEvent: int64(le.Uint64(b[8:])),
		OrderID: le.Uint64(b[16:]), Price: int64(le.Uint64(b[24:])), Size: le.Uint32(b[32:]),
		Flags: b[36], Channel: b[37], Action: Action(b[38]), Side: b[39],
		TsRecv: int64(le.Uint64(b[40:])), TsInDelta: int32(le.Uint32(b[48:])), Sequence: le.Uint32(b[52:]),
	}
	return nil
}

// Reader reads market-by-order data in Databento Binary Encoding, version 1, plain or compressed with zstd. It belongs
// to one goroutine.
type Reader struct {
	name   string
	r      *bufio.Reader
	zstd   *zstd.Decoder // nil for plain input
	file   io.Closer     // nil if the caller owns the input
	offset int64
	record int64
	buf    [RecordBytes]byte
}

// OpenFile opens a file and reads its header. Close it.
func OpenFile(path string) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	r, err := NewReader(f, path)
	if err != nil {
		_ = f.Close() // it was only read
		return nil, err
	}
	r.file = f
	return r, nil
}

// NewReader reads the header; name is for errors. Close frees what the decompression needs, not in.
func NewReader(in io.Reader, name string) (*Reader, error) {
	r := &Reader{name: name, r: bufio.NewReaderSize(in, 1<<16)}
	magic, err := r.r.Peek(len(zstdMagic))
	if err != nil && err != io.EOF {
		return nil, r.fail("read", err)
	}
	if bytes.Equal(magic, zstdMagic) {
		// One goroutine is enough for a few MB, and it is gone after Close.
		r.zstd, err = zstd.NewReader(r.r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, r.fail("zstd", err)
		}
		r.r = bufio.NewReaderSize(r.zstd, 1<<16)
	}
	if err := r.header(); err != nil {
		_ = r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Reader) header() error {
	head := r.buf[:8]
	if n, err := io.ReadFull(r.r, head); err != nil {
		return r.short(n, len(head), err)
	}
	if string(head[:3]) != "DBN" {
		return r.fail(fmt.Sprintf("starts with %q, want \"DBN\"", head[:3]), ErrMalformed)
	}
	if head[3] != dbnVersion {
		return r.fail(fmt.Sprintf("version %d, want %d", head[3], dbnVersion), ErrVersion)
	}
	r.offset = 8
	metadata := int64(binary.LittleEndian.Uint32(head[4:]))
	if metadata > maxMetadata {
		return r.fail(fmt.Sprintf("metadata of %d bytes", metadata), ErrMalformed)
	}
	n, err := io.CopyN(io.Discard, r.r, metadata)
	if err != nil {
		return r.short(int(n), int(metadata), err)
	}
	r.offset += metadata
	return nil
}

// Next reads one record. The error is io.EOF at the end and an *InputError otherwise; after an error there is no next
// record.
func (r *Reader) Next(rec *Report) error {
	r.record++
	n, err := io.ReadFull(r.r, r.buf[:])
	if err == io.EOF {
		r.record--
		return io.EOF
	}
	if n >= 2 { // say that the record is of another kind, rather than that it is too short for ours
		if r.buf[1] != mboType {
			return r.fail(fmt.Sprintf("record type 0x%02X, want 0x%02X", r.buf[1], mboType), ErrMalformed)
		}
		if r.buf[0] != RecordBytes/4 {
			return r.fail(fmt.Sprintf("record length of %d words, want %d", r.buf[0], RecordBytes/4), ErrMalformed)
		}
	}
	if err != nil {
		return r.short(n, RecordBytes, err)
	}
	if err := rec.UnmarshalBinary(r.buf[:]); err != nil {
		return r.fail("bad record", err)
	}
	r.offset += RecordBytes
	return nil
}

// Records is the number of records read so far.
func (r *Reader) Records() int64 { return r.record }

func (r *Reader) fail(why string, err error) error {
	return &InputError{Name: r.name, Offset: r.offset, Record: r.record, Why: why, Err: err}
}

// short reports input that ends, or cannot be read on, after n of want bytes.
func (r *Reader) short(n, want int, err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = ErrMalformed
	}
	return r.fail(fmt.Sprintf("%d of %d bytes could be read", n, want), err)
}

// Close frees the decoder and closes the file if OpenFile opened it.
func (r *Reader) Close() error {
	if r.zstd != nil {
		r.zstd.Close()
	}
	if r.file != nil {
		return r.file.Close()
	}
	return nil
}
