package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
)

func TestStringsAreAsEncodingJSONReadsThem(t *testing.T) {
	for _, s := range []string{
		"", "a", "\"\\/", "\x00\x01\x1f\x7f", "\b\f\n\r\t", "é世\U0001F600", "<>&\u2028\u2029", "\uFFFD", strings.Repeat("x\"", 1000),
	} {
		var back string
		if err := json.Unmarshal(appendString(nil, s), &back); err != nil || back != s {
			t.Errorf("%q became %q: %v", s, back, err)
		}
		if !bytes.Equal(appendString(nil, s), appendString(nil, []byte(s))) {
			t.Errorf("%q: text and bytes differ", s)
		}
	}
	var back string
	if err := json.Unmarshal(appendString(nil, "a\xffb\xc3"), &back); err != nil || back != "a\uFFFDb\uFFFD" {
		t.Errorf("%q %v", back, err)
	}
}

// reference is what encoding/json reads from a line.
type reference struct {
	Topic         string              `json:"topic"`
	Type          string              `json:"type"`
	TsInit        int64               `json:"ts_init"`
	TsPublish     int64               `json:"ts_publish"`
	ID            string              `json:"id"`
	CorrelationID string              `json:"correlation_id"`
	CausationID   string              `json:"causation_id"`
	Keys          map[string][]string `json:"keys"`
	Payload       string              `json:"payload"`
	Base64        []byte              `json:"payload_base64"`
}

func agrees(t *testing.T, line []byte, d *runlog.Draft) {
	t.Helper()
	var r reference
	if err := json.Unmarshal(line, &r); err != nil {
		t.Fatalf("encoding/json refuses what was taken: %v: %q", err, line)
	}
	if r.Topic != d.Topic || r.Type != d.Type || r.TsInit != d.TsInit || r.TsPublish != d.TsPublish || r.Payload+string(r.Base64) != string(d.Payload) {
		t.Fatalf("%q:\n%+v\n%+v", line, r, d)
	}
	if !d.ID.IsZero() && !strings.EqualFold(d.ID.String(), r.ID) || d.ID.IsZero() != (r.ID == "") {
		t.Fatalf("%q: id %s", line, d.ID)
	}
	n := 0
	for _, k := range d.Keys {
		if len(r.Keys[k.Kind]) == 0 || r.Keys[k.Kind][0] != k.Value {
			t.Fatalf("%q: keys %v", line, d.Keys)
		}
		r.Keys[k.Kind] = r.Keys[k.Kind][1:]
		n++
	}
	for kind, rest := range r.Keys {
		if len(rest) > 0 {
			t.Fatalf("%q: %s keeps %v, of %d keys", line, kind, rest, n)
		}
	}
}

// FuzzImportLine: whatever a line holds, it is refused with an error, or means what encoding/json says and comes back
// the same.
func FuzzImportLine(f *testing.F) {
	for _, s := range []string{
		full, binary, empty, `{}`, `{"seq":{"a":[1,-2.5e+3,null,true,"x"]},"topic":"t","type":"x","ts_init":-0,"keys":{"a":[]},"id":null}`,
		`{"topic":"t","type":"x","ts_init":1,"payload":"\ud83d\ude00\/\b\f"}`, ` { "topic" : "t" , "type":"x","ts_init" : 7 } `, "\xef\xbb\xbf{}", `{"topic`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		var d decoder
		dr, err := d.line(line)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "column ") {
				t.Fatalf("no place in %v", err)
			}
			return
		}
		agrees(t, line, &dr)
		if dr.TsPublish != 0 && utf8.Valid(dr.Payload) {
			_ = appendString(nil, dr.Payload)
		}
	})
}

func TestLineDecodesFullEntries(t *testing.T) {
	for _, s := range []string{full, binary, empty} {
		var d decoder
		dr, err := d.line([]byte(s))
		if err != nil {
			t.Fatal(err)
		}
		agrees(t, []byte(s), &dr)
	}
	var d decoder
	dr, err := d.line([]byte(full))
	if err != nil || dr.TsInit != math.MinInt64 || len(dr.Keys) != 5 || dr.Keys[0] != (runlog.Key{Kind: "zebra", Value: "z1"}) {
		t.Errorf("%+v %v", dr, err)
	}
	dr, err = d.line([]byte(`{"topic":"t","type":"x","ts_init":-0,"seq":"ignored","id":null,"keys":null,"ts_publish":null,"payload":""}`))
	if err != nil || dr.TsInit != 0 || !dr.ID.IsZero() || len(dr.Keys) != 0 {
		t.Errorf("%+v %v", dr, err)
	}
}

// benchRun makes a run of n entries.
func benchRun(b *testing.B, n int) string {
	im, err := runlog.NewImport(runlog.Options{Dir: b.TempDir(), Instance: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	payload := []byte(strings.Repeat("payload ", 32))
	for i := range n {
		if err := im.Add(runlog.Draft{Topic: "orders", Type: "New", TsInit: int64(i), Payload: payload,
			Keys: []runlog.Key{{Kind: entry.VenueOrderID, Value: itoa(i / 4)}}}); err != nil {
			b.Fatal(err)
		}
	}
	dir, err := im.Finish(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return dir
}

type discard struct{ n int64 }

func (d *discard) Write(p []byte) (int, error) { d.n += int64(len(p)); return len(p), nil }

func BenchmarkExport(b *testing.B) {
	const n = 100_000
	dir := benchRun(b, n)
	b.ReportAllocs()
	for b.Loop() {
		var out discard
		if code := run(b.Context(), []string{"export", dir}, strings.NewReader(""), &out, &out); code != 0 {
			b.Fatal(code)
		}
		b.SetBytes(out.n)
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

func BenchmarkDecodeLine(b *testing.B) {
	line := []byte(`{"seq":2,"topic":"orders","type":"New","ts_init":1703422805243925307,"ts_publish":1703422805243925307,` +
		`"keys":{"venue_order_id":["6412777162812"]},"payload":"` +
		strings.Repeat("payload ", 32) + `"}`)
	var d decoder
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.line(line); err != nil {
			b.Fatal(err)
		}
	}
}

func TestBase64IsStandard(t *testing.T) {
	_, dir := imported(t, `{"topic":"t","type":"x","ts_init":1,"payload_base64":"`+base64.StdEncoding.EncodeToString([]byte("text"))+`"}`)
	if out := do(t, "export", dir).want(t, 0).out; !strings.Contains(out, `"payload":"text"`) {
		t.Error(out)
	}
	if filepath.Base(dir) == "" {
		t.Error(dir)
	}
}
