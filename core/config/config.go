package config

import (
	"io"
	"log/slog"
	"time"

	"parley/core/chat"
	"parley/core/liveness"
	"parley/core/redis"
	"parley/core/state"
)

// Config is the whole configuration of a server. The doc tag of each field is
// its documentation; zero says what 0 or the empty text means and that it is
// allowed; min, max, enum and check bound the value (see schema.go).
type Config struct {
	Listen    string    `yaml:"listen" check:"addr" doc:"Address of the HTTP listener: WebSocket at /v1/ws, web client at /."`
	TCP       TCP       `yaml:"tcp" doc:"Protocol v1 as one JSON object a line, usable by hand with nc."`
	Admin     Admin     `yaml:"admin" doc:"The operator's HTTP API, on a listener of its own."`
	TLS       TLS       `yaml:"tls" doc:"TLS on the HTTP and the TCP listener, from one certificate. Changed files are read again by themselves; a pair that cannot be used is refused and the old one stays."`
	DataDir   string    `yaml:"data_dir" check:"path" doc:"Folder for everything the server keeps: rooms, keys, tokens, the last good policy. Created when missing."`
	Origins   []string  `yaml:"origins" check:"origin" zero:"same host only" doc:"Web origins allowed to open a WebSocket, besides the server's own host."`
	WebSocket WebSocket `yaml:"websocket" doc:"The WebSocket protocol."`
	Proxy     Proxy     `yaml:"proxy" doc:"Proxies in front of the server that say who the client is. Nobody else is believed."`
	Rooms     []Room    `yaml:"rooms" zero:"none" doc:"Rooms created at start when they do not exist. An existing room keeps its settings."`

	Auth      Auth      `yaml:"auth" doc:"Who may connect."`
	Plugins   Plugins   `yaml:"plugins" doc:"Moderation plugins: WebAssembly modules that judge each message."`
	Evidence  Evidence  `yaml:"evidence" doc:"Originals of judged messages, for moderators: what plugins saw and said, so that a decision can be explained and tried again. Kept on the node that judged."`
	Policy    Policy    `yaml:"policy" doc:"Rego rules that decide who may do what. Without dir and git.url the built-in policy decides."`
	Redis     Redis     `yaml:"redis" doc:"The shared store of a cluster."`
	Absent    Absent    `yaml:"absent" doc:"Messages for people who are connected nowhere: who is mentioned, and the other person of a direct. Only with redis.url; platform worker webhook delivers them."`
	Cluster   Cluster   `yaml:"cluster" doc:"This node among the others that share redis.url."`
	Journal   Journal   `yaml:"journal" doc:"The log of each room: history, order and resume."`
	Limits    Limits    `yaml:"limits" doc:"Bounds on what clients may ask of the server."`
	Liveness  Liveness  `yaml:"liveness" doc:"How dead connections are found: heartbeats and TCP KeepAlive together."`
	Runtime   Runtime   `yaml:"runtime" doc:"The Go runtime. Where GOMAXPROCS, GOGC or GOMEMLIMIT is set in the environment, that variable wins."`
	Log       Log       `yaml:"log" doc:"The server's own log, on standard error."`
	Transport Transport `yaml:"transport" doc:"How connections wait."`
	Shutdown  Shutdown  `yaml:"shutdown" doc:"What happens on SIGTERM."`
}

// TCP configures the newline-delimited listener.
type TCP struct {
	Listen string `yaml:"listen" check:"addr" zero:"off" doc:"Address of the TCP listener."`
}

// Admin configures the operator's listener.
type Admin struct {
	Listen    string `yaml:"listen" check:"addr" zero:"off" doc:"Address of the admin listener. Keep it on loopback or a private network."`
	TokenFile string `yaml:"token_file" zero:"data_dir/admin.token, made at first start" doc:"File with the admin token, at least 32 bytes; nodes may share one."`
	AskPolicy bool   `yaml:"ask_policy" doc:"Whether the policy is asked about calls of the admin API as well (admin.read, admin.write). A policy that says nothing about them then refuses all but what concerns the policy itself."`
}

