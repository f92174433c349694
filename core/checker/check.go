package checker

import (
	"cmp"
	"slices"

	"parley/core/chat"
	"parley/core/wire"
)

// History is a room's log as read when the run was over.
type History struct {
	Room    chat.RoomID
	Epoch   string
	Entries []wire.EntryEvent // rising seq, as History answers give them
}

// Run is everything one run left behind.
type Run struct {
	Logs      []*Log
	Histories []History // of every room that was used
	// Trimmed says that retention may have dropped the oldest entries, so
	// nothing below the first one of the history is missed.
	Trimmed bool
	// Losses is how often the store may have forgotten the newest entries
	// (Redis that came back empty, a replica promoted without its tail). Each
	// time a room may begin one new generation, which is an epoch; what the
	// earlier ones lost is counted instead of missed, if everyone concerned was
	// told. 0: nothing may be lost.
	Losses int
	// Keep is how many violations of each fault are reported in words; all
	// are counted. 0 = 5.
	Keep int
}

// Check judges a run.
func Check(run Run) *Report {
	c := &checker{
		run: run,
		judge: judge{
			report: Report{Clients: len(run.Logs), Found: make(map[Fault]int)},
			keep:   cmp.Or(run.Keep, 5),
			known:  make(map[Violation]struct{}),
			kept:   make(map[Fault]int),
		},
		rooms: make(map[chat.RoomID]*room),
	}
	for i := range run.Histories {
		c.history(&run.Histories[i])
	}
	for _, l := range run.Logs {
		c.log(l)
	}
	for _, r := range c.rooms {
		c.close(r)
	}
	c.report.Rooms = len(c.rooms)
	return &c.report
}

type checker struct {
	judge
	run   Run
	rooms map[chat.RoomID]*room
}

// place is where an entry stands.
type place struct {
	epoch string
	seq   uint64
}

// sighting is the first account of a place. Empty fields are unknown.
type sighting struct {
	id     chat.MessageID
	nonce  string
	from   chat.UserID
	client string
}

// author names a message by who sent it and its nonce.
type author struct {
	user  chat.UserID
	nonce string
}

// posting is an author's message in one epoch.
type posting struct {
	epoch string
	author
}

// message is what became of one send, over all its attempts.
type message struct {
	client, clock   string
	sent            int64 // first write
	acked           int64 // first ack; -1 = none
	ack             Record
	refused         bool
	refusedAfterAck bool
	unknown         bool
	held            chat.MessageID // the review's id, where it was held
}

// room is what all accounts together say of one room.
type room struct {
	id       chat.RoomID
	final    *History
	held     map[uint64]chat.MessageID // the final history
	heldID   map[chat.MessageID]uint64
	at       map[place]sighting
	seqOf    map[chat.MessageID]place
	posted   map[posting]uint64
	messages map[author]*message
	settled  []settled
	epochs   map[string]bool            // all that anybody has heard of
	followed map[string]map[string]bool // by epoch, those that a client was taken to from there
}

// settled is a client's word that it stood at the end.
type settled struct {
	client string
	place
}

func (c *checker) room(id chat.RoomID) *room {
	r := c.rooms[id]
	if r == nil {
		r = &room{
			id: id, held: make(map[uint64]chat.MessageID), heldID: make(map[chat.MessageID]uint64),
			at: make(map[place]sighting), seqOf: make(map[chat.MessageID]place),
			posted: make(map[posting]uint64), messages: make(map[author]*message),
			epochs: make(map[string]bool), followed: make(map[string]map[string]bool),
		}
		c.rooms[id] = r
	}
	return r
}

// history takes the final log of a room as the reference for all others.
func (c *checker) history(h *History) {
	r := c.room(h.Room)
	r.final = h
	c.report.Entries += len(h.Entries)
	var last uint64
	for i := range h.Entries {
		e := &h.Entries[i]
		if _, twice := r.held[e.Seq]; twice {
			c.find(Violation{Fault: Duplicate, Client: "history", Room: h.Room, Epoch: h.Epoch, Seq: e.Seq},
				"the history of room %s holds seq %d twice", h.Room, e.Seq)
		} else if e.Seq < last {
			c.find(Violation{Fault: Reorder, Client: "history", Room: h.Room, Epoch: h.Epoch, Seq: e.Seq},
				"the history of room %s has seq %d after seq %d", h.Room, e.Seq, last)
		}
		last = max(last, e.Seq)
		c.see(r, place{h.Epoch, e.Seq}, sighting{id: e.ID, nonce: e.Nonce, from: e.From, client: "history"})
		r.held[e.Seq] = e.ID
		r.heldID[e.ID] = e.Seq
	}
}

