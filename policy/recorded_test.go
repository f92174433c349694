package policy_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"parley/core/gate"
	"parley/policy"
)

// TestReplayUnderOtherNames: a record is asked by the names of the policy that
// is asked. What the record cannot say is tried, and only where it makes a
// difference is the answer unsure.
func TestReplayUnderOtherNames(t *testing.T) {
	engine := func(revision, data string) *policy.Engine {
		t.Helper()
		if data == "" {
			data = "{}"
		}
		e, err := patient().Compile(t.Context(), policy.Files{"parley/data.yaml": []byte(data), "p.rego": []byte(`package parley

default decision := {"allow": true}

decision := {"allow": false, "reasons": [{"code": "outside"}]} if {
	input.resource.id == "office"
	not "office" in input.context.networks
}

decision := {"allow": false, "reasons": [{"code": "new"}]} if {
	input.resource.id == "club"
	input.subject.new_account
}
`)}, revision)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	const office, hour = "networks: {office: [192.0.2.0/24]}\n", "new_accounts: {younger_than_s: 3600}\n"
	const wider, day = "networks: {office: [192.0.0.0/16]}\n", "new_accounts: {younger_than_s: 86400}\n"
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		room, from string
		age        time.Duration
		was, is    string // data
		want       string // code; "" is allowed, "?" unsure
	}{
		{"office", "192.0.2.7", time.Hour, office, office, ""},
		{"office", "198.51.100.7", time.Hour, office, office, "outside"},
		{"office", "192.0.2.7", time.Hour, office, office + day, ""}, // a network that stayed is known
		{"office", "198.51.100.7", time.Hour, office, office + day, "outside"},
		{"office", "192.0.2.7", time.Hour, office, wider, "?"},
		{"lobby", "192.0.2.7", time.Hour, office, wider, ""}, // and here it makes no difference
		{"office", "192.0.2.7", time.Hour, "", office, "?"},
		{"office", "192.0.2.7", time.Hour, office, "", "outside"}, // the name is gone
		{"office", "192.0.2.7", time.Hour, office, "networks: {office: [192.0.2.0/24], home: [10.0.0.0/8, 192.0.2.8]}\n", ""},
		{"club", "192.0.2.7", time.Minute, hour, day, "new"},
		{"club", "192.0.2.7", time.Minute, day, hour, "?"},
		{"club", "192.0.2.7", 2 * time.Hour, hour, day, "?"},
		{"club", "192.0.2.7", 48 * time.Hour, day, hour, ""},
		{"club", "192.0.2.7", time.Minute, hour, "", ""},
		{"club", "192.0.2.7", time.Minute, "", hour, "?"},
		{"lobby", "192.0.2.7", time.Minute, "", hour, ""},
	}
	for i, tt := range tests {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			old, fresh := engine("r1", tt.was), engine("r2", tt.is)
			in := gate.Sample(gate.MessageSend)
			in.Subject.Type, in.Resource.ID = "user", tt.room
			in.Raw = gate.Raw{Now: now, Remote: netip.MustParseAddr(tt.from), Since: now.Add(-tt.age)}
			want := fresh.Decide(t.Context(), copyOf(in)) // what it would have answered, knowing everything
			old.Decide(t.Context(), in)
			in.Raw = gate.Raw{}
			rec := policy.Recorded{Input: in, At: now, Revision: "r1", Named: old.Named()}
			got := fresh.Replay(t.Context(), rec, old)
			code := "?"
			if got.Sure {
				code = ""
				if !got.Decision.Allow {
					code = got.Decision.Reasons[0].Code
				}
				if !policy.Same(&got.Decision, &want) {
					t.Errorf("got %+v, and it would have answered %+v", got.Decision, want)
				}
			}
			if code != tt.want {
				t.Errorf("got %q, want %q", code, tt.want)
			}
			if again := old.Replay(t.Context(), rec, fresh); !again.Sure || again.Input.Subject.NewAccount != in.Subject.NewAccount {
				t.Errorf("its own revision: got %+v, want the question as it was", again)
			}
			// Somebody who knows neither says less, and nothing wrong.
			if alone := fresh.Replay(t.Context(), rec); alone.Sure && !policy.Same(&alone.Decision, &want) {
				t.Errorf("without the old policy: got %+v, want %+v or unsure", alone.Decision, want)
			}
		})
	}
}

func copyOf(in *gate.Input) *gate.Input {
	out := *in
	return &out
}

// TestReplayOfAGuest: a guest has no account, whatever the data says.
func TestReplayOfAGuest(t *testing.T) {
	e := withData(t, "new_accounts: {younger_than_s: 60}")
	in := question()
	in.Subject.Type = "guest"
	if got := e.Replay(t.Context(), policy.Recorded{Input: in, At: time.Now(), Revision: "r0"}); !got.Sure {
		t.Errorf("got %+v, want it sure", got)
	}
}

// TestNamedIsOfTheNamesAlone: other settings do not change it.
func TestNamedIsOfTheNamesAlone(t *testing.T) {
	named := func(data string) string { return withData(t, data).Named() }
	if got := named(`templates: {all: {rooms: ["*"]}}`); got != "" {
		t.Errorf("no names: got %q", got)
	}
	one := named("networks: {office: [192.0.2.0/24]}")
	if two := named("networks: {office: [192.0.2.0/24]}\ntime_zone: Europe/Berlin"); one != two || len(one) != 16 || strings.ToLower(one) != one {
		t.Errorf("got %q and %q", one, two)
	}
	if one == named("networks: {office: [192.0.2.0/25]}") || one == named("networks: {offices: [192.0.2.0/24]}") {
		t.Error("another network has the same identity")
	}
}
