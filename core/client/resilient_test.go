package client

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/wire"
)

// runResilient starts r and stops it at the test's end.
func runResilient(t *testing.T, opt ResilientOptions) (*Resilient, func() error) {
	t.Helper()
	opt.MinBackoff, opt.MaxBackoff = time.Millisecond, 20*time.Millisecond
	r, err := NewResilient(opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var end error
	wg.Go(func() { end = r.Run(ctx) })
	stop := func() error { cancel(); wg.Wait(); return end }
	t.Cleanup(func() { _ = stop() })
	return r, stop
}

func TestResilientResumesAndResends(t *testing.T) {
	both(t, func(t *testing.T, scheme string) {
		var mu sync.Mutex
		var hellos, joins, sends []wire.Command
		url := serve(t, scheme, func(p *peer) {
			hello, ok := p.welcome("s3")
			if !ok {
				return
			}
			join, err := p.next()
			if err != nil {
				return
			}
			for _, r := range join.Rooms {
				p.say(wire.JoinedEvent{Type: wire.Joined, ID: join.ID, Room: r.Room, Epoch: "e", Seq: 7, LastID: "i7", Recovered: p.n > 0})
			}
			if p.n == 0 {
				p.say(wire.EntryEvent{Type: "message", Room: "a", Seq: 8, ID: "i8"})
			}
			send, err := p.next()
			if err != nil {
				return
			}
			mu.Lock()
			hellos, joins, sends = append(hellos, hello), append(joins, join), append(sends, send)
			mu.Unlock()
			switch p.n {
			case 0: // cut: the outcome is unknown
				return
			case 1: // told to come again
				p.end(wire.CloseRestart, "going_away")
				return
			case 2: // retryable refusal, then the answer on the same connection
				p.say(wire.ErrorEvent{Type: wire.Error, ID: send.ID, Room: send.Room, Code: chat.CodeUnavailable, Text: "later", Retryable: true})
				again, _ := p.next()
				p.say(wire.AckEvent{Type: wire.Ack, ID: again.ID, Room: again.Room, Epoch: "e", Seq: 9, MessageID: "i9", Outcome: chat.Accepted, Repeat: true})
			}
			_, _ = p.next()
		})
		var attempts, connects, disconnects int
		r, stop := runResilient(t, ResilientOptions{
			Options:      Options{URL: url, Guest: "wish"},
			Rooms:        []chat.RoomID{"a", "b"},
			OnConnect:    func(*wire.WelcomeEvent) { connects++ },
			OnDisconnect: func(error) { disconnects++ },
			OnAttempt:    func(chat.RoomID, string, error) { attempts++ },
		})
		ack, err := r.Send(testContext(t), "a", "n1", "hi")
		if err != nil || ack.Seq != 9 || !ack.Repeat {
			t.Fatalf("send: got %+v, %v", ack, err)
		}
		if at, ok := r.Position("a"); !ok || at.Seq != 8 || at.ID != "i8" {
			t.Errorf("position: got %+v", at)
		}
		if r.User() != "ann" {
			t.Errorf("user: got %q", r.User())
		}
		if err := stop(); err != nil {
			t.Fatalf("run: %v", err)
		}
		if attempts != 4 || connects != 3 || disconnects != 3 {
			t.Errorf("got %d attempts, %d connects, %d disconnects; want 4, 3, 3", attempts, connects, disconnects)
		}
		mu.Lock()
		defer mu.Unlock()
		if h := hellos[0]; h.Secret != "" || *h.Guest != "wish" {
			t.Errorf("first hello: got secret %q guest %q", h.Secret, *h.Guest)
		}
		for _, h := range hellos[1:] {
			if h.Secret != "s3" || *h.Guest != "ann" {
				t.Errorf("later hello: got secret %q guest %q, want those of the first welcome", h.Secret, *h.Guest)
			}
		}
		if joins[0].Rooms[0].Since != nil {
			t.Errorf("first join: got since %+v", joins[0].Rooms[0].Since)
		}
		want := journal.Position{Epoch: "e", Seq: 8, ID: "i8"}
		if s := joins[1].Rooms[0].Since; s == nil || *s != want {
			t.Errorf("second join: got since %+v, want %+v", s, want)
		}
		for _, s := range sends {
			if s.Nonce != "n1" {
				t.Errorf("resent with nonce %q, want n1", s.Nonce)
			}
		}
	})
}

// A hello that came too late is no reason to stop: the next one may come in
// time.
func TestResilientComesAgainAfterALateHello(t *testing.T) {
	both(t, func(t *testing.T, scheme string) {
		url := serve(t, scheme, func(p *peer) {
			if p.n == 0 {
				p.end(wire.CloseHandshake, "no hello in time")
				return
			}
			if _, ok := p.welcome(""); !ok {
				return
			}
			join, _ := p.next()
			p.say(wire.JoinedEvent{Type: wire.Joined, ID: join.ID, Room: "a", Epoch: "e"})
			_, _ = p.next()
		})
		r, stop := runResilient(t, ResilientOptions{Options: Options{URL: url, Guest: "ann"}, Rooms: []chat.RoomID{"a"}})
		if _, err := r.Conn(testContext(t)); err != nil {
			t.Fatalf("after a late hello: %v", err)
		}
		if err := stop(); err != nil {
			t.Fatalf("run: %v", err)
		}
	})
}

func TestResilientGivesUpWhenToldTo(t *testing.T) {
	tests := []struct {
		name   string
		script func(*peer)
	}{
		{"final close", func(p *peer) { p.welcome(""); _, _ = p.next(); p.end(wire.CloseDenied, "denied") }},
		{"refused hello", func(p *peer) {
			c, _ := p.next()
			p.say(wire.ErrorEvent{Type: wire.Error, ID: c.ID, Code: chat.CodeUnauthorized, Text: "expired"})
		}},
		{"refused room", func(p *peer) {
			p.welcome("")
			c, _ := p.next()
			p.say(wire.ErrorEvent{Type: wire.Error, ID: c.ID, Room: "a", Code: chat.CodeDenied, Text: "banned"})
			_, _ = p.next()
		}},
		{"refused join", func(p *peer) {
			p.welcome("")
			c, _ := p.next()
			p.say(wire.ErrorEvent{Type: wire.Error, ID: c.ID, Code: chat.CodeTooManyRooms, Text: "too many"})
			_, _ = p.next()
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := NewResilient(ResilientOptions{Options: Options{URL: serve(t, "ws", tt.script)}, Rooms: []chat.RoomID{"a"}})
			if err != nil {
				t.Fatal(err)
			}
			ctx := testContext(t)
			end := r.Run(ctx)
			if end == nil || ctx.Err() != nil {
				t.Fatalf("run: got %v, want the server's reason", end)
			}
			if _, err := r.Send(ctx, "a", "n", "hi"); !errors.Is(err, end) {
				t.Errorf("send: got %v, want %v", err, end)
			}
		})
	}
}

func TestResilientReportsAFinalRefusal(t *testing.T) {
	r, stop := runResilient(t, ResilientOptions{Options: Options{URL: serve(t, "ws", func(p *peer) {
		p.welcome("")
		for {
			c, err := p.next()
			if err != nil {
				return
			}
			p.say(wire.ErrorEvent{Type: wire.Error, ID: c.ID, Room: c.Room, Code: chat.CodeDenied, Text: "announcements only"})
		}
	})}})
	_, err := r.Send(testContext(t), "a", "n", "hi")
	var said *chat.Error
	if !errors.As(err, &said) || said.Code != chat.CodeDenied {
		t.Fatalf("got %v, want denied", err)
	}
	_ = stop()
	if _, err := r.Conn(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("after stop: got %v, want %v", err, ErrClosed)
	}
}

func TestResilientTriesEveryURL(t *testing.T) {
	dead := serve(t, "tcp", func(*peer) {})
	good := serve(t, "ws", room)
	r, _ := runResilient(t, ResilientOptions{URLs: []string{dead, good}, Options: Options{Guest: "ann"}})
	if _, err := r.Send(testContext(t), "a", "n", "hi"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Send(ctx, "a", "n2", "hi"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

func TestTooManyRoomsAreRefused(t *testing.T) {
	if _, err := NewResilient(ResilientOptions{Rooms: make([]chat.RoomID, wire.MaxRooms+1)}); err == nil {
		t.Error("got no error")
	}
}

func TestDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := NewResilient(ResilientOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			if d := r.delay(0, nil, errors.New("x")); d > 500*time.Millisecond {
				t.Fatalf("first backoff: got %v", d)
			}
			if d := r.delay(99, nil, errors.New("x")); d > 30*time.Second {
				t.Fatalf("late backoff: got %v", d)
			}
			w := &wire.WelcomeEvent{ReconnectJitterMS: 500}
			if d := r.delay(99, w, &CloseError{Code: wire.CloseRestart}); d >= 500*time.Millisecond {
				t.Fatalf("drain: got %v, want less than the announced 500 ms", d)
			}
			if d := r.delay(0, w, &CloseError{Code: wire.CloseTooMany, RetryAfter: time.Second}); d < time.Second {
				t.Fatalf("retry after: got %v, want at least 1 s", d)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		if !pause(ctx, time.Hour) {
			t.Error("an undisturbed pause reports an end")
		}
		cancel()
		if pause(ctx, time.Hour) {
			t.Error("a cancelled pause reports none")
		}
	})
}
