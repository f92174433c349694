package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/client"
	"parley/core/e2e/rig"
	"parley/core/redis/redistest"
)

func proxyProgram() string {
	program, err := exec.LookPath("haproxy")
	if err != nil {
		program = "/usr/sbin/haproxy" // not on everybody's PATH
	}
	return program
}

// haproxy runs the proxy of deploy/compose before three nodes, until the test
// ends, and returns where people come in.
func haproxy(t *testing.T, nodes []*node) (web, tcp string) {
	t.Helper()
	at := freePorts(t, 2)
	env := append(os.Environ(), "HTTP_BIND="+at[0], "TCP_BIND="+at[1])
	for i, n := range nodes {
		host, port, _ := net.SplitHostPort(n.HTTP)
		_, line, _ := net.SplitHostPort(n.TCP)
		_, admin, _ := net.SplitHostPort(n.Admin)
		env = append(env, fmt.Sprintf("NODE%d=%s", i+1, host), fmt.Sprintf("HTTP_PORT%d=%s", i+1, port),
			fmt.Sprintf("TCP_PORT%d=%s", i+1, line), fmt.Sprintf("ADMIN_PORT%d=%s", i+1, admin))
	}
	out := new(rig.Tail)
	cmd := exec.Command(proxyProgram(), "-db", "-f", "../../deploy/compose/haproxy.cfg")
	cmd.Env, cmd.Stdout, cmd.Stderr = env, lines{out}, lines{out}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start haproxy (make setup installs it): %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the log of haproxy:\n%s", out)
		}
	})
	await(t, "the proxy lets people in", func() bool {
		req, err := http.NewRequestWithContext(within(t), http.MethodGet, "http://"+at[0]+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Close = true
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return at[0], at[1]
}

// TestThreeNodesBehindAProxy runs what deploy/compose runs: a Redis, three
// nodes and the proxy. People come in by WebSocket and by plain TCP, nodes see
// their addresses, and when one is killed and another drained nothing is lost.
func TestThreeNodesBehindAProxy(t *testing.T) {
	t.Parallel()
	store := redistest.Start(t, redistest.Options{AppendOnly: true})
	key := filepath.Join(t.TempDir(), "jwt.key")
	keys := unlimited(settings{"redis.url": store.URL(), "auth.jwt.key_file": key, "proxy.trusted": []string{"127.0.0.0/8"}, "proxy.tcp": "protocol"})
	var tokens []string
	for i := range 6 {
		tokens = append(tokens, token(t, key, chat.UserID(fmt.Sprintf("user%d", i))))
	}
	nodes := []*node{startNode(t, keys), startNode(t, keys), startNode(t, keys)}
	web, plain := haproxy(t, nodes)

	c := newCrowd(t, "lobby")
	for i, tok := range tokens {
		url := "ws://" + web + "/v1/ws"
		if i%2 == 1 {
			url = "tcp://" + plain
		}
		c.Add(fmt.Sprintf("client %d", i), client.ResilientOptions{Options: client.Options{Token: tok}, URLs: []string{url}})
	}
	c.Talk(4, 20*time.Millisecond)
	c.More(60)
	var spread int
	for _, n := range nodes {
		if n.Metric("parley_connections") > 0 {
			spread++
		}
	}
	if spread < 2 {
		t.Errorf("the proxy put everybody on %d of 3 nodes", spread)
	}
	nodes[0].Kill()
	c.More(60)
	nodes[1].Stop()
	c.More(60)
	nodes[0].Start()
	nodes[1].Start()
	c.More(60)
	rep := c.Settle(client.Options{URL: nodes[2].WSURL(), Token: tokens[0]})
	if rep.Resets > 0 || rep.Unknown > 0 || rep.Refused > 0 {
		t.Errorf("got %d resets, %d unknown, %d refused, want none", rep.Resets, rep.Unknown, rep.Refused)
	}
	for _, n := range nodes {
		n.Stop()
	}
}

// TestTheProxyNeedsNoNode has the proxy read its file while nobody knows where
// the nodes are: a container that is being made anew has no address, and gets
// another.
func TestTheProxyNeedsNoNode(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(proxyProgram(), "-c", "-f", "../../deploy/compose/haproxy.cfg")
	cmd.Env = append(rig.CleanEnv(), "NODE1=node1.invalid", "NODE2=node2.invalid", "NODE3=node3.invalid", "HTTP_BIND=127.0.0.1:8080", "TCP_BIND=127.0.0.1:7070")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("haproxy -c: %v\n%s", err, out)
	}
}

// TestAReleaseOnTrialIsTakenBack runs a node in force and one on trial, whose
// store is away, and the guard that the chart runs beside them: it sees in
// Prometheus that sends fail at the one and not at the other, and takes it back.
func TestAReleaseOnTrialIsTakenBack(t *testing.T) {
	t.Parallel()
	store := redistest.Start(t, redistest.Options{})
	stable := startNode(t, unlimited(nil))
	canary := startNode(t, unlimited(settings{"redis.url": store.URL()}))
	prom := scrape(t, stable, canary)

	var mu sync.Mutex
	var got []string
	api := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		got = append(got, r.Method+" "+r.URL.Path+" "+string(body))
	}))
	t.Cleanup(api.Close)
	patch := filepath.Join(t.TempDir(), "nodes.json")
	if err := os.WriteFile(patch, []byte(`{"spec":{"replicas":0}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	guard := func(d string) (string, int) {
		return stable.Bare("release", "watch", "--prometheus", "http://"+prom.addr, "--canary", fmt.Sprintf("instance=%q", canary.Admin),
			"--stable", fmt.Sprintf("instance=%q", stable.Admin), "--window", "5s", "--every", "500ms", "--least", "20", "--for", d,
			"--p99", "1m", // the machine may be slow, and is not what is looked for
			"--patch", api.URL+"/scale="+patch)
	}
	ann, bob := visit(t, client.Options{URL: stable.WSURL(), Guest: "ann"}), visit(t, client.Options{URL: canary.WSURL(), Guest: "bob"})
	ann.enters("lobby")
	bob.enters("lobby")
	talk := func() (end func()) {
		quit, over := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(over)
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-quit:
					return
				case <-tick.C:
				}
				_, _ = ann.Send(t.Context(), "lobby", client.NewNonce(), "a fine day")
				_, _ = bob.Send(t.Context(), "lobby", client.NewNonce(), "a fine day")
			}
		}()
		return func() { close(quit); <-over }
	}
	end := talk()
	out, code := guard("8s")
	end()
	if code != 0 || !strings.Contains(out, "the canary is good") {
		t.Errorf("while all is well: exit code %d: %s", code, out)
	}
	store.Kill()
	end = talk()
	out, code = guard("1m")
	end()
	if code != 3 || !strings.Contains(out, "of its commands failed") || !strings.Contains(out, "taken back with 1 patches") {
		t.Errorf("while the store is away: exit code %d: %s", code, out)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(got) != 1 || got[0] != `PATCH /scale {"spec":{"replicas":0}}` {
		t.Errorf("got requests %v", got)
	}
	if out, code := canary.Bare("ready", "--admin", canary.Admin); code != 1 || !strings.Contains(out, "the store cannot take messages") {
		t.Errorf("ready at the canary: exit code %d: %s", code, out)
	}
	if out, code := stable.Bare("ready", "--admin", stable.Admin); code != 0 || out != "ready" {
		t.Errorf("ready at the stable node: exit code %d: %s", code, out)
	}
	stable.Stop()
	canary.Stop()
}
