package admin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/evidence"
	"parley/core/journal"
	"parley/core/moderation"
	"parley/sdk/abi"
)

// replays is a Replayer that answers what a test sets.
type replays struct {
	says  moderation.Replay
	err   error
	input []byte // of the last one
}

// Input implements Replayer.
func (r *replays) Input(m *moderation.Message) ([]byte, error) {
	return abi.AppendInput(nil, &abi.Input{Text: []byte(m.Text), User: string(m.User), Roles: strings.Join(m.Roles, "\n"), Signals: m.Signals}), nil
}

func (r *replays) Replay(_ context.Context, _ *moderation.Decision, input []byte) (moderation.Replay, error) {
	r.input = input
	return r.says, r.err
}

// hold puts a message in the lobby's queue and returns its id.
func (n *node) hold(nonce, text string) string {
	n.t.Helper()
	rm := must(n.hub.Room(n.t.Context(), "lobby"))
	e := journal.Entry{ID: chat.MessageID("id-" + nonce), Kind: journal.KindMessage, From: "ann", Time: 5, Nonce: nonce, Text: text, Outcome: chat.Held}
	if _, err := rm.Review(n.t.Context(), e, &journal.Review{Entry: e, Record: "d1"}, nil); err != nil {
		n.t.Fatal(err)
	}
	return string(e.ID)
}

// private paths need the token on loopback too.
func TestPrivatePaths(t *testing.T) {
	n := start(t)
	for _, r := range []request{
		{method: "GET", path: "/v1/reviews?room=lobby"}, {method: "POST", path: "/v1/reviews/x", body: "{}"},
		{method: "GET", path: "/v1/evidence"}, {method: "GET", path: "/v1/explain/x"}, {method: "GET", path: "/v1/why?room=lobby&user=ann"}, {method: "DELETE", path: "/v1/evidence/x"},
		{method: "POST", path: "/v1/erase", body: "{}"}, {method: "GET", path: "/v1/backup"}, {method: "POST", path: "/v1/restore", body: "x"},
	} {
		r.open = true
		n.refused(r, 401, "unauthorized", "token")
	}
}

func TestReviews(t *testing.T) {
	n := start(t)
	n.ok(request{method: "PUT", path: "/v1/rooms/lobby", body: "{}"}, 201, nil)
	one, two, three := n.hold("n1", "first"), n.hold("n2", "second"), n.hold("n3", "third")
	var got Reviews
	n.ok(request{method: "GET", path: "/v1/reviews?room=lobby"}, 200, &got)
	if len(got.Open) != 3 || got.Open[0].Text != "first" || got.Open[0].Record != "d1" || len(got.Decided) != 0 {
		t.Fatalf("got %+v, want three open reviews", got)
	}
	var done Decided
	n.ok(request{method: "POST", path: "/v1/reviews/" + one, body: `{"room":"lobby","action":"approve"}`}, 200, &done)
	if done.Outcome != chat.Accepted || done.Seq != 2 || done.By != "admin" {
		t.Errorf("approve: got %+v", done)
	}
	n.ok(request{method: "POST", path: "/v1/reviews/" + two, body: `{"room":"lobby","action":"reject","reason":"no"}`, headers: map[string]string{"X-Parley-User": "mia"}}, 200, &done)
	if done.Outcome != chat.Rejected || done.By != "mia" || done.Reasons[0].Text != "no" {
		t.Errorf("reject: got %+v", done)
	}
	n.refused(request{method: "POST", path: "/v1/reviews/" + two, body: `{"room":"lobby","action":"approve"}`}, 404, "no_review", "mia has rejected")
	n.ok(request{method: "GET", path: "/v1/reviews?room=lobby"}, 200, &got)
	if len(got.Open) != 1 || len(got.Decided) != 2 || got.Decided[0].Text != "" {
		t.Errorf("got %+v, want one open and two decided without texts", got)
	}
	for body, text := range map[string]string{
		`{"room":"Lobby","action":"approve"}`:                                            "room",
		`{"room":"lobby","action":"delete"}`:                                             "approve, reject",
		`{"room":"lobby","action":"reject","reason":"` + strings.Repeat("x", 501) + `"}`: "501 bytes",
		`{"room":"lobby","action":"reject","reason":"` + "\u200b" + `"}`:                 "empty",
		`{"room":"lobby","action":"reject","why":"x"}`:                                   "why",
	} {
		n.refused(request{method: "POST", path: "/v1/reviews/" + three, body: body}, 400, "bad_request", text)
	}
	n.refused(request{method: "POST", path: "/v1/reviews/" + three, body: `{"room":"lobby","action":"approve"}`, headers: map[string]string{"X-Parley-User": "a b"}}, 400, "bad_request", "user name")
	n.refused(request{method: "GET", path: "/v1/reviews"}, 400, "bad_request", "name a room")
	n.refused(request{method: "POST", path: "/v1/reviews/x", body: `{"room":"nowhere","action":"approve"}`}, 404, "no_review", "")
	if err := n.journal.Close(); err != nil {
		t.Fatal(err)
	}
	n.refused(request{method: "GET", path: "/v1/reviews?room=lobby"}, 503, "unavailable", "")
	n.refused(request{method: "POST", path: "/v1/reviews/" + three, body: `{"room":"lobby","action":"approve"}`}, 503, "unavailable", "")
}

