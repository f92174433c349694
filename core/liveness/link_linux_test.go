package liveness_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/liveness"
	"parley/core/liveness/netlab"
)

// probes is for long runs by hand: go test -run BadLink -v -args -probes 30000 -heartbeat 15s.
var (
	probes    = flag.Int("probes", 900, "heartbeats to send over the bad link")
	heartbeat = flag.Duration("heartbeat", quick.Ping, "time between two of them")
)

// childEnv makes a process of this test binary a program of its own: one that
// can be frozen.
const childEnv = "PARLEY_TEST_LIVENESS_CHILD"

func TestMain(m *testing.M) {
	switch role, addr, _ := strings.Cut(os.Getenv(childEnv), " "); role {
	case "client":
		childClient(addr)
	case "server":
		childServer()
	default:
		flag.Parse()
		_ = flag.Set("test.parallel", "16") // most of these tests only wait
		goleak.VerifyTestMain(m)
	}
}

const patience = 5 * time.Minute

// quick is the default ladder with more heartbeats, so that a test is short.
var quick = liveness.Config{Ping: 4 * time.Second, Pong: 3 * time.Second}

// line is a server's end of a connection that carries pings and pongs, one
// number a line.
type line struct {
	liveness.Beat
	wheel  *liveness.Wheel
	conn   *net.TCPConn
	pings  atomic.Uint32
	pongs  atomic.Uint32
	asked  atomic.Int64 // Unix ns of the newest ping
	dead   chan liveness.Verdict
	ended  chan error // how reading ended
	silent bool       // sends no pings of its own: the test writes
}

func (l *line) Ping(seq uint32) {
	l.pings.Add(1)
	l.asked.Store(time.Now().UnixNano())
	if !l.silent {
		_ = l.conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = fmt.Fprintln(l.conn, seq)
	}
}

func (l *line) Look() (liveness.Evidence, error) {
	rc, err := l.conn.SyscallConn()
	if err != nil {
		return liveness.Evidence{}, err
	}
	return liveness.Look(rc)
}

func (l *line) Swept(liveness.Evidence) {}
func (l *line) Dead(v liveness.Verdict) { l.dead <- v; l.conn.Close() }

func (l *line) read() {
	in := bufio.NewScanner(l.conn)
	for in.Scan() {
		if seq, err := strconv.ParseUint(in.Text(), 10, 32); err == nil && l.wheel.Heard(&l.Beat, uint32(seq)) {
			l.pongs.Add(1)
		}
	}
	l.wheel.Remove(&l.Beat)
	l.ended <- in.Err()
}

// server accepts lines on ln and watches them.
type server struct {
	wheel *liveness.Wheel
	lines chan *line
	stop  func()
}

func serve(ln *net.TCPListener, cfg liveness.Config, silent bool) (*server, error) {
	w, err := liveness.New(cfg)
	if err != nil {
		return nil, err
	}
	s := &server{wheel: w, lines: make(chan *line, 4096)}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	var mu sync.Mutex
	var conns []*line
	all.Go(func() { _ = w.Run(ctx) })
	all.Go(func() {
		for {
			c, err := ln.AcceptTCP()
			if err != nil {
				return
			}
			_ = liveness.Apply(c, cfg)
			l := &line{wheel: w, conn: c, dead: make(chan liveness.Verdict, 1), ended: make(chan error, 1), silent: silent}
			l.Enforce()
			mu.Lock()
			conns = append(conns, l)
			mu.Unlock()
			w.Add(&l.Beat, l)
			all.Go(l.read)
			s.lines <- l
		}
	})
	s.stop = func() {
		cancel()
		ln.Close()
		mu.Lock()
		for _, l := range conns {
			l.conn.Close()
		}
		mu.Unlock()
		all.Wait()
	}
	return s, nil
}

// answer is the client's part: it brings each ping back until it is cut.
func answer(c io.ReadWriter) {
	in := bufio.NewScanner(c)
	for in.Scan() {
		if in.Text() != "" {
			_, _ = fmt.Fprintln(c, in.Text())
		}
	}
}

// stage is a lab with a server on side A.
type stage struct {
	*server
	t    *testing.T
	lab  *netlab.Lab
	addr string
}

func newStage(t *testing.T, cfg liveness.Config) *stage {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("network namespaces need root: run CI as root")
		}
		t.Skip("network namespaces need root")
	}
	lab, err := netlab.New(11)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lab.Close)
	ln, err := lab.A.Listen()
	if err != nil {
		t.Fatal(err)
	}
	srv, err := serve(ln, cfg, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.stop)
	return &stage{srv, t, lab, ln.Addr().String()}
}

