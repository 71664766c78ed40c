package proof

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestTheStatementIsThatOfThePage(t *testing.T) {
	st, _ := prove(t, testRun, testEntries(7), 4)
	signer, _ := testKeys(t, "desk-1.example.com")
	b, err := st.Sign(signer)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "statement-v1.golden", b)
	page, err := os.ReadFile("../docs/format/proof.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := "    " + strings.ReplaceAll(strings.TrimSuffix(string(b), "\n"), "\n", "\n    ")
	if !strings.Contains(string(page), strings.ReplaceAll(shown, "    \n", "\n")) {
		t.Errorf("the page does not show\n%s", shown)
	}
}

func TestStatementIsReadAsItWasSigned(t *testing.T) {
	st, _ := prove(t, testRun, testEntries(7), 4)
	signer, key := testKeys(t, "desk")
	other, otherKey := testKeys(t, "other")
	both, err := st.Sign(signer, other)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Read(both, key)
	if err != nil || s.Statement != st || !slices.Equal(s.By, []string{"desk"}) || !slices.Equal(s.Unknown, []string{"other"}) {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := Read(both); err != nil || s.Statement != st || s.By != nil || len(s.Unknown) != 2 {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := Read([]byte(st.Text())); err != nil || s.Statement != st || s.By != nil || s.Unknown != nil {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := Read([]byte(st.Text()), key); !errors.Is(err, ErrInvalid) {
		t.Errorf("unsigned, but a key was given: %v", err)
	}
	alone, err := st.Sign(signer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Read(alone, otherKey); !errors.Is(err, ErrInvalid) {
		t.Errorf("signed by another key: %v", err)
	}
	_, fake := testKeys(t, "desk0")
	if _, err := Read(alone, fake); !errors.Is(err, ErrInvalid) {
		t.Errorf("signed by another key: %v", err)
	}
}

// Nothing in a signed statement can be changed, not one bit, and no byte can be left out or put in.
func TestAChangedStatementIsRefused(t *testing.T) {
	st, _ := prove(t, testRun, testEntries(7), 4)
	signer, key := testKeys(t, "desk")
	b, err := st.Sign(signer)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		for bit := range 8 {
			c := bytes.Clone(b)
			c[i] ^= 1 << bit
			if _, err := Read(c, key); err == nil {
				t.Errorf("byte %d, bit %d: %q", i, bit, c)
			}
		}
		if _, err := Read(b[:i], key); err == nil {
			t.Errorf("cut at byte %d", i)
		}
		if _, err := Read(slices.Concat(b[:i], b[i+1:]), key); err == nil {
			t.Errorf("without byte %d", i)
		}
		for _, x := range "\n 0=A" {
			if _, err := Read(slices.Concat(b[:i], []byte(string(x)), b[i:]), key); err == nil {
				t.Errorf("%q before byte %d", x, i)
			}
		}
	}
	// The last digit of the base64 has two bits that stand for nothing.
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for i, at := 1, len(b)-3; i < 4; i++ {
		c := bytes.Clone(b)
		c[at] = digits[strings.IndexByte(digits, b[at])+i]
		if _, err := Read(c, key); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q for %q: %v", c[at:], b[at:], err)
		}
	}
	sig := b[bytes.LastIndex(b, []byte("\n\n"))+2:]
	if _, err := Read(slices.Concat(b, sig), key); !errors.Is(err, ErrInvalid) {
		t.Errorf("the signature twice: %v", err)
	}
}

// A text that is not a statement's own is refused even if it is signed.
func TestATextHasOneForm(t *testing.T) {
	st, _ := prove(t, testRun, testEntries(7), 4)
	text := st.Text()
	for _, c := range []struct{ old, new string }{
		{"runlog/", "other/"}, {"demo", ".demo"}, {"\n7\n", "\n07\n"}, {"\n7\n", "\n+7\n"},
		{"last_seq 7", "last_seq 8"}, {"last_seq", "lastseq"}, {"run_sha256 0a", "run_sha256 0A"},
		{"run_sha256 ", "run_sha256  "}, {"manifest_sha256", "run_sha256"}, {"statement 1\n", "statement 1 \n"},
		{"=\n", "\n"}, {"2026", "202"}, {"last_seq 7\n", ""}, {"last_seq 7\n", "last_seq 7\nmore\n"},
	} {
		changed := strings.Replace(text, c.old, c.new, 1)
		if changed == text {
			t.Fatalf("%q is not in the text", c.old)
		}
		if _, err := ParseText(changed); err == nil {
			t.Errorf("%q for %q was read", c.new, c.old)
		}
	}
	if _, err := ParseText(strings.Replace(text, "statement 1", "statement 2", 1)); !errors.Is(err, ErrVersion) {
		t.Errorf("version 2: %v", err)
	}
}
