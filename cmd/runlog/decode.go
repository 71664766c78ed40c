package main

import (
	"encoding/base64"
	"fmt"
	"math"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/runlog-io/runlog"
)

// decoder reads the JSON line of an entry. It is stricter than most: each field at most once, no unknown ones,
// integers that fit, and text that is Unicode. So nothing is lost in silence.
type decoder struct {
	b       []byte
	at      int
	scratch []byte // the last string
	payload []byte
	keys    []runlog.Key
	names   map[string]string // topics, types and kinds that were seen
}

// syntaxError says where in its line something is wrong.
type syntaxError struct {
	column int // in bytes, from 1
	why    string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("column %d: %s", e.column, e.why) }

func (d *decoder) fail(format string, args ...any) error {
	return &syntaxError{column: d.at + 1, why: fmt.Sprintf(format, args...)}
}

// maxPublish leaves room for the entries that follow, RunEnded the last of them: publish times increase.
const maxPublish = math.MaxInt64 - 1<<40

const (
	hasTopic = 1 << iota
	hasType
	hasTsInit
	hasTsPublish
	hasID
	hasCorrelation
	hasCausation
	hasKeys
	hasPayload
	hasBase64
	hasSeq
)

var fields = map[string]int{
	"topic": hasTopic, "type": hasType, "ts_init": hasTsInit, "ts_publish": hasTsPublish, "id": hasID, "correlation_id": hasCorrelation,
	"causation_id": hasCausation, "keys": hasKeys, "payload": hasPayload, "payload_base64": hasBase64, "seq": hasSeq,
}

// line decodes one line. The draft is valid until the next call.
func (d *decoder) line(b []byte) (dr runlog.Draft, err error) {
	d.b, d.at, d.payload, d.keys = b, 0, d.payload[:0], d.keys[:0]
	if !utf8.Valid(b) {
		for d.at = 0; d.at < len(b); {
			r, n := utf8.DecodeRune(b[d.at:])
			if r == utf8.RuneError && n == 1 {
				break
			}
			d.at += n
		}
		return dr, d.fail("not UTF-8")
	}
	seen := 0
	err = d.object(func(name []byte, at int) error {
		bit, ok := fields[string(name)]
		switch {
		case !ok:
			d.at = at
			return d.fail("unknown field %.80q", name)
		case seen&bit != 0:
			d.at = at
			return d.fail("field %q stands there twice", name)
		}
		seen |= bit
		return d.field(bit, &dr)
	})
	if err != nil {
		return dr, err
	}
	if d.space(); d.at < len(d.b) {
		return dr, d.fail("something follows the object")
	}
	d.at = 0
	for _, f := range [...]string{"topic", "type", "ts_init"} {
		if seen&fields[f] == 0 {
			return dr, d.fail("field %q is missing", f)
		}
	}
	if seen&hasPayload != 0 && seen&hasBase64 != 0 {
		return dr, d.fail("both \"payload\" and \"payload_base64\"")
	}
	dr.Payload, dr.Keys = d.payload, d.keys
	return dr, nil
}

// field decodes a field's value. null stands for an optional field that is absent.
func (d *decoder) field(bit int, dr *runlog.Draft) (err error) {
	d.space()
	if bit == hasSeq {
		return d.skip(0)
	}
	if bit&(hasTopic|hasType|hasTsInit|hasPayload|hasBase64) == 0 && d.literal("null") {
		return nil
	}
	start := d.at
	switch bit {
	case hasTsInit:
		dr.TsInit, err = d.integer()
	case hasTsPublish:
		dr.TsPublish, err = d.integer()
		switch {
		case err != nil:
		case dr.TsPublish == 0:
			d.at, err = start, fmt.Errorf("0 cannot be kept; leave the field out to have the time stamped")
		case dr.TsPublish > maxPublish:
			d.at, err = start, fmt.Errorf("%d is too late: later entries need times of their own, up to 2262", dr.TsPublish)
		}
	case hasKeys:
		err = d.keyLists()
	default:
		var s []byte
		if s, err = d.text(); err == nil {
			err = d.textField(bit, s, dr)
			if err != nil {
				d.at = start
			}
		}
	}
	if err == nil {
		return nil
	}
	name := ""
	for n, b := range fields {
		if b == bit {
			name = n
		}
	}
	if se, ok := err.(*syntaxError); ok {
		if !strings.HasPrefix(se.why, `"`) {
			se.why = fmt.Sprintf("%q: %s", name, se.why)
		}
		return se
	}
	return d.fail("%q: %v", name, err)
}

