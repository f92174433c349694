// Package chat is Parley's vocabulary: the identifiers, the message kinds, the
// outcomes and the errors that every other package speaks of. It imports the
// standard library alone, starts nothing and holds no state, so anything may
// import it.
package chat

import (
	"fmt"
	"time"
)

// UserID names a person or a bot. Guests and users share one name space: a
// guest never holds a UserID that a token has ever been verified for.
type UserID string

// ServerUser is who the log names as author of what the server did by itself.
const ServerUser UserID = "parley"

// RoomID names a room. See ValidRoom for its shape.
type RoomID string

// MessageID names one entry of a room's log for ever. It is a UUIDv7 in its
// canonical 36-character text form, chosen by the node that accepted it.
type MessageID string

// Class says how an identity was proven.
type Class string

// The classes of identity.
const (
	ClassGuest Class = "guest" // chose a name, proved nothing
	ClassUser  Class = "user"  // presented a verified token
)

// Identity is who a connection speaks for, as proven at hello.
type Identity struct {
	User  UserID
	Class Class
	// Roles are global roles from the token ("moderator", "admin", ...); roles
	// a room gave to the user are facts of that room, not of the identity.
	Roles []string
	// Expires is when the proof ends; the zero time means never.
	Expires time.Time
	// Since is when the server first saw a token of the user; zero for guests
	// and where it is not known.
	Since time.Time
}

// Outcome says what became of an accepted message.
type Outcome string

// The outcomes an acknowledgement can carry.
const (
	Accepted Outcome = "accepted" // appended as sent
	Redacted Outcome = "redacted" // appended with parts masked
	Held     Outcome = "held"     // kept for a moderator to look at; nobody else sees it
	Rejected Outcome = "rejected" // a moderator looked and refused it; only after Held
	Expired  Outcome = "expired"  // no moderator decided in time; only after Held
	Erased   Outcome = "erased"   // what was written is gone, its place in the log stays; never in an acknowledgement
)

// Reason explains a decision to a person and to a program.
type Reason struct {
	// Code is stable and meant for programs: lower case, digits, underscores.
	Code string `json:"code"`
	// Text is one sentence meant for people.
	Text string `json:"text,omitempty"`
	// Source names who decided: "policy", "plugin:wordlist", "limits".
	Source string `json:"source,omitempty"`
}

// Code is the stable, machine-readable part of an error that a client sees.
type Code string

// The error codes of protocol v1. docs/protocol.md says for each whether the
// connection stays open and what the client should do.
const (
	CodeBadRequest   Code = "bad_request"    // malformed JSON, missing or bad field
	CodeUnknownType  Code = "unknown_type"   // no such command
	CodeBadState     Code = "bad_state"      // command not allowed now
	CodeUnauthorized Code = "unauthorized"   // token missing or bad
	CodeTokenExpired Code = "token_expired"  // fatal: the token has expired and was not refreshed
	CodeNameTaken    Code = "name_taken"     // guest name in use or belonging to a known user
	CodeDenied       Code = "denied"         // policy or a plugin said no
	CodePolicyError  Code = "policy_error"   // policy could not decide; denied
	CodePluginError  Code = "plugin_error"   // a plugin failed and fails closed
	CodeNoRoom       Code = "no_room"        // room does not exist and may not be created
	CodeNotMember    Code = "not_member"     // the connection has not joined the room
	CodeTextTooLong  Code = "text_too_long"  // the message is longer than allowed
	CodeFrameTooBig  Code = "frame_too_big"  // fatal: the frame exceeds limits.frame_bytes
	CodeRateLimited  Code = "rate_limited"   // too many commands; see retry_after_ms
	CodeSlowMode     Code = "slow_mode"      // the room asks for more time between messages
	CodeTooManyRooms Code = "too_many_rooms" // limits.rooms_per_connection
	CodeTooManyConns Code = "too_many_conns" // limits.connections_per_ip or _per_user
	CodeQueueFull    Code = "queue_full"     // the message should wait for review, but too many do
	CodeNoReview     Code = "no_review"      // no such open review: decided already, or never there
	CodeNoAppeal     Code = "no_appeal"      // the appeal is unknown, used or too old
	CodeUnavailable  Code = "unavailable"    // the store cannot answer; nothing was decided
	CodeOverloaded   Code = "overloaded"     // the node sheds load
	CodeSlowConsumer Code = "slow_consumer"  // fatal, resumable: the client read too slowly
	CodeGoingAway    Code = "going_away"     // fatal, resumable: the node drains
	CodeInternal     Code = "internal"       // a fault of the server
)

// Error is an error a client may see. The zero Retry means that retrying the
// same command cannot help.
type Error struct {
	Code    Code
	Text    string   // one safe sentence: what happened, why, what to do
	Reasons []Reason // the rules behind a denial
	Appeal  string   // what the command appeal takes, where the denial may be appealed
	// Decision names the policy's decision in the decision log, where the policy
	// said no: what a person tells an operator who asks why.
	Decision string
	Retry    time.Duration // when trying again may help; <0: at once, with backoff
	Cause    error         // for the log only, never sent
}

// Error implements error for logs; it names the cause.
func (e *Error) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Text, e.Cause)
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Text)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Errorf builds an Error that retrying cannot help.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Text: fmt.Sprintf(format, args...)}
}
