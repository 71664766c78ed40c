package proof

import (
	"encoding/hex"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/runlog-io/runlog/entry"
)

// fill is the entry of the page's example.
var fill = entry.Entry{
	Seq: 4, Topic: "venue.report", Type: "Fill", TsInit: 1764583200000500000, TsPublish: 1795469881583202022,
	Payload: []byte("3 @ 4799.00"), Keys: []entry.Key{{Kind: "venue_order_id", Value: "6412777276324"}},
}

func TestTheLeafIsThatOfThePage(t *testing.T) {
	leaf := AppendLeaf(nil, testRun, &fill)
	dump := hex.Dump(leaf)
	golden(t, "leaf-v1.golden", []byte(dump))
	page, err := os.ReadFile("../docs/format/proof.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSuffix(dump, "\n"), "\n") {
		if !strings.Contains(string(page), "    "+line+"\n") {
			t.Errorf("the page does not show %s", line)
		}
	}
}

func TestEveryFieldIsInTheLeaf(t *testing.T) {
	e := testEntries(3)[2]
	was := string(AppendLeaf(nil, testRun, &e))
	for _, f := range []func(*entry.Entry, *Run){
		func(e *entry.Entry, _ *Run) { e.Seq++ },
		func(e *entry.Entry, _ *Run) { e.TsInit++ },
		func(e *entry.Entry, _ *Run) { e.TsPublish++ },
		func(e *entry.Entry, _ *Run) { e.Topic += "x" },
		func(e *entry.Entry, _ *Run) { e.Topic, e.Type = e.Topic+e.Type[:1], e.Type[1:] },
		func(e *entry.Entry, _ *Run) { e.Type = "x" },
		func(e *entry.Entry, _ *Run) { e.Payload = append([]byte{}, e.Payload[1:]...) },
		func(e *entry.Entry, _ *Run) { e.ID[15]++ },
		func(e *entry.Entry, _ *Run) { e.CorrelationID[0]++ },
		func(e *entry.Entry, _ *Run) { e.CausationID[7]++ },
		func(e *entry.Entry, _ *Run) { e.ID, e.CorrelationID = e.CorrelationID, e.ID },
		func(e *entry.Entry, _ *Run) { e.Keys = e.Keys[:2] },
		func(e *entry.Entry, _ *Run) { e.Keys = []entry.Key{e.Keys[1], e.Keys[0], e.Keys[2]} },
		func(e *entry.Entry, _ *Run) { e.Keys = []entry.Key{{Kind: "b1", Value: ""}, e.Keys[1], e.Keys[2]} },
		func(_ *entry.Entry, r *Run) { r.ID = strings.Replace(r.ID, "2026", "2025", 1) },
		func(_ *entry.Entry, r *Run) { r.Instance = "demp" },
	} {
		c, run := e, testRun
		f(&c, &run)
		if string(AppendLeaf(nil, run, &c)) == was {
			t.Errorf("another entry has the same leaf: %+v of %v", c, run)
		}
	}
	if n := reflect.TypeFor[entry.Entry]().NumField(); n != 10 {
		t.Errorf("an entry has %d fields: is the new one in the leaf, and here?", n)
	}
}
