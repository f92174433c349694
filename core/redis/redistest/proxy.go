package redistest

import (
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Proxy stands between clients and a server and can go silent the way a
// network does: connections stay open and nothing comes back through them.
// Its methods may be called from any goroutine.
type Proxy struct {
	// Set at construction.
	l       net.Listener
	target  string
	renames *strings.Replacer // of what the server says; nil: nothing

	work sync.WaitGroup

	mu     sync.Mutex
	closed bool
	pairs  map[*pair]struct{}
	held   chan struct{} // closed by Release; nil while nothing is held
}

// pair is one client's connection and the one it stands for.
type pair struct {
	client, server net.Conn
	silent         atomic.Bool
}

// StartProxy starts a proxy for the server at addr. The test's cleanup ends it.
func StartProxy(t testing.TB, addr string) *Proxy {
	t.Helper()
	p := newProxy(t, addr)
	p.serve(t)
	return p
}

func newProxy(t testing.TB, addr string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("start proxy: %v", err)
	}
	return &Proxy{l: l, target: addr, pairs: make(map[*pair]struct{})}
}

func (p *Proxy) serve(t testing.TB) {
	p.work.Go(p.accept)
	t.Cleanup(func() {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.l.Close()
		p.Release()
		p.Cut()
		p.work.Wait()
	})
}

// URL is the proxy's address as core/redis wants it.
func (p *Proxy) URL() string { return "redis://" + p.l.Addr().String() }

// Silence swallows, from now on, every answer on the connections that are
// open; what the clients send still reaches the server. New connections work.
func (p *Proxy) Silence() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for x := range p.pairs {
		x.silent.Store(true)
	}
}

// Halt lets nothing through from now on, in either direction, and new
// connections find nobody: to the server, its clients are as if killed.
func (p *Proxy) Halt() {
	p.l.Close()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Cut()
}

// Cut closes the connections that are open.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for x := range p.pairs {
		x.client.Close()
		x.server.Close()
	}
}

// Hold keeps back, from now on until Release, whatever is sent in either
// direction, on new connections too; it arrives then, however late, unless its
// sender has closed the connection. That is what a network does that is away
// for a while.
func (p *Proxy) Hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held == nil {
		p.held = make(chan struct{})
	}
}

// Release ends Hold.
func (p *Proxy) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held != nil {
		close(p.held)
		p.held = nil
	}
}

// pass waits while the proxy holds things back.
func (p *Proxy) pass() {
	p.mu.Lock()
	held := p.held
	p.mu.Unlock()
	if held != nil {
		<-held
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.l.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			client.Close()
			continue
		}
		x := &pair{client: client, server: server}
		p.mu.Lock()
		if p.closed {
			client.Close()
			server.Close()
		}
		p.pairs[x] = struct{}{}
		p.mu.Unlock()
		p.work.Go(func() { p.carry(x) })
	}
}

// carry copies both ways until either end closes.
func (p *Proxy) carry(x *pair) {
	var up sync.WaitGroup
	up.Go(func() {
		p.copy(x.server, x.client, func() bool { return true }, nil)
		x.server.Close()
	})
	p.copy(x.client, x.server, func() bool { return !x.silent.Load() }, p.renames)
	x.client.Close()
	x.server.Close()
	up.Wait()
	p.mu.Lock()
	delete(p.pairs, x)
	p.mu.Unlock()
}

// copy copies one way, what may pass, until either end closes.
func (p *Proxy) copy(to, from net.Conn, may func() bool, renames *strings.Replacer) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && may() {
			p.pass()
			out := buf[:n]
			if renames != nil {
				out = []byte(renames.Replace(string(out)))
			}
			if _, err := to.Write(out); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
