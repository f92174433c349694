package redis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"parley/core/absent"
	"parley/core/chat"
	rds "parley/core/redis"
)

// Config bounds what a Carrier keeps. Decode it over Defaults.
type Config struct {
	// MaxEntries is how many entries may wait in the stream; somewhat more may
	// be held, because Redis drops them in blocks. The oldest make way.
	MaxEntries int
	// SweepEvery is how often the list of outboxes is looked through for what
	// nobody has carried.
	SweepEvery time.Duration
}

// Defaults returns the bounds for ordinary use.
func Defaults() Config { return Config{MaxEntries: 100_000, SweepEvery: 5 * time.Second} }

const (
	// carryFor is how long a carrier has an outbox to itself. A carrier that
	// takes longer, or has died, is followed by another: then a parcel may
	// arrive twice.
	carryFor = 10 * time.Second
	// carryParcels bounds the parcels moved together.
	carryParcels = 32
	// listedFor is how long a room stays listed though its outbox is empty: an
	// append that it was listed for may be under way. It is far above the
	// deadline of any call.
	listedFor = 2 * time.Minute
	// maxPoked bounds the rooms that wait to be carried; the sweep finds others.
	maxPoked = 10_000
	// pageRooms bounds the rooms that a sweep reads at a time.
	pageRooms = 256
)

// Connections knows who is connected (package presence/redis).
type Connections interface {
	Connected(context.Context, []chat.UserID) (map[chat.UserID]bool, error)
}

// Called hears that a person who is connected here is written to in a direct.
type Called func(u, from chat.UserID, id chat.RoomID, made bool)

// Carrier moves what lies in outboxes into the stream. It works while Run runs.
// Any goroutine may call its methods.
type Carrier struct {
	Connections

	// Set at construction.
	cfg    Config
	client *rds.Client
	keys   absent.Keys
	log    *slog.Logger
	name   string // of this carrier, new with each
	sub    *rds.Subscriber
	poke   chan struct{} // holds a token while a room waits
	calls  chan string   // what to tell other nodes

	called atomic.Pointer[Called]

	mu    sync.Mutex
	poked map[chat.RoomID]struct{}

	carried, dropped, outboxDropped, bad, failed, uncalled atomic.Uint64
	waiting                                                atomic.Int64
}

// Stats count what a Carrier did.
type Stats struct {
	Carried       uint64 // entries put into the stream
	Dropped       uint64 // entries that made way for these, undelivered
	OutboxDropped uint64 // parcels that an outbox had no place for
	Bad           uint64 // parcels that could not be read
	Failed        uint64 // rounds that Redis did not let go through, tried again later
	Uncalled      uint64 // calls that other nodes were not told of
	Waiting       int64  // entries in the stream at the last sweep
}

// New returns a carrier. It starts nothing.
func New(cfg Config, client *rds.Client, there Connections, log *slog.Logger) (*Carrier, error) {
	if cfg.MaxEntries < 1 || cfg.SweepEvery <= 0 {
		return nil, errors.New("absent: MaxEntries and SweepEvery must be above 0")
	}
	c := &Carrier{Connections: there, cfg: cfg, client: client, keys: absent.KeysOf(client.Prefix()), log: log,
		name: strconv.FormatUint(rand.Uint64(), 36), poke: make(chan struct{}, 1), calls: make(chan string, 256), poked: make(map[chat.RoomID]struct{})}
	c.sub = client.Subscriber((*ear)(c))
	c.sub.Subscribe(c.channel())
	return c, nil
}

// Stats returns the counts so far.
func (c *Carrier) Stats() Stats {
	return Stats{Carried: c.carried.Load(), Dropped: c.dropped.Load(), OutboxDropped: c.outboxDropped.Load(), Bad: c.bad.Load(),
		Failed: c.failed.Load(), Uncalled: c.uncalled.Load(), Waiting: c.waiting.Load()}
}

// Wrote says that the room's outbox may hold something. It does not block.
func (c *Carrier) Wrote(room chat.RoomID) {
	c.mu.Lock()
	if len(c.poked) < maxPoked {
		c.poked[room] = struct{}{}
	}
	c.mu.Unlock()
	select {
	case c.poke <- struct{}{}:
	default:
	}
}

