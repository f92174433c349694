package chaos

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/client"
	"parley/core/e2e/rig"
	"parley/core/redis/redistest"
)

// told sends one message and demands that it is answered with a code that says
// that another try helps. It returns how long the answer took.
func told(t *testing.T, conn *client.Conn, code chat.Code) time.Duration {
	t.Helper()
	began := time.Now()
	_, err := conn.Send(rig.Within(t), "lobby", client.NewNonce(), "is anyone there?")
	took := time.Since(began)
	var said *chat.Error
	if !errors.As(err, &said) || said.Code != code || said.Retry == 0 {
		t.Fatalf("send: got %v, want %s with another try", err, code)
	}
	if took > 10*time.Second { // two are promised; a busy machine gets more
		t.Errorf("%s came after %v", code, took)
	}
	return took.Round(time.Millisecond)
}

// visit connects one more client to a node.
func (w *world) visit(n *rig.Node) *client.Conn {
	w.t.Helper()
	conn, err := client.Dial(rig.Within(w.t), client.Options{URL: n.WSURL(), Token: w.judge})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestANodeStartsWithoutRedis starts a node before its store: it says what is
// missing, takes connections, and works once the store is there.
func TestANodeStartsWithoutRedis(t *testing.T) {
	t.Parallel()
	store := redistest.Start(t, redistest.Options{AppendOnly: true})
	store.Kill() // its port is known now
	n := rig.New(t, rig.Unlimited(rig.Settings{"redis.url": store.URL()}))
	n.Launch()
	if code, body := n.Get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "redis") {
		t.Errorf("readyz without Redis: got %d %s, want 503 and a word about redis", code, body)
	}
	conn, err := client.Dial(rig.Within(t), client.Options{URL: n.WSURL(), Guest: "ann"})
	if err != nil {
		t.Fatalf("connect without Redis: %v", err)
	}
	defer conn.Close()
	t.Logf("unavailable after %v", told(t, conn, chat.CodeUnavailable))
	store.Restart()
	n.Ready()
	if _, err := conn.Join(rig.Within(t), "lobby", nil); err != nil {
		t.Errorf("join when Redis is there: %v", err)
	}
	if _, err := conn.Send(rig.Within(t), "lobby", client.NewNonce(), "good morning"); err != nil {
		t.Errorf("send when Redis is there: %v", err)
	}
	n.Stop()
}

// TestRedisDies ends Redis under clients. Sends fail soon, nobody is
// disconnected though the server goes on asking for heartbeats, and when Redis
// is back the nodes come back to it by themselves and in no rush.
func TestRedisDies(t *testing.T) {
	t.Parallel()
	const clients = 20
	w := begin(t, "Redis away", plan{clients: clients, giveUp: 3 * time.Second, settings: rig.Settings{"liveness.ping": "4s", "liveness.pong": "3s"}})
	conns := []*client.Conn{w.visit(w.nodes[0]), w.visit(w.nodes[1])}
	w.store.Kill()
	for i, conn := range conns {
		t.Logf("node %d: unavailable after %v", i, told(t, conn, chat.CodeUnavailable))
	}
	for _, n := range w.nodes {
		n.Awaits(http.StatusServiceUnavailable)
	}
	lasts(t, time.Duration(often(9, 30))*time.Second) // several heartbeats
	w.crowd.Hush()
	ended := 0
	for _, m := range w.crowd.Members() {
		ended += m.Ended()
	}
	if ended > 0 {
		t.Errorf("%d connections ended because Redis was away", ended)
	}
	for _, conn := range conns {
		if err := conn.Ping(rig.Within(t)); err != nil {
			t.Errorf("ping while Redis is away: %v", err)
		}
	}

	w.store.Restart()
	peak, sum := rush(t, w.store, 3*time.Second)
	t.Logf("after its return Redis got %d commands in 3 s, at most %d of them in a quarter of a second, from %d nodes with %d clients in 2 rooms", sum, peak, len(w.nodes), clients)
	if peak > 1000 {
		t.Errorf("%d commands in a quarter of a second: a stampede", peak)
	}
	for _, n := range w.nodes {
		n.Ready()
	}
	w.crowd.Talk(4, 20*time.Millisecond)
	w.goesOn(50)
	w.settle(1, 0)
}

