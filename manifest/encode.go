package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"

	"github.com/runlog-io/runlog/internal/format"
)

// Version of the manifest and quarantine files that this build writes and reads.
const Version = 1

// First words of the text files.
const (
	magicManifest   = "runlog-manifest"
	magicQuarantine = "runlog-quarantine"
)

const (
	sumDigits        = 16
	maxVersionDigits = 5
)

// checksum is XXH64 over the whole file but the checksum's own digits.
func checksum(before, after []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(before)
	_, _ = d.Write(after)
	return d.Sum64()
}

// seal puts the first line before a body.
func seal(magic string, version int, body []byte) []byte {
	b := make([]byte, 0, len(magic)+maxVersionDigits+sumDigits+3+len(body))
	b = append(b, magic...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(version), 10)
	b = append(b, ' ')
	rest := append([]byte{'\n'}, body...)
	b = fmt.Appendf(b, "%016x", checksum(b, rest))
	return append(b, rest...)
}

// open checks the first line and returns the body and its offset in the file.
func open(path string, b []byte, magic string) (body []byte, offset int64, err error) {
	bad := func(off int, sentinel error, why string, args ...any) ([]byte, int64, error) {
		return nil, 0, &format.Error{Path: path, Offset: int64(off), Why: fmt.Sprintf(why, args...), Err: sentinel}
	}
	if !bytes.HasPrefix(b, []byte(magic+" ")) {
		for _, other := range []string{
			magicManifest + " ", magicQuarantine + " ",
			format.MagicSegment, format.MagicIndex, format.MagicFilter, format.MagicCompressed,
		} {
			if bytes.HasPrefix(b, []byte(other)) {
				return bad(0, format.ErrWrongKind, "starts with %q, want %q", other, magic)
			}
		}
		return bad(0, format.ErrCorrupt, "does not start with %q", magic)
	}
	at := len(magic) + 1
	digits := 0
	for at+digits < len(b) && b[at+digits] >= '0' && b[at+digits] <= '9' {
		digits++
	}
	if digits == 0 || digits > maxVersionDigits || b[at] == '0' {
		return bad(at, format.ErrCorrupt, "no version number in the first line")
	}
	version, _ := strconv.Atoi(string(b[at : at+digits]))
	sumAt := at + digits + 1
	end := sumAt + sumDigits
	if len(b) <= end || b[sumAt-1] != ' ' || b[end] != '\n' {
		return bad(min(len(b), sumAt-1), format.ErrCorrupt, "the first line is not %q, a version and a checksum", magic)
	}
	if want := fmt.Sprintf("%016x", checksum(b[:sumAt], b[end:])); string(b[sumAt:end]) != want {
		return bad(sumAt, format.ErrCorrupt, "checksum is %q, the content gives %q", b[sumAt:end], want)
	}
	if version != Version {
		return bad(at, format.ErrVersion, "version %d, this build reads %d", version, Version)
	}
	return b[end+1:], int64(end + 1), nil
}

// marshal is deterministic: struct fields in order, map keys sorted, no HTML escapes. It ends with a newline.
func marshal(v any, indent string) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// compact is marshal on one line, without the newline.
func compact(v any) ([]byte, error) {
	b, err := marshal(v, "")
	if err != nil {
		return nil, err
	}
	return b[:len(b)-1], nil
}

// decodeJSON reads one JSON object that fills b. Fields that v does not have are ignored.
func decodeJSON(path string, offset int64, b []byte, v any) error {
	if !utf8.Valid(b) {
		return &format.Error{Path: path, Offset: offset, Why: "not UTF-8", Err: format.ErrCorrupt}
	}
	err := json.Unmarshal(b, v)
	if err == nil {
		return nil
	}
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		offset += syntax.Offset
	case errors.As(err, &typ):
		offset += typ.Offset
	}
	return &format.Error{Path: path, Offset: offset, Why: err.Error(), Err: format.ErrCorrupt}
}

// Encode gives the content of a manifest file. The same manifest always gives the same bytes.
func Encode(m Manifest) ([]byte, error) {
	m.normalize()
	if err := m.Validate(); err != nil {
		return nil, err
	}
	if _, err := EncodeIdentity(m.Identity); err != nil {
		return nil, err
	}
	body, err := marshal(m, "  ")
	if err != nil {
		return nil, err
	}
	b := seal(magicManifest, Version, body)
	if len(b) > MaxSize {
		return nil, invalid("Skipped: %d runs make a manifest of %d bytes, at most %d are allowed", len(m.Skipped), len(b), MaxSize)
	}
	return b, nil
}

// Decode reads the content of a manifest file. Errors are *format.Error and wrap format.ErrCorrupt, format.ErrVersion
// (a whole file of another version) or format.ErrWrongKind; path only serves them.
func Decode(path string, b []byte) (Manifest, error) {
	body, off, err := open(path, b, magicManifest)
	if err != nil {
		return Manifest{}, err
	}
	var m Manifest
	if err := decodeJSON(path, off, body, &m); err != nil {
		return Manifest{}, err
	}
	m.normalize()
	if err := m.Validate(); err != nil {
		return Manifest{}, &format.Error{Path: path, Offset: off, Why: err.Error(), Err: format.ErrCorrupt}
	}
	return m, nil
}

// EncodeIdentity gives the identity for a segment's header: compact JSON, the same bytes for the same identity. One that
// exceeds MaxIdentity is refused with an error that names the biggest option.
func EncodeIdentity(id Identity) ([]byte, error) {
	id.normalize()
	if err := id.Validate(); err != nil {
		return nil, err
	}
	b, err := compact(id)
	if err != nil {
		return nil, err
	}
	if len(b) > MaxIdentity {
		labels, err1 := compact(id.Labels)
		components, err2 := compact(id.Components)
		if err := first(err1, err2); err != nil {
			return nil, err
		}
		name := "Labels"
		if len(components) > len(labels) {
			name = "Components"
		}
		return nil, invalid("%s: the run's identity takes %d bytes as JSON (Labels %d, Components %d), at most %d are allowed",
			name, len(b), len(labels), len(components), MaxIdentity)
	}
	return b, nil
}

// DecodeIdentity reads the identity out of a segment's header whose checksum was verified; path and offset locate errors.
func DecodeIdentity(path string, offset int64, b []byte) (Identity, error) {
	var id Identity
	if err := decodeJSON(path, offset, b, &id); err != nil {
		return Identity{}, err
	}
	id.normalize()
	if err := id.Validate(); err != nil {
		return Identity{}, &format.Error{Path: path, Offset: offset, Why: "identity: " + err.Error(), Err: format.ErrCorrupt}
	}
	return id, nil
}
