package load

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"time"
)

type state uint8

const (
	unborn    state = iota
	dialing         // connect(2) is under way
	shaking         // the TLS handshake is
	upgrading       // the HTTP request is sent
	greeting        // hello, and join for a member, are sent
	open
	gone
)

// conn is one connection.
type conn struct {
	fd    int
	state state
	waits bool  // EPOLLOUT is asked for
	room  int   // members: index into engine.rooms; publishers: -1
	pub   int   // publishers: their number
	began int64 // when it was dialled
	in    []byte
	out   []byte
	tls   *secured // nil: no TLS
	view  membership
	sends pending // publishers
}

// upgradeRequest asks for protocol v1 (RFC 6455 §4.1). The key may be any: the
// answer's Sec-WebSocket-Accept is for proxies, and there is none.
func (e *engine) upgradeRequest(dst []byte, server netip.AddrPort) []byte {
	return fmt.Appendf(dst, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: cGFybGV5IGJlbmNobWFyaw==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: parley.v1.json\r\n\r\n",
		e.spec.Path, server)
}

// greet says hello and, as a member, joins, without waiting in between.
func (e *engine) greet(i int, dst []byte) []byte {
	c := &e.conns[i]
	name := fmt.Sprintf("m%d", e.spec.First+i)
	switch {
	case c.room < 0:
		name = fmt.Sprintf("p%d", i-e.spec.Members)
	case e.spec.Stalls:
		name = fmt.Sprintf("s%d", e.spec.First+i)
	}
	hello := fmt.Appendf(nil, `{"type":"hello","id":"h","guest":"b%s-%s","device":"platform bench"}`, e.spec.Run, name)
	dst = e.command(dst, hello)
	if c.room >= 0 {
		dst = e.command(dst, fmt.Appendf(nil, `{"type":"join","id":"j","room":%q}`, e.rooms[c.room].name))
	}
	return dst
}

// command appends a command as the transport wants it.
func (e *engine) command(dst, command []byte) []byte {
	if e.spec.TCP {
		return append(append(dst, command...), '\n')
	}
	return appendFrame(dst, opText, command)
}

// frame handles one frame of the server.
func (e *engine) frame(i int, op byte, payload []byte, now int64) {
	c := &e.conns[i]
	switch op {
	case opText:
		e.event(i, payload, now)
	case opPing:
		e.stats.Pings++
		c.out = appendFrame(c.out, opPong, payload)
		e.flush(i)
	case opClose:
		why := "close without a code"
		if len(payload) >= 2 {
			why = "close " + strconv.Itoa(int(binary.BigEndian.Uint16(payload)))
		}
		e.end(c, why)
	case opPong:
	default:
		e.end(c, fmt.Sprintf("frame with opcode %d", op))
	}
}

// event handles one event of protocol v1.
func (e *engine) event(i int, event []byte, now int64) {
	c := &e.conns[i]
	if c.room >= 0 && c.state == open {
		if known, ok := e.rooms[c.room].known(c.view.next, event); ok {
			c.view.next++
			e.heard(c, known.stamp, known.place, now)
			return
		}
	}
	switch kindOf(event) {
	case "message":
		e.message(c, event, now)
	case "settings", "role", "ban":
		e.entry(c, event)
	case "ack":
		e.answered(i, event, now)
	case "error":
		e.refused(i, event, now)
	case "welcome":
		if c.room < 0 {
			e.opened(c, now)
		}
	case "joined":
		e.joined(c, event, now)
	case "reset":
		e.stats.Faults.Resets++
		c.view.next = 0
	case "ping": // over TCP, where there are no ping frames
		e.stats.Pings++
		c.out = e.command(c.out, pongOf(event))
		e.flush(i)
	case "close": // over TCP, likewise
		code, _ := numberAfter(event, keyCode)
		e.end(c, "close "+strconv.FormatUint(code, 10))
	}
}

// message handles a member's delivery that no other member has had yet.
func (e *engine) message(c *conn, event []byte, now int64) {
	if c.room < 0 {
		return
	}
	m, err := parseMessage(event)
	log := &e.rooms[c.room]
	if err != nil || string(m.room) != log.name {
		e.stats.Faults.Foreign++
		e.entry(c, event)
		return
	}
	m.place = e.plan.flights.find(c.room, m.stamp)
	if log.learn(m, event) {
		e.stats.Faults.Differ++
	}
	c.view.seq(m.seq, &e.stats.Faults)
	e.heard(c, m.stamp, m.place, now)
}

// heard takes a message that a member has read. A publisher whose loop waits for
// it goes on once this was the last member.
func (e *engine) heard(c *conn, m stamp, place *flight, now int64) {
	first := c.view.heard(m, &e.stats.Faults)
	e.delivered(m.at, now)
	if first && place != nil && place.read() {
		e.sendNext(m.pub)
	}
}

// entry counts an entry of the log that is no message of this run.
func (e *engine) entry(c *conn, event []byte) {
	var in struct {
		Seq uint64 `json:"seq"`
	}
	if err := json.Unmarshal(event, &in); err != nil || in.Seq == 0 {
		e.stats.Faults.Foreign++
		return
	}
	c.view.seq(in.Seq, &e.stats.Faults)
}

// delivered counts a delivery sent at and received now.
func (e *engine) delivered(at, now int64) {
	e.got++
	if e.plan.measuring(now) {
		e.stats.Delivered++
	}
	if e.plan.measuring(at) {
		e.stats.Delivery.Record(now - at)
	}
	e.seconds.record((now-e.plan.From)/1e9, now-at)
}

func (e *engine) joined(c *conn, event []byte, now int64) {
	var in struct {
		Seq uint64 `json:"seq"`
	}
	if err := json.Unmarshal(event, &in); err != nil {
		e.end(c, "joined cannot be read")
		return
	}
	c.view.next = in.Seq + 1
	e.opened(c, now)
}

func (e *engine) opened(c *conn, now int64) {
	if c.state != greeting {
		return
	}
	c.state = open
	e.opening--
	e.stats.Open++
	e.stats.Connect.Record(now - c.began)
	if e.spec.Stalls {
		if err := e.poll.forget(c.fd); err != nil {
			e.end(c, err.Error())
		}
	}
}

// refused handles an error event: of the greeting, or of a message.
func (e *engine) refused(i int, event []byte, now int64) {
	c := &e.conns[i]
	var in struct {
		ID, Code string
		Retry    int64 `json:"retry_after_ms"`
	}
	if err := json.Unmarshal(event, &in); err != nil {
		in.Code = "unreadable error"
	}
	if c.state == greeting && in.Retry > 0 && e.comesBack(i, time.Duration(min(in.Retry, math.MaxInt32))*time.Millisecond, now) {
		return
	}
	e.stats.Errors[in.Code]++
	if c.state == greeting {
		e.end(c, "refused: "+in.Code)
		return
	}
	if c.room < 0 {
		e.plan.answer(c, in.ID, false)
	}
}