// TLS configures TLS of both public listeners.
type TLS struct {
	CertFile   string `yaml:"cert_file" zero:"no TLS" doc:"PEM file with the certificate, then its chain."`
	KeyFile    string `yaml:"key_file" zero:"no TLS" doc:"PEM file with the certificate's private key."`
	MinVersion string `yaml:"min_version" enum:"1.2|1.3" doc:"Oldest version of TLS that is spoken."`
	HTTP       bool   `yaml:"http" doc:"Whether the HTTP listener speaks TLS (https and wss) when there is a certificate."`
	TCP        bool   `yaml:"tcp" doc:"Whether the TCP listener speaks TLS when there is a certificate."`
}

// On reports whether there is a certificate.
func (t TLS) On() bool { return t.CertFile != "" }

// WebSocket configures what is agreed on in an upgrade.
type WebSocket struct {
	Deflate bool `yaml:"deflate" doc:"Whether messages are compressed for clients that offer permessage-deflate (RFC 7692), without context takeover: each once for everybody. It saves bytes and costs CPU and memory."`
}

// Proxy configures how clients behind proxies are known.
type Proxy struct {
	Trusted []string `yaml:"trusted" check:"cidr" zero:"nobody is believed" doc:"Networks of the proxies."`
	HTTP    string   `yaml:"http" enum:"forwarded|protocol" doc:"How they name the client on the HTTP listener: by the X-Forwarded-For header, or by the PROXY protocol (version 1 or 2), which their connections must begin with then."`
	TCP     string   `yaml:"tcp" enum:"none|protocol" doc:"How they name the client on the TCP listener: not at all, or by the PROXY protocol."`
}

// Room is a room that is ensured at start.
type Room struct {
	ID         chat.RoomID      `yaml:"id" check:"room" doc:"Name of the room."`
	Title      string           `yaml:"title" check:"title" zero:"the id is shown" doc:"Title for people."`
	Mode       state.Mode       `yaml:"mode" enum:"open|announce|read-only|archived" doc:"Who may write: everyone, moderators, nobody, nobody for good."`
	Visibility state.Visibility `yaml:"visibility" enum:"public|private" doc:"Who may find and join the room."`
	SlowModeS  int              `yaml:"slow_mode_s" min:"0" max:"21600" zero:"off" doc:"Seconds between two messages of one user."`
}

// Settings returns the room's settings as core/state knows them.
func (r Room) Settings() state.Settings {
	return state.Settings{Title: r.Title, Mode: r.Mode, Visibility: r.Visibility, SlowModeS: r.SlowModeS}
}

// RoomSettings returns the settings of the configured rooms.
func (c Config) RoomSettings() map[chat.RoomID]state.Settings {
	m := make(map[chat.RoomID]state.Settings, len(c.Rooms))
	for _, r := range c.Rooms {
		m[r.ID] = r.Settings()
	}
	return m
}

// Auth configures who may connect.
type Auth struct {
	Guests bool `yaml:"guests" doc:"Whether people may connect with a name and no token."`
	JWT    JWT  `yaml:"jwt" doc:"Signed tokens (RFC 7519)."`
}

// JWT configures token verification.
type JWT struct {
	Algorithm string `yaml:"algorithm" enum:"HS256|EdDSA|" zero:"tokens are refused" doc:"The one signature algorithm that is accepted."`
	KeyFile   string `yaml:"key_file" zero:"data_dir/jwt.key, made at first start (HS256 only)" doc:"File with the key: a secret of at least 32 bytes for HS256 (trailing line breaks do not count), a PEM public key for EdDSA."`
	Audience  string `yaml:"audience" zero:"not checked" doc:"The aud claim a token must carry."`
	Issuer    string `yaml:"issuer" zero:"not checked" doc:"The iss claim a token must carry."`
}

