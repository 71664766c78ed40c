package proof

import (
	"encoding/hex"
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// The vectors of the Certificate Transparency code base for RFC 6962: eight leaves, the roots of the trees over the
// first n of them, and the path of the sixth.
var (
	vectorLeaves = []string{
		"", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
	}
	vectorRoots = []string{
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
		"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
		"aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
		"d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
		"4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
		"76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
		"ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
		"5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
	}
	vectorPath = []string{
		"bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
		"ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
		"d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
	}
)

func TestTreeIsThatOfRFC6962(t *testing.T) {
	for n, want := range vectorRoots {
		var seqs []uint64
		if n == 8 {
			seqs = []uint64{6}
		}
		tree, err := NewTree(uint64(n), seqs)
		if err != nil {
			t.Fatal(err)
		}
		for _, leaf := range vectorLeaves[:n] {
			b, _ := hex.DecodeString(leaf)
			if err := tree.Add(b); err != nil {
				t.Fatal(err)
			}
		}
		root, err := tree.Root()
		if err != nil || fmt.Sprintf("%x", root[:]) != want {
			t.Errorf("root of %d: %x, %v; want %s", n, root[:], err, want)
		}
		if n < 8 {
			continue
		}
		path, err := tree.Path(6)
		if err != nil || len(path) != len(vectorPath) {
			t.Fatal(path, err)
		}
		for i, h := range path {
			if fmt.Sprintf("%x", h[:]) != vectorPath[i] {
				t.Errorf("path[%d] = %x, want %s", i, h[:], vectorPath[i])
			}
		}
	}
}

// Every entry of trees of every shape can be proven, and the tree keeps no more than it needs.
func TestEveryEntryOfEveryTreeIsProven(t *testing.T) {
	for n := uint64(1); n <= 70; n++ {
		seqs := make([]uint64, n)
		for i := range seqs {
			seqs[i] = uint64(i) + 1
		}
		tree, err := NewTree(n, seqs)
		if err != nil {
			t.Fatal(err)
		}
		for _, seq := range seqs {
			if err := tree.Add([]byte{byte(seq)}); err != nil {
				t.Fatal(err)
			}
		}
		root, err := tree.Root()
		if err != nil {
			t.Fatal(err)
		}
		for _, seq := range seqs {
			path, err := tree.Path(seq)
			if err != nil {
				t.Fatal(n, seq, err)
			}
			if err := tlog.CheckRecord(path, int64(n), root, int64(seq)-1, tlog.RecordHash([]byte{byte(seq)})); err != nil {
				t.Errorf("seq %d of %d: %v", seq, n, err)
			}
		}
	}
}

func TestTreeRefusesWhatItWasNotMadeFor(t *testing.T) {
	for _, seq := range []uint64{0, 4} {
		if _, err := NewTree(3, []uint64{seq}); err == nil {
			t.Errorf("a proof of seq %d of 3", seq)
		}
	}
	tree, err := NewTree(8, []uint64{1})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		if _, err := tree.Root(); err == nil {
			t.Errorf("a root after %d of 8 entries", i)
		}
		if _, err := tree.Path(1); err == nil {
			t.Errorf("a path after %d of 8 entries", i)
		}
		if err := tree.Add(nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := tree.Add(nil); err == nil {
		t.Error("9 entries in a tree of 8")
	}
	if _, err := tree.Path(5); err == nil {
		t.Error("a path that nobody has asked for")
	}
}

func TestTreeKeepsFewHashes(t *testing.T) {
	tree, err := NewTree(1<<40-1, []uint64{1, 1 << 20, 1 << 39})
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.keep) > 4*40 {
		t.Errorf("%d hashes for three proofs and the root of a tree of 40 levels", len(tree.keep))
	}
}