// Run carries until ctx ends, and returns nil. Call it once.
func (c *Carrier) Run(ctx context.Context) error {
	var own sync.WaitGroup
	defer own.Wait()
	own.Go(func() { _ = c.sub.Run(ctx) })
	own.Go(func() { c.callUntil(ctx) })
	sweep := time.NewTimer(c.pause())
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.poke:
			c.note(ctx, c.carryPoked(ctx))
		case <-sweep.C:
			c.note(ctx, c.sweep(ctx))
			sweep.Reset(c.pause())
		}
	}
}

// pause spreads nodes that were started together.
func (c *Carrier) pause() time.Duration { return c.cfg.SweepEvery - rand.N(c.cfg.SweepEvery/4+1) }

func (c *Carrier) note(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		c.failed.Add(1)
		c.log.Warn("messages for absent people wait in their rooms: the next sweep goes on", slog.Any("error", err))
	}
}

func (c *Carrier) carryPoked(ctx context.Context) error {
	c.mu.Lock()
	rooms := c.poked
	c.poked = make(map[chat.RoomID]struct{})
	c.mu.Unlock()
	for room := range rooms {
		if _, err := c.carry(ctx, room); err != nil {
			return err // the rooms that are left are listed: the sweep has them
		}
	}
	return nil
}

// carry empties a room's outbox. It reports whether the outbox is empty now, as
// far as this carrier may look.
func (c *Carrier) carry(ctx context.Context, room chat.RoomID) (empty bool, err error) {
	box := []string{c.keys.Outbox(room), c.keys.Carrying(room), c.keys.Lost(room)}
	for {
		reply, err := c.client.Eval(ctx, takeScript, box, c.name, carryFor.Milliseconds(), carryParcels)
		if err != nil {
			return false, fmt.Errorf("read the outbox of %s: %w", room, err)
		}
		got, err := texts(reply)
		if err != nil || len(got) == 0 {
			return false, fmt.Errorf("read the outbox of %s: %w", room, err)
		}
		if got[0] != "1" || len(got) < 2 {
			return false, nil // another carrier has it
		}
		parcels, lost := got[2:], got[1]
		if len(parcels) == 0 && lost == "0" {
			return true, nil
		}
		if err := c.put(ctx, room, parcels, lost); err != nil {
			return false, err
		}
		args := []any{c.name, lost}
		for _, p := range parcels {
			args = append(args, p)
		}
		if _, err := c.client.Eval(ctx, takenScript, box, args...); err != nil {
			return false, fmt.Errorf("empty the outbox of %s: %w", room, err)
		}
	}
}

// put puts what is in parcels into the stream.
func (c *Carrier) put(ctx context.Context, room chat.RoomID, parcels []string, lost string) error {
	var messages, entries []any
	told, n := 0, uint64(0)
	for _, p := range parcels {
		es, err := absent.Unpack(room, p)
		if err != nil {
			c.bad.Add(1)
			c.log.Error("a message for absent people cannot be read and is left out", slog.String("room", string(room)), slog.Any("error", err))
			continue
		}
		if e := &es[0]; e.Text != "" {
			messages = append(messages, string(e.ID), string(e.From), e.Time, e.Text)
			told++
		}
		for i := range es {
			entries = es[i].AppendFields(entries)
			n++
		}
	}
	args := append(append([]any{c.cfg.MaxEntries, "dropped", lost, absent.Fields, told}, messages...), entries...)
	gone, err := c.client.Eval(ctx, putScript, []string{c.keys.Stream, c.keys.Counts, c.keys.Texts, c.keys.Uses, c.keys.Erased}, args...)
	if err != nil {
		return fmt.Errorf("put messages of %s into the stream for absent people: %w", room, err)
	}
	c.carried.Add(n)
	if k, _ := gone.(int64); k > 0 {
		c.dropped.Add(uint64(k))
		c.log.Warn("messages for absent people were dropped: the stream is full", slog.Int64("dropped", k), slog.Int("max_entries", c.cfg.MaxEntries))
	}
	if k, err := strconv.ParseUint(lost, 10, 64); err == nil {
		c.outboxDropped.Add(k)
	}
	return nil
}

