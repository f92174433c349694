package redis

import (
	"errors"
	"strings"
	"testing"
)

func TestHealthNotes(t *testing.T) {
	a, b := &server{addr: "a:1"}, &server{addr: "b:1"}
	l := &layout{primaries: []*server{a, b}, owner: make([]uint16, slotCount)}
	for slot := range l.owner {
		switch {
		case slot%1000 < 10:
			l.owner[slot] = 1
		case slot >= 16000:
			l.owner[slot] = noOwner
		}
	}
	spans := l.spans(1)
	if len(spans) != 17 || spans[1] != (Span{1000, 1009}) {
		t.Fatalf("got %d spans: %v", len(spans), spans)
	}
	h := Health{Primaries: 2, Bad: []Trouble{{Addr: "b:1", Slots: spans, Err: errors.New("it is away")}}, Unowned: 374}
	notes := strings.Join(h.Notes(), "\n")
	for _, want := range []string{
		"1 of 2 Redis primaries do not take messages: b:1 (slots 0-9, 1000-1009, 2000-2009, 3000-3009, and 13 more, 1.04 % of the rooms): it is away",
		"374 of 16384 slots of the Redis Cluster have no primary, so 2.28 % of the rooms do not take messages",
	} {
		if !strings.Contains(notes, want) {
			t.Errorf("got %q, want %q", notes, want)
		}
	}
	h.Bad = append(h.Bad, Trouble{Addr: "a:1", Err: errors.New("too")})
	if h.Err() == nil || h.Notes() != nil {
		t.Errorf("nobody takes messages: got %v and notes %q, want an error alone", h.Err(), h.Notes())
	}
}
