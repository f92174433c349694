// Package wire is protocol v1: the commands a client sends, the events a
// server sends, and the one encoded buffer that serves every member of a room
// on both transports. docs/protocol.md is the specification, the golden
// vectors in testdata are its contract.
//
// Decode turns one bounded frame into a Command that has passed every check
// that needs no knowledge of the server. Nothing here keeps state; everything
// may be called from any goroutine.
package wire

import (
	"parley/core/chat"
	"parley/core/journal"
)

// Subprotocol is the WebSocket subprotocol of protocol v1 (RFC 6455 §1.9).
const Subprotocol = "parley.v1.json"

// Type names a command or an event.
type Type string

// The commands a client may send.
const (
	Hello   Type = "hello"
	Join    Type = "join"
	Leave   Type = "leave"
	Send    Type = "send"
	History Type = "history"
	Members Type = "members"
	Ping    Type = "ping"
	Pong    Type = "pong"
	Reviews Type = "reviews"
	Review  Type = "review"
	Appeal  Type = "appeal"
	Refresh Type = "refresh"
	Why     Type = "why"
	Typing  Type = "typing"
	Direct  Type = "direct"
)

// The commands that run a room; the answer to each is an ack. The entries that
// role, kick, ban, mute and erase append have the types "role", "kick", "ban"
// and "erase".
const (
	Configure Type = "configure"
	SlowMode  Type = "slow_mode"
	Role      Type = "role"
	Kick      Type = "kick"
	Ban       Type = "ban"
	Unban     Type = "unban"
	Mute      Type = "mute"
	Unmute    Type = "unmute"
	Erase     Type = "erase"
)

// The events a server sends besides "history", "members", "ping", "pong",
// "reviews", "review", "why", "typing" and "direct".
// Entries of a room's log use their journal.Kind as type.
const (
	Welcome   Type = "welcome"
	Refreshed Type = "refreshed"
	Joined    Type = "joined"
	Left      Type = "left"
	Ack       Type = "ack"
	Error     Type = "error"
	Presence  Type = "presence"
	Reset     Type = "reset"
	Close     Type = "close" // TCP only: what a WebSocket close frame says
)

// Bounds of a command that no configuration changes.
const (
	MaxCommandID = 64 // bytes of the client's "id"
	MaxRooms     = 1000
	MaxToken     = 8 << 10
	MaxHistory   = 1000 // entries of one history answer; limits.history_entries is lower
	MaxReason    = 500  // bytes of a moderator's or an author's reason
	MaxReviewID  = 64   // bytes of a review's id or an appeal's handle; ours are shorter
)

// Command is any command of protocol v1: the union of all fields. Which ones
// a type needs is in docs/protocol.md and checked by Decode.
type Command struct {
	Type Type   `json:"type" jsonschema:"enum=hello,enum=join,enum=leave,enum=send,enum=history,enum=members,enum=ping,enum=pong,enum=reviews,enum=review,enum=appeal,enum=refresh,enum=why,enum=typing,enum=direct,enum=configure,enum=slow_mode,enum=role,enum=kick,enum=ban,enum=unban,enum=mute,enum=unmute,enum=erase"`
	ID   string `json:"id,omitempty" jsonschema:"maxLength=64,description=echoed by the reply"`

	// hello; refresh: the token
	Token  string  `json:"token,omitempty" jsonschema:"description=a JWT"`
	Guest  *string `json:"guest,omitempty" jsonschema:"description=the wished guest name; empty lets the server choose"`
	Secret string  `json:"secret,omitempty" jsonschema:"description=the resume secret of an earlier guest welcome"`
	Device string  `json:"device,omitempty" jsonschema:"maxLength=128,description=client name and version"`

	// all but hello, refresh, direct, ping and pong
	Room  chat.RoomID       `json:"room,omitempty"`
	Since *journal.Position `json:"since,omitempty" jsonschema:"description=join: resume after this position"`
	Rooms []JoinRoom        `json:"rooms,omitempty" jsonschema:"description=join: many rooms at once"`

	// send; nonce: the commands that run a room too; text: why too
	Nonce string `json:"nonce,omitempty" jsonschema:"maxLength=64"`
	Text  string `json:"text,omitempty"`

	// history: entries before or after a seq
	Before uint64  `json:"before,omitzero"`
	After  *uint64 `json:"after,omitempty"`
	Limit  int     `json:"limit,omitzero"`

	// review, appeal
	ReviewID chat.MessageID `json:"review_id,omitempty" jsonschema:"maxLength=64"`
	Action   string         `json:"action,omitempty" jsonschema:"enum=approve,enum=reject"`
	Reason   string         `json:"reason,omitempty" jsonschema:"maxLength=500,description=what the author, the moderator or the person is told"`
	Appeal   string         `json:"appeal,omitempty" jsonschema:"maxLength=64,description=the appeal of the error denied"`

	// configure: what is absent stays
	Title      *string `json:"title,omitempty" jsonschema:"maxLength=200"`
	Mode       *string `json:"mode,omitempty" jsonschema:"enum=open,enum=announce,enum=read-only,enum=archived"`
	Visibility *string `json:"visibility,omitempty" jsonschema:"enum=public,enum=private"`
	SlowModeS  *int    `json:"slow_mode_s,omitempty" jsonschema:"minimum=0,maximum=21600,description=seconds between two messages of one user; 0 is off"`

	// role, kick, ban, unban, mute, unmute; direct: whom to talk to; why: of
	// another, for moderators
	User chat.UserID `json:"user,omitempty"`
	Role string      `json:"role,omitempty" jsonschema:"enum=owner,enum=moderator,enum=member,enum=none"`

	// erase
	Seq uint64 `json:"seq,omitzero" jsonschema:"minimum=1,description=erase: the entry whose text is to go"`

	// slow_mode, ban, mute
	Seconds int `json:"seconds,omitzero" jsonschema:"minimum=0,maximum=315360000,description=how long; 0 is for good and for slow_mode off"`

	// ping, pong
	TS int64 `json:"ts,omitzero" jsonschema:"description=echoed by the pong"`
}

