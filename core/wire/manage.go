package wire

import (
	"slices"

	"parley/core/chat"
)

// Bounds of the commands that run a room. They are those of core/state, which
// this package cannot see; a test holds them to it.
const (
	MaxSlowModeS = 6 * 60 * 60             // seconds
	MaxSeconds   = 10 * 365 * 24 * 60 * 60 // of a ban or a mute: ten years
	MaxTitle     = 200                     // bytes
)

// NoRole is what the command role says to take a role away.
const NoRole = "none"

// Modes, Visibilities and Roles are the words that configure and role take.
var (
	Modes        = []string{"open", "announce", "read-only", "archived"}
	Visibilities = []string{"public", "private"}
	Roles        = []string{"owner", "moderator", "member", NoRole}
)

// RefreshedEvent answers refresh: the connection goes on with the new token.
type RefreshedEvent struct {
	Type      Type     `json:"type"`
	ID        string   `json:"id,omitempty"`
	Roles     []string `json:"roles,omitempty"`
	ExpiresTS int64    `json:"expires_ts,omitzero"` // Unix ms; absent = never
}

func checkConfigure(c *Command) *chat.Error {
	if err := checkManage(c); err != nil {
		return err
	}
	switch {
	case c.Title == nil && c.Mode == nil && c.Visibility == nil && c.SlowModeS == nil:
		return chat.Errorf(chat.CodeBadRequest, `configure needs at least one of "title", "mode", "visibility" and "slow_mode_s"`)
	case c.Title != nil && len(*c.Title) > MaxTitle:
		return chat.Errorf(chat.CodeBadRequest, `"title" has %d bytes, at most %d are allowed`, len(*c.Title), MaxTitle)
	case c.Mode != nil && !slices.Contains(Modes, *c.Mode):
		return chat.Errorf(chat.CodeBadRequest, `"mode" must be open, announce, read-only or archived`)
	case c.Visibility != nil && !slices.Contains(Visibilities, *c.Visibility):
		return chat.Errorf(chat.CodeBadRequest, `"visibility" must be public or private`)
	case c.SlowModeS != nil:
		return checkWithin("slow_mode_s", *c.SlowModeS, MaxSlowModeS)
	}
	return nil
}

func checkSlowMode(c *Command) *chat.Error {
	if err := checkManage(c); err != nil {
		return err
	}
	return checkWithin("seconds", c.Seconds, MaxSlowModeS)
}

func checkRole(c *Command) *chat.Error {
	if err := checkPerson(c); err != nil {
		return err
	}
	if !slices.Contains(Roles, c.Role) {
		return chat.Errorf(chat.CodeBadRequest, `"role" must be owner, moderator, member or none`)
	}
	return nil
}

// checkRestrain is for a ban or a mute, which may have an end.
func checkRestrain(c *Command) *chat.Error {
	if err := checkPerson(c); err != nil {
		return err
	}
	return checkWithin("seconds", c.Seconds, MaxSeconds)
}

func checkErase(c *Command) *chat.Error {
	if err := checkManage(c); err != nil {
		return err
	}
	if c.Seq == 0 {
		return chat.Errorf(chat.CodeBadRequest, `erase needs a "seq", the number of the entry`)
	}
	return checkReason(c)
}

// checkPerson is for what is done to a person.
func checkPerson(c *Command) *chat.Error {
	if err := checkManage(c); err != nil {
		return err
	}
	if !chat.ValidUser(c.User) {
		return chat.Errorf(chat.CodeBadRequest, `%s needs a "user", the name of the person`, c.Type)
	}
	return checkReason(c)
}

// checkManage is for what all commands that run a room have in common.
func checkManage(c *Command) *chat.Error {
	if err := checkRoom(c); err != nil {
		return err
	}
	return checkNonce(c)
}

func checkWithin(field string, n, most int) *chat.Error {
	if n < 0 || n > most {
		return chat.Errorf(chat.CodeBadRequest, "%q is not within 0 and %d", field, most)
	}
	return nil
}

func checkDirect(c *Command) *chat.Error {
	if !chat.ValidUser(c.User) {
		return chat.Errorf(chat.CodeBadRequest, `direct needs a "user", the name of the person to talk to`)
	}
	return nil
}

func checkRefresh(c *Command) *chat.Error {
	switch {
	case c.Token == "":
		return chat.Errorf(chat.CodeBadRequest, `refresh needs the new "token"`)
	case len(c.Token) > MaxToken:
		return chat.Errorf(chat.CodeBadRequest, "token is longer than %d bytes", MaxToken)
	}
	return nil
}
