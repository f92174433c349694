package e2e

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"parley/core/absent"
	"parley/core/absent/webhook"
	"parley/core/chat"
	"parley/core/client"
	"parley/core/e2e/rig"
	"parley/core/redis/redistest"
	"parley/core/wire"
)

// receiver is an HTTP endpoint that takes what a webhook delivers, if its
// signature is right.
type receiver struct {
	t      *testing.T
	secret webhook.Secret
	file   string // with the secret
	*httptest.Server

	mu     sync.Mutex
	took   []delivery
	seen   map[string]int                                 // deliveries of a webhook-id
	bodies map[string]string                              // of a webhook-id
	answer func(n int, w http.ResponseWriter) (stop bool) // nil takes all; n counts requests
	n      int
}

type delivery struct {
	id   string
	typ  string
	data absent.Entry
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{t: t, secret: webhook.Secret(strings.Repeat("k", 32)), seen: map[string]int{}, bodies: map[string]string{}}
	r.file = filepath.Join(t.TempDir(), "webhook.secret")
	if err := os.WriteFile(r.file, []byte("whsec_"+base64.StdEncoding.EncodeToString(r.secret)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.Server = httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(r.Server.Close)
	return r
}

func (r *receiver) serve(w http.ResponseWriter, req *http.Request) {
	b, err := io.ReadAll(req.Body)
	if err != nil {
		return // the worker was killed
	}
	r.mu.Lock()
	r.n++
	answer, n := r.answer, r.n
	r.mu.Unlock()
	if answer != nil && answer(n, w) {
		return
	}
	id := req.Header.Get(webhook.HeaderID)
	if err := webhook.Verify(r.secret, id, req.Header.Get(webhook.HeaderTimestamp), req.Header.Get(webhook.HeaderSignature), b, time.Now()); err != nil {
		r.t.Errorf("a delivery is not signed as it should be: %v", err)
	}
	var p struct {
		Type string       `json:"type"`
		Data absent.Entry `json:"data"`
	}
	if err := json.Unmarshal(b, &p); err != nil {
		r.t.Errorf("a delivery cannot be read: %v", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if was, ok := r.bodies[id]; ok && was != string(b) {
		r.t.Errorf("%s came with two bodies:\n%s\n%s", id, was, b)
	}
	r.bodies[id] = string(b)
	r.seen[id]++
	r.took = append(r.took, delivery{id, p.Type, p.Data})
}

// answers sets how requests are answered from now on.
func (r *receiver) answers(f func(n int, w http.ResponseWriter) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer, r.n = f, 0
}

// got returns what came, each webhook-id once, in the order of its first
// arrival.
func (r *receiver) got() (ds []delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	once := map[string]bool{}
	for _, d := range r.took {
		if !once[d.id] {
			once[d.id] = true
			ds = append(ds, d)
		}
	}
	return ds
}

func (r *receiver) all() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.took)
}

// await waits until n different messages have come.
func (r *receiver) await(n int) []delivery {
	r.t.Helper()
	var ds []delivery
	await(r.t, fmt.Sprintf("%d messages are delivered", n), func() bool {
		ds = r.got()
		return len(ds) >= n
	})
	if len(ds) != n {
		r.t.Fatalf("got %d messages, want %d: %+v", len(ds), n, ds)
	}
	return ds
}

// worker is a process of a command that works beside the servers.
type worker struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  *rig.Tail
	done chan struct{}
}

func startWorker(t *testing.T, store *redistest.Server, r *receiver, args ...string) *worker {
	t.Helper()
	return startBeside(t, append([]string{"worker", "webhook", "--redis", store.URL(), "--url", r.URL + "/hook", "--secret-file", r.file}, args...)...)
}

// startBeside starts a command of the binary that runs until it is stopped.
func startBeside(t *testing.T, args ...string) *worker {
	t.Helper()
	w := &worker{t: t, out: new(rig.Tail), done: make(chan struct{})}
	w.cmd = exec.Command(rig.Platform(), args...)
	w.cmd.Env = rig.CleanEnv()
	pr, pw := io.Pipe()
	w.cmd.Stdout, w.cmd.Stderr = pw, pw
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		for s := bufio.NewScanner(pr); s.Scan(); {
			w.out.Add(s.Text())
		}
	})
	go func() { // ends with the process, which the test ends
		_ = w.cmd.Wait()
		_ = pw.Close()
		reading.Wait()
		close(w.done)
	}()
	t.Cleanup(func() {
		w.kill()
		if t.Failed() {
			t.Logf("the log of platform %s:\n%s", args[0], w.out)
		}
	})
	return w
}

// kill ends the process as kill -9 does. It may be called twice.
func (w *worker) kill() {
	_ = w.cmd.Process.Kill()
	<-w.done
}

