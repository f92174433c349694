package state

import (
	"slices"

	"parley/core/chat"
	"parley/core/journal"
)

// Basis is what a decision about the users in a room rests on: the settings,
// and the role, ban and mute of each, as journal.Request.Expect takes them. A
// value that an older or newer version has written may read the same and not
// be the same; StoredBasis has it as it is stored.
func (r *Room) Basis(users ...chat.UserID) []journal.Change {
	out := []journal.Change{SetSettings(r.Settings)}
	for _, u := range distinct(users) {
		out = append(out, SetRole(u, r.roles[u]), asStored(r.bans, u, SetBan), asStored(r.mutes, u, SetMute))
	}
	return out
}

func asStored(of map[chat.UserID]Ban, u chat.UserID, set func(chat.UserID, *Ban) journal.Change) journal.Change {
	if b, ok := of[u]; ok {
		return set(u, &b)
	}
	return set(u, nil)
}

// StoredBasis is Basis of a room's state as the journal holds it.
func StoredBasis(kv map[string][]byte, users ...chat.UserID) []journal.Change {
	out := []journal.Change{{Key: keySettings, Value: kv[keySettings]}}
	for _, u := range distinct(users) {
		for _, prefix := range []string{prefixRole, prefixBan, prefixMute} {
			out = append(out, journal.Change{Key: prefix + string(u), Value: kv[prefix+string(u)]})
		}
	}
	return out
}

// distinct leaves out whoever is named twice, or has no name.
func distinct(users []chat.UserID) []chat.UserID {
	var out []chat.UserID
	for _, u := range users {
		if u != "" && !slices.Contains(out, u) {
			out = append(out, u)
		}
	}
	return out
}
