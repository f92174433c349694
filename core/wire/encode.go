package wire

import (
	stdjson "encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"parley/core/chat"
	"parley/core/journal"
)

// Encode makes the frame of any event of this package.
func Encode(event any) Frame {
	j, err := json.Marshal(event)
	if err != nil { // the event types cannot fail unless a string is not UTF-8
		j, _ = json.Marshal(ErrorEvent{Type: Error, Code: chat.CodeInternal, Text: "the server could not encode its answer; this is a fault of the server"})
	}
	b := make([]byte, maxHeader, maxHeader+len(j)+1)
	return seal(append(b, j...))
}

// EncodeEntry makes the frame of one log entry. It is the hot path: written
// out by hand, one allocation, and equal to Encode(EventOf(room, e)).
func EncodeEntry(room chat.RoomID, e *journal.Entry) Frame {
	if len(e.Changes) > 0 || len(e.Erases) > 0 {
		return Encode(EventOf(room, e))
	}
	const fixed = maxHeader + 96 // header, punctuation, names and numbers
	b := make([]byte, maxHeader, fixed+2*len(e.Text)/2+len(e.Text)/8+len(room)+len(e.ID)+len(e.From)+len(e.Nonce)+64)
	b = append(b, `{"type":"`...)
	b = append(b, e.Kind...)
	b = append(b, `","room":"`...)
	b = append(b, room...)
	b = append(b, `","seq":`...)
	b = strconv.AppendUint(b, e.Seq, 10)
	b = append(b, `,"id":`...)
	b = appendString(b, string(e.ID))
	if e.From != "" {
		b = append(b, `,"from":`...)
		b = appendString(b, string(e.From))
	}
	b = append(b, `,"ts":`...)
	b = strconv.AppendInt(b, e.Time, 10)
	if e.Nonce != "" {
		b = append(b, `,"nonce":`...)
		b = appendString(b, e.Nonce)
	}
	if e.Text != "" {
		b = append(b, `,"text":`...)
		b = appendString(b, e.Text)
	}
	if e.Outcome == chat.Redacted {
		b = append(b, `,"outcome":"redacted"`...)
	}
	if e.Outcome == chat.Erased {
		b = append(b, `,"erased":true`...)
	}
	return seal(append(b, '}'))
}

// EncodeAck makes the frame of an ack, by hand where there are no reasons.
func EncodeAck(id string, room chat.RoomID, r *journal.Receipt) Frame {
	if len(r.Reasons) > 0 || r.Repeat || r.Seq == 0 {
		ev := AckEvent{Type: Ack, ID: id, Room: room, Epoch: r.Epoch, Seq: r.Seq,
			MessageID: r.ID, Outcome: r.Outcome, Reasons: r.Reasons, Repeat: r.Repeat}
		if r.Seq == 0 {
			ev.ReviewID = r.ID
		}
		return Encode(ev)
	}
	b := make([]byte, maxHeader, maxHeader+192+len(id)+len(room))
	b = append(b, `{"type":"ack"`...)
	if id != "" {
		b = append(b, `,"id":`...)
		b = appendString(b, id)
	}
	b = append(b, `,"room":"`...)
	b = append(b, room...)
	b = append(b, `","epoch":`...)
	b = appendString(b, r.Epoch)
	b = append(b, `,"seq":`...)
	b = strconv.AppendUint(b, r.Seq, 10)
	b = append(b, `,"message_id":`...)
	b = appendString(b, string(r.ID))
	b = append(b, `,"outcome":"`...)
	b = append(b, r.Outcome...)
	return seal(append(b, `"}`...))
}

// appendString quotes s; what is not UTF-8 becomes U+FFFD rather than a frame
// no client could parse.
func appendString(b []byte, s string) []byte {
	out, err := jsontext.AppendQuote(b, s)
	if err != nil && out == nil {
		return append(b, `""`...)
	}
	return out
}

// EventOf is the event of one log entry, for history answers.
func EventOf(room chat.RoomID, e *journal.Entry) EntryEvent {
	ev := EntryEvent{Type: Type(e.Kind), Room: room, Seq: e.Seq, ID: e.ID, From: e.From,
		TS: e.Time, Nonce: e.Nonce, Text: e.Text, Erased: e.Outcome == chat.Erased, Erases: e.Erases}
	if e.Outcome == chat.Redacted {
		ev.Outcome = e.Outcome
	}
	for _, c := range e.Changes {
		ce := ChangeEvent{Key: c.Key}
		if c.Value != nil {
			ce.Value = jsontext.Value(c.Value)
			if !stdjson.Valid(c.Value) {
				ce.Value = fmt.Sprintf("%q", c.Value)
			}
		}
		ev.Changes = append(ev.Changes, ce)
	}
	return ev
}

// ErrorOf is the event for an error; id and room echo the command.
func ErrorOf(id string, room chat.RoomID, e *chat.Error) ErrorEvent {
	ev := ErrorEvent{Type: Error, ID: id, Room: room, Code: e.Code, Text: e.Text,
		Reasons: e.Reasons, Retryable: e.Retry != 0, Appeal: e.Appeal, Decision: e.Decision}
	if e.Retry > 0 {
		ev.RetryAfterMS = (e.Retry + time.Millisecond - 1).Milliseconds() // rounded up: 0 would say nothing
	}
	return ev
}