// rush counts the commands that Redis processes in quarters of a second; where it was
// asked later, as many as came in a quarter on average.
func rush(t *testing.T, s *redistest.Server, d time.Duration) (peak, sum int) {
	t.Helper()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	asked := time.Now()
	for last := 0; ; {
		now := number(t, s, "stats", "total_commands_processed")
		n := max(0, now-last-1) // but the question itself
		quarters := max(1, time.Since(asked).Seconds()*4)
		peak, sum, last, asked = max(peak, int(float64(n)/quarters)), sum+n, now, time.Now()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return peak, sum
		}
	}
}

// TestSendsAtAFrozenRedisEndTogether has one connection send many messages at
// once while Redis stands still: a connection's commands run one after the
// other, and the last must not wait for the timeouts of all before it.
func TestSendsAtAFrozenRedisEndTogether(t *testing.T) {
	t.Parallel()
	const sends = 32
	store := redistest.Start(t, redistest.Options{AppendOnly: true})
	n := rig.New(t, rig.Unlimited(rig.Settings{"redis.url": store.URL()}))
	n.Start()
	defer n.Stop()
	conn, err := client.Dial(rig.Within(t), client.Options{URL: n.WSURL(), Guest: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Join(rig.Within(t), "lobby", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Send(rig.Within(t), "lobby", client.NewNonce(), "good morning"); err != nil {
		t.Fatal(err)
	}
	store.Pause()
	defer store.Resume()
	took := make([]time.Duration, sends)
	var all sync.WaitGroup
	for i := range sends {
		all.Go(func() {
			began := time.Now()
			_, err := conn.Send(rig.Within(t), "lobby", client.NewNonce(), "is anyone there?")
			took[i] = time.Since(began)
			if said, ok := errors.AsType[*chat.Error](err); !ok || said.Code != chat.CodeUnavailable || said.Retry == 0 {
				t.Errorf("send %d: got %v, want unavailable with another try", i, err)
			}
		})
	}
	all.Wait()
	t.Logf("%d sends at a frozen Redis, pipelined: the first answer after %v, the last after %v",
		sends, slices.Min(took).Round(time.Millisecond), slices.Max(took).Round(time.Millisecond))
	if last := slices.Max(took); last > 10*time.Second { // two are promised; a busy machine gets more, one call after the other takes 48
		t.Errorf("the last answer came after %v", last)
	}
}

// TestRedisIsSlow has every answer of Redis come too late. Senders are told
// so at the deadline, nothing piles up behind it, and all is well when Redis
// is quick again.
func TestRedisIsSlow(t *testing.T) {
	t.Parallel()
	w := begin(t, "Redis slow", plan{links: true, giveUp: 5 * time.Second})
	before := make([]float64, len(w.nodes))
	for i, n := range w.nodes {
		before[i] = n.Metric("go_goroutines")
	}
	for _, l := range w.links {
		l.slow(4 * time.Second)
	}
	for i, n := range w.nodes {
		t.Logf("node %d: unavailable after %v", i, told(t, w.visit(n), chat.CodeUnavailable))
	}
	lasts(t, time.Duration(often(3, 30))*time.Second)
	for i, n := range w.nodes {
		// A talker has at most 32 messages under way, and the pool 32 connections.
		now := n.Metric("go_goroutines")
		t.Logf("node %d: %v goroutines before, %v while Redis is slow", i, before[i], now)
		if now > before[i]+500 {
			t.Errorf("node %d: %v goroutines, %v before: they pile up", i, now, before[i])
		}
	}
	open := number(t, w.store, "clients", "connected_clients")
	t.Logf("%d connections at Redis while it is slow", open)
	for _, l := range w.links {
		l.quick()
	}
	w.goesOn(50)
	w.settle(1, 0)
}
