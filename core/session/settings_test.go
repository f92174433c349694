package session

import (
	"context"
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/chat"
	"parley/core/gate"
	"parley/core/state"
	"parley/policy"
	"parley/policy/rego"
	"parley/sdk/abi"
)

// house makes the default policy decide, with data.parley.
func (w *world) house(data string) {
	w.t.Helper()
	o := policy.Defaults()
	o.EvalTimeout, o.TestTimeout = time.Minute, time.Minute
	files := rego.Files()
	files["parley/data.yaml"] = []byte(data)
	e, err := o.Compile(w.t.Context(), files, "house")
	if err != nil {
		w.t.Fatal(err)
	}
	w.allow(func(in *gate.Input) gate.Decision { return e.Decide(context.Background(), in) })
}

// from connects from an address, without a hello.
func (w *world) from(addr string) *caller {
	s := newSink()
	return &caller{sink: s, w: w, x: w.srv.Start(Conn{Transport: "tcp", Remote: netip.MustParseAddr(addr), Socket: s})}
}

// TestQuietHours: nobody but moderators writes while a period of the data
// lasts, and everybody does afterwards. The bubble begins at midnight in UTC.
func TestQuietHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.house(`
periods: {night: [{from: "22:00", to: "06:00"}]}
templates: {help: {rooms: ["help-*"], quiet: [night]}}
`)
		mia, ann := w.user("mia", "moderator"), w.user("ann")
		mia.ok(`{"type":"send","room":"help-1","text":"good night"}`)
		if e := ann.do(`{"type":"join","room":"help-1"}`); e.Type != "joined" {
			t.Errorf("joining: got %+v, want it allowed at night", e)
		}
		ann.refused("quiet_hours", `{"type":"send","room":"help-1","text":"hi"}`)
		ann.ok(`{"type":"send","room":"lobby","text":"hi"}`)
		mia.end()
		ann.end()
		time.Sleep(6*time.Hour - time.Second)
		ann = w.user("ann")
		ann.refused("quiet_hours", `{"type":"send","room":"help-1","text":"hi"}`)
		time.Sleep(time.Second)
		ann.ok(`{"type":"send","room":"help-1","text":"good morning"}`)
		ann.end()
	})
}

// TestNewAccounts: an account is new from the first token that the server saw
// of it.
func TestNewAccounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.house(`
new_accounts: {younger_than_s: 7200, open_rooms: false, limits: {text_bytes: 5}}
templates: {news: {rooms: [news], new_accounts: read}}
`)
		mia := w.user("mia", "moderator")
		mia.ok(`{"type":"send","room":"lobby","text":"moderators have no limits"}`)
		mia.ok(`{"type":"send","room":"news","text":"news"}`)
		mia.end()
		ann := w.user("ann")
		e := ann.do(`{"type":"join","room":"anns"}`)
		if checkError(t, e, chat.CodeNoRoom); len(e.Reasons) != 1 || e.Reasons[0].Code != "new_account" {
			t.Errorf("got %+v, want a new account told so", e)
		}
		checkError(t, ann.do(`{"type":"send","room":"lobby","text":"hello all"}`), chat.CodeTextTooLong)
		ann.ok(`{"type":"send","room":"lobby","text":"hello"}`)
		ann.refused("new_account", `{"type":"send","room":"news","text":"hi"}`)
		ann.end()
		guest := w.guest("gus") // has no account that could be new
		guest.ok(`{"type":"send","room":"lobby","text":"hello all"}`)
		guest.end()
		time.Sleep(2 * time.Hour)
		ann = w.user("ann")
		ann.ok(`{"type":"send","room":"lobby","text":"hello all"}`)
		ann.ok(`{"type":"send","room":"news","text":"hi"}`)
		if e := ann.do(`{"type":"join","room":"anns"}`); e.Type != "joined" {
			t.Errorf("got %+v, want a room of her own", e)
		}
		ann.end()
	})
}

