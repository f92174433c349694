//go:build linux

package experiments

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"parley/core/bench"
	"parley/core/bench/report"
	"parley/core/chat"
	"parley/core/client"
	"parley/core/journal"
	"parley/core/liveness/netlab"
	"parley/core/wire"
)

// survived is one setting and what came of it.
type survived struct {
	name, mode string
	setting    setting // of the server, and its KeepAlive of the clients too
	clients    int

	link   *netlab.Lab
	server *bench.Server

	mu       sync.Mutex
	now      *tally    // of the time that runs: &bad or &cut
	restored time.Time // when the link worked again; zero: not yet
	bad, cut tally
	evidence map[string]int // of the bad link
	heard    int            // clients with the message of the cut
	told     chan struct{}  // closed when all have it
}

// tally is what one part of a case came to.
type tally struct {
	hurt        map[int]bool // clients that were disconnected at least once
	disconnects int
	resumed     []time.Duration // from the end of a connection, or the link's return, to the rooms joined again
	gapless     int
}

// add adds what another run came to: its clients, then its tallies.
func (s *survived) add(o *survived) {
	s.bad.add(&o.bad, s.clients)
	s.cut.add(&o.cut, s.clients)
	s.clients += o.clients
	s.heard += o.heard
	if s.evidence == nil {
		s.evidence = map[string]int{}
	}
	for name, n := range o.evidence {
		s.evidence[name] += n
	}
}

// add adds a tally whose clients are numbered from first on here.
func (t *tally) add(o *tally, first int) {
	if t.hurt == nil {
		t.hurt = map[int]bool{}
	}
	for i := range o.hurt {
		t.hurt[first+i] = true
	}
	t.disconnects += o.disconnects
	t.resumed = append(t.resumed, o.resumed...)
	t.gapless += o.gapless
}

func (t *tally) share(clients int) string {
	return report.Number(100*float64(clients-len(t.hurt))/float64(clients)) + " %"
}

// cells are survived, disconnects, resumed, without a gap, median and longest.
func (t *tally) cells(clients int) []string {
	row := []string{t.share(clients), fmt.Sprint(t.disconnects), "", "", "", ""}
	if t.disconnects > 0 {
		row[2], row[3] = fmt.Sprintf("%d of %d", len(t.resumed), t.disconnects), fmt.Sprint(t.gapless)
	}
	if n := len(t.resumed); n > 0 {
		times := slices.Sorted(slices.Values(t.resumed))
		row[4], row[5] = seconds(times[n/2]), seconds(times[n-1])
	}
	return row
}

// run plays one setting.
func (s *survived) run(ctx context.Context, l *Lab, seed uint64) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", s.name, err)
		}
	}()
	s.bad.hurt, s.cut.hurt = map[int]bool{}, map[int]bool{}
	s.now, s.told = &s.bad, make(chan struct{})
	if s.link, err = netlab.New(seed); err != nil {
		return err
	}
	defer s.link.Close()
	s.server, err = bench.StartServer(ctx, bench.Settings{Exe: l.Bench.Exe, Keys: l.livenessOf(s.mode, s.setting),
		Place: &bench.Place{Addr: s.link.A.Addr.String(), Start: s.link.A.Start, Dial: s.link.A.Dial}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.server.Stop()) }()
	life, stop := context.WithCancelCause(ctx)
	var living sync.WaitGroup
	defer living.Wait()
	defer stop(nil)
	joined := make(chan struct{}, s.clients)
	for i := range s.clients {
		c, err := client.NewResilient(s.options(life, l, i, joined))
		if err != nil {
			return err
		}
		living.Go(func() {
			if err := c.Run(life); err != nil {
				stop(err) // the server said something final: the case is over
			}
		})
	}
	for range s.clients {
		select {
		case <-joined:
		case <-life.Done():
			return context.Cause(life)
		}
	}
	return s.suffer(life, l)
}

