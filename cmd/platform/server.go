package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	redisabsent "parley/core/absent/redis"
	"parley/core/admin"
	"parley/core/archive"
	"parley/core/auth"
	"parley/core/chat"
	"parley/core/cluster"
	"parley/core/cluster/objects"
	"parley/core/config"
	"parley/core/evidence"
	"parley/core/journal"
	"parley/core/liveness"
	"parley/core/metrics"
	"parley/core/moderation"
	"parley/core/presence"
	redispresence "parley/core/presence/redis"
	"parley/core/redis"
	"parley/core/room"
	"parley/core/session"
	"parley/core/state"
	"parley/core/transport/certs"
	"parley/core/transport/intake"
	"parley/core/transport/proxy"
	"parley/core/transport/stream"
	"parley/core/transport/tcp"
	"parley/core/transport/ws"
	"parley/core/tuning"
	"parley/core/web"
	"parley/plugins"
	"parley/plugins/share"
	"parley/policy/decisionlog"
	"parley/policy/source"
	"parley/policy/webhook"
	"parley/sdk/abi"
)

// Bounds of the HTTP listeners.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second // a request with its body; no page takes one
	writeTimeout      = 30 * time.Second // the largest file of the web client over a slow line
	idleTimeout       = time.Minute
	maxHeaderBytes    = 16 << 10
	storeTimeout      = 5 * time.Second // one command's work on the store
	// sendMargin is how much longer than one call to Redis a send may take, all
	// its calls together: by default it is answered within 2 s.
	sendMargin = 400 * time.Millisecond
)

// server is every part of a node, made in the order of its fields.
type server struct {
	cfg config.Config
	log *slog.Logger

	redis      *redis.Client // nil for the embedded store, as are the three below
	nodes      *cluster.Registry
	objects    *objects.Store
	runJournal func(context.Context) error
	forgotten  chan struct{} // one slot; see mayHaveForgotten
	journal    journal.Journal
	load       *loadMeter
	identities *identities
	closers    []func() error // run in reverse order

	tuner    *tuning.Tuner
	decides  *decisionlog.Log
	policy   *source.Source
	hook     *webhook.Handler // nil where no calls are taken
	catalog  *plugins.Catalog
	share    *share.Share     // nil where this node's plugins are its own
	evidence *evidence.Keeper // nil where none is kept
	stage    *moderation.Stage
	hub      *room.Hub
	presence *presence.Tracker
	here     *redispresence.Link  // nil without other nodes
	absent   *redisabsent.Carrier // with here
	wheel    *liveness.Wheel
	sessions *session.Server
	certs    *certs.Keeper // nil without TLS
	ws       *ws.Handler
	tcp      *tcp.Server

	http, adminHTTP        *http.Server
	hookHTTP               *http.Server     // nil where calls are taken at httpLn, or not at all
	intakes                []*intake.Intake // of both transports
	front                  *ws.Front        // between httpLn and http
	httpLn, tcpLn, adminLn *stream.Listener // the latter two may be nil
	hookLn                 *stream.Listener // with hookHTTP
}

// stopped says that ctx ended while the server was built.
type stopped struct {
	step  string
	cause error // why ctx ended
	err   error // what the step answered; nil where it had its end
}

func (e *stopped) Error() string { return fmt.Sprintf("stopped while %s: %v", e.step, e.cause) }
func (e *stopped) Unwrap() error { return e.cause }

// newServer builds everything and starts nothing but what a constructor of a
// store needs. On error, *stopped where ctx has ended, whatever was opened is closed.
func newServer(ctx context.Context, cfg config.Config, log *slog.Logger) (_ *server, err error) {
	s := &server{cfg: cfg, log: log, forgotten: make(chan struct{}, 1)}
	s.load = &loadMeter{s: s}
	defer func() {
		if err != nil {
			_ = s.close()
		}
	}()
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("make data_dir: %w", err)
	}
	for _, b := range []struct {
		step string // of the start, for people: "stopped while ..."
		do   func(context.Context) error
	}{
		{"setting the runtime up", s.openTuner}, {"opening the store", s.openJournal}, {"preparing to join the other nodes", s.openCluster},
		{"loading the policy", s.openPolicy}, {"preparing the webhook", s.openHook}, {"loading the plugins", s.openPlugins}, {"opening the evidence", s.openEvidence},
		{"opening what knows people and rooms", s.openChat}, {"opening the listeners", s.openListeners}, {"preparing the admin API", s.openAdmin},
	} {
		err := b.do(ctx)
		if ctx.Err() != nil {
			return nil, &stopped{b.step, context.Cause(ctx), err}
		}
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// close closes the stores, the last opened first. It may be called twice.
func (s *server) close() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	s.closers = nil
	return errors.Join(errs...)
}

