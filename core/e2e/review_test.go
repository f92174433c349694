package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"parley/core/chat"
	"parley/core/checker"
	"parley/core/client"
	"parley/core/redis/redistest"
	"parley/core/wire"
	"parley/sdk/abi"
)

// verdictPlugins installs two modules: one holds everything in the rooms that
// begin with careful, one denies everything in those that begin with strict.
func verdictPlugins(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, v := range map[string]struct {
		room    string
		verdict abi.Verdict
		reason  string
	}{
		"careful": {"careful*", abi.Hold, "Somebody should look at this."},
		"strict":  {"strict*", abi.Deny, "Not like this."},
	} {
		manifest, err := json.Marshal(map[string]any{"name": name, "version": "1.0", "rooms": []string{v.room}})
		if err != nil {
			t.Fatal(err)
		}
		install(t, filepath.Join(dir, name+".json"), manifest)
		install(t, filepath.Join(dir, name+".wasm"), constantModule(v.verdict, v.reason))
	}
	return dir
}

// waiting is the queue as the admin API shows it.
func waiting(n *node, room string) []wire.ReviewItem {
	n.T.Helper()
	return status[struct{ Open []wire.ReviewItem }](n, "/v1/reviews?room="+room).Open
}

// decide decides a review through the admin API.
func decide(n *node, room, id, action, reason string) (code int, answer wire.ReviewEvent) {
	n.T.Helper()
	code, body := n.Ask(http.MethodPost, "/v1/reviews/"+id, map[string]string{"room": room, "action": action, "reason": reason})
	if err := json.Unmarshal([]byte(body), &answer); err != nil && code == http.StatusOK {
		n.T.Fatalf("decide %s: %v in %s", id, err, body)
	}
	return code, answer
}