// Plugins configures the plugin host.
type Plugins struct {
	Dir         string     `yaml:"dir" zero:"no plugins" doc:"Folder watched for NAME.wasm with an optional NAME.json. Created when missing, if it lies in data_dir."`
	Fuel        int64      `yaml:"fuel" min:"1000" max:"1000000000" doc:"Most fuel one decision may burn: what a plugin that imports WASI gets, and the most a manifest may ask for; other plugins get 1000000. docs/plugin-abi.md says what is paid for."`
	MemoryBytes Size       `yaml:"memory_bytes" min:"64KiB" max:"64MiB" doc:"Most memory one instance may have: what a plugin that imports WASI gets, and the most a manifest may ask for; other plugins get 1MiB."`
	Max         int        `yaml:"max" min:"1" max:"64" doc:"Most plugins that are loaded. Files beyond are refused, those in force last."`
	OnError     string     `yaml:"on_error" enum:"open|closed|hold" doc:"What becomes of a message when a plugin fails and its manifest does not say: let through, refuse, hold for review."`
	Quarantine  Quarantine `yaml:"quarantine" doc:"When a plugin that keeps failing is not asked any more, and how it comes back; see docs/plugins.md."`
	// Who may sign plugins, and whether they must be signed.
	TrustedKeys      []string `yaml:"trusted_keys" check:"ed25519" zero:"nobody is trusted" doc:"Public keys of those whose signatures on plugins count."`
	RequireSignature bool     `yaml:"require_signature" doc:"Refuse plugins that none of plugins.trusted_keys signed."`
	Share            bool     `yaml:"share" doc:"With redis.url: keep plugins.dir and the rollouts the same on all nodes. What is dropped or removed at one node is dropped or removed everywhere; see docs/plugins.md."`
}

// Quarantine configures when a plugin that keeps failing is left alone.
type Quarantine struct {
	Faults     int           `yaml:"faults" min:"1" max:"64" zero:"never" doc:"People whose messages a plugin must have failed at, within the window, to be put into quarantine. However often one person makes it fail, that is one."`
	Window     time.Duration `yaml:"window" min:"1s" max:"24h" doc:"Time in which those faults count."`
	FirstProbe time.Duration `yaml:"first_probe" min:"100ms" max:"24h" doc:"Time until it is tried again, and between two tries that went well."`
	LastProbe  time.Duration `yaml:"last_probe" min:"100ms" max:"24h" doc:"Longest time between two tries; it doubles with each that fails."`
	GoodProbes int           `yaml:"good_probes" min:"1" max:"1000" doc:"Tries in a row that must go well to end the quarantine."`
}

// Evidence configures what is kept of judged messages.
type Evidence struct {
	Keep      string        `yaml:"keep" enum:"flagged|all|none" doc:"Which judged messages are kept: those that a plugin flagged, masked, held or denied, all, or none."`
	Retention time.Duration `yaml:"retention" min:"1m" max:"8760h" zero:"until max_bytes" doc:"Age at which evidence is erased."`
	MaxBytes  Size          `yaml:"max_bytes" min:"1MiB" max:"1TiB" doc:"Size of all evidence together; the oldest makes way."`

	Decisions Decisions `yaml:"decisions" doc:"The record of every decision: a hash of the text, who judged it with which module, configuration and policy, and how. No text."`
}

// Decisions configures the records of decisions.
type Decisions struct {
	Keep      bool          `yaml:"keep" doc:"Whether every message leaves a record of the decision where there are plugins: who judged it how, or that none did, and a hash of the text instead of the text."`
	Retention time.Duration `yaml:"retention" min:"1m" max:"87600h" zero:"until max_bytes" doc:"Age at which records of decisions are erased."`
	MaxBytes  Size          `yaml:"max_bytes" min:"1MiB" max:"1TiB" doc:"Size of all records of decisions together; the oldest make way."`
}

// Policy configures where the rules come from.
type Policy struct {
	Dir string `yaml:"dir" zero:"not used" doc:"Folder with Rego files, reloaded when one changes."`
	Git Git    `yaml:"git" doc:"A Git repository that is polled for new rules."`

	AllowOnError []string `yaml:"allow_on_error" check:"action" zero:"none" doc:"Actions that go ahead when the policy cannot decide about them (an error, no answer, a malformed one). All others are refused then. Each time is logged as an error."`

	Log    DecisionLog `yaml:"log" doc:"What is remembered of the policy's decisions: every refusal, and a sample of what was allowed. Kept on the node that decided."`
	Replay Replay      `yaml:"replay" doc:"Recorded decisions that a new revision is asked before it goes live, so that what it changes is known."`
	Guard  Guard       `yaml:"guard" doc:"Bounds on what a new revision may change. One beyond them is refused until an operator accepts it by name (platform policy accept)."`
}

