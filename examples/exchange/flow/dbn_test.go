package flow

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// writeDBN makes a file in memory.
func writeDBN(metadata int, reports []Report) []byte {
	b := []byte{'D', 'B', 'N', 1}
	b = binary.LittleEndian.AppendUint32(b, uint32(metadata))
	b = append(b, make([]byte, metadata)...)
	for i := range reports {
		b, _ = reports[i].AppendBinary(b) // never fails
	}
	return b
}

func sampleReports(n int) []Report {
	var all []Report
	for i := range n {
		all = append(all, Report{
			TsEvent: int64(1000 + i), TsRecv: int64(2000 + i), OrderID: uint64(i / 2), Price: -int64(i) * 250_000_000,
			Size: uint32(i), Instrument: 7, Sequence: uint32(3 * i), TsInDelta: -int32(i), Publisher: 1,
			Flags: uint8(i), Channel: 2, Action: Action("ACMTFR"[i%6]), Side: "ABN"[i%3],
		})
	}
	return all
}

func compress(t *testing.T, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	return w.EncodeAll(b, nil)
}

// readAll returns what could be read, and the error that ended it, if it was not the end.
func readAll(in io.Reader) (all []Report, err error) {
	r, err := NewReader(in, "test")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for {
		var rec Report
		switch err := r.Next(&rec); err {
		case nil:
			all = append(all, rec)
		case io.EOF:
			return all, nil
		default:
			return all, err
		}
	}
}

func TestReaderReadsWhatWasWritten(t *testing.T) {
	want := sampleReports(3000)
	plain := writeDBN(198, want)
	path := filepath.Join(t.TempDir(), "plain.dbn")
	if err := os.WriteFile(path, plain, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		var rec Report
		if err := r.Next(&rec); err != nil || rec != want[i] {
			t.Fatalf("record %d: %+v, %v, want %+v", i+1, rec, err, want[i])
		}
	}
	var rec Report
	if err := r.Next(&rec); err != io.EOF || r.Records() != 3000 {
		t.Fatalf("at the end: %v after %d records", err, r.Records())
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := readAll(bytes.NewReader(compress(t, plain)))
	if err != nil || len(got) != len(want) || got[2999] != want[2999] {
		t.Fatalf("compressed: %d records, %v", len(got), err)
	}
	if got, err := readAll(bytes.NewReader(writeDBN(0, nil))); err != nil || len(got) != 0 {
		t.Fatalf("no records: %d, %v", len(got), err)
	}
}

func TestMalformedInputIsLocated(t *testing.T) {
	good := writeDBN(10, sampleReports(4))
	const third = 8 + 10 + 2*RecordBytes
	change := func(at int, b byte) []byte {
		c := bytes.Clone(good)
		c[at] = b
		return c
	}
	zip := compress(t, good)
	cases := []struct {
		name    string
		in      []byte
		records int   // read before the error
		offset  int64 // of the error
		record  int64
		is      error
		says    string
	}{
		{"empty", nil, 0, 0, 0, ErrMalformed, "0 of 8"},
		{"half a header", good[:5], 0, 0, 0, ErrMalformed, "5 of 8"},
		{"another format", []byte("{\"a\": 1, \"b\": 2}"), 0, 0, 0, ErrMalformed, "DBN"},
		{"a newer version", change(3, 2), 0, 0, 0, ErrVersion, "version 2"},
		{"half the metadata", good[:12], 0, 8, 0, ErrMalformed, "4 of 10"},
		{"huge metadata", change(7, 0xFF), 0, 8, 0, ErrMalformed, "metadata"},
		{"a record cut short", good[:third+20], 2, third, 3, ErrMalformed, "20 of 56"},
		{"one byte of a record", good[:third+1], 2, third, 3, ErrMalformed, "1 of 56"},
		{"another record length", change(third, 13), 2, third, 3, ErrMalformed, "13 words"},
		{"another record type", change(third+1, 0xA1), 2, third, 3, ErrMalformed, "0xA1"},
		{"an unknown action", change(third+38, 'X'), 2, third, 3, ErrMalformed, "action 'X'"},
		{"an unknown side", change(third+39, 'x'), 2, third, 3, ErrMalformed, "side 'x'"},
		{"compressed, cut short", zip[:len(zip)-9], 0, 0, -1, nil, ""},
	}
	for _, c := range cases {
		got, err := readAll(bytes.NewReader(c.in))
		var located *InputError
		if !errors.As(err, &located) {
			t.Errorf("%s: %v is no InputError", c.name, err)
			continue
		}
		if c.record < 0 {
			continue // where the decoder notices is its own business
		}
		if !errors.Is(err, c.is) || len(got) != c.records || located.Offset != c.offset || located.Record != c.record ||
			!strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: after %d records: %v (%+v)", c.name, len(got), err, located)
		}
	}
	if _, err := OpenFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

func TestEveryTruncationIsTheEndOrAnError(t *testing.T) {
	good := writeDBN(3, sampleReports(3))
	for n := range len(good) {
		got, err := readAll(bytes.NewReader(good[:n]))
		whole := n >= 11 && (n-11)%RecordBytes == 0
		if (err == nil) != whole {
			t.Fatalf("%d bytes: %d records, %v", n, len(got), err)
		}
		if want := max(0, n-11) / RecordBytes; len(got) != want {
			t.Fatalf("%d bytes: %d records, want %d", n, len(got), want)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(writeDBN(3, sampleReports(3)))
	f.Add([]byte{0x28, 0xB5, 0x2F, 0xFD, 0, 0, 1, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		all, err := readAll(io.LimitReader(bytes.NewReader(in), 1<<16))
		var located *InputError
		if err != nil && !errors.As(err, &located) {
			t.Fatalf("after %d records: %v is not located", len(all), err)
		}
	})
}
