package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/evidence"
	"parley/core/gate"
	"parley/core/journal"
	"parley/core/moderation"
	"parley/sdk/abi"
)

// onlyMods lets those with the role moderator decide about reviews.
func (w *world) onlyMods() {
	w.allow(func(in *gate.Input) gate.Decision {
		if in.Action.Name == gate.ModerateReview && !slices.Contains(in.Subject.Roles, "moderator") {
			return no("moderators_review", "only moderators")
		}
		return gate.Decision{Allow: true, Revision: "test:1"}
	})
}

// reviewWorld is a world in which "darn" is held, and "damn" denied.
func reviewWorld(t *testing.T) *world {
	w := newWorld(t, nil)
	w.judge(says("bouncer", "damn", abi.Deny), says("careful", "darn", abi.Hold))
	w.onlyMods()
	return w
}

func (c *caller) send(nonce, text string) event {
	c.w.t.Helper()
	return c.do(`{"type":"send","room":"lobby","nonce":%q,"text":%q}`, nonce, text)
}

func (c *caller) join(room string) {
	c.w.t.Helper()
	if e := c.do(`{"type":"join","room":%q}`, room); e.Type != "joined" {
		c.w.t.Fatalf("join: got %+v", e)
	}
}

func (c *caller) decide(id, action, reason string) event {
	c.w.t.Helper()
	return c.do(`{"type":"review","room":"lobby","review_id":%q,"action":%q,"reason":%q}`, id, action, reason)
}

func TestHeldIsApproved(t *testing.T) {
	w := reviewWorld(t)
	ann, bob, mod := w.user("ann"), w.user("bob"), w.user("mod", "moderator")
	defer ann.end()
	defer bob.end()
	defer mod.end()
	for _, c := range []*caller{ann, bob, mod} {
		c.join("lobby")
	}
	held := ann.send("n1", "oh darn it")
	if held.Outcome != "held" || held.ReviewID == "" || held.Seq != 0 || held.Repeat || held.ReviewID != held.MessageID {
		t.Fatalf("got %+v, want an ack held with a review id and no seq", held)
	}
	if again := ann.send("n1", "oh darn it"); again.ReviewID != held.ReviewID || !again.Repeat || again.Outcome != "held" {
		t.Errorf("resent: got %+v, want the same receipt", again)
	}
	if own := ann.do(`{"type":"reviews","room":"lobby"}`); own.All || len(own.Open) != 1 || own.Open[0].Text != "oh darn it" || own.Open[0].Record != nil {
		t.Errorf("the author's list: got %+v, want the own message, without the record", own)
	}
	if others := bob.do(`{"type":"reviews","room":"lobby"}`); others.All || len(others.Open) != 0 {
		t.Errorf("a member's list: got %+v, want nothing", others)
	}
	checkError(t, bob.decide(held.ReviewID, "approve", ""), chat.CodeDenied)
	queue := mod.do(`{"type":"reviews","room":"lobby"}`)
	if !queue.All || len(queue.Open) != 1 || queue.Open[0].From != "ann" || queue.Open[0].ReviewID != held.ReviewID || queue.Open[0].Record == nil {
		t.Fatalf("the moderator's list: got %+v, want ann's message with its record", queue)
	}
	done := mod.decide(held.ReviewID, "approve", "")
	if done.Type != "review" || done.Outcome != "accepted" || done.Seq == 0 || done.By != "mod" {
		t.Fatalf("approve: got %+v", done)
	}
	for name, c := range map[string]*caller{"the author": ann, "a member": bob} {
		m := c.await("the message", func(e event) bool { return e.Type == "message" })
		if m.Seq != done.Seq || m.Nonce != "n1" || m.From != "ann" || m.Text != "oh darn it" || m.ID != held.ReviewID {
			t.Errorf("%s got %+v, want ann's message with nonce n1", name, m)
		}
	}
	told := ann.await("the decision", func(e event) bool { return e.Type == "review" })
	if told.Outcome != "accepted" || told.Nonce != "n1" || told.By != nil || told.Text != "" {
		t.Errorf("the author was told %+v, want accepted, not by whom", told)
	}
	if again := ann.send("n1", "oh darn it"); again.Outcome != "accepted" || again.Seq != done.Seq || !again.Repeat {
		t.Errorf("resent after approval: got %+v, want the entry's seq", again)
	}
	if again := mod.decide(held.ReviewID, "approve", ""); again.Outcome != "accepted" {
		t.Errorf("the same decision again: got %+v, want the first answer", again)
	}
	checkError(t, mod.decide(held.ReviewID, "reject", ""), chat.CodeNoReview)
	checkError(t, mod.decide("made-up", "reject", ""), chat.CodeNoReview)
	for _, e := range bob.events() {
		if e.Type == "review" {
			t.Errorf("a member was told of a review: %+v", e)
		}
	}
	if n := len(w.messages("lobby")); n != 1 {
		t.Errorf("got %d messages, want 1", n)
	}
}

