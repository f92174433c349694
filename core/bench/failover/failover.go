// Package failover is `platform bench failover`: people talk through several
// nodes, nodes are killed, and core/checker says whether anybody lost a message
// or got one twice.
//
// A run is one call of Run, which belongs to one goroutine and waits for all
// that it has started.
package failover

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"parley/core/bench"
	"parley/core/bench/report"
	"parley/core/chat"
	"parley/core/checker"
	"parley/core/client"
	"parley/core/journal"
)

// Config says what a run does.
type Config struct {
	// Targets are the URLs of nodes that run already and that somebody else
	// breaks, or nobody; empty: nodes of the run's own, whose number and Redis
	// Cluster says, and which Settings start.
	Targets  []string
	Cluster  bench.Cluster
	Settings bench.Settings

	Clients int           // connections, spread over the nodes
	Talkers int           // of them, how many also send
	Rate    float64       // messages a second of all talkers together
	Kills   int           // nodes of our own that are killed, one after the other
	Down    time.Duration // how long a killed node is away
	// Duration is how long the talk lasts on nodes of somebody else's, and the
	// time before the first kill and after each restart on our own.
	Duration time.Duration

	Patience time.Duration // how long a single step may take, such as a connect; 0 = a minute

	Say func(format string, args ...any) // tells what happens as it happens
}

// Check refuses what would say nothing.
func (c Config) Check() error {
	switch {
	case len(c.Targets) == 0 && c.Cluster.Nodes < 2:
		return fmt.Errorf("%d nodes: at least 2 are needed, so that clients of a dead one have where to go", c.Cluster.Nodes)
	case c.Talkers < 1 || c.Clients < c.Talkers || c.Clients > maxClients:
		return fmt.Errorf("%d clients of which %d send: at least one must send, and at most %d clients are possible", c.Clients, c.Talkers, maxClients)
	case c.Rate <= 0 || c.Rate > maxRate:
		return fmt.Errorf("%g messages a second: more than 0 and at most %d are possible", c.Rate, maxRate)
	case c.Kills < 0 || c.Down < 0 || c.Duration <= 0:
		return fmt.Errorf("%d kills, %v down, %v of talk: none may be negative, and the talk must last", c.Kills, c.Down, c.Duration)
	}
	return nil
}

const (
	maxClients = 5000   // all in this process, each with a log of what it saw
	maxRate    = 10_000 // messages a second
	patience   = time.Minute
	minBackoff = 20 * time.Millisecond
	maxBackoff = 500 * time.Millisecond
)

// Run puts a load on the nodes, breaks them and reports. The error says what of
// the delivery contract was broken, beside the report.
func Run(ctx context.Context, cfg Config) (_ []report.Section, err error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if cfg.Patience == 0 {
		cfg.Patience = time.Minute
	}
	urls := cfg.Targets
	var own *bench.Server
	if len(urls) == 0 {
		if own, err = bench.StartCluster(ctx, cfg.Cluster, cfg.Settings); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, own.Stop()) }()
		for _, n := range own.Nodes() {
			urls = append(urls, n.URL())
		}
	}
	for _, u := range cfg.Targets {
		if err := answers(ctx, u, cfg.Patience); err != nil {
			return nil, err
		}
	}
	r := &run{Config: cfg, urls: urls, own: own, room: chat.RoomID("failover-" + strings.ToLower(rand.Text()[:8]))}
	return r.do(ctx)
}

// answers tries a node, for the reason why it cannot be used: who stays
// connected does not give one.
func answers(ctx context.Context, target string, patience time.Duration) error {
	conn, err := client.Dial(ctx, client.Options{URL: target, Timeout: patience, Device: "bench"})
	if err != nil {
		return fmt.Errorf("try the node %s: %w", target, err)
	}
	return conn.Close()
}

// run is one run under way.
type run struct {
	Config
	urls  []string
	own   *bench.Server // nil: the nodes are somebody else's
	room  chat.RoomID
	crowd []*member
	acked atomic.Int64
	kills int
}