// stop ends it by SIGTERM and demands exit code 0.
func (w *worker) stop() {
	w.t.Helper()
	if err := w.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		w.t.Fatal(err)
	}
	<-w.done
	if code := w.cmd.ProcessState.ExitCode(); code != 0 {
		w.t.Fatalf("the worker: got exit code %d, want 0", code)
	}
}

// duo is two nodes on one Redis, and who was there once.
type duo struct {
	t     *testing.T
	store *redistest.Server
	key   string
	nodes [2]*node
}

func startDuo(t *testing.T, more settings, known ...chat.UserID) *duo {
	t.Helper()
	x := &duo{t: t, store: redistest.Start(t, redistest.Options{AppendOnly: true}), key: filepath.Join(t.TempDir(), "jwt.key")}
	token(t, x.key, "anybody") // makes the key that both nodes read
	keys := settings{"redis.url": x.store.URL(), "auth.jwt.key_file": x.key}
	for k, v := range more {
		keys[k] = v
	}
	for i := range x.nodes {
		x.nodes[i] = startNode(t, unlimited(keys))
	}
	for _, u := range known {
		v := x.visit(1, u)
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		<-v.Done()
	}
	for _, u := range known { // written a moment later, by the node where they were
		await(t, string(u)+" is connected nowhere", func() bool { return x.store.Do("HLEN", "parley:{u:"+string(u)+"}:at") == "0" })
	}
	return x
}

func (x *duo) visit(at int, u chat.UserID, roles ...string) *visitor {
	x.t.Helper()
	return visit(x.t, client.Options{URL: x.nodes[at].URL(at), Token: token(x.t, x.key, u, roles...)})
}

// TestMessagesForTheAbsent: who is mentioned or written to and connected nowhere
// is told by the webhook, once and signed; who is there is not.
func TestMessagesForTheAbsent(t *testing.T) {
	t.Parallel()
	x := startDuo(t, settings{"absent.text": true}, "bob", "cat", "zoë")
	r := newReceiver(t)
	w := startWorker(t, x.store, r)
	ann := x.visit(0, "ann")
	cat := x.visit(1, "cat") // there, at the other node
	await(t, "cat is known to be there", func() bool { return x.store.Do("HLEN", "parley:{u:cat}:at") == "1" })
	ann.enters("lobby")

	ack, _ := ann.says("lobby", "@bob, (@zoë) and @cat: see ann@bob and @nobody, @ann")
	ds := r.await(2) // in any order: several deliveries are under way at once
	slices.SortFunc(ds, func(a, b delivery) int { return strings.Compare(string(a.data.User), string(b.data.User)) })
	for i, u := range []chat.UserID{"bob", "zoë"} {
		want := absent.Entry{Room: "lobby", Epoch: ack.Epoch, Seq: ack.Seq, ID: ack.MessageID, From: "ann", User: u, Kind: "mention",
			Time: ds[i].data.Time, Text: "@bob, (@zoë) and @cat: see ann@bob and @nobody, @ann"}
		if ds[i].data != want || ds[i].typ != "message.mention" {
			t.Errorf("got %+v\nwant %+v", ds[i], want)
		}
		if age := time.Since(time.UnixMilli(ds[i].data.Time)); age < 0 || age > patience {
			t.Errorf("the message is %s old", age)
		}
	}

	// A direct, and a member of a private room.
	d, err := ann.Direct(within(t), "bob")
	if err != nil || !d.New || d.User != "bob" {
		t.Fatalf("direct: got %+v, %v", d, err)
	}
	ann.enters(d.Room)
	ack, _ = ann.says(d.Room, "are you there? @cat says no")
	ds = r.await(3)
	if got := ds[2]; got.typ != "message.direct" || got.data.User != "bob" || got.data.Room != d.Room || got.data.Seq != ack.Seq {
		t.Errorf("got %+v", got)
	}

	// Somebody who is there is not in the stream, but told by the node.
	dc, err := ann.Direct(within(t), "cat")
	if err != nil {
		t.Fatal(err)
	}
	first(cat, "that ann has opened a direct", func(e *wire.DirectEvent) bool { return e.Room == dc.Room && e.User == "ann" && e.New })
	ann.says(dc.Room, "hello")
	first(cat, "that ann has written", func(e *wire.DirectEvent) bool { return e.Room == dc.Room && e.User == "ann" && !e.New })
	again, err := cat.Direct(within(t), "ann")
	if err != nil || again.Room != dc.Room || again.New {
		t.Errorf("the same direct from the other side: got %+v, %v", again, err)
	}

	// A third person gets nowhere near, moderator or not.
	eve := x.visit(1, "eve", "moderator", "admin")
	for what, err := range map[string]error{
		"join":    second(eve.Join(within(t), d.Room, nil)),
		"history": second(eve.History(within(t), d.Room, 0, 0, 10)),
		"members": second(eve.Members(within(t), d.Room)),
		"send":    second(eve.Send(within(t), d.Room, client.NewNonce(), "hello")),
		"role":    second(eve.Role(within(t), d.Room, "", "eve", "member")),
	} {
		if e := refusal(t, err); e.Code != chat.CodeDenied {
			t.Errorf("%s by a third person: got %v", what, e)
		}
	}
	// And nobody makes a room of such a name by hand.
	if _, err := eve.Join(within(t), "dm:aaaa", nil); refusal(t, err).Code != chat.CodeNoRoom {
		t.Errorf("join of a direct that is none: got %v", err)
	}
	if _, err := ann.Direct(within(t), "ann"); refusal(t, err).Code != chat.CodeBadRequest {
		t.Errorf("direct with oneself: got %v", err)
	}

	// The message after all of these is the next that comes: none of them left one.
	ann.says("lobby", "last call, @bob")
	ds = r.await(4)
	if got := ds[3].data; got.Text != "last call, @bob" {
		t.Errorf("got %+v, want the last message", got)
	}
	if all := r.all(); all != 4 {
		t.Errorf("4 messages came %d times", all)
	}
	w.stop()
	for i, n := range x.nodes {
		if bad := n.Metric("parley_absent_bad_total"); bad != 0 {
			t.Errorf("node %d could not read %v messages", i, bad)
		}
	}
	if got := x.store.Do("XLEN", "parley:{absent}:stream"); got != "0" {
		t.Errorf("%s messages are left in the stream", got)
	}
}