// DecisionLog configures what is remembered of decisions.
type DecisionLog struct {
	Entries   int           `yaml:"entries" min:"16" max:"1048576" doc:"Decisions in memory, about 1 KiB each."`
	MaxBytes  Size          `yaml:"max_bytes" min:"1MiB" max:"1TiB" zero:"memory only" doc:"Size of the files in data_dir/policy-log together; the oldest makes way."`
	Retention time.Duration `yaml:"retention" min:"1m" max:"8760h" zero:"until max_bytes" doc:"Age at which a file is removed."`
	Sample    []string      `yaml:"sample" check:"sample" zero:"refusals alone" doc:"Which share of the allowed decisions is recorded, by action; * is every other action. 0 records none of that action."`
	PerMinute int           `yaml:"per_minute" min:"0" zero:"none" doc:"Allowed decisions of each action that are recorded each minute before the share counts."`
	Mask      []string      `yaml:"mask" check:"field" zero:"nothing" doc:"Fields of the input that are left out of the records of a policy that does not read them."`
	MaskRead  bool          `yaml:"mask_read" doc:"Leave them out even where the policy reads them. Such a record is marked and is never replayed."`
}

// Replay configures the preview of a new revision.
type Replay struct {
	Entries int           `yaml:"entries" min:"0" max:"100000" zero:"no replay" doc:"Newest recorded decisions that are replayed."`
	Time    time.Duration `yaml:"time" min:"10ms" max:"1m" doc:"Time for it; what does not fit is left out and counted."`
}

// Guard configures what a new revision may change.
type Guard struct {
	MaxChanged int      `yaml:"max_changed" min:"0" zero:"no bound" doc:"Replayed decisions whose answer may change."`
	MaxShare   int      `yaml:"max_share" min:"0" max:"100" zero:"no bound" doc:"Share of the replayed decisions whose answer may change, in percent. It counts from 20 replayed decisions on."`
	Keep       []string `yaml:"keep" check:"keep" zero:"nobody" doc:"Operators who must not be locked out: who, the action and maybe the room. What they may do under the policy in use they must still be allowed."`
}

// Git names a policy repository.
type Git struct {
	URL      string        `yaml:"url" check:"giturl" secret:"true" zero:"not used" doc:"Repository to poll: https, http, ssh or file URL, git@host:path, or a local folder."`
	Ref      string        `yaml:"ref" check:"gitref" doc:"Branch or tag to follow."`
	Path     string        `yaml:"path" check:"relpath" zero:"the whole repository" doc:"Folder of the policy inside the repository."`
	Interval time.Duration `yaml:"interval" min:"1s" max:"24h" doc:"Time between polls."`
	Signers  []string      `yaml:"signers" check:"path" zero:"signatures are not looked at" doc:"Files that name those of whom one must have signed the commit, or the annotated tag: lists in OpenSSH's allowed_signers format, or OpenPGP public keys. They are read again for each poll."`
	Auth     GitAuth       `yaml:"auth" doc:"How the repository's server knows who asks."`
	Webhook  GitWebhook    `yaml:"webhook" doc:"Calls of the repository's server, which make the server poll at once."`
}

// GitAuth says who asks for a private repository.
type GitAuth struct {
	User           string `yaml:"user" zero:"git" doc:"User name that goes with the token, or for ssh where the URL names none."`
	TokenFile      string `yaml:"token_file" check:"path" zero:"no token" doc:"File with the token or password for https, read for each poll."`
	TokenEnv       string `yaml:"token_env" check:"envname" zero:"no token" doc:"Environment variable with the token or password for https. Its name must not begin with PARLEY_."`
	SSHKeyFile     string `yaml:"ssh_key_file" check:"path" zero:"no ssh" doc:"Private key for ssh, without a passphrase, read for each poll."`
	KnownHostsFile string `yaml:"known_hosts_file" check:"path" zero:"no ssh" doc:"OpenSSH known_hosts file with the server's key. A server whose key is not in it is not talked to."`
	CAFile         string `yaml:"ca_file" check:"path" zero:"the system's alone" doc:"PEM file with certificates of authorities that are trusted for https, besides the system's."`
}

