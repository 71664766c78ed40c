package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// demo is the run of the examples in docs/cli.md, and demoID what it is called there.
const (
	demo = `{"topic":"orders.command","type":"Submit","ts_init":1764583200000000000,"ts_publish":1795469881583186969,"id":"0193e0c4-7d1c-7f65-b1d5-8d6f3a0c2b11","correlation_id":"0193e0c4-7d1c-7f65-b1d5-8d6f3a0c2b11","keys":{"client_order_id":["C-1017"],"account":["A7"]},"payload":"buy 5 ESH4 @ 4799.00"}
{"topic":"venue.report","type":"Accepted","ts_init":1764583200000450000,"ts_publish":1795469881583199829,"correlation_id":"0193e0c4-7d1c-7f65-b1d5-8d6f3a0c2b11","causation_id":"0193e0c4-7d1c-7f65-b1d5-8d6f3a0c2b11","keys":{"client_order_id":["C-1017"],"venue_order_id":["6412777276324"]},"payload":"accepted"}
{"topic":"venue.report","type":"Fill","ts_init":1764583200000500000,"ts_publish":1795469881583202022,"keys":{"venue_order_id":["6412777276324"]},"payload":"3 @ 4799.00"}
{"topic":"venue.report","type":"Fill","ts_init":1764583200000600000,"ts_publish":1795469881583203073,"keys":{"venue_order_id":["6412777276324"]},"payload":"2 @ 4799.00"}
{"topic":"venue.raw","type":"Frame","ts_init":1764583200000600000,"ts_publish":1795469881583214100,"payload_base64":"/wD+AQI="}
`
	demoID = "20261123T213801.567745288Z-ffdfa9ba"
)

// What the page shows is what the tool prints, to the letter, but for run ids and the speed.
func TestG41ThePageShowsWhatTheToolPrints(t *testing.T) {
	page, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	runlogWith(t, demo, "import", "runs", "--instance", "demo", "-").want(t, 0)
	found, err := filepath.Glob("runs/demo/2*")
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	dir := found[0]
	bad := filepath.Join("bad", "demo", filepath.Base(dir))
	if err := os.CopyFS(bad, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	flip(t, filepath.Join(bad, "00000001.seg"), 4640)
	for _, args := range [][]string{
		{"cat", dir, "--from", "2", "--to", "6"}, {"get", dir, "3"}, {"get", dir, "2", "--json"}, {"get", dir, "99"}, {"history", dir, "venue_order_id=6412777276324"},
		{"why", dir, "3"}, {"why", dir, "2", "--down"}, {"verify", "runs"}, {"verify", "bad"}, {"salvage", bad, "rescued"},
	} {
		r := do(t, args...)
		lines := strings.Split(strings.TrimSuffix(r.out+r.stderr, "\n"), "\n")
		if args[0] == "salvage" {
			lines = lines[:len(lines)-1] // the new run's directory
		}
		for _, line := range lines {
			if line = "\n    " + strings.ReplaceAll(line, filepath.Base(dir), demoID) + "\n"; !strings.Contains(string(page), line) {
				t.Errorf("runlog %s prints a line that is not on the page:%s", strings.Join(args, " "), line)
			}
		}
	}
}

func TestThePageShowsTheFormatsVersions(t *testing.T) {
	page, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	out := do(t, "version", "--json").want(t, 0).out
	_, formats, ok := strings.Cut(out, `"formats":`)
	if !ok || !strings.Contains(string(page), `"formats":`+formats) {
		t.Errorf("the page does not show %s", out)
	}
}
