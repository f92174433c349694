package rego_test

import (
	"slices"
	"testing"
	"time"

	"parley/core/gate"
	"parley/policy"
	"parley/policy/rego"
)

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
