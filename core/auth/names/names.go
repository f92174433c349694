// Package names keeps people's names distinct on all nodes of one Redis: no two
// guests have one name, no guest has that of a registered user, and a guest
// comes back to the name at whichever node the next connection reaches.
//
// Keys, N being a folded name with what is special in a key escaped:
//
//	PREFIX:{u:N}:name       "g NONCE": a guest's, expires Config.Hold after the last renewal
//	                        "u SECONDS": a registered user's, for good; since when, in Unix
//	                        seconds, 0 where nobody knows
//	PREFIX:{guests}:key     the key of all guests' resume secrets, in hex
//	PREFIX:{guests}:claims  channel; names that registered users have taken from guests
//
// While Redis cannot be asked a node goes by what it knows itself: people get
// in, and two nodes may give one name to two guests. When Redis answers again,
// the one who renews later is evicted. Each node says all registered users it
// knows when it begins, and again when Redis has come back without its data.
package names

import (
	"context"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"parley/core/auth"
	rds "parley/core/redis"
)

// Config says for how long names are held. Decode it over Defaults.
type Config struct {
	// Hold is how long a guest's name is kept after its node was last heard
	// of; at least as long as the guests' own grace.
	Hold time.Duration
	// Renew is how often a node says which names its guests have.
	Renew time.Duration
	// Timeout bounds the wait for Redis while somebody connects.
	Timeout time.Duration
}

// Defaults returns the times for ordinary use.
func Defaults() Config {
	return Config{Hold: 5 * time.Minute, Renew: 90 * time.Second, Timeout: time.Second}
}

var (
	//go:embed hold.lua
	holdSource string
	//go:embed own.lua
	ownSource string
	//go:embed release.lua
	releaseSource string

	holdScript    = rds.NewScript("hold a guest's name", holdSource)
	ownScript     = rds.NewScript("own a name", ownSource)
	releaseScript = rds.NewScript("release a guest's name", releaseSource)
)

// Names is auth.Names on a Redis. Its methods may be called from any goroutine.
type Names struct {
	cfg    Config
	client *rds.Client
	log    *slog.Logger
	sub    *rds.Subscriber
	away   atomic.Bool   // the last call was not answered
	lost   chan struct{} // holds a token when everything is to be said again

	mu     sync.Mutex
	guests *auth.Guests // set by Run
}

var _ auth.Names = (*Names)(nil)

// New returns names on the client's server, under the client's prefix. It asks
// nothing yet.
func New(cfg Config, client *rds.Client, log *slog.Logger) (*Names, error) {
	if cfg.Hold < 2*cfg.Renew || cfg.Renew <= 0 || cfg.Timeout <= 0 {
		return nil, fmt.Errorf("names: hold %v, renew %v, timeout %v: names must be renewed at least twice in the time they are held", cfg.Hold, cfg.Renew, cfg.Timeout)
	}
	n := &Names{cfg: cfg, client: client, log: log, lost: make(chan struct{}, 1)}
	n.Rewrite()
	n.sub = client.Subscriber(claims{n})
	n.sub.Subscribe(n.channel())
	return n, nil
}

func (n *Names) key(folded string) string {
	return n.client.Prefix() + ":{u:" + url.QueryEscape(folded) + "}:name"
}

func (n *Names) channel() string { return n.client.ChannelPrefix() + ":{guests}:claims" }

// Hold implements auth.Names.
func (n *Names) Hold(folded string, nonce [auth.NonceBytes]byte) (auth.Owner, error) {
	ctx, cancel := context.WithTimeout(context.Background(), n.cfg.Timeout)
	defer cancel()
	reply, err := n.client.Eval(ctx, holdScript, []string{n.key(folded)}, n.holdArgs(nonce)...)
	n.heard(err)
	if err != nil {
		return auth.Nobody, fmt.Errorf("hold the name %s: %w", folded, err)
	}
	return owner(reply)
}

func (n *Names) holdArgs(nonce [auth.NonceBytes]byte) []any {
	return []any{hex.EncodeToString(nonce[:]), n.cfg.Hold.Milliseconds()}
}

// Release implements auth.Names.
func (n *Names) Release(folded string, nonce [auth.NonceBytes]byte) {
	ctx, cancel := context.WithTimeout(context.Background(), n.cfg.Timeout)
	defer cancel()
	_, err := n.client.Eval(ctx, releaseScript, []string{n.key(folded)}, hex.EncodeToString(nonce[:]))
	n.heard(err)
}

// owner reads what hold.lua answers.
func owner(reply any) (auth.Owner, error) {
	switch reply {
	case "mine":
		return auth.Caller, nil
	case "guest":
		return auth.OtherGuest, nil
	case "user":
		return auth.RegisteredUser, nil
	}
	return auth.Nobody, fmt.Errorf("redis answered %.40v to a claim of a name", reply)
}

