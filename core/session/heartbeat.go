package session

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math"
	"syscall"
	"time"

	"parley/core/chat"
	"parley/core/liveness"
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

// Ping implements liveness.Peer. The number of a JSON ping is its ts, which
// every client brings back.
func (b beating) Ping(seq uint32) {
	if b.x.transport == "tcp" {
		_ = b.x.peer.Control(wire.Encode(wire.PingEvent{Type: wire.Ping, TS: int64(seq)}).Line())
		return
	}
	_ = b.x.peer.Control(wire.ControlPing(binary.BigEndian.AppendUint32(nil, seq)))
}

// Look implements liveness.Peer. While a command is carried out nothing behind
// it is read: what the kernel gave us with it, perhaps the pong, is no longer
// the kernel's to tell of. So the client's time begins again. Where the socket
// is full the ping may wait in this process still: what waits is yet to be
// acknowledged like what the kernel holds.
func (b beating) Look() (liveness.Evidence, error) {
	if b.x.busy.TryLock() {
		b.x.busy.Unlock()
	} else {
		b.x.alive()
	}
	waiting := b.x.peer.Waiting() // first: what leaves meanwhile is counted twice, and not left out
	e, err := b.x.look()
	if e.Known {
		e.Queued += waiting
	}
	return e, err
}

// look asks the kernel about the connection.
func (x *Session) look() (liveness.Evidence, error) {
	if x.kernel == nil {
		return liveness.Evidence{}, errors.ErrUnsupported
	}
	return x.kernel.Evidence()
}

// Swept implements liveness.Peer: it logs connections on a poor path, within
// a rate.
func (b beating) Swept(e liveness.Evidence) {
	if x := b.x; e.Poor() && x.srv.mayReport() {
		x.srv.d.Log.Info("connection on a poor path", append(x.attrs(), slog.Any("tcp", e))...)
	}
}

// attrs name a session that said hello, for the operator's log.
func (x *Session) attrs() []any {
	return []any{slog.String("session", x.id), slog.String("user", string(x.who.User)), slog.String("transport", x.transport),
		slog.String("network", x.network), slog.String("device", x.device)}
}

// Who found a connection dead first. A write that found it broken does not know
// why: the kernel may just have told the reader.
const (
	foundByLadder uint32 = 1 + iota
	foundByKernel
	foundBroken
)

// Dead implements liveness.Peer.
func (b beating) Dead(v liveness.Verdict) {
	x := b.x
	if !x.found.CompareAndSwap(0, foundByLadder) {
		return
	}
	x.srv.d.Log.Info("connection closed, its heartbeat went unanswered", append(x.attrs(), slog.String("evidence", string(v.Cause)),
		slog.Int64("age_ms", v.Age.Milliseconds()), slog.Uint64("ping", uint64(v.Ping)), slog.Int("pings", v.Pings), slog.Any("tcp", v.Evidence))...)
	x.close(wire.CloseNoPong, "no_pong")
	if v.Cause == liveness.CausePathDead || v.Cause == liveness.CausePathStalled {
		x.peer.Abort() // nobody hears a farewell, so nobody waits for its answer
	}
}

// KernelGaveUp ends the session because the kernel has ended the connection:
// nothing was acknowledged within TCP_USER_TIMEOUT, or KeepAlive's probes.
func (x *Session) KernelGaveUp() {
	if !x.found.CompareAndSwap(foundBroken, foundByKernel) && !x.Closed() {
		x.found.CompareAndSwap(0, foundByKernel)
	}
	x.close(wire.CloseNoPong, "no_pong")
}

// reportKernel counts and logs a connection that the kernel gave up. End calls
// it, so that it does not matter whether a read or a write was told.
func (x *Session) reportKernel() {
	x.srv.d.Wheel.KernelGaveUp()
	x.srv.d.Log.Info("connection closed, the kernel gave it up", append(x.attrs(), slog.String("evidence", string(liveness.CauseKernel)))...)
}

// Ping answers a WebSocket ping (RFC 6455 §5.5.2), within the rate commands
// have; what is above it is not answered.
func (x *Session) Ping(data []byte) {
	x.busy.Lock()
	defer x.busy.Unlock()
	if !x.mayPing() {
		return
	}
	x.alive()
	if x.rate.take(time.Now(), 1) > 0 {
		x.srv.stats.error(chat.CodeRateLimited)
		return
	}
	_ = x.peer.Control(wire.ControlPong(data))
}

// pingSeconds is how many seconds' worth of pings may come at once: what piled
// up on a path that stood still.
const pingSeconds = 10

// mayPing counts one more ping or pong, and closes the session of a client
// that floods it: each costs a little, and none of them is a command.
func (x *Session) mayPing() bool {
	if x.Closed() {
		return false
	}
	if x.pings.take(time.Now(), 1) == 0 {
		return true
	}
	x.close(wire.CloseAbuse, "too many pings")
	return false
}

// alive notes that something came from the client.
func (x *Session) alive() {
	if x.greeted.Load() {
		x.srv.d.Wheel.Active(&x.beat)
	}
}

// progress is a connection's socket that takes note of what writing tells of
// the other end. When a full socket takes more, it has acknowledged something:
// a ping waits behind what is being written, so a slow reader's pong may be
// long in coming while it lives. And the kernel tells only one, a reader or a
// writer, that it gave up.
type progress struct {
	room.Socket
	x *Session
}

// TryWrite implements room.Socket.
func (p progress) TryWrite(b []byte) (int, error) {
	n, err := p.Socket.TryWrite(b) // under the peer's lock, so that it is open
	if err != nil {
		p.failed(err, true)
	}
	return n, err
}

// failed notes a write's error. Who writes to a session that is closed has
// found nothing: it is broken because it was closed.
func (p progress) failed(err error, open bool) {
	switch {
	case errors.Is(err, syscall.ETIMEDOUT):
		p.x.found.CompareAndSwap(0, foundByKernel)
	case open && errors.Is(err, syscall.EPIPE):
		p.x.found.CompareAndSwap(0, foundBroken)
	}
}

// Write implements room.Socket.
func (p progress) Write(b []byte, timeout time.Duration) (int, error) {
	n, err := p.Socket.Write(b, timeout)
	if n > 0 {
		p.x.alive()
	}
	if err != nil {
		p.failed(err, !p.x.Closed())
	}
	return n, err
}

// Pong takes a WebSocket pong. Only one that brings back the payload of a
// ping of ours is an answer (RFC 6455 §5.5.3).
func (x *Session) Pong(payload []byte) {
	x.busy.Lock()
	defer x.busy.Unlock()
	if !x.mayPing() || !x.greeted.Load() {
		return
	}
	if len(payload) != 4 {
		x.alive()
		return
	}
	x.srv.d.Wheel.Heard(&x.beat, binary.BigEndian.Uint32(payload))
}

// pong takes the answer to a JSON ping; from the first on they are demanded.
// One without ts, as a person types it, answers the last ping.
func (x *Session) pong(_ context.Context, c *wire.Command) error {
	switch {
	case !x.greeted.Load():
	case c.TS == 0:
		x.srv.d.Wheel.HeardAny(&x.beat)
	case c.TS > 0 && c.TS <= math.MaxUint32:
		x.srv.d.Wheel.Heard(&x.beat, uint32(c.TS))
	}
	return nil
}
