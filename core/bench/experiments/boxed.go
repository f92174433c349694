//go:build linux

package experiments

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"parley/core/bench"
	"parley/core/client"
	"parley/core/liveness/netlab"
)

// setting is what is sent on a silent connection.
type setting struct {
	name           string
	ping           time.Duration // 0: no heartbeats
	idle, interval time.Duration // of KeepAlive
	count          int
}

// boxed is one box with one setting, and what came of it.
type boxed struct {
	box     string        // its name
	age     time.Duration // not divided; 0: a stateless filter
	counts  netlab.Counting
	mode    string
	setting setting
	watch   time.Duration // not divided: how long it is watched at most

	link    *netlab.Lab
	at      *bench.Server
	clients int

	watched        time.Duration   // as it came about
	gone           int             // states the box dropped
	ended          int             // connections that ended at the server, for whatever reason
	server, client []time.Duration // from the loss of a state to the end of its connection at that side
	evidence       map[string]int
}

func (c *boxed) cells() []string {
	row := []string{c.box, c.mode, c.setting.name, fmt.Sprintf("%d of %d", c.gone, c.clients), "", "", "", "", reasons(c.evidence)}
	for i, after := range [][]time.Duration{c.server, c.client} {
		if c.gone > 0 {
			row[4+2*i] = fmt.Sprintf("%d of %d", len(after), c.gone)
		}
		if n := len(after); n > 0 {
			row[5+2*i] = seconds(after[n/2])
		}
	}
	return row
}

// boxCrowd is how many connections each box has.
func (l *Lab) boxCrowd() int { return l.scaled(10, 4) }

// division is what ages, heartbeats and KeepAlive's times are divided by in a
// scaled run. Heartbeats come to 1 s then where they should be 0.5 s, which is
// what the configuration allows.
const division = 30

const (
	userTimeout      = 45 * time.Second // as by default
	leastUserTimeout = 3 * time.Second  // the kernel sends lost packets again at its own pace, which no setting divides
	leastPong        = 500 * time.Millisecond
)

// divided is a time as it is used: all of it at full scale.
func (l *Lab) divided(d, least time.Duration) time.Duration {
	if l.Scale < 1 {
		return max(d/division, min(d, least))
	}
	return d
}

func (l *Lab) timesDivided() string {
	if l.Scale < 1 {
		return fmt.Sprintf("This was a trial: the times in the names are divided by %d where the kernel and the configuration allow, and those of noticing are as measured, since the kernel's retransmissions are not divided.", division)
	}
	return "All times are real."
}

// livenessOf are the server's keys for a mode and a setting.
func (l *Lab) livenessOf(mode string, s setting) map[string]string {
	return map[string]string{
		"liveness.mode":               mode,
		"liveness.ping":               l.divided(s.ping, time.Second).String(),
		"liveness.pong":               l.divided(3*time.Second, leastPong).String(),
		"liveness.user_timeout":       l.divided(userTimeout, leastUserTimeout).String(),
		"limits.lag_seconds":          strconv.Itoa(int(l.divided(30*time.Second, time.Second).Seconds())), // below it
		"liveness.keepalive_idle":     l.keepAlive(s.idle).String(),
		"liveness.keepalive_interval": l.keepAlive(s.interval).String(),
		"liveness.keepalive_count":    strconv.Itoa(s.count),
	}
}

// keepAlive is a divided time of KeepAlive, which the kernel counts in seconds.
func (l *Lab) keepAlive(d time.Duration) time.Duration {
	return l.divided(d, time.Second).Round(time.Second)
}

// prepare makes the network and starts the server.
func (c *boxed) prepare(ctx context.Context, l *Lab, seed uint64) (err error) {
	if c.link, err = netlab.New(seed); err != nil {
		return err
	}
	if c.age > 0 {
		c.link.Behind(netlab.Box{Ageing: l.divided(c.age, 0), Counts: c.counts})
	} else if err := c.link.B.NFT(ctx, filter); err != nil {
		return err
	}
	c.at, err = bench.StartServer(ctx, bench.Settings{Exe: l.Bench.Exe, Keys: l.livenessOf(c.mode, c.setting),
		Place: &bench.Place{Addr: c.link.A.Addr.String(), Start: c.link.A.Start, Dial: c.link.A.Dial}})
	return err
}

// filter lets in what does not open a connection, and remembers nothing.
const filter = `add table ip lab
add chain ip lab in { type filter hook input priority 0 ; }
add rule ip lab in tcp flags & (syn | ack) == syn drop
`

