package e2e

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"parley/core/chat"
	"parley/core/client"
	"parley/core/wire"
)

// TestWhyCanIPost asks a running server by all three ways: the protocol, the
// admin API and the command line, with plugins in WebAssembly, and finds that
// nothing was left behind.
func TestWhyCanIPost(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "jwt.key")
	moderator, member := token(t, key, "mia", "moderator"), token(t, key, "ann")
	n := startNode(t, unlimited(settings{"plugins.dir": verdictPlugins(t), "auth.jwt.key_file": key}))
	await(t, "the plugins are active", func() bool {
		return pluginOf(n, "careful").State == "active" && pluginOf(n, "strict").State == "active"
	})
	mia := visit(t, client.Options{URL: n.WSURL(), Token: moderator})
	ann := visit(t, client.Options{URL: n.TCPURL(), Token: member})
	for _, room := range []chat.RoomID{"lobby", "careful", "strict"} {
		mia.enters(room)
	}
	decided := n.Metric(`parley_policy_decisions_total{from="cache"}`) + n.Metric(`parley_policy_decisions_total{from="evaluation"}`)
	of := func(room chat.RoomID, text string) *wire.WhyEvent {
		t.Helper()
		ev, err := ann.Why(within(t), room, "", text)
		if err != nil {
			t.Fatal(err)
		}
		return ev
	}
	if ev := of("lobby", "hello"); !ev.May || ev.Outcome != chat.Accepted || len(ev.Blocks) != 0 {
		t.Errorf("lobby: got %+v", ev)
	}
	if ev := of("careful", "hello"); !ev.May || ev.Outcome != chat.Held || ev.Blocks[0].Text != "Somebody should look at this." {
		t.Errorf("careful: got %+v", ev)
	}
	if ev := of("strict", "hello"); ev.May || ev.Blocks[0].By != wire.ByPlugin || ev.Blocks[0].Source != "plugin:strict" || ev.Blocks[0].Plugin != nil {
		t.Errorf("strict: got %+v", ev)
	}
	if ev := of("strict", ""); !ev.May {
		t.Errorf("without a text no plugin is asked: got %+v", ev)
	}
	if ev, err := mia.Why(within(t), "strict", "", "hello"); err != nil || !strings.HasPrefix(ev.Revision, "default:") || ev.Blocks[0].Plugin == nil || ev.Blocks[0].Plugin.Version != "1.0" {
		t.Errorf("a moderator: got %+v, %v", ev, err)
	}
	if got := n.Metric(`parley_policy_decisions_total{from="cache"}`) + n.Metric(`parley_policy_decisions_total{from="evaluation"}`); got != decided {
		t.Errorf("the policy counts %v decisions, before the questions it was %v", got, decided)
	}
	if got := pluginOf(n, "strict").Decisions; got != 0 {
		t.Errorf("the plugin counts %d decisions", got)
	}
	if open := waiting(n, "careful"); len(open) != 0 {
		t.Errorf("questions wait for review: %+v", open)
	}

	if said := refusal(t, second(ann.Why(within(t), "lobby", "mia", ""))); said.Code != chat.CodeDenied || said.Decision == "" {
		t.Errorf("ann about mia: got %+v", said)
	}
	if _, err := mia.Mute(within(t), "lobby", client.NewNonce(), "ann", 600, "too many capitals"); err != nil {
		t.Fatal(err)
	}
	ev, err := mia.Why(within(t), "lobby", "ann", "")
	if err != nil || ev.May || ev.Blocks[0].Code != "muted" || ev.Blocks[0].UntilTS == 0 || ev.Blocks[0].Rule == nil {
		t.Fatalf("mia about ann: got %+v, %v", ev, err)
	}
	if again := status[wire.WhyEvent](n, "/v1/why?room=lobby&user=ann"); again.Blocks[0].Code != "muted" || *again.Blocks[0].Rule != *ev.Blocks[0].Rule {
		t.Errorf("the admin API: got %+v, want %+v", again, ev)
	}
	out, code := n.Bare("why", "--room", "lobby", "--user", "ann", "--text", "hello", "--admin", n.Admin, "--data-dir", n.Data())
	for _, want := range []string{"ann may not post in lobby (policy default:", "policy muted: ", "parley.rego:", "until    20", "It ends with the mute"} {
		if !strings.Contains(out, want) || code != 1 {
			t.Errorf("platform why: exit %d, want %q in it:\n%s", code, want, out)
		}
	}
	out, code = n.Bare("why", "--room", "strict", "--user", "ann", "--text", "hello", "--admin", n.Admin, "--data-dir", n.Data())
	if code != 1 || !strings.Contains(out, "plugin   strict 1.0 (module ") {
		t.Errorf("platform why of a plugin: exit %d:\n%s", code, out)
	}
	out, code = n.Bare("why", "--room", "careful", "--user", "ann", "--text", "hello", "--admin", n.Admin, "--data-dir", n.Data())
	if code != 0 || !strings.Contains(out, "may post, and this would be held") {
		t.Errorf("platform why of what is held: exit %d:\n%s", code, out)
	}
	if out, code = n.Bare("why", "--room", "lobby", "--user", "nobody", "--admin", n.Admin, "--data-dir", n.Data(), "--json"); code != 0 || !strings.Contains(out, `"note": "nobody is not connected`) {
		t.Errorf("platform why --json: exit %d:\n%s", code, out)
	}
	if code, body := n.Ask(http.MethodGet, "/v1/why?room=nowhere&user=ann", nil); code != http.StatusNotFound || !strings.Contains(body, "no_room") {
		t.Errorf("of no room: got %d %s", code, body)
	}
	n.Stop()
}
