package decisionlog_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"parley/core/chat"
	"parley/core/gate"
	"parley/policy/decisionlog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

func open(t testing.TB, edit ...func(*decisionlog.Config)) *decisionlog.Log {
	t.Helper()
	cfg := decisionlog.Defaults()
	cfg.Entries = 64
	for _, f := range edit {
		f(&cfg)
	}
	l, err := decisionlog.New(cfg, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func in(dir string) func(*decisionlog.Config) {
	return func(c *decisionlog.Config) { c.Dir = dir }
}

// run runs l until the test stops it; stop returns when all is written.
func run(t testing.TB, l *decisionlog.Log) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func question(user, room string) *gate.Input {
	return &gate.Input{
		Subject:  gate.Subject{Type: "guest", ID: user, Roles: []string{"staff"}},
		Action:   gate.Action{Name: gate.MessageSend, Changes: []string{}},
		Resource: gate.Resource{Type: "room", ID: room, Exists: true, Mode: "open", Visibility: "public"},
		Context:  gate.Context{Transport: "ws", Network: "public", TextBytes: 5, Periods: []string{}, Networks: []string{}},
	}
}

func refusal(code string) *gate.Decision {
	return &gate.Decision{Revision: "r1", Reasons: []chat.Reason{{Code: code, Text: "No.", Source: "policy"}}}
}

func allowed() *gate.Decision { return &gate.Decision{Revision: "r1", Allow: true} }

func add(l *decisionlog.Log, in *gate.Input, d *gate.Decision) string {
	return l.Decided(decisionlog.Made{Input: in, Decision: d, NS: 1500, Mask: l.Mask([]string{"resource.id"})})
}

func find(t testing.TB, l *decisionlog.Log, q decisionlog.Query) []*decisionlog.Record {
	t.Helper()
	if q.Limit == 0 {
		q.Limit = decisionlog.MaxPage
	}
	page, err := l.Find(q)
	if err != nil {
		t.Fatal(err)
	}
	return page.Records
}

func TestQueries(t *testing.T) {
	dir := t.TempDir()
	l := open(t, in(dir))
	stop := run(t, l)
	asked := question("ann", "lobby")
	asked.Message = "0192a1b2-0000-7000-8000-000000000001"
	slow := 10
	first := add(l, asked, &gate.Decision{Revision: "r1", Allow: true, Cached: true, Obligations: gate.Obligations{SlowModeS: &slow}})
	second := add(l, question("bob", "lobby"), refusal("banned"))
	third := add(l, question("bob", "den"), refusal("muted"))
	l.Happened(decisionlog.EventAccepted, "r2", "olga", "too much")
	asked.Subject.ID = "changed afterwards"
	stop()

	check := func(t *testing.T, l *decisionlog.Log) {
		for name, tt := range map[string]struct {
			q    decisionlog.Query
			want []string
		}{
			"all decisions of a revision": {decisionlog.Query{Revision: "r1"}, []string{first, second, third}},
			"user":                        {decisionlog.Query{User: "bob"}, []string{second, third}},
			"room":                        {decisionlog.Query{Room: "lobby"}, []string{first, second}},
			"both":                        {decisionlog.Query{User: "bob", Room: "lobby"}, []string{second}},
			"reason":                      {decisionlog.Query{Reason: "muted"}, []string{third}},
			"message":                     {decisionlog.Query{Message: asked.Message}, []string{first}},
			"id":                          {decisionlog.Query{ID: second}, []string{second}},
			"denied":                      {decisionlog.Query{Denied: true}, []string{second, third}},
			"action":                      {decisionlog.Query{Action: "connect"}, nil},
			"newest":                      {decisionlog.Query{Revision: "r1", Limit: 1}, []string{third}},
			"before":                      {decisionlog.Query{Before: third, Limit: 1}, []string{second}},
			"the future":                  {decisionlog.Query{Since: time.Now().Add(time.Hour)}, nil},
		} {
			var got []string
			for _, r := range find(t, l, tt.q) {
				got = append(got, r.ID)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("%s: got %v, want %v", name, got, tt.want)
			}
		}
		events := find(t, l, decisionlog.Query{Events: true})
		if len(events) != 1 || events[0].By != "olga" || events[0].Revision != "r2" || events[0].Detail != "too much" {
			t.Errorf("events: got %+v, want what olga did", events)
		}
		if byName := find(t, l, decisionlog.Query{Reason: "accepted"}); len(byName) != 1 {
			t.Errorf("events by name: got %v, want one", byName)
		}
		r := find(t, l, decisionlog.Query{ID: first})[0]
		d := r.Decision()
		if want := question("ann", "lobby"); r.Message != asked.Message || !reflect.DeepEqual(r.Input, want) || r.NS != 1500 || !d.Cached || !d.Allow || *d.Obligations.SlowModeS != 10 || d.ID != first {
			t.Errorf("got %+v of %+v, want all that was decided, as it was asked", r, r.Input)
		}
	}
	t.Run("from memory", func(t *testing.T) { check(t, l) })
	t.Run("after a restart", func(t *testing.T) { check(t, open(t, in(dir))) })
	t.Run("from the files", func(t *testing.T) {
		again := open(t, in(dir), func(c *decisionlog.Config) { c.Entries = 16 })
		run(t, again)
		for i := range 16 {
			add(again, question("eve", fmt.Sprint("r", i)), &gate.Decision{Revision: "r9", Allow: true})
		}
		check(t, again)
	})
}

func TestQueriesThatCannotBe(t *testing.T) {
	l := open(t)
	for _, q := range []decisionlog.Query{{}, {Limit: decisionlog.MaxPage + 1}, {Limit: 1, Before: "x"}, {Limit: 1, ID: "../../x"}} {
		if _, err := l.Find(q); !errors.Is(err, decisionlog.ErrQuery) {
			t.Errorf("%+v: got %v, want ErrQuery", q, err)
		}
	}
}

// A log nobody writes to disk drops and counts; refusals outlive what was
// allowed.
func TestLagDropsAllowedFirst(t *testing.T) {
	l := open(t, in(t.TempDir())) // 64 entries, and Run does not run
	for range 100 {
		add(l, question("ann", "lobby"), allowed())
	}
	if st := l.Stats(); st.Added != 32 || st.Dropped != 68 || st.DroppedDenied != 0 {
		t.Errorf("got %+v, want half of the ring taken by what was allowed", st)
	}
	for range 40 {
		if id := add(l, question("bob", "lobby"), refusal("banned")); id == "" {
			t.Error("got no id for a refusal, want one in any case")
		}
	}
	if st := l.Stats(); st.Added != 64 || st.DroppedDenied != 8 {
		t.Errorf("got %+v, want the other half for refusals, and the rest counted", st)
	}
	if got := len(find(t, l, decisionlog.Query{Denied: true})); got != 32 {
		t.Errorf("got %d refusals in memory, want 32", got)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	l := open(t) // no folder: the oldest makes way
	for i := range 1000 {
		add(l, question("ann", fmt.Sprint("r", i)), refusal("banned"))
	}
	got := find(t, l, decisionlog.Query{})
	if len(got) != 64 || got[63].Input.Resource.ID != "r999" || l.Stats().Dropped != 0 {
		t.Errorf("got %d records, want the newest 64", len(got))
	}
	if recent := l.Recent(10); len(recent) != 10 || recent[9].ID != got[63].ID || recent[0].ID != got[54].ID {
		t.Errorf("got %v, want the newest ten, the oldest first", recent)
	}
}

func TestSampling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, func(c *decisionlog.Config) {
			c.Sample, c.PerMinute = []string{"*=0.5", "connect=1", "room.join=0", "message.send=0.000001"}, 3
		})
		count := func(action string, draw uint32) (n int) {
			for range 10 {
				if l.Wants(action, draw) {
					n++
				}
			}
			return n
		}
		for _, tt := range []struct {
			action string
			draw   uint32
			want   int
		}{
			{"connect", 1<<32 - 1, 10}, {"room.join", 0, 0}, {"message.send", 1 << 31, 3}, {"message.send", 1 << 31, 0},
			{"other", 1 << 30, 10}, {"other", 3 << 30, 3}, {"another", 3 << 30, 0}, // the rest shares one budget
		} {
			if got := count(tt.action, tt.draw); got != tt.want {
				t.Errorf("%s with %d: got %d of 10, want %d", tt.action, tt.draw, got, tt.want)
			}
		}
		run(t, l)
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if got := count("message.send", 1<<31); got != 3 {
			t.Errorf("a minute later: got %d of 10, want 3", got)
		}
	})
}

