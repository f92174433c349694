package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// Concurrent calls share round trips: what is waiting leaves together, as one
// pipeline on one connection, so that a thousand calls a second cost neither a
// thousand writes nor a thousand reads. No order between two calls is promised
// unless the second begins when the first has ended.
//
// A lane is what one server is sent: small commands, or scripts with large
// replies (Script.Bulk), which must not stand before them: see lane.go. Each has a bound on
// what waits or is under way; a call beyond it is ErrOverloaded at once, so
// that a slow server is not waited for by ever more.
//
// A call ends at its deadline whatever the server does. If it had not been
// sent by then it never is; else its outcome is unknown. See breaker.go for a
// server that answers nobody.

const (
	// gather is the longest a call waits for others, and only under load: see
	// pace.
	gather = 2 * time.Millisecond
	// flights is how many pipelines of a lane are under way at once.
	flights = 4
	// batchCalls and batchBytes bound one pipeline.
	batchCalls = 256
	batchBytes = 1 << 20
	// The same for scripts with large replies, 256 KiB each.
	bulkFlights = 2
	bulkCalls   = 8
	// lingering is how long a goroutine of a lane waits for more.
	lingering = time.Second
)

// Command is one command of a batch: either Args, or Script with Keys and Args.
type Command struct {
	Script *Script
	Keys   []string
	Args   []any
}

// Reply is what a Command was answered; see Do.
type Reply struct {
	Value any
	Err   error
}

// call is one command on its way. Its caller owns it until it is queued, the
// lane from then on; the caller gets it back with done. A caller that gives up
// first says so and forgets it.
type call struct {
	args     []any // the whole command
	script   *Script
	what     any // for errors
	size     int
	deadline time.Time
	timer    *time.Timer
	done     chan struct{} // one slot
	gone     atomic.Bool
	server   *server // the lane's

	// Set by the lane.
	reply any
	addr  string // where the reply is from
	err   error
}

func (x *call) alone() bool { return x.script != nil && x.script.alone }

// pipes are the lanes of a client.
type pipes struct {
	client *Client
	calls  sync.Pool // *call

	mu     sync.Mutex
	lanes  map[laneKey]*lane
	closed bool
	ending chan struct{}  // made with lanes, closed by close
	flying sync.WaitGroup // goroutines of the lanes; Add only while !closed or from one
	stats  PipeStats
}

type laneKey struct {
	server *server
	bulk   bool
}

// PipeStats describe what a client has sent, for metrics.
type PipeStats struct {
	Calls   uint64 // commands sent
	Batches uint64 // pipelines they were sent in
	Refused uint64 // calls that were ErrOverloaded because too many waited
	Spared  uint64 // calls that failed at once because the server answered nobody
	Waiting int    // calls that wait or are under way
}

// Pipes returns the present state of the calls.
func (c *Client) Pipes() PipeStats {
	p := &c.pipes
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.stats
	for _, l := range p.lanes {
		st.Waiting += l.calls
	}
	return st
}

// Do sends one command to the server that holds its first key; one without a
// key goes to any primary. The reply is nil, an int64, a string, or a []any of
// these. The arguments may be strings, byte slices and numbers; after an error
// byte slices must not be changed any more, for they may still be on their
// way. A command that blocks would hold up others and must not be sent.
func (c *Client) Do(ctx context.Context, args ...any) (any, error) {
	r := c.pipes.one(ctx, Command{Args: args})
	return r.Value, r.Err
}

// Eval runs a script: as one atomic step, or not at all. Arguments and reply
// are as those of Do. In a cluster all its keys, and the channels it publishes
// to (see PublishCommand), must share a hash tag.
func (c *Client) Eval(ctx context.Context, s *Script, keys []string, args ...any) (any, error) {
	r := c.pipes.one(ctx, Command{Script: s, Keys: keys, Args: args})
	return r.Value, r.Err
}

// Pipeline sends commands together and returns the reply to each, in the order
// of the commands. It is for few hundred at a time: they count as so many
// calls.
func (c *Client) Pipeline(ctx context.Context, cmds []Command) []Reply {
	out := make([]Reply, len(cmds))
	sent := make([]*call, len(cmds))
	for i := range cmds {
		sent[i], out[i].Err = c.pipes.send(ctx, &cmds[i])
	}
	for i, x := range sent {
		if x != nil {
			out[i] = c.pipes.wait(ctx, x)
		}
	}
	return out
}

