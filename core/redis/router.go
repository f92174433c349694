package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// server is one redis-server.
type server struct {
	addr string
	rdb  *goredis.Client
	gone atomic.Bool // it is no longer there, and rdb is closed

	breaker breaker
}

// noteAnswer tells the breaker of what came of a command.
func (s *server) noteAnswer(err error) {
	if err == nil || errors.Is(err, goredis.Nil) || replied(err) != "" {
		s.breaker.answered()
	}
}

// layout says which primary holds which slot. It is not changed once made.
type layout struct {
	primaries []*server
	// owner is the number of a slot's primary in primaries, or noOwner; nil
	// where there is one primary for everything.
	owner []uint16
}

const noOwner = 1<<16 - 1

// at returns the primary of a slot.
func (l *layout) at(slot int) (*server, error) {
	switch {
	case slot == anySlot:
		return l.primaries[rand.N(len(l.primaries))], nil
	case l.owner == nil:
		return l.primaries[0], nil
	case l.owner[slot] == noOwner:
		return nil, fmt.Errorf("slot %d has no primary", slot)
	}
	return l.primaries[l.owner[slot]], nil
}

// same reports whether two layouts say the same.
func (l *layout) same(m *layout) bool {
	if l == nil || len(l.primaries) != len(m.primaries) || len(l.owner) != len(m.owner) {
		return false
	}
	for i, s := range l.primaries {
		if s != m.primaries[i] {
			return false
		}
	}
	for slot, i := range l.owner {
		if i != m.owner[slot] {
			return false
		}
	}
	return true
}

// finder asks where the primaries are. find is called by one goroutine at a
// time. It returns the servers to keep connections to besides the primaries.
type finder interface {
	find(ctx context.Context, r *router, suspect string) (l *layout, others []string, err error)
	close() error
}

const (
	// findEvery is the least time between two searches for the primaries: a
	// failover takes seconds, and every node searches.
	findEvery = 200 * time.Millisecond
	// askTimeout bounds one question of a search, which comes out of the time
	// of a call.
	askTimeout = 500 * time.Millisecond
)

// router keeps the layout. It has no goroutine of its own: a call that finds
// it doubtful looks for the primaries first, one call at a time, while the
// others go by what was last known.
type router struct {
	// Set at construction.
	dial   dialling
	finder finder                     // nil: one server, for ever
	shut   func(s *server, shut bool) // hears of every server's breaker

	now     atomic.Pointer[layout] // nil: not found yet
	doubted atomic.Bool
	suspect atomic.Pointer[string] // address of the server that last failed

	turn  chan struct{} // held by whoever searches; guards tried and told
	tried time.Time     // when the last search began
	told  error         // how it ended

	mu      sync.Mutex // leaf
	closed  bool
	servers map[string]*server
	listen  map[*Subscriber]struct{} // told when the layout changes or is doubted
}

func newRouter(d dialling, shut func(*server, bool)) *router {
	r := &router{dial: d, shut: shut, turn: make(chan struct{}, 1), servers: make(map[string]*server), listen: make(map[*Subscriber]struct{})}
	switch d.to.mode {
	case Single:
		s, _ := r.server(d.to.hosts[0])
		r.now.Store(&layout{primaries: []*server{s}})
	case Sentinel:
		r.finder = newSentinels(d)
	case Cluster:
		r.finder = cluster{seeds: d.to.hosts}
	}
	return r
}

var errClosed = errors.New("the client is closed")

// server returns the server at an address.
func (r *router) server(addr string) (*server, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errClosed
	}
	s := r.servers[addr]
	if s == nil {
		s = &server{addr: addr, rdb: goredis.NewClient(r.dial.options(addr))}
		s.breaker.changed = func(shut bool) { r.shut(s, shut) }
		r.servers[addr] = s
	}
	return s, nil
}

// known returns every server that there are connections to.
func (r *router) known() []*server {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*server, 0, len(r.servers))
	for _, s := range r.servers {
		all = append(all, s)
	}
	return all
}

func (r *router) close() error {
	r.mu.Lock()
	was := r.closed
	r.closed = true
	r.mu.Unlock()
	if was {
		return nil
	}
	var err error
	for _, s := range r.known() {
		err = errors.Join(err, s.rdb.Close())
	}
	if r.finder != nil {
		err = errors.Join(err, r.finder.close())
	}
	return err
}

