package redis_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
	journalredis "parley/core/journal/redis"
	"parley/core/redis/redistest"
)

// site is one deployment: a server and a journal on it.
type site struct {
	*journalredis.Journal
	server *redistest.Server
}

func newSite(t *testing.T) site {
	t.Helper()
	server := redistest.Start(t, redistest.Options{})
	return site{node(t, quick(server.URL()), journalredis.Defaults()), server}
}

// carryFrom carries a room until nothing is left, as a mirror does that begins
// at the given place, and returns how many entries were stored.
func carryFrom(t *testing.T, from, to site, room chat.RoomID, at journal.Position) (sum int) {
	t.Helper()
	ctx := within(t)
	for {
		p, err := from.Parcel(ctx, room, at)
		if err != nil {
			t.Errorf("parcel: %v", err)
			return sum
		}
		if p.Epoch != at.Epoch {
			if at, err = to.Carried(ctx, room, p.Epoch); err != nil {
				t.Errorf("carried: %v", err)
				return sum
			}
			continue
		}
		if len(p.Entries) == 0 && !p.Lost() {
			return sum
		}
		now, stored, err := to.Accept(ctx, room, p)
		if err != nil {
			t.Errorf("accept: %v", err)
			return sum
		}
		at, sum = now, sum+stored
	}
}

func carry(t *testing.T, from, to site, room chat.RoomID) int {
	t.Helper()
	return carryFrom(t, from, to, room, journal.Position{})
}

// settleAll carries every way until nothing moves.
func settleAll(t *testing.T, room chat.RoomID, sites ...site) {
	t.Helper()
	for moved := 1; moved > 0; {
		moved = 0
		for i := range sites {
			for k := range sites {
				if i != k {
					moved += carry(t, sites[i], sites[k], room)
				}
			}
		}
	}
}

// wantSame demands that all sites hold exactly these messages, each once.
func wantSame(t *testing.T, room chat.RoomID, want []chat.MessageID, sites ...site) {
	t.Helper()
	want = slices.Sorted(slices.Values(want))
	for i, s := range sites {
		_, got := ids(t, s, room)
		if got = slices.Sorted(slices.Values(got)); !slices.Equal(got, want) {
			t.Errorf("site %d holds %d entries, want %d: %q, want %q", i, len(got), len(want), short(got), short(want))
		}
	}
}

func short(all []chat.MessageID) []chat.MessageID { return all[:min(len(all), 20)] }

// post appends n messages.
func post(t *testing.T, s site, room chat.RoomID, name string, n int) (all []chat.MessageID) {
	t.Helper()
	for i := range n {
		all = append(all, mustAppend(t, s, message(room, fmt.Sprint(name, i))).ID)
	}
	return all
}

