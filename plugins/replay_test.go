package plugins_test

import (
	"strings"
	"testing"

	"parley/core/moderation"
	"parley/plugins"
	"parley/sdk/abi"
)

// A decision is explained by the very version that made it, also when that was
// replaced, and when two versions of one name judged.
func TestReplayByTheVersionThatJudged(t *testing.T) {
	w := newWorld(t)
	w.drop(version("v1", abi.Flag), "")
	w.drop(version("v2", abi.Deny), `{"rollout":{"stage":"shadow"}}`)
	cfg := moderation.Defaults()
	cfg.Keep = func(abi.Verdict) bool { return true }
	stage, err := moderation.New(cfg, w.Catalog)
	if err != nil {
		t.Fatal(err)
	}
	m := moderation.Message{Room: "lobby", User: "ann", Roles: []string{"b", "a"}, Kind: "message", Text: "Hello", TimeMS: 7, Signals: abi.Signals{Repeats: 2}}
	res, err := stage.Judge(t.Context(), &m, nil)
	if err != nil || len(res.Records) != 2 {
		t.Fatalf("got %+v, %v, want both versions asked", res.Records, err)
	}
	d := moderation.NewDecision("id", &m, &res, "policy")
	input, err := stage.Input(&m)
	if err != nil || string(input) != string(res.Input) {
		t.Errorf("got the input %q, %v, want what the plugins saw, %q", input, err, res.Input)
	}
	w.mustOrder(plugins.Order{Action: "rollback"})
	w.drop(version("v3", abi.Hold), "")
	for range 2 {
		before := w.status()
		r, err := stage.Replay(t.Context(), d, input)
		if err != nil || !r.Equal || r.Verdict != "flag" || len(r.Plugins) != 2 || r.Plugins[0].Verdict != "flag" || r.Plugins[1].Verdict != "deny" || r.Plugins[1].Part != "shadow" {
			t.Fatalf("got %+v, %v, want what the two versions said", r, err)
		}
		if now := w.status(); now.Decisions != before.Decisions {
			t.Error("the version in force was asked")
		}
		w.restart()
		if stage, err = moderation.New(cfg, w.Catalog); err != nil {
			t.Fatal(err)
		}
	}
	d.Plugins[0].Config = strings.Repeat("0", 64)
	if r, err := stage.Replay(t.Context(), d, input); err != nil || r.Equal || len(r.Missing) != 1 || !strings.Contains(r.Missing[0], "p (module") {
		t.Errorf("got %+v, %v, want the version that never was named", r, err)
	}
}
