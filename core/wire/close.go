package wire

// CloseCode is a WebSocket close code (RFC 6455 §7.4). 4000 to 4499 are
// final: reconnecting in the same way cannot help. 4009, 4500 to 4999 and the
// standard 1001, 1011 and 1012 ask to reconnect.
type CloseCode int

// The close codes of protocol v1.
const (
	CloseNormal       CloseCode = 1000 // the client said goodbye
	CloseProtocol     CloseCode = 1002 // a broken WebSocket frame
	CloseBinary       CloseCode = 1003 // a binary message
	CloseUTF8         CloseCode = 1007 // a text frame that is not UTF-8
	CloseTooBig       CloseCode = 1009 // a frame above limits.frame_bytes
	CloseInternal     CloseCode = 1011 // a fault of the server
	CloseRestart      CloseCode = 1012 // the node drains; reconnect after a random part of the announced jitter
	CloseUnauthorized CloseCode = 4001 // token refused: get a new one first
	CloseExpired      CloseCode = 4002 // the token has expired and was not refreshed: get a new one first
	CloseDenied       CloseCode = 4003 // policy refuses the connection
	CloseAbuse        CloseCode = 4008 // too many malformed commands, or a flood of pings
	CloseHandshake    CloseCode = 4009 // no hello in time: connect again and say it
	CloseSlow         CloseCode = 4501 // slow_consumer: resume from your position
	CloseNoPong       CloseCode = 4502 // the heartbeat went unanswered
	CloseTooMany      CloseCode = 4503 // connection limits; try again later
)

// Reconnect reports whether a client should reconnect by itself.
func (c CloseCode) Reconnect() bool {
	switch c {
	case 1001, 1006, CloseInternal, CloseRestart, CloseHandshake:
		return true
	}
	return c >= 4500 && c < 5000
}
