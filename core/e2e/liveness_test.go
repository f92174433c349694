package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"parley/core/client"
)

// deaths adds up the connections a node took for dead.
func deaths(n *node) (sum float64) {
	for _, evidence := range []string{"path_dead", "path_stalled", "frozen", "no_pong", "keepalive", "kernel_timeout"} {
		sum += n.Metric(`parley_dead_connections_total{evidence="` + evidence + `"}`)
	}
	return sum
}

// A program that stops while its kernel goes on is found, the evidence is
// named, and until then the operator can see its connection.
func TestFrozenProgramIsFoundAndNamed(t *testing.T) {
	for name, park := range map[string]bool{"goroutines": false, "parked": true} {
		t.Run(name, func(t *testing.T) { frozenProgram(t, settings{"liveness.ping": "4s", "transport.parking": park}) })
	}
}

func frozenProgram(t *testing.T, extra settings) {
	n := startNode(t, extra)
	c, err := net.Dial("tcp", n.TCP)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	in := bufio.NewScanner(c)
	say := func(text string) {
		t.Helper()
		if _, err := fmt.Fprintln(c, text); err != nil {
			t.Fatal(err)
		}
	}
	var ev struct {
		Type string
		TS   int64
	}
	hear := func(want string) {
		t.Helper()
		for in.Scan() {
			if err := json.Unmarshal(in.Bytes(), &ev); err != nil {
				t.Fatal(err)
			}
			if ev.Type == want {
				return
			}
		}
		t.Fatalf("no %s came: %v", want, in.Err())
	}
	say(`{"type":"hello","guest":"ann","device":"bot/9.1"}`)
	hear("ping")
	say(fmt.Sprintf(`{"type":"pong","ts":%d}`, ev.TS))

	out, err := exec.CommandContext(within(t), built.platform, "diag", "tcp", "--admin", n.Admin).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "bot/9.1") || !strings.Contains(string(out), "1 connections looked at") {
		t.Errorf("platform diag tcp: got %v and\n%s\nwant the client's version", err, out)
	}
	hear("close") // the second ping is unanswered too
	await(t, "the metrics say frozen", func() bool { return n.Metric(`parley_dead_connections_total{evidence="frozen"}`) == 1 })
	if got := deaths(n); got != 1 {
		t.Errorf("got %v taken for dead, want one", got)
	}
	n.Logs("evidence=frozen")
	n.Logs("device=bot/9.1")
	if n.Metric("parley_heartbeat_rtt_seconds_count") != 1 {
		t.Error("the round trip was not counted")
	}
}

// A node that gets no CPU for longer than a pong may take blames nobody.
func TestStarvedNodeClosesNobody(t *testing.T) {
	n := startNode(t, settings{"liveness.ping": "4s"})
	const clients = 100
	conns := make([]*client.Conn, clients)
	var dialing sync.WaitGroup
	for i := range conns {
		dialing.Go(func() {
			c, err := client.Dial(within(t), client.Options{URL: n.URL(i)})
			if err != nil {
				t.Error(err)
				return
			}
			conns[i] = c
		})
	}
	dialing.Wait()
	for _, c := range conns {
		if c == nil {
			t.FailNow()
		}
		defer c.Close()
	}
	asked := func(more float64) {
		t.Helper()
		pings := n.Metric("parley_pings_total")
		await(t, "everyone is asked", func() bool { return n.Metric("parley_pings_total") >= pings+more })
	}
	asked(clients)
	for range 2 {
		n.Signal(syscall.SIGSTOP)
		time.Sleep(6 * time.Second) // the length of the stall is the test
		n.Signal(syscall.SIGCONT)
		asked(2 * clients)
	}
	if got := n.Metric("parley_connections"); got != clients || deaths(n) != 0 || n.Metric("parley_heartbeats_late_total") == 0 {
		t.Errorf("got %v connections, %v taken for dead, %v times late, want all %d, none, some", got, deaths(n), n.Metric("parley_heartbeats_late_total"), clients)
	}
}
