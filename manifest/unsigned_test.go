package manifest

import (
	"crypto/sha256"
	"testing"
)

// statement is the example of docs/format/proof.md.
const statement = `runlog/demo/20261123T213801.567745288Z-ffdfa9ba
7
dbsOgPCmQLAW9DDI7lUXRVDgcsiUp1xYSh9LjJE23dY=
runlog statement 1
last_seq 7
run_sha256 0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a
manifest_sha256 b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1

— desk-1.example.com /Z7ivxQDqwy2rN5EgL4LCd83Gw6NJhMwO7baL5qS1zbsc+xRrUfIOW4vs2zqfqbJo98OCMTQX24A9RDJwk11IhYJ9Qk=
`

// signed is a manifest with a signed statement in it.
func signed() Manifest {
	m := full()
	m.FloorSegment, m.Floor, m.BaseDigest, m.BaseEnded = 0, 0, "", nil
	m.Signature = statement
	return m
}

func TestASignedManifestIsGolden(t *testing.T) {
	golden(t, "manifest-signed-v1.golden", mustEncode(t, signed()))
}

func TestUnsignedDigestIsThatOfTheFileBeforeSigning(t *testing.T) {
	m := signed()
	m.Signature = ""
	before := mustEncode(t, m)
	after, err := Decode("", mustEncode(t, signed()))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := UnsignedDigest(after); err != nil || got != sha256.Sum256(before) {
		t.Errorf("%x, %v", got, err)
	}
	if after.Signature != signed().Signature {
		t.Error("the signature is not kept")
	}
}

func TestUnsignedDigestCoversTheRest(t *testing.T) {
	was, err := UnsignedDigest(signed())
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Manifest){
		"build":   func(m *Manifest) { m.Build += "x" },
		"labels":  func(m *Manifest) { m.Labels = nil },
		"status":  func(m *Manifest) { m.Status = Ended },
		"dropped": func(m *Manifest) { m.DroppedBytes++ },
		"halt":    func(m *Manifest) { m.Halt = nil },
		"skipped": func(m *Manifest) { m.Skipped = nil },
		"digest":  func(m *Manifest) { m.Digest = "" },
	} {
		m := signed()
		change(&m)
		if sum, err := UnsignedDigest(m); err != nil || sum == was {
			t.Errorf("%s is not covered (%v)", name, err)
		}
	}
}
