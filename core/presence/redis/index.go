package redis

import (
	"context"
	"errors"
	"fmt"

	"parley/core/chat"
	"parley/core/cluster"
	rds "parley/core/redis"
)

// Online says that the user's first connection to this node is there, Offline
// that the last has ended. Both only note it; it is written with others. They must come in the order of what
// happened.
func (l *Link) Online(u chat.UserID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.here[u] = struct{}{}
	l.users.mark(u)
	poke(l.write)
}

// Offline is the opposite of Online.
func (l *Link) Offline(u chat.UserID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.here, u)
	l.users.mark(u)
	poke(l.write)
}

// askBatch is how many users one pipeline asks for.
const askBatch = 256

// Connected returns which of the users have a connection to a node that is
// alive. It may be a moment behind: a user who has just come or gone at another
// node counts as before until that node has written it. An error means that
// nobody could be asked; those in the map are connected here all the same.
func (l *Link) Connected(ctx context.Context, users []chat.UserID) (map[chat.UserID]bool, error) {
	out := make(map[chat.UserID]bool, len(users))
	var ask []chat.UserID
	l.mu.Lock()
	for _, u := range users {
		if _, here := l.here[u]; here {
			out[u] = true
		} else if chat.ValidUser(u) {
			ask = append(ask, u)
		}
	}
	l.mu.Unlock()
	select {
	case <-l.nodes.Known():
	default:
		if len(ask) > 0 {
			return out, errors.New("ask where users are connected: it is not known yet which nodes are alive")
		}
	}
	cmds := make([]rds.Command, 0, min(len(ask), askBatch))
	for len(ask) > 0 {
		n := min(len(ask), askBatch)
		cmds = cmds[:0]
		for _, u := range ask[:n] {
			cmds = append(cmds, fields(l.userKey(u), 0))
		}
		for i, r := range l.client.Pipeline(ctx, cmds) {
			if r.Err != nil {
				return out, fmt.Errorf("ask where users are connected: %w", r.Err)
			}
			if l.somewhere(r.Value) {
				out[ask[i]] = true
			}
		}
		ask = ask[n:]
	}
	return out, nil
}

// somewhere reports whether a node that is alive is among the reply's.
func (l *Link) somewhere(reply any) bool {
	_, list := readFields(reply)
	for _, v := range list[:min(len(list), maxNodes)] {
		if name, ok := v.(string); ok && name != l.self && l.alive(cluster.NodeID(name)) {
			return true
		}
	}
	return false
}
