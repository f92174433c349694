package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/auth"
	"parley/core/chat"
	"parley/core/evidence"
	evidencedisk "parley/core/evidence/disk"
	"parley/core/journal"
	"parley/core/journal/disk"
	"parley/core/room"
	"parley/core/session"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is the API on a real listener, over a real store.
type node struct {
	t       testing.TB
	api     *API
	hub     *room.Hub
	journal *disk.Journal
	replay  replays
	records *evidence.Keeper
	token   string
	addr    string
	wrong   []string // what Ready answers
	client  *http.Client
}

func start(t testing.TB, edit ...func(*Deps)) *node {
	t.Helper()
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	dc := disk.Defaults()
	dc.Path, dc.CommitWindow = filepath.Join(dir, "parley.db"), 0
	n := &node{t: t, journal: must(disk.Open(dc, log))}
	n.hub = must(room.New(room.Defaults(), n.journal, log))
	sessions := must(session.New(session.Config{HistoryEntries: 1, StoreTimeout: time.Minute}, session.Deps{Hub: n.hub, Journal: n.journal}))
	es := must(evidencedisk.Open(evidencedisk.Config{Path: filepath.Join(dir, "evidence.db"), MaxBytes: 1 << 20}, log))
	n.records = must(evidence.New(evidence.Defaults(), es, log))
	token := must(auth.LoadOrCreateAdminToken(filepath.Join(dir, "admin.token")))
	n.token = token.Reveal()
	deps := Deps{
		Token: token, Hub: n.hub, Journal: n.journal, Create: sessions, Decide: sessions, Erase: sessions, Version: "test", Evidence: n.records, Replay: &n.replay, Log: log,
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "parley_up 1\n") }),
		Status: map[string]func() any{
			"policy/status": func() any { return map[string]string{"revision": "default"} },
			"broken":        func() any { return make(chan int) },
		},
		Ready: func(context.Context) []string { return n.wrong },
	}
	for _, f := range edit {
		f(&deps)
	}
	n.api = New(deps)
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- n.hub.Run(ctx) }()

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.addr = ln.Addr().String()
	srv := &http.Server{Handler: n.api, ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	n.client = &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}
	t.Cleanup(func() {
		n.client.CloseIdleConnections()
		_ = srv.Close()
		<-served
		stop()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		sessions.Close()
		if err := errors.Join(n.journal.Close(), es.Close()); err != nil {
			t.Error(err)
		}
	})
	return n
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// request is what a test sends; headers beginning with Host set that.
type request struct {
	method, path, body string
	headers            map[string]string
	open               bool // without the token
}

