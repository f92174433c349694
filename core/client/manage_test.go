package client

import (
	"encoding/json"
	"testing"

	"parley/core/wire"
)

// TestCommandsThatRunARoom go out as docs/protocol.md says, and wait for an ack.
func TestCommandsThatRunARoom(t *testing.T) {
	got := make(chan wire.Command, 1)
	url := serve(t, "tcp", func(p *peer) {
		if _, ok := p.welcome(""); !ok {
			return
		}
		for {
			c, err := p.next()
			if err != nil {
				return
			}
			switch c.Type {
			case wire.Refresh:
				p.say(wire.RefreshedEvent{Type: wire.Refreshed, ID: c.ID, ExpiresTS: 7})
			case wire.Why:
				p.say(wire.WhyEvent{Type: wire.Why, ID: c.ID, Room: c.Room, User: c.User, Blocks: []wire.WhyBlock{{By: wire.ByPolicy, Code: "muted"}}})
			default:
				p.say(wire.AckEvent{Type: wire.Ack, ID: c.ID, Room: c.Room, Epoch: "e", Seq: 5, MessageID: "m", Outcome: "accepted"})
			}
			c.ID = ""
			got <- c
		}
	})
	c, ctx := mustDial(t, Options{URL: url, Guest: "ann"}), testContext(t)
	title, none := "T", 0
	for _, tc := range []struct {
		do   func() (*wire.AckEvent, error)
		want string
	}{
		{func() (*wire.AckEvent, error) {
			return c.Configure(ctx, "lobby", "n1", Settings{Title: &title, Mode: "announce", Visibility: "private", SlowModeS: &none})
		}, `{"type":"configure","room":"lobby","nonce":"n1","title":"T","mode":"announce","visibility":"private","slow_mode_s":0}`},
		{func() (*wire.AckEvent, error) { return c.SlowMode(ctx, "lobby", "n1", 30) }, `{"type":"slow_mode","room":"lobby","nonce":"n1","seconds":30}`},
		{func() (*wire.AckEvent, error) { return c.Role(ctx, "lobby", "", "bob", "owner") }, `{"type":"role","room":"lobby","user":"bob","role":"owner"}`},
		{func() (*wire.AckEvent, error) { return c.Kick(ctx, "lobby", "n1", "bob", "why") }, `{"type":"kick","room":"lobby","nonce":"n1","reason":"why","user":"bob"}`},
		{func() (*wire.AckEvent, error) { return c.Ban(ctx, "lobby", "n1", "bob", 60, "why") }, `{"type":"ban","room":"lobby","nonce":"n1","reason":"why","user":"bob","seconds":60}`},
		{func() (*wire.AckEvent, error) { return c.Unban(ctx, "lobby", "n1", "bob") }, `{"type":"unban","room":"lobby","nonce":"n1","user":"bob"}`},
		{func() (*wire.AckEvent, error) { return c.Mute(ctx, "lobby", "n1", "bob", 60, "why") }, `{"type":"mute","room":"lobby","nonce":"n1","reason":"why","user":"bob","seconds":60}`},
		{func() (*wire.AckEvent, error) { return c.Unmute(ctx, "lobby", "n1", "bob") }, `{"type":"unmute","room":"lobby","nonce":"n1","user":"bob"}`},
	} {
		ack, err := tc.do()
		if err != nil || ack.Seq != 5 {
			t.Fatalf("%s: got %+v, %v", tc.want, ack, err)
		}
		sent, err := json.Marshal(<-got)
		if err != nil || string(sent) != tc.want {
			t.Errorf("got %s, %v, want %s", sent, err, tc.want)
		}
		if _, bad := wire.Decode([]byte(tc.want)); bad != nil {
			t.Errorf("%s: %v", tc.want, bad)
		}
	}
	if r, err := c.Refresh(ctx, "t2"); err != nil || r.ExpiresTS != 7 {
		t.Errorf("refresh: got %+v, %v", r, err)
	}
	if sent := <-got; sent.Type != wire.Refresh || sent.Token != "t2" {
		t.Errorf("got %+v", sent)
	}
	if ev, err := c.Why(ctx, "lobby", "bob", "hi"); err != nil || ev.User != "bob" || ev.May || ev.Blocks[0].Code != "muted" {
		t.Errorf("why: got %+v, %v", ev, err)
	}
	if sent := <-got; sent.Type != wire.Why || sent.Room != "lobby" || sent.User != "bob" || sent.Text != "hi" {
		t.Errorf("got %+v", sent)
	}
}
