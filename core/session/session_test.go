package session

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/chat"
	"parley/core/gate"
	"parley/core/liveness"
	"parley/core/wire"
)

func TestCommandsInEveryState(t *testing.T) {
	w := newWorld(t, nil)
	w.guest("bob").do(`{"type":"join","room":"lobby"}`)
	tests := []struct {
		command       string
		before, after string // type of the answer, or the error's code; "" = none
	}{
		{`{"type":"hello","guest":"ann"}`, "welcome", "bad_state"},
		{`{"type":"join","room":"lobby"}`, "bad_state", "joined"},
		{`{"type":"members","room":"lobby"}`, "bad_state", "members"},
		{`{"type":"history","room":"lobby"}`, "bad_state", "history"},
		{`{"type":"send","room":"lobby","text":"hi"}`, "bad_state", "ack"},
		{`{"type":"leave","room":"lobby"}`, "bad_state", "left"},
		{`{"type":"ping","ts":7}`, "pong", "pong"},
		{`{"type":"pong","ts":7}`, "", ""},
	}
	answer := func(es []event) string {
		switch {
		case len(es) == 0:
			return ""
		case len(es) > 1:
			return fmt.Sprintf("%d answers", len(es))
		case es[0].Type == "error":
			return es[0].Code.(string)
		}
		return es[0].Type
	}
	c := w.guest("ann")
	for _, tt := range tests {
		fresh := w.connect()
		if tt.before == "welcome" {
			tt.command = `{"type":"hello","guest":"another"}`
		}
		if got := answer(fresh.all("%s", tt.command)); got != tt.before {
			t.Errorf("%s before hello: got %q, want %q", tt.command, got, tt.before)
		}
		fresh.end()
		if got := answer(c.all("%s", tt.command)); got != tt.after {
			t.Errorf("%s after hello: got %q, want %q", tt.command, got, tt.after)
		}
	}
	if n := w.srv.Open(); n != 2 {
		t.Errorf("got %d sessions open, want those of bob and ann", n)
	}
	c.end()
	counted := map[wire.Type]uint64{}
	w.srv.Stats().Commands(func(typ wire.Type, n uint64) { counted[typ] = n })
	if counted[wire.Ping] != 2 || counted[wire.Send] != 2 || counted[wire.Hello] != 4 {
		t.Errorf("got command counts %v, want 2 pings, 2 sends, 4 hellos", counted)
	}
}

func TestMalformedCommandsAreAnsweredAndCountAgainstTheClient(t *testing.T) {
	for _, tt := range []struct {
		name, frame string
		code        chat.Code
		id          string
	}{
		{"no JSON", `hello`, chat.CodeBadRequest, ""},
		{"unknown type", `{"type":"dance","id":"7"}`, chat.CodeUnknownType, "7"},
		{"unknown type that is long", `{"type":"` + strings.Repeat("\u00e9", 4000) + `","id":"7"}`, chat.CodeUnknownType, "7"},
		{"missing field", `{"type":"join","id":"8"}`, chat.CodeBadRequest, "8"},
		{"bad room", `{"type":"join","id":"8","room":"No Such"}`, chat.CodeBadRequest, "8"},
		{"twice", `{"type":"ping","type":"pong"}`, chat.CodeBadRequest, ""},
		{"not UTF-8", "{\"type\":\"ping\",\"id\":\"\xff\"}", chat.CodeBadRequest, ""},
		{"empty", ``, chat.CodeBadRequest, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newWorld(t, nil).connect()
			defer c.end()
			for i := range maxStrikes {
				if open := c.raw(tt.frame); open != (i < maxStrikes-1) {
					t.Fatalf("after %d malformed commands: got open %v", i+1, open)
				}
			}
			e := c.events()[0]
			checkError(t, e, tt.code)
			if e.ID != tt.id || len(e.Text) > 400 {
				t.Errorf("got id %q and %d bytes of text, want id %q and a sentence", e.ID, len(e.Text), tt.id)
			}
			c.checkClosed(4008, false)
		})
	}
}