func (n *node) send(r request) (int, []byte) {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), r.method, "http://"+n.addr+r.path, strings.NewReader(r.body))
	if err != nil {
		n.t.Fatal(err)
	}
	if !r.open {
		req.Header.Set("Authorization", "Bearer "+n.token)
	}
	for k, v := range r.headers {
		if k == "Host" {
			req.Host = v
			continue
		}
		req.Header.Set(k, v)
	}
	resp, err := n.client.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	if resp.StatusCode >= 400 && resp.Header.Get("Content-Type") != "application/json" {
		n.t.Errorf("%s %s: got %d as %q, want JSON", r.method, r.path, resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	if resp.Header.Get("Cache-Control") != "no-store" {
		n.t.Errorf("%s %s: may be cached", r.method, r.path)
	}
	return resp.StatusCode, b
}

// refusal is the body of an error.
type refusal struct{ Code, Text string }

func (n *node) refused(r request, status int, code, text string) {
	n.t.Helper()
	got, b := n.send(r)
	var e refusal
	if err := json.Unmarshal(b, &e); err != nil || got != status || e.Code != code || !strings.Contains(e.Text, text) {
		n.t.Errorf("%s %s %.80s: got %d %.300s, want %d %s with %q", r.method, r.path, r.body, got, b, status, code, text)
	}
}

func (n *node) ok(r request, status int, v any) {
	n.t.Helper()
	got, b := n.send(r)
	if got != status {
		n.t.Fatalf("%s %s: got %d %s, want %d", r.method, r.path, got, b, status)
	}
	if v != nil {
		if err := json.Unmarshal(b, v); err != nil {
			n.t.Fatalf("%s %s: %v in %s", r.method, r.path, err, b)
		}
	}
}

// TestStrangersMayProbe answers load balancers of other machines by the status,
// and tells them nothing besides.
func TestStrangersMayProbe(t *testing.T) {
	n := start(t)
	for _, path := range []string{"/healthz", "/readyz"} {
		stranger := map[string]string{"Host": "10.1.2.3:9090"}
		if got, b := n.send(request{method: "GET", path: path, headers: stranger, open: true}); got != 200 || !bytes.Contains(b, []byte(`"ok"`)) {
			t.Errorf("%s: got %d %s, want 200 and no more", path, got, b)
		}
		if got, _ := n.send(request{method: "POST", path: path, headers: stranger, open: true}); got != 401 {
			t.Errorf("POST %s: got %d, want 401", path, got)
		}
	}
}

// TestStrangersAskTheStoreSeldom: what is wrong shows, without the reason, and
// as many as come at once ask the store once.
func TestStrangersAskTheStoreSeldom(t *testing.T) {
	var asked atomic.Int64
	n := start(t, func(d *Deps) {
		d.Ready = func(context.Context) []string {
			asked.Add(1)
			return []string{"the store cannot take messages: redis at 10.9.8.7"}
		}
	})
	for range 20 {
		if got, b := n.send(request{method: "GET", path: "/readyz", headers: map[string]string{"Host": "10.1.2.3:9090"}, open: true}); got != 503 || bytes.Contains(b, []byte("redis")) {
			t.Errorf("got %d %s, want 503 without the reason", got, b)
		}
	}
	if got := asked.Load(); got == 0 || got > 10 {
		t.Errorf("20 strangers asked the store %d times", got)
	}
}

func TestWhoMayAsk(t *testing.T) {
	n := start(t)
	_, port, _ := net.SplitHostPort(n.addr)
	bearer := "Bearer " + n.token
	tests := []struct {
		name    string
		method  string
		headers map[string]string
		want    int
	}{
		{"reading over loopback", "GET", nil, 200},
		{"HEAD", "HEAD", nil, 200},
		{"localhost", "GET", map[string]string{"Host": "localhost:" + port}, 200},
		{"LOCALHOST without port", "GET", map[string]string{"Host": "LOCALHOST"}, 200},
		{"another loopback address", "GET", map[string]string{"Host": "127.8.8.8:9090"}, 200},
		{"IPv6", "GET", map[string]string{"Host": "[::1]:9090"}, 200},
		{"IPv6 without port", "GET", map[string]string{"Host": "[::1]"}, 200},
		{"DNS rebinding", "GET", map[string]string{"Host": "evil.example:" + port}, 401},
		{"a name that only begins well", "GET", map[string]string{"Host": "127.0.0.1.evil.example"}, 401},
		{"localhost of somebody", "GET", map[string]string{"Host": "localhost.evil.example"}, 401},
		{"the network's address", "GET", map[string]string{"Host": "192.168.1.5:9090"}, 401},
		{"DNS rebinding with the token", "GET", map[string]string{"Host": "evil.example", "Authorization": bearer}, 200},
		{"from a page of another site", "GET", map[string]string{"Sec-Fetch-Site": "cross-site"}, 401},
		{"from a page of another host of the site", "GET", map[string]string{"Sec-Fetch-Site": "same-site"}, 401},
		{"typed into a browser", "GET", map[string]string{"Sec-Fetch-Site": "none"}, 200},
		{"from our own page", "GET", map[string]string{"Sec-Fetch-Site": "same-origin"}, 200},
		{"through a proxy", "GET", map[string]string{"X-Forwarded-For": "203.0.113.5"}, 401},
		{"through another proxy", "GET", map[string]string{"Forwarded": "for=203.0.113.5"}, 401},
		{"through a proxy with the token", "GET", map[string]string{"X-Real-Ip": "203.0.113.5", "Authorization": bearer}, 200},
		{"a wrong token over loopback", "GET", map[string]string{"Authorization": "Bearer no"}, 200},
		{"changing without a token", "PUT", nil, 401},
		{"deleting without a token", "DELETE", nil, 401},
		{"a method nobody knows", "BREW", nil, 401},
		{"changing with a wrong token", "PUT", map[string]string{"Authorization": "Bearer no"}, 401},
		{"changing with an empty token", "PUT", map[string]string{"Authorization": "Bearer "}, 401},
		{"changing with Basic", "PUT", map[string]string{"Authorization": "Basic " + n.token}, 401},
		{"changing with the token alone", "PUT", map[string]string{"Authorization": n.token}, 401},
		{"changing with the token", "PUT", map[string]string{"Authorization": bearer}, 404},
		{"changing with a lower-case scheme", "PUT", map[string]string{"Authorization": "bearer  " + n.token}, 404},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n.t = t
			got, b := n.send(request{method: tt.method, path: "/metrics", headers: tt.headers, open: true})
			if got != tt.want {
				t.Errorf("got %d %s, want %d", got, b, tt.want)
			}
			if got == 401 && bytes.Contains(b, []byte(n.token)) {
				t.Error("the answer holds the token")
			}
		})
	}
}

