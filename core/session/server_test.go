package session

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/chat"
	"parley/core/wire"
	"parley/sdk/abi"
)

func TestConfigIsChecked(t *testing.T) {
	ok := Config{HistoryEntries: 1, StoreTimeout: 1}
	for _, tt := range []struct {
		change func(*Config)
		field  string
	}{
		{func(c *Config) { c.HistoryEntries = 0 }, "HistoryEntries"},
		{func(c *Config) { c.HistoryEntries = wire.MaxHistory + 1 }, "HistoryEntries"},
		{func(c *Config) { c.StoreTimeout = 0 }, "StoreTimeout"},
	} {
		cfg := ok
		tt.change(&cfg)
		if _, err := New(cfg, Deps{}); err == nil || !strings.Contains(err.Error(), tt.field) {
			t.Errorf("got %v, want an error that names %s", err, tt.field)
		}
	}
	s, err := New(ok, Deps{})
	if err != nil || s.Config() != ok {
		t.Errorf("got %v, %v", s, err)
	}
	s.Close()
	s.Close()
}

func TestConnectionsAreLimited(t *testing.T) {
	tests := []struct {
		name    string
		cfg     Config
		from    []string
		refused string // the last of from; "" = admitted
	}{
		{"no limits", Config{}, []string{"10.0.0.1", "10.0.0.1", "10.0.0.1"}, ""},
		{"of one address", Config{ConnectionsPerIP: 2}, []string{"10.0.0.1", "10.0.0.1", "10.0.0.1"}, "too_many_conns"},
		{"of several addresses", Config{ConnectionsPerIP: 2}, []string{"10.0.0.1", "10.0.0.1", "10.0.0.2"}, ""},
		{"of one IPv4 address in two forms", Config{ConnectionsPerIP: 1}, []string{"10.0.0.1", "::ffff:10.0.0.1"}, "too_many_conns"},
		{"of one IPv6 network", Config{ConnectionsPerIP: 1}, []string{"2001:db8:1:2:3::4", "2001:db8:1:2:ffff::1"}, "too_many_conns"},
		{"of two IPv6 networks", Config{ConnectionsPerIP: 1}, []string{"2001:db8:1:2::4", "2001:db8:1:3::4"}, ""},
		{"of one link", Config{ConnectionsPerIP: 1}, []string{"fe80::1%eth0", "fe80::2%eth1"}, "too_many_conns"},
		{"together", Config{Connections: 2}, []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}, "too_many_conns"},
		{"in a second", Config{AcceptsPerSecond: 2}, []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}, "overloaded"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tt.cfg.HistoryEntries, tt.cfg.StoreTimeout = 1, 1
				s := must(New(tt.cfg, Deps{}))
				defer s.Close()
				var releases []func()
				for i, from := range tt.from {
					release, err := s.Admit(netip.MustParseAddr(from))
					if last := i == len(tt.from)-1; last && tt.refused != "" {
						if err == nil || string(err.Code) != tt.refused || err.Retry <= 0 {
							t.Fatalf("got %v, want %s with a wait", err, tt.refused)
						}
						continue
					}
					if err != nil {
						t.Fatalf("connection %d: %v", i, err)
					}
					releases = append(releases, release)
				}
				for _, release := range releases {
					release()
					release() // counts once
				}
				time.Sleep(time.Second)
				release, err := s.Admit(netip.MustParseAddr(tt.from[0]))
				if err != nil {
					t.Fatalf("after the others have ended: %v", err)
				}
				release()
				if s.conns != 0 || len(s.byIP) != 0 {
					t.Errorf("got %d connections and %v left", s.conns, s.byIP)
				}
			})
		})
	}
}

// A client beyond its own limit must not use up what others may open.
func TestRefusedConnectionsCostNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := must(New(Config{HistoryEntries: 1, StoreTimeout: 1, ConnectionsPerIP: 1, AcceptsPerSecond: 2}, Deps{}))
		defer s.Close()
		for range 10 {
			_, _ = s.Admit(netip.MustParseAddr("10.0.0.1"))
		}
		if _, err := s.Admit(netip.MustParseAddr("10.0.0.2")); err != nil {
			t.Errorf("got %v, want admission", err)
		}
	})
}