// GitWebhook takes calls of a Git server.
type GitWebhook struct {
	Listen     string `yaml:"listen" check:"addr" zero:"the HTTP listener, at /v1/hooks/policy" doc:"Address of a listener of its own for the webhook, which speaks TLS where the HTTP listener does."`
	SecretFile string `yaml:"secret_file" check:"path" zero:"no webhook" doc:"File with the secret that GitHub, Gitea or GitLab shares with the server, at least 16 bytes."`
	SecretEnv  string `yaml:"secret_env" check:"envname" zero:"no webhook" doc:"Environment variable with that secret. Its name must not begin with PARLEY_."`

	Debounce time.Duration `yaml:"debounce" min:"0s" max:"1m" zero:"a poll for each call" doc:"Least time between two polls that calls ask for; those that come meanwhile share one."`
}

// On reports whether calls are taken.
func (w GitWebhook) On() bool { return w.SecretFile != "" || w.SecretEnv != "" }

// Cluster configures this node's place among the others.
type Cluster struct {
	NodeName   string `yaml:"node_name" check:"nodename" zero:"the host's name" doc:"Name of this node, for operators. It stays over restarts; nodes should not share one."`
	SecretFile string `yaml:"secret_file" check:"path" zero:"nothing is sealed" doc:"File with a secret of at least 32 bytes, the same on all nodes: what they tell each other of policy, pins and plugins is sealed with it, and what is not is refused. Several, one a line: the first seals, all are taken."`
}

// Absent configures messages for absent people.
type Absent struct {
	Enabled    bool `yaml:"enabled" doc:"Whether such messages are put into the stream that workers deliver from."`
	Text       bool `yaml:"text" doc:"Whether they carry the text. It then lies in Redis outside the room, and goes to the webhook."`
	MaxEntries int  `yaml:"max_entries" min:"100" max:"100000000" doc:"How many may wait to be delivered. The oldest make way, and are counted."`
}

// Redis configures the shared store.
type Redis struct {
	URL          string `yaml:"url" check:"redisurl" secret:"true" zero:"the embedded store, one node" doc:"Redis that the nodes of a cluster share: one server, the sentinels of one, or nodes of a Redis Cluster; rediss in place of redis for TLS. See [redis.md](redis.md)."`
	PasswordFile string `yaml:"password_file" check:"path" zero:"the URL's password" doc:"File with the password of the URL's user. It is read for each connection."`
	Prefix       string `yaml:"prefix" check:"prefix" doc:"What every key and channel begins with. Installations that share a server need distinct ones."`
	// CallTimeout and MaxQueued bound what a slow server can do.
	CallTimeout time.Duration `yaml:"call_timeout" min:"100ms" max:"30s" doc:"How long one call may take; what it asked for is then answered unavailable."`
	MaxQueued   int           `yaml:"max_queued" min:"64" max:"1000000" doc:"Calls that may wait for one server or be under way; what is beyond is answered overloaded at once."`
	// MaxReplyBytes bounds what a server at Redis's address can make a node hold.
	MaxReplyBytes Size `yaml:"max_reply_bytes" min:"16MiB" max:"1GiB" doc:"Memory that what Redis answers in one round trip may take; the connection ends before it takes more."`

	Sentinel RedisSentinel `yaml:"sentinel"`
	TLS      RedisTLS      `yaml:"tls"`
}

// RedisSentinel logs in to the sentinels, which have users of their own.
type RedisSentinel struct {
	User         string `yaml:"user" zero:"the default user" doc:"User of the sentinels."`
	PasswordFile string `yaml:"password_file" check:"path" zero:"no password" doc:"File with the sentinels' password."`
}

// RedisTLS is used where the URL asks for TLS.
type RedisTLS struct {
	CAFile     string `yaml:"ca_file" check:"path" zero:"the system's" doc:"PEM file with the authorities that sign the servers' certificates."`
	CertFile   string `yaml:"cert_file" check:"path" zero:"none" doc:"PEM file with this node's own certificate, where the servers ask for one. It is read for each connection."`
	KeyFile    string `yaml:"key_file" check:"path" zero:"none" doc:"PEM file with the key of that certificate."`
	ServerName string `yaml:"server_name" zero:"the host that is connected to" doc:"Name that the servers' certificates must carry."`
}