// see compares an account of one place with the first one.
func (c *checker) see(r *room, p place, s sighting) {
	first, known := r.at[p]
	switch {
	case !known:
		r.at[p] = s
	case first.id != s.id:
		c.find(Violation{Fault: Diverged, Client: s.client, Room: r.id, Epoch: p.epoch, Seq: p.seq, Nonce: s.nonce},
			"%s has id %s at seq %d of room %s (epoch %s, nonce %q), %s has id %s there", s.client, s.id, p.seq, r.id, p.epoch, s.nonce, first.client, first.id)
	case differ(first.nonce, s.nonce), differ(string(first.from), string(s.from)):
		c.find(Violation{Fault: Diverged, Client: s.client, Room: r.id, Epoch: p.epoch, Seq: p.seq, Nonce: s.nonce},
			"%s has seq %d of room %s (epoch %s) from %q with nonce %q, %s has it from %q with nonce %q", s.client, p.seq, r.id, p.epoch, s.from, s.nonce, first.client, first.from, first.nonce)
	}
	if was, known := r.seqOf[s.id]; !known {
		r.seqOf[s.id] = p
	} else if was.seq != p.seq {
		c.find(Violation{Fault: Duplicate, Room: r.id, Epoch: p.epoch, Seq: p.seq, Nonce: s.nonce},
			"id %s stands at seq %d and at seq %d of room %s (epoch %s, nonce %q)", s.id, was.seq, p.seq, r.id, p.epoch, s.nonce)
	}
	if s.nonce == "" || s.from == "" {
		return
	}
	who := posting{p.epoch, author{s.from, s.nonce}}
	if was, known := r.posted[who]; !known {
		r.posted[who] = p.seq
	} else if was != p.seq {
		c.find(Violation{Fault: PostedTwice, Room: r.id, Epoch: p.epoch, Seq: max(was, p.seq), Nonce: s.nonce},
			"nonce %q of %s was posted at seq %d and at seq %d of room %s (epoch %s)", s.nonce, s.from, was, p.seq, r.id, p.epoch)
	}
}

func differ(a, b string) bool { return a != "" && b != "" && a != b }

// close judges a room after every account of it has been heard.
func (c *checker) close(r *room) {
	c.messages(r)
	if r.final == nil {
		if len(r.at) > 0 {
			c.find(Violation{Fault: Incomplete, Room: r.id}, "there is no final history of room %s to judge by", r.id)
		}
		return
	}
	first, top := c.holes(r)
	for who, m := range r.messages {
		if m.acked >= 0 {
			p, s := place{m.ack.Epoch, m.ack.Seq}, sighting{m.ack.ID, who.nonce, who.user, m.client}
			c.kept(r, p, s, "had the ack of", first)
		}
	}
	for p, s := range r.at {
		c.kept(r, p, s, "got", first)
	}
	c.generations(r)
	for _, s := range r.settled {
		c.stands(r, s, top)
	}
}

// stands checks a client that waited at the end.
func (c *checker) stands(r *room, s settled, top uint64) {
	switch {
	case s.epoch != r.final.Epoch:
		c.find(Violation{Fault: SilentEpoch, Client: s.client, Room: r.id, Epoch: s.epoch, Seq: s.seq},
			"%s stands at seq %d of epoch %s in room %s, whose epoch is %s, and was never told", s.client, s.seq, s.epoch, r.id, r.final.Epoch)
	case s.seq < top:
		c.find(Violation{Fault: Gap, Client: s.client, Room: r.id, Epoch: s.epoch, Seq: s.seq + 1},
			"%s waited in room %s and got nothing after seq %d, the top is %d (epoch %s)", s.client, r.id, s.seq, top, s.epoch)
	}
}

// holes finds what the history lacks that nobody ever saw; what somebody saw
// is lost instead, which kept reports.
func (c *checker) holes(r *room) (first, top uint64) {
	seqs := make([]uint64, 0, len(r.held))
	for s := range r.held {
		seqs = append(seqs, s)
	}
	slices.Sort(seqs)
	if len(seqs) == 0 {
		return 1, 0
	}
	first, top = seqs[0], seqs[len(seqs)-1]
	next := uint64(1)
	if c.run.Trimmed {
		next = first
	}
	for _, s := range seqs {
		for lo := next; lo < s; lo++ {
			if s-lo > maxHoleScan {
				lo = s - 1 // nobody can have seen all of that
			} else if _, seen := r.at[place{r.final.Epoch, lo}]; seen {
				continue
			}
			c.find(Violation{Fault: Gap, Client: "history", Room: r.id, Epoch: r.final.Epoch, Seq: lo},
				"the history of room %s has no seq %d, below its seq %d (epoch %s)", r.id, lo, s, r.final.Epoch)
			break
		}
		next = s + 1
	}
	return first, top
}

// maxHoleScan bounds the work one absurd seq can cause.
const maxHoleScan = 1 << 20

