package bench

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// mixed is clients that do different things in many rooms: what a policy is asked
// on a server where people talk. They come over TCP, a goroutine each.
type mixed struct {
	load   Load
	addr   string
	key    []byte // signs tokens
	run    string
	did    atomic.Uint64 // commands that were answered
	joined chan struct{} // takes a token for each client that is in its room

	stop    context.CancelFunc
	clients sync.WaitGroup

	mu  sync.Mutex
	err error // the first; guarded by mu
}

// shares are how often out of a hundred a client does what.
var shares = []struct {
	do    string
	share int
}{{"send", 70}, {"history", 10}, {"members", 10}, {"leave", 5}, {"reviews", 5}}

// One client in so many has an account, and one in so many of all is a
// moderator of the server; the rest are guests.
const (
	accountOneIn   = 4
	moderatorOneIn = 20
)

// startMixed connects the clients and lets them begin. They go on until end.
func startMixed(ctx context.Context, s *Server, l Load, key []byte) (*mixed, error) {
	m := &mixed{load: l, addr: s.Addr, key: key, run: lower(newRun()), joined: make(chan struct{}, l.Members)}
	var working context.Context
	working, m.stop = context.WithCancel(ctx)
	gate := make(chan struct{}, max(l.Parallel, 1)) // connections being opened at once
	for i := range l.Members {
		m.clients.Go(func() {
			if err := m.client(working, i, gate); err != nil {
				m.fail(fmt.Errorf("client %d: %w", i, err))
			}
		})
	}
	for range l.Members {
		select {
		case <-m.joined:
		case <-working.Done(): // of the caller, or because a client has failed
			return nil, errors.Join(ctx.Err(), m.end())
		}
	}
	return m, nil
}

// fail keeps the first error and ends the run.
func (m *mixed) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		m.err = err
		m.stop()
	}
}

// failed is why the clients have ended, nil while they go on.
func (m *mixed) failed() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// end stops the clients, waits for them, and returns what went wrong. It may be
// called twice.
func (m *mixed) end() error {
	m.stop()
	m.clients.Wait()
	return m.failed()
}

func (m *mixed) client(ctx context.Context, i int, gate chan struct{}) error {
	gate <- struct{}{}
	c, err := m.open(ctx, i)
	<-gate
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer c.conn.Close()
	m.joined <- struct{}{}
	every := time.Duration(float64(m.load.Members) / max(m.load.Rate, 1e-3) * float64(time.Second))
	timer := time.NewTimer(rand.N(every + 1)) // spread over the time between two commands of one
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
		timer.Reset(every)
		if err := c.act(); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		m.did.Add(1)
	}
}

// talker is one connection.
type talker struct {
	conn net.Conn
	in   *bufio.Scanner
	ids  int
	room string
	text string
}

// maxLine bounds a line from the server, a page of history.
const maxLine = 1 << 20

// open connects, says hello and joins.
func (m *mixed) open(ctx context.Context, i int) (*talker, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", m.addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() }) // what is being waited for is not worth it any more
	c := &talker{
		conn: conn, in: bufio.NewScanner(conn),
		room: fmt.Sprintf("mix-%s-%d", m.run, i/max(m.load.RoomSize, 1)), text: strings.Repeat("x", max(m.load.TextBytes, 1)),
	}
	c.in.Buffer(nil, maxLine)
	hello := map[string]any{"type": "hello", "guest": fmt.Sprint("guest", i)}
	if i%accountOneIn == 0 {
		roles := []string{}
		if i%moderatorOneIn == 0 {
			roles = append(roles, "moderator")
		}
		hello = map[string]any{"type": "hello", "token": m.token(fmt.Sprint("user", i), roles)}
	}
	err = c.ask(hello)
	if err == nil {
		err = c.ask(map[string]any{"type": "join", "room": c.room})
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

// token is a JWT by HS256 (RFC 7519).
func (m *mixed) token(user string, roles []string) string {
	claims, _ := json.Marshal(map[string]any{"sub": user, "roles": roles, "exp": time.Now().Add(24 * time.Hour).Unix()}) // strings and a number
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(claims)
	mac := hmac.New(sha256.New, m.key)
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// act does one thing of the mix.
func (c *talker) act() error {
	draw := rand.IntN(100)
	for _, s := range shares {
		if draw -= s.share; draw >= 0 {
			continue
		}
		cmd := map[string]any{"type": s.do, "room": c.room}
		switch s.do {
		case "send":
			cmd["text"], cmd["nonce"] = c.text, fmt.Sprint("n", c.ids)
		case "history":
			cmd["limit"] = 20
		case "leave":
			if err := c.ask(cmd); err != nil {
				return err
			}
			cmd["type"] = "join"
		}
		return c.ask(cmd)
	}
	return nil
}

// ask sends a command and reads until it is answered.
func (c *talker) ask(cmd map[string]any) error {
	c.ids++
	id := fmt.Sprint(c.ids)
	cmd["id"] = id
	line, err := json.Marshal(cmd)
	if err != nil {
		return fmt.Errorf("%v: %w", cmd["type"], err)
	}
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return fmt.Errorf("%v: %w", cmd["type"], err)
	}
	if _, err := c.conn.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("%v: %w", cmd["type"], err)
	}
	for c.in.Scan() {
		var ev struct {
			Type, ID, Text string
			Code           any // of an error a word, of a close a number
		}
		if err := json.Unmarshal(c.in.Bytes(), &ev); err != nil {
			return fmt.Errorf("%v: read the answer: %w", cmd["type"], err)
		}
		switch {
		case ev.ID == id && ev.Type == "error":
			return fmt.Errorf("%v: the server says %v: %s", cmd["type"], ev.Code, ev.Text)
		case ev.ID == id:
			return nil
		case ev.Type == "close":
			return fmt.Errorf("%v: the server closes the connection: %s", cmd["type"], c.in.Bytes())
		}
	}
	return fmt.Errorf("%v: the connection ended: %w", cmd["type"], errors.Join(c.in.Err(), net.ErrClosed))
}
