package main

import (
	redisabsent "parley/core/absent/redis"
	"parley/core/metrics"
	"parley/core/session"
)

// openAbsent makes what carries messages for people who are connected nowhere,
// and tells other nodes of directs. It is nil with the embedded store: there is
// one node then, and no stream.
func (s *server) openAbsent() (session.Absent, error) {
	if s.here == nil {
		return nil, nil
	}
	c := redisabsent.Defaults()
	c.MaxEntries = s.cfg.Absent.MaxEntries
	var err error
	if s.absent, err = redisabsent.New(c, s.redis, s.here, s.log); err != nil {
		return nil, err
	}
	return s.absent, nil
}

// absentMetrics are those of messages on their way to the workers.
func (s *server) absentMetrics() []metrics.Metric {
	if s.absent == nil {
		return nil
	}
	stats := s.absent.Stats
	return []metrics.Metric{
		metrics.Counter("parley_absent_carried_total", "Messages for absent people that this node put into the stream.", func() uint64 { return stats().Carried }),
		{Name: "parley_absent_dropped_total", Help: "Messages for absent people that were lost because the stream or a room's outbox was full, as this node found.", Read: func(e metrics.Emit) {
			st := stats()
			e(float64(st.Dropped), "where", "stream")
			e(float64(st.OutboxDropped), "where", "outbox")
		}},
		metrics.Counter("parley_absent_bad_total", "What could not be read of messages for absent people, and was left out.", func() uint64 { return stats().Bad }),
		metrics.Counter("parley_absent_failures_total", "Rounds of carrying that Redis did not let go through; the next one goes on.", func() uint64 { return stats().Failed }),
		metrics.Counter("parley_absent_uncalled_total", "News of directs that other nodes were not told.", func() uint64 { return stats().Uncalled }),
		metrics.Gauge("parley_absent_waiting", "Messages for absent people in the stream, at the last look.", func() float64 { return float64(stats().Waiting) }),
	}
}
