//go:build unix

// Package redistest starts a real redis-server for tests: on a free loopback
// port, with its files in a directory of the test, ended with the test. The
// server can be stopped, killed, paused and restarted on the same port with or
// without its data, which is what the failure tests of every package built on
// core/redis need.
//
// Methods are for the test's goroutine only; they end the test when the server
// does not do what was asked.
package redistest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Options say how the server keeps its data. The zero value keeps none.
type Options struct {
	AppendOnly  bool     // appendonly yes: data survives Stop, Kill and Restart
	AppendFsync string   // "always", "everysec" or "no"; "" is always
	Dir         string   // data directory; "" is a new t.TempDir()
	MaxMemory   string   // e.g. "4mb", with maxmemory-policy noeviction; "" is no bound
	Args        []string // more redis-server arguments, e.g. "--requirepass", "secret"
	TLS         TLS      // its servers speak TLS at Server.TLSAddr, among each other too

	cluster bool // it is a node of a cluster
}

// TLS are the files of a server that speaks TLS: its certificate and key, and
// the certificate of the authority that signs everybody's, clients included.
type TLS struct{ Cert, Key, CA string }

// Server is one redis-server on one port.
type Server struct {
	t     testing.TB
	opts  Options
	port  int
	tls   int // the port for TLS; 0: it speaks none
	bus   int // the port for the other nodes of its cluster; 0: it has none
	args  func(*Server) []string
	ready string // what it logs when it is

	cmd    *exec.Cmd
	ended  chan struct{} // closed when the process was waited for
	output *book
	paused bool
}

// Start starts a server and waits until it accepts connections. The test's
// cleanup kills it.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	return launch(t, o, serverArgs, "Ready to accept connections")
}

// launch starts a process on a free port and waits until it logs ready.
func launch(t testing.TB, o Options, args func(*Server) []string, ready string) *Server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatal("this test needs a redis-server on the PATH: apt-get install redis-server")
	}
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	s := &Server{t: t, opts: o, args: args, ready: ready}
	t.Cleanup(s.Kill)
	port := func() int { return FreePorts(t, firstPort, endPort, 1) }
	s.port = port()
	if s.speaksTLS() {
		s.tls = port()
	}
	if o.cluster {
		s.bus = port()
	}
	if err := s.start(); err != nil {
		t.Fatalf("start redis-server: %v", err)
	}
	return s
}

// serverArgs are the arguments of an ordinary server.
func serverArgs(s *Server) []string {
	fsync := s.opts.AppendFsync
	if fsync == "" {
		fsync = "always"
	}
	onOff := map[bool]string{true: "yes", false: "no"}
	args := []string{
		"--port", fmt.Sprint(s.port), "--bind", "127.0.0.1", "--dir", s.opts.Dir,
		"--unixsocket", "", "--daemonize", "no", "--logfile", "", "--save", "",
		"--appendonly", onOff[s.opts.AppendOnly], "--appendfsync", fsync,
		"--rdbcompression", "no", // so that DUMP shows a text that a key holds, whole
	}
	if s.opts.MaxMemory != "" {
		args = append(args, "--maxmemory", s.opts.MaxMemory, "--maxmemory-policy", "noeviction")
	}
	if s.opts.cluster {
		args = append(args, "--cluster-port", fmt.Sprint(s.bus))
	}
	for _, pair := range s.tlsSettings() {
		args = append(args, "--"+pair[0], pair[1])
	}
	return append(args, s.opts.Args...)
}

func (s *Server) speaksTLS() bool { return s.opts.TLS != TLS{} }

// tlsSettings are the names and values that have a server, or a sentinel, speak
// TLS beside the plain port, which Do uses.
func (s *Server) tlsSettings() [][2]string {
	if !s.speaksTLS() {
		return nil
	}
	return [][2]string{
		{"tls-port", fmt.Sprint(s.tls)}, {"tls-cert-file", s.opts.TLS.Cert}, {"tls-key-file", s.opts.TLS.Key},
		{"tls-ca-cert-file", s.opts.TLS.CA}, {"tls-auth-clients", "yes"}, {"tls-replication", "yes"},
	}
}

// peerPort is the port by which other servers reach this one.
func (s *Server) peerPort() int {
	if s.speaksTLS() {
		return s.tls
	}
	return s.port
}

// TLSAddr is the host:port where the server speaks TLS.
func (s *Server) TLSAddr() string { return fmt.Sprintf("127.0.0.1:%d", s.tls) }

// start runs the process and returns once it says that it is ready.
func (s *Server) start() error {
	cmd := exec.Command("redis-server", s.args(s)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd, s.ended, s.output, s.paused = cmd, make(chan struct{}), newBook(), false
	go s.output.follow(cmd, out, s.ended)
	if err := s.output.await(0, s.ready, 1, s.ended); err != nil {
		s.Kill()
		return err
	}
	return nil
}

// Addr is the server's host:port; it stays the same over restarts.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// URL is the server's address as core/redis wants it.
func (s *Server) URL() string { return "redis://" + s.Addr() }

// Dir is the directory that holds the server's data.
func (s *Server) Dir() string { return s.opts.Dir }

// Stop ends the server with SIGTERM, so that it writes what it still owes to
// its files, and waits for its end.
func (s *Server) Stop() { s.t.Helper(); s.end(syscall.SIGTERM) }

// Kill ends the server with SIGKILL and waits for its end. Killing a server
// that has ended is nothing.
func (s *Server) Kill() { s.t.Helper(); s.end(syscall.SIGKILL) }

func (s *Server) end(sig syscall.Signal) {
	s.t.Helper()
	if s.ended == nil {
		return
	}
	if s.paused && sig != syscall.SIGKILL {
		s.Resume()
	}
	select {
	case <-s.ended:
		return
	default:
	}
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Errorf("signal redis-server: %v", err)
	}
	select {
	case <-s.ended:
	case <-time.After(Patience):
		s.t.Errorf("redis-server has not ended %v after %v", Patience, sig)
	}
}

// Restart starts an ended server again on the same port, with whatever data
// its directory holds.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	if err := s.start(); err != nil {
		s.t.Fatalf("restart redis-server: %v", err)
	}
}

// Wipe deletes the data of an ended server, so that Restart begins empty.
func (s *Server) Wipe() {
	s.t.Helper()
	s.Kill()
	names, err := filepath.Glob(filepath.Join(s.opts.Dir, "*"))
	if err != nil {
		s.t.Fatalf("wipe redis data: %v", err)
	}
	for _, name := range names {
		if err := os.RemoveAll(name); err != nil {
			s.t.Fatalf("wipe redis data: %v", err)
		}
	}
}

// Pause freezes the server with SIGSTOP: connections stay open and nothing
// answers, as with a hung machine.
func (s *Server) Pause() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		s.t.Fatalf("pause redis-server: %v", err)
	}
	s.paused = true
}

// Resume lets a paused server go on; it then answers what has piled up.
func (s *Server) Resume() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		s.t.Fatalf("resume redis-server: %v", err)
	}
	s.paused = false
}

// Do sends one command over a connection of its own and returns the reply as
// text: a status, number or string as it is, an array as its elements joined
// by newlines. An error reply ends the test.
func (s *Server) Do(args ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	reply, err := do(ctx, s.Addr(), args)
	if err != nil {
		s.t.Fatalf("redis %s: %v", strings.Join(args, " "), err)
	}
	return reply
}