// TestCarriedOnce carries both ways, from any place and by several at once.
func TestCarriedOnce(t *testing.T) {
	a, b := newSite(t), newSite(t)
	all := post(t, a, "lobby", "a", 600)
	all = append(all, post(t, b, "lobby", "b", 10)...)
	heard := follow(t, b, "lobby")
	heard.awaitDoubt(t, 0) // from now on it hears
	heard.await(t, "", nil)
	var carriers sync.WaitGroup
	for range 4 {
		carriers.Go(func() {
			carry(t, a, b, "lobby")
			carry(t, b, a, "lobby")
		})
	}
	carriers.Wait()
	all = append(all, post(t, a, "lobby", "later", 5)...)
	settleAll(t, "lobby", a, b)
	wantSame(t, "lobby", all, a, b)
	if n := carry(t, a, b, "lobby") + carry(t, b, a, "lobby"); n > 0 {
		t.Errorf("carried %d entries again", n)
	}
	// Whoever stands far back is told where to go on, and nothing is stored.
	info, err := a.Info(within(t), "lobby")
	if err != nil {
		t.Fatal(err)
	}
	if n := carryFrom(t, a, b, "lobby", journal.Position{Epoch: info.Top.Epoch}); n > 0 {
		t.Errorf("carried %d entries again, from the beginning", n)
	}
	// Nodes over there hear of it, and what they read is what was posted.
	epoch, order := ids(t, b, "lobby")
	heard.await(t, epoch, order)
	_, here, err := a.Read(within(t), "lobby", 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	_, there, err := b.Read(within(t), "lobby", 10, 1)
	if err != nil {
		t.Fatal(err)
	}
	here[0].Seq, there[0].Seq = 0, 0
	if !reflect.DeepEqual(here, there) {
		t.Errorf("got %+v, want %+v", there, here)
	}
	if got := rooms(t, b, 10); !strings.Contains(got, "lobby") {
		t.Errorf("rooms: got %s", got)
	}
}

// TestRingOfSites has every message come to each site by two ways.
func TestRingOfSites(t *testing.T) {
	sites := []site{newSite(t), newSite(t), newSite(t)}
	var all []chat.MessageID
	for round := range 8 {
		for i, s := range sites {
			all = append(all, post(t, s, "lobby", fmt.Sprint("s", i, "r", round, "-"), rand.IntN(40))...)
			from, to := rand.IntN(3), rand.IntN(3)
			if from != to {
				carry(t, sites[from], sites[to], "lobby")
			}
		}
		for _, s := range sites { // as after an hour: the marks must do
			s.forgetIDs()
		}
	}
	settleAll(t, "lobby", sites...)
	wantSame(t, "lobby", all, sites...)
	for i, s := range sites { // all know one another by now
		s.forgetIDs()
		all = append(all, post(t, s, "lobby", fmt.Sprint("s", i, "last"), 20)...)
	}
	settleAll(t, "lobby", sites...)
	wantSame(t, "lobby", all, sites...)
}

func (s site) forgetIDs() { s.server.Do("DEL", "parley:{lobby}:mirror:ids") }

// TestOldMessagesByAnotherSite: a restored site's messages come under their new
// epoch by a site that had lost them to one that has them.
func TestOldMessagesByAnotherSite(t *testing.T) {
	a, b, c := newSite(t), newSite(t), newSite(t)
	all := post(t, a, "lobby", "a", 20)
	settleAll(t, "lobby", a, b, c)
	a.server.Do("FLUSHALL")
	b.server.Do("FLUSHALL")
	all = append(all, post(t, b, "lobby", "b", 2)...)
	carry(t, b, c, "lobby")
	c.forgetIDs()
	for i := range 20 {
		mustAppend(t, a, message("lobby", fmt.Sprint("a", i)))
	}
	carry(t, a, b, "lobby")
	carry(t, b, c, "lobby")
	wantSame(t, "lobby", all, b, c)
}

// TestNothingIsLeftOut offers a batch to a site that lacks what is before it.
func TestNothingIsLeftOut(t *testing.T) {
	a, b := newSite(t), newSite(t)
	all := post(t, a, "lobby", "a", 20)
	p, err := a.Parcel(within(t), "lobby", journal.Position{Epoch: epochOf(t, a), Seq: 10, ID: all[9]})
	if err != nil || len(p.Entries) != 10 {
		t.Fatalf("got %d entries, %v, want 10", len(p.Entries), err)
	}
	post(t, b, "lobby", "b", 1)
	at, stored, err := b.Accept(within(t), "lobby", p)
	if err != nil || stored != 0 || at.Seq != 0 {
		t.Errorf("got %d stored and position %d, %v, want none and 0", stored, at.Seq, err)
	}
}

// TestChangesMadeWhileCarried has nodes change what is being carried.
func TestChangesMadeWhileCarried(t *testing.T) {
	a, b := newSite(t), newSite(t)
	mustAppend(t, a, change("lobby", "a", "settings", "a"))
	mustAppend(t, b, change("lobby", "b", "settings", "b"))
	done := make(chan struct{})
	var talking, carrying sync.WaitGroup
	for i, s := range []site{a, b} {
		talking.Go(func() {
			for n := range 300 {
				name := fmt.Sprint("s", i, "n", n)
				if _, err := s.Append(within(t), change("lobby", name, "settings", name)); err != nil {
					t.Errorf("append: %v", err)
				}
			}
		})
		carrying.Go(func() {
			for over := false; !over; {
				select {
				case <-done:
					over = true
				default:
				}
				if i == 0 {
					carry(t, a, b, "lobby")
				} else {
					carry(t, b, a, "lobby")
				}
			}
		})
	}
	talking.Wait()
	close(done)
	carrying.Wait()
	settleAll(t, "lobby", a, b)
	want, err := a.Info(within(t), "lobby")
	if err != nil {
		t.Fatal(err)
	}
	wantState(t, string(want.State["settings"]), a, b)
	for i, s := range []site{a, b} {
		_, es, err := s.ReadBefore(within(t), "lobby", 0, 1)
		if err != nil || len(es) != 1 || es[0].Seq != 602 {
			t.Fatalf("site %d: got %+v, %v, want entry 602", i, es, err)
		}
		if got := string(es[0].Changes[0].Value); got != string(want.State["settings"]) {
			t.Errorf("site %d: the last entry says %q, the state %q", i, got, want.State["settings"])
		}
	}
}

// TestChainOfSites has no way between the ends.
func TestChainOfSites(t *testing.T) {
	a, b, c := newSite(t), newSite(t), newSite(t)
	all := append(post(t, a, "lobby", "a", 20), post(t, c, "lobby", "c", 20)...)
	for range 3 {
		settleAll(t, "lobby", a, b)
		settleAll(t, "lobby", b, c)
	}
	wantSame(t, "lobby", all, a, b, c)
}

// TestSourceComesBackWithOldMessages restores a room under a new epoch: what was
// carried before the loss is not carried again.
func TestSourceComesBackWithOldMessages(t *testing.T) {
	a, b := newSite(t), newSite(t)
	all := post(t, a, "lobby", "a", 300)
	all = append(all, post(t, b, "lobby", "b", 30)...)
	settleAll(t, "lobby", a, b)
	a.server.Do("FLUSHALL")
	for _, id := range all[:250] { // as a restore writes them: the same ids, without any marks
		mustAppend(t, a, message("lobby", strings.TrimPrefix(string(id), "id-of-")))
	}
	all = append(all, post(t, a, "lobby", "new", 20)...)
	settleAll(t, "lobby", a, b)
	wantSame(t, "lobby", all, a, b)
}

// TestTargetComesBackEmpty gets back what it had, its own messages too.
func TestTargetComesBackEmpty(t *testing.T) {
	a, b := newSite(t), newSite(t)
	all := post(t, a, "lobby", "a", 300)
	all = append(all, post(t, b, "lobby", "b", 30)...)
	settleAll(t, "lobby", a, b)
	info, err := b.Info(within(t), "lobby")
	if err != nil {
		t.Fatal(err)
	}
	b.server.Do("FLUSHALL")
	settleAll(t, "lobby", a, b)
	wantSame(t, "lobby", all, a, b)
	// A node there that knows the lost log opens another epoch: once more.
	r := message("lobby", "of-a-node")
	r.Known = info.Top
	all = append(all, mustAppend(t, b, r).ID)
	settleAll(t, "lobby", a, b)
	wantSame(t, "lobby", all, a, b)
}

// TestSourceLosesItsTail takes the newest entries from a log that goes on in the
// same epoch, as a failover does when no node has seen them.
func TestSourceLosesItsTail(t *testing.T) {
	a, b := newSite(t), newSite(t)
	all := post(t, a, "lobby", "a", 50)
	settleAll(t, "lobby", a, b)
	for seq := 41; seq <= 50; seq++ {
		a.server.Do("XDEL", "parley:{lobby}:log", fmt.Sprint("0-", seq))
	}
	a.server.Do("HSET", "parley:{lobby}:meta", "top", "40", "id", string(all[39]))
	a.server.Do("XSETID", "parley:{lobby}:log", "0-40")
	all = append(all, post(t, a, "lobby", "anew", 5)...)
	b.forgetIDs()
	carry(t, a, b, "lobby")
	all = append(all, post(t, a, "lobby", "more", 20)...)
	carry(t, a, b, "lobby")
	wantSame(t, "lobby", all, b)
}

// change is an entry that changes one key.
func change(room chat.RoomID, name, key, value string) journal.Request {
	r := message(room, name)
	r.Entry.Kind = journal.KindSettings
	r.Entry.Changes = []journal.Change{{Key: key}}
	if value != "" {
		r.Entry.Changes[0].Value = []byte(value)
	}
	return r
}

// TestChangesEndEqual changes the same keys at all sites, knowing of each other
// or not.
func TestChangesEndEqual(t *testing.T) {
	sites := []site{newSite(t), newSite(t), newSite(t)}
	keys := []string{"settings", "ban/bob", "role/ann"}
	for n := range 60 {
		value := fmt.Sprint("v", n)
		if n%7 == 0 {
			value = "" // deleted
		}
		mustAppend(t, sites[rand.IntN(3)], change("lobby", fmt.Sprint("n", n), keys[rand.IntN(3)], value))
		if from, to := rand.IntN(3), rand.IntN(3); from != to {
			carry(t, sites[from], sites[to], "lobby")
		}
	}
	settleAll(t, "lobby", sites...)
	var want map[string][]byte
	for i, s := range sites {
		info, err := s.Info(within(t), "lobby")
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			want = info.State
		}
		if !reflect.DeepEqual(info.State, want) {
			t.Errorf("site %d: got state %q, want %q", i, info.State, want)
		}
		fold := make(map[string][]byte)
		_, es, err := s.Read(within(t), "lobby", 0, 1000)
		if err != nil || len(es) != 60 {
			t.Fatalf("site %d: got %d entries, %v", i, len(es), err)
		}
		for _, e := range es {
			for _, c := range e.Changes {
				if fold[c.Key] = c.Value; c.Value == nil {
					delete(fold, c.Key)
				}
			}
		}
		if !reflect.DeepEqual(fold, info.State) && len(fold)+len(info.State) > 0 {
			t.Errorf("site %d: its log folds to %q, and its state is %q", i, fold, info.State)
		}
	}
}

