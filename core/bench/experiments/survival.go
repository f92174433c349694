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
	"parley/core/liveness/netlab"
	"parley/core/wire"
)

// survival keeps connections over a bad link and counts which live on, with
// the two KeepAlive settings of the claim and with heartbeats judged.
func survival(ctx context.Context, l *Lab) ([]report.Section, error) {
	keepalive := func(idle, interval, count string) map[string]string {
		return map[string]string{"liveness.keepalive_idle": idle, "liveness.keepalive_interval": interval, "liveness.keepalive_count": count}
	}
	var cases []*survived
	for _, c := range some(l, []struct{ name, mode, idle, interval, count string }{
		{"60/10/3, ladder (default)", "ladder", "60s", "10s", "3"},
		{"60/10/3, keepalive", "keepalive", "60s", "10s", "3"},
		{"7200/75/9, keepalive", "keepalive", "2h", "75s", "9"},
		{"60/10/3, ping", "ping", "60s", "10s", "3"},
	}, 2) {
		keys := keepalive(c.idle, c.interval, c.count)
		keys["liveness.mode"] = c.mode
		cases = append(cases, &survived{name: c.name, keys: keys, clients: l.scaled(100, 4), took: l.during(5 * time.Minute)})
	}
	errs := make([]error, len(cases))
	var running sync.WaitGroup
	for i, c := range cases {
		running.Go(func() { errs[i] = c.run(ctx, l, uint64(100+i)) })
	}
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	t := &report.Table{Columns: []string{"KeepAlive, liveness.mode", "survived", "disconnects", "resumed", "without a gap", "resume median", "longest", "evidence"}}
	for _, c := range cases {
		t.Rows = append(t.Rows, c.cells())
	}
	text := paragraphs(
		"Claimed: on a mobile network 92.7 % of connections survive with KeepAlive at 60/10/3 and 68.3 % at 7200/75/9.",
		fmt.Sprintf("Here the link loses 5 %% of the packets in each direction and holds 2 %% back by 0.8 to 1.2 s, for %v, with %d clients that reconnect and resume by themselves. KeepAlive does not keep a connection alive against loss: TCP retransmits, and a probe is one packet more that may be lost. What kills connections on such a link is the side that judges too early: a heartbeat whose answer is late. Only a NAT that forgets idle connections makes the settings differ as claimed, and against it any packet counts, so the heartbeats of every mode do what a short KeepAlive does.", cases[0].took, cases[0].clients),
	)
	return []report.Section{{Title: "Survival on a bad link", Text: text, Table: t}}, nil
}

// survived is one setting and what came of it.
type survived struct {
	name    string
	keys    map[string]string
	clients int
	took    time.Duration

	mu          sync.Mutex
	hurt        map[int]bool // clients that were disconnected at least once
	disconnects int
	resumed     []time.Duration // from the end of a connection to the rooms joined again
	gapless     int
	evidence    map[string]int
}

func (s *survived) cells() []string {
	row := []string{
		s.name, report.Number(100*float64(s.clients-len(s.hurt))/float64(s.clients)) + " %", fmt.Sprint(s.disconnects),
		fmt.Sprintf("%d of %d", len(s.resumed), s.disconnects), fmt.Sprint(s.gapless), "", "", "",
	}
	if n := len(s.resumed); n > 0 {
		slices.Sort(s.resumed)
		row[5], row[6] = seconds(s.resumed[n/2]), seconds(s.resumed[n-1])
	}
	row[7] = reasons(s.evidence)
	return row
}

// run plays one setting.
func (s *survived) run(ctx context.Context, l *Lab, seed uint64) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", s.name, err)
		}
	}()
	s.hurt = map[int]bool{}
	link, err := netlab.New(seed)
	if err != nil {
		return err
	}
	defer link.Close()
	server, err := bench.StartServer(ctx, bench.Settings{Exe: l.Bench.Exe, Keys: s.keys,
		Place: &bench.Place{Addr: link.A.Addr.String(), Start: link.A.Start, Dial: link.A.Dial}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	life, stop := context.WithCancel(ctx)
	var living sync.WaitGroup
	defer living.Wait()
	defer stop()
	joined := make(chan struct{}, s.clients)
	errs := make(chan error, s.clients)
	for i := range s.clients {
		c, err := s.client(life, i, link, server, joined)
		if err != nil {
			return err
		}
		living.Go(func() {
			if err := c.Run(life); err != nil {
				errs <- err
			}
		})
	}
	for range s.clients {
		select {
		case <-joined:
		case err := <-errs:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	link.Both(netlab.Path{Loss: 0.05, Spike: 0.02, SpikeMin: 800 * time.Millisecond, SpikeMax: 1200 * time.Millisecond})
	rest := time.NewTimer(s.took)
	defer rest.Stop()
	select {
	case <-rest.C:
	case err := <-errs:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
	m, err := server.Metrics(ctx)
	s.evidence = evidence(m)
	return err
}

// client is one client that keeps itself connected.
func (s *survived) client(life context.Context, i int, link *netlab.Lab, server *bench.Server, joined chan<- struct{}) (*client.Resilient, error) {
	var ended time.Time // of the newest connection; touched by the client's own goroutines in turn, under mu
	first := true
	return client.NewResilient(client.ResilientOptions{
		Options: client.Options{
			URL: "ws://" + server.Addr + server.Path, Guest: fmt.Sprintf("survivor-%d", i),
			NetDial: func(ctx context.Context, _, addr string) (net.Conn, error) { return link.B.Dial(ctx, addr) },
			OnEvent: func(event any) {
				j, ok := event.(*wire.JoinedEvent)
				if !ok {
					return
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				if first {
					first = false
					joined <- struct{}{}
					return
				}
				s.resumed = append(s.resumed, time.Since(ended))
				if j.Recovered {
					s.gapless++
				}
			},
		},
		Rooms: []chat.RoomID{chat.RoomID(fmt.Sprintf("survival-%d", i/10))},
		OnDisconnect: func(error) {
			if life.Err() != nil {
				return // the end of the experiment
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			ended = time.Now()
			s.hurt[i] = true
			s.disconnects++
		},
	})
}