// client connects a client of this process from side B.
func (s *stage) client() (client net.Conn, l *line) {
	s.t.Helper()
	c, err := s.lab.B.Dial(s.t.Context(), s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	var answering sync.WaitGroup
	answering.Go(func() { answer(c) })
	s.t.Cleanup(func() { c.Close(); answering.Wait() })
	return c, <-s.lines
}

// answered waits until the client has answered a ping, as it does while the
// path is whole.
func (s *stage) answered(l *line) {
	s.t.Helper()
	await(s.t, "a ping is answered", func() bool { return l.pongs.Load() > 0 })
}

// verdict waits for the end of a connection.
func (s *stage) verdict(l *line) liveness.Verdict {
	s.t.Helper()
	select {
	case v := <-l.dead:
		s.t.Logf("%v; %d pings unanswered, found %v after the newest; %v", v, v.Pings, time.Since(time.Unix(0, l.asked.Load())).Round(time.Millisecond), v.Evidence.LogValue())
		return v
	case <-time.After(patience):
		s.t.Fatal("the connection was not found dead")
		return liveness.Verdict{}
	}
}

func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); !cond(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited %v and it did not come true: %s", patience, what)
		}
	}
}

func TestBrokenPathIsFoundByTheKernelsEvidence(t *testing.T) {
	t.Parallel()
	down := netlab.Path{Down: true}
	tests := []struct {
		name string
		path netlab.Path // as it is before
		harm func(s *stage, client net.Conn)
	}{
		{"cut", netlab.Path{}, func(s *stage, _ net.Conn) { s.lab.Both(down) }},
		{"cut, 80 ms away", netlab.Path{Delay: 40 * time.Millisecond}, func(s *stage, _ net.Conn) { s.lab.Both(down) }},
		{"to the client only", netlab.Path{}, func(s *stage, _ net.Conn) { s.lab.AtoB(down) }},
		{"from the client only", netlab.Path{}, func(s *stage, _ net.Conn) { s.lab.BtoA(down) }},
		{"NAT forgot the flow", netlab.Path{}, func(s *stage, c net.Conn) {
			s.lab.Both(netlab.Path{Forgotten: map[netip.AddrPort]bool{netip.MustParseAddrPort(c.LocalAddr().String()): true}})
		}},
		{"firewall drops the flow", netlab.Path{}, func(s *stage, c net.Conn) {
			port := netip.MustParseAddrPort(c.LocalAddr().String()).Port()
			for _, side := range []*netlab.Side{s.lab.A, s.lab.B} {
				if err := side.NFT(s.t.Context(), fmt.Sprintf("add table inet lab\nadd chain inet lab in { type filter hook input priority 0 ; }\n"+
					"add rule inet lab in tcp sport %d drop\nadd rule inet lab in tcp dport %d drop\n", port, port)); err != nil {
					s.t.Fatal(err)
				}
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, quick)
			s.lab.Both(tt.path)
			c, l := s.client()
			s.answered(l)
			tt.harm(s, c)
			if v := s.verdict(l); v.Cause != liveness.CausePathDead || v.Evidence.Unacked == 0 || v.Pings != 1 {
				t.Errorf("got %+v, want path_dead after one ping", v)
			}
			s.lab.Both(netlab.Path{Delay: tt.path.Delay}) // who comes new is served
			_, again := s.client()
			s.answered(again)
		})
	}
}

// child starts this binary in a role, where start says.
func child(t *testing.T, role string, start func(*exec.Cmd) error) (cmd *exec.Cmd, in io.WriteCloser, out *bufio.Reader) {
	t.Helper()
	cmd = exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childEnv+"="+role)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, in, bufio.NewReader(pipe)
}

// signal sends a signal to a child.
func signal(t *testing.T, cmd *exec.Cmd, s syscall.Signal) {
	t.Helper()
	if err := cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func childClient(addr string) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	answer(c)
}

func TestFrozenClientIsFoundByItsSilence(t *testing.T) {
	t.Parallel()
	s := newStage(t, quick)
	cmd, _, _ := child(t, "client "+s.addr, s.lab.B.Start)
	l := <-s.lines
	s.answered(l)
	signal(t, cmd, syscall.SIGSTOP)
	if v := s.verdict(l); v.Cause != liveness.CauseFrozen || v.Evidence.Unacked != 0 || v.Pings != 2 {
		t.Errorf("got %+v, want frozen after two acknowledged pings", v)
	}
}

// A client that does not read is a slow consumer; limits.lag_seconds is for
// it, not the heartbeat.
func TestClosedWindowIsNotDeath(t *testing.T) {
	t.Parallel()
	s := newStage(t, quick)
	cmd, _, _ := child(t, "client "+s.addr, s.lab.B.Start)
	l := <-s.lines
	s.answered(l)
	signal(t, cmd, syscall.SIGSTOP)
	_ = l.conn.SetWriteBuffer(256 << 10)
	blank := make([]byte, 64<<10)
	for i := range blank {
		blank[i] = '\n'
	}
	for { // until both kernels are full, so that the window is closed
		_ = l.conn.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		if _, err := l.conn.Write(blank); errors.Is(err, os.ErrDeadlineExceeded) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	await(t, "the closed window is seen", func() bool { return s.wheel.Stats().Excused[liveness.ExcuseWindow] > 20 })
	before := l.pongs.Load()
	signal(t, cmd, syscall.SIGCONT)
	await(t, "it answers again", func() bool { return l.pongs.Load() > before })
	if len(l.dead) != 0 {
		t.Errorf("got %v for a client that only did not read", <-l.dead)
	}
}

func TestKernelTimersAreTheBackstop(t *testing.T) {
	t.Parallel()
	for _, mode := range []liveness.Mode{liveness.ModeKeepAlive, liveness.ModeBoth} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			s := newStage(t, liveness.Config{Mode: mode, Ping: 2 * time.Second, Pong: time.Second,
				KeepAliveIdle: time.Second, KeepAliveInterval: time.Second, KeepAliveCount: 3, UserTimeout: 6 * time.Second})
			_, l := s.client()
			s.answered(l)
			s.lab.Both(netlab.Path{Down: true})
			select {
			case err := <-l.ended:
				if !errors.Is(err, syscall.ETIMEDOUT) || len(l.dead) != 0 {
					t.Errorf("got %v, verdicts %d, want the kernel's ETIMEDOUT and none", err, len(l.dead))
				}
			case <-time.After(patience):
				t.Error("TCP_USER_TIMEOUT did not end it")
			}
		})
	}
}

