package e2e

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"parley/core/auth"
	"parley/core/chat"
	"parley/core/client"
	"parley/core/wire"
)

// Limits of the server that these tests abuse.
const (
	frameBytes = 8 << 10
	textBytes  = 1000
	roomsLimit = 5
	burst      = 50
)

// abuser is a connection that misbehaves, and what it is told.
type abuser struct {
	*visitor
	node *node
	raw  net.Conn // below the transport
}

// abuse connects; greeted says if it has said hello.
func abuse(t *testing.T, n *node, url string, greeted bool) *abuser {
	t.Helper()
	a := &abuser{node: n}
	a.visitor = visit(t, client.Options{URL: url, SkipHello: true,
		NetDial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(ctx, network, addr)
			a.raw = nc
			return nc, err
		}})
	if greeted {
		a.write(`{"type":"hello","id":"hello","guest":""}`)
		first(a.visitor, "welcome", func(*wire.WelcomeEvent) bool { return true })
	}
	return a
}

func (a *abuser) write(frame string) {
	a.t.Helper()
	if err := a.WriteText([]byte(frame)); err != nil {
		a.t.Fatalf("write: %v", err)
	}
}

// told waits for an error event.
func (a *abuser) told(code chat.Code) *wire.ErrorEvent {
	a.t.Helper()
	e := first(a.visitor, "an error", func(*wire.ErrorEvent) bool { return true })
	if e.Code != code || e.Text == "" {
		a.t.Errorf("got error %q (%s), want %q with a sentence", e.Code, e.Text, code)
	}
	return e
}

// alive demands that the connection still works.
func (a *abuser) alive() {
	a.t.Helper()
	if err := a.Ping(within(a.t)); err != nil {
		a.t.Errorf("the connection is gone: %v", err)
	}
}

// ends waits for the server to end the connection.
func (a *abuser) ends(code wire.CloseCode) {
	a.t.Helper()
	if ce := a.closed(); ce.Code != code {
		a.t.Errorf("closed with %v, want code %d", ce, code)
	}
}