func TestHeldIsRejected(t *testing.T) {
	w := reviewWorld(t)
	ann, mod := w.user("ann"), w.user("mod", "moderator")
	defer ann.end()
	defer mod.end()
	mod.join("lobby")
	mod.do(`{"type":"reviews","room":"lobby"}`) // from now on it is told of changes
	held := ann.send("n1", "oh darn it")
	opened := mod.await("the new review", func(e event) bool { return e.Type == "review" && e.Outcome == "held" })
	if opened.ReviewID != held.ReviewID || opened.Text != "" || opened.From != "ann" {
		t.Errorf("the moderator was told %+v, want the review without its text", opened)
	}
	checkError(t, mod.decide(held.ReviewID, "reject", "\u200b"), chat.CodeBadRequest)
	if done := mod.decide(held.ReviewID, "reject", "not\nhere"); done.Outcome != "rejected" || done.Seq != 0 {
		t.Fatalf("reject: got %+v", done)
	}
	told := ann.await("the decision", func(e event) bool { return e.Type == "review" })
	if told.Outcome != "rejected" || len(told.Reasons) != 1 || told.Reasons[0].Text != "not here" || told.Reasons[0].Source != "moderator" {
		t.Errorf("the author was told %+v, want rejected and the reason", told)
	}
	own := ann.do(`{"type":"reviews","room":"lobby"}`)
	if len(own.Open) != 0 || len(own.Decided) != 1 || own.Decided[0].Text != "" || own.Decided[0].By != nil {
		t.Errorf("the author's list: got %+v, want the decision without text and name", own)
	}
	if again := ann.send("n1", "oh darn it"); again.Outcome != "rejected" || !again.Repeat || again.ReviewID != held.ReviewID {
		t.Errorf("resent: got %+v, want the decision", again)
	}
	if n := len(w.messages("lobby")); n != 0 {
		t.Errorf("got %d messages, want none", n)
	}
}

func TestDecisionsRace(t *testing.T) {
	w := reviewWorld(t)
	ann := w.user("ann")
	defer ann.end()
	held := ann.send("n1", "oh darn it")
	r := must(w.hub.Room(t.Context(), "lobby"))
	var wg sync.WaitGroup
	answers := make([]error, 8)
	for i := range answers {
		wg.Go(func() {
			_, _, answers[i] = w.srv.DecideReview(t.Context(), r, chat.MessageID(held.ReviewID), i%2 == 0, "", chat.UserID(fmt.Sprint("mod", i)))
		})
	}
	wg.Wait()
	won := 0
	for i, err := range answers {
		if err == nil {
			won++
		} else if e := new(chat.Error); !errors.As(err, &e) || e.Code != chat.CodeNoReview || !strings.Contains(e.Text, "already") {
			t.Errorf("moderator %d: got %v, want no_review and by whom it was decided", i, err)
		}
	}
	if won != 1 {
		t.Errorf("%d decisions counted, want 1", won)
	}
	if got := w.srv.stats.Approved.Load() + w.srv.stats.Rejected.Load(); got != 1 {
		t.Errorf("counted %d decisions, want 1", got)
	}
}

