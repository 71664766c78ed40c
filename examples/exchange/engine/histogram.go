package engine

import (
	"math/bits"
	"time"
)

// subBuckets divide each power of two: a bucket is at most 1/32 of its value wide.
const (
	subBits    = 5
	subBuckets = 1 << subBits
	buckets    = (64 - subBits + 1) * subBuckets
)

// Histogram counts durations in log-linear buckets. The zero value is empty. Record does not allocate; not for
// concurrent use.
type Histogram struct {
	counts [buckets]uint64
	n      uint64
	max    uint64
}

// bucketOf numbers the buckets: the values below 64 have one each, then 32 for each power of two.
func bucketOf(v uint64) int {
	shift := max(0, bits.Len64(v)-subBits-1)
	return shift<<subBits + int(v>>shift)
}

// bucketTop is the highest value of a bucket.
func bucketTop(b int) uint64 {
	if b < 2*subBuckets {
		return uint64(b)
	}
	shift := b>>subBits - 1
	return uint64(b&(subBuckets-1)+subBuckets+1)<<shift - 1
}

// Record counts one duration; negative ones count as 0.
func (h *Histogram) Record(d time.Duration) {
	v := uint64(max(0, d))
	h.counts[bucketOf(v)]++
	h.n++
	h.max = max(h.max, v)
}

// Count is the number of recorded durations.
func (h *Histogram) Count() uint64 { return h.n }

// Max is the longest duration, exactly.
func (h *Histogram) Max() time.Duration { return time.Duration(h.max) }

// Quantile returns what a share q of the durations does not exceed, at most 1/32 too high. It is 0 when nothing was
// recorded.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := uint64(q * float64(h.n))
	if rank >= h.n {
		rank = h.n - 1
	}
	for b, seen := 0, uint64(0); b < buckets; b++ {
		if seen += h.counts[b]; seen > rank {
			return time.Duration(min(bucketTop(b), h.max))
		}
	}
	return h.Max()
}

// ClockCost records what timing an empty body gives, n times: the floor under every latency that is timed like that.
func ClockCost(n int) *Histogram {
	h := new(Histogram)
	for range n {
		start := time.Now()
		h.Record(time.Since(start))
	}
	return h
}
