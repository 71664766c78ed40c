package main

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The exchange of the examples runs, is killed twice, and shows the life of an order. The tool tells the same from the log: every
// entry of the order in every run, and for each event the command that it came of.
func TestWhyAndHistoryWorkOnRealOrderFlow(t *testing.T) {
	dir := t.TempDir()
	exe, work := filepath.Join(dir, "exchange"), filepath.Join(dir, "work")
	build := exec.Command("go", "build", "-o", exe, "./examples/exchange")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.Command(exe, "demo", "--orders", "60000", "--dir", work, "--keep").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	order := regexp.MustCompile(`client_order_id=\d+`).FindString(string(out))
	var want, got []string // run, seq and type of each entry
	for _, m := range regexp.MustCompile(`(?m)^ +(\d) +([\d,]+) +\+\S+ +(\w+)`).FindAllStringSubmatch(string(out), -1) {
		want = append(want, m[1]+" "+strings.ReplaceAll(m[2], ",", "")+" "+m[3])
	}
	runs, err := filepath.Glob(filepath.Join(work, "exchange", "2*"))
	if err != nil || len(runs) < 2 || order == "" || len(want) < 3 {
		t.Fatalf("%d runs, order %q with %d entries; %v\n%s", len(runs), order, len(want), err, out)
	}
	type shown struct {
		Seq   json.Number
		Type  string
		Entry *shown
		Link  string
	}
	read := func(args ...string) (list []shown) {
		for _, line := range do(t, args...).want(t, 0).lines() {
			var s shown
			if err := json.Unmarshal([]byte(line), &s); err != nil {
				t.Fatal(err)
			}
			list = append(list, s)
		}
		return list
	}
	events := 0
	for i, run := range runs {
		for _, e := range read("history", run, order, "--json") {
			got = append(got, fmt.Sprint(i+1, " ", e.Seq, " ", e.Type))
			chain := read("why", run, e.Seq.String(), "--parents", "--json")
			if last := chain[len(chain)-1]; last.Link != "root" {
				t.Errorf("run %d, seq %s: the chain ends with %q", i+1, e.Seq, last.Link)
			}
			if !strings.HasPrefix(e.Type, "Order") { // a command
				continue
			}
			events++
			if len(chain) < 3 || chain[1].Link != "cause" || !strings.HasSuffix(chain[1].Entry.Type, "Order") {
				t.Errorf("run %d, seq %s, %s: chain %+v", i+1, e.Seq, e.Type, chain)
			}
		}
	}
	if !slices.Equal(got, want) || events == 0 {
		t.Errorf("history gives\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if tree := relatives(t, filepath.Join(work, "exchange")); len(tree) != len(runs) || len(tree[0].ContinuedBy) != 1 {
		t.Errorf("lineage %+v", tree)
	}
}
