package e2e

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/client"
	"parley/core/redis/redistest"
	"parley/core/wire"
)

// TestTwoNodesOneKilled runs two nodes on one Redis with clients on both, and
// kills one node after the other under load: their clients go on elsewhere,
// and everyone has seen one order without a gap or a duplicate.
func TestTwoNodesOneKilled(t *testing.T) {
	store := redistest.Start(t, redistest.Options{AppendOnly: true})
	key := filepath.Join(t.TempDir(), "jwt.key") // one for both, so that a token counts at each
	shared := unlimited(settings{"redis.url": store.URL(), "auth.jwt.key_file": key})
	tokens := make([]string, 6)
	for i := range tokens {
		tokens[i] = token(t, key, chat.UserID(fmt.Sprintf("user%d", i)))
	}
	a, b := startNode(t, shared), startNode(t, shared)

	c := newCrowd(t, "lobby", "kitchen")
	for i := range 6 {
		first, second := a, b
		if i%2 == 1 {
			first, second = b, a
		}
		c.Add(fmt.Sprintf("client %d", i), client.ResilientOptions{
			Options: client.Options{Token: tokens[i]},
			URLs:    []string{first.URL(i / 2), second.URL(i / 2)},
		})
	}
	c.Talk(4, 20*time.Millisecond)
	for _, n := range []*node{a, b, a, b, a} {
		c.More(60)
		n.Kill()
		c.More(60)
		n.Start()
	}
	c.More(60)
	rep := c.Settle(client.Options{URL: a.WSURL(), Token: tokens[0]})
	if rep.Resets > 0 || rep.Refused > 0 || rep.Unknown > 0 {
		t.Errorf("got %d resets, %d refused and %d unknown, want none: Redis lost nothing and everyone kept asking", rep.Resets, rep.Refused, rep.Unknown)
	}
	a.Stop()
	b.Stop()
}

// TestTheOperatorsRoomsComeBack empties a Redis that goes on running, while
// nobody says a word. Everybody in a room is told, long before the rooms are
// compared with the store in turn, and the rooms of the configuration are there
// again as configured, owned by nobody. The rooms of others are what they were:
// private, with their owners and bans.
func TestTheOperatorsRoomsComeBack(t *testing.T) {
	t.Parallel()
	store := redistest.Start(t, redistest.Options{})
	key := filepath.Join(t.TempDir(), "jwt.key")
	rooms := []map[string]any{{"id": "lobby", "title": "Lobby"}, {"id": "news", "mode": "announce"}, {"id": "staff", "visibility": "private"}}
	ann := token(t, key, "ann")
	shared := unlimited(settings{"redis.url": store.URL(), "auth.jwt.key_file": key, "rooms": rooms})
	a, b := startNode(t, shared), startNode(t, shared)
	here := visit(t, client.Options{URL: a.TCPURL(), Token: ann})
	here.enters("lobby")
	here.enters("team")
	if _, err := here.Send(within(t), "lobby", "n1", "hello"); err != nil {
		t.Fatal(err)
	}
	if _, err := here.Configure(within(t), "team", "n2", client.Settings{Visibility: "private"}); err != nil {
		t.Fatal(err)
	}
	here.enters("board")
	if _, err := here.Ban(within(t), "board", "n3", "eve", 0, "spam"); err != nil {
		t.Fatal(err)
	}

	began := time.Now()
	store.Do("FLUSHALL")
	for _, room := range []chat.RoomID{"lobby", "team", "board"} {
		first(here, "the loss of "+string(room), func(e *wire.ResetEvent) bool { return e.Room == room })
	}
	took := time.Since(began)
	t.Logf("members of quiet rooms were told %v after the loss", took.Round(time.Millisecond))
	if took > 15*time.Second { // the next renewal of a lease finds it, at most 5 s away
		t.Errorf("members of quiet rooms were told %v after the loss, want no more than a lease", took)
	}
	await(t, "the rooms are there again", func() bool {
		return store.Do("EXISTS", "parley:{lobby}:log", "parley:{news}:log", "parley:{staff}:log") == "3"
	})
	late := visit(t, client.Options{URL: b.TCPURL(), Token: token(t, key, "eve")})
	if j := late.enters("lobby"); j.Title != "Lobby" || j.Role != "" {
		t.Errorf("lobby: got %+v, want it as configured and nobody's own", j)
	}
	if j := late.enters("news"); j.Mode != "announce" || j.Role != "" {
		t.Errorf("news: got %+v, want it as configured and nobody's own", j)
	}
	for _, room := range []chat.RoomID{"staff", "team", "board"} { // private, private, and banned there
		_, err := late.Join(within(t), room, nil)
		if said := refusal(t, err); said.Code != chat.CodeDenied {
			t.Errorf("join %s: got %+v, want denied", room, said)
		}
	}
	if j := here.enters("team"); j.Role != "owner" {
		t.Errorf("team: got %+v, want ann its owner still", j)
	}
	a.Stop()
	b.Stop()
}