// suffer is what befalls the clients.
func (s *survived) suffer(life context.Context, l *Lab) error {
	s.link.Both(netlab.Path{Loss: 0.05, Spike: 0.02, SpikeMin: 800 * time.Millisecond, SpikeMax: 1200 * time.Millisecond})
	if err := sleep(life, l.badLink(), nil); err != nil {
		return err
	}
	m, err := s.server.Metrics(life)
	if err != nil {
		return err
	}
	s.evidence = evidence(m)
	s.mu.Lock()
	s.now = &s.cut
	s.mu.Unlock()
	s.link.Both(netlab.Path{Down: true})
	if err := sleep(life, l.cutFor(), nil); err != nil {
		return err
	}
	if err := s.post(life); err != nil {
		return fmt.Errorf("post while the link is cut: %w", err)
	}
	s.mu.Lock()
	s.restored = time.Now()
	s.mu.Unlock()
	s.link.Both(netlab.Path{})
	return sleep(life, l.backIn(), s.told)
}

// post posts a message into each room, from beside the server.
func (s *survived) post(ctx context.Context) error {
	c, err := client.Dial(ctx, client.Options{URL: s.url(), Guest: "poster",
		NetDial: func(ctx context.Context, _, addr string) (net.Conn, error) { return s.link.A.Dial(ctx, addr) }})
	if err != nil {
		return err
	}
	defer c.Close()
	for i := 0; i < s.clients; i += roommates {
		if _, err := c.Send(ctx, survivalRoom(i), client.NewNonce(), "who is still here?"); err != nil {
			return err
		}
	}
	return nil
}

func (s *survived) url() string { return "ws://" + s.server.Addr + s.server.Path }

// roommates are how many clients share a room.
const roommates = 10

func survivalRoom(client int) chat.RoomID {
	return chat.RoomID(fmt.Sprintf("survival-%d", client/roommates))
}

// sleep waits for d, or less where done is closed before.
func sleep(life context.Context, d time.Duration, done <-chan struct{}) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-done:
	case <-life.Done():
		return context.Cause(life)
	}
	return nil
}

// options are those of one client that keeps itself connected.
func (s *survived) options(life context.Context, l *Lab, i int, joined chan<- struct{}) client.ResilientOptions {
	var ( // under mu
		first, has bool
		ended      time.Time // of the newest connection
		within     *tally    // that its end counts in; nil: joined
	)
	return client.ResilientOptions{
		Options: client.Options{
			URL: s.url(), Guest: fmt.Sprintf("survivor-%d", i),
			NetDial: func(ctx context.Context, _, addr string) (net.Conn, error) { return s.dial(ctx, l, addr) },
			OnEvent: func(event any) {
				s.mu.Lock()
				defer s.mu.Unlock()
				switch e := event.(type) {
				case *wire.JoinedEvent:
					if !first {
						first = true
						joined <- struct{}{} // it has room for all
					}
					if within != nil {
						within.back(ended, s.restored, e.Recovered)
						within = nil
					}
				case *wire.EntryEvent:
					if e.Type == wire.Type(journal.KindMessage) && !has {
						has = true
						if s.heard++; s.heard == s.clients {
							close(s.told)
						}
					}
				}
			},
		},
		Rooms: []chat.RoomID{survivalRoom(i)},
		OnDisconnect: func(error) {
			if life.Err() != nil {
				return // the end of the experiment
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			ended, within = time.Now(), s.now
			within.hurt[i] = true
			within.disconnects++
		},
	}
}

// back takes note of a client that has joined its room again.
func (t *tally) back(ended, restored time.Time, recovered bool) {
	if restored.After(ended) {
		ended = restored // before, there was no way back
	}
	t.resumed = append(t.resumed, time.Since(ended))
	if recovered {
		t.gapless++
	}
}

// dial connects with the row's KeepAlive.
func (s *survived) dial(ctx context.Context, l *Lab, addr string) (net.Conn, error) {
	nc, err := s.link.B.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	err = nc.(*net.TCPConn).SetKeepAliveConfig(net.KeepAliveConfig{
		Enable: true, Idle: l.keepAlive(s.setting.idle), Interval: l.keepAlive(s.setting.interval), Count: s.setting.count,
	})
	if err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	return nc, nil
}