func (c *boxed) end() (err error) {
	if c.at != nil {
		err = c.at.Stop()
	}
	if c.link != nil {
		c.link.Close()
	}
	return err
}

// play connects the clients and watches them.
func (c *boxed) play(ctx context.Context, l *Lab) (err error) {
	c.clients = l.boxCrowd()
	silent := make([]*silentClient, c.clients)
	var waiting sync.WaitGroup
	defer func() {
		for _, s := range silent {
			if s != nil {
				s.conn.Cut()
			}
		}
		waiting.Wait()
	}()
	for i := range silent {
		s, err := c.dial(ctx)
		if err != nil {
			return err
		}
		silent[i] = s
		waiting.Go(s.await)
	}
	return c.observe(ctx, l, silent)
}

// silentClient is a client that does nothing but to answer heartbeats.
type silentClient struct {
	conn *client.Conn
	addr netip.AddrPort

	mu    sync.Mutex
	ended time.Time // zero: lives
}

func (c *boxed) dial(ctx context.Context) (*silentClient, error) {
	s := &silentClient{}
	conn, err := client.Dial(ctx, client.Options{
		URL: "ws://" + c.at.Addr + c.at.Path,
		NetDial: func(ctx context.Context, _, addr string) (net.Conn, error) {
			nc, err := quietDial(ctx, c.link.B, addr)
			if err == nil {
				s.addr, err = netip.ParseAddrPort(nc.LocalAddr().String())
			}
			return nc, err
		},
	})
	s.conn = conn
	return s, err
}

// quietDial connects without KeepAlive, which Go would switch on at 15 s.
func quietDial(ctx context.Context, from *netlab.Side, addr string) (net.Conn, error) {
	nc, err := from.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	if err := nc.(*net.TCPConn).SetKeepAlive(false); err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	return nc, nil
}

func (s *silentClient) await() {
	<-s.conn.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = time.Now()
}

func (s *silentClient) end() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// observe looks until all is lost and found, or the time is over.
func (c *boxed) observe(ctx context.Context, l *Lab, silent []*silentClient) error {
	const every = 250 * time.Millisecond
	tick := time.NewTicker(every)
	defer tick.Stop()
	began := time.Now()
	var left []time.Time // when the server's connections ended, rising
	for {
		m, err := c.at.Metrics(ctx)
		if err != nil {
			return err
		}
		now := time.Now()
		for len(left) < c.clients-int(m["parley_connections"]) {
			left = append(left, now)
		}
		c.watched = now.Sub(began)
		c.judge(c.link.Dropped(), left, silent)
		if c.watched >= l.divided(c.watch, 0) || len(c.server) == c.clients && len(c.client) == c.clients { // all found at both ends
			if m, err = c.at.Metrics(ctx); err != nil { // in one answer a connection may be missing and its evidence too
				return err
			}
			c.evidence = evidence(m)
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// judge compares what the box dropped with what ended. The server's ends are
// counted and not named. Those of connections that ended before their state did
// are told by their time; sorting pairs the others rightly, because all
// connections of a case have the same timers, so that the first to be lost is
// the first to be found.
func (c *boxed) judge(dropped map[netip.AddrPort]time.Time, left []time.Time, silent []*silentClient) {
	var lost []time.Time
	c.ended, c.client, c.server = len(left), nil, nil
	found := slices.Clone(left)
	for _, s := range silent {
		at, gone := dropped[s.addr]
		ended := s.end()
		switch {
		case !ended.IsZero() && (!gone || ended.Before(at)):
			found = without(found, ended)
		case gone:
			lost = append(lost, at)
			if !ended.IsZero() {
				c.client = append(c.client, ended.Sub(at))
			}
		}
	}
	slices.SortFunc(lost, time.Time.Compare)
	c.gone = len(lost)
	for i, at := range lost[:min(len(lost), len(found))] {
		c.server = append(c.server, max(found[i].Sub(at), 0))
	}
	slices.Sort(c.client)
	slices.Sort(c.server)
}

// without leaves out the time that is closest to at.
func without(all []time.Time, at time.Time) []time.Time {
	if len(all) == 0 {
		return all
	}
	closest := 0
	for i, t := range all {
		if t.Sub(at).Abs() < all[closest].Sub(at).Abs() {
			closest = i
		}
	}
	return slices.Delete(all, closest, closest+1)
}
