package rig

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/checker"
	"parley/core/client"
	"parley/core/journal"
)

// Crowd is a set of clients under load, each of which keeps a log for the
// checker.
type Crowd struct {
	// GiveUp is how long a talker waits for the answer to a message before its
	// outcome is unknown; 0 = for ever. Set it before Talk.
	GiveUp time.Duration

	t       *testing.T
	rooms   []chat.RoomID
	members []*Member
	acked   atomic.Int64
	written chan struct{} // takes a token whenever a message is about to be written, if it has room

	talking sync.WaitGroup
	hush    context.CancelFunc // ends the talk
	leave   []func()           // stop the members

	mu     sync.Mutex
	said   map[chat.Code]int // errors that asked for another try; guarded by mu
	resent int               // messages that were written again; guarded by mu
}

// Member is one client of a crowd.
type Member struct {
	*client.Resilient
	log   *checker.Log
	ended atomic.Int64 // connections that have ended
	gave  atomic.Bool  // a message of it was given up
}

// Ended is how many of the member's connections have ended so far.
func (m *Member) Ended() int { return int(m.ended.Load()) }

// NewCrowd returns a crowd without members whose members will join rooms.
func NewCrowd(t *testing.T, rooms ...chat.RoomID) *Crowd {
	return &Crowd{t: t, rooms: rooms, written: make(chan struct{}, 1), said: make(map[chat.Code]int), hush: func() {}}
}

// Add connects a client that joins all rooms. Of the options the rooms and
// OnAttempt are the crowd's; OnEvent sees each event after the log has it.
func (c *Crowd) Add(name string, opt client.ResilientOptions) *Member {
	c.t.Helper()
	m := &Member{log: checker.NewLog(name)}
	seen, ended := opt.OnEvent, opt.OnDisconnect
	opt.OnEvent = func(ev any) {
		m.log.Observe(ev)
		if seen != nil {
			seen(ev)
		}
	}
	opt.OnDisconnect = func(err error) {
		m.ended.Add(1)
		if ended != nil {
			ended(err)
		}
	}
	opt.OnAttempt = func(room chat.RoomID, nonce string, before error) {
		c.told(before)
		m.log.Sending(room, nonce)
		select {
		case c.written <- struct{}{}:
		default:
		}
	}
	opt.Rooms = c.rooms
	if opt.MaxBackoff == 0 {
		opt.MinBackoff, opt.MaxBackoff = 10*time.Millisecond, 200*time.Millisecond
	}
	r, err := client.NewResilient(opt)
	if err != nil {
		c.t.Fatal(err)
	}
	m.Resilient = r
	c.members = append(c.members, m)
	c.leave = append(c.leave, Keep(c.t, r))
	return m
}

// told counts what came of a talker's attempt before it tries again.
func (c *Crowd) told(err error) {
	if err == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resent++
	var said *chat.Error
	if errors.As(err, &said) {
		c.said[said.Code]++
	}
}

// Resent is how often talkers have written a message again so far.
func (c *Crowd) Resent() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.resent
}

// Told is how often talkers were answered with a code and tried again.
func (c *Crowd) Told(code chat.Code) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said[code]
}

// Acked is how many messages have been acknowledged.
func (c *Crowd) Acked() int { return int(c.acked.Load()) }

// Joined waits until every member has joined all rooms.
func (c *Crowd) Joined() {
	c.t.Helper()
	for _, m := range c.members {
		if _, err := m.Conn(Within(c.t)); err != nil {
			c.t.Fatalf("%s has not joined its rooms: %v", m.log.Client, err)
		}
	}
}

// maxInFlight bounds the messages of one talker that wait for an answer.
const maxInFlight = 32

// Talk lets the first n members send a message every so often, without
// waiting for the answer to the one before, until Hush or Settle.
func (c *Crowd) Talk(n int, every time.Duration) {
	ctx, cancel := context.WithCancel(c.t.Context())
	c.hush = cancel
	for i, m := range c.members[:n] {
		c.talking.Go(func() { c.talker(ctx, i, m, every) })
	}
}

func (c *Crowd) talker(ctx context.Context, i int, m *Member, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	slots := make(chan struct{}, maxInFlight)
	for k := 0; ; k++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		room := c.rooms[k%len(c.rooms)]
		c.talking.Go(func() {
			defer func() { <-slots }()
			c.say(m, room, fmt.Sprintf("message %d of talker %d", k, i))
		})
	}
}

// say sends one message until its outcome is known, or it is given up.
func (c *Crowd) say(m *Member, room chat.RoomID, text string) {
	ctx := c.t.Context()
	if c.GiveUp > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.GiveUp)
		defer cancel()
	}
	nonce := client.NewNonce()
	ack, err := m.Send(ctx, room, nonce, text)
	var refused *chat.Error
	m.log.Answered(room, nonce, ack, errors.As(err, &refused))
	switch {
	case err == nil:
		c.acked.Add(1)
	case c.t.Context().Err() != nil: // the test has ended
	case c.GiveUp == 0 || !errors.Is(err, context.DeadlineExceeded):
		c.t.Errorf("send %s to %s: %v", nonce, room, err)
	default:
		m.gave.Store(true)
	}
}

