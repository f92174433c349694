package admin

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"

	"parley/core/chat"
	"parley/core/wire"
)

// answers is a Whyer that answers what a test sets.
type answers struct {
	says wire.WhyEvent
	err  error
	text string // of the last question
}

func (a *answers) Why(_ context.Context, room chat.RoomID, user chat.UserID, text string) (wire.WhyEvent, error) {
	a.text = text
	ev := a.says
	ev.Room, ev.User = room, user
	return ev, a.err
}

func TestWhy(t *testing.T) {
	said := &answers{says: wire.WhyEvent{Type: wire.Why, Revision: "r1", Blocks: []wire.WhyBlock{{By: wire.ByPolicy, Code: "muted", Text: "You are muted.", Change: "Wait.",
		Rule: &wire.WhyRule{File: "p.rego", Line: 3, Name: "parley.refusal"}}}}}
	n := start(t, func(d *Deps) { d.Why = said })
	var got wire.WhyEvent
	n.ok(request{method: "GET", path: "/v1/why?room=lobby&user=Zo%C3%AB&text=" + url.QueryEscape("hello & goodbye")}, 200, &got)
	if got.Room != "lobby" || got.User != "Zoë" || got.May || got.Blocks[0].Rule.Line != 3 || said.text != "hello & goodbye" {
		t.Errorf("got %+v to %q", got, said.text)
	}
	n.refused(request{method: "GET", path: "/v1/why?room=lobby&user=ann", open: true}, 401, "unauthorized", "token")
	for path, text := range map[string]string{
		"/v1/why?user=ann":            "name a room",
		"/v1/why?room=Lobby&user=ann": "name a room",
		"/v1/why?room=lobby":          "name a person",
		"/v1/why?room=lobby&user=a+b": "name a person",
		"/v1/why?room=lobby&user=ann&text=" + strings.Repeat("x", maxWhyText+1): "4097 bytes",
	} {
		n.refused(request{method: "GET", path: path}, 400, "bad_request", text)
	}
	said.err = chat.Errorf(chat.CodeNoRoom, "there is no room lobby")
	n.refused(request{method: "GET", path: "/v1/why?room=lobby&user=ann"}, 404, "no_room", "there is no room")
	said.err = errors.New("disk on fire")
	n.refused(request{method: "GET", path: "/v1/why?room=lobby&user=ann"}, 503, "unavailable", "")
}