// abuses are the ways to misbehave. Each has its documented answer
// (docs/protocol.md) and its counter.
var abuses = []struct {
	name    string
	only    string // "ws" or "tcp"; empty: both
	greeted bool
	do      func(a *abuser)
	counter string // a series that must rise by one at least
}{
	{"malformed JSON", "", true, func(a *abuser) {
		a.write(`{"type":"join","room":`)
		a.told(chat.CodeBadRequest)
		a.alive()
	}, `parley_errors_total{code="bad_request"}`},
	{"no object", "", true, func(a *abuser) {
		a.write(`[1,2]`)
		a.told(chat.CodeBadRequest)
		a.alive()
	}, `parley_errors_total{code="bad_request"}`},
	{"a member twice", "", true, func(a *abuser) {
		a.write(`{"type":"join","id":"7","room":"lobby","room":"kitchen"}`)
		a.told(chat.CodeBadRequest)
		a.alive()
	}, `parley_errors_total{code="bad_request"}`},
	{"a wrong type of value", "", true, func(a *abuser) {
		a.write(`{"type":"send","id":"7","room":"lobby","text":5}`)
		if e := a.told(chat.CodeBadRequest); !strings.Contains(e.Text, "text") {
			a.t.Errorf("the error does not name the field: %q", e.Text)
		}
		a.alive()
	}, `parley_errors_total{code="bad_request"}`},
	{"an unknown type", "", true, func(a *abuser) {
		a.write(`{"type":"dance","id":"7"}`)
		if e := a.told(chat.CodeUnknownType); e.ID != "7" {
			a.t.Errorf("the error echoes id %q, want 7", e.ID)
		}
		a.alive()
	}, `parley_errors_total{code="unknown_type"}`},
	{"a command before hello", "", false, func(a *abuser) {
		a.write(`{"type":"send","id":"7","room":"lobby","text":"hi"}`)
		a.told(chat.CodeBadState)
		a.alive()
	}, `parley_errors_total{code="bad_state"}`},
	{"hello twice", "", true, func(a *abuser) {
		a.write(`{"type":"hello","id":"7","guest":"other"}`)
		a.told(chat.CodeBadState)
		a.alive()
	}, `parley_errors_total{code="bad_state"}`},
	{"a frame too big", "", true, func(a *abuser) {
		_ = a.WriteText([]byte(`{"type":"send","room":"lobby","text":"` + strings.Repeat("x", frameBytes) + `"}`))
		a.told(chat.CodeFrameTooBig)
		a.ends(wire.CloseTooBig)
	}, `parley_closes_total{code="1009"}`},
	{"a line without end", "tcp", true, func(a *abuser) {
		for range 3 { // until the server has had enough; the last ones may hit a closed door
			_, _ = a.raw.Write([]byte(strings.Repeat("x", frameBytes/2)))
		}
		a.ends(wire.CloseTooBig)
	}, `parley_closes_total{code="1009"}`},
	{"a text too long", "", true, func(a *abuser) {
		a.write(`{"type":"send","id":"7","room":"lobby","text":"` + strings.Repeat("x", textBytes+1) + `"}`)
		a.told(chat.CodeTextTooLong)
		a.alive()
	}, `parley_errors_total{code="text_too_long"}`},
	{"text that is not UTF-8", "ws", true, func(a *abuser) {
		a.write("{\"type\":\"send\",\"room\":\"lobby\",\"text\":\"\xff\xfe\"}")
		a.ends(wire.CloseUTF8)
	}, `parley_closes_total{code="1007"}`},
	{"a line that is not UTF-8", "tcp", true, func(a *abuser) {
		a.write("{\"type\":\"send\",\"room\":\"lobby\",\"text\":\"\xff\xfe\"}")
		a.told(chat.CodeBadRequest)
		a.alive()
	}, `parley_errors_total{code="bad_request"}`},
	{"a bad room name", "", true, func(a *abuser) {
		a.write(`{"type":"join","id":"7","room":"../Lobby"}`)
		a.told(chat.CodeBadRequest)
		a.alive()
	}, `parley_errors_total{code="bad_request"}`},
	{"a bad guest name", "", false, func(a *abuser) {
		a.write(`{"type":"hello","id":"7","guest":"a\u202eb"}`)
		a.told(chat.CodeBadRequest)
		a.alive()
	}, `parley_errors_total{code="bad_request"}`},
	{"a taken name", "", false, func(a *abuser) {
		a.write(`{"type":"hello","id":"7","guest":"Bystander"}`)
		a.told(chat.CodeNameTaken)
		a.alive()
	}, `parley_errors_total{code="name_taken"}`},
	{"an expired token", "", false, func(a *abuser) {
		a.write(`{"type":"hello","id":"7","token":"` + expired(a.t, a.node) + `"}`)
		if e := a.told(chat.CodeUnauthorized); !strings.Contains(e.Text, "expired") {
			a.t.Errorf("the error does not say that it has expired: %q", e.Text)
		}
		a.ends(wire.CloseUnauthorized)
	}, `parley_closes_total{code="4001"}`},
	{"a token signed by a stranger", "", false, func(a *abuser) {
		a.write(`{"type":"hello","id":"7","token":"` + signed256([]byte("not the server's key at all, no no"), time.Hour) + `"}`)
		a.told(chat.CodeUnauthorized)
		a.ends(wire.CloseUnauthorized)
	}, `parley_closes_total{code="4001"}`},
	{"a token without a signature", "", false, func(a *abuser) {
		a.write(`{"type":"hello","id":"7","token":"` + part(map[string]any{"alg": "none"}) + "." + part(map[string]any{"sub": "root"}) + `."}`)
		a.told(chat.CodeUnauthorized)
		a.ends(wire.CloseUnauthorized)
	}, `parley_closes_total{code="4001"}`},
	{"too many rooms", "", true, func(a *abuser) {
		for i := range roomsLimit + 1 {
			a.write(fmt.Sprintf(`{"type":"join","id":"%d","room":"room%d"}`, i, i))
		}
		e := a.told(chat.CodeTooManyRooms)
		if want := fmt.Sprint(roomsLimit); e.ID != want {
			a.t.Errorf("join %s was refused, want join %s", e.ID, want)
		}
		a.alive()
	}, `parley_errors_total{code="too_many_rooms"}`},
	{"a flood of joins", "", true, func(a *abuser) {
		for range 5 * burst {
			a.write(`{"type":"join","room":"lobby"}`)
		}
		if e := a.told(chat.CodeRateLimited); !e.Retryable || e.RetryAfterMS <= 0 {
			a.t.Errorf("got %+v, want it retryable and to say when", e)
		}
	}, `parley_errors_total{code="rate_limited"}`},
	{"nothing but nonsense", "", true, func(a *abuser) {
		for range 200 {
			if a.WriteText([]byte("nonsense")) != nil {
				break // closed already
			}
		}
		a.ends(wire.CloseAbuse)
	}, `parley_closes_total{code="4008"}`},
	{"silence instead of hello", "", false, func(a *abuser) {
		a.ends(wire.CloseHandshake)
	}, `parley_closes_total{code="4009"}`},
	{"a binary message", "ws", true, func(a *abuser) {
		if err := a.WriteBinary([]byte(`{"type":"ping"}`)); err != nil {
			a.t.Fatal(err)
		}
		a.ends(wire.CloseBinary)
	}, `parley_closes_total{code="1003"}`},
	{"a frame without its mask", "ws", true, func(a *abuser) {
		if _, err := a.raw.Write([]byte{0x81, 2, '{', '}'}); err != nil {
			a.t.Fatal(err)
		}
		a.ends(wire.CloseProtocol)
	}, `parley_closes_total{code="1002"}`},
	{"an unknown opcode", "ws", true, func(a *abuser) {
		if _, err := a.raw.Write([]byte{0x83, 0x80, 0, 0, 0, 0}); err != nil {
			a.t.Fatal(err)
		}
		a.ends(wire.CloseProtocol)
	}, `parley_closes_total{code="1002"}`},
}