func (s *server) data(name string) string { return filepath.Join(s.cfg.DataDir, name) }

func (s *server) openPlugins(ctx context.Context) error {
	// Elsewhere a folder that is missing may be one that is not mounted.
	if in, err := filepath.Rel(s.cfg.DataDir, s.cfg.Plugins.Dir); err == nil && s.cfg.Plugins.Dir != "" && filepath.IsLocal(in) {
		if err := os.MkdirAll(s.cfg.Plugins.Dir, 0o700); err != nil {
			return fmt.Errorf("make plugins.dir: %w", err)
		}
	}
	c, err := plugins.New(pluginConfig(s.cfg), s.log)
	if err != nil {
		return err
	}
	s.catalog = c
	s.closers = append(s.closers, c.Close)
	if s.nodes != nil && s.cfg.Plugins.Share && s.cfg.Plugins.Dir != "" {
		sc := share.Defaults()
		sc.Plugins = pluginConfig(s.cfg)
		if s.share, err = share.New(sc, c, s.objects, s.nodes, s.log); err != nil {
			return err
		}
		_ = s.share.Open(ctx, c.Open)
		return ctx.Err()
	}
	_ = c.Open(ctx) // it has logged each bad module by name; the others judge
	return ctx.Err()
}

func pluginConfig(cfg config.Config) plugins.Config {
	c := plugins.Defaults()
	c.Dir = cfg.Plugins.Dir
	c.CacheDir = filepath.Join(cfg.DataDir, "plugin-cache")
	c.StateDir = filepath.Join(cfg.DataDir, "plugin-state")
	c.Replaced.For = 0
	switch originals, decisions := cfg.Evidence.Keep != string(evidence.KeepNone), cfg.Evidence.Decisions.Keep; {
	case !originals && !decisions:
		c.Replaced.Count = 0 // nothing to explain
	case !decisions:
		c.Replaced.For = cfg.Evidence.Retention
	case !originals:
		c.Replaced.For = cfg.Evidence.Decisions.Retention
	case cfg.Evidence.Retention > 0 && cfg.Evidence.Decisions.Retention > 0: // 0 is for ever
		c.Replaced.For = max(cfg.Evidence.Retention, cfg.Evidence.Decisions.Retention)
	}
	c.GoFuel = uint64(cfg.Plugins.Fuel)
	c.Fuel = min(c.Fuel, c.GoFuel)
	c.GoMemoryBytes = int(cfg.Plugins.MemoryBytes)
	c.MemoryBytes = min(c.MemoryBytes, c.GoMemoryBytes)
	c.MaxPlugins = cfg.Plugins.Max
	c.OnError = map[string]abi.Verdict{"open": abi.Allow, "closed": abi.Deny, "hold": abi.Hold}[cfg.Plugins.OnError]
	q := cfg.Plugins.Quarantine
	c.FaultLimit, c.FaultWindow, c.ProbeFirst, c.ProbeMost, c.ProbesGood = q.Faults, q.Window, q.FirstProbe, q.LastProbe, q.GoodProbes
	c.RequireSignature = cfg.Plugins.RequireSignature
	for _, text := range cfg.Plugins.TrustedKeys {
		if key, err := plugins.ParseKey(text); err == nil { // config has checked them
			c.TrustedKeys = append(c.TrustedKeys, key)
		}
	}
	trial(&c)
	return c
}

