package redis_test

import (
	"strings"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
	journalredis "parley/core/journal/redis"
	"parley/core/redis/redistest"
)

// TestOnePrimaryAway holds that the rooms of the other primaries go on, and
// that the journal is healthy and says which rooms do not.
func TestOnePrimaryAway(t *testing.T) {
	cluster := redistest.StartCluster(t, 3, 0, redistest.Options{Args: []string{"--cluster-require-full-coverage", "no"}})
	j := node(t, quick(cluster.URL()), journalredis.Defaults())
	rooms := make([]chat.RoomID, 3) // by primary
	for i := 0; rooms[0] == "" || rooms[1] == "" || rooms[2] == ""; i++ {
		id := chat.RoomID(strings.Repeat("r", i+1))
		rooms[cluster.MasterOf("parley:{"+string(id)+"}:log")] = id
	}
	say := func(id chat.RoomID, text string) error {
		_, err := j.Append(t.Context(), journal.Request{Room: id, Entry: journal.Entry{
			ID: chat.MessageID(string(id) + text), Kind: journal.KindMessage, From: "ann", Time: 1764000000123, Nonce: string(id) + text, Text: text, Outcome: chat.Accepted,
		}})
		return err
	}
	for _, id := range rooms {
		if err := say(id, "before"); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Healthy(t.Context()); err != nil || len(j.Notes()) > 0 {
		t.Errorf("all well: got %v, %q", err, j.Notes())
	}
	bad := cluster.Masters[2]
	bad.Kill()
	if err := j.Healthy(t.Context()); err != nil {
		t.Errorf("one of three is away: got %v, want it to serve the others", err)
	}
	if notes := j.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "1 of 3 Redis primaries do not take messages: "+bad.Addr()+" (slots 10922-16383, 33.3 % of the rooms)") {
		t.Errorf("got the notes %q", notes)
	}
	for i, id := range rooms {
		if err := say(id, "meanwhile"); (err == nil) != (i != 2) {
			t.Errorf("a room of primary %d: got %v", i, err)
		}
	}
	cluster.Masters[0].Kill()
	cluster.Masters[1].Kill()
	if err := j.Healthy(t.Context()); err == nil || len(j.Notes()) > 0 {
		t.Errorf("all are away: got %v, %q, want an error alone", err, j.Notes())
	}
}
