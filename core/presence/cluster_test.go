package presence_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/chat"
	"parley/core/presence"
)

// others notes what a tracker asks of the other nodes.
type others struct {
	mu    sync.Mutex
	asked []string
}

func (o *others) note(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, fmt.Sprintf(format, args...))
}

func (o *others) Follow(id chat.RoomID)                { o.note("follow %s", id) }
func (o *others) Changed(id chat.RoomID)               { o.note("changed %s", id) }
func (o *others) Typing(id chat.RoomID, u chat.UserID) { o.note("typing %s %s", id, u) }

func (o *others) check(t *testing.T, want ...string) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if !slices.Equal(o.asked, want) {
		t.Errorf("got %q asked of the others, want %q", o.asked, want)
	}
	o.asked = nil
}

// node writes registers as another node would.
type node struct {
	name    presence.Node
	version uint64
}

func (n *node) says(tr *presence.Tracker, users ...chat.UserID) {
	n.version++
	tr.Put("lobby", n.name, presence.Register{Version: n.version, Count: len(users), Users: users})
}

func (n *node) counts(tr *presence.Tracker, count int) {
	n.version++
	tr.Put("lobby", n.name, presence.Register{Version: n.version, Count: count})
}

// shared returns a tracker of a cluster that has ann in the lobby, and has
// read it.
func shared(t *testing.T) (*presence.Tracker, *others, *board) {
	t.Helper()
	tr, o, b := presence.New(), new(others), new(board)
	tr.Share(o)
	tr.Join("lobby", "ann", b)
	tr.Loaded("lobby")
	b.check(t, "join ann 1")
	o.check(t, "changed lobby")
	return tr, o, b
}

func checkMembers(t *testing.T, tr *presence.Tracker, want ...chat.UserID) {
	t.Helper()
	n, users := tr.Members(t.Context(), "lobby")
	if n != len(want) || !slices.Equal(users, want) || tr.Count("lobby") != n {
		t.Errorf("got %d members %v, count %d, want %v", n, users, tr.Count("lobby"), want)
	}
}

func TestUserOnTwoNodesIsOneMember(t *testing.T) {
	tr, o, b := shared(t)
	x, y := &node{name: "x"}, &node{name: "y"}
	x.says(tr, "bob")
	b.check(t, "join bob 2")
	y.says(tr, "ann", "bob", "zoe")
	b.check(t, "join zoe 3")
	tr.Join("lobby", "bob", b) // and here as well
	b.check(t)
	checkMembers(t, tr, "ann", "bob", "zoe")
	tr.Leave("lobby", "ann") // not everywhere
	b.check(t)
	x.says(tr)
	b.check(t)
	y.says(tr, "ann", "zoe")
	b.check(t)
	checkMembers(t, tr, "ann", "bob", "zoe")
	y.says(tr, "zoe")
	b.check(t, "leave ann 2")
	tr.Drop("lobby", "y")
	b.check(t, "leave zoe 1")
	tr.Drop("lobby", "y")
	tr.Drop("nowhere", "y")
	b.check(t)
	checkMembers(t, tr, "bob")
	o.check(t, "changed lobby", "follow lobby", "changed lobby", "follow lobby", "follow lobby")
}

func TestOlderRegistersAreIgnored(t *testing.T) {
	tr, _, b := shared(t)
	put := func(version uint64, users ...chat.UserID) {
		tr.Put("lobby", "x", presence.Register{Version: version, Count: len(users), Users: users})
	}
	put(7, "bob")
	b.check(t, "join bob 2")
	put(6, "eve")
	put(7, "eve")
	b.check(t)
	put(9) // nobody is left there
	b.check(t, "leave bob 1")
	put(8, "bob") // read before that was written
	b.check(t)
	if got := tr.Nodes("lobby"); len(got) != 0 {
		t.Errorf("got registers of %v that count somebody, want none", got)
	}
	put(10, "bob")
	b.check(t, "join bob 2")
	if got := tr.Nodes("lobby"); len(got) != 1 || got["x"] != 10 {
		t.Errorf("got %v, want version 10 of x", got)
	}
	put2 := presence.Register{Version: 1, Count: 1, Users: []chat.UserID{"bob"}}
	tr.Put("elsewhere", "x", put2) // a room that is not followed
	if tr.Count("elsewhere") != 0 || tr.Nodes("elsewhere") != nil {
		t.Error("a room that nobody follows was taken")
	}
}