func TestDrainTellsEveryoneAndRefusesMore(t *testing.T) {
	w := newWorld(t, nil)
	ann, fresh := w.guest("ann"), w.connect()
	w.srv.Drain(t.Context())
	if !w.srv.Draining() {
		t.Error("not draining")
	}
	for _, c := range []*caller{ann, fresh} {
		c.checkClosed(1012, true)
		if e := c.closedWith(); e.Reason != "going_away" || e.RetryAfterMS != 5000 {
			t.Errorf("got %+v, want going_away within 5000 ms", e)
		}
		c.end()
	}
	if _, err := w.srv.Admit(local); err == nil || err.Code != chat.CodeGoingAway || err.Retry == 0 {
		t.Errorf("got %v, want going_away", err)
	}
	late := w.connect() // admitted before, begun after
	late.checkClosed(1012, true)
	late.end()
	w.srv.Drain(t.Context())
}

// holding makes the plugins wait until go is called; reached is closed when
// one waits.
func (w *world) holding() (reached chan struct{}, release func()) {
	reached, gate := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.judge(judge{"slow", func(text string) (abi.Verdict, abi.Result, error) {
		if text == "wait" {
			once.Do(func() { close(reached) })
			<-gate
		}
		return abi.Allow, abi.Result{}, nil
	}})
	return reached, func() { close(gate) }
}

func TestDrainLetsACommandFinishAndKeepsNobodyWaiting(t *testing.T) {
	w := newWorld(t, nil)
	reached, release := w.holding()
	slow, idle := w.guest("slow"), w.guest("idle")
	defer slow.end()
	defer idle.end()
	answered := make(chan event)
	go func() { answered <- slow.do(`{"type":"send","room":"lobby","nonce":"n1","text":"wait"}`) }()
	<-reached
	drained := make(chan struct{})
	go func() { w.srv.Drain(context.Background()); close(drained) }()
	idle.await("the close of an idle connection", func(e event) bool { return e.Type == "close" })
	if slow.x.Closed() {
		t.Fatal("a connection was closed in the middle of its command")
	}
	release()
	if e := <-answered; e.Type != "ack" {
		t.Errorf("got %+v, want the ack", e)
	}
	<-drained
	slow.checkClosed(1012, true)
	if got := w.messages("lobby"); len(got) != 1 {
		t.Errorf("got %q in the log, want one message", got)
	}
}

func TestDrainEndsWithItsTime(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.cfg.StoreTimeout = time.Hour })
	c := w.guest("ann")
	defer c.end()
	reached := make(chan struct{})
	hang := func(ctx context.Context) error { close(reached); <-ctx.Done(); return ctx.Err() }
	w.store.onAppend.Store(&hang)
	done := make(chan struct{})
	go func() { c.raw(`{"type":"send","room":"lobby","nonce":"n1","text":"hi"}`); close(done) }()
	<-reached
	ctx, cancel := context.WithCancel(t.Context())
	drained := make(chan struct{})
	go func() { w.srv.Drain(ctx); close(drained) }()
	cancel()
	<-drained
	<-done
	if code, _, closed := c.x.Peer().Closed(); !closed || code != wire.CloseRestart {
		t.Errorf("got close %d %v, want 1012", code, closed)
	}
}

// A reader whose answers pile up behind a full socket waits; Drain and Abort
// get it out of there.
func TestAReaderThatWaitsForItsClientIsCut(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.room.ReplyBytes = 100; s.room.LagTime, s.room.LagBytes = 0, 0 })
	c := w.guest("ann")
	c.set(func() { c.full = true })
	done := make(chan struct{})
	go func() {
		defer close(done)
		for c.raw(`{"type":"ping","id":"1"}`) {
		}
		c.end()
	}()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.srv.Drain(ctx)
	<-done
	if !c.x.Closed() {
		t.Error("the connection is open still")
	}
}

