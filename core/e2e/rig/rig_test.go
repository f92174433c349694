package rig

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/checker"
	"parley/core/client"
)

func TestMain(m *testing.M) { os.Exit(Suite{}.Main(m)) }

// TestACrowdGoesThroughAKill uses everything the rig has on one node.
func TestACrowdGoesThroughAKill(t *testing.T) {
	key := filepath.Join(t.TempDir(), "jwt.key")
	Token(t, key, "judge") // makes the key
	n := Start(t, Unlimited(Settings{"auth.jwt.key_file": key}))
	if out, code := n.Platform("check"); code != 0 {
		t.Errorf("platform check: exit code %d: %s", code, out)
	}
	if out, code := n.Bare("no-such-command"); code == 0 {
		t.Errorf("an unknown command succeeded: %s", out)
	}
	c := NewCrowd(t, "lobby", "kitchen")
	c.GiveUp = Patience / 2
	for i := range 4 {
		c.Add("client", client.ResilientOptions{Options: client.Options{URL: n.URL(i), Token: Token(t, key, chat.UserID("user"+string(rune('a'+i))))}})
	}
	c.Joined()
	c.Talk(2, 10*time.Millisecond)
	c.More(20)
	c.Midway()
	n.Kill()
	n.Launch()
	n.Ready()
	c.More(20)
	c.Abreast()
	c.Hush()
	acked := c.Acked()
	rep := c.Settle(client.Options{URL: n.TCPURL(), Guest: "judge"}, func(run *checker.Run) { run.Keep = 3 })
	if rep.Acked != acked || acked < 40 || rep.Clients != 4 {
		t.Errorf("got %d acked of %d clients, the crowd counted %d, want 40 or more of 4", rep.Acked, rep.Clients, acked)
	}
	ended := 0
	for _, m := range c.Members() {
		ended += m.Ended()
	}
	if ended < 4 {
		t.Errorf("%d connections ended, want one of each client at least", ended)
	}
	if n.Metric("parley_no_such_series") != 0 || n.Metric("parley_messages_total") < 20 {
		t.Error("the metrics do not say what happened")
	}
	if s := Status[map[string]any](n, "/v1/status"); len(s) == 0 {
		t.Error("the status is empty")
	}
	n.Logs("ready in")
	if !strings.Contains(n.Out.String(), "ready in") {
		t.Error("the log does not say that the node is ready")
	}
	n.Stop()
	if code, _ := n.Get("/healthz"); code != 0 {
		t.Errorf("a stopped node answered with status %d", code)
	}
}

// TestACrowdCountsWhatItIsTold hands over answers that ask for another try.
func TestACrowdCountsWhatItIsTold(t *testing.T) {
	c := NewCrowd(t)
	for _, err := range []error{nil, client.ErrClosed, &chat.Error{Code: chat.CodeUnavailable}, &chat.Error{Code: chat.CodeUnavailable}} {
		c.told(err)
	}
	if c.Told(chat.CodeUnavailable) != 2 || c.Told(chat.CodeOverloaded) != 0 || c.Resent() != 3 {
		t.Errorf("got %d unavailable and %d overloaded, %d resent, want 2, 0 and 3", c.Told(chat.CodeUnavailable), c.Told(chat.CodeOverloaded), c.Resent())
	}
}

func TestATailKeepsTheLastLines(t *testing.T) {
	var tail Tail
	for range tailLines {
		tail.Add("old")
	}
	tail.Add("new")
	if !tail.Has("new") || strings.Count(tail.String(), "\n") != tailLines-1 {
		t.Errorf("got %d lines, want the last %d", strings.Count(tail.String(), "\n")+1, tailLines)
	}
}

func TestPortsAreGivenOnce(t *testing.T) {
	seen := make(map[string]bool)
	for range 20 {
		for _, addr := range FreePorts(t, 3) {
			if seen[addr] {
				t.Fatalf("%s was given twice", addr)
			}
			seen[addr] = true
		}
	}
}
