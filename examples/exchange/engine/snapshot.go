package engine

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/runlog-io/runlog/examples/exchange/book"
	"github.com/runlog-io/runlog/examples/exchange/flow"
)

// magic begins a snapshot and says which version of the engine can read it.
const magic = "exchange snapshot 1\n"

var errSnapshot = errors.New("malformed snapshot")

// Covers is the last seq of its own run whose effects are in the engine's state.
func (e *Engine) Covers() uint64 { return e.lastSeq }

// Snapshot appends the whole state in binary form: all that Hash covers. It is taken between two commands, when the events
// of the last one are captured.
func (e *Engine) Snapshot(dst []byte) ([]byte, error) {
	if e.Missing() > 0 {
		return dst, fmt.Errorf("command %d is not finished", e.last.N)
	}
	dst = append(dst, magic...)
	for _, n := range []uint64{e.seed, e.commands, e.events, e.reports, e.strays, uint64(e.last.At)} {
		dst = binary.AppendUvarint(dst, n)
	}
	last := appendCommand(nil, &e.last)
	dst = append(append(dst, byte(len(last))), last...)
	dst = e.book.Append(dst)
	dst = binary.AppendUvarint(dst, uint64(len(e.mirrors)))
	for _, instrument := range slices.Sorted(maps.Keys(e.mirrors)) {
		dst = binary.AppendUvarint(dst, uint64(instrument))
		dst = e.mirrors[instrument].Append(dst)
	}
	return dst, nil
}

// restore makes the state that of a snapshot. After an error the state is what it was.
func (e *Engine) restore(from io.Reader) error {
	r := bufio.NewReader(from)
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(r, head); err != nil {
		return err
	}
	if string(head) != magic {
		return fmt.Errorf("%w: it begins with %q", errSnapshot, head)
	}
	var n [6]uint64
	var err error
	for i := range n {
		if n[i], err = binary.ReadUvarint(r); err != nil {
			return err
		}
	}
	size, err := r.ReadByte()
	if err != nil {
		return err
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	last := flow.Command{At: int64(n[5])}
	if err := decodeCommand(body, &last); err != nil {
		return err
	}
	b, mirrors, err := readBooks(r)
	if err != nil {
		return err
	}
	switch {
	case n[0] != e.seed:
		return fmt.Errorf("%w: of seed %d, this engine has %d", errSnapshot, n[0], e.seed)
	case last.N != n[1]:
		return fmt.Errorf("%w: the last command is %d of %d", errSnapshot, last.N, n[1])
	}
	e.commands, e.events, e.reports, e.strays, e.last = n[1], n[2], n[3], n[4], last
	e.book, e.mirrors, e.made, e.logged = b, mirrors, e.made[:0], 0
	return nil
}

func readBooks(r *bufio.Reader) (*book.Book, map[uint32]*book.Book, error) {
	b, err := book.Read(r)
	if err != nil {
		return nil, nil, err
	}
	count, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, nil, err
	}
	mirrors := make(map[uint32]*book.Book)
	for range count {
		instrument, err := binary.ReadUvarint(r)
		if err != nil {
			return nil, nil, err
		}
		if mirrors[uint32(instrument)], err = book.Read(r); err != nil {
			return nil, nil, err
		}
	}
	if _, err := r.ReadByte(); err != io.EOF {
		return nil, nil, errSnapshot
	}
	return b, mirrors, nil
}