func TestARemoteReaderNeedsTheToken(t *testing.T) {
	for _, from := range []string{"203.0.113.5:4000", "[2001:db8::1]:4000", "nonsense", "10.0.0.1:1"} {
		r := &http.Request{Method: "GET", Host: "localhost", RemoteAddr: from, Header: http.Header{}}
		if local(r) {
			t.Errorf("%s was taken for local", from)
		}
	}
	for _, from := range []string{"127.0.0.1:4000", "[::1]:4000", "[::ffff:127.0.0.1]:4000"} {
		r := &http.Request{Method: "GET", Host: "localhost", RemoteAddr: from, Header: http.Header{}}
		if !local(r) {
			t.Errorf("%s was not taken for local", from)
		}
	}
}

func TestStatus(t *testing.T) {
	n := start(t)
	var health struct{ Status string }
	n.ok(request{method: "GET", path: "/healthz", open: true}, 200, &health)
	if health.Status != "ok" {
		t.Errorf("got %+v", health)
	}
	var policy struct{ Revision string }
	n.ok(request{method: "GET", path: "/v1/policy/status", open: true}, 200, &policy)
	if policy.Revision != "default" {
		t.Errorf("got %+v", policy)
	}
	if _, b := n.send(request{method: "GET", path: "/metrics", open: true}); string(b) != "parley_up 1\n" {
		t.Errorf("got metrics %q", b)
	}
	n.refused(request{method: "GET", path: "/v1/broken"}, 500, "internal", "encoded")
	n.refused(request{method: "GET", path: "/v1/nothing"}, 404, "not_found", "GET /v1/nothing")
	n.refused(request{method: "POST", path: "/v1/policy/status"}, 404, "not_found", "POST")

	var ready struct {
		Status  string
		Reasons []string
	}
	n.ok(request{method: "GET", path: "/readyz"}, 200, &ready)
	n.wrong = []string{"the store is away"}
	n.ok(request{method: "GET", path: "/readyz"}, 503, &ready)
	if len(ready.Reasons) != 1 || ready.Reasons[0] != "the store is away" {
		t.Errorf("got %+v, want the reason", ready)
	}
}

func TestProfiles(t *testing.T) {
	n := start(t)
	defer func() { runtime.SetMutexProfileFraction(0); runtime.SetBlockProfileRate(0) }()
	n.ok(request{method: "PUT", path: "/v1/profiling", body: `{"mutex":7,"block":1000}`}, 204, nil)
	if got := runtime.SetMutexProfileFraction(-1); got != 7 {
		t.Errorf("got mutex fraction %d, want 7", got)
	}
	n.ok(request{method: "PUT", path: "/v1/profiling", body: `{"block":-5}`}, 204, nil)
	if got := runtime.SetMutexProfileFraction(-1); got != 7 {
		t.Errorf("got mutex fraction %d after switching block only, want 7", got)
	}
	n.ok(request{method: "PUT", path: "/v1/profiling", body: `{"mutex":-1}`}, 204, nil)
	if got := runtime.SetMutexProfileFraction(-1); got != 0 {
		t.Errorf("got mutex fraction %d, want 0", got)
	}
	n.refused(request{method: "PUT", path: "/v1/profiling", body: `{"mutex":"a lot"}`}, 400, "bad_request", `"mutex" cannot hold a JSON string`)
	n.refused(request{method: "PUT", path: "/v1/profiling", body: `{"mutex":1}`, open: true}, 401, "unauthorized", "admin.token")
	for _, path := range []string{"", "goroutine?debug=1", "heap", "mutex?debug=1", "block?debug=1", "cmdline", "symbol", "profile?seconds=1", "trace?seconds=0.01"} {
		if status, b := n.send(request{method: "GET", path: "/debug/pprof/" + path, open: true}); status != 200 || len(b) == 0 && path != "symbol" {
			t.Errorf("pprof %s: got %d with %d bytes", path, status, len(b))
		}
	}
}