func TestMasking(t *testing.T) {
	reads := []string{"subject.type", "resource.id"}
	for name, tt := range map[string]struct {
		mask          []string
		evenRead      bool
		want          []string
		notReplayable bool
	}{
		"nothing":                 {nil, false, nil, false},
		"what is not read":        {[]string{"subject.id", "subject.roles"}, false, []string{"subject.id", "subject.roles"}, false},
		"what is read stays":      {[]string{"subject.id", "resource.id"}, false, []string{"subject.id"}, false},
		"what is read goes, told": {[]string{"subject.id", "resource.id"}, true, []string{"resource.id", "subject.id"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := open(t, func(c *decisionlog.Config) { c.Mask, c.MaskRead = tt.mask, tt.evenRead })
			asked := question("ann", "lobby")
			l.Decided(decisionlog.Made{Input: asked, Decision: refusal("banned"), Mask: l.Mask(reads)})
			r := find(t, l, decisionlog.Query{})[0]
			if !slices.Equal(r.Masked, tt.want) || r.NotReplayable != tt.notReplayable {
				t.Errorf("got masked %v, not replayable %v, want %v, %v", r.Masked, r.NotReplayable, tt.want, tt.notReplayable)
			}
			if hidden := slices.Contains(tt.want, "subject.id"); (r.Input.Subject.ID == "") != hidden {
				t.Errorf("got subject.id %q, want it left out: %v", r.Input.Subject.ID, hidden)
			}
			if r.Input.Subject.Roles == nil || r.Input.Subject.Type != "guest" || asked.Subject.ID != "ann" {
				t.Errorf("got %+v, want the rest as it was, and the question untouched", r.Input)
			}
			if got := len(l.Recent(10)); (got == 0) != tt.notReplayable {
				t.Errorf("got %d to replay", got)
			}
			if r.Hides([]string{"subject.id"}) != slices.Contains(tt.want, "subject.id") {
				t.Errorf("got %v, want to know whether a policy that reads subject.id can be asked", r.Masked)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	for name, edit := range map[string]func(*decisionlog.Config){
		"entries":     func(c *decisionlog.Config) { c.Entries = 1 },
		"max_bytes":   func(c *decisionlog.Config) { c.MaxBytes = 100 },
		"retention":   func(c *decisionlog.Config) { c.Retention = -1 },
		"per_minute":  func(c *decisionlog.Config) { c.PerMinute = -1 },
		"sample":      func(c *decisionlog.Config) { c.Sample = []string{"message.send"} },
		"sample ":     func(c *decisionlog.Config) { c.Sample = []string{"*=2"} },
		"sample  ":    func(c *decisionlog.Config) { c.Sample = []string{"*=NaN"} },
		"mask":        func(c *decisionlog.Config) { c.Mask = []string{"subject.age"} },
		"action.name": func(c *decisionlog.Config) { c.Mask = []string{"action.name"} },
	} {
		cfg := decisionlog.Defaults()
		edit(&cfg)
		if _, err := decisionlog.New(cfg, quiet); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(name)) {
			t.Errorf("%s: got %v, want it named", name, err)
		}
	}
}

func TestFollow(t *testing.T) {
	l := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	ready, got := make(chan struct{}), make(chan string)
	done := make(chan error, 1)
	go func() {
		done <- l.Follow(ctx, decisionlog.Query{User: "bob"}, func() error { close(ready); return nil },
			func(r *decisionlog.Record, skipped uint64) error {
				got <- fmt.Sprintf("%s %d", r.ID, skipped)
				return nil
			})
	}()
	<-ready
	add(l, question("ann", "lobby"), refusal("banned"))
	id := add(l, question("bob", "lobby"), refusal("banned"))
	if first := <-got; first != id+" 0" {
		t.Errorf("got %s, want %s", first, id)
	}
	// While the follower is held up the ring goes round.
	const burst = 101
	var last string
	for range burst {
		last = add(l, question("bob", "lobby"), refusal("banned"))
	}
	var newest string
	for told := 0; told < burst; told++ { // each record, or that it was missed
		var skipped int
		if _, err := fmt.Sscan(<-got, &newest, &skipped); err != nil {
			t.Fatal(err)
		}
		told += skipped
	}
	if newest != last {
		t.Errorf("got %s at last, want %s", newest, last)
	}
	cancel()
	for done != nil {
		select {
		case <-got:
		case err := <-done:
			if err != nil {
				t.Errorf("follow: %v", err)
			}
			done = nil
		}
	}

	l.EndFollowers()
	if err := l.Follow(t.Context(), decisionlog.Query{}, func() error { return nil }, nil); err != nil {
		t.Errorf("after the end: got %v, want it to return", err)
	}
	broken := errors.New("gone")
	if err := l.Follow(t.Context(), decisionlog.Query{}, func() error { return broken }, nil); !errors.Is(err, broken) {
		t.Errorf("got %v, want why the caller failed", err)
	}
}

func TestFollowersAreBounded(t *testing.T) {
	l := open(t)
	var wg sync.WaitGroup
	ready := make(chan struct{}, 16)
	for range 16 {
		wg.Go(func() {
			if err := l.Follow(t.Context(), decisionlog.Query{}, func() error { ready <- struct{}{}; return nil }, nil); err != nil {
				t.Error(err)
			}
		})
	}
	for range 16 {
		<-ready
	}
	if err := l.Follow(t.Context(), decisionlog.Query{}, func() error { return nil }, nil); !errors.Is(err, decisionlog.ErrFollowers) {
		t.Errorf("got %v, want ErrFollowers", err)
	}
	l.EndFollowers()
	wg.Wait()
}

// BenchmarkDecided is what a recorded decision costs whoever made it.
func BenchmarkDecided(b *testing.B) {
	l := open(b)
	asked, d := question("ann", "lobby"), refusal("banned")
	mask := l.Mask(nil)
	b.ReportAllocs()
	for b.Loop() {
		l.Decided(decisionlog.Made{Input: asked, Decision: d, Mask: mask})
	}
}

// TestTheNameOfARoomIsNeededForItsTemplate: without it no policy could be asked
// again that reads the template.
func TestTheNameOfARoomIsNeededForItsTemplate(t *testing.T) {
	l := open(t, func(c *decisionlog.Config) { c.Mask = []string{"resource.id"} })
	ask := func(reads ...string) *decisionlog.Record {
		t.Helper()
		d := &gate.Decision{Allow: true, Obligations: gate.Obligations{Plugins: []string{}}}
		l.Decided(decisionlog.Made{Input: gate.Sample(gate.MessageSend), Decision: d, Mask: l.Mask(reads), Named: "n1"})
		page, err := l.Find(decisionlog.Query{Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		return page.Records[0]
	}
	if r := ask("subject.type"); r.Input.Resource.ID != "" || !r.Hides([]string{"resource.template"}) || r.Hides([]string{"subject.type"}) {
		t.Errorf("got %+v, want the name masked, and missed by who reads templates", r)
	}
	if r := ask("resource.template"); r.Input.Resource.ID == "" || len(r.Masked) > 0 || r.Named != "n1" {
		t.Errorf("got %+v, want the name kept", r)
	} else if o := r.Decision().Obligations; o.Plugins == nil {
		t.Errorf("got %+v, want no plugins rather than all", o)
	}
}
