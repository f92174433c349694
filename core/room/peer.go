package room

import (
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"parley/core/chat"
	"parley/core/wire"
)

// Socket is the connection below a Peer.
type Socket interface {
	// TryWrite writes what the connection takes without waiting; 0 and nil
	// mean that it is full. It is called under the peer's lock.
	TryWrite(p []byte) (int, error)
	// Write waits until the connection takes at least one byte, at most
	// timeout (os.ErrDeadlineExceeded), and returns how many it took. Only
	// one goroutine calls it at a time, and never beside TryWrite.
	Write(p []byte, timeout time.Duration) (int, error)
	// Shutdown ends the sending side so that what was written still arrives,
	// and lets the reading side end soon. It wakes a waiting Write.
	Shutdown()
	// Abort closes both sides at once.
	Abort()
}

// ErrClosed is returned by a Peer that was closed.
var ErrClosed = errors.New("room: connection closed")

// Peer is the sending side of one connection. Its methods may be called from
// any goroutine.
type Peer struct {
	hub   *Hub
	shard *shard
	sock  Socket
	form  wire.Form
	user  chat.UserID // set before the first join, see Name

	// Owned by the shard's goroutine.
	pass uint64
	owed []*Member

	mu      sync.Mutex
	tail    []byte // the rest of what was begun
	ctl     []byte // answers and control frames that wait for the tail
	held    []byte // answers held back, see Hold
	holding bool
	parked  bool // a drainer is at work; only it writes
	torn    bool // parked: it is writing, or the tail begins inside a frame
	closed  bool
	code    wire.CloseCode // why, when closed
	reason  string
	members []*Member
	turn    int        // where in members the drainer goes on
	waiting *sync.Cond // readers that wait for ctl to shrink; made when needed
}

// NewPeer returns the peer of a new connection. line selects
// newline-delimited JSON instead of WebSocket frames.
func (h *Hub) NewPeer(sock Socket, line bool) *Peer {
	i := int(h.nextID.Add(1)) % len(h.shards)
	p := &Peer{hub: h, shard: h.shards[i], sock: sock}
	if line {
		p.form = wire.FormLine
	}
	return p
}

// Line reports whether the peer speaks newline-delimited JSON.
func (p *Peer) Line() bool { return p.form == wire.FormLine }

// Deflate makes the peer's frames deflated ones. It is for a WebSocket whose
// client has agreed to it, before anything else is done with the peer.
func (p *Peer) Deflate() { p.form = wire.FormDeflate }

// Reply sends an answer to the connection. Only the connection's reader
// goroutine may call it: where answers pile up behind a full socket, it waits,
// and so the client's next command does.
func (p *Peer) Reply(f wire.Frame) error {
	b := f.Bytes(p.form)
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.parked && !p.closed && len(p.ctl)+len(b) > p.hub.cfg.ReplyBytes && len(p.ctl) > 0 {
		if p.waiting == nil {
			p.waiting = sync.NewCond(&p.mu)
		}
		p.waiting.Wait()
	}
	return p.replyLocked(b)
}

// Control sends a WebSocket control frame or another small message that must
// not wait, such as a ping: it is not held back, for what is held waits for the
// client's next command. It is dropped where the bound on waiting answers is
// reached.
func (p *Peer) Control(b []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.parked && len(p.ctl)+len(b) > p.hub.cfg.ReplyBytes {
		return nil
	}
	return p.sendLocked(b)
}

// Tell sends a small event that nobody asked for, as Control does a frame.
func (p *Peer) Tell(f wire.Frame) error { return p.Control(f.Bytes(p.form)) }

// replyLocked is sendLocked for what may be held back.
func (p *Peer) replyLocked(b []byte) error {
	if p.closed || p.parked || !p.holding || len(p.held)+len(b) > holdBytes {
		return p.sendLocked(b)
	}
	if p.held == nil {
		p.held = holds.Get().(*[holdBytes]byte)[:0]
	}
	p.held = append(p.held, b...)
	return nil
}

func (p *Peer) sendLocked(b []byte) error {
	switch {
	case p.closed:
		return ErrClosed
	case p.parked:
		p.ctl = append(p.ctl, b...)
		return nil
	}
	return p.writeLocked(b)
}

// holdBytes bounds answers held back.
const holdBytes = 2 << 10

var holds = sync.Pool{New: func() any { return new([holdBytes]byte) }}

// Hold holds answers back until Release, so that those to several commands
// that came together leave in one write. Whatever else is written takes them
// along, ahead of itself. Only the connection's reader may call it.
func (p *Peer) Hold() {
	p.mu.Lock()
	p.holding = true
	p.mu.Unlock()
}

// Release sends what was held back.
func (p *Peer) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holding = false
	if len(p.held) > 0 && !p.closed { // an error ends the peer, which is what its reader sees
		_ = p.writeLocked(nil)
	}
}

// withHeldLocked returns b behind what was held back.
func (p *Peer) withHeldLocked(b []byte) []byte {
	if len(p.held) == 0 {
		return b
	}
	b = append(p.held, b...)
	p.held = nil
	return b
}

// returnHold gives the buffer of withHeldLocked back once its bytes are no
// longer needed.
func returnHold(b []byte) {
	if cap(b) == holdBytes {
		holds.Put((*[holdBytes]byte)(b[:holdBytes]))
	}
}