func TestCollectGarbage(t *testing.T) {
	n := start(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n.ok(request{method: "POST", path: "/v1/gc"}, 204, nil)
	runtime.ReadMemStats(&after)
	if after.NumForcedGC <= before.NumForcedGC {
		t.Errorf("got %d forced collections, want more than %d", after.NumForcedGC, before.NumForcedGC)
	}
	n.refused(request{method: "POST", path: "/v1/gc", open: true}, 401, "unauthorized", "admin.token")
}

func TestBodiesAreStrict(t *testing.T) {
	n := start(t)
	for _, tt := range []struct{ name, body, says string }{
		{"nothing", "", "one JSON object"},
		{"spaces", " \n", "one JSON object"},
		{"null", "null", "one JSON object"},
		{"a list", "[]", "one JSON object"},
		{"not UTF-8", "{\"title\":\"\xff\"}", "UTF-8"},
		{"broken", `{"title":}`, "at byte 10"},
		{"cut short", `{"title":"a"`, "does not end"},
		{"unknown member", `{"colour":"red"}`, `unknown field "colour"`},
		{"a long unknown member", `{"` + strings.Repeat("x", 500) + `":1}`, `unknown field`},
		{"wrong type", `{"slow_mode_s":"5"}`, `"slow_mode_s" cannot hold a JSON string`},
		{"something behind", `{"title":"a"} {}`, "follows"},
		{"garbage behind", `{"title":"a"}x`, "follows"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n.t = t
			n.refused(request{method: "PUT", path: "/v1/rooms/lobby", body: tt.body}, 400, "bad_request", tt.says)
		})
	}
	n.t = t
	n.refused(request{method: "PUT", path: "/v1/rooms/lobby", body: `{"title":"` + strings.Repeat("x", maxBody) + `"}`}, 413, "bad_request", "more than 65536 bytes")
	n.refused(request{method: "GET", path: "/v1/rooms/lobby"}, 404, "no_room", "lobby")
}

// FuzzBodies sends bodies to every call that takes one: none may be a fault
// of the server, and what is refused changes nothing.
func FuzzBodies(f *testing.F) {
	for _, body := range []string{
		`{"title":"Lobby","mode":"announce","visibility":"private","slow_mode_s":5}`, `{"role":"moderator"}`,
		`{"seconds":60,"reason":"spam"}`, `{"mutex":0}`, `{"seconds":9223372036854775807}`, `{"slow_mode_s":1e3}`, "{", "\xff", `{"mode":null}`,
	} {
		f.Add([]byte(body))
	}
	n := start(f)
	calls := []string{"rooms/lobby", "rooms/lobby/roles/ann", "rooms/lobby/bans/ann", "rooms/lobby/mutes/ann", "profiling"}
	f.Cleanup(func() { runtime.SetMutexProfileFraction(0); runtime.SetBlockProfileRate(0) })
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > 4096 {
			return
		}
		n.t = t
		rm := must(n.hub.Room(t.Context(), "lobby"))
		for _, call := range calls {
			before := rm.Position().Seq
			status, b := n.send(request{method: "PUT", path: "/v1/" + call, body: string(body)})
			if status >= 500 || status >= 400 && rm.Position().Seq != before {
				t.Errorf("%s with %q: got %d %s, the log went from %d to %d", call, body, status, b, before, rm.Position().Seq)
			}
		}
		if err := rm.State().Settings.Validate(); err != nil {
			t.Errorf("%q left settings that are not valid: %v", body, err)
		}
	})
}

// entries returns the room's log.
func (n *node) entries(id chat.RoomID) []journal.Entry {
	n.t.Helper()
	_, es, err := n.journal.Read(n.t.Context(), id, 0, 1000)
	if err != nil {
		n.t.Fatal(err)
	}
	return es
}