// Journal configures the rooms' logs.
type Journal struct {
	RetentionEntries int           `yaml:"retention_entries" min:"100" zero:"no limit" doc:"Entries kept per room; the oldest go first."`
	RetentionAge     time.Duration `yaml:"retention_age" min:"1m" zero:"no limit" doc:"Age at which entries are dropped."`
	NonceWindow      time.Duration `yaml:"nonce_window" min:"10s" max:"24h" doc:"How long a resend of the same nonce gets the first answer again instead of a second message."`
	CommitWindow     time.Duration `yaml:"commit_window" min:"0s" max:"100ms" zero:"commit at once" doc:"How long the embedded store gathers messages into one disk write under load."`
}

// Limits bounds what clients may ask for.
type Limits struct {
	FrameBytes         Size          `yaml:"frame_bytes" min:"1KiB" max:"16MiB" zero:"no limit" doc:"Largest frame or line a client may send, after decompression."`
	TextBytes          Size          `yaml:"text_bytes" min:"1" max:"128KiB" zero:"no limit of its own" doc:"Longest text of a message."`
	Connections        int           `yaml:"connections" min:"0" zero:"no limit" doc:"Connections to this node."`
	ConnectionsPerIP   int           `yaml:"connections_per_ip" min:"0" zero:"no limit" doc:"Connections from one IP address (from one /64 for IPv6). 16 more may load the web client or be told why they are refused."`
	ConnectionsPerUser int           `yaml:"connections_per_user" min:"0" zero:"no limit" doc:"Connections of one user to this node."`
	AcceptsPerSecond   int           `yaml:"accepts_per_second" min:"0" zero:"no limit" doc:"New connections accepted per second."`
	HandshakeTimeout   time.Duration `yaml:"handshake_timeout" min:"100ms" max:"10m" zero:"no limit" doc:"Time a new connection has for everything up to its hello: PROXY header, TLS, HTTP upgrade and hello together."`
	PingsPerSecond     int           `yaml:"pings_per_second" min:"0" zero:"no limit" doc:"Pings and pongs of one connection per second, on average, WebSocket's and JSON's; ten seconds' worth at once. A connection above it is closed."`
	CommandsPerSecond  int           `yaml:"commands_per_second" min:"0" zero:"no limit" doc:"Commands of one connection per second, on average."`
	CommandsBurst      int           `yaml:"commands_burst" min:"1" doc:"Commands one connection may send at once before the average counts."`
	RoomsPerConnection int           `yaml:"rooms_per_connection" min:"0" zero:"no limit" doc:"Rooms one connection may have joined."`
	SendBufferBytes    Size          `yaml:"send_buffer_bytes" min:"4KiB" max:"64MiB" zero:"the kernel's own, up to the maximum in tcp_wmem" doc:"Bytes the kernel may hold for one connection that does not read (SO_SNDBUF; Linux doubles it for its own needs)."`
	LagBytes           Size          `yaml:"lag_bytes" min:"64KiB" zero:"no limit" doc:"Bytes a slow reader may fall behind before it is closed as slow_consumer."`
	LagSeconds         int           `yaml:"lag_seconds" min:"1" max:"3600" zero:"no limit" doc:"Seconds a slow reader may stand still before it is closed as slow_consumer."`
	HistoryEntries     int           `yaml:"history_entries" min:"1" max:"1000" doc:"Entries one history command may return."`
	ReviewAge          time.Duration `yaml:"review_age" min:"10s" zero:"until a moderator decides" doc:"Time a held message waits for a moderator. Then it expires: it is not posted, its text is erased and its author is told."`
}

