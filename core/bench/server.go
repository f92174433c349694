package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"parley/core/bench/proc"
)

// patience bounds the wait for a server to start or to answer.
const patience = 2 * time.Minute

// Server is the server under test.
type Server struct {
	Addr  string // host:port of the listener that clients come to, numeric
	Path  string // of the WebSocket
	TLS   bool   // whether it speaks TLS
	TCP   bool   // whether it is the TCP listener
	Admin string // base URL of the admin API; empty: not known
	Token string // admin token; empty: reading only
	PIDs  []int  // whose CPU and memory count; empty: not known
	Parts []Part // of them, what can be told apart; empty: one process

	others []*Server // nodes beside this one, on the same Redis
	redis  *store    // nil: the embedded store, or a server that was only taken
	spread bool      // members are on this node too

	set    Settings // how it was started
	args   []string
	cmd    *exec.Cmd
	done   chan struct{}
	err    error // of cmd, once done is closed
	dir    string
	client *http.Client // reaches the admin API; nil: the usual
}

// Settings are how a server of our own is started.
type Settings struct {
	Exe     string            // the platform binary
	Plugins string            // folder of plugins; empty: none
	Keys    map[string]string // configuration keys over those of the benchmark
	Env     map[string]string // GOGC, GODEBUG and the like
	Data    string            // folder whose disk takes the data; empty: the system's for temporary files
	Place   *Place            // where it runs; nil: here
	TLS     bool              // speak TLS to clients, with a certificate of the moment
	TCP     bool              // clients come to the TCP listener
}

// Place is somewhere else on this machine where processes run, such as a
// network namespace. All its ports are free.
type Place struct {
	Addr  string                                                   // IPv4 address that clients reach the server at
	Start func(*exec.Cmd) error                                    // starts a process there
	Dial  func(ctx context.Context, addr string) (net.Conn, error) // connects from there
}

// benchKeys are the limits that a benchmark's clients, being one address and
// very talkative, would run into.
func benchKeys() map[string]string {
	return map[string]string{
		"limits.connections_per_ip":  "0",
		"limits.commands_per_second": "0",
		"limits.accepts_per_second":  "0",
		"limits.handshake_timeout":   "1m",
		"log.level":                  "warn",
	}
}

