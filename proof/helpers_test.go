package proof

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/runlog-io/runlog/entry"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var testRun = Run{Instance: "demo", ID: "20261123T213801.567745288Z-ffdfa9ba"}

// testKeys gives a key pair that is the same in every run of the tests.
func testKeys(t testing.TB, name string) (note.Signer, note.Verifier) {
	t.Helper()
	seed := bytes.Repeat([]byte(name), 32/len(name)+1)[:32]
	private, public, err := note.GenerateKey(bytes.NewReader(seed), name)
	if err != nil {
		t.Fatal(err)
	}
	s, err1 := note.NewSigner(private)
	v, err2 := note.NewVerifier(public)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return s, v
}

// testEntries gives n entries with every optional part present, absent, odd and empty.
func testEntries(n int) []entry.Entry {
	list := make([]entry.Entry, n)
	for i := range list {
		e := entry.Entry{
			Seq: uint64(i + 1), Topic: "venue.report", Type: "Fill",
			TsInit: 1764583200000500000 + int64(i), TsPublish: 1795469881583202022 + int64(i),
			Payload: fmt.Appendf(nil, "%d @ 4799.00", i), Keys: []entry.Key{{Kind: entry.VenueOrderID, Value: "6412777276324"}},
		}
		switch i % 4 {
		case 1:
			e.Payload, e.Keys = []byte{0xff, 0, byte(i)}, nil
		case 2:
			e.ID, e.CorrelationID, e.CausationID = entry.ID{1, byte(i)}, entry.ID{2, byte(i)}, entry.ID{3, byte(i)}
			e.Keys = []entry.Key{{Kind: "b", Value: "1"}, {Kind: "a", Value: "<&>\u2028"}, {Kind: "b", Value: "2"}}
			e.Payload = []byte("line\n\"quoted\" \u2028 é")
		case 3:
			e.Payload, e.TsInit = nil, -e.TsInit
		}
		list[i] = e
	}
	return list
}

// prove makes the statement over entries and a proof file of some.
func prove(t testing.TB, run Run, entries []entry.Entry, seqs ...uint64) (Statement, []byte) {
	t.Helper()
	tree, err := NewTree(uint64(len(entries)), seqs)
	if err != nil {
		t.Fatal(err)
	}
	for i := range entries {
		if err := tree.Add(AppendLeaf(nil, run, &entries[i])); err != nil {
			t.Fatal(err)
		}
	}
	st := Statement{Run: run, Entries: uint64(len(entries)),
		Digest: strings.Repeat("0a", 32), Manifest: strings.Repeat("b1", 32)}
	if st.Root, err = tree.Root(); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	w, err := NewWriter(&buf, st, len(seqs))
	if err != nil {
		t.Fatal(err)
	}
	for _, seq := range seqs {
		path, err := tree.Path(seq)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Add(&entries[seq-1], path); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return st, buf.Bytes()
}

// check returns what a proof file proves.
func check(b []byte, st Statement) (got []entry.Entry, err error) {
	err = Check(bytes.NewReader(b), st, func(e *entry.Entry) error {
		c := *e
		c.Keys = slices.Clone(e.Keys)
		got = append(got, c)
		return nil
	})
	return got, err
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: the format has changed:\n%s\nwant\n%s", name, got, want)
	}
}