// JoinRoom is one room of a join command.
type JoinRoom struct {
	Room  chat.RoomID       `json:"room"`
	Since *journal.Position `json:"since,omitempty"`
}

// WelcomeEvent answers hello.
type WelcomeEvent struct {
	Type              Type        `json:"type"`
	ID                string      `json:"id,omitempty"`
	Protocol          int         `json:"protocol"` // 1
	User              chat.UserID `json:"user"`
	Class             chat.Class  `json:"class"`
	Roles             []string    `json:"roles,omitempty"`
	Session           string      `json:"session"`
	Secret            string      `json:"secret,omitempty"`    // guests: resume secret
	ExpiresTS         int64       `json:"expires_ts,omitzero"` // Unix ms at which the token ends; absent = never
	HeartbeatMS       int64       `json:"heartbeat_ms"`
	ReconnectJitterMS int64       `json:"reconnect_jitter_ms"`
	Limits            Limits      `json:"limits"`
}

// Limits tells a client what it may send; 0 = no limit.
type Limits struct {
	FrameBytes         int `json:"frame_bytes"`
	TextBytes          int `json:"text_bytes"`
	CommandsPerSecond  int `json:"commands_per_second"`
	RoomsPerConnection int `json:"rooms_per_connection"`
	HistoryEntries     int `json:"history_entries"`
}

// JoinedEvent answers join, once for each room. Entries after the position
// follow; see docs/delivery.md for Recovered.
type JoinedEvent struct {
	Type      Type           `json:"type"`
	ID        string         `json:"id,omitempty"`
	Room      chat.RoomID    `json:"room"`
	Epoch     string         `json:"epoch"`
	Seq       uint64         `json:"seq"`               // the room's top
	LastID    chat.MessageID `json:"last_id,omitempty"` // id of the entry at seq
	Recovered bool           `json:"recovered"`         // entries after since follow, without a gap
	Title     string         `json:"title,omitempty"`
	Mode      string         `json:"mode"`
	// Visibility is "private", or absent for a public room.
	Visibility string `json:"visibility,omitempty"`
	SlowModeS  int    `json:"slow_mode_s,omitzero"`
	Role       string `json:"role,omitempty"` // one's own in this room: owner, moderator or member
	Count      int    `json:"count"`          // members here now, this connection included
}

// LeftEvent answers leave, and tells a member that it was made to leave: then
// it has a code and a text and no id.
type LeftEvent struct {
	Type    Type          `json:"type"`
	ID      string        `json:"id,omitempty"`
	Room    chat.RoomID   `json:"room"`
	Code    string        `json:"code,omitempty"` // kicked, banned, denied, policy_error
	Text    string        `json:"text,omitempty"`
	Reasons []chat.Reason `json:"reasons,omitempty"` // denied: the policy's
	By      chat.UserID   `json:"by,omitempty"`      // kicked, banned: by whom
	UntilTS int64         `json:"until_ts,omitzero"` // banned: Unix ms at which it ends; absent = never
	// Decision names the decision of the policy that said no, where one did.
	Decision string `json:"decision,omitempty"`
}

// AckEvent answers send, appeal and the commands that run a room: the message,
// or the entry that records the change, is durable. One that is held
// for review, or was rejected there, has a review id and no seq.
type AckEvent struct {
	Type      Type           `json:"type"`
	ID        string         `json:"id,omitempty"`
	Room      chat.RoomID    `json:"room"`
	Epoch     string         `json:"epoch"`
	Seq       uint64         `json:"seq,omitzero"`
	MessageID chat.MessageID `json:"message_id"`
	ReviewID  chat.MessageID `json:"review_id,omitempty"` // outcome held or rejected
	Outcome   chat.Outcome   `json:"outcome"`
	Reasons   []chat.Reason  `json:"reasons,omitempty"`
	Repeat    bool           `json:"repeat,omitzero"` // the nonce was known; this is the first answer again
}

