package proof

import (
	"bytes"
	"testing"
)

// Whatever holds under a statement is, byte for byte, what proving these entries gives.
func FuzzCheckTakesNothingElse(f *testing.F) {
	entries := testEntries(7)
	st, b := prove(f, testRun, entries, 2, 3, 4)
	f.Add(b)
	_, one := prove(f, testRun, entries, 7)
	f.Add(one)
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := check(b, st)
		if err != nil {
			return
		}
		var seqs []uint64
		for _, e := range got {
			seqs = append(seqs, e.Seq)
		}
		if _, want := prove(t, testRun, entries, seqs...); !bytes.Equal(b, want) {
			t.Errorf("%q holds, as does %q", b, want)
		}
	})
}

// A statement that is read is the text that it would be signed as.
func FuzzStatementHasOneForm(f *testing.F) {
	st, _ := prove(f, testRun, testEntries(7), 1)
	signer, key := testKeys(f, "desk")
	b, err := st.Sign(signer)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(st.Text()))
	f.Fuzz(func(t *testing.T, c []byte) {
		if s, err := Read(c); err == nil && !bytes.HasPrefix(c, []byte(s.Text())) {
			t.Errorf("%q was read as %q", c, s.Text())
		}
		if _, err := Read(c, key); err == nil && !bytes.HasPrefix(c, b[:len(st.Text())]) {
			t.Errorf("%q is taken for signed", c)
		}
	})
}