// TestTheLaterChangeHolds, and one that knows of another is later.
func TestTheLaterChangeHolds(t *testing.T) {
	a, b := newSite(t), newSite(t)
	mustAppend(t, a, change("lobby", "z-first", "settings", "first"))
	settleAll(t, "lobby", a, b)
	mustAppend(t, b, change("lobby", "a-second", "settings", "second")) // in knowledge of the first
	settleAll(t, "lobby", a, b)
	wantState(t, "second", a, b)
	mustAppend(t, b, change("lobby", "e", "settings", "earlier"))
	mustAppend(t, a, change("lobby", "f", "settings", "later")) // the same millisecond: the greater id
	settleAll(t, "lobby", a, b)
	wantState(t, "later", a, b)
	// A clock that is far behind: what its node decides upon the present state
	// holds all the same.
	for _, s := range []site{a, b} {
		s.server.Do("HSET", "parley:{lobby}:state:stamps", "settings", "9999999999999 x")
	}
	mustAppend(t, a, change("lobby", "c", "settings", "behind"))
	settleAll(t, "lobby", a, b)
	wantState(t, "behind", a, b)
}

// TestARoomMadeAnewTakesNothingBack makes a room at a site after another has had
// and changed it, as a second region does at its first start, and a site that
// has lost everything: what was changed holds.
func TestARoomMadeAnewTakesNothingBack(t *testing.T) {
	a, b := newSite(t), newSite(t)
	made := func(s site, name string) {
		r := change("lobby", name, "settings", "public")
		r.Create = true
		mustAppend(t, s, r)
	}
	made(a, "a-made")
	mustAppend(t, a, change("lobby", "a-changed", "settings", "private"))
	made(b, "z-made")
	settleAll(t, "lobby", a, b)
	wantState(t, "private", a, b)
	b.server.Do("FLUSHALL")
	made(b, "z-again")
	settleAll(t, "lobby", a, b)
	wantState(t, "private", a, b)
	mustAppend(t, b, change("lobby", "b", "settings", "announce"))
	settleAll(t, "lobby", a, b)
	wantState(t, "announce", a, b)
}

