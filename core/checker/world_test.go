package checker

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"parley/core/chat"
	"parley/core/wire"
)

// world plays a correct server and clients that talk, disconnect, resend and
// resume, in random order, and leaves the logs a real run would leave.
type world struct {
	*rand.Rand
	now     int64
	rooms   []*worldRoom
	clients []*worldClient
	losses  int
}

type worldRoom struct {
	id      chat.RoomID
	epoch   string
	entries []wire.EntryEvent
}

type worldClient struct {
	log    *Log
	user   chat.UserID
	joined []bool   // by room
	epoch  []string // the client's own position
	seq    []uint64
	known  []bool
	ops    []*op
}

type op struct {
	room     int
	nonce    string
	appended *Record // the ack it deserves
	refuse   bool
	waiting  bool // written on the present connection, not answered
}

// newWorld runs for some hundred steps and ends with everyone settled.
func newWorld(seed uint64, losses bool) (*world, Run) {
	w := &world{Rand: rand.New(rand.NewPCG(seed, 1))}
	for i := range 1 + w.IntN(2) {
		w.rooms = append(w.rooms, &worldRoom{id: chat.RoomID(fmt.Sprintf("room%d", i)), epoch: "e0"})
	}
	n := len(w.rooms)
	for i := range 2 + w.IntN(3) {
		user := chat.UserID(fmt.Sprintf("user%d", i))
		c := &worldClient{log: NewLog("client " + string(user)), user: user,
			joined: make([]bool, n), epoch: make([]string, n), seq: make([]uint64, n), known: make([]bool, n)}
		w.clients = append(w.clients, c)
		w.connect(c)
	}
	for range 400 {
		w.step(losses)
	}
	w.finish()
	run := Run{Losses: w.losses}
	for _, c := range w.clients {
		run.Logs = append(run.Logs, c.log)
	}
	for _, r := range w.rooms {
		run.Histories = append(run.Histories, History{Room: r.id, Epoch: r.epoch, Entries: r.entries})
	}
	return w, run
}

func (w *world) write(c *worldClient, r Record) {
	w.now++
	r.At = w.now
	c.log.addLocked(r)
}

func (w *world) step(losses bool) {
	c := w.clients[w.IntN(len(w.clients))]
	room := w.IntN(len(w.rooms))
	switch p := w.IntN(100); {
	case p < 20:
		o := &op{room: room, nonce: fmt.Sprintf("n%d", w.now), refuse: w.IntN(12) == 0, waiting: true}
		c.ops = append(c.ops, o)
		w.write(c, Record{Kind: Send, Room: w.rooms[room].id, Nonce: o.nonce})
	case p < 45:
		w.serve(c)
	case p < 92:
		w.deliver(c, room)
	case p < 96:
		w.connect(c)
	case p < 97 && losses:
		w.lose(room)
	case p < 98:
		if c.joined[room] {
			w.write(c, Record{Kind: Left, Room: w.rooms[room].id})
			c.joined[room], c.known[room] = false, false
		}
	default:
		w.join(c, room)
	}
}

// lose begins another generation without the newest entries of the one before.
func (w *world) lose(i int) {
	w.losses++
	r := w.rooms[i]
	r.epoch += "x"
	kept := len(r.entries) - w.IntN(min(6, len(r.entries)+1))
	r.entries = slices.Clone(r.entries[:kept])
	for _, c := range w.clients {
		for _, o := range c.ops {
			if o.room == i && o.appended != nil && o.appended.Seq > uint64(kept) {
				o.appended = nil // gone, so the resend posts it
			}
		}
	}
}

// serve carries out one command of c and, if it still waits, answers it.
func (w *world) serve(c *worldClient) {
	if len(c.ops) == 0 {
		return
	}
	i := w.IntN(len(c.ops))
	o := c.ops[i]
	r := w.rooms[o.room]
	repeat := o.appended != nil
	if !repeat && !o.refuse {
		e := wire.EntryEvent{Type: "message", Room: r.id, Seq: uint64(len(r.entries)) + 1,
			ID: chat.MessageID(fmt.Sprintf("id-%d-%d", o.room, w.now)), From: c.user, Nonce: o.nonce}
		w.now++
		r.entries = append(r.entries, e)
		o.appended = &Record{Kind: Ack, Room: r.id, Nonce: o.nonce, Epoch: r.epoch, Seq: e.Seq, ID: e.ID}
	}
	if !o.waiting || (!repeat && w.IntN(2) == 0) {
		return // answered later, if the connection lasts
	}
	c.ops = slices.Delete(c.ops, i, i+1)
	if o.refuse {
		w.write(c, Record{Kind: Refused, Room: r.id, Nonce: o.nonce})
		return
	}
	ack := *o.appended
	ack.Repeat = repeat
	w.write(c, ack)
}

// connect ends c's connection and begins another.
func (w *world) connect(c *worldClient) {
	w.write(c, Record{Kind: Begin, From: c.user})
	for i := range w.rooms {
		c.joined[i] = false
	}
	for i := range w.rooms {
		w.join(c, i)
	}
	c.ops = slices.DeleteFunc(c.ops, func(o *op) bool {
		if w.IntN(6) == 0 { // given up
			w.write(c, Record{Kind: Unknown, Room: w.rooms[o.room].id, Nonce: o.nonce})
			return true
		}
		w.write(c, Record{Kind: Send, Room: w.rooms[o.room].id, Nonce: o.nonce})
		o.waiting = true
		return false
	})
}

func (w *world) join(c *worldClient, i int) {
	r := w.rooms[i]
	top := uint64(len(r.entries))
	ok := c.known[i] && c.epoch[i] == r.epoch && w.IntN(8) > 0
	w.write(c, Record{Kind: Joined, Room: r.id, Epoch: r.epoch, Seq: top, Recovered: ok})
	c.joined[i] = true
	if !ok {
		c.epoch[i], c.seq[i], c.known[i] = r.epoch, top, true
	}
}

// deliver gives c the next entry, or the reset it needs first.
func (w *world) deliver(c *worldClient, i int) bool {
	r := w.rooms[i]
	top := uint64(len(r.entries))
	switch {
	case !c.joined[i]:
		return false
	case c.epoch[i] != r.epoch:
		w.write(c, Record{Kind: Reset, Room: r.id, Epoch: r.epoch, Seq: top})
		c.epoch[i], c.seq[i] = r.epoch, top
		return true
	case c.seq[i] == top:
		return false
	}
	e := r.entries[c.seq[i]]
	w.write(c, Record{Kind: Entry, Room: r.id, Seq: e.Seq, ID: e.ID, From: e.From, Nonce: e.Nonce})
	c.seq[i]++
	return true
}

func (w *world) finish() {
	for _, c := range w.clients {
		for len(c.ops) > 0 {
			w.serve(c)
		}
	}
	for _, c := range w.clients {
		for i, r := range w.rooms {
			if !c.joined[i] {
				w.join(c, i)
			}
			for w.deliver(c, i) {
			}
			w.write(c, Record{Kind: Settled, Room: r.id})
		}
	}
}
