package redis_test

import (
	"fmt"
	"strings"
	"testing"

	"parley/core/journal"
	journalredis "parley/core/journal/redis"
	"parley/core/redis/redistest"
)

// TestErasedTextLeavesRedis looks for the text in every key, as RDB files and
// replicas have it: a stream keeps what was deleted from it.
func TestErasedTextLeavesRedis(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	j := node(t, quick(server.URL()), journalredis.Defaults())
	const secret = "the-secret-0451"
	var seqs []uint64
	var epoch string
	for i := range 2500 { // several steps of a rewrite
		r := message("lobby", fmt.Sprint("n", i))
		if i%500 == 3 {
			r.Entry.Text = secret
		}
		rc := mustAppend(t, j, r)
		if i%500 == 3 {
			seqs = append(seqs, rc.Seq)
		}
		epoch = rc.Epoch
	}
	if keys := holding(server, secret); len(keys) == 0 {
		t.Fatal("no key ever held the text: this test shows nothing")
	}
	n, err := j.Erase(within(t), "lobby", journal.Erasure{Epoch: epoch, Seqs: seqs})
	if err != nil || n != len(seqs) {
		t.Fatalf("erase: got %d, %v, want %d", n, err, len(seqs))
	}
	if keys := holding(server, secret); len(keys) > 0 {
		t.Errorf("the text is still in %q", keys)
	}
	for _, key := range strings.Fields(server.Do("KEYS", "*:copy*")) {
		t.Errorf("the rewrite left %s behind", key)
	}
	_, all := ids(t, j, "lobby")
	if len(all) != 2500 {
		t.Errorf("got %d entries, want 2500", len(all))
	}
}

// TestErasedTextLeavesLostEpochs: what is set aside of an epoch goes with it.
func TestErasedTextLeavesLostEpochs(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	j := node(t, quick(server.URL()), journalredis.Defaults())
	const secret = "the-secret-0451"
	r := message("lobby", "a")
	r.Entry.Text = secret
	mustAppend(t, j, r)
	r = message("lobby", "b")
	r.Entry.Text = secret
	r.Known = journal.Position{Epoch: "lost", Seq: 7, ID: "x"}
	rc := mustAppend(t, j, r)
	if n := len(holding(server, secret)); n != 2 {
		t.Fatalf("got the text in %d keys, want the log and what was set aside", n)
	}
	if _, err := j.Erase(within(t), "lobby", journal.Erasure{Epoch: rc.Epoch, Seqs: []uint64{1}}); err != nil {
		t.Fatal(err)
	}
	if keys := holding(server, secret); len(keys) > 0 {
		t.Errorf("the text is still in %q", keys)
	}
}

// holding lists the keys whose dump holds the text.
func holding(server *redistest.Server, text string) (keys []string) {
	for _, key := range strings.Fields(server.Do("KEYS", "*")) {
		if strings.Contains(server.Do("DUMP", key), text) {
			keys = append(keys, key)
		}
	}
	return keys
}