func TestOnlyPaidCommandsMakeUpForMalformedOnes(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.cfg.CommandsPerSecond, s.cfg.CommandsBurst = 1, maxStrikes+1 })
	c := w.guest("ann")
	defer c.end()
	for range maxStrikes - 1 {
		c.raw(`?`)
	}
	if e := c.do(`{"type":"ping"}`); e.Type != "pong" {
		t.Fatalf("got %+v, want a pong", e)
	}
	// Malformed frames cost what commands cost, so there is nothing left to
	// pay a ping with, and a pong is free.
	for range maxStrikes - 1 {
		c.raw(`?`)
	}
	checkError(t, c.do(`{"type":"ping"}`), chat.CodeRateLimited)
	c.raw(`{"type":"pong"}`)
	if c.raw(`?`) {
		t.Error("the connection stays open though it pays for nothing")
	}
	c.checkClosed(4008, false)
}

func TestCommandsAreLimitedInRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(s *setup) { s.cfg.CommandsPerSecond, s.cfg.CommandsBurst = 2, 4 })
		c := w.guest("ann")
		defer c.end()
		for range 3 {
			if e := c.do(`{"type":"ping"}`); e.Type != "pong" {
				t.Fatalf("got %+v within the burst, want a pong", e)
			}
		}
		e := c.do(`{"type":"join","room":"lobby"}`)
		checkError(t, e, chat.CodeRateLimited)
		if !e.Retryable || e.RetryAfterMS < 400 || e.RetryAfterMS > 600 {
			t.Errorf("got retry after %d ms, want about 525 (1.05 tokens at 2 a second)", e.RetryAfterMS)
		}
		checkError(t, c.do(`{"type":"hello","guest":"x"}`), chat.CodeRateLimited)
		time.Sleep(time.Duration(e.RetryAfterMS+1) * time.Millisecond)
		if e := c.do(`{"type":"join","room":"lobby"}`); e.Type != "joined" {
			t.Errorf("got %+v after waiting, want joined", e)
		}
		if e := c.all(`{"type":"pong"}`); len(e) != 0 {
			t.Errorf("got %+v for a pong, which is free", e)
		}
		// A join costs more the more rooms it names, but never more than the burst.
		time.Sleep(3 * time.Second)
		if e := c.all(`{"type":"join","rooms":[%s{"room":"r"}]}`, rooms(99)); len(e) != 100 || e[0].Type != "joined" {
			t.Errorf("got %d answers, want 100 joined", len(e))
		}
		checkError(t, c.do(`{"type":"ping"}`), chat.CodeRateLimited)
	})
}