func (d *decoder) textField(bit int, s []byte, dr *runlog.Draft) (err error) {
	switch bit {
	case hasTopic:
		dr.Topic = d.intern(s)
	case hasType:
		dr.Type = d.intern(s)
	case hasID:
		dr.ID, err = runlog.ParseID(string(s))
	case hasCorrelation:
		dr.CorrelationID, err = runlog.ParseID(string(s))
	case hasCausation:
		dr.CausationID, err = runlog.ParseID(string(s))
	case hasPayload:
		d.payload = append(d.payload, s...)
	case hasBase64:
		for _, c := range s {
			if c == '\n' || c == '\r' {
				return fmt.Errorf("line break inside base64")
			}
		}
		d.payload, err = base64.StdEncoding.Strict().AppendDecode(d.payload[:0], s)
	}
	return err
}

// intern returns s as a string, without allocating for names that repeat.
func (d *decoder) intern(s []byte) string {
	if name, ok := d.names[string(s)]; ok {
		return name
	}
	if d.names == nil || len(d.names) > 10_000 {
		d.names = map[string]string{}
	}
	name := string(s)
	d.names[name] = name
	return name
}

func (d *decoder) keyLists() error {
	kinds := map[string]bool(nil)
	first := ""
	return d.object(func(name []byte, at int) error {
		kind := d.intern(name)
		if kind == "" {
			d.at = at
			return d.fail("a kind has no name")
		}
		if kind == first || kinds[kind] {
			d.at = at
			return d.fail("kind %.80q stands there twice", kind)
		}
		if first == "" {
			first = kind
		} else {
			if kinds == nil {
				kinds = map[string]bool{}
			}
			kinds[kind] = true
		}
		return d.values(kind)
	})
}

// values reads the list of one kind's values.
func (d *decoder) values(kind string) error {
	if d.space(); !d.take('[') {
		return d.fail("kind %.80q: want a list of strings", kind)
	}
	if d.space(); d.take(']') {
		return nil
	}
	for {
		d.space()
		s, err := d.text()
		if err != nil {
			return err
		}
		d.keys = append(d.keys, runlog.Key{Kind: kind, Value: string(s)})
		d.space()
		if d.take(']') {
			return nil
		}
		if !d.take(',') {
			return d.fail("want , or ] in a list")
		}
	}
}

func (d *decoder) space() {
	for d.at < len(d.b) {
		switch d.b[d.at] {
		case ' ', '\t', '\r', '\n':
			d.at++
		default:
			return
		}
	}
}

func (d *decoder) take(c byte) bool {
	if d.at < len(d.b) && d.b[d.at] == c {
		d.at++
		return true
	}
	return false
}

func (d *decoder) literal(word string) bool {
	if strings.HasPrefix(string(d.b[d.at:min(d.at+len(word), len(d.b))]), word) {
		d.at += len(word)
		return true
	}
	return false
}

// object calls member for each name; it must read the value. The name is valid until then.
func (d *decoder) object(member func(name []byte, at int) error) error {
	if d.space(); !d.take('{') {
		return d.fail("want a JSON object")
	}
	if d.space(); d.take('}') {
		return nil
	}
	for {
		d.space()
		at := d.at
		name, err := d.text()
		if err != nil {
			return err
		}
		if d.space(); !d.take(':') {
			return d.fail("want : behind a name")
		}
		if err := member(name, at); err != nil {
			return err
		}
		d.space()
		if d.take('}') {
			return nil
		}
		if !d.take(',') {
			return d.fail("want , or } in an object")
		}
	}
}

// text reads a string. It is valid until the next one is read.
func (d *decoder) text() ([]byte, error) {
	if !d.take('"') {
		return nil, d.fail("want a string")
	}
	start := d.at
	for d.at < len(d.b) && plain[d.b[d.at]] || d.at < len(d.b) && d.b[d.at] >= utf8.RuneSelf {
		d.at++
	}
	if d.at < len(d.b) && d.b[d.at] == '"' {
		d.at++
		return d.b[start : d.at-1], nil
	}
	out := append(d.scratch[:0], d.b[start:d.at]...)
	for d.at < len(d.b) {
		c := d.b[d.at]
		switch {
		case c == '"':
			d.at++
			d.scratch = out
			return out, nil
		case c == '\\':
			var err error
			if out, err = d.escape(out); err != nil {
				return nil, err
			}
		case c < 0x20:
			return nil, d.fail("control character %#02x in a string", c)
		default:
			out = append(out, c)
			d.at++
		}
	}
	return nil, d.fail("the line ends inside a string")
}

