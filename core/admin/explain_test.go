package admin

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/evidence"
	"parley/core/journal"
	"parley/core/moderation"
	"parley/sdk/abi"
)

// post puts messages in the lobby's log, of which only the decision is kept.
func (n *node) post(at int64, id, text, judged string, verdict abi.Verdict) {
	n.t.Helper()
	rm := must(n.hub.Room(n.t.Context(), "lobby"))
	e := journal.Entry{ID: chat.MessageID(id), Kind: journal.KindMessage, From: "ann", Time: at, Nonce: id, Text: text, Outcome: chat.Accepted}
	if text != "" {
		if _, err := rm.Append(n.t.Context(), e, false); err != nil {
			n.t.Fatal(err)
		}
	}
	n.records.Note(evidence.Note{ID: e.ID, Policy: "git:1",
		Message: moderation.Message{Room: "lobby", User: "ann", Roles: []string{"member"}, Kind: "message", Text: judged, TimeMS: at, Signals: abi.Signals{RecentPerMinute: 4}},
		Result:  moderation.Result{Verdict: verdict, Records: []moderation.Record{{Plugin: "p", Digest: "d", Verdict: verdict, Fuel: 3}}}})
}

// What was let pass has a record too, and its text is in the room's history.
func TestExplainFromHistory(t *testing.T) {
	n := start(t)
	now := time.Now().UnixMilli()
	for i := range int64(300) { // over more than one read
		n.post(now-300_000+1000*i, fmt.Sprint("id-", i), fmt.Sprint("hello ", i), fmt.Sprint("hello ", i), abi.Allow)
	}
	n.post(now-200_000, "late", "approved later", "approved later", abi.Hold) // its time is not in order
	n.post(now, "masked", "a ***", "a bad", abi.Redact)
	n.post(now, "denied", "", "bad", abi.Deny)
	n.post(now, "gone", "", "too old for the room", abi.Allow)
	n.replay.says = moderation.Replay{Verdict: "allow", Equal: true}
	for id, text := range map[string]string{"id-0": "hello 0", "id-123": "hello 123", "id-299": "hello 299", "late": "approved later"} {
		var e Explanation
		n.ok(request{method: "GET", path: "/v1/explain/" + id}, 200, &e)
		if string(e.Record.ID) != id || e.From != "history" || e.NotReplayed != "" || !e.Replayed.Equal || e.Digest != e.Record.Digest() {
			t.Errorf("%s: got %+v", id, e)
		}
		if got := must(abi.FieldBytes(n.replay.input, abi.FieldText)); string(got) != text {
			t.Errorf("%s: replayed with %q, want %q", id, got, text)
		}
		if got := must(abi.FieldBytes(n.replay.input, abi.FieldSignals)); len(got) == 0 || got[0] != 4 {
			t.Errorf("%s: replayed with the signals %v, want those on record", id, got)
		}
	}
	for id, why := range map[string]string{"masked": "is not what was judged", "denied": "not posted", "gone": "not in the room's history"} {
		var e Explanation
		n.ok(request{method: "GET", path: "/v1/explain/" + id}, 200, &e)
		if e.From != "" || !strings.Contains(e.NotReplayed, why) || len(e.Record.Plugins) != 1 || e.Record.Text == "" || len(e.Record.Input) != 0 {
			t.Errorf("%s: got %+v, want the record alone, because %s", id, e, why)
		}
	}
	n.records.Keep(evidence.Record{Decision: moderation.Decision{ID: "bare", Room: "lobby", User: "ann", Time: now, Verdict: "allow"}})
	var e Explanation
	if n.ok(request{method: "GET", path: "/v1/explain/bare"}, 200, &e); !strings.Contains(e.NotReplayed, "neither") {
		t.Errorf("got %+v of a record without anything", e)
	}
	if err := n.journal.Close(); err != nil {
		t.Fatal(err)
	}
	n.refused(request{method: "GET", path: "/v1/explain/id-1"}, 503, "unavailable", "")
}

// Who erased something is in the log: no more than a user name may be.
func TestWhoErasesIsAUser(t *testing.T) {
	var log strings.Builder
	n := start(t, func(d *Deps) { d.Log = textLog(&log) })
	n.post(time.Now().UnixMilli(), "id-1", "", "hello", abi.Deny)
	for _, bad := range []string{"a b", strings.Repeat("x", 4000), "evil by=root"} {
		n.refused(request{method: "DELETE", path: "/v1/evidence/id-1", headers: map[string]string{"X-Parley-User": bad}}, 400, "bad_request", "user name")
	}
	n.ok(request{method: "DELETE", path: "/v1/evidence/id-1", headers: map[string]string{"X-Parley-User": "olga"}}, 200, nil)
	if !strings.Contains(log.String(), "by=olga") || strings.Contains(log.String(), "evil") {
		t.Errorf("the log says %s", log.String())
	}
}

func textLog(to *strings.Builder) *slog.Logger { return slog.New(slog.NewTextHandler(to, nil)) }
