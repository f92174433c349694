package wire

import (
	"errors"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"parley/core/chat"
)

// Decode reads one command. The frame's size is bounded by the transport.
// Unknown members are ignored, so that newer clients can talk to older
// servers; duplicate members and anything after the object are refused
// (RFC 8259 leaves both open, and both have been used to smuggle).
//
// On error the returned command still carries type and id where they could
// be read, so that the reply can echo the id.
func Decode(frame []byte) (Command, *chat.Error) {
	if !utf8.Valid(frame) {
		return Command{}, chat.Errorf(chat.CodeBadRequest, "the frame is not UTF-8; send JSON text")
	}
	c := scratch.Get().(*Command)
	err := decode(frame, c)
	done := *c
	*c = Command{} // the pool keeps nobody's text
	scratch.Put(c)
	return done, err
}

// scratch holds zero Commands to decode into: reflection makes them escape,
// and a Command on the heap is most of what decoding a send would allocate.
var scratch = sync.Pool{New: func() any { return new(Command) }}

func decode(frame []byte, c *Command) *chat.Error {
	if err := json.Unmarshal(frame, c); err != nil {
		*c = partial(*c)
		return malformed(err)
	}
	if len(c.ID) > MaxCommandID {
		c.ID = ""
		return chat.Errorf(chat.CodeBadRequest, "id is longer than %d bytes", MaxCommandID)
	}
	check, ok := checks[c.Type]
	if !ok {
		if c.Type == "" {
			return chat.Errorf(chat.CodeBadRequest, `the command has no "type"`)
		}
		return chat.Errorf(chat.CodeUnknownType, "there is no command %q; known are hello, refresh, join, leave, send, history, members, ping, pong, reviews, review, appeal, why, typing, direct, configure, slow_mode, role, kick, ban, unban, mute, unmute, erase", cut(string(c.Type), 32))
	}
	return check(c)
}

func partial(c Command) Command {
	p := Command{Type: c.Type}
	if len(c.ID) <= MaxCommandID && utf8.ValidString(c.ID) {
		p.ID = c.ID
	}
	return p
}

// malformed says where a frame stops being what it should be, in words that
// hold no part of the frame.
func malformed(err error) *chat.Error {
	var syn *jsontext.SyntacticError
	if errors.As(err, &syn) {
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return chat.Errorf(chat.CodeBadRequest, "the object has the same member twice: problem at byte %d", syn.ByteOffset)
		}
		return chat.Errorf(chat.CodeBadRequest, "the frame is not a valid JSON object: problem at byte %d", syn.ByteOffset)
	}
	var sem *json.SemanticError
	if errors.As(err, &sem) {
		if sem.JSONPointer == "" {
			return chat.Errorf(chat.CodeBadRequest, "the frame must be one JSON object")
		}
		return chat.Errorf(chat.CodeBadRequest, "field %q cannot hold this JSON %s", cut(string(sem.JSONPointer), 64), sem.JSONKind)
	}
	return chat.Errorf(chat.CodeBadRequest, "the frame is not a valid JSON object")
}

// checks holds what each command must carry.
var checks = map[Type]func(*Command) *chat.Error{
	Hello:   checkHello,
	Join:    checkJoin,
	Leave:   checkRoom,
	Send:    checkSend,
	History: checkHistory,
	Members: checkRoom,
	Ping:    func(*Command) *chat.Error { return nil },
	Pong:    func(*Command) *chat.Error { return nil },
	Reviews: checkRoom,
	Review:  checkReview,
	Appeal:  checkAppeal,
	Refresh: checkRefresh,
	Why:     checkWhy,
	Typing:  checkRoom,
	Direct:  checkDirect,

	Configure: checkConfigure,
	SlowMode:  checkSlowMode,
	Role:      checkRole,
	Kick:      checkPerson,
	Ban:       checkRestrain,
	Unban:     checkPerson,
	Mute:      checkRestrain,
	Unmute:    checkPerson,
	Erase:     checkErase,
}