// sweep carries what every listed room still has, and takes those off the list
// that have had nothing for long.
func (c *Carrier) sweep(ctx context.Context) error {
	for from := 0; ; {
		reply, err := c.client.Do(ctx, "zrange", c.keys.Rooms, from, from+pageRooms-1, "withscores")
		if err != nil {
			return fmt.Errorf("list the outboxes: %w", err)
		}
		pairs, err := texts(reply)
		if err != nil {
			return fmt.Errorf("list the outboxes: %w", err)
		}
		for i := 0; i+1 < len(pairs); i += 2 {
			room, score := chat.RoomID(pairs[i]), pairs[i+1]
			if listed, err := strconv.ParseInt(score, 10, 64); err != nil || !chat.ValidRoom(room) {
				_, _ = c.client.Do(ctx, "zrem", c.keys.Rooms, string(room))
				continue
			} else if empty, err := c.carry(ctx, room); err != nil {
				return err
			} else if empty && time.Since(time.UnixMilli(listed)) > listedFor {
				if _, err := c.client.Eval(ctx, unlistScript, []string{c.keys.Rooms}, string(room), score); err != nil {
					return fmt.Errorf("take %s off the outboxes: %w", room, err)
				}
				continue
			}
			from++
		}
		if len(pairs) < 2*pageRooms {
			break
		}
	}
	n, err := c.client.Do(ctx, "xlen", c.keys.Stream)
	if err != nil {
		return fmt.Errorf("ask how many messages for absent people wait: %w", err)
	}
	if k, ok := n.(int64); ok {
		c.waiting.Store(k)
	}
	return nil
}

// call is what a node tells the others of a direct.
type call struct {
	By   string      `json:"by"` // the carrier
	User chat.UserID `json:"user"`
	From chat.UserID `json:"from"`
	Room chat.RoomID `json:"room"`
	New  bool        `json:"new,omitempty"`
}

const maxCall = 1024 // bytes; three names of 64, each byte written as six

func (c *Carrier) channel() string { return c.client.ChannelPrefix() + ":{absent}:called" }

// OnCalled sets who hears of calls from other nodes. Call it before Run.
func (c *Carrier) OnCalled(f Called) { c.called.Store(&f) }

// Call tells other nodes that a person is written to in a direct. It does not
// block.
func (c *Carrier) Call(u, from chat.UserID, id chat.RoomID, made bool) {
	b, err := json.Marshal(call{By: c.name, User: u, From: from, Room: id, New: made})
	if err != nil {
		return // names cannot fail to encode
	}
	select {
	case c.calls <- string(b):
	default:
		c.uncalled.Add(1)
	}
}

func (c *Carrier) callUntil(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-c.calls:
			if err := c.client.Publish(ctx, c.channel(), s); err != nil {
				c.uncalled.Add(1)
			}
		}
	}
}

// ear is the Carrier as it hears other nodes.
type ear Carrier

// Message implements rds.Handler.
func (e *ear) Message(_, payload string) {
	x, err := parseCall(payload)
	if err != nil {
		(*Carrier)(e).bad.Add(1)
		return
	}
	if f := e.called.Load(); f != nil && x.By != e.name {
		(*f)(x.User, x.From, x.Room, x.New)
	}
}

// Doubt implements rds.Handler: a call that was missed is not made up for, the
// message is in the room.
func (e *ear) Doubt(string) {}

func parseCall(s string) (call, error) {
	if len(s) > maxCall {
		return call{}, fmt.Errorf("it has %d bytes, at most %d are allowed", len(s), maxCall)
	}
	var x call
	if err := json.Unmarshal([]byte(s), &x); err != nil {
		return call{}, fmt.Errorf("read its JSON: %w", err)
	}
	if !chat.ValidUser(x.User) || !chat.ValidUser(x.From) || !chat.ValidRoom(x.Room) {
		return call{}, errors.New("it names no people and room")
	}
	return x, nil
}
