package mirror_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/chat"
	"parley/core/journal"
	journalredis "parley/core/journal/redis"
	"parley/core/mirror"
	"parley/core/redis"
	"parley/core/redis/redistest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// go-redis looks for a lost server once a second, and ends when it
		// next notices that the client was closed.
		goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// patience bounds every wait for something that must happen.
const patience = 60 * time.Second

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// until polls for what can be observed only by asking.
func until(t *testing.T, what string, limit time.Duration, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited %v and it did not come true: %s", limit, what)
		}
	}
}

// region is one deployment: a server, a journal on it as a node there has one,
// and the link by which the mirror comes.
type region struct {
	server *redistest.Server
	link   *redistest.Proxy
	j      *journalredis.Journal
	calls  time.Duration // what a call by the link may take
}

func newRegion(t *testing.T) *region {
	t.Helper()
	server := redistest.Start(t, redistest.Options{})
	j, end := run(t, server.URL(), patience)
	t.Cleanup(end)
	return &region{server, redistest.StartProxy(t, server.Addr()), j, 3 * time.Second}
}

// config are the client settings of a mirror's side, whose calls end after so long.
func config(url string, calls time.Duration) redis.Config {
	c := redis.Defaults()
	c.URL = url
	c.ProbeEvery, c.ProbeTimeout, c.CallTimeout = 100*time.Millisecond, time.Second, calls
	return c
}

// run opens a journal and runs it; end closes it.
func run(t *testing.T, url string, calls time.Duration) (j *journalredis.Journal, end func()) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	c, err := redis.Open(config(url, calls), log)
	if err != nil {
		t.Fatal(err)
	}
	cfg := journalredis.Defaults()
	cfg.MaxEntries = 0
	if j, err = journalredis.New(cfg, c, log); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = j.Run(context.WithoutCancel(t.Context())) })
	return j, func() {
		_ = j.Close()
		running.Wait()
		_ = c.Close()
	}
}

// settings are quick to look.
func settings(patterns ...string) mirror.Config {
	c := mirror.Defaults()
	c.Patterns = patterns
	c.RoomsEvery, c.CompareEvery, c.ReportEvery = 50*time.Millisecond, 200*time.Millisecond, 50*time.Millisecond
	return c
}

