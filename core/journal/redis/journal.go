package redis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"parley/core/absent"
	"parley/core/chat"
	"parley/core/journal"
	rds "parley/core/redis"
)

// Config bounds what the journal keeps of each room. Decode it over Defaults.
type Config struct {
	// MaxEntries is how many of the newest entries a room keeps; somewhat
	// more may be held, because Redis drops them in blocks. 0 keeps all.
	MaxEntries int
	// MaxAge is how long an entry is kept; it may be held for up to
	// SweepEvery longer. 0 keeps all.
	MaxAge time.Duration
	// NonceWindow is how long the answer to a nonce is kept.
	NonceWindow time.Duration
	// SweepEvery is how often MaxAge is applied to the rooms, by one of the
	// nodes.
	SweepEvery time.Duration
	// TopsEvery is how often each watched room's top is compared with the
	// store's.
	TopsEvery time.Duration
	// NotifyText puts the text of a message into the news for absent people.
	NotifyText bool
}

// Defaults returns the bounds for ordinary use.
func Defaults() Config {
	return Config{
		MaxEntries:  100_000,
		NonceWindow: 10 * time.Minute, // longer than any client goes on resending
		SweepEvery:  time.Minute,
		TopsEvery:   time.Minute,
	}
}

func (c Config) check() error {
	switch {
	case c.MaxEntries < 0:
		return fmt.Errorf("journal max_entries %d: want 0 for all, or more", c.MaxEntries)
	case c.MaxAge < 0:
		return fmt.Errorf("journal max_age %v: want 0 for no limit, or more", c.MaxAge)
	case c.NonceWindow < time.Millisecond:
		return fmt.Errorf("journal nonce_window %v: want at least 1ms; without it a resend is stored twice", c.NonceWindow)
	case c.TopsEvery <= 0:
		return fmt.Errorf("journal tops_every %v: want more than 0; without it a lost hint may leave a room behind", c.TopsEvery)
	case c.SweepEvery <= 0 && c.MaxAge > 0:
		return fmt.Errorf("journal sweep_every %v: want more than 0 while max_age is set", c.SweepEvery)
	}
	return nil
}

var (
	//go:embed append.lua
	appendSource string
	//go:embed read.lua
	readSource string
	//go:embed info.lua
	infoSource string
	//go:embed lookup.lua
	lookupSource string
	//go:embed trim.lua
	trimSource string

	appendScript = rds.NewScript("journal append", appendSource)
	readScript   = rds.NewScript("journal read", readSource).Bulk()
	infoScript   = rds.NewScript("journal info", infoSource).Bulk()
	lookupScript = rds.NewScript("journal lookup", lookupSource)
	trimScript   = rds.NewScript("journal trim", trimSource)
)

// Journal is journal.Journal on one Redis server. It works while Run runs;
// without it appends and reads work too, but watchers hear of other nodes'
// entries never.
type Journal struct {
	// Set at construction.
	cfg    Config
	client *rds.Client
	absent absent.Keys
	log    *slog.Logger
	sub    *rds.Subscriber
	bufs   sync.Pool // *[]byte

	watches watches
	turns   turns // of copying a room's log

	compared, missed, swept atomic.Uint64 // see Sweeps
	health                  atomic.Pointer[rds.Health]

	mu     sync.Mutex
	closed bool
	calls  sync.WaitGroup     // calls and Run, while not closed
	ctx    context.Context    // ends with Close; Run's lifetime
	stop   context.CancelFunc // ends ctx
}

var (
	_ journal.Journal = (*Journal)(nil)
	_ journal.Renewer = (*Journal)(nil)
)

