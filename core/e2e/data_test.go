package e2e

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/client"
	"parley/core/wire"
	"parley/policy/preview"
)

// houseData has a setting of each kind that docs/policy.md documents.
func houseData(day time.Weekday, office string) string {
	return strings.NewReplacer("DAY", strings.ToLower(day.String()[:3]), "OFFICE", office).Replace(`
time_zone: UTC
periods:
  rest: [{days: [DAY], from: "00:00", to: "24:00"}]
networks:
  office: [OFFICE]
  home: [198.51.100.0/24]
guests:
  networks: [home]
  limits: {text_bytes: 12}
new_accounts:
  younger_than_s: 10
  open_rooms: false
  limits: {text_bytes: 20}
templates:
  help: {rooms: ["help-*"], title: Ask here, slow_mode_s: 3600, new_accounts: read, quiet: [rest]}
  team: {rooms: ["team-*"], visibility: private, networks: [office], guests: none}
  news: {rooms: [news], mode: announce, limits: {history: 1}}
`)
}

// TestSettingsInTheData follows parley/data.yaml in a repository that `platform
// policy new` has made: quiet hours, new accounts, networks and templates act as
// docs/policy.md says, and change by a commit.
func TestSettingsInTheData(t *testing.T) {
	t.Parallel()
	r := &repo{t: t, dir: filepath.Join(t.TempDir(), "rules")}
	key := filepath.Join(t.TempDir(), "jwt.key")
	n := newNode(t, unlimited(settings{
		"policy.git.url": r.dir, "policy.git.interval": "1s", "auth.jwt.key_file": key,
		"proxy.trusted": []string{"127.0.0.0/8"}, "proxy.tcp": "protocol",
	}))
	if out, code := n.Bare("policy", "new", r.dir); code != 0 {
		t.Fatalf("policy new: %d %s", code, out)
	}
	other := (time.Now().UTC().Weekday() + 3) % 7 // neither today nor tomorrow
	r.commit(map[string]string{"parley/data.yaml": houseData(other, "203.0.113.0/24")})
	token(t, key, "mia") // makes the key
	n.Start()
	adopt := func(data string) {
		t.Helper()
		hash := r.commit(map[string]string{"parley/data.yaml": data})
		await(t, "commit "+hash+" is live", func() bool {
			return strings.Contains(status[policyStatus](n, "/v1/policy/status").Revision, hash[:7])
		})
	}
	const office, home, away = "203.0.113.7", "198.51.100.7", "192.0.2.7"
	from := func(addr string, opt client.Options) (*visitor, error) {
		opt.URL, opt.NetDial = n.TCPURL(), through("PROXY TCP4 "+addr+" 127.0.0.1 5000 80\r\n")
		return tryVisit(t, opt)
	}
	user := func(addr string, name chat.UserID, roles ...string) *visitor {
		t.Helper()
		v, err := from(addr, client.Options{Token: token(t, key, name, roles...)})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	says := func(v *visitor, room chat.RoomID, text string) string {
		t.Helper()
		if _, err := v.Send(within(t), room, client.NewNonce(), text); err != nil {
			return code(refusal(t, err))
		}
		return ""
	}
	check := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
	}

	// Rooms begin as their template says; who opens one with an account owns it.
	mia := user(office, "mia", "moderator")
	for room, want := range map[chat.RoomID]wire.JoinedEvent{"help-1": {Title: "Ask here", Mode: "open", SlowModeS: 3600}, "team-a": {Mode: "open"}, "news": {Mode: "announce"}} {
		if j := mia.enters(room); j.Title != want.Title || j.Mode != want.Mode || j.SlowModeS != want.SlowModeS || j.Role != "owner" {
			t.Errorf("%s: got %+v, want %+v and mia its owner", room, j, want)
		}
	}
	mia.says("news", "the first")
	mia.says("news", "the second")

	// Guests: where they may come from, their limits, and where they may not go.
	if _, err := from(away, client.Options{Guest: "gus"}); code(refusal(t, err)) != "wrong_network" {
		t.Errorf("a guest from elsewhere: got %v", err)
	}
	gus, err := from(home, client.Options{Guest: "gus"})
	if err != nil {
		t.Fatal(err)
	}
	check("a guest's message", says(gus, "lobby", "123456789012"), "")
	check("one that is too long", says(gus, "lobby", "1234567890123"), "text_too_long")
	if h, err := gus.History(within(t), "news", 0, 0, 0); err != nil || len(h.Entries) != 1 {
		t.Errorf("history of news: got %+v, %v, want one entry", h, err)
	}

	// New accounts: limits, rooms, and the end of both by itself.
	bob := user(office, "bob")
	check("a new account's message", says(bob, "lobby", "12345678901234567890"), "")
	check("one that is too long", says(bob, "lobby", "123456789012345678901"), "text_too_long")
	check("a room of its own", code(refusal(t, second(bob.Join(within(t), "bobs", nil)))), "new_account")
	bob.enters("help-1")
	check("a room it may read", says(bob, "help-1", "hi"), "new_account")
	await(t, "the account is old enough", func() bool { return says(bob, "lobby", "this is no longer too long") == "" })
	bob.enters("bobs")
	check("a room it could only read", says(bob, "help-1", "hi"), "")
	check("the slow mode of its template", says(bob, "help-1", "hi again"), "slow_mode")

	// Networks hold for those whom the room knows, and for moderators.
	if _, err := mia.Role(within(t), "team-a", client.NewNonce(), "bob", "member"); err != nil {
		t.Fatal(err)
	}
	bob.enters("team-a")
	bobAway := user(away, "bob")
	check("from elsewhere", says(bobAway, "team-a", "hi"), "wrong_network")
	check("from the office", says(bob, "team-a", "hi"), "")
	check("a moderator from elsewhere", says(user(away, "max", "moderator"), "team-a", "hi"), "wrong_network")

	// The office moves: whoever sits in the old one leaves the room, and is told
	// by which decision. The preview says what it can, and what it cannot.
	adopt(houseData(other, "192.0.2.0/24"))
	left := first(bob, "that bob is out of team-a", func(e *wire.LeftEvent) bool { return e.Room == "team-a" })
	if left.Code != "denied" || len(left.Reasons) != 1 || left.Reasons[0].Code != "wrong_network" {
		t.Errorf("got %+v, want bob out for his network", left)
	}
	if out, exit := n.Bare("policy", "explain", "--id", left.Decision, "--admin", n.Admin, "--data-dir", n.Data()); exit != 0 || !strings.Contains(out, "settings.rego") {
		t.Errorf("explain --id %q: got %d %s", left.Decision, exit, out)
	}
	check("from the new office", says(bobAway, "team-a", "hi"), "")
	report := status[struct{ Preview preview.Report }](n, "/v1/policy/status").Preview
	if report.Replayed == 0 || report.Unsure == 0 || report.Unequal != 0 {
		t.Errorf("preview: got %+v, want records replayed, those about team-a unsure, and none unequal", report)
	}

	// Quiet hours begin for everybody but moderators, and end. Yesterday and
	// tomorrow count too: midnight may pass meanwhile.
	eve := user(office, "eve")
	await(t, "eve is old enough", func() bool { return says(eve, "lobby", "may I write long messages by now?") == "" })
	now := time.Now().UTC().Weekday()
	adopt(strings.Replace(houseData(now, "192.0.2.0/24"), "days: [", "days: ["+strings.ToLower(((now + 1) % 7).String()[:3])+", ", 1))
	eve.enters("help-1")
	check("in quiet hours", says(eve, "help-1", "hi"), "quiet_hours")
	check("elsewhere", says(eve, "lobby", "hi"), "")
	check("a moderator", says(mia, "help-1", "good night"), "")
	adopt(houseData(other, "192.0.2.0/24"))
	check("when they are over", says(eve, "help-1", "hi"), "")

	// What cannot be meant changes nothing.
	bad := r.commit(map[string]string{"parley/data.yaml": strings.Replace(houseData(other, "192.0.2.0/24"), "24:00", "25:00", 1)})
	await(t, "the commit is refused", func() bool {
		ref := status[policyStatus](n, "/v1/policy/status").Refused
		return ref != nil && strings.Contains(ref.Revision, bad[:7]) && strings.Contains(ref.Problems.Error(), "data.parley.periods.rest[0].to")
	})
	check("under it", says(eve, "lobby", "still here"), "")
	n.Stop()
}

// code is what a refusal is known by: its reason's, where it has one.
func code(e *chat.Error) string {
	if len(e.Reasons) > 0 {
		return e.Reasons[0].Code
	}
	return string(e.Code)
}
