package presence_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"parley/core/chat"
	"parley/core/presence"
	"parley/core/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// board is a room that keeps what is announced in it.
type board struct {
	mu   sync.Mutex
	seen []wire.PresenceEvent
}

func (b *board) Announce(f wire.Frame, except chat.UserID) {
	var e wire.PresenceEvent
	if err := json.Unmarshal(f.JSON(), &e); err != nil {
		panic(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if e.Type == wire.Typing {
		e.Event, e.User = "typing", e.User+", but not to "+except
	} else if except != "" {
		panic("presence kept from " + except)
	}
	b.seen = append(b.seen, e)
}

// taken returns what was announced since it was called last, as
// "event user count".
func (b *board) taken() (out []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.seen {
		if e.Event == "typing" {
			out = append(out, fmt.Sprintf("typing %s", e.User))
			continue
		}
		out = append(out, fmt.Sprintf("%s %s %d", e.Event, e.User, e.Count))
	}
	b.seen = nil
	return out
}

func (b *board) check(t *testing.T, want ...string) {
	t.Helper()
	if got := b.taken(); !slices.Equal(got, want) {
		t.Errorf("got announced %q, want %q", got, want)
	}
}

func TestUsersAreAnnouncedOncePerUser(t *testing.T) {
	tr, lobby, other := presence.New(), new(board), new(board)
	if n := tr.Join("lobby", "ann", lobby); n != 1 {
		t.Errorf("got %d, want 1", n)
	}
	lobby.check(t, "join ann 1")
	if n := tr.Join("lobby", "ann", lobby); n != 1 { // her telephone
		t.Errorf("got %d for the second connection, want 1", n)
	}
	if n := tr.Join("lobby", "bob", lobby); n != 2 {
		t.Errorf("got %d, want 2", n)
	}
	lobby.check(t, "join bob 2")
	tr.Join("other", "ann", other)
	other.check(t, "join ann 1")
	tr.Leave("lobby", "ann")
	lobby.check(t)
	tr.Leave("lobby", "ann")
	lobby.check(t, "leave ann 1")
	tr.Leave("lobby", "ann") // not there
	tr.Leave("nowhere", "ann")
	lobby.check(t)
	count, users := tr.Members(t.Context(), "lobby")
	if count != 1 || !slices.Equal(users, []chat.UserID{"bob"}) || tr.Count("lobby") != 1 {
		t.Errorf("got %d %v, count %d, want bob", count, users, tr.Count("lobby"))
	}
	tr.Leave("lobby", "bob") // nobody is left to be told
	lobby.check(t)
	if count, users := tr.Members(t.Context(), "lobby"); count != 0 || users != nil || tr.Count("lobby") != 0 {
		t.Errorf("got %d %v, want nobody", count, users)
	}
	if tr.Count("other") != 1 {
		t.Error("leaving one room left the other")
	}
}

func TestMembersAreSorted(t *testing.T) {
	tr, b := presence.New(), new(board)
	for _, u := range []chat.UserID{"mia", "ann", "zoe", "bob"} {
		tr.Join("lobby", u, b)
	}
	if _, users := tr.Members(t.Context(), "lobby"); !slices.Equal(users, []chat.UserID{"ann", "bob", "mia", "zoe"}) {
		t.Errorf("got %v", users)
	}
}

func name(i int) chat.UserID { return chat.UserID(fmt.Sprint("user-", i)) }

func TestLargeRoomsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, b := presence.New(), new(board)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- tr.Run(ctx) }()
		for i := range presence.NameLimit {
			tr.Join("lobby", name(i), b)
		}
		if got := b.taken(); len(got) != presence.NameLimit || got[presence.NameLimit-1] != "join user-199 200" {
			t.Errorf("got %d announcements, the last %q, want each by name up to the limit", len(got), got[len(got)-1])
		}
		if n, users := tr.Members(t.Context(), "lobby"); n != presence.NameLimit || len(users) != n {
			t.Errorf("got %d and %d names at the limit, want both 200", n, len(users))
		}
		second := func() { time.Sleep(time.Second); synctest.Wait() }
		second()
		b.check(t)

		for i := range 100 { // beyond it nobody is named, and the count comes once a second
			tr.Join("lobby", name(presence.NameLimit+i), b)
		}
		b.check(t)
		if n, users := tr.Members(t.Context(), "lobby"); n != 300 || users != nil {
			t.Errorf("got %d and %v above the limit, want 300 without names", n, users)
		}
		second()
		b.check(t, "count  300")
		second()
		b.check(t) // nothing has changed
		tr.Leave("lobby", name(0))
		tr.Leave("lobby", name(1))
		second()
		b.check(t, "count  298")

		for i := 2; i < 101; i++ { // down to the limit plus one
			tr.Leave("lobby", name(i))
		}
		b.taken()
		if n := tr.Count("lobby"); n != 199 {
			t.Fatalf("got %d, want 199", n)
		}
		tr.Join("lobby", "back", b)
		b.check(t, "join back 200")
		tr.Leave("lobby", "back")
		b.check(t, "leave back 199")
		second()
		b.taken()

		// A room that empties before its count is announced is forgotten.
		for i := range presence.NameLimit + 1 {
			tr.Join("brief", name(i), b)
		}
		b.taken()
		for i := range presence.NameLimit + 1 {
			tr.Leave("brief", name(i))
		}
		b.taken()
		second()
		b.check(t)
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
	})
}

// The room behind a name may be another value after it was out of memory.
func TestTheNewestRoomIsTold(t *testing.T) {
	tr, old, now := presence.New(), new(board), new(board)
	tr.Join("lobby", "ann", old)
	old.taken()
	tr.Join("lobby", "bob", now)
	old.check(t)
	now.check(t, "join bob 2")
	tr.Leave("lobby", "ann")
	now.check(t, "leave ann 1")
}

func TestFromManyGoroutines(t *testing.T) {
	tr, b := presence.New(), new(board)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for range 200 {
				tr.Join("lobby", name(i%4), b)
				tr.Members(t.Context(), "lobby")
				tr.Leave("lobby", name(i%4))
			}
		})
	}
	wg.Wait()
	if n := tr.Count("lobby"); n != 0 {
		t.Errorf("got %d left, want none", n)
	}
}

func BenchmarkJoinLeave(b *testing.B) {
	tr := presence.New()
	tr.Join("lobby", "somebody", silent{})
	b.ReportAllocs()
	for b.Loop() {
		tr.Join("lobby", "ann", silent{})
		tr.Leave("lobby", "ann")
	}
}

type silent struct{}

func (silent) Announce(wire.Frame, chat.UserID) {}
