package decisionlog

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync/atomic"
)

// sampler says which allowed decisions are recorded: of each action the first
// few of a minute, and of the rest a share. So a small server keeps
// everything, a large one what its disk can take, and a rare action is never
// lost among a frequent one.
type sampler struct {
	perMinute int64
	rest      *quota // of actions that are not named
	named     map[string]*quota
}

// quota is what is recorded of one action.
type quota struct {
	share uint32       // of 1<<32-1
	left  atomic.Int64 // of this minute's first ones
}

// newSampler reads rules of the form "message.send=0.01"; "*" is every action
// that is not named.
func newSampler(rules []string, perMinute int) (*sampler, error) {
	s := &sampler{perMinute: int64(perMinute), rest: new(quota), named: map[string]*quota{}}
	for _, rule := range rules {
		action, text, ok := strings.Cut(rule, "=")
		share, err := strconv.ParseFloat(text, 64)
		if !ok || action == "" || err != nil || !(share >= 0 && share <= 1) {
			return nil, fmt.Errorf("policy.log.sample: %.60q is not ACTION=SHARE with a share from 0 to 1, such as message.send=0.01", rule)
		}
		q := &quota{share: uint32(share * math.MaxUint32)}
		if action == "*" {
			s.rest = q
			continue
		}
		s.named[action] = q
	}
	s.refill()
	return s, nil
}

// wants reports whether an allowed decision about action is recorded. draw is
// any evenly distributed number: the caller has one at hand.
func (s *sampler) wants(action string, draw uint32) bool {
	q := s.rest
	if len(s.named) > 0 { // a look-up is a tenth of a cached decision
		if named, ok := s.named[action]; ok {
			q = named
		}
	}
	if draw <= q.share && q.share > 0 {
		return true
	}
	// Load first: once the minute's are used up, nobody writes the line.
	return q.left.Load() > 0 && q.left.Add(-1) >= 0
}

// refill begins a minute. A share of 0 asks for none of that action.
func (s *sampler) refill() {
	fill := func(q *quota) {
		if q.share > 0 {
			q.left.Store(s.perMinute)
		}
	}
	fill(s.rest)
	for _, q := range s.named {
		fill(q)
	}
}