// outcomes waits until what was given up has happened, or never will: it may lie
// at a node that has not come to it, and a connection's commands run one after the
// other, so it is over when a further message is acknowledged.
func (c *Crowd) outcomes() {
	c.GiveUp = Patience
	for i, m := range c.members {
		if !m.gave.Load() {
			continue
		}
		acked := c.acked.Load()
		if c.say(m, c.rooms[0], fmt.Sprintf("the last message of talker %d", i)); c.acked.Load() == acked {
			c.t.Errorf("%s: the last message was not acknowledged in %v", m.log.Client, Patience)
		}
	}
}

// More waits until n further messages are acknowledged.
func (c *Crowd) More(n int) {
	c.t.Helper()
	want := c.acked.Load() + int64(n)
	Await(c.t, fmt.Sprintf("%d messages are acknowledged", want), func() bool { return c.acked.Load() >= want })
}

// Abreast waits until every member has got, in every room, what the furthest
// one has got by now: nobody has been left behind.
func (c *Crowd) Abreast() {
	c.t.Helper()
	for _, room := range c.rooms {
		var goal journal.Position
		for _, m := range c.members {
			if at, _ := m.Position(room); at.Epoch != goal.Epoch || at.Seq > goal.Seq {
				goal = at
			}
		}
		for _, m := range c.members {
			Await(c.t, fmt.Sprintf("%s has got seq %d of %s", m.log.Client, goal.Seq, room), func() bool {
				at, _ := m.Position(room)
				return at.Epoch != goal.Epoch || at.Seq >= goal.Seq
			})
		}
	}
}

// Midway waits until somebody is writing a message: what is done next finds it
// on its way, most of the time.
func (c *Crowd) Midway() {
	c.t.Helper()
	select {
	case <-c.written: // of some time ago
	default:
	}
	select {
	case <-c.written:
	case <-Within(c.t).Done():
		c.t.Fatal("nobody is writing any more")
	}
}

// Hush ends the talk and waits until every message has its outcome. It may be
// called twice.
func (c *Crowd) Hush() {
	c.hush()
	c.talking.Wait()
}

// Settle ends the talk, waits for what was given up and until everyone stands at
// the top of every room, reads the final history over a fresh connection and judges
// the run by the rules that the caller has put into run.
func (c *Crowd) Settle(reader client.Options, rules ...func(*checker.Run)) *checker.Report {
	c.t.Helper()
	c.Hush()
	c.outcomes()
	run := checker.Run{}
	for _, rule := range rules {
		rule(&run)
	}
	conn, err := client.Dial(Within(c.t), reader)
	if err != nil {
		c.t.Fatalf("connect to read the history: %v", err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(c.t.Context(), Patience) // for all of them
	defer cancel()
	for _, room := range c.rooms {
		history := c.history(conn, room)
		run.Histories = append(run.Histories, history)
		for _, m := range c.members {
			c.stands(ctx, m, history)
		}
	}
	for _, leave := range c.leave {
		leave()
	}
	for _, m := range c.members {
		run.Logs = append(run.Logs, m.log)
	}
	rep := checker.Check(run)
	c.t.Log(rep)
	if err := rep.Err(); err != nil {
		c.t.Error(err)
	}
	return rep
}

// history reads the whole log of a room.
func (c *Crowd) history(conn *client.Conn, room chat.RoomID) checker.History {
	c.t.Helper()
	epoch, entries, err := conn.HistoryAll(Within(c.t), room)
	if err != nil {
		c.t.Fatalf("read the history of %s: %v", room, err)
	}
	if len(entries) == 0 {
		c.t.Fatalf("the history of %s is empty", room)
	}
	return checker.History{Room: room, Epoch: epoch, Entries: entries}
}

// stands waits until a member has got all of a room's history. One that never
// does is left to the checker, which says what it misses.
func (c *Crowd) stands(ctx context.Context, m *Member, h checker.History) {
	c.t.Helper()
	top := h.Entries[len(h.Entries)-1].Seq
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		at, _ := m.Position(h.Room)
		if at.Epoch == h.Epoch && at.Seq >= top {
			break
		}
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		c.t.Errorf("%s stands at seq %d of epoch %s in %s, whose top is seq %d of epoch %s", m.log.Client, at.Seq, at.Epoch, h.Room, top, h.Epoch)
		break
	}
	m.log.Settles(h.Room)
}

// Keep runs a Resilient until the test ends and returns how to stop it.
func Keep(t *testing.T, r *client.Resilient) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Errorf("a client gave up: %v", err)
		}
	})
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); wg.Wait() }) }
	t.Cleanup(stop)
	return stop
}

// Members are all of the crowd, in the order in which they were added.
func (c *Crowd) Members() []*Member { return c.members }
