package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"parley/core/chat"
	"parley/core/client"
	"parley/sdk/abi"
)

// TestAnAllowedMessageIsExplained asks why a message was let pass, of which no
// original is kept: by the version that judged it, after that was replaced and
// after a restart.
func TestAnAllowedMessageIsExplained(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := startNode(t, unlimited(settings{"plugins.dir": dir, "evidence.keep": "none"}))
	drop(n, dir, constantModule(abi.Allow, ""), map[string]any{"version": "1"})
	await(t, "v1 is in force", func() bool { return pluginOf(n, "p").Version == "1" })
	ann := visit(t, client.Options{URL: n.WSURL(), Guest: "ann"})
	ann.enters("lobby")
	ack, err := ann.Send(within(t), "lobby", "n1", "nothing wrong with this")
	if err != nil || ack.Seq == 0 {
		t.Fatalf("got %+v, %v, want it posted", ack, err)
	}
	id := string(ack.MessageID)
	says := func(when string, lines ...string) {
		t.Helper()
		out, code := n.Bare(adminArgs(n, "explain", id)...)
		for _, want := range append(lines, id, `"nothing wrong with this" (from the room's history`, "allow", "the same in every part") {
			if code != 0 || !strings.Contains(out, want) {
				t.Errorf("%s: got exit %d, want %q in it:\n%s", when, code, want, out)
			}
		}
	}
	says("while it is in force")
	drop(n, dir, constantModule(abi.Deny, "says v2"), map[string]any{"version": "2"})
	await(t, "v2 is in force", func() bool { return pluginOf(n, "p").Version == "2" })
	says("after it was replaced")
	n.Stop()
	n.Start()
	says("after a restart")
	ann = visit(t, client.Options{URL: n.WSURL(), Guest: "bob"})
	if _, err := ann.Send(within(t), "lobby", "n2", "not this"); err == nil {
		t.Error("v2 let a message pass")
	}
	if got := n.Metric("parley_decisions_records"); got < 1 {
		t.Errorf("the metric says that %v decisions are on record", got)
	}
	if code, body := n.Ask(http.MethodDelete, "/v1/evidence?user=ann", nil); code != http.StatusOK || !strings.Contains(body, `"erased": 1`) {
		t.Errorf("erase: got %d %s", code, body)
	}
	if code, _ := n.Get("/v1/explain/" + id); code != http.StatusNotFound {
		t.Errorf("explain of what was erased: got %d, want 404", code)
	}
}

// TestWhatNobodyJudgedIsSaidToBeSo posts where the only plugin is not asked, and on a
// node without plugins.
func TestWhatNobodyJudgedIsSaidToBeSo(t *testing.T) {
	t.Parallel()
	dir, rules := t.TempDir(), t.TempDir()
	policy := `package parley
default decision := {"allow": true}
decision := {"allow": true, "obligations": {"plugins": []}} if { input.action.name == "message.send"; input.resource.id == "free" }`
	if err := os.WriteFile(filepath.Join(rules, "p.rego"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	n := startNode(t, unlimited(settings{"plugins.dir": dir, "policy.dir": rules}))
	ann := visit(t, client.Options{URL: n.WSURL(), Guest: "ann"})
	say := func(room chat.RoomID) string {
		t.Helper()
		ann.enters(room)
		ack, err := ann.Send(within(t), room, client.NewNonce(), "words")
		if err != nil {
			t.Fatal(err)
		}
		return string(ack.MessageID)
	}
	before := say("other")
	drop(n, dir, constantModule(abi.Allow, ""), map[string]any{"version": "1", "rooms": []string{"lobby"}})
	await(t, "it is in force", func() bool { return pluginOf(n, "p").Version == "1" })
	for room, want := range map[chat.RoomID]string{
		"other": "Not judged: no plugin judged it: none of the 1 was for this room",
		"free":  "Not judged: no plugin judged it: the policy wanted none of the 1 to",
		"lobby": "the same in every part",
	} {
		id := say(room)
		out, code := n.Bare(adminArgs(n, "explain", id)...)
		if code != 0 || !strings.Contains(out, want) || !strings.Contains(out, `"words" (from the room's history`) {
			t.Errorf("%s: got exit %d, want %q in it:\n%s", room, code, want, out)
		}
	}
	out, code := n.Bare(adminArgs(n, "explain", before)...)
	if code != 1 || !strings.Contains(out, "while this node had no plugins, so that none judged it") {
		t.Errorf("before there were plugins: got exit %d: %s", code, out)
	}
	if judged := n.Metric("parley_evidence_judged_total"); judged > 1 {
		t.Errorf("%v messages count as judged, want the one in the lobby", judged)
	}
}