func checkHello(c *Command) *chat.Error {
	switch {
	case c.Token != "" && c.Guest != nil:
		return chat.Errorf(chat.CodeBadRequest, "hello carries both token and guest; send one of them")
	case c.Token == "" && c.Guest == nil:
		return chat.Errorf(chat.CodeBadRequest, `hello needs "token", or "guest" with a name`)
	case len(c.Token) > MaxToken:
		return chat.Errorf(chat.CodeBadRequest, "token is longer than %d bytes", MaxToken)
	case c.Guest != nil && *c.Guest != "" && !chat.ValidUser(chat.UserID(*c.Guest)):
		return chat.Errorf(chat.CodeBadRequest, "guest name must be 1 to %d bytes of letters, digits and -_.@+: without spaces, beginning with a letter or digit", chat.MaxUserBytes)
	case len(c.Secret) > 256:
		return chat.Errorf(chat.CodeBadRequest, "secret is longer than 256 bytes")
	case len(c.Device) > chat.MaxDevice:
		return chat.Errorf(chat.CodeBadRequest, "device is longer than %d bytes", chat.MaxDevice)
	}
	return nil
}

func checkJoin(c *Command) *chat.Error {
	switch {
	case c.Room != "" && len(c.Rooms) > 0:
		return chat.Errorf(chat.CodeBadRequest, "join carries both room and rooms; send one of them")
	case len(c.Rooms) > MaxRooms:
		return chat.Errorf(chat.CodeBadRequest, "join lists %d rooms, at most %d are allowed", len(c.Rooms), MaxRooms)
	case len(c.Rooms) == 0:
		if err := checkRoom(c); err != nil {
			return err
		}
		c.Rooms = []JoinRoom{{Room: c.Room, Since: c.Since}}
	}
	seen := make(map[chat.RoomID]struct{}, len(c.Rooms))
	for _, r := range c.Rooms {
		if !chat.ValidRoom(r.Room) {
			return badRoom(r.Room)
		}
		if _, twice := seen[r.Room]; twice {
			return chat.Errorf(chat.CodeBadRequest, "join lists room %q twice", r.Room)
		}
		seen[r.Room] = struct{}{}
		if s := r.Since; s != nil && (len(s.Epoch) > 64 || len(s.ID) > 64) {
			return chat.Errorf(chat.CodeBadRequest, "since of room %q is not a position this server gave", r.Room)
		}
	}
	return nil
}

func checkRoom(c *Command) *chat.Error {
	if !chat.ValidRoom(c.Room) {
		return badRoom(c.Room)
	}
	return nil
}

func badRoom(id chat.RoomID) *chat.Error {
	if id == "" {
		return chat.Errorf(chat.CodeBadRequest, `the command needs a "room"`)
	}
	return chat.Errorf(chat.CodeBadRequest, "%q is no room name: 1 to %d bytes of a-z, 0-9 and -_.: beginning with a letter or digit", cut(string(id), chat.MaxRoomBytes), chat.MaxRoomBytes)
}

func checkSend(c *Command) *chat.Error {
	if err := checkRoom(c); err != nil {
		return err
	}
	if err := checkNonce(c); err != nil {
		return err
	}
	if c.Text == "" {
		return chat.Errorf(chat.CodeBadRequest, `send needs a "text"`)
	}
	return nil
}

func checkNonce(c *Command) *chat.Error {
	if c.Nonce != "" && !chat.ValidNonce(c.Nonce) {
		return chat.Errorf(chat.CodeBadRequest, `"nonce" must be 1 to %d printable ASCII characters (a UUID is fine), new for each message and the same when you resend it`, chat.MaxNonce)
	}
	return nil
}

func checkHistory(c *Command) *chat.Error {
	if err := checkRoom(c); err != nil {
		return err
	}
	if c.Before != 0 && c.After != nil {
		return chat.Errorf(chat.CodeBadRequest, "history carries both before and after; send one of them")
	}
	if c.Limit < 0 || c.Limit > MaxHistory {
		return chat.Errorf(chat.CodeBadRequest, "limit %d is not within 0 and %d", c.Limit, MaxHistory)
	}
	return nil
}
