package anchor

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/runlog-io/runlog/internal/format"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantIs(t testing.TB, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Fatalf("got %v, want %v", err, target)
		}
	}
}

var sample = Anchor{Covers: 7, Taken: -5, Size: 1 << 40, SHA256: sha256.Sum256([]byte("state")), Ref: "somewhere/é"}

// fields reads "offset name" of a table in docs/format/notes.md.
func fields(t *testing.T, heading string) (list []string) {
	t.Helper()
	page, err := os.ReadFile("../docs/format/notes.md")
	must(t, err)
	_, section, ok := strings.Cut(string(page), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("the page has no %q", heading)
	}
	for line := range strings.Lines(section) {
		if strings.HasPrefix(line, "#") {
			break
		}
		cells := strings.Split(line, "|")
		if len(cells) < 5 {
			continue
		}
		offset, name := strings.TrimSpace(cells[1]), strings.TrimSpace(cells[3])
		if _, err := strconv.Atoi(offset); err == nil {
			list = append(list, offset+" "+strings.TrimSpace(cells[2])+" "+name)
		}
	}
	return list
}

func TestBodiesAgreeWithThePage(t *testing.T) {
	at := func(offset, size int, name string) string {
		s := "..."
		if size > 0 {
			s = strconv.Itoa(size)
		}
		return strconv.Itoa(offset) + " " + s + " " + name
	}
	for heading, want := range map[string][]string{
		"## Anchor body": {at(anCovers, 8, "covers"), at(anTaken, 8, "taken"), at(anSize, 8, "size"), at(anSHA, sha256.Size, "sha256"),
			at(anRef, 0, "ref")},
		"## State hash body": {at(shSeq, 8, "seq"), at(shHash, 0, "hash")},
	} {
		if got := fields(t, heading); strings.Join(got, "; ") != strings.Join(want, "; ") {
			t.Errorf("%s: %q on the page, %q in the code", heading, got, want)
		}
	}
	page, err := os.ReadFile("../docs/format/notes.md")
	must(t, err)
	for _, claim := range []string{"1 to " + strconv.Itoa(MaxRef) + " bytes of UTF-8", "1 to " + strconv.Itoa(MaxHash) + " bytes"} {
		if !strings.Contains(string(page), claim) {
			t.Errorf("the page does not say %q", claim)
		}
	}
}

func TestAnAnchorKeepsEveryField(t *testing.T) {
	for name, a := range map[string]Anchor{
		"some":     sample,
		"smallest": {Covers: 1, Ref: "x"},
		"greatest": {Covers: math.MaxUint64, Taken: math.MaxInt64, Size: math.MaxInt64, SHA256: sha256.Sum256(nil), Ref: strings.Repeat("r", MaxRef)},
	} {
		body, err := a.Append([]byte("before"))
		must(t, err)
		got, err := Decode(body[len("before"):])
		if err != nil || got != a {
			t.Errorf("%s: %+v came back as %+v, %v", name, a, got, err)
		}
	}
	golden := "\x07\x00\x00\x00\x00\x00\x00\x00\xfb\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00\x00\x01\x00\x00" + string(sample.SHA256[:]) + "somewhere/é"
	if body, err := sample.Append(nil); err != nil || string(body) != golden {
		t.Errorf("the bytes have changed: %q, %v", body, err)
	}
}

func TestAStateHashKeepsBothFields(t *testing.T) {
	for _, n := range []int{1, 8, MaxHash} {
		hash := bytes.Repeat([]byte{0xa5}, n)
		body, err := AppendStateHash(nil, 9, hash)
		must(t, err)
		got, err := DecodeStateHash(body)
		if err != nil || got.Seq != 9 || !bytes.Equal(got.Hash, hash) {
			t.Errorf("%d bytes came back as %+v, %v", n, got, err)
		}
	}
}

func TestMalformedNotesAreRefused(t *testing.T) {
	for name, a := range map[string]Anchor{
		"covers nothing": {Ref: "x"}, "no ref": {Covers: 1}, "ref too long": {Covers: 1, Ref: strings.Repeat("r", MaxRef+1)},
		"ref not UTF-8": {Covers: 1, Ref: "\xff"}, "negative size": {Covers: 1, Size: -1, Ref: "x"},
	} {
		if _, err := a.Append(nil); !errors.Is(err, format.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	body, err := sample.Append(nil)
	must(t, err)
	for n := range anRef + 1 {
		if _, err := Decode(body[:n]); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("an anchor of %d bytes: %v", n, err)
		}
	}
	for _, n := range []int{0, 7, 8, MaxHashBody + 1} {
		if _, err := DecodeStateHash(bytes.Repeat([]byte{1}, n)); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("a state hash of %d bytes: %v", n, err)
		}
	}
	for _, n := range []int{0, MaxHash + 1} {
		if _, err := AppendStateHash(nil, 1, make([]byte, n)); !errors.Is(err, format.ErrInvalid) {
			t.Errorf("a hash of %d bytes: %v", n, err)
		}
	}
	if _, err := AppendStateHash(nil, 0, []byte{1}); !errors.Is(err, format.ErrInvalid) {
		t.Errorf("a state hash behind seq 0: %v", err)
	}
	if _, err := DecodeStateHash(make([]byte, 16)); !errors.Is(err, format.ErrCorrupt) {
		t.Errorf("a stored state hash behind seq 0: %v", err)
	}
}

// Whatever the bytes are: no panic, and what is accepted is written back as it was.
func FuzzDecode(f *testing.F) {
	body, _ := sample.Append(nil)
	f.Add(body)
	hash, _ := AppendStateHash(nil, 3, []byte("hash"))
	f.Add(hash)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		if a, err := Decode(body); err == nil {
			if again, err := a.Append(nil); err != nil || !bytes.Equal(again, body) {
				t.Fatalf("%+v is written as %x, %v", a, again, err)
			}
		} else {
			wantIs(t, err, format.ErrCorrupt)
		}
		if h, err := DecodeStateHash(body); err == nil {
			if again, err := AppendStateHash(nil, h.Seq, h.Hash); err != nil || !bytes.Equal(again, body) {
				t.Fatalf("%+v is written as %x, %v", h, again, err)
			}
		} else {
			wantIs(t, err, format.ErrCorrupt)
		}
	})
}

func TestOrderErrorsSayWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		seq, previous, accepted uint64
		bad                     bool
	}{{1, 0, 1, false}, {5, 5, 5, false}, {5, 5, 9, false}, {0, 0, 9, true}, {10, 0, 9, true}, {4, 5, 9, true}} {
		err := CheckOrder("anchor", c.seq, c.previous, c.accepted)
		var order *OrderError
		if (err != nil) != c.bad || c.bad && (!errors.As(err, &order) || !errors.Is(err, format.ErrInvalid) || order.Seq != c.seq) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