// A node that dies is forgotten in every room, and everybody there is told of
// each of its users once.
func TestNodeDies(t *testing.T) {
	tr, _, lobby := shared(t)
	tea := new(board)
	tr.Join("tea", "ann", tea)
	tr.Loaded("tea")
	tea.taken()
	tr.Put("lobby", "x", presence.Register{Version: 1, Count: 2, Users: []chat.UserID{"bob", "eve"}})
	tr.Put("tea", "x", presence.Register{Version: 2, Count: 1, Users: []chat.UserID{"bob"}})
	tr.Put("tea", "y", presence.Register{Version: 1, Count: 1, Users: []chat.UserID{"bob"}})
	lobby.taken()
	tea.taken()
	rooms := tr.Gone("x")
	slices.Sort(rooms)
	if !slices.Equal(rooms, []chat.RoomID{"lobby", "tea"}) {
		t.Errorf("got it gone in %v", rooms)
	}
	lobby.check(t, "leave bob 2", "leave eve 1")
	tea.check(t) // bob has another connection
	if rooms := tr.Gone("x"); rooms != nil {
		t.Errorf("a node died twice, in %v", rooms)
	}
	lobby.check(t)
	tr.Gone("y")
	tea.check(t, "leave bob 1")
}

// What other nodes say while a room is being read is one count for those who
// are here, and not a storm of names.
func TestFirstRead(t *testing.T) {
	tr, o, b := presence.New(), new(others), new(board)
	tr.Share(o)
	if n := tr.Join("lobby", "ann", b); n != 1 {
		t.Errorf("got %d, want 1", n)
	}
	b.check(t, "join ann 1")
	x, y := &node{name: "x"}, &node{name: "y"}
	x.says(tr, "bob", "eve")
	y.counts(tr, 300)
	y.says(tr, "zoe")
	b.check(t)
	tr.Loaded("lobby")
	b.check(t, "count  4")
	tr.Loaded("lobby")
	b.check(t)
	x.says(tr, "bob")
	b.check(t, "leave eve 3")
	tr.Join("lobby", "mia", b)
	b.check(t, "join mia 4")

	alone := new(board)
	tr.Join("tea", "ann", alone)
	alone.taken()
	tr.Loaded("tea")
	alone.check(t) // they were told the truth
	tr.Loaded("nowhere")
}

func TestMembersWaitsForTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, o := presence.New(), new(others)
		tr.Share(o)
		began := time.Now()
		type answer struct {
			n     int
			users []chat.UserID
		}
		got := make(chan answer)
		ask := func(ctx context.Context) {
			n, users := tr.Members(ctx, "lobby")
			got <- answer{n, users}
		}
		go ask(t.Context())
		synctest.Wait()
		tr.Put("lobby", "x", presence.Register{Version: 1, Count: 2, Users: []chat.UserID{"bob", "eve"}})
		tr.Loaded("lobby")
		if a := <-got; a.n != 2 || !slices.Equal(a.users, []chat.UserID{"bob", "eve"}) || time.Since(began) != 0 {
			t.Errorf("got %+v after %v, want bob and eve at once", a, time.Since(began))
		}
		o.check(t, "follow lobby")
		go ask(t.Context())
		if a := <-got; a.n != 2 || time.Since(began) != 0 {
			t.Errorf("got %+v after %v, want two at once", a, time.Since(began))
		}
		if n, _ := tr.Members(t.Context(), "silent"); n != 0 || time.Since(began) != time.Second {
			t.Errorf("got %d after %v, want none after a second", n, time.Since(began))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if n, _ := tr.Members(ctx, "hurried"); n != 0 || time.Since(began) != time.Second {
			t.Errorf("got %d after %v, want none at once", n, time.Since(began))
		}
		// A room is forgotten when nobody is there, which ends a wait as well.
		b := new(board)
		tr.Join("lobby", "ann", b)
		b.check(t, "join ann 3")
		forgot := 0
		forget := func(id chat.RoomID) bool { return tr.Forget(id, func() { forgot++ }) }
		if forget("lobby") || forgot != 0 {
			t.Error("a room was forgotten with somebody in it")
		}
		tr.Leave("lobby", "ann")
		if !forget("lobby") || !forget("nowhere") || forgot != 2 || tr.Count("lobby") != 0 {
			t.Errorf("got %d forgotten, want 2", forgot)
		}
		go func() { n, _ := tr.Members(t.Context(), "brief"); got <- answer{n: n} }()
		synctest.Wait()
		at := time.Now()
		if !forget("brief") {
			t.Error("brief was kept")
		}
		if a := <-got; a.n != 0 || time.Since(at) != 0 {
			t.Errorf("got %+v after %v", a, time.Since(at))
		}
		b.check(t)
	})
}