func (r *run) do(ctx context.Context) ([]report.Section, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var connected, talking sync.WaitGroup
	defer connected.Wait()
	stay, leave := context.WithCancel(ctx)
	defer leave()
	for i := range r.Clients {
		m, err := newMember(i, r.urls, r.room, r.Patience)
		if err != nil {
			return nil, err
		}
		r.crowd = append(r.crowd, m)
		connected.Go(func() {
			if err := m.Run(stay); err != nil {
				cancel(fmt.Errorf("client %d cannot go on: %w", i, err))
			}
		})
	}
	for i, m := range r.crowd {
		if err := r.within(ctx, func(ctx context.Context) error { _, err := m.Conn(ctx); return err }); err != nil {
			return nil, fmt.Errorf("connect client %d: %w", i, err)
		}
	}
	r.Say("%d clients on %d nodes, %d of them send %s messages a second to %s", r.Clients, len(r.urls), r.Talkers, report.Number(r.Rate), r.room)
	talk, hush := context.WithCancel(ctx)
	defer talking.Wait() // after hush: deferred calls run in the opposite order
	defer hush()
	began := time.Now()
	for _, m := range r.crowd {
		m.listen()
	}
	for _, m := range r.crowd[:r.Talkers] {
		talking.Go(func() { r.talker(ctx, talk, m) })
	}
	if err := r.disturb(ctx); err != nil {
		return nil, err
	}
	hush()
	talking.Wait()
	took := time.Since(began)
	rep, err := r.judge(ctx, leave, &connected)
	if err != nil {
		return nil, err
	}
	return []report.Section{r.section(rep, took)}, rep.Err()
}

// within bounds one step.
func (r *run) within(ctx context.Context, do func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, r.Patience)
	defer cancel()
	err := do(limited)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx) // a client that gave up says more
	}
	return err
}

// disturb kills the nodes of our own, one after the other, or lets time pass.
func (r *run) disturb(ctx context.Context) error {
	if r.own == nil {
		r.Say("talk lasts %v: kill a node meanwhile, stop it, start it again", r.Duration)
		return pause(ctx, r.Duration)
	}
	nodes := r.own.Nodes()
	if err := pause(ctx, r.Duration); err != nil {
		return err
	}
	for k := range r.Kills {
		n := nodes[k%len(nodes)]
		if err := n.Kill(); err != nil {
			return err
		}
		r.kills++
		r.Say("kill -9 of node %d, with %d messages acknowledged so far", k%len(nodes)+1, r.acked.Load())
		if err := pause(ctx, r.Down); err != nil {
			return err
		}
		if err := n.Restart(ctx); err != nil {
			return fmt.Errorf("start node %d again: %w", k%len(nodes)+1, err)
		}
		if err := pause(ctx, r.Duration); err != nil {
			return err
		}
	}
	return nil
}

// maxInFlight bounds the messages of one talker that wait for an answer.
const maxInFlight = 256

// talker sends at its pace until talk ends, and returns when every message has
// its outcome or ctx ends.
func (r *run) talker(ctx, talk context.Context, m *member) {
	tick := time.NewTicker(time.Duration(float64(r.Talkers) / r.Rate * float64(time.Second)))
	defer tick.Stop()
	var sending sync.WaitGroup
	defer sending.Wait()
	slots := make(chan struct{}, maxInFlight)
	for k := 1; ; k++ {
		select {
		case <-tick.C:
		case <-talk.Done():
			return
		}
		select {
		case slots <- struct{}{}:
		case <-talk.Done():
			return
		}
		sending.Go(func() {
			defer func() { <-slots }()
			if m.say(ctx, r.room, fmt.Sprintf("message %d of %s", k, m.log.Client)) {
				r.acked.Add(1)
			}
		})
	}
}

// judge waits until everyone has what there is, ends the connections and lets
// the checker speak.
func (r *run) judge(ctx context.Context, leave func(), connected *sync.WaitGroup) (*checker.Report, error) {
	history := checker.History{Room: r.room}
	err := r.within(ctx, func(ctx context.Context) error {
		conn, err := r.crowd[0].Conn(ctx)
		if err == nil {
			history.Epoch, history.Entries, err = conn.HistoryAll(ctx, r.room)
		}
		return err
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the history: %w", err)
	case len(history.Entries) == 0:
		return nil, errors.New("no message was posted: see what the nodes log")
	}
	top := journal.Position{Epoch: history.Epoch, Seq: history.Entries[len(history.Entries)-1].Seq}
	all := checker.Run{Histories: []checker.History{history}}
	// Who never gets there is left to the checker, which says what they miss.
	_ = r.within(ctx, func(ctx context.Context) error {
		for _, m := range r.crowd {
			if err := m.reaches(ctx, r.room, top); err != nil {
				return err
			}
		}
		return nil
	})
	for _, m := range r.crowd {
		m.rests(r.room)
		all.Logs = append(all.Logs, m.log)
	}
	leave()
	connected.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return checker.Check(all), nil
}

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
