package client

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/wire"
)

// room is a script that answers every command about one room.
func room(p *peer) {
	if _, ok := p.welcome("s3"); !ok {
		return
	}
	var seq uint64
	for {
		c, err := p.next()
		if err != nil {
			return
		}
		switch c.Type {
		case wire.Join:
			rooms := c.Rooms
			if len(rooms) == 0 {
				rooms = []wire.JoinRoom{{Room: c.Room, Since: c.Since}}
			}
			for _, r := range rooms {
				if r.Room == "closed" {
					p.say(wire.ErrorEvent{Type: wire.Error, ID: c.ID, Room: r.Room, Code: chat.CodeDenied, Text: "no"})
					continue
				}
				p.say(wire.JoinedEvent{Type: wire.Joined, ID: c.ID, Room: r.Room, Epoch: "e", Seq: seq, LastID: "x", Recovered: r.Since != nil})
			}
		case wire.Leave:
			p.say(wire.LeftEvent{Type: wire.Left, ID: c.ID, Room: c.Room})
		case wire.Send:
			if c.Text == "no" {
				p.say(wire.ErrorEvent{Type: wire.Error, ID: c.ID, Room: c.Room, Code: chat.CodeSlowMode, Text: "wait", Retryable: true, RetryAfterMS: 1500})
				continue
			}
			seq++
			p.say(wire.EntryEvent{Type: "message", Room: c.Room, Seq: seq, ID: "m", From: "ann", Nonce: c.Nonce, Text: c.Text})
			p.say(wire.AckEvent{Type: wire.Ack, ID: c.ID, Room: c.Room, Epoch: "e", Seq: seq, MessageID: "m", Outcome: chat.Accepted})
		case wire.History:
			h := wire.HistoryEvent{Type: wire.History, ID: c.ID, Room: c.Room, Epoch: "e", Entries: []wire.EntryEvent{}}
			before := c.Before
			if before == 0 {
				before = 6
			}
			for s := max(before, 3) - 2; s < before; s++ {
				h.Entries = append(h.Entries, wire.EntryEvent{Type: "message", Room: c.Room, Seq: s})
			}
			h.More = h.Entries[0].Seq > 1
			p.say(h)
		case wire.Members:
			p.say(wire.MembersEvent{Type: wire.Members, ID: c.ID, Room: c.Room, Count: 1, Users: []chat.UserID{"ann"}})
		case wire.Ping:
			p.say(wire.PingEvent{Type: wire.Pong, ID: c.ID})
		}
	}
}

