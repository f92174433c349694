package redis

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Config says which server to use and how long to wait for it. Decode it over
// Defaults.
type Config struct {
	// URL is redis://[user:password@]host[:port][/database], the same with
	// rediss:// for TLS, or unix:///path.
	URL string
	// Prefix begins every key and channel: 1 to 32 lower-case letters,
	// digits, '-' or '_'. Installations that share a server need distinct ones.
	Prefix string
	// DialTimeout bounds making one connection, TLS included.
	DialTimeout time.Duration
	// CallTimeout bounds one call from its start to its answer, waiting for a
	// connection included.
	CallTimeout time.Duration
	// PoolSize bounds the connections beside those that calls share: for a
	// probe, a command that blocks. Each Subscriber has one more.
	PoolSize int
	// MaxQueued and MaxQueuedBytes bound the calls that wait for one server or
	// are under way; a call beyond is ErrOverloaded at once.
	MaxQueued      int
	MaxQueuedBytes int
	// ProbeEvery is how often a Subscriber publishes to itself.
	ProbeEvery time.Duration
	// ProbeTimeout is how long a Subscriber lives without hearing its own
	// probe before it makes a new connection.
	ProbeTimeout time.Duration
}

// Defaults returns the settings for a server in the same data centre. Its URL
// is empty: there is no default server.
func Defaults() Config {
	return Config{
		Prefix:         "parley",
		DialTimeout:    time.Second,
		CallTimeout:    1500 * time.Millisecond, // a publish fails within 2 s when Redis is gone
		PoolSize:       32,
		MaxQueued:      8192,     // a tenth of a second's worth for a server that keeps up
		MaxQueuedBytes: 16 << 20, // long entries are few
		ProbeEvery:     2 * time.Second,
		ProbeTimeout:   5 * time.Second, // two probes may be lost; a dead link is found within 6 s
	}
}

const defaultPort = "6379"

// options turns the settings into go-redis's, or says which one is wrong.
func (c Config) options() (*goredis.Options, error) {
	o, err := parseURL(c.URL)
	if err != nil {
		return nil, err
	}
	if !validPrefix(c.Prefix) {
		return nil, fmt.Errorf("redis.prefix %q: want 1 to 32 lower-case letters, digits, '-' or '_'", c.Prefix)
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"dial_timeout", c.DialTimeout}, {"call_timeout", c.CallTimeout},
		{"probe_every", c.ProbeEvery}, {"probe_timeout", c.ProbeTimeout},
	} {
		if d.value <= 0 {
			return nil, fmt.Errorf("redis.%s %v: want a time above 0; without it a dead server would block for ever", d.name, d.value)
		}
	}
	if c.ProbeTimeout <= c.ProbeEvery {
		return nil, fmt.Errorf("redis.probe_timeout %v: want more than redis.probe_every %v, or every link counts as dead", c.ProbeTimeout, c.ProbeEvery)
	}
	if c.PoolSize < 1 {
		return nil, fmt.Errorf("redis.pool_size %d: want at least 1", c.PoolSize)
	}
	if c.MaxQueued < 1 || c.MaxQueuedBytes < 1 {
		return nil, fmt.Errorf("redis.max_queued %d, redis.max_queued_bytes %d: want at least 1 of both", c.MaxQueued, c.MaxQueuedBytes)
	}
	o.MaxRetries = -1        // see the package comment
	o.DialerRetries = 1      // 0 would mean five dials, each with its own timeout
	o.Protocol = 2           // RESP3 brings server pushes between replies; nothing here uses them
	o.DisableIdentity = true // two commands fewer for each connection
	o.ContextTimeoutEnabled = true
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout = c.DialTimeout, c.CallTimeout, c.CallTimeout
	o.PoolTimeout, o.PoolSize = c.CallTimeout, c.PoolSize
	o.ReadBufferSize, o.WriteBufferSize = 4<<10, 4<<10 // one entry; go-redis takes 2 x 32 KiB for each connection
	o.PipelinePoolSize = flights + bulkFlights
	o.PipelineReadBufferSize, o.PipelineWriteBufferSize = 32<<10, 32<<10 // a hundred entries; one write for most pipelines
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return o, nil
}

// parseURL reads the server's address. Its errors never show the password.
func parseURL(raw string) (*goredis.Options, error) {
	if raw == "" {
		return nil, errors.New("redis.url is empty: want redis://host:port or rediss://host:port")
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("redis.url cannot be parsed: want redis://[user:password@]host:port, with special characters in the password percent-encoded")
	}
	bad := func(format string, args ...any) (*goredis.Options, error) {
		return nil, fmt.Errorf("redis.url %q: %s", u.Redacted(), fmt.Sprintf(format, args...))
	}
	o := &goredis.Options{Network: "tcp"}
	if u.RawQuery != "" || u.Fragment != "" {
		return bad("options after '?' or '#' are not supported; use the redis.* settings")
	}
	o.Username = u.User.Username()
	o.Password, _ = u.User.Password()
	switch u.Scheme {
	case "unix":
		if u.Path == "" {
			return bad("it names no socket; want unix:///path")
		}
		o.Network, o.Addr = "unix", u.Path
		return o, nil
	case "redis":
	case "rediss":
		o.TLSConfig = &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}
	case "":
		return bad("it has no scheme; want redis://host:port, or rediss:// for TLS")
	default:
		return bad("scheme %q is unknown; want redis, rediss for TLS, or unix", u.Scheme)
	}
	if u.Hostname() == "" {
		return bad("it names no host; want %s://host:port", u.Scheme)
	}
	port := u.Port()
	if port == "" {
		port = defaultPort
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return bad("port %s is not between 1 and 65535", port)
	}
	if path := strings.Trim(u.Path, "/"); path != "" {
		if o.DB, err = strconv.Atoi(path); err != nil || o.DB < 0 {
			return bad("%q is not a database number", path)
		}
	}
	o.Addr = net.JoinHostPort(u.Hostname(), port)
	return o, nil
}

func validPrefix(s string) bool {
	if len(s) == 0 || len(s) > 32 {
		return false
	}
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}
