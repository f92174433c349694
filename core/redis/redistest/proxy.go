package redistest

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// Proxy stands between clients and a server and can go silent the way a
// network does: connections stay open and nothing comes back through them.
// Its methods may be called from any goroutine.
type Proxy struct {
	l      net.Listener
	target string
	work   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	pairs  map[*pair]struct{}
}

// pair is one client's connection and the one it stands for.
type pair struct {
	client, server net.Conn
	silent         atomic.Bool
}

// StartProxy starts a proxy for the server at addr. The test's cleanup ends it.
func StartProxy(t testing.TB, addr string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("start proxy: %v", err)
	}
	p := &Proxy{l: l, target: addr, pairs: make(map[*pair]struct{})}
	p.work.Go(p.accept)
	t.Cleanup(func() {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		l.Close()
		p.Cut()
		p.work.Wait()
	})
	return p
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
		_, _ = io.Copy(x.server, x.client)
		x.server.Close()
	})
	buf := make([]byte, 16<<10)
	for {
		n, err := x.server.Read(buf)
		if n > 0 && !x.silent.Load() {
			if _, err := x.client.Write(buf[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	x.client.Close()
	x.server.Close()
	up.Wait()
	p.mu.Lock()
	delete(p.pairs, x)
	p.mu.Unlock()
}