// ErrorEvent answers a command that was refused, or says why the connection
// is about to be closed.
type ErrorEvent struct {
	Type         Type          `json:"type"`
	ID           string        `json:"id,omitempty"`
	Room         chat.RoomID   `json:"room,omitempty"`
	Code         chat.Code     `json:"code"`
	Text         string        `json:"text"`
	Reasons      []chat.Reason `json:"reasons,omitempty"`
	Retryable    bool          `json:"retryable"`
	RetryAfterMS int64         `json:"retry_after_ms,omitzero"`
	Appeal       string        `json:"appeal,omitempty"`   // what the command appeal takes
	Decision     string        `json:"decision,omitempty"` // of the policy, for its operators to look up
}

// EntryEvent is one entry of a room's log: live, replayed, or inside history.
// Why a message was redacted is told to its author only, in the ack.
type EntryEvent struct {
	Type    Type           `json:"type"` // a journal.Kind
	Room    chat.RoomID    `json:"room"`
	Seq     uint64         `json:"seq"`
	ID      chat.MessageID `json:"id"`
	From    chat.UserID    `json:"from,omitempty"`
	TS      int64          `json:"ts"` // Unix ms
	Nonce   string         `json:"nonce,omitempty"`
	Text    string         `json:"text,omitempty"`
	Outcome chat.Outcome   `json:"outcome,omitempty"` // only "redacted" is spelled out
	// Erased says that what was written here is gone, for good.
	Erased bool `json:"erased,omitzero"`
	// Erases names, in an entry of type erase, the earlier entries whose text is
	// to be forgotten.
	Erases []uint64 `json:"erases,omitempty"`
	// Changes are the state changes of entries that are not messages.
	Changes []ChangeEvent `json:"changes,omitempty"`
}

// ChangeEvent is one changed key of a room's state; an absent value means
// that the key was deleted.
type ChangeEvent struct {
	Key   string `json:"key"`
	Value any    `json:"value,omitzero"`
}

// HistoryEvent answers history.
type HistoryEvent struct {
	Type    Type         `json:"type"`
	ID      string       `json:"id,omitempty"`
	Room    chat.RoomID  `json:"room"`
	Epoch   string       `json:"epoch"`
	Entries []EntryEvent `json:"entries"` // rising seq
	More    bool         `json:"more"`    // there are further entries in the asked direction
}

// MembersEvent answers members. Above the naming bound Users is absent.
type MembersEvent struct {
	Type  Type          `json:"type"`
	ID    string        `json:"id,omitempty"`
	Room  chat.RoomID   `json:"room"`
	Count int           `json:"count"`
	Users []chat.UserID `json:"users,omitempty"` // sorted
}

// PresenceEvent says that somebody came or went. It has no seq, is not in the
// log, and may be skipped for a slow reader. Above the naming bound it names
// nobody and only the count is meant.
type PresenceEvent struct {
	Type  Type        `json:"type"`
	Room  chat.RoomID `json:"room"`
	Event string      `json:"event"` // "join", "leave" or "count"
	User  chat.UserID `json:"user,omitempty"`
	Count int         `json:"count"`
}

// TypingEvent says that somebody writes in a room at the moment. It has no seq,
// is not in the log, may be skipped for a slow reader, and is sent to all
// members but the connections of that user.
type TypingEvent struct {
	Type Type        `json:"type"`
	Room chat.RoomID `json:"room"`
	User chat.UserID `json:"user"`
}

// DirectEvent answers direct: the room where the two talk, to be joined as any
// other. Without an id it tells somebody who is not in that room that the other
// person has opened it or has written there.
type DirectEvent struct {
	Type Type        `json:"type"`
	ID   string      `json:"id,omitempty"`
	Room chat.RoomID `json:"room"`
	User chat.UserID `json:"user"`         // the other person
	New  bool        `json:"new,omitzero"` // the room was made for this command
}

// ResetEvent says that what follows does not continue what came before:
// forget the room's position, read history again.
type ResetEvent struct {
	Type   Type           `json:"type"`
	Room   chat.RoomID    `json:"room"`
	Epoch  string         `json:"epoch"`
	Seq    uint64         `json:"seq"`
	LastID chat.MessageID `json:"last_id,omitempty"`
}

// PingEvent is a ping or a pong.
type PingEvent struct {
	Type Type   `json:"type"`
	ID   string `json:"id,omitempty"`
	TS   int64  `json:"ts,omitzero"`
}

// CloseEvent is the last line a TCP client gets.
type CloseEvent struct {
	Type         Type   `json:"type"`
	Code         int    `json:"code"`
	Reason       string `json:"reason"`
	Reconnect    bool   `json:"reconnect"`
	RetryAfterMS int64  `json:"retry_after_ms,omitzero"`
}
