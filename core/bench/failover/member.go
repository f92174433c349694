package failover

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"parley/core/chat"
	"parley/core/checker"
	"parley/core/client"
	"parley/core/journal"
	"parley/core/wire"
)

// member is one client with its log. Its clock measures how long it heard
// nothing, apart for silences in which its connection ended.
type member struct {
	*client.Resilient
	log *checker.Log

	mu     sync.Mutex // guards the following
	last   time.Time  // when the newest entry came; zero before the talk
	broke  bool       // the connection has ended since then
	rested bool       // the run is over
	ended  int        // connections that have ended
	calm   time.Duration
	broken time.Duration
	ack    time.Duration // longest wait for an answer, resends included
}

// newMember prepares client i, whose first node is the i-th. From a dead node
// half of them go to the one before it and half to the one after.
func newMember(i int, urls []string, room chat.RoomID, patience time.Duration) (*member, error) {
	m := &member{log: checker.NewLog(fmt.Sprintf("client %d", i))}
	opt := client.ResilientOptions{
		Options:    client.Options{Timeout: patience, Device: "bench", OnEvent: m.see},
		Rooms:      []chat.RoomID{room},
		MinBackoff: minBackoff, MaxBackoff: maxBackoff,
		OnAttempt:    func(room chat.RoomID, nonce string, _ error) { m.log.Sending(room, nonce) },
		OnDisconnect: func(error) { m.lose() },
	}
	step := 1
	if i/len(urls)%2 == 1 {
		step = len(urls) - 1
	}
	for k := range urls {
		opt.URLs = append(opt.URLs, urls[(i+k*step)%len(urls)])
	}
	var err error
	m.Resilient, err = client.NewResilient(opt)
	return m, err
}

// listen begins the measuring of silence.
func (m *member) listen() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = time.Now()
}

func (m *member) see(ev any) {
	m.log.Observe(ev)
	if _, ok := ev.(*wire.EntryEvent); !ok {
		return
	}
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last.IsZero() {
		return
	}
	silence := &m.calm
	if m.broke {
		silence = &m.broken
	}
	*silence = max(*silence, now.Sub(m.last))
	m.last, m.broke = now, false
}

func (m *member) lose() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.rested {
		m.broke = true
		m.ended++
	}
}

// rests says that the member has waited until all that could come had come:
// what ends from here on is none of the run's.
func (m *member) rests(room chat.RoomID) {
	m.log.Settles(room)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rested = true
}

// say sends one message until its outcome is known, and reports whether it was
// acknowledged.
func (m *member) say(ctx context.Context, room chat.RoomID, text string) bool {
	nonce, began := client.NewNonce(), time.Now()
	ack, err := m.Send(ctx, room, nonce, text)
	var refused *chat.Error
	m.log.Answered(room, nonce, ack, errors.As(err, &refused))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ack = max(m.ack, time.Since(began))
	return err == nil
}

// reaches waits until the member has got an entry.
func (m *member) reaches(ctx context.Context, room chat.RoomID, top journal.Position) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if at, _ := m.Position(room); at.Epoch == top.Epoch && at.Seq >= top.Seq {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