func TestBadLinkKillsNobody(t *testing.T) {
	t.Parallel()
	cfg := quick
	cfg.Ping = *heartbeat
	s := newStage(t, cfg)
	clients := max(225, *probes/12)
	rounds := uint32(*probes / clients)
	var lines []*line
	for range clients {
		_, l := s.client()
		lines = append(lines, l)
	}
	bad := netlab.Path{Loss: 0.05, Delay: 20 * time.Millisecond, Spike: 0.02, SpikeMin: 800 * time.Millisecond, SpikeMax: 1200 * time.Millisecond}
	s.lab.Both(bad)
	for _, l := range lines {
		await(t, "every client was asked often enough", func() bool { return l.pings.Load() >= rounds || len(l.dead) > 0 })
	}
	for i, l := range lines {
		select {
		case v := <-l.dead:
			t.Errorf("client %d: got %v, %v, want it kept", i, v, v.Evidence.LogValue())
		default:
		}
	}
	toB, toA := s.lab.Counts()
	t.Logf("%d pings over %+v and %+v: %+v excused", s.wheel.Stats().Pings, toB, toA, s.wheel.Stats().Excused)
}

// childServer serves on loopback, says where, and at the end of its input what
// it did.
func childServer() {
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	s, err := serve(ln, quick, false)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(ln.Addr())
	enc := json.NewEncoder(os.Stdout)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		_ = enc.Encode(s.wheel.Stats())
	}
	s.stop()
}

// A server that stood still finds all pongs waiting, and blames nobody.
func TestStarvedServerBlamesNobody(t *testing.T) {
	t.Parallel()
	cmd, in, out := child(t, "server", (*exec.Cmd).Start)
	addr, err := out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	stats := func() (s liveness.Stats) {
		t.Helper()
		if _, err := io.WriteString(in, "\n"); err != nil {
			t.Fatal(err)
		}
		text, err := out.ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(text, &s)
		}
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	const clients = 200
	var answering sync.WaitGroup
	for range clients {
		c, err := net.Dial("tcp", strings.TrimSpace(addr))
		if err != nil {
			t.Fatal(err)
		}
		answering.Go(func() { answer(c) })
		t.Cleanup(func() { c.Close(); answering.Wait() })
	}
	var before liveness.Stats
	await(t, "everyone was asked", func() bool { before = stats(); return before.Pings >= clients })
	signal(t, cmd, syscall.SIGSTOP)
	time.Sleep(7 * time.Second) // the length of the stall is the test
	signal(t, cmd, syscall.SIGCONT)
	pings := before.Pings
	await(t, "everyone was asked again", func() bool { before = stats(); return before.Pings >= pings+2*clients })
	if before.Connections != clients || before.Late == 0 {
		t.Errorf("got %+v, want all kept and the lateness noticed", before)
	}
	for cause, n := range before.Dead {
		if n != 0 {
			t.Errorf("got %d connections closed as %s, want none", n, cause)
		}
	}
	t.Logf("%d pings, late %d times, excused %v", before.Pings, before.Late, before.Excused)
}

func TestLookSeesBothQueues(t *testing.T) {
	a, b := tcpPair(t)
	rc, err := a.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Write([]byte("unread")); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write([]byte("acknowledged")); err != nil {
		t.Fatal(err)
	}
	var e liveness.Evidence
	await(t, "the kernel has both", func() bool {
		if e, err = liveness.Look(rc); err != nil {
			t.Fatal(err)
		}
		return e.Unread == 6 && e.Queued == 0
	})
	if !e.Known || e.Acked < 12 || e.Unacked != 0 || e.NotSent != 0 || e.RTT == 0 || e.SegmentsOut == 0 || e.DataIn != 1 || e.Poor() {
		t.Errorf("got %v, want what was sent and what is unread", e.LogValue())
	}
	a.Close()
	if _, err := liveness.Look(rc); err == nil {
		t.Error("closed connection: got no error")
	}
}

// What one look at a suspect, or the sweep's at anyone, costs.
func BenchmarkLook(b *testing.B) {
	s, _ := tcpPair(b)
	rc, err := s.SyscallConn()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := liveness.Look(rc); err != nil {
			b.Fatal(err)
		}
	}
}
