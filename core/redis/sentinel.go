package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"

	goredis "github.com/redis/go-redis/v9"
)

// sentinels find the primary of one service. go-redis has a client for this;
// it takes the word of the first sentinel that answers, which may be one that
// is cut off from the others, and its own subscription to their news can fall
// silent without a word.
type sentinels struct {
	service string
	all     []sentinel
}

type sentinel struct {
	addr string
	rdb  *goredis.SentinelClient
}

func newSentinels(d dialling) *sentinels {
	s := &sentinels{service: d.to.service}
	for _, addr := range d.to.hosts {
		s.all = append(s.all, sentinel{addr, goredis.NewSentinelClient(d.sentinelOptions(addr))})
	}
	return s
}

// close implements finder.
func (s *sentinels) close() error {
	var err error
	for _, one := range s.all {
		err = errors.Join(err, one.rdb.Close())
	}
	return err
}

// opinion is whom a sentinel takes for the primary.
type opinion struct {
	addr  string
	epoch int64 // of the failover that made it the primary; the highest is right
	err   error
}

// find implements finder: it asks every sentinel at once, goes by the newest
// failover that one of them knows of, and asks the server itself.
func (s *sentinels) find(ctx context.Context, r *router, _ string) (*layout, []string, error) {
	opinions := make([]opinion, len(s.all))
	var asking sync.WaitGroup
	for i, one := range s.all {
		asking.Go(func() { opinions[i] = s.ask(ctx, one) })
	}
	asking.Wait()
	best := opinion{epoch: -1}
	var told error
	for _, o := range opinions {
		told = errors.Join(told, o.err)
		if o.err == nil && o.epoch > best.epoch {
			best = o
		}
	}
	if best.addr == "" {
		return nil, nil, told
	}
	p, err := r.server(best.addr)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	role, err := p.rdb.Do(ctx, "role").Slice()
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("ask the primary %s for its role: %w", p.addr, err)
	case len(role) == 0 || role[0] != "master":
		return nil, nil, fmt.Errorf("the sentinels name %s, which is not a primary (yet)", p.addr)
	}
	return &layout{primaries: []*server{p}}, nil, nil
}

// ask asks one sentinel.
func (s *sentinels) ask(ctx context.Context, one sentinel) opinion {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	m, err := one.rdb.Master(ctx, s.service).Result()
	if err != nil && strings.Contains(err.Error(), "No such master") {
		err = fmt.Errorf("it monitors no %q, which redis.url names: %w", s.service, err)
	}
	o := opinion{addr: net.JoinHostPort(m["ip"], m["port"])}
	if err == nil {
		if o.epoch, err = strconv.ParseInt(m["config-epoch"], 10, 64); err == nil && (m["ip"] == "" || m["port"] == "") {
			err = errors.New("it told no address")
		}
	}
	if err != nil {
		o.err = fmt.Errorf("ask the sentinel %s: %w", one.addr, err)
	}
	return o
}