// TestRoomsBeginAsTheirTemplateSays, in the entry that makes them.
func TestRoomsBeginAsTheirTemplateSays(t *testing.T) {
	w := newWorld(t, nil)
	w.house(`
templates:
  team: {rooms: ["team-*"], title: Our team, visibility: private, slow_mode_s: 30}
  notes: {rooms: ["notes-*"], mode: announce}
`)
	ann, bob, gus := w.user("ann"), w.user("bob"), w.guest("gus")
	defer func() { ann.end(); bob.end(); gus.end() }()
	e := gus.do(`{"type":"join","room":"team-a"}`)
	if checkError(t, e, chat.CodeNoRoom); len(e.Reasons) != 1 || e.Reasons[0].Code != "not_allowed" {
		t.Errorf("got %+v, want a private room refused to a guest", e)
	}
	if e := ann.do(`{"type":"join","room":"team-a"}`); e.Type != "joined" || e.Title != "Our team" {
		t.Errorf("got %+v, want the title of the template", e)
	}
	want := state.Settings{Title: "Our team", Mode: state.ModeOpen, Visibility: state.Private, SlowModeS: 30}
	if st := must(w.hub.Room(t.Context(), "team-a")).State(); st.Settings != want || st.Role("ann") != state.RoleOwner {
		t.Errorf("got %+v, ann is %q, want %+v and an owner", st.Settings, st.Role("ann"), want)
	}
	bob.refused("private_room", `{"type":"join","room":"team-a"}`)
	gus.refused("moderators_write", `{"type":"send","room":"notes-1","text":"hi"}`) // opens it, and owns nothing
	if e := bob.do(`{"type":"join","room":"lobby"}`); e.Type != "joined" {
		t.Errorf("got %+v", e)
	}
	if st := must(w.hub.Room(t.Context(), "lobby")).State(); st.Settings != state.DefaultSettings() {
		t.Errorf("got %+v for a room without a template", st.Settings)
	}
}

func TestNetworksOfAConnection(t *testing.T) {
	w := newWorld(t, nil)
	w.house(`
networks: {office: [192.0.2.0/24], home: ["2001:db8::/32"]}
guests: {networks: [office]}
templates: {till: {rooms: [till], networks: [office]}}
`)
	token := w.token("ann", time.Hour)
	inside, outside := w.from("::ffff:192.0.2.7"), w.from("2001:db8::1")
	defer func() { inside.end(); outside.end() }()
	for _, c := range []*caller{inside, outside} {
		if e := c.do(`{"type":"hello","token":%q}`, token); e.Type != "welcome" {
			t.Fatalf("got %+v", e)
		}
	}
	inside.ok(`{"type":"send","room":"till","text":"one"}`)
	outside.refused("wrong_network", `{"type":"send","room":"till","text":"two"}`)
	outside.ok(`{"type":"send","room":"lobby","text":"two"}`)

	near, far := w.from("192.0.2.8"), w.from("198.51.100.1")
	defer func() { near.end(); far.end() }()
	if e := near.do(`{"type":"hello","guest":"gus"}`); e.Type != "welcome" {
		t.Errorf("a guest in the office: got %+v", e)
	}
	far.refused("wrong_network", `{"type":"hello","guest":"flo"}`)
}

// signals is a judge that keeps the age it is told.
type signals struct {
	judge
	age *atomic.Int64
}

func (s signals) Decide(input, text, normalized []byte) (abi.Verdict, abi.Result, uint64, error) {
	b, err := abi.FieldBytes(input, abi.FieldSignals)
	if err != nil {
		return abi.Error, abi.Result{}, 0, err
	}
	s.age.Store(int64(binary.LittleEndian.Uint32(b[8:]))) // the third of the three
	return abi.Allow, abi.Result{}, 1, nil
}

// TestPluginsAreToldTheAgeOfTheAccount in hours, 0 for a guest.
func TestPluginsAreToldTheAgeOfTheAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		var age atomic.Int64
		age.Store(-1)
		w.judge(signals{judge{name: "watcher"}, &age})
		post := func(c *caller, want int64) {
			t.Helper()
			c.ok(`{"type":"send","room":"lobby","text":"hi"}`)
			if got := age.Load(); got != want {
				t.Errorf("got an age of %d hours, want %d", got, want)
			}
			c.end()
		}
		post(w.guest("gus"), 0)
		post(w.user("ann"), 1)
		time.Sleep(50*time.Hour + time.Minute)
		post(w.user("ann"), 50)
		post(w.user("bob"), 1)
	})
}
