package session

import (
	"context"
	"encoding/binary"
	"log/slog"
	"time"

	"parley/core/chat"
	"parley/core/room"
	"parley/core/wire"
)

// Context is what commands run under; it ends when the server has stopped.
func (x *Session) Context() context.Context { return x.srv.ctx }

// Close ends the session for a reason the transport found.
func (x *Session) Close(code wire.CloseCode, reason string) { x.close(code, reason) }

// Goodbye ends the session because the client asked to. The close frame it
// sent is answered with its own code (RFC 6455 §5.5.1), which is not counted
// as one of ours.
func (x *Session) Goodbye(code wire.CloseCode) {
	x.busy.Lock()
	defer x.busy.Unlock()
	x.goodbye = !x.Closed()
	x.close(code, "client closed")
}

// watch puts the connection on the heartbeat wheel. A person with nc answers
// no pings, so over TCP the pong is demanded only once one was answered.
func (x *Session) watch() {
	if x.transport == "ws" {
		x.beat.Enforce()
	}
	x.srv.d.Wheel.Add(&x.beat, beating{x})
}

// beating is the session as the heartbeat wheel sees it.
type beating struct{ x *Session }

// Ping implements liveness.Peer.
func (b beating) Ping(seq uint32) {
	if b.x.transport == "tcp" {
		_ = b.x.peer.Control(wire.Encode(wire.PingEvent{Type: wire.Ping, TS: time.Now().UnixMilli()}).Line())
		return
	}
	_ = b.x.peer.Control(wire.ControlPing(binary.BigEndian.AppendUint32(nil, seq)))
}

// Overdue implements liveness.Peer.
func (b beating) Overdue(evidence string) {
	b.x.srv.d.Log.Info("connection closed, its heartbeat went unanswered", slog.String("session", b.x.id),
		slog.String("user", string(b.x.who.User)), slog.String("evidence", evidence))
	b.x.close(wire.CloseNoPong, "no_pong")
}

// Ping answers a WebSocket ping (RFC 6455 §5.5.2), within the rate commands
// have; what is above it is not answered.
func (x *Session) Ping(data []byte) {
	x.busy.Lock()
	defer x.busy.Unlock()
	x.alive()
	if x.rate.take(time.Now(), 1) > 0 {
		x.srv.stats.error(chat.CodeRateLimited)
		return
	}
	_ = x.peer.Control(wire.ControlPong(data))
}

// alive notes that something came from the client.
func (x *Session) alive() {
	if x.greeted.Load() {
		x.srv.d.Wheel.Active(&x.beat)
	}
}

// progress is a connection's socket that takes note when a full one takes
// more: the other end has acknowledged something. A ping waits behind what is
// being written, so a slow reader's pong may be long in coming while it lives.
type progress struct {
	room.Socket
	x *Session
}

// Write implements room.Socket.
func (p progress) Write(b []byte, timeout time.Duration) (int, error) {
	n, err := p.Socket.Write(b, timeout)
	if n > 0 {
		p.x.alive()
	}
	return n, err
}

// Pong takes the answer to a WebSocket ping.
func (x *Session) Pong() {
	if x.greeted.Load() {
		x.srv.d.Wheel.Heard(&x.beat)
	}
}

// pong takes the answer to a JSON ping; from the first on they are demanded.
func (x *Session) pong(context.Context, *wire.Command) error {
	x.Pong()
	return nil
}
