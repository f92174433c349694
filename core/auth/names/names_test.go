package names

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/auth"
	"parley/core/chat"
	rds "parley/core/redis"
	"parley/core/redis/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is what one server process has of guests.
type node struct {
	t      *testing.T
	names  *Names
	guests *auth.Guests
	own    []byte
	run    func()
	stop   func()
}

// newNode starts a node on the store at url, with a key of its own, which knows
// some registered users.
func newNode(t *testing.T, url string, cfg Config, known ...auth.Registered) *node {
	t.Helper()
	n := makeNode(t, url, cfg, known...)
	n.run()
	return n
}

// makeNode does the same and does not run it yet.
func makeNode(t *testing.T, url string, cfg Config, known ...auth.Registered) *node {
	t.Helper()
	rc := rds.Defaults()
	rc.URL = url
	rc.DialTimeout, rc.CallTimeout, rc.ProbeTimeout = redistest.Patience, redistest.Patience, redistest.Patience
	client, err := rds.Open(rc, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, own: []byte(strings.Repeat(fmt.Sprint(keys.Add(1)%10), 32))}
	if n.names, err = New(cfg, client, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if n.guests, err = auth.NewGuests(auth.GuestsConfig{Key: n.own, Names: n.names}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var ran sync.WaitGroup
	n.stop = sync.OnceFunc(func() { cancel(); ran.Wait(); client.Close() })
	t.Cleanup(n.stop)
	n.run = func() {
		ran.Go(func() {
			_ = n.names.Run(ctx, Local{Guests: n.guests, Key: n.own, Known: func() []auth.Registered { return known }})
		})
	}
	return n
}

var keys atomic.Int64

func (n *node) enter(name, secret string) *auth.Seat {
	n.t.Helper()
	seat, err := n.guests.Enter(chat.UserID(name), secret, nil)
	if err != nil {
		n.t.Fatalf("enter as %s: %v", name, err)
	}
	return seat
}

var eventually = redistest.Await

// patient is a config that waits for Redis as long as a busy machine needs, renews
// often, and holds a name for longer than that machine stands still.
func patient() Config {
	return Config{Hold: time.Hour, Renew: 100 * time.Millisecond, Timeout: redistest.Patience}
}

// sharing waits until a guest of node a can come back at node b: which node's key
// is everybody's is not known from the start. It returns a seat that was left.
func sharing(t *testing.T, a, b *node, name string) *auth.Seat {
	t.Helper()
	seat := a.enter(name, "")
	seat.Leave(true)
	eventually(t, "the nodes share a key", func() bool {
		seat = a.enter(name, seat.Secret)
		defer seat.Leave(true)
		again, err := b.guests.Enter(chat.UserID(name), seat.Secret, nil)
		if err != nil {
			return false
		}
		defer again.Leave(true)
		return again.Resumed
	})
	return seat
}

// TestBackAtANewNode: a guest comes back to the name at a node that has begun
// and does not run yet.
func TestBackAtANewNode(t *testing.T) {
	store := redistest.Start(t, redistest.Options{})
	a, b := makeNode(t, store.URL(), patient()), makeNode(t, store.URL(), patient())
	for _, n := range []*node{a, b} {
		n.names.Begin(t.Context(), Local{Guests: n.guests, Key: n.own})
	}
	ann := a.enter("ann", "")
	again, err := b.guests.Enter("ann", ann.Secret, nil)
	if err != nil || !again.Resumed {
		t.Fatalf("at the other node: got %+v, %v; want the name back", again, err)
	}
	b.names.Begin(t.Context(), Local{}) // no guests: nothing to share
	a.run()
	b.run()
}

// TestOneNameOneGuest lets a guest have a name at one node: another cannot have
// it at a second, the guest comes back to it there, and nobody gets it while the
// guest stays, however long.
func TestOneNameOneGuest(t *testing.T) { redistest.Each(t, redistest.Options{}, oneNameOneGuest) }

func oneNameOneGuest(t *testing.T, store redistest.Store) {
	a, b := newNode(t, store.URL(), patient()), newNode(t, store.URL(), patient())
	ann := sharing(t, a, b, "ann")
	ann = a.enter("ann", ann.Secret)
	if _, err := b.guests.Enter("ann", "", nil); err == nil || !strings.Contains(err.Error(), "name_taken") {
		t.Errorf("a second guest: got %v, want name_taken", err)
	}
	c := newNode(t, store.URL(), patient())
	eventually(t, "a third node refuses the name by what it is told", func() bool {
		_, err := c.guests.Enter("ann", "", nil)
		return err != nil && strings.Contains(err.Error(), `"ann" is in use`)
	})
	if again := b.enter("ann", ann.Secret); !again.Resumed {
		t.Error("the guest came back to another name")
	}
	if made := b.enter("", ""); made.Identity.User == "" {
		t.Error("no name was made up")
	}
	left := func() (ms int64) { // until the claim ends
		if _, err := fmt.Sscan(store.Do("PTTL", "parley:{u:ann}:name"), &ms); err != nil {
			t.Fatal(err)
		}
		return ms
	}
	last := left()
	for range 3 {
		eventually(t, "the claim is renewed", func() bool { // then its end moves away
			was := last
			last = left()
			return last > was
		})
		if _, err := b.guests.Enter("Ann", "", nil); err == nil {
			t.Fatal("the name was given to another while its guest was here")
		}
	}
}

// TestTheNameOfWhoIsGone is free when its node is no longer heard of.
func TestTheNameOfWhoIsGone(t *testing.T) { redistest.Each(t, redistest.Options{}, theNameOfWhoIsGone) }

func theNameOfWhoIsGone(t *testing.T, store redistest.Store) {
	cfg := patient()
	cfg.Hold = 3 * time.Second
	a, b := newNode(t, store.URL(), cfg), newNode(t, store.URL(), cfg)
	a.enter("ann", "")
	if _, err := b.guests.Enter("ann", "", nil); err == nil {
		t.Fatal("two guests have one name")
	}
	a.stop()
	eventually(t, "the name is free", func() bool {
		_, err := b.guests.Enter("ann", "", nil)
		return err == nil
	})
}

// TestARegisteredUserTakesTheName evicts the guest who has it, on whichever node,
// and keeps it from guests for good.
func TestARegisteredUserTakesTheName(t *testing.T) {
	redistest.Each(t, redistest.Options{}, aRegisteredUserTakesTheName)
}

func aRegisteredUserTakesTheName(t *testing.T, store redistest.Store) {
	a, b := newNode(t, store.URL(), patient()), newNode(t, store.URL(), patient())
	eventually(t, "node a listens", func() bool { return !a.names.sub.Stats().Heard.IsZero() })
	evicted := make(chan struct{})
	if _, err := a.guests.Enter("olga", "", func() { close(evicted) }); err != nil {
		t.Fatal(err)
	}
	since := time.Unix(1_700_000_000, 0)
	if first, err := b.names.Own("olga", since); err != nil || !first.Equal(since) {
		t.Fatalf("own: got %v, %v", first, err)
	}
	select {
	case <-evicted:
	case <-time.After(time.Minute):
		t.Fatal("the guest was not evicted")
	}
	for name, want := range map[string]bool{"olga": true, "nobody": false} {
		if known, err := a.names.Registered(t.Context(), name); known != want || err != nil {
			t.Errorf("%s is registered: got %v, %v, want %v", name, known, err, want)
		}
	}
	for _, n := range []*node{a, b} {
		if _, err := n.guests.Enter("olga", "", nil); err == nil || !strings.Contains(err.Error(), "registered user") {
			t.Errorf("a guest as olga: got %v", err)
		}
	}
	for _, later := range []time.Time{since.Add(time.Hour), since.Add(-time.Hour), since} {
		first, err := a.names.Own("olga", later)
		if want := since.Add(-time.Hour); err != nil || !later.After(since) && !first.Equal(want) || later.After(since) && !first.Equal(since) {
			t.Errorf("own since %v: got %v, %v", later, first, err)
		}
	}
}

// TestARefusedGuestKeepsNoName: who was never told the secret of a name leaves it
// free, at once and at every node.
func TestARefusedGuestKeepsNoName(t *testing.T) {
	redistest.Each(t, redistest.Options{}, aRefusedGuestKeepsNoName)
}

func aRefusedGuestKeepsNoName(t *testing.T, store redistest.Store) {
	cfg := patient()
	cfg.Renew = 20 * time.Minute // see TestANameThatIsGivenBackWhileItIsRenewed
	a, b := newNode(t, store.URL(), cfg), newNode(t, store.URL(), cfg)
	a.enter("ann", "").Leave(false)
	a.enter("ann", "").Leave(false) // the same person, once more
	ann := b.enter("ann", "")
	b.names.Release("ann", [auth.NonceBytes]byte{}) // of somebody else's claim
	if _, err := a.guests.Enter("ann", "", nil); err == nil || !strings.Contains(err.Error(), "name_taken") {
		t.Errorf("got %v, want the name taken", err)
	}
	ann.Leave(true)
	if _, err := a.guests.Enter("ann", "", nil); err == nil || !strings.Contains(err.Error(), "name_taken") {
		t.Errorf("within grace: got %v, want the name taken", err)
	}
}

// TestANameThatIsGivenBackWhileItIsRenewed: the renewal, which claims it anew, does
// not keep it from the others.
func TestANameThatIsGivenBackWhileItIsRenewed(t *testing.T) {
	store := redistest.Start(t, redistest.Options{})
	cfg := patient()
	cfg.Renew = 20 * time.Minute
	a, b := newNode(t, store.URL(), cfg), newNode(t, store.URL(), cfg)
	ann, bob := a.enter("ann", ""), a.enter("bob", "")
	held := a.guests.Held() // a renewal begins
	ann.Leave(false)
	for _, h := range held {
		if who, err := a.names.Hold(h.Folded, h.Nonce); err != nil || who != auth.Caller {
			t.Fatalf("renew %s: got %v, %v", h.Folded, who, err)
		}
	}
	a.names.releaseLeft(t.Context(), a.guests, held)
	b.enter("ann", "")
	if _, err := b.guests.Enter("bob", "", nil); err == nil || !strings.Contains(err.Error(), "name_taken") {
		t.Errorf("who has stayed: got %v, want the name taken", err)
	}
	bob.Leave(false)
}

// TestRegisteredUsersAreKnownEverywhere, also those who do not come: no guest of
// another node has their names, and Redis is told again when it forgot them.
func TestRegisteredUsersAreKnownEverywhere(t *testing.T) {
	redistest.Each(t, redistest.Options{}, registeredUsersAreKnownEverywhere)
}

func registeredUsersAreKnownEverywhere(t *testing.T, store redistest.Store) {
	since := time.Unix(1_700_000_000, 0)
	users := []auth.Registered{{Folded: "olga", Since: since}, {Folded: "old"}}
	for i := range 2 * renewBatch {
		users = append(users, auth.Registered{Folded: fmt.Sprint("u", i), Since: since})
	}
	a, b := newNode(t, store.URL(), patient(), users...), newNode(t, store.URL(), patient())
	refused := func(name string) func() bool {
		return func() bool {
			seat, err := b.guests.Enter(chat.UserID(name), "", nil)
			if err == nil {
				seat.Leave(false)
				return false
			}
			return strings.Contains(err.Error(), "registered user")
		}
	}
	for _, name := range []string{"olga", "old", fmt.Sprint("u", 2*renewBatch-1)} {
		eventually(t, "node b refuses a guest as "+name, refused(name))
	}
	if first, err := b.names.Own("old", since); err != nil || !first.IsZero() {
		t.Errorf("known for longer than anybody knows: got %v, %v", first, err)
	}
	if first, err := b.names.Own("olga", time.Time{}); err != nil || !first.IsZero() {
		t.Errorf("known elsewhere for longer than anybody knows: got %v, %v", first, err)
	}
	sharing(t, a, b, "kim")
	key := store.Do("GET", "parley:{guests}:key")
	store.Do("FLUSHALL")
	a.names.Rewrite()
	eventually(t, "node b refuses olga again", refused("olga"))
	eventually(t, "the key is what it was", func() bool { return store.Do("GET", "parley:{guests}:key") == key })
}

// TestWithoutRedis lets people in under this node's own word, and evicts the one
// of two guests who renews later.
func TestWithoutRedis(t *testing.T) { redistest.Each(t, redistest.Options{}, withoutRedis) }

func withoutRedis(t *testing.T, store redistest.Store) {
	cfg := patient()
	cfg.Timeout = 200 * time.Millisecond
	a, b := newNode(t, store.URL(), cfg), newNode(t, store.URL(), cfg)
	a.enter("", "")
	store.Kill()
	gone := make(chan string, 2)
	for name, n := range map[string]*node{"a": a, "b": b} {
		if _, err := n.guests.Enter("ann", "", func() { gone <- name }); err != nil {
			t.Fatalf("node %s: %v", name, err)
		}
	}
	store.Restart()
	select {
	case <-gone:
	case <-time.After(time.Minute):
		t.Fatal("two guests have one name for good")
	}
	select {
	case name := <-gone:
		t.Errorf("the other one was evicted as well, at %s", name)
	default:
	}
}

// TestKey refuses a key that is damaged, and shares the first one.
func TestKey(t *testing.T) { redistest.Each(t, redistest.Options{}, key) }

func key(t *testing.T, store redistest.Store) {
	a := newNode(t, store.URL(), patient())
	key, err := a.names.Key(t.Context(), []byte(strings.Repeat("x", 32)))
	if err != nil || len(key) != 32 {
		t.Fatalf("got %q, %v", key, err)
	}
	for _, bad := range []string{"zz", "", "ab", strings.Repeat("ab", 2000)} {
		if _, err := a.names.client.Do(t.Context(), "set", "parley:{guests}:key", bad); err != nil {
			t.Fatal(err)
		}
		if _, err := a.names.Key(t.Context(), key); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("key %.10q: got %v", bad, err)
		}
	}
}

// FuzzReplies decodes what a stranger at Redis's address may answer.
func FuzzReplies(f *testing.F) {
	for _, s := range []string{"mine", "guest", "user", "1700000000", "1700000000 guest", "0", "-1", "1 2", "", "99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if who, err := owner(s); (err == nil) != (who != auth.Nobody) {
			t.Errorf("%q: got owner %v, %v", s, who, err)
		}
		if since, _, err := owned(s); err == nil && !since.IsZero() && since.Before(time.Unix(0, 0)) {
			t.Errorf("%q: got %v", s, since)
		}
		if who, err := owner([]any{s}); err == nil {
			t.Errorf("a list: got %v", who)
		}
	})
}