func (d *decoder) escape(out []byte) ([]byte, error) {
	if d.at+1 >= len(d.b) {
		d.at = len(d.b)
		return out, d.fail("the line ends inside a string")
	}
	c := d.b[d.at+1]
	if i := strings.IndexByte(`"\/bfnrt`, c); i >= 0 {
		d.at += 2
		return append(out, "\"\\/\b\f\n\r\t"[i]), nil
	}
	if c != 'u' {
		return out, d.fail("unknown escape \\%c", c)
	}
	r, ok := d.hex4(d.at + 2)
	if !ok {
		return out, d.fail("want four hex digits behind \\u")
	}
	n := 6
	if utf16.IsSurrogate(r) {
		low, ok := rune(0), false
		if d.at+7 < len(d.b) && d.b[d.at+6] == '\\' && d.b[d.at+7] == 'u' {
			low, ok = d.hex4(d.at + 8)
		}
		if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
			return out, d.fail("half of a surrogate pair")
		}
		n = 12
	}
	d.at += n
	return utf8.AppendRune(out, r), nil
}

func (d *decoder) hex4(at int) (r rune, ok bool) {
	if at+4 > len(d.b) {
		return 0, false
	}
	for _, c := range d.b[at : at+4] {
		i := strings.IndexByte(hexDigits, c|0x20)
		if i < 0 || c < '0' {
			return 0, false
		}
		r = r<<4 | rune(i)
	}
	return r, true
}

// integer reads a number that is an int64, exactly.
func (d *decoder) integer() (int64, error) {
	start := d.at
	neg := d.take('-')
	digits := d.at
	n := uint64(0)
	for ; d.at < len(d.b) && d.b[d.at] >= '0' && d.b[d.at] <= '9'; d.at++ {
		if d.at-digits > 18 {
			d.at = start
			return 0, d.fail("the number does not fit into 64 bits")
		}
		n = n*10 + uint64(d.b[d.at]-'0')
	}
	switch {
	case d.at == digits:
		d.at = start
		return 0, d.fail("want an integer")
	case d.b[digits] == '0' && d.at > digits+1:
		d.at = start
		return 0, d.fail("a number with leading zeros")
	case d.at < len(d.b) && strings.IndexByte(".eE", d.b[d.at]) >= 0:
		d.at = start
		return 0, d.fail("want an integer, without fraction or exponent")
	case neg && n <= 1<<63:
		return -int64(n), nil
	case neg || n > math.MaxInt64:
		d.at = start
		return 0, d.fail("the number does not fit into 64 bits")
	}
	return int64(n), nil
}

// skip passes over any value.
func (d *decoder) skip(depth int) error {
	d.space()
	if depth > 100 {
		return d.fail("too deeply nested")
	}
	if d.at == len(d.b) {
		return d.fail("the line ends where a value should stand")
	}
	switch c := d.b[d.at]; {
	case c == '"':
		_, err := d.text()
		return err
	case c == '{':
		return d.object(func([]byte, int) error { return d.skip(depth + 1) })
	case c == '[':
		d.at++
		if d.space(); d.take(']') {
			return nil
		}
		for {
			if err := d.skip(depth + 1); err != nil {
				return err
			}
			if d.space(); d.take(']') {
				return nil
			}
			if !d.take(',') {
				return d.fail("want , or ] in a list")
			}
		}
	case c == '-' || c >= '0' && c <= '9':
		return d.number()
	case d.literal("null"), d.literal("true"), d.literal("false"):
		return nil
	}
	return d.fail("want a value")
}

// number passes over any JSON number.
func (d *decoder) number() error {
	digits := func() bool {
		start := d.at
		for d.at < len(d.b) && d.b[d.at] >= '0' && d.b[d.at] <= '9' {
			d.at++
		}
		return d.at > start
	}
	d.take('-')
	ok := d.take('0') || digits()
	if ok && d.take('.') {
		ok = digits()
	}
	if ok && (d.take('e') || d.take('E')) {
		if !d.take('-') {
			d.take('+')
		}
		ok = digits()
	}
	if !ok {
		return d.fail("malformed number")
	}
	return nil
}