// TestAKilledWorkerLosesNothing has messages for absent people come all the
// time, and kills the worker again and again in the middle of deliveries: each is
// delivered, and what comes twice has the same id and body.
func TestAKilledWorkerLosesNothing(t *testing.T) {
	t.Parallel()
	const kills, people = 20, 5
	var names []chat.UserID
	var text strings.Builder
	for i := range people {
		u := chat.UserID(fmt.Sprint("away", i))
		names = append(names, u)
		fmt.Fprintf(&text, "@%s ", u)
	}
	x := startDuo(t, nil, names...)
	r := newReceiver(t)
	pace := time.NewTicker(time.Millisecond) // slow enough to be killed in between
	defer pace.Stop()
	r.answers(func(int, http.ResponseWriter) bool {
		<-pace.C
		return false
	})
	args := []string{"--claim-after", "500ms", "--first-wait", "50ms", "--concurrency", "8"}
	w := startWorker(t, x.store, r, args...)
	ann := x.visit(0, "ann")
	ann.enters("lobby")

	stop := make(chan struct{})
	sent := make(chan map[chat.MessageID]bool, 1)
	go func() { // ends with stop
		ids := map[chat.MessageID]bool{}
		defer func() { sent <- ids }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			ack, err := ann.Send(t.Context(), "lobby", client.NewNonce(), text.String())
			if err != nil {
				t.Errorf("send: %v", err)
				return
			}
			ids[ack.MessageID] = true
		}
	}()
	for range kills {
		have := r.all()
		await(t, "the worker delivers", func() bool { return r.all() >= have+20 })
		w.kill()
		w = startWorker(t, x.store, r, args...)
	}
	close(stop)
	ids := <-sent
	r.answers(nil)
	want := people * len(ids)
	ds := r.await(want)
	for _, d := range ds {
		if !ids[d.data.ID] || !slices.Contains(names, d.data.User) {
			t.Errorf("nobody sent %+v", d)
		}
	}
	t.Logf("%d messages for %d absent people, the worker killed %d times: %d delivered, 0 lost, %d twice (by the same webhook-id)",
		len(ids), people, kills, want, r.all()-want)
	await(t, "nothing is left in the stream", func() bool { return x.store.Do("XLEN", "parley:{absent}:stream") == "0" })
	w.stop()
}

// TestAKilledNodeLosesNoMention kills the node that takes messages for absent
// people, between storing them and carrying them, again and again: what was acked
// is delivered, by the other node's carrier.
func TestAKilledNodeLosesNoMention(t *testing.T) {
	t.Parallel()
	x := startDuo(t, nil, "bob")
	r := newReceiver(t)
	startWorker(t, x.store, r)
	acked := map[chat.MessageID]bool{}
	for range 5 {
		ann := x.visit(0, "ann")
		ann.enters("lobby")
		for range 20 {
			ack, _ := ann.says("lobby", "@bob")
			acked[ack.MessageID] = true
		}
		x.nodes[0].Kill() // right after an ack
		x.nodes[0].Start()
	}
	for _, d := range r.await(len(acked)) {
		if !acked[d.data.ID] {
			t.Errorf("nobody sent %+v", d)
		}
	}
	t.Logf("%d acked mentions, the node killed 5 times: all delivered, %d twice", len(acked), r.all()-len(acked))
}