// alone sends one command past whatever waits.
func (c *Client) alone(ctx context.Context, args ...any) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	reply, addr, err := c.direct(ctx, c.slot(args), args)
	return reply, fail(args[0], addr, err)
}

func (p *pipes) one(ctx context.Context, cmd Command) Reply {
	x, err := p.send(ctx, &cmd)
	if err != nil {
		return Reply{Err: err}
	}
	return p.wait(ctx, x)
}

// send queues a command.
func (p *pipes) send(ctx context.Context, cmd *Command) (*call, error) {
	x := p.prepare(cmd)
	s, err := p.client.serverOf(ctx, cmd, x)
	if err != nil {
		return nil, lost(x.what, p.client.to.where(), err)
	}
	x.server = s
	if !s.breaker.admit(p.client.cfg.CallTimeout) {
		err := fmt.Errorf("redis %v at %s: %w: it has not answered %s, and the call was not sent", x.what, s.addr, ErrUnavailable, s.breaker.since())
		p.release(x)
		p.mu.Lock()
		p.stats.Spared++
		p.mu.Unlock()
		return nil, err
	}
	if err := p.put(laneKey{s, cmd.Script != nil && cmd.Script.bulk}, x); err != nil {
		return nil, err
	}
	return x, nil
}

// prepare makes the call of a command.
func (p *pipes) prepare(cmd *Command) *call {
	x, ok := p.calls.Get().(*call)
	if !ok {
		x = &call{done: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
	}
	if s := cmd.Script; s != nil {
		x.args = append(x.args, "evalsha", s.hash, len(cmd.Keys))
		for _, key := range cmd.Keys {
			x.args = append(x.args, key)
			x.size += len(key)
		}
		x.script, x.what = s, s.name
	} else {
		x.what = cmd.Args[0]
	}
	x.args = append(x.args, cmd.Args...)
	x.size += 64 * len(cmd.Args)
	for _, arg := range cmd.Args {
		switch v := arg.(type) {
		case string:
			x.size += len(v)
		case []byte:
			x.size += len(v)
		}
	}
	timeout := p.client.cfg.CallTimeout
	x.deadline = time.Now().Add(timeout)
	x.timer.Reset(timeout)
	return x
}

// wait returns the reply of a call that was queued.
func (p *pipes) wait(ctx context.Context, x *call) Reply {
	var err error
	late := false
	select {
	case <-x.done:
		return p.answer(x)
	case <-x.timer.C:
		err, late = context.DeadlineExceeded, true
	case <-ctx.Done():
		err = ctx.Err()
	}
	select {
	case <-x.done: // long ago: until now another call of a batch was waited for
		return p.answer(x)
	default:
	}
	if late {
		p.silent(x)
	}
	r := Reply{Err: fail(x.what, x.server.addr, err)}
	x.gone.Store(true)
	return r
}

// silent tells the breaker that a call has run into its deadline.
func (p *pipes) silent(x *call) {
	x.server.breaker.silent(x.deadline.Add(-p.client.cfg.CallTimeout))
}

// answer is the reply of a call that the lane has given back.
func (p *pipes) answer(x *call) Reply {
	if x.err != nil && !time.Now().Before(x.deadline) { // the connection's clock was ahead of the timer
		p.silent(x)
	}
	r := Reply{x.reply, fail(x.what, x.addr, x.err)}
	p.release(x)
	return r
}

// release gives a call back to the pool. Nobody else may hold it.
func (p *pipes) release(x *call) {
	x.timer.Stop()
	clear(x.args)
	*x = call{args: x.args[:0], timer: x.timer, done: x.done}
	p.calls.Put(x)
}

// put queues x, or says why not.
func (p *pipes) put(key laneKey, x *call) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return fail(x.what, x.server.addr, goredis.ErrClosed)
	}
	l := p.lanes[key]
	if l == nil {
		p.sweepLocked()
		l = &lane{p: p, server: key.server, flights: flights, batch: batchCalls, full: make(chan struct{}, 1), wake: make(chan struct{}, flights+1)}
		if key.bulk {
			l.flights, l.batch = bulkFlights, bulkCalls
		}
		if p.lanes == nil {
			p.lanes, p.ending = make(map[laneKey]*lane), make(chan struct{})
		}
		p.lanes[key] = l
	}
	cfg := &p.client.cfg
	if l.calls >= cfg.MaxQueued || l.calls > 0 && l.bytes+x.size > cfg.MaxQueuedBytes {
		p.stats.Refused++
		return fmt.Errorf("redis %v: %w: %d calls of %d bytes wait for the server, no more are taken; try again later",
			x.what, ErrOverloaded, l.calls, l.bytes)
	}
	l.queue = append(l.queue, x)
	l.calls++
	l.bytes += x.size
	if l.gathering {
		if l.calls == l.target {
			select {
			case l.full <- struct{}{}:
			default:
			}
		}
		return nil
	}
	l.startLocked()
	return nil
}

