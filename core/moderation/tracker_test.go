package moderation

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/chat"
	"parley/sdk/abi"
)

func TestTracker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := NewTracker(100)
		see := func(room chat.RoomID, user chat.UserID, text string, want abi.Signals) {
			t.Helper()
			if got := tr.Observe(room, user, text, time.Now()); got != want {
				t.Errorf("%s in %s says %q: got %+v, want %+v", user, room, text, got, want)
			}
		}
		see("lobby", "ann", "hi", abi.Signals{})
		see("lobby", "ann", "hi", abi.Signals{RecentPerMinute: 1, Repeats: 1})
		see("lobby", "bob", "hi", abi.Signals{})
		see("garden", "ann", "hi", abi.Signals{})
		time.Sleep(30 * time.Second) // synthetic
		see("lobby", "ann", "ho", abi.Signals{RecentPerMinute: 2})
		time.Sleep(35 * time.Second)
		see("lobby", "ann", "hi", abi.Signals{RecentPerMinute: 1, Repeats: 2})
		time.Sleep(time.Hour)
		see("lobby", "ann", "hi", abi.Signals{Repeats: 3})
		for i := range trackerTexts {
			tr.Observe("lobby", "ann", fmt.Sprint(i), time.Now())
		}
		see("lobby", "ann", "hi", abi.Signals{RecentPerMinute: 1 + trackerTexts})
	})
}

func TestTrackerClockStepsBack(t *testing.T) {
	tr := NewTracker(1)
	now := time.Unix(1_000_000, 0)
	tr.Observe("lobby", "ann", "a", now)
	if got := tr.Observe("lobby", "ann", "b", now.Add(-time.Hour)); got.RecentPerMinute != 1 {
		t.Errorf("an hour back: %d recent, want 1", got.RecentPerMinute)
	}
	if got := tr.Observe("lobby", "ann", "c", time.Unix(-100, 0)); got.RecentPerMinute != 2 {
		t.Errorf("before 1970: %d recent, want 2", got.RecentPerMinute)
	}
}

// TestTrackerIsBounded floods the table with names: the sets stay, and the pair
// silent longest makes room.
func TestTrackerIsBounded(t *testing.T) {
	tr := NewTracker(64)
	if got := len(tr.sets) * trackerWays; got != 64 {
		t.Fatalf("%d slots, want 64", got)
	}
	now := time.Unix(1_000_000, 0)
	tr.Observe("lobby", "ann", "hi", now)
	for i := range 10_000 {
		now = now.Add(time.Second)
		tr.Observe("lobby", chat.UserID(fmt.Sprint("user", i)), "hi", now)
	}
	if got := tr.Observe("lobby", "ann", "hi", now); got != (abi.Signals{}) {
		t.Errorf("ann is still remembered: %+v", got)
	}
	if got := tr.Observe("lobby", "user9999", "hi", now); got.Repeats != 1 {
		t.Errorf("the newest user: %+v, want one repeat", got)
	}
}

func TestTrackerConcurrently(t *testing.T) {
	tr := NewTracker(16)
	var wg sync.WaitGroup
	now := time.Unix(1_000_000, 0)
	for range 4 {
		wg.Go(func() {
			for range 500 {
				tr.Observe("lobby", "ann", "hi", now)
			}
		})
	}
	wg.Wait()
	if got := tr.Observe("lobby", "ann", "hi", now); got.RecentPerMinute != 2000 {
		t.Errorf("%d recent, want 2000", got.RecentPerMinute)
	}
}

func BenchmarkTracker(b *testing.B) {
	tr := NewTracker(16384)
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		tr.Observe("lobby", "ann", ascii120, now)
	}
}