func TestAppealOnce(t *testing.T) {
	w := reviewWorld(t)
	ann, bob, mod := w.user("ann"), w.user("bob"), w.user("mod", "moderator")
	defer ann.end()
	defer bob.end()
	defer mod.end()
	refused := ann.send("n1", "damn town")
	checkError(t, refused, chat.CodeDenied)
	handle, _ := refused.Appeal.(string)
	if handle == "" {
		t.Fatalf("got %+v, want an appeal", refused)
	}
	appeal := func(c *caller, handle, room string) event {
		return c.do(`{"type":"appeal","room":%q,"appeal":%q,"reason":"it is a town"}`, room, handle)
	}
	checkError(t, appeal(bob, handle, "lobby"), chat.CodeNoAppeal)
	checkError(t, appeal(ann, "made-up", "lobby"), chat.CodeNoAppeal)
	checkError(t, appeal(ann, handle, "nowhere"), chat.CodeNoRoom)
	w.store.failing(journal.ErrUnavailable)
	checkError(t, appeal(ann, handle, "lobby"), chat.CodeUnavailable)
	w.store.failing(nil)
	ack := appeal(ann, handle, "lobby") // what failed may be tried again
	if ack.Outcome != "held" || ack.ReviewID == "" {
		t.Fatalf("appeal: got %+v, want an ack held", ack)
	}
	checkError(t, appeal(ann, handle, "lobby"), chat.CodeNoAppeal)
	again := ann.send("n1", "damn town") // the nonce is known by now
	if again.Outcome != "held" || !again.Repeat {
		t.Errorf("resent: got %+v, want held", again)
	}
	queue := mod.do(`{"type":"reviews","room":"lobby"}`)
	if len(queue.Open) != 1 || queue.Open[0].Appeal != true || queue.Open[0].Text != "damn town" {
		t.Fatalf("got %+v, want the appeal", queue)
	}
	reasons := queue.Open[0].Reasons
	if len(reasons) != 2 || reasons[0].Source != "plugin:bouncer" || reasons[1] != (chat.Reason{Code: "appeal", Text: "it is a town", Source: "author"}) {
		t.Errorf("got reasons %+v, want the plugin's and the author's", reasons)
	}
	mod.decide(ack.ReviewID, "approve", "")
	if got := w.messages("lobby"); len(got) != 1 || got[0] != "damn town" {
		t.Errorf("got messages %q, want the appealed one", got)
	}
	if s := w.srv.stats; s.Appeals.Load() != 1 || s.Held.Load() != 1 || s.Approved.Load() != 1 || s.Sent.Load() != 0 {
		t.Errorf("counted %d appeals, %d held, %d approved, %d sent", s.Appeals.Load(), s.Held.Load(), s.Approved.Load(), s.Sent.Load())
	}
}

// A failure of a plugin is not a judgement that could be appealed.
func TestFailureIsNoDenial(t *testing.T) {
	w := newWorld(t, nil)
	w.judge(says("broken", "darn", abi.Error))
	ann := w.user("ann")
	defer ann.end()
	if e := ann.send("n1", "darn"); e.Code != string(chat.CodePluginError) || e.Appeal != nil {
		t.Errorf("got %+v, want plugin_error without an appeal", e)
	}
}

func TestAppealsAreForgotten(t *testing.T) {
	var a appeals
	now := time.Now()
	d := func(text string) *denial {
		return &denial{room: "lobby", entry: journal.Entry{From: "ann", Text: text}, until: now.Add(appealTime)}
	}
	first := a.add(d("x"), now)
	if _, _, err := a.take(first, "lobby", "ann", now.Add(appealTime)); err == nil {
		t.Error("an appeal was taken after its time")
	}
	for range appealCount {
		a.add(d("x"), now)
	}
	if len(a.m) != appealCount || len(a.order) != appealCount {
		t.Errorf("got %d appeals, want %d", len(a.m), appealCount)
	}
	if _, _, err := a.take(first, "lobby", "ann", now); err == nil {
		t.Error("the oldest appeal did not make way")
	}
	a.add(d(strings.Repeat("x", appealBytes)), now)
	if len(a.m) != 1 || a.bytes != appealBytes {
		t.Errorf("got %d appeals of %d bytes, want the last alone", len(a.m), a.bytes)
	}
	a.add(d("y"), now.Add(2*appealTime))
	if len(a.m) != 1 || a.bytes != 1 {
		t.Errorf("got %d appeals of %d bytes, want the old one gone", len(a.m), a.bytes)
	}
}

func TestQueueIsBounded(t *testing.T) {
	w := reviewWorld(t)
	ann := w.user("ann")
	defer ann.end()
	for i := range journal.MaxOwnReviews {
		if e := ann.send(fmt.Sprint("n", i), "darn"); e.Outcome != "held" {
			t.Fatalf("message %d: got %+v", i, e)
		}
	}
	full := ann.send("one-more", "darn")
	checkError(t, full, chat.CodeQueueFull)
	if !full.Retryable || len(full.Reasons) == 0 {
		t.Errorf("got %+v, want it retryable, with the plugin's reason", full)
	}
	for u := 1; u*journal.MaxOwnReviews < journal.MaxReviews; u++ {
		c := w.user(chat.UserID(fmt.Sprint("user", u)))
		defer c.end()
		for i := range journal.MaxOwnReviews {
			c.send(fmt.Sprint("n", i), "darn")
		}
	}
	zoe := w.user("zoe")
	defer zoe.end()
	checkError(t, zoe.send("n", "darn"), chat.CodeQueueFull)
	if e := zoe.send("n", "hello"); e.Outcome != "accepted" {
		t.Errorf("the same nonce with another text: got %+v, want it posted", e)
	}
}