func rooms(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"room":"room-%d"},`, i)
	}
	return b.String()
}

func TestAPanicEndsThatSessionOnly(t *testing.T) {
	w := newWorld(t, nil)
	bob := w.guest("bob")
	defer bob.end()
	ann := w.connect()
	w.allow(func(in *gate.Input) gate.Decision {
		if in.Subject.ID == "ann" {
			panic("the gate broke")
		}
		return gate.Decision{Allow: true}
	})
	if ann.raw(`{"type":"hello","guest":"ann"}`) {
		t.Error("a session goes on after a panic")
	}
	ann.checkClosed(1011, true)
	ann.end()
	if e := bob.do(`{"type":"ping"}`); e.Type != "pong" {
		t.Errorf("bob got %+v, want a pong", e)
	}
	if seated, _ := w.auth.guests.Len(); seated != 1 {
		t.Errorf("got %d guest names held, want bob's: the name of the session that panicked was kept", seated)
	}
	if n := len(w.srv.users); n != 1 {
		t.Errorf("got %d users counted, want 1", n)
	}
	if text := w.log.text(); !strings.Contains(text, "the gate broke") || !strings.Contains(text, "goroutine") {
		t.Errorf("the panic and its stack are not in the log:\n%s", text)
	}
}

func TestUnexpectedErrorsAreInternalAndLogged(t *testing.T) {
	w := newWorld(t, nil)
	cause := errors.New("disk on fire")
	w.auth.fail.Store(&cause)
	c := w.connect()
	defer c.end()
	e := c.do(`{"type":"hello","token":"x"}`)
	checkError(t, e, chat.CodeInternal)
	if !e.Retryable || strings.Contains(e.Text, "fire") {
		t.Errorf("got %+v, want retryable and nothing of the cause", e)
	}
	for range 2 * logsBurst {
		c.do(`{"type":"hello","token":"x"}`)
	}
	if n := strings.Count(w.log.text(), "disk on fire"); n < 1 || n > logsBurst+logsPerSecond*60 || n >= 2*logsBurst {
		t.Errorf("got %d lines in the log for %d failures, want some and a bound", n, 2*logsBurst+1)
	}
	counted := uint64(0)
	w.srv.Stats().Errors(func(code chat.Code, n uint64) {
		if code == chat.CodeInternal {
			counted = n
		}
	})
	if counted != 2*logsBurst+1 {
		t.Errorf("got %d internal errors counted, want %d", counted, 2*logsBurst+1)
	}
}

func TestFailTellsWhyOnce(t *testing.T) {
	w := newWorld(t, nil)
	c := w.connect()
	c.x.Fail(wire.CloseTooBig, chat.Errorf(chat.CodeFrameTooBig, "the line is too long"))
	c.x.Fail(wire.CloseHandshake, chat.Errorf(chat.CodeUnauthorized, "a later reason"))
	c.x.Close(wire.CloseNormal, "connection ended")
	es := c.events()
	if len(es) != 2 {
		t.Fatalf("got %+v, want an error and a close", es)
	}
	checkError(t, es[0], chat.CodeFrameTooBig)
	c.checkClosed(1009, false)
	c.end()
	checkCloses(t, w, wire.CloseTooBig, 1)
	checkCloses(t, w, wire.CloseHandshake, 0)
}

func checkCloses(t *testing.T, w *world, code wire.CloseCode, want uint64) {
	t.Helper()
	w.srv.Stats().Closes(func(c wire.CloseCode, n uint64) {
		if c == code && n != want {
			t.Errorf("got %d closes %d counted, want %d", n, code, want)
		}
	})
}

func TestGoodbyeEchoesTheClientsCodeAndIsNotCountedAsOurs(t *testing.T) {
	w := newWorld(t, nil)
	s := newSink()
	x := w.srv.Start(Conn{Transport: "ws", Remote: local, Socket: s})
	x.Goodbye(4502)
	x.End()
	if want := wire.ControlClose(4502, "client closed"); !bytes.Equal(s.taken(), want) {
		t.Errorf("want % x alone", want)
	}
	checkCloses(t, w, wire.CloseNormal, 1)
	checkCloses(t, w, wire.CloseNoPong, 0)

	x = w.srv.Start(Conn{Transport: "ws", Remote: local, Socket: newSink()})
	x.Close(wire.CloseAbuse, "first")
	x.Goodbye(1000)
	x.End()
	checkCloses(t, w, wire.CloseAbuse, 1)
}

// overWS connects over the WebSocket framing and says hello.
func overWS(t *testing.T, w *world) (*sink, *Session) {
	t.Helper()
	s := newSink()
	x := w.srv.Start(Conn{Transport: "ws", Remote: local, Socket: s})
	if !x.Receive(x.Context(), []byte(`{"type":"hello","guest":"ann"}`)) || !x.Greeted() {
		t.Fatalf("hello was refused: %q", s.taken())
	}
	s.taken()
	return s, x
}

func TestHeartbeatOverWebSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		s, x := overWS(t, w)
		defer x.End()
		for i := range byte(3) {
			time.Sleep(15 * time.Second)
			synctest.Wait()
			if want := wire.ControlPing([]byte{0, 0, 0, i + 1}); !bytes.Equal(s.taken(), want) {
				t.Fatalf("heartbeat %d: want % x alone", i+1, want)
			}
			x.Pong([]byte{0, 0, 0, i + 1})
		}
		for range 4 { // pongs, but none that a ping of the round was given
			time.Sleep(5 * time.Second)
			x.Pong([]byte{0, 0, 0, 1})
			x.Pong([]byte("unasked"))
		}
		if x.Closed() {
			t.Error("it was closed while it still sent something")
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if code, reason, closed := x.Peer().Closed(); !closed || code != wire.CloseNoPong || reason != "no_pong" {
			t.Errorf("silent client: got close %d %q %v, want %d no_pong", code, reason, closed, wire.CloseNoPong)
		}
		if log := w.log.text(); !strings.Contains(log, "heartbeat went unanswered") || !strings.Contains(log, "evidence=no_pong") {
			t.Error("the log does not say on what evidence")
		}
	})
}

func TestHeartbeatOverTCPIsDemandedOnceAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		person, program, never := w.guest("ann"), w.guest("bot"), w.connect()
		defer person.end()
		defer program.end()
		defer never.end()
		time.Sleep(16 * time.Second)
		ping := program.await("a ping", func(e event) bool { return e.Type == "ping" })
		if ping.TS != 1 {
			t.Errorf("got ts %d, want the ping's number, 1", ping.TS)
		}
		program.raw(`{"type":"pong","ts":1}`)
		person.raw(`{"type":"pong","ts":99}`) // not an answer, and so no promise to answer
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		program.checkClosed(4502, true)
		if person.shut() || never.shut() {
			t.Error("a client that never answered a ping was closed for not answering")
		}
		if e := person.do(`{"type":"ping","ts":5}`); e.Type != "pong" || e.TS != 5 {
			t.Errorf("got %+v, want pong 5", e)
		}
	})
}

func TestWhatIsReceivedProvesLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(s *setup) { s.wheel = liveness.Config{Ping: 15 * time.Second, Pong: 3 * time.Second} })
		s, x := overWS(t, w)
		defer x.End()
		for range 60 { // its pongs wait behind its pings
			time.Sleep(2 * time.Second)
			x.Ping([]byte("are you there"))
		}
		synctest.Wait()
		if x.Closed() {
			t.Error("a client that talks was closed for its silence")
		}
		if n := bytes.Count(s.taken(), wire.ControlPong([]byte("are you there"))); n != 60 {
			t.Errorf("got %d pongs, want 60", n)
		}
	})
}

func TestASlowReaderIsNotTakenForDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(s *setup) { s.room.LagBytes, s.room.LagTime = 0, 0 })
		w.post("lobby", 100)
		s, x := overWS(t, w)
		defer x.End()
		s.set(func() { s.full, s.pace = true, 2*time.Second }) // 50 bytes a second
		x.Receive(x.Context(), []byte(`{"type":"history","room":"lobby"}`))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if x.Closed() {
			t.Fatal("it was closed, though it took something every two seconds")
		}
		s.set(func() { s.pace = 0 }) // and now nothing more
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if code, _, closed := x.Peer().Closed(); !closed || code != wire.CloseNoPong {
			t.Errorf("got close %d %v, want %d", code, closed, wire.CloseNoPong)
		}
	})
}

func TestWebSocketPingsAreLimitedInRate(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.cfg.CommandsPerSecond, s.cfg.CommandsBurst = 1, 5 })
	s, x := overWS(t, w)
	defer x.End()
	for range 1000 {
		x.Ping([]byte("x"))
	}
	if n := bytes.Count(s.taken(), wire.ControlPong([]byte("x"))); n < 4 || n > 100 {
		t.Errorf("got %d pongs for 1000 pings at 1 a second with bursts of 5, want few", n)
	}
	if x.Closed() {
		t.Error("the connection was closed")
	}
}

// FuzzSession throws frames at a session: none may panic or close it with a
// fault of the server.
func FuzzSession(f *testing.F) {
	f.Add([]byte(`{"type":"hello","guest":"ann"}` + "\n" + `{"type":"join","room":"lobby"}`))
	f.Add([]byte(`{"type":"send","room":"lobby","nonce":"n","text":"hi"}` + "\n" + `{"type":"history","room":"lobby","before":3}`))
	f.Add([]byte(`{"type":"join","rooms":[{"room":"a","since":{"epoch":"e","seq":1,"id":"x"}}]}` + "\n" + `{"type":"leave","room":"a"}`))
	f.Add([]byte(`{"type":"members","room":"a"}` + "\n" + `{"type":"pong"}` + "\n" + `{"type":"ping","ts":-1}`))
	w := newWorld(f, nil)
	f.Fuzz(func(t *testing.T, frames []byte) {
		for _, greeted := range []bool{false, true} {
			s := newSink()
			x := w.srv.Start(Conn{Transport: "tcp", Remote: local, Socket: s})
			if greeted {
				x.Receive(x.Context(), []byte(`{"type":"hello","guest":""}`))
			}
			for _, line := range bytes.Split(frames, []byte("\n")) {
				if !x.Receive(x.Context(), line) {
					break
				}
			}
			if code, reason, closed := x.Peer().Closed(); closed && code == wire.CloseInternal {
				t.Errorf("%q: closed with %d %s\n%s", frames, code, reason, w.log.text())
			}
			x.End()
			parse(t, s.taken())
		}
	})
}
