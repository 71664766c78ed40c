package entry

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/runlog-io/runlog/internal/format"
)

func TestBuiltInKindsAlwaysHaveTheirNumbers(t *testing.T) {
	for name, k := range map[string]*Kinds{"nil": nil, "zero": {}, "declared": testKinds(t, "a")} {
		for no, kind := range map[KindNo]string{1: ClientOrderID, 2: VenueOrderID, 3: KindID, 4: KindCorrID} {
			if got, ok := k.No(kind); !ok || got != no {
				t.Errorf("%s: %q has number %d", name, kind, got)
			}
			if k.Name(no) != kind {
				t.Errorf("%s: number %d is %q", name, no, k.Name(no))
			}
			same, got, err := k.With(kind)
			if err != nil || got != no || same != k {
				t.Errorf("%s: declaring %q again: %d, %v", name, kind, got, err)
			}
		}
		for _, no := range []KindNo{0, 5, 15, 17, 1 << 20} {
			if k.Name(no) != "" {
				t.Errorf("%s: number %d is %q", name, no, k.Name(no))
			}
		}
		if _, ok := k.No("unknown"); ok {
			t.Errorf("%s knows an unknown kind", name)
		}
	}
	if (*Kinds)(nil).Declared() != nil {
		t.Error("nil declares something")
	}
}

func TestDeclaredKindsAreNumberedInOrder(t *testing.T) {
	var k *Kinds
	var names []string
	for i := range MaxKinds - int(NoCorrelationID) {
		name := fmt.Sprintf("kind %d", i)
		next, no, err := k.With(name)
		if err != nil || no != FirstUserKind+KindNo(i) {
			t.Fatalf("%q: number %d, %v", name, no, err)
		}
		if _, ok := k.No(name); ok {
			t.Fatalf("declaring %q changed the old table", name)
		}
		k = next
		names = append(names, name)
		if mapped := k.byName != nil; mapped != (i+1 >= mapFrom) {
			t.Fatalf("%d kinds: map is %v", i+1, mapped)
		}
		if i < 2*mapFrom { // on both sides of the threshold, every name is found
			for j, name := range names {
				if got, ok := k.No(name); !ok || got != FirstUserKind+KindNo(j) || k.Name(got) != name {
					t.Errorf("of %d kinds, %q has number %d", i+1, name, got)
				}
			}
		}
	}
	if got := k.Declared(); strings.Join(got, ",") != strings.Join(names, ",") {
		t.Error("declared kinds are not in order")
	}
	again, no, err := k.With("kind 7")
	if err != nil || no != FirstUserKind+7 || again != k {
		t.Errorf("declaring again: %d, %v", no, err)
	}
	same, _, err := k.With("one too many")
	wantInvalid(t, err, "one too many")
	if same != k {
		t.Error("a refused kind changed the table")
	}
	k.Declared()[0] = "changed"
	if k.Name(FirstUserKind) != "kind 0" {
		t.Error("the table can be changed from outside")
	}
}

func TestKindNamesHaveLimits(t *testing.T) {
	if _, _, err := (&Kinds{}).With(strings.Repeat("k", MaxKindName)); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", strings.Repeat("k", MaxKindName+1), "\xff"} {
		_, _, err := (&Kinds{}).With(bad)
		wantInvalid(t, err, "key kind")
	}
}

func TestFingerprints(t *testing.T) {
	if Fingerprint(1, []byte("C-1")) != FingerprintString(1, "C-1") {
		t.Error("bytes and string differ")
	}
	seen := map[uint64]string{}
	for kind := range KindNo(20) {
		for i := range 500 {
			what := fmt.Sprintf("%d %d", kind, i)
			fp := FingerprintString(kind, fmt.Sprint(i))
			if seen[fp] != "" {
				t.Fatalf("%s and %s share a fingerprint", what, seen[fp])
			}
			seen[fp] = what
		}
	}
}

