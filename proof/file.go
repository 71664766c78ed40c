package proof

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/runlog-io/runlog/entry"
)

// fileVersion of the proof files that this build writes and reads.
const fileVersion = 1

// maxLine bounds a line of a proof file: an entry has at most entry.MaxEntry bytes, and JSON makes up to 6 of one.
const maxLine = 6*entry.MaxEntry + 64<<10

// header is the first line of a proof file.
type header struct {
	Version   int    `json:"runlog_proof"`
	Statement string `json:"statement"` // its text, without signatures
	Entries   int    `json:"entries"`   // lines that follow
}

// line is an entry in a proof file.
type line struct {
	Seq           uint64      `json:"seq"`
	Topic         string      `json:"topic"`
	Type          string      `json:"type"`
	TsInit        int64       `json:"ts_init"`
	TsPublish     int64       `json:"ts_publish"`
	ID            string      `json:"id,omitempty"`
	CorrelationID string      `json:"correlation_id,omitempty"`
	CausationID   string      `json:"causation_id,omitempty"`
	Keys          [][2]string `json:"keys"` // in the entry's order
	Payload       *string     `json:"payload,omitempty"`
	PayloadBase64 []byte      `json:"payload_base64,omitempty"` // of a payload that is not UTF-8
	Path          []Hash      `json:"path"`
}

func newLine(e *entry.Entry, path []Hash) *line {
	l := &line{
		Seq: e.Seq, Topic: e.Topic, Type: e.Type, TsInit: e.TsInit, TsPublish: e.TsPublish,
		ID: idText(e.ID), CorrelationID: idText(e.CorrelationID), CausationID: idText(e.CausationID),
		Keys: make([][2]string, len(e.Keys)), Path: append([]Hash{}, path...),
	}
	for i, k := range e.Keys {
		l.Keys[i] = [2]string{k.Kind, k.Value}
	}
	if utf8.Valid(e.Payload) {
		text := string(e.Payload)
		l.Payload = &text
	} else {
		l.PayloadBase64 = e.Payload
	}
	return l
}

func (l *line) entry() (e entry.Entry, err error) {
	e = entry.Entry{
		Seq: l.Seq, TsInit: l.TsInit, TsPublish: l.TsPublish, Topic: l.Topic, Type: l.Type, Payload: l.PayloadBase64,
	}
	if l.Payload != nil {
		e.Payload = []byte(*l.Payload)
	}
	for _, id := range [...]struct {
		to   *entry.ID
		text string
	}{{&e.ID, l.ID}, {&e.CorrelationID, l.CorrelationID}, {&e.CausationID, l.CausationID}} {
		if id.text != "" {
			if *id.to, err = entry.ParseID(id.text); err != nil {
				return e, err
			}
		}
	}
	for _, k := range l.Keys {
		e.Keys = append(e.Keys, entry.Key{Kind: k[0], Value: k[1]})
	}
	return e, nil
}

func idText(id entry.ID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

// encode gives the only form that a line of a proof file may have.
func encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return buf.Bytes(), err
}

// decode reads a line. JSON has many forms of the same content, and decoders forgive much: what is not byte for byte
// what encode makes of it is refused, so that a proof cannot be read in two ways.
func decode(b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	return sameForm(b, v)
}

func sameForm(b []byte, v any) error {
	same, err := encode(v)
	if err != nil || !bytes.Equal(b, same) {
		return fmt.Errorf("not in the form that a proof has: %w", ErrInvalid)
	}
	return nil
}

// Writer writes a proof file.
type Writer struct {
	w    io.Writer
	st   Statement
	left int
	last uint64
	leaf []byte
}

// NewWriter begins a proof file for a number of entries, at least 1.
func NewWriter(w io.Writer, st Statement, entries int) (*Writer, error) {
	b, err := encode(header{Version: fileVersion, Statement: st.Text(), Entries: entries})
	if err == nil {
		_, err = w.Write(b)
	}
	return &Writer{w: w, st: st, left: entries}, err
}

// Add writes an entry and its path. Entries come in seq order. What would not pass Check is not written: ErrInvalid.
func (w *Writer) Add(e *entry.Entry, path []Hash) error {
	b, err := encode(newLine(e, path))
	if err != nil {
		return err
	}
	if w.left == 0 {
		return fmt.Errorf("seq %d: one entry more than was said: %w", e.Seq, ErrInvalid)
	}
	if _, err = checkLine(b, &w.st, w.last, &w.leaf); err != nil {
		return err
	}
	w.last = e.Seq
	w.left--
	_, err = w.w.Write(b)
	return err
}

