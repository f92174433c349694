package bench

import (
	"net/http"
	"strings"
	"testing"

	"parley/core/bench/load"
)

// TestSeveralNodes measures a load on nodes that share a Redis: what is sent to
// the first node reaches the members of the others, whole and in order, and each
// process's share is told.
func TestSeveralNodes(t *testing.T) {
	for _, c := range []Cluster{
		{Nodes: 1, Redis: "redis-server", Fsync: "everysec"},
		{Nodes: 2, Redis: "redis-server", Fsync: "always"},
		{Nodes: 3, Redis: "redis-server", Fsync: "no", Spread: true},
	} {
		cfg := config(tiny())
		cfg.Cluster = c
		sections := runMode(t, "fanout", cfg)
		got := map[string]float64{}
		for _, f := range sections[0].Figures {
			got[f.Name] = f.Value
		}
		if got["deliveries"] == 0 || got["lost"] != 0 || got["publishing node CPU per message"] == 0 || got["Redis CPU per message"] == 0 {
			t.Errorf("%+v: got %v", c, got)
		}
		if !strings.Contains(sections[0].Text, c.Fsync) {
			t.Errorf("%+v: the text %q does not say what Redis syncs", c, sections[0].Text)
		}
	}
}

// TestLoopOverNodes closes a loop by what members of another node have read.
func TestLoopOverNodes(t *testing.T) {
	l := tiny()
	l.Rate, l.InFlight, l.ByArrival = 0, 2, true
	cfg := config(l)
	cfg.Cluster = Cluster{Nodes: 2, Redis: "redis-server", Fsync: "everysec"}
	s := runMode(t, "fanout", cfg)[0]
	messages, deliveries := figure(t, s, "messages"), figure(t, s, "deliveries")
	if messages <= 0 || deliveries < messages { // each goes to the four of a room
		t.Errorf("got %v messages and %v deliveries", messages, deliveries)
	}
	if !strings.Contains(s.Title, "closed by arrivals, 2 publishers, each with 2 messages") {
		t.Errorf("the title %q does not say what closes the loop", s.Title)
	}
	cfg.Cluster.Spread = true
	m, err := Find("fanout")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(cfg).Run(within(t), m); err == nil || !strings.Contains(err.Error(), "one client process") {
		t.Errorf("members on two nodes: got %v, want an error that says who must be together", err)
	}
}

// TestMembersOfNodes divides members among the nodes: every one on exactly one
// node, and none where the publishers are unless they are to be spread.
func TestMembersOfNodes(t *testing.T) {
	a, b, c := &Server{Addr: "127.0.0.1:1"}, &Server{Addr: "127.0.0.1:2"}, &Server{Addr: "127.0.0.1:3"}
	a.others = []*Server{b, c}
	for _, spread := range []bool{false, true} {
		a.spread = spread
		seen, at := make([]int, 50_000), map[string]int{}
		for _, s := range (Load{Members: len(seen), RoomSize: len(seen), Publishers: 3}).specs(a, "x") {
			if s.Publishers > 0 && (s.Server != a.Addr || s.Members > 0) {
				t.Errorf("publishers go to %s with %d members", s.Server, s.Members)
			}
			if s.Members > load.MaxConnections {
				t.Errorf("one process has %d members", s.Members)
			}
			for i := range s.Members {
				seen[s.First+i]++
			}
			at[s.Server] += s.Members
		}
		for i, n := range seen {
			if n != 1 {
				t.Fatalf("spread %v: member %d connects %d times", spread, i, n)
			}
		}
		if spread != (at[a.Addr] > 0) || at[b.Addr] < 16_000 || at[c.Addr] < 16_000 {
			t.Errorf("spread %v: members by node %v", spread, at)
		}
	}
}

// TestClusterRefuses names what cannot be measured on several nodes.
func TestClusterRefuses(t *testing.T) {
	for want, cfg := range map[string]struct {
		mode string
		c    Cluster
	}{
		"measures one node": {"idle", Cluster{Nodes: 2, Redis: "redis-server", Fsync: "no"}},
		"appendfsync":       {"fanout", Cluster{Nodes: 2, Redis: "redis-server", Fsync: "sometimes"}},
		"65 nodes":          {"fanout", Cluster{Nodes: 65, Redis: "redis-server", Fsync: "no"}},
	} {
		m, err := Find(cfg.mode)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := New(Config{Cluster: cfg.c, Load: tiny()}).Run(t.Context(), m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want an error with %q", cfg.c, err, want)
		}
	}
	_, err := startStore(t.Context(), "/nowhere/redis-server", "always", t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "install redis-server") {
		t.Errorf("no program: got %v", err)
	}
}

// TestTunedServer starts the server of a mode that compares no tunings with one.
func TestTunedServer(t *testing.T) {
	cfg := config(tiny())
	cfg.Tunings = Tunings("GOMAXPROCS=1")
	b := New(cfg)
	server, err := b.server(within(t), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	status, err := server.ask(within(t), http.MethodGet, "/v1/status")
	if err != nil || !strings.Contains(string(status), `"gomaxprocs": 1,`) {
		t.Errorf("got %s, %v; want gomaxprocs 1", status, err)
	}
	b.Tunings = Tunings("GOGC=50", "GOGC=100")
	if _, err := b.server(within(t), nil, nil); err == nil || !strings.Contains(err.Error(), "takes one") {
		t.Errorf("two tunings: got %v", err)
	}
}
