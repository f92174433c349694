package redis_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"parley/core/chat"
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

func TestForgotten(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	a := node(t, quick(server.URL()), journalredis.Defaults())
	b := node(t, quick(server.URL()), journalredis.Defaults())
	if err := a.Forget(within(t), nil, ""); err != nil {
		t.Fatal(err)
	}
	if err := a.Forget(within(t), []chat.MessageID{"m1", "m 2"}, "ann"); err != nil {
		t.Fatal(err)
	}
	got, err := b.Forgotten(within(t), 0, 0, 10)
	if err != nil || len(got) != 3 {
		t.Fatalf("got %+v, %v, want three", got, err)
	}
	at := got[0].At
	want := []journal.Forgotten{{ID: "m 2", At: at}, {ID: "m1", At: at}, {User: "ann", At: at}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, err := b.Forgotten(within(t), at, 2, 10); err != nil || len(got) != 1 {
		t.Errorf("behind two: got %+v, %v", got, err)
	}
	if got, err := b.Forgotten(within(t), at+1, 0, 10); err != nil || len(got) != 0 {
		t.Errorf("later ones: got %+v, %v", got, err)
	}
}
