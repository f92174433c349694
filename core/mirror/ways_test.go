package mirror_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	journalredis "parley/core/journal/redis"
	"parley/core/mirror"
)

// tops reads how many entries of a room each side has.
func tops(t *testing.T, room chat.RoomID, sides ...*region) (all []uint64) {
	t.Helper()
	for _, s := range sides {
		info, err := s.j.Info(within(t), room)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, info.Top.Seq)
	}
	return all
}

func wantTops(t *testing.T, room chat.RoomID, want string, sides ...*region) {
	t.Helper()
	until(t, fmt.Sprintf("%s has %s entries", room, want), patience, func() bool { return fmt.Sprint(tops(t, room, sides...)) == want })
}

func TestOnlyWhatIsChosen(t *testing.T) {
	a, b := newRegion(t), newRegion(t)
	cfg := settings("team-*", "lobby")
	start(t, cfg, a, b, discard())
	for _, room := range []chat.RoomID{"team-red", "lobby", "private"} {
		say(t, a.j, message(room))
		say(t, b.j, message(room))
	}
	say(t, b.j, message("team-blue")) // a room that was not there at the start, of the other side
	wantTops(t, "team-red", "[2 2]", a, b)
	wantTops(t, "lobby", "[2 2]", a, b)
	wantTops(t, "team-blue", "[1 1]", a, b)
	if got := fmt.Sprint(tops(t, "private", a, b)); got != "[1 1]" {
		t.Errorf("a room that is not chosen: got %s entries, want one each", got)
	}
	if c := compare(t, cfg, a, b); c.Errors != 0 || c.Rooms != 3 || c.Messages != 5 {
		t.Errorf("got %+v, want three rooms with five messages and no error", c)
	}
}

func TestOneWay(t *testing.T) {
	a, b := newRegion(t), newRegion(t)
	cfg := settings("*")
	cfg.OneWay = true
	m, _ := start(t, cfg, a, b, discard())
	say(t, b.j, message("lobby"))
	for range 3 {
		say(t, a.j, message("lobby"))
	}
	say(t, b.j, message("theirs"))
	wantTops(t, "lobby", "[3 4]", a, b)
	until(t, "what was carried is counted", patience, func() bool { return m.Stats()[0].Stored == 3 })
	if st := m.Stats(); len(st) != 1 || st[0].Stored != 3 || st[0].Rooms != 1 || st[0].Max <= 0 && st[0].P50 > st[0].Max {
		t.Errorf("got %+v, want one direction with three entries of one room", st)
	}
	if c := compare(t, cfg, a, b); c.Errors != 0 {
		t.Errorf("one way: got %+v, want no error", c)
	}
	cfg.OneWay = false
	if c := compare(t, cfg, a, b); c.Errors != 2 || c.Rate() == 0 {
		t.Errorf("both ways: got %+v, want two entries missing", c)
	}
}

// TestTargetEmptied finds that a side came back without its data though nobody
// says anything.
func TestTargetEmptied(t *testing.T) {
	a, b := newRegion(t), newRegion(t)
	start(t, settings("*"), a, b, discard())
	for range 5 {
		say(t, a.j, message("lobby"))
	}
	wantTops(t, "lobby", "[5 5]", a, b)
	b.server.Do("FLUSHALL")
	wantTops(t, "lobby", "[5 5]", a, b)
}

// TestSameDeploymentIsRefused ends at once: a mirror to itself can never work.
func TestSameDeploymentIsRefused(t *testing.T) {
	a := newRegion(t)
	say(t, a.j, message("lobby"))
	m, err := mirror.New(settings("*"), mirror.Side{Name: "a", Journal: a.j}, mirror.Side{Name: "b", Journal: a.j}, discard())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Run(within(t)); !errors.Is(err, journalredis.ErrSameLog) {
		t.Errorf("got %v, want ErrSameLog", err)
	}
}

// lines is a log that may be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), text)
}

