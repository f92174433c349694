package state

import (
	"reflect"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
)

// What a room in memory expects is what the journal has stored of it.
func TestBasisIsWhatIsStored(t *testing.T) {
	set := Settings{Title: "Hall", Mode: ModeAnnounce, Visibility: Private, SlowModeS: 5}
	ban, mute := Ban{Until: 7, Reason: "spam", By: "mia"}, Ban{}
	changes := []journal.Change{SetSettings(set), SetRole("mia", RoleOwner), SetRole("bob", RoleMember),
		SetBan("bob", &ban), SetMute("cat", &mute), SetMute("mia", &mute), SetMute("mia", nil)}
	stored := map[string][]byte{}
	for _, c := range changes {
		if stored[c.Key] = c.Value; c.Value == nil {
			delete(stored, c.Key)
		}
	}
	r, err := Empty().Apply(changes)
	if err != nil {
		t.Fatal(err)
	}
	for _, users := range [][]chat.UserID{{"mia", "bob"}, {"bob", "cat", "dan"}, {"mia", "mia", ""}, nil} {
		got, want := r.Basis(users...), StoredBasis(stored, users...)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("of %q: got %s, want %s", users, got, want)
		}
	}
	if n := len(r.Basis("mia", "mia", "")); n != 4 {
		t.Errorf("one user named twice: got %d keys, want 4", n)
	}
	if got := StoredBasis(nil, "ann"); got[0].Value != nil {
		t.Errorf("a room that is not there: got %s, want no settings", got)
	}
}
