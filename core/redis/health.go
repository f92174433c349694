package redis

import (
	"context"
	"fmt"
	"strings"
)

// Health says which primaries take writes.
type Health struct {
	Primaries int
	Bad       []Trouble // those that do not, in the order of their slots
	Unowned   int       // slots of a cluster that no primary has
}

// Trouble is a primary that does not take writes.
type Trouble struct {
	Addr  string
	Slots []Span // what it has of a cluster; nil: it has everything
	Err   error
}

// Span is a run of slots, both ends included.
type Span struct{ First, Last int }

// healthScript writes and publishes as every script does that keeps something.
var healthScript = NewScript("is it healthy", `redis.call('SET', KEYS[1], '1', 'PX', 10000)
return redis.call(ARGV[1], ARGV[2], '')`)

// Health has every primary write a key of its own and publish, in a script, all at
// the same time, which fails for every reason that another write would: no server, a
// replica, no memory, a full disk, a right that the user has not been given. An
// error means that the primaries are not known.
func (c *Client) Health(ctx context.Context) (Health, error) {
	l, err := c.route.layout(ctx)
	if err != nil {
		return Health{}, lost("ask for the primaries", c.to.where(), err)
	}
	h := Health{Primaries: len(l.primaries)}
	cmds := make([]Command, len(l.primaries))
	for i, s := range l.primaries {
		key := c.cfg.Prefix + ":healthy"
		if l.owner != nil {
			key = fmt.Sprintf("%s:{%s}:healthy", c.cfg.Prefix, l.tagAt(s))
		}
		cmds[i] = Command{Script: healthScript, Keys: []string{key}, Args: []any{c.PublishCommand(), key}}
	}
	for i, r := range c.Pipeline(ctx, cmds) {
		if r.Err != nil {
			h.Bad = append(h.Bad, Trouble{Addr: l.primaries[i].addr, Slots: l.spans(i), Err: r.Err})
		}
	}
	for _, i := range l.owner {
		if i == noOwner {
			h.Unowned++
		}
	}
	return h, nil
}

// tagAt returns a hash tag whose slot the primary has, "" if it has none.
func (l *layout) tagAt(s *server) string {
	return tagWhere(func(slot int) bool {
		at, err := l.at(slot)
		return err == nil && at == s
	})
}

// spans returns the slots of the primary with that number.
func (l *layout) spans(primary int) (all []Span) {
	for slot, i := range l.owner {
		if int(i) != primary {
			continue
		}
		if n := len(all); n > 0 && all[n-1].Last == slot-1 {
			all[n-1].Last = slot
		} else {
			all = append(all, Span{slot, slot})
		}
	}
	return all
}

// Err is why nothing can be written at all, or nil.
func (h Health) Err() error {
	if len(h.Bad) == 0 || len(h.Bad) < h.Primaries {
		return nil
	}
	return h.Bad[0].Err
}

// Notes say, for people, what of a cluster does not work while the rest does.
func (h Health) Notes() (notes []string) {
	if h.Err() != nil {
		return nil
	}
	for _, b := range h.Bad {
		notes = append(notes, fmt.Sprintf("%d of %d Redis primaries do not take messages: %s (%s): %v", len(h.Bad), h.Primaries, b.Addr, share(b.Slots), b.Err))
	}
	if h.Unowned > 0 {
		notes = append(notes, fmt.Sprintf("%d of %d slots of the Redis Cluster have no primary, so %s of the rooms do not take messages", h.Unowned, slotCount, percent(h.Unowned)))
	}
	return notes
}

// share names slots, and how many of the rooms they are: rooms are spread
// evenly over them.
func share(slots []Span) string {
	const most = 4
	n, list := 0, make([]string, 0, most)
	for i, s := range slots {
		n += s.Last - s.First + 1
		if i < most {
			list = append(list, fmt.Sprintf("%d-%d", s.First, s.Last))
		}
	}
	if len(slots) > most {
		list = append(list, fmt.Sprintf("and %d more", len(slots)-most))
	}
	return "slots " + strings.Join(list, ", ") + ", " + percent(n) + " of the rooms"
}

func percent(slots int) string { return fmt.Sprintf("%.3g %%", float64(slots)*100/slotCount) }

// noteBreaker logs when a server begins and ceases to answer nobody.
func (c *Client) noteBreaker(s *server, shut bool) {
	where := []any{"server", s.addr}
	if l := c.route.now.Load(); l != nil && l.owner != nil {
		for i, p := range l.primaries {
			if p == s {
				where = append(where, "of", share(l.spans(i)))
			}
		}
	}
	if shut {
		c.log.Warn("redis answers nobody; calls to it fail at once but for one that tries", where...)
		return
	}
	c.log.Info("redis answers again", where...)
}
