package redis

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

// quietLibrary silences go-redis's own logger, which writes to standard error:
// what it says comes back to the caller as an error as well.
var quietLibrary = sync.OnceFunc(logging.Disable)

// Client sends commands to the server that holds their key.
type Client struct {
	// Set at construction.
	cfg   Config
	to    target
	route *router
	log   *slog.Logger
}

// Open checks the settings and returns a client. It does not connect: a
// server that is down shows in the first call, and recovers in a later one.
func Open(cfg Config, log *slog.Logger) (*Client, error) {
	d, err := cfg.dialling()
	if err != nil {
		return nil, err
	}
	quietLibrary()
	return &Client{cfg: cfg, to: d.to, route: newRouter(d), log: log.With("redis", d.to.hosts)}, nil
}

// Close closes every connection. Calls under way fail. It may be called twice.
func (c *Client) Close() error { return c.route.close() }

// Mode says how servers are found.
func (c *Client) Mode() Mode { return c.to.mode }

// Prefix begins the keys of this installation.
func (c *Client) Prefix() string { return c.cfg.Prefix }

// ChannelPrefix begins the channels of this installation.
func (c *Client) ChannelPrefix() string {
	if c.to.db != 0 {
		return fmt.Sprintf("%s@%d", c.cfg.Prefix, c.to.db)
	}
	return c.cfg.Prefix
}

// Do sends one command to the server that holds its first key; a command
// without a key goes to any primary. The reply is nil, an int64, a string, or
// a []any of these.
func (c *Client) Do(ctx context.Context, args ...any) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	reply, addr, err := c.send(ctx, c.slot(args), args)
	return reply, fail(args[0], addr, err)
}

// slot is slotOf where slots matter.
func (c *Client) slot(args []any) int {
	if c.to.mode != Cluster {
		return anySlot
	}
	return slotOf(args)
}

// Ping reports why a server cannot be reached, or nil. In a cluster it asks
// every primary.
func (c *Client) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	return c.eachPrimary(ctx, func(s *server) error {
		return fail("ping", s.addr, c.route.learn(ctx, s, s.rdb.Ping(ctx).Err()).err)
	})
}

// eachPrimary calls f for every primary until one call fails.
func (c *Client) eachPrimary(ctx context.Context, f func(*server) error) error {
	l, err := c.route.layout(ctx)
	if err != nil {
		return fail("find the server", c.to.where(), err)
	}
	for _, s := range l.primaries {
		if err := f(s); err != nil {
			return err
		}
	}
	return nil
}

// Script is a Lua script, sent by its hash. Make it once and keep it.
type Script struct {
	name   string // for errors
	source string
	hash   string
}

// NewScript prepares a script. The name appears in errors.
func NewScript(name, source string) *Script {
	return &Script{name: name, source: source, hash: goredis.NewScript(source).Hash()}
}

// Eval runs a script: as one atomic step, or not at all. The arguments may be
// strings, byte slices and numbers. The reply is as that of Do. In a cluster
// all keys, and all channels it publishes to, must share a hash tag.
func (c *Client) Eval(ctx context.Context, s *Script, keys []string, args ...any) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	call := s.call(keys, args)
	slot := anySlot
	if c.to.mode == Cluster && len(keys) > 0 {
		slot = Slot(keys[0])
	}
	reply, addr, err := c.send(ctx, slot, call)
	if goredis.HasErrorPrefix(err, "NOSCRIPT") { // nothing ran
		call[0], call[1] = "eval", s.source
		reply, addr, err = c.send(ctx, slot, call)
	}
	return reply, fail(s.name, addr, err)
}

// call is the command that runs the script by its hash.
func (s *Script) call(keys []string, args []any) []any {
	call := make([]any, 3, 3+len(keys)+len(args))
	call[0], call[1], call[2] = "evalsha", s.hash, len(keys)
	for _, key := range keys {
		call = append(call, key)
	}
	return append(call, args...)
}

// send sends a command to the server of a slot, and on to where that server
// points: it has then done nothing. It says which server the answer is from.
func (c *Client) send(ctx context.Context, slot int, args []any) (reply any, addr string, err error) {
	l, err := c.route.layout(ctx)
	if err != nil {
		return nil, c.to.where(), err
	}
	s, err := l.at(slot)
	if err != nil {
		c.route.doubt()
		return nil, c.to.where(), err
	}
	next := lesson{server: s}
	for hop := 0; ; hop++ {
		s = next.server
		if next.asking {
			reply, err = ask(ctx, s, args)
		} else {
			reply, err = s.rdb.Do(ctx, args...).Result()
		}
		next = c.route.learn(ctx, s, err)
		if next.server == nil || hop == maxHops {
			return reply, s.addr, next.err
		}
	}
}

// maxHops bounds how often a command is sent on. A slot that moves takes two:
// to its new owner, or to the old one and from there to the new.
const maxHops = 4

// ask sends a command for a slot that is on its way to the server.
func ask(ctx context.Context, s *server, args []any) (any, error) {
	pipe := s.rdb.Pipeline()
	pipe.Do(ctx, "asking")
	cmd := pipe.Do(ctx, args...)
	_, _ = pipe.Exec(ctx) // the command has its own error
	return cmd.Result()
}

// Publish sends payload to whoever subscribes to channel at this moment.
func (c *Client) Publish(ctx context.Context, channel, payload string) error {
	_, err := c.Do(ctx, c.PublishCommand(), channel, payload)
	return err
}

// PublishCommand is the command that publishes, for scripts: a Subscriber
// hears no other. In a cluster a channel belongs to a slot as a key does, and
// only its primary carries what is published.
func (c *Client) PublishCommand() string {
	if c.to.mode == Cluster {
		return "spublish"
	}
	return "publish"
}

// Pool counts connections, for metrics.
type Pool struct {
	Total, Idle uint32 // connections open, and those of them not in use
	Timeouts    uint32 // calls that waited for a connection in vain, since Open or since the server was found
}

// Pool returns the state of the connections for commands, to all servers.
func (c *Client) Pool() (sum Pool) {
	for _, s := range c.route.known() {
		p := s.rdb.PoolStats()
		sum.Total += p.TotalConns
		sum.Idle += p.IdleConns
		sum.Timeouts += p.Timeouts
	}
	return sum
}
