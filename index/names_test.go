package index

import (
	"fmt"
	"math"
	"reflect"
	"testing"
)

func TestNames(t *testing.T) {
	for _, n := range []uint32{1, 7, 99999999, 100000000, math.MaxUint32} {
		if got, ok := ParseFileName(FileName(n)); !ok || got != n {
			t.Errorf("%s: %d %v", FileName(n), got, ok)
		}
	}
	if FileName(1) != "00000001.idx" || FilterName(1, 4) != "00000001-00000004.flt" {
		t.Error(FileName(1), FilterName(1, 4))
	}
	for _, s := range []string{
		"", "1.idx", "00000000.idx", "00000001.seg", "00000001.idx.tmp", "+0000001.idx", "000000001.idx",
	} {
		if _, ok := ParseFileName(s); ok {
			t.Errorf("%q is accepted", s)
		}
	}
	for _, r := range []Range{{1, 4}, {5, 8}, {1, 16}, {math.MaxUint32 - 6, math.MaxUint32 - 3}} {
		if got, ok := ParseFilterName(FilterName(r.First, r.Last)); !ok || got != r {
			t.Errorf("%v: %v %v", r, got, ok)
		}
	}
	for _, s := range []string{
		"", "00000001.flt", "00000001-00000003.flt", "00000002-00000005.flt", "00000001-00000004.flt.tmp", "1-4.flt",
		"00000001-00000008.flt", "00000004-00000001.flt", "00000000-00000003.flt", "x-00000004.flt", "00000001-y.flt",
	} {
		if _, ok := ParseFilterName(s); ok {
			t.Errorf("%q is accepted", s)
		}
	}
}

func TestDueFiltersMakeUpCovering(t *testing.T) {
	exist := map[Range]bool{}
	for n := uint32(1); n <= 300; n++ {
		for _, r := range Due(n) {
			if !r.IsFilter() || r.Last != n || exist[r] {
				t.Fatalf("Due(%d) has %v", n, r)
			}
			exist[r] = true
		}
		all := Covering(n)
		for _, r := range all {
			if !exist[r] {
				t.Fatalf("Covering(%d) has %v", n, r)
			}
		}
		if len(all) != len(exist) {
			t.Fatalf("Covering(%d) has %d filters, want %d", n, len(all), len(exist))
		}
	}
	if got, want := Due(16), []Range{{13, 16}, {1, 16}}; !reflect.DeepEqual(got, want) {
		t.Error(got)
	}
	if Due(0) != nil || Due(3) != nil {
		t.Error("Due")
	}
}

func TestPlanCoversEachSegmentOnce(t *testing.T) {
	if got, want := fmt.Sprint(Plan(nil, 1, 18)), "[{1 16} {17 17} {18 18}]"; got != want {
		t.Error(got)
	}
	exist := map[Range]bool{}
	for _, r := range Covering(150) {
		exist[r] = true
	}
	for first := uint32(1); first <= 150; first++ {
		for last := first; last <= 150; last++ {
			at, levels := first, 1
			for n := last - first + 1; n >= Fanout; n /= Fanout {
				levels++
			}
			plan := Plan(nil, first, last)
			for _, r := range plan {
				if r.First != at || r.Last > last || r.First != r.Last && !exist[r] {
					t.Fatalf("Plan(%d, %d) = %v", first, last, plan)
				}
				at = r.Last + 1
			}
			limit := 6 * levels
			if first == 1 {
				limit = 3 * levels
			}
			if at != last+1 || len(plan) > limit {
				t.Fatalf("Plan(%d, %d) = %v, limit %d", first, last, plan, limit)
			}
		}
	}
	if got := Plan(nil, 5, 4); got != nil {
		t.Error(got)
	}
	top := uint32(math.MaxUint32)
	if got := Plan(nil, 1, top); got[len(got)-1] != (Range{top, top}) || len(got) > 48 {
		t.Error(len(got), got)
	}
	dst := make([]Range, 0, 64)
	if n := testing.AllocsPerRun(100, func() { dst = Plan(dst[:0], 1, 99999) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestChildrenMakeUpTheirParent(t *testing.T) {
	for _, r := range Covering(256) {
		at := r.First
		for _, c := range r.Children() {
			if c.First != at || c.First != c.Last && !c.IsFilter() {
				t.Fatalf("%v: %v", r, r.Children())
			}
			at = c.Last + 1
		}
		if at != r.Last+1 {
			t.Fatalf("%v: %v", r, r.Children())
		}
	}
}
