package backtest

import "math/bits"

// Histogram counts values in buckets that double: bucket i holds those of i
// bits, so from 1<<(i-1) to 1<<i - 1, and bucket 0 holds zero.
type Histogram struct {
	Counts [65]uint64
	Sum    uint64
	Max    uint64
}

func (h *Histogram) add(v uint64) {
	h.Counts[bits.Len64(v)]++
	h.Sum += v
	h.Max = max(h.Max, v)
}

// Bucket is one bar of a histogram: Count values below Below and not below the
// bucket before.
type Bucket struct {
	Below uint64 `json:"below"`
	Count uint64 `json:"count"`
}

// Buckets returns the bars from the first that is not empty to the last.
func (h *Histogram) Buckets() []Bucket {
	var out []Bucket
	last := 0
	for i, n := range h.Counts {
		if n > 0 {
			last = i
		}
	}
	for i, n := range h.Counts[:last+1] {
		if n == 0 && out == nil {
			continue
		}
		below := ^uint64(0)
		if i < 64 {
			below = 1 << i
		}
		out = append(out, Bucket{below, n})
	}
	return out
}
