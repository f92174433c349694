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

	pipes pipes

	closing sync.Once
	closed  error
}

// Open checks the settings and returns a client. It does not connect: a
// server that is down shows in the first call, and recovers in a later one.
func Open(cfg Config, log *slog.Logger) (*Client, error) {
	d, err := cfg.dialling()
	if err != nil {
		return nil, err
	}
	return newClient(d, log), nil
}

func newClient(d dialling, log *slog.Logger) *Client {
	quietLibrary()
	c := &Client{cfg: d.cfg, to: d.to, log: log.With("redis", d.to.hosts)}
	c.route = newRouter(d, c.noteBreaker)
	c.pipes.client = c
	return c
}

// Close closes every connection. Calls under way fail. It may be called twice.
func (c *Client) Close() error {
	c.closing.Do(func() {
		c.pipes.close()
		c.closed = c.route.close()
		c.pipes.flying.Wait()
	})
	return c.closed
}

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

// Ping reports why a server cannot be reached, or nil. In a cluster it asks
// every primary.
func (c *Client) Ping(ctx context.Context) error {
	if c.to.mode != Cluster {
		_, err := c.Do(ctx, "ping")
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	primaries, err := c.primaries(ctx)
	if err != nil {
		return err
	}
	for _, s := range primaries {
		err := s.rdb.Ping(ctx).Err()
		s.noteAnswer(err)
		c.route.learn(ctx, s, err)
		if err != nil {
			return fail("ping", s.addr, err)
		}
	}
	return nil
}

// primaries returns every primary.
func (c *Client) primaries(ctx context.Context) ([]*server, error) {
	l, err := c.route.layout(ctx)
	if err != nil {
		return nil, lost("ask for the primaries", c.to.where(), err)
	}
	return l.primaries, nil
}

// Script is a Lua script, sent by its hash. Make it once and keep it.
type Script struct {
	name   string // for errors
	source string
	hash   string
	bulk   bool
	alone  bool // with bulk
}

// NewScript prepares a script. The name appears in errors.
func NewScript(name, source string) *Script {
	return &Script{name: name, source: source, hash: goredis.NewScript(source).Hash()}
}

// Bulk marks a script whose replies are large: few of them travel together, and
// apart from other calls. It returns the script.
func (s *Script) Bulk() *Script {
	s.bulk = true
	return s
}

// Alone marks a script of which a few replies together may take more than
// Config.MaxReplyBytes: each travels by itself, apart from other calls. It returns
// the script.
func (s *Script) Alone() *Script {
	s.bulk, s.alone = true, true
	return s
}

// slot is the slot of a command, where slots matter.
func (c *Client) slot(args []any) int {
	if c.to.mode != Cluster {
		return anySlot
	}
	return slotOf(args)
}

// direct sends one command to the server of a slot, past whatever waits. It
// says which server the answer is from.
func (c *Client) direct(ctx context.Context, slot int, args []any) (reply any, addr string, err error) {
	s, err := c.route.find(ctx, slot)
	if err != nil {
		return nil, c.to.where(), lost(args[0], c.to.where(), err)
	}
	reply, err = s.rdb.Do(ctx, args...).Result()
	s.noteAnswer(err)
	return c.follow(ctx, s, args, reply, err)
}

// follow sends a command on while the answer only says where to: nothing has
// been done then.
func (c *Client) follow(ctx context.Context, s *server, args []any, reply any, err error) (any, string, error) {
	for hop := 0; ; hop++ {
		next := c.route.learn(ctx, s, err)
		if next.server == nil || hop == maxHops {
			return reply, s.addr, next.err
		}
		s = next.server
		if next.asking {
			reply, err = ask(ctx, s, args)
		} else {
			reply, err = s.rdb.Do(ctx, args...).Result()
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
	_, told := pipe.Exec(ctx)
	reply, err := cmd.Result()
	if reply == nil && err == nil { // not answered: it has no error of its own
		err = told
	}
	return reply, err
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
		if shared := p.PipelineStats; shared != nil {
			sum.Total += shared.TotalConns
			sum.Idle += shared.IdleConns
			sum.Timeouts += shared.Timeouts
		}
	}
	return sum
}
