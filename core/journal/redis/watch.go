package redis

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"parley/core/chat"
	"parley/core/journal"
	rds "parley/core/redis"
)

// channelName ends the channel of a room.
const channelName = "new"

// watches are the watchers of this node, by room. It is the handler of the
// journal's subscriber.
type watches struct {
	// Set at construction.
	prefix string // begins the channel of every room
	sub    *rds.Subscriber

	mu    sync.RWMutex // guards the map and the writing of each room's list; no delivery runs under it
	rooms map[chat.RoomID]*watched
}

// watched is a room that somebody watches.
type watched struct {
	// list is replaced, never changed, so that deliveries hold no lock of the room.
	list atomic.Pointer[[]*watch]

	mu   sync.Mutex
	told [64]place // what was handed over straight from Append, by seq
}

// place is one seq of one epoch.
type place struct {
	epoch string
	seq   uint64
}

// watch is one watcher. Its lock is held while the watcher is called, so that
// none of its methods runs once cancel has returned.
type watch struct {
	mu  sync.Mutex
	to  journal.Watcher
	off bool
}

func (w *watches) init(prefix string) {
	w.prefix = prefix + ":{"
	w.rooms = make(map[chat.RoomID]*watched)
}

// Watch implements journal.Journal. It does not wait for the server: once the
// room's channel is subscribed, Doubt tells the watcher to read what it may
// have missed.
func (j *Journal) Watch(ctx context.Context, room chat.RoomID, to journal.Watcher) (func(), error) {
	if err := j.begin(); err != nil {
		return nil, err
	}
	defer j.calls.Done()
	if err := checkRoom(room); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w := &watch{to: to}
	j.watches.add(room, w)
	return func() { j.watches.remove(room, w) }, nil
}

func (w *watches) add(room chat.RoomID, x *watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.rooms[room]
	if r == nil {
		r = &watched{}
		r.list.Store(&[]*watch{})
		w.rooms[room] = r
		w.sub.Subscribe(w.channel(room)) // notes the wish, does no I/O
	}
	list := append(slices.Clone(*r.list.Load()), x)
	r.list.Store(&list)
}

func (w *watches) remove(room chat.RoomID, x *watch) {
	x.mu.Lock()
	was := x.off
	x.off = true
	x.mu.Unlock()
	if was {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.rooms[room]
	list := slices.DeleteFunc(slices.Clone(*r.list.Load()), func(y *watch) bool { return x == y })
	r.list.Store(&list)
	if len(list) == 0 {
		delete(w.rooms, room)
		w.sub.Unsubscribe(w.channel(room))
	}
}

// Doubt tells every watcher that it may have missed entries, or have some that
// the server has lost. It waits for none of them.
func (j *Journal) Doubt() {
	for _, room := range j.watches.names() {
		if w := j.watches.get(room); w != nil {
			w.each(journal.Watcher.Doubt)
		}
	}
}

func (w *watches) get(room chat.RoomID) *watched {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.rooms[room]
}

// names lists the rooms that are watched.
func (w *watches) names() []chat.RoomID {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return slices.Collect(maps.Keys(w.rooms))
}

func (w *watches) channel(room chat.RoomID) string {
	return w.prefix + string(room) + "}:" + channelName
}

// room undoes channel.
func (w *watches) room(channel string) chat.RoomID {
	name, _ := strings.CutPrefix(channel, w.prefix)
	name, _ = strings.CutSuffix(name, "}:"+channelName)
	return chat.RoomID(name)
}

// local hands over an entry that this node has appended, without waiting for
// its way back from the server.
func (w *watches) local(room chat.RoomID, epoch string, seq uint64, e *journal.Entry) {
	r := w.get(room)
	if r == nil {
		return
	}
	own := *e
	own.Seq = seq
	r.each(func(to journal.Watcher) { to.Appended(epoch, &own) })
	r.mu.Lock()
	r.told[seq%uint64(len(r.told))] = place{epoch, seq}
	r.mu.Unlock()
}

// Message implements rds.Handler: an entry that some node has appended, or a
// review that it has opened or decided.
func (w *watches) Message(channel, payload string) {
	r := w.get(w.room(channel))
	if r == nil {
		return
	}
	epoch, seq, rest, err := splitPlace(payload)
	if err != nil {
		w.Doubt(channel)
		return
	}
	if seq == 0 {
		v, err := decodeReview(rest)
		if err != nil {
			w.Doubt(channel)
			return
		}
		r.each(func(to journal.Watcher) { to.Reviewed(&v) })
		return
	}
	r.mu.Lock()
	known := r.told[seq%uint64(len(r.told))] == place{epoch, seq}
	r.mu.Unlock()
	if known { // this node's own
		return
	}
	e, err := decodeEntry(rest, seq)
	if err != nil { // the stream is the truth: let the watchers look there
		w.Doubt(channel)
		return
	}
	r.each(func(to journal.Watcher) { to.Appended(epoch, &e) })
}

// Doubt implements rds.Handler: the room's channel was subscribed anew.
func (w *watches) Doubt(channel string) {
	if r := w.get(w.room(channel)); r != nil {
		r.each(journal.Watcher.Doubt)
	}
}

func (r *watched) each(call func(journal.Watcher)) {
	for _, x := range *r.list.Load() {
		x.mu.Lock()
		if !x.off {
			call(x.to)
		}
		x.mu.Unlock()
	}
}
