package rego_test

import (
	"slices"
	"testing"
	"time"

	"parley/core/gate"
	"parley/policy"
	"parley/policy/rego"
)

// acts is somebody with the role mine doing something to one with theirs.
func acts(action, mine, theirs string) func(*gate.Input) {
	return func(in *gate.Input) {
		in.Action.Name, in.Subject.RoomRole = action, mine
		in.Target = gate.Target{Type: "user", ID: "bob", RoomRole: theirs}
	}
}

// TestDefaultPolicy compiles the embedded files, which runs parley_test.rego,
// and walks each rule once from the outside.
func TestDefaultPolicy(t *testing.T) {
	o := policy.Defaults()
	o.EvalTimeout, o.TestTimeout = 10*time.Second, time.Minute
	e, err := o.Compile(t.Context(), rego.Files(), rego.Revision)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		change func(*gate.Input)
		code   string // "" is allowed
	}{
		{"guest writes", func(*gate.Input) {}, ""},
		{"guest connects", func(in *gate.Input) {
			in.Action.Name, in.Resource = gate.Connect, gate.Resource{Type: "server", Exists: true}
		}, ""},
		{"guest creates", func(in *gate.Input) { in.Action.Name, in.Resource.Exists = gate.RoomCreate, false }, ""},
		{"announcements", func(in *gate.Input) { in.Resource.ID = "announcements" }, "moderators_write"},
		{"announcements read", func(in *gate.Input) { in.Resource.ID, in.Action.Name = "announcements", gate.HistoryRead }, ""},
		{"announcements by a moderator", func(in *gate.Input) { in.Resource.ID, in.Subject.Roles = "announcements", []string{"moderator"} }, ""},
		{"announcements opened by a user", func(in *gate.Input) {
			in.Resource.ID, in.Action.Name, in.Subject.Type = "announcements", gate.RoomCreate, "user"
		}, "moderators_open"},
		{"announce mode", func(in *gate.Input) { in.Resource.Mode = "announce" }, "moderators_write"},
		{"read-only", func(in *gate.Input) { in.Resource.Mode = "read-only" }, "read_only"},
		{"archived", func(in *gate.Input) { in.Resource.Mode = "archived" }, "archived"},
		{"private", func(in *gate.Input) { in.Resource.Visibility = "private" }, "private_room"},
		{"private for a member", func(in *gate.Input) { in.Resource.Visibility, in.Subject.RoomRole = "private", "member" }, ""},
		{"banned", func(in *gate.Input) { in.Subject.Banned, in.Action.Name = true, gate.RoomJoin }, "banned"},
		{"muted", func(in *gate.Input) { in.Subject.Muted = true }, "muted"},
		{"slow mode", func(in *gate.Input) { in.Context.SlowWaitS = 4 }, "slow_mode"},
		{"moderator kicks a member", acts(gate.MemberKick, "moderator", "member"), ""},
		{"moderator kicks an owner", acts(gate.MemberKick, "moderator", "owner"), "outranked"},
		{"owner bans a moderator", acts(gate.MemberBan, "owner", "moderator"), ""},
		{"member mutes", acts(gate.MemberMute, "member", ""), "moderators_manage"},
		{"owner makes an owner", func(in *gate.Input) { acts(gate.MemberRole, "owner", "")(in); in.Action.Role = "owner" }, ""},
		{"owner makes a guest one", func(in *gate.Input) {
			acts(gate.MemberRole, "owner", "")(in)
			in.Action.Role, in.Target.Type = "owner", "guest"
		}, "needs_account"},
		{"moderator archives", func(in *gate.Input) {
			acts(gate.RoomConfigure, "moderator", "")(in)
			in.Action.Changes, in.Action.Mode = []string{"mode"}, "archived"
		}, "owners_manage"},
		{"another's message", func(in *gate.Input) { in.Action.Name = gate.MessageEdit }, "not_author"},
		{"direct room of a guest", func(in *gate.Input) { in.Action.Name = gate.DirectOpen }, "not_allowed"},
		{"admin API without the role", func(in *gate.Input) { in.Action.Name = gate.AdminWrite }, "not_allowed"},
		{"another action", func(in *gate.Input) { in.Action.Name = "server.stop" }, "not_allowed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := &gate.Input{
				Subject:  gate.Subject{Type: "guest", ID: "ann"},
				Action:   gate.Action{Name: gate.MessageSend},
				Resource: gate.Resource{Type: "room", ID: "lobby", Exists: true, Mode: "open", Visibility: "public"},
				Context:  gate.Context{Transport: "ws", Network: "public", TextBytes: 2},
			}
			tt.change(in)
			d := e.Decide(t.Context(), in)
			var codes []string
			for _, r := range d.Reasons {
				codes = append(codes, r.Code)
				if r.Text == "" || r.Source != "policy" {
					t.Errorf("got reason %+v, want a sentence from the policy", r)
				}
			}
			var want []string
			if tt.code != "" {
				want = []string{tt.code}
			}
			if d.Allow != (tt.code == "") || !slices.Equal(codes, want) {
				t.Errorf("got allow %v with %v, want %v", d.Allow, codes, want)
			}
		})
	}
}
