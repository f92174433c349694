package disk

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"parley/core/chat"
	"parley/core/journal"
)

// watchers are the watchers of all rooms. The lists are never modified in
// place, so the committer walks one without holding the lock.
type watchers struct {
	mu    sync.RWMutex
	rooms map[chat.RoomID][]*watcher
}

// watcher is one subscription.
type watcher struct {
	w     journal.Watcher
	state atomic.Int32
	left  chan struct{} // closed when the call that cancel waits for has ended
}

// The states of a watcher.
const (
	idle      = iota
	calling   // the committer is inside w
	leaving   // as calling, and cancel waits
	cancelled // w is not called again
)

// Watch implements journal.Journal. Deliveries are in commit order, once each;
// Doubt comes only after a failed write turns out to have reached the disk.
func (j *Journal) Watch(ctx context.Context, room chat.RoomID, w journal.Watcher) (cancel func(), err error) {
	if err := j.usable(ctx); err != nil {
		return nil, err
	}
	s := &watcher{w: w, left: make(chan struct{})}
	j.watch.add(room, s)
	var once sync.Once
	return func() {
		once.Do(func() {
			j.watch.remove(room, s)
			s.cancel()
		})
	}, nil
}

func (ws *watchers) add(room chat.RoomID, s *watcher) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.rooms == nil {
		ws.rooms = map[chat.RoomID][]*watcher{}
	}
	ws.rooms[room] = append(slices.Clip(ws.rooms[room]), s)
}

func (ws *watchers) remove(room chat.RoomID, s *watcher) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(ws.rooms[room]), func(o *watcher) bool { return o == s })
	if len(rest) == 0 {
		delete(ws.rooms, room)
		return
	}
	ws.rooms[room] = rest
}

func (ws *watchers) of(room chat.RoomID) []*watcher {
	ws.mu.RLock()
	defer ws.mu.RUnlock()
	return ws.rooms[room]
}

// tell delivers the entry that p appended.
func (ws *watchers) tell(p *pending) {
	list := ws.of(p.req.Room)
	if len(list) == 0 {
		return
	}
	e := p.req.Entry // p is used again, the entry may be kept
	for _, s := range list {
		s.call(func(w journal.Watcher) { w.Appended(p.receipt.Epoch, &e) })
	}
}

// tellReview delivers the review that p opened or decided.
func (ws *watchers) tellReview(p *pending) {
	for _, s := range ws.of(p.req.Room) {
		s.call(func(w journal.Watcher) { w.Reviewed(p.req.Review) })
	}
}

func (ws *watchers) doubt(room chat.RoomID) {
	for _, s := range ws.of(room) {
		s.call(journal.Watcher.Doubt)
	}
}

// call makes one delivery, unless the watcher has been cancelled. The committer alone calls it, so a watcher is called by one
// goroutine at a time.
func (s *watcher) call(deliver func(journal.Watcher)) {
	if !s.state.CompareAndSwap(idle, calling) {
		return
	}
	deliver(s.w)
	if !s.state.CompareAndSwap(calling, idle) {
		close(s.left)
	}
}

// cancel returns when w is not being called and never will be.
func (s *watcher) cancel() {
	for {
		if s.state.CompareAndSwap(idle, cancelled) {
			return
		}
		if s.state.CompareAndSwap(calling, leaving) {
			<-s.left
			return
		}
	}
}