// TestHeldMessages holds a message, kills the server, finds the message in the
// queue again, approves it, and rejects another.
func TestHeldMessages(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "jwt.key")
	mod := token(t, key, "mod", "moderator")
	n := startNode(t, unlimited(settings{"plugins.dir": verdictPlugins(t), "auth.jwt.key_file": key}))
	await(t, "the plugins are active", func() bool {
		return pluginOf(n, "careful").State == "active" && pluginOf(n, "strict").State == "active"
	})
	ann := visit(t, client.Options{URL: n.WSURL(), Token: token(t, key, "ann")})
	log := checker.NewLog("ann")
	log.Observe(ann.Welcome())
	send := func(v *visitor, nonce, text string) *wire.AckEvent {
		t.Helper()
		log.Sending("careful", nonce)
		ack, err := v.Send(within(t), "careful", nonce, text)
		if err != nil {
			t.Fatal(err)
		}
		log.Answered("careful", nonce, ack, false)
		return ack
	}
	held := send(ann, "n1", "is this all right")
	if held.Outcome != chat.Held || held.Seq != 0 || held.ReviewID == "" || len(held.Reasons) != 1 || held.Reasons[0].Source != "plugin:careful" {
		t.Fatalf("got %+v, want it held by the plugin", held)
	}
	second := send(ann, "n2", "and this")
	n.Kill()
	n.Start()
	ann = visit(t, client.Options{URL: n.WSURL(), Token: token(t, key, "ann")})
	bob := visit(t, client.Options{URL: n.TCPURL(), Guest: "bob"})
	ann.enters("careful")
	bob.enters("careful")
	log.Observe(ann.Welcome())
	if again := send(ann, "n1", "is this all right"); !again.Repeat || again.ReviewID != held.ReviewID {
		t.Errorf("resent after a kill: got %+v, want the first answer", again)
	}
	open := waiting(n, "careful")
	if len(open) != 2 || open[0].ReviewID != held.ReviewID || open[0].Text != "is this all right" || open[0].From != "ann" || open[0].Record == "" {
		t.Fatalf("after a kill: got %+v, want both messages in the queue", open)
	}
	code, done := decide(n, "careful", string(held.ReviewID), wire.Approve, "")
	if code != http.StatusOK || done.Outcome != chat.Accepted || done.By != "admin" || done.Seq == 0 {
		t.Fatalf("approve: got %d %+v", code, done)
	}
	for name, v := range map[string]*visitor{"ann": ann, "bob": bob} {
		if got := v.hears("n1"); got.Seq != done.Seq || got.ID != held.ReviewID || got.From != "ann" || got.Text != "is this all right" {
			t.Errorf("%s heard %+v, want ann's message at seq %d", name, got, done.Seq)
		}
	}
	first(ann, "that it was approved", func(e *wire.ReviewEvent) bool { return e.ReviewID == held.ReviewID && e.Outcome == chat.Accepted })
	if code, _ := decide(n, "careful", string(held.ReviewID), wire.Reject, "too late"); code != http.StatusNotFound {
		t.Errorf("rejecting what was approved: got status %d, want 404", code)
	}

	m := visit(t, client.Options{URL: n.WSURL(), Token: mod})
	queue, err := m.Reviews(within(t), "careful")
	if err != nil || !queue.All || len(queue.Open) != 1 || queue.Open[0].ReviewID != second.ReviewID {
		t.Fatalf("the moderator's queue: got %+v, %v, want the second message", queue, err)
	}
	if _, err := bob.Review(within(t), "careful", second.ReviewID, wire.Approve, ""); refusal(t, err).Code != chat.CodeDenied {
		t.Errorf("a guest approves: got %v, want it denied", err)
	}
	if ev, err := m.Review(within(t), "careful", second.ReviewID, wire.Reject, "not today"); err != nil || ev.Outcome != chat.Rejected {
		t.Fatalf("reject: got %+v, %v", ev, err)
	}
	told := first(ann, "that it was rejected", func(e *wire.ReviewEvent) bool { return e.ReviewID == second.ReviewID })
	if told.Outcome != chat.Rejected || len(told.Reasons) != 1 || told.Reasons[0].Text != "not today" || told.By != "" || told.Nonce != "n2" {
		t.Errorf("the author was told %+v, want the reason and not by whom", told)
	}
	if again := send(ann, "n2", "and this"); again.Outcome != chat.Rejected || !again.Repeat {
		t.Errorf("resent after the rejection: got %+v, want it rejected", again)
	}
	for _, v := range bob.got() {
		if e, ok := v.(*wire.ReviewEvent); ok {
			t.Errorf("a member was told of a review: %+v", e)
		}
	}
	epoch, entries, err := bob.HistoryAll(within(t), "careful")
	if err != nil {
		t.Fatal(err)
	}
	rep := checker.Check(checker.Run{Logs: []*checker.Log{log}, Histories: []checker.History{{Room: "careful", Epoch: epoch, Entries: entries}}})
	if err := rep.Err(); err != nil || rep.Held != 1 || rep.Refused != 1 {
		t.Errorf("the checker: %v; %d held and %d refused, want 1 each", err, rep.Held, rep.Refused)
	}
	if got := n.Metric(`parley_reviews_total{event="rejected"}`); got != 1 {
		t.Errorf("rejected: the metric says %v, want 1", got)
	}
	// Evidence is written in the background: that of before the kill may be lost.
	explains(t, n, string(send(ann, "n3", "why").ReviewID))
	n.Stop()
}

// explains asks the node why a message was judged as it was, erases the
// evidence and asks again.
func explains(t *testing.T, n *node, id string) {
	t.Helper()
	type explanation struct {
		Record struct {
			ID, Room, User, Verdict string
			Policy                  string `json:"policy_revision"`
			Plugins                 []struct{ Name, Version, Verdict string }
		}
		Replayed struct {
			Equal       bool
			Verdict     string
			Differences []string
		}
	}
	e := status[explanation](n, "/v1/explain/"+id)
	if e.Record.Verdict != "hold" || e.Record.User != "ann" || e.Record.Policy == "" || len(e.Record.Plugins) != 1 ||
		e.Record.Plugins[0].Name != "careful" || e.Record.Plugins[0].Version != "1.0" {
		t.Errorf("explain: got the record %+v, want what the plugin careful decided", e.Record)
	}
	if !e.Replayed.Equal || e.Replayed.Verdict != "hold" {
		t.Errorf("explain: got %+v replayed, want the same", e.Replayed)
	}
	out, code := n.Bare(adminArgs(n, "explain", id)...)
	for _, want := range []string{id, "hold", "careful", "Somebody should look at this.", "the same"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("platform explain: got exit %d, want %q in it:\n%s", code, want, out)
		}
	}
	list := status[struct{ Records []struct{ ID string } }](n, "/v1/evidence?room=careful&since=1&limit=10")
	if k := len(list.Records); k == 0 || list.Records[k-1].ID != id {
		t.Errorf("evidence: got %+v, want the last held message last", list.Records)
	}
	if code, body := n.Ask(http.MethodDelete, "/v1/evidence/"+id, nil); code != http.StatusOK {
		t.Errorf("erase: got %d %s", code, body)
	}
	if code, _ := n.Get("/v1/explain/" + id); code != http.StatusNotFound {
		t.Errorf("explain of what was erased: got %d, want 404", code)
	}
}

