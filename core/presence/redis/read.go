package redis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"parley/core/chat"
	"parley/core/cluster"
	"parley/core/presence"
	rds "parley/core/redis"
)

// Message implements rds.Handler: another node says who is in a room, or who
// writes there.
func (l *Link) Message(channel, payload string) {
	id := l.room(channel)
	h, err := decodeHint(payload)
	if err != nil {
		l.refuse("message", id, "", err)
		return
	}
	if h.node == l.self {
		return
	}
	node := cluster.NodeID(h.node)
	if !l.alive(node) {
		l.stranger(id, node)
		return
	}
	l.hinted.Add(1)
	switch h.kind {
	case kindHere:
		l.put(id, node, h.text)
	case kindTyping:
		if u := chat.UserID(h.text); chat.ValidUser(u) {
			l.tracker.TypingElsewhere(id, u)
		} else {
			l.refuse("typing", id, h.node, fmt.Errorf("%.80q is no user name", h.text))
		}
	}
}

// put hands a register to the tracker.
func (l *Link) put(id chat.RoomID, node cluster.NodeID, text string) {
	g, err := decodeRegister(text)
	if err != nil {
		l.refuse("register", id, string(node), err)
		return
	}
	l.tracker.Put(id, presence.Node(node), g)
	if !l.alive(node) { // it died meanwhile, and its registers may have been dropped before this one came
		l.tracker.Drop(id, presence.Node(node))
	}
}

// stranger notes that a node which is not known to live has spoken in a room:
// the room is read when nodes have come.
func (l *Link) stranger(id chat.RoomID, node cluster.NodeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.follows[id]
	if f == nil {
		return
	}
	f.strange = true
	if l.alive(node) { // it has come meanwhile
		l.readLocked(id, f)
	}
}

// Doubt implements rds.Handler: the room's channel is heard from now on.
func (l *Link) Doubt(channel string) {
	id := l.room(channel)
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.follows[id]; f != nil {
		l.readLocked(id, f)
	}
}

func (l *Link) readLocked(id chat.RoomID, f *follow) {
	if !f.reading {
		f.reading = true
		l.toRead = append(l.toRead, id)
	}
	poke(l.read)
}

const (
	readBatch = 64          // rooms of one pipeline
	dueEvery  = time.Second // how often it is looked for registers that were waited for
)

// readUntil reads rooms and buries nodes until ctx ends.
func (l *Link) readUntil(ctx context.Context) {
	due := time.NewTicker(dueEvery)
	defer due.Stop()
	select { // before, nobody's register would count
	case <-l.nodes.Known():
	case <-ctx.Done():
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.read:
		case now := <-due.C:
			l.recall(now)
		}
		for more := true; more; more = l.readSome(ctx) {
			l.bury(ctx)
		}
	}
}

// recall has the rooms read in which something is missing for long enough.
func (l *Link) recall(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, f := range l.follows {
		if !f.due.IsZero() && now.After(f.due) {
			f.due = time.Time{}
			l.readLocked(id, f)
		}
	}
}

// bury drops what dead nodes have said, and has read what new ones may have.
func (l *Link) bury(ctx context.Context) {
	l.mu.Lock()
	died, grown := l.died, l.grown
	l.died, l.grown = nil, false
	for id, f := range l.follows {
		if grown && f.strange {
			f.strange = false
			l.readLocked(id, f)
		}
	}
	users := make([]chat.UserID, 0, len(l.here))
	if len(died) > 0 {
		for u := range l.here {
			users = append(users, u)
		}
	}
	l.mu.Unlock()
	for _, node := range died {
		rooms := l.tracker.Gone(presence.Node(node))
		keys := make([]string, 0, len(rooms)+len(users))
		for _, id := range rooms {
			keys = append(keys, l.roomKey(id))
		}
		for _, u := range users {
			keys = append(keys, l.userKey(u))
		}
		l.remove(ctx, node, keys)
	}
}

// remove takes a dead node's field out of hashes. What Redis does not take now
// counts for nobody anyway.
func (l *Link) remove(ctx context.Context, node cluster.NodeID, keys []string) {
	cmds := make([]rds.Command, 0, min(len(keys), 2*writeBatch))
	for len(keys) > 0 && ctx.Err() == nil {
		n := min(len(keys), 2*writeBatch)
		cmds = cmds[:0]
		for _, k := range keys[:n] {
			cmds = append(cmds, rds.Command{Args: []any{"hdel", k, string(node)}})
		}
		keys = keys[n:]
		for _, r := range l.client.Pipeline(ctx, cmds) {
			if r.Err != nil {
				return
			}
		}
	}
}

