package room

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
)

// News of a room are told one at a time and in order, however long one takes;
// a room does not wait for another.
func TestReviewsAreToldInOrder(t *testing.T) {
	const n = 200
	var mu sync.Mutex
	told := map[chat.RoomID][]string{}
	atOnce, gate := 0, make(chan struct{})
	var all sync.WaitGroup
	all.Add(2 * n)
	w := newWorld(t, nil, nil)
	w.hub.OnReview(func(room chat.RoomID, v *journal.Review) {
		defer all.Done()
		if room == "slow" {
			<-gate
		}
		mu.Lock()
		defer mu.Unlock()
		told[room] = append(told[room], string(v.Entry.ID))
		if room == "quick" && len(told[room]) == n {
			atOnce = len(told["slow"])
			close(gate)
		}
	})
	var want []string
	for i := range n {
		want = append(want, fmt.Sprint(i))
		v := &journal.Review{Entry: journal.Entry{ID: chat.MessageID(want[i])}}
		w.hub.reviewed("slow", v)
		w.hub.reviewed("quick", v)
	}
	all.Wait()
	for _, room := range []chat.RoomID{"slow", "quick"} {
		if !slices.Equal(told[room], want) {
			t.Errorf("%s: told %s, want them in order", room, strings.Join(told[room], " "))
		}
	}
	if atOnce != 0 {
		t.Errorf("%d of the slow room were told before the quick room was done, want none", atOnce)
	}
}

// What cannot be told in time is dropped, and counted.
func TestReviewHintsAreBounded(t *testing.T) {
	w := newWorld(t, nil, nil)
	gate := make(chan struct{})
	var told sync.WaitGroup
	told.Add(maxHints)
	w.hub.OnReview(func(chat.RoomID, *journal.Review) {
		<-gate
		told.Done()
	})
	v := &journal.Review{}
	for range maxHints {
		w.hub.reviewed("lobby", v)
	}
	// One may be on its way by now, so one more may have a place.
	for range 3 {
		w.hub.reviewed("lobby", v)
	}
	dropped := w.hub.stats.HintsDropped.Load()
	if dropped != 2 && dropped != 3 {
		t.Errorf("%d were dropped, want 2 or 3", dropped)
	}
	told.Add(3 - int(dropped))
	close(gate)
	told.Wait()
}
