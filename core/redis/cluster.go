package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
)

// cluster finds the primaries of a Redis Cluster: any node knows all.
type cluster struct {
	seeds []string // of the URL
}

// maxPrimaries bounds a cluster, and with it the connections. Redis itself
// advises against more than about 1,000 nodes.
const maxPrimaries = 1024

// maxAsked bounds the nodes asked in one search, each with askTimeout.
const maxAsked = 3

// find implements finder. The nodes are asked in random order, because one
// that is cut off from the others goes on telling what was.
func (c cluster) find(ctx context.Context, r *router, suspect string) (*layout, []string, error) {
	var nodes []string
	for _, s := range r.known() {
		nodes = append(nodes, s.addr)
	}
	for _, addr := range c.seeds {
		if !slices.Contains(nodes, addr) {
			nodes = append(nodes, addr)
		}
	}
	rand.Shuffle(len(nodes), func(i, k int) { nodes[i], nodes[k] = nodes[k], nodes[i] })
	if i := slices.Index(nodes, suspect); i >= 0 { // last
		nodes = append(slices.Delete(nodes, i, i+1), suspect)
	}
	var told error
	for _, addr := range nodes[:min(len(nodes), maxAsked)] {
		s, err := r.server(addr)
		if err != nil {
			return nil, nil, err
		}
		asked, cancel := context.WithTimeout(ctx, askTimeout)
		slots, err := s.rdb.Do(asked, "cluster", "slots").Slice()
		cancel()
		if err == nil {
			var l *layout
			var others []string
			if l, others, err = readSlots(r, addr, slots); err == nil {
				return l, append(others, c.seeds...), nil
			}
		}
		told = errors.Join(told, fmt.Errorf("ask %s for the slots: %w", addr, err))
	}
	return nil, nil, told
}

// close implements finder.
func (c cluster) close() error { return nil }

// readSlots makes a layout of one node's answer to CLUSTER SLOTS, and names the
// replicas. (CLUSTER SHARDS says the same, and counts dead nodes in.)
// Source: https://redis.io/docs/latest/commands/cluster-slots/
func readSlots(r *router, from string, reply []any) (*layout, []string, error) {
	if len(reply) > slotCount {
		return nil, nil, fmt.Errorf("it told %d runs of slots, more than there are slots", len(reply))
	}
	l := &layout{owner: make([]uint16, slotCount)}
	for i := range l.owner {
		l.owner[i] = noOwner
	}
	spans := make([]span, len(reply))
	for i, v := range reply {
		var err error
		if spans[i], err = readSpan(v, from); err != nil {
			return nil, nil, err
		}
	}
	// In one order always, so that two layouts can be compared.
	slices.SortFunc(spans, func(a, b span) int { return a.first - b.first })
	number := make(map[string]uint16)
	var replicas []string
	for _, span := range spans {
		addr := span.nodes[0]
		n, ok := number[addr]
		if !ok && len(l.primaries) == maxPrimaries {
			return nil, nil, fmt.Errorf("it told more than %d primaries", maxPrimaries)
		}
		if !ok {
			s, err := r.server(addr)
			if err != nil {
				return nil, nil, err
			}
			n = uint16(len(l.primaries))
			number[addr] = n
			l.primaries = append(l.primaries, s)
		}
		for slot := span.first; slot <= span.last; slot++ {
			l.owner[slot] = n
		}
		replicas = append(replicas, span.nodes[1:]...)
	}
	if len(l.primaries) == 0 {
		return nil, nil, errors.New("no node of the cluster has slots")
	}
	return l, replicas, nil
}

// span is a run of slots and the addresses of its primary and replicas.
type span struct {
	first, last int
	nodes       []string
}

// readSpan reads [first, last, [host, port, ...], ...].
func readSpan(v any, from string) (span, error) {
	list, _ := v.([]any)
	if len(list) < 3 {
		return span{}, fmt.Errorf("it told %T with %d parts for a run of slots, want a list of at least 3", v, len(list))
	}
	first, ok1 := list[0].(int64)
	last, ok2 := list[1].(int64)
	if !ok1 || !ok2 || first < 0 || last < first || last >= slotCount {
		return span{}, fmt.Errorf("it told the slots %v to %v, want numbers from 0 to %d", list[0], list[1], slotCount-1)
	}
	s := span{first: int(first), last: int(last)}
	for _, v := range list[2:] {
		node, _ := v.([]any)
		if len(node) < 2 {
			return span{}, fmt.Errorf("it told %T with %d parts for a node, want a list of at least 2", v, len(node))
		}
		host, _ := node[0].(string) // nil where it does not know its own
		port, ok := node[1].(int64)
		if !ok || port < 1 || port > 65535 {
			return span{}, fmt.Errorf("it told the port %v for a node", node[1])
		}
		s.nodes = append(s.nodes, completeAddr(net.JoinHostPort(host, strconv.FormatInt(port, 10)), from))
	}
	return s, nil
}