// Own makes a name a registered user's for good, who has it since the given
// time as far as this node knows, zero for longer than that, and returns since
// when on any node. A guest who has the name is evicted, on every node.
func (n *Names) Own(folded string, since time.Time) (time.Time, error) {
	ctx, cancel := context.WithTimeout(context.Background(), n.cfg.Timeout)
	defer cancel()
	c := n.owning(auth.Registered{Folded: folded, Since: since})
	reply, err := n.client.Eval(ctx, c.Script, c.Keys, c.Args...)
	n.heard(err)
	if err != nil {
		return since, fmt.Errorf("own the name %s: %w", folded, err)
	}
	return n.owned(ctx, folded, reply)
}

// owning is the command that makes a name a registered user's.
func (n *Names) owning(r auth.Registered) rds.Command {
	since := int64(0)
	if !r.Since.IsZero() {
		since = r.Since.Unix()
	}
	return rds.Command{Script: ownScript, Keys: []string{n.key(r.Folded)}, Args: []any{since}}
}

// owned takes the answer, and tells the nodes where a guest had the name.
func (n *Names) owned(ctx context.Context, folded string, reply any) (time.Time, error) {
	first, guest, err := owned(reply)
	if err != nil {
		return first, fmt.Errorf("own the name %s: %w", folded, err)
	}
	if guest {
		if err := n.client.Publish(ctx, n.channel(), folded); err != nil {
			return first, fmt.Errorf("tell the nodes that %s is a registered user: %w", folded, err)
		}
	}
	return first, nil
}

// owned reads what own.lua answers: "SECONDS", or "SECONDS guest" where a guest
// had the name.
func owned(reply any) (since time.Time, guest bool, err error) {
	text, _ := reply.(string)
	number, rest, _ := strings.Cut(text, " ")
	seconds, err := strconv.ParseInt(number, 10, 64)
	if err != nil || seconds < 0 || seconds > 1<<40 || rest != "" && rest != "guest" {
		return time.Time{}, false, fmt.Errorf("redis answered %.40v to who owns a name", reply)
	}
	if seconds > 0 {
		since = time.Unix(seconds, 0)
	}
	return since, rest == "guest", nil
}

// Registered reports whether the name is a registered user's, at any node.
func (n *Names) Registered(ctx context.Context, folded string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timeout)
	defer cancel()
	reply, err := n.client.Do(ctx, "get", n.key(folded))
	if err != nil {
		return false, fmt.Errorf("ask whose the name %s is: %w", folded, err)
	}
	text, _ := reply.(string)
	return strings.HasPrefix(text, "u "), nil
}

// Key returns the key of all nodes' guests: the one that is there, or this
// node's own, which it then is.
func (n *Names) Key(ctx context.Context, own []byte) ([]byte, error) {
	name := n.client.Prefix() + ":{guests}:key"
	if _, err := n.client.Do(ctx, "set", name, hex.EncodeToString(own), "nx"); err != nil {
		return nil, fmt.Errorf("share the guests' key: %w", err)
	}
	reply, err := n.client.Do(ctx, "get", name)
	if err != nil {
		return nil, fmt.Errorf("read the guests' key: %w", err)
	}
	text, _ := reply.(string)
	key, err := hex.DecodeString(text)
	if err != nil || len(key) < auth.MinKeyBytes || len(key) > 1024 {
		return nil, fmt.Errorf("the guests' key in redis (%s) is damaged: delete it, and one node's own takes its place", name)
	}
	return key, nil
}

// heard logs once when Redis goes away, and once when it is back.
func (n *Names) heard(err error) {
	gone := errors.Is(err, rds.ErrUnavailable) || errors.Is(err, rds.ErrOverloaded) || errors.Is(err, context.DeadlineExceeded)
	if gone == n.away.Swap(gone) {
		return
	}
	if gone {
		n.log.Warn("guests' names are this node's own until redis answers", slog.Any("error", err))
		return
	}
	n.log.Info("guests' names are shared again")
}

// Local is what one node has to say of names.
type Local struct {
	Guests *auth.Guests // nil: this node has none
	Key    []byte       // of the guests' secrets, this node's own
	// Known lists the registered users this node knows; nil for none.
	Known func() []auth.Registered
}

// Rewrite has everything said again that this node knows, because Redis came
// back without its data. It does not wait.
func (n *Names) Rewrite() {
	select {
	case n.lost <- struct{}{}:
	default:
	}
}

// Begin takes the key of all nodes' guests before anybody connects, so that a
// guest can come back at a node that has just started. It waits for Redis no
// longer than somebody who connects does; Run goes on trying.
func (n *Names) Begin(ctx context.Context, own Local) {
	if own.Guests == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timeout)
	defer cancel()
	n.share(ctx, own.Guests, own.Key)
}