func wantState(t *testing.T, want string, sites ...site) {
	t.Helper()
	for i, s := range sites {
		info, err := s.Info(within(t), "lobby")
		if err != nil {
			t.Fatal(err)
		}
		if got := string(info.State["settings"]); got != want {
			t.Errorf("site %d: got %q, want %q", i, got, want)
		}
	}
}

// TestRoomsFromBeforeStamps end equal too.
func TestRoomsFromBeforeStamps(t *testing.T) {
	for _, trimmed := range []bool{false, true} {
		a, b := newSite(t), newSite(t)
		for i, s := range []site{a, b} {
			mustAppend(t, s, change("lobby", fmt.Sprint("s", i), "settings", fmt.Sprint("of ", i)))
			post(t, s, "lobby", fmt.Sprint("m", i), 3)
			s.server.Do("DEL", "parley:{lobby}:state:stamps")
			entry := s.server.Do("XRANGE", "parley:{lobby}:log", "0-1", "0-1")
			if !strings.Contains(entry, "settings") {
				t.Fatalf("got %q", entry)
			}
			if trimmed {
				s.server.Do("XDEL", "parley:{lobby}:log", "0-1")
			}
		}
		mustAppend(t, a, change("lobby", "x", "ban/bob", "1"))
		settleAll(t, "lobby", a, b)
		ia, err := a.Info(within(t), "lobby")
		if err != nil {
			t.Fatal(err)
		}
		ib, err := b.Info(within(t), "lobby")
		if err != nil {
			t.Fatal(err)
		}
		if same := reflect.DeepEqual(ia.State, ib.State); same == trimmed { // what is trimmed away is not carried
			t.Errorf("trimmed %v: got %q and %q", trimmed, ia.State, ib.State)
		}
	}
}