func TestEvidence(t *testing.T) {
	n := start(t)
	now := time.Now().UnixMilli()
	for i, room := range []chat.RoomID{"lobby", "attic", "lobby"} {
		n.records.Keep(evidence.Record{Input: abi.AppendInput(nil, &abi.Input{Text: []byte("hello")}), Decision: moderation.Decision{
			ID: chat.MessageID(fmt.Sprint("id-", i)), Room: room, User: "ann", Time: now + int64(i), Verdict: "deny",
			Plugins: []moderation.Vote{{Name: "p", Digest: "d", Verdict: "deny", Fuel: 7}}}})
	}
	var page EvidencePage
	n.ok(request{method: "GET", path: "/v1/evidence?room=lobby&limit=1"}, 200, &page)
	if len(page.Records) != 1 || page.Records[0].ID != "id-0" || page.Next == "" || page.Records[0].Plugins[0].Fuel != 7 || len(page.Records[0].Input) == 0 {
		t.Fatalf("first page: got %+v", page)
	}
	page2 := EvidencePage{}
	n.ok(request{method: "GET", path: "/v1/evidence?room=lobby&after=" + page.Next}, 200, &page2)
	if len(page2.Records) != 1 || page2.Records[0].ID != "id-2" || page2.Next != "" {
		t.Errorf("second page: got %+v", page2)
	}
	n.ok(request{method: "GET", path: fmt.Sprintf("/v1/evidence?since=%d", now+3)}, 200, &page2)
	if page2.Records == nil || len(page2.Records) != 0 {
		t.Errorf("since later: got %+v, want an empty list", page2)
	}
	for path, text := range map[string]string{"?since=x": "milliseconds", "?since=-1": "milliseconds", "?limit=0": "limit", "?limit=1001": "limit", "?room=A": "room name", "?after=%25": "cursor"} {
		n.refused(request{method: "GET", path: "/v1/evidence" + path}, 400, "bad_request", text)
	}
	n.replay.says = moderation.Replay{Verdict: "deny", Equal: true}
	var e Explanation
	n.ok(request{method: "GET", path: "/v1/explain/id-0"}, 200, &e)
	if e.Record.ID != "id-0" || !e.Replayed.Equal || e.Digest != page.Records[0].Digest() {
		t.Errorf("explain: got %+v", e)
	}
	n.replay.err = errors.New("the input is broken")
	n.refused(request{method: "GET", path: "/v1/explain/id-0"}, 503, "unavailable", "broken")
	n.refused(request{method: "GET", path: "/v1/explain/none"}, 404, "no_evidence", "posted at another node")
	n.refused(request{method: "DELETE", path: "/v1/evidence/none"}, 404, "no_evidence", "")
	n.refused(request{method: "DELETE", path: "/v1/evidence"}, 400, "bad_request", "what to erase")
	n.ok(request{method: "DELETE", path: "/v1/evidence/id-0"}, 200, nil)
	var erased struct{ Erased int }
	n.ok(request{method: "DELETE", path: "/v1/evidence?user=ann&room=lobby"}, 200, &erased)
	if erased.Erased != 1 {
		t.Errorf("erased %d, want 1", erased.Erased)
	}
	n.api.d.Evidence = nil
	n.refused(request{method: "GET", path: "/v1/evidence"}, 404, "no_evidence", "evidence.keep is none")
}