// writeLocked writes b now and parks the peer if the socket does not take all
// of it. The caller has seen that the peer is neither parked nor closed.
func (p *Peer) writeLocked(b []byte) error {
	if len(p.held) > 0 {
		b = p.withHeldLocked(b)
		defer returnHold(b)
	}
	n, err := p.sock.TryWrite(b)
	p.hub.stats.Bytes.Add(uint64(n))
	if err != nil {
		p.abortLocked(wire.CloseInternal, "write: "+err.Error())
		return err
	}
	if n < len(b) {
		p.tail = append([]byte(nil), b[n:]...)
		p.torn = n > 0
		p.parkLocked()
	}
	return nil
}

// parkLocked hands the peer to a drainer.
func (p *Peer) parkLocked() {
	p.parked = true
	p.ctl = p.withHeldLocked(p.ctl)
	p.hub.stats.Parked.Add(1)
	if !p.hub.spawn(p.drain) {
		p.abortLocked(wire.CloseRestart, "shutting down")
	}
}

// admit registers a member after its joined reply.
func (p *Peer) admit(m *Member, joined wire.Frame) error {
	if err := p.Reply(joined); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	if p.members == nil {
		p.members = make([]*Member, 0, 1) // most have one room, and there are many of them
	}
	p.members = append(p.members, m)
	return nil
}

// Member returns the membership in the room, or nil. It looks through all of
// them, which is quicker than a map up to some dozens.
func (p *Peer) Member(id chat.RoomID) *Member {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.members {
		if m.room.id == id {
			return m
		}
	}
	return nil
}

// Waiting returns how many bytes a full socket has not taken yet: the rest of
// what was begun and the answers and control frames behind it.
func (p *Peer) Waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.tail) + len(p.ctl)
}

// Rooms returns in how many rooms the peer is a member.
func (p *Peer) Rooms() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.members)
}

func (p *Peer) forgetLocked(m *Member) {
	if i := slices.Index(p.members, m); i >= 0 {
		p.members = slices.Delete(p.members, i, i+1)
	}
}

// flush writes what the peer's members are owed, in one write. It runs on the
// shard's goroutine.
func (p *Peer) flush(s *shard) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.parked || p.closed {
		return
	}
	var out []byte
	behind, joint := false, false
	for _, m := range p.owed {
		if m.gone {
			continue
		}
		if len(out) >= batchBytes { // the drainer sees to the rest
			behind = true
			break
		}
		o := s.collect(m, p.form)
		m.clip(&o, p.form, &s.arena)
		behind = behind || o.behind || o.more
		m.take(&o)
		switch {
		case len(o.data) == 0:
		case out == nil:
			out = o.data
		case !joint: // several rooms: one write needs one buffer
			joint = true
			s.joint = append(append(s.joint[:0], out...), o.data...)
			out = s.joint
		default:
			s.joint = append(s.joint, o.data...)
			out = s.joint
		}
	}
	if len(out) > 0 {
		p.hub.stats.Writes.Add(1)
		if p.writeLocked(out) != nil {
			return
		}
	}
	if behind && !p.parked {
		p.parkLocked()
	}
}

// Close tells the client why and ends the connection. The first reason counts.
func (p *Peer) Close(code wire.CloseCode, reason string, retry time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	if p.parked && p.torn { // inside a frame nothing can be said
		p.abortLocked(code, reason)
		return
	}
	var last []byte
	if p.Line() {
		ev := wire.CloseEvent{Type: wire.Close, Code: int(code), Reason: reason, Reconnect: code.Reconnect()}
		if ev.Reconnect {
			ev.RetryAfterMS = retry.Milliseconds()
		}
		last = wire.Encode(ev).Line()
	} else {
		last = wire.ControlClose(code, reason)
	}
	// What the socket does not take is lost: the connection ends either way.
	_, _ = p.sock.TryWrite(p.withHeldLocked(last))
	p.endLocked(code, reason)
	p.sock.Shutdown()
}

// Abort cuts the connection at once, whatever it was told before.
func (p *Peer) Abort() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.abortLocked(wire.CloseRestart, "shutting down")
	p.sock.Abort()
}

func (p *Peer) abortLocked(code wire.CloseCode, reason string) {
	if p.closed {
		return
	}
	p.endLocked(code, reason)
	p.sock.Abort()
}

func (p *Peer) endLocked(code wire.CloseCode, reason string) {
	p.closed, p.code, p.reason = true, code, reason
	p.tail, p.ctl, p.held = nil, nil, nil
	if p.waiting != nil {
		p.waiting.Broadcast()
	}
}

// Closed returns why the peer was closed; ok is false while it is open.
func (p *Peer) Closed() (code wire.CloseCode, reason string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.code, p.reason, p.closed
}

// Detach ends all memberships, for a connection whose reader has ended, and
// returns the rooms they were in.
func (p *Peer) Detach() []*Room {
	p.mu.Lock()
	if !p.closed {
		p.endLocked(wire.CloseNormal, "connection ended")
	}
	members := p.members
	p.members = nil
	var rooms []*Room
	var ops []op
	for _, m := range members {
		if !m.gone {
			m.gone = true
			rooms = append(rooms, m.room)
			ops = append(ops, op{member: m})
		}
	}
	p.mu.Unlock()
	for _, o := range ops {
		p.shard.post(o)
	}
	return rooms
}

// closeSlow closes the peer as slow_consumer.
func (p *Peer) closeSlow(why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.hub.stats.SlowClosed.Add(1)
	p.hub.log.Info("connection closed as slow consumer", slog.String("why", why), slog.Int("rooms", len(p.members)))
	p.abortLocked(wire.CloseSlow, string(chat.CodeSlowConsumer))
}
