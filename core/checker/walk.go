package checker

import (
	"cmp"

	"parley/core/chat"
)

// segment is what a client got of one room between joins and resets.
type segment struct {
	open    bool // joined on the present connection
	known   bool // top is meaningful
	epoch   string
	top     uint64          // the highest seq so far, or the position it began at
	missing []span          // skipped on the way, rising
	ended   map[string]bool // epochs that this client has left behind
}

// span is a run of seqs, both ends included.
type span struct{ lo, hi uint64 }

// walker goes through one log.
type walker struct {
	*checker
	log  *Log
	user chat.UserID
	// by room
	segments map[chat.RoomID]*segment
	// by id, of this client's own messages: the epoch the ack named and the
	// one of the segment they arrived in
	promised, arrived map[chat.MessageID]string
}

func (c *checker) log(l *Log) {
	w := &walker{
		checker: c, log: l, user: chat.UserID("?" + l.Client), // until it is welcomed
		segments: make(map[chat.RoomID]*segment),
		promised: make(map[chat.MessageID]string),
		arrived:  make(map[chat.MessageID]string),
	}
	l.mu.Lock()
	records, err := l.records, l.err
	l.mu.Unlock()
	if err != nil {
		c.find(Violation{Fault: Incomplete, Client: l.Client}, "the log of %s is not whole: %v", l.Client, err)
	}
	for i := range records {
		w.record(&records[i])
	}
	for room, s := range w.segments {
		w.end(room, s)
	}
}

func (w *walker) segment(room chat.RoomID) *segment {
	s := w.segments[room]
	if s == nil {
		s = new(segment)
		w.segments[room] = s
	}
	return s
}

func (w *walker) record(r *Record) {
	switch r.Kind {
	case Begin:
		w.user = r.From
		for room, s := range w.segments {
			w.end(room, s)
		}
	case Send, Ack, Refused, Unknown, Held:
		w.message(r)
	case Joined:
		w.joined(r)
	case Reset:
		w.report.Resets++
		s := w.segment(r.Room)
		w.end(r.Room, s)
		w.begin(r, s)
	case Left:
		w.end(r.Room, w.segment(r.Room))
		delete(w.segments, r.Room)
	case Entry:
		w.entry(r)
	case Settled:
		s := w.segment(r.Room)
		room := w.room(r.Room)
		room.settled = append(room.settled, settled{w.log.Client, place{s.epoch, s.top}})
	}
}

// joined begins a segment: a recovered one goes on from the client's own
// position, any other from the one the server names.
func (w *walker) joined(r *Record) {
	w.report.Joins++
	s := w.segment(r.Room)
	w.end(r.Room, s)
	if !r.Recovered {
		w.begin(r, s)
		return
	}
	w.report.Recovered++
	w.room(r.Room).epochs[r.Epoch] = true
	if s.known && s.epoch != r.Epoch {
		w.find(Violation{Fault: SilentEpoch, Client: w.log.Client, Room: r.Room, Epoch: r.Epoch, Seq: s.top},
			"%s resumed room %s from seq %d of epoch %s and was told that it goes on, in epoch %s", w.log.Client, r.Room, s.top, s.epoch, r.Epoch)
	}
	s.open, s.epoch = true, r.Epoch
}

// begin opens a segment at the position that the server named.
func (w *walker) begin(r *Record, s *segment) {
	w.room(r.Room).epochs[r.Epoch] = true
	if s.known && s.epoch != r.Epoch {
		w.report.Announced++
		if s.ended == nil {
			s.ended = make(map[string]bool)
		}
		s.ended[s.epoch] = true
		if s.ended[r.Epoch] {
			w.find(Violation{Fault: Splintered, Client: w.log.Client, Room: r.Room, Epoch: r.Epoch, Seq: r.Seq},
				"%s was taken from epoch %s of room %s back to epoch %s, which had ended for it", w.log.Client, s.epoch, r.Room, r.Epoch)
		} else {
			w.room(r.Room).follow(s.epoch, r.Epoch)
		}
	}
	*s = segment{open: true, known: true, epoch: r.Epoch, top: r.Seq, ended: s.ended}
}

func (w *walker) entry(r *Record) {
	w.report.Delivered++
	s := w.segment(r.Room)
	v := Violation{Client: w.log.Client, Room: r.Room, Epoch: s.epoch, Seq: r.Seq, Nonce: r.Nonce}
	if !s.open {
		v.Fault = Stray
		w.find(v, "%s got seq %d of room %s without having joined it", w.log.Client, r.Seq, r.Room)
		return
	}
	switch {
	case !s.known || r.Seq == s.top+1:
		s.top, s.known = r.Seq, true
	case r.Seq > s.top:
		s.missing = append(s.missing, span{s.top + 1, r.Seq - 1})
		s.top = r.Seq
	case s.fill(r.Seq):
		v.Fault = Reorder
		w.find(v, "%s got seq %d of room %s after seq %d (epoch %s, nonce %q)", w.log.Client, r.Seq, r.Room, s.top, s.epoch, r.Nonce)
	default:
		v.Fault = Duplicate
		w.find(v, "%s got seq %d of room %s again or from before its position, it stood at seq %d (epoch %s, nonce %q)", w.log.Client, r.Seq, r.Room, s.top, s.epoch, r.Nonce)
	}
	room := w.room(r.Room)
	w.see(room, place{s.epoch, r.Seq}, sighting{id: r.ID, nonce: r.Nonce, from: r.From, client: w.log.Client})
	if r.From != w.user {
		return
	}
	w.arrived[r.ID] = s.epoch
	if epoch, ok := w.promised[r.ID]; ok && epoch != s.epoch {
		w.silent(r.Room, r.Seq, r.Nonce, s.epoch, epoch)
	}
}