// Close ends the file. It does not close what it was written to.
func (w *Writer) Close() error {
	if w.left > 0 {
		return fmt.Errorf("%d entries are missing: %w", w.left, ErrInvalid)
	}
	return nil
}

// Check reads a proof file and says whether it holds under a statement that the caller trusts. each gets every entry
// that is proven, in seq order; what it has got is proven even if a later one is not. An error of its ends the check.
// Errors wrap ErrInvalid or ErrVersion, or are those of each or of reading.
func Check(r io.Reader, st Statement, each func(*entry.Entry) error) error {
	lines := bufio.NewReaderSize(r, 64<<10)
	b, err := readLine(lines)
	if err != nil {
		return fmt.Errorf("proof: line 1: %w", err)
	}
	var h header
	if err := json.Unmarshal(b, &h); err != nil || h.Version == 0 {
		return fmt.Errorf("proof: it is not a proof of runlog: %w", ErrInvalid)
	}
	switch {
	case h.Version != fileVersion:
		return fmt.Errorf("proof: version %d, this build reads %d: %w", h.Version, fileVersion, ErrVersion)
	case h.Statement != st.Text():
		return fmt.Errorf("proof: %s: %w", differs(h.Statement, &st), ErrInvalid)
	case h.Entries < 1:
		return fmt.Errorf("proof: it has no entries: %w", ErrInvalid)
	}
	if err := sameForm(b, &h); err != nil {
		return fmt.Errorf("proof: line 1: %w", err)
	}
	last, leaf := uint64(0), []byte(nil)
	for n := range h.Entries {
		b, err := readLine(lines)
		var e entry.Entry
		if err == nil {
			e, err = checkLine(b, &st, last, &leaf)
		}
		if err != nil {
			return fmt.Errorf("proof: line %d: %w", n+2, err)
		}
		last = e.Seq
		if err := each(&e); err != nil {
			return err
		}
	}
	if _, err := lines.ReadByte(); err != io.EOF {
		if err != nil {
			return err
		}
		return fmt.Errorf("proof: something follows its %d entries: %w", h.Entries, ErrInvalid)
	}
	return nil
}

// differs says what a proof was made for, when that is not what the reader trusts.
func differs(text string, st *Statement) string {
	s, err := ParseText(text)
	switch {
	case err != nil:
		return "its statement is not the one given"
	case s.Run != st.Run:
		return fmt.Sprintf("it is for run %s of %s, the statement given is for %s of %s", s.ID, s.Instance, st.ID, st.Instance)
	}
	return "it was made for other content of the run than the statement given"
}

// checkLine checks an entry and its path. leaf is memory that is used again.
func checkLine(b []byte, st *Statement, after uint64, leaf *[]byte) (entry.Entry, error) {
	var l line
	if err := decode(b, &l); err != nil {
		return entry.Entry{}, err
	}
	e, err := l.entry()
	switch {
	case err != nil:
		return e, fmt.Errorf("seq %d: %w: %w", l.Seq, err, ErrInvalid)
	case e.Seq <= after:
		return e, fmt.Errorf("seq %d comes after %d: %w", e.Seq, after, ErrInvalid)
	case e.Seq > st.Entries:
		return e, fmt.Errorf("seq %d: the run has 1 to %d: %w", e.Seq, st.Entries, ErrInvalid)
	}
	*leaf = AppendLeaf((*leaf)[:0], st.Run, &e)
	if err := tlog.CheckRecord(l.Path, int64(st.Entries), st.Root, int64(e.Seq)-1, tlog.RecordHash(*leaf)); err != nil {
		return e, fmt.Errorf("seq %d: the path does not lead from this entry to the statement's root: %w", e.Seq, ErrInvalid)
	}
	return e, nil
}

// readLine reads a line with its newline.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case len(line) > maxLine:
			return nil, fmt.Errorf("longer than %d bytes: %w", maxLine, ErrInvalid)
		case errors.Is(err, io.EOF):
			return nil, fmt.Errorf("the file ends too early: %w", ErrInvalid)
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}
