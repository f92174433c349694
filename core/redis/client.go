package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

// Errors that callers branch on.
var (
	// ErrUnavailable says that no answer came, or one that says that the
	// server cannot work now. Whether the command ran is unknown.
	ErrUnavailable = errors.New("redis: unavailable")
	// ErrOverloaded says that the server refused for lack of memory or
	// connections: the command did nothing.
	ErrOverloaded = errors.New("redis: overloaded")
)

// quietLibrary silences go-redis's own logger, which writes to standard error:
// what it says comes back to the caller as an error as well.
var quietLibrary = sync.OnceFunc(logging.Disable)

// Client sends commands to one Redis server.
type Client struct {
	// Set at construction.
	cfg Config
	rdb *goredis.Client
	log *slog.Logger

	pipes pipes

	closeOnce sync.Once
	closeErr  error
}

// Open checks the settings and returns a client. It does not connect: a
// server that is down shows in the first call, and recovers in a later one.
func Open(cfg Config, log *slog.Logger) (*Client, error) {
	o, err := cfg.options()
	if err != nil {
		return nil, err
	}
	quietLibrary()
	c := &Client{cfg: cfg, rdb: goredis.NewClient(o), log: log.With("redis", o.Addr)}
	c.pipes.client = c
	return c, nil
}

// Close closes every connection. Calls under way fail. It may be called twice.
func (c *Client) Close() error {
	c.closeOnce.Do(func() {
		c.pipes.close()
		c.closeErr = c.rdb.Close()
		c.pipes.flying.Wait()
	})
	return c.closeErr
}

// Prefix begins the keys of this installation.
func (c *Client) Prefix() string { return c.cfg.Prefix }

// ChannelPrefix begins the channels of this installation.
func (c *Client) ChannelPrefix() string {
	if db := c.rdb.Options().DB; db != 0 {
		return fmt.Sprintf("%s@%d", c.cfg.Prefix, db)
	}
	return c.cfg.Prefix
}

// Ping reports why the server cannot be reached, or nil.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.Do(ctx, "ping")
	return err
}

// Script is a Lua script, sent by its hash. Make it once and keep it.
type Script struct {
	name   string // for errors
	source string
	bulk   bool
	script *goredis.Script
}

// NewScript prepares a script. The name appears in errors.
func NewScript(name, source string) *Script {
	return &Script{name: name, source: source, script: goredis.NewScript(source)}
}

// Bulk marks a script whose replies are large: few of them travel together, and
// apart from other calls. It returns the script.
func (s *Script) Bulk() *Script {
	s.bulk = true
	return s
}

// Publish sends payload to whoever subscribes to channel at this moment.
func (c *Client) Publish(ctx context.Context, channel, payload string) error {
	_, err := c.Do(ctx, "publish", channel, payload)
	return err
}

// Pool counts connections, for metrics.
type Pool struct {
	Total, Idle uint32 // connections open, and those of them not in use
	Timeouts    uint32 // calls that waited for a connection in vain, since Open
}

// Pool returns the state of the connections for commands.
func (c *Client) Pool() Pool {
	s := c.rdb.PoolStats()
	p := Pool{Total: s.TotalConns, Idle: s.IdleConns, Timeouts: s.Timeouts}
	if shared := s.PipelineStats; shared != nil {
		p.Total, p.Idle, p.Timeouts = p.Total+shared.TotalConns, p.Idle+shared.IdleConns, p.Timeouts+shared.Timeouts
	}
	return p
}

// fail sorts an error of go-redis into this package's kinds.
func (c *Client) fail(what any, err error) error {
	if err == nil || errors.Is(err, goredis.Nil) {
		return nil
	}
	var reply goredis.Error
	if !errors.As(err, &reply) { // no answer: the network, a deadline, a closed client
		return fmt.Errorf("redis %v at %s: %w: %w", what, c.rdb.Options().Addr, ErrUnavailable, err)
	}
	text := reply.Error()
	switch {
	// Inside a script the reply begins with the script's name before Redis 7.
	case strings.Contains(text, "OOM command not allowed"):
		return fmt.Errorf("redis %v: %w: the server is at its maxmemory, raise it or shorten retention: %w", what, ErrOverloaded, err)
	case strings.Contains(text, "max number of clients reached"):
		return fmt.Errorf("redis %v: %w: the server has no connection left, raise its maxclients or lower redis.pool_size: %w", what, ErrOverloaded, err)
	}
	for _, state := range unavailable {
		if strings.Contains(text, state) {
			return fmt.Errorf("redis %v: %w: %w", what, ErrUnavailable, err)
		}
	}
	return fmt.Errorf("redis %v: %w", what, err)
}

// unavailable are the error codes that speak of the server's state and not of
// the command.
// Source: https://github.com/redis/redis/blob/7.0/src/server.c, createSharedObjects.
var unavailable = []string{
	"LOADING ", "READONLY ", "MASTERDOWN ", "NOREPLICAS ", "MISCONF ", "BUSY ", "CLUSTERDOWN ", "TRYAGAIN ",
	"NOAUTH ", "WRONGPASS ", "NOPERM ",
}
