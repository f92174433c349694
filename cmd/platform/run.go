package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"parley/core/moderation"
	"parley/policy/webhook"
)

func runCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the server",
		Long: "Run the server until SIGTERM or SIGINT: it then stops accepting, tells clients to reconnect,\n" +
			"finishes what is under way and exits 0. While it starts it says which step was under way, and exits 0. A second\n" +
			"signal ends it at once.",
		Args: cobra.NoArgs,
	}
	load := configured(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		log := slog.New(cfg.Log.Handler(os.Stderr))
		s, err := newServer(c.Context(), cfg, log)
		var early *stopped
		if errors.As(err, &early) {
			log.Info("stopped while starting", "step", early.step, "reason", early.cause, "after", sinceExec().Round(time.Millisecond))
			if early.err != nil && !errors.Is(early.err, context.Canceled) {
				log.Info("what the step came to", "error", early.err)
			}
			return nil
		}
		if err != nil {
			return err
		}
		return s.run(c.Context(), func() { s.announce(c.OutOrStdout()) })
	}
	return c
}

// announce prints where the server is and what to try.
func (s *server) announce(out io.Writer) {
	fmt.Fprintln(out, versionText())
	web, ws := s.schemes()
	fmt.Fprintf(out, "chat   %s://%s/ (WebSocket at %s://%s/v1/ws)\n", web, s.httpLn.Addr(), ws, s.httpLn.Addr())
	if s.tcpLn != nil {
		fmt.Fprintf(out, "tcp    %s%s\n", s.tcpLn.Addr(), map[bool]string{true: " (TLS)"}[s.secureTCP()])
	}
	if s.adminLn != nil {
		fmt.Fprintf(out, "admin  http://%s/v1/status\n", s.adminLn.Addr())
	}
	if s.hookLn != nil {
		fmt.Fprintf(out, "hooks  %s://%s%s\n", web, s.hookLn.Addr(), webhook.Path)
	}
	fmt.Fprintf(out, "ready in %d ms\n", sinceExec().Milliseconds())
	s.suggest(out)
}

// schemes are what the URLs of the HTTP listener begin with.
func (s *server) schemes() (web, ws string) {
	if s.certs != nil && s.cfg.TLS.HTTP {
		return "https", "wss"
	}
	return "http", "ws"
}

// secureTCP reports whether the TCP listener speaks TLS.
func (s *server) secureTCP() bool { return s.certs != nil && s.cfg.TLS.TCP }

// suggest prints what a newcomer can try, fitting what is configured.
func (s *server) suggest(out io.Writer) {
	web, _ := s.schemes()
	fmt.Fprintf(out, "\nTry next:\n  open %s://%s/ in two browser tabs and talk\n", web, s.httpLn.Addr())
	if s.tcpLn != nil {
		host, port := splitAddr(s.tcpLn.Addr())
		if s.secureTCP() {
			fmt.Fprintf(out, "  openssl s_client -quiet -connect %s, then type\n", s.tcpLn.Addr())
		} else {
			fmt.Fprintf(out, "  nc %s %s, then type\n", host, port)
		}
		fmt.Fprintln(out, `    {"type":"hello","guest":"tess"}`)
		fmt.Fprintln(out, `    {"type":"join","room":"lobby"}`)
		fmt.Fprintln(out, `    {"type":"send","room":"lobby","text":"hello from a terminal"}`)
	}
	if slices.ContainsFunc(s.catalog.Judges(), func(j moderation.Judge) bool { return j.Name() == "wordlist" }) {
		fmt.Fprintln(out, "  say a word the wordlist plugin masks: darn")
	}
	if s.adminLn != nil {
		fmt.Fprintf(out, "  curl http://%s/v1/policy/status\n", s.adminLn.Addr())
	}
	fmt.Fprintln(out, "  stop with Ctrl-C")
}

// group runs the server's parts and stops them in order.
type group struct {
	wg   sync.WaitGroup
	mu   sync.Mutex
	err  error
	fail context.CancelCauseFunc
}

// start runs f under ctx; an error other than ctx's ends the whole server.
func (g *group) start(ctx context.Context, name string, f func(context.Context) error) {
	g.wg.Go(func() {
		err := f(ctx)
		if err == nil || errors.Is(err, context.Canceled) {
			return
		}
		err = fmt.Errorf("%s: %w", name, err)
		g.mu.Lock()
		if g.err == nil {
			g.err = err
		}
		g.mu.Unlock()
		g.fail(err)
	})
}