// sweepLocked drops the lanes to servers that are no longer there. It runs when
// a lane is made, which is when one was found.
func (p *pipes) sweepLocked() {
	for key, l := range p.lanes {
		if key.server.gone.Load() && l.calls == 0 && l.flying == 0 && !l.gathering {
			delete(p.lanes, key)
		}
	}
}

// close refuses further calls; those that wait fail soon, since the
// connections are closed next.
func (p *pipes) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.ending != nil {
		close(p.ending)
	}
}

// exec sends calls as one pipeline, until the last deadline among them. A
// script that the server does not know has not run: for each such one its text
// is sent once, and the others by its name behind it.
func (c *Client) exec(s *server, batch []*call) {
	deadline := batch[0].deadline
	for _, x := range batch[1:] {
		if x.deadline.After(deadline) {
			deadline = x.deadline
		}
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	c.send(ctx, s, batch)
	for _, all := range []bool{false, true} { // by then a redirection may have led elsewhere
		again := unknownScripts(batch, all)
		if again == nil {
			return
		}
		c.send(ctx, s, again)
	}
}

// unknownScripts returns the calls whose script the server did not know, with
// the text of each script in the first of them, or in all.
func unknownScripts(batch []*call, all bool) (again []*call) {
	var told []*Script
	for _, x := range batch {
		if x.script == nil || x.err == nil || !goredis.HasErrorPrefix(x.err, "NOSCRIPT") {
			continue
		}
		known := false
		for _, s := range told {
			known = known || s == x.script
		}
		if !known || all {
			x.args[0], x.args[1] = "eval", x.script.source
			told = append(told, x.script)
		}
		again = append(again, x)
	}
	return again
}

// send sends calls as one pipeline and sets their replies. What the server
// says belongs elsewhere follows one by one.
func (c *Client) send(ctx context.Context, s *server, batch []*call) {
	pipe := s.rdb.Pipeline()
	cmds := make([]*goredis.Cmd, len(batch))
	for i, x := range batch {
		cmds[i] = goredis.NewCmd(ctx, x.args...)
		_ = pipe.Process(ctx, cmds[i]) // only queues it
	}
	_, err := pipe.Exec(ctx) // each command that was answered has its own error
	if err == nil {
		err = errUnanswered
	}
	for i, x := range batch {
		x.reply, x.err = cmds[i].Result()
		if x.reply == nil && x.err == nil { // so too after a login that was refused
			x.err = err
		}
		if i == 0 {
			s.noteAnswer(x.err)
		}
		x.reply, x.addr, x.err = c.follow(ctx, s, x.args, x.reply, x.err)
	}
}

var errUnanswered = errors.New("the command was not answered")

// serverOf says which server a command is for. In a cluster each has lanes of
// its own, so that one that hangs holds up nobody else.
func (c *Client) serverOf(ctx context.Context, cmd *Command, x *call) (*server, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	slot := anySlot
	if cmd.Script == nil {
		slot = c.slot(cmd.Args)
	} else if c.to.mode == Cluster && len(cmd.Keys) > 0 {
		slot = Slot(cmd.Keys[0])
	}
	if c.route.settled() {
		return c.route.find(ctx, slot)
	}
	ctx, cancel := context.WithDeadline(ctx, x.deadline)
	defer cancel()
	return c.route.find(ctx, slot)
}
