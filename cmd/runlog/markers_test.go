package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/entry"
	"github.com/runlog-io/runlog/markers"
)

// fixed is a clock of the demo's time.
type fixed int64

func (c *fixed) Now() int64 { *c += 1000; return int64(*c) }

// observed makes the run of the examples in docs/cli.md: an engine that sees quotes and trades.
func observed(t testing.TB, closed bool) (dir string) {
	t.Helper()
	clock := fixed(1795469881583186969)
	run, err := runlog.Open(t.Context(), runlog.Options{Dir: t.TempDir(), Instance: "demo", Synchronous: true, Clock: &clock})
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	must(err)
	m, err := markers.New(run, markers.Options{FlushEvery: -1, Now: clock.Now, Marked: []markers.StreamID{{Class: "trade", ID: "ESH4"}}})
	must(err)
	trades, err := m.Stream("trade", "ESH4")
	must(err)
	at := int64(1764583200000000000)
	for i := range int64(40) {
		must(m.Observe("quote", "ESH4", at+i*1e6))
		if i%10 == 3 {
			must(m.Observe("quote", "NQH4", at+i*1e6))
		}
		if i%20 == 5 {
			trades.Mark(at+i*1e6, at+i*1e6+500, markers.Fingerprint{0x5a, byte(i), 1, 2, 3, 4, 5, 6, 7})
		}
		if i%20 == 9 {
			_, err := m.Submit(runlog.Draft{Topic: "orders.command", Type: "Submit", TsInit: at + i*1e6, Payload: []byte("buy 5 ESH4 @ 4799.00")})
			must(err)
		}
	}
	if closed {
		must(m.Close(t.Context()))
	}
	must(run.Close(t.Context()))
	return run.Dir()
}

func TestSeenAndMarkersShowWhatThePageShows(t *testing.T) {
	dir := observed(t, true)
	page, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"seen", dir, "3"}, {"markers", dir}, {"markers", dir, "--check"}} {
		for _, line := range do(t, args...).want(t, 0).lines() {
			if line = "\n    " + strings.ReplaceAll(line, dir, "runs/demo/20261124T035657.340031604Z-4c39afe1") + "\n"; !strings.Contains(string(page), line) {
				t.Errorf("runlog %s prints a line that is not on the page:%s", strings.Join(args, " "), line)
			}
		}
	}
	do(t, "seen", dir, "1").want(t, 2, "no markers")
	do(t, "seen", dir, "99").want(t, 2, "no such entry")
	do(t, "seen", dir, "x").want(t, 2, "not a seq")
	do(t, "markers", dir, "--to", "0").want(t, 2, "seqs start at 1")
	if n := len(do(t, "markers", dir, "--from", "2", "--to", "2").want(t, 0).lines()); n != 2 {
		t.Errorf("%d records behind seq 2", n)
	}
	if n := len(do(t, "markers", dir, "--limit", "1").want(t, 0).lines()); n != 1 {
		t.Errorf("%d records with --limit 1", n)
	}
}

func TestCheckingMarkersFindsWhatIsWrong(t *testing.T) {
	dir := observed(t, false)
	r := do(t, "markers", dir, "--check").want(t, 1)
	if !strings.Contains(r.out, "no final") || !strings.Contains(r.out, "BAD, 1 findings") {
		t.Error(r.out)
	}
	if r := do(t, "markers", dir, "--check", "--json"); r.code != 1 || !strings.HasPrefix(r.out, `{"record":"finding","after":4,"problem":"no final","detail":"`) {
		t.Error(r.code, r.out)
	}
	_, none := imported(t, demo)
	if r := do(t, "markers", none, "--check").want(t, 0); !strings.Contains(r.out, "no markers") {
		t.Error(r.out)
	}
	if r := do(t, "markers", none).want(t, 0); r.out != "" {
		t.Error(r.out)
	}
}

func TestMarkersAsJSONHaveTheFieldsOfThePage(t *testing.T) {
	dir := observed(t, true)
	page, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := do(t, "markers", dir, "--json").want(t, 0).lines()
	gap := recordJSON(&markers.Record{Kind: entry.NoteGap, Seq: 5, Gap: markers.Gap{From: 5, To: 9, Cursors: 5, Reason: markers.Overload}})
	for want, line := range map[string]string{
		"seq loss records taken final streams slot class id count lowest highest":                    do(t, "seen", dir, "3", "--json").want(t, 0).lines()[0],
		"record marker_seq after taken snapshot total first":                                         lines[0],
		"record marker_seq after slot class id ts_event ts_init ordinal fingerprint":                 lines[1],
		"record marker_seq after taken whole streams slot class id count lowest highest":             lines[2],
		"record marker_seq after to first_after first_time last_time cursors markers refused reason": asJSON(t, gap),
	} {
		at := 0
		for _, field := range strings.Fields(want) {
			i := strings.Index(line[at:], `"`+field+`":`)
			if i < 0 {
				t.Errorf("no %s in its place: %s", field, line)
				break
			}
			at += i
			if !strings.Contains(string(page), "`"+field+"`") {
				t.Errorf("field %q is not in docs/cli.md", field)
			}
		}
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	var b strings.Builder
	a := &app{out: newOutput(&b)}
	if err := a.printJSON(v); err != nil {
		t.Fatal(err)
	}
	if err := a.out.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestEveryKindOfRecordHasALine(t *testing.T) {
	a := &app{}
	for _, rec := range []markers.Record{
		{Kind: entry.NoteStreams, Part: markers.Part{Snapshot: 1}}, {Kind: entry.NoteCursor, Cursors: []markers.Cursor{{Slot: 7, Count: 1}}},
		{Kind: entry.NoteMarker, Marker: markers.Marker{Slot: 7}}, {Kind: entry.NoteGap, Gap: markers.Gap{From: 5, To: 9, Markers: 5, Reason: markers.Overload}},
	} {
		line := a.recordLine(&rec)
		for _, want := range map[entry.NoteKind][]string{
			entry.NoteStreams: {"no streams"}, entry.NoteCursor: {"slot 7 1"}, entry.NoteMarker: {"slot 7 #0"}, entry.NoteGap: {"records 5 to 9 were dropped", "overload"},
		}[rec.Kind] {
			if !strings.Contains(line, want) {
				t.Errorf("%s: %s", want, line)
			}
		}
	}
	if got := fmt.Sprint(streamsJSON(nil)); got != "[]" {
		t.Error(got)
	}
}