// openChat makes the chat core on top of journal, policy and plugins.
func (s *server) openChat(context.Context) error {
	l := s.cfg.Limits
	rc := room.Defaults()
	rc.LagBytes, rc.LagTime = int64(l.LagBytes), time.Duration(l.LagSeconds)*time.Second
	hub, err := room.New(rc, s.journal, s.log)
	if err != nil {
		return err
	}
	wheel, err := liveness.New(livenessConfig(s.cfg))
	if err != nil {
		return err
	}
	mc := moderation.Defaults()
	var keeper session.Evidence // without evidence it must be nil, and not a nil *Keeper
	if s.evidence != nil {
		mc.Keep, keeper = evidence.Mode(s.cfg.Evidence.Keep).Wants, s.evidence
	}
	s.stage, err = moderation.New(mc, s.catalog)
	if err != nil {
		return err
	}
	authenticator, err := s.openAuth()
	if err != nil {
		return err
	}
	people, err := s.openPresence()
	if err != nil {
		return err
	}
	carrier, err := s.openAbsent()
	if err != nil {
		return err
	}
	s.hub, s.wheel = hub, wheel
	s.sessions, err = session.New(session.Config{
		FrameBytes: int(l.FrameBytes), TextBytes: int(l.TextBytes),
		Connections: l.Connections, ConnectionsPerIP: l.ConnectionsPerIP, ConnectionsPerUser: l.ConnectionsPerUser,
		AcceptsPerSecond: l.AcceptsPerSecond, CommandsPerSecond: l.CommandsPerSecond, CommandsBurst: l.CommandsBurst,
		RoomsPerConnection: l.RoomsPerConnection, HistoryEntries: l.HistoryEntries, HandshakeTimeout: l.HandshakeTimeout, PingsPerSecond: l.PingsPerSecond,
		ReconnectJitter: s.cfg.Shutdown.ReconnectJitter, Heartbeat: s.cfg.Liveness.Ping, StoreTimeout: storeTimeout, SendTimeout: s.sendTimeout(), ReviewAge: l.ReviewAge,
		NotifyAbsent: s.cfg.Absent.Enabled,
	}, session.Deps{
		Hub: hub, Journal: s.journal, Gate: s.policy, Stage: s.stage, Signals: moderation.NewTracker(trackedSpeakers),
		Auth: authenticator, Presence: s.presence, Wheel: wheel, Evidence: keeper, People: people, Absent: carrier, Spread: s.spread(), Rooms: s.cfg.RoomSettings(), Log: s.log,
	})
	if err == nil && s.absent != nil {
		s.absent.OnCalled(s.sessions.Called)
	}
	return err
}

// trackedSpeakers bounds whose recent rate plugins are told, per node.
const trackedSpeakers = 16384

// sweepTime is in which the kernel is asked about every connection once.
const sweepTime = 5 * time.Minute

func livenessConfig(cfg config.Config) liveness.Config {
	l := cfg.Liveness
	return liveness.Config{Mode: l.Mode, Ping: l.Ping, Pong: l.Pong, Sweep: sweepTime, KeepAliveIdle: l.KeepAliveIdle, KeepAliveInterval: l.KeepAliveInterval,
		KeepAliveCount: l.KeepAliveCount, UserTimeout: l.UserTimeout}
}

// wsPath is where WebSockets are served.
const wsPath = "/v1/ws"