func TestAbortCutsEverythingAndEndsItsWork(t *testing.T) {
	w := newWorld(t, nil)
	idle, busy := w.guest("idle"), w.guest("busy")
	defer idle.end()
	reached := make(chan struct{})
	hang := func(ctx context.Context) error { close(reached); <-ctx.Done(); return ctx.Err() }
	w.store.onAppend.Store(&hang)
	done := make(chan bool)
	go func() { done <- busy.raw(`{"type":"send","room":"lobby","text":"hi"}`) }()
	<-reached
	w.srv.Abort()
	if open := <-done; open {
		t.Error("the session goes on")
	}
	busy.end()
	for _, c := range []*caller{idle, busy} {
		var cut bool
		c.set(func() { cut = c.cut })
		if !cut {
			t.Error("a socket was not cut")
		}
	}
}

func TestSessionsAreCounted(t *testing.T) {
	w := newWorld(t, nil)
	c := w.guest("ann")
	if n := w.srv.Open(); n != 1 {
		t.Errorf("got %d open, want 1", n)
	}
	c.x.Close(wire.CloseNormal, "connection ended")
	c.end()
	st := w.srv.Stats()
	if o, e := st.Opened.Load(), st.Ended.Load(); o != 1 || e != 1 || w.srv.Open() != 0 {
		t.Errorf("got %d opened, %d ended, %d open, want 1, 1, 0", o, e, w.srv.Open())
	}
	if c.x.Peer().Line() != true {
		t.Error("a tcp session does not speak lines")
	}
	checkCloses(t, w, wire.CloseNormal, 1)
}

// Half a storm of clients beyond the accept rate is told when to come back:
// one after the other, so that doing as told lets all of them in.
func TestRefusedConnectionsGetTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, clients = 50, 500
		s := must(New(Config{HistoryEntries: 1, StoreTimeout: 1, AcceptsPerSecond: rate}, Deps{}))
		defer s.Close()
		began := time.Now()
		at := make(map[int]int) // second -> admitted
		var all sync.WaitGroup
		var mu sync.Mutex
		tries := 0
		for range clients {
			all.Go(func() {
				for {
					mu.Lock()
					tries++
					mu.Unlock()
					release, err := s.Admit(netip.MustParseAddr("10.0.0.1"))
					if err == nil {
						defer release()
						mu.Lock()
						at[int(time.Since(began).Seconds())]++
						mu.Unlock()
						return
					}
					if err.Retry < minTurn || err.Retry > maxTurn {
						t.Errorf("got a wait of %v, want %v to %v", err.Retry, minTurn, maxTurn)
					}
					time.Sleep(err.Retry)
				}
			})
		}
		all.Wait()
		for second, n := range at {
			if n > 2*rate {
				t.Errorf("got %d admitted in second %d, want at most %d", n, second, 2*rate)
			}
		}
		if took := time.Since(began); took > 2*clients/rate*time.Second {
			t.Errorf("the last was admitted after %v, want about %d s", took, clients/rate)
		}
		if tries > 3*clients {
			t.Errorf("got %d tries for %d clients, want few more than two each", tries, clients)
		}
	})
}

func TestTurnsHaveAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := must(New(Config{HistoryEntries: 1, StoreTimeout: 1, AcceptsPerSecond: 1}, Deps{}))
		defer s.Close()
		for range 1000 {
			if _, err := s.Admit(netip.MustParseAddr("10.0.0.1")); err != nil && err.Retry > maxTurn {
				t.Fatalf("got a wait of %v, want at most %v", err.Retry, maxTurn)
			}
		}
	})
}

// Connections without a session count as well, and give up their place to it.
func TestVisitorsAreLimited(t *testing.T) {
	ip := netip.MustParseAddr("10.0.0.1")
	s := must(New(Config{HistoryEntries: 1, StoreTimeout: 1, ConnectionsPerIP: 1}, Deps{}))
	defer s.Close()
	var leave []func()
	for i := range 1 + visitors {
		release, ok := s.Visit(ip)
		if !ok {
			t.Fatalf("visitor %d was refused", i)
		}
		leave = append(leave, release)
	}
	if _, ok := s.Visit(ip); ok {
		t.Error("one visitor too many")
	}
	if _, ok := s.Visit(netip.MustParseAddr("10.0.0.2")); !ok {
		t.Error("another address was refused")
	}
	if _, err := s.Admit(ip); err == nil {
		t.Error("admitted beside as many visitors as are allowed")
	}
	for _, release := range leave {
		release()
		release()
	}
	if _, err := s.Admit(ip); err != nil {
		t.Errorf("got %v, want admission", err)
	}
}
