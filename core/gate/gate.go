// Package gate holds the two documents that pass between the chat core and a
// policy: the question (Input) and the answer (Decision). Their JSON names are
// the contract with every policy repository: fields are only ever added.
//
// A Decision depends on its Input and on the policy's revision and on nothing
// else, so times reach the policy as booleans and waits, never as a clock.
// docs/policy.md documents every field. The package imports the standard
// library and core/chat alone; values are immutable once handed over and may
// be read from any goroutine.
package gate

import (
	"net/netip"
	"time"

	"parley/core/chat"
)

// Input is the question: may this subject do this action to this resource?
// The words are those of the AuthZEN Authorization API 1.0; target is ours.
type Input struct {
	Subject  Subject  `json:"subject"`
	Action   Action   `json:"action"`
	Resource Resource `json:"resource"`
	Target   Target   `json:"target"`
	Context  Context  `json:"context"`
	// Message names the message in question where it has an id. It is for the
	// decision log and no part of the question: no policy sees it.
	Message chat.MessageID `json:"-"`
	// Raw is what the server knows and no policy sees: the policy completes the
	// question with what its own data says of it, see Raw.
	Raw Raw `json:"-"`
}

// Raw is a moment, an address and an age. A policy never sees them, because
// an answer that depends on them could be neither cached nor replayed; it sees
// what its data calls them: Context.Periods, Context.Networks and
// Subject.NewAccount. Deciding sets those three, each where its raw fact is
// given, and Resource.Template always; until then they are "", false and [].
type Raw struct {
	Now    time.Time  // when the question is asked
	Remote netip.Addr // where the subject comes from
	Since  time.Time  // when the subject's account was first seen here; zero where there is none or it is not known
}

// Subject is who asks.
type Subject struct {
	Type  string   `json:"type"`  // "guest" or "user"
	ID    string   `json:"id"`    // the user name
	Roles []string `json:"roles"` // global roles, sorted; [] when none

	NewAccount bool `json:"new_account"` // the account is younger than the policy's data calls new

	// Facts of the room in question; zero outside a room.
	RoomRole string `json:"room_role"` // "owner", "moderator", "member" or ""
	Banned   bool   `json:"banned"`    // banned from the room at this moment
	Muted    bool   `json:"muted"`     // muted in the room at this moment
}

// Action is what is asked for. Beyond the name its fields are zero, and
// Changes [], unless the comment names the action.
type Action struct {
	Name string `json:"name"` // one of the constants of this package

	Role       string   `json:"role"`        // member.role: the role to be given; "" takes the present one away
	Changes    []string `json:"changes"`     // room.configure: what it changes, sorted, of "mode", "slow_mode", "title", "visibility"
	Mode       string   `json:"mode"`        // room.configure: the mode afterwards
	Visibility string   `json:"visibility"`  // room.configure: the visibility afterwards
	SlowModeS  int      `json:"slow_mode_s"` // room.configure: the slow mode afterwards
	Seconds    int      `json:"seconds"`     // member.ban, member.mute: for how long; 0 for good
	Lift       bool     `json:"lift"`        // member.ban, member.mute: it is to be lifted
}

// Target is the person something is done to: who is invited, given a role,
// kicked, banned, muted or written to, or who wrote the message in question.
// It is zero for other actions.
type Target struct {
	// Type is "user" for a name that a verified token has had here, "guest" for
	// any other.
	Type string `json:"type"`
	ID   string `json:"id"`
	Self bool   `json:"self"` // the subject itself

	RoomRole string `json:"room_role"` // as of Subject
	Banned   bool   `json:"banned"`
	Muted    bool   `json:"muted"`
}

// Resource is what it would be done to.
type Resource struct {
	Type       string `json:"type"`        // "room", or "server" for connect
	ID         string `json:"id"`          // the room's name, "" for the server
	Exists     bool   `json:"exists"`      // false only for room.create
	Mode       string `json:"mode"`        // "open", "announce", "read-only", "archived"
	Visibility string `json:"visibility"`  // "public" or "private"
	SlowModeS  int    `json:"slow_mode_s"` // the room's setting in seconds, 0 = off
	Direct     bool   `json:"direct"`      // the room of two people, both of whom have a role there
	Template   string `json:"template"`    // the template of the policy's data that the room's name fits, "" for none
}

// Context is everything else the decision may depend on.
type Context struct {
	Transport string `json:"transport"`   // "ws", "tcp" or "admin"
	Network   string `json:"network"`     // "loopback", "private" or "public"
	TextBytes int    `json:"text_bytes"`  // size of the message; 0 for other actions
	SlowWaitS int    `json:"slow_wait_s"` // seconds the room's slow mode still asks this user to wait, rounded up; 0 = none

	Periods  []string `json:"periods"`  // periods of the policy's data that this moment lies in, sorted
	Networks []string `json:"networks"` // networks of the policy's data that the peer is in, sorted
}

// NetworkOf is Context.Network of somebody who comes from an address.
func NetworkOf(ip netip.Addr) string {
	switch ip = ip.Unmap(); {
	case ip.IsLoopback():
		return "loopback"
	case ip.IsPrivate(), ip.IsLinkLocalUnicast():
		return "private"
	}
	return "public"
}

// Decision is the answer.
type Decision struct {
	Allow       bool
	Reasons     []chat.Reason
	Obligations Obligations
	// Revision names the policy that decided, e.g. "default:7d01…", "dir:3f2a…" or
	// "git:9c1e…".
	Revision string
	// Failed says that the policy could not decide (undefined, error,
	// malformed, timeout). Allow is then false and the one Reason has code
	// "policy_error", unless the operator has let the action through for this
	// case (policy.allow_on_error).
	Failed bool
	// Cached says that the answer came from the decision cache.
	Cached bool
	// ID names the decision in the decision log; "" where it was not recorded,
	// which an allowed one need not be.
	ID string
}

// Rule is a rule of a policy, for those who may know which one said no.
type Rule struct {
	File  string `json:"file"`
	Line  int    `json:"line"`
	Name  string `json:"name"`            // "parley.refusal"
	Words string `json:"words,omitempty"` // the comment above it, else how it begins
}

// Obligations are conditions under which an allowed action goes ahead. A nil
// pointer or slice means that the policy did not speak of it.
type Obligations struct {
	// RateLimit bounds this user's messages to this room.
	RateLimit *RateLimit `json:"rate_limit,omitempty"`
	// SlowModeS asks for that many seconds between this user's messages here.
	SlowModeS *int `json:"slow_mode_s,omitempty"`
	// Plugins names the plugins that judge this message; nil means all, an
	// empty list none.
	Plugins []string `json:"plugins,omitzero"`
	// History bounds how many past entries may be read; 0 means none.
	History *int `json:"history,omitempty"`
	// TextBytes bounds the message further than the server's own limit.
	TextBytes *int `json:"text_bytes,omitempty"`
	// Room is what a new room begins with; nil leaves that to the server.
	Room *RoomSettings `json:"room,omitempty"`
}

// None reports whether the policy asked for nothing.
func (o *Obligations) None() bool {
	return o.RateLimit == nil && o.SlowModeS == nil && o.Plugins == nil && o.History == nil && o.TextBytes == nil && o.Room == nil
}

// RoomSettings are settings of a room in the words of Resource.
type RoomSettings struct {
	Title      string `json:"title"`
	Mode       string `json:"mode"`
	Visibility string `json:"visibility"`
	SlowModeS  int    `json:"slow_mode_s"`
}

// RateLimit allows Count events in each window of PerS seconds.
type RateLimit struct {
	Count int `json:"count"`
	PerS  int `json:"per_s"`
}
