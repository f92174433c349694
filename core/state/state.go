// Package state holds what a room is: its settings, the roles it gave and the
// bans it spoke, as facts for the policy. State changes only by entries of the
// room's log: each entry carries the journal.Changes it makes, the journal
// stores both in one atomic step, and folding the changes in seq order gives
// the same Room on every node.
//
// A *Room is immutable: Apply returns a new value. Any goroutine may read it.
package state

import (
	"fmt"
	"maps"
	"sort"
	"strings"
	"time"

	"encoding/json"

	"parley/core/chat"
	"parley/core/journal"
)

// Mode says who may write by default; the policy has the last word.
type Mode string

// The modes of a room.
const (
	ModeOpen     Mode = "open"      // everyone in the room writes
	ModeAnnounce Mode = "announce"  // moderators write, everyone reads
	ModeReadOnly Mode = "read-only" // nobody writes for now
	ModeArchived Mode = "archived"  // closed for good, history stays
)

// Modes lists every mode, for messages and schemas.
var Modes = []Mode{ModeOpen, ModeAnnounce, ModeReadOnly, ModeArchived}

// Visibility says who may find and join the room by default.
type Visibility string

// The visibilities of a room.
const (
	Public  Visibility = "public"
	Private Visibility = "private"
)

// MaxSlowModeS bounds slow mode, in seconds: six hours.
const MaxSlowModeS = 6 * 60 * 60

// MaxTitleBytes bounds a room's title.
const MaxTitleBytes = 200

// Settings are the room's own settings.
type Settings struct {
	Title      string     `json:"title,omitempty"`
	Mode       Mode       `json:"mode"`
	Visibility Visibility `json:"visibility"`
	SlowModeS  int        `json:"slow_mode_s"` // seconds between one user's messages; 0 = off
}

// DefaultSettings are those of a room nobody has configured.
func DefaultSettings() Settings {
	return Settings{Mode: ModeOpen, Visibility: Public}
}

// Validate names the first field that is out of range.
func (s Settings) Validate() error {
	switch s.Mode {
	case ModeOpen, ModeAnnounce, ModeReadOnly, ModeArchived:
	default:
		return fmt.Errorf("mode %q is not one of open, announce, read-only, archived", s.Mode)
	}
	if s.Visibility != Public && s.Visibility != Private {
		return fmt.Errorf("visibility %q is not one of public, private", s.Visibility)
	}
	if s.SlowModeS < 0 || s.SlowModeS > MaxSlowModeS {
		return fmt.Errorf("slow_mode_s %d is not within 0 and %d", s.SlowModeS, MaxSlowModeS)
	}
	if len(s.Title) > MaxTitleBytes {
		return fmt.Errorf("title has %d bytes, at most %d are allowed", len(s.Title), MaxTitleBytes)
	}
	return nil
}

// Role is a role a room gives to a user.
type Role string

// The roles of a room; the empty role is none.
const (
	RoleOwner     Role = "owner"
	RoleModerator Role = "moderator"
	RoleMember    Role = "member"
)

// Ban is a ban or a mute. Until is a Unix time in ms; 0 means for good.
type Ban struct {
	Until  int64       `json:"until,omitempty"`
	Reason string      `json:"reason,omitempty"`
	By     chat.UserID `json:"by,omitempty"`
}

// Active reports whether the ban holds at the given Unix ms.
func (b Ban) Active(now int64) bool { return b.Until == 0 || now < b.Until }

// Room is everything durable that is known of a room besides its log.
type Room struct {
	Settings Settings
	// First is the ID of the entry that the room began with, by which it is told
	// from another of the same name; "" where that was not kept.
	First chat.MessageID
	kept  bool // the settings were set, and are not those of a room nobody has made
	roles map[chat.UserID]Role
	bans  map[chat.UserID]Ban
	mutes map[chat.UserID]Ban
}

// Empty is the state of a room without entries.
func Empty() *Room { return &Room{Settings: DefaultSettings()} }

// Keys of the state in the journal.
const (
	keySettings = "settings"
	keyFirst    = "first"
	prefixRole  = "role/"
	prefixBan   = "ban/"
	prefixMute  = "mute/"
)

