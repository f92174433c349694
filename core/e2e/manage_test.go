package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"parley/core/auth"
	"parley/core/chat"
	"parley/core/client"
	"parley/core/redis/redistest"
	"parley/core/wire"
)

// TestABanReachesTheOtherNode: over Redis a ban spoken at one node puts people
// out at the other, by its entry, and the order of the log is kept for them.
func TestABanReachesTheOtherNode(t *testing.T) {
	t.Parallel()
	store := redistest.Start(t, redistest.Options{})
	key := filepath.Join(t.TempDir(), "jwt.key")
	shared := unlimited(settings{"redis.url": store.URL(), "auth.jwt.key_file": key})
	tokens := map[chat.UserID]string{}
	for _, u := range []chat.UserID{"mia", "bob"} {
		tokens[u] = token(t, key, u)
	}
	a, b := startNode(t, shared), startNode(t, shared)
	mia := visit(t, client.Options{URL: a.WSURL(), Token: tokens["mia"]})
	mia.enters("court") // which makes it hers
	here := visit(t, client.Options{URL: a.TCPURL(), Token: tokens["bob"]})
	there := visit(t, client.Options{URL: b.WSURL(), Token: tokens["bob"]})
	guest := visit(t, client.Options{URL: b.TCPURL(), Guest: "gus"})
	for _, v := range []*visitor{here, there, guest} {
		v.enters("court")
	}
	ban, err := mia.Ban(within(t), "court", client.NewNonce(), "bob", 3600, "spam")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []*visitor{here, there} {
		e := first(v, "that bob is out", func(e *wire.LeftEvent) bool { return e.Room == "court" })
		if e.Code != "banned" || e.Text != "spam" || e.By != "mia" || e.UntilTS == 0 {
			t.Errorf("got %+v, want bob banned by mia for an hour", e)
		}
	}
	_, nonce := mia.says("court", "quiet again")
	guest.hears(nonce)
	for _, v := range []*visitor{here, there} {
		if err := v.Ping(within(t)); err != nil {
			t.Fatal(err)
		}
		for _, ev := range v.got() {
			if e, ok := ev.(*wire.EntryEvent); ok && e.Seq > ban.Seq {
				t.Errorf("bob heard %+v after his ban at %d", e, ban.Seq)
			}
		}
		for what, err := range map[string]error{"join": second(v.Join(within(t), "court", nil)), "history": second(v.History(within(t), "court", 0, 0, 1))} {
			if said := refusal(t, err); said.Code != chat.CodeDenied || said.Reasons[0].Code != "banned" {
				t.Errorf("%s: got %+v, want banned", what, said)
			}
		}
	}
	kick, err := mia.Kick(within(t), "court", client.NewNonce(), "gus", "and you")
	if err != nil {
		t.Fatal(err)
	}
	first(guest, "that gus is out", func(e *wire.LeftEvent) bool { return e.Code == "kicked" && e.Text == "and you" })
	if j := guest.enters("court"); j.Seq < kick.Seq {
		t.Errorf("gus came back to seq %d, before his kick at %d", j.Seq, kick.Seq)
	}
	mia.says("court", "hello again")
	if _, err := mia.Unban(within(t), "court", client.NewNonce(), "bob"); err != nil {
		t.Fatal(err)
	}
	await(t, "bob may come back at the other node", func() bool { _, err := there.Join(within(t), "court", nil); return err == nil })
	a.Stop()
	b.Stop()
}

func second[T any](_ T, err error) error { return err }