// start runs a mirror over the regions' links until stop, which returns what Run
// said.
func start(t *testing.T, cfg mirror.Config, a, b *region, log *slog.Logger) (m *mirror.Mirror, stop func() error) {
	t.Helper()
	ja, endA := run(t, a.link.URL(), a.calls)
	jb, endB := run(t, b.link.URL(), b.calls)
	m, err := mirror.New(cfg, mirror.Side{Name: "a", Journal: ja}, mirror.Side{Name: "b", Journal: jb}, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	var said error
	running.Go(func() { said = m.Run(ctx) })
	var once sync.Once
	stop = func() error {
		once.Do(func() {
			cancel()
			running.Wait()
			endA()
			endB()
		})
		return said
	}
	t.Cleanup(func() { _ = stop() })
	return m, stop
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

var serial atomic.Uint64

// message is a message with an id that is a time first, as nodes make them.
func message(room chat.RoomID) journal.Request {
	now := time.Now().UnixMilli()
	return journal.Request{Room: room, Entry: journal.Entry{
		ID: chat.MessageID(fmt.Sprintf("%012x-%s-%d", now, rand.Text()[:8], serial.Add(1))), Kind: journal.KindMessage,
		From: "ann", Time: now, Text: strings.Repeat("x", mrand.IntN(200)), Outcome: chat.Accepted,
	}}
}

// say appends until the journal takes it; Known makes a lost answer harmless
// only with a nonce, so it has one.
func say(t *testing.T, j *journalredis.Journal, r journal.Request) {
	r.Entry.Nonce = string(r.Entry.ID)
	ctx := within(t)
	for {
		if _, err := j.Append(ctx, r); err == nil {
			return
		} else if ctx.Err() != nil {
			t.Errorf("append: %v", err)
			return
		}
	}
}

// compare compares past the links.
func compare(t *testing.T, cfg mirror.Config, a, b *region) *mirror.Comparison {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*patience)
	defer cancel()
	c, err := mirror.Compare(ctx, cfg, mirror.Side{Name: "a", Journal: a.j}, mirror.Side{Name: "b", Journal: b.j}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestTwoRegions posts at both sides while the links stand still now and then,
// mirrors are ended in the middle of it, and for a while two are at work. Its
// long form, with PARLEY_MIRROR=long, is `make mirror-test`: a million messages,
// and links that stand still for more than 30 s.
func TestTwoRegions(t *testing.T) {
	messages, rooms, perSecond := 20_000, 8, 2500
	stall, between, faults := 1500*time.Millisecond, 500*time.Millisecond, 4
	if os.Getenv("PARLEY_MIRROR") == "long" {
		messages, rooms, perSecond = 1_000_000, 40, 1000 // 17 minutes
		stall, between, faults = 33*time.Second, 20*time.Second, 16
	}
	a, b := newRegion(t), newRegion(t)
	a.calls, b.calls = time.Second, time.Second // less than the links stand still
	cfg := settings("room-*")
	cfg.ReportEvery = 0

	var talking sync.WaitGroup
	const talkers = 16
	began := time.Now()
	for k := range talkers {
		talking.Go(func() {
			here := []*region{a, b}[k%2]
			var pace <-chan time.Time
			if perSecond > 0 {
				tick := time.NewTicker(time.Second * talkers / time.Duration(perSecond))
				defer tick.Stop()
				pace = tick.C
			}
			for n := range messages / talkers {
				if pace != nil {
					<-pace
				}
				say(t, here.j, message(chat.RoomID(fmt.Sprint("room-", (n+k/2)%rooms))))
			}
		})
	}

	var lags [2][]mirror.Stats
	note := func(m *mirror.Mirror) {
		for i, s := range m.Stats() {
			lags[i] = append(lags[i], s)
		}
	}
	m, stop := start(t, cfg, a, b, discard())
	pause := func(d time.Duration) {
		timer := time.NewTimer(d)
		defer timer.Stop()
		<-timer.C
	}
	for n := range faults {
		pause(between)
		links := [][]*redistest.Proxy{{a.link}, {b.link}, {a.link, b.link}}[n%3]
		for _, l := range links {
			l.Hold()
		}
		pause(stall)
		if n%4 == 3 { // what the old one had under way arrives with what the new one sends
			note(m)
			old := stop
			m, stop = start(t, cfg, a, b, discard())
			other, stopOther := start(t, cfg, a, b, discard())
			for _, l := range links {
				l.Release()
			}
			pause(between)
			_ = old()
			note(other)
			_ = stopOther()
			continue
		}
		for _, l := range links {
			l.Release()
		}
	}
	talking.Wait()
	posted := time.Since(began)
	var c *mirror.Comparison
	until(t, "both sides hold the same", 5*patience, func() bool {
		st := m.Stats()
		if st[0].Behind+st[1].Behind > 0 {
			return false
		}
		c = compare(t, cfg, a, b)
		return c.Errors == 0
	})
	note(m)
	if c.Messages != messages || c.Rooms != rooms {
		t.Errorf("got %d messages in %d rooms, want %d in %d", c.Messages, c.Rooms, messages, rooms)
	}
	t.Logf("%d messages in %d rooms posted in %v; links stood still %d times for %v: %d errors, error rate %.6f%%",
		c.Messages, c.Rooms, posted.Round(time.Second), faults, stall, c.Errors, 100*c.Rate())
	for i := range lags {
		for _, s := range lags[i] {
			t.Logf("%s to %s: %d carried, lag p50 %v, p99 %v, max %v, %d calls tried again", s.From, s.To, s.Stored, s.P50, s.P99, s.Max, s.Failed)
		}
	}
}