// Load builds a Room from what the journal stores. A value that cannot be
// read is an error: serving a room without its bans would be worse.
func Load(kv map[string][]byte) (*Room, error) {
	r := Empty()
	keys := make([]string, 0, len(kv))
	for k := range kv {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		if err := r.set(k, kv[k]); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Apply returns the state after the changes, or an error and the receiver
// unchanged.
func (r *Room) Apply(changes []journal.Change) (*Room, error) {
	if len(changes) == 0 {
		return r, nil
	}
	next := &Room{
		Settings: r.Settings,
		First:    r.First,
		kept:     r.kept,
		roles:    maps.Clone(r.roles),
		bans:     maps.Clone(r.bans),
		mutes:    maps.Clone(r.mutes),
	}
	for _, c := range changes {
		if err := next.set(c.Key, c.Value); err != nil {
			return r, err
		}
	}
	return next, nil
}

func (r *Room) set(key string, value []byte) error {
	switch {
	case key == keySettings:
		s := DefaultSettings()
		if value != nil {
			if err := json.Unmarshal(value, &s); err != nil {
				return fmt.Errorf("state %s: %w", key, err)
			}
		}
		r.Settings, r.kept = s, value != nil
	case key == keyFirst:
		r.First = ""
		if value != nil {
			if err := json.Unmarshal(value, &r.First); err != nil {
				return fmt.Errorf("state %s: %w", key, err)
			}
		}
	case strings.HasPrefix(key, prefixRole):
		return setIn(&r.roles, key, prefixRole, value)
	case strings.HasPrefix(key, prefixBan):
		return setIn(&r.bans, key, prefixBan, value)
	case strings.HasPrefix(key, prefixMute):
		return setIn(&r.mutes, key, prefixMute, value)
	}
	return nil // a later version's key: kept by the journal, unknown here
}

func setIn[V any](m *map[chat.UserID]V, key, prefix string, value []byte) error {
	user := chat.UserID(key[len(prefix):])
	if value == nil {
		delete(*m, user)
		return nil
	}
	var v V
	if err := json.Unmarshal(value, &v); err != nil {
		return fmt.Errorf("state %s: %w", key, err)
	}
	if *m == nil {
		*m = make(map[chat.UserID]V)
	}
	(*m)[user] = v
	return nil
}

// Role returns the user's role in the room, "" for none.
func (r *Room) Role(u chat.UserID) Role { return r.roles[u] }

// Ban returns the user's ban and whether it holds at now.
func (r *Room) Ban(u chat.UserID, now time.Time) (Ban, bool) {
	b, ok := r.bans[u]
	return b, ok && b.Active(now.UnixMilli())
}

// Mute returns the user's mute and whether it holds at now.
func (r *Room) Mute(u chat.UserID, now time.Time) (Ban, bool) {
	b, ok := r.mutes[u]
	return b, ok && b.Active(now.UnixMilli())
}

// Roles returns a copy of all roles.
func (r *Room) Roles() map[chat.UserID]Role { return maps.Clone(r.roles) }

// Bans returns a copy of all bans, ended ones included.
func (r *Room) Bans() map[chat.UserID]Ban { return maps.Clone(r.bans) }

// Mutes returns a copy of all mutes, ended ones included.
func (r *Room) Mutes() map[chat.UserID]Ban { return maps.Clone(r.mutes) }

// SetSettings is the change that replaces the settings.
func SetSettings(s Settings) journal.Change { return change(keySettings, s) }

// SetFirst is the change that names the entry the room began with.
func SetFirst(id chat.MessageID) journal.Change { return change(keyFirst, id) }

// SetRole is the change that gives a role; the empty role takes it away.
func SetRole(u chat.UserID, role Role) journal.Change {
	if role == "" {
		return journal.Change{Key: prefixRole + string(u)}
	}
	return change(prefixRole+string(u), role)
}

// SetBan is the change that bans; nil lifts the ban.
func SetBan(u chat.UserID, b *Ban) journal.Change { return changeBan(prefixBan, u, b) }

// SetMute is the change that mutes; nil lifts the mute.
func SetMute(u chat.UserID, b *Ban) journal.Change { return changeBan(prefixMute, u, b) }

func changeBan(prefix string, u chat.UserID, b *Ban) journal.Change {
	if b == nil {
		return journal.Change{Key: prefix + string(u)}
	}
	return change(prefix+string(u), *b)
}

func change(key string, v any) journal.Change {
	b, err := json.Marshal(v)
	if err != nil { // the types above cannot fail to encode
		panic(fmt.Sprintf("state: encode %s: %v", key, err))
	}
	return journal.Change{Key: key, Value: b}
}