// TestHeldExpires holds a message, kills the server and lets nobody decide.
func TestHeldExpires(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "jwt.key")
	annToken, modToken := token(t, key, "ann"), token(t, key, "mia", "moderator") // makes the key that the node reads
	n := startNode(t, settings{"auth.jwt.key_file": key, "plugins.dir": verdictPlugins(t), "limits.review_age": "20s"})
	await(t, "the plugin is active", func() bool { return pluginOf(n, "careful").State == "active" })
	ann := visit(t, client.Options{URL: n.WSURL(), Token: annToken})
	held, err := ann.Send(within(t), "careful", "n1", "anybody there")
	if err != nil || held.Outcome != chat.Held {
		t.Fatalf("got %+v, %v, want it held", held, err)
	}
	n.Kill()
	n.Start()
	ann = visit(t, client.Options{URL: n.WSURL(), Token: annToken})
	mod := visit(t, client.Options{URL: n.TCPURL(), Token: modToken})
	mod.enters("careful")
	if queue, err := mod.Reviews(within(t), "careful"); err != nil || len(queue.Open) != 1 {
		t.Fatalf("the queue after a kill: got %+v, %v, want the message", queue, err)
	}
	for name, v := range map[string]*visitor{"the author": ann, "the moderator": mod} {
		told := first(v, "that it expired", func(e *wire.ReviewEvent) bool { return e.ReviewID == held.ReviewID })
		if told.Outcome != chat.Expired || len(told.Reasons) != 1 || told.Reasons[0].Code != "expired" || told.By != "" {
			t.Errorf("%s was told %+v, want that it expired", name, told)
		}
	}
	if again, err := ann.Send(within(t), "careful", "n1", "anybody there"); err != nil || again.Outcome != chat.Expired || !again.Repeat || again.ReviewID != held.ReviewID {
		t.Errorf("resent: got %+v, %v, want that it expired", again, err)
	}
	queue, err := mod.Reviews(within(t), "careful")
	if err != nil || len(queue.Open) != 0 || len(queue.Decided) != 1 || queue.Decided[0].Text != "" || queue.Decided[0].Outcome != chat.Expired {
		t.Errorf("the queue: got %+v, %v, want it decided, without its text", queue, err)
	}
	if code, _ := decide(n, "careful", string(held.ReviewID), wire.Approve, ""); code != http.StatusNotFound {
		t.Errorf("approving what has expired: got status %d, want 404", code)
	}
	if got := n.Metric(`parley_reviews_total{event="expired"}`); got != 1 {
		t.Errorf("expired: the metric says %v, want 1", got)
	}
	n.Stop()
}

