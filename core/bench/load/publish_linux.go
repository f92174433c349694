package load

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
)

// plan is the traffic of a process's publishers.
type plan struct {
	Traffic
	on       bool
	told     bool // the controller knows what was acknowledged
	pubs     int
	rooms    int
	index    int        // open loop: messages sent so far
	inFlight int        // unanswered, of all publishers
	sent     [][]uint64 // by room and publisher
	acked    [][]uint64
	turn     []int    // closed loop: the next room of each publisher
	flights  *flights // nil: no loop closed by arrival
	text     []byte
	command  []byte
}

func newPlan(spec Spec) plan {
	p := plan{pubs: spec.Publishers, rooms: spec.Rooms, turn: make([]int, spec.Publishers)}
	for i := range p.turn {
		p.turn[i] = i % max(spec.Rooms, 1)
	}
	if spec.Publishers > 0 {
		p.sent, p.acked = matrix(spec.Rooms, spec.Publishers), matrix(spec.Rooms, spec.Publishers)
	}
	return p
}

func matrix(rows, columns int) [][]uint64 {
	all := make([]uint64, rows*columns)
	m := make([][]uint64, rows)
	for i := range m {
		m[i] = all[i*columns : (i+1)*columns]
	}
	return m
}

// measuring reports whether a time is within the measured part.
func (p *plan) measuring(t int64) bool { return p.on && t >= p.Measure && t < p.Until }

// sending is a message that was not answered yet.
type sending struct {
	id   uint64
	room int
	at   int64
}

// pending is a publisher's unanswered messages, oldest first: the server
// answers in the order of the commands.
type pending struct {
	queue []sending
	ids   uint64
}

func (p *pending) push(s sending) { p.queue = append(p.queue, s) }

func (p *pending) pop() { p.queue = p.queue[:copy(p.queue, p.queue[1:])] }

// traffic takes the order to send.
func (e *engine) traffic(t Traffic) error {
	if err := t.check(); err != nil {
		return err
	}
	e.plan.Traffic, e.plan.on = t, true
	if e.spec.Publishers == 0 {
		e.plan.told = true
		return nil
	}
	if e.spec.ByArrival && t.Rate == 0 {
		members := make([]int, e.spec.Rooms)
		for i := range e.spec.Members {
			members[e.conns[i].room]++
		}
		e.plan.flights = newFlights(e.spec.Publishers, t.InFlight, members)
	}
	return e.timer.set(t.From)
}

// publish sends what is due, and sets the timer for what is next.
func (e *engine) publish() error {
	p := &e.plan
	now := e.clock.now()
	if !p.on || p.told || now < p.From {
		return nil
	}
	if p.Rate == 0 {
		if p.index == 0 {
			p.index = 1
			for range p.InFlight {
				for pub := range p.pubs {
					e.sendNext(pub)
				}
			}
		}
		return nil
	}
	first := p.index
	for {
		due := p.From + int64(float64(p.index)*1e9/p.Rate)
		if due >= p.Until {
			break
		}
		if due > now {
			if err := e.timer.set(due); err != nil {
				return err
			}
			break
		}
		if p.measuring(due) {
			e.stats.Behind.Record(now - due)
		}
		e.send(p.index%p.pubs, p.index%p.rooms)
		p.index++
	}
	for pub := range min(p.index-first, p.pubs) {
		e.flush(e.spec.Members + (first+pub)%p.pubs)
	}
	return nil
}

// sendNext sends a closed loop's next message of one publisher.
func (e *engine) sendNext(pub int) {
	p := &e.plan
	if e.clock.now() >= p.Until {
		return
	}
	room := p.turn[pub]
	p.turn[pub] = (room + 1) % p.rooms
	e.send(pub, room)
	e.flush(e.spec.Members + pub)
}

// send puts one message into a publisher's buffer.
func (e *engine) send(pub, room int) {
	p, c := &e.plan, &e.conns[e.spec.Members+pub]
	if c.state != open {
		return
	}
	now := e.clock.now()
	p.sent[room][pub]++
	c.sends.ids++
	p.text = appendText(p.text[:0], stamp{pub: pub, n: p.sent[room][pub], at: now}, e.spec.TextBytes)
	p.command = fmt.Appendf(p.command[:0], `{"type":"send","id":"%d","room":"%s","nonce":"%s-%d-%d","text":"%s"}`,
		c.sends.ids, e.spec.roomName(room), e.spec.Run, pub, c.sends.ids, p.text)
	c.out = e.command(c.out, p.command)
	c.sends.push(sending{id: c.sends.ids, room: room, at: now})
	p.inFlight++
	if p.flights != nil {
		p.flights.begin(pub, room, p.sent[room][pub])
	}
	if p.measuring(now) {
		e.stats.Sent++
	}
}

var redacted = []byte(`"outcome":"redacted"`)

// answered handles an ack.
func (e *engine) answered(i int, event []byte, now int64) {
	c := &e.conns[i]
	id, ok := textAfter(event, keyID)
	if !ok || c.room >= 0 {
		return
	}
	if len(c.sends.queue) > 0 {
		if at := c.sends.queue[0].at; e.plan.measuring(at) {
			e.stats.Ack.Record(now - at)
		}
	}
	if bytes.Contains(event, redacted) {
		e.stats.Redacted++
	}
	e.plan.answer(c, string(id), true)
	if e.plan.on && e.plan.Rate == 0 && !e.spec.ByArrival {
		e.sendNext(i - e.spec.Members)
	}
}

// answer takes the oldest pending message off. An answer to another one means
// that the order was not kept, which leaves messages pending for good.
func (p *plan) answer(c *conn, id string, ok bool) {
	if len(c.sends.queue) == 0 {
		return
	}
	head := c.sends.queue[0]
	if strconv.FormatUint(head.id, 10) != id {
		return
	}
	c.sends.pop()
	p.inFlight--
	if ok {
		p.acked[head.room][c.pub]++
	}
}

// sentAll reports once that sending is over and everything answered, or that
// nothing has come for a while.
func (e *engine) sentAll(patience time.Duration) bool {
	p := &e.plan
	now := e.clock.now()
	if !p.on || p.told || now < p.Until || p.inFlight > 0 && now-max(e.news, p.Until) < int64(patience) {
		return false
	}
	p.told = true
	return true
}