// layout returns where the primaries are. When that is in doubt and no other
// call is searching, it searches; it waits for a search only before the first
// has succeeded.
func (r *router) layout(ctx context.Context) (*layout, error) {
	have := r.now.Load()
	if have != nil && !r.doubted.Load() {
		return have, nil
	}
	if have != nil {
		select {
		case r.turn <- struct{}{}:
		default:
			return have, nil
		}
	} else {
		select {
		case r.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer func() { <-r.turn }()
	if time.Since(r.tried) >= findEvery {
		r.search(ctx)
	}
	if l := r.now.Load(); l != nil {
		return l, nil
	}
	return nil, r.told
}

// settled reports whether layout answers without asking anybody.
func (r *router) settled() bool { return r.now.Load() != nil && !r.doubted.Load() }

// find returns the primary of a slot.
func (r *router) find(ctx context.Context, slot int) (*server, error) {
	l, err := r.layout(ctx)
	if err != nil {
		return nil, err
	}
	s, err := l.at(slot)
	if err != nil {
		r.doubt()
	}
	return s, err
}

// settle searches until the layout is no longer in doubt or a search has
// failed, which it returns. It is the Subscribers' way in: they wait for their
// turn, so that doubts that do not end become no more than a search every
// findEvery.
func (r *router) settle(ctx context.Context) (*layout, error) {
	for {
		if r.settled() {
			return r.now.Load(), nil
		}
		select {
		case r.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		var err error
		select {
		case <-time.After(time.Until(r.tried.Add(findEvery))):
			r.search(ctx)
			err = r.told
		case <-ctx.Done():
			err = ctx.Err()
		}
		<-r.turn
		if err != nil {
			return r.now.Load(), err
		}
	}
}

// search asks for the layout anew. The caller holds the turn.
func (r *router) search(ctx context.Context) {
	r.tried = time.Now()
	r.doubted.Store(false) // before the question: a doubt that comes meanwhile counts
	suspect := ""
	if p := r.suspect.Load(); p != nil {
		suspect = *p
	}
	l, others, err := r.finder.find(ctx, r, suspect)
	r.told = err
	if err != nil {
		r.doubted.Store(true)
		return
	}
	r.suspect.Store(nil)
	if have := r.now.Load(); have.same(l) {
		return
	}
	r.now.Store(l)
	r.retire(l, others)
	r.tell()
}

// retire closes the connections to servers that are no longer there.
func (r *router) retire(l *layout, others []string) {
	keep := make(map[string]bool)
	for _, s := range l.primaries {
		keep[s.addr] = true
	}
	for _, addr := range others {
		keep[addr] = true
	}
	var gone []*server
	r.mu.Lock()
	for addr, s := range r.servers {
		if !keep[addr] {
			gone = append(gone, s)
			delete(r.servers, addr)
		}
	}
	r.mu.Unlock()
	for _, s := range gone {
		s.gone.Store(true)
		_ = s.rdb.Close()
	}
}

// doubt makes the next call search for the primaries.
func (r *router) doubt() {
	if r.finder != nil && !r.doubted.Swap(true) {
		r.tell()
	}
}

// tell wakes the subscribers.
func (r *router) tell() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := range r.listen {
		s.poke()
	}
}

func (r *router) follow(s *Subscriber) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listen[s] = struct{}{}
}

func (r *router) unfollow(s *Subscriber) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.listen, s)
}

// lesson is what an answer says about where to send a command.
type lesson struct {
	server *server // send it on to this one, or nil
	asking bool    // with ASKING before it: the slot is on its way there
	err    error
}

// learn looks at a server's answer for what it says about the layout.
func (r *router) learn(ctx context.Context, s *server, err error) lesson {
	if r.finder == nil || err == nil || errors.Is(err, goredis.Nil) {
		return lesson{err: err}
	}
	text := replied(err)
	if text == "" {
		if !errors.Is(ctx.Err(), context.Canceled) { // the caller's own wish says nothing of the server
			r.fault(s.addr)
		}
		return lesson{err: err}
	}
	code, rest, _ := strings.Cut(text, " ")
	switch code {
	case "READONLY", "CLUSTERDOWN", "MASTERDOWN", "LOADING":
		r.doubt()
	case "MOVED", "ASK":
		if code == "MOVED" {
			r.doubt()
		}
		_, addr, _ := strings.Cut(rest, " ")
		next, bad := r.server(completeAddr(addr, s.addr))
		if bad != nil {
			return lesson{err: bad}
		}
		return lesson{server: next, asking: code == "ASK", err: err}
	}
	return lesson{err: err}
}

// fault notes that a server does not answer.
func (r *router) fault(addr string) {
	r.suspect.Store(&addr)
	r.doubt()
}

// completeAddr gives an address without a host the host of the server that
// told it: a node that does not know its own name leaves it out.
func completeAddr(addr, from string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host != "" && host != "?" {
		return addr
	}
	host, _, _ = net.SplitHostPort(from)
	return net.JoinHostPort(host, port)
}
