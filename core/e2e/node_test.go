package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something that must happen. It is far above
// what a loaded machine needs, so that reaching it means that it never will.
const patience = 60 * time.Second

// await polls until cond is true and fails the test when patience ends. It is
// for what can be observed only by asking; everything else is waited for on a
// channel.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited %v and it did not come true: %s", patience, what)
		}
	}
}

// within returns a context that ends when patience does.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// settings are configuration keys in dotted form over those every node needs.
type settings map[string]any

// node is one server process, its folder and its addresses. Its methods
// belong to the test's goroutine.
type node struct {
	t                *testing.T
	dir, config      string
	http, tcp, admin string // addresses
	wrap             []string

	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	out  *tail
}

// newNode prepares a node and writes its configuration; it starts nothing.
func newNode(t *testing.T, extra settings) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{t: t, dir: dir, config: filepath.Join(dir, "parley.yaml")}
	ports := freePorts(t, 3)
	n.http, n.tcp, n.admin = ports[0], ports[1], ports[2]
	keys := settings{
		"listen": n.http, "tcp.listen": n.tcp, "admin.listen": n.admin,
		"data_dir": n.data(), "log.level": "info", "log.format": "text",
	}
	maps.Copy(keys, extra)
	n.configure(keys)
	t.Cleanup(func() {
		n.kill()
		if t.Failed() && n.out != nil {
			t.Logf("the end of the log of node %s:\n%s", n.http, n.out)
		}
	})
	return n
}

func (n *node) data() string { return filepath.Join(n.dir, "data") }

// configure writes the file. JSON is YAML (YAML 1.2 §1.3), so it needs no
// library here.
func (n *node) configure(keys settings) {
	n.t.Helper()
	tree := map[string]any{}
	for key, value := range keys {
		at := tree
		parts := strings.Split(key, ".")
		for _, p := range parts[:len(parts)-1] {
			if at[p] == nil {
				at[p] = map[string]any{}
			}
			at = at[p].(map[string]any)
		}
		at[parts[len(parts)-1]] = value
	}
	b, err := json.MarshalIndent(tree, "", "  ")
	if err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(n.config, b, 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// startNode prepares a node, starts it and waits until it serves.
func startNode(t *testing.T, extra settings) *node {
	t.Helper()
	n := newNode(t, extra)
	n.start()
	return n
}

// freePorts returns addresses on loopback that were free a moment ago. They
// lie below the ports the kernel gives to outgoing connections (32768 and up
// by default): a client that dials a server which is down could otherwise be
// given the server's own port, connect to itself and keep the server out.
func freePorts(t *testing.T, count int) []string {
	t.Helper()
	var addrs []string
	for tries := 0; len(addrs) < count; tries++ {
		addr := fmt.Sprintf("127.0.0.1:%d", 12000+rand.IntN(20000))
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			if tries == 100 {
				t.Fatalf("find a free port: %v", err)
			}
			continue
		}
		defer ln.Close() // all are held until the last is known
		addrs = append(addrs, addr)
	}
	return addrs
}

// start runs the process and waits for /readyz.
func (n *node) start() {
	n.t.Helper()
	n.launch()
	n.awaits(http.StatusOK)
}

// launch runs the process.
func (n *node) launch() {
	n.t.Helper()
	args := append(n.wrap[:len(n.wrap):len(n.wrap)], built.platform, "run", "--config", n.config)
	n.cmd = exec.Command(args[0], args[1:]...)
	n.cmd.Env = cleanEnv()
	pr, pw := io.Pipe()
	n.cmd.Stdout, n.cmd.Stderr = pw, pw
	if n.out == nil {
		n.out = new(tail)
	}
	if err := n.cmd.Start(); err != nil {
		n.t.Fatalf("start %s: %v", args[0], err)
	}
	n.done = make(chan struct{})
	go n.follow(n.cmd, pr, pw, n.done)
}

// awaits waits until /readyz answers with a status.
func (n *node) awaits(want int) {
	n.t.Helper()
	await(n.t, fmt.Sprintf("node %s answers %d", n.http, want), func() bool {
		select {
		case <-n.done:
			n.t.Fatalf("node %s ended before it was ready (%v):\n%s", n.http, n.cmd.ProcessState, n.out)
		default:
		}
		status, _ := n.get("/readyz")
		return status == want
	})
}

// follow owns the process's output and its end.
func (n *node) follow(cmd *exec.Cmd, pr *io.PipeReader, pw *io.PipeWriter, done chan struct{}) {
	defer close(done)
	var reading sync.WaitGroup
	reading.Go(func() {
		sc := bufio.NewScanner(pr)
		sc.Buffer(nil, 1<<20)
		for sc.Scan() {
			n.out.add(sc.Text())
		}
		_ = pr.CloseWithError(errors.New("line too long"))
	})
	_ = cmd.Wait() // the state is in cmd.ProcessState
	_ = pw.Close()
	reading.Wait()
}

// cleanEnv is the environment without what would configure a server.
func cleanEnv() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "PARLEY_") {
			env = append(env, e)
		}
	}
	return env
}

