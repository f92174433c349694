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