// StartServer starts a server on free ports, with its data in a folder of its
// own, and waits until it is ready. The folder goes with Stop.
func StartServer(ctx context.Context, set Settings) (*Server, error) {
	dir, err := os.MkdirTemp(set.Data, "parley-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for the server's data: %w", err)
	}
	s := &Server{Path: "/v1/ws", TLS: set.TLS, TCP: set.TCP, dir: dir}
	addrs, err := set.addrs(ctx)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if set.Place != nil {
		s.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) { return set.Place.Dial(ctx, addr) }}}
	}
	s.Addr, s.Admin = addrs[0], "http://"+addrs[1]
	keys := benchKeys()
	keys["listen"], keys["admin.listen"], keys["tcp.listen"] = addrs[0], addrs[1], ""
	keys["data_dir"] = filepath.Join(dir, "data")
	keys["plugins.dir"] = set.Plugins
	if set.TCP {
		s.Addr = addrs[2]
		keys["tcp.listen"] = s.Addr
	}
	if set.TLS {
		if keys["tls.cert_file"], keys["tls.key_file"], err = writeCertificate(dir, s.Addr); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
	for k, v := range set.Keys {
		keys[k] = v
	}
	args := []string{"run"}
	for k, v := range keys {
		args = append(args, "--"+k+"="+v)
	}
	slices.Sort(args[1:])
	s.set, s.args = set, args
	if err := s.exec(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := s.awaitReady(ctx); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	token, err := os.ReadFile(filepath.Join(keys["data_dir"], "admin.token"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the admin token: %w", err), s.Stop())
	}
	s.Token = strings.TrimSpace(string(token))
	return s, nil
}

// exec starts the process; done is closed when it has ended.
func (s *Server) exec() error {
	log, err := os.Create(s.logFile())
	if err != nil {
		return fmt.Errorf("make the server's log: %w", err)
	}
	defer log.Close() // the process has its own
	s.cmd = exec.Command(s.set.Exe, s.args...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.Env = cleanEnv(s.set.Env)
	s.cmd.SysProcAttr = childAttr()
	if err := begin(s.cmd, s.set.Place); err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	s.PIDs = []int{s.cmd.Process.Pid}
	cmd, done := s.cmd, make(chan struct{})
	s.done = done
	go func() { // ends with the process, which Stop and Kill wait for
		s.err = cmd.Wait()
		close(done)
	}()
	return nil
}

// begin starts a process at a place.
func begin(cmd *exec.Cmd, at *Place) error {
	if at == nil {
		return cmd.Start()
	}
	return at.Start(cmd)
}

// addrs are where the server listens: for clients, for the operator, and for
// clients over TCP.
func (set Settings) addrs(ctx context.Context) ([]string, error) {
	if set.Place == nil {
		return freePorts(ctx, 3)
	}
	return []string{net.JoinHostPort(set.Place.Addr, "8080"), "127.0.0.1:9090", net.JoinHostPort(set.Place.Addr, "7070")}, nil
}

// logFile is what the server has printed, gctrace lines included.
func (s *Server) logFile() string { return filepath.Join(s.dir, "server.log") }

// cleanEnv is the environment without what configures a server, and with set.
func cleanEnv(set map[string]string) []string {
	var env []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, "PARLEY_") && !slices.Contains([]string{"GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GODEBUG"}, name) {
			env = append(env, e)
		}
	}
	for k, v := range set {
		env = append(env, k+"="+v)
	}
	return env
}

func (s *Server) awaitReady(caller context.Context) error {
	ctx, cancel := context.WithTimeout(caller, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := s.ask(ctx, http.MethodGet, "/readyz"); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-s.done:
			log, _ := os.ReadFile(s.logFile())
			return fmt.Errorf("the server ended before it was ready (%w): %s", s.err, tail(log))
		case <-ctx.Done():
			if err := caller.Err(); err != nil {
				return err // interrupted
			}
			return fmt.Errorf("the server was not ready in %v", patience)
		}
	}
}

// tail is the end of a log, to be shown.
func tail(log []byte) string {
	return string(log[max(0, len(log)-2000):])
}

// Stop ends a server of our own and removes its folder. It may be called
// twice; for a server that was only taken it does nothing.
func (s *Server) Stop() error {
	if s.cmd == nil {
		return nil
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(patience):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
	s.cmd = nil
	errs := []error{os.RemoveAll(s.dir)}
	for _, n := range s.others {
		errs = append(errs, n.Stop())
	}
	if s.redis != nil {
		errs = append(errs, s.redis.stop())
	}
	return errors.Join(errs...)
}

// Usage is what the server's processes have used.
func (s *Server) Usage() (proc.Usage, error) { return proc.Sum(s.PIDs) }

// maxPage bounds a page of the admin API, in bytes.
const maxPage = 16 << 20

// ask sends a request to the admin API.
func (s *Server) ask(ctx context.Context, method, path string) ([]byte, error) {
	if s.Admin == "" {
		return nil, errors.New("the admin API's address is not known: name it with --admin")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute) // a CPU profile takes its time
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.Admin+path, nil)
	if err != nil {
		return nil, err
	}
	if s.Token != "" {
		req.Header.Set("Authorization", "Bearer "+s.Token)
	}
	req.Close = true
	client := s.client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPage+1))
	switch {
	case err != nil:
		return nil, err
	case len(body) > maxPage:
		return nil, fmt.Errorf("%s %s: more than %d bytes", method, path, maxPage)
	case resp.StatusCode/100 != 2:
		return nil, fmt.Errorf("%s %s: status %d: %.300s", method, path, resp.StatusCode, body)
	}
	return body, nil
}