// The limit holds for the sum over all nodes, and registers without names are
// counted.
func TestLargeRoomsAcrossNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, o, b := presence.New(), new(others), new(board)
		tr.Share(o)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- tr.Run(ctx) }()
		second := func() { time.Sleep(time.Second); synctest.Wait() }
		tr.Join("lobby", "ann", b)
		tr.Loaded("lobby")
		b.taken()
		x, y := &node{name: "x"}, &node{name: "y"}
		var many []chat.UserID
		for i := range 150 {
			many = append(many, name(i))
		}
		x.says(tr, many...)
		if got := b.taken(); len(got) != 150 || got[149] != "join user-149 151" {
			t.Errorf("got %d announced, the last %q", len(got), got[len(got)-1])
		}
		y.says(tr, "u1", "u2", "user-0")
		b.check(t, "join u1 152", "join u2 153")
		y.counts(tr, 5000)
		b.check(t)
		second()
		b.check(t, "count  5151")
		if n, users := tr.Members(ctx, "lobby"); n != 5151 || users != nil {
			t.Errorf("got %d and %v, want 5151 without names", n, users)
		}
		if n := tr.Join("lobby", "bob", b); n != 5152 {
			t.Errorf("got %d, want 5152", n)
		}
		y.counts(tr, 5001)
		y.counts(tr, 4999)
		second()
		b.check(t, "count  5151")
		y.counts(tr, 4999)
		second()
		b.check(t) // as many as before
		y.says(tr, "u1", "user-0")
		second()
		b.check(t, "count  153")
		tr.Drop("lobby", "x")
		if got := b.taken(); len(got) != 149 || got[148] != "leave user-149 4" {
			t.Errorf("got %d announced, the last %q, want all but user-0, who is at y too", len(got), got[len(got)-1])
		}
		for i := range presence.NameLimit { // a large room here is one for the others too
			tr.Join("lobby", name(i), b)
		}
		b.taken()
		if g := tr.Local("lobby"); g.Count != 202 || g.Users != nil {
			t.Errorf("got a register of %d with %d names, want 202 without", g.Count, len(g.Users))
		}
		y.says(tr, "u1")
		second()
		b.check(t, "count  203")
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestLocalIsWhoIsHere(t *testing.T) {
	tr, _, b := shared(t)
	tr.Join("lobby", "bob", b)
	tr.Put("lobby", "x", presence.Register{Version: 1, Count: 1, Users: []chat.UserID{"eve"}})
	g := tr.Local("lobby")
	slices.Sort(g.Users)
	if g.Count != 2 || !slices.Equal(g.Users, []chat.UserID{"ann", "bob"}) || g.Version != 0 {
		t.Errorf("got %+v, want ann and bob", g)
	}
	if g := tr.Local("nowhere"); g.Count != 0 || g.Users != nil {
		t.Errorf("got %+v of an empty room", g)
	}
}

func TestTyping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, o, b := shared(t)
		tr.Join("lobby", "bob", b)
		tr.Put("lobby", "x", presence.Register{Version: 1, Count: 1, Users: []chat.UserID{"eve"}})
		b.taken()
		o.check(t, "changed lobby")
		tr.Typing("lobby", "ann")
		b.check(t, "typing ann, but not to ann")
		o.check(t, "typing lobby ann")
		tr.Typing("lobby", "ann") // too soon
		tr.Typing("lobby", "eve") // not connected here
		tr.Typing("nowhere", "ann")
		tr.TypingElsewhere("lobby", "zoe") // nobody said that zoe is there
		tr.TypingElsewhere("nowhere", "eve")
		b.check(t)
		tr.TypingElsewhere("lobby", "eve")
		b.check(t, "typing eve, but not to eve")
		tr.TypingElsewhere("lobby", "eve")
		b.check(t)
		o.check(t) // what another node said is not said again
		time.Sleep(3 * time.Second)
		tr.Typing("lobby", "ann")
		tr.TypingElsewhere("lobby", "eve")
		b.check(t, "typing ann, but not to ann", "typing eve, but not to eve")

		tr.Put("lobby", "x", presence.Register{Version: 2, Count: 300}) // more than are named
		time.Sleep(3 * time.Second)
		tr.Typing("lobby", "ann")
		b.check(t)
		tr.Leave("lobby", "ann")
		tr.Leave("lobby", "bob")
		tr.Put("lobby", "x", presence.Register{Version: 3, Count: 1, Users: []chat.UserID{"eve"}})
		tr.TypingElsewhere("lobby", "eve") // nobody is here to see it
		b.check(t)
	})
}

