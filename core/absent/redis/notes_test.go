package redis_test

import (
	"slices"
	"strings"
	"testing"

	"parley/core/absent"
	"parley/core/absent/redis"
	"parley/core/redis/redistest"
)

// notesOf lists what a carrier knows to be on its way, sorted.
func notesOf(t *testing.T, c *redis.Carrier) (list []string) {
	t.Helper()
	if err := c.EachNote(t.Context(), func(n *absent.Note) error {
		b, err := absent.AppendNote(nil, n)
		list = append(list, string(b))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}

// TestNotes: what waits anywhere is read, and put into another Redis as it was.
func TestNotes(t *testing.T) {
	store, _, q, c := placed(t)
	store.Do("RPUSH", "p:{lobby}:outbox", "no parcel")
	store.Do("XADD", "p:{absent}:stream", "*", "what", "is this")
	store.Do("XADD", "p:{absent}:dead", "*", "room", "lobby", "seq", "1", "epoch", "e", "id", "x", "from", "ann", "user", "bob", "kind", "mention", "time", "1",
		"reason", strings.Repeat("a reason that no archive can hold", 100))
	want := notesOf(t, c)
	if len(want) != 5 || !strings.Contains(strings.Join(want, ""), `"dead":{"reason":"no","tries":3`) || strings.Count(strings.Join(want, ""), secret) != 5 {
		t.Fatalf("got %q, want two of each message, and of the first the dead letter alone", want)
	}
	var notes []absent.Note
	for _, s := range want {
		n, err := absent.ParseNote([]byte(s))
		if err != nil {
			t.Fatal(err)
		}
		notes = append(notes, n)
	}
	everywhere(t, func(t *testing.T, url string) {
		client := open(t, url)
		other, err := redis.New(redis.Defaults(), client, nil, quiet)
		if err != nil {
			t.Fatal(err)
		}
		if err := other.PutNotes(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if err := other.PutNotes(t.Context(), notes); err != nil {
			t.Fatal(err)
		}
		if got := notesOf(t, other); !slices.Equal(got, want) {
			t.Errorf("got %q\nwant %q", got, want)
		}
		if es := drain(t, redis.NewQueue(client)); len(es) != 4 || es[0].Text != secret {
			t.Errorf("got %+v, want the four that were not dead", es)
		}
	})
	if stream, dead, err := q.Waiting(t.Context()); err != nil || stream != 3 || dead != 2 {
		t.Errorf("%d and %d are left, %v, want what was there", stream, dead, err)
	}
}

// TestNotesMeetOnce: what a carrier has put into the stream and not taken off
// the outbox yet is one note.
func TestNotesMeetOnce(t *testing.T) {
	store := redistest.Start(t, redistest.Options{})
	client := open(t, store.URL())
	j := journalOn(t, client, true)
	confide(t, j, "lobby", "m", "ann")
	parcel := store.Do("LRANGE", "p:{lobby}:outbox", "0", "-1")
	c, stop := carrier(t, client, 1000, nil)
	await(t, "it is carried", func() bool { return store.Do("EXISTS", "p:{lobby}:outbox") == "0" && c.Stats().Carried == 2 })
	stop()
	store.Do("RPUSH", "p:{lobby}:outbox", parcel)
	if got := notesOf(t, c); len(got) != 2 {
		t.Errorf("got %q, want one for each person", got)
	}
}