// readSome reads some of the rooms that are to be read and reports whether
// there are more.
func (l *Link) readSome(ctx context.Context) bool {
	l.mu.Lock()
	n := min(len(l.toRead), readBatch)
	ids := l.toRead[:n:n]
	if l.toRead = l.toRead[n:]; len(l.toRead) == 0 {
		l.toRead = nil
	}
	for _, id := range ids {
		if f := l.follows[id]; f != nil {
			f.reading = false
		}
	}
	l.mu.Unlock()
	if n == 0 || ctx.Err() != nil {
		return false
	}
	cmds := make([]rds.Command, n)
	for i, id := range ids {
		cmds[i] = fields(l.roomKey(id), maxRegister)
	}
	strangers := make(map[cluster.NodeID][]string)
	failed := false
	for i, r := range l.client.Pipeline(ctx, cmds) {
		switch {
		case r.Err == nil:
			l.take(ids[i], r.Value, strangers)
		case away(r.Err):
			failed = true
			l.again(ids[i])
		default:
			l.refuse("room", ids[i], "", r.Err)
			l.tracker.Loaded(ids[i])
		}
	}
	l.sweep(ctx, strangers)
	if failed { // what waits, waits for the others too: redis is away
		select {
		case <-time.After(retryAfter/2 + rand.N(retryAfter)):
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// fields is the command that reads a hash with a field for each node.
func fields(key string, maxValue int) rds.Command {
	return rds.Command{Script: fieldsScript, Keys: []string{key}, Args: []any{maxNodes, maxNode, maxValue}}
}

// readFields splits its reply: how many fields there are, and those that were
// read.
func readFields(reply any) (n int64, list []any) {
	list, _ = reply.([]any)
	if len(list) == 0 {
		return 0, nil
	}
	n, _ = list[0].(int64)
	return n, list[1:]
}

func (l *Link) again(id chat.RoomID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.follows[id]; f != nil {
		l.readLocked(id, f)
	}
}

// take compares what Redis holds of a room with what this node knows.
func (l *Link) take(id chat.RoomID, reply any, strangers map[cluster.NodeID][]string) {
	n, list := readFields(reply)
	if n > maxNodes {
		l.refuse("room", id, "", fmt.Errorf("it has registers of %d nodes, at most %d are read", n, maxNodes))
	}
	list = list[:min(len(list), 2*maxNodes)]
	l.loaded.Add(1)
	found := make(map[presence.Node]bool, len(list)/2)
	strange := false
	for i := 0; i+1 < len(list); i += 2 {
		name, _ := list[i].(string)
		text, _ := list[i+1].(string)
		node := cluster.NodeID(name)
		found[presence.Node(name)] = true
		switch {
		case name == l.self:
		case l.alive(node):
			l.put(id, node, text)
		default:
			strange = true
			strangers[node] = append(strangers[node], l.roomKey(id))
		}
	}
	own := l.tracker.Local(id).Count > 0
	gone := l.missing(id, found, strange, own && !found[presence.Node(l.self)])
	for _, n := range gone {
		l.tracker.Drop(id, n)
	}
	l.tracker.Loaded(id)
}

// missing returns the nodes whose users have left the room for certain: their
// register is missing, though they live, for longer than Redis needs to be
// told again what it forgot.
func (l *Link) missing(id chat.RoomID, found map[presence.Node]bool, strange, rewrite bool) (gone []presence.Node) {
	known := l.tracker.Nodes(id)
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.follows[id]
	if f == nil {
		return nil
	}
	f.strange = f.strange || strange
	if rewrite { // Redis forgot this node's own
		l.rooms.mark(id)
		poke(l.write)
	}
	var still map[presence.Node]time.Time
	for n := range known {
		if found[n] {
			continue
		}
		since, seen := f.missing[n]
		switch {
		case !l.alive(cluster.NodeID(n)), seen && now.Sub(since) >= l.cfg.Grace:
			gone = append(gone, n)
			continue
		case !seen:
			since = now
		}
		if still == nil {
			still = make(map[presence.Node]time.Time)
		}
		still[n] = since
		if at := since.Add(l.cfg.Grace); f.due.IsZero() || at.Before(f.due) {
			f.due = at
		}
	}
	f.missing = still
	return gone
}

// sweep removes the fields of strangers that have no lease: they died before
// this node looked.
func (l *Link) sweep(ctx context.Context, strangers map[cluster.NodeID][]string) {
	if len(strangers) == 0 {
		return
	}
	ids := make([]cluster.NodeID, 0, len(strangers))
	for n := range strangers {
		ids = append(ids, n)
	}
	alive, err := l.nodes.Confirm(ctx, ids...)
	if err != nil {
		return // nobody knows: they stay
	}
	for n, keys := range strangers {
		if !alive[n] {
			l.remove(ctx, n, keys)
		}
	}
}
