package manifest

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/runlog-io/runlog/internal/format"
)

// FuzzDecode feeds hostile bytes to every decoder: typed errors only, and what is accepted is written back alike.
func FuzzDecode(f *testing.F) {
	f.Add(mustEncode(f, full()))
	f.Add(mustEncode(f, small()))
	q, _ := EncodeQuarantine(testQuarantine)
	f.Add(q)
	id, _ := EncodeIdentity(full().Identity)
	f.Add(id)
	h, _ := EncodeHalt(*full().Halt)
	f.Add(h)
	f.Add(EncodeHolder(Holder{1, "h", 2}))
	f.Add([]byte("runlog-manifest 2 0000000000000000\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		decode := func(b []byte) {
			m, err := Decode("p", b)
			if err != nil {
				if !errors.Is(err, format.ErrCorrupt) && !errors.Is(err, format.ErrVersion) && !errors.Is(err, format.ErrWrongKind) {
					t.Fatalf("untyped error %v", err)
				}
				return
			}
			out, err := Encode(m)
			if errors.Is(err, format.ErrInvalid) && len(b) > MaxIdentity {
				return // only the sum of all options is checked by Encode alone
			}
			if err != nil {
				t.Fatal(err)
			}
			if again, err := Decode("p", out); err != nil || !reflect.DeepEqual(again, m) {
				t.Fatalf("%+v\n%+v\n%v", again, m, err)
			}
		}
		decode(b)
		decode(seal(magicManifest, Version, b)) // past the checksum, into the JSON
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			decode(seal(magicManifest, Version, b[i+1:]))
		}
		_, _ = DecodeQuarantine("p", b)
		_, _ = DecodeQuarantine("p", seal(magicQuarantine, Version, b))
		if id, err := DecodeIdentity("p", 0, b); err == nil && len(b) <= MaxIdentity {
			if _, err := EncodeIdentity(id); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = DecodeHalt("p", 0, b)
		if h, ok := DecodeHolder(b); ok {
			_ = h.String()
		}
		_ = NewRunID(0, string(b), 0)
		_ = ValidInstance(string(b))
	})
}