// TestAnAppealIsHeardOnce appeals a denial twice.
func TestAnAppealIsHeardOnce(t *testing.T) {
	t.Parallel()
	n := startNode(t, settings{"plugins.dir": verdictPlugins(t)})
	await(t, "the plugin is active", func() bool { return pluginOf(n, "strict").State == "active" })
	ann := visit(t, client.Options{URL: n.WSURL(), Guest: "ann"})
	ann.enters("strict")
	_, err := ann.Send(within(t), "strict", "n1", "like this")
	said := refusal(t, err)
	if said.Code != chat.CodeDenied || said.Appeal == "" {
		t.Fatalf("got %+v, want a denial that may be appealed", said)
	}
	ack, err := ann.Appeal(within(t), "strict", said.Appeal, "I meant well")
	if err != nil || ack.Outcome != chat.Held || ack.ReviewID == "" {
		t.Fatalf("appeal: got %+v, %v, want it held", ack, err)
	}
	if _, err := ann.Appeal(within(t), "strict", said.Appeal, ""); refusal(t, err).Code != chat.CodeNoAppeal {
		t.Errorf("a second appeal: got %v, want no_appeal", err)
	}
	open := waiting(n, "strict")
	if len(open) != 1 || !open[0].Appeal || open[0].Text != "like this" {
		t.Fatalf("got %+v, want the appeal in the queue", open)
	}
	if code, done := decide(n, "strict", string(ack.ReviewID), wire.Approve, ""); code != http.StatusOK || done.Outcome != chat.Accepted {
		t.Fatalf("approve: got %d %+v", code, done)
	}
	if got := ann.hears("n1"); got.Text != "like this" || got.ID != ack.ReviewID {
		t.Errorf("got %+v, want the appealed message", got)
	}
	n.Stop()
}

// TestHeldHereApprovedThere holds messages on one node and decides about them
// on another, from both at once.
func TestHeldHereApprovedThere(t *testing.T) {
	t.Parallel()
	store := redistest.Start(t, redistest.Options{AppendOnly: true})
	key := filepath.Join(t.TempDir(), "jwt.key")
	annToken, bobToken := token(t, key, "ann"), token(t, key, "bob") // makes the key that both nodes read
	shared := unlimited(settings{"redis.url": store.URL(), "auth.jwt.key_file": key, "plugins.dir": verdictPlugins(t)})
	a, b := startNode(t, shared), startNode(t, shared)
	for _, n := range []*node{a, b} {
		await(t, "the plugin is active", func() bool { return pluginOf(n, "careful").State == "active" })
	}
	ann := visit(t, client.Options{URL: a.WSURL(), Token: annToken})
	bob := visit(t, client.Options{URL: b.TCPURL(), Token: bobToken})
	ann.enters("careful")
	bob.enters("careful")
	held, err := ann.Send(within(t), "careful", "n1", "here")
	if err != nil || held.Outcome != chat.Held {
		t.Fatalf("got %+v, %v, want it held", held, err)
	}
	open := waiting(b, "careful")
	if len(open) != 1 || open[0].ReviewID != held.ReviewID || open[0].Text != "here" {
		t.Fatalf("on the other node: got %+v, want the message", open)
	}
	_, done := decide(b, "careful", string(held.ReviewID), wire.Approve, "")
	for name, v := range map[string]*visitor{"ann on a": ann, "bob on b": bob} {
		if got := v.hears("n1"); got.Seq != done.Seq || got.ID != held.ReviewID || got.From != "ann" {
			t.Errorf("%s heard %+v, want ann's message at seq %d", name, got, done.Seq)
		}
	}
	first(ann, "the decision of the other node", func(e *wire.ReviewEvent) bool { return e.ReviewID == held.ReviewID && e.Outcome == chat.Accepted })
	// Both nodes decide at once, one this way and one that way.
	for i := range 5 {
		nonce := fmt.Sprint("race", i)
		held, err := ann.Send(within(t), "careful", nonce, "which")
		if err != nil {
			t.Fatal(err)
		}
		codes := make(chan int, 2)
		for n, action := range map[*node]string{a: wire.Approve, b: wire.Reject} {
			go func() {
				code, _ := n.Ask(http.MethodPost, "/v1/reviews/"+string(held.ReviewID), map[string]string{"room": "careful", "action": action})
				codes <- code
			}()
		}
		if one, two := <-codes, <-codes; one+two != http.StatusOK+http.StatusNotFound {
			t.Errorf("two decisions at once: got status %d and %d, want 200 and 404", one, two)
		}
		again, err := ann.Send(within(t), "careful", nonce, "which")
		if err != nil || !again.Repeat || again.Outcome == chat.Held {
			t.Errorf("resent: got %+v, %v, want what was decided", again, err)
		}
	}
	a.Stop()
	b.Stop()
}
