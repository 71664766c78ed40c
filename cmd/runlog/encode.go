package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"github.com/runlog-io/runlog"
)

// encoder makes the JSON line of an entry. Its memory is used again.
type encoder struct {
	buf  []byte
	keys []key
}

type key struct {
	kind  string
	value []byte
	done  bool
}

// line returns the entry's JSON object and a newline, valid until the next call. Kinds stand in the order of their
// first key.
func (e *encoder) line(v *runlog.View) []byte {
	b := append(e.buf[:0], `{"seq":`...)
	b = strconv.AppendUint(b, v.Seq(), 10)
	b = appendString(append(b, `,"topic":`...), v.Topic())
	b = appendString(append(b, `,"type":`...), v.Type())
	b = strconv.AppendInt(append(b, `,"ts_init":`...), v.TsInit(), 10)
	b = strconv.AppendInt(append(b, `,"ts_publish":`...), v.TsPublish(), 10)
	b = appendID(b, `,"id":"`, v.ID())
	b = appendID(b, `,"correlation_id":"`, v.CorrelationID())
	b = appendID(b, `,"causation_id":"`, v.CausationID())
	b = e.appendKeys(append(b, `,"keys":{`...), v)
	if p := v.Payload(); utf8.Valid(p) {
		b = appendString(append(b, `},"payload":`...), p)
	} else {
		b = append(b, `},"payload_base64":"`...)
		b = append(base64.StdEncoding.AppendEncode(b, p), '"')
	}
	e.buf = append(b, '}', '\n')
	return e.buf
}

func (e *encoder) appendKeys(b []byte, v *runlog.View) []byte {
	e.keys = e.keys[:0]
	v.Keys(func(kind string, value []byte) bool {
		e.keys = append(e.keys, key{kind: kind, value: value})
		return true
	})
	for i := range e.keys {
		k := &e.keys[i]
		if k.done {
			continue
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, k.kind), ':', '[')
		for j := i; j < len(e.keys); j++ {
			if o := &e.keys[j]; o.kind == k.kind {
				if j > i {
					b = append(b, ',')
				}
				b = appendString(b, o.value)
				o.done = true
			}
		}
		b = append(b, ']')
	}
	return b
}

func appendID(b []byte, name string, id runlog.ID) []byte {
	if id.IsZero() {
		return b
	}
	b = append(b, name...)
	b = append(hex.AppendEncode(b, id[0:4]), '-')
	b = append(hex.AppendEncode(b, id[4:6]), '-')
	b = append(hex.AppendEncode(b, id[6:8]), '-')
	b = append(hex.AppendEncode(b, id[8:10]), '-')
	return append(hex.AppendEncode(b, id[10:16]), '"')
}

const hexDigits = "0123456789abcdef"

// plain says which bytes stand for themselves in a JSON string. Bytes from 0x80 on are part of UTF-8 sequences.
var plain = func() (t [256]bool) {
	for i := 0x20; i < 0x80; i++ {
		t[i] = i != '"' && i != '\\'
	}
	return t
}()

// appendString appends s as a JSON string. What is not UTF-8 becomes U+FFFD.
func appendString[T string | []byte](b []byte, s T) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := decodeRune(s[i:])
			if r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
			b = append(append(b, s[from:i]...), "\uFFFD"...)
			i++
			from = i
			continue
		}
		b = append(b, s[from:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		from = i
	}
	return append(append(b, s[from:]...), '"')
}

func decodeRune[T string | []byte](s T) (rune, int) {
	var b [utf8.UTFMax]byte
	n := copy(b[:], s)
	return utf8.DecodeRune(b[:n])
}

// printJSON prints one object that is not an entry.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
