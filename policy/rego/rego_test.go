package rego_test

import (
	"os"
	"slices"
	"strings"
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

// TestTheSettingsOfTheDocs takes the example of docs/policy.md at its word.
func TestTheSettingsOfTheDocs(t *testing.T) {
	docs, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(docs), "```yaml\ntime_zone:")
	example, _, ok := strings.Cut(example, "```")
	if !ok {
		t.Fatal("docs/policy.md has no example of the settings")
	}
	files := rego.Files()
	files["parley/data.yaml"] = []byte("time_zone:" + example)
	o := policy.Defaults()
	o.EvalTimeout, o.TestTimeout = 10*time.Second, time.Minute
	e, err := o.Compile(t.Context(), files, "docs")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, room, at string
		code           string // "" is allowed
	}{
		{"by day", "help-me", "2026-06-01T12:00:00+02:00", ""},
		{"a Monday's night", "help-me", "2026-06-01T22:00:00+02:00", "quiet_hours"},
		{"a Friday is longer", "help-me", "2026-06-05T23:00:00+02:00", ""},
		{"a Saturday's morning", "help-me", "2026-06-06T07:59:00+02:00", "quiet_hours"},
		{"another room", "lobby", "2026-06-01T22:00:00+02:00", ""},
		{"by a template's second name", "board", "2026-06-01T12:00:00+02:00", "wrong_network"},
	}
	for _, tt := range tests {
		in := gate.Sample(gate.MessageSend)
		in.Resource.ID = tt.room
		if in.Raw.Now, err = time.Parse(time.RFC3339, tt.at); err != nil {
			t.Fatal(err)
		}
		switch d := e.Decide(t.Context(), in); {
		case d.Allow != (tt.code == "") || tt.code != "" && d.Reasons[0].Code != tt.code:
			t.Errorf("%s: got %+v, want %q", tt.name, d, tt.code)
		case d.Allow && (d.Obligations.TextBytes == nil || *d.Obligations.TextBytes != 500):
			t.Errorf("%s: got %+v, want a guest's limits", tt.name, d.Obligations)
		}
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
		{"announce mode", func(in *gate.Input) { in.Resource.Mode = "announce" }, "moderators_write"},
		{"announce mode read", func(in *gate.Input) { in.Resource.Mode, in.Action.Name = "announce", gate.HistoryRead }, ""},
		{"announce mode by a moderator", func(in *gate.Input) { in.Resource.Mode, in.Subject.Roles = "announce", []string{"moderator"} }, ""},
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

// TestPassed runs all that a trial does: a start that takes Passed for it runs nothing.
func TestPassed(t *testing.T) {
	o := policy.Defaults()
	o.EvalTimeout, o.TestTimeout = time.Minute, time.Minute // how busy this machine is does not matter here
	v, err := policy.DefaultTrial().Try(t.Context(), o, rego.Files(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Problems) > 0 || v.Tests != rego.Passed.Tests {
		t.Errorf("got %d tests passed and problems %v, want %d and none", v.Tests, v.Problems, rego.Passed.Tests)
	}
}

// TestRevisionNamesTheRules: it changes with them.
func TestRevisionNamesTheRules(t *testing.T) {
	files := rego.Files()
	if want := "default:" + files.Digest(); rego.Revision != want {
		t.Errorf("got %q, want %q", rego.Revision, want)
	}
	files["parley.rego"] = append(files["parley.rego"], '\n')
	if rego.Revision == "default:"+files.Digest() {
		t.Error("other rules have the same name")
	}
}