func (s *server) openListeners(ctx context.Context) (err error) {
	lc := livenessConfig(s.cfg)
	tune := func(c *net.TCPConn) {
		if err := liveness.Apply(c, lc); err != nil {
			s.log.Debug("connection keeps the system's keepalive", slog.Any("error", err))
		}
		if n := int(s.cfg.Limits.SendBufferBytes); n > 0 {
			if err := c.SetWriteBuffer(n); err != nil {
				s.log.Debug("connection keeps the system's send buffer", slog.Any("error", err))
			}
		}
	}
	bequeath := func(rc syscall.RawConn) error {
		if err := liveness.Bequeath(rc, lc); err != nil {
			return err
		}
		return stream.SetSendBuffer(rc, int(s.cfg.Limits.SendBufferBytes))
	}
	if err := s.openCerts(); err != nil {
		return err
	}
	proxies, err := proxy.Parse(s.cfg.Proxy.Trusted)
	if err != nil {
		return fmt.Errorf("proxy.trusted: %w", err)
	}
	front := stream.Options{Bequeath: bequeath, Tune: tune, Deadline: s.cfg.Limits.HandshakeTimeout}
	wsIntake, err := s.newIntake()
	if err != nil {
		return err
	}
	tcpIntake, err := s.newIntake()
	if err != nil {
		return err
	}
	forwarding := proxies
	if s.cfg.Proxy.HTTP == "protocol" { // the PROXY header has named the client, whose own X-Forwarded-For counts for nothing
		forwarding = nil
	}
	s.ws = ws.New(ws.Config{Intake: wsIntake, Origins: s.cfg.Origins, Proxies: forwarding, Deflate: s.cfg.WebSocket.Deflate}, s.sessions, s.log)
	s.tcp = tcp.New(tcpIntake, s.sessions, s.log)
	mux := http.NewServeMux()
	mux.Handle(wsPath, s.ws)
	if s.hook != nil && s.cfg.Policy.Git.Webhook.Listen == "" {
		mux.Handle(webhook.Path, s.hook)
	}
	mux.Handle("/", web.Handler(web.Config{Rooms: publicRooms(s.cfg)}))
	s.http = s.chatServer(mux)
	s.http.ConnContext, s.http.ConnState = ws.Context, ws.State
	if s.httpLn, err = s.listen(ctx, "listen", s.cfg.Listen, s.httpOptions(front, proxies)); err != nil {
		return err
	}
	s.front = s.ws.Front(s.httpLn, wsPath)
	if s.cfg.TCP.Listen != "" {
		if s.tcpLn, err = s.listen(ctx, "tcp.listen", s.cfg.TCP.Listen, s.tcpOptions(front, proxies)); err != nil {
			return err
		}
	}
	if err := s.openHookListener(ctx, stream.Options{Bequeath: bequeath, Tune: tune, Admit: s.sessions.Visit}); err != nil {
		return err
	}
	if s.cfg.Admin.Listen != "" {
		s.adminLn, err = s.listen(ctx, "admin.listen", s.cfg.Admin.Listen, stream.Options{Bequeath: bequeath, Tune: tune})
	}
	return err
}

// newIntake makes what reads the connections of one listener; run runs it.
func (s *server) newIntake() (*intake.Intake, error) {
	in, err := intake.New(s.cfg.Transport.Parking)
	if err != nil {
		return nil, fmt.Errorf("transport.parking: %w", err)
	}
	if len(s.intakes) == 0 && s.cfg.Transport.Parking && !in.Parks() {
		s.log.Warn("connections are not parked: transport.parking needs epoll, which this system does not have")
	}
	s.intakes = append(s.intakes, in)
	return in, nil
}

// httpOptions are those of the HTTP listener. It speaks HTTP/1.1 alone: a
// WebSocket has a connection of its own there, which its handler takes over,
// and HTTP/2 has no way to do that. Connections of a proxy that names its
// clients by X-Forwarded-For are counted by client, with each upgrade.
func (s *server) httpOptions(opt stream.Options, proxies proxy.Networks) stream.Options {
	opt.Admit = s.sessions.Visit
	if s.cfg.Proxy.HTTP == "protocol" {
		opt.Proxies = proxies
	} else if len(proxies) > 0 {
		opt.Admit = func(ip netip.Addr) (func(), bool) {
			if proxies.Contain(ip) {
				return func() {}, true
			}
			return s.sessions.Visit(ip)
		}
	}
	if s.certs != nil && s.cfg.TLS.HTTP {
		opt.TLS = s.certs.Server("http/1.1")
	}
	return opt
}

// tcpOptions are those of the TCP listener, whose server counts by itself.
func (s *server) tcpOptions(opt stream.Options, proxies proxy.Networks) stream.Options {
	if s.cfg.Proxy.TCP == "protocol" {
		opt.Proxies = proxies
	}
	if s.certs != nil && s.cfg.TLS.TCP {
		opt.TLS = s.certs.Server()
	}
	return opt
}

// openCerts reads the certificate of the public listeners, where there is one.
func (s *server) openCerts() (err error) {
	if s.cfg.TLS.On() {
		s.certs, err = certs.New(certsConfig(s.cfg), s.log)
	}
	return err
}

func certsConfig(cfg config.Config) certs.Config {
	c := certs.Defaults()
	c.CertFile, c.KeyFile = cfg.TLS.CertFile, cfg.TLS.KeyFile
	if cfg.TLS.MinVersion == "1.3" {
		c.MinVersion = tls.VersionTLS13
	}
	return c
}