// TestBadInput does everything a client must not, and checks each time that it
// got its documented answer, that it was counted, and that two others in the
// same room talk on.
func TestBadInput(t *testing.T) {
	t.Parallel()
	n := startNode(t, settings{
		"limits.frame_bytes": frameBytes, "limits.text_bytes": textBytes, "limits.rooms_per_connection": roomsLimit,
		"limits.commands_per_second": burst, "limits.commands_burst": burst,
		"limits.accepts_per_second": 0,
	})
	one := visit(t, client.Options{URL: n.WSURL(), Guest: "bystander"})
	two := visit(t, client.Options{URL: n.TCPURL(), Guest: "passer-by"})
	one.enters("lobby")
	two.enters("lobby")
	for _, tt := range abuses {
		for _, transport := range []string{"ws", "tcp"} {
			if tt.only != "" && tt.only != transport {
				continue
			}
			t.Run(tt.name+" over "+transport, func(t *testing.T) {
				url := n.WSURL()
				if transport == "tcp" {
					url = n.TCPURL()
				}
				before := n.Metric(tt.counter)
				tt.do(abuse(t, n, url, tt.greeted))
				if t.Failed() {
					return // what was not answered need not be counted
				}
				await(t, tt.counter+" rises", func() bool { return n.Metric(tt.counter) > before })
				_, nonce := one.says("lobby", "still here")
				two.hears(nonce)
				_, nonce = two.says("lobby", "me too")
				one.hears(nonce)
			})
		}
	}
	var got []uint64
	for _, ev := range two.got() {
		if e, ok := ev.(*wire.EntryEvent); ok {
			got = append(got, e.Seq)
		}
	}
	for i, seq := range got {
		if seq != got[0]+uint64(i) {
			t.Fatalf("a bystander saw seqs %v, want no hole", got)
		}
	}
	n.Stop()
}