// kept checks that an entry somebody saw or was promised is in the history.
func (c *checker) kept(r *room, p place, s sighting, verb string, first uint64) {
	old := p.epoch != r.final.Epoch
	if r.held[p.seq] == s.id || (c.run.Trimmed && p.seq < first) || (c.run.Losses > 0 && old) {
		return // what an earlier generation lost is judged by generations
	}
	if _, elsewhere := r.heldID[s.id]; elsewhere && !old {
		return // one id at two seqs: found by see
	}
	c.find(Violation{Fault: Lost, Room: r.id, Epoch: p.epoch, Seq: p.seq, Nonce: s.nonce},
		"%s %s id %s at seq %d of room %s (epoch %s, nonce %q), the history does not hold it", s.client, verb, s.id, p.seq, r.id, p.epoch, s.nonce)
}

// messages judges how sends ended and whether order kept up with real time.
func (c *checker) messages(r *room) {
	type span struct {
		client, nonce string
		seq           uint64
		sent, acked   int64
	}
	spans := make(map[[2]string][]span) // by epoch and clock
	for who, m := range r.messages {
		c.ended(r, who, m)
		if m.acked >= 0 {
			key := [2]string{m.ack.Epoch, m.clock}
			spans[key] = append(spans[key], span{m.client, who.nonce, m.ack.Seq, m.sent, m.acked})
		}
	}
	first := make(map[[2]string]span) // that was acknowledged
	for key, ss := range spans {
		first[key] = slices.MinFunc(ss, func(a, b span) int { return cmp.Compare(a.acked, b.acked) })
	}
	for key, ss := range spans {
		for later := range r.later(key[0]) {
			a, known := first[[2]string{later, key[1]}]
			for _, b := range ss {
				if known && a.acked < b.sent {
					c.find(Violation{Fault: Inverted, Client: b.client, Room: r.id, Epoch: key[0], Seq: b.seq, Nonce: b.nonce},
						"%s sent nonce %q to room %s after %s had the ack of nonce %q in epoch %s, yet it got seq %d of epoch %s, which is older", b.client, b.nonce, r.id, a.client, a.nonce, later, b.seq, key[0])
				}
			}
		}
		slices.SortFunc(ss, func(a, b span) int { return cmp.Compare(a.seq, b.seq) })
		// Going down from the top: no later entry may have been acknowledged
		// before this one was sent.
		for i, early := len(ss)-2, len(ss)-1; i >= 0; i-- {
			if a, b := ss[early], ss[i]; a.acked < b.sent {
				c.find(Violation{Fault: Inverted, Client: b.client, Room: r.id, Epoch: key[0], Seq: b.seq, Nonce: b.nonce},
					"%s sent nonce %q to room %s after %s had the ack of nonce %q, yet it got seq %d below %d (epoch %s)", b.client, b.nonce, r.id, a.client, a.nonce, b.seq, a.seq, key[0])
			}
			if ss[i].acked < ss[early].acked {
				early = i
			}
		}
	}
}

func (c *checker) ended(r *room, who author, m *message) {
	c.report.Sends++
	switch {
	case m.acked >= 0:
		c.report.Acked++
	case m.refused:
		c.report.Refused++
	case m.held != "":
		c.report.Held++
	case m.unknown:
		c.report.Unknown++
	default:
		c.find(Violation{Fault: NoAnswer, Client: m.client, Room: r.id, Nonce: who.nonce},
			"%s sent nonce %q to room %s and neither got an answer nor gave up", m.client, who.nonce, r.id)
	}
	if m.refusedAfterAck {
		c.find(Violation{Fault: RefusedPosted, Client: m.client, Room: r.id, Seq: m.ack.Seq, Nonce: who.nonce},
			"%s was refused nonce %q in room %s after it had been acknowledged at seq %d", m.client, who.nonce, r.id, m.ack.Seq)
	}
	if m.held != "" && m.acked < 0 {
		for p, seq := range r.posted {
			if at := r.at[place{p.epoch, seq}]; p.author == who && at.id != m.held {
				c.find(Violation{Fault: AnswerChanged, Client: m.client, Room: r.id, Epoch: p.epoch, Seq: seq, Nonce: who.nonce},
					"%s had nonce %q of room %s held as %s, yet it stands at seq %d with id %s (epoch %s)", m.client, who.nonce, r.id, m.held, seq, at.id, p.epoch)
			}
		}
	}
	if !m.refused || m.acked >= 0 {
		return
	}
	for p, seq := range r.posted {
		if p.author == who {
			c.find(Violation{Fault: RefusedPosted, Client: m.client, Room: r.id, Epoch: p.epoch, Seq: seq, Nonce: who.nonce},
				"%s was refused nonce %q in room %s, yet it stands at seq %d (epoch %s)", m.client, who.nonce, r.id, seq, p.epoch)
		}
	}
}
