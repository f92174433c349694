package e2e

import (
	"errors"
	"sync"
	"testing"

	"parley/core/chat"
	"parley/core/client"
	"parley/core/wire"
)

// visitor is one connection of a test that keeps the events it got.
type visitor struct {
	*client.Conn
	t *testing.T

	mu     sync.Mutex
	events []any
	more   chan struct{} // holds a token when events have come
}

// visit connects; the connection ends with the test.
func visit(t *testing.T, opt client.Options) *visitor {
	t.Helper()
	v, err := tryVisit(t, opt)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func tryVisit(t *testing.T, opt client.Options) (*visitor, error) {
	v := &visitor{t: t, more: make(chan struct{}, 1)}
	opt.OnEvent = v.add
	conn, err := client.Dial(within(t), opt)
	if err != nil {
		return nil, err
	}
	v.Conn = conn
	t.Cleanup(func() { _ = conn.Close() })
	return v, nil
}

func (v *visitor) add(ev any) {
	v.mu.Lock()
	v.events = append(v.events, ev)
	v.mu.Unlock()
	select {
	case v.more <- struct{}{}:
	default:
	}
}

// got returns a copy of the events so far.
func (v *visitor) got() []any {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]any(nil), v.events...)
}

// first waits for the first event of type *T that matches and returns it.
func first[T any](v *visitor, what string, match func(*T) bool) *T {
	v.t.Helper()
	ctx := within(v.t)
	for {
		for _, ev := range v.got() {
			if e, ok := ev.(*T); ok && match(e) {
				return e
			}
		}
		select {
		case <-v.more:
		case <-ctx.Done():
			v.t.Fatalf("waited and it did not come: %s; came: %s", what, describe(v.got()))
		case <-v.Done():
			// What came last may still be unread here.
			for _, ev := range v.got() {
				if e, ok := ev.(*T); ok && match(e) {
					return e
				}
			}
			v.t.Fatalf("the connection ended (%v) before it came: %s; came: %s", v.Err(), what, describe(v.got()))
		}
	}
}

func describe(events []any) string {
	out := ""
	for _, ev := range events {
		out += "\n  " + string(wire.Encode(ev).JSON())
	}
	return out
}

// hears waits for a message with the given nonce.
func (v *visitor) hears(nonce string) *wire.EntryEvent {
	v.t.Helper()
	return first(v, "message with nonce "+nonce, func(e *wire.EntryEvent) bool { return e.Nonce == nonce })
}

// says sends a message that must be accepted and returns its ack and nonce.
func (v *visitor) says(room chat.RoomID, text string) (*wire.AckEvent, string) {
	v.t.Helper()
	nonce := client.NewNonce()
	ack, err := v.Send(within(v.t), room, nonce, text)
	if err != nil {
		v.t.Fatalf("send %q to %s: %v", text, room, err)
	}
	return ack, nonce
}

// enters joins a room.
func (v *visitor) enters(room chat.RoomID) *wire.JoinedEvent {
	v.t.Helper()
	j, err := v.Join(within(v.t), room, nil)
	if err != nil {
		v.t.Fatalf("join %s: %v", room, err)
	}
	return j
}

// closed waits for the connection's end and returns the server's close code.
func (v *visitor) closed() *client.CloseError {
	v.t.Helper()
	select {
	case <-v.Done():
	case <-within(v.t).Done():
		v.t.Fatalf("the connection did not end; came: %s", describe(v.got()))
	}
	var ce *client.CloseError
	if !errors.As(v.Err(), &ce) {
		v.t.Fatalf("the connection ended with %v, want a close code", v.Err())
	}
	return ce
}

// refusal is the *chat.Error in err.
func refusal(t *testing.T, err error) *chat.Error {
	t.Helper()
	var said *chat.Error
	if !errors.As(err, &said) {
		t.Fatalf("got %v, want the server's refusal", err)
	}
	return said
}

// Entries of the server's own and of the admin API bear these names.
func TestNoGuestIsCalledAsTheServerIs(t *testing.T) {
	t.Parallel()
	n := startNode(t, nil)
	for _, name := range []string{"parley", "Admin", "рarley"} { // the last with a Cyrillic letter
		var refused *chat.Error
		if _, err := tryVisit(t, client.Options{URL: n.WSURL(), Guest: name}); !errors.As(err, &refused) || refused.Code != chat.CodeNameTaken {
			t.Errorf("guest %q: got %v, want name_taken", name, err)
		}
	}
	n.Stop()
}
