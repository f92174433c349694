package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	goredis "github.com/redis/go-redis/v9"
)

// cluster finds the primaries of a Redis Cluster: any node knows all.
type cluster struct {
	seeds []string // of the URL
}

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
		slots, err := s.rdb.ClusterSlots(asked).Result()
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

// readSlots makes a layout of one node's answer, and names the replicas.
func readSlots(r *router, from string, slots []goredis.ClusterSlot) (*layout, []string, error) {
	l := &layout{owner: make([]uint16, slotCount)}
	for i := range l.owner {
		l.owner[i] = noOwner
	}
	// In one order always, so that two layouts can be compared.
	slices.SortFunc(slots, func(a, b goredis.ClusterSlot) int { return a.Start - b.Start })
	number := make(map[string]uint16)
	var replicas []string
	for _, span := range slots {
		if span.Start < 0 || span.End >= slotCount || span.Start > span.End || len(span.Nodes) == 0 {
			return nil, nil, fmt.Errorf("it names the slots %d to %d with %d nodes", span.Start, span.End, len(span.Nodes))
		}
		addr := completeAddr(span.Nodes[0].Addr, from)
		n, ok := number[addr]
		if !ok {
			s, err := r.server(addr)
			if err != nil {
				return nil, nil, err
			}
			n = uint16(len(l.primaries)) // at most slotCount
			number[addr] = n
			l.primaries = append(l.primaries, s)
		}
		for slot := span.Start; slot <= span.End; slot++ {
			l.owner[slot] = n
		}
		for _, node := range span.Nodes[1:] {
			replicas = append(replicas, completeAddr(node.Addr, from))
		}
	}
	if len(l.primaries) == 0 {
		return nil, nil, errors.New("no node of the cluster has slots")
	}
	return l, replicas, nil
}
