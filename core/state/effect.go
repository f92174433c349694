package state

import (
	"encoding/json"
	"strings"
	"time"

	"parley/core/chat"
	"parley/core/journal"
)

// Effect is what an entry does to people, beyond the state it leaves: whom it
// puts out of the room, and about whom the policy may think otherwise now.
type Effect struct {
	// User is the one person concerned, "" for everybody in the room.
	User chat.UserID
	// Out says that the entry puts the user out of the room: it kicks or bans
	// them. What comes after it in the log is not theirs to see any more.
	Out bool
	// Ban is the ban, where it is one.
	Ban *Ban
}

// EffectOf returns what e does to people at the given time; ok is false for an
// entry that changes no state, as a message.
func EffectOf(e *journal.Entry, now time.Time) (f Effect, ok bool) {
	if len(e.Changes) == 0 {
		return f, false
	}
	for i := range e.Changes {
		c := &e.Changes[i]
		what, name, _ := strings.Cut(c.Key, "/")
		user := chat.UserID(name)
		switch what + "/" {
		case prefixRole, prefixBan, prefixMute:
		default:
			return Effect{}, true // the settings, or what a later version knows of
		}
		if i > 0 && user != f.User { // several people: none of ours, and it puts nobody out
			return Effect{}, true
		}
		f.User = user
		if e.Kind == journal.KindKick {
			f.Out = true
		}
		var b Ban
		if what+"/" == prefixBan && c.Value != nil && json.Unmarshal(c.Value, &b) == nil && b.Active(now.UnixMilli()) {
			f.Out, f.Ban = true, &b
		}
	}
	return f, true
}

// Kick is the change of an entry of the kind journal.KindKick: it names the
// user, and takes their role in the room.
func Kick(u chat.UserID) journal.Change { return SetRole(u, "") }