// rulesIn writes the default policy and more into a folder and returns how to
// change the latter. The tests of the default policy stay with it.
func rulesIn(t *testing.T, dir string) (write func(name, rules string)) {
	t.Helper()
	write = func(name, rules string) {
		t.Helper()
		tmp := filepath.Join(dir, ".new")
		if err := os.WriteFile(tmp, []byte(rules), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"parley.rego", "settings.rego"} {
		b, err := os.ReadFile("../../policy/rego/" + name)
		if err != nil {
			t.Fatal(err)
		}
		write(name, string(b))
	}
	return write
}

// TestAChangedPolicyPutsPeopleOut of the rooms it closes to them, within a
// second of going live, and leaves the others alone.
func TestAChangedPolicyPutsPeopleOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := rulesIn(t, dir)
	n := startNode(t, unlimited(settings{"policy.dir": dir}))
	var guests []*visitor
	for i := range 20 {
		g := visit(t, client.Options{URL: n.URL(i)})
		g.enters("lobby")
		g.enters("kitchen")
		guests = append(guests, g)
	}
	mia := visit(t, client.Options{URL: n.WSURL(), Token: token(t, filepath.Join(n.Data(), "jwt.key"), "mia")})
	mia.enters("lobby")
	write("closed.rego", `package parley

refusal contains {"code": "closed", "text": "The lobby is closed to guests."} if {
	input.action.name == "room.join"
	input.resource.id == "lobby"
	input.subject.type == "guest"
}
`)
	for _, g := range guests {
		e := first(g, "that the lobby is closed", func(e *wire.LeftEvent) bool { return true })
		if e.Room != "lobby" || e.Code != "denied" || e.Text != "The lobby is closed to guests." || len(e.Reasons) != 1 || e.Reasons[0].Code != "closed" {
			t.Errorf("got %+v, want the rule's words", e)
		}
	}
	live := status[struct {
		LoadedAt time.Time `json:"loaded_at"`
	}](n, "/v1/policy/status").LoadedAt
	if late := time.Since(live); late > 5*time.Second { // a second, and what a loaded machine adds
		t.Errorf("everybody was out %v after the policy went live", late)
	}
	_, nonce := mia.says("kitchen", "you are still here")
	for _, g := range guests {
		g.hears(nonce)
	}
	m, err := mia.Members(within(t), "lobby")
	if err != nil || m.Count != 1 {
		t.Errorf("in the lobby: got %+v, %v, want mia alone", m, err)
	}
	if got := n.Metric("parley_put_out_total"); got != 20 {
		t.Errorf("parley_put_out_total: got %v, want 20", got)
	}
	n.Stop()
}

// TestAPolicyThatCannotDecide refuses, but for the actions that the operator
// has named.
func TestAPolicyThatCannotDecide(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := rulesIn(t, dir)
	write("broken.rego", `package parley

refusal contains {"code": "odd", "text": "Odd."} if {
	input.resource.id == "odd"
	input.action.name in {"members.read", "history.read"}
	to_number(input.resource.id) == 7
}
`)
	n := startNode(t, settings{"policy.dir": dir, "policy.allow_on_error": []string{"members.read"}})
	ann := visit(t, client.Options{URL: n.WSURL(), Guest: "ann"})
	ann.enters("odd")
	if m, err := ann.Members(within(t), "odd"); err != nil || m.Count != 1 {
		t.Errorf("members: got %+v, %v, want them in spite of the error", m, err)
	}
	_, err := ann.History(within(t), "odd", 0, 0, 1)
	if said := refusal(t, err); said.Code != chat.CodePolicyError {
		t.Errorf("history: got %+v, want policy_error", said)
	}
	n.Logs("POLICY COULD NOT DECIDE, LET THROUGH")
	if through, failed := n.Metric("parley_policy_let_through_total"), n.Metric("parley_policy_failures_total"); through != 1 || failed != 2 {
		t.Errorf("got %v let through of %v failures, want 1 of 2", through, failed)
	}
	n.Stop()
}

// TestATokenIsRefreshedInPlace, and ends the connection where it is not.
func TestATokenIsRefreshedInPlace(t *testing.T) {
	t.Parallel()
	n := startNode(t, nil)
	key, err := auth.LoadOrCreateKey(filepath.Join(n.Data(), "jwt.key"))
	if err != nil {
		t.Fatal(err)
	}
	sign := func(u chat.UserID, ttl time.Duration, roles ...string) string {
		text, err := auth.Sign(key, auth.Claims{User: u, TTL: ttl, Roles: roles})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	v := visit(t, client.Options{URL: n.WSURL(), Token: sign("mia", time.Minute)})
	v.enters("lobby")
	if at := time.Until(time.UnixMilli(v.Welcome().ExpiresTS)); at <= 0 || at > time.Minute {
		t.Errorf("the welcome says that the token ends in %v, want within a minute", at)
	}
	if _, err := v.Send(within(t), "announcements", client.NewNonce(), "may I?"); err == nil {
		t.Error("mia wrote to announcements without a role")
	}
	r, err := v.Refresh(within(t), sign("mia", time.Hour, "moderator"))
	if err != nil || len(r.Roles) != 1 || time.Until(time.UnixMilli(r.ExpiresTS)) < 59*time.Minute {
		t.Fatalf("got %+v, %v, want a moderator for an hour", r, err)
	}
	v.says("announcements", "now I may")
	if _, err := v.Refresh(within(t), sign("bob", time.Hour)); refusal(t, err).Code != chat.CodeUnauthorized {
		t.Errorf("another user's token: got %v", err)
	}
	v.says("lobby", "still here")
	n.Stop()
}