// Liveness configures how dead peers are found.
type Liveness struct {
	Mode              liveness.Mode `yaml:"mode" enum:"ladder|ping|keepalive|both" doc:"What ends a silent connection besides the kernel: ladder weighs an overdue heartbeat against what the kernel knows of the path; ping closes as soon as one is overdue; keepalive sends heartbeats and judges none; both wants KeepAlive to have failed too, which it does not while a heartbeat is unanswered."`
	Ping              time.Duration `yaml:"ping" min:"1s" max:"1h" zero:"off" doc:"Time between two heartbeats to a connection."`
	Pong              time.Duration `yaml:"pong" min:"100ms" max:"10m" doc:"Time a client has to answer a heartbeat before it is a suspect."`
	KeepAliveIdle     time.Duration `yaml:"keepalive_idle" min:"1s" max:"2h" zero:"TCP KeepAlive off" doc:"Silence after which the kernel probes a connection."`
	KeepAliveInterval time.Duration `yaml:"keepalive_interval" min:"1s" max:"10m" doc:"Time between two probes of the kernel."`
	KeepAliveCount    int           `yaml:"keepalive_count" min:"1" max:"127" doc:"Unanswered probes after which the kernel gives a connection up."`
	UserTimeout       time.Duration `yaml:"user_timeout" min:"1s" max:"1h" zero:"the system's own" doc:"Time sent bytes may stay unacknowledged, or wait for a reader that takes nothing, before the kernel gives a connection up (TCP_USER_TIMEOUT, Linux). More than limits.lag_seconds; 0 where that is."`
}

// Runtime configures the Go runtime.
type Runtime struct {
	GOGC         int  `yaml:"gogc" min:"10" max:"10000" zero:"Go's own default" doc:"Heap growth in percent between two garbage collections."`
	MemoryLimit  Size `yaml:"memory_limit" min:"32MiB" auto:"true" zero:"no limit" doc:"Soft memory limit of the Go runtime. auto is 90 % of the cgroup's limit, where there is one."`
	AutoMaxProcs bool `yaml:"automaxprocs" doc:"Whether GOMAXPROCS follows the CPU quota of the cgroup and the CPUs that cpuset and affinity leave, looked up at start and each minute."`
	SMT          bool `yaml:"smt" doc:"Whether SMT siblings count as CPUs; off, GOMAXPROCS is at most the number of physical cores."`

	Governor Governor `yaml:"governor" doc:"Controllers that move GOMAXPROCS and GOGC with the load."`
}

// Governor configures the controllers.
type Governor struct {
	Procs string        `yaml:"procs" enum:"web|batch|mixed|" zero:"off, GOMAXPROCS is fixed" doc:"Profile by which GOMAXPROCS follows CPU use, scheduler latency and goroutines; see docs/tuning.md."`
	GC    bool          `yaml:"gc" doc:"Whether GOGC, and the memory limit where it is auto, follow live heap, connections and the cgroup's limit; see docs/tuning.md."`
	Every time.Duration `yaml:"every" min:"1s" max:"10m" doc:"Time between two decisions of a controller."`
}

// Log configures the server's log.
type Log struct {
	Level  string `yaml:"level" enum:"debug|info|warn|error" doc:"Least severe record that is written."`
	Format string `yaml:"format" enum:"text|json" doc:"Form of a record."`
}

// Handler returns a slog handler that writes to w as configured.
func (l Log) Handler(w io.Writer) slog.Handler {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		level = slog.LevelInfo // a Config that Load did not make
	}
	opts := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.NewJSONHandler(w, opts)
	}
	return slog.NewTextHandler(w, opts)
}

// Transport configures how connections wait.
type Transport struct {
	Parking bool `yaml:"parking" doc:"Whether a connection that rests gives its goroutine back and waits in epoll: 3 KiB less for each, some more CPU for each message that wakes one. Linux only; TLS connections keep theirs."`
}

// Shutdown configures the end of the process.
type Shutdown struct {
	Drain           time.Duration `yaml:"drain" min:"0s" max:"10m" zero:"at once" doc:"Time in which clients are told to reconnect elsewhere and open work is finished."`
	ReconnectJitter time.Duration `yaml:"reconnect_jitter" min:"0s" max:"10m" zero:"at once" doc:"Clients told to reconnect spread over this time."`
}

