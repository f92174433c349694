package main

import (
	redisjournal "parley/core/journal/redis"
	"parley/core/metrics"
)

// redisMetrics are those of the journal on Redis, where that is the store.
func (s *server) redisMetrics() []metrics.Metric {
	j, ok := s.journal.(*redisjournal.Journal)
	if !ok {
		return nil
	}
	return []metrics.Metric{
		metrics.Counter("parley_redis_calls_total", "Commands and scripts sent to Redis.", func() uint64 { return j.Calls().Calls }),
		metrics.Counter("parley_redis_batches_total", "Round trips they were sent in.", func() uint64 { return j.Calls().Batches }),
		metrics.Counter("parley_redis_refused_total", "Calls refused as overloaded because too many waited for Redis.", func() uint64 { return j.Calls().Refused }),
		metrics.Gauge("parley_redis_waiting", "Calls that wait for Redis or are under way.", func() float64 { return float64(j.Calls().Waiting) }),
		metrics.Counter("parley_redis_links_total", "Connections made for other nodes' entries; those beyond parley_redis_links replaced lost ones.", func() uint64 { return j.Subscription().Links }),
		metrics.Gauge("parley_redis_links", "Connections kept for other nodes' entries: one, or in a cluster one to each primary that has a room somebody is in.", func() float64 { return float64(j.Subscription().Open) }),
		metrics.Counter("parley_redis_tops_compared_total", "Times a room's newest entry was compared with the store's.", func() uint64 { return j.Sweeps().Compared }),
		metrics.Counter("parley_redis_tops_missed_total", "Of them, those where the room had missed entries though its link lives, or the store had lost some.", func() uint64 { return j.Sweeps().Missed }),
		metrics.Counter("parley_redis_swept_total", "Rooms this node looked at for entries above journal.retention_age.", func() uint64 { return j.Sweeps().Swept }),
	}
}