// fill takes seq out of the missing ones.
func (s *segment) fill(seq uint64) bool {
	for i := len(s.missing) - 1; i >= 0; i-- {
		m := s.missing[i]
		if seq < m.lo || seq > m.hi {
			continue
		}
		rest := s.missing[i+1:]
		var parts []span
		if seq > m.lo {
			parts = append(parts, span{m.lo, seq - 1})
		}
		if seq < m.hi {
			parts = append(parts, span{seq + 1, m.hi})
		}
		s.missing = append(append(s.missing[:i:i], parts...), rest...)
		return true
	}
	return false
}

// end closes a segment: what was skipped and never came is a gap.
func (w *walker) end(room chat.RoomID, s *segment) {
	for _, m := range s.missing {
		w.find(Violation{Fault: Gap, Client: w.log.Client, Room: room, Epoch: s.epoch, Seq: m.lo},
			"%s never got seq %d to %d of room %s, though it got what follows (epoch %s)", w.log.Client, m.lo, m.hi, room, s.epoch)
	}
	s.missing, s.open = nil, false
}

func (w *walker) silent(room chat.RoomID, seq uint64, nonce, at, said string) {
	w.find(Violation{Fault: SilentEpoch, Client: w.log.Client, Room: room, Epoch: said, Seq: seq, Nonce: nonce},
		"%s had seq %d of room %s (nonce %q) acknowledged in epoch %s while its connection was in epoch %s and no reset came", w.log.Client, seq, room, nonce, said, at)
}

func (w *walker) message(r *Record) {
	room := w.room(r.Room)
	who := author{w.user, r.Nonce}
	m := room.messages[who]
	if m == nil {
		m = &message{client: w.log.Client, clock: w.log.Clock, sent: r.At, acked: -1}
		room.messages[who] = m
	} else if r.Kind == Send {
		w.report.Resends++
	}
	switch r.Kind {
	case Refused:
		m.refused = true
		m.refusedAfterAck = m.acked >= 0
	case Unknown:
		m.unknown = true
	case Held:
		w.held(m, r)
	case Ack:
		w.ack(room, m, r)
	}
}

// held notes that a message waits for review, which is no promise that it will
// be posted. Its id is: each answer gives the same, and so does the entry.
func (w *walker) held(m *message, r *Record) {
	if r.Repeat {
		w.report.Repeats++
	}
	if was := m.held; was != "" && was != r.ID || m.acked >= 0 {
		w.find(Violation{Fault: AnswerChanged, Client: w.log.Client, Room: r.Room, Nonce: r.Nonce},
			"%s was told that nonce %q of room %s is held as %s after it was answered with id %s", w.log.Client, r.Nonce, r.Room, r.ID, cmp.Or(was, m.ack.ID))
	}
	m.held = r.ID
}

func (w *walker) ack(room *room, m *message, r *Record) {
	if r.Repeat {
		w.report.Repeats++
	}
	if m.acked >= 0 {
		if r.Seq != m.ack.Seq || r.ID != m.ack.ID {
			w.find(Violation{Fault: AnswerChanged, Client: w.log.Client, Room: r.Room, Epoch: r.Epoch, Seq: r.Seq, Nonce: r.Nonce},
				"%s had nonce %q of room %s acknowledged at seq %d and again at seq %d", w.log.Client, r.Nonce, r.Room, m.ack.Seq, r.Seq)
		}
		return
	}
	if m.held != "" && m.held != r.ID {
		w.find(Violation{Fault: AnswerChanged, Client: w.log.Client, Room: r.Room, Epoch: r.Epoch, Seq: r.Seq, Nonce: r.Nonce},
			"%s had nonce %q of room %s held as %s and then acknowledged with id %s", w.log.Client, r.Nonce, r.Room, m.held, r.ID)
	}
	m.acked, m.ack = r.At, *r
	room.epochs[r.Epoch] = true
	w.see(room, place{r.Epoch, r.Seq}, sighting{id: r.ID, nonce: r.Nonce, from: w.user, client: w.log.Client})
	if r.Repeat {
		return // the answer of an earlier epoch, rightly
	}
	w.promised[r.ID] = r.Epoch
	if at, ok := w.arrived[r.ID]; ok && at != r.Epoch {
		w.silent(r.Room, r.Seq, r.Nonce, at, r.Epoch)
	}
}
