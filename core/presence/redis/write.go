package redis

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"parley/core/chat"
	"parley/core/presence"
	rds "parley/core/redis"
)

const (
	writeBatch  = 128             // registers of one pipeline, 13 KiB each at most
	retryAfter  = time.Second     // of what Redis did not take
	farewellFor = 2 * time.Second // bounds the last write
)

// writeUntil writes what has changed until ctx ends, then takes back what this
// node has said.
func (l *Link) writeUntil(ctx context.Context) {
	age := time.NewTicker(l.cfg.Sweep)
	defer age.Stop()
	said := false // that Redis is away
	for {
		select {
		case <-ctx.Done():
			l.farewell(ctx)
			return
		case <-l.write:
		case <-age.C:
			l.age(time.Now())
			continue
		}
		began := time.Now()
		err := l.flush(ctx)
		pause := l.cfg.Pace - time.Since(began)
		if err == nil {
			said = false
		} else if ctx.Err() == nil {
			if !said {
				l.log.Warn("presence cannot be told to the other nodes; it will be when redis answers again", "error", err)
				said = true
			}
			pause = retryAfter/2 + rand.N(retryAfter)
			poke(l.write)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// flush writes what has changed up to now, and returns what went wrong.
func (l *Link) flush(ctx context.Context) error {
	l.mu.Lock()
	rooms, users := len(l.rooms.dirty), len(l.users.dirty)
	typing := l.typing
	l.typing = nil
	l.mu.Unlock()
	err := errors.Join(
		drain(ctx, l, &l.rooms, rooms, l.writeRooms),
		drain(ctx, l, &l.users, users, l.writeUsers),
	)
	switch {
	case err != nil: // who wrote meanwhile is of no interest later
		l.dropped.Add(uint64(len(typing)))
	case len(typing) > 0: // behind the registers that say who is here
		l.tellTyping(ctx, typing)
	}
	return err
}

// drain writes the first n things of a ledger, until an error.
func drain[K comparable](ctx context.Context, l *Link, in *ledger[K], n int, write func(context.Context, []K) error) error {
	for n > 0 {
		l.mu.Lock()
		some := in.take(min(n, writeBatch))
		l.mu.Unlock()
		if len(some) == 0 {
			return nil
		}
		n -= len(some)
		if err := write(ctx, some); err != nil {
			return err
		}
	}
	return nil
}

func (l *Link) writeRooms(ctx context.Context, ids []chat.RoomID) error {
	cmds := make([]rds.Command, len(ids))
	for i, id := range ids {
		g := l.tracker.Local(id)
		l.version++ // this goroutine's alone
		g.Version = l.version
		cmds[i] = l.say(l.roomKey(id), "", l.roomChannel(id), encodeHint(hint{kindHere, l.self, encodeRegister(g)}))
		if g.Count > 0 {
			cmds[i].Args[1] = encodeRegister(g)
		}
	}
	return wrote(ctx, l, &l.rooms, ids, cmds)
}

func (l *Link) writeUsers(ctx context.Context, names []chat.UserID) error {
	cmds := make([]rds.Command, len(names))
	l.mu.Lock()
	for i, u := range names {
		value := ""
		if _, here := l.here[u]; here {
			value = "1"
		}
		cmds[i] = l.say(l.userKey(u), value, "", "")
	}
	l.mu.Unlock()
	return wrote(ctx, l, &l.users, names, cmds)
}

// say is one call of say.lua.
func (l *Link) say(key, value, channel, message string) rds.Command {
	return rds.Command{Script: sayScript, Keys: []string{key}, Args: []any{l.self, value, l.cfg.Life.Milliseconds(), channel, message, l.client.PublishCommand()}}
}

// wrote sends the commands and notes in the ledger what has become of each.
func wrote[K comparable](ctx context.Context, l *Link, in *ledger[K], names []K, cmds []rds.Command) (first error) {
	replies := l.client.Pipeline(ctx, cmds)
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, k := range names {
		err := replies[i].Err
		switch {
		case err == nil:
			l.written.Add(1)
		case !away(err): // a key that somebody else has put there, say: the others go on
			l.refuse("answer to a write", "", "", err)
			err = nil
		case first == nil:
			first = err
		}
		in.wrote(k, now, err)
	}
	return first
}

func (l *Link) tellTyping(ctx context.Context, typing []typist) {
	cmds := make([]rds.Command, len(typing))
	for i, w := range typing {
		cmds[i].Args = []any{l.client.PublishCommand(), l.roomChannel(w.room), encodeHint(hint{kindTyping, l.self, string(w.user)})}
	}
	for _, r := range l.client.Pipeline(ctx, cmds) {
		if r.Err != nil {
			l.dropped.Add(1)
		}
	}
}

// age has written again what is too old, and forgets the rooms and users that
// nobody here is concerned with.
func (l *Link) age(now time.Time) {
	l.mu.Lock()
	l.rooms.age(now, l.cfg.Refresh)
	l.users.age(now, l.cfg.Refresh)
	for u, e := range l.users.m {
		if _, here := l.here[u]; !here && !e.dirty && !e.unsure && !e.written.IsZero() {
			delete(l.users.m, u)
		}
	}
	for id, e := range l.rooms.m {
		if l.follows[id] == nil && !e.dirty && !e.unsure {
			delete(l.rooms.m, id)
		}
	}
	var idle []chat.RoomID
	for id, f := range l.follows {
		if now.Sub(f.idle) < l.cfg.Idle {
			continue
		}
		f.idle = now
		if e := l.rooms.m[id]; e == nil || !e.dirty && !e.unsure {
			idle = append(idle, id)
		}
	}
	if len(l.rooms.dirty)+len(l.users.dirty) > 0 {
		poke(l.write)
	}
	l.mu.Unlock()
	for _, id := range idle {
		l.tracker.Forget(id, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			delete(l.follows, id)
			delete(l.rooms.m, id)
			l.sub.Unsubscribe(l.roomChannel(id))
		})
	}
}

// farewell removes what this node has said. What Redis does not take ends with
// the node's lease.
func (l *Link) farewell(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewellFor)
	defer cancel()
	l.mu.Lock()
	clear(l.here)
	l.rooms.markAll()
	l.users.markAll()
	rooms, users := l.rooms.dirty, l.users.dirty
	l.mu.Unlock()
	var cmds []rds.Command
	send := func() {
		l.client.Pipeline(ctx, cmds)
		cmds = cmds[:0]
	}
	for _, id := range rooms {
		l.version++
		gone := encodeRegister(presence.Register{Version: l.version})
		cmds = append(cmds, l.say(l.roomKey(id), "", l.roomChannel(id), encodeHint(hint{kindHere, l.self, gone})))
		if len(cmds) == writeBatch {
			send()
		}
	}
	for _, u := range users {
		cmds = append(cmds, l.say(l.userKey(u), "", "", ""))
		if len(cmds) == writeBatch {
			send()
		}
	}
	send()
}
