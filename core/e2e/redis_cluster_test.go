package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"parley/core/chat"
	"parley/core/client"
	"parley/core/redis/redistest"
)

// TestOnePrimaryOfARedisClusterDies holds that a node serves the rooms of the
// other primaries, stays ready, and says which rooms it cannot serve.
func TestOnePrimaryOfARedisClusterDies(t *testing.T) {
	t.Parallel()
	store := redistest.StartCluster(t, 3, 0, redistest.Options{AppendOnly: true, Args: []string{"--cluster-require-full-coverage", "no"}})
	rooms := make([]chat.RoomID, 3) // by primary
	for i := 0; rooms[0] == "" || rooms[1] == "" || rooms[2] == ""; i++ {
		id := chat.RoomID(fmt.Sprint("room", i))
		rooms[store.MasterOf("parley:{"+string(id)+"}:log")] = id
	}
	var list []map[string]any
	for _, id := range rooms {
		list = append(list, map[string]any{"id": string(id)})
	}
	// A call that takes long is not one to a primary that is away: to that nobody can connect.
	n := startNode(t, unlimited(settings{"redis.url": store.URL(), "rooms": list, "redis.call_timeout": "20s"}))
	ann := visit(t, client.Options{URL: n.WSURL(), Guest: "ann"})
	for _, id := range rooms {
		await(t, "the room is made", func() bool { _, err := ann.Join(within(t), id, nil); return err == nil })
		ann.says(id, "before")
	}
	bad := store.Masters[1]
	bad.Kill()
	await(t, "/readyz names the primary that is away", func() bool {
		code, body := n.Get("/readyz")
		if code != http.StatusOK {
			t.Fatalf("one of three primaries is away: got %d %s, want the node to stay in service", code, body)
		}
		return strings.Contains(body, "1 of 3 Redis primaries do not take messages: "+bad.Addr()+" (slots 5461-10921, 33.3 % of the rooms)")
	})
	ann.says(rooms[0], "meanwhile")
	ann.says(rooms[2], "meanwhile")
	if _, err := ann.Send(within(t), rooms[1], "n", "meanwhile"); err == nil || !strings.Contains(err.Error(), string(chat.CodeUnavailable)) {
		t.Errorf("in the room of the primary that is away: got %v, want unavailable", err)
	}
	bad.Restart()
	await(t, "the note is gone", func() bool { _, body := n.Get("/readyz"); return !strings.Contains(body, "Redis primaries") })
	await(t, "the room goes on", func() bool { _, err := ann.Send(within(t), rooms[1], "m", "after"); return err == nil })
}
