package disk

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestPace(t *testing.T) {
	const window = 2 * time.Millisecond
	check := func(t *testing.T, what string, p *pace, n int, want time.Duration) {
		t.Helper()
		if got, _ := p.wait(window, n); max(got, 0) != want {
			t.Errorf("%s: got wait %v, want %v", what, got, want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		var p pace
		check(t, "first append ever", &p, 1, 0)
		p.ended(1)
		check(t, "a lone writer right after its last append", &p, 1, 0)
		p.ended(8)
		check(t, "under load, few wait", &p, 3, window)
		check(t, "under load, as many wait as lately", &p, 8, 0)
		time.Sleep(window / 2)
		check(t, "half the window later", &p, 3, window/2)
		time.Sleep(window)
		check(t, "after the window", &p, 1, 0)
		p.ended(3)
		check(t, "the peak lasts", &p, 3, window)
		for range 2 * peakSpan {
			p.ended(1)
		}
		check(t, "a lone writer after the load", &p, 1, 0)
		if got, _ := p.wait(0, 1); got > 0 {
			t.Errorf("without a window: got wait %v, want none", got)
		}
	})
}
