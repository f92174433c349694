package e2e

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
)

// crowd is a set of clients under load, each of which keeps a log for the
// checker.
type crowd struct {
	t       *testing.T
	rooms   []chat.RoomID
	members []*member
	acked   atomic.Int64
	written chan struct{} // takes a token whenever a message is about to be written, if it has room

	talking sync.WaitGroup
	hush    context.CancelFunc // ends the talk
	leave   []func()           // stop the members
}

type member struct {
	*client.Resilient
	log *checker.Log
}

func newCrowd(t *testing.T, rooms ...chat.RoomID) *crowd {
	return &crowd{t: t, rooms: rooms, written: make(chan struct{}, 1)}
}

// add connects a client that joins all rooms.
func (c *crowd) add(name string, opt client.ResilientOptions) {
	c.t.Helper()
	m := &member{log: checker.NewLog(name)}
	opt.OnEvent = m.log.Observe
	opt.OnAttempt = func(room chat.RoomID, nonce string, _ error) {
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
	c.leave = append(c.leave, keep(c.t, r))
}

// maxInFlight bounds the messages of one talker that wait for an answer.
const maxInFlight = 32

// talk lets the first n members send a message every so often, without
// waiting for the answer to the one before, until settle.
func (c *crowd) talk(n int, every time.Duration) {
	ctx, cancel := context.WithCancel(c.t.Context())
	c.hush = cancel
	for i, m := range c.members[:n] {
		c.talking.Go(func() { c.talker(ctx, i, m, every) })
	}
}

func (c *crowd) talker(ctx context.Context, i int, m *member, every time.Duration) {
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

// say sends one message until its outcome is known.
func (c *crowd) say(m *member, room chat.RoomID, text string) {
	nonce := client.NewNonce()
	ack, err := m.Send(c.t.Context(), room, nonce, text)
	var said *chat.Error
	m.log.Answered(room, nonce, ack, errors.As(err, &said))
	if err != nil {
		c.t.Errorf("send %s to %s: %v", nonce, room, err)
		return
	}
	c.acked.Add(1)
}

// more waits until n further messages are acknowledged.
func (c *crowd) more(n int) {
	c.t.Helper()
	want := c.acked.Load() + int64(n)
	await(c.t, fmt.Sprintf("%d messages are acknowledged", want), func() bool { return c.acked.Load() >= want })
}

// midway waits until somebody is writing a message: what is done next finds it
// on its way, most of the time.
func (c *crowd) midway() {
	c.t.Helper()
	select {
	case <-c.written: // of some time ago
	default:
	}
	select {
	case <-c.written:
	case <-within(c.t).Done():
		c.t.Fatal("nobody is writing any more")
	}
}

// settle ends the talk, waits until everyone stands at the top of every room,
// reads the final history over a fresh connection and judges the run.
func (c *crowd) settle(reader client.Options) *checker.Report {
	c.t.Helper()
	c.hush()
	c.talking.Wait()
	run := checker.Run{}
	v := visit(c.t, reader)
	for _, room := range c.rooms {
		epoch, entries, err := v.HistoryAll(within(c.t), room)
		if err != nil {
			c.t.Fatalf("read the history of %s: %v", room, err)
		}
		run.Histories = append(run.Histories, checker.History{Room: room, Epoch: epoch, Entries: entries})
		if len(entries) == 0 {
			c.t.Fatalf("the history of %s is empty", room)
		}
		top := entries[len(entries)-1].Seq
		for _, m := range c.members {
			await(c.t, fmt.Sprintf("%s stands at seq %d of %s", m.log.Client, top, room), func() bool {
				at, _ := m.Position(room)
				return at.Seq >= top
			})
			m.log.Settles(room)
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
