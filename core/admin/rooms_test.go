package admin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/room"
	"parley/core/state"
)

func TestConfigureRooms(t *testing.T) {
	n := start(t)
	put := func(body string) request { return request{method: "PUT", path: "/v1/rooms/lobby", body: body} }
	n.refused(request{method: "GET", path: "/v1/rooms/lobby", open: true}, 404, "no_room", "there is no room lobby")
	var r Room
	n.ok(put(`{"title":"Lobby"}`), 201, &r)
	if r.Room != "lobby" || r.Seq != 1 || r.Epoch == "" || r.Settings != (state.Settings{Title: "Lobby", Mode: state.ModeOpen, Visibility: state.Public}) {
		t.Errorf("created: got %+v", r)
	}
	n.ok(put(`{"mode":"announce","slow_mode_s":5}`), 200, &r)
	want := state.Settings{Title: "Lobby", Mode: state.ModeAnnounce, Visibility: state.Public, SlowModeS: 5}
	if r.Seq != 2 || r.Settings != want {
		t.Errorf("changed: got %+v, want %+v at 2", r, want)
	}
	for body, says := range map[string]string{
		`{"mode":"shut"}`:                              "mode",
		`{"visibility":"hidden"}`:                      "visibility",
		`{"slow_mode_s":-1}`:                           "slow_mode_s",
		`{"slow_mode_s":21601}`:                        "slow_mode_s",
		`{"title":"` + strings.Repeat("x", 201) + `"}`: "title",
	} {
		n.refused(put(body), 400, "bad_request", says)
	}
	n.ok(request{method: "GET", path: "/v1/rooms/lobby", open: true}, 200, &r)
	if r.Seq != 2 || r.Settings != want {
		t.Errorf("after refusals: got %+v, want %+v unchanged", r, want)
	}
	if es := n.entries("lobby"); len(es) != 2 || es[0].From != "admin" || es[1].Kind != journal.KindSettings || es[1].From != "admin" {
		t.Errorf("got the log %+v", es)
	}
	n.ok(put(`{}`), 200, &r) // a change that changes nothing is recorded all the same
	if r.Settings != want {
		t.Errorf("got %+v, want %+v", r.Settings, want)
	}
}

// rival is somebody else who creates the room a moment earlier.
type rival struct {
	Creator
	set state.Settings
}

func (v rival) CreateRoom(ctx context.Context, r *room.Room, set state.Settings, by, owner chat.UserID) error {
	if err := v.Creator.CreateRoom(ctx, r, v.set, "rival", ""); err != nil {
		return err
	}
	return v.Creator.CreateRoom(ctx, r, set, by, owner) // exists: no error
}

func TestARoomCreatedMeanwhileIsConfigured(t *testing.T) {
	n := start(t)
	n.api.d.Create = rival{n.api.d.Create, state.DefaultSettings()}
	var r Room
	n.ok(request{method: "PUT", path: "/v1/rooms/lobby", body: `{"mode":"archived"}`}, 200, &r)
	if r.Settings.Mode != state.ModeArchived || r.Seq != 2 {
		t.Errorf("got %+v, want the mode that was asked for", r)
	}
}

func TestRolesBansMutes(t *testing.T) {
	n := start(t)
	at := func(kind string) string { return "/v1/rooms/lobby/" + kind + "/ann" }
	n.refused(request{method: "PUT", path: at("roles"), body: `{"role":"owner"}`}, 404, "no_room", "create it with PUT /v1/rooms/lobby")
	n.ok(request{method: "PUT", path: "/v1/rooms/lobby", body: `{}`}, 201, nil)
	var r Room
	for _, role := range Roles {
		r = Room{}
		n.ok(request{method: "PUT", path: at("roles"), body: fmt.Sprintf(`{"role":%q}`, role), headers: map[string]string{"X-Parley-User": "mia"}}, 200, &r)
		if r.Roles["ann"] != role {
			t.Errorf("got roles %v, want %s", r.Roles, role)
		}
	}
	for _, body := range []string{`{"role":"king"}`, `{"role":""}`, `{}`, `{"role":"` + strings.Repeat("\u00e9", 300) + `"}`} {
		n.refused(request{method: "PUT", path: at("roles"), body: body}, 400, "bad_request", "not one of owner, moderator, member")
	}
	r = Room{}
	n.ok(request{method: "DELETE", path: at("roles")}, 200, &r)
	if len(r.Roles) != 0 {
		t.Errorf("got roles %v, want none", r.Roles)
	}
	if es := n.entries("lobby"); len(es) != 5 || es[1].From != "mia" || es[1].Kind != journal.KindRole || es[4].From != "admin" {
		t.Errorf("got the log %+v", es)
	}

	for _, kind := range []string{"bans", "mutes"} {
		before := time.Now().UnixMilli()
		r = Room{}
		n.ok(request{method: "PUT", path: at(kind), body: `{"seconds":60,"reason":"spam"}`}, 200, &r)
		ban, other := r.Bans["ann"], r.Mutes
		if kind == "mutes" {
			ban, other = r.Mutes["ann"], r.Bans
		}
		if ban.Reason != "spam" || ban.By != "admin" || ban.Until < before+60_000 || ban.Until > time.Now().UnixMilli()+60_000 || len(other) != 0 {
			t.Errorf("%s: got %+v", kind, r)
		}
		r = Room{}
		n.ok(request{method: "PUT", path: at(kind), body: `{}`}, 200, &r)
		if got := append([]state.Ban{}, r.Bans["ann"], r.Mutes["ann"]); got[0].Until != 0 || got[1].Until != 0 {
			t.Errorf("%s for good: got %+v", kind, r)
		}
		for _, body := range []string{`{"seconds":-1}`, `{"seconds":315360001}`, `{"reason":"` + strings.Repeat("x", 501) + `"}`} {
			n.refused(request{method: "PUT", path: at(kind), body: body}, 400, "bad_request", "seconds must lie within")
		}
		n.refused(request{method: "PUT", path: at(kind), body: ""}, 400, "bad_request", "one JSON object")
		r = Room{}
		n.ok(request{method: "DELETE", path: at(kind)}, 200, &r)
		if len(r.Bans)+len(r.Mutes) != 0 {
			t.Errorf("%s lifted: got %+v", kind, r)
		}
	}
}

