package proof

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/runlog-io/runlog/entry"
)

func TestProofHoldsWhatWasProven(t *testing.T) {
	entries := testEntries(23)
	for _, seqs := range [][]uint64{{1}, {23}, {2, 3, 4}, {1, 2, 3, 4, 5, 6, 7, 8, 16, 17, 22, 23}} {
		st, b := prove(t, testRun, entries, seqs...)
		got, err := check(b, st)
		if err != nil || len(got) != len(seqs) {
			t.Fatal(len(got), err)
		}
		for i, seq := range seqs {
			want := entries[seq-1]
			if len(want.Payload) == 0 {
				want.Payload = []byte{}
			}
			if !reflect.DeepEqual(got[i], want) {
				t.Errorf("seq %d: %+v, want %+v", seq, got[i], want)
			}
		}
	}
}

func TestAProofOfOneEntryRunIsItsLeaf(t *testing.T) {
	st, b := prove(t, testRun, testEntries(1), 1)
	if got, err := check(b, st); err != nil || len(got) != 1 {
		t.Error(got, err)
	}
	if !bytes.HasSuffix(b, []byte("\"path\":[]}\n")) {
		t.Errorf("%s", b)
	}
}

func TestTheProofFileIsGolden(t *testing.T) {
	_, b := prove(t, testRun, testEntries(7), 1, 2, 3, 4)
	golden(t, "proof-v1.golden", b)
}

// Nothing in a proof file can be changed: no bit, no byte left out or put in, no end cut off.
func TestAChangedProofIsRefused(t *testing.T) {
	st, b := prove(t, testRun, testEntries(7), 2, 3, 4)
	if _, err := check(b, st); err != nil {
		t.Fatal(err)
	}
	for i := range b {
		for bit := range 8 {
			c := bytes.Clone(b)
			c[i] ^= 1 << bit
			if _, err := check(c, st); err == nil {
				t.Errorf("byte %d, bit %d: %q", i, bit, c)
			}
		}
		if _, err := check(b[:i], st); !errors.Is(err, ErrInvalid) {
			t.Errorf("cut at byte %d: %v", i, err)
		}
		if _, err := check(slices.Concat(b[:i], b[i+1:]), st); err == nil {
			t.Errorf("without byte %d", i)
		}
		for _, x := range " \n0,\"" {
			if _, err := check(slices.Concat(b[:i], []byte(string(x)), b[i:]), st); err == nil {
				t.Errorf("%q before byte %d", x, i)
			}
		}
	}
	if _, err := check(append(bytes.Clone(b), '\n'), st); !errors.Is(err, ErrInvalid) {
		t.Errorf("a line behind the end: %v", err)
	}
}