// New returns a journal on the client's server, under the client's prefix. It
// starts nothing and asks the server nothing. The client stays the caller's:
// close it after the journal.
func New(cfg Config, client *rds.Client, log *slog.Logger) (*Journal, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	j := &Journal{cfg: cfg, client: client, absent: absent.KeysOf(client.Prefix()), log: log}
	j.bufs.New = func() any { b := make([]byte, 0, 1024); return &b }
	j.watches.init(client.ChannelPrefix())
	j.sub = client.Subscriber(&j.watches)
	j.watches.sub = j.sub
	j.ctx, j.stop = context.WithCancel(context.Background())
	return j, nil
}

// Run hears of other nodes' entries, compares tops and applies MaxAge until ctx
// ends or the journal is closed, and returns nil. Call it once.
func (j *Journal) Run(ctx context.Context) error {
	if err := j.begin(); err != nil {
		return nil
	}
	defer j.calls.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(j.ctx, cancel)()
	var aside sync.WaitGroup
	defer aside.Wait()
	aside.Go(func() { j.advise(ctx) })
	aside.Go(func() { j.compareUntil(ctx) })
	if j.cfg.MaxAge > 0 {
		aside.Go(func() { j.sweepUntil(ctx) })
	}
	return j.sub.Run(ctx)
}

// advise logs once what in the server's settings endangers the log.
func (j *Journal) advise(ctx context.Context) {
	advice, err := j.client.Advice(ctx)
	if err != nil && ctx.Err() == nil {
		j.log.Warn("redis cannot be asked for its settings", "error", err)
	}
	for _, sentence := range advice {
		j.log.Warn("redis endangers the journal", "advice", sentence)
	}
}

// Subscription describes the link that other nodes' entries come by, for
// metrics.
func (j *Journal) Subscription() rds.SubscriberStats { return j.sub.Stats() }

// Calls describes how the journal's server is called, for metrics.
func (j *Journal) Calls() rds.PipeStats { return j.client.Pipes() }

// Close ends Run and waits for it and for the calls under way, each of which
// ends within the client's call timeout.
func (j *Journal) Close() error {
	j.mu.Lock()
	j.closed = true
	j.mu.Unlock()
	j.stop()
	j.calls.Wait()
	return nil
}

// begin admits a call, which ends with calls.Done.
func (j *Journal) begin() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return fmt.Errorf("%w: it is closed", journal.ErrUnavailable)
	}
	j.calls.Add(1)
	return nil
}

// Healthy reports why the journal cannot append at present, or nil. It writes
// a key of its own to each primary. While one of them takes it, nil: what stops
// the rooms of one must not stop all. Notes tells of the others.
func (j *Journal) Healthy(ctx context.Context) error {
	if err := j.begin(); err != nil {
		return err
	}
	defer j.calls.Done()
	h, err := j.client.Health(ctx)
	if err == nil {
		err = h.Err()
		j.health.Store(&h)
	}
	return fail("check health", err)
}

// Notes say which rooms could not be appended to at the last call of Healthy,
// while others could.
func (j *Journal) Notes() []string {
	if h := j.health.Load(); h != nil {
		return h.Notes()
	}
	return nil
}

// roomPrefix begins the keys of one room.
func (j *Journal) roomPrefix(room chat.RoomID) string {
	return j.client.Prefix() + ":{" + string(room) + "}:"
}

// fail gives an error of the client the journal's meaning. Whatever is not
// known to be harmless leaves the outcome unknown.
func fail(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rds.ErrOverloaded):
		return fmt.Errorf("%s: %w: %w", what, journal.ErrOverloaded, err)
	}
	return fmt.Errorf("%s: %w: %w", what, journal.ErrUnavailable, err)
}

// texts takes a reply that must be a list of strings.
func texts(reply any) ([]string, error) {
	list, ok := reply.([]any)
	if !ok && reply != nil {
		return nil, fmt.Errorf("redis answered %T, want a list", reply)
	}
	out := make([]string, len(list))
	for i, v := range list {
		if out[i], ok = v.(string); !ok {
			return nil, fmt.Errorf("redis answered %T at %d, want a string", v, i)
		}
	}
	return out, nil
}