func (s *server) listen(ctx context.Context, key, addr string, opt stream.Options) (*stream.Listener, error) {
	ln, err := stream.Listen(ctx, addr, opt)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err // without the address, which is said here once
		}
		return nil, fmt.Errorf("%s %s: %w; free the address, or choose another with --%s", key, addr, err, key)
	}
	s.closers = append(s.closers, func() error { return ignoreClosed(ln.Close()) })
	return ln, nil
}

// chatServer serves the public side.
func (s *server) chatServer(h http.Handler) *http.Server {
	srv := s.httpServer(h)
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true)
	srv.WriteTimeout = writeTimeout // not for admin: a CPU profile takes its time
	return srv
}

// httpServer serves h. Its deadlines end with the upgrade to a WebSocket
// (net/http takes them off when a connection is hijacked).
func (s *server) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

func (s *server) openAdmin(context.Context) error {
	if s.adminLn == nil {
		return nil
	}
	load, file := auth.LoadAdminToken, s.cfg.Admin.TokenFile
	if file == "" {
		load, file = auth.LoadOrCreateAdminToken, s.data("admin.token")
	}
	token, err := load(file)
	if err != nil {
		return err
	}
	var records admin.Evidence
	if s.evidence != nil {
		records = s.evidence
	}
	var pinning admin.Pinning
	if s.policy.FromGit() {
		pinning = s.policy
	}
	var asked admin.Gate
	if s.cfg.Admin.AskPolicy {
		asked = s.policy
	}
	reg := metrics.New(s.log)
	if err := reg.Add(s.metrics()...); err != nil {
		return err
	}
	var notes archive.Notes // without Redis it must be nil, and not a nil *Carrier
	if s.absent != nil {
		notes = s.absent
	}
	s.adminHTTP = s.httpServer(admin.New(admin.Deps{
		Token: token, Metrics: reg.Handler(), Hub: s.hub, Journal: s.journal, Create: s.sessions, Plugins: s.catalog, Log: s.log, Ready: s.notReady,
		Decide: s.sessions, Why: s.sessions, Erase: s.sessions, Absent: notes, Version: versionText(), Evidence: records, Replay: s.stage, Decisions: s.decides, Policy: policyAdmin{s.policy}, Pin: pinning, Gate: asked, Notes: s.notes,
		Status: map[string]func() any{
			"status":        func() any { return s.status() },
			"diag/tcp":      func() any { return s.sessions.WorstPaths() },
			"policy/status": func() any { return s.policy.Status() },
			"nodes":         func() any { return map[string]any{"nodes": s.nodeTable()} },
		},
	}))
	s.adminHTTP.RegisterOnShutdown(s.decides.EndFollowers)
	return nil
}

// notReady says why this node should get no clients.
func (s *server) notReady(ctx context.Context) (why []string) {
	if s.sessions.Draining() {
		why = append(why, "the node is shutting down")
	}
	if err := s.journal.Healthy(ctx); err != nil {
		why = append(why, "the store cannot take messages: "+err.Error())
	}
	if behind := s.policy.Behind(); behind != "" {
		why = append(why, behind)
	}
	if s.share != nil {
		why = append(why, s.share.NotReady()...)
	}
	return why
}

// notes are what operators should know of a node that serves.
func (s *server) notes() []string {
	notes := s.policy.Notes()
	if j, ok := s.journal.(interface{ Notes() []string }); ok { // a Redis of many primaries
		notes = append(notes, j.Notes()...)
	}
	if s.share != nil {
		notes = append(notes, s.share.Notes()...)
	}
	if err := s.catalog.Folder(); err != nil {
		notes = append(notes, err.Error())
	}
	return append(notes, s.diskNotes()...)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func splitAddr(a net.Addr) (host, port string) {
	host, port, _ = net.SplitHostPort(a.String())
	return host, port
}

// publicRooms are the configured rooms that the web client offers to visitors.
func publicRooms(cfg config.Config) (ids []chat.RoomID) {
	for _, r := range cfg.Rooms {
		if r.Visibility == state.Public {
			ids = append(ids, r.ID)
		}
	}
	return ids
}
