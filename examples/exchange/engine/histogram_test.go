package engine

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestBucketsCoverEveryValueOnce(t *testing.T) {
	for b := range buckets {
		top := bucketTop(b)
		if got := bucketOf(top); got != b {
			t.Fatalf("bucket %d ends at %d, which is in bucket %d", b, top, got)
		}
		if b+1 < buckets && bucketOf(top+1) != b+1 {
			t.Fatalf("%d is in bucket %d, want %d", top+1, bucketOf(top+1), b+1)
		}
	}
}

func TestQuantilesAreAtMostOneBucketTooHigh(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var h Histogram
	var all []time.Duration
	for range 50_000 {
		d := time.Duration(r.ExpFloat64() * float64(10*time.Microsecond))
		all = append(all, d)
		h.Record(d)
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999, 0.9999} {
		want := all[int(q*float64(len(all)))]
		got := h.Quantile(q)
		if got < want || got > want+want/32+1 {
			t.Errorf("q%v: %v, want %v to %v", q, got, want, want+want/32)
		}
	}
	if h.Max() != all[len(all)-1] || h.Quantile(1) != h.Max() || h.Count() != 50_000 {
		t.Errorf("max %v, q1 %v, want %v", h.Max(), h.Quantile(1), all[len(all)-1])
	}
}

func TestHistogramEdges(t *testing.T) {
	var h Histogram
	if h.Quantile(0.5) != 0 || h.Max() != 0 {
		t.Error("an empty histogram has quantiles")
	}
	h.Record(-5)
	h.Record(1<<63 - 1)
	if h.Quantile(0) != 0 || h.Quantile(0.99) != 1<<63-1 {
		t.Errorf("%v, %v", h.Quantile(0), h.Quantile(0.99))
	}
	if n := testing.AllocsPerRun(100, func() { h.Record(12345) }); n != 0 {
		t.Errorf("Record allocates %v times", n)
	}
	if c := ClockCost(1000); c.Count() != 1000 {
		t.Errorf("%d", c.Count())
	}
}