func TestSameLogIsRefused(t *testing.T) {
	a := newSite(t)
	post(t, a, "lobby", "a", 3)
	info, err := a.Info(within(t), "lobby")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Carried(within(t), "lobby", info.Top.Epoch); !errors.Is(err, journalredis.ErrSameLog) {
		t.Errorf("got %v, want ErrSameLog", err)
	}
	if _, err := a.Carried(within(t), "nowhere", ""); err != nil {
		t.Errorf("of no room: %v", err)
	}
}

// TestWhatCannotBeCarried: damaged records and what retention has dropped.
func TestWhatCannotBeCarried(t *testing.T) {
	a, b := newSite(t), newSite(t)
	all := post(t, a, "lobby", "a", 3)
	a.server.Do("XADD", "parley:{lobby}:log", "0-4", "e", "damaged")
	a.server.Do("HSET", "parley:{lobby}:meta", "top", "4")
	p, err := a.Parcel(within(t), "lobby", journal.Position{Epoch: epochOf(t, a)})
	if err != nil || p.Damaged != 1 || len(p.Entries) != 4 || p.Last() != 4 {
		t.Fatalf("got %+v, %v, want four entries, one of them damaged", p, err)
	}
	carry(t, a, b, "lobby")
	wantSame(t, "lobby", all, b)
	all = append(all, post(t, a, "lobby", "more", 300)...)
	if got := carry(t, a, b, "lobby"); got != 300 {
		t.Errorf("got %d carried, want 300", got)
	}
	post(t, a, "lobby", "dropped", 10)
	all = append(all, post(t, a, "lobby", "kept", 10)...)
	a.server.Do("XTRIM", "parley:{lobby}:log", "MAXLEN", "=", "10")
	at, err := b.Carried(within(t), "lobby", epochOf(t, a))
	if err != nil {
		t.Fatal(err)
	}
	if p, err = a.Parcel(within(t), "lobby", at); err != nil || p.Gone != 10 || len(p.Entries) != 10 {
		t.Errorf("got %d gone and %d entries, %v, want 10 of each", p.Gone, len(p.Entries), err)
	}
	carry(t, a, b, "lobby")
	wantSame(t, "lobby", all, b)
}

