package client

import (
	"bytes"
	"encoding/json"
	"fmt"

	"parley/core/journal"
	"parley/core/wire"
)

// UnknownEvent is an event of a type this client does not know, undecoded: a
// newer server may send it.
type UnknownEvent struct {
	Type wire.Type
	Raw  []byte
}

// decode reads one event into its type of package wire.
func decode(frame []byte) (any, error) {
	t, err := typeOf(frame)
	if err != nil {
		return nil, err
	}
	var ev any
	switch t {
	case wire.Type(journal.KindMessage), wire.Type(journal.KindSettings), wire.Type(journal.KindRole), wire.Type(journal.KindBan), wire.Type(journal.KindKick), wire.Type(journal.KindErase):
		ev = new(wire.EntryEvent)
	case wire.Ack:
		ev = new(wire.AckEvent)
	case wire.Presence:
		ev = new(wire.PresenceEvent)
	case wire.Typing:
		ev = new(wire.TypingEvent)
	case wire.Direct:
		ev = new(wire.DirectEvent)
	case wire.Ping, wire.Pong:
		ev = new(wire.PingEvent)
	case wire.Joined:
		ev = new(wire.JoinedEvent)
	case wire.Error:
		ev = new(wire.ErrorEvent)
	case wire.Reset:
		ev = new(wire.ResetEvent)
	case wire.History:
		ev = new(wire.HistoryEvent)
	case wire.Members:
		ev = new(wire.MembersEvent)
	case wire.Reviews:
		ev = new(wire.ReviewsEvent)
	case wire.Review:
		ev = new(wire.ReviewEvent)
	case wire.Why:
		ev = new(wire.WhyEvent)
	case wire.Left:
		ev = new(wire.LeftEvent)
	case wire.Refreshed:
		ev = new(wire.RefreshedEvent)
	case wire.Welcome:
		ev = new(wire.WelcomeEvent)
	case wire.Close:
		ev = new(wire.CloseEvent)
	default:
		if !json.Valid(frame) {
			return nil, fmt.Errorf("event of type %.32q is not JSON", t)
		}
		return &UnknownEvent{Type: t, Raw: bytes.Clone(frame)}, nil
	}
	if err := json.Unmarshal(frame, ev); err != nil {
		return nil, fmt.Errorf("decode %s: %w", t, err)
	}
	return ev, nil
}

// typeOf finds an event's type. The server writes it first, which spares
// reading the frame twice; any other order is still understood.
func typeOf(frame []byte) (wire.Type, error) {
	const first = `{"type":"`
	if rest, ok := bytes.CutPrefix(frame, []byte(first)); ok {
		if i := bytes.IndexAny(rest, `"\`); i >= 0 && rest[i] == '"' {
			return wire.Type(rest[:i]), nil
		}
	}
	var head struct {
		Type wire.Type `json:"type"`
	}
	if err := json.Unmarshal(frame, &head); err != nil {
		return "", fmt.Errorf("decode event: %w", err)
	}
	return head.Type, nil
}
