package client

import (
	"sync"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/wire"
)

// places tracks the position in every joined room. A Resilient shares one
// between its connections.
type places struct {
	mu    sync.Mutex
	at    map[chat.RoomID]journal.Position // joined rooms
	asked map[chat.RoomID]journal.Position // the since of joins under way
}

func newPlaces() *places {
	return &places{at: make(map[chat.RoomID]journal.Position), asked: make(map[chat.RoomID]journal.Position)}
}

func (p *places) get(room chat.RoomID) (journal.Position, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.at[room]
	return at, ok
}

// expect notes what a join asks to resume from.
func (p *places) expect(room chat.RoomID, since *journal.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if since != nil {
		p.asked[room] = *since
	} else {
		delete(p.asked, room)
	}
}

// note moves positions by what the server says. A recovered join continues
// from the position it asked for, its entries follow; any other join, and a
// reset, name the new position themselves.
func (p *places) note(ev any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := ev.(type) {
	case *wire.EntryEvent:
		if at, ok := p.at[e.Room]; ok && e.Seq > at.Seq {
			at.Seq, at.ID = e.Seq, e.ID
			p.at[e.Room] = at
		}
	case *wire.JoinedEvent:
		since, asked := p.asked[e.Room]
		delete(p.asked, e.Room)
		if e.Recovered && asked {
			p.at[e.Room] = since
			return
		}
		p.at[e.Room] = journal.Position{Epoch: e.Epoch, Seq: e.Seq, ID: e.LastID}
	case *wire.ResetEvent:
		if _, ok := p.at[e.Room]; ok {
			p.at[e.Room] = journal.Position{Epoch: e.Epoch, Seq: e.Seq, ID: e.LastID}
		}
	case *wire.LeftEvent:
		delete(p.at, e.Room)
	}
}
