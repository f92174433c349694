package liveness

import (
	"testing"
	"time"
	"unsafe"
)

type nobody struct{}

func (nobody) Ping(uint32)             {}
func (nobody) Look() (Evidence, error) { return Evidence{}, nil }
func (nobody) Swept(Evidence)          {}
func (nobody) Dead(Verdict)            {}

func TestHeardAllocatesNothing(t *testing.T) {
	w, err := New(Config{Ping: 15 * time.Second, Pong: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	var b Beat
	w.Add(&b, nobody{})
	b.pinged.Store(1)
	if n := testing.AllocsPerRun(100, func() { w.Heard(&b, 0); w.HeardAny(&b); w.Active(&b) }); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

func TestBeatIsSmall(t *testing.T) {
	if got := unsafe.Sizeof(Beat{}); got > 80 {
		t.Errorf("a Beat has %d bytes, want at most 80: every connection has one", got)
	}
}

func TestStrideVisitsEverySlot(t *testing.T) {
	for n := 1; n < 300; n++ {
		if s := strideOf(n); gcd(s, n) != 1 {
			t.Errorf("%d slots: got stride %d, which leaves slots out", n, s)
		}
	}
}

func TestHistogramBuckets(t *testing.T) {
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
			h := histogram{unit: uint64(time.Millisecond)}
			h.duration(tt.d)
			r := h.read(1e-9)
			if r.Counts[tt.bucket] != 1 {
				t.Errorf("%v: got %v, want bucket %d", tt.d, r.Counts, tt.bucket)
			}
			if tt.bucket < len(r.Bounds) && tt.d.Seconds() > r.Bounds[tt.bucket] {
				t.Errorf("%v lies above the bound %v of its bucket", tt.d, r.Bounds[tt.bucket])
			}
		})
	}
}

// One step over 15,000 connections: what the wheel costs 240 times a minute.
func BenchmarkTick(b *testing.B) {
	w, err := New(Config{Ping: 15 * time.Second, Pong: 3 * time.Second})
	if err != nil {
		b.Fatal(err)
	}
	beats := make([]Beat, 15_000)
	for i := range beats {
		w.Add(&beats[i], nobody{})
	}
	now := int64(0)
	b.ReportAllocs()
	for b.Loop() {
		now += int64(DefaultTick)
		w.turnTo(now)
	}
}
