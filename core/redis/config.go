package redis

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Config says which servers to use and how long to wait for them. Decode it
// over Defaults.
type Config struct {
	// URL is one of
	//	redis://[user:password@]host[:port][/database]
	//	redis-sentinel://[user:password@]host[:port],.../SERVICE[/database]
	//	redis-cluster://[user:password@]host[:port],...
	//	unix://[user:password@]/path
	// or one of the first three with rediss in place of redis, for TLS. The
	// hosts are sentinels, or some nodes of the cluster; the others are found
	// through them.
	URL string
	// PasswordFile holds the password in place of the URL.
	PasswordFile string
	// SentinelUser and SentinelPasswordFile log in to the sentinels, which do
	// not know the users of the servers; "" where they ask for nothing.
	SentinelUser, SentinelPasswordFile string
	// TLS is used where the URL asks for TLS, sentinels included.
	TLS TLS
	// Prefix begins every key and channel: 1 to 32 lower-case letters,
	// digits, '-' or '_'. Installations that share a server need distinct ones.
	Prefix string
	// DialTimeout bounds making one connection, TLS included.
	DialTimeout time.Duration
	// CallTimeout bounds one call from its start to its answer, waiting for a
	// connection included.
	CallTimeout time.Duration
	// PoolSize bounds the connections to one server beside those that calls
	// share: for a probe, a command that blocks. Each Subscriber has one more
	// for each server that it listens to.
	PoolSize int
	// MaxQueued and MaxQueuedBytes bound the calls that wait for one server or
	// are under way; a call beyond is ErrOverloaded at once.
	MaxQueued      int
	MaxQueuedBytes int
	// MaxReplyBytes bounds what the replies of one round trip, or one published
	// message, may take in memory; more is ErrReply and ends the connection.
	MaxReplyBytes int
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
		MaxReplyBytes:  64 << 20, // 512 nodes with the largest record each take half of it
		ProbeEvery:     2 * time.Second,
		ProbeTimeout:   5 * time.Second, // two probes may be lost; a dead link is found within 6 s
	}
}

// check reports the first setting that cannot work.
func (c Config) check() error {
	if err := CheckPrefix(c.Prefix); err != nil {
		return fmt.Errorf("redis.prefix %q %w", c.Prefix, err)
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"dial_timeout", c.DialTimeout}, {"call_timeout", c.CallTimeout},
		{"probe_every", c.ProbeEvery}, {"probe_timeout", c.ProbeTimeout},
	} {
		if d.value <= 0 {
			return fmt.Errorf("redis.%s %v: want a time above 0; without it a dead server would block for ever", d.name, d.value)
		}
	}
	if c.ProbeTimeout <= c.ProbeEvery {
		return fmt.Errorf("redis.probe_timeout %v: want more than redis.probe_every %v, or every link counts as dead", c.ProbeTimeout, c.ProbeEvery)
	}
	if c.PoolSize < 1 {
		return fmt.Errorf("redis.pool_size %d: want at least 1", c.PoolSize)
	}
	if c.MaxReplyBytes < 1 {
		return fmt.Errorf("redis.max_reply_bytes %d: want at least 1", c.MaxReplyBytes)
	}
	if c.MaxQueued < 1 || c.MaxQueuedBytes < 1 {
		return fmt.Errorf("redis.max_queued %d, redis.max_queued_bytes %d: want at least 1 of both", c.MaxQueued, c.MaxQueuedBytes)
	}
	return nil
}

// dialling is what every connection is made with.
type dialling struct {
	cfg             Config
	to              target
	tls             *tls.Config // nil: no TLS
	login, sentinel login
}

// dialling reads the address and the files, or says which setting is wrong.
// Its errors never show a password.
func (c Config) dialling() (d dialling, err error) {
	if err := c.check(); err != nil {
		return d, err
	}
	d.cfg = c
	if d.to, err = parseURL(c.URL); err != nil {
		return d, fmt.Errorf("redis.url %w", err)
	}
	switch {
	case d.to.tls:
		if d.tls, err = c.TLS.config(); err != nil {
			return d, err
		}
	case c.TLS != TLS{}:
		return d, errors.New("redis.tls is set, and redis.url asks for no TLS: write rediss in place of redis")
	}
	if d.login, err = newLogin("redis.password_file", d.to.user, d.to.password, c.PasswordFile); err != nil {
		return d, err
	}
	if d.to.mode != Sentinel && (c.SentinelUser != "" || c.SentinelPasswordFile != "") {
		return d, errors.New("redis.sentinel is set, and redis.url names no sentinels: want redis-sentinel://h1,h2,h3/SERVICE")
	}
	d.sentinel, err = newLogin("redis.sentinel.password_file", c.SentinelUser, "", c.SentinelPasswordFile)
	return d, err
}

// options are go-redis's for one server.
func (d dialling) options(addr string) *goredis.Options {
	c := d.cfg
	return &goredis.Options{
		Network: d.to.network, Addr: addr, DB: d.to.db, Dialer: d.dial, CredentialsProviderContext: d.login,
		MaxRetries:            -1,   // see the package comment
		DialerRetries:         1,    // 0 would mean five dials, each with its own timeout
		Protocol:              2,    // RESP3 brings server pushes between replies; nothing here uses them
		DisableIdentity:       true, // two commands fewer for each connection
		ContextTimeoutEnabled: true,
		DialTimeout:           c.DialTimeout, ReadTimeout: c.CallTimeout, WriteTimeout: c.CallTimeout,
		PoolTimeout: c.CallTimeout, PoolSize: c.PoolSize,
		ReadBufferSize: 4 << 10, WriteBufferSize: 4 << 10, // one entry; go-redis takes 2 x 32 KiB for each connection
		PipelinePoolSize:       flights + bulkFlights,
		PipelineReadBufferSize: 32 << 10, PipelineWriteBufferSize: 32 << 10, // a hundred entries; one write for most pipelines
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

// sentinelOptions are go-redis's for one sentinel, which is asked one question
// at a time.
func (d dialling) sentinelOptions(addr string) *goredis.Options {
	o := d.options(addr)
	o.DB, o.PoolSize, o.PipelinePoolSize, o.CredentialsProviderContext = 0, 1, 0, d.sentinel
	return o
}

// CheckPrefix reports what is wrong with a Config.Prefix. The error continues a
// sentence that begins with it.
func CheckPrefix(s string) error {
	if len(s) == 0 || len(s) > 32 || strings.ContainsFunc(s, func(c rune) bool {
		return !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_')
	}) {
		return errors.New("is no prefix; want 1 to 32 lower-case letters, digits, '-' or '_'")
	}
	return nil
}