func TestNamesAreChecked(t *testing.T) {
	n := start(t)
	for _, path := range []string{"/v1/rooms/No%20Room", "/v1/rooms/" + strings.Repeat("x", 65), "/v1/rooms/%ff", "/v1/rooms/..%2f..%2fetc"} {
		n.refused(request{method: "GET", path: path}, 400, "bad_request", "is no room name: 1 to 64 bytes of a-z, 0-9 and -_.: beginning with a letter or digit")
		n.refused(request{method: "PUT", path: path, body: `{}`}, 400, "bad_request", "is no room name: 1 to 64 bytes of a-z, 0-9 and -_.: beginning with a letter or digit")
	}
	for _, user := range []string{"a%20b", strings.Repeat("x", 65), "%ff", "-x"} {
		n.refused(request{method: "PUT", path: "/v1/rooms/lobby/bans/" + user, body: `{}`}, 400, "bad_request", "is no user name: 1 to 64 bytes of")
	}
	n.refused(request{method: "PUT", path: "/v1/rooms/lobby", body: `{}`, headers: map[string]string{"X-Parley-User": "no name"}}, 400, "bad_request", "X-Parley-User")
	n.ok(request{method: "PUT", path: "/v1/rooms/lobby", body: `{}`}, 201, nil)
	var r Room
	n.ok(request{method: "PUT", path: "/v1/rooms/lobby/bans/J%C3%BCrgen", body: `{}`}, 200, &r)
	if _, ok := r.Bans["Jürgen"]; !ok {
		t.Errorf("got bans %v, want Jürgen", r.Bans)
	}
}

func TestListRooms(t *testing.T) {
	n := start(t)
	var list struct{ Rooms []chat.RoomID }
	n.ok(request{method: "GET", path: "/v1/rooms", open: true}, 200, &list)
	if list.Rooms == nil || len(list.Rooms) != 0 {
		t.Errorf("got %v, want an empty list", list.Rooms)
	}
	for _, id := range []string{"b", "a", "c"} {
		n.ok(request{method: "PUT", path: "/v1/rooms/" + id, body: `{}`}, 201, nil)
	}
	for query, want := range map[string]string{"": "[a b c]", "?after=a": "[b c]", "?after=c": "[]", "?after=bb": "[c]", "?after=%ff": "[]"} {
		n.ok(request{method: "GET", path: "/v1/rooms" + query}, 200, &list)
		if got := fmt.Sprint(list.Rooms); got != want {
			t.Errorf("rooms%s: got %s, want %s", query, got, want)
		}
	}
}

func TestWithoutTheStore(t *testing.T) {
	n := start(t)
	n.ok(request{method: "PUT", path: "/v1/rooms/lobby", body: `{}`}, 201, nil)
	if err := n.journal.Close(); err != nil {
		t.Fatal(err)
	}
	for _, r := range []request{
		{method: "GET", path: "/v1/rooms"},
		{method: "GET", path: "/v1/rooms/other"},
		{method: "PUT", path: "/v1/rooms/lobby", body: `{}`},
		{method: "DELETE", path: "/v1/rooms/lobby/bans/ann"},
	} {
		n.refused(r, 503, "unavailable", "")
	}
	n.ok(request{method: "GET", path: "/v1/rooms/lobby"}, 200, nil) // it is in memory
}

// failing cannot create.
type failing struct{ err error }

func (f failing) CreateRoom(context.Context, *room.Room, state.Settings, chat.UserID, chat.UserID) error {
	return f.err
}

func TestWhyARoomCannotBeCreatedIsTold(t *testing.T) {
	n := start(t)
	put := request{method: "PUT", path: "/v1/rooms/lobby", body: `{}`}
	n.api.d.Create = failing{&chat.Error{Code: chat.CodeOverloaded, Text: "the server holds as many rooms as it may"}}
	n.refused(put, 503, "overloaded", "as many rooms")
	n.api.d.Create = failing{errors.New("disk on fire")}
	n.refused(put, 503, "unavailable", "disk on fire")
}
