//go:build unix

package redistest

import (
	"strings"
	"testing"
)

// Store is a Redis as the tests of a package need it that must not know
// which: a Server, or a Cluster as one.
type Store interface {
	URL() string
	// Do is Server.Do; see Cluster.Do.
	Do(args ...string) string
	Stop()
	Kill()
	Restart()
	Pause()
	Resume()
	// Front returns another way in, which can fail on its own.
	Front(t testing.TB) *Front
}

// Each runs a test on one server, and on a cluster of three masters.
func Each(t *testing.T, o Options, test func(*testing.T, Store)) {
	t.Helper()
	c := form(t, 3, 0, o)
	t.Run("server", func(t *testing.T) { test(t, Start(t, o)) })
	c.ready() // it takes two seconds of waiting, and had them by now
	t.Run("cluster", func(t *testing.T) {
		c.belong(t)
		test(t, c)
	})
	c.belong(t)
}

// belong has the nodes end that test when they do not do what was asked.
func (c *Cluster) belong(t testing.TB) {
	for _, s := range c.Nodes() {
		s.t = t
	}
}

// Do sends one command to the master that has its key, and one without a key
// to every master, whose replies are joined. What a client of one server says
// of channels is said of sharded ones, which core/redis uses in a cluster.
func (c *Cluster) Do(args ...string) string {
	c.Masters[0].t.Helper()
	args = append([]string(nil), args...)
	key := 1
	switch args[0] {
	case "FLUSHALL", "KEYS", "CLIENT", "ACL":
		var all []string
		for _, s := range c.Masters {
			if reply := s.Do(args...); reply != "" {
				all = append(all, reply)
			}
		}
		return strings.Join(all, "\n")
	case "PUBLISH":
		args[0] = "SPUBLISH"
	case "PUBSUB":
		args[1], key = "SHARD"+args[1], 2
	case "EVAL":
		key = 3
	}
	return c.Masters[c.MasterOf(args[key])].Do(args...)
}

// Stop ends every master with SIGTERM.
func (c *Cluster) Stop() { c.each((*Server).Stop) }

// Kill ends every master with SIGKILL.
func (c *Cluster) Kill() { c.each((*Server).Kill) }

// Pause freezes every master.
func (c *Cluster) Pause() { c.each((*Server).Pause) }

// Resume lets the masters go on.
func (c *Cluster) Resume() { c.each((*Server).Resume) }

// Restart starts ended masters again, and waits until each says that the
// cluster works.
func (c *Cluster) Restart() {
	c.each((*Server).Restart)
	c.each(func(s *Server) { s.AwaitLog(0, "Cluster state changed: ok") })
}

func (c *Cluster) each(do func(*Server)) {
	for _, s := range c.Masters {
		s.t.Helper()
		do(s)
	}
}

// Front is a way in to a Store through proxies, one before each master.
type Front struct {
	url string
	all []*Proxy
}

// Front implements Store.
func (s *Server) Front(t testing.TB) *Front {
	p := StartProxy(t, s.Addr())
	return &Front{url: p.URL(), all: []*Proxy{p}}
}

// Front implements Store: to who comes through it the nodes are where the
// proxies are.
func (c *Cluster) Front(t testing.TB) *Front {
	f := &Front{}
	var hosts, names []string
	for _, s := range c.Masters {
		p := newProxy(t, s.Addr())
		f.all = append(f.all, p)
		hosts = append(hosts, p.l.Addr().String())
		// So CLUSTER SLOTS and MOVED name a node. A number that is a port by
		// chance, of a slot or of milliseconds, has no host before it.
		was, is := port(s.Addr())+"\r\n", port(p.l.Addr().String())+"\r\n"
		names = append(names, host+"\r\n"+was, host+"\r\n"+is, host+was, host+is)
	}
	f.url = "redis-cluster://" + strings.Join(hosts, ",")
	for _, p := range f.all {
		p.renames = strings.NewReplacer(names...)
		p.serve(t)
	}
	return f
}

// host is where every server and proxy listens.
const host = "127.0.0.1"

// port is the port of an address, and the colon before it.
func port(addr string) string { return addr[strings.LastIndexByte(addr, ':'):] }

// URL is the address as core/redis wants it.
func (f *Front) URL() string { return f.url }

// Silence is Proxy.Silence.
func (f *Front) Silence() {
	for _, p := range f.all {
		p.Silence()
	}
}

// Halt is Proxy.Halt.
func (f *Front) Halt() {
	for _, p := range f.all {
		p.Halt()
	}
}