// Each field is changed to another good value, so that only the tree can tell.
func TestAChangedFieldIsRefused(t *testing.T) {
	st, b := prove(t, testRun, testEntries(7), 3)
	lines := strings.SplitAfter(string(b), "\n")
	var l line
	if err := json.Unmarshal([]byte(lines[1]), &l); err != nil {
		t.Fatal(err)
	}
	text := "x"
	changes := map[string]func(*line){
		"Seq":           func(l *line) { l.Seq++ },
		"Topic":         func(l *line) { l.Topic += "x" },
		"Type":          func(l *line) { l.Type = "Accepted" },
		"TsInit":        func(l *line) { l.TsInit-- },
		"TsPublish":     func(l *line) { l.TsPublish++ },
		"ID":            func(l *line) { l.ID = "" },
		"CorrelationID": func(l *line) { l.CorrelationID = l.ID },
		"CausationID":   func(l *line) { l.CausationID = l.ID },
		"Keys":          func(l *line) { l.Keys = l.Keys[:2] },
		"Payload":       func(l *line) { l.Payload = &text },
		"PayloadBase64": func(l *line) { l.Payload, l.PayloadBase64 = nil, []byte{0xff} },
		"Path":          func(l *line) { l.Path = []Hash{l.Path[1], l.Path[0], l.Path[2]} },
	}
	for i := range reflect.TypeFor[line]().NumField() {
		name := reflect.TypeFor[line]().Field(i).Name
		if changes[name] == nil {
			t.Fatalf("field %s is not tried", name)
		}
		c := l
		changes[name](&c)
		changed, err := encode(&c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := check([]byte(lines[0]+string(changed)), st); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*Statement){
		"instance": func(s *Statement) { s.Instance = "demp" },
		"run":      func(s *Statement) { s.ID = strings.Replace(s.ID, "ff", "00", 1) },
		"entries":  func(s *Statement) { s.Entries++ },
		"root":     func(s *Statement) { s.Root[31]++ },
		"digest":   func(s *Statement) { s.Digest = strings.Repeat("0b", 32) },
		"manifest": func(s *Statement) { s.Manifest = strings.Repeat("0b", 32) },
	} {
		c := st
		change(&c)
		if _, err := check(b, c); !errors.Is(err, ErrInvalid) {
			t.Errorf("trusted: %s: %v", name, err)
		}
		forged := strings.Replace(lines[0], jsonText(st.Text()), jsonText(c.Text()), 1) + lines[1]
		if _, err := check([]byte(forged), st); !errors.Is(err, ErrInvalid) {
			t.Errorf("in the proof: %s: %v", name, err)
		}
		if name == "instance" || name == "run" || name == "root" { // the other three only the statement's text binds
			if _, err := check([]byte(forged), c); !errors.Is(err, ErrInvalid) {
				t.Errorf("in both: %s: %v", name, err)
			}
		}
	}
}

func jsonText(s string) string {
	b, _ := encode(s)
	return strings.TrimSuffix(string(b), "\n")
}

func TestAProofOfAnotherRunIsRefused(t *testing.T) {
	entries := testEntries(7)
	st, _ := prove(t, testRun, entries, 3)
	other := Run{Instance: "demo", ID: "20261123T213801.567745288Z-ffdfa9bb"}
	_, b := prove(t, other, entries, 3) // the same entries
	if _, err := check(b, st); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	// Not even with the right statement in front.
	_, mine := prove(t, testRun, entries, 3)
	head, _, _ := bytes.Cut(mine, []byte("\n"))
	_, rest, _ := bytes.Cut(b, []byte("\n"))
	if _, err := check(slices.Concat(head, []byte("\n"), rest), st); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

// Trees of other sizes prove nothing, even if they begin with the same entries.
func TestAProofOfAnotherSizeIsRefused(t *testing.T) {
	entries := testEntries(40)
	st, mine := prove(t, testRun, entries[:23], 3)
	head, _, _ := bytes.Cut(mine, []byte("\n"))
	for n := 3; n <= 40; n++ {
		if n == 23 {
			continue
		}
		_, b := prove(t, testRun, entries[:n], 3)
		_, rest, _ := bytes.Cut(b, []byte("\n"))
		if _, err := check(slices.Concat(head, []byte("\n"), rest), st); !errors.Is(err, ErrInvalid) {
			t.Errorf("%d entries: %v", n, err)
		}
	}
}

func TestReorderedRepeatedAndMissingEntriesAreRefused(t *testing.T) {
	st, b := prove(t, testRun, testEntries(7), 2, 3, 4)
	l := bytes.SplitAfter(b, []byte("\n"))
	for name, c := range map[string][][]byte{
		"reordered":            {l[0], l[2], l[1], l[3]},
		"repeated":             {l[0], l[1], l[1], l[3]},
		"one missing":          {l[0], l[1], l[3]},
		"one more":             {l[0], l[1], l[2], l[3], l[3]},
		"none":                 {l[0]},
		"header twice":         {l[0], l[0], l[1], l[2], l[3]},
		"without header":       {l[1], l[2], l[3]},
		"paths of one another": {l[0], swapPath(t, l[1], l[2]), l[2], l[3]},
	} {
		if _, err := check(slices.Concat(c...), st); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := check(nil, st); !errors.Is(err, ErrInvalid) {
		t.Errorf("empty: %v", err)
	}
}

func swapPath(t *testing.T, a, b []byte) []byte {
	var x, y line
	if err := errors.Join(json.Unmarshal(a, &x), json.Unmarshal(b, &y)); err != nil {
		t.Fatal(err)
	}
	x.Path = y.Path
	out, err := encode(&x)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestANewerProofIsNotCalledBad(t *testing.T) {
	st, b := prove(t, testRun, testEntries(7), 3)
	c := bytes.Replace(b, []byte(`"runlog_proof":1`), []byte(`"runlog_proof":2`), 1)
	if _, err := check(c, st); !errors.Is(err, ErrVersion) || errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

func TestCheckReturnsOtherErrorsAsTheyAre(t *testing.T) {
	st, b := prove(t, testRun, testEntries(7), 3, 4)
	stop := errors.New("stop")
	if err := Check(bytes.NewReader(b), st, func(*entry.Entry) error { return stop }); err != stop {
		t.Error(err)
	}
	broken := io.MultiReader(bytes.NewReader(b[:len(b)-5]), failing{stop})
	if err := Check(broken, st, func(*entry.Entry) error { return nil }); !errors.Is(err, stop) || errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestWriterRefusesWhatWouldNotHold(t *testing.T) {
	entries := testEntries(7)
	st, _ := prove(t, testRun, entries, 3)
	tree, err := NewTree(7, []uint64{3, 4})
	if err != nil {
		t.Fatal(err)
	}
	for i := range entries {
		if err := tree.Add(AppendLeaf(nil, testRun, &entries[i])); err != nil {
			t.Fatal(err)
		}
	}
	path, err := tree.Path(3)
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWriter(io.Discard, st, 1)
	if err != nil {
		t.Fatal(err)
	}
	changed := entries[2]
	changed.Topic = "\xff" // JSON would make something else of it
	for _, e := range []*entry.Entry{&entries[3], &changed} {
		if err := w.Add(e, path); !errors.Is(err, ErrInvalid) {
			t.Errorf("seq %d: %v", e.Seq, err)
		}
	}
	if err := w.Close(); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if err := errors.Join(w.Add(&entries[2], path), w.Close()); err != nil {
		t.Error(err)
	}
	if err := w.Add(&entries[2], path); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}