// EH6: an id's text is lowercase hex, high nibble first, and comes back.
func TestIDTextRoundTrip(t *testing.T) {
	id := ID{0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89}
	const text = "abcdef01-2345-6789-abcd-ef0123456789"
	if id.String() != text {
		t.Errorf("%s", id)
	}
	for _, s := range []string{text, strings.ToUpper(text), "AbCdEf01-2345-6789-aBcD-eF0123456789"} {
		if got, err := ParseID(s); got != id || err != nil {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	rng := rand.New(rand.NewPCG(seed, 3))
	for range 500 {
		var id ID
		for i := range id {
			id[i] = byte(rng.Uint32())
		}
		if got, err := ParseID(id.String()); got != id || err != nil {
			t.Fatalf("%v: %v, %v", id, got, err)
		}
	}
}

// EH14: the zero id is "unset", and nothing else is.
func TestTheZeroIDIsUnset(t *testing.T) {
	if !(ID{}).IsZero() || (ID{15: 1}).IsZero() {
		t.Error("IsZero")
	}
	d := Draft{Topic: "t", Type: "p"}
	body, flags := encode(&d, nil, 0, 0, 0)
	if flags != 0 {
		t.Errorf("flags %04b without optional parts", flags)
	}
	v, err := ParseView(NewDict(0), 1, flags, body)
	if err != nil || !v.ID().IsZero() || !v.CorrelationID().IsZero() || !v.CausationID().IsZero() {
		t.Errorf("%v %v %v %v", v.ID(), v.CorrelationID(), v.CausationID(), err)
	}
}

func TestBadIDTextIsRefused(t *testing.T) {
	const good = "abcdef01-2345-6789-abcd-ef0123456789"
	bad := []string{
		"", good[:35], good + "0", " " + good[1:], "{" + good[1:],
		strings.ReplaceAll(good, "-", ""), strings.ReplaceAll(good, "-", "_"),
		"gbcdef01-2345-6789-abcd-ef0123456789", "abcdef0-12345-6789-abcd-ef0123456789", "abcdef01-2345-6789-abcd-ef012345678\xff",
		"00000000-0000-0000-0000-000000000000", "abcdef01-2345-6789-abcd-ef01234567-9", strings.Repeat("é", 18),
	}
	for i := range good { // no character can be left out or replaced
		bad = append(bad, good[:i]+"x"+good[i+1:])
	}
	for _, s := range bad {
		if id, err := ParseID(s); !errors.Is(err, format.ErrInvalid) || !id.IsZero() {
			t.Errorf("%q: %v, %v", s, id, err)
		}
	}
}

func TestDictResolvesWhatIsDefined(t *testing.T) {
	d := NewDict(5)
	if d.BaseTime != 5 || len(d.Routes()) != 1 || len(d.Kinds().Declared()) != 0 {
		t.Error("a new dictionary is not empty")
	}
	d.SetRoute(3, Route{"t3", "p3"})
	for _, no := range []uint32{0, 1, 2, 4, 1 << 31} {
		if r, ok := d.Route(no); ok {
			t.Errorf("route %d is %v", no, r)
		}
	}
	before := d.Routes()
	d.SetRoute(1, Route{"t1", "p1"})
	d.SetRoute(3, Route{"T3", "P3"})
	if before[1].Topic != "" || before[3].Topic != "t3" {
		t.Error("what a reader held has changed")
	}
	for no, topic := range map[uint32]string{1: "t1", 3: "T3"} {
		if r, ok := d.Route(no); !ok || r.Topic != topic {
			t.Errorf("route %d is %v", no, r)
		}
	}
}

// A dictionary grows beside its readers: what was defined once stays as it was. Run with -race.
func TestDictGrowsBesideReaders(t *testing.T) {
	const routes = 2000
	d := NewDict(0)
	defined := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for done := false; !done; {
				select {
				case <-defined:
					done = true
				default:
				}
				all := d.Routes()
				for no := 1; no < len(all); no += 37 {
					r, ok := d.Route(uint32(no))
					if all[no].Topic != "" && (!ok || r != all[no]) {
						t.Errorf("route %d changed from %v to %v", no, all[no], r)
						return
					}
				}
				for i, name := range d.Kinds().Declared() {
					if no, ok := d.Kinds().No(name); !ok || no != FirstUserKind+KindNo(i) {
						t.Errorf("kind %q has number %d", name, no)
						return
					}
				}
			}
		})
	}
	for i := range uint32(routes) {
		no := i + 1
		if i%10 == 0 {
			no += 5 // a gap that is filled later
		} else if i%10 == 5 {
			no -= 5
		}
		d.SetRoute(no, Route{fmt.Sprint("topic ", no), "type"})
		if i%100 == 0 {
			k, _, err := d.Kinds().With(fmt.Sprint("kind ", i))
			if err != nil {
				t.Fatal(err)
			}
			d.SetKinds(k)
		}
	}
	close(defined)
	wg.Wait()
	for no := uint32(1); no <= routes; no++ {
		if r, ok := d.Route(no); !ok || r.Topic != fmt.Sprint("topic ", no) {
			t.Fatalf("route %d is %v", no, r)
		}
	}
}