func TestReviewersAreForgotten(t *testing.T) {
	w := reviewWorld(t)
	ann, mod := w.user("ann"), w.user("mod", "moderator")
	defer ann.end()
	mod.join("lobby")
	mod.join("attic")
	mod.do(`{"type":"reviews","room":"lobby"}`)
	mod.do(`{"type":"reviews","room":"attic"}`)
	mod.do(`{"type":"leave","room":"attic"}`)
	if n := len(w.srv.reviewers.of("attic")); n != 0 {
		t.Errorf("%d look at a room they left, want none", n)
	}
	w.rule(gate.ModerateReview, no("x", "not any more"))
	ann.send("n1", "darn")
	// A second change is told in a goroutine too; it is here when the first is.
	deadline := time.Now().Add(30 * time.Second)
	for len(w.srv.reviewers.of("lobby")) > 0 && time.Now().Before(deadline) {
		w.srv.reviewed("lobby", &journal.Review{})
	}
	if n := len(w.srv.reviewers.of("lobby")); n != 0 {
		t.Errorf("%d look at the queue who may not any more, want none", n)
	}
	w.onlyMods()
	mod.do(`{"type":"reviews","room":"lobby"}`)
	mod.end()
	if n := len(w.srv.reviewers.of("lobby")); n != 0 {
		t.Errorf("%d look at the queue after their end, want none", n)
	}
}

// keeper is an Evidence that keeps in memory.
type keeper struct {
	mu     sync.Mutex
	judged int
	kept   []evidence.Record
	noted  []evidence.Note
	erased []evidence.Selection
}

func (k *keeper) EraseMessages(ids []chat.MessageID) (int, error) {
	for _, id := range ids {
		if _, err := k.Erase(evidence.Selection{ID: id}); err != nil {
			return 0, err
		}
	}
	return len(ids), nil
}

func (k *keeper) Erase(s evidence.Selection) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.erased = append(k.erased, s)
	return 1, nil
}
func (k *keeper) Judged() { k.mu.Lock(); k.judged++; k.mu.Unlock() }

func (k *keeper) Keep(r evidence.Record) { k.mu.Lock(); k.kept = append(k.kept, r); k.mu.Unlock() }

func (k *keeper) Note(n evidence.Note) { k.mu.Lock(); k.noted = append(k.noted, n); k.mu.Unlock() }

func TestEvidenceIsKept(t *testing.T) {
	w := reviewWorld(t)
	k := new(keeper)
	w.srv.d.Evidence = k
	cfg := moderation.Defaults()
	cfg.Keep = evidence.KeepFlagged.Wants
	stage := must(moderation.New(cfg, w))
	w.srv.d.Stage = stage
	ann := w.user("ann", "member")
	defer ann.end()
	ann.send("n1", "hello")
	held := ann.send("n2", "oh darn it")
	ann.send("n3", "damn")
	if k.judged != 3 || len(k.kept) != 2 {
		t.Fatalf("got %d judged, %d kept, want 3 and 2", k.judged, len(k.kept))
	}
	if len(k.noted) != 3 || k.noted[0].Message.Text != "hello" || k.noted[0].Policy != "test:1" || len(k.noted[0].Result.Records) != 2 || k.noted[2].Result.Verdict != abi.Deny {
		t.Errorf("got notes %+v, want one for each message", k.noted)
	}
	r := k.kept[0]
	if string(r.ID) != held.ReviewID || r.Verdict != "hold" || r.Policy != "test:1" || r.User != "ann" || len(r.Plugins) != 2 {
		t.Errorf("got %+v, want the held message", r.Decision)
	}
	if text := must(abi.FieldBytes(r.Input, abi.FieldText)); string(text) != "oh darn it" {
		t.Errorf("got the text %q in the input", text)
	}
	open, _, err := w.store.Reviews(context.Background(), "lobby")
	if err != nil || len(open) != 1 || open[0].Record != r.Digest() {
		t.Errorf("got reviews %+v, %v, want one that names the record %s", open, err, r.Digest())
	}
	if again := must(stage.Replay(t.Context(), &r.Decision, r.Input)); !again.Equal {
		t.Errorf("replay: got %+v, want the same", again)
	}
}