// Defaults returns the configuration of a server nobody has configured: one
// node on loopback, guests welcome, data below the working directory.
func Defaults() Config {
	return Config{
		Listen:  "127.0.0.1:8080",
		TCP:     TCP{Listen: "127.0.0.1:7070"},
		Admin:   Admin{Listen: "127.0.0.1:9090"},
		TLS:     TLS{MinVersion: "1.2", HTTP: true, TCP: true},
		DataDir: "./data",
		Proxy:   Proxy{HTTP: "forwarded", TCP: "none"},
		Rooms: []Room{
			{ID: "lobby", Title: "Lobby", Mode: state.ModeOpen, Visibility: state.Public},
			{ID: "announcements", Title: "Announcements", Mode: state.ModeAnnounce, Visibility: state.Public},
		},
		Auth: Auth{Guests: true, JWT: JWT{Algorithm: "HS256"}},
		Plugins: Plugins{
			Fuel:        50_000_000, // a Go guest burns 4-13 million on 120 bytes
			MemoryBytes: 16 << 20,   // a Go guest's heap
			Max:         8,
			OnError:     "closed",
			Share:       true,
			Quarantine:  Quarantine{Faults: 5, Window: time.Minute, FirstProbe: time.Second, LastProbe: 5 * time.Minute, GoodProbes: 3},
		},
		Evidence: Evidence{
			Keep: "flagged", Retention: 72 * time.Hour, MaxBytes: 256 << 20,
			Decisions: Decisions{Keep: true, Retention: 7 * 24 * time.Hour, MaxBytes: 128 << 20},
		},
		Policy: Policy{
			Git:    Git{Ref: "main", Interval: 4 * time.Second, Webhook: GitWebhook{Debounce: 500 * time.Millisecond}}, // a merge makes several calls
			Log:    DecisionLog{Entries: 4096, MaxBytes: 64 << 20, Retention: 7 * 24 * time.Hour, Sample: []string{"*=0.01"}, PerMinute: 60},
			Replay: Replay{Entries: 1000, Time: 2 * time.Second},
			Guard:  Guard{Keep: []string{"role:admin connect", "role:admin room.join", "role:admin moderate.review", "role:admin admin.write"}},
		},
		Redis:  Redis{Prefix: redis.Defaults().Prefix, CallTimeout: redis.Defaults().CallTimeout, MaxQueued: redis.Defaults().MaxQueued, MaxReplyBytes: Size(redis.Defaults().MaxReplyBytes)},
		Absent: Absent{Enabled: true, MaxEntries: 100_000}, // about 40 MB without texts
		Journal: Journal{
			RetentionEntries: 100_000,
			NonceWindow:      10 * time.Minute, // longer than any client keeps resending
			CommitWindow:     2 * time.Millisecond,
		},
		Limits: Limits{
			FrameBytes:         64 << 10, // one pasted log; larger content belongs in an upload
			TextBytes:          4096,
			ConnectionsPerIP:   12_000, // one loopback address may run the 10,000-client benchmark
			ConnectionsPerUser: 100,
			HandshakeTimeout:   5 * time.Second,
			PingsPerSecond:     10,
			CommandsPerSecond:  20,
			CommandsBurst:      40,
			RoomsPerConnection: 200,
			SendBufferBytes:    128 << 10, // 1,000 stalled readers hold 256 MiB at most, and not 4 GiB
			LagBytes:           4 << 20,
			LagSeconds:         30,
			HistoryEntries:     200,
			ReviewAge:          7 * 24 * time.Hour, // a moderator may be away for a weekend
		},
		Liveness: Liveness{
			Mode:              liveness.ModeLadder,
			Ping:              15 * time.Second,
			Pong:              3 * time.Second,
			KeepAliveIdle:     60 * time.Second,
			KeepAliveInterval: 10 * time.Second,
			KeepAliveCount:    3,
			UserTimeout:       45 * time.Second,
		},
		Runtime:  Runtime{GOGC: 200, MemoryLimit: Auto, AutoMaxProcs: true, SMT: true, Governor: Governor{Every: 10 * time.Second}},
		Log:      Log{Level: "info", Format: "text"},
		Shutdown: Shutdown{Drain: 10 * time.Second, ReconnectJitter: 5 * time.Second},
	}
}

// defaultRoom is what an item of rooms is decoded over.
func defaultRoom() Room {
	s := state.DefaultSettings()
	return Room{Mode: s.Mode, Visibility: s.Visibility}
}
