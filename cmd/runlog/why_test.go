package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/runlog-io/runlog"
)

func uuid(n int) string { return fmt.Sprintf("00000000-0000-7000-8000-%012d", n) }

// caused makes a line with an id and the id of its cause; 0 is none.
func caused(id, cause int) string {
	s := fmt.Sprintf(`{"topic":"t","type":"x%d","ts_init":1`, id)
	if id != 0 {
		s += `,"id":"` + uuid(id) + `"`
	}
	if cause != 0 {
		s += `,"causation_id":"` + uuid(cause) + `"`
	}
	return s + "}\n"
}

// links decodes why --json as "link depth seq".
func links(t testing.TB, args ...string) (list []string) {
	t.Helper()
	for _, line := range do(t, append([]string{"why", "--json"}, args...)...).want(t, 0).lines() {
		var l linkJSON
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		s := fmt.Sprint(l.Link, " ", l.Depth)
		if l.Entry != nil {
			var e struct{ Seq int }
			if err := json.Unmarshal(l.Entry, &e); err != nil {
				t.Fatal(err)
			}
			s += fmt.Sprint(" ", e.Seq)
		}
		list = append(list, s)
	}
	return list
}

func TestWhyFollowsCausesAndEffects(t *testing.T) {
	//                             seq 2        3            4            5            6 (no id)    7           8: a lost cause  9 and 10: a circle
	_, dir := imported(t, caused(1, 0)+caused(2, 1)+caused(3, 2)+caused(4, 2)+caused(0, 3)+caused(7, 0)+caused(8, 99)+caused(9, 10)+caused(10, 9)+caused(11, 11))
	for _, c := range []struct {
		args string
		want []string
	}{
		{"2", []string{"entry 0 2", "root 0"}},
		{"6", []string{"entry 0 6", "cause 1 4", "cause 2 3", "cause 3 2", "root 3"}},
		{"8", []string{"entry 0 8", "missing 1"}},
		{"10", []string{"entry 0 10", "cause 1 9", "cycle 2"}},
		{"11", []string{"entry 0 11", "cycle 1"}},
		{"2 --down", []string{"entry 0 2", "effect 1 3", "effect 2 4", "effect 2 5", "effect 3 6"}},
		{"3 --down", []string{"entry 0 3", "effect 1 4", "effect 1 5", "effect 2 6"}},
		{"7 --down", []string{"entry 0 7", "root 0"}},
		{"6 --down", []string{"entry 0 6", "root 0"}},
		{"9 --down", []string{"entry 0 9", "effect 1 10"}},
	} {
		if got := links(t, append([]string{dir}, strings.Fields(c.args)...)...); !slices.Equal(got, c.want) {
			t.Errorf("why %s: %q, want %q", c.args, got, c.want)
		}
	}
	for args, text := range map[string]string{
		"2": "nothing: seq 2 has no causation id", "8": "id " + uuid(99) + ", which no entry has in this run", "10": "seq 10 again: the chain goes in a circle",
		"7 --down": "nothing in this run names seq 7 as its cause", "6 --down": "seq 6 has no id", "6": "<-   3       2  ",
	} {
		if out := do(t, append([]string{"why", dir}, strings.Fields(args)...)...).want(t, 0).out; !strings.Contains(out, text) {
			t.Errorf("why %s does not say %q:\n%s", args, text, out)
		}
	}
	do(t, "why", dir, "6", "--limit", "2").want(t, 2, "the chain goes on")
	do(t, "why", dir, "2", "--down", "--limit", "2").want(t, 2, "there is more")
}

func TestWhyGoesOnInParentRuns(t *testing.T) {
	base := t.TempDir()
	var last string
	for n := 1; n <= 3; n++ { // each run's process dies, so that the next one is its child
		r, err := runlog.Open(t.Context(), runlog.Options{Dir: base, Instance: "demo", WarnAfter: -1, HaltAfter: -1})
		if err != nil {
			t.Fatal(err)
		}
		d := runlog.Draft{Topic: "t", Type: "x", ID: runlog.ID{byte(n)}, CausationID: runlog.ID{byte(n - 1)}}
		if _, err := r.Append(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		last = r.Dir()
		_ = r.Abandon(t.Context(), fmt.Errorf("as a crash would"))
	}
	if got := links(t, last, "2"); !slices.Equal(got, []string{"entry 0 2", "missing 1"}) {
		t.Errorf("%q", got)
	}
	if out := do(t, "why", last, "2").want(t, 0).out; !strings.Contains(out, "--parents looks there too") {
		t.Error(out)
	}
	if got := links(t, last, "2", "--parents"); !slices.Equal(got, []string{"entry 0 2", "cause 1 2", "cause 2 2", "root 2"}) {
		t.Errorf("%q", got)
	}
	if out := do(t, "why", last, "2", "--parents").want(t, 0).out; strings.Count(out, "in the parent run") != 2 {
		t.Error(out)
	}
}

func TestHistoryTellsAnOrdersLifeByEveryBuiltInKind(t *testing.T) {
	_, dir := imported(t, `{"topic":"orders.command","type":"Submit","ts_init":1,"id":"`+uuid(1)+`","correlation_id":"`+uuid(1)+`","keys":{"client_order_id":["C-1"]},"payload":"buy"}
{"topic":"venue.report","type":"Accepted","ts_init":2,"id":"`+uuid(2)+`","correlation_id":"`+uuid(1)+`","keys":{"client_order_id":["C-1"],"venue_order_id":["V-9"]},"payload":"ok"}
{"topic":"venue.report","type":"Fill","ts_init":3,"id":"`+uuid(3)+`","correlation_id":"`+uuid(1)+`","keys":{"venue_order_id":["V-9"]},"payload":"5 @ 1"}
{"topic":"other","type":"x","ts_init":4,"id":"`+uuid(4)+`"}
`)
	for key, seqs := range map[string][]string{
		"client_order_id=C-1": {"2", "3"}, "venue_order_id=V-9": {"3", "4"}, "id=" + uuid(3): {"4"}, "correlation_id=" + uuid(1): {"2", "3", "4"},
	} {
		var got []string
		lines := do(t, "history", dir, key).want(t, 0).lines()
		for _, line := range lines {
			got = append(got, strings.Fields(line)[0])
		}
		if !slices.Equal(got, seqs) {
			t.Errorf("%s: %q, want %q", key, got, seqs)
		}
	}
	lines := do(t, "history", dir, "correlation_id="+uuid(1)).lines()
	for i, want := range [][]string{
		{"orders.command", "Submit", "client_order_id=C-1", "buy"}, {"venue.report", "Accepted", "venue_order_id=V-9", "ok"}, {"venue.report", "Fill", "5 @ 1"},
	} {
		for _, s := range append(want, "Z  ") { // and a time
			if !strings.Contains(lines[i], s) {
				t.Errorf("line %d does not show %q: %s", i, s, lines[i])
			}
		}
	}
}
