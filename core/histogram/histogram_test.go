package histogram

import (
	"sync"
	"testing"
	"time"
)

// TestBuckets counts times at the bounds of buckets.
func TestBuckets(t *testing.T) {
	tests := []struct {
		name   string
		d      time.Duration
		bucket int
	}{
		{"nothing", 0, 0},
		{"bound of the first", time.Millisecond, 0},
		{"just above", time.Millisecond + 1, 1},
		{"bound of the second", 2 * time.Millisecond, 1},
		{"bound of the last", 16384 * time.Millisecond, 14},
		{"beyond", 16384*time.Millisecond + 1, 15},
		{"far beyond", time.Hour, 15},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := Of(time.Millisecond)
			h.Time(tt.d)
			r := h.Read(1e-9)
			if r.Counts[tt.bucket] != 1 {
				t.Errorf("%v: got %v, want bucket %d", tt.d, r.Counts, tt.bucket)
			}
			if tt.bucket < len(r.Bounds) && tt.d.Seconds() > r.Bounds[tt.bucket] {
				t.Errorf("%v lies above the bound %v of its bucket", tt.d, r.Bounds[tt.bucket])
			}
		})
	}
}

// TestTotals adds from many goroutines: nothing is lost, and the sum is that of
// the values.
func TestTotals(t *testing.T) {
	h := Of(time.Millisecond)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 1000 {
				h.Time(time.Duration(i) * time.Millisecond)
			}
		})
	}
	all.Wait()
	h.Time(-time.Second) // counts as no time
	if v := h.Read(1e-9); v.Count != 8001 || v.Sum < 27.999 || v.Sum > 28.001 {
		t.Errorf("got %d values with sum %v, want 8001 with 28", v.Count, v.Sum)
	}
	if n := testing.AllocsPerRun(100, func() { h.Time(time.Second) }); n != 0 {
		t.Errorf("adding allocates %v times", n)
	}
}
