package chaos

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/checker"
	"parley/core/client"
	"parley/core/e2e/rig"
	"parley/core/redis/redistest"
)

// world is a cluster with clients under load.
type world struct {
	t     *testing.T
	kind  string
	store *redistest.Server // nil if the plan names a URL
	links []*link           // one for each node, if the plan wants them
	nodes []*rig.Node
	crowd *rig.Crowd
	judge string // the token of who reads the histories
	key   string
}

// plan says what a world consists of.
type plan struct {
	store    redistest.Options // always append-only, synced always
	nodes    int               // 0 = 2
	clients  int               // 0 = 8, spread over the nodes
	talkers  int               // of them; 0 = 4
	every    time.Duration     // between two messages of a talker; 0 = 20 ms
	giveUp   time.Duration     // what a talker waits for an answer; 0 = for ever
	links    bool              // a link between each node and the store
	url      string            // of Redis, in place of a store of the world's own
	settings rig.Settings
	member   func(i int, opt *client.ResilientOptions)
	rooms    []chat.RoomID // nil = lobby, kitchen
}

// begin starts a world and its load.
func begin(t *testing.T, kind string, p plan) *world {
	t.Helper()
	w := &world{t: t, kind: kind, key: filepath.Join(t.TempDir(), "jwt.key")}
	if p.url == "" {
		p.store.AppendOnly = true
		w.store = redistest.Start(t, p.store)
	}
	w.populate(p)
	w.crowd.Joined()
	w.crowd.Talk(orElse(p.talkers, 4), orElse(p.every, 20*time.Millisecond))
	w.crowd.More(20)
	return w
}

// populate starts the nodes and connects the clients.
func (w *world) populate(p plan) {
	w.t.Helper()
	n := orElse(p.nodes, 2)
	for i := range n {
		url := p.url
		if p.links {
			w.links = append(w.links, newLink(w.t, w.store.Addr()))
			url = w.links[i].URL()
		} else if url == "" {
			url = w.store.URL()
		}
		s := rig.Unlimited(rig.Settings{"redis.url": url, "auth.jwt.key_file": w.key, "shutdown.reconnect_jitter": "300ms"})
		for k, v := range p.settings {
			s[k] = v
		}
		w.nodes = append(w.nodes, rig.New(w.t, s))
		w.judge = rig.Token(w.t, w.key, "judge") // makes the key before the first node would
		w.nodes[i].Start()
	}
	rooms := p.rooms
	if rooms == nil {
		rooms = []chat.RoomID{"lobby", "kitchen"}
	}
	w.crowd = rig.NewCrowd(w.t, rooms...)
	w.crowd.GiveUp = p.giveUp
	for i := range orElse(p.clients, 8) {
		opt := client.ResilientOptions{Options: client.Options{Token: rig.Token(w.t, w.key, chat.UserID(fmt.Sprintf("user%d", i)))}}
		for k := range n {
			opt.URLs = append(opt.URLs, w.nodes[(i+k)%n].URL(i/n))
		}
		if p.member != nil {
			p.member(i, &opt)
		}
		w.crowd.Add(fmt.Sprintf("client %d", i), opt)
	}
}

func orElse[T comparable](v, or T) T {
	var zero T
	if v == zero {
		return or
	}
	return v
}

// settle judges the run, notes its counts and stops the nodes. losses is how
// often the store forgot something: without any, nobody may have been reset,
// and otherwise somebody must have been.
func (w *world) settle(faults, losses int) *checker.Report {
	w.t.Helper()
	rep := w.settleEither(faults, losses)
	if losses > 0 && (rep.Resets == 0 || rep.LostAcked == 0) {
		w.t.Errorf("got %d resets and %d acknowledged messages lost, want some of both: the store forgot %d times", rep.Resets, rep.LostAcked, losses)
	}
	return rep
}

// settleEither is settle where the store may have forgotten something as often
// as losses says, and need not have.
func (w *world) settleEither(faults, losses int) *checker.Report {
	w.t.Helper()
	rep := w.crowd.Settle(client.Options{URL: w.nodes[0].WSURL(), Token: w.judge}, func(run *checker.Run) { run.Losses = losses })
	counts.add(w.kind, faults, rep)
	if rep.Refused > 0 {
		w.t.Errorf("%d messages were refused, want none", rep.Refused)
	}
	if losses == 0 && rep.Resets > 0 {
		w.t.Errorf("got %d resets, want none: the store lost nothing", rep.Resets)
	}
	for _, n := range w.nodes {
		n.Stop()
	}
	return rep
}

// goesOn waits until n further messages are acknowledged and nobody has been
// left behind.
func (w *world) goesOn(n int) {
	w.t.Helper()
	w.crowd.More(n)
	w.crowd.Abreast()
}

// lasts is how long a fault goes on.
func lasts(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}
