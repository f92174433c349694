package browsertest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core/e2e/rig"
	"parley/core/wire"
)

// patience bounds every wait. Reaching it means that it will never come true.
const patience = 45 * time.Second

// server is one process of the real server; it may be killed and started
// again on the same addresses and data.
type server struct {
	t         *testing.T
	dir       string
	http, tcp string
	cmd       *exec.Cmd
	log       *bytes.Buffer // what it wrote to stderr; read after wait
	out       sync.WaitGroup
}

// startServer starts a server with guests on and no plugins. extra is YAML.
func startServer(t *testing.T, extra string) *server {
	t.Helper()
	s := &server{t: t, dir: t.TempDir(), log: new(bytes.Buffer)}
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("the server said:\n%s", s.log)
		}
	})
	for range 5 { // a port that was free may be somebody else's by the time the server listens
		s.log.Reset()
		free := rig.FreePorts(t, 2)
		s.http, s.tcp = free[0], free[1]
		s.configure(extra)
		if s.launch() {
			return s
		}
		if s.kill(); !strings.Contains(s.log.String(), "address already in use") {
			break
		}
	}
	t.Fatal("the server ended before it was ready")
	return nil
}

// configure writes the configuration.
func (s *server) configure(extra string) {
	s.t.Helper()
	config := fmt.Sprintf("listen: %s\ntcp:\n  listen: %s\nadmin:\n  listen: \"\"\ndata_dir: %s\n%s\n",
		s.http, s.tcp, filepath.Join(s.dir, "data"), extra)
	if err := os.WriteFile(s.config(), []byte(config), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) config() string { return filepath.Join(s.dir, "parley.yaml") }

func (s *server) start() {
	s.t.Helper()
	if !s.launch() {
		s.t.Fatal("the server ended before it was ready")
	}
}

// launch runs the process; false where it ends before it is ready.
func (s *server) launch() bool {
	s.t.Helper()
	s.cmd = exec.Command(built.platform, "run", "--config", s.config())
	s.cmd.Stderr = s.log
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ready := make(chan bool, 1)
	s.out.Go(func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "ready in ") {
				ready <- true
			}
		}
		close(ready)
	})
	return <-ready
}

// kill ends the process as a power cut would, and may be called twice.
func (s *server) kill() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	s.out.Wait()
	_ = s.cmd.Wait()
}

// token makes a development token.
func (s *server) token(user, role string) string {
	s.t.Helper()
	out, err := exec.Command(built.platform, "token", "--config", s.config(), "--user", user, "--role", role).Output()
	if err != nil {
		s.t.Fatalf("platform token: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// terminal is a person with nc: lines over TCP.
type terminal struct {
	t     *testing.T
	conn  net.Conn
	lines *bufio.Reader
}

func (s *server) terminal(guest string) *terminal {
	s.t.Helper()
	return s.hello(fmt.Sprintf(`"guest":%q`, guest))
}

// hello signs in with a member of the hello command.
func (s *server) hello(who string) *terminal {
	s.t.Helper()
	c, err := net.Dial("tcp", s.tcp)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	term := &terminal{t: s.t, conn: c, lines: bufio.NewReader(c)}
	term.ask(`{"type":"hello",`+who+`}`, "welcome")
	return term
}

// ask sends a line and waits for the event that answers it.
func (c *terminal) ask(line, want string) []byte {
	c.t.Helper()
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c.conn, line+"\n"); err != nil {
		c.t.Fatal(err)
	}
	for {
		b, err := c.lines.ReadBytes('\n')
		if err != nil {
			c.t.Fatal(err)
		}
		var e struct {
			Type wire.Type `json:"type"`
		}
		if err := json.Unmarshal(b, &e); err != nil {
			c.t.Fatal(err)
		}
		if e.Type == wire.Type(want) {
			return b
		}
		if e.Type == wire.Error {
			c.t.Fatalf("%s was answered %s", line, b)
		}
	}
}

func (c *terminal) say(room, text string) {
	c.t.Helper()
	c.ask(fmt.Sprintf(`{"type":"send","room":%q,"text":%q}`, room, text), "ack")
}

// direct opens the room with another person and returns its name.
func (c *terminal) direct(user string) string {
	c.t.Helper()
	var e struct{ Room string }
	if err := json.Unmarshal(c.ask(fmt.Sprintf(`{"type":"direct","user":%q}`, user), "direct"), &e); err != nil {
		c.t.Fatal(err)
	}
	return e.Room
}

// proxy stands between browser and server and is the network that fails.
type proxy struct {
	ln     net.Listener
	target string
	owned  sync.WaitGroup

	mu    sync.Mutex
	down  bool
	conns map[net.Conn]*gate // both sides
}

// gate lets through what one side sent, unless it is shut.
type gate struct {
	sync.Mutex      // held while shut
	shut       bool // guarded by proxy.mu
}

func (g *gate) pass() {
	g.Lock()
	defer g.Unlock()
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{ln: ln, target: target, conns: make(map[net.Conn]*gate)}
	p.owned.Go(p.accept)
	t.Cleanup(func() {
		ln.Close()
		p.cut()
		p.owned.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.ln.Addr().String() }

func (p *proxy) accept() {
	for {
		in, err := p.ln.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.target)
		p.mu.Lock()
		if p.down || err != nil {
			in.Close()
			if err == nil {
				out.Close()
			}
			p.mu.Unlock()
			continue
		}
		up, down := new(gate), new(gate)
		p.conns[in], p.conns[out] = up, down
		p.owned.Go(func() { carry(out, in, up) })
		p.owned.Go(func() { carry(in, out, down) })
		p.mu.Unlock()
	}
}

func carry(to, from net.Conn, g *gate) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		g.pass()
		if err != nil {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// cut ends every connection and refuses new ones until restore.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for c, g := range p.conns {
		c.Close()
		if g.shut {
			g.Unlock()
		}
	}
	clear(p.conns)
}

func (p *proxy) restore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
}

// stall lets the present connections live and say nothing more, as a network
// does that lost its way; new ones work.
func (p *proxy) stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range p.conns {
		if !g.shut {
			g.Lock()
			g.shut = true
		}
	}
}
