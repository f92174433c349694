package rig

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"parley/core/redis/redistest"
)

// Settings are configuration keys in dotted form over those every node needs.
type Settings map[string]any

// Node is one server process, its folder and its addresses. Its methods
// belong to the test's goroutine.
type Node struct {
	T                *testing.T
	Dir, Config      string   // its folder and its configuration file
	HTTP, TCP, Admin string   // addresses
	Wrap             []string // a command that the server's command line is given to

	Cmd  *exec.Cmd
	Out  *Tail
	done chan struct{} // closed when the process has ended
}

// New prepares a node and writes its configuration; it starts nothing.
func New(t *testing.T, extra Settings) *Node {
	t.Helper()
	dir := t.TempDir()
	n := &Node{T: t, Dir: dir, Config: filepath.Join(dir, "parley.yaml")}
	ports := FreePorts(t, 3)
	n.HTTP, n.TCP, n.Admin = ports[0], ports[1], ports[2]
	keys := Settings{
		"listen": n.HTTP, "tcp.listen": n.TCP, "admin.listen": n.Admin,
		"data_dir": n.Data(), "log.level": "info", "log.format": "text",
	}
	maps.Copy(keys, extra)
	n.Configure(keys)
	t.Cleanup(func() {
		n.Kill()
		if t.Failed() && n.Out != nil {
			t.Logf("the end of the log of node %s:\n%s", n.HTTP, n.Out)
		}
	})
	return n
}

// Data is the node's data folder.
func (n *Node) Data() string { return filepath.Join(n.Dir, "data") }

// Configure writes the file. JSON is YAML (YAML 1.2 §1.3), so it needs no
// library here.
func (n *Node) Configure(keys Settings) {
	n.T.Helper()
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
		n.T.Fatal(err)
	}
	if err := os.WriteFile(n.Config, b, 0o600); err != nil {
		n.T.Fatal(err)
	}
}

// Start prepares a node, starts it and waits until it serves.
func Start(t *testing.T, extra Settings) *Node {
	t.Helper()
	n := New(t, extra)
	n.Start()
	return n
}

// FreePorts returns so many addresses on loopback that nobody has, and keeps them
// for this process: see redistest.FreePorts.
func FreePorts(t *testing.T, count int) []string {
	t.Helper()
	addrs := make([]string, count)
	for i := range addrs {
		addrs[i] = fmt.Sprintf("127.0.0.1:%d", PortsInARow(t, 1))
	}
	return addrs
}

// PortsInARow is the first of so many ports next to each other, kept likewise. They
// lie below those of redistest.
func PortsInARow(t *testing.T, count int) int {
	t.Helper()
	return redistest.FreePorts(t, 12000, 22000, count)
}

// Start runs the process and waits for /readyz.
func (n *Node) Start() {
	n.T.Helper()
	n.Launch()
	n.Ready()
}

// Launch runs the process and waits until it serves, ready or not.
func (n *Node) Launch() {
	n.T.Helper()
	args := append(n.Wrap[:len(n.Wrap):len(n.Wrap)], built.platform, "run", "--config", n.Config)
	n.Cmd = exec.Command(args[0], args[1:]...)
	n.Cmd.Env = CleanEnv()
	pr, pw := io.Pipe()
	n.Cmd.Stdout, n.Cmd.Stderr = pw, pw
	if n.Out == nil {
		n.Out = new(Tail)
	}
	if err := n.Cmd.Start(); err != nil {
		n.T.Fatalf("start %s: %v", args[0], err)
	}
	n.done = make(chan struct{})
	go n.follow(n.Cmd, pr, pw, n.done)
	n.answers("/healthz", http.StatusOK)
}

// Ready waits for /readyz.
func (n *Node) Ready() {
	n.T.Helper()
	n.Awaits(http.StatusOK)
}

// Awaits waits until /readyz answers with a status.
func (n *Node) Awaits(want int) {
	n.T.Helper()
	n.answers("/readyz", want)
}