// platform runs another command of the binary to its end, with the node's
// configuration.
func (n *node) platform(args ...string) (out string, code int) {
	n.t.Helper()
	return n.bare(append(args, "--config", n.config)...)
}

// bare runs another command of the binary to its end.
func (n *node) bare(args ...string) (out string, code int) {
	n.t.Helper()
	cmd := exec.CommandContext(within(n.t), built.platform, args...)
	cmd.Env = cleanEnv()
	b, err := cmd.CombinedOutput()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		n.t.Fatalf("platform %v: %v", args, err)
	}
	return strings.TrimSpace(string(b)), cmd.ProcessState.ExitCode()
}

// signal sends a signal to the process itself.
func (n *node) signal(s syscall.Signal) {
	n.t.Helper()
	if err := n.cmd.Process.Signal(s); err != nil {
		n.t.Fatalf("send %v: %v", s, err)
	}
}

// kill ends the process as kill -9 does and waits for it. It may be called
// when nothing runs.
func (n *node) kill() {
	if n.cmd == nil || n.cmd.Process == nil {
		return
	}
	_ = n.cmd.Process.Kill()
	<-n.done
}

// ended waits for the process to end by itself and returns its exit code, -1
// when a signal ended it.
func (n *node) ended() int {
	n.t.Helper()
	select {
	case <-n.done:
	case <-within(n.t).Done():
		n.t.Fatalf("node %s did not end", n.http)
	}
	return n.cmd.ProcessState.ExitCode()
}

// stop ends the process by SIGTERM and demands exit code 0.
func (n *node) stop() {
	n.t.Helper()
	n.signal(syscall.SIGTERM)
	if code := n.ended(); code != 0 {
		n.t.Fatalf("after SIGTERM: got exit code %d, want 0", code)
	}
}

func (n *node) wsURL() string  { return "ws://" + n.http + "/v1/ws" }
func (n *node) tcpURL() string { return "tcp://" + n.tcp }

// url is one of both transports' by number, to mix them.
func (n *node) url(i int) string {
	if i%2 == 0 {
		return n.wsURL()
	}
	return n.tcpURL()
}

// get reads a page of the admin listener.
func (n *node) get(path string) (status int, body string) {
	return n.ask(http.MethodGet, path, nil)
}

// ask sends a request to the admin listener, with the admin token where the
// server has made one. Status 0 means that nobody answered.
func (n *node) ask(method, path string, in any) (status int, body string) {
	var payload io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			n.t.Fatal(err)
		}
		payload = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(n.t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+n.admin+path, payload)
	if err != nil {
		n.t.Fatal(err)
	}
	if token, err := os.ReadFile(filepath.Join(n.data(), "admin.token")); err == nil {
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	req.Close = true // a kept connection would outlive the test
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

// status decodes a JSON page of the admin listener.
func status[T any](n *node, path string) T {
	n.t.Helper()
	var v T
	code, body := n.get(path)
	if code != http.StatusOK {
		n.t.Fatalf("GET %s: got status %d: %s", path, code, body)
	}
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		n.t.Fatalf("GET %s: %v in %s", path, err, body)
	}
	return v
}

// metric returns the value of one sample of /metrics, 0 when it is absent.
// series is the name with its labels as Prometheus writes them.
func (n *node) metric(series string) float64 {
	n.t.Helper()
	code, body := n.get("/metrics")
	if code != http.StatusOK {
		n.t.Fatalf("GET /metrics: got status %d: %s", code, body)
	}
	for line := range strings.Lines(body) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			var v float64
			if _, err := fmt.Sscan(rest, &v); err != nil {
				n.t.Fatalf("metric %s: %v in %q", series, err, line)
			}
			return v
		}
	}
	return 0
}

// tail keeps the last lines of a process's output.
type tail struct {
	mu    sync.Mutex
	lines []string
}

const tailLines = 400

func (l *tail) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) >= tailLines {
		l.lines = l.lines[1:]
	}
	l.lines = append(l.lines, line)
}

// has reports whether a kept line contains s.
func (l *tail) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, s) {
			return true
		}
	}
	return false
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}