func TestEveryCommandGetsItsReply(t *testing.T) {
	both(t, func(t *testing.T, scheme string) {
		ctx := testContext(t)
		var seen []string
		c := mustDial(t, Options{URL: serve(t, scheme, room), Guest: "ann", OnEvent: func(ev any) {
			if e, ok := ev.(*wire.EntryEvent); ok {
				seen = append(seen, e.Text)
			}
		}})
		if w := c.Welcome(); w.User != "ann" || w.Secret != "s3" {
			t.Fatalf("welcome: got user %q secret %q", w.User, w.Secret)
		}
		if _, err := c.Join(ctx, "lobby", nil); err != nil {
			t.Fatal(err)
		}
		if ack, err := c.Send(ctx, "lobby", NewNonce(), "hi"); err != nil || ack.Seq != 1 {
			t.Fatalf("send: got %+v, %v", ack, err)
		}
		got := make(chan error, 1)
		if err := c.SendAsync("lobby", NewNonce(), "there", func(a *wire.AckEvent, err error) { got <- err }); err != nil {
			t.Fatal(err)
		}
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		if at, ok := c.Position("lobby"); !ok || at != (journal.Position{Epoch: "e", Seq: 2, ID: "m"}) {
			t.Fatalf("position: got %+v, %v", at, ok)
		}
		_, err := c.Send(ctx, "lobby", "n", "no")
		var said *chat.Error
		if !errors.As(err, &said) || said.Code != chat.CodeSlowMode || said.Retry.Milliseconds() != 1500 || Unknown(err) {
			t.Fatalf("refused send: got %v, unknown %v", err, Unknown(err))
		}
		epoch, es, err := c.HistoryAll(ctx, "lobby")
		if err != nil || epoch != "e" || len(es) != 5 || es[0].Seq != 1 || es[4].Seq != 5 {
			t.Fatalf("history: got epoch %q, %d entries %v, %v", epoch, len(es), es, err)
		}
		if m, err := c.Members(ctx, "lobby"); err != nil || m.Count != 1 {
			t.Fatalf("members: got %+v, %v", m, err)
		}
		if err := c.Ping(ctx); err != nil {
			t.Fatal(err)
		}
		if err := c.Leave(ctx, "lobby"); err != nil {
			t.Fatal(err)
		}
		if _, ok := c.Position("lobby"); ok {
			t.Error("a left room still has a position")
		}
		joined, refused, err := c.JoinAll(ctx, []wire.JoinRoom{{Room: "a"}, {Room: "closed"}, {Room: "b"}})
		if err != nil || len(joined) != 2 || len(refused) != 1 || refused["closed"] == nil {
			t.Fatalf("join of three: got %v, %v, %v", joined, refused, err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil || !errors.Is(c.Err(), ErrClosed) {
			t.Fatalf("second close: got %v, end %v", err, c.Err())
		}
		if _, err := c.Send(ctx, "lobby", "n", "late"); !errors.Is(err, ErrClosed) {
			t.Fatalf("send after close: got %v", err)
		}
		if want := []string{"hi", "there"}; !slices.Equal(seen, want) {
			t.Fatalf("events: got %q, want %q", seen, want)
		}
	})
}

func TestPingsAreAnswered(t *testing.T) {
	both(t, func(t *testing.T, scheme string) {
		pong := make(chan wire.Command, 1)
		c := mustDial(t, Options{Guest: "ann", URL: serve(t, scheme, func(p *peer) {
			p.welcome("")
			if p.ws != nil {
				p.ws.SetPongHandler(func(data string) error {
					pong <- wire.Command{Type: wire.Pong, ID: data}
					return nil
				})
				_ = p.ws.WriteMessage(9, []byte("7"))
				_, _ = p.next()
				return
			}
			p.say(wire.PingEvent{Type: wire.Ping, ID: "7"})
			if c, err := p.next(); err == nil {
				pong <- c
			}
			_, _ = p.next()
		})})
		defer c.Close()
		if got := <-pong; got.Type != wire.Pong || got.ID != "7" {
			t.Fatalf("got %+v, want a pong with id 7", got)
		}
	})
}

func TestPositionRules(t *testing.T) {
	since := &journal.Position{Epoch: "e", Seq: 4, ID: "i4"}
	entry := &wire.EntryEvent{Type: "message", Room: "r", Seq: 5, ID: "i5"}
	joined := func(epoch string, seq uint64, recovered bool) *wire.JoinedEvent {
		return &wire.JoinedEvent{Room: "r", Epoch: epoch, Seq: seq, LastID: "top", Recovered: recovered}
	}
	tests := []struct {
		name   string
		since  *journal.Position
		events []any
		want   journal.Position
	}{
		{"fresh join takes the room's top", nil, []any{joined("e", 9, false)}, journal.Position{Epoch: "e", Seq: 9, ID: "top"}},
		{"recovered keeps its own", since, []any{joined("e", 9, true)}, *since},
		{"recovered then an entry", since, []any{joined("e", 9, true), entry}, journal.Position{Epoch: "e", Seq: 5, ID: "i5"}},
		{"not recovered forgets its own", since, []any{joined("e2", 2, false)}, journal.Position{Epoch: "e2", Seq: 2, ID: "top"}},
		{"reset moves", since, []any{joined("e", 9, true), &wire.ResetEvent{Room: "r", Epoch: "e3", Seq: 1, LastID: "z"}}, journal.Position{Epoch: "e3", Seq: 1, ID: "z"}},
		{"an old entry does not move back", nil, []any{joined("e", 9, false), entry}, journal.Position{Epoch: "e", Seq: 9, ID: "top"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlaces()
			p.expect("r", tt.since)
			for _, ev := range tt.events {
				p.note(ev)
			}
			if got, _ := p.get("r"); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestTheEndIsTold(t *testing.T) {
	tests := []struct {
		name  string
		end   func(*peer)
		code  wire.CloseCode
		retry bool
	}{
		{"slow consumer", func(p *peer) { p.end(wire.CloseSlow, "slow_consumer") }, wire.CloseSlow, true},
		{"denied", func(p *peer) { p.end(wire.CloseDenied, "denied") }, wire.CloseDenied, false},
		{"broken", func(*peer) {}, 1006, true},
		{"nonsense", func(p *peer) { p.raw([]byte("nonsense")) }, wire.CloseProtocol, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			both(t, func(t *testing.T, scheme string) {
				c := mustDial(t, Options{Guest: "ann", URL: serve(t, scheme, func(p *peer) {
					p.welcome("")
					_, _ = p.next() // a send that gets no answer
					tt.end(p)
				})})
				_, err := c.Send(testContext(t), "lobby", "n", "hi")
				var ce *CloseError
				if !errors.As(err, &ce) || ce.Code != tt.code || !Unknown(err) {
					t.Fatalf("send: got %v, want code %d and unknown", err, tt.code)
				}
				if got := ce.Code.Reconnect(); got != tt.retry {
					t.Errorf("reconnect: got %v, want %v", got, tt.retry)
				}
				<-c.Done()
				if c.Err() != error(ce) {
					t.Errorf("end: got %v, want %v", c.Err(), ce)
				}
			})
		})
	}
}

func TestCutEndsWaits(t *testing.T) {
	both(t, func(t *testing.T, scheme string) {
		asked := make(chan struct{})
		c := mustDial(t, Options{Guest: "ann", URL: serve(t, scheme, func(p *peer) {
			p.welcome("")
			_, _ = p.next()
			close(asked)
			_, _ = p.next()
		})})
		got := make(chan error, 1)
		if err := c.SendAsync("lobby", "n", "hi", func(_ *wire.AckEvent, err error) { got <- err }); err != nil {
			t.Fatal(err)
		}
		<-asked
		c.Cut()
		if err := <-got; !errors.Is(err, ErrClosed) {
			t.Fatalf("got %v, want %v", err, ErrClosed)
		}
	})
}

func TestContextEndsTheWaitAlone(t *testing.T) {
	both(t, func(t *testing.T, scheme string) {
		ctx, cancel := context.WithCancel(t.Context())
		c := mustDial(t, Options{Guest: "ann", URL: serve(t, scheme, func(p *peer) {
			p.welcome("")
			late, _ := p.next()
			cancel()
			ping, _ := p.next()
			p.say(wire.AckEvent{Type: wire.Ack, ID: late.ID, Room: "lobby", Seq: 1})
			p.say(wire.PingEvent{Type: wire.Pong, ID: ping.ID})
			_, _ = p.next()
		})})
		if _, err := c.Send(ctx, "lobby", "n", "hi"); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want %v", err, context.Canceled)
		}
		if err := c.Ping(testContext(t)); err != nil {
			t.Fatalf("the connection did not outlive the wait: %v", err)
		}
	})
}

func TestDialSaysWhatIsWrong(t *testing.T) {
	refused := serve(t, "tcp", func(p *peer) {
		c, _ := p.next()
		p.say(wire.ErrorEvent{Type: wire.Error, ID: c.ID, Code: chat.CodeUnauthorized, Text: "the token has expired"})
		_, _ = p.next()
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	plain := strings.TrimSuffix(serve(t, "ws", room), "/v1/ws")
	tests := []struct{ name, url, want string }{
		{"no such scheme", "gopher://x", "must be ws, wss, tcp or tls"},
		{"no URL", "ws://\x7f", "dial"},
		{"nobody listens on tcp", "tcp://" + ln.Addr().String(), "refused"},
		{"nobody listens on ws", "ws://" + ln.Addr().String(), "refused"},
		{"hello refused", refused, "the token has expired"},
		{"no websocket there", serve(t, "tcp", func(p *peer) { p.raw([]byte("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")) }), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Dial(testContext(t), Options{URL: tt.url, Token: "t"})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want it to say %q", err, tt.want)
			}
		})
	}
	t.Run("handshake refused", func(t *testing.T) {
		_, err := Dial(testContext(t), Options{URL: plain, Origin: "http://elsewhere.example"})
		var shake *HandshakeError
		if !errors.As(err, &shake) || shake.Status != 403 || !strings.Contains(shake.Error(), "403") || shake.Unwrap() == nil {
			t.Errorf("got %v, want status 403", err)
		}
		if !final(err) {
			t.Error("a refused origin counts as worth retrying")
		}
	})
}

func TestFramesCanBeTakenRaw(t *testing.T) {
	var frames int
	c := mustDial(t, Options{URL: serve(t, "tcp", room), Guest: "ann",
		OnFrame: func(b []byte) bool { frames++; return strings.Contains(string(b), `"message"`) },
		OnEvent: func(ev any) {
			if _, ok := ev.(*wire.EntryEvent); ok {
				t.Error("a frame that OnFrame took reached OnEvent")
			}
		}})
	if _, err := c.Send(testContext(t), "lobby", "n", "hi"); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if frames != 3 { // welcome, message, ack
		t.Errorf("frames: got %d, want 3", frames)
	}
}

func TestSkipHelloLeavesTheFirstWord(t *testing.T) {
	both(t, func(t *testing.T, scheme string) {
		c := mustDial(t, Options{SkipHello: true, URL: serve(t, scheme, func(p *peer) {
			_, err := p.next()
			if err == nil {
				t.Error("nonsense was understood")
			}
			p.end(wire.CloseAbuse, "abuse")
		})})
		if err := c.WriteText([]byte("{nonsense")); err != nil {
			t.Fatal(err)
		}
		<-c.Done()
		var ce *CloseError
		if !errors.As(c.Err(), &ce) || ce.Code != wire.CloseAbuse || ce.Error() == "" {
			t.Errorf("got %v, want code %d", c.Err(), wire.CloseAbuse)
		}
		if err := c.WriteBinary(nil); err == nil {
			t.Error("a write after the end succeeded")
		}
	})
}

func TestTooManyWaitingCommandsAreRefused(t *testing.T) {
	c := mustDial(t, Options{URL: serve(t, "tcp", room), Guest: "ann"})
	c.mu.Lock()
	for i := range maxPending {
		c.pending[string(rune(i+0x10000))] = &call{done: func(any, error) {}}
	}
	c.mu.Unlock()
	if err := c.SendAsync("lobby", "n", "hi", func(*wire.AckEvent, error) {}); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v, want %v", err, ErrBusy)
	}
}