func epochOf(t *testing.T, s site) string {
	t.Helper()
	info, err := s.Info(within(t), "lobby")
	if err != nil {
		t.Fatal(err)
	}
	return info.Top.Epoch
}

// TestMirrorOfACluster has one side in slots.
func TestMirrorOfACluster(t *testing.T) {
	cluster := redistest.StartCluster(t, 3, 0, redistest.Options{})
	a, b := newSite(t), site{node(t, quick(cluster.URL()), journalredis.Defaults()), nil}
	for i := range 6 {
		room := chat.RoomID(fmt.Sprint("room-", i))
		all := append(post(t, a, room, "a", 10), post(t, b, room, "b", 10)...)
		all = append(all, mustAppend(t, b, change(room, "set", "settings", "1")).ID)
		settleAll(t, room, a, b)
		wantSame(t, room, all, a, b)
	}
	tops, err := b.Tops(within(t), []chat.RoomID{"room-1", "nowhere"})
	if err != nil || tops[0].Seq != 21 || tops[1] != (journal.Position{}) {
		t.Errorf("got %+v, %v", tops, err)
	}
}

// TestErasuresAreCarried erases at one site what both hold.
func TestErasuresAreCarried(t *testing.T) {
	a, b, c := newSite(t), newSite(t), newSite(t)
	all := post(t, b, "lobby", "b", 7) // so that seqs differ
	all = append(all, post(t, a, "lobby", "a", 300)...)
	for range 2 {
		settleAll(t, "lobby", a, b)
		settleAll(t, "lobby", b, c)
	}
	erase := func(s site, name string, at ...uint64) {
		t.Helper()
		if _, err := s.Erase(within(t), "lobby", journal.Erasure{Epoch: epochOf(t, s), Seqs: at}); err != nil {
			t.Fatal(err)
		}
		r := message("lobby", name)
		r.Entry.Kind, r.Entry.Erases = journal.KindErase, at
		all = append(all, mustAppend(t, s, r).ID)
	}
	erase(a, "e1", 1, 300, 302) // two of a's own, one of b's
	later := mustAppend(t, a, message("lobby", "later"))
	all = append(all, later.ID)
	erase(a, "e2", later.Seq) // both go in one parcel
	for range 3 {
		settleAll(t, "lobby", a, b)
		settleAll(t, "lobby", b, c)
	}
	wantSame(t, "lobby", all, a, b, c)
	want := erasedIDs(t, a)
	if len(want) != 4 {
		t.Errorf("got %q erased, want four", want)
	}
	for i, s := range []site{b, c} {
		if got := erasedIDs(t, s); !slices.Equal(got, want) {
			t.Errorf("site %d: got %q erased, want %q", i+1, got, want)
		}
		if keys := holding(s.server, "text of later"); len(keys) > 0 {
			t.Errorf("site %d: the text is still in %q", i+1, keys)
		}
		forgotten, err := s.Forgotten(within(t), 0, 0, 100)
		if err != nil || len(forgotten) != 4 {
			t.Errorf("site %d: got %d listed for the nodes' evidence, %v, want 4", i+1, len(forgotten), err)
		}
	}
	// The marks outlive the rewriting of the log: nothing is carried again.
	settleAll(t, "lobby", a, b, c)
	wantSame(t, "lobby", all, a, b, c)
}

// erasedIDs lists what is erased at a site; what its erasures name must be that.
func erasedIDs(t *testing.T, s site) (all []chat.MessageID) {
	t.Helper()
	_, es, err := s.Read(within(t), "lobby", 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		if e.Outcome == chat.Erased {
			all = append(all, e.ID)
		}
		for _, seq := range e.Erases {
			if es[seq-1].Outcome != chat.Erased {
				t.Errorf("entry %d says that %d is erased, which is not", e.Seq, seq)
			}
		}
	}
	return slices.Sorted(slices.Values(all))
}
