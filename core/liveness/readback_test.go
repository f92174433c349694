package liveness_test

import (
	"testing"
	"time"

	"parley/core/liveness"
)

// The seconds are those seen between two network namespaces whose link drops
// everything (docs/keepalive.md).
func TestGivesUp(t *testing.T) {
	probes := func(userTimeout int) liveness.Effective {
		return liveness.Effective{KeepAlive: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 5, UserTimeout: time.Duration(userTimeout) * time.Second}
	}
	for _, tt := range []struct {
		name string
		e    liveness.Effective
		want time.Duration
	}{
		{"off", liveness.Effective{Idle: time.Second, Interval: time.Second, Count: 1}, 0},
		{"by count", probes(0), 15 * time.Second},
		{"user timeout shorter than idle", probes(1), 7 * time.Second},
		{"between probes", probes(12), 13 * time.Second},
		{"beyond the count", probes(30), 31 * time.Second},
	} {
		if got := tt.e.GivesUp(); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}
