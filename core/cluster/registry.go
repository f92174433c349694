package cluster

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	rds "parley/core/redis"
)

// Config says who this node is and how long it counts as alive.
type Config struct {
	// Name of the node, the same over its restarts; see CheckName.
	Name string
	// Lease is how long the others wait for a node that says nothing.
	Lease time.Duration
	// Renew is the time between two renewals, a tenth more or less.
	Renew time.Duration
}

// Defaults returns the settings for ordinary use: a killed node is gone within
// 15 s, and no sooner than 9 s.
func Defaults() Config {
	return Config{Name: HostName(), Lease: 15 * time.Second, Renew: 5 * time.Second}
}

func (c Config) check() error {
	switch {
	case c.Renew < 50*time.Millisecond:
		return fmt.Errorf("cluster renewal every %v: want at least 50ms", c.Renew)
	case c.Lease < 3*c.Renew:
		return fmt.Errorf("cluster lease %v: want at least three renewals of %v, or one that is late costs the node its place", c.Lease, c.Renew)
	}
	return CheckName(c.Name)
}

var (
	//go:embed renew.lua
	renewSource string
	//go:embed release.lua
	releaseSource string
	//go:embed confirm.lua
	confirmSource string

	renewScript   = rds.NewScript("renew a node's lease", renewSource)
	releaseScript = rds.NewScript("release a node's lease", releaseSource)
	confirmScript = rds.NewScript("confirm leases", confirmSource)
)

// Registry is this node's place in the table and its view of the others. Make
// one with New.
type Registry struct {
	// Set at construction.
	cfg     Config
	client  *rds.Client
	log     *slog.Logger
	self    NodeID
	started time.Time
	sub     *rds.Subscriber
	keys    keys
	nudge   chan struct{} // somebody else changed
	touch   chan struct{} // this node changed

	// Set before Run.
	infos    []info
	onChange []func(View)
	onView   []func(View)

	view   atomic.Pointer[View] // the last one; nil before the first
	first  chan struct{}        // closed with the first view
	failed atomic.Uint64
	ok     atomic.Uint64
	bad    atomic.Uint64
	lastOK atomic.Int64 // Unix ns

	// Owned by Run.
	reported string            // what was said last of records that cannot be read or made
	awaited  map[NodeID]awaits // nodes that a table which was lost held, and who have not come back to it yet
}

type info struct {
	key string
	of  func() any
}

type keys struct{ nodes, leases, beat, left, changed string }

// New returns a registry that does nothing until Run.
func New(cfg Config, client *rds.Client, log *slog.Logger) (*Registry, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	self := NodeID(fmt.Sprintf("%s-%0*x", cfg.Name, idDigits, rand.Uint32()))
	prefix := client.Prefix() + ":{nodes}:"
	r := &Registry{
		cfg: cfg, client: client, log: log.With("node", self), self: self, started: time.Now().UTC(),
		keys:  keys{nodes: prefix + "nodes", leases: prefix + "leases", beat: prefix + "beat", left: prefix + "left:", changed: client.ChannelPrefix() + ":{nodes}:changed"},
		nudge: make(chan struct{}, 1), touch: make(chan struct{}, 1), first: make(chan struct{}),
	}
	r.sub = client.Subscriber(ear{r})
	r.sub.Subscribe(r.keys.changed)
	return r, nil
}

// Self is this node's ID.
func (r *Registry) Self() NodeID { return r.self }

// SetInfo has f's answer told to the other nodes under key, as JSON of at most
// 16 KiB, anew with each renewal. f is called from Run's goroutine and must not
// block. Call it before Run.
func (r *Registry) SetInfo(key string, f func() any) { r.infos = append(r.infos, info{key, f}) }

// OnChange has f called, from Run's goroutine, with the first view and each one
// in which a node has come or gone, or in which Rewrite is set. f must return
// soon: until then no lease is renewed. Call it before Run.
func (r *Registry) OnChange(f func(View)) { r.onChange = append(r.onChange, f) }

// OnView is OnChange for every view, whatever it holds.
func (r *Registry) OnView(f func(View)) { r.onView = append(r.onView, f) }

