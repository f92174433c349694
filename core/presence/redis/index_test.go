package redis_test

import (
	"fmt"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/redis/redistest"
)

// at asks a node who of the users is connected.
func (n *node) at(users ...chat.UserID) string {
	n.t.Helper()
	got, err := n.Connected(n.t.Context(), users)
	if err != nil {
		return err.Error()
	}
	var out string
	for _, u := range users {
		if got[u] {
			out += string(u) + " "
		}
	}
	return out
}

func TestConnected(t *testing.T) { redistest.Each(t, redistest.Options{}, connected) }

func connected(t *testing.T, s redistest.Store) {
	p := s.Front(t)
	a, b, dies := start(t, s.URL(), "a", nil), start(t, s.URL(), "b", nil), start(t, p.URL(), "dies", nil)
	aware(t, a, b, dies)
	const all = "ann bob eve "
	users := []chat.UserID{"ann", "nobody", "bob", "eve", "no name at all"}
	a.Online("ann")
	if got := a.at(users...); got != "ann " {
		t.Errorf("got %q, want ann at once", got)
	}
	b.Online("bob")
	b.Online("ann")
	dies.Online("eve")
	dies.Online("bob")
	for _, n := range []*node{a, b, dies} {
		await(t, "all three are connected", func() bool { return n.at(users...) == all })
	}
	a.Offline("ann") // not everywhere
	await(t, "ann's entry at a is gone", func() bool { return len(fields(s, "parley:{u:ann}:at")) == 1 })
	if got := a.at(users...); got != all {
		t.Errorf("got %q, want all three", got)
	}
	p.Halt()
	await(t, "eve is gone with her node", func() bool { return a.at(users...) == "ann bob " })
	if got := b.at(users...); got != "ann bob " {
		await(t, "for b too", func() bool { return b.at(users...) == "ann bob " })
	}
	await(t, "b removed the dead node's entry of its own user", func() bool { return len(fields(s, "parley:{u:bob}:at")) == 1 })
	b.Offline("ann")
	b.Offline("bob")
	await(t, "nobody is left", func() bool { return a.at(users...) == "" })
	if got, err := a.Connected(t.Context(), nil); err != nil || len(got) != 0 {
		t.Errorf("asked for nobody: got %v, %v", got, err)
	}
	b.Online("zoe")
	s.Kill()
	got, err := b.Connected(t.Context(), []chat.UserID{"zoe", "ann"})
	if err == nil || !got["zoe"] || got["ann"] {
		t.Errorf("without redis: got %v, %v, want zoe and an error", got, err)
	}
}

// A storm of connects is few round trips, and a user who has come and gone
// before it was written is written once.
func TestStormOfConnects(t *testing.T) { redistest.Each(t, redistest.Options{}, stormOfConnects) }

func stormOfConnects(t *testing.T, s redistest.Store) {
	a, b := start(t, s.URL(), "a", nil), start(t, s.URL(), "b", nil)
	aware(t, a, b)
	const n = 15_000
	name := func(i int) chat.UserID { return chat.UserID(fmt.Sprint("u", i)) }
	before, began := a.client.Pipes(), time.Now()
	for i := range n {
		a.Online(name(i))
		if i%3 == 0 {
			a.Offline(name(i))
			a.Online(name(i))
		}
	}
	await(t, "all are written", func() bool { return a.Stats().Written >= n })
	took := time.Since(began)
	users := make([]chat.UserID, n)
	for i := range users {
		users[i] = name(i)
	}
	await(t, "all are connected", func() bool {
		got, err := b.Connected(t.Context(), users)
		return err == nil && len(got) == n
	})
	after := a.client.Pipes()
	if calls, batches := after.Calls-before.Calls, after.Batches-before.Batches; batches > calls/10 {
		t.Errorf("%d calls took %d round trips, want a tenth at most", calls, batches)
	}
	t.Logf("%d users written in %v with %d calls in %d round trips", n, took, after.Calls-before.Calls, after.Batches-before.Batches)
	if st := a.Stats(); st.Users != n {
		t.Errorf("got %d users here, want %d", st.Users, n)
	}
}