// TestWhatIsSaid: counts, rooms that are behind, and what cannot be carried.
func TestWhatIsSaid(t *testing.T) {
	a, b := newRegion(t), newRegion(t)
	var out lines
	says := func(text string) {
		t.Helper()
		until(t, "the log says: "+text, patience, func() bool { return out.has(text) })
	}
	log := slog.New(slog.NewTextHandler(&out, nil))
	m, stop := start(t, settings("*"), a, b, log)
	say(t, a.j, message("lobby"))
	says("carried=1 behind=0")
	wantTops(t, "lobby", "[1 1]", a, b)

	// A record that is damaged is passed over and told of.
	a.server.Do("XADD", "parley:{lobby}:log", "0-2", "e", "damaged")
	a.server.Do("HSET", "parley:{lobby}:meta", "top", "2")
	say(t, a.j, message("lobby"))
	says("damaged records were passed over")
	wantTops(t, "lobby", "[3 2]", a, b)

	// A link goes.
	b.link.Hold()
	for range 10 {
		say(t, a.j, message("lobby"))
	}
	says("a room is behind")
	says("mirror is held up")
	until(t, "a call ends by its time", patience, func() bool { return m.Stats()[0].Failed > 0 })
	b.link.Release()
	wantTops(t, "lobby", "[13 12]", a, b)
	if st := m.Stats()[0]; st.Damaged != 1 || st.Failed == 0 {
		t.Errorf("got %+v, want 1 damaged, some calls tried again", st)
	}

	// While nothing is carried retention drops entries.
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		say(t, a.j, message("lobby"))
	}
	a.server.Do("XTRIM", "parley:{lobby}:log", "MAXLEN", "=", "3")
	m, _ = start(t, settings("*"), a, b, log)
	says("dropped by retention before they were carried")
	wantTops(t, "lobby", "[23 15]", a, b)
	until(t, "what was carried is counted", patience, func() bool { return m.Stats()[0].Stored == 3 })
	if st := m.Stats()[0]; st.Gone != 7 || st.Stored != 3 {
		t.Errorf("got %+v, want 7 gone and 3 carried", st)
	}

	// The source loses its newest entries.
	a.server.Do("XDEL", "parley:{lobby}:log", "0-23")
	a.server.Do("HSET", "parley:{lobby}:meta", "top", "22", "id", "x")
	a.server.Do("XSETID", "parley:{lobby}:log", "0-22")
	says("a room has lost entries that were carried")
	say(t, a.j, message("lobby"))
	wantTops(t, "lobby", "[23 16]", a, b)
}

// TestCompare names each kind of difference.
func TestCompare(t *testing.T) {
	a, b := newRegion(t), newRegion(t)
	cfg := settings("lobby")
	say(t, a.j, message("lobby"))
	r := message("lobby")
	r.Entry.Changes = []journal.Change{{Key: "settings", Value: []byte("{}")}}
	say(t, a.j, r)
	twice := message("lobby")
	say(t, b.j, twice)
	twice.Entry.From = "bob" // the nonce is another's
	say(t, b.j, twice)
	say(t, b.j, message("lobby"))
	b.server.Do("XADD", "parley:{lobby}:log", "0-4", "e", "damaged")
	b.server.Do("HSET", "parley:{lobby}:meta", "top", "4")
	c := compare(t, cfg, a, b)
	if len(c.Differ) != 1 {
		t.Fatalf("got %+v, want one room that differs", c)
	}
	d := c.Differ[0]
	if d.MissingTo != 2 || d.MissingFrom != 2 || d.Twice != 1 || d.Keys != 1 || d.Example == "" || d.Errors() != 6 {
		t.Errorf("got %+v, want 2 missing at each side, one twice, one key", d)
	}
	// What retention has dropped is no error.
	later := message("lobby")
	later.Entry.Time += time.Hour.Milliseconds()
	say(t, b.j, later)
	b.server.Do("XTRIM", "parley:{lobby}:log", "MINID", "0-3")
	if c = compare(t, cfg, a, b); c.Older == 0 {
		t.Errorf("got %+v, want some older than what the other side keeps", c)
	}
}

func TestSettings(t *testing.T) {
	for name, bad := range map[string]func(*mirror.Config){
		"no rooms":      func(c *mirror.Config) { c.Patterns = nil },
		"pattern":       func(c *mirror.Config) { c.Patterns = []string{"[a"} },
		"workers":       func(c *mirror.Config) { c.Workers = 0 },
		"rooms_every":   func(c *mirror.Config) { c.RoomsEvery = 0 },
		"compare_every": func(c *mirror.Config) { c.CompareEvery = -1 },
	} {
		c := settings("lobby")
		bad(&c)
		if _, err := mirror.New(c, mirror.Side{}, mirror.Side{}, discard()); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v, want an error that names it", name, err)
		}
	}
}