// answers waits until a page of the admin listener has a status.
func (n *Node) answers(page string, want int) {
	n.T.Helper()
	Await(n.T, fmt.Sprintf("node %s answers %d to %s", n.HTTP, want, page), func() bool {
		select {
		case <-n.done:
			n.T.Fatalf("node %s ended before it answered %d to %s (%v):\n%s", n.HTTP, want, page, n.Cmd.ProcessState, n.Out)
		default:
		}
		status, _ := n.Get(page)
		return status == want
	})
}

// Logs waits until the log has a line with the text: it comes by a pipe, a moment
// after what it tells of can be seen elsewhere.
func (n *Node) Logs(text string) {
	n.T.Helper()
	Await(n.T, fmt.Sprintf("node %s logs %q", n.HTTP, text), func() bool { return n.Out.Has(text) })
}

// follow owns the process's output and its end.
func (n *Node) follow(cmd *exec.Cmd, pr *io.PipeReader, pw *io.PipeWriter, done chan struct{}) {
	defer close(done)
	var reading sync.WaitGroup
	reading.Go(func() {
		sc := bufio.NewScanner(pr)
		sc.Buffer(nil, 1<<20)
		for sc.Scan() {
			n.Out.Add(sc.Text())
		}
		_ = pr.CloseWithError(errors.New("line too long"))
	})
	_ = cmd.Wait() // the state is in cmd.ProcessState
	_ = pw.Close()
	reading.Wait()
}

// CleanEnv is the environment without what would configure a server.
func CleanEnv() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "PARLEY_") {
			env = append(env, e)
		}
	}
	return env
}

// Platform runs another command of the binary to its end, with the node's
// configuration.
func (n *Node) Platform(args ...string) (out string, code int) {
	n.T.Helper()
	return n.Bare(append(args, "--config", n.Config)...)
}

// Bare runs another command of the binary to its end.
func (n *Node) Bare(args ...string) (out string, code int) {
	n.T.Helper()
	cmd := exec.CommandContext(Within(n.T), built.platform, args...)
	cmd.Env = CleanEnv()
	b, err := cmd.CombinedOutput()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		n.T.Fatalf("platform %v: %v", args, err)
	}
	return strings.TrimSpace(string(b)), cmd.ProcessState.ExitCode()
}

// Signal sends a signal to the process itself.
func (n *Node) Signal(s syscall.Signal) {
	n.T.Helper()
	if err := n.Cmd.Process.Signal(s); err != nil {
		n.T.Fatalf("send %v: %v", s, err)
	}
}

// Kill ends the process as kill -9 does and waits for it. It may be called
// when nothing runs.
func (n *Node) Kill() {
	if n.Cmd == nil || n.Cmd.Process == nil {
		return
	}
	_ = n.Cmd.Process.Kill()
	<-n.done
}

// Ended waits for the process to end by itself and returns its exit code, -1
// when a signal ended it.
func (n *Node) Ended() int {
	n.T.Helper()
	select {
	case <-n.done:
	case <-Within(n.T).Done():
		n.T.Fatalf("node %s did not end", n.HTTP)
	}
	return n.Cmd.ProcessState.ExitCode()
}

// Stop ends the process by SIGTERM and demands exit code 0.
func (n *Node) Stop() {
	n.T.Helper()
	n.Signal(syscall.SIGTERM)
	if code := n.Ended(); code != 0 {
		n.T.Fatalf("after SIGTERM: got exit code %d, want 0", code)
	}
}

// WSURL is the address of the WebSocket transport.
func (n *Node) WSURL() string { return "ws://" + n.HTTP + "/v1/ws" }

// TCPURL is the address of the TCP transport.
func (n *Node) TCPURL() string { return "tcp://" + n.TCP }

// URL is one of both transports' by number, to mix them.
func (n *Node) URL(i int) string {
	if i%2 == 0 {
		return n.WSURL()
	}
	return n.TCPURL()
}