// Collect lets the server collect garbage and give memory back.
func (s *Server) Collect(ctx context.Context) error {
	_, err := s.ask(ctx, http.MethodPost, "/v1/gc")
	return err
}

// Metrics reads /metrics: values by series, as Prometheus writes them.
func (s *Server) Metrics(ctx context.Context) (map[string]float64, error) {
	page, err := s.ask(ctx, http.MethodGet, "/metrics")
	if err != nil {
		return nil, err
	}
	return parseMetrics(page), nil
}

// parseMetrics reads the Prometheus text format; lines that are not a series
// and a number are left out.
func parseMetrics(page []byte) map[string]float64 {
	values := make(map[string]float64)
	for line := range bytes.Lines(page) {
		at := bytes.LastIndexByte(bytes.TrimSpace(line), ' ')
		if at < 0 || line[0] == '#' {
			continue
		}
		if v, err := strconv.ParseFloat(string(bytes.TrimSpace(line[at:])), 64); err == nil {
			values[string(line[:at])] = v
		}
	}
	return values
}

// schemes are what a target's URL may begin with, and the port where it names
// none.
var schemes = map[string]struct {
	tls, tcp bool
	port     string
}{
	"ws":  {port: "80"},
	"wss": {tls: true, port: "443"},
	"tcp": {tcp: true, port: "7070"},
	"tls": {tls: true, tcp: true, port: "7070"},
}

// adminURL lets the admin API be named by its address alone.
func adminURL(admin string) string {
	if admin != "" && !strings.Contains(admin, "://") {
		admin = "http://" + admin
	}
	return strings.TrimSuffix(admin, "/")
}

// Take uses a server that runs already. target is the URL of the WebSocket, or
// tcp://host:port or tls://host:port; admin that of the admin API or empty.
func Take(ctx context.Context, target, admin, token string, pids []int) (*Server, error) {
	u, err := url.Parse(target)
	if err != nil {
		u = &url.URL{} // host:port without a scheme, mostly
	}
	how, ok := schemes[u.Scheme]
	if !ok || u.Host == "" {
		return nil, fmt.Errorf("target %q must begin with ws://, wss://, tcp:// or tls:// and name a host, like ws://127.0.0.1:8080/v1/ws", target)
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), how.port)
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", u.Hostname())
	if err != nil {
		return nil, fmt.Errorf("find target %q: %w", target, err)
	}
	s := &Server{Addr: net.JoinHostPort(ips[0].Unmap().String(), u.Port()), Path: u.Path, TLS: how.tls, TCP: how.tcp, Admin: adminURL(admin), Token: token, PIDs: pids}
	if s.Path == "" {
		s.Path = "/v1/ws"
	}
	for _, pid := range pids {
		if _, err := proc.Of(pid); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Ports for servers, and whose turn it is: servers that start side by side must
// not be given the same. Tests of other packages use those above (core/e2e/rig,
// core/redis/redistest).
const (
	firstPort = 10_000
	ports     = 2_000
)

var portTurn atomic.Uint32

func init() { portTurn.Store(uint32(os.Getpid())) } // several benchmarks at once begin apart

// freePorts returns addresses on loopback that were free a moment ago, below
// the ports that the kernel gives to outgoing connections.
func freePorts(ctx context.Context, count int) (addrs []string, err error) {
	var lc net.ListenConfig
	for tries := 0; len(addrs) < count; tries++ {
		if tries > ports {
			return nil, fmt.Errorf("no free port between %d and %d", firstPort, firstPort+ports)
		}
		addr := fmt.Sprintf("127.0.0.1:%d", firstPort+int(portTurn.Add(1))%ports)
		ln, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			continue
		}
		defer ln.Close() // all are held until the last is known
		addrs = append(addrs, addr)
	}
	return addrs, nil
}
