package e2e

import (
	"net/http"
	"strings"
	"testing"

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
		out, code := n.Platform("explain", id)
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
