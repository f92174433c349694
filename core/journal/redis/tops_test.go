package redis_test

import (
	"sync"
	"testing"
	"time"

	"parley/core/journal"
	journalredis "parley/core/journal/redis"
	"parley/core/redis/redistest"
)

// placed is a Watcher that says it stands where the test puts it.
type placed struct {
	mu     sync.Mutex
	at     journal.Position
	doubts chan struct{}
}

func (p *placed) Appended(epoch string, e *journal.Entry) {
	p.put(journal.Position{Epoch: epoch, Seq: e.Seq, ID: e.ID})
}
func (p *placed) Reviewed(*journal.Review) {}
func (p *placed) Doubt()                   { p.doubts <- struct{}{} }

func (p *placed) put(at journal.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = at
}

func (p *placed) Position() journal.Position {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at
}

func (p *placed) doubt(t *testing.T, why string) {
	t.Helper()
	select {
	case <-p.doubts:
	case <-time.After(patience):
		t.Fatalf("%s: no doubt within %v", why, patience)
	}
}

// A hint that was lost while the link lives is found by its top.
func TestLostHintIsFound(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	cfg := journalredis.Defaults()
	cfg.TopsEvery = 20 * time.Millisecond
	j := node(t, quick(server.URL()), cfg)
	// What is appended to the donor is copied, so nobody hears of it.
	secretly := func() {
		for _, key := range []string{"log", "meta"} {
			server.Do("COPY", "parley:{donor}:"+key, "parley:{lobby}:"+key, "REPLACE")
		}
	}
	at := func(rc journal.Receipt) journal.Position {
		return journal.Position{Epoch: rc.Epoch, Seq: rc.Seq, ID: rc.ID}
	}
	w := &placed{doubts: make(chan struct{}, 1000)}
	w.put(at(mustAppend(t, j, message("donor", "1"))))
	secretly()
	cancel, err := j.Watch(within(t), "lobby", w)
	if err != nil {
		t.Fatal(err)
	}
	defer cancel()
	w.doubt(t, "subscribed")
	rooms := j.Sweeps().Compared
	until(t, "some sweeps", func() bool { return j.Sweeps().Compared > rooms+20 })
	if st := j.Sweeps(); st.Missed != 0 || len(w.doubts) != 0 {
		t.Fatalf("got %+v, %d doubts where nothing was missed", st, len(w.doubts))
	}
	if got := server.Do("ZRANGE", "parley:rooms", "0", "-1"); got != "donor\nlobby" {
		t.Errorf("rooms listed: got %q, want the lobby put back", got)
	}

	second := at(mustAppend(t, j, message("donor", "2")))
	secretly()
	w.doubt(t, "an entry that nobody told of")
	w.put(second)

	mustAppend(t, j, message("lobby", "3")) // heard in the ordinary way
	rooms = j.Sweeps().Compared
	until(t, "some sweeps", func() bool { return j.Sweeps().Compared > rooms+20 })
	for len(w.doubts) > 0 { // a second sweep may have found the entry missing before it was put
		<-w.doubts
	}
	missed := j.Sweeps().Missed
	server.Do("FLUSHALL") // the link lives on
	w.doubt(t, "a store that was emptied")
	if n := j.Sweeps().Missed; n <= missed || missed == 0 {
		t.Errorf("missed: got %d, then %d, want both counted", missed, n)
	}
}

func TestOneNodeSweepsAtATime(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	cfg := journalredis.Defaults()
	cfg.MaxAge, cfg.SweepEvery = time.Hour, 50*time.Millisecond
	server.Do("SET", "parley:sweeping", "1") // somebody else's turn, for good
	j := node(t, quick(server.URL()), cfg)
	r := message("lobby", "old")
	r.Entry.Time = time.Now().Add(-2 * time.Hour).UnixMilli()
	mustAppend(t, j, r)
	asked := func() bool { return commandCalls(t, server, "set") != "1" }
	until(t, "it to ask for the turn", asked)
	if info, err := j.Info(within(t), "lobby"); err != nil || info.First != 1 || j.Sweeps().Swept != 0 {
		t.Errorf("got %+v, %v, %+v, want nothing swept out of turn", info, err, j.Sweeps())
	}
	server.Do("DEL", "parley:sweeping")
	until(t, "the sweep", func() bool { return j.Sweeps().Swept > 0 })
	until(t, "the old entry to go", func() bool {
		info, err := j.Info(within(t), "lobby")
		return err == nil && info.First == 2
	})
}