// Touch has the node's infos told at once, and the other nodes look at them.
// Calls in quick succession are told together.
func (r *Registry) Touch() { poke(r.touch) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Known is closed once there has been a view.
func (r *Registry) Known() <-chan struct{} { return r.first }

// Nodes returns who was alive in the last view, by ID, this node among them:
// it alone before the first view. It is the caller's to read only.
func (r *Registry) Nodes() []Node {
	if v := r.view.Load(); v != nil {
		return v.Nodes
	}
	return []Node{{ID: r.self, Started: r.started, Lease: r.cfg.Lease}}
}

// Alive reports whether id was alive in the last view. Before the first view
// everybody counts as alive. A node that has just come may not be in the view
// yet: ask Confirm before anything of it is removed.
func (r *Registry) Alive(id NodeID) bool {
	v := r.view.Load()
	return id == r.self || v == nil || v.Has(id)
}

// maxConfirmed bounds the nodes of one question.
const maxConfirmed = maxNodes

// Confirm asks Redis which of the nodes have a lease at this moment: those are
// alive, however old the last view is. An error means that nobody knows.
func (r *Registry) Confirm(ctx context.Context, ids ...NodeID) (map[NodeID]bool, error) {
	out := make(map[NodeID]bool, len(ids))
	for chunk := range slices.Chunk(ids, maxConfirmed) {
		args := make([]any, len(chunk))
		for i, id := range chunk {
			args[i] = string(id)
		}
		reply, err := r.client.Eval(ctx, confirmScript, []string{r.keys.leases}, args...)
		if err != nil {
			return nil, err
		}
		list, ok := reply.([]any)
		if !ok || len(list) != len(chunk) {
			return nil, fmt.Errorf("confirm leases: redis answered %T", reply)
		}
		for i, id := range chunk {
			out[id] = list[i] == int64(1) || id == r.self
		}
	}
	return out, nil
}

// Stats describe a Registry, for metrics.
type Stats struct {
	Renewed    uint64    // renewals that Redis answered
	Failed     uint64    // renewals that it did not
	BadRecords uint64    // of other nodes, that could not be read, each time
	LastOK     time.Time // of the last answer; zero before the first
}

// Stats returns the present state.
func (r *Registry) Stats() Stats {
	st := Stats{Renewed: r.ok.Load(), Failed: r.failed.Load(), BadRecords: r.bad.Load()}
	if ns := r.lastOK.Load(); ns != 0 {
		st.LastOK = time.Unix(0, ns)
	}
	return st
}

// spacing is the least time between two exchanges that hints or Touch asked for.
const spacing = 100 * time.Millisecond

// Run keeps the lease until ctx ends, then gives it back and returns nil. Call
// it once.
func (r *Registry) Run(ctx context.Context) error {
	var aside sync.WaitGroup
	defer aside.Wait()
	aside.Go(func() { _ = r.sub.Run(ctx) })
	for ctx.Err() == nil {
		r.wait(ctx, r.renew(ctx))
	}
	r.release(ctx)
	return nil
}

// wait returns when the next renewal is due. While Redis does not answer, hints
// and Touch do not hasten it.
func (r *Registry) wait(ctx context.Context, ok bool) {
	begun := time.Now()
	pause, nudge, touch := r.cfg.Renew*9/10+rand.N(r.cfg.Renew/5), r.nudge, r.touch
	if !ok { // a lease is running out
		pause, nudge, touch = min(pause, 3*time.Second/4+rand.N(time.Second/2)), nil, nil
	} else {
		pause = min(pause, r.soonest())
	}
	due := time.NewTimer(pause)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-due.C:
			return
		case <-nudge:
		case <-touch:
			poke(r.touch) // it stays until the exchange has told it
		}
		nudge, touch = nil, nil
		due.Reset(max(0, min(pause, spacing)-time.Since(begun)))
	}
}

// soonest returns when the first lease of another node ends: one that ends before
// it is renewed is missed at once, and not a renewal later.
func (r *Registry) soonest() time.Duration {
	least := r.cfg.Lease
	for _, n := range r.Nodes() {
		if n.ID != r.self {
			least = min(least, n.Lease)
		}
	}
	return max(least, 0) + leaseSlack
}

// leaseSlack lets a lease be over for certain, whose end Redis told in whole
// milliseconds.
const leaseSlack = 5 * time.Millisecond

// Timeout of the last word, which nobody waits for longer.
const releaseTimeout = time.Second

// leftFor is for how many leases it is known that a node took leave: the others
// see that it is gone within one.
const leftFor = 4

func (r *Registry) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if _, err := r.client.Eval(ctx, releaseScript, []string{r.keys.nodes, r.keys.leases, r.keys.left + string(r.self)}, string(r.self), (leftFor * r.cfg.Lease).Milliseconds()); err != nil {
		r.log.Warn("this node's lease could not be given back; the others wait for its end", "lease", r.cfg.Lease, "error", err)
		return
	}
	r.tell(ctx)
}

// tell has the other nodes look. A hint that is lost costs them one renewal.
func (r *Registry) tell(ctx context.Context) {
	_ = r.client.Publish(ctx, r.keys.changed, string(r.self))
}

// ear hears hints.
type ear struct{ r *Registry }

// Message implements redis.Handler.
func (e ear) Message(_, payload string) {
	if payload != string(e.r.self) {
		poke(e.r.nudge)
	}
}

// Doubt implements redis.Handler.
func (e ear) Doubt(string) { poke(e.r.nudge) }
