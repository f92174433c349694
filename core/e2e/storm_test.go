package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/client"
	"parley/core/wire"
)

// stormTime is in what time everyone must be back when the server is.
const stormTime = 30 * time.Second

// storm notes when each client was told to go, when it first tried to come
// back, and when it was welcomed again.
type storm struct {
	mu   sync.Mutex
	here int
	told map[int]time.Time
	dial map[int]time.Duration // after it was told
	back map[int]time.Time
	odd  []string // ends that were not a 1012
}

func (s *storm) came(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.here++
	if _, told := s.told[i]; told {
		s.back[i] = time.Now()
	}
}

func (s *storm) left(i int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.here--
	var ce *client.CloseError
	if !errors.As(err, &ce) || ce.Code != wire.CloseRestart {
		if !errors.Is(err, context.Canceled) {
			s.odd = append(s.odd, fmt.Sprintf("client %d: %v", i, err))
		}
		return
	}
	s.told[i] = time.Now()
}

func (s *storm) tries(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, told := s.told[i]; told {
		if _, again := s.dial[i]; !again {
			s.dial[i] = time.Since(at)
		}
	}
}

func (s *storm) count(of func() int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return of()
}

// options are those of client i: the reconnecting of docs/protocol.md.
func (s *storm) options(i int, url string) client.ResilientOptions {
	return client.ResilientOptions{
		Options: client.Options{
			URL: url, Guest: fmt.Sprintf("guest%d", i), Timeout: patience,
			NetDial: func(ctx context.Context, network, addr string) (net.Conn, error) {
				s.tries(i)
				return new(net.Dialer).DialContext(ctx, network, addr)
			},
		},
		MinBackoff: 500 * time.Millisecond, MaxBackoff: 30 * time.Second,
		OnConnect:    func(*wire.WelcomeEvent) { s.came(i) },
		OnDisconnect: func(err error) { s.left(i, err) },
	}
}

// TestADrainIsNoStorm ends a server with many clients under load and starts
// the next on the same ports. Everyone is told, comes back spread over the
// announced time, and has lost nothing. PARLEY_LONG=1 takes 5,000 clients.
func TestADrainIsNoStorm(t *testing.T) {
	clients, house := 300, 25 // members of one room
	if os.Getenv("PARLEY_LONG") != "" {
		clients, house = 5000, 50
	}
	const jitter = 5 * time.Second
	n := startNode(t, unlimited(settings{
		"shutdown.reconnect_jitter": jitter.String(), "shutdown.drain": "30s",
		// 5,000 clients in one process answer late when they all come at once.
		"liveness.ping": 0, "limits.handshake_timeout": patience.String(),
	}))
	s := &storm{told: make(map[int]time.Time), dial: make(map[int]time.Duration), back: make(map[int]time.Time)}
	var crowds []*crowd
	for i := range clients {
		if i%house == 0 {
			crowds = append(crowds, newCrowd(t, chat.RoomID(fmt.Sprintf("house-%d", i/house))))
		}
		crowds[len(crowds)-1].Add(fmt.Sprintf("client %d", i), s.options(i, n.URL(i)))
		if i%100 == 99 || i == clients-1 { // else all would be on the way at once
			await(t, "those who came are here", func() bool { return s.count(func() int { return s.here }) > i })
		}
	}
	for _, c := range crowds {
		c.Talk(1, 200*time.Millisecond)
	}
	for _, c := range crowds {
		c.More(1)
	}

	stoodStill := pulse()
	n.Signal(syscall.SIGTERM)
	if code := n.Ended(); code != 0 {
		t.Errorf("exit code: got %d, want 0", code)
	}
	n.Start()
	up := time.Now()
	await(t, "everyone is back", func() bool { return s.count(func() int { return len(s.back) }) == clients })
	s.check(t, clients, up, jitter, stoodStill())
	resends := 0
	for _, c := range crowds {
		c.More(1)
		rep := c.Settle(client.Options{URL: n.WSURL()})
		if rep.Resets > 0 || rep.Refused > 0 || rep.Unknown > 0 {
			t.Errorf("got %d resets, %d refused and %d unknown, want none", rep.Resets, rep.Refused, rep.Unknown)
		}
		resends += rep.Resends
	}
	t.Logf("%d messages were sent again", resends)
	n.Stop()
}

// pulse beats until it is asked for the longest time between two beats: so long the
// clients, who are in this process, stood still.
func pulse() (longest func() time.Duration) {
	quit, over := make(chan struct{}), make(chan time.Duration)
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		var most time.Duration
		for last := time.Now(); ; {
			select {
			case <-tick.C:
			case <-quit:
				over <- most
				return
			}
			now := time.Now()
			most, last = max(most, now.Sub(last)), now
		}
	}()
	return func() time.Duration { close(quit); return <-over }
}

// check judges how everyone left and came back. Whoever was to come while the
// clients stood still came at the end of that.
func (s *storm) check(t *testing.T, clients int, up time.Time, jitter, stoodStill time.Duration) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.odd) > 0 {
		t.Errorf("%d of %d clients were not told to come back: %s", len(s.odd), clients, strings.Join(s.odd[:min(5, len(s.odd))], "; "))
	}
	const parts = 10
	var spread [parts + 1]int // the last: later than announced, as on a busy machine
	for _, d := range s.dial {
		spread[min(parts, int(parts*d/jitter))]++
	}
	for i, k := range spread[:parts] {
		if k > clients/3+int(float64(clients)*stoodStill.Seconds()/jitter.Seconds()) {
			t.Errorf("%d of %d clients came in part %d of the %v, want them spread: %v", k, clients, i, jitter, spread)
		}
	}
	var last time.Duration
	for _, at := range s.back {
		last = max(last, at.Sub(up))
	}
	if last > stormTime {
		t.Errorf("the last client was back after %v, want %v", last, stormTime)
	}
	t.Logf("%d clients: first tries by tenths of %v: %v; the last was back %v after the server; the clients stood still for %v at most",
		clients, jitter, spread, last.Round(time.Millisecond), stoodStill.Round(time.Millisecond))
}