// TestAStrangeOriginIsRefused checks the handshake, which no frame follows.
func TestAStrangeOriginIsRefused(t *testing.T) {
	t.Parallel()
	n := startNode(t, settings{"origins": []string{"https://chat.example.org"}})
	tests := []struct {
		origin string
		ok     bool
	}{
		{"http://evil.example", false},
		{"null", false},
		{"https://chat.example.org.evil.example", false},
		{"https://chat.example.org", true},
		{"http://" + n.HTTP, true}, // its own host
		{"", true},                 // no browser
	}
	for _, tt := range tests {
		before := n.Metric("parley_refused_origins_total")
		v, err := tryVisit(t, client.Options{URL: n.WSURL(), Origin: tt.origin})
		if tt.ok {
			if err != nil {
				t.Errorf("origin %q: %v", tt.origin, err)
				continue
			}
			_ = v.Close()
			continue
		}
		var shake *client.HandshakeError
		if !errors.As(err, &shake) || shake.Status != http.StatusForbidden {
			t.Errorf("origin %q: got %v, want status 403", tt.origin, err)
		}
		if got := n.Metric("parley_refused_origins_total"); got != before+1 {
			t.Errorf("origin %q: parley_refused_origins_total went from %v to %v", tt.origin, before, got)
		}
	}
	n.Stop()
}

// TestTooManyConnectionsAreRefused fills the limits of one address and one user.
func TestTooManyConnectionsAreRefused(t *testing.T) {
	t.Parallel()
	t.Run("of a user", func(t *testing.T) {
		n := startNode(t, settings{"limits.connections_per_user": 2})
		opt := client.Options{URL: n.TCPURL(), Token: token(t, n.Data()+"/jwt.key", "ann")}
		one, two := visit(t, opt), visit(t, opt)
		_, err := tryVisit(t, opt)
		if said := refusal(t, err); said.Code != chat.CodeTooManyConns {
			t.Errorf("the third connection: got %+v, want %s", said, chat.CodeTooManyConns)
		}
		if err := one.Ping(within(t)); err != nil {
			t.Errorf("the first connection: %v", err)
		}
		_ = two.Close()
		await(t, "there is room again", func() bool {
			v, err := tryVisit(t, opt)
			return err == nil && v.Close() == nil
		})
		n.Stop()
	})
	t.Run("of an address", func(t *testing.T) {
		n := startNode(t, settings{"limits.connections_per_ip": 2})
		one := visit(t, client.Options{URL: n.WSURL()})
		visit(t, client.Options{URL: n.TCPURL()})
		for i := range 2 {
			if _, err := tryVisit(t, client.Options{URL: n.URL(i)}); err == nil {
				t.Errorf("a third connection to %s was served", n.URL(i))
			}
		}
		if err := one.Ping(within(t)); err != nil {
			t.Errorf("the first connection: %v", err)
		}
		n.Stop()
	})
}

// expired is a token that the server's own key signed and that has run out.
func expired(t *testing.T, n *node) string {
	t.Helper()
	key, err := auth.LoadKey(n.Data() + "/jwt.key")
	if err != nil {
		t.Fatal(err)
	}
	return signed256(key, -time.Hour)
}

// signed256 makes a JWT (RFC 7519) with HS256; auth.Sign refuses to make
// expired ones.
func signed256(key []byte, ttl time.Duration) string {
	now := time.Now()
	text := part(map[string]any{"alg": "HS256", "typ": "JWT"}) + "." +
		part(map[string]any{"sub": "ann", "iat": now.Add(-2 * time.Hour).Unix(), "exp": now.Add(ttl).Unix()})
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func part(v map[string]any) string {
	b, _ := json.Marshal(v) // maps of strings and numbers cannot fail
	return base64.RawURLEncoding.EncodeToString(b)
}
