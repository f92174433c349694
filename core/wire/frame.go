package wire

import (
	"encoding/binary"
	"math"
)

// Frame is one encoded event: [WebSocket header][JSON][newline] in a single
// buffer. Server frames are unmasked (RFC 6455 §5.1), so the whole is a text
// frame for every WebSocket member, and its tail is the line for every TCP
// member. A Frame is immutable and may be shared between goroutines.
type Frame struct {
	buf  []byte
	line uint8 // where the JSON begins
}

// maxHeader is the longest header of an unmasked frame (RFC 6455 §5.2).
const maxHeader = 10

const (
	finText  = 0x81 // FIN, opcode 1
	finClose = 0x88
	finPing  = 0x89
	finPong  = 0x8a
)

// MaxControl is the longest payload of a control frame (RFC 6455 §5.5).
const MaxControl = 125

// WebSocket returns the bytes for a WebSocket connection.
func (f Frame) WebSocket() []byte { return f.buf }

// Line returns the bytes for a TCP connection: JSON and a newline.
func (f Frame) Line() []byte { return f.buf[f.line:] }

// JSON returns the event without the newline.
func (f Frame) JSON() []byte { return f.buf[f.line : len(f.buf)-1] }

// Len returns the size of the longer form, in bytes.
func (f Frame) Len() int { return len(f.buf) }

// seal turns a buffer of maxHeader free bytes and a JSON value into a Frame.
func seal(b []byte) Frame {
	b = append(b, '\n')
	n := len(b) - maxHeader
	var at int
	switch {
	case n <= 125:
		at = maxHeader - 2
		b[at+1] = byte(n)
	case n <= math.MaxUint16:
		at = maxHeader - 4
		b[at+1] = 126
		binary.BigEndian.PutUint16(b[at+2:], uint16(n))
	default:
		at = 0
		b[at+1] = 127
		binary.BigEndian.PutUint64(b[at+2:], uint64(n))
	}
	b[at] = finText
	return Frame{buf: b[at:], line: uint8(maxHeader - at)}
}

// ControlPing returns a WebSocket ping frame.
func ControlPing(payload []byte) []byte { return control(finPing, payload) }

// ControlPong returns a WebSocket pong frame.
func ControlPong(payload []byte) []byte { return control(finPong, payload) }

// ControlClose returns a WebSocket close frame; the reason is cut to fit.
func ControlClose(code CloseCode, reason string) []byte {
	p := binary.BigEndian.AppendUint16(make([]byte, 0, MaxControl), uint16(code))
	return control(finClose, append(p, cut(reason, MaxControl-2)...))
}

func control(op byte, payload []byte) []byte {
	if len(payload) > MaxControl {
		payload = payload[:MaxControl]
	}
	return append([]byte{op, byte(len(payload))}, payload...)
}

// cut shortens s to at most n bytes without cutting a rune.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}
