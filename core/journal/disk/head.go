package disk

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/journal/codec"
)

// head is where a room's log stands. The zero head is that of a room that
// does not exist.
type head struct {
	gen   uint32 // counts the logs that the room has had, from 1
	epoch string
	past  []string // epochs left behind, oldest first; never modified in place
	top   uint64
	topID chat.MessageID
	first uint64
	// reviews counts the changes to the room's reviews, so that one that is
	// not durable yet can be told from one that is.
	reviews uint64
}

// maxPast bounds head.past. Each new epoch adds two at most, so that callers
// may be as many as 16 epochs behind.
const maxPast = 32

func (h *head) position() journal.Position {
	return journal.Position{Epoch: h.epoch, Seq: h.top, ID: h.topID}
}

// lost reports whether the store has lost what the caller knows of the room.
func (h *head) lost(known journal.Position) bool {
	if known.Epoch == "" || slices.Contains(h.past, known.Epoch) {
		return false
	}
	return known.Epoch != h.epoch || known.Seq > h.top
}

// next is the head of the epoch after h, opened for a caller that knows known.
// The entries stay, and with them their generation and the receipts.
func (h *head) next(known journal.Position) head {
	past := slices.Clone(h.past)
	if h.epoch != "" {
		past = append(past, h.epoch)
	}
	if known.Epoch != "" && known.Epoch != h.epoch && !slices.Contains(past, known.Epoch) {
		past = append(past, known.Epoch)
	}
	past = past[max(0, len(past)-maxPast):]
	n := *h
	n.gen, n.epoch, n.past, n.first = max(h.gen, 1), rand.Text(), past, max(h.first, 1)
	return n
}

// errHead says that one of the two records of a head is damaged; the
// committer repairs it.
var errHead = fmt.Errorf("%w: the head of the room", journal.ErrDamaged)

// loadHead reads a room's head. Where the span is of the generation of a
// known head, the lineage is taken from that instead of being read.
func loadHead(b *buckets, room chat.RoomID, known head) (head, error) {
	key := []byte(room)
	rec := b.rooms().Get(key)
	if rec == nil && b.epochs().Get(key) == nil {
		return head{}, nil
	}
	var h, l head
	body, err := unseal(key, rec)
	if err != nil || decodeSpan(&h, body) != nil {
		return head{}, errHead
	}
	if h.gen == known.gen {
		h.epoch, h.past = known.epoch, known.past
		return h, nil
	}
	body, err = unseal(key, b.epochs().Get(key))
	if err != nil || decodeLineage(&l, body) != nil || l.gen != h.gen {
		return head{}, errHead
	}
	h.epoch, h.past = l.epoch, l.past
	return h, nil
}

// rebuildHead makes a head out of what is left of a damaged one. Where the
// span is gone, the entries' keys tell it. Where the lineage is gone, the
// entries stay and the epoch gets a new name, so that clients are reset.
func rebuildHead(b *buckets, room chat.RoomID) head {
	key := []byte(room)
	var h, l head
	body, err := unseal(key, b.rooms().Get(key))
	hasSpan := err == nil && decodeSpan(&h, body) == nil
	body, err = unseal(key, b.epochs().Get(key))
	hasLineage := err == nil && decodeLineage(&l, body) == nil
	if !hasSpan {
		h = head{gen: l.gen, first: 1}
		if !hasLineage {
			h.gen = lastGen(b, room)
		}
		spanFromEntries(b, room, &h)
	}
	if hasLineage && l.gen == h.gen {
		h.epoch, h.past = l.epoch, l.past
	} else {
		h.epoch, h.past = rand.Text(), nil
	}
	return h
}

// lastGen is the highest generation that entries of the room are kept under.
func lastGen(b *buckets, room chat.RoomID) uint32 {
	prefix := roomPrefix(nil, room)
	end := append(slices.Clone(prefix[:len(prefix)-1]), 1) // behind every key of the room
	c := b.entries().Cursor()
	k, _ := c.Seek(end)
	if k == nil {
		k, _ = c.Last()
	} else {
		k, _ = c.Prev()
	}
	if len(k) != len(prefix)+12 || !bytes.HasPrefix(k, prefix) {
		return 1
	}
	return binary.BigEndian.Uint32(k[len(prefix):])
}

// spanFromEntries sets first and top from the keys of the entries.
func spanFromEntries(b *buckets, room chat.RoomID, h *head) {
	prefix := genPrefix(nil, room, h.gen)
	c := b.entries().Cursor()
	var last, rec []byte
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix) && len(k) == len(prefix)+8; k, v = c.Next() {
		if last == nil {
			h.first = keySeq(k)
		}
		last, rec = k, v
	}
	if last == nil {
		return
	}
	h.top = keySeq(last)
	if body, err := unseal(last, rec); err == nil {
		var e journal.Entry
		if codec.DecodeEntry(&e, h.top, string(body)) == nil {
			h.topID = e.ID
		}
	}
}

// published is what readers may know: the state of the last commit that is
// durable. The committer alone writes it. bbolt shows readers a commit before
// its last sync, so a read is capped by the head found here.
type published struct {
	mu      sync.RWMutex
	heads   map[chat.RoomID]*head // rooms used lately, every one of the commit under way among them
	nonces  map[nonceHash]uint64  // to the number of the receipt
	open    openReviews
	rounds  uint64        // commits that ended, well or not
	settled chan struct{} // closed at the end of a round; nil when nobody waits
}

func (p *published) head(room chat.RoomID) (head, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if h := p.heads[room]; h != nil {
		return *h, true
	}
	return head{}, false
}

// known returns the number of the nonce's receipt, where there is one, and the
// open review that holds the nonce, or nil.
func (p *published) known(hash nonceHash) (number uint64, held *openReview, ok bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	number, ok = p.nonces[hash]
	return number, p.open.byNonce[hash], ok
}

func (p *published) sizes() (rooms, nonces int) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return len(p.heads), len(p.nonces)
}

// round returns the number of the round that runs, or will.
func (p *published) round() uint64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.rounds
}

// after returns a channel that is closed once the given round has ended.
func (p *published) after(round uint64) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rounds != round {
		return closedChan
	}
	if p.settled == nil {
		p.settled = make(chan struct{})
	}
	return p.settled
}

var closedChan = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// endRound ends a round that published nothing.
func (p *published) endRound() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endRoundLocked()
}

// endRoundLocked wakes those that wait for the round.
func (p *published) endRoundLocked() {
	p.rounds++
	if p.settled != nil {
		close(p.settled)
		p.settled = nil
	}
}
