package redis

import (
	"log/slog"
	"testing"

	goredis "github.com/redis/go-redis/v9"
)

// TestEchoOfAnEnd holds that the echo of a channel's end is not taken for the
// primary's word that it has lost the slot, when the channel is wanted again by
// the time it comes; a further word is.
func TestEchoOfAnEnd(t *testing.T) {
	cfg := Defaults()
	cfg.URL = "redis-cluster://127.0.0.1:1"
	c, err := Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	primary, err := c.route.server("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	s := c.Subscriber(nil)
	l := newLink(s, primary)
	const channel, probe = "x:{1}:y", "probe"
	lost := &goredis.Subscription{Kind: "sunsubscribe", Channel: channel}
	want := func() { // as Subscribe does
		s.wanted[channel], l.wanted[channel] = l, struct{}{}
	}
	hear := func(kept bool, when string) {
		t.Helper()
		if err := l.subscribed(lost, probe); err != nil {
			t.Fatal(err)
		}
		if _, ok := l.wanted[channel]; ok != kept {
			t.Errorf("%s: the channel is kept: got %v, want %v", when, ok, kept)
		}
	}
	want()
	l.leaving[channel] = 2 // ended, wanted, ended and wanted again
	hear(true, "the first echo")
	hear(true, "the second echo")
	hear(false, "the primary's own word")
	if !c.route.doubted.Load() {
		t.Error("nobody looks for the primary of a slot that was lost")
	}
	want()
	l.leaving[channel] = 1
	l.forgo(Slot(channel)) // it answered MOVED, which is all it says
	hear(false, "the primary's word after that")
}