// Run says which names this node's registered users and guests have, renews
// those of guests, evicts guests who have lost theirs, and hears of names that
// registered users take, until ctx ends. Call it once.
func (n *Names) Run(ctx context.Context, own Local) error {
	n.mu.Lock()
	n.guests = own.Guests
	n.mu.Unlock()
	var aside sync.WaitGroup
	defer aside.Wait()
	aside.Go(func() { _ = n.sub.Run(ctx) })
	key, shared, untold := own.Key, true, []auth.Registered(nil)
	for retry := firstRetry; ; {
		if !shared {
			key, shared = n.share(ctx, own.Guests, key)
		}
		untold = n.tell(ctx, untold)
		wait := n.cfg.Renew
		if shared && len(untold) == 0 {
			retry = firstRetry
		} else {
			wait, retry = min(retry, wait), 2*retry
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.lost:
			shared = own.Guests == nil
			if own.Known != nil {
				untold = own.Known()
			}
		case <-time.After(wait):
			if own.Guests != nil {
				n.renew(ctx, own.Guests)
			}
		}
	}
}

// firstRetry is the first wait for a Redis that does not answer, doubled each
// time.
const firstRetry = 250 * time.Millisecond

// share makes the key of all nodes the guests', and reports whether it could.
func (n *Names) share(ctx context.Context, guests *auth.Guests, key []byte) ([]byte, bool) {
	all, err := n.Key(ctx, key)
	if err != nil {
		if ctx.Err() == nil {
			n.log.Warn("guests can come back at this node alone until redis answers", slog.Any("error", err))
		}
		return key, false
	}
	guests.Share(all)
	return all, true
}

// tell makes the names registered users', and returns what Redis did not take.
func (n *Names) tell(ctx context.Context, all []auth.Registered) (untold []auth.Registered) {
	for len(all) > 0 && ctx.Err() == nil {
		batch := all[:min(renewBatch, len(all))]
		cmds := make([]rds.Command, len(batch))
		for i, r := range batch {
			cmds[i] = n.owning(r)
		}
		for i, r := range n.client.Pipeline(ctx, cmds) {
			err := r.Err
			if err == nil {
				_, err = n.owned(ctx, batch[i].Folded, r.Value)
			}
			n.heard(err)
			if errors.Is(err, rds.ErrUnavailable) || errors.Is(err, rds.ErrOverloaded) {
				return all
			}
			if err != nil && ctx.Err() == nil {
				n.log.Warn("the other nodes do not know a name for a registered user's", slog.Any("error", err))
			}
		}
		all = all[len(batch):]
	}
	return all
}

// renewBatch is how many names are said at a time.
const renewBatch = 200

// renew extends the claims of all names that this node's guests have. One that
// was given back meanwhile has been claimed anew by that, and is given back again.
func (n *Names) renew(ctx context.Context, guests *auth.Guests) {
	held := guests.Held()
	defer n.releaseLeft(ctx, guests, held)
	for len(held) > 0 && ctx.Err() == nil {
		batch := held[:min(renewBatch, len(held))]
		held = held[len(batch):]
		cmds := make([]rds.Command, len(batch))
		for i, h := range batch {
			cmds[i] = rds.Command{Script: holdScript, Keys: []string{n.key(h.Folded)}, Args: n.holdArgs(h.Nonce)}
		}
		for i, r := range n.client.Pipeline(ctx, cmds) {
			n.heard(r.Err)
			if r.Err != nil {
				continue // the name is held for longer than until the next time
			}
			if who, err := owner(r.Value); err == nil && who != auth.Caller {
				guests.Lose(batch[i].Folded)
			}
		}
	}
}

// releaseLeft gives back the names of those who had one before and have left.
func (n *Names) releaseLeft(ctx context.Context, guests *auth.Guests, before []auth.Held) {
	if len(before) == 0 {
		return
	}
	now := make(map[string][auth.NonceBytes]byte, len(before))
	for _, h := range guests.Held() {
		now[h.Folded] = h.Nonce
	}
	var cmds []rds.Command
	for _, h := range before {
		if nonce, here := now[h.Folded]; !here || nonce != h.Nonce {
			cmds = append(cmds, rds.Command{Script: releaseScript, Keys: []string{n.key(h.Folded)}, Args: []any{hex.EncodeToString(h.Nonce[:])}})
		}
	}
	for batch := range slices.Chunk(cmds, renewBatch) { // one that fails ends by itself
		n.client.Pipeline(ctx, batch)
	}
}

// claims hears of names that registered users have taken.
type claims struct{ n *Names }

// Message implements rds.Handler.
func (c claims) Message(_, folded string) {
	c.n.mu.Lock()
	g := c.n.guests
	c.n.mu.Unlock()
	if g != nil {
		g.Lose(folded)
	}
}

// Doubt implements rds.Handler. A claim that was missed shows at the next
// renewal.
func (c claims) Doubt(string) {}
