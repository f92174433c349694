package state_test

import (
	"reflect"
	"testing"
	"time"

	"parley/core/journal"
	"parley/core/state"
)

func TestEffect(t *testing.T) {
	now := time.UnixMilli(1_764_000_000_000)
	forGood := &state.Ban{Reason: "spam", By: "mia"}
	anHour := &state.Ban{Until: now.Add(time.Hour).UnixMilli()}
	over := &state.Ban{Until: now.Add(-time.Second).UnixMilli()}
	type changes = []journal.Change
	for _, tc := range []struct {
		name    string
		kind    journal.Kind
		changes changes
		want    state.Effect
		ok      bool
	}{
		{"a message", journal.KindMessage, nil, state.Effect{}, false},
		{"settings", journal.KindSettings, changes{state.SetSettings(state.DefaultSettings())}, state.Effect{}, true},
		{"a new room", journal.KindSettings, changes{state.SetSettings(state.DefaultSettings()), state.SetRole("ann", state.RoleOwner)}, state.Effect{}, true},
		{"a later version's key", "badge", changes{{Key: "badge/ann", Value: []byte("1")}}, state.Effect{}, true},
		{"a role", journal.KindRole, changes{state.SetRole("ann", state.RoleMember)}, state.Effect{User: "ann"}, true},
		{"a kick", journal.KindKick, changes{state.Kick("bob")}, state.Effect{User: "bob", Out: true}, true},
		{"a ban", journal.KindBan, changes{state.SetBan("bob", forGood)}, state.Effect{User: "bob", Out: true, Ban: forGood}, true},
		{"a ban with an end", journal.KindBan, changes{state.SetBan("bob", anHour)}, state.Effect{User: "bob", Out: true, Ban: anHour}, true},
		{"a ban that is over", journal.KindBan, changes{state.SetBan("bob", over)}, state.Effect{User: "bob"}, true},
		{"a ban lifted", journal.KindBan, changes{state.SetBan("bob", nil)}, state.Effect{User: "bob"}, true},
		{"a mute", journal.KindBan, changes{state.SetMute("bob", forGood)}, state.Effect{User: "bob"}, true},
		{"a ban and a mute of one", journal.KindBan, changes{state.SetBan("bob", forGood), state.SetMute("bob", forGood)}, state.Effect{User: "bob", Out: true, Ban: forGood}, true},
		{"roles of two", journal.KindRole, changes{state.SetRole("ann", ""), state.SetRole("bob", "")}, state.Effect{}, true},
		{"a ban that cannot be read", journal.KindBan, changes{{Key: "ban/bob", Value: []byte("{")}}, state.Effect{User: "bob"}, true},
	} {
		got, ok := state.EffectOf(&journal.Entry{Kind: tc.kind, Changes: tc.changes}, now)
		if ok != tc.ok || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: got %+v, %v, want %+v, %v", tc.name, got, ok, tc.want, tc.ok)
		}
	}
}
