package main

import (
	"parley/core/metrics"
	"parley/core/presence"
	redispresence "parley/core/presence/redis"
	"parley/core/session"
)

// openPresence makes who is here known: on this node, and where others share
// the Redis, on them. people is nil where there are no others.
func (s *server) openPresence() (people session.People, err error) {
	s.presence = presence.New()
	if s.nodes == nil {
		return nil, nil
	}
	s.here, err = redispresence.New(redispresence.Defaults(), s.redis, s.nodes, s.presence, s.log)
	return s.here, err
}

// presenceMetrics are those of what nodes tell each other about who is here.
func (s *server) presenceMetrics() []metrics.Metric {
	if s.here == nil {
		return nil
	}
	stats := s.here.Stats
	return []metrics.Metric{
		metrics.Gauge("parley_presence_rooms", "Rooms whose members on other nodes this node follows.", func() float64 { return float64(stats().Rooms) }),
		metrics.Gauge("parley_presence_users", "Users connected to this node.", func() float64 { return float64(stats().Users) }),
		metrics.Counter("parley_presence_writes_total", "Registers of rooms and entries of users written to Redis.", func() uint64 { return stats().Written }),
		metrics.Counter("parley_presence_hints_total", "What other nodes said of who is where and who writes.", func() uint64 { return stats().Hints }),
		metrics.Counter("parley_presence_reads_total", "Rooms read from Redis.", func() uint64 { return stats().Read }),
		metrics.Counter("parley_presence_bad_total", "What other nodes said that could not be read and was ignored.", func() uint64 { return stats().Bad }),
		metrics.Counter("parley_presence_typing_dropped_total", "News of who writes that other nodes were not told.", func() uint64 { return stats().Dropped }),
	}
}
