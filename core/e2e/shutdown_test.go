package e2e

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"

	"parley/core/client"
	"parley/core/wire"
)

// TestSIGTERMTellsEveryoneAndLosesNothing drains a node with clients on both
// transports.
func TestSIGTERMTellsEveryoneAndLosesNothing(t *testing.T) {
	t.Parallel()
	n := startNode(t, nil)
	ann := visit(t, client.Options{URL: n.WSURL(), Guest: "ann"})
	bob := visit(t, client.Options{URL: n.TCPURL(), Guest: "bob"})
	early, err := tryVisit(t, client.Options{URL: n.WSURL(), SkipHello: true}) // has not said hello
	if err != nil {
		t.Fatal(err)
	}
	ann.enters("lobby")
	bob.enters("lobby")
	ack, _ := ann.says("lobby", "remember this")
	n.Signal(syscall.SIGTERM)
	for name, v := range map[string]*visitor{"ws": ann, "tcp": bob, "before hello": early} {
		ce := v.closed()
		if ce.Code != wire.CloseRestart || !ce.Code.Reconnect() {
			t.Errorf("%s: closed with %v, want code %d", name, ce, wire.CloseRestart)
		}
	}
	if code := n.Ended(); code != 0 {
		t.Errorf("exit code: got %d, want 0", code)
	}
	if _, err := client.Dial(within(t), client.Options{URL: n.TCPURL()}); err == nil {
		t.Error("the stopped server takes connections")
	}

	n.Start()
	carol := visit(t, client.Options{URL: n.WSURL(), Guest: "carol"})
	h, err := carol.History(within(t), "lobby", 0, ack.Seq-1, 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(h.Entries) != 1 || h.Entries[0].ID != ack.MessageID || h.Entries[0].Text != "remember this" || h.Epoch != ack.Epoch {
		t.Errorf("after the restart: got %+v, want the acknowledged message %+v", h, ack)
	}
	n.Stop()
}

// TestASecondSIGTERMEndsAtOnce holds the shutdown with a CPU profile that an
// operator takes, for longer than the test waits.
func TestASecondSIGTERMEndsAtOnce(t *testing.T) {
	t.Parallel()
	n := startNode(t, settings{"shutdown.drain": "10m", "shutdown.reconnect_jitter": "10m"})
	ann := visit(t, client.Options{URL: n.WSURL(), Guest: "ann"})
	profile, err := net.Dial("tcp", n.Admin)
	if err != nil {
		t.Fatal(err)
	}
	defer profile.Close()
	if _, err := fmt.Fprintf(profile, "GET /debug/pprof/profile?seconds=500 HTTP/1.1\r\nHost: %s\r\n\r\n", n.Admin); err != nil {
		t.Fatal(err)
	}
	await(t, "the profile has begun", func() bool {
		_, stacks := n.Get("/debug/pprof/goroutine?debug=1")
		return strings.Contains(stacks, "pprof.Profile+")
	})
	n.Signal(syscall.SIGTERM)
	_ = ann.closed() // it drains
	n.Signal(syscall.SIGTERM)
	if code := n.Ended(); code != -1 {
		t.Errorf("exit code: got %d, want -1: the second SIGTERM is to end the process", code)
	}
}