// A room in which names come and go cannot make the memory of who wrote grow
// without end.
func TestTypingOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, b := presence.New(), new(board)
		tr.Share(new(others))
		tr.Join("lobby", "ann", b)
		tr.Loaded("lobby")
		n := 0
		for i := range 300 {
			tr.Put("lobby", "x", presence.Register{Version: uint64(i + 1), Count: 1, Users: []chat.UserID{name(i)}})
			b.taken()
			tr.TypingElsewhere("lobby", name(i))
			n += len(b.taken())
		}
		if n != presence.NameLimit {
			t.Errorf("got %d announced within an instant, want %d", n, presence.NameLimit)
		}
		time.Sleep(3 * time.Second)
		tr.Typing("lobby", "ann")
		b.check(t, "typing ann, but not to ann")
	})
}

// Two trackers that are told of each other at random moments agree in the end,
// and each has announced exactly what changed for its members.
func TestTrackersAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := []*presence.Tracker{presence.New(), presence.New()}
		bs := []*board{new(board), new(board)}
		versions := []uint64{0, 0}
		exchange := func(i int) {
			g := ts[i].Local("lobby")
			versions[i]++
			g.Version = versions[i]
			ts[1-i].Put("lobby", presence.Node(fmt.Sprint(i)), g)
		}
		for i := range ts {
			ts[i].Share(new(others))
			ts[i].Join("lobby", chat.UserID(fmt.Sprint("watcher", i)), bs[i])
			ts[i].Loaded("lobby")
		}
		exchange(0)
		exchange(1)
		here := []map[string]bool{{}, {}} // as the announcements say
		follow := func() {
			for i, b := range bs {
				for _, line := range b.taken() {
					var event, user string
					var n int
					if _, err := fmt.Sscan(line, &event, &user, &n); err != nil {
						t.Fatal(err)
					}
					if here[i][user] == (event == "join") {
						t.Fatalf("tracker %d announced %q to those who knew", i, line)
					}
					here[i][user] = event == "join"
				}
			}
		}
		follow()
		conns := map[string]int{}
		for step := range 4000 {
			i, u := step*7%13%2, name(step*5%11)
			switch key := fmt.Sprint(i, u); {
			case step*11%17 < 5:
				exchange(i)
			case step*3%7 < 3 && conns[key] > 0:
				conns[key]--
				ts[i].Leave("lobby", u)
			default:
				conns[key]++
				ts[i].Join("lobby", u, bs[i])
			}
			follow()
		}
		exchange(0)
		exchange(1)
		follow()
		_, a := ts[0].Members(t.Context(), "lobby")
		_, b := ts[1].Members(t.Context(), "lobby")
		if !slices.Equal(a, b) || len(a) < 3 {
			t.Errorf("the trackers see %v and %v", a, b)
		}
		for i := range here {
			for _, u := range a {
				if !here[i][string(u)] && string(u) != fmt.Sprint("watcher", i) {
					t.Errorf("tracker %d did not announce %s", i, u)
				}
			}
		}
	})
}

func BenchmarkJoinLeaveShared(b *testing.B) {
	tr := presence.New()
	tr.Share(new(quiet))
	tr.Join("lobby", "somebody", silent{})
	tr.Loaded("lobby")
	b.ReportAllocs()
	for b.Loop() {
		tr.Join("lobby", "ann", silent{})
		tr.Leave("lobby", "ann")
	}
}

// quiet has nobody to tell.
type quiet struct{}

func (quiet) Follow(chat.RoomID)              {}
func (quiet) Changed(chat.RoomID)             {}
func (quiet) Typing(chat.RoomID, chat.UserID) {}