// run serves until ctx ends or a part fails, then shuts down in the order
// opposite to the start: accept nothing, tell clients, finish appends, close
// the store.
func (s *server) run(ctx context.Context, ready func()) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	g := &group{fail: fail}
	// Parts that must outlive the clients run under their own context.
	inner, stopInner := context.WithCancel(context.WithoutCancel(ctx))
	defer stopInner()

	g.start(inner, "rooms", s.hub.Run)
	g.start(inner, "presence", s.presence.Run)
	if s.here != nil {
		g.start(inner, "presence on other nodes", s.here.Run)
	}
	if s.absent != nil {
		g.start(inner, "messages for absent people", s.absent.Run)
	}
	g.start(inner, "heartbeat", s.wheel.Run)
	s.identities.begin(inner)
	g.start(inner, "names", s.identities.run)
	g.start(ctx, "plugins", s.catalog.Run) // they judge on without it; a trial must not hold up the shutdown
	if s.share != nil {
		g.start(ctx, "sharing of plugins", s.share.Run)
	}
	g.start(inner, "policy", s.policy.Run)
	g.start(inner, "decision log", s.decides.Run)
	g.start(inner, "runtime tuning", s.tuner.Run)
	if s.evidence != nil {
		g.start(inner, "evidence", s.evidence.Run)
	}
	if s.certs != nil {
		g.start(inner, "certificate", s.certs.Run)
	}
	if s.runJournal != nil {
		g.start(inner, "journal", s.runJournal)
	}
	if s.nodes != nil {
		g.start(inner, "nodes", s.nodes.Run)
		g.start(inner, "objects", s.objects.Run)
	}
	g.start(inner, "rooms of the configuration", s.ensureRooms)
	if err := s.firstRooms(inner); err != nil {
		fail(err)
	}
	for _, in := range s.intakes {
		g.start(inner, "parked connections", in.Run)
	}
	g.start(ctx, "sessions", s.sessions.Run)
	g.start(ctx, "chat listener", s.front.Run)
	g.start(ctx, "web listener", func(context.Context) error { return ignoreClosed(s.http.Serve(s.front)) })
	if s.tcpLn != nil {
		g.start(ctx, "tcp listener", func(ctx context.Context) error { return s.tcp.Run(ctx, s.tcpLn) })
	}
	if s.hookLn != nil {
		g.start(ctx, "webhook listener", func(context.Context) error { return ignoreClosed(s.hookHTTP.Serve(s.hookLn)) })
	}
	if s.adminLn != nil {
		g.start(inner, "admin listener", func(context.Context) error { return ignoreClosed(s.adminHTTP.Serve(s.adminLn)) })
	}
	if ctx.Err() == nil {
		ready()
	}
	<-ctx.Done()
	s.log.Info("shutting down", slog.Any("reason", context.Cause(ctx)), slog.Int("connections", s.sessions.Open()))
	s.stop()
	stopInner()
	g.wg.Wait()
	err := s.close()
	g.mu.Lock()
	defer g.mu.Unlock()
	return errors.Join(g.err, err)
}

// stop ends the clients' side: no new connections, every client told, its last
// commands finished.
func (s *server) stop() {
	drain := s.cfg.Shutdown.Drain
	ctx, cancel := context.WithTimeout(context.Background(), drain+time.Second)
	defer cancel()
	_ = s.front.Close()
	if s.tcpLn != nil {
		_ = s.tcpLn.Close()
	}
	if s.hookHTTP != nil {
		_ = s.hookHTTP.Shutdown(ctx)
		_ = s.hookHTTP.Close()
	}
	s.sessions.Drain(ctx)
	_ = s.http.Shutdown(ctx)
	left := make(chan struct{})
	go func() { // ends with the readers, whose sockets are closed by now
		s.ws.Wait()
		s.tcp.Wait()
		close(left)
	}()
	select {
	case <-left:
	case <-ctx.Done():
		s.log.Warn("some connections did not end in time", slog.Int("connections", s.sessions.Open()))
		s.sessions.Abort()
		<-left
	}
	s.sessions.Close()
	if s.adminHTTP != nil {
		_ = s.adminHTTP.Shutdown(ctx)
		_ = s.adminHTTP.Close()
	}
}
